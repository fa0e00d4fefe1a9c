"""Rows with partners: the terms they add to the losses, where they come from, whole fits.

Partners are transformed copies (`augment`), nearest rows (`n_neighbors`) or
neighbours in a given graph (`adjacency`).
"""

import copy
import pickle
import random
import sys

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
import torch
from helpers import assert_close_fit, assert_same_fit, blobs, learned, overlapping, quick
from scipy.special import softmax
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaecm import ClusteringModuleGMM, DeepAEClustering, _graph, _losses
from skaecm._augmentation import (
    NOISE,
    ROTATION,
    ImageAugmentation,
    NoiseAugmentation,
    image_background,
)
from skaecm._modules import (
    Autoencoder,
    ClusteringModule,
    DeepNetwork,
    ShallowNetwork,
    Standardizer,
)
from skaecm._rows import (
    AugmentedRows,
    Batch,
    HostRows,
    Neighbours,
    PairedRows,
    ResidentRows,
)
from skaecm._training import Training
from skaecm.autoencoders import MLPAutoencoder

EXACT = {"rtol": 1e-12, "atol": 1e-12}
CPU = torch.device("cpu")


def the_row_itself(batch, generator):
    return batch


def shaken(batch, generator):
    """An augmentation that can be pickled."""
    noise = torch.randn(batch.shape, generator=generator, dtype=batch.dtype)
    return batch + 0.2 * noise


PARTNERS = {
    "copies": {"augment": "noise"},
    "callable": {"augment": shaken},
    "neighbours": {"n_neighbors": 5},
    "both": {"n_neighbors": 5, "augment": "noise"},
}


@pytest.fixture(params=PARTNERS)
def partners(request):
    """Parameters that give rows partners, of every kind."""
    return PARTNERS[request.param]


