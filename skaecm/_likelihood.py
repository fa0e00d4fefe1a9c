"""The log-density of rows under a mixture in the embedding, decoded: the integral over the code.

With ``h`` the decoder, ``z ~ sum_k pi_k N(mu_k, t^2 I)`` and ``x | z ~ N(h(z), s^2 I)``, the
density of a row is an integral over its code. With ``h`` straight about the row's own code
``z0 = f(x)``, ``h(z) = h(z0) + J (z - z0)``, every component gives a Gaussian,

    N(x; h(z0) + J (mu_k - z0), s^2 I + t^2 J J'),

and nothing has to be sampled. It is exact for a linear decoder, whatever the encoder. Of the
embedding it knows ``J``, ``mu - z0`` and ``t``, in such a way that it stays the same when the
embedding is turned, shifted or scaled.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from . import _mixtures
from ._modules import ClusteringNetwork
from ._rows import Rows
from ._tensors import inference_rows


def slopes_of(decode: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    """What ``decode`` makes of codes ``z`` (n, p): rows (n, d) and their slopes J' (n, p, d)."""
    # The gradient v J of <v, x> is linear in v, and its derivative along an axis is J there:
    # two passes back, since torch's forward mode is not for several threads.
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        x = decode(z)
        v = torch.zeros_like(x, requires_grad=True)
        (gradient,) = torch.autograd.grad(x, z, v, create_graph=True)
        slopes = [
            torch.autograd.grad(gradient[:, axis].sum(), v, retain_graph=True)[0]
            for axis in range(z.shape[1])
        ]
    return x.detach(), torch.stack(slopes, dim=1)


def log_density(
    residual: Tensor,
    slopes: Tensor,
    away: Tensor,
    log_weights: Tensor,
    inner: float,
    outer: float,
    n_observed: Tensor | float,
) -> Tensor:
    """``log sum_k pi_k N(r; J a_k, s^2 I + t^2 J J')`` (n,) in nats, in the dtype of ``away``.

    Parameters
    ----------
    residual : Tensor of shape (n, d)
        ``r = x - h(z0)``, zero where an entry is missing.
    slopes : Tensor of shape (n, p, d)
        ``J'``, likewise.
    away : Tensor of shape (n, k, p)
        ``a_k = mu_k - z0``.
    log_weights : Tensor of shape (k,)
        ``log pi_k``.
    inner, outer : float
        The variances ``t^2`` and ``s^2``.
    n_observed : Tensor of shape (n,) or float
        Number of entries that are not missing.
    """
    gram = (slopes @ slopes.transpose(1, 2)).to(away)
    along = (slopes @ residual[:, :, None]).to(away).transpose(1, 2)
    squared = (residual * residual).sum(dim=1).to(away)
    # On the axes of J'J the covariances of all components are diagonal.
    steep, axes = torch.linalg.eigh(gram)
    steep = steep.clamp(min=0.0)[:, None]
    along, away = along @ axes, away @ axes
    # Of what is left of a row beside a component, r - J a_k: its square, and J' times it.
    norms = squared[:, None] + (away * (steep * away - 2.0 * along)).sum(dim=2)
    pulls = along - steep * away
    variances = outer + inner * steep
    distances = (norms - inner * (pulls**2 / variances).sum(dim=2)).clamp(min=0.0) / outer
    # Of a row so far away that squares overflow.
    distances = distances.nan_to_num(nan=torch.inf, posinf=torch.inf)
    volumes = torch.log(variances / outer).sum(dim=2)[:, 0] + n_observed * math.log(
        2.0 * math.pi * outer
    )
    return torch.logsumexp(log_weights - 0.5 * (volumes[:, None] + distances), dim=1)


@torch.no_grad()
def log_densities(
    network: ClusteringNetwork,
    rows: Rows,
    weights: np.ndarray,
    centers: np.ndarray,
    inner: float,
    outer: float,
) -> np.ndarray:
    """Log-density (n,) of rows in the user's units; ``outer`` is in these units too.

    ``weights`` (k,), ``centers`` (k, p) and the variance ``inner`` are the mixture in the
    embedding.
    """
    scale = float(network.standardizer.scale)
    log_weights = torch.from_numpy(_mixtures.log_weights(weights)).double()
    means = torch.from_numpy(centers).double()
    settings = log_weights, float(inner), float(outer) / scale**2
    found = []
    for batch in rows.in_order():
        seen = torch.ones_like(batch.x) if batch.seen is None else batch.seen
        # The slopes of a row are as many numbers as p rows.
        size = inference_rows(rows.shape[1] * means.shape[1])
        for rows_x, rows_seen in zip(batch.x.split(size), seen.split(size), strict=True):
            z, x = network.embed(rows_x), network.standardizer(rows_x)
            xhat, slopes = slopes_of(network.decode, z)
            n_observed = rows_seen.sum(dim=1).cpu().double()
            log_prob = log_density(
                rows_seen * (x - xhat),
                rows_seen[:, None] * slopes,
                means - z.cpu().double()[:, None],
                *settings,
                n_observed,
            )
            found.append(log_prob - n_observed * math.log(scale))
    return torch.cat(found).numpy()
