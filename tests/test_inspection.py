"""Explaining a fit: the equation against slower twins, known answers, odd input."""

import copy

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import BOTH, blobs, overlapping, quick
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.inspection import assignment_entropy, rank_features


def marked(seed=0, n=300, d=9, dtype=np.float64):
    """Three clusters, of which cluster j stands apart in features 2 j and 2 j + 1 alone."""
    rng = np.random.RandomState(seed)
    labels = rng.permutation(np.arange(n) % 3)
    X = rng.standard_normal((n, d))
    for j in range(3):
        X[labels == j, 2 * j : 2 * j + 2] += 8.0
    return X.astype(dtype), labels


def by_the_equation(model, X):
    """The equation as it is written, from one Jacobian a row in float64."""
    network = copy.deepcopy(model.module_).double()
    module = network.clustering
    X = torch.tensor(X, dtype=torch.float64)

    def logits(row):
        return (module.weight @ network.embed(row[None])[0]) + module.bias

    jacobians = torch.stack([torch.autograd.functional.jacobian(logits, row) for row in X])
    jacobians = jacobians.numpy()
    g = network.proba(X).detach().numpy()
    centers, weights = model.cluster_centers_.astype(float), model.weights_.astype(float)
    k, d = centers.shape
    result = np.zeros((k, d))
    for a in range(k):
        for other in set(range(k)) - {a}:
            slope = jacobians[:, a] - jacobians[:, other]
            mean = 0.5 * sum(np.average(slope, axis=0, weights=g[:, c]) for c in (a, other))
            share = weights[other] / (weights.sum() - weights[a])
            result[a] += share * mean * (centers[a] - centers[other])
    return result


def test_equals_the_equation(cls, dtype, seed):
    X, _ = blobs(seed, dtype=dtype)
    model = quick(cls).fit(X)
    expected = by_the_equation(model, X)
    result = rank_features(model, X)
    assert result.importances.dtype == np.float64
    tolerance = 1e-3 if dtype == np.float32 else 1e-9
    np.testing.assert_allclose(
        result.importances, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()
    )


def test_closed_form_of_the_module(seed):
    """W is constant; summed over the features, the rise of the log-odds between the centres."""
    X = overlapping(seed)
    model = ClusteringModuleGMM(k=3, random_state=seed).fit(X)
    module, scale = model.module_.clustering, float(model.module_.standardizer.scale)
    W = module.weight.detach().numpy() / scale
    centers, weights = model.cluster_centers_, model.weights_
    standardized = torch.as_tensor(centers - model.module_.standardizer.offset.numpy()) / scale
    logits = (standardized @ module.weight.T + module.bias).detach().numpy()
    result = rank_features(model, X)
    for a in range(3):
        others = [c for c in range(3) if c != a]
        share = weights[others] / weights[others].sum()
        form = share @ ((W[a] - W[others]) * (centers[a] - centers[others]))
        np.testing.assert_allclose(result.importances[a], form, rtol=1e-9)
        rises = [logits[a, a] - logits[a, c] - logits[c, a] + logits[c, c] for c in others]
        np.testing.assert_allclose(result.importances[a].sum(), share @ rises, rtol=1e-9)


def test_squared_distances_of_a_mixture():
    """At the E-step of a mixture: squared distances along a feature, in units of variance."""
    X, _ = blobs()
    mixture = GaussianMixture(3, covariance_type="tied", random_state=0).fit(X)
    # A tied covariance that is isotropic, which the centres given as an array imply.
    model = ClusteringModuleGMM(k=3, init=mixture.means_, max_iter=0).fit(X)
    labels = model.labels_
    variance = np.mean((X - mixture.means_[labels]) ** 2)
    expected = np.zeros((3, 4))
    for a in range(3):
        others = [c for c in range(3) if c != a]
        share = model.weights_[others] / model.weights_[others].sum()
        expected[a] = share @ (mixture.means_[a] - mixture.means_[others]) ** 2 / variance
    np.testing.assert_allclose(rank_features(model, X).importances, expected, rtol=1e-6)


