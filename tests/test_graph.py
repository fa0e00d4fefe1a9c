"""Graphs of rows: checked, built, smoothed over and drawn from, against slow twins."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import blobs

from skaecm import _graph
from skaecm._initialization import RIDGE, labelled_mixture
from skaecm._rows import Neighbours

EXACT = {"rtol": 1e-12, "atol": 1e-12}
CPU = torch.device("cpu")


def directed_graph(seed, n=20, share=0.15):
    """A dense graph (n, n): directed, weighted, with loops; the last row is alone."""
    rng = np.random.RandomState(seed)
    graph = rng.uniform(0.5, 2, size=(n, n)) * (rng.uniform(size=(n, n)) < share)
    graph[0, 0], graph[0, 1], graph[-1], graph[:, -1] = 3.0, 1.0, 0.0, 0.0
    return graph


def symmetrised(graph):
    """What a user's graph means: both directions, no loops."""
    return (graph + graph.T) * (1 - np.eye(len(graph)))


# A user's graph
# --------------

FORMATS = {
    "csr_array": sp.csr_array,
    "csr_matrix": sp.csr_matrix,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
    "lil": sp.lil_array,
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "list": np.ndarray.tolist,
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_same_graph(seed, name):
    graph = directed_graph(seed)
    given = FORMATS[name](graph)
    checked = _graph.check_adjacency(given, 20)
    assert isinstance(checked, sp.csr_array)
    assert checked.dtype == np.float64
    np.testing.assert_array_equal(checked.toarray(), symmetrised(graph))
    # What was given is as it was.
    kept = given.toarray() if sp.issparse(given) else np.asarray(given)
    np.testing.assert_array_equal(kept, graph)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.float32])
def test_every_type_of_number_is_a_weight(seed, kind):
    graph = (directed_graph(seed) > 0).astype(kind)
    expected = symmetrised(graph.astype(np.float64))
    for given in (graph, sp.csr_array(graph)):
        np.testing.assert_array_equal(_graph.check_adjacency(given, 20).toarray(), expected)


def test_explicit_zeros_and_loops_are_no_edges():
    rows, columns = np.array([0, 0, 1, 2]), np.array([0, 1, 2, 2])
    graph = sp.csr_array((np.array([1.0, 0.0, 2.0, 5.0]), (rows, columns)), shape=(3, 3))
    checked = _graph.check_adjacency(graph, 3)
    assert checked.nnz == 2
    np.testing.assert_array_equal(checked.toarray(), [[0, 0, 0], [0, 0, 2], [0, 2, 0]])
    assert graph.nnz == 4
    assert _graph.check_adjacency(sp.identity(3), 3).nnz == 0


# Smoothing
# ---------


