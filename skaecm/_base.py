"""What both estimators share in a fit: checks, the walk, and what is learned.

A subclass says how a fit is prepared (`_prepare`) and where a run starts
(`_start`); everything learned is published here, together, at the end.
"""

import copy
import warnings
from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils._param_validation import Interval, StrOptions

from . import _mixtures
from ._block_rows import BlockRows, moments_of, rows_of
from ._blocks import opened
from ._checks import (
    check_range,
    check_same,
    check_weight,
    narrow_indices,
    strengths,
    unchanged_on_failure,
    warn_about_scales,
)
from ._fitted import BaseFittedClusterer
from ._graph import check_adjacency, smooth
from ._initialization import Start
from ._kmeans import sample_size
from ._modules import ClusteringModule, ClusteringNetwork, Standardizer
from ._partners import Partners, make_partners
from ._progress import UNWATCHED, CallbackSupportMixin, Watch, watch_fit
from ._rows import ResidentRows, Rows
from ._tensors import (
    compute_dtype,
    draw_seeds,
    make_generator,
    resolve_device,
    rest_on_cpu,
    to_numpy,
)
from ._training import Training, apply, check_finite

# batch_size="auto" makes about so many steps of an epoch, of no fewer rows than these
# and no more than `_largest_batch`, so that a few dozen epochs are enough for small
# data too.
STEPS_PER_EPOCH = 32
SMALLEST_BATCH = 32


class Data(NamedTuple):
    """Checked input: the array as validated, its weights, and both as rows.

    The standardizer is learned from the rows of a new fit; a pass over one more
    block has none. What training sees are the same rows with their partners.
    """

    x: Any
    weight: np.ndarray | None
    rows: Rows
    standardizer: Standardizer | None
    partners: Partners

    def of_start(self) -> "Data":
        """What a start looks at: all rows, or the sample of those that are read in blocks."""
        rows = self.rows
        if not isinstance(rows, BlockRows):
            return self
        sample = rows.survey.sample
        tensor = torch.from_numpy(sample).to(rows.device, rows.dtype)
        return self._replace(x=sample, weight=None, rows=ResidentRows(tensor))


class Run(NamedTuple):
    """One training from one start."""

    network: ClusteringNetwork
    loss: float
    converged: bool
    n_iter: int
    history: list[dict[str, Any]]