@pytest.mark.parametrize("cls", BOTH)
def test_known_features_rank_first(cls, dtype, seed):
    X, y = marked(seed, dtype=dtype)
    params = {"max_iter": 200, "tol": 1e-3, "n_iter_no_change": 5}
    if cls is DeepAEClustering:
        params |= {"hidden_layer_sizes": (32,), "n_components": None, "pretrain_iter": 20}
    model = quick(cls, **params).fit(X)
    result = rank_features(model, X)
    for cluster in range(3):
        (j,) = np.unique(y[model.labels_ == cluster])
        # The two of its own come first: the four of the others separate it from one each.
        assert set(result.ranking[cluster, :2]) == {2 * j, 2 * j + 1}
        assert set(result.ranking[cluster, :6]) == set(range(6))
        noise = np.abs(result.importances[cluster, 6:]).max()
        assert noise < 0.1 * result.importances[cluster].max()


def test_what_separates_from_a_near_cluster_never_speaks_against_it():
    """Three on a line: for the one in the middle both neighbours lie in that direction."""
    rng = np.random.RandomState(0)
    y = np.arange(300) % 3
    X = rng.standard_normal((300, 2))
    X[:, 0] += np.array([0.0, 12.0, 90.0])[y]
    model = ClusteringModuleGMM(k=3, random_state=0).fit(X)
    result = rank_features(model, X)
    assert (result.importances[:, 0] > 0).all()
    assert (result.ranking[:, 0] == 0).all()


def test_units_play_no_part(cls, seed):
    """Another unit and origin for all of X: the same fit, the same importances."""
    X, _ = blobs(seed)
    first = rank_features(quick(cls).fit(X), X).importances
    second = rank_features(quick(cls).fit(1024.0 * X + 64.0), 1024.0 * X + 64.0).importances
    np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-5 * np.abs(first).max())


def test_the_unit_of_one_feature_plays_no_part():
    """The same module, told in other units of a single feature."""
    X, _ = blobs()
    model = quick(ClusteringModuleGMM).fit(X)
    told = copy.deepcopy(model)
    unit = np.array([1.0, 8.0, 1.0, 0.25])
    with torch.no_grad():
        told.module_.clustering.weight /= torch.as_tensor(unit)
        told.module_.standardizer.offset *= torch.as_tensor(unit)
    told.cluster_centers_ = told.cluster_centers_ * unit
    np.testing.assert_allclose(told.predict_proba(X * unit), model.predict_proba(X), rtol=1e-12)
    first, second = rank_features(model, X), rank_features(told, X * unit)
    np.testing.assert_allclose(first.importances, second.importances, rtol=1e-12)
    np.testing.assert_array_equal(first.ranking, second.ranking)


def test_saturated_responsibilities(dtype):
    """Where g is 0 and 1 to rounding, the log-odds still have their slope."""
    X, _ = blobs(dtype=dtype)
    model = ClusteringModuleGMM(k=3, random_state=0).fit(X)
    with torch.no_grad():
        model.module_.clustering.weight *= 1e4
        model.module_.clustering.bias *= 1e4
    assert model.predict_proba(X).max(axis=1).min() == 1.0
    result = rank_features(model, X)
    assert np.isfinite(result.importances).all()
    assert result.importances.max(axis=1).min() > 1e4


@pytest.mark.parametrize("sparse", [sp.csr_matrix, sp.csr_array, sp.coo_matrix])
def test_sparse_equals_dense(cls, sparse):
    X, _ = blobs()
    X[np.abs(X) < 1] = 0
    model = quick(cls).fit(X)
    np.testing.assert_allclose(
        rank_features(model, sparse(X)).importances, rank_features(model, X).importances, rtol=1e-9
    )
    np.testing.assert_array_equal(
        assignment_entropy(model, sparse(X)), assignment_entropy(model, X)
    )


def test_batches_do_not_matter(cls, monkeypatch):
    X, _ = blobs()
    model = quick(cls).fit(X)
    whole = rank_features(model, X).importances
    monkeypatch.setattr("skaecm.inspection.MOST_ROWS", 7)
    parts = rank_features(model, X).importances
    np.testing.assert_allclose(whole, parts, rtol=1e-9, atol=1e-9 * np.abs(whole).max())


