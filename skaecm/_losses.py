"""The terms of the losses, as free functions of tensors.

Every term is *per sample*: a mean over the rows of a batch, weighted where a
row carries a weight of its own. That makes the strengths ``alpha``, ``beta``
and ``lam`` mean the same at every batch size. A published setting
``(alpha, lambda, B)``, where the data terms are summed over a batch of ``B``
rows and the rest is counted once per batch, becomes ``(alpha - 1) / B`` and
``lambda / B`` here.

Symbols (Boubekki, Kampffmeyer, Jenssen, Brefeld 2021, arXiv 2012.03740):

==========  ============  ====================================================
``x``       (n, d)        rows, in the space in which they are clustered
``g``       (n, k)        responsibilities, rows on the simplex
``means``   (k, d)        the centroids mu_k
``weight``  (n,) or None  row weights of mean one over the fit; None is all ones
``gbar``    (k,)          average responsibilities
``seen``    (n, d)        1 where an entry was observed, 0 where it is missing; or
            or None       None: all were
==========  ============  ====================================================
"""

import math
from typing import Any, final

import torch
from torch import Tensor

PRIOR_FLOOR = 1e-10

# The share of pairs that are allowed to be strangers, rows of two clusters.
STRANGERS = 0.1

# Pairs that are contrasted with each other: every pair with every code of its block.
BLOCK = 512


