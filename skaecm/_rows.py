"""Rows on their way to a module: indices in, a batch out.

A training loop and a pass without gradients see data through `Rows` alone,
whether it lies on the device, is sparse, or is mapped from a file. A new kind
of storage is a new subclass; nothing else has to know.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import NamedTuple, final

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ._ranks import ALONE, WHOLE, Part, Ranks
from ._tensors import inference_rows, make_generator, room_for_rows

Augment = Callable[[Tensor, torch.Generator], Tensor]

# So many responsibilities wait to be looked at together, but of few clusters no more rows
# than of so many: what waits keeps the memory allocator from using the gaps between. As many
# at once do not wait: they are still in the processor's cache.
NUMBERS_HELD = 2**17
FEW_CLUSTERS = 16

# A relative deviation below this one cannot be told from rounding.
ROUNDING = 1e-12


class Batch(NamedTuple):
    """Some rows: values (b, d), weights (b,) or None, and row numbers (b,).

    ``partner`` (b, d), where there is one, holds for every row another one that
    should be of its cluster. ``seen`` (b, d) and ``partner_seen``, where entries are
    missing, are 1 where they were observed and 0 where they were filled. ``part`` says
    what the rows are of the step; a row that only stands in has no number. If
    ``partner_is_row``, the partner comes as a row too, in its turn, and is no copy.
    """

    x: Tensor
    weight: Tensor | None
    indices: Tensor
    partner: Tensor | None = None
    seen: Tensor | None = None
    partner_seen: Tensor | None = None
    part: Part = WHOLE
    partner_is_row: bool = False


def most_likely(g: Tensor) -> Tensor:
    """Clusters (n,) of the largest responsibilities (n, k), the first of equal ones."""
    # On a CPU several times as fast as argmax.
    return g.max(dim=1).indices


@final
class Labels:
    """The clusters (n,) of all rows, gathered batch by batch.

    On a CPU what is noted is held and looked at many batches at a time, so that a step of
    training hardly notices; a GPU looks at once, which can be recorded.
    """

    def __init__(self, n_rows: int, device: torch.device):
        self.values = torch.zeros(n_rows, dtype=torch.long, device=device)
        self.held: list[tuple[Tensor, Tensor]] = []
        self.n_held = 0
        self.most_held = NUMBERS_HELD if device.type == "cpu" else 0

    def note(self, batch: Batch, g: Tensor) -> None:
        """Responsibilities (b, k) of a batch, or (2 b, k) with the partners last."""
        self.held.append((batch.indices, g.detach()[: len(batch.indices)]))
        self.n_held += len(g) * max(g.shape[1], FEW_CLUSTERS)
        if self.n_held > self.most_held:
            self._look()

    def _look(self) -> None:
        indices, g = self.held[0]
        if len(self.held) > 1:
            indices, g = map(torch.cat, zip(*self.held, strict=True))
        self.values[indices] = most_likely(g)
        self.held, self.n_held = [], 0

    def clear(self) -> None:
        """Forget what was noted."""
        self.values.zero_()
        self.held, self.n_held = [], 0

    def tensor(self) -> Tensor:
        """The clusters of the rows that have been noted, zero for others."""
        if self.held:
            self._look()
        return self.values


class Rows(ABC):
    """``n`` rows of ``d`` features, with a weight each or none.

    Weights have mean one over all rows. ``device`` and ``dtype`` are those of
    the batches. Where several processes fit together, these are the rows of all, of
    which every pass gives the part of this process, and ``ranks`` puts sums together.
    ``fill`` (d,), where entries are missing, stands in their place.
    """

    ranks: Ranks = ALONE
    fill: Tensor | None = None

    def __init__(
        self,
        shape: tuple[int, int],
        weight: np.ndarray | None,
        device: torch.device,
        dtype: torch.dtype,
    ):
        self.shape = shape
        self.device = device
        self.dtype = dtype
        self.weight = None if weight is None else torch.as_tensor(weight, device=device).to(dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def values(self, index: Tensor) -> Tensor:
        """The rows of ``index`` (b,), as a new dense tensor (b, d) on the device."""

    def take(self, index: Tensor) -> Batch:
        """The batch of ``index`` (b,)."""
        weight = None if self.weight is None else self.weight[index]
        return Batch(self.values(index), weight, index)

    def part(self, index: Tensor) -> Batch:
        """What falls to this process of the step of ``index`` (b,)."""
        return self.take(index)

    def filled_with(self, fill: Tensor) -> "Rows":
        """The same rows with ``fill`` (d,) in place of what is missing."""
        return self

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """All rows once, in an order drawn from ``generator``.

        Batches hold at most ``batch_size`` rows and differ in size by one at
        most, so that no small rest gets a step of its own.
        """
        order = torch.randperm(len(self), generator=generator).to(self.device)
        for index in in_steps(order, batch_size):
            yield self.part(index)

    def shuffled(self, generator: torch.Generator) -> Iterator[Batch]:
        """All rows once, in an order drawn from ``generator``, a bounded number at a time."""
        order = torch.randperm(len(self), generator=generator).to(self.device)
        for index in order.split(inference_rows(self.shape[1])):
            yield self.part(index)

    def pairs(self) -> Iterator[Batch]:
        """All rows once, with a partner each where there are any, always the same."""
        return self.in_order()

    def in_order(self) -> Iterator[Batch]:
        """All rows once, in their order, a bounded number at a time."""
        for index in torch.arange(len(self), device=self.device).split(
            inference_rows(self.shape[1])
        ):
            yield self.take(index)


@final
class ResidentRows(Rows):
    """Rows held as one tensor on the device."""

    def __init__(self, x: Tensor, weight: np.ndarray | None = None):
        super().__init__((x.shape[0], x.shape[1]), weight, x.device, x.dtype)
        self.x = x

    def values(self, index: Tensor) -> Tensor:
        return self.x.index_select(0, index)


@final
class HostRows(Rows):
    """Rows left where they are, in CSR, read-only or the CPU's memory; a batch is copied out."""

    def __init__(self, x, weight: np.ndarray | None, device: torch.device, dtype: torch.dtype):
        super().__init__(x.shape, weight, device, dtype)
        self.x = x

    def values(self, index: Tensor) -> Tensor:
        rows = self.x[index.cpu().numpy()]
        dense = rows.toarray() if sp.issparse(rows) else rows
        return torch.from_numpy(dense).to(self.device, self.dtype)


