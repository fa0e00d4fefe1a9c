"""The terms of the losses: against loops, against finite differences, against the mixture.

The loop-written twins below use the definitions of the paper one sum at a time.
"""

import numpy as np
import pytest
import scipy.stats
import torch
from helpers import blobs
from scipy.special import logsumexp, softmax

from skaecm import _losses
from skaecm._modules import (
    Autoencoder,
    ClusteringModule,
    DeepNetwork,
    ShallowNetwork,
    Standardizer,
    mixture_terms,
)
from skaecm._rows import ResidentRows
from skaecm.autoencoders import MLPAutoencoder

EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(params=[False, True], ids=["unweighted", "weighted"])
def case(request, seed):
    """Rows, their code, responsibilities, centroids, and weights or none."""
    rng = np.random.RandomState(seed)
    n, d, k = 11, 5, 4
    g = softmax(2 * rng.standard_normal((n, k)), axis=1)
    x, means, xhat = (rng.standard_normal(shape) for shape in ((n, d), (k, d), (n, d)))
    weight = rng.uniform(0, 2, n) if request.param else None
    return {"x": x, "xhat": xhat, "g": g, "means": means, "weight": weight}


def tensors(case, *names):
    return [None if case[name] is None else torch.from_numpy(case[name]) for name in names]


# Loop-written twins
# ------------------


def weights_of(case):
    return np.ones(len(case["x"])) if case["weight"] is None else case["weight"]


def twin_distortion(case):
    x, g, means, total = case["x"], case["g"], case["means"], 0.0
    for i, w in enumerate(weights_of(case)):
        for k in range(len(means)):
            total += w * g[i, k] * sum((x[i, j] - means[k, j]) ** 2 for j in range(x.shape[1]))
    return total / len(x)


def twin_e1(case):
    x, g, means, total = case["x"], case["g"], case["means"], 0.0
    for i, w in enumerate(weights_of(case)):
        for j in range(x.shape[1]):
            mixed = sum(g[i, k] * means[k, j] for k in range(len(means)))
            total += w * (x[i, j] - mixed) ** 2
    return total / len(x)


def twin_e2(case):
    g, means, total = case["g"], case["means"], 0.0
    for i, w in enumerate(weights_of(case)):
        for k in range(len(means)):
            total += w * sum(m * m for m in means[k]) * g[i, k] * (1 - g[i, k])
    return total / len(g)


def twin_e2_orthonormal(case):
    g, total = case["g"], 0.0
    for i, w in enumerate(weights_of(case)):
        total += w * sum(g[i, k] * (1 - g[i, k]) for k in range(g.shape[1]))
    return total / len(g)


def twin_e3(case):
    g, means, total = case["g"], case["means"], 0.0
    for i, w in enumerate(weights_of(case)):
        for k in range(len(means)):
            for m in range(len(means)):
                if k != m:
                    inner = sum(means[k, j] * means[m, j] for j in range(means.shape[1]))
                    total -= w * g[i, k] * g[i, m] * inner
    return total / len(g)


def twin_squared_error(case):
    x, xhat, total = case["x"], case["xhat"], 0.0
    for i, w in enumerate(weights_of(case)):
        total += w * sum((x[i, j] - xhat[i, j]) ** 2 for j in range(x.shape[1]))
    return total / len(x)


def twin_gbar(case):
    g, gbar = case["g"], np.zeros(case["g"].shape[1])
    for i, w in enumerate(weights_of(case)):
        for k in range(g.shape[1]):
            gbar[k] += w * g[i, k] / len(g)
    return gbar


def twin_orthonormality(means):
    total = 0.0
    for k in range(len(means)):
        for m in range(len(means)):
            total += abs(sum(means[k] * means[m]) - (1.0 if k == m else 0.0))
    return total


def twin_e4(alpha, gbar):
    by_size = sorted(range(len(gbar)), key=lambda k: gbar[k])
    by_strength = sorted(alpha)
    return -sum(by_strength[rank] * np.log(gbar[k] + 1e-10) for rank, k in enumerate(by_size))


