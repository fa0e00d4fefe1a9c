"""Fits of rows with partners of every kind: copies, nearest rows, neighbours in a graph."""

import copy
import pickle
import random

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import (
    PARTNERS,
    assert_close_fit,
    assert_refused,
    assert_same_fit,
    blobs,
    graph_of,
    learned,
    overlapping,
    quick,
    shaken,
    the_row_itself,
)
from sklearn.base import clone

from skaecm import ClusteringModuleGMM, DeepAEClustering, _graph
from skaecm._rows import (
    Neighbours,
    PairedRows,
    ResidentRows,
)
from skaecm._training import Training

# Whole fits
# ----------


def terms_of(model, phase):
    rows = [row for row in model.history_ if row["phase"] == phase]
    assert all(list(row) == list(rows[0]) for row in rows)
    assert all(np.isfinite(list(row.values())[1:]).all() for row in rows)
    assert ("changed" in rows[0]) is (phase != "pretraining")
    return [name for name in list(rows[0])[3:] if name != "changed"]


@pytest.mark.parametrize("name", [*PARTNERS, "graph"])
def test_history_of_the_shallow_estimator(seed, name):
    X, y = blobs(seed)
    graph = graph_of(y) if name == "graph" else None
    model = quick(ClusteringModuleGMM, **PARTNERS.get(name, {})).fit(X, adjacency=graph)
    for phase in ("training", "averaging"):
        assert terms_of(model, phase) == ["E1", "E2", "E3", "E4", "pairs"]


@pytest.mark.parametrize("name", [*PARTNERS, "graph", "graph and copies"])
def test_history_of_the_deep_estimator(seed, name):
    """The contrast belongs to neighbours: it goes on in training where they are partners."""
    X, y = blobs(seed)
    params = {"augment": "noise"} if name == "graph and copies" else PARTNERS.get(name, {})
    graph = graph_of(y) if name.startswith("graph") else None
    model = quick(DeepAEClustering, **params).fit(X, adjacency=graph)
    in_pretraining = name in ("neighbours", "both", "graph", "graph and copies")
    in_training = name in ("neighbours", "graph")
    expected = ["reconstruction", "contrast"] if in_pretraining else ["reconstruction"]
    assert terms_of(model, "pretraining") == expected
    expected = ["reconstruction", "E1", "E2", "orthonormality", "contrast", "E4", "pairs"]
    if not in_training:
        expected.remove("contrast")
    assert terms_of(model, "training") == terms_of(model, "averaging") == expected


def test_loss_of_a_fit_is_that_of_its_pairs(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls, n_neighbors=5, gamma=0.6).fit(X)
    neighbours = Neighbours(_graph.neighbour_graph(X, 5), torch.device("cpu"))
    rows = PairedRows(ResidentRows(torch.from_numpy(X)), neighbours, None)
    terms = copy.deepcopy(model.module_).settle(rows)
    assert "pairs" in terms
    assert sum(terms.values()) == pytest.approx(model.loss_, rel=1e-12)


def test_a_row_as_its_own_partner_at_gamma_zero_is_no_partner(cls, seed):
    """One batch holds all rows, so that only rounding depends on their order."""
    X, y = blobs(seed)
    start = X[np.unique(y, return_index=True)[1]]
    # A default prior depends on whether there are partners.
    params = {"init": start, "batch_size": 90, "gamma": 0.0, "alpha": 0.1}
    paired = quick(cls, augment=the_row_itself, **params).fit(X)
    assert_close_fit(quick(cls, **params).fit(X), paired, rtol=1e-6)


def test_blobs_are_found(cls, seed, partners, dtype):
    X, y = blobs(seed, dtype=dtype)
    model = quick(cls, **partners).fit(X)
    assert len(set(zip(model.labels_, y, strict=True))) == 3
    assert model.cluster_centers_.dtype == dtype
    np.testing.assert_array_equal(model.labels_, model.predict(X))


@pytest.mark.parametrize("shape", [(4, 4), [1, 4, 4], (2, 4, 2)])
@pytest.mark.parametrize("container", [np.asarray, sp.csr_matrix])
def test_images(cls, seed, shape, container):
    X = np.random.RandomState(seed).uniform(0, 16, size=(60, 16)).round()
    model = quick(cls, augment="image", image_shape=shape).fit(container(X))
    np.testing.assert_array_equal(model.labels_, model.predict(container(X)))
    assert "pairs" in model.history_[-1]


def global_states():
    state = np.random.get_state()[1]  # noqa: NPY002
    return random.getstate(), state.tobytes(), torch.get_rng_state().numpy().tobytes()


