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
from ._modules import ClusteringModule, ClusteringNetwork, Standardizer
from ._partners import Partners, make_partners
from ._rows import Rows, column_moments, make_rows
from ._tensors import (
    compute_dtype,
    draw_seeds,
    make_generator,
    resolve_device,
    rest_on_cpu,
    to_numpy,
)
from ._training import Report, Training, apply, check_finite

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


class Run(NamedTuple):
    """One training from one start."""

    network: ClusteringNetwork
    loss: float
    converged: bool
    n_iter: int
    history: list[dict[str, Any]]


class BaseModuleClusterer(BaseFittedClusterer, ABC):
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
    def _prepare(self, data: Data, seed: int) -> tuple[Any, list[dict[str, Any]]]:
        """What all runs of a fit share, and its history."""

    @abstractmethod
    def _start(
        self, prepared: Any, data: Data, seed: int
    ) -> tuple[ClusteringNetwork, list[dict[str, Any]]]:
        """The network from which one run starts, free to be trained, and its history."""

    @abstractmethod
    def _publish_own(self, network: ClusteringNetwork, inner_variance: float) -> None:
        """Set the attributes that only the subclass has."""

    # Fitting
    # -------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, adjacency=None):
        """Learn the clusters of X.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to cluster, at least `k`. float32 and float64 are kept, arrays
            of uint8 computed in float32, everything else in float64. Sparse input is
            never densified as a whole.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Row weights, zero or more; they are scaled to mean one.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges between rows that should be of one cluster, directed or not, with
            weights of zero or more. Rows are first mixed with their neighbours
            (``x/2 + mean/2``, twice), and neighbours become partners. Rows without
            edges stay as they are.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If X or a parameter is not as described, or the loss stops being
            finite. The estimator is then as it was before the call.

        Warns
        -----
        ConvergenceWarning
            If the loss was still falling after `max_iter` epochs, or fewer than
            `k` clusters hold rows.
        UserWarning
            If all rows are equal, or columns are on very different scales.
        """
        with unchanged_on_failure(self):
            data = self._check_data(X, sample_weight, adjacency, reset=True)
            seeds = draw_seeds(self.random_state, 1 + self._n_runs())
            if self.warm_start and hasattr(self, "module_"):
                history: list[dict[str, Any]] = []
                runs = [self._run(self._resume(data), [], data, seeds[1])]
            else:
                prepared, history = self._prepare(data, seeds[0])
                runs = [
                    self._run(*self._start(prepared, data, seed), data, seed) for seed in seeds[1:]
                ]
            best = min(runs, key=lambda run: run.loss)
            self._publish(best._replace(history=history + best.history), data, renumber=True)
        self._warn_about_result()
        return self

    def fit_transform(self, X, y=None, sample_weight=None, adjacency=None):
        """Fit, and transform the same rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to cluster.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Row weights, as in `fit`.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges between rows, as in `fit`.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features_out)
            As `transform` gives it.
        """
        self.fit(X, sample_weight=sample_weight, adjacency=adjacency)
        return self.transform(X, adjacency=adjacency)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None, sample_weight=None):
        """Continue with one pass over a block of rows.

        The first call makes the start on its block (as `fit` with
        ``max_iter=0``); every later call, and every call after `fit`, is one
        epoch over its block, the optimizer going on where it was; `max_iter`,
        `tol` and `n_init` play no part, and neighbours are sought within a block.
        `labels_`, `covariances_` and `loss_` (the mean over the batches of the pass)
        are those of the last block, `weights_` is the running average. Clusters keep
        their numbers, so a later block may leave some of them out.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            A block of rows; the first must hold at least `k`.
        y : Ignored
            Present for API consistency.
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
        with unchanged_on_failure(self):
            data = self._check_data(X, sample_weight, None, reset=first)
            seed, start_seed = draw_seeds(self.random_state, 2)
            if first:
                prepared, history = self._prepare(data, seed)
                network, start_history = self._start(prepared, data, start_seed)
                loss = total_loss(network, data.partners.training)
                run = Run(network, loss, False, 0, history + start_history)
                self._publish(run, data, renumber=True)
            else:
                network = self._resume(data)
                training = self._make_training(network, data.rows, start_seed)
                if self._training_state is None:
                    # The running average goes on: a block does not replace it.
                    training.epoch = self.n_iter_ + 1
                else:
                    training.load_state_dict(self._training_state)
                loss = training.run_epoch(data.partners.training, report=self._report)
                history = [*self.history_, training.history[-1] | {"epoch": self.n_iter_ + 1}]
                self._publish(Run(network, loss, False, self.n_iter_ + 1, history), data)
                self._training_state = rest_on_cpu(training.state_dict())
        return self

    def _check_data(self, X, sample_weight, adjacency, *, reset: bool) -> Data:
        """Check X, its weights, its graph and the parameters; for a fit or one more pass."""
        x = self._validate(X, reset=reset)
        weight, n_weighted = check_weight(sample_weight, x)
        device = resolve_device(self.device)
        graph = None
        if adjacency is not None:
            graph = check_adjacency(adjacency, x.shape[0])
            x = narrow_indices(smooth(x, graph))
        rows = make_rows(x, weight, device, compute_dtype(x.dtype, device))
        if not reset:
            return Data(x, weight, rows, None, self._partners(x, rows, graph))
        if self.k > n_weighted:
            raise ValueError(
                f"k={self.k} must be at most the number of rows that carry weight, but "
                f"n_samples={n_weighted}. Use a smaller k or more rows."
            )
        mean, variance = column_moments(rows)
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
        self, network: ClusteringNetwork, history: list[dict[str, Any]], data: Data, seed: int
    ) -> Run:
        """Train ``network`` in place: epochs, then the averaging epoch."""
        rows = data.partners.training
        training = self._make_training(network, rows, seed)
        converged = training.run(
            rows, report=self._report, **self._stopping_settings(self.max_iter)
        )
        n_iter = training.epoch
        if n_iter:
            training.run_averaging_epoch(rows, report=self._report)
        loss = total_loss(network, rows)
        return Run(network, loss, converged, n_iter, history + training.history)

    @property
    def _report(self) -> Report | None:
        """What to do with a row of the history as it comes: nothing, or print it."""
        if not self.verbose:
            return None
        name = type(self).__name__

        def report(row: dict[str, Any]) -> None:
            terms = ", ".join(
                f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, float)
            )
            print(f"[{name}] {row['phase']} {row['epoch']}: {terms}", flush=True)

        return report

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

    def _publish(self, run: Run, data: Data, *, renumber: bool = False) -> None:
        """Set everything learned, from the network as it now is."""
        network, rows = run.network.eval(), data.rows
        found, outer, inner = network.describe(rows)
        labels = to_numpy(found)
        if renumber:
            labels = self._renumber(network, rows, labels)
        network = network.cpu()
        standardizer = network.standardizer
        dtype = data.x.dtype
        variance = max(outer, _mixtures.VARIANCE_FLOOR) * float(standardizer.scale) ** 2
        self.module_: ClusteringNetwork = network
        self.labels_ = labels
        centers = standardizer.inverse(network.prototypes())
        self.cluster_centers_ = np.array(to_numpy(centers), dtype=dtype)
        self.means_ = self.cluster_centers_
        self.weights_ = np.array(to_numpy(network.clustering.gbar), dtype=dtype)
        self.covariances_ = np.full(self.k, variance, dtype=dtype)
        self.loss_ = run.loss
        self.history_ = run.history
        self.loss_curve_ = [row["loss"] for row in run.history if row["phase"] == "training"]
        self.n_iter_ = run.n_iter
        self.converged_ = run.converged
        self._publish_own(network, inner)
        self._training_state = None

    def _warn_about_result(self) -> None:
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
        if self.max_iter > 0 and not self.converged_:
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