def graph_of(y, seed=0, share=0.2):
    """A directed weighted graph of rows of one label; a fifth of the rows is alone."""
    rng = np.random.RandomState(seed)
    n = len(y)
    graph = rng.uniform(0.5, 2, size=(n, n)) * (rng.uniform(size=(n, n)) < share)
    graph *= y[:, None] == y
    graph[: n // 5] = graph[:, : n // 5] = 0
    return graph


# The terms of the losses
# -----------------------


@pytest.fixture(params=[False, True], ids=["unweighted", "weighted"])
def pairs(request, seed):
    """Responsibilities and codes of rows and partners, gbar, and weights or none."""
    rng = np.random.RandomState(seed)
    n, k, p = 11, 4, 3
    g, partner = softmax(2 * rng.standard_normal((2, n, k)), axis=2)
    z, code = rng.standard_normal((2, n, p))
    weight = rng.uniform(0, 2, n) if request.param else None
    gbar = softmax(rng.standard_normal(k))
    arrays = {"g": g, "partner": partner, "gbar": gbar, "z": z, "code": code, "weight": weight}
    return {
        name: None if value is None else torch.from_numpy(value) for name, value in arrays.items()
    }


def twin_pair_lift(g, partner, gbar, weight):
    total = 0.0
    for i in range(len(g)):
        lift = sum(g[i, c] * partner[i, c] / (gbar[c] + 1e-10) for c in range(len(gbar)))
        total -= (1.0 if weight is None else weight[i]) * np.log(0.9 * lift + 0.1)
    return total / len(g)


def twin_contrast(z, partner, weight, block):
    def kernel(a, b):
        return 1 / (1 + sum((a[j] - b[j]) ** 2 for j in range(len(a))))

    total = 0.0
    for start in range(0, len(z), block):
        rows, others = z[start : start + block], partner[start : start + block]
        codes = [*rows, *others]
        for i in range(len(rows)):
            value = -np.log(kernel(rows[i], others[i]))
            for a in (i, len(rows) + i):
                rest = [kernel(codes[a], codes[b]) for b in range(len(codes)) if b != a]
                value += 0.5 * np.log(sum(rest) / len(rest))
            total += (1.0 if weight is None else weight[start + i]) * value
    return total / len(z)


def as_numpy(*tensors):
    return [None if tensor is None else tensor.numpy() for tensor in tensors]


def test_pair_lift_equals_its_loop(pairs):
    arguments = [pairs[name] for name in ("g", "partner", "gbar", "weight")]
    value = _losses.pair_lift(*arguments)
    np.testing.assert_allclose(value, twin_pair_lift(*as_numpy(*arguments)), **EXACT)


@pytest.mark.parametrize("block", [11, 512, 4, 5], ids=lambda block: f"block{block}")
def test_contrast_equals_its_loop(pairs, monkeypatch, block):
    """In one block and in several, the last one smaller, down to a pair by itself."""
    monkeypatch.setattr(_losses, "BLOCK", block)
    arguments = [pairs[name] for name in ("z", "code", "weight")]
    value = _losses.neighbour_contrast(*arguments)
    np.testing.assert_allclose(value, twin_contrast(*as_numpy(*arguments), block), **EXACT)


def test_contrast_of_a_full_block_and_a_rest(seed):
    """At the true size of a block: the mean over rows of both parts."""
    rng = np.random.RandomState(seed)
    z, code = torch.from_numpy(rng.standard_normal((2, _losses.BLOCK + 40, 2)))
    parts = [
        len(index) * _losses.neighbour_contrast(z[index], code[index])
        for index in torch.arange(len(z)).split(_losses.BLOCK)
    ]
    np.testing.assert_allclose(_losses.neighbour_contrast(z, code), sum(parts) / len(z), **EXACT)


def test_gradients_of_pairs(pairs, monkeypatch):
    monkeypatch.setattr(_losses, "BLOCK", 6)
    weight = pairs["weight"]
    inputs = [pairs[name].requires_grad_() for name in ("g", "partner", "gbar")]
    assert torch.autograd.gradcheck(lambda *values: _losses.pair_lift(*values, weight), inputs)
    inputs = [pairs[name].requires_grad_() for name in ("z", "code")]
    assert torch.autograd.gradcheck(
        lambda *values: _losses.neighbour_contrast(*values, weight), inputs
    )


def test_rows_and_partners_may_change_places(pairs):
    for function, one, other, rest in (
        (_losses.pair_lift, "g", "partner", (pairs["gbar"], pairs["weight"])),
        (_losses.neighbour_contrast, "z", "code", (pairs["weight"],)),
    ):
        value = function(pairs[one], pairs[other], *rest)
        np.testing.assert_allclose(function(pairs[other], pairs[one], *rest), value, **EXACT)


def test_the_mean_lift_of_independent_rows_is_one(seed, monkeypatch):
    """Over all pairs of two rows; in the loss, so, the mean of exp(-loss) of every pair."""
    rng = np.random.RandomState(seed)
    g = torch.from_numpy(softmax(3 * rng.standard_normal((30, 5)), axis=1))
    row, other = torch.meshgrid(torch.arange(30), torch.arange(30), indexing="ij")
    gbar = g.mean(dim=0)
    lifts = [
        torch.exp(-_losses.pair_lift(g[i : i + 1], g[j : j + 1], gbar))
        for i, j in zip(row.flatten(), other.flatten(), strict=True)
    ]
    # A share of strangers, whose lift is one, leaves the mean where it is.
    assert float(torch.stack(lifts).mean()) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("k", [1, 4])
def test_all_rows_in_one_cluster_gain_nothing(k):
    g = torch.zeros(7, k, dtype=torch.float64)
    g[:, 0] = 1
    assert float(_losses.pair_lift(g, g, g.mean(dim=0))) == pytest.approx(0.0, abs=1e-9)
    same = torch.full((7, k), 1 / k, dtype=torch.float64)
    assert float(_losses.pair_lift(same, same, same[0])) == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("k", [2, 5, 50])
def test_perfect_pairs_of_balanced_clusters_gain_log_k(k, monkeypatch):
    g = torch.eye(k, dtype=torch.float64)
    strangers = _losses.STRANGERS
    expected = -np.log((1 - strangers) * k + strangers)
    assert float(_losses.pair_lift(g, g, g.mean(dim=0))) == pytest.approx(expected, rel=1e-7)
    # And wrong ones lose a bounded amount.
    wrong = float(_losses.pair_lift(g, g.roll(1, dims=0), g.mean(dim=0)))
    assert wrong == pytest.approx(-np.log(strangers))
    monkeypatch.setattr(_losses, "STRANGERS", 0.0)
    assert float(_losses.pair_lift(g, g, g.mean(dim=0))) == pytest.approx(-np.log(k), rel=1e-7)


def test_e_step_of_pairs(pairs, monkeypatch):
    """The gradient in g is that of the cross-entropy to t = g g' / gbar, normalised."""
    monkeypatch.setattr(_losses, "STRANGERS", 0.0)
    g, partner, gbar, weight = (pairs[name] for name in ("g", "partner", "gbar", "weight"))
    g.requires_grad_()
    (of_lift,) = torch.autograd.grad(_losses.pair_lift(g, partner, gbar, weight), g)
    target = (g * partner / (gbar + 1e-10)).detach()
    target = target / target.sum(dim=1, keepdim=True)
    entropy = _losses.mean_over_rows(-(target * torch.log(g)).sum(dim=1), weight)
    (of_entropy,) = torch.autograd.grad(entropy, g)
    np.testing.assert_allclose(of_lift, of_entropy, rtol=1e-10, atol=1e-12)


# The networks ask for these terms
# --------------------------------


def parameters(rng, *shapes):
    return (torch.from_numpy(rng.standard_normal(shape)) for shape in shapes)


def shallow_network(seed, gamma=0.7):
    rng = np.random.RandomState(seed)
    (offset,) = parameters(rng, 5)
    standardizer = Standardizer(offset, torch.tensor(2.0, dtype=torch.float64))
    module = ClusteringModule(*parameters(rng, (4, 5), 4, (4, 5)))
    alpha = torch.from_numpy(rng.uniform(size=4))
    return ShallowNetwork(standardizer, module, alpha, gamma=gamma, unit=5)


def deep_network(seed, gamma=0.7, p=6, contrast=False):
    rng = np.random.RandomState(seed)
    (offset,) = parameters(rng, 5)
    standardizer = Standardizer(offset, torch.tensor(2.0, dtype=torch.float64))
    generator = torch.Generator().manual_seed(seed)
    autoencoder = Autoencoder(standardizer, *MLPAutoencoder((7,))(5, p, generator), p)
    autoencoder.place(*parameters(rng, p), torch.tensor(1.5, dtype=torch.float64))
    module = ClusteringModule(*parameters(rng, (4, p), 4, (4, p)))
    alpha = torch.from_numpy(rng.uniform(size=4))
    return DeepNetwork(
        autoencoder, module, alpha, gamma=gamma, contrast=contrast, beta=0.3, lam=0.7
    )


NETWORKS = {
    "shallow": shallow_network,
    "deep": deep_network,
    "narrow": lambda seed, gamma=0.7: deep_network(seed, gamma, p=2),
}


@pytest.fixture(params=[False, True], ids=["unweighted", "weighted"])
def some_rows(request, seed):
    rng = np.random.RandomState(seed)
    weight = rng.uniform(0, 2, 12) if request.param else None
    weight = None if weight is None else weight / weight.mean()
    return ResidentRows(torch.from_numpy(rng.standard_normal((12, 5))), weight)


def numbers(terms):
    return {name: float(torch.as_tensor(value).detach()) for name, value in terms.items()}


@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_as_its_own_partner_changes_no_other_term(name, seed, some_rows, mode):
    network = NETWORKS[name](seed).train(mode == "training")
    network.clustering.lookback = 1
    batch = some_rows.take(torch.arange(12))
    alone = numbers(network.loss_terms(batch))
    paired = numbers(network.loss_terms(batch._replace(partner=batch.x)))
    assert list(paired) == [*alone, "pairs"]
    g = network.proba(batch.x).detach().numpy()
    gbar = network.clustering.gbar.numpy()
    weight = None if batch.weight is None else batch.weight.numpy()
    assert paired.pop("pairs") == pytest.approx(0.7 * twin_pair_lift(g, g, gbar, weight), rel=1e-12)
    assert paired == pytest.approx(alone, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_as_its_own_partner_over_all_rows(name, seed, some_rows):
    network = NETWORKS[name](seed, gamma=0.0)
    alone = network.settle(some_rows)
    gbar = network.clustering.gbar.clone()
    paired = network.settle(PairedRows(some_rows, None, the_row_itself))
    # Pairs come in an order of their own, so that sums round differently.
    np.testing.assert_allclose(network.clustering.gbar, gbar, **EXACT)
    assert paired.pop("pairs") == 0
    assert paired == pytest.approx(alone, rel=1e-12, abs=1e-12)
    network.gamma = 0.7
    pairs = network.settle(PairedRows(some_rows, None, the_row_itself))["pairs"]
    (x, weight, *_) = some_rows.take(torch.arange(12))
    g = network.proba(x).detach().numpy()
    expected = twin_pair_lift(g, g, gbar.numpy(), *as_numpy(weight))
    assert pairs == pytest.approx(0.7 * expected, rel=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_and_partners_count_alike(name, seed, some_rows):
    """Every plain term is the mean of its two values; the average is over both."""
    network = NETWORKS[name](seed).eval()
    batch = some_rows.take(torch.arange(12))
    partner = batch.x.flip(1) + 1
    together = numbers(network.loss_terms(batch._replace(partner=partner)))
    one = numbers(network.loss_terms(batch))
    other = numbers(network.loss_terms(batch._replace(x=partner)))
    pairs = together.pop("pairs")
    assert together == pytest.approx({n: (one[n] + other[n]) / 2 for n in one}, rel=1e-12)
    g, of_partner = (network.proba(x).detach().numpy() for x in (batch.x, partner))
    expected = twin_pair_lift(g, of_partner, network.clustering.gbar.numpy(), *as_numpy(batch[1]))
    assert pairs == pytest.approx(0.7 * expected, rel=1e-12)
    network.train().clustering.lookback = 1
    network.loss_terms(batch._replace(partner=partner))
    w = np.ones(12) if batch.weight is None else batch.weight.numpy()
    expected = (w @ g + w @ of_partner) / 24
    np.testing.assert_allclose(network.clustering.gbar, expected, **EXACT)


def test_terms_over_all_rows_are_those_of_one_batch(seed, some_rows):
    """`settle` passes over rows twice, and meets the same partners."""
    network = deep_network(seed, contrast=True)
    graph = _graph.neighbour_graph(some_rows.x.numpy(), 3)
    rows = PairedRows(some_rows, Neighbours(graph, CPU), None)
    settled = network.settle(rows)
    (batch,) = rows.pairs()
    terms = numbers(network.loss_terms(batch))
    assert settled == pytest.approx(terms, rel=1e-12)
    z, code = (network.embed(x) * 1.5 for x in (batch.x, batch.partner))
    arrays = as_numpy(z.detach(), code.detach(), batch.weight)
    assert terms["contrast"] == pytest.approx(0.7 * twin_contrast(*arrays, 512), rel=1e-12)


def test_pretraining_with_partners(seed, some_rows):
    autoencoder = deep_network(seed).autoencoder
    batch = some_rows.take(torch.arange(12))
    partner = batch.x.flip(1) + 1
    terms = numbers(autoencoder.loss_terms(batch._replace(partner=partner)))
    one = numbers(autoencoder.loss_terms(batch))
    other = numbers(autoencoder.loss_terms(batch._replace(x=partner)))
    assert list(one) == ["reconstruction"]
    mean = (one["reconstruction"] + other["reconstruction"]) / 2
    assert terms["reconstruction"] == pytest.approx(mean, rel=1e-12)
    z, code = (autoencoder.embed(x).detach() for x in (batch.x, partner))
    expected = 10 * twin_contrast(*as_numpy(z, code, batch.weight), 512)
    assert terms["contrast"] == pytest.approx(expected, rel=1e-12)


# Rows with partners
# ------------------


@pytest.fixture(params=["dense", "sparse"])
def plain_rows(request, seed):
    x = overlapping(seed, n=60)
    weight = np.random.RandomState(seed).uniform(size=60)
    if request.param == "dense":
        return ResidentRows(torch.from_numpy(x), weight)
    return HostRows(sp.csr_matrix(x), weight, CPU, torch.float64)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def assert_same_batches(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a is None) == (b is None)
            assert a is b or torch.equal(a, b)


@pytest.mark.parametrize("augment", [None, shaken])
@pytest.mark.parametrize("with_graph", [False, True])
def test_batches_of_pairs(seed, plain_rows, augment, with_graph):
    x = plain_rows.values(torch.arange(60))
    graph = _graph.neighbour_graph(x.numpy(), 4)
    neighbours = Neighbours(graph, CPU) if with_graph else None
    rows = PairedRows(plain_rows, neighbours, augment)
    assert len(rows) == 60
    for batches in (rows.batches(16, generator(seed)), rows.pairs()):
        seen = []
        for batch in batches:
            assert torch.equal(batch.x, x[batch.indices])
            assert torch.equal(batch.weight, plain_rows.weight[batch.indices])
            distance, nearest = torch.cdist(batch.partner, x).min(dim=1)
            if augment is None:
                edges = graph[batch.indices.numpy()][:, nearest.numpy()].diagonal()
                assert float(distance.max()) == pytest.approx(0, abs=1e-5)
                assert (edges if with_graph else nearest == batch.indices).all()
            else:
                assert float(distance.min()) > 0
            seen.append(batch.indices)
        assert torch.equal(torch.cat(seen).sort().values, torch.arange(60))
    assert_same_batches(rows.pairs(), rows.pairs())
    first = list(rows.batches(16, generator(seed)))
    assert_same_batches(first, rows.batches(16, generator(seed)))
    others = list(rows.batches(16, generator(seed + 1)))
    if augment is not None or with_graph:
        order = [torch.cat([batch.indices for batch in run]).argsort() for run in (first, others)]
        partner = [torch.cat([batch.partner for batch in run]) for run in (first, others)]
        assert not torch.equal(partner[0][order[0]], partner[1][order[1]])


def test_augmented_rows_are_transformed_in_random_order_only(seed, plain_rows):
    rows = AugmentedRows(plain_rows, shaken)
    assert_same_batches(rows.in_order(), plain_rows.in_order())
    x = plain_rows.values(torch.arange(60))
    for batch in rows.batches(16, generator(seed)):
        assert batch.partner is None
        assert torch.equal(batch.weight, plain_rows.weight[batch.indices])
        moved = (batch.x - x[batch.indices]).abs()
        assert float(moved.min()) > 0
        assert float(moved.max()) < 0.2 * 6
    one = list(rows.batches(16, generator(seed)))
    assert_same_batches(one, rows.batches(16, generator(seed)))


# Augmentation
# ------------

SHAPES = {"grey": (1, 8, 8), "channels": (3, 6, 10)}


def torch_dtype(dtype):
    return torch.float32 if dtype == np.float32 else torch.float64


def images(seed, shape, dtype, n=40):
    """Random images on a constant margin, that of every channel another one."""
    c, h, w = shape
    x = np.random.RandomState(seed).uniform(size=(n, c, h, w)).astype(dtype)
    margin = np.linspace(0.2, 0.9, c, dtype=dtype)[:, None]
    x[:, :, 0], x[:, :, -1], x[..., 0], x[..., -1] = (margin,) * 4
    return torch.from_numpy(x.reshape(n, -1)), torch.from_numpy(margin[:, 0])


@pytest.mark.parametrize("name", SHAPES)
def test_images_move_within_their_values(seed, dtype, name):
    shape = SHAPES[name]
    x, margin = images(seed, shape, dtype)
    before = x.clone()
    assert torch.equal(image_background(x, shape), margin)
    augment = ImageAugmentation(shape, margin)
    moved = augment(x, generator(seed))
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype
    assert torch.equal(x, before)
    difference = (moved - x).abs().amax(dim=1)
    assert float(difference.min()) > 0.05
    rounding = 1e-5 if dtype == np.float32 else 1e-12
    views, originals = moved.view(40, shape[0], -1), x.view(40, shape[0], -1)
    assert (views.amax(dim=2) <= originals.amax(dim=2) + rounding).all()
    assert (views.amin(dim=2) >= originals.amin(dim=2) - rounding).all()
    # The generator decides, and every image is moved in its own way.
    assert torch.equal(augment(x, generator(seed)), moved)
    assert not torch.equal(augment(x, generator(seed + 1)), moved)
    copies = augment(x[:1].repeat(40, 1), generator(seed))
    assert len(copies.unique(dim=0)) == 40


def test_channels_move_together(seed):
    grey, margin = images(seed, (1, 8, 8), np.float64)
    one = ImageAugmentation((1, 8, 8), margin)(grey, generator(seed))
    three = ImageAugmentation((3, 8, 8), margin.repeat(3))(grey.repeat(1, 3), generator(seed))
    np.testing.assert_allclose(three, one.repeat(1, 3), **EXACT)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.0])
def test_constant_images_stay(seed, dtype, value):
    x = torch.full((5, 48), value, dtype=torch_dtype(dtype))
    augment = ImageAugmentation((3, 4, 4), image_background(x, (3, 4, 4)))
    assert torch.equal(augment(x, generator(seed)), x)


def test_inverted_images_come_in_white(seed, dtype):
    """Nothing dark enters a white image: its views are the views of its negative."""
    x, _ = images(seed, (1, 8, 8), dtype)
    square = x.view(-1, 8, 8)
    square[:, :2], square[:, -2:], square[:, :, :2], square[:, :, -2:] = (0.0,) * 4
    black, white = (image_background(rows, (1, 8, 8)) for rows in (x, 1 - x))
    assert (black, white) == (0.0, 1.0)
    of_black = ImageAugmentation((1, 8, 8), black)(x, generator(seed))
    of_white = ImageAugmentation((1, 8, 8), white)(1 - x, generator(seed))
    rounding = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(of_white, 1 - of_black, rtol=0, atol=rounding)
    corners = of_white.view(-1, 8, 8)[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.median()) == pytest.approx(1.0)


def test_noise_has_the_stated_deviation(seed, dtype):
    deviation = torch.tensor([0.0, 1.0, 50.0], dtype=torch_dtype(dtype))
    x = torch.from_numpy(np.random.RandomState(seed).standard_normal((20000, 3)).astype(dtype))
    augment = NoiseAugmentation(deviation)
    noise = augment(x, generator(seed)) - x
    assert noise.dtype == x.dtype
    np.testing.assert_allclose(noise.std(dim=0), NOISE * deviation, rtol=0.03)
    np.testing.assert_allclose(noise[:, 1].mean(), 0, atol=5 * NOISE / np.sqrt(20000))
    assert torch.equal(augment(x, generator(seed)) - x, noise)
    assert not torch.equal(augment(x, generator(seed + 1)) - x, noise)


def test_noise_of_a_fit_is_that_of_the_columns(seed, monkeypatch):
    """With the weights of the rows."""
    made = []
    original = NoiseAugmentation.__init__

    def noted(self, deviation):
        made.append(deviation.numpy())
        original(self, deviation)

    monkeypatch.setattr(NoiseAugmentation, "__init__", noted)
    X, _ = blobs(seed)
    weight = np.random.RandomState(seed).uniform(size=90)
    quick(ClusteringModuleGMM, augment="noise").fit(X, sample_weight=weight)
    mean = np.average(X, axis=0, weights=weight)
    expected = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
    np.testing.assert_allclose(made, [expected], rtol=1e-10)


def phases_of_calls(monkeypatch):
    """A list of (phase, batch) that the callable beside it fills."""
    calls, phase = [], [None]
    original = Training.run_epoch

    def noted(self, *args, **kwargs):
        phase[0] = self.phase
        try:
            return original(self, *args, **kwargs)
        finally:
            phase[0] = None

    def augment(batch, generator):
        calls.append((phase[0], batch.clone(), generator))
        return batch

    monkeypatch.setattr(Training, "run_epoch", noted)
    return calls, augment


@pytest.mark.parametrize("n_neighbors", [None, 5])
def test_every_epoch_is_augmented(cls, seed, dtype, monkeypatch, n_neighbors):
    """A callable sees every row once an epoch of every phase, as the user gave it."""
    calls, augment = phases_of_calls(monkeypatch)
    X, _ = blobs(seed, dtype=dtype)
    model = quick(cls, augment=augment, n_neighbors=n_neighbors).fit(X)
    for phase in {row["phase"] for row in model.history_}:
        n_epochs = sum(row["phase"] == phase for row in model.history_)
        batches = [batch for name, batch, _ in calls if name == phase]
        # Before the first epoch of training, the rows of the exact average.
        extra = 2 if phase == "training" else 0
        assert sum(map(len, batches)) == 90 * (n_epochs + extra), phase
        assert all(batch.dtype == torch_dtype(dtype) for batch in batches)
        rows = np.unique(np.concatenate(batches), axis=0)
        assert {row.tobytes() for row in rows} <= {row.tobytes() for row in X}
    expected = {"training", "averaging"} | ({"pretraining"} if cls is DeepAEClustering else set())
    assert {name for name, *_ in calls} - {None} == expected
    assert all(isinstance(drawn, torch.Generator) for *_, drawn in calls)


# Whole fits
# ----------


def terms_of(model, phase):
    rows = [row for row in model.history_ if row["phase"] == phase]
    assert all(list(row) == list(rows[0]) for row in rows)
    assert all(np.isfinite(list(row.values())[1:]).all() for row in rows)
    assert ("changed" in rows[0]) is (phase != "pretraining")
    return [name for name in list(rows[0])[3:] if name != "changed"]


@pytest.mark.parametrize("name", [*PARTNERS, "graph"])
def test_history_of_the_shallow_estimator(seed, name):
    X, y = blobs(seed)
    graph = graph_of(y) if name == "graph" else None
    model = quick(ClusteringModuleGMM, **PARTNERS.get(name, {})).fit(X, adjacency=graph)
    for phase in ("training", "averaging"):
        assert terms_of(model, phase) == ["E1", "E2", "E3", "E4", "pairs"]


@pytest.mark.parametrize("name", [*PARTNERS, "graph", "graph and copies"])
def test_history_of_the_deep_estimator(seed, name):
    """The contrast belongs to neighbours: it goes on in training where they are partners."""
    X, y = blobs(seed)
    params = {"augment": "noise"} if name == "graph and copies" else PARTNERS.get(name, {})
    graph = graph_of(y) if name.startswith("graph") else None
    model = quick(DeepAEClustering, **params).fit(X, adjacency=graph)
    in_pretraining = name in ("neighbours", "both", "graph", "graph and copies")
    in_training = name in ("neighbours", "graph")
    expected = ["reconstruction", "contrast"] if in_pretraining else ["reconstruction"]
    assert terms_of(model, "pretraining") == expected
    expected = ["reconstruction", "E1", "E2", "orthonormality", "contrast", "E4", "pairs"]
    if not in_training:
        expected.remove("contrast")
    assert terms_of(model, "training") == terms_of(model, "averaging") == expected


def test_loss_of_a_fit_is_that_of_its_pairs(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls, n_neighbors=5, gamma=0.6).fit(X)
    neighbours = Neighbours(_graph.neighbour_graph(X, 5), CPU)
    rows = PairedRows(ResidentRows(torch.from_numpy(X)), neighbours, None)
    terms = copy.deepcopy(model.module_).settle(rows)
    assert "pairs" in terms
    assert sum(terms.values()) == pytest.approx(model.loss_, rel=1e-12)


def test_a_row_as_its_own_partner_at_gamma_zero_is_no_partner(cls, seed):
    """One batch holds all rows, so that only rounding depends on their order."""
    X, y = blobs(seed)
    start = X[np.unique(y, return_index=True)[1]]
    params = {"init": start, "batch_size": 90, "gamma": 0.0}
    paired = quick(cls, augment=the_row_itself, **params).fit(X)
    assert_close_fit(quick(cls, **params).fit(X), paired, rtol=1e-6)


def test_blobs_are_found(cls, seed, partners, dtype):
    X, y = blobs(seed, dtype=dtype)
    model = quick(cls, **partners).fit(X)
    assert len(set(zip(model.labels_, y, strict=True))) == 3
    assert model.cluster_centers_.dtype == dtype
    np.testing.assert_array_equal(model.labels_, model.predict(X))


@pytest.mark.parametrize("shape", [(4, 4), [1, 4, 4], (2, 4, 2)])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
def test_images(cls, seed, shape, container):
    X = np.random.RandomState(seed).uniform(0, 16, size=(60, 16)).round()
    model = quick(cls, augment="image", image_shape=shape).fit(container(X))
    np.testing.assert_array_equal(model.labels_, model.predict(container(X)))
    assert "pairs" in model.history_[-1]


def global_states():
    state = np.random.get_state()[1]  # noqa: NPY002
    return random.getstate(), state.tobytes(), torch.get_rng_state().numpy().tobytes()


def test_two_runs_are_the_same(cls, seed, partners):
    X = overlapping(seed, n=150)
    settings = {**partners, "batch_size": 32, "n_init": 2}
    random.seed(seed)
    before = global_states()
    first = quick(cls, **settings).fit(X)
    assert global_states() == before
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    assert_same_fit(quick(cls, **settings).fit(X), first)
    other = quick(cls, random_state=1, **settings).fit(X)
    assert not np.array_equal(other.cluster_centers_, first.cluster_centers_)


def test_copies_of_a_fitted_estimator(cls, seed, partners):
    X = overlapping(seed, n=120)
    model = quick(cls, **partners).fit(X)
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same_fit(same, model)
        np.testing.assert_array_equal(same.predict_proba(X), model.predict_proba(X))
        assert_same_fit(same.fit(X), model)
    assert_same_fit(clone(model).fit(X), model)


def test_weights_of_rows_with_partners(cls, seed, partners):
    X = overlapping(seed, n=120)
    weight = np.random.RandomState(seed).uniform(size=120)
    weighted = quick(cls, **partners).fit(X, sample_weight=weight)
    assert_same_fit(quick(cls, **partners).fit(X, sample_weight=2 * weight), weighted)
    without = quick(cls, **partners).fit(X)
    assert_same_fit(quick(cls, **partners).fit(X, sample_weight=np.full(120, 7)), without)
    assert not np.array_equal(weighted.cluster_centers_, without.cluster_centers_)


def test_sparse_rows_are_as_dense_ones(cls, seed, partners):
    """So many columns that no two rows are all holes: of equal rows any is the nearest."""
    X, _ = blobs(seed, d=12)
    X[np.random.RandomState(seed).uniform(size=X.shape) < 0.3] = 0
    dense = quick(cls, **partners).fit(X)
    for container in (sp.csr_matrix, sp.csr_array):
        assert_close_fit(dense, quick(cls, **partners).fit(container(X)), rtol=1e-6)


def test_a_warm_start_goes_on_from_the_network(cls, seed, partners):
    X = overlapping(seed, n=120)
    model = quick(cls, warm_start=True, **partners).fit(X)
    before = learned(model)
    model.set_params(max_iter=0).fit(X)
    after = learned(model)
    for name in ("labels_", "cluster_centers_", "clustering.weight", "clustering.means"):
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert model.loss_ == pytest.approx(before["loss_"], rel=1e-12)
    # And rows may get partners, or lose them, on the way.
    model.set_params(max_iter=200, augment=None, n_neighbors=None).fit(X)
    assert "pairs" not in model.history_[-1]
    model.set_params(**partners).fit(X)
    assert "pairs" in model.history_[-1]
    np.testing.assert_array_equal(model.labels_, model.predict(X))


def test_a_fitted_estimator_as_the_start(cls, seed, partners):
    X = overlapping(seed, n=120)
    first = quick(cls, **partners).fit(X)
    second = quick(cls, init=first, max_iter=0, **partners).fit(X)
    np.testing.assert_array_equal(second.labels_, first.labels_)
    assert second.loss_ == pytest.approx(first.loss_, rel=1e-12)
    from_plain = quick(cls, init=quick(cls).fit(X), **partners).fit(X)
    assert "pairs" in from_plain.history_[-1]


@pytest.mark.parametrize("init", ["k-means++", "pinv", "random"])
@pytest.mark.parametrize("name", ["copies", "neighbours"])
@pytest.mark.filterwarnings("ignore:Only . of k=3:sklearn.exceptions.ConvergenceWarning")
def test_every_start(cls, seed, name, init):
    X = overlapping(seed, n=120)
    model = quick(cls, init=init, **PARTNERS[name]).fit(X)
    assert np.isfinite(model.loss_)
    np.testing.assert_array_equal(model.labels_, model.predict(X))


def test_partial_fits(cls, seed, partners):
    X = overlapping(seed, n=120)
    model = quick(cls, **partners).partial_fit(X[:60])
    at_start = quick(cls, max_iter=0, **partners).fit(X[:60])
    for name, value in learned(at_start).items():
        if name != "history_":
            np.testing.assert_array_equal(learned(model)[name], value, err_msg=name)
    for block in (X[60:], X[:60]):
        model.partial_fit(block)
        assert model.history_[-1]["phase"] == "training"
        assert "pairs" in model.history_[-1]
        assert np.isfinite(model.loss_)
        np.testing.assert_array_equal(model.labels_, model.predict(block))
    again = quick(cls, **partners).partial_fit(X[:60]).partial_fit(X[60:]).partial_fit(X[:60])
    assert_same_fit(again, model)


# Odd data
# --------


def test_one_cluster(cls, seed, partners):
    X, _ = blobs(seed)
    model = quick(cls, k=1, **partners).fit(X)
    assert set(model.labels_) == {0}
    assert model.history_[-1]["pairs"] == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("k", [1, 2])
def test_two_rows(cls, seed, partners, k):
    X = blobs(seed)[0][:2]
    model = quick(cls, k=k, **partners).fit(X)
    assert np.isfinite(model.loss_)
    np.testing.assert_array_equal(model.labels_, model.predict(X))


@pytest.mark.parametrize("name", PARTNERS)
@pytest.mark.filterwarnings("ignore:All rows of X are equal:UserWarning")
def test_one_row(cls, seed, name):
    X = blobs(seed)[0][:1]
    model = quick(cls, k=1, **PARTNERS[name]).fit(X)
    assert np.isfinite(model.loss_)


def test_more_neighbours_than_rows(cls, seed):
    X, _ = blobs(seed, n=12)
    every = quick(cls, n_neighbors=11).fit(X)
    for n_neighbors in (12, 10**9):
        assert_same_fit(quick(cls, n_neighbors=n_neighbors).fit(X), every)


@pytest.mark.parametrize("width", [3, 80])
def test_equal_rows_warn(cls, partners, width):
    ours = ["All rows of X are equal: there is nothing to cluster", "Only 1 of k=2 clusters"]
    of_kmeans = "Number of distinct clusters"
    model = quick(cls, k=2, **partners)
    with pytest.warns(UserWarning, match="|".join([*ours, of_kmeans])) as log:
        model.fit(np.full((20, width), 0.5))
    messages = [str(warning.message) for warning in log]
    assert [sum(message.startswith(words) for message in messages) for words in ours] == [1, 1]
    assert [message for message in messages if not message.startswith((*ours, of_kmeans))] == []
    assert set(model.labels_) == {0}
    assert np.isfinite(model.loss_)


def test_repeated_rows(cls, seed, partners):
    """Fewer distinct rows than the surplus clusters of the start is nobody's concern."""
    X = np.repeat(blobs(seed, n=9)[0], 20, axis=0)
    labels = quick(cls, **partners).fit_predict(X)
    assert all(len(set(labels[i : i + 20])) == 1 for i in range(0, 180, 20))


def test_an_augmentation_that_writes_into_its_batch(seed):
    """The copy is the partner; the row stays as it is."""
    x = torch.from_numpy(blobs(seed)[0])
    rows = PairedRows(ResidentRows(x), None, lambda batch, generator: batch.add_(1.0))
    for batch in rows.batches(32, generator(seed)):
        assert torch.equal(batch.x, x[batch.indices])
        assert torch.equal(batch.partner, x[batch.indices] + 1)


# A given graph
# -------------


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csr_array])
def test_labels_of_a_fit_are_its_predictions(cls, seed, dtype, container):
    X, y = blobs(seed, dtype=dtype)
    graph = graph_of(y)
    rows = container(X)
    model = quick(cls).fit(rows, adjacency=graph)
    for edges in (graph, sp.csr_array(graph), graph.tolist()):
        np.testing.assert_array_equal(model.labels_, model.predict(rows, adjacency=edges))
    proba = model.predict_proba(rows, adjacency=graph)
    np.testing.assert_array_equal(proba.argmax(axis=1), model.labels_)
    assert proba.dtype == dtype
    assert len(set(zip(model.labels_, y, strict=True))) == 3


