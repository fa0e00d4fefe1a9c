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
    graph = neighbour_graph(z, 12)
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


# Two ways, and which of them is taken
# ------------------------------------


def points_of(z, graph, weight=None):
    sampled = np.arange(len(z)) if weight is None else np.flatnonzero(weight)
    return _cuts.Points(z, weight, _cuts.edges_of(z, sampled, weight, graph), sampled)


def spectral(z, k, graph, seed, weight=None):
    return _cuts.spectral_clusters(points_of(z, graph, weight), k, np.random.RandomState(seed))


def chain(seed, sizes=(400, 250, 150)):
    """Clusters on a line, neighbours linked, and a few edges from each to the next."""
    rng = np.random.RandomState(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    z = np.column_stack([10.0 * y, np.zeros(len(y))]) + rng.standard_normal((len(y), 2))
    graph = neighbour_graph(z, 8).tolil()
    for cluster in range(len(sizes) - 1):
        a, b = (rng.choice(np.flatnonzero(y == c), 4) for c in (cluster, cluster + 1))
        graph[a, b] = graph[b, a] = 1.0
    return z, y, sp.csr_array(graph)


def test_spectral_clusters_are_those_of_all_eigenvectors(seed):
    z, y, graph = chain(seed)
    degree = graph.toarray().sum(axis=1)
    _, vectors = np.linalg.eigh(graph.toarray() / np.sqrt(np.outer(degree, degree)))
    directions = vectors[:, -3:] / np.linalg.norm(vectors[:, -3:], axis=1, keepdims=True)
    expected = KMeans(3, n_init=20, random_state=0).fit_predict(directions)
    found = spectral(z, 3, graph, seed)
    assert adjusted_rand_score(expected, found) == 1.0
    assert adjusted_rand_score(y, found) == 1.0


def test_spectral_clusters_of_many_parts_that_nothing_connects(seed):
    """All leading eigenvalues are one, and any basis of their vectors keeps each part whole."""
    part = np.repeat(np.arange(12), 30)
    z = 100.0 * np.eye(12)[part] + np.random.RandomState(seed).standard_normal((360, 12))
    assert adjusted_rand_score(part, spectral(z, 12, None, seed)) == 1.0
    fewer = spectral(z, 4, None, seed)
    assert all(len(set(fewer[part == number])) == 1 for number in range(12))


def test_spectral_clusters_of_rows_without_edges_are_those_of_the_nearest_with_some(seed):
    z, y, graph = chain(seed)
    weight = np.ones(len(z))
    weight[::7] = 0.0
    kept = sp.csr_array(graph @ sp.diags(weight))
    found = spectral(z, 3, kept, seed, weight)
    linked = np.flatnonzero(weight)
    for row in np.flatnonzero(weight == 0):
        nearest = linked[np.square(z[linked] - z[row]).sum(axis=1).argmin()]
        assert found[row] == found[nearest]
    assert adjusted_rand_score(y, found) == 1.0


def test_a_spectral_cluster_that_is_tiny_is_none(seed):
    part = np.repeat([0, 1, 2], (400, 400, 12))
    z = 100.0 * np.eye(3)[part] + np.random.RandomState(seed).standard_normal((812, 3))
    assert spectral(z, 3, None, seed) is None
    assert adjusted_rand_score(part[:800], spectral(z[:800], 2, None, seed)) == 1.0


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("steady", ["merged_clusters", "spectral_clusters"])
def test_of_two_cuts_the_one_is_taken_that_halves_repeat(seed, monkeypatch, steady, given):
    z, y, graph = chain(seed)
    for name in ("merged_clusters", "spectral_clusters"):

        def cut(points, k, rng, is_steady=name == steady):
            at = np.round(points.z[:, 0] / 10).astype(int) % k
            return at if is_steady else rng.randint(k, size=len(at))

        monkeypatch.setattr(_cuts, name, cut)
    found = connected_clusters(z, 3, seed=seed, sample_weight=None, graph=graph if given else None)
    np.testing.assert_array_equal(found, y)


def test_halves_have_half_of_the_rows_with_their_edges_and_with_new_ones(seed, monkeypatch):
    z, _, graph = chain(seed)
    weight = np.where(np.arange(len(z)) % 5, 1.5, 0.0)
    kept = sp.csr_array(graph @ sp.diags((weight > 0).astype(float)))
    seen = []

    def cut(points, k, rng):
        seen.append(points)
        return rng.randint(k, size=len(points.z))

    monkeypatch.setattr(_cuts, "merged_clusters", cut)
    monkeypatch.setattr(_cuts, "spectral_clusters", cut)
    connected_clusters(z, 3, seed=seed, sample_weight=weight, graph=kept)
    whole, _, *parts = seen
    np.testing.assert_array_equal(whole.z, z)
    assert len(parts) == 8
    place = {tuple(row): number for number, row in enumerate(z)}
    for of_merged, of_spectral in zip(parts[:4], parts[4:], strict=True):
        np.testing.assert_array_equal(of_merged.z, of_spectral.z)
    for one, other in (parts[:2], parts[2:4]):
        rows = [[place[tuple(row)] for row in half.z] for half in (one, other)]
        assert sorted(rows[0] + rows[1]) == np.flatnonzero(weight).tolist()
        np.testing.assert_array_equal(one.weight, 1.5)
    rows = [place[tuple(row)] for row in parts[0].z]
    inner = kept[rows][:, rows].toarray()
    lonely = inner.sum(axis=1) == 0
    np.testing.assert_array_equal(parts[0].edges.toarray()[~lonely], inner[~lonely])
    anew = neighbour_graph(parts[2].z, _cuts.SAMPLED_NEIGHBOURS).toarray()
    np.testing.assert_array_equal(parts[2].edges.toarray(), anew)


def test_few_rows_are_not_halved(seed, monkeypatch):
    def unasked(*_):
        raise AssertionError

    z, _, graph = chain(seed, sizes=(200, 200, 199))
    expected = connected_clusters(z, 3, seed=seed, sample_weight=None, graph=graph)
    monkeypatch.setattr(_cuts, "spectral_clusters", unasked)
    found = connected_clusters(z, 3, seed=seed, sample_weight=None, graph=graph)
    np.testing.assert_array_equal(found, expected)
    z, _, graph = chain(seed, sizes=(200, 200, 200))
    with pytest.raises(AssertionError):
        connected_clusters(z, 3, seed=seed, sample_weight=None, graph=graph)
