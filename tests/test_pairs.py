"""The terms that pairs of a row and its partner add to the losses, against slower twins."""

import numpy as np
import pytest
import torch
from helpers import shaken, the_row_itself
from scipy.special import softmax

from skaecm import _graph, _losses
from skaecm._modules import (
    Autoencoder,
    ClusteringModule,
    DeepNetwork,
    ShallowNetwork,
    Standardizer,
)
from skaecm._rows import (
    Neighbours,
    PairedRows,
    ResidentRows,
)
from skaecm._tensors import make_generator
from skaecm._training import Training
from skaecm.autoencoders import MLPAutoencoder

EXACT = {"rtol": 1e-12, "atol": 1e-12}
CPU = torch.device("cpu")


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


@pytest.mark.parametrize("is_row", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_and_partners_count_alike(name, seed, some_rows, is_row):
    """Every plain term is the mean of its two values; the average is over both.

    But a partner that is a row too is reconstructed in its turn.
    """
    network = NETWORKS[name](seed).eval()
    batch = some_rows.take(torch.arange(12))
    partner = batch.x.flip(1) + 1
    paired = batch._replace(partner=partner, partner_is_row=is_row)
    together = numbers(network.loss_terms(paired))
    one = numbers(network.loss_terms(batch))
    other = numbers(network.loss_terms(batch._replace(x=partner)))
    pairs = together.pop("pairs")
    expected = {n: (one[n] + other[n]) / 2 for n in one}
    if is_row and "reconstruction" in one:
        expected["reconstruction"] = one["reconstruction"]
    assert together == pytest.approx(expected, rel=1e-12)
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
    assert batch.partner_is_row
    terms = numbers(network.loss_terms(batch))
    assert settled == pytest.approx(terms, rel=1e-12)
    z, code = (network.embed(x) * 1.5 for x in (batch.x, batch.partner))
    arrays = as_numpy(z.detach(), code.detach(), batch.weight)
    assert terms["contrast"] == pytest.approx(0.7 * twin_contrast(*arrays, 512), rel=1e-12)


@pytest.mark.parametrize(("contrast", "gamma"), [(True, 0.7), (False, 0.7), (True, 0.0)])
def test_the_autoencoder_learns_slower_where_neighbours_are_contrasted(seed, contrast, gamma):
    """In one step of Adam every weight moves by its learning rate."""
    network = deep_network(seed, gamma=gamma, contrast=contrast)
    x = torch.from_numpy(np.random.RandomState(seed).standard_normal((20, 5)))
    rows = PairedRows(ResidentRows(x), None, shaken)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    settings = {"batch_size": 20, "learning_rate": 1e-3, "epsilon": 1e-12}
    training = Training(network, phase="training", generator=make_generator(seed), **settings)
    training.run_epoch(rows)
    moved = {
        id(parameter): float((parameter.detach() - old).abs().max())
        for parameter, old in zip(network.parameters(), before, strict=True)
    }
    expected = 3e-4 if contrast and gamma else 1e-3
    for parameter in network.autoencoder.parameters():
        assert moved[id(parameter)] == pytest.approx(expected, rel=1e-3)
    for parameter in network.clustering.parameters():
        assert moved[id(parameter)] == pytest.approx(3e-3, rel=1e-3)


@pytest.mark.parametrize("is_row", [True, False])
def test_pretraining_with_partners(seed, some_rows, is_row):
    autoencoder = deep_network(seed).autoencoder
    batch = some_rows.take(torch.arange(12))
    partner = batch.x.flip(1) + 1
    paired = batch._replace(partner=partner, partner_is_row=is_row)
    terms = numbers(autoencoder.loss_terms(paired))
    one = numbers(autoencoder.loss_terms(batch))
    other = numbers(autoencoder.loss_terms(batch._replace(x=partner)))
    assert list(one) == ["reconstruction"]
    both = [one["reconstruction"], other["reconstruction"]]
    expected = both[0] if is_row else np.mean(both)
    assert terms["reconstruction"] == pytest.approx(expected, rel=1e-12)
    z, code = (autoencoder.embed(x).detach() for x in (batch.x, partner))
    expected = 10 * twin_contrast(*as_numpy(z, code, batch.weight), 512)
    assert terms["contrast"] == pytest.approx(expected, rel=1e-12)