def test_every_pass_mixes_rows_first(cls, seed):
    X, y = blobs(seed)
    X += 2 * np.random.RandomState(seed).standard_normal(X.shape)
    graph = graph_of(y)
    alone = graph.sum(axis=0) == 0
    assert alone[:18].all()
    model = quick(cls).fit(X, adjacency=graph)
    mixed = _graph.smooth(X, _graph.check_adjacency(graph, 90))
    for name in ("predict", "predict_proba", "transform", "score_samples"):
        method = getattr(model, name)
        value = method(X, adjacency=graph)
        np.testing.assert_array_equal(value, method(mixed), err_msg=name)
        np.testing.assert_allclose(value[alone], method(X)[alone], atol=1e-12, err_msg=name)
        if name != "predict":
            assert not np.allclose(value, method(X)), name
    if cls is ClusteringModuleGMM:
        assert model.score(X, adjacency=graph) == pytest.approx(
            model.score_samples(X, adjacency=graph).mean()
        )
    code = model.transform(X, adjacency=graph)
    np.testing.assert_array_equal(quick(cls).fit_transform(X, adjacency=graph), code)
    np.testing.assert_array_equal(quick(cls).fit_predict(X, adjacency=graph), model.labels_)


def test_new_rows_by_themselves(cls, seed):
    X, y = blobs(seed)
    model = quick(cls).fit(X, adjacency=graph_of(y))
    new, _ = blobs(seed, n=30)
    assert model.predict(new).shape == (30,)
    one_by_one = np.concatenate([model.predict_proba(row[None]) for row in new])
    np.testing.assert_allclose(model.predict_proba(new), one_by_one, atol=1e-12)


