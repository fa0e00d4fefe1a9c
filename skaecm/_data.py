"""What the steps of a fit hand on: checked input, and one training from one start."""

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from . import _losses
from ._block_rows import BlockRows
from ._kmeans import sample_rows
from ._missing import filled
from ._modules import ClusteringNetwork, Standardizer
from ._partners import Partners
from ._rows import Rows, make_rows
from ._shares import Share, undivided
from ._tensors import to_numpy
from ._valleys import count_clusters


class Data(NamedTuple):
    """Checked input: the array as validated, its weights, and both as rows.

    ``held`` are those of ``x``, ``rows`` those of all processes of a fit; where there is
    one, they are the same. The standardizer is learned from the rows of a new fit; a
    pass over one more block has none. What training sees are the same rows with their
    partners. The graph is the one that the user gave. ``k`` is the number of clusters, 0
    until it is counted, and ``n_weighted`` that of all rows that carry weight.
    """

    x: Any
    weight: np.ndarray | None
    n_weighted: int
    share: Share
    held: Rows
    rows: Rows
    standardizer: Standardizer | None
    partners: Partners
    graph: Any = None
    k: int = 0

    @property
    def is_at_hand(self) -> bool:
        """Whether this process holds all rows of the fit, as one array."""
        return self.share.is_whole and not isinstance(self.rows, BlockRows)

    def filled_with(self, fill: Tensor) -> "Data":
        """The same data with ``fill`` (d,) in place of what is missing."""
        if self.rows.fill is None:
            return self
        held = self.held.filled_with(fill)
        return self._replace(held=held, rows=self.share.rows(held))

    def all_weights(self) -> np.ndarray | None:
        """On the first process, the weights of all rows."""
        return None if self.weight is None else self.share.stack(self.weight)

    def rows_of_own(self, x: np.ndarray) -> Rows:
        """As rows of all what each process has of its own rows, as their codes."""
        weight = None if self.weight is None else self.share.own_of(self.weight)
        return self.share.of_own().rows(make_rows(x, weight, self.rows.device, self.rows.dtype))

    def of_start(self) -> "Data":
        """What a start looks at: all rows, or the sample of those that are read in blocks."""
        if not isinstance(self.rows, BlockRows):
            return self
        x = self.rows.survey.sample
        rows = make_rows(x, None, self.rows.device, self.rows.dtype)
        share = undivided(len(x))
        return self._replace(x=x, weight=None, share=share, held=rows, rows=rows)

    def sample(self, seed: int) -> tuple[Any, np.ndarray | None]:
        """On the first process, so many rows as a start looks at, and their weights."""
        seen = self.of_start()
        ranks, all_rows = seen.share.ranks, np.arange(seen.share.n_all)
        numbers, weight = ranks.first(
            sample_rows, all_rows, self.k, seed=seed, sample_weight=seen.all_weights()
        )
        return seen.share.take(seen.x, numbers), weight

    def known_sample(self, seed: int) -> tuple[Any, np.ndarray | None]:
        """The same, with what is missing filled in."""
        x, weight = self.sample(seed)
        fill = self.rows.fill
        return x if fill is None else filled(x, to_numpy(fill)), weight

    def counted(self, seed: int) -> "Data":
        """The same data with the number of clusters among the rows, unless it has one."""
        if self.k:
            return self
        x, weight = self.known_sample(seed)
        k = self.share.ranks.first(count_clusters, x, seed=seed, sample_weight=weight)
        return self._replace(k=k)


class Run(NamedTuple):
    """One training from one start."""

    network: ClusteringNetwork
    loss: float
    converged: bool
    n_iter: int
    history: list[dict[str, Any]]

    @property
    def excess(self) -> float:
        """The loss above the least that its prior can cost; runs may have priors of their own."""
        return self.loss - float(_losses.least_e4(self.network.alpha))
