"""k-means for a start: on a sample of the rows, its misplaced centres put right, or many runs.

A single run of k-means easily leaves two centres in one cluster and one between two
others, and its own steps do not lead out of that. A split and a merge at once do, and
so does what many runs agree on. NumPy in, NumPy out.
"""

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import OneHotEncoder
from sklearn.utils.extmath import row_norms
from threadpoolctl import threadpool_limits

# A start looks at so many rows, or at so many a cluster where these are more. That
# leaves its means off by some hundredths of a deviation, which the first steps of
# training correct; to look at more rows would cost more than these steps.
SAMPLE_ROWS = 2**13
SAMPLE_ROWS_PER_CLUSTER = 2**8

# Runs of k-means where one is not enough, as published.
RUNS = 20

# Repair goes on while a round takes this share off the distortion.
REPAIR_TOL = 1e-3

# Keeps a mean of no rows from a division by zero.
TINY = np.finfo(np.float64).tiny

# Two means are at rest after about so many steps from the cut they start with.
HALVING_STEPS = 5


def sample_size(k: int) -> int:
    """The most rows that a start of ``k`` clusters looks at."""
    return max(SAMPLE_ROWS, SAMPLE_ROWS_PER_CLUSTER * k)


def sample_rows(
    x, k: int, *, seed: int, sample_weight: np.ndarray | None
) -> tuple[Any, np.ndarray | None]:
    """The rows that a start looks at, in their order, and their weights.

    All of them where they are few. Else they are drawn, with the chances of their
    weights, and then count alike.
    """
    size = sample_size(k)
    if x.shape[0] <= size:
        return x, sample_weight
    chances = None if sample_weight is None else sample_weight / sample_weight.sum()
    rng = np.random.default_rng(seed)
    drawn = rng.choice(x.shape[0], size, replace=chances is not None, p=chances, shuffle=False)
    return x[np.sort(drawn)], None


def kmeans_runs(x, k: int, *, seed: int, sample_weight: np.ndarray | None) -> list[KMeans]:
    """Runs of k-means, that of the lowest distortion first."""
    rng = np.random.RandomState(seed)
    # More than two threads add their partial sums in the order in which they
    # finish, and the same seed would no longer give the same bits.
    with threadpool_limits(limits=1, user_api="openmp"):
        runs = [
            KMeans(k, n_init=1, random_state=rng).fit(x, sample_weight=sample_weight)
            for _ in range(RUNS)
        ]
    return sorted(runs, key=lambda run: run.inertia_)


def consensus(
    opinions: list[np.ndarray],
    k: int,
    *,
    seed: int,
    sample_weight: np.ndarray | None,
    seen: np.ndarray | slice = slice(None),
) -> np.ndarray:
    """Labels (n,) of ``k`` clusters on which ``opinions``, each labels (n,), agree.

    k-means of the memberships of rows, those that are ``seen``, in the clusters of all opinions
    finds the labels that tell most of them (Wu, Liu, Xiong, Cao and Chen 2015).
    """
    memberships = OneHotEncoder().fit_transform(np.column_stack(opinions))
    with warnings.catch_warnings():
        # That they hold fewer clusters than k was to be told where they were formed.
        warnings.simplefilter("ignore", ConvergenceWarning)
        weight = None if sample_weight is None else sample_weight[seen]
        runs = kmeans_runs(memberships[seen], k, seed=seed, sample_weight=weight)
    return runs[0].predict(memberships)