def test_no_edges_are_no_graph(cls, seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    without = quick(cls).fit(X)
    for graph in (sp.csr_array((90, 90)), np.zeros((90, 90), bool), np.eye(90)):
        assert_same_fit(quick(cls).fit(X, adjacency=graph), without)
        np.testing.assert_array_equal(without.transform(X, adjacency=graph), without.transform(X))


def test_the_direction_and_the_unit_of_edges_do_not_matter(cls, seed):
    X, y = blobs(seed)
    graph = graph_of(y)
    expected = quick(cls).fit(X, adjacency=graph)
    for same in (graph.T, graph + graph.T, 8 * graph, graph + np.eye(90), sp.coo_array(graph)):
        assert_same_fit(quick(cls).fit(X, adjacency=same), expected)
    other = quick(cls).fit(X, adjacency=graph > 0)
    assert not np.array_equal(other.cluster_centers_, expected.cluster_centers_)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csr_matrix])
def test_a_graph_with_64_bit_indices(cls, seed, container):
    X, y = blobs(seed)
    graph = sp.csr_array(graph_of(y))
    expected = quick(cls).fit(container(X), adjacency=graph)
    wide = graph.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    assert_same_fit(quick(cls).fit(container(X), adjacency=wide), expected)


def test_the_graph_of_a_fit_is_left_as_it_is(cls, seed):
    X, y = blobs(seed)
    graph = sp.csr_array(graph_of(y))
    before = X.copy(), graph.copy()
    quick(cls).fit(X, adjacency=graph).predict(X, adjacency=graph)
    np.testing.assert_array_equal(X, before[0])
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(graph, name), getattr(before[1], name))


