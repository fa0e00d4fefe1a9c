"""A step of a training: the gradients of a batch, and what the optimizer makes of them.

On a GPU a step of a small batch is some hundred kernels, which take longer to ask for than to
run. So they are recorded as one graph for every shape of a batch, and asked for together.
"""

import threading
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, final

import torch
from torch import Tensor, nn

from ._ranks import WHOLE
from ._rows import Batch, Labels, Rows

# Recording takes about as long as so many steps that are asked for kernel by kernel.
STEPS_FIRST = 50

# Of one process only one thread records at a time, on a stream of each GPU's own.
RECORDING = threading.Lock()
STREAMS: dict[torch.device, torch.cuda.Stream] = {}

# Whose modules do on a GPU what they did when recorded: torch's, and ours.
KNOWN = ("torch.", "skaecm.")


class Before(NamedTuple):
    """What a module says of the rows before its first epoch: their clusters (n,), its loss."""

    labels: Tensor
    loss: float


class Trainable(Protocol):
    """What a module owes the loop."""

    def start_epoch(self, epoch: int, rows: Rows) -> Before | None:
        """A step before the batches of an epoch; before the first, where training starts."""

    def loss_terms(self, batch: Batch, labels: Labels | None = None) -> dict[str, Tensor]:
        """Named scalars whose sum is the loss of a batch, a mean over its rows.

        ``labels``, where given, gets the clusters of the batch.
        """

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The parameters, in groups with a factor each for the learning rate."""

    def parameters(self) -> Iterable[nn.Parameter]: ...
    def modules(self) -> Iterable[nn.Module]: ...
    def train(self, mode: bool = True) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class Recorded(NamedTuple):
    """A step on a GPU, and the tensors that it reads, by their names in a `Batch`."""

    reads: dict[str, Tensor]
    graph: torch.cuda.CUDAGraph

    def replay(self, tensors: dict[str, Tensor]) -> None:
        """The step, on other tensors of the same shapes."""
        for name, tensor in tensors.items():
            self.reads[name].copy_(tensor)
        self.graph.replay()


@final
class Steps:
    """The steps of one training, epoch by epoch: `begin`, `take` every batch, `end`.

    Parameters
    ----------
    module : Trainable
        Trained in place.
    optimizer : torch.optim.Optimizer
        Of the parameters of ``module``.
    """

    def __init__(self, module: Trainable, optimizer: torch.optim.Optimizer):
        self.module = module
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.names: list[str] = []
        self.total: Tensor | None = None
        self.labels: Labels | None = None
        self.n_rows = 0
        self.can_record = all(map(is_known, module.modules()))
        self.n_steps = 0
        # By shape; None where it was met and is not recorded yet.
        self.recorded: dict[Any, Recorded | None] = {}

    def begin(self, rows: Rows, *, with_labels: bool) -> None:
        """An epoch of ``rows`` begins."""
        if self.n_rows != len(rows) or with_labels != (self.labels is not None):
            # Recorded steps know these.
            self.recorded, self.n_steps = {}, 0
            self.n_rows, self.total = len(rows), None
            self.labels = Labels(len(rows), rows.device) if with_labels else None
        if self.total is not None:
            self.total.zero_()
        if self.labels is not None:
            self.labels.clear()

    def end(self) -> tuple[list[str], Tensor, Tensor | None]:
        """What the epoch gave: names and means of the terms of the loss, and the clusters."""
        assert self.total is not None
        labels = None if self.labels is None else self.labels.tensor().clone()
        return list(self.names), self.total.clone(), labels

    def take(self, batch: Batch) -> None:
        """One step."""
        if batch.x.device.type != "cuda" or batch.part is not WHOLE or not self.can_record:
            self._step(batch)
            return
        tensors = {
            name: field for name, field in batch._asdict().items() if isinstance(field, Tensor)
        }
        shapes = tuple((name, tensor.shape) for name, tensor in tensors.items())
        self.n_steps += 1
        if self.n_steps <= STEPS_FIRST or shapes not in self.recorded:
            # What is made on first use, as the optimizer's averages, is not made in a graph.
            self.recorded.setdefault(shapes)
            self._step(batch)
            return
        recorded = self.recorded[shapes]
        if recorded is None:
            recorded = self.recorded[shapes] = self._record(batch, tensors)
        recorded.replay(tensors)

    def _record(self, batch: Batch, tensors: dict[str, Tensor]) -> Recorded:
        """The step of batches with these shapes; nothing is computed."""
        reads: dict[str, Any] = {name: tensor.clone() for name, tensor in tensors.items()}
        graph, device = torch.cuda.CUDAGraph(), batch.x.device
        with RECORDING, torch.cuda.device(device):
            if device not in STREAMS:
                STREAMS[device] = torch.cuda.Stream(device)
            with torch.cuda.graph(graph, stream=STREAMS[device], capture_error_mode="thread_local"):
                self._step(batch._replace(**reads))
        return Recorded(reads, graph)

    def _step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        terms = self.module.loss_terms(batch, self.labels)
        values = torch.stack(list(terms.values()))
        batch.part.backward(values.sum(), self.parameters)
        self.optimizer.step()
        # The sum stays on the device: one synchronisation an epoch.
        share = values.detach() * (len(batch.indices) / self.n_rows)
        self.total = share if self.total is None else self.total.add_(share)
        self.names = list(terms)


def is_known(module: nn.Module) -> bool:
    """Whether a module does the same every time, and never looks at what it computes."""
    own = vars(module)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    is_plain = "forward" not in own and not any(own[name] for name in hooks)
    # Without a momentum, a batch norm asks how many batches there were.
    counts = own.get("momentum", 0.0) is None
    return type(module).__module__.startswith(KNOWN) and is_plain and not counts
