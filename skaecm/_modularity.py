"""What clusters are worth without labels: their modularity on a graph of the rows. No torch.

Rows that lie together should be of one cluster, more of them than chance would have it. It
knows nothing of how the clusters were found, so all that finds some can be compared.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp

from ._graph import modularity, neighbour_graph, overlap

# Nearest rows that are taken to be of the cluster of a row.
NEIGHBOURS = 10

# Of more rows than these so many are judged, always the same: neighbours of all would take long.
MOST_ROWS = 10_000


def judged_rows(n_rows: int, weight: np.ndarray | None = None) -> np.ndarray:
    """The numbers of the rows to judge, in their order; a row of no weight is none of them."""
    rows = np.arange(n_rows) if weight is None else np.flatnonzero(weight)
    if len(rows) > MOST_ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False))
    return rows


def graph_modularity(labels: np.ndarray, graph: Any, weight: np.ndarray | None = None) -> float:
    """Modularity of clusters (n,) on a symmetric graph (n, n) of rows with weights (n,).

    An edge counts the product of the weights of its rows. Without edges it is zero.
    """
    if weight is not None:
        scale = sp.csr_array(sp.diags(weight))
        graph = scale @ graph @ scale
    return modularity(_shares(labels, graph))


def neighbour_modularity(labels: np.ndarray, x: Any, weight: np.ndarray | None = None) -> float:
    """Modularity of clusters (n,) among the nearest rows of ``x`` (n, d)."""
    return graph_modularity(labels, neighbour_graph(x, NEIGHBOURS), weight)


def neighbour_information(labels: np.ndarray, x: Any) -> float:
    """Mutual information, in nats, of the clusters of a row and of one of its nearest rows."""
    shares = _shares(labels, neighbour_graph(x, NEIGHBOURS))
    size = shares.sum(axis=1)
    kept = shares > 0
    lift = shares[kept] / np.outer(size, size)[kept]
    return float(shares[kept] @ np.log(lift))


def _shares(labels: np.ndarray, graph: Any) -> np.ndarray:
    """Share of the edges between every two clusters."""
    names, number = np.unique(labels, return_inverse=True)
    return overlap(number, graph, len(names))