def test_two_runs_are_the_same(cls, seed, partners):
    X = overlapping(seed, n=150)
    settings = {**partners, "batch_size": 32, "n_init": 2}
    random.seed(seed)
    before = global_states()
    first = quick(cls, **settings).fit(X)
    assert global_states() == before
    torch.rand(3)
    np.random.rand(3)  # noqa: NPY002
    assert_same_fit(quick(cls, **settings).fit(X), first)
    other = quick(cls, random_state=1, **settings).fit(X)
    assert not np.array_equal(other.cluster_centers_, first.cluster_centers_)


def test_copies_of_a_fitted_estimator(cls, seed, partners):
    X = overlapping(seed, n=120)
    model = quick(cls, **partners).fit(X)
    for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_same_fit(same, model)
        np.testing.assert_array_equal(same.predict_proba(X), model.predict_proba(X))
        assert_same_fit(same.fit(X), model)
    assert_same_fit(clone(model).fit(X), model)


def test_weights_of_rows_with_partners(cls, seed, partners):
    X = overlapping(seed, n=120)
    weight = np.random.RandomState(seed).uniform(size=120)
    weighted = quick(cls, **partners).fit(X, sample_weight=weight)
    assert_same_fit(quick(cls, **partners).fit(X, sample_weight=2 * weight), weighted)
    without = quick(cls, **partners).fit(X)
    assert_same_fit(quick(cls, **partners).fit(X, sample_weight=np.full(120, 7)), without)
    assert not np.array_equal(weighted.cluster_centers_, without.cluster_centers_)


def test_sparse_rows_are_as_dense_ones(cls, seed, partners):
    """So many columns that no two rows are all holes: of equal rows any is the nearest."""
    X, _ = blobs(seed, d=12)
    X[np.random.RandomState(seed).uniform(size=X.shape) < 0.3] = 0
    dense = quick(cls, **partners).fit(X)
    for container in (sp.csr_matrix, sp.csr_array):
        assert_close_fit(dense, quick(cls, **partners).fit(container(X)), rtol=1e-6)


def test_a_warm_start_goes_on_from_the_network(cls, seed, partners):
    X = overlapping(seed, n=120)
    model = quick(cls, warm_start=True, **partners).fit(X)
    before = learned(model)
    model.set_params(max_iter=0).fit(X)
    after = learned(model)
    for name in ("labels_", "cluster_centers_", "clustering.weight", "clustering.means"):
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert model.loss_ == pytest.approx(before["loss_"], rel=1e-12)
    # And rows may get partners, or lose them, on the way.
    model.set_params(max_iter=200, augment=None, n_neighbors=None).fit(X)
    assert "pairs" not in model.history_[-1]
    model.set_params(**partners).fit(X)
    assert "pairs" in model.history_[-1]
    np.testing.assert_array_equal(model.labels_, model.predict(X))


def test_a_fitted_estimator_as_the_start(cls, seed, partners):
    X = overlapping(seed, n=120)
    first = quick(cls, **partners).fit(X)
    second = quick(cls, init=first, max_iter=0, **partners).fit(X)
    np.testing.assert_array_equal(second.labels_, first.labels_)
    assert second.loss_ == pytest.approx(first.loss_, rel=1e-12)
    from_plain = quick(cls, init=quick(cls).fit(X), **partners).fit(X)
    assert "pairs" in from_plain.history_[-1]


@pytest.mark.parametrize("init", ["k-means++", "pinv", "random"])
@pytest.mark.parametrize("name", ["copies", "neighbours"])
@pytest.mark.filterwarnings("ignore:Only . of k=3:sklearn.exceptions.ConvergenceWarning")
def test_every_start(cls, seed, name, init):
    X = overlapping(seed, n=120)
    model = quick(cls, init=init, **PARTNERS[name]).fit(X)
    assert np.isfinite(model.loss_)
    np.testing.assert_array_equal(model.labels_, model.predict(X))


def test_partial_fits(cls, seed, partners):
    X = overlapping(seed, n=120)
    model = quick(cls, **partners).partial_fit(X[:60])
    at_start = quick(cls, max_iter=0, **partners).fit(X[:60])
    for name, value in learned(at_start).items():
        if name != "history_":
            np.testing.assert_array_equal(learned(model)[name], value, err_msg=name)
    for block in (X[60:], X[:60]):
        model.partial_fit(block)
        assert model.history_[-1]["phase"] == "training"
        assert "pairs" in model.history_[-1]
        assert np.isfinite(model.loss_)
        np.testing.assert_array_equal(model.labels_, model.predict(block))
    again = quick(cls, **partners).partial_fit(X[:60]).partial_fit(X[60:]).partial_fit(X[:60])
    assert_same_fit(again, model)


