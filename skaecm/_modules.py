"""The torch modules: the clustering module, the autoencoder, and what is trained.

`ShallowNetwork` is the clustering module on the (standardised) rows themselves,
`DeepNetwork` the same module on the code of an autoencoder. Both answer the
same questions, so an estimator need not know which one it holds.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from . import _losses
from ._ranks import WHOLE, Part
from ._rows import Batch, Labels, Rows, most_likely
from ._steps import Before

# The running average of the responsibilities looks back over about this many
# rows a cluster, enough for an unbiased logarithm, and never over more than this
# share of all rows: an average over several epochs would hide a dying cluster.
ROWS_PER_CLUSTER = 100
SHARE_OF_ROWS = 0.5

# Before there are clusters, the weight of the pairs beside the reconstruction.
CONTRAST = 10.0

# Inside an autoencoder the few weights of the clustering module learn this much
# faster than the many around them, or the centroids are long in getting orthonormal.
MODULE_RATE = 3.0

# While the codes of neighbours are drawn together, the autoencoder learns this much slower: at
# the full rate its first steps tear clusters apart, and single ones later do.
CONTRAST_RATE = 0.3

# Log-responsibilities end here, relative to the largest: on the subnormal numbers
# below, processors compute many times slower.
LEAST_LOG = -60.0


@final
class Standardizer(nn.Module):
    """Shift by the column means and divide by one number; and back.

    The number is the root of the mean column variance, so that the losses do not
    depend on the unit or the width of X. Columns keep their relative scales.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, offset: Tensor, scale: Tensor):
        super().__init__()
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sub(x, self.offset).div_(self.scale)

    def inverse(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset


@final
class ClusteringModule(nn.Module):
    """The one-hidden-layer autoencoder ``z -> g = softmax(W z + b) -> g M``.

    Attributes
    ----------
    weight, bias : Parameter of shape (k, p), (k,)
        The encoder W, b.
    means : Parameter of shape (k, p)
        The decoder M: the centroids.
    gbar : Tensor of shape (k,)
        Average responsibilities: a running estimate while training, exact for
        the rows of a finished fit.
    """

    gbar: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, means: Tensor):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.means = nn.Parameter(means)
        self.register_buffer("gbar", torch.full_like(bias, 1.0 / len(bias)))
        self.lookback = ROWS_PER_CLUSTER * len(bias)

    @property
    def k(self) -> int:
        return len(self.bias)

    def get_extra_state(self) -> Tensor:
        """What `state_dict` holds beside parameters and buffers: the lookback."""
        return torch.tensor(self.lookback)

    def set_extra_state(self, state: Tensor) -> None:
        """Take it back."""
        self.lookback = int(state)

    def forward(self, z: Tensor) -> Tensor:
        """Responsibilities (n, k)."""
        logits = torch.addmm(self.bias, z, self.weight.T)
        with torch.no_grad():
            # In place and unseen by autograd: no softmax depends on a shift, and the slope
            # of what is cut off is next to nothing.
            logits.sub_(logits.amax(dim=1, keepdim=True)).clamp_(min=LEAST_LOG)
        return torch.softmax(logits, dim=1)

    def average(self, g: Tensor, weight: Tensor | None, part: Part = WHOLE) -> Tensor:
        """gbar (k,) as the prior sees it; while training, moved on by this step."""
        if not self.training:
            return self.gbar
        rate = min(1.0, part.ratio * len(g) / self.lookback)
        mean = part.mean(_losses.mean_over_rows(g, weight))
        gbar = _losses.running_average(self.gbar, mean, rate)
        # In place: a recorded step knows this tensor alone.
        self.gbar.copy_(gbar.detach())
        return gbar

    def widen(self, n_rows: int) -> None:
        """So many more rows of a stream are to come: look back over a share of them too."""
        wider = self.lookback + int(SHARE_OF_ROWS * n_rows)
        self.lookback = min(ROWS_PER_CLUSTER * self.k, wider)

    @torch.no_grad()
    def reorder(self, order: Tensor) -> None:
        """Number the clusters anew: the new cluster j is the old ``order[j]``."""
        for tensor in (self.weight, self.bias, self.means, self.gbar):
            tensor.copy_(tensor[order])


