"""Where training starts: centroids, and W, b from them. NumPy in, NumPy out.

Centroids come from k-means or from the user. The encoder then either holds the
E-step of the mixture they imply (`posterior_encoder`, `tied_encoder`), or the
published pseudo-inverse (`pinv_encoder`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from scipy.optimize import brentq
from scipy.spatial.distance import pdist
from scipy.special import softmax
from sklearn.cluster import kmeans_plusplus
from sklearn.metrics import pairwise_distances_argmin_min
from threadpoolctl import threadpool_limits

from ._kmeans import consensus, kmeans_runs
from ._missing import has_missing, squared_distances
from ._mixtures import VARIANCE_FLOOR, log_weights

# How much more distortion, as a share, is nearly as little, and what share of the mean size is
# tiny for a cluster.
NEARLY = 0.005
TINY = 0.05

# How much wider than it is a mixture is taken to be where its rows' labels are a guess.
SOFTENING = 5.0

# A start is softened until the rows of which two centroids are made are only so far apart: 1 is
# where each centroid is made of rows of its own, 0 where both are made of the same.
APART = 0.6

# Rows that tell how far that is, about.
TEMPERING_ROWS = 10_000

# Share of the mean variance that is added to a covariance, so that it has an inverse.
RIDGE = 1e-3


class Start(NamedTuple):
    """Encoder W (k, p), b (k,) and centroids M (k, p) of a clustering module."""

    weight: np.ndarray
    bias: np.ndarray
    means: np.ndarray


def kmeans_centroids(x, k: int, *, seed: int, sample_weight: np.ndarray | None) -> np.ndarray:
    """Centroids (k, p) of the run of k-means with the lowest distortion."""
    return kmeans_runs(x, k, seed=seed, sample_weight=sample_weight)[0].cluster_centers_


def consensus_centroids(x, k: int, *, seed: int, sample_weight: np.ndarray | None) -> np.ndarray:
    """Centroids (k, p) of the clusters on which runs of k-means agree.

    In wide codes runs end in many optima that differ by less than they tell, and which of them is
    the best is a matter of luck. So all that are nearly as good have a say in a `consensus`. Runs
    with a tiny cluster have none, if others are as good. A few far rows as a cluster of their own
    lower the distortion a little, and joint training, which draws all centroids to one length,
    loses that cluster.
    """
    runs = kmeans_runs(x, k, seed=seed, sample_weight=sample_weight)
    near = [run.labels_ for run in runs if run.inertia_ <= (1 + NEARLY) * runs[0].inertia_]
    sizes = [np.bincount(labels, sample_weight, minlength=k) for labels in near]
    sizeable = [
        labels for labels, size in zip(near, sizes, strict=True) if size.min() >= TINY * size.mean()
    ]
    labels = consensus(sizeable or near, k, seed=seed, sample_weight=sample_weight)
    means, _, _ = labelled_mixture(x, labels, k, sample_weight)
    return means.astype(x.dtype)


def kmeans_plusplus_centroids(
    x, k: int, *, seed: int, sample_weight: np.ndarray | None
) -> np.ndarray:
    """Centroids (k, p): rows of ``x`` drawn by k-means++."""
    with threadpool_limits(limits=1, user_api="openmp"):
        centers, _ = kmeans_plusplus(x, k, sample_weight=sample_weight, random_state=seed)
    return centers.toarray() if hasattr(centers, "toarray") else centers


# What finds the centroids, by the name of a start.
FINDERS: dict[str, Callable[..., np.ndarray]] = {
    "k-means": consensus_centroids,
    "k-means++": kmeans_plusplus_centroids,
    "pinv": kmeans_centroids,
}


def within_variance(x, centers: np.ndarray, sample_weight: np.ndarray | None) -> float:
    """Variance per dimension of the rows around their nearest centre."""
    if has_missing(x):
        squared, n_observed = squared_distances(x, centers)
        total = np.average(squared.min(axis=1), weights=sample_weight)
        return float(total / np.average(n_observed, weights=sample_weight))
    _, distance = pairwise_distances_argmin_min(x, centers)
    squared = np.square(distance, dtype=np.float64)
    return float(np.average(squared, weights=sample_weight) / centers.shape[1])


def posterior_encoder(
    means: np.ndarray, variance: float, weights: np.ndarray | None = None
) -> Start:
    """The E-step of an isotropic mixture: ``W_k = mu_k / s^2``.

    ``b_k = log pi_k - ||mu_k||^2 / (2 s^2)``, with equal weights by default.
    """
    weight = means / variance
    bias = -0.5 * np.einsum("kp,kp->k", means, weight)
    if weights is not None:
        bias = bias + log_weights(weights)
    return Start(weight, bias, means)


def tempered(start: Start, z: np.ndarray, sample_weight: np.ndarray | None) -> Start:
    """``start`` at a temperature at which centroids are made of rows of other clusters, too.

    Clusters far apart have a posterior that is a step. It has no slope by which ``W`` and
    ``b`` could follow the codes when these move, and rows end in clusters that they pass.
    Training moves a centroid to the mean of the rows by their responsibilities. Where two are
    made of nearly the same rows, it may run them into one, so that no two come nearer than
    `APART`.
    """
    step = -(-len(z) // TEMPERING_ROWS)
    logits = z[::step] @ start.weight.T + start.bias
    weight = np.ones(len(logits)) if sample_weight is None else sample_weight[::step]
    rows = np.eye(logits.shape[1])[logits.argmax(axis=1)] * weight[:, None]
    held = np.flatnonzero(rows.any(axis=0))
    if len(held) < 2:
        return start
    rows = rows[:, held]

    def excess(factor: float) -> float:
        resp = softmax(factor * logits, axis=1)[:, held]
        shares = (resp.T @ rows) / (resp.T @ weight)[:, None]
        return pdist(shares).min() / np.sqrt(2) - APART

    factor = 1.0
    if excess(factor) <= 0:
        return start
    while excess(factor / 2) > 0:
        factor /= 2
    factor = brentq(excess, factor / 2, factor, xtol=1e-6 * factor)
    return Start(start.weight * factor, start.bias * factor, start.means)


def tied_encoder(means: np.ndarray, precision: np.ndarray, weights: np.ndarray) -> Start:
    """The E-step of a mixture with one shared covariance S: ``W_k = S^-1 mu_k``.

    ``b_k = log pi_k - mu_k' S^-1 mu_k / 2``; ``precision`` (p, p) is ``S^-1``.
    """
    weight = means @ precision
    bias = log_weights(weights) - 0.5 * np.einsum("kp,kp->k", means, weight)
    return Start(weight, bias, means)


def labelled_mixture(
    x: np.ndarray, labels: np.ndarray, k: int, sample_weight: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means (k, p), shared covariance (p, p) and weights (k,) of rows with known labels."""
    x = x.astype(np.float64)
    weight = np.ones(len(x)) if sample_weight is None else sample_weight
    member = sp.csr_array((weight, (np.arange(len(x)), labels)), shape=(len(x), k))
    size = np.bincount(labels, weights=weight, minlength=k)
    filled = np.maximum(size, np.finfo(np.float64).tiny)[:, None]
    means = np.where(
        size[:, None] > 0, member.T @ x / filled, np.average(x, axis=0, weights=weight)
    )
    residual = x - means[labels]
    covariance = (residual * weight[:, None]).T @ residual / size.sum()
    ridge = max(RIDGE * np.trace(covariance) / len(covariance), VARIANCE_FLOOR)
    return means, covariance + ridge * np.eye(len(covariance)), size / size.sum()