class BaseModuleClusterer(CallbackSupportMixin, BaseFittedClusterer, ABC):
    """Abstract base of the estimators around a clustering module."""

    _parameter_constraints: dict = {
        "k": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left"), "array-like"],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "augment": [StrOptions({"image", "noise"}), callable, None],
        "image_shape": ["array-like", None],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "callback": [callable, None],
    }

    _largest_batch: int = 256
    _training_state: dict[str, Any] | None

    # What a subclass provides
    # ------------------------

    @abstractmethod
    def _check_parameters(self, data: Data) -> None:
        """Raise or warn where parameters do not fit each other or the data."""

    @abstractmethod
    def _alpha(self) -> Any:
        """The strength of the prior, its default resolved."""

    @abstractmethod
    def _prepare(
        self, data: Data, seed: int, watch: Watch = UNWATCHED
    ) -> tuple[Any, list[dict[str, Any]]]:
        """What all runs of a fit share, and its history."""

    @abstractmethod
    def _start(
        self, prepared: Any, data: Data, seed: int, watch: Watch = UNWATCHED
    ) -> tuple[ClusteringNetwork, list[dict[str, Any]]]:
        """The network from which one run starts, free to be trained, and its history."""

    @abstractmethod
    def _learned_own(
        self, network: ClusteringNetwork, dtype: np.dtype, inner_variance: float
    ) -> dict[str, Any]:
        """The learned attributes that only the subclass has."""

    # Fitting
    # -------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, adjacency=None):
        """Learn the clusters of X.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to cluster, at least `k`. float32 and float64 are kept, arrays
            of uint8 computed in float32, everything else in float64. Sparse input is
            never densified as a whole. Memory maps, read-only arrays, whatever has
            ``shape``, ``dtype`` and slices (HDF5, Zarr, dask), and instances of a class
            whose ``__iter__`` gives blocks of rows, are read block by block where they
            are larger than 256 MiB (see the user guide).
        y : array-like of shape (n_samples,), default=None
            Nothing is learned from it. Callbacks of scikit-learn get it, to score with.
        sample_weight : array-like of shape (n_samples,), default=None
            Row weights, zero or more; they are scaled to mean one.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges between rows that should be of one cluster, directed or not, with
            weights of zero or more. Rows are first mixed with their neighbours
            (``x/2 + mean/2``, twice), and neighbours become partners, drawn the more
            often the more alike they then are. Rows without edges stay as they are.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X or a parameter is not as described, or the loss stops being
            finite. The estimator is then as it was before the call, as it is after
            an exception of a callback.

        Warns
        -----
        ConvergenceWarning
            If the loss was still falling after `max_iter` epochs (not if a callback
            stopped the fit), or fewer than `k` clusters hold rows.
        UserWarning
            If all rows are equal, or columns are on very different scales.
        """
        watch = self._watch("fit", X, y, sample_weight, self._n_runs())
        whole = {"adjacency": adjacency, "n_neighbors": self.n_neighbors}
        with unchanged_on_failure(self), opened(X, **whole) as x:
            data = self._check_data(x, sample_weight, adjacency, reset=True)
            seeds = draw_seeds(self.random_state, 1 + self._n_runs())
            if self.warm_start and hasattr(self, "module_"):
                runs = [
                    self._run(self._resume(data), [], data, seed, watch)
                    for seed in watch.runs(seeds[1:2])
                ]
            else:
                prepared, history = self._prepare(data, seeds[0], watch)
                runs = []
                for seed in watch.runs(seeds[1:]):
                    network, started = self._start(prepared, data, seed, watch)
                    runs.append(self._run(network, history + started, data, seed, watch))
            self._publish(min(runs, key=lambda run: run.loss), data)
            watch.finish()
        self._warn_about_result(stopped=watch.stopped)
        return self

    def fit_transform(self, X, y=None, sample_weight=None, adjacency=None):
        """Fit, and transform the same rows.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to cluster, as in `fit`.
        y : array-like of shape (n_samples,), default=None
            As in `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Row weights, as in `fit`.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges between rows, as in `fit`.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features_out)
            As `transform` gives it.
        """
        self.fit(X, y, sample_weight=sample_weight, adjacency=adjacency)
        return self.transform(X, adjacency=adjacency)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue with one pass over a block of rows.

        The first call makes the start on its block (as `fit` with
        ``max_iter=0``); every later call, and every call after `fit`, is one
        epoch over its block, the optimizer going on where it was; `max_iter`,
        `tol` and `n_init` play no part, and neighbours are sought within a block.
        `labels_`, `covariances_` and `loss_` (the mean over the batches of the pass)
        are those of the last block. `weights_` is the running average over the stream,
        which a block does not reset: a batch of b rows moves it by ``b / m`` to its own
        average, with m half of the rows so far, at most 100 `k`. Clusters keep their
        numbers, so a later block may leave some of them out.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            A block of rows; the first must hold at least `k`. Of a source that is itself
            read in blocks, as in `fit`, all are one pass.
        y : array-like of shape (n_samples,), default=None
            As in `fit`.
        sample_weight : array-like of shape (n_samples,), default=None
            Row weights, scaled to mean one within the block.

        Returns
        -------
        self : object
            The estimator after the pass.

        Raises
        ------
        ValueError
            As for `fit`; the estimator is then as it was before the call.
        """
        self._validate_params()
        first = not hasattr(self, "module_")
        watch = self._watch("partial_fit", X, y, sample_weight, 1)
        with unchanged_on_failure(self), opened(X, n_neighbors=self.n_neighbors) as x:
            data = self._check_data(x, sample_weight, None, reset=first)
            seed, start_seed = draw_seeds(self.random_state, 2)
            if first:
                prepared, history = self._prepare(data, seed, watch)
                watch.run = 1
                network, start_history = self._start(prepared, data, start_seed, watch)
                loss = total_loss(network, data.partners.training)
                run = Run(network, loss, False, 0, history + start_history)
                self._publish(run, data)
            else:
                network = self._resume(data)
                training = self._make_training(network, data.rows, start_seed)
                if self._training_state is None:
                    # The running average goes on: a block does not replace it.
                    training.epoch = self.n_iter_ + 1
                else:
                    training.load_state_dict(self._training_state)
                # Of a small first block alone, a batch of a later one would not be averaged.
                network.clustering.widen(len(data.rows))
                watch.run = 1
                with watch.phase("training", 1) as phase:
                    phase.begin()
                    loss = training.run_epoch(data.partners.training)
                    row = training.history[-1] | {"epoch": self.n_iter_ + 1}
                    phase.end(row)
                run = Run(network, loss, False, self.n_iter_ + 1, [*self.history_, row])
                self._publish(run, data, renumber=False)
                self._training_state = rest_on_cpu(training.state_dict())
            watch.finish()
        return self

    def _watch(self, method: str, X, y, sample_weight, n_runs: int) -> Watch:
        return watch_fit(
            self,
            method,
            X=X,
            y=y,
            sample_weight=sample_weight,
            n_runs=n_runs,
            n_phases=self._n_phases(),
        )

    def _check_data(self, X, sample_weight, adjacency, *, reset: bool) -> Data:
        """Check X, its weights, its graph and the parameters; for a fit or one more pass."""
        x = self._validate(X, reset=reset)
        weight, n_weighted = check_weight(sample_weight, x)
        device = resolve_device(self.device)
        graph = None
        if adjacency is not None:
            graph = check_adjacency(adjacency, x.shape[0])
            x = narrow_indices(smooth(x, graph))
        dtype = compute_dtype(x.dtype, device)
        rows = rows_of(x, weight, device, dtype, sample_size(self.k))
        if not reset:
            return Data(x, weight, rows, None, self._partners(x, rows, graph))
        if self.k > n_weighted:
            raise ValueError(
                f"k={self.k} must be at most the number of rows that carry weight, but "
                f"n_samples={n_weighted}. Use a smaller k or more rows."
            )
        mean, variance = moments_of(rows)
        warn_about_scales(to_numpy(variance.sqrt()))
        check_range(float(variance.mean()), x.dtype)
        scale = torch.where(variance.mean() > 0, variance.mean().sqrt(), 1.0)
        standardizer = Standardizer(mean.to(rows.dtype), scale.to(rows.dtype))
        data = Data(x, weight, rows, standardizer, Partners(rows, None, None))
        self._check_parameters(data)
        return data._replace(partners=self._partners(x, rows, graph))

    def _partners(self, x, rows: Rows, graph) -> Partners:
        return make_partners(
            x,
            rows,
            augment=self.augment,
            image_shape=self.image_shape,
            n_neighbors=self.n_neighbors,
            graph=graph,
        )

    def _n_runs(self) -> int:
        """How many starts a fit tries: a start that is given is tried once."""
        return self.n_init if isinstance(self.init, str) else 1

    def _n_phases(self) -> int:
        """How many phases of a fit may have epochs."""
        return self._n_runs()

    def _resume(self, data: Data) -> ClusteringNetwork:
        """A copy of the fitted network, under the present parameters, to train on."""
        fitted = {
            "k": (self.module_.clustering.k, self.k),
            "n_features_in_": (len(self.module_.standardizer.offset), data.x.shape[1]),
        }
        check_same("warm_start", fitted)
        return self._adopt(self.module_, data)

    def _adopt(self, network: ClusteringNetwork, data: Data) -> ClusteringNetwork:
        """A copy of a fitted network, on the device, under the present strengths."""
        adopted = copy.deepcopy(network).to(data.rows.device, data.rows.dtype)
        adopted.alpha = strengths(self._alpha(), self.k, data.rows)
        adopted.gamma = self.gamma
        return adopted

    def _training_settings(self, rows: Rows) -> dict[str, Any]:
        batch_size = self.batch_size
        if batch_size == "auto":
            share = len(rows) // STEPS_PER_EPOCH
            batch_size = int(np.clip(share, SMALLEST_BATCH, self._largest_batch))
        return {
            "batch_size": batch_size,
            "learning_rate": self.learning_rate_init,
            "epsilon": self.epsilon,
        }

    def _stopping_settings(self, max_iter: int) -> dict[str, Any]:
        return {
            "max_iter": max_iter,
            "tol": self.tol,
            "n_iter_no_change": self.n_iter_no_change,
        }

    def _make_training(self, network: ClusteringNetwork, rows: Rows, seed: int) -> Training:
        return Training(
            network,
            phase="training",
            generator=make_generator(seed),
            **self._training_settings(rows),
        )

    def _run(
        self,
        network: ClusteringNetwork,
        history: list[dict[str, Any]],
        data: Data,
        seed: int,
        watch: Watch,
    ) -> Run:
        """Train ``network`` in place: epochs, then the averaging epoch."""
        rows = data.partners.training
        training = self._make_training(network, rows, seed)
        converged = False

        def run_of(network: ClusteringNetwork) -> Run:
            n_iter = sum(row["phase"] == "training" for row in training.history)
            loss = total_loss(network, rows)
            return Run(network, loss, converged, n_iter, history + training.history)

        def learned() -> dict[str, Any]:
            return self._learned(run_of(copy.deepcopy(network)), data)

        with watch.phase("training", self.max_iter + 1, learned) as phase:
            flat = training.run(rows, watch=phase, **self._stopping_settings(self.max_iter))
            converged = flat and not phase.stopped
            if training.epoch and not phase.stopped:
                training.run_averaging_epoch(rows, watch=phase)
        return run_of(network)

    # Publishing
    # ----------

    def _renumber(self, network: ClusteringNetwork, rows: Rows, labels: np.ndarray) -> np.ndarray:
        """Number the clusters without rows last, so that labels have no gaps; the labels."""
        is_empty = np.bincount(labels, minlength=self.k) == 0
        if not is_empty.any():
            return labels
        order = np.argsort(is_empty, kind="stable")
        network.clustering.reorder(torch.from_numpy(order).to(rows.device))
        return apply(network.labels, rows)

    def _learned(self, run: Run, data: Data, *, renumber: bool = True) -> dict[str, Any]:
        """All learned attributes, by name, from the network as it now is."""
        network, rows = run.network.eval(), data.rows
        found, outer, inner = network.describe(rows)
        labels = to_numpy(found)
        if renumber:
            labels = self._renumber(network, rows, labels)
        network = network.cpu()
        standardizer = network.standardizer
        dtype = data.x.dtype
        variance = max(outer, _mixtures.VARIANCE_FLOOR) * float(standardizer.scale) ** 2
        centers = np.array(to_numpy(standardizer.inverse(network.prototypes())), dtype=dtype)
        return {
            "module_": network,
            "labels_": labels,
            "cluster_centers_": centers,
            "means_": centers,
            "weights_": np.array(to_numpy(network.clustering.gbar), dtype=dtype),
            "covariances_": np.full(self.k, variance, dtype=dtype),
            "loss_": run.loss,
            "history_": run.history,
            "loss_curve_": [row["loss"] for row in run.history if row["phase"] == "training"],
            "n_iter_": run.n_iter,
            "converged_": run.converged,
            **self._learned_own(network, dtype, inner),
            "_training_state": None,
        }

    def _publish(self, run: Run, data: Data, *, renumber: bool = True) -> None:
        """Set everything learned, together."""
        for name, value in self._learned(run, data, renumber=renumber).items():
            setattr(self, name, value)

    def _warn_about_result(self, *, stopped: bool) -> None:
        """Say what a user would want to know about a finished fit."""
        n_found = len(np.unique(self.labels_))
        if n_found < self.k:
            warnings.warn(
                f"Only {n_found} of k={self.k} clusters hold rows after training; the empty "
                "ones are numbered last and weights_ shows them. X may have fewer distinct "
                "rows than k; else try a smaller k, a larger alpha, a larger n_init or "
                "another init.",
                ConvergenceWarning,
                stacklevel=4,
            )
        if self.max_iter > 0 and not self.converged_ and not stopped:
            warnings.warn(
                f"The loss was still falling after max_iter={self.max_iter} epochs. "
                "Increase max_iter, or tol to stop earlier.",
                ConvergenceWarning,
                stacklevel=4,
            )


def total_loss(network: ClusteringNetwork, rows: Rows) -> float:
    """The loss over all rows; leaves the network with their average responsibilities."""
    terms = network.settle(rows)
    check_finite(terms, "a pass over all rows")
    return sum(terms.values())


def make_module(start: Start, rows: Rows) -> ClusteringModule:
    """A clustering module holding ``start``, on the device of ``rows``."""
    return ClusteringModule(
        *(torch.as_tensor(np.array(part)).to(rows.device, rows.dtype) for part in start)
    )
