"""The k-means that a start rests on: what repair finds, the sample, and its bits."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import assert_same_fit
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import euclidean_distances

from skaecm import ClusteringModuleGMM, _kmeans
from skaecm._kmeans import consensus, halve, repaired_centroids, sample_rows, split_and_merge


def separated(seed, dtype=np.float64, rows_per_cluster=60):
    """Round clusters, the nearest centres eight deviations apart; k and d from the seed."""
    rng = np.random.default_rng(seed)
    k, d = int(rng.integers(2, 11)), int(rng.integers(2, 51))
    centers = rng.normal(size=(k, d))
    nearest = (euclidean_distances(centers) + np.diag(np.full(k, np.inf))).min()
    labels = rng.permutation(np.arange(rows_per_cluster * k) % k)
    X = 8.0 / nearest * centers[labels] + rng.normal(size=(len(labels), d))
    return X.astype(dtype), labels, k


def distortion(X, centers):
    return euclidean_distances(X, centers, squared=True).min(axis=1).sum()


def start(k, seed, **params):
    return ClusteringModuleGMM(k, max_iter=0, random_state=seed, **params)


def test_the_default_start_finds_separated_clusters(seed, dtype):
    missed = 0
    for shift in range(20):
        X, labels, k = separated(100 * seed + shift, dtype)
        found = start(k, shift).fit(X).labels_
        assert adjusted_rand_score(labels, found) > 0.99
        once = KMeans(k, n_init=1, random_state=shift).fit(X).labels_
        missed += adjusted_rand_score(labels, once) < 0.99
    assert missed  # by a single run, or the test would show nothing


def test_the_default_fit_finds_separated_clusters(seed):
    for shift in range(5):
        X, labels, k = separated(100 * seed + shift)
        model = ClusteringModuleGMM(k, random_state=shift).fit(X)
        assert adjusted_rand_score(labels, model.labels_) > 0.99


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix, sp.csr_array])
def test_a_doubled_centre_is_put_right(seed, make):
    """Two centres in one cluster, one between two others: one round moves the spare one."""
    rng = np.random.default_rng(seed)
    means = 12.0 * np.eye(4, 6)
    labels = np.arange(200) % 4
    X = means[labels] + rng.normal(size=(200, 6))
    weight = rng.uniform(0.5, 2.0, size=200)
    # Clusters 0 and 1 share a centre; those of 3 are the rows with a high and a low column 5.
    wrong = np.where(labels < 2, 0, labels)
    wrong[(labels == 3) & (X[:, 5] > 0)] = 1
    centers = np.stack(
        [np.average(X[wrong == j], axis=0, weights=weight[wrong == j]) for j in range(4)]
    )
    moved = split_and_merge(make(X), centers, wrong, weight)
    nearest = euclidean_distances(X, moved).argmin(axis=1)
    assert adjusted_rand_score(labels, nearest) == 1
    expected = [np.average(X[labels == j], axis=0, weights=weight[labels == j]) for j in range(4)]
    order = euclidean_distances(expected, moved).argmin(axis=1)
    np.testing.assert_allclose(moved[order], expected, rtol=1e-10)
    # Nothing is left to do.
    assert split_and_merge(make(X), moved, nearest, weight) is None


def test_halves_against_a_loop(seed):
    """The gain of a cut, by Ward's formula from sizes and means, against the distortions."""
    X, labels, k = separated(seed)
    weight = np.random.default_rng(seed).uniform(size=len(X))
    centers = np.stack(
        [np.average(X[labels == j], axis=0, weights=weight[labels == j]) for j in range(k)]
    )
    sizes, means = halve(X, centers, labels, weight)
    for j in range(k):
        rows, w = X[labels == j], weight[labels == j]
        assert sizes[j].sum() == pytest.approx(w.sum())
        np.testing.assert_allclose(sizes[j] @ means[j] / w.sum(), centers[j], atol=1e-10)
        whole = w @ np.square(rows - centers[j]).sum(axis=1)
        halves = w @ euclidean_distances(rows, means[j], squared=True).min(axis=1)
        gain = _kmeans.ward(*sizes[j], np.square(means[j, 0] - means[j, 1]).sum())
        assert 0 < gain <= whole - halves + 1e-9 * whole


def test_repair_never_raises_the_distortion(seed, dtype):
    for shift in range(5):
        rng = np.random.default_rng(10 * seed + shift)
        X = rng.standard_normal((400, 3)).astype(dtype)
        once = KMeans(9, n_init=1, random_state=shift).fit(X).cluster_centers_
        repaired = repaired_centroids(X, 9, seed=shift, sample_weight=None)
        assert repaired.dtype == dtype
        assert distortion(X, repaired) <= distortion(X, once) * (1 + 1e-5)


def test_equal_rows_and_single_rows(seed):
    X = np.repeat(np.random.default_rng(seed).normal(size=(3, 4)), [1, 1, 20], axis=0)
    centers = repaired_centroids(X, 3, seed=seed, sample_weight=None)
    assert distortion(X, centers) == pytest.approx(0.0, abs=1e-12)


def test_a_shift_of_the_rows_shifts_the_start(seed):
    X, _, k = separated(seed)
    near = repaired_centroids(X, k, seed=seed, sample_weight=None)
    far = repaired_centroids(X + 1e6, k, seed=seed, sample_weight=None)
    np.testing.assert_allclose(far - 1e6, near, atol=1e-6)