def twin_smooth(x, graph):
    """Half of a row, half of the weighted mean of its neighbours, twice."""
    for _ in range(2):
        before, x = x, x.copy()
        for i in range(len(x)):
            total, mixed = 0.0, np.zeros(x.shape[1])
            for j in range(len(x)):
                total += graph[i, j]
                mixed += graph[i, j] * before[j]
            if total > 0:
                x[i] = 0.5 * before[i] + 0.5 * mixed / total
    return x


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csr_array])
def test_smooth_equals_its_loop(seed, dtype, container):
    x = blobs(seed, n=20)[0].astype(dtype)
    x[np.random.RandomState(seed).uniform(size=x.shape) < 0.3] = 0
    graph = directed_graph(seed)
    smoothed = _graph.smooth(container(x), _graph.check_adjacency(graph, 20))
    assert type(smoothed) is type(container(x))
    assert smoothed.dtype == dtype
    dense = smoothed.toarray() if sp.issparse(smoothed) else smoothed
    assert sp.issparse(smoothed) or dense.flags.c_contiguous
    tolerance = 1e-12 if dtype == np.float64 else 1e-5
    expected = twin_smooth(x.astype(np.float64), symmetrised(graph))
    np.testing.assert_allclose(dense, expected, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(dense[-1], x[-1])


def test_smoothing_without_edges_changes_no_bit(seed, dtype):
    x = blobs(seed, n=20, dtype=dtype)[0]
    smoothed = _graph.smooth(x, _graph.check_adjacency(sp.csr_array((20, 20)), 20))
    np.testing.assert_array_equal(smoothed, x)


def test_smoothing_keeps_what_is_constant_on_a_component(seed):
    x = np.repeat([[1.0, -3.0], [7.0, 2.0]], 10, axis=0)
    graph = np.kron(np.eye(2), np.ones((10, 10)))
    np.testing.assert_allclose(_graph.smooth(x, _graph.check_adjacency(graph, 20)), x, **EXACT)


# Drawing neighbours
# ------------------


def neighbours_of(graph):
    return Neighbours(_graph.check_adjacency(graph, graph.shape[0]), CPU)


def test_neighbours_are_drawn_by_weight():
    """Eight evenly spread places meet weights 1, 2 and 5 that often."""
    graph = np.zeros((6, 6))
    graph[2, [0, 1, 5]] = [1.0, 2.0, 5.0]
    graph[3, 0] = 7.0
    place = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    drawn = neighbours_of(graph).draw(torch.full((8,), 2), place)
    np.testing.assert_array_equal(np.bincount(drawn, minlength=6), [1, 2, 0, 0, 0, 5])
    # And the other way: row 0 is a neighbour of row 2 (weight 1) and row 3 (weight 7).
    drawn = neighbours_of(graph).draw(torch.zeros(8, dtype=torch.int64), place)
    np.testing.assert_array_equal(np.bincount(drawn, minlength=6), [0, 0, 1, 7, 0, 0])


def test_shares_of_many_draws(seed):
    graph = directed_graph(seed)
    neighbours, n_draws = neighbours_of(graph), 4000
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(20).repeat_interleave(n_draws)
    drawn = neighbours.draw(index, torch.rand(len(index), generator=generator).double())
    counts = np.zeros((20, 20))
    np.add.at(counts, (index.numpy(), drawn.numpy()), 1 / n_draws)
    weights = symmetrised(graph)
    weights[weights.sum(axis=1) == 0] = np.eye(20)[weights.sum(axis=1) == 0]
    expected = weights / weights.sum(axis=1, keepdims=True)
    # Five standard deviations of a share of n_draws.
    np.testing.assert_allclose(counts, expected, atol=5 * 0.5 / np.sqrt(n_draws))
    assert (counts[expected == 0] == 0).all()


@pytest.mark.parametrize("place", [0.0, np.nextafter(1, 0)])
def test_no_place_leaves_the_row(seed, place):
    graph = directed_graph(seed, n=60)
    index = torch.arange(60)
    drawn = neighbours_of(graph).draw(index, torch.full((60,), place, dtype=torch.float64))
    weights = symmetrised(graph)
    alone = weights.sum(axis=1) == 0
    assert alone[-1]
    np.testing.assert_array_equal(drawn.numpy()[alone], index.numpy()[alone])
    assert (weights[index, drawn][~alone] > 0).all()


def test_edges_of_no_weight_are_never_drawn():
    """Stored zeros, even where they are not taken out before."""
    data, indices = np.array([0.0, 1.0, 0.0, 3.0, 0.0]), np.array([0, 1, 2, 3, 4])
    graph = sp.csr_array((data, indices, np.array([0, 5, 5, 5, 5, 5])), shape=(5, 5))
    place = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]
    drawn = Neighbours(graph, CPU).draw(torch.zeros(1000, dtype=torch.int64), place)
    np.testing.assert_array_equal(np.bincount(drawn, minlength=5), [0, 250, 0, 750, 0])


def test_light_rows_are_drawn_from_as_heavy_ones_are():
    """Only weights within a row are compared: one of 1e-17 beside one of 1."""
    graph = np.zeros((5, 5))
    graph[0, 1], graph[2, [3, 4]] = 1.0, 1e-17
    place = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    drawn = neighbours_of(graph).draw(torch.full((8,), 2), place)
    np.testing.assert_array_equal(np.bincount(drawn, minlength=5), [0, 0, 0, 4, 4])


