"""Graphs of rows that belong together: checked, built and smoothed over. No torch.

An edge says that two rows are likely to be of one cluster. It comes from the
user (`check_adjacency`) or from the nearest neighbours (`neighbour_graph`).
"""

from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.metrics.pairwise import paired_distances
from sklearn.neighbors import kneighbors_graph
from sklearn.utils import gen_batches
from sklearn.utils.extmath import randomized_svd

from ._extras import need

# Neighbours of wider rows are sought among so many principal directions.
SEARCH_WIDTH = 64

# Up to so many rows the search is exact.
EXACT_ROWS = 100_000

# The neighbours of a row that "auto" takes, where there are so many rows a cluster, and the
# skewness of how often a row is one from which on there are hubs.
NEIGHBOURS = 10
ROWS_PER_CLUSTER = 100
MOST_HUBNESS = 1.2

# So little that it decides only where there are no edges.
FAINT = 1e-9

# The squared distance at which an edge counts 1/e, as a share of the median of all edges.
LIKENESS = 0.5

# Edges whose distances are computed at once.
EDGES_AT_ONCE = 2**16

# How often, and with which weight of its neighbours, a row of a given graph is smoothed.
SMOOTHING_STEPS = 2
SMOOTHING = 0.5


def check_adjacency(adjacency: Any, n_rows: int) -> sp.csr_array:
    """A user's graph of ``n_rows`` rows as CSR of float64: symmetric, without loops."""
    try:
        if not sp.issparse(adjacency) and np.ndim(adjacency) == 0:
            raise TypeError("not an array")
        shape = adjacency.shape if sp.issparse(adjacency) else np.shape(adjacency)
        # A vector is a row to some releases of scipy; its own shape is what to name.
        graph = sp.csr_array(adjacency)
        if np.iscomplexobj(graph.data):
            raise TypeError("complex weights")
        graph = graph.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "adjacency must be a sparse matrix or array of numbers of shape (n_samples, "
            f"n_samples), but is {type(adjacency).__name__}: {error}"
        ) from None
    if shape != (n_rows, n_rows):
        raise ValueError(
            f"adjacency must have one row and one column for each of the n_samples={n_rows} rows "
            f"of X, but has shape {shape}. Cross-validation cuts only its rows: for each "
            "split, cut both sides yourself, adjacency[rows][:, rows], and fit and score in a "
            "loop over the splits."
        )
    if not np.isfinite(graph.data).all() or (graph.data < 0).any():
        raise ValueError(
            "The weights in adjacency must be finite and zero or more, but are in "
            f"[{graph.data.min()}, {graph.data.max()}]. Leave out edges of no weight."
        )
    edges = (graph + graph.T).tocoo()
    kept = (edges.row != edges.col) & (edges.data > 0)
    parts = edges.data[kept], (edges.row[kept], edges.col[kept])
    return sp.csr_array(parts, shape=(n_rows, n_rows))


def neighbour_graph(x: Any, n_neighbors: int) -> sp.csr_array:
    """The symmetric graph of every row of ``x`` (n, d) with its nearest neighbours.

    Wide rows are first projected on their principal directions. Beyond
    `EXACT_ROWS` rows the search is approximate, by faiss.
    """
    return _symmetric(_nearest(x, n_neighbors))


def telling_neighbours(x: Any, k: int) -> sp.csr_array | None:
    """`neighbour_graph` where neighbours tell clusters of ``x`` (n, d) apart, else None.

    On a manifold of few dimensions rows are neighbours of about equally many others. With the
    dimension grows the share of hubs, near to rows of all kinds (Radovanovic, Nanopoulos,
    Ivanovic 2010), and distances tell less. The skewness of the in-degrees measures it; 1.2
    is the customary limit. Rows must be many enough for neighbours to be of one cluster, and
    few enough for an exact search. In fewer than k dimensions k centroids can only become
    orthonormal if the embedding bends, from which neighbours would keep it.
    """
    if not ROWS_PER_CLUSTER * k <= x.shape[0] <= EXACT_ROWS or x.shape[1] < k:
        return None
    graph = _nearest(x, NEIGHBOURS)
    # How much more often than the mean, which is NEIGHBOURS, a row is one.
    surplus = np.bincount(graph.indices, minlength=x.shape[0]) - NEIGHBOURS
    has_hubs = (surplus**3).mean() > MOST_HUBNESS * (surplus**2).mean() ** 1.5
    return None if has_hubs else _symmetric(graph)


def _nearest(x: Any, n_neighbors: int) -> sp.csr_array:
    """Edges of weight one from every row to its nearest ones."""
    n_neighbors = min(n_neighbors, x.shape[0] - 1)
    if n_neighbors == 0:
        return sp.csr_array(x.shape[:1] * 2, dtype=np.float64)
    x = principal(x)
    if x.shape[0] > EXACT_ROWS:
        return _approximate_neighbours(x, n_neighbors)
    return sp.csr_array(kneighbors_graph(x, n_neighbors, mode="connectivity"))


