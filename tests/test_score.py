"""The label-free judges: `DeepAEClustering.score`, a modularity, and the scorers."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import blobs, overlapping, quick
from sklearn.cluster import DBSCAN, KMeans
from sklearn.metrics import mutual_info_score
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaecm import DeepAEClustering, _blocks, _modularity
from skaecm.metrics import log_likelihood_score, modularity_score, neighbor_information_score


def edges_of(X, n_neighbors=10):
    """Pairs (i, j), both ways, where one is among the nearest rows of the other."""
    index = NearestNeighbors(n_neighbors=n_neighbors).fit(X)
    found = index.kneighbors(return_distance=False)
    pairs = {(i, int(j)) for i, near in enumerate(found) for j in near}
    return pairs | {(j, i) for i, j in pairs}


def by_counting(labels, edges, weight=None):
    """Newman's modularity, pair by pair."""
    weight = np.ones(len(labels)) if weight is None else weight
    price = {pair: weight[pair[0]] * weight[pair[1]] for pair in edges}
    total = sum(price.values())
    inside = sum(value for (i, j), value in price.items() if labels[i] == labels[j]) / total
    ends = dict.fromkeys(labels.tolist(), 0.0)
    for (i, _), value in price.items():
        ends[int(labels[i])] += value / total
    return inside - sum(share**2 for share in ends.values())


@pytest.fixture
def fit(seed):
    """A fit and other rows."""
    X = overlapping(seed, n=400)
    return quick(DeepAEClustering, k=4, random_state=seed).fit(X[:200]), X[200:]


def test_is_the_modularity_of_the_predicted_clusters(fit, seed):
    model, X = fit
    labels, edges = model.predict(X), edges_of(X)
    assert model.score(X) == pytest.approx(by_counting(labels, edges), rel=1e-9)
    assert isinstance(model.score(X), float)
    assert model.score(X, np.zeros(len(X))) == model.score(X)
    weight = np.random.RandomState(seed).uniform(size=len(X))
    expected = by_counting(labels, edges, weight)
    assert model.score(X, sample_weight=weight) == pytest.approx(expected, rel=1e-9)
    assert model.score(X, sample_weight=7 * weight) == pytest.approx(expected, rel=1e-9)
    assert model.score(sp.csr_array(X)) == pytest.approx(model.score(X), rel=1e-9)
    assert model.score(X[::-1]) == pytest.approx(model.score(X), rel=1e-9)


def test_a_row_of_no_weight_is_not_there(fit):
    model, X = fit
    weight = (np.arange(len(X)) % 3 > 0).astype(float)
    kept = weight > 0
    assert model.score(X, sample_weight=weight) == pytest.approx(model.score(X[kept]), rel=1e-9)


def test_given_edges_take_the_place_of_the_nearest_rows(fit, seed):
    model, X = fit
    rng = np.random.RandomState(seed)
    graph = sp.csr_array(np.triu(rng.uniform(size=(200, 200)) < 0.05, 1).astype(float))
    labels = model.predict(X, adjacency=graph)
    edges = set(zip(*map(np.ndarray.tolist, (graph + graph.T).nonzero()), strict=True))
    weight = rng.uniform(size=200)
    for given in (None, weight):
        assert model.score(X, sample_weight=given, adjacency=graph) == pytest.approx(
            by_counting(labels, edges, given), rel=1e-9
        )


def test_knows_labels_alone(seed):
    """Whatever the embedding and the weights of the loss: equal clusters, equal scores."""
    X, y = blobs(seed, n=120)
    fits = [
        quick(DeepAEClustering, random_state=seed, **params).fit(X)
        for params in ({}, {"beta": 10.0, "n_components": 7}, {"alpha": 0.3, "lam": 2.0})
    ]
    scores = {model.score(X) for model in fits}
    assert len(scores) == 1
    assert scores.pop() == pytest.approx(by_counting(y, edges_of(X)), rel=1e-9)


def test_nothing_to_compare_is_zero(seed):
    X, _ = blobs(seed)
    assert quick(DeepAEClustering, k=1).fit(X).score(X) == pytest.approx(0.0, abs=1e-12)
    model = quick(DeepAEClustering).fit(X)
    assert model.score(X[:1]) == 0.0
    assert model.score(X[:5], adjacency=np.zeros((5, 5))) == 0.0
    assert -0.5 <= model.score(X[:2]) <= 1


def test_of_many_rows_some_are_looked_at(fit, monkeypatch):
    model, X = fit
    monkeypatch.setattr(_modularity, "MOST_ROWS", 120)
    rows = _modularity.judged_rows(len(X))
    assert len(np.unique(rows)) == 120
    assert model.score(X) == model.score(X[rows])
    weight = (np.arange(len(X)) < 150).astype(float)
    assert _modularity.judged_rows(len(X), weight).max() < 150


