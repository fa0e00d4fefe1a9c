"""The processes of one fit and what they tell each other: the one home of torch.distributed.

Every process of the group, by its *rank*, holds a part of the rows and all of the
network. What a fit asks of the others it asks of `Ranks`; where there is one process, that is
`ALONE`, and every answer is what was given.
"""

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar, final

import numpy as np
import scipy.sparse as sp
import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")

# So long may one process compute while the others wait for it: k-means of many rows.
PATIENCE = timedelta(hours=1)


class Ranks(ABC):
    """The processes of a fit, as one of them sees them.

    Unless said otherwise, all of them have to call a method together.

    Attributes
    ----------
    rank, size : int
        The number of this process, from 0, and how many there are.
    """

    rank: int
    size: int

    @abstractmethod
    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits on each; without gradient."""

    @abstractmethod
    def mean(self, tensor: Tensor, share: float) -> Tensor:
        """The sum over all of ``share`` times the tensor, with its gradient."""

    @abstractmethod
    def collect(self, values: Tensor, place: Tensor | None, n_rows: int) -> Tensor:
        """The values (n_rows, ...) of all, from those at ``place`` (b,), with their gradient."""

    @abstractmethod
    def backward(self, loss: Tensor, share: float, parameters: Sequence[nn.Parameter]) -> None:
        """Set the gradients of the sum over all of ``share`` times the loss."""

    @abstractmethod
    def align(self, module: nn.Module) -> None:
        """Give ``module`` the parameters and buffers that the first process has."""

    @abstractmethod
    def broadcast(self, value: Value) -> Value:
        """What the first process gives."""

    @abstractmethod
    def gather(self, value: Value) -> list[Value]:
        """What every process gives, by rank."""

    @abstractmethod
    def stack(self, block: Any) -> Any:
        """The rows, dense or sparse, of all blocks, on the first process; on others of its own."""

    def totals(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """`total` of every scalar."""
        if not terms:
            return {}
        return dict(zip(terms, self.total(torch.stack(list(terms.values()))), strict=True))

    @contextmanager
    def agree(self) -> Iterator[list[Any]]:
        """What fails in this block on one process fails on all. No process asks in it.

        What each puts into the list all find there after the block.
        """
        noted: list[Any] = []
        error = None
        try:
            yield noted
        except Exception as found:
            error = found
        message = "" if error is None else f"{type(error).__name__}: {error}"
        gathered = self.gather((noted, message))
        if error is not None:
            raise error
        for rank, (_, message) in enumerate(gathered):
            if message:
                raise ValueError(
                    f"Rank {rank} of {self.size} cannot go on, so that none can: {message}"
                )
        noted[:] = [note for notes, _ in gathered for note in notes]

    def same(self, what: dict[str, Any]) -> None:
        """Raise if the processes differ in a value."""
        gathered = self.gather(what)
        for rank, theirs in enumerate(gathered):
            for name, first in gathered[0].items():
                if theirs[name] != first:
                    raise ValueError(
                        f"{name} must be the same on all processes of a fit, but is {first!r} on "
                        f"rank 0 and {theirs[name]!r} on rank {rank}. Every process of a group "
                        "of torch.distributed takes part in a fit; for fits of their own, "
                        "processes must not form a group."
                    )

    def first(self, compute: Callable[..., Value], *args: Any, **kwargs: Any) -> Value:
        """What ``compute`` of these arguments gives on the first process, or raises."""
        value: Any = None
        with self.agree():
            if self.rank == 0:
                value = compute(*args, **kwargs)
        return self.broadcast(value)


@final
class Alone(Ranks):
    """One process."""

    rank = 0
    size = 1

    def total(self, tensor: Tensor) -> Tensor:
        return tensor

    def mean(self, tensor: Tensor, share: float) -> Tensor:
        return tensor

    def collect(self, values: Tensor, place: Tensor | None, n_rows: int) -> Tensor:
        return values

    def backward(self, loss: Tensor, share: float, parameters: Sequence[nn.Parameter]) -> None:
        loss.backward()

    def align(self, module: nn.Module) -> None:
        pass

    def broadcast(self, value: Value) -> Value:
        return value

    def gather(self, value: Value) -> list[Value]:
        return [value]

    def stack(self, block: Any) -> Any:
        return block


ALONE = Alone()


@final
class Total(torch.autograd.Function):
    """`Ranks.total` with its gradient: the loss of every process sees the sum."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: Ranks) -> Tensor:
        ctx.ranks = ranks
        return ranks.total(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ranks.total(gradient), None


@final
class Group(Ranks):
    """The processes of a group of torch.distributed.

    Parameters
    ----------
    group : torch.distributed.ProcessGroup
    """

    def __init__(self, group: Any):
        self.group = group
        self.rank = dist.get_rank(group)
        self.size = dist.get_world_size(group)

    def total(self, tensor: Tensor) -> Tensor:
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        with reachable():
            dist.all_reduce(total, group=self.group)
        return total

    def mean(self, tensor: Tensor, share: float) -> Tensor:
        return Total.apply(tensor * share, self)

    def collect(self, values: Tensor, place: Tensor | None, n_rows: int) -> Tensor:
        assert place is not None
        zeros = values.new_zeros(n_rows, *values.shape[1:])
        return Total.apply(zeros.index_put((place,), values[: len(place)]), self)

    def backward(self, loss: Tensor, share: float, parameters: Sequence[nn.Parameter]) -> None:
        (loss * share).backward()
        gradients = [p.grad for p in parameters if p.grad is not None]
        # One message for all of them: what costs is the number of messages.
        flat = self.total(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def align(self, module: nn.Module) -> None:
        for tensor in (*module.parameters(), *module.buffers()):
            theirs = tensor.detach().contiguous()
            with reachable():
                dist.broadcast(theirs, src=0, group=self.group)
            tensor.detach().copy_(theirs)

    def broadcast(self, value: Value) -> Value:
        held = [value]
        with reachable():
            dist.broadcast_object_list(held, src=0, group=self.group)
        return held[0]

    def gather(self, value: Value) -> list[Value]:
        held: list[Any] = [None] * self.size
        with reachable():
            dist.all_gather_object(held, value, group=self.group)
        return held

    def stack(self, block: Any) -> Any:
        held: list[Any] | None = [None] * self.size if self.rank == 0 else None
        with reachable():
            dist.gather_object(block, held, dst=0, group=self.group)
        if held is None:
            return block
        return sp.vstack(held, format="csr") if sp.issparse(block) else np.concatenate(held)


@contextmanager
def reachable() -> Iterator[None]:
    """Say in words of ours that a process is gone."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            "A process of the group ended or cannot be reached, so that the fit cannot go on "
            "here either. See what the others printed, and start all of them again: with "
            "checkpoint= the fit goes on from its last epoch, with any number of processes."
        ) from error


def has_group() -> bool:
    """Whether this process knows of others."""
    return dist.is_available() and dist.is_initialized()


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """The processes that fit together: those of the default group of torch.distributed.

    They talk in a group of their own, which ends with the block: a process that leaves it by
    an exception is missed by the others at once, whatever it does next.
    """
    if not has_group() or dist.get_world_size() == 1:
        yield ALONE
        return
    # NCCL alone could not send what lies on the CPU.
    backend = "cpu:gloo,cuda:nccl" if "nccl" in dist.get_backend_config() else None
    with reachable():
        group = dist.new_group(backend=backend, timeout=PATIENCE)
    ranks = Group(group)
    try:
        yield ranks
    finally:
        dist.destroy_process_group(group)
        # The last reference, whatever a traceback still holds: now the others miss it.
        del ranks.group, group


def warn_if_launched() -> None:
    """Warn where torchrun started several processes that do not know of each other."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and "TORCHELASTIC_RUN_ID" in os.environ and not has_group():
        warnings.warn(
            f"torchrun started {size} processes, but this one fits alone. Call "
            "torch.distributed.init_process_group() at the start of the script, and all fit "
            "together.",
            UserWarning,
            stacklevel=5,
        )


class Part(NamedTuple):
    """The rows of a step that are here, among those of all processes.

    The step has ``n_rows`` rows, and those here have a ``place`` (b,) and a ``share`` in
    it. A process that has none of them lets one row stand in, with a share of zero, so
    that it can answer the others. ``ratio`` is the number of rows of the step for every
    row that is here. None of these is known of the whole.
    """

    ranks: Ranks
    share: float = 1.0
    ratio: float = 1.0
    n_rows: int = 0
    place: Tensor | None = None

    def mean(self, mean_here: Tensor) -> Tensor:
        """The mean over the step from that over the rows here."""
        return self.ranks.mean(mean_here, self.share)

    def collect(self, values_here: Tensor) -> Tensor:
        """The values (n_rows, ...) of all rows of the step, in their order."""
        return self.ranks.collect(values_here, self.place, self.n_rows)

    def backward(self, loss_here: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Set the gradients of the mean loss of the step."""
        self.ranks.backward(loss_here, self.share, parameters)


WHOLE = Part(ALONE)


def device_of_rank(device: torch.device, ranks: Ranks) -> torch.device:
    """A GPU for each process of a machine, where the user did not say which."""
    local = os.environ.get("LOCAL_RANK")
    if device.type != "cuda" or device.index is not None or ranks.size == 1 or local is None:
        return device
    return torch.device("cuda", int(local) % torch.cuda.device_count())