def _symmetric(graph: sp.csr_array) -> sp.csr_array:
    """An edge of weight one wherever ``graph`` has one in either direction."""
    graph = graph + graph.T
    graph.data[:] = 1.0
    return graph


def principal(x: Any) -> Any:
    """Rows (n, d) as they are, or on their first directions where they are wide."""
    if x.shape[1] <= SEARCH_WIDTH:
        return x
    return x @ randomized_svd(x, SEARCH_WIDTH, random_state=0)[2].T


def trusted(graph: sp.csr_array, x: Any, nearest: sp.csr_array | None) -> sp.csr_array:
    """The edges of ``graph`` that ``x`` (n, d) bears out, and those of its ``nearest`` rows.

    A given graph may hold wrong edges, and smoothed rows tell most of them: every
    edge is weighted by ``exp(-s / (median(s) / 2))`` with the squared distance s of its
    rows and the median over the given ones.
    """
    x = principal(x)
    scale = LIKENESS * np.median(_squared_lengths(graph, x)) if graph.nnz else 0.0
    if nearest is not None:
        graph = sp.csr_array(graph + nearest)
    if scale > 0:
        likeness = np.exp(-_squared_lengths(graph, x) / scale)
        graph = graph.copy()
        graph.data *= np.maximum(likeness, FAINT)
        # No edge vanishes, or a row of such would have none.
        graph.data = np.maximum(graph.data, np.finfo(np.float64).smallest_subnormal)
    return graph


def _squared_lengths(graph: sp.csr_array, x: Any) -> np.ndarray:
    """The squared distance (n_edges,) of the rows of every edge, in the order of ``data``."""
    source = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    parts = [
        paired_distances(x[source[edges]], x[graph.indices[edges]]) ** 2
        for edges in gen_batches(graph.nnz, EDGES_AT_ONCE)
    ]
    return np.concatenate(parts)


def _approximate_neighbours(x: Any, n_neighbors: int) -> sp.csr_array:
    try:
        faiss = need("faiss", "neighbors", f"n_neighbors with more than {EXACT_ROWS} rows")
    except ImportError as error:
        raise ValueError(f"{error} Or pass your own graph as adjacency.") from None
    rows = np.ascontiguousarray(x.toarray() if sp.issparse(x) else x, dtype=np.float32)
    n_rows, width = rows.shape
    n_lists = int(np.sqrt(n_rows))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, n_lists)
    index.train(rows)
    index.add(rows)
    index.nprobe = max(1, n_lists // 16)
    _, found = index.search(rows, n_neighbors + 1)
    source = np.repeat(np.arange(n_rows), n_neighbors + 1)
    target = found.ravel()
    keep = (target >= 0) & (target != source)
    ones = np.ones(np.count_nonzero(keep))
    return sp.csr_array((ones, (source[keep], target[keep])), shape=(n_rows, n_rows))


def _of_order_one(graph: sp.csr_array) -> sp.csr_array:
    """The graph with every row times a power of two, which rounds nothing.

    Without it, one over a weight that is hardly a number would overflow.
    """
    exponent = np.frexp(graph.max(axis=1).toarray().ravel())[1]
    scaled = graph.copy()
    scaled.data = np.ldexp(graph.data, -np.repeat(exponent, np.diff(graph.indptr)))
    return scaled


def smooth(x: Any, graph: sp.csr_array) -> Any:
    """Rows mixed with the mean of their neighbours, as a graph convolution does.

    A row without neighbours stays as it is, and every row counts alike.
    """
    graph = _of_order_one(graph)
    degree = graph.sum(axis=1)
    alone = degree == 0
    scale = sp.diags(1.0 / np.where(alone, 1.0, degree))
    mean = sp.csr_array(scale @ graph + sp.diags(alone.astype(np.float64)))
    smoothed = x
    for _ in range(SMOOTHING_STEPS):
        smoothed = (1.0 - SMOOTHING) * smoothed + SMOOTHING * (mean @ smoothed)
    if sp.issparse(x):
        return type(x)(smoothed, dtype=x.dtype)
    return np.ascontiguousarray(smoothed, dtype=x.dtype)


def overlap(labels: np.ndarray, graph: sp.csr_array, k: int) -> np.ndarray:
    """Share (k, k) of the edges between every two clusters."""
    rows = np.arange(len(labels))
    member = sp.csr_array((np.ones(len(rows)), (rows, labels)), shape=(len(rows), k))
    edges = (member.T @ graph @ member).toarray()
    return edges / max(edges.sum(), np.finfo(np.float64).tiny)


def modularity(shares: np.ndarray) -> float:
    """How much more of the edges lies inside clusters than chance would put there.

    ``shares`` (k, k) is the `overlap` of the clusters (Newman and Girvan 2004).
    """
    size = shares.sum(axis=1)
    return float(np.trace(shares) - size @ size)
