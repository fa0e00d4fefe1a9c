"""`ClusteringModuleGMM`: the clustering module on the rows themselves."""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.mixture import GaussianMixture
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils.validation import check_is_fitted

from . import _initialization as starts
from . import _mixtures
from ._base import BaseModuleClusterer, make_module
from ._block_rows import rows_of
from ._blocks import Blocks
from ._checks import check_same, check_weight, fitted_init, init_centers, scale_weight, strengths
from ._data import Data
from ._kmeans import repaired_centroids
from ._missing import filled, has_missing, observed_kmeans
from ._modules import ClusteringNetwork, Description, ShallowNetwork, Standardizer
from ._progress import UNWATCHED, Watch
from ._shares import undivided
from ._tensors import compute_dtype, to_numpy


class ClusteringModuleGMM(BaseModuleClusterer):
    """Gaussian mixture clustering by a one-hidden-layer autoencoder.

    The encoder is ``g = softmax(W x + b)``, the decoder the linear map ``g M``
    whose rows are the centroids. The loss is, up to a constant, minus the
    expected complete-data log-likelihood of a mixture with equal isotropic
    covariances, with a Dirichlet prior on the average responsibilities [1]_::

        E1 + E2 + E3 - sum_j alpha_j log gbar_j

    ``E1 + E2 + E3`` is the expected distortion ``sum_j g_ij ||x_i - mu_j||^2``,
    here the mean over rows as a fraction of the total variance of X. So `alpha`
    means the same at every batch size, scale and width of X.

    Rows may have partners that belong to their cluster, transformed copies or
    neighbours in a graph: row and partner then count alike, and
    ``- gamma log sum_j g_j(x) g_j(x') / gbar_j`` is added. The module has no
    embedding that partners could shape, so they move its clusters less than those of
    :class:`DeepAEClustering`.

    Parameters
    ----------
    k : int or "auto", default=8
        Number of clusters. "auto" counts them (see Notes), at most one for ten rows and 100;
        a start that is given has its own number.
    alpha : float or array-like of shape (k,), default=0.0
        Strength of the prior on the average responsibilities, zero or more. It
        keeps clusters alive and draws their sizes together. With unequal
        strengths the largest goes to the largest cluster. A published
        ``(alpha, B)`` is ``(alpha - 1) / (B * V)`` here, V being the total variance.
    gamma : float, default=1.0
        Weight of the pairs, where rows have partners; see `augment`, `n_neighbors`
        and the `adjacency` of `fit`.
    augment : {"image", "noise"}, callable or None, default=None
        How a row is transformed into another that belongs to its cluster.

        - "image": random rotation (up to 10 degrees), shift and scale (up to a
          tenth) of images of `image_shape`.
        - "noise": Gaussian noise of a tenth of every column's standard deviation,
          for tables.
        - a callable ``(batch, generator) -> batch`` of tensors on the device of the
          fit; random numbers should come from ``generator``.
    image_shape : tuple of int, default=None
        (height, width) or (channels, height, width) of the image that a row of X
        holds in C order, for ``augment="image"``.
    n_neighbors : int, default=None
        Number of nearest rows, at most ``n_samples - 1``, that are taken to be of
        the cluster of a row. Neighbours of rows of more than 64 features are sought
        among their principal directions. With more than 100,000 rows the search is
        approximate and needs faiss (``pip install "skaecm[neighbors]"``). With an
        `adjacency`, the nearest of the smoothed rows join its edges.
    init : {"k-means", "k-means++", "pinv", "random"}, array-like of shape \
            (k, n_features) or fitted estimator, default="k-means"
        Where training starts.

        - "k-means": one run of k-means whose misplaced centres are then put right
          by splits and merges that lower the distortion; the encoder holds the
          E-step of the mixture it implies.
        - "k-means++": rows drawn by k-means++, and their E-step.
        - "pinv": the same k-means, ``W = pinv(M)'`` and ``b = 0``, as published.
        - "random": Glorot uniform W and M, as published.
        - an array of centres, and their E-step.
        - a fitted KMeans or MiniBatchKMeans (its labels come back at
          ``max_iter=0``), a fitted GaussianMixture (``covariance_type="tied"``
          comes back exactly, others by their weighted mean covariance, with a
          warning), or a fitted ClusteringModuleGMM.
          Wrapped in `sklearn.frozen.FrozenEstimator` it survives `clone`. Clusters
          that get no row of X are numbered last all the same.

        Starts look at a sample of 8192 rows, or 256 a cluster where these are more.
    n_init : int, default=1
        Number of starts, of which the one with the lowest loss is kept. A start
        that is given is tried once.
    n_jobs : int, default=None
        Number of processes among which the `n_init` runs are shared, by joblib: None is 1
        outside of `joblib.parallel_config`, -1 is one for every core. They give the same
        bits as one run after the other with as many threads each. They cannot be followed
        by a `callback` or a `checkpoint`. Rows in blocks, and several processes of
        torch.distributed, take one run after the other all the same.
    batch_size : int or "auto", default="auto"
        Largest number of rows in a step; "auto" is a 32nd of the rows, at least 32
        and at most 4096.
    max_iter : int, default=200
        Largest number of epochs; 0 keeps the start.
    learning_rate_init : float, default=0.01
        Learning rate of Adam.
    epsilon : float, default=1e-8
        Constant in Adam's denominator.
    tol : float, default=1e-4
        An epoch counts as progress when it betters the best loss by this share of it.
    n_iter_no_change : int, default=2
        Epochs without progress after which training has converged. One more
        epoch follows, whose weights after every step are averaged.
    missing : {"error", "mask"}, default="error"
        What NaN in X means: an error, or a missing entry (see the user guide).
    device : str or torch.device, default="auto"
        "auto" is CUDA if there is one, else the CPU. "mps" computes in float32.
    warm_start : bool, default=False
        Whether `fit` continues from the previous fit. With another `k`, clusters are split
        where that takes the most distortion, or merged where it adds the least.
    random_state : int, RandomState instance or None, default=None
        Seed of the starts and of the order of rows.
    verbose : int, default=0
        Whether to show progress on stderr: a bar for every phase, by tqdm (``pip install
        "skaecm[progress]"``), else a line for every epoch.
    callback : callable, default=None
        Called after every epoch with a new dict: the row of `history_`, and "run", the
        number of the start, from 1. A true result stops the fit: the estimator then
        has what was trained so far, without the averaging epoch, and `converged_` is
        False.
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
        The centroids M.
    weights_ : ndarray of shape (k,)
        Average responsibilities.
    covariances_ : ndarray of shape (k,)
        Variance of the implied mixture, the same for every cluster: the mean
        distortion per feature.
    n_iter_ : int
        Epochs of the best run, the averaging epoch not counted.
    converged_ : bool
        Whether training became flat in the best run before `max_iter`.
    loss_ : float
        Loss over all rows, in the state that was kept.
    loss_curve_ : list of float
        Mean loss of every epoch of the best run.
    history_ : list of dict
        One dict an epoch: "phase" ("training" or "averaging"), "epoch", "loss" and
        its terms "E1" to "E4", and "pairs" where rows have partners; then "changed",
        the share of rows whose cluster is another than in the epoch before (in the
        first epoch: than at the start), which passes of `partial_fit` do not have. A
        last row of the phase "start", or "best" with an epoch, says that the state
        there had the lower loss, by more than a share `tol` of the end's, and was kept.
    module_ : torch.nn.Module
        The trained network, on the CPU.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, when X had any.

    See Also
    --------
    DeepAEClustering : The same module inside a deep autoencoder.
    sklearn.mixture.GaussianMixture : Mixtures fitted by EM.

    Notes
    -----
    `score`, `score_samples`, `bic`, `aic` and `sample` are those of the implied mixture,
    ``sum_j weights_[j] N(x; cluster_centers_[j], covariances_[j] I)``, in nats.

    With ``k="auto"`` the number of clusters is found as follows; then all is as with that
    `k`. Surplus clusters are made by k-means on one half of the rows, the wide ones
    projected on 64 principal directions. For two of them, with the means m and m' and
    the pooled covariance S within all clusters, the rows of the other half fall at ::

        t(x) = (x - m)' v / (m' - m)' v,    v = S^-1 (m' - m)

    on Fisher's line, on which 0 and 1 are the centres. With f a kernel estimate of the density
    of t, the valley between them is as deep as the least ratio, over t between 0 and 1, of
    f(t) to the smaller of the largest f before and behind, where there are five rows on
    either side. The pair with the shallowest valley is merged, all others are looked at
    anew, and so forth while that ratio is 0.8 or more. Samples of a flat density have a
    deeper valley in fewer than one of thirty cases, whatever their size, and two equal
    Gaussians have one if they are more than three standard deviations apart. So clusters
    are taken to be groups of one peak each, of at least ten rows, of any size and
    spread. At most 8192 rows are looked at.

    References
    ----------
    .. [1] A. Boubekki, M. Kampffmeyer, R. Jenssen, U. Brefeld, "Joint
       optimization of an autoencoder for clustering and embedding", Machine
       Learning 110 (2021), section 3. :arxiv:`2012.03740`

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skaecm import ClusteringModuleGMM
    >>> X, _ = make_blobs(n_samples=300, centers=3, random_state=0)
    >>> model = ClusteringModuleGMM(k=3, random_state=0).fit(X)
    >>> model.cluster_centers_.shape
    (3, 2)
    >>> bool((model.predict(X) == model.labels_).all())
    True
    """

    _network = ShallowNetwork
    _parameter_constraints: dict = {
        **BaseModuleClusterer._parameter_constraints,
        "init": [
            StrOptions({"k-means", "k-means++", "pinv", "random"}),
            "array-like",
            HasMethods("predict"),
        ],
    }

    # A step of so few weights costs little more for more rows.
    _largest_batch = 4096

    def __init__(
        self,
        k=8,
        *,
        alpha=0.0,
        gamma=1.0,
        augment=None,
        image_shape=None,
        n_neighbors=None,
        init="k-means",
        n_init=1,
        n_jobs=None,
        batch_size="auto",
        max_iter=200,
        learning_rate_init=1e-2,
        epsilon=1e-8,
        tol=1e-4,
        n_iter_no_change=2,
        missing="error",
        device="auto",
        warm_start=False,
        random_state=None,
        verbose=0,
        callback=None,
        checkpoint=None,
    ):
        self.k = k
        self.alpha = alpha
        self.gamma = gamma
        self.augment = augment
        self.image_shape = image_shape
        self.n_neighbors = n_neighbors
        self.init = init
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
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose
        self.callback = callback
        self.checkpoint = checkpoint

    def _alpha(self, k: int) -> Any:
        return self.alpha

    def _k_of_init(self) -> int:
        init = fitted_init(self.init)
        if isinstance(init, ACCEPTED_STARTS):
            return n_clusters(init)
        return 0 if isinstance(init, str | BaseEstimator) else len(init)

    def _check_parameters(self, data: Data) -> None:
        strengths(self._alpha(data.k), data.k, data.rows)
        init = fitted_init(self.init)
        n_features = data.x.shape[1]
        if isinstance(init, BaseEstimator):
            if not isinstance(init, ACCEPTED_STARTS):
                raise ValueError(
                    "init must be a fitted KMeans, MiniBatchKMeans, GaussianMixture or "
                    "ClusteringModuleGMM, but is a "
                    f"{type(init).__name__}. Pass its centres as an array instead."
                )
            check_same("init", {"k": (n_clusters(init), data.k)})
            check_same("init", {"n_features_in_": (init.n_features_in_, n_features)})
            if isinstance(init, GaussianMixture) and init.covariance_type != "tied":
                warnings.warn(
                    f"init has covariance_type={init.covariance_type!r}, whose responsibilities "
                    "the module cannot hold exactly: the start takes its weighted mean "
                    "covariance. With covariance_type='tied' the start is exact.",
                    UserWarning,
                    stacklevel=5,
                )
        elif not isinstance(init, str):
            init_centers(init, data.k, n_features, data.x.dtype)

    def _prepare(
        self, data: Data, seed: int, watch: Watch = UNWATCHED
    ) -> tuple[Any, list[dict[str, Any]], Data]:
        return fitted_init(self.init), [], data

    def _seen_by_module(
        self, network: ClusteringNetwork, data: Data, seed: int
    ) -> tuple[Any, np.ndarray | None, np.ndarray, float]:
        x, weight = data.known_sample(seed)
        offset = to_numpy(network.standardizer.offset).astype(np.float64)
        return x, weight, offset, float(network.standardizer.scale)

    def _start(
        self, prepared: Any, data: Data, seed: int | None, watch: Watch = UNWATCHED
    ) -> tuple[ClusteringNetwork, list[dict[str, Any]]]:
        if isinstance(prepared, ClusteringModuleGMM):
            return self._adopt(prepared.module_, data), []
        assert data.standardizer is not None
        is_random = isinstance(prepared, str) and prepared == "random"
        if is_random or seed is None:
            rng = np.random.RandomState(seed)
            start = starts.glorot_start(data.k, data.x.shape[1], rng)
        else:
            x, weight = data.sample(seed)
            start = data.share.ranks.first(
                self._make_start, prepared, data.standardizer, data.k, x, weight, seed
            )
        module = make_module(start, data.rows)
        alpha = strengths(self._alpha(data.k), data.k, data.rows)
        network = ShallowNetwork(
            data.standardizer, module, alpha, gamma=self.gamma, unit=data.x.shape[1]
        )
        return network, []

    def _make_start(
        self,
        init: Any,
        standardizer: Standardizer,
        k: int,
        x: Any,
        weight: np.ndarray | None,
        seed: int,
    ) -> starts.Start:
        """W, b and M in standardised units, from whatever `init` is and a sample of the rows."""
        offset = to_numpy(standardizer.offset).astype(np.float64)
        scale = float(standardizer.scale)
        known = filled(x, offset) if has_missing(x) else x
        if isinstance(init, str):
            if init == "k-means++":
                centers = starts.kmeans_plusplus_centroids(
                    known, k, seed=seed, sample_weight=weight
                )
            else:
                centers = repaired_centroids(known, k, seed=seed, sample_weight=weight)
                if known is not x:
                    centers = observed_kmeans(x, centers, weight)
        elif isinstance(init, KMeans | MiniBatchKMeans):
            centers = init.cluster_centers_
        elif isinstance(init, GaussianMixture):
            precision = starts.shared_precision(init) * scale**2
            return starts.tied_encoder((init.means_ - offset) / scale, precision, init.weights_)
        else:
            centers = init_centers(init, k, x.shape[1], x.dtype)
        means = (centers - offset) / scale
        if isinstance(init, str) and init == "pinv":
            return starts.pinv_encoder(means)
        variance = starts.within_variance(x, centers, weight) / scale**2
        return starts.posterior_encoder(means, max(variance, _mixtures.VARIANCE_FLOOR))

    def _learned_own(
        self, network: ClusteringNetwork, dtype: np.dtype, found: Description
    ) -> dict[str, Any]:
        return {"_n_features_out": network.clustering.k}

    def score(self, X, y=None, sample_weight=None, adjacency=None):
        """Mean log-likelihood of X under the implied mixture.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to score, of any kind that `fit` takes.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Row weights of the mean.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges among these rows; None takes every row by itself.

        Returns
        -------
        log_likelihood : float
            Nats per row; higher is better. Comparable with
            ``GaussianMixture(covariance_type="spherical").score``.
        """
        return self._mean_log_likelihood(X, sample_weight, adjacency)[0]

    def _mean_log_likelihood(self, X, sample_weight, adjacency) -> tuple[float, int]:
        """What `score` gives, and the number of rows."""
        log_prob = self.score_samples(X, adjacency)
        weight = check_weight(sample_weight, log_prob[:, None])
        weight, _ = scale_weight(weight, undivided(len(log_prob)))
        return float(np.average(log_prob, weights=weight)), len(log_prob)

    def _log_density(self, x: Any) -> np.ndarray:
        mixture = self.weights_, self.cluster_centers_, self.covariances_
        parts: Iterable[Any] = [x]
        if isinstance(x, Blocks):
            device = torch.device("cpu")
            rows = rows_of(x, None, device, compute_dtype(x.dtype, device))
            parts = (to_numpy(batch.x) for batch in rows.in_order())
        return np.concatenate([_mixtures.log_density(part, *mixture) for part in parts])

    def transform(self, X, adjacency=None):
        """Code of X: the responsibilities, as `predict_proba`.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to encode, of any kind that `fit` takes.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges among these rows; None takes every row by itself.

        Returns
        -------
        code : ndarray of shape (n_samples, k)
            Responsibilities of the clusters.
        """
        return self.predict_proba(X, adjacency)

    def inverse_transform(self, X):
        """Map codes to the space of the input: ``g M``.

        Parameters
        ----------
        X : array-like of shape (n_samples, k)
            Responsibilities.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            Mixtures of the centroids.
        """
        check_is_fitted(self)
        k = len(self.cluster_centers_)
        return self._check_code(X, k, "the responsibilities") @ self.cluster_centers_

    def sample(self, n_samples=1):
        """Draw from the implied mixture.

        Parameters
        ----------
        n_samples : int, default=1
            Number of points.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The points, sorted by component.
        y : ndarray of shape (n_samples,)
            Their components.
        """
        check_is_fitted(self)
        return self._sample(n_samples, self.cluster_centers_, self.covariances_)

    def bic(self, X, sample_weight=None, adjacency=None):
        """Bayesian information criterion of the implied mixture on X.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to score, of any kind that `fit` takes.
        sample_weight : array-like of shape (n_samples,), default=None
            Row weights, scaled to mean one.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges among these rows; None takes every row by itself.

        Returns
        -------
        bic : float
            The lower, the better.
        """
        return self._criterion(X, sample_weight, adjacency, np.log)

    def aic(self, X, sample_weight=None, adjacency=None):
        """Akaike information criterion of the implied mixture on X.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to score, of any kind that `fit` takes.
        sample_weight : array-like of shape (n_samples,), default=None
            Row weights, scaled to mean one.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges among these rows; None takes every row by itself.

        Returns
        -------
        aic : float
            The lower, the better.
        """
        return self._criterion(X, sample_weight, adjacency, lambda n_rows: 2.0)

    def _criterion(self, X, sample_weight, adjacency, price: Callable[[int], float]) -> float:
        """Deviance of X plus ``price`` of its rows for each free mean, weight and variance."""
        score, n_rows = self._mean_log_likelihood(X, sample_weight, adjacency)
        k, n_features = self.cluster_centers_.shape
        return -2.0 * n_rows * score + price(n_rows) * (k * n_features + (k - 1) + 1)


ACCEPTED_STARTS = (KMeans, MiniBatchKMeans, GaussianMixture, ClusteringModuleGMM)


def n_clusters(estimator: BaseEstimator) -> int:
    """Number of clusters of a fitted estimator among `ACCEPTED_STARTS`."""
    if isinstance(estimator, KMeans | MiniBatchKMeans):
        return len(estimator.cluster_centers_)
    return len(estimator.means_)
