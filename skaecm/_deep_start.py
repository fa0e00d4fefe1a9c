"""Where joint training starts: the code placed to suit its centroids, and W, b, M there."""

import numpy as np
import torch

from . import _initialization as starts
from ._data import Data
from ._graph import connected_clusters
from ._mixtures import VARIANCE_FLOOR
from ._modules import Autoencoder
from ._rows import Rows


def place(
    autoencoder: Autoencoder, centroids: np.ndarray, within: float, rows: Rows
) -> tuple[np.ndarray, float]:
    """Place the code so that ``centroids`` are nearly orthonormal; shift and spread."""
    shift, spread = starts.placement(centroids, within=within)
    autoencoder.place(
        torch.from_numpy(shift).to(rows.device, rows.dtype),
        torch.tensor(spread, device=rows.device, dtype=rows.dtype),
    )
    return shift, spread


def posterior_start(
    autoencoder: Autoencoder, z: np.ndarray, centroids: np.ndarray, data: Data
) -> starts.Start:
    """The mixture of the codes ``z`` (n, p) around their nearest centroids."""
    variance = data.share.ranks.first(starts.within_variance, z, centroids, data.all_weights())
    shift, spread = place(autoencoder, centroids, variance * z.shape[1], data.rows)
    return starts.posterior_encoder(
        (centroids - shift) / spread, max(variance / spread**2, VARIANCE_FLOOR)
    )


def connected_start(
    autoencoder: Autoencoder, z: np.ndarray, k: int, data: Data, seed: int
) -> starts.Start:
    """The mixture of the ``k`` clusters that neighbours among the codes ``z`` (n, p) connect."""
    ranks, weight = data.share.ranks, data.all_weights()
    labels = ranks.first(connected_clusters, z, k, seed=seed, sample_weight=weight)
    mixture = ranks.first(starts.labelled_mixture, z, labels, k, weight)
    means, covariance, weights = mixture
    # In the dtype of the codes: by its rounding, coinciding centroids are told.
    centroids, within = means.astype(z.dtype), float(np.trace(covariance))
    shift, spread = place(autoencoder, centroids, within, data.rows)
    precision = np.linalg.inv(covariance) * (spread**2 / starts.SOFTENING)
    return starts.tied_encoder((means - shift) / spread, precision, weights)