def test_a_graph_tells_apart_what_rows_do_not(seed):
    """Neighbours are smoothed over: rows of noise are labelled by their edges."""
    rng = np.random.RandomState(seed)
    y = rng.permutation(np.arange(200) % 2)
    X = 1.5 * y[:, None] + rng.standard_normal((200, 3))
    graph = (rng.uniform(size=(200, 200)) < 0.2) * (y[:, None] == y)
    model = quick(ClusteringModuleGMM, k=2).fit(X, adjacency=graph)
    assert len(set(zip(model.labels_, y, strict=True))) == 2
    assert len(set(zip(quick(ClusteringModuleGMM, k=2).fit_predict(X), y, strict=True))) == 4


def test_a_pipeline_passes_the_graph_on(cls, seed):
    X, y = blobs(seed)
    X, graph = X * [1, 2, 3, 4], graph_of(y)
    scaled = StandardScaler().fit_transform(X)
    expected = quick(cls).fit(scaled, adjacency=graph)
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(cls).set_fit_request(adjacency=True).set_predict_request(adjacency=True)
        pipeline = make_pipeline(StandardScaler(), model).fit(X, adjacency=graph)
        labels = pipeline.predict(X, adjacency=graph)
    assert_same_fit(pipeline[-1], expected)
    np.testing.assert_array_equal(labels, expected.labels_)


