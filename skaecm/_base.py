"""What both estimators share in a fit: checks, the walk, and what is learned.

A subclass says how a fit is prepared (`_prepare`) and where a run starts
(`_start`); everything learned is published here, together, at the end.
"""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import _fit_context
from sklearn.utils._param_validation import Interval, StrOptions

from . import _runs
from ._block_rows import moments_of
from ._checkpoint import Checkpoint, Journal
from ._checks import (
    check_columns,
    check_processes,
    check_range,
    check_same,
    check_weight,
    fitted_init,
    scale_weight,
    strengths,
    unchanged_on_failure,
    warn_about_empty,
    warn_about_scales,
    warn_about_unconverged,
)
from ._data import Data, Run
from ._fitted import BaseFittedClusterer
from ._identity import identity
from ._initialization import Start
from ._kmeans import sample_size
from ._learned import learned
from ._modules import Autoencoder, ClusteringModule, ClusteringNetwork, Description, Standardizer
from ._partners import Partners, check_partners, make_partners
from ._progress import UNWATCHED, CallbackSupportMixin, Watch, watch_fit
from ._ranks import ALONE, Ranks, device_of_rank, join_ranks, warn_if_launched
from ._resizing import resized
from ._rows import Rows
from ._shares import find_share
from ._tensors import (
    compute_dtype,
    draw_seeds,
    make_generator,
    resolve_device,
    rest_on_cpu,
    sharing_memory,
    to_numpy,
)
from ._training import Passed, Training
from ._valleys import MOST_CLUSTERS

# batch_size="auto" makes about so many steps of an epoch, of no fewer rows than these
# and no more than `_largest_batch`, so that a few dozen epochs are enough for small
# data too.
STEPS_PER_EPOCH = 32
SMALLEST_BATCH = 32


