"""Where joint training starts: the shape of the autoencoder, the centroids in its code, W, b, M."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import BaseEstimator

from . import _initialization as starts
from ._checks import fitted_centers, init_centers
from ._cuts import connected_clusters, tells_in_halves
from ._data import Data
from ._graph import NEIGHBOURS, neighbour_graph
from ._mixtures import VARIANCE_FLOOR
from ._modules import (
    Autoencoder,
    ClusteringModule,
    ClusteringNetwork,
    ShallowNetwork,
    Standardizer,
)
from ._partners import Partners
from ._pretraining import Recipe, recipe_of
from ._progress import Watch
from ._rows import Rows, make_rows
from ._tensors import make_generator
from ._training import Training, apply, check_finite

# Narrower embeddings lose too much of X, even for few clusters.
LEAST_WIDTH = 10

# Rows that spread over more directions than this need a wide code, as texts do. In a code as
# wide, others keep what tells no clusters apart: images spread over some 10 to 30.
MANY_DIRECTIONS = 50
GREAT_WIDTH = 100

# Of many rows, unless they spread, half as wide a layer before the code finds as good clusters in
# two thirds of the time. A few rows, trained for fewer steps, need the wide one.
LAYERS, LEAN_LAYERS = (500, 500, 2000), (500, 500, 1000)
MANY_ROWS = 5000

# So many random directions tell over how many the rows spread.
PROBES = 64


def design(
    data: Data,
    n_components: int | None,
    autoencoder: Recipe | None,
    hidden_layer_sizes: Sequence[int] | str,
) -> tuple[int, Recipe]:
    """The width of the embedding, and what builds its encoder and decoder.

    They suit the rows where the user names none.
    """
    layers = () if autoencoder is not None else hidden_layer_sizes
    if n_components is None or isinstance(layers, str):
        assert data.standardizer is not None
        spreads = n_directions(data.of_start().rows, data.standardizer) > MANY_DIRECTIONS
        if n_components is None:
            wide = min(GREAT_WIDTH, data.x.shape[1]) if spreads else LEAST_WIDTH
            # k centroids can be orthonormal in no fewer columns.
            n_components = max(data.k, wide)
        if isinstance(layers, str):
            layers = LAYERS if spreads or data.n_weighted < MANY_ROWS else LEAN_LAYERS
    return n_components, recipe_of(autoencoder, layers)


def n_directions(rows: Rows, standardizer: Standardizer) -> float:
    """Over how many directions rows spread: the participation ratio of their covariance C.

    It is ``trace(C)^2 / trace(C^2)``: d where C is a multiple of the identity, 1 where all
    rows lie on a line. ``trace(C^2)`` is the mean of ``|C v|^2`` over standard normal v, here
    over a few that are always the same, so that C need not be formed.
    """
    n_features = rows.shape[1]
    probes = torch.randn(n_features, PROBES, generator=make_generator(0), dtype=rows.dtype)
    probes = probes.to(rows.device)
    images, trace = torch.zeros_like(probes), probes.new_zeros(())
    for batch in rows.in_order():
        x = standardizer(batch.x)
        weighted = x if batch.weight is None else x * batch.weight[:, None]
        images += weighted.T @ (x @ probes)
        trace += (weighted * x).sum()
    images, trace = rows.ranks.total(images), rows.ranks.total(trace)
    of_square = images.square().sum() / PROBES
    return float(trace.square() / of_square) if of_square > 0 else 0.0


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
    ranks, weight = data.share.ranks, data.all_weights()
    variance = ranks.first(starts.within_variance, z, centroids, weight)
    shift, spread = place(autoencoder, centroids, variance * z.shape[1], data.rows)
    start = starts.posterior_encoder(
        (centroids - shift) / spread, max(variance / spread**2, VARIANCE_FLOOR)
    )
    return ranks.first(starts.tempered, start, (z - shift) / spread, weight)


def towards_sizes(network: ClusteringNetwork, rows: Rows) -> torch.Tensor:
    """The prior of ``network``, drawing halfway from equal sizes to those of ``rows`` now."""
    network.settle(rows)
    return (network.alpha + network.alpha.sum() * network.clustering.gbar) / 2


def embed(network: Any, rows: Rows) -> np.ndarray:
    """Codes (n, p) of rows; raises where they are so large that distances would overflow."""
    z = apply(network.embed, rows)
    with np.errstate(over="ignore"):
        # No squared distance is larger.
        size = np.square(2 * z).sum(dtype=z.dtype)
    size = rows.ranks.total(torch.tensor(size, device=rows.device))
    check_finite({"code": float(size)}, "pretraining")
    return z


def near_in_code(autoencoder: Autoencoder, data: Data) -> Data:
    """``data`` with partners that are near in the code of ``autoencoder``."""
    z = data.share.ranks.stack(embed(autoencoder, data.rows))
    return data._replace(partners=near_partners(z, data))


def near_partners(z: np.ndarray, data: Data, besides: sp.csr_array | None = None) -> Partners:
    """Partners of ``data`` that are near in its codes ``z`` (n, p), or linked ``besides``."""
    graph = data.share.ranks.first(neighbour_graph, z, NEIGHBOURS)
    graph = graph if besides is None else besides + graph
    return data.partners.with_graph(graph, data.held.weight)


def codes(network: Any, data: Data) -> tuple[np.ndarray, np.ndarray | None]:
    """On the first process, codes (n, p) of the rows that a start looks at, and their weights."""
    seen = data.of_start()
    return seen.share.ranks.stack(embed(network, seen.rows)), seen.all_weights()


def embed_centers(init: Any, autoencoder: Autoencoder, data: Data) -> np.ndarray:
    """Centroids (k, p): the codes of centres given in the space of X."""
    centers = fitted_centers(init) if isinstance(init, BaseEstimator) else init
    centers = init_centers(centers, data.k, data.x.shape[1], data.x.dtype)
    return apply(autoencoder.embed, make_rows(centers, None, data.rows.device, data.rows.dtype))


def connected_start(
    autoencoder: Autoencoder, z: np.ndarray, data: Data, seed: int, *, seeks: bool
) -> starts.Start:
    """The mixture of the clusters of codes ``z`` (n, p) that partners connect.

    Where a fit of many rows ``seeks`` neighbours in the code, those that are near in ``z`` do
    so, too.
    """
    ranks, weight, k = data.share.ranks, data.all_weights(), data.k
    graph = data.partners.graph if data.partners.are_neighbours else None
    if graph is not None and seeks and tells_in_halves(data.n_weighted, k):
        graph = near_partners(z, data, besides=graph).graph
    labels = ranks.first(connected_clusters, z, k, seed=seed, sample_weight=weight, graph=graph)
    mixture = ranks.first(starts.labelled_mixture, z, labels, k, weight)
    means, covariance, weights = mixture
    # In the dtype of the codes: by its rounding, coinciding centroids are told.
    centroids, within = means.astype(z.dtype), float(np.trace(covariance))
    shift, spread = place(autoencoder, centroids, within, data.rows)
    precision = np.linalg.inv(covariance) * (spread**2 / starts.SOFTENING)
    return starts.tied_encoder((means - shift) / spread, precision, weights)


def train_alone(
    module: ClusteringModule,
    alpha: torch.Tensor,
    rows: Rows,
    seed: int,
    watch: Watch,
    training_settings: dict[str, Any],
    stopping_settings: dict[str, Any],
) -> tuple[ClusteringModule, list[dict[str, Any]]]:
    """The published second step: the module trained on a fixed embedding, and its history."""
    origin = torch.zeros(rows.shape[1], device=rows.device, dtype=rows.dtype)
    standardizer = Standardizer(origin, torch.ones_like(origin[0]))
    network = ShallowNetwork(standardizer, module, alpha, gamma=0.0, unit=1.0)
    training = Training(
        network, phase="module", generator=make_generator(seed), **training_settings
    )
    with watch.phase("module", stopping_settings["max_iter"]) as phase:
        training.run(rows, watch=phase, **stopping_settings)
    return network.clustering, training.history
