"""Clusters that edges connect: a graph of rows cut in two ways, of which the steadier is taken.

Surplus clusters merged (`merged_clusters`) end about equally large, and may cut a large cluster
where its rows lie close. Leading eigenvectors (`spectral_clusters`) cut where edges are few, and
may leave two clusters that touch as one. Which of them suits the rows, halves of these tell. No
torch.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import lobpcg
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, pairwise_distances_argmin
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from ._graph import FAINT, ROWS_PER_CLUSTER, neighbour_graph, overlap
from ._initialization import TINY
from ._kmeans import consensus, kmeans_runs

# Rows among which clusters are sought, and how many neighbours in the embedding link those of
# them that have no partner.
SAMPLED_ROWS = 10_000
SAMPLED_NEIGHBOURS = 10

# Surplus clusters, as multiples of k, and runs of k-means for each.
SURPLUS = (3, 5, 8, 12)
SURPLUS_RUNS = 3

# Passes over all surplus clusters that move them, at most, and the gain that counts.
REFINEMENTS = 20
ROUNDING = 1e-12

# How far off, by the norm of their residual, eigenvectors may be, and steps to them, at most.
EIGEN_TOL = 1e-3
EIGEN_ITER = 100


class Points(NamedTuple):
    """Codes z (n, p), their weights (n,), edges (n, n) and the numbers of those sampled."""

    z: np.ndarray
    weight: np.ndarray | None
    edges: sp.csr_array
    sampled: np.ndarray


# Labels (n,) of k clusters of points, by a generator; None where the way is no good for them.
Cut = Callable[[Points, int, np.random.RandomState], np.ndarray | None]


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


def merged_clusters(points: Points, k: int, rng: np.random.RandomState) -> np.ndarray:
    """More clusters than needed, by k-means, and those merged that share edges.

    Then they are moved while modularity rises. Several tries with more and fewer of them give
    a `consensus`.
    """
    z, weight, edges, sampled = points
    rows, row_weight = z[sampled], None if weight is None else weight[sampled]
    tries = []
    for factor in np.repeat(SURPLUS, SURPLUS_RUNS):
        n_clusters = max(k, min(factor * k, len(rows) // SAMPLED_NEIGHBOURS))
        kmeans = KMeans(n_clusters, n_init=1, random_state=rng.randint(2**31 - 1))
        with threadpool_limits(limits=1, user_api="openmp"), warnings.catch_warnings():
            # Fewer distinct rows than surplus clusters are nothing to warn of.
            warnings.simplefilter("ignore", ConvergenceWarning)
            surplus = kmeans.fit(rows, sample_weight=row_weight).predict(z)
        shares = overlap(surplus, edges, n_clusters)
        # Sums in two orders differ in their last bits.
        shares = (shares + shares.T) / 2
        merged = merge(shares + FAINT * nearness(kmeans, shares), k)
        tries.append(refine(shares, merged, k)[surplus])
    seed = rng.randint(2**31 - 1)
    return consensus(tries, k, seed=seed, sample_weight=weight, seen=sampled)


def spectral_clusters(points: Points, k: int, rng: np.random.RandomState) -> np.ndarray | None:
    """k-means of the directions of rows in the leading eigenvectors of the scaled edges.

    As Ng, Jordan and Weiss (2002) have it. A row without edges goes with the nearest that has
    some. None where a cluster is tiny.
    """
    z, weight, edges, sampled = points
    edges = edges + edges.T
    degree = edges.sum(axis=1)
    linked = np.flatnonzero(degree)
    scale = sp.diags(1.0 / np.sqrt(degree[linked]))
    affinity = scale @ edges[linked][:, linked] @ scale
    first = rng.standard_normal((len(linked), k))
    seen = np.isin(linked, sampled)
    seen_weight = None if weight is None else weight[linked[seen]]
    with warnings.catch_warnings():
        # Vectors that are not quite there tell clusters, too. Fewer distinct rows than clusters
        # leave some empty, which are tiny.
        warnings.simplefilter("ignore", UserWarning)
        _, vectors = lobpcg(affinity, first, tol=EIGEN_TOL, maxiter=EIGEN_ITER)
        directions = normalize(vectors)
        seed = rng.randint(2**31 - 1)
        runs = kmeans_runs(directions[seen], k, seed=seed, sample_weight=seen_weight)
    labels = runs[0].predict(directions)
    size = np.bincount(labels, minlength=k)
    if size.min() < TINY * size.mean():
        return None
    of_all = np.empty(len(z), dtype=labels.dtype)
    of_all[linked] = labels
    alone = np.flatnonzero(degree == 0)
    if len(alone):
        of_all[alone] = labels[pairwise_distances_argmin(z[alone], z[linked])]
    return of_all


def steadiness(
    cut: Cut,
    labels: np.ndarray,
    parts: list[tuple[np.ndarray, Points]],
    k: int,
    rng: np.random.RandomState,
) -> float:
    """How far the ``labels`` (n,) that ``cut`` gave all rows are those that it gives ``parts``."""
    agreement = []
    for rows, points in parts:
        again = cut(points, k, rng)
        if again is None:
            return -np.inf
        agreement.append(adjusted_rand_score(labels[rows], again))
    return float(np.mean(agreement))


def tells_in_halves(n_rows: int, k: int) -> bool:
    """Whether ``n_rows`` are so many that neighbours tell ``k`` clusters of half of them apart."""
    return n_rows >= 2 * ROWS_PER_CLUSTER * k


def connected_clusters(
    z: np.ndarray,
    k: int,
    *,
    seed: int,
    sample_weight: np.ndarray | None,
    graph: sp.csr_array | None = None,
) -> np.ndarray:
    """Labels (n,) of ``k`` clusters of any shape that are connected in ``z`` (n, p).

    They are `merged_clusters` or `spectral_clusters`, whichever stay more nearly the same when
    half of the rows are left out, with the edges that are left and with edges sought anew:
    clusters that are there do not hang on a draw (Ben-Hur, Elisseeff and Guyon 2002). Where
    neighbours in a half tell little, since it has fewer than `ROWS_PER_CLUSTER`, they are
    merged. Edges are those of ``graph`` (n, n), which says who is the partner of whom; rows
    without a partner are linked to their nearest neighbours in ``z``.
    """
    rng = np.random.RandomState(seed)
    weighted = np.arange(len(z)) if sample_weight is None else np.flatnonzero(sample_weight)
    order = rng.permutation(weighted)
    n_sampled = max(SAMPLED_ROWS, SAMPLED_NEIGHBOURS * k)

    def points(rows: np.ndarray, sampled: np.ndarray, graph: sp.csr_array | None) -> Points:
        weight = None if sample_weight is None else sample_weight[rows]
        among = None if graph is None else graph[rows][:, rows]
        return Points(z[rows], weight, edges_of(z[rows], sampled, weight, among), sampled)

    whole = points(np.arange(len(z)), np.sort(order[:n_sampled]), graph)
    merged = merged_clusters(whole, k, rng)
    if not tells_in_halves(len(order), k):
        return merged
    spectral = spectral_clusters(whole, k, rng)
    if spectral is None or adjusted_rand_score(merged, spectral) == 1.0:
        return merged
    parts = [
        (rows, points(rows, np.arange(min(len(rows), n_sampled)), edges))
        for edges in ([graph] if graph is None else [graph, None])
        for rows in np.array_split(order, 2)
    ]
    of_merged = steadiness(merged_clusters, merged, parts, k, rng)
    of_spectral = steadiness(spectral_clusters, spectral, parts, k, rng)
    return spectral if of_spectral > of_merged else merged
