"""Graphs of rows cut into clusters: by merging, by eigenvectors, and which of the two is taken."""

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.cluster import KMeans
from sklearn.datasets import make_circles, make_moons
from sklearn.metrics import adjusted_rand_score

from skaecm import _cuts
from skaecm._cuts import connected_clusters, merge, refine
from skaecm._graph import modularity, neighbour_graph, overlap
from skaecm.metrics import clustering_accuracy


def twin_merge(shares, k):
    """Groups of clusters, every lift summed anew from the first shares."""
    groups = [[c] for c in range(len(shares))]
    while len(groups) > k:
        best = None
        for a in range(len(groups)):
            for b in range(a + 1, len(groups)):
                between = sum(shares[i, j] for i in groups[a] for j in groups[b])
                size_a = sum(shares[i].sum() for i in groups[a])
                size_b = sum(shares[i].sum() for i in groups[b])
                lift = between / (size_a * size_b)
                if best is None or lift > best[0]:
                    best = lift, a, b
        _, a, b = best
        groups[a] += groups.pop(b)
    number = np.empty(len(shares), int)
    for index, group in enumerate(groups):
        number[group] = index
    return number


@pytest.mark.parametrize("k", [1, 2, 4, 8, 9])
def test_merge_equals_its_loop(seed, k):
    rng = np.random.RandomState(seed)
    shares = rng.uniform(size=(9, 9)) ** 4
    shares = shares + shares.T
    shares /= shares.sum()
    before = shares.copy()
    number = merge(shares, k)
    np.testing.assert_array_equal(number, twin_merge(shares, k))
    np.testing.assert_array_equal(np.unique(number), np.arange(k))
    np.testing.assert_array_equal(shares, before)


def test_merge_with_a_cluster_of_no_edges():
    """It is far from everything, and last to be merged; its size divides nothing."""
    shares = np.array([[0.3, 0.1, 0], [0.1, 0.5, 0], [0, 0, 0]])
    np.testing.assert_array_equal(merge(shares, 2), [0, 0, 1])
    np.testing.assert_array_equal(merge(shares, 1), [0, 0, 0])


@pytest.mark.parametrize("k", [1, 2, 4, 12])
def test_refined_clusters_gain_by_no_single_move(seed, k):
    rng = np.random.RandomState(seed)
    shares = rng.uniform(size=(12, 12)) ** 4
    shares = shares + shares.T
    shares /= shares.sum()

    def quality(number):
        return modularity(overlap(number, sp.csr_array(shares), k))

    start = rng.permutation(np.arange(12) % k)
    before = start.copy()
    number = refine(shares, start, k)
    np.testing.assert_array_equal(start, before)
    np.testing.assert_array_equal(np.unique(number), np.arange(k))
    assert quality(number) >= quality(start)
    for cluster in range(12):
        for other in range(k):
            moved = number.copy()
            moved[cluster] = other
            if len(set(moved)) == k:
                assert quality(moved) <= quality(number) + 1e-10


def moons(seed, n=400):
    return make_moons(n, noise=0.05, random_state=seed)


def ring(seed, n=400):
    return make_circles(n, noise=0.04, factor=0.25, random_state=seed)


@pytest.mark.parametrize("shape", [moons, ring])
@pytest.mark.parametrize("offset", [0, 1, 2])
def test_shapes_that_k_means_cannot_find(seed, shape, offset):
    z, y = shape(seed + offset)
    labels = connected_clusters(z, 2, seed=seed + offset, sample_weight=None)
    assert adjusted_rand_score(labels, y) > 0.95
    of_kmeans = KMeans(2, n_init=3, random_state=seed).fit_predict(z)
    assert adjusted_rand_score(of_kmeans, y) < 0.7


def test_rows_that_were_not_sampled_get_labels_too(seed, monkeypatch):
    z, y = moons(seed, n=900)
    monkeypatch.setattr(_cuts, "SAMPLED_ROWS", 450)
    labels = connected_clusters(z, 2, seed=seed, sample_weight=np.ones(900))
    assert labels.shape == (900,)
    assert adjusted_rand_score(labels, y) > 0.95


