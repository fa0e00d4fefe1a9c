"""Rows of a source that is read in pieces, on their way to a module.

How often all rows are read: `fit` reads them once to check them and to take their moments
and a sample, once an epoch, and then for the exact averages before the first joint epoch,
in the averaging epoch, for the loss of every run, and for the labels: seven times with one
epoch of pretraining and one of joint training. Each of these adds one: clusters left
without rows, ``augment="image"``, `memory`, and blocks that come one by one, which have to
be counted first. `partial_fit` after the first reads them for its epoch and for the labels,
and what predicts reads them once.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor

from . import _blocks
from ._blocks import Blocks
from ._rows import ROUNDING, Batch, Rows, column_moments, make_rows
from ._tensors import inference_rows, to_numpy


@final
class RowSample:
    """At most ``size`` rows, drawn without replacement with the chances of their weights.

    They are the first of an exponential race: those whose ``E / weight``, E exponential, are
    smallest (Efraimidis and Spirakis 2006). So rows can come part by part.
    """

    def __init__(self, size: int, width: int, dtype: np.dtype):
        self.rng = np.random.default_rng(0)
        self.times = np.full(size, np.inf)
        self.numbers = np.empty(size, dtype=np.int64)
        self.values = np.empty((size, width), dtype)

    def add(self, batch: Batch) -> None:
        """Let rows take part."""
        times = self.rng.exponential(size=len(batch.x))
        if batch.weight is not None:
            weight = to_numpy(batch.weight).astype(np.float64)
            times = np.divide(times, weight, out=np.full(len(times), np.inf), where=weight > 0)
        size = len(self.times)
        both = np.concatenate([self.times, times])
        is_first = np.zeros(len(both), dtype=bool)
        is_first[np.argsort(both, kind="stable")[:size]] = True
        place, chosen = np.flatnonzero(~is_first[:size]), np.flatnonzero(is_first[size:])
        index = torch.from_numpy(chosen).to(batch.x.device)
        self.times[place] = times[chosen]
        self.numbers[place] = to_numpy(batch.indices[index])
        self.values[place] = to_numpy(batch.x[index])

    def rows(self) -> np.ndarray:
        """The rows (m, d) in their order."""
        held = np.flatnonzero(np.isfinite(self.times))
        return self.values[held[np.argsort(self.numbers[held])]]


class Survey(NamedTuple):
    """What one pass tells: moments of the columns, (d,) each, and some rows (m, d)."""

    mean: Tensor
    variance: Tensor
    sample: np.ndarray


def balanced(n_rows: int, n_batches: int) -> Iterator[int]:
    """Sizes of so many batches, which differ by one at most, as torch splits a tensor."""
    size, n_larger = divmod(n_rows, n_batches)
    return (size + (batch < n_larger) for batch in range(n_batches))


@final
class BlockRows(Rows):
    """Rows of `Blocks`, shuffled within a window that holds several of them.

    Parameters
    ----------
    x : Blocks
    weight, device, dtype
        As of `Rows`.
    n_sampled : int
        Number of rows in the sample of the survey.
    """

    def __init__(
        self,
        x: Blocks,
        weight: np.ndarray | None,
        device: torch.device,
        dtype: torch.dtype,
        n_sampled: int,
    ):
        super().__init__(x.shape, weight, device, dtype)
        self.x = x
        self.n_sampled = n_sampled

    def values(self, index: Tensor) -> Tensor:
        """The rows of ``index`` (b,); a pass over all rows, so not for every batch."""
        found = torch.empty(len(index), self.shape[1], dtype=self.dtype, device=self.device)
        for batch in self.in_order():
            place = index - batch.indices[0]
            inside = (place >= 0) & (place < len(batch.x))
            found[inside] = batch.x[place[inside]]
        return found

    def in_order(self) -> Iterator[Batch]:
        """All rows once, in their order; values last until the next is asked for."""
        for x, numbers in self.x.parcels(inference_rows(self.shape[1]), self.dtype):
            # The numbers are kept longer, by what gathers labels.
            yield self._batch(x.to(self.device), numbers.clone().to(self.device))

    def shuffled(self, generator: torch.Generator) -> Iterator[Batch]:
        return self.batches(inference_rows(self.shape[1]), generator)

    def batches(self, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """All rows once, shuffled within windows of blocks in an order that is drawn.

        Batches hold at most ``batch_size`` rows and differ in size by one at most.
        """
        n_rows, n_features = self.shape
        n_windows = -(-n_rows * n_features * self.dtype.itemsize // _blocks.WINDOW_BYTES)
        order = self.x.draw_order(generator)
        sizes = balanced(n_rows, -(-n_rows // batch_size))
        size = next(sizes)
        # What a window leaves over begins the next batch.
        rest = torch.empty(0, n_features, dtype=self.dtype, device=self.device)
        rest_numbers = torch.empty(0, dtype=torch.long, device=self.device)
        for x, numbers in self.x.parcels(-(-n_rows // n_windows), self.dtype, order):
            x, numbers = x.to(self.device), numbers.to(self.device)
            mixed = torch.randperm(len(x), generator=generator).to(self.device)
            taken = 0
            while taken < len(x):
                index = mixed[taken : taken + size - len(rest)]
                taken += len(index)
                values, chosen = x.index_select(0, index), numbers[index]
                if len(rest):
                    values = torch.cat([rest, values])
                    chosen = torch.cat([rest_numbers, chosen])
                if len(values) < size:
                    rest, rest_numbers = values, chosen
                else:
                    yield self._batch(values, chosen)
                    rest, rest_numbers = rest[:0], rest_numbers[:0]
                    size = next(sizes, 0)

    def _batch(self, x: Tensor, numbers: Tensor) -> Batch:
        return Batch(x, None if self.weight is None else self.weight[numbers], numbers)

    @cached_property
    def survey(self) -> Survey:
        """Moments in float64 and a sample, of one pass.

        Moments of parts are joined as by Chan, Golub and LeVeque (1983): with the weight W,
        mean m and sum of squares S of each, ``S = S_1 + S_2 + W_1 W_2 / (W_1 + W_2) (m_2 -
        m_1)^2``. As in `column_moments`, a variance that rounding could have made is zero.
        """
        wide = torch.float32 if self.device.type == "mps" else torch.float64
        total = torch.zeros((), dtype=wide, device=self.device)
        mean = squares = torch.zeros(self.shape[1], dtype=wide, device=self.device)
        sample = RowSample(self.n_sampled, self.shape[1], self.x.dtype)
        for batch in self.in_order():
            sample.add(batch)
            values = batch.x.to(wide)
            weight = (
                torch.ones_like(values[:, 0]) if batch.weight is None else batch.weight.to(wide)
            )
            part = weight.sum()
            if part == 0:
                continue
            own = weight @ values / part
            step, share = own - mean, part / (total + part)
            squares = squares + weight @ values.sub_(own).square_()
            squares = squares + total * share * step.square()
            mean = mean + share * step
            total = total + part
        noise = (ROUNDING * mean).square()
        variance = squares / total
        variance = torch.where(variance > noise, variance, torch.zeros_like(variance))
        return Survey(mean, variance, sample.rows())


def rows_of(
    x: Any,
    weight: np.ndarray | None,
    device: torch.device,
    dtype: torch.dtype,
    n_sampled: int = 0,
) -> Rows:
    """Wrap checked data ``x`` (n, d), `Blocks` or what `make_rows` takes, in rows."""
    if isinstance(x, Blocks):
        return BlockRows(x, weight, device, dtype, n_sampled)
    return make_rows(x, weight, device, dtype)


def moments_of(rows: Rows) -> tuple[Tensor, Tensor]:
    """`column_moments`, of blocks in a single pass and only once."""
    if isinstance(rows, BlockRows):
        return rows.survey.mean, rows.survey.variance
    return column_moments(rows)
