"""The training loop and the pass without gradients.

Knows no model and no loss: it asks for steps (`_steps.py`) and gives back what
happened as values. All that a loop needs to go on is in `Training.state_dict`. A `Watcher`
hears of every epoch.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, final

import numpy as np
import torch
from torch import Tensor

from ._rows import Rows
from ._steps import Steps, Trainable
from ._tensors import to_numpy


class Keeper(Protocol):
    """Where a training is kept, so that it can go on when its process has ended."""

    def resume(self, training: "Training") -> None:
        """Put a training that begins where it was left off."""

    def keep(self, training: "Training", *, stopped: bool) -> None:
        """An epoch has ended, and with it all epochs if ``stopped``."""


class Watcher(ABC):
    """Looks on at the epochs of a phase, and may want no more of them.

    Where the phase is kept, if it is, is its ``journal``.
    """

    journal: Keeper | None = None

    @property
    @abstractmethod
    def stopped(self) -> bool:
        """Whether training should end with the last epoch."""

    @abstractmethod
    def begin(self) -> None:
        """An epoch begins."""

    @abstractmethod
    def end(self, row: dict[str, Any]) -> None:
        """An epoch has ended; ``row`` is that of the history."""


class Passed(NamedTuple):
    """A state that a training went through, and the row of the history that tells of it.

    The phase is "start" or "best". The state is that after the epoch, and the loss, where it is
    at hand, that of the epoch, each batch as it was met.
    """

    phase: str
    epoch: int
    loss: float | None
    module: dict[str, Any]


@final
class Training:
    """One phase of training: a module, its optimizer, its generator, its history.

    Parameters
    ----------
    module : Trainable
        Trained in place.
    phase : str
        Name of the phase in the history.
    batch_size : int
        Largest number of rows in a step.
    learning_rate, epsilon : float
        Step size and denominator constant of Adam.
    generator : torch.Generator
        Draws the order of the rows.
    """

    def __init__(
        self,
        module: Trainable,
        *,
        phase: str,
        batch_size: int,
        learning_rate: float,
        epsilon: float,
        generator: torch.Generator,
    ):
        self.module = module
        self.phase = phase
        self.batch_size = batch_size
        self.generator = generator
        groups = [
            {"params": parameters, "lr": factor * learning_rate}
            for parameters, factor in module.parameter_groups()
        ]
        # Gradients are not clipped: Adam's steps do not grow with them, and about three
        # learning rates bound any (doc/guide/long_runs.rst).
        first = next(iter(module.parameters()))
        self.optimizer = torch.optim.Adam(
            groups, eps=epsilon, fused=True, capturable=first.device.type == "cuda"
        )
        self.steps = Steps(module, self.optimizer)
        self.epoch = 0
        self.history: list[dict[str, Any]] = []
        self.labels: Tensor | None = None  # clusters of the rows in the last epoch
        self.start_loss: float | None = None  # None unless it trained the first epoch
        self.best_loss = float("inf")
        self.best: Passed | None = None  # the state after the epoch of that loss, if to be kept
        self.n_no_change = 0

    def run(
        self,
        rows: Rows,
        *,
        max_iter: int,
        tol: float,
        n_iter_no_change: int,
        keep_best: bool = False,
        watch: Watcher | None = None,
    ) -> bool:
        """Train until the loss is flat, ``max_iter`` epochs have passed or ``watch`` stops it.

        With ``keep_best`` the state after the epoch of the lowest loss is `best`.

        Returns
        -------
        converged : bool
            Whether ``n_iter_no_change`` epochs in a row left the best loss less
            than ``tol`` times its size better.
        """
        journal = None if watch is None else watch.journal
        if journal is not None:
            journal.resume(self)
        while self.epoch < max_iter and self.n_no_change < n_iter_no_change:
            if watch is not None and watch.stopped:
                break
            loss = self.run_epoch(rows, watch=watch)
            improved = loss < self.best_loss - tol * abs(loss)
            self.n_no_change = 0 if improved else self.n_no_change + 1
            if keep_best and loss < self.best_loss:
                state = copy.deepcopy(self.module.state_dict())
                self.best = Passed("best", self.epoch, loss, state)
            self.best_loss = min(loss, self.best_loss)
            if journal is not None:
                journal.keep(self, stopped=watch is not None and watch.stopped)
        return self.n_no_change >= n_iter_no_change

    def run_epoch(
        self,
        rows: Rows,
        *,
        after_step: Callable[[], None] | None = None,
        after_epoch: Callable[[], None] | None = None,
        watch: Watcher | None = None,
    ) -> float:
        """One pass over ``rows``; the mean loss of its batches, also in the history.

        The row of the history ends with "changed", where rows have clusters: the
        share of them whose cluster is another than in the epoch before (in the first
        epoch: than before it), each as the pass met it.
        """
        if watch is not None:
            watch.begin()
        start = self.module.start_epoch(self.epoch, rows)
        before = self.labels
        if start is not None:
            before, self.start_loss = start
        self.steps.begin(rows, with_labels=before is not None)
        self.module.train()
        for batch in rows.batches(self.batch_size, self.generator):
            self.steps.take(batch)
            if after_step is not None:
                after_step()
        names, total, labels = self.steps.end()
        total = rows.ranks.total(total)
        self.module.train(False)
        self.epoch += 1
        if before is not None and labels is not None:
            self.labels = rows.ranks.total(labels)
            n_changed = (self.labels != before).sum().to(total.dtype)
            total = torch.cat([total, n_changed[None]])
            names.append("changed")
        terms_mean = dict(zip(names, total.tolist(), strict=True))
        n_other = terms_mean.pop("changed", None)
        shares = {} if n_other is None else {"changed": n_other / len(rows)}
        row = {
            "phase": self.phase,
            "epoch": self.epoch,
            "loss": sum(terms_mean.values()),
            **terms_mean,
            **shares,
        }
        check_finite(terms_mean, f"epoch {self.epoch} of {self.phase}")
        self.history.append(row)
        if after_epoch is not None:
            after_epoch()
        if watch is not None:
            watch.end(row)
        return row["loss"]

    def run_averaging_epoch(self, rows: Rows, watch: Watcher | None = None) -> None:
        """One more epoch; the module ends with the mean of its weights after every step."""
        parameters = [parameter.detach() for parameter in self.module.parameters()]
        averages = [torch.zeros_like(parameter) for parameter in parameters]
        n_steps = 0

        def accumulate() -> None:
            nonlocal n_steps
            n_steps += 1
            torch._foreach_lerp_(averages, parameters, 1.0 / n_steps)

        def take_average() -> None:
            torch._foreach_copy_(parameters, averages)

        self.phase = "averaging"
        self.run_epoch(rows, after_step=accumulate, after_epoch=take_average, watch=watch)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later `load_state_dict` needs to go on as if not stopped."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "history": list(self.history),
            "labels": self.labels,
            "best_loss": self.best_loss,
            "best": None if self.best is None else self.best._asdict(),
            "n_no_change": self.n_no_change,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was taken, at the learning rate of now."""
        self.module.load_state_dict(state["module"])
        kept = ("lr", "eps", "capturable")
        settings = [{key: group[key] for key in kept} for group in self.optimizer.param_groups]
        # The optimizer keeps the tensors that it is given, and steps write into them.
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        for group, setting in zip(self.optimizer.param_groups, settings, strict=True):
            group.update(setting)
        self.steps = Steps(self.module, self.optimizer)
        self.generator.set_state(state["generator"])
        self.epoch = state["epoch"]
        self.history = list(state["history"])
        device = next(iter(self.module.parameters())).device
        self.labels = None if state["labels"] is None else state["labels"].to(device)
        self.best_loss = state["best_loss"]
        self.best = None if state["best"] is None else Passed(**state["best"])
        self.n_no_change = state["n_no_change"]


@final
class LossNotFinite(ValueError):
    """Training has diverged."""


def check_finite(terms: dict[str, float], when: str) -> None:
    """Raise if a term of the loss is not a finite number."""
    bad = [name for name, value in terms.items() if not np.isfinite(value)]
    if bad:
        raise LossNotFinite(
            f"The loss is not finite ({', '.join(bad)}) in {when}. The likely cause is a "
            "learning rate that is too large, or values in X too large for its dtype. Try a "
            "smaller learning_rate_init, X as float64, or X scaled by "
            "sklearn.preprocessing.StandardScaler. A fit with a checkpoint keeps its last finite "
            "state."
        )


@torch.no_grad()
def apply(function: Callable[[Tensor], Tensor], rows: Rows) -> np.ndarray:
    """``function`` of the rows in their order, without gradients, as a NumPy array."""
    values: np.ndarray | None = None
    stop = 0
    for batch in rows.in_order():
        part = to_numpy(function(batch.x))
        if values is None:
            values = np.empty((len(rows), *part.shape[1:]), part.dtype)
        start, stop = stop, stop + len(part)
        values[start:stop] = part
    assert values is not None
    return values[:stop]