@final
class Autoencoder(nn.Module):
    """Standardised rows to a code and back.

    ``encode`` is the encoder followed by a fixed affine map ``(code - shift) /
    spread`` that places the code where the clustering module wants it, and
    ``decode`` undoes the map first, so that choosing it leaves the reconstruction
    as it is. With ``mixed_precision`` the layers of both compute in bfloat16 while
    training; their weights, and all that comes after them, keep the dtype of the rows.
    """

    shift: Tensor
    spread: Tensor

    def __init__(
        self,
        standardizer: Standardizer,
        encoder: nn.Module,
        decoder: nn.Module,
        n_components: int,
    ):
        super().__init__()
        self.standardizer = standardizer
        self.encoder = encoder
        self.decoder = decoder
        self.mixed_precision = False
        self.register_buffer("shift", torch.zeros(n_components).to(standardizer.offset))
        self.register_buffer("spread", torch.ones(()).to(standardizer.offset))

    @property
    def n_features(self) -> int:
        return len(self.standardizer.offset)

    @property
    def n_components(self) -> int:
        return len(self.shift)

    def encode(self, x: Tensor) -> Tensor:
        """Code (n, p) of standardised rows (n, d)."""
        with self._layers(x):
            code = self.encoder(x)
        return (code.to(x.dtype) - self.shift) / self.spread

    def decode(self, z: Tensor) -> Tensor:
        """Standardised rows (n, d) from a code (n, p)."""
        code = z * self.spread + self.shift
        with self._layers(z):
            x = self.decoder(code)
        return x.to(z.dtype)

    def _layers(self, x: Tensor) -> AbstractContextManager:
        """The precision in which the layers compute now, for rows or codes like ``x``."""
        if self.mixed_precision and self.training:
            return torch.autocast(x.device.type, torch.bfloat16)
        return nullcontext()

    def place(self, shift: Tensor, spread: Tensor) -> None:
        """Compose the map of the code with ``(z - shift) / spread``."""
        self.shift = self.shift + self.spread * shift
        self.spread = self.spread * spread

    def embed(self, x: Tensor) -> Tensor:
        """Code (n, p) of rows (n, d) as the user gives them."""
        return self.encode(self.standardizer(x))

    def unexplained(self, x: Tensor, z: Tensor, batch: Batch) -> Tensor:
        """Squared error of the reconstruction as a fraction of the total variance.

        ``x`` are the standardised rows of ``batch`` and its partners `together`, ``z`` their
        codes. A partner that is a row itself is reconstructed in its turn.
        """
        counted = batch if batch.partner_is_row else together(batch)
        n = len(counted.x)
        error = _losses.squared_error(x[:n], self.decode(z[:n]), counted.weight, counted.seen)
        return error / self.n_features

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """All parameters at the full learning rate."""
        return [(list(self.parameters()), 1.0)]

    def start_epoch(self, epoch: int, rows: Rows) -> None:
        """Nothing to prepare, and no clusters yet."""

    def loss_terms(self, batch: Batch, labels: Labels | None = None) -> dict[str, Tensor]:
        """Pretraining: the reconstruction, and the contrast of rows with partners."""
        both = together(batch)
        x = self.standardizer(both.x)
        z = self.encode(x)
        terms = {"reconstruction": self.unexplained(x, z, batch)}
        if batch.partner is not None:
            row, partner = z.chunk(2)
            terms["contrast"] = CONTRAST * contrast(row, partner, batch)
        return terms