@final
class IncompleteRows(Rows):
    """Rows with missing entries, NaN where they are kept: a batch comes filled, and marked.

    Parameters
    ----------
    rows : Rows
        The rows as they are.
    fill : Tensor of shape (d,), default=None
        What takes the place of a missing entry of every column; None is zeros.
    """

    fill: Tensor

    def __init__(self, rows: Rows, fill: Tensor | None = None):
        super().__init__(rows.shape, None, rows.device, rows.dtype)
        self.weight = rows.weight
        self.rows = rows
        zeros = torch.zeros(rows.shape[1], device=rows.device, dtype=rows.dtype)
        self.fill = zeros if fill is None else fill.to(zeros)

    def filled_with(self, fill: Tensor) -> "IncompleteRows":
        return IncompleteRows(self.rows, fill)

    def values(self, index: Tensor) -> Tensor:
        return self.take(index).x

    def take(self, index: Tensor) -> Batch:
        batch = self.rows.take(index)
        is_missing = torch.isnan(batch.x)
        filled = torch.where(is_missing, self.fill, batch.x)
        return batch._replace(x=filled, seen=(~is_missing).to(self.dtype))


@final
class Neighbours:
    """Who may be drawn as the partner of whom: a graph of the rows, on a device.

    Parameters
    ----------
    graph : CSR array of shape (n, n)
        Weights of the edges, zero or more.
    device : torch.device
    """

    def __init__(self, graph: sp.csr_array, device: torch.device):
        # Everything a draw needs: one running sum over the edges of all rows, of which
        # each is scaled by its own largest weight, or light rows would be lost.
        edges = np.diff(graph.indptr)
        largest = np.maximum.reduceat(graph.data, graph.indptr[:-1][edges > 0])
        scaled = graph.data / np.repeat(largest, edges[edges > 0])
        total = np.concatenate([[0.0], np.cumsum(scaled)])
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.total = torch.from_numpy(total).to(device, wide)
        self.first = torch.from_numpy(graph.indptr.astype(np.int64)).to(device)
        self.other = torch.from_numpy(graph.indices.astype(np.int64)).to(device)

    def draw(self, index: Tensor, place: Tensor) -> Tensor:
        """For each row of ``index`` (b,) one neighbour; itself if it has none.

        ``place`` (b,) in [0, 1) says which, as uniform numbers draw by weight.
        """
        first, last = self.first[index], self.first[index + 1]
        low, high = self.total[first], self.total[last]
        edge = torch.searchsorted(self.total, low + place * (high - low), right=True) - 1
        # Rounding may step over the last edge, and a row without edges has none.
        edge = torch.minimum(edge, last - 1).clamp(min=0)
        return torch.where(last > first, self.other[edge], index)


@final
class AugmentedRows(Rows):
    """Rows that are transformed anew whenever they come in random order.

    Parameters
    ----------
    rows : Rows
        The rows as they are.
    augment : callable
        ``(batch, generator) -> batch``.
    """

    def __init__(self, rows: Rows, augment: Augment):
        super().__init__(rows.shape, None, rows.device, rows.dtype)
        self.weight, self.ranks = rows.weight, rows.ranks
        self.rows = rows
        self.augment = augment

    def values(self, index: Tensor) -> Tensor:
        return self.rows.values(index)

    def in_order(self) -> Iterator[Batch]:
        return self.rows.in_order()

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        views = on_device(generator, self.device, self.ranks)
        for batch in self.rows.batches(batch_size, generator):
            yield batch._replace(x=still_filled(self.augment(batch.x, views), batch.x, batch.seen))