def test_one_cluster_has_nothing_to_be_separated_from(cls):
    X, _ = blobs()
    model = quick(cls, k=1).fit(X)
    result = rank_features(model, X)
    assert not result.importances.any()
    np.testing.assert_array_equal(result.ranking, [[0, 1, 2, 3]])
    assert not assignment_entropy(model, X).any()


@pytest.mark.filterwarnings("ignore:Only:sklearn.exceptions.ConvergenceWarning")
def test_empty_clusters_are_finite():
    X, _ = blobs()
    model = quick(ClusteringModuleGMM, k=3, init=np.vstack([X[:2], 1e3 * np.ones(4)])).fit(X)
    assert np.isfinite(rank_features(model, X).importances).all()
    assert np.isfinite(rank_features(model, X[:1]).importances).all()


def test_names():
    pd = pytest.importorskip("pandas")
    X, _ = blobs()
    plain = rank_features(quick(ClusteringModuleGMM).fit(X), X)
    assert list(plain.feature_names) == ["x0", "x1", "x2", "x3"]
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    named = rank_features(quick(ClusteringModuleGMM).fit(frame), frame)
    assert list(named.feature_names) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(named.importances, plain.importances)


def test_nothing_changes(cls):
    """Neither the fit, nor X, nor torch's switch, whichever way it is set."""
    X, _ = blobs()
    model = quick(cls).fit(X)
    before, kept = copy.deepcopy(model.module_.state_dict()), X.copy()
    expected = rank_features(model, X).importances
    with torch.no_grad():
        np.testing.assert_array_equal(rank_features(model, X).importances, expected)
        assert not torch.is_grad_enabled()
    for name, value in model.module_.state_dict().items():
        assert torch.equal(value, before[name])
    np.testing.assert_array_equal(X, kept)


def test_other_estimators_are_refused():
    X, _ = blobs()
    pipeline = make_pipeline(StandardScaler(), quick(ClusteringModuleGMM)).fit(X)
    with pytest.raises(TypeError, match=r"but is a Pipeline\. Of a pipeline, pass the last step"):
        rank_features(pipeline, X)
    with pytest.raises(TypeError, match="must have predict_proba, but is a KMeans"):
        assignment_entropy(KMeans(), X)


@pytest.mark.parametrize("function", [rank_features, assignment_entropy])
def test_bad_input(cls, function):
    X, _ = blobs()
    with pytest.raises(NotFittedError, match="not fitted"):
        function(quick(cls), X)
    model = quick(cls).fit(X)
    with pytest.raises(ValueError, match="X has 2 features, but"):
        function(model, X[:, :2])
    with pytest.raises(ValueError, match="NaN"):
        function(model, np.where(X[0, 0] == X, np.nan, X))
    with pytest.raises(ValueError, match="0 sample"):
        function(model, X[:0])


class Responsibilities(BaseEstimator):
    """Given responsibilities, whatever the rows."""

    def fit(self, X):
        return self

    def predict_proba(self, X):
        return X


def test_entropy_is_that_of_its_definition(dtype):
    g = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4], dtype=dtype)
    entropy = assignment_entropy(Responsibilities(), g)
    assert entropy.dtype == dtype
    np.testing.assert_allclose(entropy, [0, np.log(2), np.log(4)], rtol=1e-6)
    rounded_up = np.array([[1 + 1e-6, 0]], dtype=dtype)
    assert assignment_entropy(Responsibilities(), rounded_up)[0] == 0


def test_entropy_of_pipelines_and_mixtures(cls):
    X, _ = blobs()
    model = quick(cls).fit(X)
    entropy = assignment_entropy(model, X)
    assert entropy.shape == (90,)
    assert ((entropy >= 0) & (entropy <= np.log(3) + 1e-6)).all()
    pipeline = make_pipeline(StandardScaler(), quick(cls)).fit(X)
    np.testing.assert_array_equal(
        assignment_entropy(pipeline, X),
        assignment_entropy(pipeline[-1], pipeline[:-1].transform(X)),
    )
    mixture = GaussianMixture(3, random_state=0).fit(X)
    assert assignment_entropy(mixture, X).shape == (90,)