# Nearest neighbours
# ------------------


def twin_neighbours(x, n_neighbors):
    distance = np.linalg.norm(x[:, None] - x[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    graph = np.zeros_like(distance)
    for i, row in enumerate(distance):
        graph[i, np.argsort(row)[:n_neighbors]] = 1.0
    return np.maximum(graph, graph.T)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csr_array])
def test_neighbours_are_the_nearest_rows(seed, dtype, container):
    x = np.random.RandomState(seed).standard_normal((40, 5)).astype(dtype)
    graph = _graph.neighbour_graph(container(x), 4)
    assert graph.dtype == np.float64
    np.testing.assert_array_equal(graph.toarray(), twin_neighbours(x, 4))


@pytest.mark.parametrize("n_neighbors", [None, 4])
def test_edges_count_by_the_likeness_of_their_rows(seed, n_neighbors, monkeypatch):
    x, graph = blobs(seed, n=30)[0], _graph.check_adjacency(directed_graph(seed, n=30), 30)
    nearest = None if n_neighbors is None else _graph.neighbour_graph(x, n_neighbors)
    trusted = _graph.trusted(graph, x, nearest).toarray()
    squared = ((x[:, None] - x) ** 2).sum(axis=2)
    scale = np.median(squared[graph.toarray() > 0]) / 2
    edges = graph.toarray()
    if nearest is not None:
        edges = edges + nearest.toarray()
    expected = edges * np.maximum(np.exp(-squared / scale), _graph.FAINT)
    np.testing.assert_allclose(trusted, expected, rtol=1e-9)
    monkeypatch.setattr(_graph, "EDGES_AT_ONCE", 7)
    np.testing.assert_array_equal(_graph.trusted(graph, x, nearest).toarray(), trusted)
    rescaled = _graph.trusted(graph, 1e6 * x, nearest).toarray()
    np.testing.assert_allclose(rescaled, trusted, rtol=1e-6)


def test_edges_between_equal_rows_count_as_given(seed):
    graph = _graph.check_adjacency(directed_graph(seed), 20)
    np.testing.assert_array_equal(
        _graph.trusted(graph, np.ones((20, 3)), None).toarray(), graph.toarray()
    )


@pytest.mark.parametrize("n_neighbors", [6, 7, 1000])
def test_as_many_neighbours_as_rows(seed, n_neighbors):
    x = blobs(seed, n=7)[0]
    expected = np.ones((7, 7)) - np.eye(7)
    np.testing.assert_array_equal(_graph.neighbour_graph(x, n_neighbors).toarray(), expected)


def test_a_single_row_has_no_neighbours():
    graph = _graph.neighbour_graph(np.ones((1, 3)), 5)
    assert graph.shape == (1, 1)
    assert graph.nnz == 0


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
def test_wide_rows_have_the_neighbours_of_their_principal_directions(seed, container):
    """Ten directions in ninety columns: the projection on 64 loses nothing."""
    rng = np.random.RandomState(seed)
    code = rng.standard_normal((50, 10))
    basis = np.linalg.qr(rng.standard_normal((90, 10)))[0]
    assert basis.shape[0] > _graph.SEARCH_WIDTH
    graph = _graph.neighbour_graph(container(code @ basis.T), 4)
    np.testing.assert_array_equal(graph.toarray(), twin_neighbours(code, 4))


def test_many_rows_need_faiss(monkeypatch):
    monkeypatch.setattr(_graph, "EXACT_ROWS", 50)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r'more than 50 rows.*"skaecm\[neighbors\]".*adjacency'):
        _graph.neighbour_graph(blobs(0, n=51)[0], 3)
    _graph.neighbour_graph(blobs(0, n=50)[0], 3)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
def test_approximate_neighbours_are_mostly_the_nearest(seed, monkeypatch, container):
    pytest.importorskip("faiss")
    x = blobs(seed, n=1500)[0].astype(np.float32)
    exact = _graph.neighbour_graph(x, 5)
    monkeypatch.setattr(_graph, "EXACT_ROWS", 50)
    approximate = _graph.neighbour_graph(container(x), 5)
    assert (approximate.diagonal() == 0).all()
    assert (approximate != approximate.T).nnz == 0
    assert set(approximate.data) == {1.0}
    assert (approximate * exact).sum() > 0.7 * exact.sum()


