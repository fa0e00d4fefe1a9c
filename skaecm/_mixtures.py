"""The isotropic mixture that a fitted estimator implies, from its public attributes."""

import numpy as np
from scipy.sparse import issparse
from scipy.special import logsumexp
from sklearn.metrics.pairwise import euclidean_distances

from ._missing import has_missing, squared_distances

# A variance is never taken below this fraction of the total one.
VARIANCE_FLOOR = 1e-6


def log_weights(weights: np.ndarray) -> np.ndarray:
    """Logarithm of mixture weights, finite for empty components."""
    return np.log(np.maximum(weights, np.finfo(weights.dtype).tiny))


def log_density(x, weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """``log sum_k pi_k N(x_i; mu_k, s_k^2 I)`` of every row of ``x`` (n, d), in nats.

    Of a row with missing entries it is the marginal density of those observed.
    """
    n_features: int | np.ndarray = means.shape[1]
    if has_missing(x):
        squared, n_observed = squared_distances(x, means)
        n_features = n_observed[:, None]
    else:
        if not issparse(x):
            # Far from the origin the distances would drown in their rounding.
            center = means.mean(axis=0)
            x, means = x - center, means - center
        squared = euclidean_distances(x, means, squared=True)
    log_components = -0.5 * (n_features * np.log(2.0 * np.pi * variances) + squared / variances)
    return logsumexp(log_weights(weights) + log_components, axis=1)


def sample(
    n_samples: int,
    weights: np.ndarray,
    means: np.ndarray,
    variances: np.ndarray,
    rng: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``n_samples`` points and their components, sorted by component."""
    pvals = np.asarray(weights, dtype=np.float64)
    labels = np.repeat(np.arange(len(weights)), rng.multinomial(n_samples, pvals / pvals.sum()))
    noise = rng.standard_normal((n_samples, means.shape[1]))
    points = means[labels] + np.sqrt(variances[labels])[:, None] * noise
    return points.astype(means.dtype, copy=False), labels