# Refused
# -------


def changed(graph, value):
    graph = graph.copy()
    graph[30, 40] = value
    return graph


GRAPH = graph_of(blobs(0)[1])
ZERO_OR_MORE = "weights in adjacency must be finite and zero or more, but are in"
BAD_GRAPHS = {
    "rows cut": (GRAPH[:60], r"n_samples=90 .* has shape \(60, 90\).*Cross-validation cuts"),
    "too small": (GRAPH[:60, :60], r"n_samples=90 rows of X, but has shape \(60, 60\)"),
    "too large": (sp.csr_array((91, 91)), r"n_samples=90 .*but has shape \(91, 91\)"),
    "1-D": (np.ones(90), r"n_samples=90 .*but has shape \(90,\)"),
    "3-D": (np.ones((90, 90, 2)), r"adjacency must be a sparse matrix or array of numbers"),
    "negative": (changed(GRAPH, -1.0), rf"{ZERO_OR_MORE} \[-1.0, .*Leave out edges"),
    "sparse negative": (sp.coo_array(changed(GRAPH, -1.0)), ZERO_OR_MORE),
    "nan": (changed(GRAPH, np.nan), ZERO_OR_MORE),
    "inf": (sp.csr_matrix(changed(GRAPH, np.inf)), ZERO_OR_MORE),
    "a word": ("neighbours", "adjacency must be a sparse .* but is str"),
    "a number": (3.0, "adjacency must be a sparse .* but is float"),
    "words": (np.full((90, 90), "x"), "numbers of shape .* but is ndarray: "),
    "complex": (GRAPH + 1j, "adjacency must be a sparse matrix or array of numbers"),
}