@final
class PairedRows(Rows):
    """Rows that come with a partner each: a neighbour, a transformed copy, or both.

    The rows themselves are as they are. Without a generator (`pairs`) they come in
    the same order with the same partners every time.

    Parameters
    ----------
    rows : Rows
        The rows as they are.
    neighbours : Neighbours or None
        Who may be a partner; None makes every row its own.
    augment : callable or None
        ``(batch, generator) -> batch``.
    """

    def __init__(self, rows: Rows, neighbours: Neighbours | None, augment: Augment | None):
        super().__init__(rows.shape, None, rows.device, rows.dtype)
        self.weight, self.ranks = rows.weight, rows.ranks
        self.rows = rows
        self.neighbours = neighbours
        self.augment = augment

    def values(self, index: Tensor) -> Tensor:
        return self.rows.values(index)

    def in_order(self) -> Iterator[Batch]:
        return self.rows.in_order()

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        return map(self._drawing(generator), self.rows.batches(batch_size, generator))

    def pairs(self) -> Iterator[Batch]:
        generator = make_generator(0)
        # Shuffled, since rows that lie together in X may be of one cluster, and pairs
        # are contrasted with those that come with them.
        return map(self._drawing(generator), self.rows.shuffled(generator))

    def _drawing(self, generator: torch.Generator) -> Callable[[Batch], Batch]:
        """What gives the rows of a batch their partners, drawn from ``generator``."""
        place: Tensor | None = None
        if self.neighbours is not None:
            drawn = torch.rand(len(self), generator=generator, dtype=torch.float64)
            place = drawn.to(self.device, self.neighbours.total.dtype)
        views = on_device(generator, self.device, self.ranks)

        def pair(batch: Batch) -> Batch:
            # A function of the user's may write into what it gets.
            partner = batch.x if self.augment is None else batch.x.clone()
            seen = batch.seen
            if self.neighbours is not None and place is not None and len(batch.indices):
                drawn = self.neighbours.draw(batch.indices, place[batch.indices])
                others = self.rows.take(drawn)
                partner, seen = others.x, others.seen
            if self.augment is not None:
                partner = still_filled(self.augment(partner, views), partner, seen)
            is_row = self.augment is None
            return batch._replace(partner=partner, partner_seen=seen, partner_is_row=is_row)

        return pair


def in_steps(order: Tensor, batch_size: int) -> tuple[Tensor, ...]:
    """``order`` (n,) in steps of at most ``batch_size``, that differ by one at most."""
    return torch.tensor_split(order, -(-len(order) // batch_size))


def still_filled(augmented: Tensor, x: Tensor, seen: Tensor | None) -> Tensor:
    """Transformed rows whose missing entries are filled as in ``x``."""
    return augmented if seen is None else torch.where(seen > 0, augmented, x)


def on_device(
    generator: torch.Generator, device: torch.device, ranks: Ranks = ALONE
) -> torch.Generator:
    """A generator on ``device`` that follows from the next number of ``generator``.

    Views are drawn where the rows are, each process its own, and the state of the one
    generator of a training is still all that has to be kept.
    """
    seed = int(torch.randint(2**31 - 1, (), generator=generator)) + ranks.rank
    return torch.Generator(device).manual_seed(seed)


def make_rows(
    x: np.ndarray | sp.csr_matrix | sp.csr_array,
    weight: np.ndarray | None,
    device: torch.device,
    dtype: torch.dtype,
) -> Rows:
    """Wrap checked data ``x`` (n, d) in the kind of rows that fits it.

    A writable array crosses to torch once and stays on the device, if it has room. A
    read-only one, such as a memory map, is never loaded whole.
    """
    if sp.issparse(x) or not x.flags.writeable or x.size * dtype.itemsize > room_for_rows(device):
        return HostRows(x, weight, device, dtype)
    return ResidentRows(torch.from_numpy(x).to(device, dtype), weight)


def column_moments(rows: Rows) -> tuple[Tensor, Tensor]:
    """Weighted mean and variance of every column, (d,) each, accumulated in float64.

    Both are those of the observed entries, and NaN where a column has none. A variance
    that rounding alone could have made is zero.
    """
    wide = torch.float32 if rows.device.type == "mps" else torch.float64

    def total(function: Callable[[Tensor], Tensor]) -> Tensor:
        sums = torch.zeros(rows.shape[1], dtype=wide, device=rows.device)
        for batch in rows.in_order():
            values = function(batch.x.to(wide))
            if batch.seen is not None:
                values = values * batch.seen
            weight = batch.weight
            sums += values.sum(dim=0) if weight is None else weight.to(wide) @ values
        return rows.ranks.total(sums)

    # Weights rounded to float32 do not quite have mean one.
    n_rows = len(rows) if rows.weight is None else rows.ranks.total(rows.weight.to(wide).sum())
    if rows.fill is not None:
        n_rows = total(torch.ones_like)

    mean = total(lambda x: x) / n_rows
    variance = total(lambda x: (x - mean).square()) / n_rows
    # Out of range, both are infinite, and the variance should be found to be.
    is_noise = (variance.sqrt() <= (ROUNDING * mean).abs()) & variance.isfinite()
    return mean, variance.masked_fill(is_noise, 0.0)
