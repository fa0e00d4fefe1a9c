"""``n_neighbors="auto"``: neighbours where they tell clusters apart, and nowhere else."""

import numpy as np
import pytest
from helpers import AT_ONCE, assert_same_fit, quick, sheet
from scipy.stats import skew
from sklearn.base import clone
from sklearn.utils._param_validation import InvalidParameterError

from skaecm import ClusteringModuleGMM, DeepAEClustering, _blocks, _graph
from skaecm._cuts import connected_clusters
from skaecm._partners import Partners


def cloud(seed, n=300, d=60):
    """Normal rows that fill all of their dimensions."""
    return np.random.RandomState(seed).standard_normal((n, d))


def deep(**params):
    """A small DeepAEClustering with the default partners."""
    return quick(DeepAEClustering, **({"n_neighbors": "auto"} | params))


def test_it_is_the_default():
    assert DeepAEClustering().n_neighbors == "auto"
    assert ClusteringModuleGMM().n_neighbors is None


@pytest.mark.parametrize("pretrain_iter", [0, 1])
def test_rows_on_a_sheet_have_ten_neighbours(seed, pretrain_iter):
    """Those in X, where there is no time to learn others."""
    X = sheet(seed)
    fitted = deep(pretrain_iter=pretrain_iter).fit(X)
    assert "pairs" in fitted.history_[-1]
    assert_same_fit(fitted, deep(n_neighbors=10, pretrain_iter=pretrain_iter).fit(X))


@pytest.mark.parametrize("weighted", [False, True])
def test_they_are_sought_anew_in_the_code(seed, weighted, monkeypatch):
    X = sheet(seed)
    weight = np.random.RandomState(seed).randint(3, size=len(X)) if weighted else None
    # Its code is shifted and scaled, which changes no neighbours.
    first = deep(n_neighbors=None, pretrain_iter=3, max_iter=0, n_iter_no_change=9)
    code = first.fit(X, sample_weight=weight).transform(X)
    graphs = []
    with_graph = Partners.with_graph

    def kept(*args):
        partners = with_graph(*args)
        graphs.append(partners.graph)
        return partners

    monkeypatch.setattr(Partners, "with_graph", kept)
    fitted = deep(pretrain_iter=8, n_iter_no_change=9, max_iter=20).fit(X, sample_weight=weight)
    expected = _graph.neighbour_graph(code, 10).toarray()
    if weighted:
        expected[:, weight == 0] = 0
    np.testing.assert_array_equal(graphs[-1].toarray(), expected)
    assert fitted.history_[:3] == first.history_
    phases = [row["phase"] for row in fitted.history_ if "contrast" in row]
    assert phases[:3] == 2 * ["neighbours"] + ["training"]


@pytest.fixture
def cut_graphs(monkeypatch):
    """The graphs that starts of 300 rows are cut from, as they come, as if these were many."""
    monkeypatch.setattr("skaecm._cuts.ROWS_PER_CLUSTER", 20)
    graphs = []

    def kept(*args, graph, **kwargs):
        graphs.append(graph)
        return connected_clusters(*args, graph=graph, **kwargs)

    monkeypatch.setattr("skaecm._deep_start.connected_clusters", kept)
    return graphs


@pytest.mark.parametrize("weighted", [False, True])
def test_the_start_is_cut_along_the_first_and_those_at_the_end(seed, weighted, cut_graphs):
    X = sheet(seed)
    weight = np.random.RandomState(seed).randint(3, size=len(X)) if weighted else None
    first = deep(n_neighbors=None, pretrain_iter=3, max_iter=0, n_iter_no_change=9)
    start = deep(pretrain_iter=8, max_iter=0, n_iter_no_change=9)
    codes = [model.fit(X, sample_weight=weight).transform(X) for model in (first, start)]
    expected = sum(_graph.neighbour_graph(code, 10).toarray() for code in codes)
    if weighted:
        expected[:, weight == 0] = 0
    np.testing.assert_array_equal(cut_graphs[-1].toarray(), expected)


def test_few_rows_have_no_further_ones_for_the_start(seed, cut_graphs, monkeypatch):
    """No half of 300 rows has 51 for each of three clusters."""
    for rows_per_cluster in (50, 51):
        monkeypatch.setattr("skaecm._cuts.ROWS_PER_CLUSTER", rows_per_cluster)
        deep(max_iter=0).fit(sheet(seed))
    both, first = (set(graph.data) for graph in cut_graphs)
    assert both == {1.0, 2.0}
    assert first == {1.0}