def test_whole_weights_are_repeated_rows(seed):
    X, labels, k = separated(seed)
    weight = np.random.default_rng(seed).integers(1, 4, size=len(X))
    weighted = start(k, seed).fit(X, sample_weight=weight)
    repeated = start(k, seed).fit(np.repeat(X, weight, axis=0))
    order = euclidean_distances(weighted.cluster_centers_, repeated.cluster_centers_).argmin(axis=1)
    np.testing.assert_allclose(
        weighted.cluster_centers_, repeated.cluster_centers_[order], rtol=1e-8
    )
    assert adjusted_rand_score(labels, weighted.labels_) > 0.99


@pytest.mark.parametrize("init", ["k-means", "k-means++", "pinv"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.filterwarnings("ignore:Only:sklearn.exceptions.ConvergenceWarning")
def test_a_start_from_a_sample(seed, init, weighted, monkeypatch):
    """Drawn rows are enough; the same seed draws the same, sparse and mapped rows too."""
    monkeypatch.setattr(_kmeans, "SAMPLE_ROWS", 100)
    monkeypatch.setattr(_kmeans, "SAMPLE_ROWS_PER_CLUSTER", 20)
    X, labels, k = separated(seed, rows_per_cluster=300)
    weight = np.random.default_rng(seed).uniform(size=len(X)) if weighted else None
    first = start(k, seed, init=init).fit(X, sample_weight=weight)
    assert_same_fit(first, start(k, seed, init=init).fit(X, sample_weight=weight))
    mapped = X.copy()
    mapped.flags.writeable = False
    assert_same_fit(first, start(k, seed, init=init).fit(mapped, sample_weight=weight))
    sparse = start(k, seed, init=init).fit(sp.csr_matrix(X), sample_weight=weight)
    np.testing.assert_allclose(sparse.cluster_centers_, first.cluster_centers_, rtol=1e-6)
    if init == "k-means":
        assert adjusted_rand_score(labels, first.labels_) > 0.99


@pytest.mark.parametrize("make", [np.asarray, sp.csr_matrix])
def test_the_sample(seed, make, monkeypatch):
    X = np.arange(30_000.0)[:, None]
    rows, weight = sample_rows(make(X), 3, seed=seed, sample_weight=None)
    rows = rows.toarray() if sp.issparse(rows) else rows
    assert rows.shape == (_kmeans.SAMPLE_ROWS, 1)
    assert weight is None
    assert (np.diff(rows[:, 0]) > 0).all()
    assert rows.mean() == pytest.approx(15_000, rel=0.05)
    # More clusters ask for more rows; few rows are all taken, with their weights.
    assert sample_rows(X, 100, seed=seed, sample_weight=None)[0].shape == (25_600, 1)
    few, weight = sample_rows(X[:50], 3, seed=seed, sample_weight=np.ones(50))
    np.testing.assert_array_equal(few, X[:50])
    np.testing.assert_array_equal(weight, np.ones(50))
    # Rows are drawn with the chances of their weights.
    weights = np.where(X[:, 0] < 10_000, 0.0, np.where(X[:, 0] < 20_000, 3.0, 1.0))
    rows, weight = sample_rows(X, 3, seed=seed, sample_weight=weights)
    assert weight is None
    assert rows.min() >= 10_000
    assert (rows < 20_000).mean() == pytest.approx(0.75, abs=0.03)


def test_consensus_is_what_most_opinions_say_of_a_row(seed):
    """Nine opinions, each wrong on rows of its own, and one of a cluster fewer."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(400) % 4)
    wrong = np.arange(400) % 9 == np.arange(9)[:, None]
    opinions = [
        rng.permutation(4)[np.where(row, rng.integers(4, size=400), labels)] for row in wrong
    ]
    opinions.append(np.minimum(labels, 2))
    assert max(adjusted_rand_score(labels, opinion) for opinion in opinions) < 1
    settings = {"seed": seed, "sample_weight": None}
    found = consensus(opinions, 4, **settings)
    assert adjusted_rand_score(labels, found) == 1
    np.testing.assert_array_equal(found, consensus(opinions, 4, **settings))
    np.testing.assert_array_equal(np.unique(consensus([labels % 2] * 3, 4, **settings)), [0, 1])


def test_rows_without_weight_have_no_say_in_a_consensus(seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(300) % 3)
    weight = (np.arange(300) >= 100).astype(float)
    opinions = [np.where(np.arange(300) % 7 == i, 0, labels) for i in range(7)]
    # What rows of no weight are said to be is noise.
    twisted = [np.where(weight > 0, opinion, rng.integers(3, size=300)) for opinion in opinions]
    found = consensus(twisted, 3, seed=seed, sample_weight=weight)
    assert adjusted_rand_score(labels[100:], found[100:]) == 1


def test_no_subnormal_responsibilities(seed):
    """A responsibility is normal even where it is next to nothing."""
    X, _, k = separated(seed, np.float32)
    proba = start(k, seed).fit(100 * X).predict_proba(100 * X)
    assert proba.min() > np.finfo(np.float32).tiny
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-5)
