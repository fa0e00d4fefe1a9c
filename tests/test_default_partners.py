"""``n_neighbors="auto"``: neighbours where they tell clusters apart, and nowhere else."""

import numpy as np
import pytest
from helpers import AT_ONCE, assert_same_fit, quick
from scipy.stats import skew
from sklearn.base import clone
from sklearn.utils._param_validation import InvalidParameterError

from skaecm import ClusteringModuleGMM, DeepAEClustering, _blocks, _graph


def sheet(seed, n=300, d=6):
    """Rows on two dimensions, bent into ``d``."""
    rng = np.random.RandomState(seed)
    place = rng.uniform(size=(n, 2))
    return np.tanh(place @ rng.standard_normal((2, d)) + 0.1 * rng.standard_normal(d))


def cloud(seed, n=300, d=60):
    """Normal rows that fill all of their dimensions."""
    return np.random.RandomState(seed).standard_normal((n, d))


def deep(**params):
    """A small DeepAEClustering with the default partners."""
    return quick(DeepAEClustering, **({"n_neighbors": "auto"} | params))


def test_it_is_the_default():
    assert DeepAEClustering().n_neighbors == "auto"
    assert ClusteringModuleGMM().n_neighbors is None


def test_rows_on_a_sheet_have_ten_neighbours(seed):
    X = sheet(seed)
    fitted = deep().fit(X)
    assert "pairs" in fitted.history_[-1]
    assert_same_fit(fitted, deep(n_neighbors=10).fit(X))


def test_rows_among_hubs_have_none(seed):
    X = cloud(seed)
    fitted = deep().fit(X)
    assert "pairs" not in fitted.history_[-1]
    assert_same_fit(fitted, deep(n_neighbors=None).fit(X))


def test_rows_narrower_than_the_clusters_are_many_have_none(seed):
    X = sheet(seed, n=700)
    assert "pairs" in deep(k=6, n_components=7).fit(X).history_[-1]
    assert "pairs" not in deep(k=7, n_components=7).fit(X).history_[-1]


@pytest.mark.parametrize("make", [sheet, cloud])
def test_hubs_are_told_by_the_skewness_of_in_degrees(seed, make, monkeypatch):
    X = make(seed)
    nearest = _graph._nearest(X, 10).toarray()
    hubness = skew(nearest.sum(axis=0))
    monkeypatch.setattr(_graph, "MOST_HUBNESS", hubness + 1e-9)
    graph = _graph.telling_neighbours(X, 3)
    np.testing.assert_array_equal(graph.toarray(), _graph.neighbour_graph(X, 10).toarray())
    monkeypatch.setattr(_graph, "MOST_HUBNESS", hubness - 1e-9)
    assert _graph.telling_neighbours(X, 3) is None


def test_equal_in_degrees_are_no_hubs():
    angle = 2 * np.pi * np.arange(200) / 200
    circle = np.column_stack([np.cos(angle), np.sin(angle)])
    assert _graph.telling_neighbours(circle, 2) is not None


def test_rows_must_be_many_enough_and_not_too_many(seed, monkeypatch):
    assert _graph.telling_neighbours(sheet(seed, n=299), 3) is None
    assert _graph.telling_neighbours(sheet(seed, n=300), 3) is not None
    monkeypatch.setattr(_graph, "EXACT_ROWS", 299)
    assert _graph.telling_neighbours(sheet(seed, n=300), 3) is None


def test_neighbours_join_a_given_graph(seed):
    X = sheet(seed)
    graph = np.roll(np.eye(len(X)), 1, axis=0)
    near = deep(n_neighbors=10).fit(X, adjacency=graph)
    assert_same_fit(deep().fit(X, adjacency=graph), near)
    X = cloud(seed, n=100)
    graph = graph[:100, :100]
    # Fewer than 100 rows a cluster.
    alone = deep(n_neighbors=None).fit(X, adjacency=graph)
    assert_same_fit(deep().fit(X, adjacency=graph), alone)


def test_rows_in_blocks_have_none(seed, tmp_path, monkeypatch):
    X = sheet(seed)
    np.save(tmp_path / "x.npy", X)
    X = np.load(tmp_path / "x.npy", mmap_mode="r")
    monkeypatch.setattr(_blocks, "WINDOW_BYTES", X.nbytes // 2)
    assert_same_fit(deep().fit(X), deep(n_neighbors=None).fit(X))


def test_a_stream_has_those_of_its_blocks(seed):
    X = sheet(seed)
    given, found = deep(n_neighbors=10), deep()
    for block in X, X[::-1].copy():
        given.partial_fit(block)
        found.partial_fit(block)
    assert_same_fit(found, given)


def test_a_fit_does_not_change_the_parameter(seed):
    fitted = deep().fit(sheet(seed))
    assert fitted.n_neighbors == "auto"
    assert clone(fitted).n_neighbors == "auto"


@pytest.mark.parametrize("value", ["most", 0, -1, 2.5])
def test_other_values_are_refused(value):
    with pytest.raises(InvalidParameterError, match="'n_neighbors' parameter of DeepAEClustering"):
        DeepAEClustering(n_neighbors=value, **AT_ONCE).fit(sheet(0))
