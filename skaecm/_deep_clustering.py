"""`DeepAEClustering`: the clustering module inside a deep autoencoder (AE-CM)."""

import copy
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import check_memory

from . import _initialization as starts
from ._base import STEPS_PER_EPOCH, BaseModuleClusterer, make_module
from ._checks import (
    check_hidden_sizes,
    check_picklable,
    check_precision,
    check_same,
    fitted_centers,
    fitted_init,
    init_centers,
    strengths,
    warn_about_width,
)
from ._data import Data
from ._deep_fitted import BaseDeepFitted
from ._deep_start import (
    codes,
    connected_start,
    design,
    embed,
    embed_centers,
    near_in_code,
    posterior_start,
    towards_sizes,
    train_alone,
)
from ._learned import learned_by_deep
from ._modules import Autoencoder, ClusteringModule, ClusteringNetwork, DeepNetwork, Description
from ._pretraining import Recipe, pretrain_once
from ._progress import UNWATCHED, Watch

# Epochs of the module alone, as published.
MODULE_EPOCHS = 100
# Of the epochs of pretraining, those before neighbours are sought in the code, and most with them.
SHARES = 0.4, 0.25

# The default strength of the prior, times k: in balance, a cluster's pull on one row.
ALPHA_TIMES_K = 0.5

# The "auto" of `tol`: without neighbours, in pretraining with them, in joint training with them.
TOL, CODE_TOL, NEIGHBOURS_TOL = 1e-3, 1e-2, 3e-2


