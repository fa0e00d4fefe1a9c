"""Where training starts: the encoders against the mixtures they imply, and the placement."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
from helpers import blobs, overlapping
from scipy.special import softmax
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, pairwise_distances_argmin
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from skaecm import _initialization as starts
from skaecm._mixtures import log_density, sample


@pytest.fixture
def mixture(seed):
    """Points, means, weights and a covariance of no special shape."""
    rng = np.random.RandomState(seed)
    root = rng.standard_normal((4, 4))
    weights = rng.uniform(0.2, 1, size=3)
    return (
        rng.standard_normal((50, 4)),
        rng.standard_normal((3, 4)),
        weights / weights.sum(),
        root @ root.T + 0.5 * np.eye(4),
    )


def posterior(x, means, weights, covariance):
    """Bayes' rule with scipy's densities."""
    joint = np.stack(
        [
            weight * scipy.stats.multivariate_normal(mean, covariance).pdf(x)
            for weight, mean in zip(weights, means, strict=True)
        ],
        axis=1,
    )
    return joint / joint.sum(axis=1, keepdims=True)


def module(start, x):
    return softmax(x @ start.weight.T + start.bias, axis=1)


def test_posterior_encoder_is_the_e_step(mixture):
    x, means, weights, _ = mixture
    isotropic = 0.7 * np.eye(4)
    start = starts.posterior_encoder(means, 0.7, weights)
    np.testing.assert_allclose(
        module(start, x), posterior(x, means, weights, isotropic), atol=1e-12
    )
    start = starts.posterior_encoder(means, 0.7)
    equal = np.full(3, 1 / 3)
    np.testing.assert_allclose(module(start, x), posterior(x, means, equal, isotropic), atol=1e-12)
    np.testing.assert_array_equal(start.means, means)


def test_tied_encoder_is_the_e_step(mixture):
    x, means, weights, covariance = mixture
    start = starts.tied_encoder(means, np.linalg.inv(covariance), weights)
    np.testing.assert_allclose(
        module(start, x), posterior(x, means, weights, covariance), atol=1e-12
    )


def test_an_empty_component_gets_no_rows(mixture):
    x, means, _, covariance = mixture
    start = starts.tied_encoder(means, np.linalg.inv(covariance), np.array([0.5, 0.5, 0.0]))
    assert np.isfinite(start.bias).all()
    assert module(start, x)[:, 2].max() < 1e-100


def test_pinv_encoder(mixture):
    _, means, _, _ = mixture
    start = starts.pinv_encoder(means)
    np.testing.assert_allclose(start.weight @ means.T, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(start.bias, np.zeros(3))
    np.testing.assert_array_equal(start.means, means)


def test_glorot_start(seed):
    start = starts.glorot_start(30, 70, np.random.RandomState(seed))
    limit = np.sqrt(6 / 100)
    for drawn in (start.weight, start.means):
        assert drawn.shape == (30, 70)
        assert np.abs(drawn).max() < limit
        assert np.abs(drawn).max() > 0.99 * limit
    np.testing.assert_array_equal(start.bias, np.zeros(30))
    assert not np.array_equal(start.weight, start.means)


@pytest.mark.parametrize("kind", ["spherical", "tied", "diag", "full"])
def test_shared_precision(seed, kind):
    X = overlapping(seed)
    mixture = GaussianMixture(3, covariance_type=kind, random_state=seed).fit(X)
    precision = starts.shared_precision(mixture)
    expected = {
        "spherical": lambda: sum(w * c * np.eye(4) for w, c in by_component(mixture)),
        "tied": lambda: mixture.covariances_,
        "diag": lambda: sum(w * np.diag(c) for w, c in by_component(mixture)),
        "full": lambda: sum(w * c for w, c in by_component(mixture)),
    }[kind]()
    np.testing.assert_allclose(precision @ expected, np.eye(4), atol=1e-8)


def by_component(mixture):
    return zip(mixture.weights_, mixture.covariances_, strict=True)


# Placement
# ---------


def placed(centroids, within=1.0):
    shift, spread = starts.placement(centroids, within)
    return (centroids - shift) / spread


@pytest.mark.parametrize(("k", "p"), [(4, 4), (3, 7), (2, 2), (1, 3)])
def test_equidistant_centroids_are_placed_orthonormal(seed, k, p):
    rng = np.random.RandomState(seed)
    rotation = np.linalg.qr(rng.standard_normal((p, p)))[0]
    centroids = 7.0 * np.eye(k, p) @ rotation + rng.standard_normal(p)
    np.testing.assert_allclose(placed(centroids) @ placed(centroids).T, np.eye(k), atol=1e-9)


@pytest.mark.parametrize("p", [2, 4, 9])
def test_placement_scales_all_distances_alike(seed, p):
    centroids = np.random.RandomState(seed).standard_normal((4, p))
    after = placed(centroids)
    ratios = scipy.spatial.distance.pdist(after) / scipy.spatial.distance.pdist(centroids)
    np.testing.assert_allclose(ratios, ratios[0])
    # The mean squared distance between orthonormal vectors is 2.
    squared = scipy.spatial.distance.pdist(after, "sqeuclidean")
    assert squared.mean() == pytest.approx(2.0)
    if p >= 4:
        center = after.mean(axis=0)
        assert np.linalg.norm(center) == pytest.approx(1 / 2)
        np.testing.assert_allclose((after - center) @ center, 0, atol=1e-10)
    else:
        np.testing.assert_allclose(after.mean(axis=0), 0, atol=1e-10)


def test_placement_of_coinciding_centroids(seed):
    centroids = np.tile(np.random.RandomState(seed).standard_normal(5), (3, 1))
    for within, scale in ((4.0, 2.0), (0.0, 1.0)):
        shift, spread = starts.placement(centroids, within)
        assert np.isfinite(shift).all()
        assert spread == pytest.approx(scale, rel=1e-6)


@pytest.mark.parametrize("p", [3, 4, 10])
def test_placement_is_continuous(seed, p):
    """Rounding of the centroids must not turn the embedding: a fit would not repeat.

    Results equal to rounding between thread counts, units and layouts rest on it.
    """
    rng = np.random.RandomState(seed)
    centroids = rng.standard_normal((3, p))
    shift, spread = starts.placement(centroids, 1.0)
    for _ in range(10):
        for nudge in (1e-12 * rng.standard_normal((3, p)), 1e-12 * centroids):
            near_shift, near_spread = starts.placement(centroids + nudge, 1.0)
            np.testing.assert_allclose(near_shift, shift, atol=1e-6)
            assert near_spread == pytest.approx(spread, abs=1e-6)
    # A change of unit is a change of unit.
    scaled, _ = starts.placement(1e8 * centroids, 1e16)
    np.testing.assert_allclose(scaled / 1e8, shift, atol=1e-6)


# Centroids
# ---------


def test_kmeans_is_that_of_sklearn_and_deterministic(seed):
    X = np.random.RandomState(seed).standard_normal((3000, 4))
    weight = np.random.RandomState(seed).uniform(size=3000)
    for sample_weight in (None, weight):
        settings = {"seed": seed, "sample_weight": sample_weight}
        centroids = starts.kmeans_centroids(X, 5, **settings)
        np.testing.assert_array_equal(starts.kmeans_centroids(X, 5, **settings), centroids)
        with threadpool_limits(limits=4, user_api="openmp"):
            np.testing.assert_array_equal(starts.kmeans_centroids(X, 5, **settings), centroids)
        expected = KMeans(5, n_init=20, random_state=seed).fit(X, sample_weight=sample_weight)
        np.testing.assert_allclose(centroids, expected.cluster_centers_, rtol=1e-6)


def consensus_of(monkeypatch, *runs, weight=None):
    """The consensus of made-up runs on 800 numbers: how many of them are in its lower cluster.

    A run is its distortion, and how many of the numbers its first cluster has, the lowest.
    """
    made_up = [
        SimpleNamespace(inertia_=inertia, labels_=np.repeat([0, 1], [size, 800 - size]))
        for inertia, size in runs
    ]
    numbers = np.arange(800.0)[:, None]
    monkeypatch.setattr(starts, "kmeans_runs", lambda *_, **__: made_up)
    found = starts.consensus_centroids(numbers, 2, seed=0, sample_weight=weight)
    size = round(2 * found.min() + 1)
    share = np.ones(800) if weight is None else weight
    for centroid, part in zip(sorted(found), (slice(size), slice(size, None)), strict=True):
        expected = np.average(numbers[part], weights=share[part], axis=0)
        np.testing.assert_allclose(centroid, expected)
    return size


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([(100.0, 398), (100.1, 300), (100.2, 300)], 300),
        ([(100.0, 398), (100.6, 300), (100.7, 300)], 398),
        ([(100.0, 10), (100.4, 30), (100.4, 400)], 400),
        ([(100.0, 10), (100.6, 400)], 10),
        ([(100.0, 10), (100.1, 0)], 10),
    ],
    ids=["most agree", "not nearly as good", "no tiny cluster", "only the best", "all have one"],
)
def test_nearly_equal_runs_have_a_say_but_for_those_with_a_tiny_cluster(
    monkeypatch, runs, expected
):
    assert consensus_of(monkeypatch, *runs) == expected


def test_size_of_a_cluster_is_the_weight_of_its_rows(monkeypatch):
    runs = (100.0, 10), (100.1, 400)
    assert consensus_of(monkeypatch, *runs, weight=np.repeat([40.0, 0.5], [10, 790])) == 10
    assert consensus_of(monkeypatch, *runs) == 400


def test_a_small_cluster_that_lies_apart_is_kept(seed):
    X = np.random.RandomState(seed).standard_normal((1000, 8))
    X[:5] += 30
    settings = {"seed": seed, "sample_weight": None}
    centroids = starts.consensus_centroids(X, 2, **settings)
    labels = pairwise_distances_argmin(X, centroids)
    assert np.bincount(labels).min() == 5
    np.testing.assert_allclose(
        np.sort(centroids, axis=0), np.sort(starts.kmeans_centroids(X, 2, **settings), axis=0)
    )


def test_consensus_depends_less_on_the_seed_than_the_best_run(seed):
    """Of rows in many directions, where k-means ends in many optima that are nearly as good."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((12, 60))[rng.randint(12, size=1500)]
    X += 3.0 * rng.standard_normal(X.shape)

    def agreement(find):
        labels = [
            pairwise_distances_argmin(X, find(X, 12, seed=s, sample_weight=None)) for s in range(4)
        ]
        return np.mean([adjusted_rand_score(a, b) for a, b in itertools.combinations(labels, 2)])

    assert agreement(starts.consensus_centroids) > agreement(starts.kmeans_centroids)


