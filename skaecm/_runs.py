"""Runs of a fit: what one hands back, and several side by side.

Of a run the end is kept, or a better state that it went through. Of several runs each of
joblib's workers gets its part of the seeds and gives the best. What it warns of is warned of
here.
"""

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from joblib import Parallel, delayed, effective_n_jobs
from sklearn.utils import gen_even_slices

from ._block_rows import BlockRows
from ._data import Data, Run
from ._modules import ClusteringNetwork
from ._progress import Watch, watch_apart
from ._rows import Rows
from ._training import Passed, check_finite

# The best of some runs: of their seeds, from the number that are done before on, as they are
# watched.
BestOf = Callable[[Sequence[int], int, Watch], Run]


def exact_terms(network: ClusteringNetwork, rows: Rows) -> dict[str, float]:
    """The loss over all rows, by term; leaves the network with their average responsibilities."""
    terms = network.settle(rows)
    check_finite(terms, "a pass over all rows")
    return terms


def best_of_states(run: Run, passed: Sequence[Passed], rows: Rows, tol: float) -> Run:
    """``run``, or a state it went through that has a lower loss, by more than ``tol`` of its own.

    The state of the lowest loss is then put back into the network in place, and the last row
    of the history is that of its phase and epoch. Losses are computed over all rows, of those
    that may be so low.
    """
    network, bound = run.network, run.loss - tol * abs(run.loss)
    promising = [one for one in passed if one.loss is None or one.loss < bound]
    if not promising:
        return run
    best, state = run, copy.deepcopy(network.state_dict())
    for one in promising:
        network.load_state_dict(one.module)
        terms = exact_terms(network, rows)
        loss = sum(terms.values())
        if loss < min(best.loss, bound):
            row = {"phase": one.phase, "epoch": one.epoch, "loss": loss, **terms}
            best = run._replace(loss=loss, history=[*run.history, row])
            state = copy.deepcopy(network.state_dict())
    network.load_state_dict(state)
    return best


def check_n_jobs(estimator: Any, n_runs: int) -> None:
    """Raise if somebody wants to follow the runs who cannot where they are side by side."""
    if estimator.n_jobs in (None, 1) or n_runs == 1:
        return
    followers = {
        "callback": estimator.callback,
        "checkpoint": estimator.checkpoint,
        "a callback of scikit-learn": getattr(estimator, "_skl_callbacks", None) or None,
    }
    for name, follower in followers.items():
        if follower is not None:
            raise ValueError(
                f"n_jobs={estimator.n_jobs} trains the n_init={n_runs} runs in processes of their "
                f"own, where {name} cannot follow them. Use n_jobs=None, or leave {name} out."
            )


def count_workers(estimator: Any, data: Data, n_runs: int) -> int:
    """How many workers share the runs of a fit.

    One where the rows are not all in memory, where several processes fit together, and
    where a context of joblib asks for more, but somebody follows the runs.
    """
    is_followed = (
        estimator.callback is not None
        or estimator.checkpoint is not None
        or getattr(estimator, "_skl_callbacks", None)
    )
    if is_followed or data.share.ranks.size > 1 or isinstance(data.rows, BlockRows):
        return 1
    return min(effective_n_jobs(estimator.n_jobs), n_runs)


def best_side_by_side(best_of: BestOf, seeds: Sequence[int], estimator: Any, n_workers: int) -> Run:
    """The best run of all seeds, the first of equal ones, as if they had come in turn."""
    parts = list(gen_even_slices(len(seeds), n_workers))
    found = Parallel(n_jobs=n_workers, prefer="processes")(
        delayed(work)(
            best_of,
            seeds[: part.stop],
            part.start,
            watch_apart(estimator, len(seeds)),
            os.getpid(),
            torch.get_num_threads(),
        )
        for part in parts
    )
    for _, caught in found:
        for message, category in caught:
            warnings.warn(message, category, stacklevel=6)
    return min((run for run, _ in found), key=lambda run: run.excess)


def work(
    best_of: BestOf, seeds: Sequence[int], n_done: int, watch: Watch, home: int, n_threads: int
) -> tuple[Run, list[tuple[str, type[Warning]]]]:
    """What a worker does: its best run, and what it warned of."""
    if os.getpid() == home:
        return best_of(seeds, n_done, watch), []
    with at_most_threads(n_threads), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = best_of(seeds, n_done, watch)
    return run, list(dict.fromkeys((str(one.message), one.category) for one in caught))


@contextmanager
def at_most_threads(n_threads: int) -> Iterator[None]:
    """No more threads of torch than where the fit was called; joblib may allow fewer."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, n_threads))
    try:
        yield
    finally:
        torch.set_num_threads(before)