class DeepAEClustering(BaseDeepFitted, BaseModuleClusterer):
    """Joint clustering and embedding by an autoencoder with a clustering module.

    The embedding and the clustering are learned together (AE-CM) [1]_. With ``z = f(x)`` the code,
    ``h`` the decoder, ``g = softmax(W z + b)`` the responsibilities and ``mu_j`` the centroids in
    the embedding, the loss is the mean over rows of::

        beta ||x - h(z)||^2 / V + ||z - sum_j g_j mu_j||^2
          + sum_j g_j (1 - g_j) + lam sum_jl |<mu_j, mu_l> - delta_jl|
          - sum_j alpha_j log gbar_j

    where V is the total variance of X, so that `beta` weighs the fraction of variance that the
    autoencoder leaves unexplained. None of the weights depends on the batch size or on the scale or
    width of X.

    Rows may have partners that belong to their cluster, transformed copies or neighbours in a
    graph. Row and partner then count alike in the loss (but a neighbour, being a row itself, is
    reconstructed in its own turn only), and ``- gamma log sum_j g_j(x) g_j(x') / gbar_j`` is
    added: how much more often the mixture draws them from one component than two rows at random.
    While pretraining, when there are no clusters yet, a kernel of the codes of neighbours takes
    the place of the mixture (see the user guide).

    Parameters
    ----------
    k : int or "auto", default=8
        Number of clusters. "auto" counts them (see Notes), at most one for ten rows and 100;
        a start that is given has its own number.
    n_components : int, default=None
        Width of the embedding. None is the larger of `k` and 10; where X spreads over more than 50
        directions (see Notes), as texts do, 10 becomes 100, or `n_features` if less. With less than
        `k`, the centroids cannot be orthonormal: the mixture's distortion is then kept in full and
        `lam` is not used.
    hidden_layer_sizes : sequence of int or "auto", default="auto"
        Widths of the encoder's hidden layers (LeakyReLU), mirrored in the decoder. "auto" is
        500-500-2000, or 500-500-1000 for 5000 rows and more over at most 50 directions.
    autoencoder : callable, default=None
        ``(n_features, n_components, generator) -> (encoder, decoder)``, a pair of
        torch modules, in place of `hidden_layer_sizes`. Weights should be drawn
        from ``generator``. `skaecm.autoencoders` has ready ones.
    alpha : float, array-like of shape (k,) or None, default=None
        Strength of the Dirichlet prior on the average responsibilities, zero or more. It keeps
        clusters alive and draws their sizes together. With unequal strengths the largest goes to
        the largest cluster. None is ``0.5 / k``, of which, where rows have no partners, half goes
        to the clusters by their sizes at the start, but for a random one; a fit that goes on with
        as many clusters keeps its prior, also one that was given. A published ``(alpha, B)`` is
        ``(alpha - 1) / B`` here.
    beta : float, default=0.1
        Weight of the reconstruction. A published beta is ``beta * V`` here.
    lam : float, default=0.1
        Weight of the centroids' orthonormality. A published ``(lambda, B)`` is ``lambda / B`` here.
    gamma : float, default=1.0
        Weight of the pairs, where rows have partners by `augment`, `n_neighbors` or `adjacency`.
    augment : {"image", "noise"}, callable or None, default=None
        How a row is transformed into another that belongs to its cluster.

        - "image": random rotation (up to 10 degrees), shift and scale (up to a
          tenth) of images of `image_shape`.
        - "noise": Gaussian noise of a tenth of every column's standard deviation, for tables.
        - a callable ``(batch, generator) -> batch`` of tensors on the device of the
          fit; random numbers should come from ``generator``.
    image_shape : tuple of int, default=None
        (height, width) or (channels, height, width) of images, in C order, for ``augment="image"``.
    n_neighbors : int, "auto" or None, default="auto"
        Number of nearest rows, at most ``n_samples - 1``, that are taken to be of the cluster of a
        row; None is none, with faster epochs. "auto" is 10 where neighbours tell clusters apart
        (see the user guide): no few rows are the neighbours of many, and there are at least 100
        rows a cluster and at most 100,000, in one array of at least `k` columns. Where no entries
        are missing they are then sought anew in the code of the autoencoder, after two fifths of
        `pretrain_iter` (or in that of `init`), and once more for the start of 200 rows a cluster.
        Those of rows of more than 64 features are sought among their principal directions. With
        more than 100,000 rows the search is approximate and needs faiss
        (``pip install "skaecm[neighbors]"``). With an `adjacency`, the nearest of the smoothed rows
        join its edges.
    init : {"k-means", "k-means++", "pinv", "random"}, array-like of shape \
            (k, n_features), fitted estimator or autoencoder, default="k-means"
        Where joint training starts.

        - "k-means": pretraining, the consensus of the best of 20 runs of k-means on the
          embedding (without a tiny cluster, if there are such); the embedding is shifted and
          scaled so that the centroids are nearly orthonormal, and the encoder holds the E-step of
          the mixture they imply, softened until two clusters share many rows. Where rows
          have partners (for copies: neighbours in the embedding), the graph is cut, by merging more
          clusters than needed or by leading eigenvectors, whichever halves of the rows repeat.
        - "k-means++": the same from rows drawn by k-means++.
        - "pinv": pretraining, k-means, ``W = pinv(M)'``, ``b = 0`` and up to 100
          epochs of the module alone: the published AE-CM+pre.
        - "random": Glorot uniform W and M; with ``pretrain_iter=0`` the published
          AE-CM+rand.
        - an array of centres in the space of X, or a fitted estimator with
          `cluster_centers_` or `means_`: pretraining, then their codes.
        - a fitted DeepAEClustering: all of its network.
        - the `autoencoder_` of a fitted DeepAEClustering: only that, then k-means,
          so that one pretraining serves many fits.

        Wrapped in `sklearn.frozen.FrozenEstimator`, an estimator survives `clone`.
    pretrain_iter : int, default=50
        Number of epochs of reconstruction before the start. Where neighbours are sought anew
        in the code, two fifths come before, and at most a quarter after, by `tol`.
    n_init : int, default=1
        Number of starts from the one pretrained autoencoder, of which the one with the lowest
        loss, above the least that its own prior allows, is kept. One that is given is tried once.
    n_jobs : int, default=None
        Number of processes among which the `n_init` runs are shared, by joblib: None is 1
        outside of `joblib.parallel_config`, -1 is one for every core. They give the same
        bits as one run after the other with as many threads each. They cannot be followed
        by a `callback` or a `checkpoint`. Rows in blocks, and several processes of
        torch.distributed, take one run after the other all the same.
    batch_size : int or "auto", default="auto"
        Largest number of rows in a step; "auto" is a 32nd of the rows, or a 64th where
        neighbours are sought anew in the code, at least 32 and at most 256.
    max_iter : int, default=200
        Largest number of epochs of joint training; 0 keeps the start.
    learning_rate_init : float, default=0.001
        Learning rate of Adam; that of W, b and M is three times as large. In joint training
        with neighbours as partners, that of the autoencoder is 0.3 times as large.
    epsilon : float, default=1e-8
        Constant in Adam's denominator. The published 1e-3 is ``1e-3 / B`` here.
    tol : float or "auto", default="auto"
        An epoch counts as progress when it betters the best loss by this share of it. "auto"
        is 0.03 in joint training with neighbours, 0.01 in pretraining with them, else 0.001.
    n_iter_no_change : int, default=5
        Epochs without progress after which joint training has converged. One more
        epoch follows, whose weights after every step are averaged.
    missing : {"error", "mask"}, default="error"
        What NaN in X means: an error, or a missing entry (see the user guide).
    device : str or torch.device, default="auto"
        "auto" is CUDA if there is one, else the CPU. "mps" computes in float32.
    mixed_precision : bool, default=False
        Whether the layers of the autoencoder compute in bfloat16 while training, for X in float32.
        Weights, optimizer and losses stay in float32, and so does all that comes after the fit.
        Faster where the processor has instructions for it (see the user guide), slower elsewhere.
    memory : str or object with the joblib.Memory interface, default=None
        Where to cache the pretraining, as in `sklearn.pipeline.Pipeline`. An `autoencoder`
        or `augment` is known by its name and arguments. Several processes do without.
    warm_start : bool, default=False
        Whether `fit` continues from the previous fit, keeping its network. With another
        `k`, clusters are split where that takes the most distortion in the embedding, or
        merged where it adds the least.
    random_state : int, RandomState instance or None, default=None
        Seed of the weights, the starts and the order of rows.
    verbose : int, default=0
        Whether to show progress on stderr: a bar for every phase, by tqdm (``pip install
        "skaecm[progress]"``), else a line for every epoch.
    callback : callable, default=None
        Called after every epoch with a new dict: the row of `history_`, and "run", the number of
        the start, from 1, or 0 while pretraining. A true result stops the fit: the estimator then
        has what was trained so far, without the averaging epoch (after a stop while pretraining
        that is the start of joint training), and `converged_` is False.
    checkpoint : str, path-like or Checkpoint, default=None
        Folder in which `fit` is kept after every epoch, so that the same call goes on from
        there when its process has ended (needs ``pip install "skaecm[persistence]"``).

    Attributes
    ----------
    labels_ : ndarray of shape (n_samples,)
        Cluster of every row of X, equal to ``predict(X)``.
    n_clusters_ : int
        Number of clusters that hold rows, at most `k`.
    cluster_centers_, means_ : ndarray of shape (k, n_features)
        The centroids, decoded to the space of X.
    embedding_centers_ : ndarray of shape (k, n_components)
        The centroids in the embedding.
    weights_ : ndarray of shape (k,)
        Average responsibilities.
    covariances_ : ndarray of shape (k,)
        Variance of the implied mixture in the space of X, the same for every
        cluster: the mean distortion per feature.
    embedding_covariances_ : ndarray of shape (k,)
        The same in the embedding.
    noise_variance_ : float
        Mean squared error of the reconstruction per feature, in the space of X.
    autoencoder_ : torch.nn.Module
        The trained autoencoder, to be the `init` of another fit.
    module_ : torch.nn.Module
        The trained network, `autoencoder_` included, on the CPU.
    n_components_ : int
        Width of the embedding.
    n_iter_ : int
        Joint epochs of the best run, the averaging epoch not counted.
    converged_ : bool
        Whether training became flat in the best run before `max_iter`.
    loss_ : float
        Loss over all rows, in the state that was kept.
    loss_curve_ : list of float
        Mean loss of every joint epoch of the best run.
    history_ : list of dict
        One dict an epoch: "phase" ("pretraining", "neighbours" where it goes on with those in the
        code, "module" where the module is trained alone, "training" or "averaging"), "epoch",
        "loss" and its terms "reconstruction", "E1", "E2", "E3" (where centroids need not be
        orthonormal), "orthonormality", "E4", and with partners "pairs" and "contrast", each times
        its weight; after pretraining then "changed", the share of rows whose cluster is another
        than in the epoch before (in the first: than at the start), which passes of `partial_fit`
        do not have. A last row of the phase "start", or "best" with an epoch, says that the state
        there had the lower loss, by more than a share `tol` of the end's, and was kept.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, when X had any.

    See Also
    --------
    ClusteringModuleGMM : The same module on the rows themselves.

    Notes
    -----
    `score` is the modularity of the clusters on the graph of nearest rows of X. It holds
    neither the loss weights nor the embedding, so that settings can be compared.

    `score_samples` is the log-density, in nats of the space of X, of the model from which `sample`
    draws: ``z ~ sum_j weights_[j] N(embedding_centers_[j], embedding_covariances_[j] I)`` and
    ``x ~ N(h(z), noise_variance_ I)``. The integral over z takes h as straight about the row's own
    code: it is exact for a linear decoder.

    X spreads over as many directions as the participation ratio of its covariance C says,
    ``trace(C)^2 / trace(C^2)``: 30 for MNIST, 800 for 20 Newsgroups. With ``k="auto"`` clusters are
    counted in X as by :class:`ClusteringModuleGMM`, and what follows is the fit with that `k`.

    References
    ----------
    .. [1] A. Boubekki, M. Kampffmeyer, R. Jenssen, U. Brefeld, "Joint optimization of an
       autoencoder for clustering and embedding", Machine Learning 110 (2021), section 4.
       :arxiv:`2012.03740`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skaecm import DeepAEClustering
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = DeepAEClustering(
    ...     k=10, hidden_layer_sizes=(64,), pretrain_iter=20, random_state=0
    ... ).fit(X)
    >>> model.transform(X).shape
    (1797, 10)
    >>> bool((model.predict(X) == model.labels_).all())
    True
    """

    _network = DeepNetwork
    _parameter_constraints: dict = {
        **BaseModuleClusterer._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left"), "array-like", None],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "hidden_layer_sizes": ["array-like", StrOptions({"auto"})],
        "autoencoder": [callable, None],
        "n_neighbors": [
            Interval(Integral, 1, None, closed="left"),
            StrOptions({"auto"}),
            None,
        ],
        "beta": [Interval(Real, 0, None, closed="left")],
        "lam": [Interval(Real, 0, None, closed="left")],
        "init": [
            StrOptions({"k-means", "k-means++", "pinv", "random"}),
            Autoencoder,
            "array-like",
            HasMethods("predict"),
        ],
        "pretrain_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "mixed_precision": ["boolean"],
        "memory": [str, HasMethods("cache"), None],
    }

    def __init__(
        self,
        k=8,
        *,
        n_components=None,
        hidden_layer_sizes="auto",
        autoencoder=None,
        alpha=None,
        beta=0.1,
        lam=0.1,
        gamma=1.0,
        augment=None,
        image_shape=None,
        n_neighbors="auto",
        init="k-means",
        pretrain_iter=50,
        n_init=1,
        n_jobs=None,
        batch_size="auto",
        max_iter=200,
        learning_rate_init=1e-3,
        epsilon=1e-8,
        tol="auto",
        n_iter_no_change=5,
        missing="error",
        device="auto",
        mixed_precision=False,
        memory=None,
        warm_start=False,
        random_state=None,
        verbose=0,
        callback=None,
        checkpoint=None,
    ):
        self.k = k
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.autoencoder = autoencoder
        self.alpha = alpha
        self.beta = beta
        self.lam = lam
        self.gamma = gamma
        self.augment = augment
        self.image_shape = image_shape
        self.n_neighbors = n_neighbors
        self.init = init
        self.pretrain_iter = pretrain_iter
        self.n_init = n_init
        self.n_jobs = n_jobs
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.learning_rate_init = learning_rate_init
        self.epsilon = epsilon
        self.tol = tol
        self.n_iter_no_change = n_iter_no_change
        self.missing = missing
        self.device = device
        self.mixed_precision = mixed_precision
        self.memory = memory
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.callback = callback
        self.checkpoint = checkpoint

    def _n_runs(self) -> int:
        return self.n_init if isinstance(self.init, str | Autoencoder) else 1

    def _n_phases(self) -> int:
        """Those before the runs; in every run the module alone, where trained, and the rest."""
        is_published = isinstance(self.init, str) and self.init == "pinv"
        return 1 + (self.n_neighbors == "auto") + self._n_runs() * (1 + is_published)

    def _alpha(self, k: int) -> Any:
        return ALPHA_TIMES_K / max(k, 1) if self.alpha is None else self.alpha

    def _k_of_init(self) -> int:
        init = fitted_init(self.init)
        if isinstance(init, str | Autoencoder):
            return 0
        return len(fitted_centers(init) if isinstance(init, BaseEstimator) else init)

    def _check_parameters(self, data: Data) -> None:
        strengths(self._alpha(data.k), data.k, data.rows)
        check_memory(self.memory)
        check_precision(self.mixed_precision, data.x.dtype, data.rows.dtype)
        check_hidden_sizes(self.hidden_layer_sizes)
        n_features = data.x.shape[1]
        init = fitted_init(self.init)
        if isinstance(init, DeepAEClustering):
            check_same("init", {"k": (len(init.cluster_centers_), data.k)})
            init = init.autoencoder_
        if isinstance(init, Autoencoder):
            check_same("init", {"n_features": (init.n_features, n_features)})
            if self.n_components is not None:
                check_same("init", {"n_components": (init.n_components, self.n_components)})
        elif isinstance(init, BaseEstimator):
            fitted_centers(init)
        elif not isinstance(init, str):
            init_centers(init, data.k, n_features, data.x.dtype)
        if self._is_warm():
            warn_about_width(self.n_components_, data.k)

    def _prepare(
        self, data: Data, seed: int, watch: Watch = UNWATCHED
    ) -> tuple[Any, list[dict[str, Any]], Data]:
        init = fitted_init(self.init)
        if isinstance(init, DeepAEClustering):
            warn_about_width(init.n_components_, data.k)
            return init.module_, [], data
        if isinstance(init, Autoencoder):
            warn_about_width(init.n_components, data.k)
            autoencoder = copy.deepcopy(init).to(data.rows.device, data.rows.dtype)
            seeks = self._seeks_in_code(data)
            return autoencoder, [], near_in_code(autoencoder, data) if seeks else data
        width, recipe = design(data, self.n_components, self.autoencoder, self.hidden_layer_sizes)
        warn_about_width(width, data.k)
        settings = self._training_settings(data)
        pretrain = partial(
            self._pretrain, width=width, recipe=recipe, seed=seed, watch=watch, settings=settings
        )
        if not self._seeks_in_code(data):
            return *pretrain(data, "pretraining", self.pretrain_iter), data
        n_first, n_more = (max(1, int(share * self.pretrain_iter)) for share in SHARES)
        alone = data._replace(partners=data.partners.with_graph(None))
        autoencoder, history = pretrain(alone, "pretraining", n_first)
        if watch.stopped:
            return autoencoder, history, data
        data = near_in_code(autoencoder, data)
        autoencoder, more = pretrain(data, "neighbours", n_more, before=(autoencoder, n_first))
        return autoencoder, history + more, data

    def _training_settings(self, data: Data, n_steps: int = STEPS_PER_EPOCH) -> dict[str, Any]:
        # With neighbours in the code, twice as many in little more than half of the epochs.
        return super()._training_settings(data, n_steps * (1 + self._seeks_in_code(data)))

    def _stopping_settings(
        self, max_iter: int, are_neighbours: bool, tol: float = NEIGHBOURS_TOL
    ) -> dict[str, Any]:
        settings = super()._stopping_settings(max_iter, are_neighbours)
        if self.tol == "auto":
            settings["tol"] = tol if are_neighbours else TOL
        return settings

    def _seeks_in_code(self, data: Data) -> bool:
        """Whether neighbours are sought anew once there is an autoencoder."""
        is_found = data.graph is None and data.partners.graph is not None
        learns = self.pretrain_iter > 1 or isinstance(fitted_init(self.init), Autoencoder)
        return self.n_neighbors == "auto" and is_found and learns and data.rows.fill is None

    def _pretrain(
        self,
        data: Data,
        phase: str,
        n_epochs: int,
        *,
        width: int,
        recipe: Recipe,
        seed: int,
        watch: Watch,
        settings: dict[str, Any],
        before: tuple[Autoencoder | None, int] = (None, 0),
    ) -> tuple[Autoencoder, list[dict[str, Any]]]:
        """What ``recipe`` builds with a code of ``width``, trained to reconstruct, its history.

        ``before`` is the one to train further, with the number of epochs that made it.
        """
        assert data.standardizer is not None
        device = data.rows.device
        if self.memory is not None:
            check_picklable("autoencoder", recipe)
            check_picklable("augment", self.augment)
        views = data.partners.graph, self.augment, self.image_shape
        autoencoder, n_before = before
        stopping = self._stopping_settings(n_epochs, data.partners.are_neighbours, CODE_TOL)
        if phase == "pretraining":
            # A code goes on getting better while hardly more of X is reconstructed.
            stopping |= {"tol": 0.0, "n_iter_no_change": n_epochs}
        with watch.phase(phase, n_epochs) as watched:
            autoencoder, history = pretrain_once(
                self.memory,
                (data.x, data.weight, str(device), views, n_before),
                autoencoder=autoencoder,
                rows=data.partners.pretraining,
                phase=phase,
                recipe=recipe,
                standardizer=data.standardizer,
                n_components=width,
                seed=seed,
                mixed_precision=self.mixed_precision,
                training_settings=settings,
                stopping_settings=stopping,
                watch=watched,
            )
        return autoencoder.to(device), history

    def _start(
        self, prepared: Any, data: Data, seed: int | None, watch: Watch = UNWATCHED
    ) -> tuple[ClusteringNetwork, list[dict[str, Any]]]:
        if isinstance(prepared, DeepNetwork):
            return self._adopt(prepared, data), []
        autoencoder = copy.deepcopy(prepared)
        autoencoder.mixed_precision = self.mixed_precision
        module, history = self._start_module(autoencoder, data.of_start(), seed, watch)
        alpha = strengths(self._alpha(data.k), data.k, data.rows)
        contrast = data.partners.are_neighbours
        network = DeepNetwork(
            autoencoder, module, alpha, self.gamma, contrast, beta=self.beta, lam=self.lam
        )
        if seed is not None and not (isinstance(self.init, str) and self.init == "random"):
            self._draw_to_sizes(network, data)
        return network, history

    def _draw_to_sizes(self, network: ClusteringNetwork, data: Data) -> None:
        """Without partners, let the default prior of a new start draw to its sizes, too."""
        if self.alpha is None and not data.partners:
            network.alpha = towards_sizes(network, data.of_start().rows)

    def _start_module(
        self, autoencoder: Autoencoder, data: Data, seed: int | None, watch: Watch
    ) -> tuple[ClusteringModule, list[dict[str, Any]]]:
        """The module at its start; places the code of ``autoencoder`` to suit it."""
        init, rows, ranks = fitted_init(self.init), data.rows, data.share.ranks
        # An autoencoder says where the code comes from, not where its centroids are.
        kind = "k-means" if isinstance(init, Autoencoder) else init
        kind = kind if isinstance(kind, str) else None
        if kind == "random" or seed is None:
            rng = np.random.RandomState(seed)
            return make_module(starts.glorot_start(data.k, autoencoder.n_components, rng), rows), []
        own, weight = embed(autoencoder, rows), data.all_weights()
        z = ranks.stack(own)
        if kind is None:
            centroids = embed_centers(init, autoencoder, data)
        elif kind == "k-means" and data.partners:
            seeks = self._seeks_in_code(data)
            return make_module(connected_start(autoencoder, z, data, seed, seeks=seeks), rows), []
        else:
            find = starts.FINDERS[kind]
            centroids = ranks.first(find, z, data.k, seed=seed, sample_weight=weight)
        if kind == "pinv":
            start = starts.pinv_encoder(centroids)
            return train_alone(
                make_module(start, rows),
                strengths(self._alpha(data.k), data.k, rows),
                data.rows_of_own(own),
                seed,
                watch,
                self._training_settings(data),
                self._stopping_settings(MODULE_EPOCHS, are_neighbours=False),
            )
        return make_module(posterior_start(autoencoder, z, centroids, data), rows), []

    def _check_next(self, data: Data) -> None:
        super()._check_next(data)
        if self.n_components is not None:
            check_same("warm_start", {"n_components": (self.n_components_, self.n_components)})

    def _seen_by_module(
        self, network: ClusteringNetwork, data: Data, seed: int
    ) -> tuple[Any, np.ndarray | None, np.ndarray, float]:
        z, weight = codes(network, data)
        return z, weight, np.zeros(z.shape[1]), 1.0

    def _resume(self, data: Data, seed: int | None) -> ClusteringNetwork:
        network = super()._resume(data, seed)
        if len(self.module_.alpha) != data.k:
            self._draw_to_sizes(network, data)
        return network

    def _adopt(self, network: ClusteringNetwork, data: Data) -> ClusteringNetwork:
        adopted = super()._adopt(network, data)
        assert isinstance(adopted, DeepNetwork)
        adopted.beta, adopted.lam = self.beta, self.lam
        adopted.contrast = data.partners.are_neighbours
        adopted.autoencoder.mixed_precision = self.mixed_precision
        return adopted

    def _learned_own(
        self, network: ClusteringNetwork, dtype: np.dtype, found: Description
    ) -> dict[str, Any]:
        assert isinstance(network, DeepNetwork)
        return learned_by_deep(network, dtype, found)
