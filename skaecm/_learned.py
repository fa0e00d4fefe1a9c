"""What a fit has learned, by name, from the network as it now is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from . import _mixtures
from ._data import Data, Run
from ._modules import ClusteringNetwork, DeepNetwork, Description
from ._tensors import to_numpy
from ._training import apply, check_finite

Own = Callable[[ClusteringNetwork, np.dtype, Description], dict[str, Any]]


def learned(run: Run, data: Data, own: Own, *, renumber: bool) -> dict[str, Any]:
    """All learned attributes, by name; the network is then on the CPU.

    ``own`` are those that only the subclass has, from the network, the dtype of X and what
    a pass over the rows found. With ``renumber`` clusters without rows are
    numbered last, so that labels have no gaps.
    """
    network = run.network.eval()
    found = network.describe(data.rows)
    check_finite({"distortion": found.outer}, "a pass over all rows")
    k = network.clustering.k
    is_empty = data.share.ranks.total(torch.bincount(found.labels, minlength=k)) == 0
    renumbered = renumber and bool(is_empty.any())
    if renumbered:
        network.clustering.reorder(torch.argsort(is_empty.long(), stable=True))
    if renumbered or len(found.labels) < len(data.held):
        labels = apply(network.labels, data.held)
    else:
        labels = to_numpy(found.labels)
    network = network.cpu()
    standardizer = network.standardizer
    dtype = data.x.dtype
    variance = max(found.outer, _mixtures.VARIANCE_FLOOR) * float(standardizer.scale) ** 2
    centers = np.array(to_numpy(standardizer.inverse(network.prototypes())), dtype=dtype)
    return {
        "module_": network,
        "labels_": labels,
        "n_clusters_": k - int(is_empty.sum()),
        "cluster_centers_": centers,
        "means_": centers,
        "weights_": np.array(to_numpy(network.clustering.gbar), dtype=dtype),
        "covariances_": np.full(k, variance, dtype=dtype),
        "loss_": run.loss,
        "history_": run.history,
        "loss_curve_": [row["loss"] for row in run.history if row["phase"] == "training"],
        "n_iter_": run.n_iter,
        "converged_": run.converged,
        **own(network, dtype, found),
        "_training_state": None,
    }


def learned_by_deep(network: DeepNetwork, dtype: np.dtype, found: Description) -> dict[str, Any]:
    """Those that only a deep estimator has."""
    network.autoencoder.mixed_precision = False
    width = network.autoencoder.n_components
    scale = float(network.standardizer.scale)
    return {
        "autoencoder_": network.autoencoder,
        "n_components_": width,
        "_n_features_out": width,
        "embedding_centers_": np.array(to_numpy(network.clustering.means), dtype=dtype),
        # Rounding may leave a distance of zero below it.
        "embedding_covariances_": np.full(network.clustering.k, max(found.inner, 0.0), dtype=dtype),
        "noise_variance_": max(found.residual, _mixtures.VARIANCE_FLOOR) * scale**2,
    }