class Description(NamedTuple):
    """What a pass over all rows says of them, squares per dimension that was observed.

    Attributes
    ----------
    labels : Tensor of shape (n,)
        The clusters of the rows of this process.
    outer, inner : float
        Expected squared distance of standardised rows to the prototypes, and of their codes to
        the centroids.
    residual : float
        Squared error of the reconstruction of standardised rows.
    """

    labels: Tensor
    outer: float
    inner: float
    residual: float


class ClusteringNetwork(nn.Module, ABC):
    """A space in which rows are clustered, the clustering module, and the loss.

    Parameters
    ----------
    clustering : ClusteringModule
    alpha : Tensor of shape (k,)
        Strengths of the Dirichlet prior.
    gamma : float
        Weight of the pairs, where rows have partners.
    """

    alpha: Tensor

    def __init__(self, clustering: ClusteringModule, alpha: Tensor, gamma: float):
        super().__init__()
        self.clustering = clustering
        self.gamma = gamma
        # A setting, not a part of the state that training goes on from.
        self.register_buffer("alpha", alpha, persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype it computes in."""
        return self.alpha.dtype

    @property
    @abstractmethod
    def standardizer(self) -> Standardizer:
        """From the user's units to those of the losses."""

    @abstractmethod
    def embed(self, x: Tensor) -> Tensor:
        """The user's rows (n, d) in the space of the centroids (n, p)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Points (n, p) of that space as standardised rows (n, d)."""

    @abstractmethod
    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        """The parameters, in groups with a factor each for the learning rate."""

    @abstractmethod
    def data_terms(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The terms of the loss of rows and partners, and their responsibilities.

        These are (b, k), or (2 b, k) with the partners last.
        """

    @abstractmethod
    def squares(self, batch: Batch, z: Tensor, g: Tensor, prototypes: Tensor) -> Tensor:
        """`Description.outer`, ``inner`` and ``residual`` (3,) of a batch, over all dimensions.

        ``z`` (b, p) and ``g`` (b, k) are its codes and responsibilities, ``prototypes`` (k, d)
        the centroids as standardised rows.
        """

    def reconstruct(self, z: Tensor) -> Tensor:
        """Points (n, p) of that space as rows (n, d) in the user's units."""
        return self.standardizer.inverse(self.decode(z))

    def proba(self, x: Tensor) -> Tensor:
        """Responsibilities (n, k) of the user's rows (n, d)."""
        return self.clustering(self.embed(x))

    def labels(self, x: Tensor) -> Tensor:
        """Clusters (n,) of the largest responsibilities."""
        return most_likely(self.proba(x))

    def loss_terms(self, batch: Batch, labels: Labels | None = None) -> dict[str, Tensor]:
        """All terms of the loss of a batch and its partners."""
        terms, g = self.data_terms(batch)
        if labels is not None:
            labels.note(batch, g)
        gbar = self.clustering.average(g, together(batch).weight, batch.part)
        terms["E4"] = _losses.e4(self.alpha, gbar)
        if batch.partner is not None:
            row, partner = g.chunk(2)
            terms["pairs"] = self.gamma * _losses.pair_lift(row, partner, gbar, batch.weight)
        return terms

    def start_epoch(self, epoch: int, rows: Rows) -> Before | None:
        """Before the first epoch the running average starts at the exact one."""
        if epoch > 0:
            return None
        labels = Labels(len(rows), rows.device)
        terms = self.settle(rows, labels)
        return Before(rows.ranks.total(labels.tensor()), sum(terms.values()))

    @torch.no_grad()
    def settle(self, rows: Rows, labels: Labels | None = None) -> dict[str, float]:
        """Make gbar exact for ``rows``; the terms of the loss over all of them.

        The network is left in evaluation mode. ``labels``, where given, gets the clusters.
        """
        self.eval()
        rows.ranks.align(self)
        totals: dict[str, Tensor] = {}
        gbar = torch.zeros_like(self.clustering.gbar)
        has_partners = False
        for batch in rows.pairs():
            has_partners = batch.partner is not None
            terms, g = self.data_terms(batch)
            if labels is not None:
                labels.note(batch, g)
            share = len(batch.indices) / len(rows)
            gbar += share * _losses.mean_over_rows(g[: len(batch.x)], batch.weight)
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + share * value
        self.clustering.gbar = gbar = rows.ranks.total(gbar)
        half = max(1, int(SHARE_OF_ROWS * len(rows)))
        self.clustering.lookback = min(ROWS_PER_CLUSTER * self.clustering.k, half)
        totals = rows.ranks.totals(totals)
        totals["E4"] = _losses.e4(self.alpha, gbar)
        pairs: dict[str, Tensor] = {}
        for batch in rows.pairs() if has_partners else ():
            assert batch.partner is not None
            lift = _losses.pair_lift(
                self.proba(batch.x), self.proba(batch.partner), gbar, batch.weight
            )
            share = self.gamma * len(batch.indices) / len(rows)
            pairs["pairs"] = pairs.get("pairs", 0.0) + share * lift
        totals |= rows.ranks.totals(pairs)
        return {name: float(value) for name, value in totals.items()}

    @torch.no_grad()
    def prototypes(self) -> Tensor:
        """The centroids as standardised rows (k, d)."""
        return self.decode(self.clustering.means)

    @torch.no_grad()
    def describe(self, rows: Rows) -> Description:
        """The clusters of rows and, in the same pass, the distortions of all."""
        prototypes = self.prototypes()
        sums = torch.zeros(4, dtype=self.dtype, device=rows.device)
        labels = torch.empty(len(rows), dtype=torch.long, device=rows.device)
        stop = 0
        for batch in rows.in_order():
            z = self.embed(batch.x)
            g = self.clustering(z)
            start, stop = stop, stop + len(g)
            labels[start:stop] = most_likely(g)
            share = len(g) / len(rows)
            sums[:3] += share * self.squares(batch, z, g, prototypes)
            if batch.seen is not None:
                sums[3] += share * _losses.mean_over_rows(batch.seen.sum(dim=1), batch.weight)
        outer, inner, residual, n_observed = rows.ranks.total(sums).tolist()
        n_dimensions = n_observed or prototypes.shape[1]
        return Description(
            labels[:stop],
            outer / n_dimensions,
            inner / self.clustering.means.shape[1],
            residual / n_dimensions,
        )


@final
class ShallowNetwork(ClusteringNetwork):
    """The clustering module on standardised rows: the loss L_CM.

    ``unit`` divides the distortion. The number of features makes it a fraction
    of the total variance; 1 leaves it as it is.
    """

    def __init__(
        self,
        standardizer: Standardizer,
        clustering: ClusteringModule,
        alpha: Tensor,
        gamma: float,
        unit: float,
    ):
        super().__init__(clustering, alpha, gamma)
        self.rows_standardizer = standardizer
        self.unit = unit

    @property
    def standardizer(self) -> Standardizer:
        return self.rows_standardizer

    def embed(self, x: Tensor) -> Tensor:
        return self.rows_standardizer(x)

    def decode(self, z: Tensor) -> Tensor:
        return z

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        return [(list(self.parameters()), 1.0)]

    def data_terms(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        both = together(batch)
        z = self.embed(both.x)
        g, means = self.clustering(z), self.clustering.means
        return mixture_terms(z, g, means, both.weight, self.unit, both.seen), g

    def squares(self, batch: Batch, z: Tensor, g: Tensor, prototypes: Tensor) -> Tensor:
        # The code of a row is the row, of which nobody asks for another square.
        outer = _losses.distortion(z, g, prototypes, batch.weight, batch.seen)
        return torch.stack([outer, outer, torch.zeros_like(outer)])


@final
class DeepNetwork(ClusteringNetwork):
    """The clustering module on the code of an autoencoder: the loss of AE-CM.

    With p >= k the centroids are pushed to be orthonormal by ``lam``; p < k
    vectors cannot be, and the mixture's distortion is kept in full. ``contrast``
    says whether partners are neighbours, whose codes go on being drawn together.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        clustering: ClusteringModule,
        alpha: Tensor,
        gamma: float,
        contrast: bool,
        beta: float,
        lam: float,
    ):
        super().__init__(clustering, alpha, gamma)
        self.contrast = contrast
        self.autoencoder = autoencoder
        self.beta = beta
        self.lam = lam

    @property
    def standardizer(self) -> Standardizer:
        return self.autoencoder.standardizer

    def embed(self, x: Tensor) -> Tensor:
        return self.autoencoder.embed(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.autoencoder.decode(z)

    def parameter_groups(self) -> list[tuple[list[nn.Parameter], float]]:
        rate = CONTRAST_RATE if self.contrast and self.gamma > 0 else 1.0
        return [
            (list(self.autoencoder.parameters()), rate),
            (list(self.clustering.parameters()), MODULE_RATE),
        ]

    def data_terms(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        both = together(batch)
        x = self.standardizer(both.x)
        z = self.autoencoder.encode(x)
        g, means = self.clustering(z), self.clustering.means
        terms = {"reconstruction": self.beta * self.autoencoder.unexplained(x, z, batch)}
        if means.shape[1] >= means.shape[0]:
            terms["E1"] = _losses.e1(z, g, means, both.weight)
            terms["E2"] = _losses.e2_orthonormal(g, both.weight)
            terms["orthonormality"] = self.lam * _losses.orthonormality(means)
        else:
            terms |= mixture_terms(z, g, means, both.weight, unit=1.0)
        if batch.partner is not None and self.contrast:
            # In the units of pretraining, whatever the place of the code.
            row, partner = (z * self.autoencoder.spread).chunk(2)
            terms["contrast"] = self.gamma * contrast(row, partner, batch)
        return terms, g

    def squares(self, batch: Batch, z: Tensor, g: Tensor, prototypes: Tensor) -> Tensor:
        x, weight, seen = self.standardizer(batch.x), batch.weight, batch.seen
        outer = _losses.distortion(x, g, prototypes, weight, seen)
        inner = _losses.distortion(z, g, self.clustering.means, weight)
        residual = _losses.squared_error(x, self.decode(z), weight, seen)
        return torch.stack([outer, inner, residual])


def together(batch: Batch) -> Batch:
    """Rows and their partners as one batch of twice the size; else the batch itself."""
    if batch.partner is None:
        return batch
    weight = None if batch.weight is None else torch.cat([batch.weight, batch.weight])
    indices = torch.cat([batch.indices, batch.indices])
    seen = None
    if batch.seen is not None and batch.partner_seen is not None:
        seen = torch.cat([batch.seen, batch.partner_seen])
    return Batch(torch.cat([batch.x, batch.partner]), weight, indices, seen=seen)


def contrast(row: Tensor, partner: Tensor, batch: Batch) -> Tensor:
    """The contrast of the codes of a batch, and with those of the step on other processes."""
    collect = batch.part.collect
    weight = None if batch.weight is None else collect(batch.weight)
    return _losses.neighbour_contrast(collect(row), collect(partner), weight)


def mixture_terms(
    z: Tensor,
    g: Tensor,
    means: Tensor,
    weight: Tensor | None,
    unit: float,
    seen: Tensor | None = None,
) -> dict[str, Tensor]:
    """E1, E2 and E3 for the price of their sum.

    Only the distortion is differentiated. E2 and E3 are plain values, and E1,
    the rest, carries the gradient of all three.
    """
    total = _losses.distortion(z, g, means, weight, seen) / unit
    with torch.no_grad():
        e2 = _losses.e2(g, means, weight, seen) / unit
        if seen is None:
            e3 = _losses.e3(g, means, weight) / unit
        else:
            e3 = total - _losses.e1(z, g, means, weight, seen) / unit - e2
    return {"E1": total - e2 - e3, "E2": e2, "E3": e3}