def mean_over_rows(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over rows of ``values`` (n, ...), each row times its weight."""
    if weight is None:
        return values.mean(dim=0)
    return weight @ values / len(values)


# The mixture's distortion and its three parts (section 3 of the paper)
# ----------------------------------------------------------------------


def distortion(
    x: Tensor,
    g: Tensor,
    means: Tensor,
    weight: Tensor | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """Expected distortion ``sum_k g_ik ||x_i - mu_k||^2`` = E1 + E2 + E3.

    One matrix product ``x @ means.T``; the differences are never formed. With missing
    entries it is ``sum_k g_ik sum_j m_ij (x_ij - mu_kj)^2``, of two products: an isotropic
    mixture is marginalised by leaving terms out.
    """
    if seen is None:
        cross = torch.addmm((means * means).sum(dim=1), x, means.T, alpha=-2.0)
    else:
        x = seen * x
        cross = torch.addmm(seen @ (means * means).T, x, means.T, alpha=-2.0)
    rows = (x * x).sum(dim=1) + (g * cross).sum(dim=1)
    return mean_over_rows(rows, weight)


def e1(
    x: Tensor,
    g: Tensor,
    means: Tensor,
    weight: Tensor | None = None,
    seen: Tensor | None = None,
) -> Tensor:
    """E1, the reconstruction error ``||x_i - sum_k g_ik mu_k||^2``."""
    residual = x - g @ means
    if seen is not None:
        residual = seen * residual
    return mean_over_rows((residual * residual).sum(dim=1), weight)


def e2(
    g: Tensor, means: Tensor, weight: Tensor | None = None, seen: Tensor | None = None
) -> Tensor:
    """E2, the sparsity of the code ``sum_k ||mu_k||^2 g_ik (1 - g_ik)``."""
    if seen is not None:
        norms = seen @ (means * means).T
        return mean_over_rows((norms * g * (1.0 - g)).sum(dim=1), weight)
    spread = mean_over_rows(g * (1.0 - g), weight)
    return (means * means).sum(dim=1) @ spread


def e2_orthonormal(g: Tensor, weight: Tensor | None = None) -> Tensor:
    """E2 for centroids of norm one, ``sum_k g_ik (1 - g_ik)``."""
    return mean_over_rows((g * (1.0 - g)).sum(dim=1), weight)


def e3(g: Tensor, means: Tensor, weight: Tensor | None = None) -> Tensor:
    """E3, the inter-cluster term ``-sum_{k != l} g_ik g_il <mu_k, mu_l>``."""
    weighted = g if weight is None else g * weight[:, None]
    gram = means @ means.T
    pairs = gram - torch.diag(gram.diagonal())
    return -((weighted.T @ g) * pairs).sum() / len(g)


# Priors and penalties
# --------------------


def e4(alpha: Tensor, gbar: Tensor) -> Tensor:
    """E4, the Dirichlet prior ``-sum_k alpha_k log gbar_k``.

    ``alpha`` (k,) holds strengths, zero or more. Unequal strengths are paired
    by rank: the largest goes to the largest cluster. The floor added inside
    the logarithm, 1e-10 as published, keeps the price of an empty cluster
    finite.
    """
    log_gbar = torch.log(gbar + PRIOR_FLOOR)
    return -torch.sort(alpha).values @ torch.sort(log_gbar).values


def least_e4(alpha: Tensor) -> Tensor:
    """The least that E4 can be: where the average responsibilities are as unequal as ``alpha``."""
    total = alpha.sum()
    return torch.xlogy(total, total) - torch.xlogy(alpha, alpha).sum()


def running_average(running: Tensor, batch_mean: Tensor, rate: float) -> Tensor:
    """Running average whose value moves by ``rate`` and whose gradient does not.

    The value is ``(1 - rate) running + rate batch_mean``; the gradient is that
    of ``batch_mean`` itself. The logarithm of one batch's average is biased and
    noisy, and scaling its gradient by ``rate`` would tie the prior's strength
    to the batch size: this has neither fault.
    """
    value = torch.lerp(running, batch_mean.detach(), rate)
    return value + (batch_mean - batch_mean.detach())


def orthonormality(means: Tensor) -> Tensor:
    """Distance of the centroids from orthonormal ones, in absolute values.

    ``sum_kl |<mu_k, mu_l> - delta_kl|``.
    """
    gram = means @ means.T
    return (gram - torch.eye(len(means), dtype=gram.dtype, device=gram.device)).abs().sum()


def squared_error(
    x: Tensor, xhat: Tensor, weight: Tensor | None = None, seen: Tensor | None = None
) -> Tensor:
    """Reconstruction error of the autoencoder ``||x_i - xhat_i||^2``, of what was observed."""
    if seen is not None:
        x, xhat = seen * x, seen * xhat
    if weight is None:
        # One kernel each way: these are the widest tensors of a step.
        return torch.nn.functional.mse_loss(xhat, x, reduction="sum") / len(x)
    residual = x - xhat
    return mean_over_rows((residual * residual).sum(dim=1), weight)


# Pairs: a row and its partner, drawn from one component
# --------------------------------------------------------
#
# Let a row and its partner be independent draws from one component c. Then
# p(x, x') = sum_c p(c) p(x | c) p(x' | c), and with Bayes' rule, g_c(x) =
# p(c) p(x | c) / p(x), it is p(x) p(x') times the *lift* sum_c g_c(x) g_c(x') / p(c).
# The lift is a density ratio without a free constant: under independent rows its mean
# is sum_c gbar_c gbar_c / gbar_c = 1. So all rows in one cluster gain nothing, and its
# mean logarithm is a lower bound of the mutual information of a row and its partner.
# The E-step of this likelihood, t_c = g_c(x) g_c(x') / gbar_c up to a factor, is the
# sharpened target of deep embedded clustering, freed of the clusters' sizes.


def pair_lift(g: Tensor, partner: Tensor, gbar: Tensor, weight: Tensor | None = None) -> Tensor:
    """Minus the mean log-lift of pairs, ``-log((1 - eps) sum_k g_k g'_k / gbar_k + eps)``.

    ``g`` and ``partner`` (n, k) are the responsibilities of rows and partners. A
    share ``eps`` of the pairs (`STRANGERS`) may be of independent rows, whose
    lift is 1: a wrong pair costs a bounded amount.
    """
    lift = (g * partner / (gbar + PRIOR_FLOOR)).sum(dim=1)
    return -mean_over_rows(torch.log((1.0 - STRANGERS) * lift + STRANGERS), weight)


def neighbour_contrast(z: Tensor, partner: Tensor, weight: Tensor | None = None) -> Tensor:
    """Minus the mean log-lift of pairs before there are clusters.

    ``z`` and ``partner`` (n, p) are codes. The kernel ``1 / (1 + ||z - z'||^2)``
    stands for the joint density, and its mean over the other codes of a block of
    `BLOCK` pairs for the product of the margins: the contrastive loss with the kernel
    of t-SNE (Boehm, Berens, Kobak 2023, arXiv 2210.09879).
    """
    blocks = zip(z.split(BLOCK), partner.split(BLOCK), strict=True)
    return mean_over_rows(torch.cat([_contrast_of_block(*block) for block in blocks]), weight)


def _contrast_of_block(z: Tensor, partner: Tensor) -> Tensor:
    """Minus the log-lift (n,) of every pair of a block."""
    n = len(z)
    log_mean = _LogKernelSum.apply(torch.cat([z, partner])) - math.log(2 * n - 1)
    gap = z - partner
    return 0.5 * (log_mean[:n] + log_mean[n:]) + torch.log1p((gap * gap).sum(dim=1))


@final
class _LogKernelSum(torch.autograd.Function):
    """The logarithm (m,) of the sum of ``1 / (1 + ||z_i - z_j||^2)`` over all other codes j.

    With kernel q, the gradient of code i is ``-2 sum_j q_ij^2 (c_i + c_j) (z_i - z_j)``,
    where c is that of the sum: a third of the passes over all pairs that autograd makes.
    """

    @staticmethod
    def forward(ctx: Any, codes: Tensor) -> Tensor:
        """``codes`` (m, p)."""
        norms = (codes * codes).sum(dim=1)
        squared = torch.addmm(norms, codes, codes.T, alpha=-2.0).add_(norms[:, None])
        kernel = squared.clamp_(min=0.0).add_(1.0).reciprocal_().fill_diagonal_(0.0)
        total = kernel.sum(dim=1)
        ctx.save_for_backward(codes, kernel, total)
        return total.log()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        codes, kernel, total = ctx.saved_tensors
        of_sum = gradient / total
        pull = kernel.square().mul_(of_sum[:, None] + of_sum)
        return 2.0 * (pull @ codes - pull.sum(dim=1)[:, None] * codes)
