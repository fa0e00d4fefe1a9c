"""Rows that are sparse, weighted or named: what an estimator makes of its input."""

import numpy as np
import pytest
import scipy.sparse as sp
import sklearn
from helpers import (
    assert_close_fit,
    assert_same_fit,
    blobs,
    quick,
    rows_with_one_start_each,
)
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, KFold, cross_validate

from skaecm import ClusteringModuleGMM, DeepAEClustering

# Sparse rows
# -----------


def sparse_rows(seed, n=200):
    """Blobs with holes at random: no column is constant within a cluster."""
    X, _ = blobs(seed, n=n)
    X[np.random.RandomState(seed).uniform(size=X.shape) < 0.3] = 0
    return X


@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_rows_are_as_dense_ones(cls, seed, weighted):
    X = sparse_rows(seed)
    weight = np.random.RandomState(seed).uniform(size=len(X)) if weighted else None
    dense = quick(cls, batch_size=32).fit(X, sample_weight=weight)
    sparse = quick(cls, batch_size=32).fit(sp.csr_matrix(X), sample_weight=weight)
    assert_close_fit(dense, sparse, rtol=1e-6)
    S = sp.csr_array(X)
    np.testing.assert_array_equal(dense.predict(X), dense.predict(S))
    np.testing.assert_allclose(dense.transform(S), dense.transform(X), atol=1e-12)
    assert dense.score(S) == pytest.approx(dense.score(X))


def test_sparse_rows_are_never_densified_as_a_whole(cls, seed, monkeypatch):
    X = sp.csr_matrix(sparse_rows(seed, n=5000))
    heights = []
    for name in ("toarray", "todense"):
        original = getattr(sp.csr_matrix, name)

        def counted(self, *args, _original=original, **kwargs):
            heights.append(self.shape[0])
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(sp.csr_matrix, name, counted)
    model = quick(cls).fit(X)
    model.predict(X)
    if cls is ClusteringModuleGMM:
        # Of DeepAEClustering it seeks neighbours among at most 10,000 rows, for which old
        # releases of scikit-learn make narrow ones dense.
        model.score(X)
    assert 0 < max(heights) < 5000


# Sample weights
# --------------


def from_given_start(cls, X, **params):
    """Deterministic but for the order of batches: the start is given."""
    params = {"init": X[:3], **params}
    if cls is DeepAEClustering:
        params = {"pretrain_iter": 0, **params}
    return quick(cls, **params)


def test_equal_weights_are_no_weights(cls, seed):
    X, _ = blobs(seed)
    without = quick(cls).fit(X)
    for weight in (np.ones(90), np.full(90, 7), [3] * 90):
        assert_same_fit(quick(cls).fit(X, sample_weight=weight), without)


def test_the_scale_of_weights_does_not_matter(cls, seed):
    X, _ = blobs(seed)
    weight = np.random.RandomState(seed).uniform(size=90)
    one = quick(cls).fit(X, sample_weight=weight)
    assert_same_fit(quick(cls).fit(X, sample_weight=4 * weight), one)
    assert one.score(X, sample_weight=weight) == pytest.approx(
        one.score(X, sample_weight=100 * weight)
    )


def test_integer_weights_are_repeated_rows(cls, seed):
    """At the start, where no row is drawn, everything learned agrees."""
    X = rows_with_one_start_each(seed)
    weight = np.random.RandomState(seed).randint(1, 4, size=90)
    repeated = np.repeat(X, weight, axis=0)
    weighted = from_given_start(cls, X, max_iter=0).fit(X, sample_weight=weight)
    expected = from_given_start(cls, X, max_iter=0).fit(repeated)
    np.testing.assert_allclose(weighted.predict_proba(X), expected.predict_proba(X), atol=1e-9)
    for name in ("cluster_centers_", "weights_", "covariances_", "loss_"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(expected, name), rtol=1e-9)
    if cls is ClusteringModuleGMM:
        score = weighted.score(X, sample_weight=weight)
        assert score == pytest.approx(expected.score(repeated), rel=1e-9)
        # Weights have mean one over the fit, so n stays the number of rows.
        fits = [
            (estimator.bic(*rows) - 15 * np.log(n)) / n
            for estimator, rows, n in (
                (weighted, (X, weight), 90),
                (expected, (repeated,), len(repeated)),
            )
        ]
        assert fits[0] == pytest.approx(fits[1], rel=1e-9)