TERMS = {
    "distortion": (_losses.distortion, twin_distortion, ("x", "g", "means")),
    "e1": (_losses.e1, twin_e1, ("x", "g", "means")),
    "e2": (_losses.e2, twin_e2, ("g", "means")),
    "e2_orthonormal": (_losses.e2_orthonormal, twin_e2_orthonormal, ("g",)),
    "e3": (_losses.e3, twin_e3, ("g", "means")),
    "squared_error": (_losses.squared_error, twin_squared_error, ("x", "xhat")),
    "mean_over_rows": (_losses.mean_over_rows, twin_gbar, ("g",)),
}


@pytest.mark.parametrize("name", TERMS)
def test_equals_its_loop(case, name):
    function, twin, arguments = TERMS[name]
    value = function(*tensors(case, *arguments), *tensors(case, "weight"))
    np.testing.assert_allclose(value.numpy(), twin(case), **EXACT)


@pytest.mark.parametrize("name", TERMS)
def test_gradients(case, name):
    function, _, arguments = TERMS[name]
    inputs = [tensor.requires_grad_() for tensor in tensors(case, *arguments)]
    (weight,) = tensors(case, "weight")
    assert torch.autograd.gradcheck(lambda *values: function(*values, weight), inputs)


def test_penalties_equal_their_loops(case, seed):
    alpha = np.random.RandomState(seed).uniform(size=4)
    means, gbar = case["means"], twin_gbar(case)
    value = _losses.orthonormality(torch.from_numpy(means))
    np.testing.assert_allclose(value, twin_orthonormality(means), **EXACT)
    value = _losses.e4(torch.from_numpy(alpha), torch.from_numpy(gbar))
    np.testing.assert_allclose(value, twin_e4(alpha, gbar), **EXACT)


def test_gradients_of_penalties(case, seed):
    alpha = torch.from_numpy(np.random.RandomState(seed).uniform(size=4))
    gbar = torch.from_numpy(twin_gbar(case)).requires_grad_()
    (means,) = tensors(case, "means")
    assert torch.autograd.gradcheck(lambda value: _losses.e4(alpha, value), gbar)
    assert torch.autograd.gradcheck(_losses.orthonormality, means.requires_grad_())


def test_identity_of_the_distortion(case):
    x, g, means, weight = tensors(case, "x", "g", "means", "weight")
    parts = _losses.e1(x, g, means, weight)
    parts = parts + _losses.e2(g, means, weight) + _losses.e3(g, means, weight)
    np.testing.assert_allclose(parts, _losses.distortion(x, g, means, weight), **EXACT)
    np.testing.assert_allclose(parts, twin_distortion(case), **EXACT)


def test_mixture_terms_have_the_values_and_the_gradient_of_the_parts(case):
    """The module pays for the sum alone: values and total gradient are those of the parts."""
    weight = tensors(case, "weight")[0]

    def gradients(parts):
        inputs = [tensor.requires_grad_() for tensor in tensors(case, "x", "g", "means")]
        inputs = [tensor.clone() for tensor in inputs]
        terms = parts(*inputs)
        return [float(term.detach()) for term in terms], torch.autograd.grad(sum(terms), inputs)

    def apart(x, g, means):
        return [
            _losses.e1(x, g, means, weight) / 5.0,
            _losses.e2(g, means, weight) / 5.0,
            _losses.e3(g, means, weight) / 5.0,
        ]

    def together(x, g, means):
        terms = mixture_terms(x, g, means, weight, unit=5.0)
        assert list(terms) == ["E1", "E2", "E3"]
        return list(terms.values())

    values, grads = gradients(together)
    expected_values, expected_grads = gradients(apart)
    np.testing.assert_allclose(values, expected_values, **EXACT)
    # On the simplex the two losses are equal, off it they are not: gradients in g
    # are compared along the simplex, where every softmax moves.
    for grad, expected, name in zip(grads, expected_grads, ("x", "g", "means"), strict=True):
        if name == "g":
            grad, expected = (v - v.mean(dim=1, keepdim=True) for v in (grad, expected))
        np.testing.assert_allclose(grad, expected, rtol=1e-10, atol=1e-12, err_msg=name)