def test_kmeans_plusplus_draws_rows_in_proportion_to_weight(seed):
    X, y = blobs(seed)
    centroids = starts.kmeans_plusplus_centroids(X, 3, seed=seed, sample_weight=None)
    assert all((row == X).all(axis=1).any() for row in centroids)
    weight = (y == 1).astype(float)
    drawn = starts.kmeans_plusplus_centroids(X, 3, seed=seed, sample_weight=weight)
    assert all((X[y == 1] == row).all(axis=1).any() for row in drawn)


def test_within_variance(seed):
    rng = np.random.RandomState(seed)
    X, centers, weight = rng.rand(40, 3), rng.rand(4, 3), rng.rand(40)
    total = sum(
        w * min(np.sum((x - c) ** 2) for c in centers) for x, w in zip(X, weight, strict=True)
    )
    variance = starts.within_variance(X, centers, weight)
    assert variance == pytest.approx(total / weight.sum() / 3)


# The implied mixture
# -------------------


def test_log_density_is_that_of_the_mixture(mixture):
    x, means, weights, _ = mixture
    variances = np.array([0.3, 1.0, 2.5])
    density = sum(
        weight * scipy.stats.multivariate_normal(mean, variance * np.eye(4)).pdf(x)
        for weight, mean, variance in zip(weights, means, variances, strict=True)
    )
    np.testing.assert_allclose(log_density(x, weights, means, variances), np.log(density))


