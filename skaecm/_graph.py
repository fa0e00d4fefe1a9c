"""Graphs of rows that belong together: checked, built, smoothed over and cut. No torch.

An edge says that two rows are likely to be of one cluster. It comes from the
user (`check_adjacency`) or from the nearest neighbours (`neighbour_graph`).
"""

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances, paired_distances
from sklearn.neighbors import kneighbors_graph
from sklearn.utils import gen_batches
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

from ._extras import need
from ._kmeans import consensus

# Neighbours of wider rows are sought among so many principal directions.
SEARCH_WIDTH = 64

# Up to so many rows the search is exact.
EXACT_ROWS = 100_000

# The neighbours of a row that "auto" takes, where there are so many rows a cluster, and the
# skewness of how often a row is one from which on there are hubs.
NEIGHBOURS = 10
ROWS_PER_CLUSTER = 100
MOST_HUBNESS = 1.2

# Rows among which surplus clusters are sought, and how many neighbours in the embedding link
# those of them that have no partner.
SAMPLED_ROWS = 10_000
SAMPLED_NEIGHBOURS = 10

# Surplus clusters, as multiples of k, and runs of k-means for each.
SURPLUS = (3, 5, 8, 12)
SURPLUS_RUNS = 3

# Passes over all surplus clusters that move them, at most, and the gain that counts.
REFINEMENTS = 20

# So little that it decides only where there are no edges.
FAINT = 1e-9

# The squared distance at which an edge counts 1/e, as a share of the median of all edges.
LIKENESS = 0.5

# Edges whose distances are computed at once.
EDGES_AT_ONCE = 2**16
ROUNDING = 1e-12

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


def merge(shares: np.ndarray, k: int) -> np.ndarray:
    """Merge clusters until ``k`` are left; the new number of each.

    Always the two with the largest ``shares[a, b] / (size[a] size[b])``: how much
    more often a row of one has its partner in the other than if partners were
    drawn at random.
    """
    shares = shares.copy()
    number = np.arange(len(shares))
    while len(shares) > k:
        size = shares.sum(axis=1)
        lift = shares / np.maximum(np.outer(size, size), np.finfo(np.float64).tiny)
        np.fill_diagonal(lift, -1.0)
        kept, gone = sorted(np.unravel_index(lift.argmax(), lift.shape))
        shares[kept] += shares[gone]
        shares[:, kept] += shares[:, gone]
        shares = np.delete(np.delete(shares, gone, axis=0), gone, axis=1)
        number[number == gone] = kept
        number[number > gone] -= 1
    return number


def nearness(kmeans: KMeans, shares: np.ndarray) -> np.ndarray:
    """What stands for the shares of clusters that no edge connects: less, the farther apart."""
    size = shares.sum(axis=1)
    squared = euclidean_distances(kmeans.cluster_centers_.astype(np.float64), squared=True)
    typical = max(squared.mean(), np.finfo(np.float64).tiny)
    return np.outer(size, size) / (1.0 + squared / typical)


def refine(shares: np.ndarray, number: np.ndarray, k: int) -> np.ndarray:
    """Move surplus clusters between the ``k`` merged ones while modularity rises.

    ``shares`` (m, m) is the `overlap` of the surplus clusters, ``number`` (m,) says
    where each of them is.
    """
    number = number.copy()
    size = shares.sum(axis=1)
    outside = shares - np.diag(np.diag(shares))
    for _ in range(REFINEMENTS):
        moved = False
        for cluster in range(len(shares)):
            home = number[cluster]
            if np.count_nonzero(number == home) == 1:
                continue
            other = size * (np.arange(len(shares)) != cluster)
            links = np.bincount(number, weights=outside[cluster], minlength=k)
            sizes = np.bincount(number, weights=other, minlength=k)
            gain = links - size[cluster] * sizes
            # Only along edges: where there are none, nothing says that clusters are one.
            best = np.where(links > 0, gain, -np.inf).argmax()
            if links[best] > 0 and gain[best] > gain[home] + ROUNDING:
                number[cluster] = best
                moved = True
        if not moved:
            break
    return number


def edges_of(
    z: np.ndarray,
    sampled: np.ndarray,
    sample_weight: np.ndarray | None,
    graph: sp.csr_array | None,
) -> sp.csr_array:
    """Edges (n, n) of ``graph``; of ``sampled`` rows without any, to the nearest in ``z``."""
    n = len(z)
    graph = sp.csr_array((n, n)) if graph is None else graph
    is_alone = np.zeros(n, dtype=bool)
    is_alone[sampled] = np.diff(graph.indptr)[sampled] == 0
    if sample_weight is not None:
        # A row of no weight has partners, but is none.
        graph = sp.csr_array(sp.diags((sample_weight > 0).astype(np.float64)) @ graph)
    if not is_alone.any():
        return graph
    near = sp.coo_array(neighbour_graph(z[sampled], SAMPLED_NEIGHBOURS))
    places = sampled[near.row], sampled[near.col]
    edges = sp.csr_array((near.data, places), shape=(n, n))
    typical = graph.data.mean() if graph.nnz else 1.0
    return sp.csr_array(graph + sp.diags(typical * is_alone) @ edges)


def connected_clusters(
    z: np.ndarray,
    k: int,
    *,
    seed: int,
    sample_weight: np.ndarray | None,
    graph: sp.csr_array | None = None,
) -> np.ndarray:
    """Labels (n,) of ``k`` clusters of any shape that are connected in ``z`` (n, p).

    More clusters than needed, by k-means, and those merged that share edges, then moved
    while modularity rises. Several tries with more and fewer of them give a `consensus`.
    Edges are those of ``graph`` (n, n), which says who is the partner of whom; rows without
    a partner are linked to their nearest neighbours in ``z``.
    """
    rng = np.random.RandomState(seed)
    weighted = np.arange(len(z)) if sample_weight is None else np.flatnonzero(sample_weight)
    sampled = np.sort(rng.permutation(weighted)[: max(SAMPLED_ROWS, SAMPLED_NEIGHBOURS * k)])
    rows = z[sampled]
    weight = None if sample_weight is None else sample_weight[sampled]
    edges = edges_of(z, sampled, sample_weight, graph)
    tries = []
    for factor in np.repeat(SURPLUS, SURPLUS_RUNS):
        n_clusters = max(k, min(factor * k, len(rows) // SAMPLED_NEIGHBOURS))
        kmeans = KMeans(n_clusters, n_init=1, random_state=rng.randint(2**31 - 1))
        with threadpool_limits(limits=1, user_api="openmp"), warnings.catch_warnings():
            # Fewer distinct rows than surplus clusters are nothing to warn of.
            warnings.simplefilter("ignore", ConvergenceWarning)
            surplus = kmeans.fit(rows, sample_weight=weight).predict(z)
        shares = overlap(surplus, edges, n_clusters)
        # Sums in two orders differ in their last bits.
        shares = (shares + shares.T) / 2
        merged = merge(shares + FAINT * nearness(kmeans, shares), k)
        tries.append(refine(shares, merged, k)[surplus])
    return consensus(tries, k, seed=rng.randint(2**31 - 1), sample_weight=sample_weight)
