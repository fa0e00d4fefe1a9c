"""A search over the number of clusters, without labels."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import assert_same_fit, blobs, quick
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state, estimator_checks

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.selection import KSearch, best_k

K_VALUES = [2, 3, 4, 5]


def small(cls, **params):
    """A quick estimator that is wide enough for every k."""
    width = {"n_components": 5} if cls is DeepAEClustering else {}
    return quick(cls, **width, **params)


def silhouette(estimator, X):
    labels = estimator.predict(X)
    return silhouette_score(X, labels) if len(set(labels)) > 1 else -1.0


def search(estimator, criterion, **params):
    return KSearch(estimator, K_VALUES, criterion=criterion, random_state=0, **params)


@pytest.mark.parametrize("criterion", ["score", "stability", silhouette])
def test_separated_clusters_are_found(cls, seed, criterion):
    X, _ = blobs(seed, n=180)
    settings = {"pretrain_iter": 30} if cls is DeepAEClustering else {}
    model = small(cls, **settings)
    found = search(model, criterion).fit(X)
    assert found.best_k_ in (K_VALUES if criterion == "score" else [3])
    assert_same_fit(found.best_estimator_, clone(model).set_params(k=found.best_k_).fit(X))
    np.testing.assert_array_equal(found.labels_, found.best_estimator_.labels_)
    np.testing.assert_array_equal(found.predict(X), found.labels_)
    np.testing.assert_array_equal(found.transform(X), found.best_estimator_.transform(X))
    assert found.score(X) == found.best_estimator_.score(X)
    assert found.n_features_in_ == X.shape[1]
    assert model.k == 3


def seed_of(random_state):
    return check_random_state(random_state).randint(2**31 - 1)


def test_scores_are_those_of_held_out_rows(seed):
    X, _ = blobs(seed)
    found = search(quick(ClusteringModuleGMM), "score").fit(X)
    folds = list(KFold(3, shuffle=True, random_state=seed_of(0)).split(X))
    for i, k in enumerate(K_VALUES):
        model = quick(ClusteringModuleGMM, k=k)
        scores = [clone(model).fit(X[train]).score(X[test]) for train, test in folds]
        assert [found.results_[f"split{j}"][i] for j in range(3)] == scores
        assert found.results_["mean"][i] == pytest.approx(np.mean(scores))
        assert found.results_["std"][i] == pytest.approx(np.std(scores))


def test_stability_is_the_agreement_of_halves(seed):
    X, _ = blobs(seed)
    found = search(quick(ClusteringModuleGMM), "stability", n_splits=2).fit(X)
    halvings = ShuffleSplit(2, test_size=0.5, random_state=seed_of(0)).split(X)
    for j, halves in enumerate(halvings):
        for i, k in enumerate(K_VALUES):
            model = quick(ClusteringModuleGMM, k=k)
            labels = [clone(model).fit(X[np.sort(half)]).predict(X) for half in halves]
            assert found.results_[f"split{j}"][i] == adjusted_rand_score(*labels)


def test_bic_is_that_of_the_fits(seed):
    X, _ = blobs(seed)
    found = search(quick(ClusteringModuleGMM), "bic").fit(X)
    bic = [quick(ClusteringModuleGMM, k=k).fit(X).bic(X) for k in K_VALUES]
    np.testing.assert_array_equal(found.results_["mean"], bic)
    assert found.best_k_ == K_VALUES[int(np.argmin(bic))] == 3


def test_the_rules():
    k_values = np.array([2, 3, 4, 5])
    values = np.array([[0.0, 0.2], [0.7, 1.1], [0.85, 1.05], [0.3, 0.5]])
    assert best_k(k_values, values, "score") == best_k(k_values, values, print) == 3
    assert best_k(k_values, values[::-1], "stability") == 4
    assert best_k(k_values, values, "bic") == 2
    # Behind in every split is behind.
    values[1] = values[2] - 0.01
    assert best_k(k_values, values, "score") == best_k(k_values, values, "stability") == 4


def test_one_pretraining_serves_all(seed, monkeypatch):
    X, _ = blobs(seed)
    trained = []
    pretrain = DeepAEClustering._pretrain
    monkeypatch.setattr(
        DeepAEClustering,
        "_pretrain",
        lambda *args, **kw: trained.append(1) or pretrain(*args, **kw),
    )
    search(small(DeepAEClustering), "score").fit(X)
    assert len(trained) == 3 + 1
    trained.clear()
    search(small(DeepAEClustering, init="k-means++"), "score").fit(X)
    assert len(trained) == 3 * len(K_VALUES) + 1


def test_in_workers(cls, seed):
    X, _ = blobs(seed)
    alone = search(small(cls), "stability").fit(X)
    together = search(small(cls), "stability", n_jobs=2).fit(X)
    for name, values in alone.results_.items():
        np.testing.assert_array_equal(together.results_[name], values)
    assert_same_fit(together.best_estimator_, alone.best_estimator_)


def test_the_trace_is_a_table_in_order(seed):
    X, _ = blobs(seed)
    found = KSearch(quick(ClusteringModuleGMM), iter([4, 2, 3, 2]), random_state=0).fit(X)
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame(found.results_)
    assert table["k"].tolist() == [2, 3, 4]
    assert list(table.columns) == ["k", "mean", "std", "split0", "split1", "split2"]


def test_sparse_rows_lists_and_a_pipeline(seed):
    X, _ = blobs(seed)
    X[np.abs(X) < 1] = 0.0
    model = KSearch(quick(ClusteringModuleGMM), K_VALUES, criterion="bic")
    dense = clone(model).fit(X)
    np.testing.assert_array_equal(clone(model).fit(sp.csr_matrix(X)).labels_, dense.labels_)
    np.testing.assert_array_equal(clone(model).fit(X.tolist()).labels_, dense.labels_)
    pipeline = make_pipeline(StandardScaler(), model)
    assert pipeline.fit(X)[-1].best_k_ in K_VALUES


@pytest.mark.parametrize("k_values", [[], [0, 2], [2.5], ["3"]])
def test_wrong_numbers_are_named(k_values):
    with pytest.raises(ValueError, match="k_values must hold integers of at least 1"):
        KSearch(ClusteringModuleGMM(), k_values).fit(blobs(0)[0])


def test_bic_of_a_deep_estimator_is_refused():
    with pytest.raises(ValueError, match="criterion='bic' is for ClusteringModuleGMM"):
        KSearch(DeepAEClustering(), [2], criterion="bic").fit(blobs(0)[0])


@pytest.mark.parametrize("params", [{"criterion": "gap"}, {"n_splits": 1}, {"k_values": 3}])
def test_wrong_parameters_are_named(params):
    with pytest.raises(ValueError, match=f"The '{next(iter(params))}' parameter of KSearch"):
        KSearch(ClusteringModuleGMM(), [2]).set_params(**params).fit(blobs(0)[0])


@pytest.mark.parametrize(
    "check",
    [
        "check_clustering",
        "check_complex_data",
        "check_dict_unchanged",
        "check_estimators_dtypes",
        "check_estimators_fit_returns_self",
        "check_estimators_nan_inf",
        "check_estimators_pickle",
        "check_estimators_unfitted",
        "check_fit2d_predict1d",
        "check_get_params_invariance",
        "check_n_features_in",
        "check_parameters_default_constructible",
        "check_set_params",
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sklearn_check(check):
    found = KSearch(quick(ClusteringModuleGMM), [2, 3], n_splits=2)
    getattr(estimator_checks, check)("KSearch", found)