# Odd data
# --------


def test_one_cluster(cls, seed, partners):
    X, _ = blobs(seed)
    model = quick(cls, k=1, **partners).fit(X)
    assert set(model.labels_) == {0}
    assert model.history_[-1]["pairs"] == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("k", [1, 2])
def test_two_rows(cls, seed, partners, k):
    X = blobs(seed)[0][:2]
    model = quick(cls, k=k, **partners).fit(X)
    assert np.isfinite(model.loss_)
    np.testing.assert_array_equal(model.labels_, model.predict(X))


@pytest.mark.parametrize("name", PARTNERS)
@pytest.mark.filterwarnings("ignore:All rows of X are equal:UserWarning")
def test_one_row(cls, seed, name):
    X = blobs(seed)[0][:1]
    model = quick(cls, k=1, **PARTNERS[name]).fit(X)
    assert np.isfinite(model.loss_)


def test_more_neighbours_than_rows(cls, seed):
    X, _ = blobs(seed, n=12)
    every = quick(cls, n_neighbors=11).fit(X)
    for n_neighbors in (12, 10**9):
        assert_same_fit(quick(cls, n_neighbors=n_neighbors).fit(X), every)


@pytest.mark.parametrize("width", [3, 80])
def test_equal_rows_warn(cls, partners, width):
    ours = ["All rows of X are equal: there is nothing to cluster", "Only 1 of k=2 clusters"]
    of_kmeans = "Number of distinct clusters"
    model = quick(cls, k=2, **partners)
    with pytest.warns(UserWarning, match="|".join([*ours, of_kmeans])) as log:
        model.fit(np.full((20, width), 0.5))
    messages = [str(warning.message) for warning in log]
    assert [sum(message.startswith(words) for message in messages) for words in ours] == [1, 1]
    assert [message for message in messages if not message.startswith((*ours, of_kmeans))] == []
    assert set(model.labels_) == {0}
    assert np.isfinite(model.loss_)


def test_repeated_rows(cls, seed, partners):
    """Fewer distinct rows than the surplus clusters of the start is nobody's concern."""
    X = np.repeat(blobs(seed, n=9)[0], 20, axis=0)
    labels = quick(cls, **partners).fit_predict(X)
    assert all(len(set(labels[i : i + 20])) == 1 for i in range(0, 180, 20))


def test_rows_of_no_weight_are_nobodys_partner(cls, seed):
    X, _ = blobs(seed)
    weight = (np.arange(90) % 3 > 0).astype(float)
    model = quick(cls, n_neighbors=6)
    data = model._with_partners(model._check_data(X, weight, None, reset=True))
    assert data.partners.graph[:, weight == 0].nnz == 0


# The cache of the pretraining
# ----------------------------


def test_memory_knows_the_partners(seed, tmp_path, monkeypatch):
    """The same partners are served, others are pretrained anew, and both as without memory."""
    pretrained = []
    original = Training.run_epoch

    def noted(self, *args, **kwargs):
        pretrained.append(self.phase == "pretraining")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Training, "run_epoch", noted)
    X, y = blobs(seed)
    graph = graph_of(y)
    settings = [
        ({}, None),
        ({"n_neighbors": 5}, None),
        ({"n_neighbors": 6}, None),
        ({"augment": "noise"}, None),
        ({"augment": shaken}, None),
        ({"augment": "image", "image_shape": (2, 2)}, None),
        ({"augment": "image", "image_shape": (1, 4)}, None),
        ({"augment": "noise", "n_neighbors": 5}, None),
        ({}, graph),
        ({}, graph > 0),
    ]

    def fit(params, adjacency, memory):
        pretrained.clear()
        model = quick(DeepAEClustering, memory=memory, **params).fit(X, adjacency=adjacency)
        return model, any(pretrained)

    for params, adjacency in settings:
        first, was_trained = fit(params, adjacency, str(tmp_path))
        assert was_trained, params
        again, was_trained = fit(params, adjacency, str(tmp_path))
        assert not was_trained, params
        without, _ = fit(params, adjacency, None)
        assert_same_fit(again, first)
        assert_same_fit(without, first)
    # A graph that comes in another format is the same one.
    _, was_trained = fit({}, sp.coo_array(graph), str(tmp_path))
    assert not was_trained


def test_memory_asks_for_an_augmentation_that_can_be_pickled(seed, tmp_path):
    model = quick(DeepAEClustering, augment=lambda batch, _: batch, memory=str(tmp_path))
    message = "With memory, augment must be something that can be pickled"
    assert_refused(model, lambda model: model.fit(blobs(seed)[0]), message)