def test_samples_have_the_moments_of_the_mixture(mixture, seed):
    _, means, weights, _ = mixture
    variances = np.array([0.3, 1.0, 2.5])
    points, labels = sample(60_000, weights, means, variances, np.random.RandomState(seed))
    np.testing.assert_allclose(np.bincount(labels) / 60_000, weights, atol=0.02)
    for label in range(3):
        drawn = points[labels == label]
        np.testing.assert_allclose(drawn.mean(axis=0), means[label], atol=0.1)
        np.testing.assert_allclose(np.cov(drawn.T), variances[label] * np.eye(4), atol=0.2)


def test_a_cluster_without_rows_does_not_change_how_much_a_start_is_softened(seed):
    rng = np.random.RandomState(seed)
    means = 10 * np.eye(4)[:3]
    z = means[rng.randint(3, size=300)] + rng.standard_normal((300, 4))
    found, beside = (
        starts.tempered(starts.posterior_encoder(given, 1.0), z, None).weight[:3]
        for given in (means, np.vstack([means, np.full(4, -1e4)]))
    )
    assert np.abs(found).max() < 9
    np.testing.assert_allclose(beside, found, rtol=1e-4)
    start = starts.posterior_encoder(means, 1.0)
    assert starts.tempered(start, z, (z.argmax(axis=1) == 0).astype(float)) is start


@pytest.mark.parametrize("apart", [0.5, 3.0, 1e4])
def test_a_start_makes_centroids_of_rows_that_are_so_far_apart(seed, apart):
    rng = np.random.RandomState(seed)
    means = apart * np.diag([1.0, 1.0, 2.0, 4.0])
    z = means[rng.randint(4, size=500)] + rng.standard_normal((500, 4))
    start = starts.posterior_encoder(means, 1.0)
    weight = (rng.uniform(size=500) < 0.5).astype(float)

    def logits(start, z=z):
        return z @ start.weight.T + start.bias

    def separation(found, z):
        """The least distance of two centroids, if all rows of a cluster were one corner."""
        corners = np.eye(4)[logits(start, z).argmax(axis=1)]
        resp = softmax(logits(found, z), axis=1)
        centers = [np.average(corners, axis=0, weights=column) for column in resp.T]
        pairs = itertools.combinations(centers, 2)
        return min(np.linalg.norm(one - other) for one, other in pairs) / np.sqrt(2)

    for given, counted in ((None, z), (weight, z[weight > 0])):
        found = starts.tempered(start, z, given)
        expected = min(0.6, separation(start, counted))
        assert separation(found, counted) == pytest.approx(expected, rel=1e-4)
        np.testing.assert_array_equal(logits(start).argmax(axis=1), logits(found).argmax(axis=1))
        np.testing.assert_array_equal(found.means, means)


def test_one_cluster_leaves_no_doubt():
    start = starts.posterior_encoder(np.zeros((1, 2)), 1.0)
    assert starts.tempered(start, np.ones((5, 2)), None) is start