@pytest.mark.parametrize("given", [{"n_neighbors": 10}, {"missing": "mask"}, {"augment": "noise"}])
def test_others_are_not_sought_again_for_the_start(seed, given, cut_graphs):
    X = sheet(seed)
    if "missing" in given:
        X[0, 0] = np.nan
    deep(**given, max_iter=0).fit(X)
    if "augment" in given:
        assert cut_graphs == [None]
    else:
        # All of one weight: no edge was found twice.
        assert set(cut_graphs[0].data) == {1.0}


def test_they_are_sought_in_the_code_of_an_autoencoder_that_is_given(seed, monkeypatch):
    X = sheet(seed)
    start = deep(max_iter=0).fit(X)
    graph = _graph.neighbour_graph(start.transform(X), 10)
    expected = deep(init=start.autoencoder_, n_neighbors=10)
    found = deep(init=start.autoencoder_).fit(X)
    monkeypatch.setattr("skaecm._partners.neighbour_graph", lambda *_: graph)
    assert_same_fit(found, expected.fit(X))


@pytest.mark.parametrize(("n_neighbors", "tol"), [(10, 3e-2), (None, 1e-3)])
def test_tol_by_whether_there_are_neighbours(seed, n_neighbors, tol):
    X = sheet(seed)
    fitted, expected = (
        deep(n_neighbors=n_neighbors, max_iter=300, n_iter_no_change=3, tol=value).fit(X)
        for value in ("auto", tol)
    )
    assert_same_fit(fitted, expected)
    assert fitted.n_iter_ > 2


def test_pretraining_with_neighbours_goes_on_for_longer(seed):
    """Until an epoch gains less than a hundredth; joint training, less than three hundredths."""
    params = {"pretrain_iter": 400, "max_iter": 200, "n_iter_no_change": 2, "tol": "auto"}
    losses = {"neighbours": [], "training": []}
    for row in deep(**params).fit(sheet(seed)).history_:
        losses.get(row["phase"], []).append(row["loss"])
    for phase, tol in {"neighbours": 1e-2, "training": 3e-2}.items():
        best = np.minimum.accumulate(losses[phase])
        flat = losses[phase][1:] >= best[:-1] - tol * np.abs(losses[phase][1:])
        # Two flat epochs in a row are the last ones.
        assert list(flat[:-1] & flat[1:]) == (len(flat) - 2) * [False] + [True]


def test_only_pretraining_with_neighbours_ends_when_its_loss_is_flat(seed):
    fitted = deep(pretrain_iter=20, n_iter_no_change=2, tol=1e9).fit(sheet(seed))
    phases = [row["phase"] for row in fitted.history_]
    assert phases[:14] == 8 * ["pretraining"] + 3 * ["neighbours"] + 3 * ["training"]


@pytest.mark.parametrize(("n_neighbors", "share"), [("auto", 64), (10, 32), (None, 32)])
def test_steps_are_half_as_large_where_they_are_sought_in_the_code(seed, n_neighbors, share):
    X = sheet(seed, n=64 * 40)
    fitted, expected = (
        deep(n_neighbors=n_neighbors, batch_size=batch_size, max_iter=2).fit(X)
        for batch_size in ("auto", len(X) // share)
    )
    assert_same_fit(fitted, expected)


def test_they_stay_where_entries_are_missing(seed):
    X = sheet(seed)
    X[np.random.RandomState(seed).uniform(size=X.shape) < 0.01] = np.nan
    fitted = deep(missing="mask").fit(X)
    assert "pairs" in fitted.history_[-1]
    assert_same_fit(fitted, deep(missing="mask", n_neighbors=10).fit(X))


def test_a_cached_pretraining_gives_the_same(seed, tmp_path):
    X = sheet(seed)
    whole = deep(pretrain_iter=4).fit(X)
    assert_same_fit(deep(pretrain_iter=4, memory=str(tmp_path)).fit(X), whole)
    assert_same_fit(deep(pretrain_iter=4, memory=str(tmp_path)).fit(X), whole)


def test_a_stop_before_they_are_sought(seed):
    X = sheet(seed)
    stopped = deep(pretrain_iter=6, callback=lambda row: row["epoch"] == 2).fit(X)
    assert [row["phase"] for row in stopped.history_] == 2 * ["pretraining"]


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
    given, found = deep(n_neighbors=10, pretrain_iter=0), deep(pretrain_iter=0)
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