def state_of(estimator):
    return {name: id(value) for name, value in vars(estimator).items()}


def assert_refused(model, call, message):
    """``call`` raises and leaves ``model`` as it was."""
    fitted = hasattr(model, "module_")
    before = state_of(model), fitted and learned(model)
    with pytest.raises(ValueError, match=message):
        call(model)
    assert state_of(model) == before[0]
    if fitted:
        np.testing.assert_equal(learned(model), before[1])


@pytest.mark.parametrize("name", list(BAD_GRAPHS))
def test_graphs_that_are_refused(cls, name):
    graph, message = BAD_GRAPHS[name]
    X, _ = blobs(0)
    model = quick(cls)
    assert_refused(model, lambda model: model.fit(X, adjacency=graph), message)
    model.fit(X)
    assert_refused(model, lambda model: model.fit(X, adjacency=graph), message)
    for method in ("predict", "predict_proba", "transform", "score_samples", "score"):
        assert_refused(model, lambda m, name=method: getattr(m, name)(X, adjacency=graph), message)


def wrong_shape(batch, generator):
    return batch[:, :-1]


def wrong_type(batch, generator):
    return batch.numpy()


def wrong_dtype(batch, generator):
    return batch.half()


def not_finite(batch, generator):
    return batch * float("nan")


BAD_PARAMETERS = {
    "no image_shape": ({"augment": "image"}, "augment='image' needs image_shape, but it is None"),
    "wrong image_shape": (
        {"augment": "image", "image_shape": (3, 3)},
        r"image_shape must be .* a product of 4, .* but is \(3, 3\)",
    ),
    "flat image_shape": ({"augment": "image", "image_shape": (4,)}, "image_shape must be"),
    "fractions": ({"augment": "image", "image_shape": (2.0, 2.0)}, "image_shape must be"),
    "image_shape a number": ({"image_shape": 4}, "'image_shape' parameter of {cls} must be"),
    "augment a word": ({"augment": "images"}, "'augment' parameter of {cls} must be"),
    "augment a number": ({"augment": 1}, "'augment' parameter of {cls} must be"),
    "no neighbours": ({"n_neighbors": 0}, "'n_neighbors' parameter of {cls} must be"),
    "half a neighbour": ({"n_neighbors": 2.5}, "'n_neighbors' parameter of {cls} must be"),
    "gamma < 0": ({"gamma": -0.1}, "'gamma' parameter of {cls} must be"),
    "shape": (
        {"augment": wrong_shape},
        r"augment must return a tensor of the shape of its batch, \(\d+, 4\), but .* \(\d+, 3\)",
    ),
    "type": ({"augment": wrong_type}, "augment must return a tensor .* but returned ndarray"),
    "dtype": (
        {"augment": wrong_dtype},
        "keep the dtype .* torch.float64 .* returned torch.float16",
    ),
    "nan": ({"augment": not_finite}, "The loss is not finite"),
}