def repaired_centroids(x, k: int, *, seed: int, sample_weight: np.ndarray | None) -> np.ndarray:
    """Centroids (k, p) of one run of k-means and of what repair makes of it.

    Every round moves centres as `split_and_merge` says, and k-means goes on from
    there. Neither can raise the distortion.
    """
    # More than two threads add their partial sums in the order in which they
    # finish, and the same seed would no longer give the same bits.
    with threadpool_limits(limits=1, user_api="openmp"):
        best = KMeans(k, n_init=1, random_state=seed).fit(x, sample_weight=sample_weight)
        improved = True
        while improved:
            moved = split_and_merge(x, best.cluster_centers_, best.labels_, sample_weight)
            if moved is None:
                break
            run = KMeans(k, init=moved, n_init=1, random_state=seed)
            run.fit(x, sample_weight=sample_weight)
            improved = run.inertia_ < (1.0 - REPAIR_TOL) * best.inertia_
            best = min(best, run, key=lambda kmeans: kmeans.inertia_)
    return best.cluster_centers_


def split_and_merge(
    x, centers: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None
) -> np.ndarray | None:
    """Centres (k, p) of a lower distortion than ``centers``, the means of ``labels``.

    Merging two clusters raises the distortion by `ward` of their means, and cutting
    one in two lowers it by as much. The cheapest merger is paired with the most
    rewarding cut for as long as the cut is worth more; a cluster takes part in one of
    them at most. None where there is no such pair.
    """
    weight = np.ones(x.shape[0]) if sample_weight is None else sample_weight
    half_sizes, halves = halve(x, centers, labels, weight)
    squared = np.square(halves[:, 0] - halves[:, 1]).sum(axis=1)
    gain = ward(half_sizes[:, 0], half_sizes[:, 1], squared)
    sizes = half_sizes.sum(axis=1)
    cost = ward(sizes[:, None], sizes, euclidean_distances(centers, squared=True))
    first, second = np.triu_indices(len(centers), 1)
    moved = centers.copy()
    free = np.ones(len(centers), dtype=bool)
    for pair in np.argsort(cost[first, second], kind="stable"):
        a, b = first[pair], second[pair]
        if not (free[a] and free[b]):
            continue
        free[[a, b]] = False
        cut = np.where(free, gain, -np.inf).argmax()
        if not free[cut] or gain[cut] <= cost[a, b]:
            break
        free[cut] = False
        share = sizes[a] / max(sizes[a] + sizes[b], TINY)
        moved[a] += (1.0 - share) * (centers[b] - centers[a])
        moved[cut], moved[b] = halves[cut]
    return None if free.sum() >= len(centers) - 2 else moved


def halve(
    x, centers: np.ndarray, labels: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two means in every cluster: sizes (k, 2) and means (k, 2, p) of its halves."""
    n, k = x.shape[0], len(centers)
    norms = np.square(centers).sum(axis=1)
    distance = row_norms(x, squared=True) - 2.0 * own(x @ centers.T, labels) + norms[labels]
    # The first cut is at right angles to the line from the centre to the farthest row.
    farthest = np.zeros(k, dtype=int)
    by_distance = np.argsort(distance, kind="stable")
    farthest[labels[by_distance]] = by_distance
    ends = x[farthest]
    line = (ends.toarray() if sp.issparse(ends) else ends) - centers
    middle = centers
    for _ in range(HALVING_STEPS):
        threshold = np.einsum("kp,kp->k", line, middle)
        group = 2 * labels + (own(x @ line.T, labels) > threshold[labels])
        sizes = np.bincount(group, weights=weight, minlength=2 * k)
        sums = sp.csr_array((weight, (group, np.arange(n))), shape=(2 * k, n)) @ x
        sums = sums.toarray() if sp.issparse(sums) else sums
        halves = (sums / np.maximum(sizes, TINY)[:, None]).reshape(k, 2, -1)
        line = halves[:, 1] - halves[:, 0]
        middle = halves.mean(axis=1)
    return sizes.reshape(k, 2), halves


def own(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of every row of ``values`` (n, k) the one in the column of its label."""
    return np.take_along_axis(values, labels[:, None], axis=1)[:, 0]


def ward(n, m, squared):
    """What merging clusters of sizes ``n`` and ``m`` adds to the distortion.

    ``squared`` is the squared distance of their means.
    """
    return n * m / np.maximum(n + m, TINY) * squared
