"""Looking on at a fit: bars or lines, the user's callback, scikit-learn's callbacks.

A `Watch` is all who look on at one call of a fit method, a `Phase` what they see of one
loop of training; both know where the call is kept, if it is. Who looks on changes nothing
of what is learned, but may stop it.
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple, final

from ._ranks import ALONE, Ranks
from ._training import Keeper, Watcher

try:
    from sklearn.callback import CallbackSupportMixin
except ImportError:  # scikit-learn before 1.9 has no callbacks
    CallbackSupportMixin = type("CallbackSupportMixin", (), {})


def nothing() -> None:
    """For those who do not mind."""


@final
class Observer(NamedTuple):
    """One who looks on at a phase.

    ``begin`` and ``end`` are called with every epoch, ``end`` with its row of the history,
    and ``close`` after the last, if no exception came between. ``end`` and ``close`` ask
    to stop by returning what is true.
    """

    end: Callable[[dict[str, Any]], Any]
    begin: Callable[[], Any] = nothing
    close: Callable[[], Any] = nothing


@final
class Watch:
    """All who look on at one call of a fit method.

    Parameters
    ----------
    n_runs : int
        Number of runs to come.
    observing : callables, ``Phase -> Observer``
        One for each who looks on. What they open they enter into ``Phase.stack``.
    sklearn : SklearnFit or None
        The whole call, as scikit-learn's callbacks see it.
    ranks : Ranks
        The processes that fit together. What one of them asks for, all do.

    Attributes
    ----------
    run : int
        Number of the present run, from 1; 0 before the first.
    stopped : bool
        Whether somebody has seen enough.
    journal : Keeper or None
        Where the call is kept, to go on from.
    """

    def __init__(
        self,
        n_runs: int = 1,
        observing: Iterable[Callable[["Phase"], Observer]] = (),
        sklearn: "SklearnFit | None" = None,
        ranks: Ranks = ALONE,
    ):
        self.ranks = ranks
        self.n_runs = n_runs
        self.observing = tuple(observing)
        self.sklearn = sklearn
        self.run = 0
        self.stopped = False
        self.journal: Keeper | None = None

    def runs(self, seeds: Sequence[int], n_done: int = 0) -> Iterator[int]:
        """The seeds of the runs that are not done, one by one; after a stop no more of them."""
        for self.run, seed in enumerate(seeds[n_done:], start=n_done + 1):
            yield seed
            if self.stopped:
                return

    def phase(
        self, name: str, n_epochs: int, learned: Callable[[], dict[str, Any]] | None = None
    ) -> "Phase":
        """A phase of at most ``n_epochs``.

        ``learned`` gives the attributes of the estimator as if the fit ended here.
        """
        return Phase(self, name, n_epochs, learned)

    def finish(self) -> None:
        """The estimator is fitted."""
        if self.sklearn is not None:
            self.sklearn.finish()


# Where nobody looks on.
UNWATCHED = Watch()


@final
class Phase(Watcher):
    """A loop of training, and those who look on at it; without epochs nobody does."""

    def __init__(
        self,
        watch: Watch,
        name: str,
        n_epochs: int,
        learned: Callable[[], dict[str, Any]] | None,
    ):
        self.watch = watch
        self.journal = watch.journal
        self.name = name
        self.n_epochs = n_epochs
        self.learned = learned
        self.stack = ExitStack()
        self.observers: list[Observer] | None = None

    @property
    def run(self) -> str:
        """The run in words, where there are several: ", run 2 of 3"."""
        if self.watch.n_runs == 1 or self.watch.run == 0:
            return ""
        return f", run {self.watch.run} of {self.watch.n_runs}"

    @property
    def stopped(self) -> bool:
        return self.watch.stopped

    def begin(self) -> None:
        if self.observers is None:
            self.observers = [observe(self) for observe in self.watch.observing]
        for observer in self.observers:
            observer.begin()

    def end(self, row: dict[str, Any]) -> None:
        assert self.observers is not None
        self._hear(observer.end(row) for observer in self.observers)

    def _hear(self, answers: Iterator[Any]) -> None:
        with self.watch.ranks.agree() as stops:
            stops.extend(bool(answer) for answer in answers)
        self.watch.stopped = self.watch.stopped or any(stops)

    def __enter__(self) -> "Phase":
        return self

    def __exit__(self, *exception) -> None:
        with self.stack:
            if exception[0] is None and self.observers is not None:
                self._hear(observer.close() for observer in self.observers)


def bar(tqdm: Any, name: str, phase: Phase) -> Observer:
    """A bar of tqdm, with the loss and the share of changed labels."""
    title = f"{name} {phase.name}{phase.run}"
    shown = phase.stack.enter_context(tqdm(total=phase.n_epochs, desc=title, unit="epoch"))

    def end(row: dict[str, Any]) -> None:
        figures = {"loss": f"{row['loss']:.4g}"}
        if "changed" in row:
            figures["changed"] = f"{row['changed']:.2%}"
        shown.set_postfix(figures, refresh=False)
        shown.update()

    def close() -> None:
        # Most phases end before the last epoch that they are allowed. The widget of a
        # notebook hears of another total from `reset` alone, which forgets all else.
        if not shown.disable:
            n, start = shown.n, shown.start_t
            shown.reset(total=n)
            shown.n, shown.start_t = n, start
            shown.refresh()

    return Observer(end, close=close)


def lines(name: str, phase: Phase) -> Observer:
    """A line for every epoch, with all terms of the loss."""

    def end(row: dict[str, Any]) -> None:
        figures = ", ".join(
            f"{key} {value:.4g}" for key, value in row.items() if isinstance(value, float)
        )
        line = f"[{name}{phase.run}] {row['phase']} {row['epoch']}: {figures}"
        print(line, file=sys.stderr, flush=True)

    return Observer(end)


def user_callback(callback: Callable[[dict[str, Any]], Any], phase: Phase) -> Observer:
    """The function that the user gave, with a dict of its own."""
    return Observer(lambda row: callback({**row, "run": phase.watch.run}))


@final
class SklearnFit:
    """A call of a fit method as a task of scikit-learn's callbacks.

    ``about`` is what they are told of every task: the estimator and its data.
    """

    def __init__(self, about: dict[str, Any], method: str, n_phases: int):
        self.about = about
        root = about["estimator"]._init_callback_context(method, max_subtasks=n_phases)
        self.context = root.call_on_fit_task_begin(**about)

    def finish(self) -> None:
        """The estimator itself holds all that it takes to predict."""
        self.context.call_on_fit_task_end(**self.about, reconstruction_attributes={})


def sklearn_phase(fit: SklearnFit, phase: Phase) -> Observer:
    """A phase as a task within that of the fit, and its epochs as tasks within it."""
    context = fit.context.subcontext(phase.name + phase.run, max_subtasks=phase.n_epochs)
    context.call_on_fit_task_begin(**fit.about)
    epoch: Any = None

    def begin() -> None:
        nonlocal epoch
        epoch = context.subcontext("epoch").call_on_fit_task_begin(**fit.about)

    def end(row: dict[str, Any]) -> bool:
        return epoch.call_on_fit_task_end(**fit.about, reconstruction_attributes=phase.learned)

    def close() -> bool:
        return context.call_on_fit_task_end(**fit.about)

    return Observer(end, begin, close)


def find_tqdm() -> Any:
    """The bar of tqdm that suits a terminal or a notebook; None where there is no tqdm."""
    with warnings.catch_warnings():
        # A notebook without ipywidgets gets the bar of a terminal, which is well.
        warnings.simplefilter("ignore")
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return None
    return tqdm


def watch_apart(estimator: Any, n_runs: int) -> Watch:
    """Who looks on at some of ``n_runs`` runs in a worker: lines, as bars would be mixed up."""
    observing = [partial(lines, type(estimator).__name__)] if estimator.verbose else []
    return Watch(n_runs, observing)


def watch_fit(
    estimator: Any,
    method: str,
    ranks: Ranks,
    *,
    X: Any,
    y: Any,
    sample_weight: Any,
    n_runs: int,
    n_phases: int,
) -> Watch:
    """All who look on as ``method`` of an estimator is called with these arguments.

    At most ``n_phases`` have epochs. It begins to count for scikit-learn's callbacks
    here, so that it should be the first step of the method.
    """
    observing: list[Callable[[Phase], Observer]] = []
    name = type(estimator).__name__
    verbose = estimator.verbose and ranks.rank == 0
    tqdm = find_tqdm() if verbose else None
    if tqdm is not None:
        observing.append(partial(bar, tqdm, name))
    elif verbose:
        observing.append(partial(lines, name))
    if estimator.callback is not None:
        observing.append(partial(user_callback, estimator.callback))
    fit = None
    if getattr(estimator, "_skl_callbacks", None):
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        about = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        fit = SklearnFit(about, method, n_phases)
        observing.append(partial(sklearn_phase, fit))
    return Watch(n_runs, observing, fit, ranks)