@pytest.mark.parametrize("fitted", [False, True], ids=["unfitted", "fitted"])
@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_parameters_that_are_refused(cls, name, fitted):
    params, message = BAD_PARAMETERS[name]
    X, _ = blobs(0)
    model = quick(cls)
    if fitted:
        model.fit(X)
    model.set_params(**params)
    assert_refused(model, lambda model: model.fit(X), message.format(cls=cls.__name__))


def test_neighbours_join_a_given_graph(cls):
    """The nearest of the smoothed rows; whatever else is given stays."""
    X, _ = blobs(0)
    model = quick(cls, n_neighbors=5)
    data = model._with_partners(model._check_data(X, None, GRAPH, reset=True))
    joined = data.partners.graph
    near = _graph.neighbour_graph(_graph.smooth(X, _graph.check_adjacency(GRAPH, len(X))), 5)
    expected = _graph.check_adjacency(GRAPH, len(X)) + near
    np.testing.assert_array_equal(joined.toarray() > 0, expected.toarray() > 0)
    model.fit(X, adjacency=GRAPH)
    np.testing.assert_array_equal(model.predict(X, adjacency=GRAPH), model.labels_)


def test_too_many_rows_for_an_exact_search(cls, monkeypatch):
    monkeypatch.setattr(_graph, "EXACT_ROWS", 50)
    monkeypatch.setitem(sys.modules, "faiss", None)
    X, _ = blobs(0)
    message = (
        r'n_neighbors with more than 50 rows needs .* pip install "skaecm\[neighbors\]".* adjacency'
    )
    assert_refused(quick(cls, n_neighbors=5), lambda model: model.fit(X), message)


SEARCHES = {
    "cross_validate": lambda model, X, folds: cross_validate(
        model, X, params={"adjacency": GRAPH}, cv=folds
    ),
    "GridSearchCV": lambda model, X, folds: GridSearchCV(
        model, {"gamma": [0.5, 1.0]}, cv=folds
    ).fit(X, adjacency=GRAPH),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_cross_validation_says_what_to_do_instead(cls, search):
    X, _ = blobs(0)
    folds = KFold(2)
    message = r"Cross-validation cuts only its rows: .* adjacency\[rows\]\[:, rows\]"
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(cls).set_fit_request(adjacency=True).set_score_request(adjacency=True)
        with pytest.raises(ValueError, match=message):
            SEARCHES[search](model, X, folds)
    scores = []
    for rows, held_out in folds.split(X):
        model = quick(cls).fit(X[rows], adjacency=GRAPH[rows][:, rows])
        edges = sp.csr_array(GRAPH)[held_out][:, held_out]
        scores.append(model.score(X[held_out], adjacency=edges))
    assert np.isfinite(scores).all()


# The cache of the pretraining
# ----------------------------


def test_memory_knows_the_partners(seed, tmp_path, monkeypatch):
    """The same partners are served, others are pretrained anew, and both as without memory."""
    pretrained = []
    original = Training.run_epoch

    def noted(self, *args, **kwargs):
        pretrained.append(self.phase == "pretraining")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Training, "run_epoch", noted)
    X, y = blobs(seed)
    graph = graph_of(y)
    settings = [
        ({}, None),
        ({"n_neighbors": 5}, None),
        ({"n_neighbors": 6}, None),
        ({"augment": "noise"}, None),
        ({"augment": shaken}, None),
        ({"augment": "image", "image_shape": (2, 2)}, None),
        ({"augment": "image", "image_shape": (1, 4)}, None),
        ({"augment": "noise", "n_neighbors": 5}, None),
        ({}, graph),
        ({}, graph > 0),
    ]

    def fit(params, adjacency, memory):
        pretrained.clear()
        model = quick(DeepAEClustering, memory=memory, **params).fit(X, adjacency=adjacency)
        return model, any(pretrained)

    for params, adjacency in settings:
        first, was_trained = fit(params, adjacency, str(tmp_path))
        assert was_trained, params
        again, was_trained = fit(params, adjacency, str(tmp_path))
        assert not was_trained, params
        without, _ = fit(params, adjacency, None)
        assert_same_fit(again, first)
        assert_same_fit(without, first)
    # A graph that comes in another format is the same one.
    _, was_trained = fit({}, sp.coo_array(graph), str(tmp_path))
    assert not was_trained


def test_memory_asks_for_an_augmentation_that_can_be_pickled(seed, tmp_path):
    model = quick(DeepAEClustering, augment=lambda batch, _: batch, memory=str(tmp_path))
    message = "With memory, augment must be something that can be pickled"
    assert_refused(model, lambda model: model.fit(blobs(seed)[0]), message)


def test_a_batch_without_partners_is_left_as_it_is(seed):
    """The fields of a batch keep their places: loops unpack the first two."""
    x = torch.from_numpy(blobs(seed)[0])
    assert Batch._fields[:4] == ("x", "weight", "indices", "partner")
    assert Batch._fields[4:] == ("seen", "partner_seen", "part")
    assert all(batch.partner is None for batch in ResidentRows(x).batches(32, generator(seed)))


def test_rows_of_no_weight_are_nobodys_partner(cls, seed):
    X, _ = blobs(seed)
    weight = (np.arange(90) % 3 > 0).astype(float)
    model = quick(cls, n_neighbors=6)
    data = model._with_partners(model._check_data(X, weight, None, reset=True))
    assert data.partners.graph[:, weight == 0].nnz == 0


def test_rotation_is_one_of_pixels_in_wide_images_too():
    """A vertical bar in the middle of a wide image turns by no more than the angle."""
    shape = (1, 16, 64)
    image = torch.zeros(shape, dtype=torch.float64)
    image[:, :, 31:33] = 1.0
    batch = image.view(1, -1).repeat(50, 1)
    augment = ImageAugmentation(shape, torch.zeros(1, dtype=torch.float64))
    moved = augment(batch, torch.Generator().manual_seed(0)).view(50, 16, 64)
    columns = torch.arange(64.0, dtype=torch.float64)
    center = (moved * columns).sum(dim=2) / moved.sum(dim=2).clamp(min=1e-9)
    slope = (center[:, 11] - center[:, 4]) / 7
    assert float(slope.abs().max()) < 1.2 * np.tan(np.radians(ROTATION))


def test_bic_takes_the_graph(seed):
    X, _ = blobs(seed)
    model = quick(ClusteringModuleGMM).fit(X, adjacency=GRAPH)
    price = np.log(90) * (3 * 4 + 2 + 1)
    expected = -2 * 90 * model.score(X, adjacency=GRAPH) + price
    assert model.bic(X, adjacency=GRAPH) == pytest.approx(expected)