# Clusters that a graph connects
# ------------------------------


@pytest.fixture
def labelled(seed):
    """A symmetric weighted graph of rows in five clusters, as arrays."""
    rng = np.random.RandomState(seed)
    labels = rng.permutation(np.arange(40) % 5)
    return symmetrised(directed_graph(seed, n=40)), labels


def test_overlap_equals_its_loop(labelled):
    graph, labels = labelled
    expected = np.zeros((5, 5))
    for i in range(40):
        for j in range(40):
            expected[labels[i], labels[j]] += graph[i, j] / graph.sum()
    shares = _graph.overlap(labels, sp.csr_array(graph), 5)
    np.testing.assert_allclose(shares, expected, **EXACT)


def test_modularity_is_that_of_newman_and_girvan(labelled):
    graph, labels = labelled
    degree, total, expected = graph.sum(axis=1), graph.sum(), 0.0
    for i in range(40):
        for j in range(40):
            if labels[i] == labels[j]:
                expected += (graph[i, j] - degree[i] * degree[j] / total) / total
    value = _graph.modularity(_graph.overlap(labels, sp.csr_array(graph), 5))
    assert value == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_modularity_of_extremes():
    two = np.kron(np.eye(2), np.ones((3, 3)))
    apart = _graph.overlap(np.repeat([0, 1], 3), sp.csr_array(two), 2)
    assert _graph.modularity(apart) == pytest.approx(0.5)
    together = _graph.overlap(np.zeros(6, int), sp.csr_array(two), 2)
    assert _graph.modularity(together) == pytest.approx(0.0)


# The mixture of labelled rows
# ----------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_labelled_mixture_class_by_class(seed, dtype, weighted):
    rng = np.random.RandomState(seed)
    x = rng.standard_normal((30, 3)).astype(dtype)
    labels = rng.permutation(np.arange(30) % 4)
    labels[labels == 2] = 0  # label 2 is empty
    weight = rng.uniform(0.1, 2, 30) if weighted else None
    w = np.ones(30) if weight is None else weight
    wide = x.astype(np.float64)
    means, covariance, weights = labelled_mixture(x, labels, 4, weight)
    expected = np.zeros((3, 3))
    for label in (0, 1, 3):
        rows = labels == label
        mean = np.average(wide[rows], axis=0, weights=w[rows])
        np.testing.assert_allclose(means[label], mean, **EXACT)
        np.testing.assert_allclose(weights[label], w[rows].sum() / w.sum(), **EXACT)
        residual = wide[rows] - mean
        expected += (w[rows, None, None] * residual[:, :, None] * residual[:, None]).sum(axis=0)
    expected /= w.sum()
    expected += RIDGE * np.trace(expected) / 3 * np.eye(3)
    np.testing.assert_allclose(covariance, expected, **EXACT)
    np.testing.assert_allclose(means[2], np.average(wide, axis=0, weights=w), **EXACT)
    assert weights[2] == 0
    assert {part.dtype for part in (means, covariance, weights)} == {np.dtype(np.float64)}


def test_labelled_mixture_of_equal_rows_has_an_inverse():
    _, covariance, _ = labelled_mixture(np.ones((8, 3)), np.arange(8) % 2, 2, None)
    assert np.isfinite(np.linalg.inv(covariance)).all()


def test_labelled_mixture_takes_rows_of_weight_zero_for_no_rows(seed):
    x, labels = blobs(seed, n=30)
    weight = np.ones(30)
    weight[::5] = 0
    with_zeros = labelled_mixture(x, labels, 3, weight)
    without = labelled_mixture(x[weight > 0], labels[weight > 0], 3, None)
    for one, other in zip(with_zeros, without, strict=True):
        np.testing.assert_allclose(one, other, **EXACT)