def test_orthonormal_form_is_the_distortion_of_orthonormal_centroids(case):
    x, g, weight = tensors(case, "x", "g", "weight")
    means = torch.linalg.qr(tensors(case, "means")[0].T).Q.T.contiguous()
    assert _losses.orthonormality(means) < 1e-12
    value = _losses.e1(x, g, means, weight) + _losses.e2_orthonormal(g, weight)
    np.testing.assert_allclose(value, _losses.distortion(x, g, means, weight), **EXACT)


# The prior
# ---------


def test_largest_alpha_goes_to_the_largest_cluster():
    gbar = torch.tensor([0.1, 0.6, 0.3], dtype=torch.float64)
    alphas = [[5.0, 1.0, 2.0], [1.0, 2.0, 5.0], [2.0, 5.0, 1.0]]
    expected = -(5 * np.log(0.6) + 2 * np.log(0.3) + 1 * np.log(0.1))
    for alpha in alphas:
        value = _losses.e4(torch.tensor(alpha, dtype=torch.float64), gbar)
        assert value == pytest.approx(expected, rel=1e-8)


def test_an_empty_cluster_has_a_finite_price():
    value = _losses.e4(torch.ones(2), torch.tensor([0.0, 1.0]))
    assert value == pytest.approx(-np.log(1e-10))


def test_running_average_has_the_value_of_the_average_and_the_gradient_of_the_batch():
    running = torch.tensor([0.2, 0.8], dtype=torch.float64)
    batch = torch.tensor([0.6, 0.4], dtype=torch.float64, requires_grad=True)
    value = _losses.running_average(running, batch, 0.25)
    np.testing.assert_allclose(value.detach(), [0.3, 0.7], **EXACT)
    (gradient,) = torch.autograd.grad(value @ torch.tensor([3.0, -1.0]).double(), batch)
    np.testing.assert_array_equal(gradient, [3.0, -1.0])
    np.testing.assert_allclose(_losses.running_average(running, batch, 1.0).detach(), [0.6, 0.4])


def frozen_module(seed, n=960):
    """A module with soft responsibilities, the smallest cluster a twentieth of its rows."""
    X, y = blobs(seed, n=4 * n, k=4, d=4)
    sizes = (np.array([0.5, 0.3, 0.15, 0.05]) * n).astype(int)
    X = np.vstack([X[y == label][:size] for label, size in enumerate(sizes)])
    centers = torch.from_numpy(np.stack([X[: sizes[0]].mean(axis=0), *8.0 * np.eye(4)[1:]]))
    module = ClusteringModule(0.08 * centers, torch.zeros(4).double(), centers)
    return module, torch.from_numpy(X)


def prior_gradient(module, x, batch_size, average):
    """Gradient of -sum log gbar in W over an epoch of batches, as a mean over rows."""
    module.zero_grad()
    alpha = torch.ones(module.k, dtype=torch.float64)
    with torch.no_grad():
        module.gbar = module(x).mean(dim=0)
    generator = torch.Generator().manual_seed(0)
    for batch in ResidentRows(x).batches(batch_size, generator):
        term = _losses.e4(alpha, average(module(batch.x)))
        (term * len(batch.x) / len(x)).backward()
    return module.weight.grad.clone()


@pytest.mark.parametrize("batch_size", [16, 64, 960])
def test_the_prior_means_the_same_at_every_batch_size(seed, batch_size):
    """Over an epoch of batches the prior pulls as it does over all rows at once.

    The stated tolerance is a tenth of the gradient's length. With the average of the
    batch alone the pull at 16 rows is off by more than half, as small batches often
    miss the smallest cluster.
    """
    module, x = frozen_module(seed)
    module.train()
    full = prior_gradient(module, x, len(x), lambda g: g.mean(dim=0))
    running = prior_gradient(module, x, batch_size, lambda g: module.average(g, None))
    assert torch.dist(running, full) < 0.1 * full.norm()
    if batch_size == 16:
        of_batch = prior_gradient(module, x, batch_size, lambda g: g.mean(dim=0))
        assert torch.dist(of_batch, full) > 0.5 * full.norm()