def test_of_many_rows_in_blocks_the_same_are_looked_at(fit, seed, monkeypatch, tmp_path):
    model, X = fit
    np.save(tmp_path / "rows.npy", X)
    source = np.load(tmp_path / "rows.npy", mmap_mode="r")
    monkeypatch.setattr(_modularity, "MOST_ROWS", 120)
    monkeypatch.setattr(_blocks, "WINDOW_BYTES", 50 * 4 * 8)
    monkeypatch.setattr(_blocks, "BLOCK_BYTES", 16 * 4 * 8)
    for weight in (None, np.random.RandomState(seed).uniform(size=len(X))):
        expected = model.score(X, sample_weight=weight)
        assert model.score(source, sample_weight=weight) == pytest.approx(expected, rel=1e-9)


def test_missing_entries_of_neighbours_are_completed(seed):
    X, _ = blobs(seed, n=150, d=6)
    complete = quick(DeepAEClustering).fit(X).score(X)
    X[np.random.RandomState(seed).uniform(size=X.shape) < 0.1] = np.nan
    model = quick(DeepAEClustering, missing="mask").fit(X)
    assert model.score(X) == pytest.approx(complete, abs=0.1)
    assert model.score(sp.csr_array(X)) == pytest.approx(model.score(X), rel=1e-6)


# Scorers
# -------


def information_by_counting(labels, edges):
    """Mutual information of the clusters at both ends of an edge, in nats."""
    ends = np.array([(labels[i], labels[j]) for i, j in edges])
    return mutual_info_score(*ends.T)


def test_scorers_of_any_clusterer(fit):
    model, X = fit
    for estimator in (model, KMeans(3, n_init=1, random_state=0).fit(X)):
        labels, edges = estimator.predict(X), edges_of(X)
        expected = by_counting(labels, edges)
        assert modularity_score(estimator, X) == pytest.approx(expected, rel=1e-9)
        information = neighbor_information_score(estimator, X)
        assert information == pytest.approx(information_by_counting(labels, edges), rel=1e-9)
        assert modularity_score(estimator, sp.csr_array(X)) == pytest.approx(expected, rel=1e-9)
    assert modularity_score(model, X) == model.score(X)
    assert log_likelihood_score(model, X) == pytest.approx(model.score_samples(X).mean())


def test_scorers_look_at_some_of_many_rows(fit, monkeypatch):
    model, X = fit
    monkeypatch.setattr(_modularity, "MOST_ROWS", 120)
    for scorer in (modularity_score, neighbor_information_score):
        assert scorer(model, X) == scorer(model, X[_modularity.judged_rows(len(X))])
        assert scorer(model, X) == scorer(model, sp.csr_array(X))


@pytest.mark.parametrize(
    "scoring", [None, modularity_score, neighbor_information_score, log_likelihood_score]
)
def test_in_a_search_over_a_pipeline(seed, scoring):
    """Without labels and with, and whatever the columns are called."""
    pandas = pytest.importorskip("pandas")
    X, y = blobs(seed, n=120)
    frame = pandas.DataFrame(X, columns=list("abcd"))
    pipeline = make_pipeline(StandardScaler(), quick(DeepAEClustering))
    grid = {"deepaeclustering__k": [2, 3], "deepaeclustering__beta": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, scoring=scoring, cv=2, error_score="raise")
    renamed = frame.set_axis(list("wxyz"), axis=1)
    given = ((X,), (X, y), (frame,), (renamed,))
    scores = [search.fit(*data).cv_results_["mean_test_score"] for data in given]
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores[0], scores[1])
    np.testing.assert_array_equal(scores[2], scores[3])
    # A frame's columns are rounded in another order. Where a start is stationary, rounding is all
    # that Adam's first steps see, so that they differ, if by little.
    np.testing.assert_allclose(scores[0], scores[2], rtol=1e-3)
    if scoring is not log_likelihood_score:
        assert search.best_params_["deepaeclustering__k"] == 3


def test_score_has_its_top_at_the_number_of_blobs(seed):
    X, _ = blobs(seed, n=300, d=6, k=4)
    scores = {
        k: quick(DeepAEClustering, k=k, n_components=8, random_state=seed)
        .fit(X[::2])
        .score(X[1::2])
        for k in (2, 3, 4, 6, 8)
    }
    assert max(scores, key=scores.get) == 4


@pytest.mark.parametrize(
    ("scorer", "message"),
    [
        (modularity_score, "needs an estimator with predict, but was given a DBSCAN"),
        (neighbor_information_score, "needs an estimator with predict, but was given a DBSCAN"),
        (log_likelihood_score, "needs an estimator with score_samples, but was given a DBSCAN"),
    ],
)
def test_scorers_say_what_they_need(scorer, message):
    X, _ = blobs(0)
    with pytest.raises(TypeError, match=message):
        scorer(DBSCAN().fit(X), X)


def test_scorers_refuse_missing_entries(fit):
    model, X = fit
    X = X.copy()
    X[0, 0] = np.nan
    with pytest.raises(ValueError, match="Input X contains NaN"):
        modularity_score(model, X)
