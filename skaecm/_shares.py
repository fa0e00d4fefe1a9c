"""The rows of a fit of several processes: who holds which, and a part of every step for each.

Either every process holds rows of its own, which follow each other by rank, or all hold the
same rows, and each goes through a block of them. The rows of a step are those that one
process with all rows would draw; each process computes those among them that are its own.
"""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple, final

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils import gen_batches
from torch import Tensor

from ._ranks import ALONE, Part, Ranks
from ._rows import Batch, Rows, in_steps
from ._tensors import inference_rows


class Share(NamedTuple):
    """What a process holds of the ``n_all`` rows of a fit.

    It holds ``n_held`` rows, of which ``start`` is the number of the first, and goes
    through those with the numbers ``own``.
    """

    ranks: Ranks
    n_all: int
    n_held: int
    start: int
    own: range

    @property
    def is_whole(self) -> bool:
        """Whether every process holds all rows."""
        return self.n_held == self.n_all

    def own_of(self, held: Any) -> Any:
        """Of something that is held for each row, that of the own rows."""
        return held[self.own.start - self.start : self.own.stop - self.start]

    def of_own(self) -> "Share":
        """Where every process holds something of its own rows alone."""
        return self._replace(n_held=len(self.own), start=self.own.start)

    def rows(self, held: Rows) -> Rows:
        """All rows as this process sees them, of which it holds ``held``."""
        return held if self.ranks.size == 1 else SharedRows(held, self)

    def stack(self, held: Any) -> Any:
        """On the first process, what all hold of all rows."""
        return held if self.is_whole else self.ranks.stack(held)

    def take(self, held: Any, numbers: np.ndarray) -> Any:
        """On the first process, the rows of ``numbers``, which rise, of what all hold."""
        if self.is_whole:
            return held if len(numbers) == self.n_all else held[numbers]
        own = numbers[(numbers >= self.own.start) & (numbers < self.own.stop)]
        return self.ranks.stack(held[own - self.start])


@final
class SharedRows(Rows):
    """All rows of a fit, of which this process goes through its own.

    Parameters
    ----------
    rows : Rows
        Those that are held here.
    share : Share
        Which of all they are.
    """

    def __init__(self, rows: Rows, share: Share):
        super().__init__((share.n_all, rows.shape[1]), None, rows.device, rows.dtype)
        self.weight = None if rows.weight is None else share.own_of(rows.weight)
        self.ranks = share.ranks
        self.fill = rows.fill
        self.rows = rows
        self.share = share

    def values(self, index: Tensor) -> Tensor:
        return self.rows.values(index - self.share.start)

    def take(self, index: Tensor) -> Batch:
        return self.rows.take(index - self.share.start)._replace(indices=index)

    def part(self, index: Tensor) -> Batch:
        place = self._place(index)
        return self._part(index[place], place, len(index))

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        # What is own is found before anything is on a GPU, which would have to wait for it.
        order = torch.randperm(len(self), generator=generator)
        steps = in_steps(order, batch_size)
        places = [self._place(step) for step in steps]
        sizes = [len(place) for place in places]
        index = order[self._place(order)].to(self.device).split(sizes)
        place = torch.cat(places).to(self.device).split(sizes)
        for step, own, at in zip(steps, index, place, strict=True):
            yield self._part(own, at, len(step))

    def in_order(self) -> Iterator[Batch]:
        own = self.share.own
        numbers = torch.arange(own.start, own.stop, device=self.device)
        for index in numbers.split(inference_rows(self.shape[1])):
            yield self.take(index)

    def _place(self, index: Tensor) -> Tensor:
        """Where the own rows are in ``index`` (b,)."""
        own = self.share.own
        return ((index >= own.start) & (index < own.stop)).nonzero()[:, 0]

    def _part(self, index: Tensor, place: Tensor, n_rows: int) -> Batch:
        """The own rows of a step of ``n_rows`` rows; without any, one that stands in."""
        first = torch.tensor([self.share.own.start], device=self.device)
        here = index if len(index) else first
        part = Part(self.ranks, len(index) / n_rows, n_rows / len(here), n_rows, place)
        return self.take(here)._replace(indices=index, part=part)


def undivided(n_rows: int) -> Share:
    """All rows are here, and there is one process."""
    return Share(ALONE, n_rows, n_rows, 0, range(n_rows))


def find_share(ranks: Ranks, *held: Any) -> Share:
    """Who holds which rows: the same on every process, or on each its own.

    ``held`` is X and what else there is for every row, or None.
    """
    n_held = held[0].shape[0]
    if ranks.size == 1:
        return undivided(n_held)
    sizes = ranks.gather(n_held)
    # No need to read all of them where already their numbers differ.
    digests = ranks.gather(digest(*held)) if len(set(sizes)) == 1 else sizes
    if len(set(digests)) == 1:
        if n_held < ranks.size:
            raise ValueError(
                f"n_samples={n_held} is too few for {ranks.size} processes, as each needs a row. "
                "Start fewer processes."
            )
        edges = np.linspace(0, n_held, ranks.size + 1).astype(int).tolist()
        return Share(ranks, n_held, n_held, 0, range(*edges[ranks.rank : ranks.rank + 2]))
    start = sum(sizes[: ranks.rank])
    return Share(ranks, sum(sizes), n_held, start, range(start, start + n_held))


def digest(*held: Any) -> str:
    """What tells arrays and CSR matrices from others of their shape."""
    found = hashlib.blake2b()
    for values in held:
        if values is None:
            continue
        width = values.shape[1] if values.ndim > 1 else 1
        for rows in gen_batches(values.shape[0], inference_rows(width)):
            block = values[rows]
            parts = (block.data, block.indices, block.indptr) if sp.issparse(block) else (block,)
            for part in parts:
                found.update(np.ascontiguousarray(part).data)
    return found.hexdigest()
