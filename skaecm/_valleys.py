"""How many clusters there are: surplus ones, merged where no valley lies between them.

Half of the rows say where surplus clusters are and along which line to look at two of
them, the other half whether there is a valley on that line: among the rows by which two
clusters were told apart there would always be one. NumPy in, a number out.
"""

import warnings
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.pairwise import euclidean_distances
from threadpoolctl import threadpool_limits

from ._graph import principal
from ._initialization import labelled_mixture
from ._kmeans import sample_rows

# Never more clusters are found than these, nor more than one for so many rows.
MOST_CLUSTERS = 100
ROWS_PER_CLUSTER = 10

# A surplus cluster with fewer rows in one of the halves is a part of its neighbour, and what
# has fewer rows on one side is no valley.
FEWEST_ROWS = ROWS_PER_CLUSTER // 2

# Two clusters are one unless the density between them falls below this share of the lower of
# its two peaks. Of samples of a flat density, be it 10 rows or 1000, fewer than one in
# thirty have such a valley; two equal Gaussians have one from three deviations on.
DEPTH = 0.8

# A density is estimated in so many bins, from one distance of the centres before the one to
# one distance behind the other.
BINS = 96
WIDTH = 3.0 / BINS
PLACES = (np.arange(BINS) + 0.5) * WIDTH - 1.0
BETWEEN = (PLACES > 0.0) & (PLACES < 1.0)

TINY = np.finfo(np.float64).tiny


def most_clusters(n_rows: int) -> int:
    """The largest number of clusters that is ever found among ``n_rows`` rows."""
    return max(1, min(n_rows // ROWS_PER_CLUSTER, MOST_CLUSTERS))


def count_clusters(x: Any, *, seed: int, sample_weight: np.ndarray | None) -> int:
    """The number of clusters among the rows of ``x`` (n, p), dense or sparse.

    Of many rows a sample is looked at. Surplus clusters come from k-means. Of all pairs the
    one with the shallowest valley is merged, and all are looked at anew, until every
    valley is deeper than `DEPTH`.
    """
    x, sample_weight = sample_rows(x, 1, seed=seed, sample_weight=sample_weight)
    if sample_weight is not None:
        counting = sample_weight > 0
        x, sample_weight = x[counting], sample_weight[counting]
    x = principal(x)
    x = (x.toarray() if sp.issparse(x) else x).astype(np.float64)
    weight = np.ones(len(x)) if sample_weight is None else sample_weight
    rng = np.random.RandomState(seed)
    learning = rng.permutation(len(x)) < (len(x) + 1) // 2
    kmeans = KMeans(most_clusters(len(x)), n_init=1, random_state=rng.randint(2**31 - 1))
    with threadpool_limits(limits=1, user_api="openmp"), warnings.catch_warnings():
        # Fewer distinct rows than surplus clusters are nothing to warn of.
        warnings.simplefilter("ignore", ConvergenceWarning)
        kmeans.fit(x[learning], sample_weight=weight[learning])
        labels = join_small(kmeans.predict(x), x, learning)
    k = labels.max() + 1
    while k > 1:
        seen, seen_labels = x[learning], labels[learning]
        means, covariance, _ = labelled_mixture(seen, seen_labels, k, weight[learning])
        lines = np.linalg.solve(covariance, means.T)
        depths = valleys(x[~learning], labels[~learning], weight[~learning], means, lines)
        one, other = np.unravel_index(depths.argmax(), depths.shape)
        if depths[one, other] < DEPTH:
            break
        labels = merged(labels, int(one), int(other))
        k -= 1
    return int(k)


def merged(labels: np.ndarray, one: int, other: int) -> np.ndarray:
    """Labels (n,) after two clusters have become one; their numbers have no gap."""
    labels = np.where(labels == max(one, other), min(one, other), labels)
    return labels - (labels > max(one, other))


def join_small(labels: np.ndarray, x: np.ndarray, learning: np.ndarray) -> np.ndarray:
    """Labels (n,) without the clusters that are too small, from the smallest on."""
    labels = np.unique(labels, return_inverse=True)[1]
    while labels.max() > 0:
        halves = [
            np.bincount(labels[half], minlength=labels.max() + 1) for half in (learning, ~learning)
        ]
        sizes = np.minimum(*halves)
        if sizes.min() >= FEWEST_ROWS:
            break
        means = labelled_mixture(x, labels, len(sizes), None)[0]
        small = int(sizes.argmin())
        distance = euclidean_distances(means[[small]], means)[0]
        distance[small] = np.inf
        labels = merged(labels, small, int(distance.argmin()))
    return labels


def valleys(
    x: np.ndarray, labels: np.ndarray, weight: np.ndarray, means: np.ndarray, lines: np.ndarray
) -> np.ndarray:
    """How shallow the valley between every two clusters is, (k, k): 1 where there is none.

    The rows of clusters a and b fall on a line at ``t = (x - mu_a)' v / (mu_b - mu_a)' v``
    with ``v = S^-1 (mu_b - mu_a)``, Fisher's direction: at 0 and 1 lie the centres.
    ``lines`` (p, k) is ``S^-1 mu``. What is found is the least ratio, between the centres, of
    the density of t to the lower of the highest ones before and behind.
    """
    k, rows = len(means), np.arange(len(x))
    inner = means @ lines
    length = inner.diagonal()[:, None] + inner.diagonal() - inner - inner.T
    on_line = x @ lines - inner[labels]
    on_line -= on_line[rows, labels][:, None]
    place = on_line / np.maximum(length[labels], TINY)
    place_bin = np.floor((place - PLACES[0]) / WIDTH + 0.5)
    seen = (place_bin >= 0) & (place_bin < BINS)
    pair = labels[:, None] * k + np.arange(k)
    number = pair[seen] * BINS + place_bin[seen].astype(int)
    counted = np.bincount(number, np.repeat(weight, seen.sum(axis=1)), k * k * BINS)
    counts = counted.reshape(k, k, BINS)
    first, second = np.triu_indices(k, 1)
    # The line from the other end is the same line backwards.
    counts = counts[first, second] + counts[second, first, ::-1]
    density = smoothed(counts)
    before = np.maximum.accumulate(density, axis=1)
    behind = np.maximum.accumulate(density[:, ::-1], axis=1)[:, ::-1]
    ratio = density / np.maximum(np.minimum(before, behind), TINY)
    depths = np.zeros((k, k))
    passed = counts.cumsum(axis=1)
    # A few rows that lie apart are no peak.
    fewer = np.minimum(passed, passed[:, -1:] - passed)
    valley = BETWEEN & (fewer >= FEWEST_ROWS)
    depths[first, second] = np.where(valley, ratio, 1.0).min(axis=1)
    return depths


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Densities (m, bins) from counts, by a normal kernel of the normal reference bandwidth.

    That is ``1.06 s n^(-1/5)``, with the standard deviation s (Silverman 1986).
    """
    total = np.maximum(counts.sum(axis=1), TINY)
    mean = counts @ PLACES / total
    variance = counts @ PLACES**2 / total - mean**2
    bandwidth = 1.06 * np.sqrt(np.maximum(variance, 0.0)) * np.maximum(total, 1.0) ** -0.2
    # Twice the length, so that nothing comes back at the other end.
    frequency = 2.0 * np.pi * np.fft.rfftfreq(2 * BINS, WIDTH)
    kernel = np.exp(-0.5 * np.square(bandwidth[:, None] * frequency))
    density = np.fft.irfft(np.fft.rfft(counts, 2 * BINS) * kernel, 2 * BINS)[:, :BINS]
    # Rounding may leave a density of zero below it.
    return np.maximum(density, 0.0)
