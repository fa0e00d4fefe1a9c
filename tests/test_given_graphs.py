"""A graph that the user gives: what a fit makes of it, and what is refused."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from helpers import assert_refused, assert_same_fit, blobs, graph_of, quick
from sklearn.model_selection import GridSearchCV, KFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaecm import ClusteringModuleGMM, _graph

# A given graph
# -------------


@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix, sp.csr_array])
def test_labels_of_a_fit_are_its_predictions(cls, seed, dtype, container):
    X, y = blobs(seed, dtype=dtype)
    graph = graph_of(y)
    rows = container(X)
    model = quick(cls).fit(rows, adjacency=graph)
    for edges in (graph, sp.csr_array(graph), graph.tolist()):
        np.testing.assert_array_equal(model.labels_, model.predict(rows, adjacency=edges))
    proba = model.predict_proba(rows, adjacency=graph)
    np.testing.assert_array_equal(proba.argmax(axis=1), model.labels_)
    assert proba.dtype == dtype
    assert len(set(zip(model.labels_, y, strict=True))) == 3


def test_every_pass_mixes_rows_first(cls, seed):
    X, y = blobs(seed)
    X += 2 * np.random.RandomState(seed).standard_normal(X.shape)
    graph = graph_of(y)
    alone = graph.sum(axis=0) == 0
    assert alone[:18].all()
    model = quick(cls).fit(X, adjacency=graph)
    mixed = _graph.smooth(X, _graph.check_adjacency(graph, 90))
    for name in ("predict", "predict_proba", "transform", "score_samples"):
        method = getattr(model, name)
        value = method(X, adjacency=graph)
        np.testing.assert_array_equal(value, method(mixed), err_msg=name)
        np.testing.assert_allclose(value[alone], method(X)[alone], atol=1e-12, err_msg=name)
        if name != "predict":
            assert not np.allclose(value, method(X)), name
    if cls is ClusteringModuleGMM:
        assert model.score(X, adjacency=graph) == pytest.approx(
            model.score_samples(X, adjacency=graph).mean()
        )
    code = model.transform(X, adjacency=graph)
    np.testing.assert_array_equal(quick(cls).fit_transform(X, adjacency=graph), code)
    np.testing.assert_array_equal(quick(cls).fit_predict(X, adjacency=graph), model.labels_)


def test_new_rows_by_themselves(cls, seed):
    X, y = blobs(seed)
    model = quick(cls).fit(X, adjacency=graph_of(y))
    new, _ = blobs(seed, n=30)
    assert model.predict(new).shape == (30,)
    one_by_one = np.concatenate([model.predict_proba(row[None]) for row in new])
    np.testing.assert_allclose(model.predict_proba(new), one_by_one, atol=1e-12)


def test_no_edges_are_no_graph(cls, seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    without = quick(cls).fit(X)
    for graph in (sp.csr_array((90, 90)), np.zeros((90, 90), bool), np.eye(90)):
        assert_same_fit(quick(cls).fit(X, adjacency=graph), without)
        np.testing.assert_array_equal(without.transform(X, adjacency=graph), without.transform(X))


def test_the_direction_and_the_unit_of_edges_do_not_matter(cls, seed):
    X, y = blobs(seed)
    graph = graph_of(y)
    expected = quick(cls).fit(X, adjacency=graph)
    for same in (graph.T, graph + graph.T, 8 * graph, graph + np.eye(90), sp.coo_array(graph)):
        assert_same_fit(quick(cls).fit(X, adjacency=same), expected)
    other = quick(cls).fit(X, adjacency=graph > 0)
    assert not np.array_equal(other.cluster_centers_, expected.cluster_centers_)


@pytest.mark.parametrize("container", [np.asarray, sp.csr_array, sp.csr_matrix])
def test_a_graph_with_64_bit_indices(cls, seed, container):
    X, y = blobs(seed)
    graph = sp.csr_array(graph_of(y))
    expected = quick(cls).fit(container(X), adjacency=graph)
    wide = graph.copy()
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    assert_same_fit(quick(cls).fit(container(X), adjacency=wide), expected)


def test_the_graph_of_a_fit_is_left_as_it_is(cls, seed):
    X, y = blobs(seed)
    graph = sp.csr_array(graph_of(y))
    before = X.copy(), graph.copy()
    quick(cls).fit(X, adjacency=graph).predict(X, adjacency=graph)
    np.testing.assert_array_equal(X, before[0])
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(graph, name), getattr(before[1], name))


def test_a_graph_tells_apart_what_rows_do_not(seed):
    """Neighbours are smoothed over: rows of noise are labelled by their edges."""
    rng = np.random.RandomState(seed)
    y = rng.permutation(np.arange(200) % 2)
    X = 1.5 * y[:, None] + rng.standard_normal((200, 3))
    graph = (rng.uniform(size=(200, 200)) < 0.2) * (y[:, None] == y)
    model = quick(ClusteringModuleGMM, k=2).fit(X, adjacency=graph)
    assert len(set(zip(model.labels_, y, strict=True))) == 2
    assert len(set(zip(quick(ClusteringModuleGMM, k=2).fit_predict(X), y, strict=True))) == 4


def test_a_pipeline_passes_the_graph_on(cls, seed):
    X, y = blobs(seed)
    X, graph = X * [1, 2, 3, 4], graph_of(y)
    scaled = StandardScaler().fit_transform(X)
    expected = quick(cls).fit(scaled, adjacency=graph)
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(cls).set_fit_request(adjacency=True).set_predict_request(adjacency=True)
        pipeline = make_pipeline(StandardScaler(), model).fit(X, adjacency=graph)
        labels = pipeline.predict(X, adjacency=graph)
    assert_same_fit(pipeline[-1], expected)
    np.testing.assert_array_equal(labels, expected.labels_)


# Refused
# -------


def changed(graph, value):
    graph = graph.copy()
    graph[30, 40] = value
    return graph


GRAPH = graph_of(blobs(0)[1])
ZERO_OR_MORE = "weights in adjacency must be finite and zero or more, but are in"
BAD_GRAPHS = {
    "rows cut": (GRAPH[:60], r"n_samples=90 .* has shape \(60, 90\).*Cross-validation cuts"),
    "too small": (GRAPH[:60, :60], r"n_samples=90 rows of X, but has shape \(60, 60\)"),
    "too large": (sp.csr_array((91, 91)), r"n_samples=90 .*but has shape \(91, 91\)"),
    "1-D": (np.ones(90), r"n_samples=90 .*but has shape \(90,\)"),
    "3-D": (np.ones((90, 90, 2)), r"adjacency must be a sparse matrix or array of numbers"),
    "negative": (changed(GRAPH, -1.0), rf"{ZERO_OR_MORE} \[-1.0, .*Leave out edges"),
    "sparse negative": (sp.coo_array(changed(GRAPH, -1.0)), ZERO_OR_MORE),
    "nan": (changed(GRAPH, np.nan), ZERO_OR_MORE),
    "inf": (sp.csr_matrix(changed(GRAPH, np.inf)), ZERO_OR_MORE),
    "a word": ("neighbours", "adjacency must be a sparse .* but is str"),
    "a number": (3.0, "adjacency must be a sparse .* but is float"),
    "words": (np.full((90, 90), "x"), "numbers of shape .* but is ndarray: "),
    "complex": (GRAPH + 1j, "adjacency must be a sparse matrix or array of numbers"),
}


@pytest.mark.parametrize("name", list(BAD_GRAPHS))
def test_graphs_that_are_refused(cls, name):
    graph, message = BAD_GRAPHS[name]
    X, _ = blobs(0)
    model = quick(cls)
    assert_refused(model, lambda model: model.fit(X, adjacency=graph), message)
    model.fit(X)
    assert_refused(model, lambda model: model.fit(X, adjacency=graph), message)
    for method in ("predict", "predict_proba", "transform", "score_samples", "score"):
        assert_refused(model, lambda m, name=method: getattr(m, name)(X, adjacency=graph), message)


def wrong_shape(batch, generator):
    return batch[:, :-1]


def wrong_type(batch, generator):
    return batch.numpy()


def wrong_dtype(batch, generator):
    return batch.half()


def not_finite(batch, generator):
    return batch * float("nan")


BAD_PARAMETERS = {
    "no image_shape": ({"augment": "image"}, "augment='image' needs image_shape, but it is None"),
    "wrong image_shape": (
        {"augment": "image", "image_shape": (3, 3)},
        r"image_shape must be .* a product of 4, .* but is \(3, 3\)",
    ),
    "flat image_shape": ({"augment": "image", "image_shape": (4,)}, "image_shape must be"),
    "fractions": ({"augment": "image", "image_shape": (2.0, 2.0)}, "image_shape must be"),
    "image_shape a number": ({"image_shape": 4}, "'image_shape' parameter of {cls} must be"),
    "augment a word": ({"augment": "images"}, "'augment' parameter of {cls} must be"),
    "augment a number": ({"augment": 1}, "'augment' parameter of {cls} must be"),
    "no neighbours": ({"n_neighbors": 0}, "'n_neighbors' parameter of {cls} must be"),
    "half a neighbour": ({"n_neighbors": 2.5}, "'n_neighbors' parameter of {cls} must be"),
    "gamma < 0": ({"gamma": -0.1}, "'gamma' parameter of {cls} must be"),
    "shape": (
        {"augment": wrong_shape},
        r"augment must return a tensor of the shape of its batch, \(\d+, 4\), but .* \(\d+, 3\)",
    ),
    "type": ({"augment": wrong_type}, "augment must return a tensor .* but returned ndarray"),
    "dtype": (
        {"augment": wrong_dtype},
        "keep the dtype .* torch.float64 .* returned torch.float16",
    ),
    "nan": ({"augment": not_finite}, "The loss is not finite"),
}


@pytest.mark.parametrize("fitted", [False, True], ids=["unfitted", "fitted"])
@pytest.mark.parametrize("name", BAD_PARAMETERS)
def test_parameters_that_are_refused(cls, name, fitted):
    params, message = BAD_PARAMETERS[name]
    X, _ = blobs(0)
    model = quick(cls)
    if fitted:
        model.fit(X)
    model.set_params(**params)
    assert_refused(model, lambda model: model.fit(X), message.format(cls=cls.__name__))


def test_neighbours_join_a_given_graph(cls):
    """The nearest of the smoothed rows; whatever else is given stays."""
    X, _ = blobs(0)
    model = quick(cls, n_neighbors=5)
    data = model._with_partners(model._check_data(X, None, GRAPH, reset=True))
    joined = data.partners.graph
    near = _graph.neighbour_graph(_graph.smooth(X, _graph.check_adjacency(GRAPH, len(X))), 5)
    expected = _graph.check_adjacency(GRAPH, len(X)) + near
    np.testing.assert_array_equal(joined.toarray() > 0, expected.toarray() > 0)
    model.fit(X, adjacency=GRAPH)
    np.testing.assert_array_equal(model.predict(X, adjacency=GRAPH), model.labels_)


def test_too_many_rows_for_an_exact_search(cls, monkeypatch):
    monkeypatch.setattr(_graph, "EXACT_ROWS", 50)
    monkeypatch.setitem(sys.modules, "faiss", None)
    X, _ = blobs(0)
    message = (
        r'n_neighbors with more than 50 rows needs .* pip install "skaecm\[neighbors\]".* adjacency'
    )
    assert_refused(quick(cls, n_neighbors=5), lambda model: model.fit(X), message)


SEARCHES = {
    "cross_validate": lambda model, X, folds: cross_validate(
        model, X, params={"adjacency": GRAPH}, cv=folds
    ),
    "GridSearchCV": lambda model, X, folds: GridSearchCV(
        model, {"gamma": [0.5, 1.0]}, cv=folds
    ).fit(X, adjacency=GRAPH),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_cross_validation_says_what_to_do_instead(cls, search):
    X, _ = blobs(0)
    folds = KFold(2)
    message = r"Cross-validation cuts only its rows: .* adjacency\[rows\]\[:, rows\]"
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(cls).set_fit_request(adjacency=True).set_score_request(adjacency=True)
        with pytest.raises(ValueError, match=message):
            SEARCHES[search](model, X, folds)
    scores = []
    for rows, held_out in folds.split(X):
        model = quick(cls).fit(X[rows], adjacency=GRAPH[rows][:, rows])
        edges = sp.csr_array(GRAPH)[held_out][:, held_out]
        scores.append(model.score(X[held_out], adjacency=edges))
    assert np.isfinite(scores).all()


def test_bic_takes_the_graph(seed):
    X, _ = blobs(seed)
    model = quick(ClusteringModuleGMM).fit(X, adjacency=GRAPH)
    price = np.log(90) * (3 * 4 + 2 + 1)
    expected = -2 * 90 * model.score(X, adjacency=GRAPH) + price
    assert model.bic(X, adjacency=GRAPH) == pytest.approx(expected)