def test_per_sample_terms_add_up_over_batches(case):
    """A weighted mean over an epoch of unequal batches is the term over all rows."""
    for function, _, names in TERMS.values():
        values = tensors(case, *names, "weight")
        is_row = [value is not None and len(value) == 11 for value in values]
        total = sum(
            len(index)
            / 11
            * function(*(v[index] if rows else v for v, rows in zip(values, is_row, strict=True)))
            for index in torch.arange(11).split(4)
        )
        np.testing.assert_allclose(total, function(*values), **EXACT)


# The mixture behind the loss
# ---------------------------


def test_loss_of_the_module_is_minus_q(seed):
    """L_CM = -Q + constant, Q written from its definition.

    Q is the expected complete-data log-likelihood of the mixture with the
    covariance I/2 and equal weights, plus the Dirichlet log-prior on the average
    responsibilities, here all per sample. The constant depends on n, d and k
    alone, so it is read off one parameter setting and must serve all others.
    """
    rng = np.random.RandomState(seed)
    n, d, k = 12, 3, 4
    x = rng.standard_normal((n, d))
    alpha = rng.uniform(0, 2, size=1).repeat(k)

    def loss(g, means):
        terms = mixture_terms(*map(torch.from_numpy, (x, g, means)), None, unit=1.0)
        prior = _losses.e4(torch.from_numpy(alpha), torch.from_numpy(g.mean(axis=0)))
        return float(sum(terms.values()) + prior)

    def q(g, means):
        total = 0.0
        for i in range(n):
            for j in range(k):
                density = scipy.stats.multivariate_normal(means[j], 0.5 * np.eye(d))
                total += g[i, j] * (np.log(1 / k) + density.logpdf(x[i]))
        # Strengths a = (alpha - 1) / n of the Dirichlet density on gbar.
        log_prior = n * np.sum(alpha * np.log(g.mean(axis=0)))
        return (total + log_prior) / n

    draws = [
        (softmax(3 * rng.standard_normal((n, k)), axis=1), rng.standard_normal((k, d)))
        for _ in range(5)
    ]
    constants = [loss(*draw) + q(*draw) for draw in draws]
    expected = -np.log(k) - d / 2 * np.log(np.pi)
    np.testing.assert_allclose(constants, expected, rtol=0, atol=1e-8)