def placement(centroids: np.ndarray, within: float) -> tuple[np.ndarray, float]:
    """Shift (p,) and spread after which the centroids are nearly orthonormal.

    k orthonormal vectors lie around their mean at the mean squared distance
    ``1 - 1/k``, and the mean lies ``1/sqrt(k)`` from the origin, at right angles
    to the vectors' differences. So ``(z - shift) / spread`` scales all distances
    alike and keeps the shape of the embedding; only with p < k is there no such
    direction left. ``within``, the expected squared distance of a row to its
    centroid, sets the scale where the centroids coincide.
    """
    k, p = centroids.shape
    center = centroids.mean(axis=0)
    centered = centroids - center
    between = np.square(centered).sum(axis=1).mean()
    rounding = np.finfo(centroids.dtype).eps * k
    if between > np.square(rounding * centroids).sum():
        squared = between / (1.0 - 1.0 / k)
    else:
        squared = within
    spread = float(np.sqrt(squared)) if squared > 0 else 1.0
    if p < k:
        return center, spread
    # Of the directions at right angles to all differences, the one nearest to an
    # axis: it moves with the centroids, where a null space's basis would jump.
    _, lengths, directions = np.linalg.svd(centered, full_matrices=False)
    span = directions[lengths > rounding * lengths[0]][: k - 1]
    free = np.eye(p) - span.T @ span
    axis = free.diagonal().argmax()
    direction = free[axis] / np.sqrt(free[axis, axis])
    return center - spread / np.sqrt(k) * direction, spread


def pinv_encoder(means: np.ndarray) -> Start:
    """The published start: ``W = pinv(M)'`` and ``b = 0``."""
    return Start(scipy.linalg.pinv(means).T, np.zeros(len(means), means.dtype), means)


def glorot_start(k: int, n_features: int, rng: np.random.RandomState) -> Start:
    """The published random start: Glorot uniform W and M, and ``b = 0``."""
    limit = np.sqrt(6.0 / (k + n_features))
    weight, means = rng.uniform(-limit, limit, size=(2, k, n_features))
    return Start(weight, np.zeros(k), means)


def shared_precision(mixture) -> np.ndarray:
    """The precision (d, d) of one covariance shared by all components of ``mixture``.

    Exact for ``covariance_type="tied"``; else that of the weighted mean of the
    components' covariances.
    """
    if mixture.covariance_type == "tied":
        return mixture.precisions_
    covariance = np.tensordot(mixture.weights_, mixture.covariances_, axes=1)
    if mixture.covariance_type == "spherical":
        return np.eye(mixture.means_.shape[1]) / covariance
    if mixture.covariance_type == "diag":
        return np.diag(1.0 / covariance)
    return np.linalg.inv(covariance)