def test_connected_clusters_of_one_seed(seed, dtype):
    z = moons(seed, n=200)[0].astype(dtype)
    first = connected_clusters(z, 2, seed=seed, sample_weight=None)
    again = connected_clusters(z, 2, seed=seed, sample_weight=None)
    weighted = connected_clusters(z, 2, seed=seed, sample_weight=np.ones(200))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, weighted)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (2, 2), (7, 7), (9, 1), (30, 3)])
def test_few_rows_have_clusters_too(seed, n, k):
    z = np.random.RandomState(seed).standard_normal((n, 3))
    labels = connected_clusters(z, k, seed=seed, sample_weight=None)
    assert set(labels) <= set(range(k))
    assert len(set(labels)) == k


def test_where_no_edge_decides_the_nearest_islands_are_merged(seed):
    """Six tight islands in three pairs, and no neighbour of a row on another island."""
    rng = np.random.RandomState(seed)
    island = np.repeat(np.arange(6), 40)
    places = np.array([0.0, 1.0, 100.0, 101.0, 200.0, 201.0])[island]
    z = np.column_stack([places, np.zeros(240)]) + 0.01 * rng.standard_normal((240, 2))
    labels = connected_clusters(z, 3, seed=seed, sample_weight=None)
    assert adjusted_rand_score(labels, island // 2) == 1


def test_more_clusters_than_the_sample_holds_rows(monkeypatch):
    monkeypatch.setattr(_cuts, "SAMPLED_ROWS", 20)
    z = np.random.RandomState(0).standard_normal((300, 2))
    weight = np.zeros(300)
    weight[:40] = 1.0
    assert connected_clusters(z, 30, seed=0, sample_weight=weight).shape == (300,)


def test_partners_say_which_clusters_are_one(seed):
    # Four blobs far apart, of which partners connect the first two and the last two.
    rng = np.random.RandomState(seed)
    blob = np.repeat(np.arange(4), 50)
    z = 20.0 * np.eye(4)[blob] + rng.normal(size=(200, 4))
    group = np.array([0, 1, 0, 1])[blob]
    source = np.repeat(np.arange(200), 5)
    target = np.array([rng.choice(np.flatnonzero(group == group[i])) for i in source])
    graph = sp.csr_array((np.ones(1000), (source, target)), shape=(200, 200))
    labels = connected_clusters(z, 2, seed=seed, sample_weight=None, graph=graph)
    assert clustering_accuracy(group, labels) == 1.0


def test_the_start_takes_the_neighbours_in_the_embedding_where_there_is_no_graph(seed):
    rng = np.random.RandomState(seed)
    z = rng.normal(size=(300, 3)) + 6.0 * np.eye(3)[np.arange(300) % 3]
    graph = neighbour_graph(z, _cuts.SAMPLED_NEIGHBOURS)
    with_graph, without = (
        connected_clusters(z, 3, seed=seed, sample_weight=None, graph=given)
        for given in (graph, None)
    )
    assert clustering_accuracy(with_graph, without) == 1.0


def test_rows_without_weight_link_nothing(seed):
    rng = np.random.RandomState(seed)
    z = rng.normal(size=(300, 3)) + 3.0 * np.eye(3)[np.arange(300) % 3]
    graph = neighbour_graph(z, 5)
    weight = (rng.uniform(size=300) < 0.7).astype(float)
    kept = sp.csr_array(graph @ sp.diags(weight))
    cut = sp.csr_array(sp.diags(weight) @ kept)
    one, other = (
        connected_clusters(z, 3, seed=seed, sample_weight=weight, graph=given)
        for given in (kept, cut)
    )
    alone = (np.diff(cut.indptr) == 0) & (weight > 0)
    assert not alone.any()
    np.testing.assert_array_equal(one, other)