def test_rows_of_weight_zero_do_not_influence(cls, seed):
    """Whatever lies in them, the same is learned for the other rows."""
    X = rows_with_one_start_each(seed)
    weight = np.random.RandomState(seed).uniform(0.5, 1, size=90)
    weight[60:] = 0
    other = X.copy()
    other[60:] *= 1000
    fits = [
        from_given_start(cls, X, n_iter_no_change=3, batch_size=20).fit(rows, sample_weight=weight)
        for rows in (X, other)
    ]
    np.testing.assert_array_equal(fits[0].labels_[:60], fits[1].labels_[:60])
    for name in ("cluster_centers_", "weights_", "covariances_", "loss_"):
        np.testing.assert_allclose(getattr(fits[0], name), getattr(fits[1], name), rtol=1e-9)
    # And at the start it is as if they were not there.
    start = from_given_start(cls, X, max_iter=0)
    with_them = clone(start).fit(other, sample_weight=weight)
    without = clone(start).fit(X[:60], sample_weight=weight[:60])
    for name in ("cluster_centers_", "weights_", "covariances_", "loss_"):
        np.testing.assert_allclose(getattr(with_them, name), getattr(without, name), rtol=1e-9)


def test_weights_move_the_centers(cls, seed):
    X, y = blobs(seed)
    weight = np.where(y == 0, 10.0, 1.0)
    # Trained to the end, as a start may be in doubt.
    model = cls(3, random_state=seed).fit(X, sample_weight=weight)
    largest = model.weights_.argmax()
    assert set(model.labels_[y == 0]) == {largest}
    assert model.weights_[largest] == pytest.approx(10 / 12, abs=0.05)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([-1.0] + [1.0] * 89, "Negative values"),
        ([0.0] * 90, "at least one non-zero number"),
        ([np.nan] + [1.0] * 89, "NaN"),
        ([1.0] * 89, r"sample_weight.shape == \(89,\), expected \(90,\)"),
        ([1.0] * 2 + [0.0] * 88, "k=3 must be at most the number of rows that carry weight"),
    ],
)
def test_weights_that_are_refused(cls, weight, message):
    X, _ = blobs(0)
    with pytest.raises(ValueError, match=message):
        quick(cls).fit(X, sample_weight=weight)


def test_metadata_routing(cls, seed):
    X, _ = blobs(seed)
    weight = np.random.RandomState(seed).uniform(size=90)
    folds = KFold(3)
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(cls)
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        routed = cross_validate(
            model, X, params={"sample_weight": weight}, cv=folds, error_score="raise"
        )
        search = GridSearchCV(model, {"k": [3]}, cv=folds, error_score="raise")
        search.fit(X, sample_weight=weight)
    expected = [
        quick(cls)
        .fit(X[train], sample_weight=weight[train])
        .score(X[test], sample_weight=weight[test])
        for train, test in folds.split(X)
    ]
    np.testing.assert_array_equal(routed["test_score"], expected)
    assert_same_fit(search.best_estimator_, quick(cls).fit(X, sample_weight=weight))


# Data frames
# -----------


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_in_and_out(cls, seed, library):
    frames = pytest.importorskip(library)
    X, _ = blobs(seed)
    columns = ["a", "b", "c", "d"]
    frame = frames.DataFrame({name: X[:, j] for j, name in enumerate(columns)})
    model = quick(cls).set_output(transform=library).fit(frame)
    np.testing.assert_array_equal(model.feature_names_in_, columns)
    code = model.transform(frame)
    assert isinstance(code, frames.DataFrame)
    width = 3 if cls is ClusteringModuleGMM else 4
    names = [f"{cls.__name__.lower()}{j}" for j in range(width)]
    assert list(code.columns) == names == list(model.get_feature_names_out())
    np.testing.assert_array_equal(code.to_numpy(), quick(cls).fit(X).transform(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frames.DataFrame({name.upper(): X[:, 0] for name in columns}))
