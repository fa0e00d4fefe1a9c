"""Which rows belong together in a fit: from `augment`, `n_neighbors` and `adjacency`.

A row and its partner are draws from one component. A transformed copy surely
is, a neighbour mostly: so a copy is the better partner while responsibilities
are learned, and neighbours are what an embedding is pretrained with.
"""

from typing import Any, final

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from ._augmentation import ImageAugmentation, NoiseAugmentation, image_background
from ._block_rows import moments_of
from ._checks import check_augment_of_incomplete, check_augmented
from ._graph import neighbour_graph, telling_neighbours, trusted
from ._missing import completed
from ._rows import Augment, AugmentedRows, Neighbours, PairedRows, Rows
from ._tensors import to_numpy
from .autoencoders import check_image_shape

# Rows that tell the background of images.
BACKGROUND_ROWS = 1000


@final
class Partners:
    """The rows of a fit as pretraining and as joint training see them.

    Parameters
    ----------
    rows : Rows
        The rows as they are.
    graph : CSR array of shape (n, n) or None
        The neighbours.
    augment : callable or None
        ``(batch, generator) -> batch``.

    Attributes
    ----------
    rows, graph, augment
        As given.
    pretraining : Rows
        Transformed rows; with neighbours, if there is a graph.
    training : Rows
        Rows with a transformed copy each, else with a neighbour each.
    are_neighbours : bool
        Whether the partners in joint training are neighbours.
    """

    def __init__(self, rows: Rows, graph: sp.csr_array | None, augment: Augment | None):
        self.rows = rows
        self.graph = graph
        self.augment = augment
        self.are_neighbours = graph is not None and augment is None
        self.pretraining = self.training = rows
        if augment is not None:
            self.pretraining = AugmentedRows(rows, augment)
            self.training = PairedRows(rows, None, augment)
        if graph is not None:
            neighbours = Neighbours(graph, rows.device)
            self.pretraining = PairedRows(rows, neighbours, augment)
            if augment is None:
                self.training = self.pretraining

    def __bool__(self) -> bool:
        """Whether rows have partners."""
        return isinstance(self.training, PairedRows)

    def with_graph(self, graph: sp.csr_array | None, weight: Tensor | None = None) -> "Partners":
        """The same rows and copies, with other neighbours: those of rows of some ``weight``."""
        if graph is not None and weight is not None:
            # A row of no weight is nobody's partner.
            kept = (weight > 0).cpu().numpy().astype(np.float64)
            graph = sp.csr_array(graph @ sp.diags(kept))
            graph.eliminate_zeros()
        if graph is not None and graph.nnz == 0:
            graph = None
        return Partners(self.rows, graph, self.augment)


def check_partners(rows: Rows, *, augment: Any, image_shape: Any) -> None:
    """Raise where copies cannot be made of ``rows``."""
    if rows.fill is not None:
        check_augment_of_incomplete(augment)
    if augment == "image":
        if image_shape is None:
            raise ValueError(
                "augment='image' needs image_shape, but it is None. Give (height, width) or "
                "(channels, height, width) of the image that a row of X holds in C order."
            )
        check_image_shape(image_shape, rows.shape[1])


def make_partners(
    x: Any,
    rows: Rows,
    *,
    weight: Tensor | None,
    augment: Any,
    image_shape: Any,
    n_neighbors: int | str | None,
    k: int,
    is_at_hand: bool,
    graph: sp.csr_array | None,
) -> Partners:
    """Partners of ``rows``, of which this process holds ``x`` (n, d) with ``weight`` (n,).

    ``graph`` is the one that the user gave, and ``x`` then smoothed over it. With missing
    entries, neighbours are sought among rows completed by their principal directions.
    "auto" neighbours are sought where ``x`` is all rows, as one array.
    """
    ranks = rows.ranks
    if rows.fill is not None and n_neighbors is not None:
        x = completed(x, to_numpy(rows.fill))
    transform: Augment | None = None
    if augment == "image":
        shape = check_image_shape(image_shape, x.shape[1])
        some = torch.arange(0, len(rows), -(-len(rows) // BACKGROUND_ROWS), device=rows.device)
        own = rows.part(some)
        images = torch.cat(ranks.gather(own.x[: len(own.indices)].cpu())).to(rows.device)
        background = image_background(images, shape)
        transform = ImageAugmentation(shape, background)
    elif augment == "noise":
        transform = NoiseAugmentation(moments_of(rows)[1].sqrt().to(rows.dtype))
    elif augment is not None:

        def transform(batch: Tensor, generator: torch.Generator) -> Tensor:
            augmented = augment(batch, generator)
            check_augmented(augmented, batch)
            return augmented

    nearest = None
    if n_neighbors == "auto":
        nearest = ranks.first(telling_neighbours, x, k) if is_at_hand else None
    elif n_neighbors is not None:
        nearest = ranks.first(neighbour_graph, x, n_neighbors)
    graph = nearest if graph is None else ranks.first(trusted, graph, x, nearest)
    return Partners(rows, None, transform).with_graph(graph, weight)