class BaseModuleClusterer(CallbackSupportMixin, BaseFittedClusterer, ABC):
    """Abstract base of the estimators around a clustering module."""

    _parameter_constraints: dict = {
        "k": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "alpha": [Interval(Real, 0, None, closed="left"), "array-like"],
        "gamma": [Interval(Real, 0, None, closed="left")],
        "augment": [StrOptions({"image", "noise"}), callable, None],
        "image_shape": ["array-like", None],
        "n_neighbors": [Interval(Integral, 1, None, closed="left"), None],
        "n_init": [Interval(Integral, 1, None, closed="left")],
        "n_jobs": [Integral, None],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "missing": [StrOptions({"error", "mask"})],
        "device": [str, torch.device],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "callback": [callable, None],
        "checkpoint": [str, os.PathLike, Checkpoint, None],
    }

    _network: type[ClusteringNetwork]
    _largest_batch: int = 256
    _training_state: dict[str, Any] | None

    # What a subclass provides
    # ------------------------

    @abstractmethod
    def _check_parameters(self, data: Data) -> None:
        """Raise or warn where parameters do not fit each other or the data."""

    @abstractmethod
    def _alpha(self, k: int) -> Any:
        """The strength of the prior on so many clusters, its default resolved."""

    @abstractmethod
    def _k_of_init(self) -> int:
        """The number of clusters of a start that is given, 0 where it has none."""

    @abstractmethod
    def _prepare(
        self, data: Data, seed: int, watch: Watch = UNWATCHED
    ) -> tuple[Any, list[dict[str, Any]], Data]:
        """What all runs of a fit share, its history, and the data as runs see them."""

    @abstractmethod
    def _start(
        self, prepared: Any, data: Data, seed: int | None, watch: Watch = UNWATCHED
    ) -> tuple[ClusteringNetwork, list[dict[str, Any]]]:
        """The network from which one run starts, free to be trained, and its history.

        Without a seed one of any weights, to be filled.
        """

    @abstractmethod
    def _seen_by_module(
        self, network: ClusteringNetwork, data: Data, seed: int
    ) -> tuple[Any, np.ndarray | None, np.ndarray, float]:
        """Rows x by which clusters are split and merged, on the first process, their weights.

        And the offset and scale with which the module sees them as ``(x - offset) / scale``.
        """

    @abstractmethod
    def _learned_own(
        self, network: ClusteringNetwork, dtype: np.dtype, found: Description
    ) -> dict[str, Any]:
        """The learned attributes that only the subclass has."""

    # Fitting
    # -------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, sample_weight=None, adjacency=None):
        """Learn the clusters of X.

        In a group of torch.distributed every process calls it, with its part of the rows.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to cluster, at least `k`. float32 and float64 are kept, arrays
            of uint8 computed in float32, everything else in float64. Sparse input is
            never densified as a whole. With ``missing="mask"``, NaN is a missing entry.
            Memory maps, read-only arrays, whatever has ``shape``, ``dtype`` and slices
            (HDF5, Zarr, dask), and instances of a class whose ``__iter__`` gives blocks of
            rows, are read block by block where they are larger than 256 MiB (see the user
            guide).
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
            If X or a parameter is not as described, the loss stops being finite, or
            `checkpoint` holds another fit or cannot be written to. The estimator is
            then as it was before the call, as it is after an exception of a callback.
            Where several processes fit together, also if they differ in a parameter,
            or one of them raises.
        MemoryError
            If the memory of the device runs out.
        RuntimeError
            If one of several processes ended or cannot be reached.

        Warns
        -----
        ConvergenceWarning
            If the loss was still falling after `max_iter` epochs, or had risen above that
            of a state before, which was kept (not if a callback stopped the fit), or
            fewer than `k` clusters hold rows.
        UserWarning
            If all rows are equal, columns are on very different scales, or a
            `checkpoint` is damaged or can no longer be written; or if torchrun started
            this process, but no group of torch.distributed was formed.
        """
        with (
            self._call("fit", X, y, sample_weight, self._n_runs()) as watch,
            self._opened_for_fit(X, adjacency, watch.ranks) as x,
        ):
            _runs.check_n_jobs(self, self._n_runs())
            data = self._check_data(x, sample_weight, adjacency, watch.ranks, reset=True)
            seeds = watch.ranks.broadcast(draw_seeds(self.random_state, 1 + self._n_runs()))
            journal = watch.journal = self._open_journal(data, seeds)
            seeds = seeds if journal is None else journal.seeds
            data = self._with_partners(data.counted(seeds[0]))
            with nullcontext() if journal is None else journal.told_of_divergence():
                run = self._best_run(data, seeds, watch, journal)
            self._publish(run, data)
        if self.n_clusters_ < len(self.weights_):
            warn_about_empty(self.n_clusters_, len(self.weights_))
        if self.max_iter > 0 and not self.converged_ and not watch.stopped:
            warn_about_unconverged(self.max_iter, self.history_)
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
        numbers, so a later block may leave some of them out. In a group of
        torch.distributed the block is made of the rows of all processes.

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
        with (
            self._call("partial_fit", X, y, sample_weight, 1) as watch,
            self._opened_for_fit(X, None, watch.ranks) as x,
        ):
            data = self._check_data(x, sample_weight, None, watch.ranks, reset=first)
            seed, start_seed = watch.ranks.broadcast(draw_seeds(self.random_state, 2))
            data = self._with_partners(data.counted(seed))
            if first:
                prepared, history, data = self._prepare(data, seed, watch)
                watch.run = 1
                network, start_history = self._start(prepared, data, start_seed, watch)
                loss = sum(_runs.exact_terms(network, data.partners.training).values())
                run = Run(network, loss, False, 0, history + start_history)
                self._publish(run, data)
            else:
                check_same("partial_fit", {"k": (self.module_.clustering.k, data.k)})
                network = self._adopt(self.module_, data)
                training = self._make_training(network, data, start_seed)
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
                if data.weight is not None:
                    # Weights have mean one over the block, but not in each of its batches.
                    network.clustering.gbar /= network.clustering.gbar.sum()
                run = Run(network, loss, False, self.n_iter_ + 1, [*self.history_, row])
                self._publish(run, data, renumber=False)
                self._training_state = rest_on_cpu(training.state_dict())
        return self

    def _is_warm(self) -> bool:
        """Whether a fit goes on from the one before."""
        return self.warm_start and hasattr(self, "module_")

    def _known_k(self, *, is_next: bool) -> int:
        """The number of clusters of a fit, 0 where it is to be found among the rows.

        One that goes on from another, or from a start that is given, has that of these.
        """
        if self.k != "auto":
            return self.k
        return self.module_.clustering.k if is_next else self._k_of_init()

    def _open_journal(self, data: Data, seeds: list[int]) -> Journal | None:
        """Where this fit is kept, and where it was left off; None if it is not kept."""
        checkpoint = self.checkpoint
        if checkpoint is None:
            return None
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = Checkpoint(checkpoint)
        who = identity(self, data.rows, data.graph, is_warm=self._is_warm())
        return Journal(checkpoint, who, seeds, data.share.ranks)

    def _best_run(self, data: Data, seeds: list[int], watch: Watch, journal: Journal | None) -> Run:
        """Of the runs from several starts, or of the one from the fit before, the best."""
        prepared: Any = None
        history: list[dict[str, Any]] = []
        if not self._is_warm():
            prepared, history, data = self._prepare(data, seeds[0], watch)
        best_of = partial(self._best_of, prepared, history, data)
        starts = seeds[1:2] if self._is_warm() else seeds[1:]
        n_workers = 1 if watch.stopped else _runs.count_workers(self, data, len(starts))
        if n_workers > 1:
            return _runs.best_side_by_side(best_of, starts, self, n_workers)
        return best_of(starts, 0, watch, journal)

    def _best_of(
        self,
        prepared: Any,
        history: list[dict[str, Any]],
        data: Data,
        seeds: Sequence[int],
        n_done: int,
        watch: Watch,
        journal: Journal | None = None,
    ) -> Run:
        """The best of the runs that are not done, and of those that a journal has done."""

        def start(seed: int | None) -> tuple[ClusteringNetwork, list[dict[str, Any]]]:
            if self._is_warm():
                return self._resume(data, seed), []
            return self._start(prepared, data, seed, watch)

        best: Run | None = None
        if journal is not None and journal.best is not None:
            network, _ = start(None)
            best, n_done = Run(network, **journal.restore(network)), journal.n_done
        for seed in watch.runs(seeds, n_done):
            network, started = start(seed)
            run = self._run(network, history + started, data, seed, watch)
            best = run if best is None else min(best, run, key=lambda run: run.excess)
            if journal is not None and not watch.stopped:
                journal.end_run(best.network, best._asdict())
        assert best is not None
        return best

    @contextmanager
    def _call(self, method: str, X, y, sample_weight, n_runs: int) -> Iterator[Watch]:
        """A call of a fit method: all processes take part, some look on, all or nothing is kept."""
        with sharing_memory(self.device), join_ranks() as ranks:
            watch = watch_fit(
                self,
                method,
                ranks,
                X=X,
                y=y,
                sample_weight=sample_weight,
                n_runs=n_runs,
                n_phases=self._n_phases(),
            )
            with unchanged_on_failure(self):
                yield watch
                watch.finish()

    def _validate_params(self):
        with join_ranks() as ranks, ranks.agree():
            super()._validate_params()

    def _opened_for_fit(self, X, adjacency, ranks: Ranks) -> AbstractContextManager:
        """X as checks take it; in one piece where a fit needs that."""
        group = {"a group of torch.distributed": None if ranks.size == 1 else ranks}
        n_neighbors = None if self.n_neighbors == "auto" else self.n_neighbors
        return self._opened(X, adjacency, n_neighbors=n_neighbors, **group)

    def _check_data(
        self, X, sample_weight, adjacency, ranks: Ranks = ALONE, *, reset: bool
    ) -> Data:
        """Check X, its weights, its graph and the parameters; for a fit or one more pass."""
        warn_if_launched()
        with ranks.agree():
            x = self._validate(X, reset=reset)
            weight = check_weight(sample_weight, x)
            device = device_of_rank(resolve_device(self.device), ranks)
            x, graph = self._smoothed(x, adjacency)
            k = self._known_k(is_next=not reset or self._is_warm())
        check_processes(self, x, weight, ranks)
        share = find_share(ranks, x, weight, graph)
        weight, n_weighted = scale_weight(weight, share)
        needs_all = graph is not None or self.n_neighbors not in ("auto", None)
        if needs_all and not share.is_whole:
            raise ValueError(
                "n_neighbors and adjacency need all rows on every process of a fit, but the "
                "processes were given different rows, weights or graphs. Give each the same "
                "rows (the work is divided all the same), or use augment."
            )
        dtype = compute_dtype(x.dtype, device)
        held = self._make_rows(x, weight, device, dtype, ranks, sample_size(k or MOST_CLUSTERS))
        rows = share.rows(held)
        alone = Partners(rows, None, None)
        data = Data(x, weight, n_weighted, share, held, rows, None, alone, graph, k)
        check_partners(rows, augment=self.augment, image_shape=self.image_shape)
        if not reset:
            return data.filled_with(self.module_.standardizer.offset)
        if k > n_weighted:
            raise ValueError(
                f"k={k} must be at most the number of rows that carry weight, but "
                f"n_samples={n_weighted}. Use a smaller k or more rows."
            )
        mean, variance = moments_of(rows)
        if rows.fill is not None:
            check_columns(to_numpy(mean), getattr(self, "feature_names_in_", None))
        check_range(float(variance.mean()), float((mean * mean).mean()), len(mean), x.dtype)
        warn_about_scales(to_numpy(variance.sqrt()))
        scale = torch.where(variance.mean() > 0, variance.mean().sqrt(), 1.0)
        standardizer = Standardizer(mean.to(rows.dtype), scale.to(rows.dtype))
        data = data._replace(standardizer=standardizer)
        with ranks.agree():
            if self._is_warm():
                self._check_next(data)
            self._check_parameters(data)
        if rows.fill is not None:
            data = data.filled_with(self._standardizer_of_start(data).offset)
        return data

    def _standardizer_of_start(self, data: Data) -> Standardizer:
        """That of the network from which a fit of ``data`` starts: learned from it, or older."""
        if self._is_warm():
            return self.module_.standardizer
        init = fitted_init(self.init)
        network = getattr(init, "module_", init)
        if isinstance(network, self._network | Autoencoder):
            return network.standardizer
        assert data.standardizer is not None
        return data.standardizer

    def _with_partners(self, data: Data) -> Data:
        partners = make_partners(
            data.x,
            data.rows,
            weight=data.held.weight,
            augment=self.augment,
            image_shape=self.image_shape,
            n_neighbors=self.n_neighbors,
            k=data.k,
            is_at_hand=data.is_at_hand,
            graph=data.graph,
        )
        return data._replace(partners=partners)

    def _n_runs(self) -> int:
        """How many starts a fit tries: a start that is given is tried once."""
        return self.n_init if isinstance(self.init, str) else 1

    def _n_phases(self) -> int:
        """How many phases of a fit may have epochs."""
        return self._n_runs()

    def _check_next(self, data: Data) -> None:
        """Raise if a fit cannot go on from the one before."""
        n_features = len(self.module_.standardizer.offset)
        check_same("warm_start", {"n_features_in_": (n_features, data.x.shape[1])})

    def _resume(self, data: Data, seed: int | None) -> ClusteringNetwork:
        """A copy of the fitted network, under the present parameters, to train on.

        With another number of clusters they are split or merged. Without a seed the network
        has any weights, to be filled.
        """
        network = self._adopt(self.module_, data)
        if network.clustering.k != data.k:
            start = Start(*(to_numpy(part) for part in network.clustering.parameters()))
            seen = self._seen_by_module(network, data, seed or 0)
            start = data.share.ranks.first(resized, start, *seen, data.k)
            network.clustering = make_module(start, data.rows)
        return network

    def _adopt(self, network: ClusteringNetwork, data: Data) -> ClusteringNetwork:
        """A copy of a fitted network, on the device, under the present strengths or its own."""
        adopted = copy.deepcopy(network).to(data.rows.device, data.rows.dtype)
        if self.alpha is not None or len(adopted.alpha) != data.k:
            adopted.alpha = strengths(self._alpha(data.k), data.k, data.rows)
        adopted.gamma = self.gamma
        return adopted

    def _training_settings(self, data: Data, n_steps: int = STEPS_PER_EPOCH) -> dict[str, Any]:
        batch_size = self.batch_size
        if batch_size == "auto":
            share = len(data.rows) // n_steps
            batch_size = int(np.clip(share, SMALLEST_BATCH, self._largest_batch))
        return {
            "batch_size": batch_size,
            "learning_rate": self.learning_rate_init,
            "epsilon": self.epsilon,
        }

    def _stopping_settings(self, max_iter: int, are_neighbours: bool) -> dict[str, Any]:
        patience = self.n_iter_no_change
        return {"max_iter": max_iter, "tol": self.tol, "n_iter_no_change": patience}

    def _make_training(self, network: ClusteringNetwork, data: Data, seed: int) -> Training:
        return Training(
            network,
            phase="training",
            generator=make_generator(seed),
            **self._training_settings(data),
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
        training = self._make_training(network, data, seed)
        stopping = self._stopping_settings(self.max_iter, data.partners.are_neighbours)
        start = copy.deepcopy(network.state_dict())
        converged = False

        def run_of(network: ClusteringNetwork) -> Run:
            n_iter = sum(row["phase"] == "training" for row in training.history)
            loss = sum(_runs.exact_terms(network, rows).values())
            return Run(network, loss, converged, n_iter, history + training.history)

        def learned_so_far() -> dict[str, Any]:
            return self._learned(run_of(copy.deepcopy(network)), data)

        with watch.phase("training", self.max_iter + 1, learned_so_far) as phase:
            flat = training.run(rows, keep_best=True, watch=phase, **stopping)
            converged = flat and not phase.stopped
            if training.epoch and not phase.stopped:
                training.run_averaging_epoch(rows, watch=phase)
        run = run_of(network)
        if phase.stopped or not training.epoch:
            return run
        passed = [Passed("start", 0, training.start_loss, start)]
        passed += [] if training.best is None else [training.best]
        return _runs.best_of_states(run, passed, rows, stopping["tol"])

    # Publishing
    # ----------

    def _learned(self, run: Run, data: Data, *, renumber: bool = True) -> dict[str, Any]:
        """All learned attributes, by name, from the network as it now is."""
        return learned(run, data, self._learned_own, renumber=renumber)

    def _publish(self, run: Run, data: Data, *, renumber: bool = True) -> None:
        """Set everything learned, together."""
        for name, value in self._learned(run, data, renumber=renumber).items():
            setattr(self, name, value)


def make_module(start: Start, rows: Rows) -> ClusteringModule:
    """A clustering module holding ``start``, on the device of ``rows``."""
    return ClusteringModule(
        *(torch.as_tensor(np.array(part)).to(rows.device, rows.dtype) for part in start)
    )