def test_m_step(case):
    """The gradient of the distortion in M vanishes at the weighted means, only there."""
    x, g, weight = tensors(case, "x", "g", "weight")
    rows = g if weight is None else g * weight[:, None]
    at_means = ((rows.T @ x) / rows.sum(dim=0)[:, None]).requires_grad_()
    (gradient,) = torch.autograd.grad(_losses.distortion(x, g, at_means, weight), at_means)
    assert gradient.abs().max() < 1e-12
    elsewhere = (at_means.detach() + 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(_losses.distortion(x, g, elsewhere, weight), elsewhere)
    assert gradient.abs().max() > 1e-3


def test_e_step(case, seed):
    """Posterior of the mixture with sigma^2 = 1/2 minimises distortion + sum g log g."""
    rng = np.random.RandomState(seed)
    x, means = tensors(case, "x", "means")
    squared = torch.cdist(x, means).square().numpy()
    posterior = np.exp(-squared - logsumexp(-squared, axis=1)[:, None])

    def objective(g):
        entropy = np.sum(g * np.log(np.maximum(g, 1e-300))) / len(g)
        return float(_losses.distortion(x, torch.from_numpy(g), means)) + entropy

    best = objective(posterior)
    assert best == pytest.approx(-logsumexp(-squared, axis=1).mean(), rel=1e-10)
    for size in (1e-3, 1e-1, 1.0):
        for _ in range(20):
            other = posterior * np.exp(size * rng.standard_normal(posterior.shape))
            other /= other.sum(axis=1, keepdims=True)
            assert objective(other) > best


def test_without_the_entropy_hard_assignments_are_the_minimiser(case, seed):
    x, g, means = tensors(case, "x", "g", "means")
    nearest = torch.cdist(x, means).argmin(dim=1)
    hard = torch.nn.functional.one_hot(nearest, len(means)).double()
    best = _losses.distortion(x, hard, means)
    others = [g, 0.99 * hard + 0.01 * g, torch.full_like(g, 1 / len(means))]
    others += [hard.roll(shift, dims=1) for shift in range(1, len(means))]
    assert all(_losses.distortion(x, other, means) > best for other in others)


# The networks ask for the terms of the paper
# -------------------------------------------


def deep_network(rng, k, p, d=5, **weights):
    standardizer = Standardizer(
        torch.from_numpy(rng.standard_normal(d)), torch.tensor(2.0, dtype=torch.float64)
    )
    encoder, decoder = MLPAutoencoder((7,))(d, p, torch.Generator().manual_seed(rng.randint(99)))
    parts = (rng.standard_normal(shape) for shape in ((k, p), (k,), (k, p)))
    clustering = ClusteringModule(*(torch.from_numpy(part) for part in parts))
    autoencoder = Autoencoder(standardizer, encoder, decoder, p)
    autoencoder.place(torch.from_numpy(rng.standard_normal(p)), torch.tensor(1.5).double())
    alpha = torch.from_numpy(rng.uniform(size=k))
    return DeepNetwork(
        autoencoder,
        clustering,
        alpha,
        gamma=1.0,
        contrast=False,
        beta=weights["beta"],
        lam=weights["lam"],
    )


@pytest.mark.parametrize("p", [2, 6], ids=["narrow", "wide"])
def test_loss_of_the_deep_network(case, seed, p):
    """Every term of L, from the modules' own outputs; p < k keeps E2 and E3 in full."""
    network = deep_network(np.random.RandomState(seed), 4, p, beta=0.3, lam=0.7).eval()
    (x,) = tensors(case, "x")
    rows = ResidentRows(x, case["weight"])
    with torch.no_grad():
        z = network.embed(x)
        twin = {
            "x": z.numpy(),
            "g": network.proba(x).numpy(),
            "means": network.clustering.means.numpy(),
            "weight": case["weight"],
        }
        residual = {
            "x": case["x"],
            "xhat": network.reconstruct(z).numpy(),
            "weight": twin["weight"],
        }
    expected = {
        # Squared errors in the user's units, over the total variance 2^2 * d.
        "reconstruction": 0.3 * twin_squared_error(residual) / (4 * 5),
        "E1": twin_e1(twin),
        "E4": twin_e4(network.alpha.numpy(), twin_gbar(twin)),
    }
    if p >= 4:
        expected["E2"] = twin_e2_orthonormal(twin)
        expected["orthonormality"] = 0.7 * twin_orthonormality(twin["means"])
    else:
        expected["E2"], expected["E3"] = twin_e2(twin), twin_e3(twin)
    terms = network.settle(rows)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name] == pytest.approx(value, rel=1e-10), name
    np.testing.assert_allclose(network.clustering.gbar, twin_gbar(twin), **EXACT)


def test_loss_of_the_shallow_network(case, seed):
    rng = np.random.RandomState(seed)
    module = ClusteringModule(
        *(torch.from_numpy(rng.standard_normal(shape)) for shape in ((4, 5), (4,), (4, 5)))
    )
    standardizer = Standardizer(
        torch.from_numpy(rng.standard_normal(5)), torch.tensor(2.0, dtype=torch.float64)
    )
    alpha = torch.from_numpy(rng.uniform(size=4))
    network = ShallowNetwork(standardizer, module, alpha, gamma=1.0, unit=5)
    (x,) = tensors(case, "x")
    terms = network.settle(ResidentRows(x, case["weight"]))
    twin = {
        "x": (case["x"] - standardizer.offset.numpy()) / 2.0,
        "g": network.proba(x).detach().numpy(),
        "means": module.means.detach().numpy(),
        "weight": case["weight"],
    }
    assert terms == pytest.approx(
        {
            "E1": twin_e1(twin) / 5,
            "E2": twin_e2(twin) / 5,
            "E3": twin_e3(twin) / 5,
            "E4": twin_e4(alpha.numpy(), twin_gbar(twin)),
        },
        rel=1e-10,
    )
