"""The runs of a fit side by side: those of one after the other, and who may not follow them."""

import joblib
import numpy as np
import pytest
import torch
from helpers import AT_ONCE, assert_same_fit, blobs, overlapping, quick
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skaecm import ClusteringModuleGMM, DeepAEClustering

pytestmark = pytest.mark.skipif(
    not hasattr(joblib, "parallel_config"), reason="needs joblib 1.3 to choose a backend"
)

STARTS = {"init": "k-means++", "n_init": 5}


@pytest.fixture(autouse=True)
def one_thread():
    """Bits are the same for one number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_runs_side_by_side_are_those_in_turn(cls, seed, backend):
    X = overlapping(seed)
    in_turn = quick(cls, **STARTS, tol=1e-2).fit(X)
    model = quick(cls, **STARTS, tol=1e-2, n_jobs=2)
    with joblib.parallel_config(backend):
        model.fit(X)
    assert_same_fit(model, in_turn)
    assert torch.get_num_threads() == 1


def test_a_context_of_joblib_is_used(cls, seed, monkeypatch):
    X = overlapping(seed)
    in_turn = quick(cls, **STARTS).fit(X)
    used = []
    monkeypatch.setattr(
        "skaecm._runs.Parallel", lambda **how: used.append(how) or joblib.Parallel(**how)
    )
    with joblib.parallel_config("threading", n_jobs=2):
        assert_same_fit(quick(cls, **STARTS).fit(X), in_turn)
    assert [how["n_jobs"] for how in used] == [2]


def test_partners_weights_and_missing_entries_go_along(cls, seed):
    X = overlapping(seed)
    rng = np.random.RandomState(seed)
    weight = rng.uniform(size=len(X))
    adjacency = np.abs(X[:, None] - X).sum(axis=2) < 4
    models = [quick(cls, **STARTS, n_neighbors=3, n_jobs=n_jobs) for n_jobs in (None, 2)]
    for model in models:
        model.fit(X, sample_weight=weight, adjacency=adjacency)
    assert_same_fit(*models)
    X[rng.uniform(size=X.shape) < 0.05] = np.nan
    models = [quick(cls, **STARTS, missing="mask", n_jobs=n_jobs).fit(X) for n_jobs in (None, 2)]
    assert_same_fit(*models)


def test_functions_of_the_user_go_along(seed):
    X = overlapping(seed)

    def recipe(n_features, n_components, generator):
        layers = (
            torch.nn.Linear(n_features, n_components),
            torch.nn.Linear(n_components, n_features),
        )
        return tuple(layer.double() for layer in layers)

    settings = {"autoencoder": recipe, "augment": lambda batch, generator: batch + 0.1}
    models = [quick(DeepAEClustering, **STARTS, **settings, n_jobs=n).fit(X) for n in (None, 2)]
    assert_same_fit(*models)


def test_counted_clusters_and_later_fits(cls, seed):
    X, _ = blobs(seed, n=200, k=4)
    models = [quick(cls, k="auto", **STARTS, n_jobs=n).fit(X) for n in (None, 2)]
    assert_same_fit(*models)
    assert_same_fit(*(model.partial_fit(X) for model in models))


def test_the_warnings_of_workers_are_warnings_here(seed):
    X = np.repeat(np.eye(3), 10, axis=0)
    model = ClusteringModuleGMM(k=5, n_init=2, n_jobs=2, random_state=seed, **AT_ONCE)
    with joblib.parallel_config("loky"), pytest.warns(ConvergenceWarning) as log:
        model.fit(X)
    text = [str(warning.message) for warning in log]
    assert any(line.startswith("Number of distinct clusters (3)") for line in text)
    assert any(line.startswith("Only 3 of k=5 clusters") for line in text)


def test_what_fails_in_a_worker_fails_here(seed):
    def broken(batch, generator):
        raise ValueError("no copies today")

    model = quick(ClusteringModuleGMM, **STARTS, n_jobs=2, augment=broken)
    with pytest.raises(ValueError, match="no copies today"):
        model.fit(overlapping(seed))
    assert not hasattr(model, "labels_")


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_who_follows_the_runs_is_named(cls, n_jobs, tmp_path):
    X, _ = blobs(0)
    for name, follower in {"callback": print, "checkpoint": tmp_path}.items():
        model = quick(cls, **STARTS, n_jobs=n_jobs, **{name: follower})
        with pytest.raises(ValueError, match=f"n_jobs={n_jobs} trains .* where {name} cannot"):
            model.fit(X)
        assert not hasattr(model, "labels_")


def test_one_run_can_be_followed(cls, seed):
    X, _ = blobs(seed)
    rows = []
    model = quick(cls, n_jobs=2, callback=rows.append).fit(X)
    assert len(rows) == len(model.history_)
    with joblib.parallel_config("threading", n_jobs=2):
        quick(cls, **STARTS, callback=rows.append).fit(X)
    assert {row["run"] for row in rows} >= {1, 5}


def test_no_jobs_at_all(cls):
    X, _ = blobs(0)
    with pytest.raises(ValueError, match="n_jobs == 0"):
        quick(cls, **STARTS, n_jobs=0).fit(X)


def test_inside_a_grid_search(seed):
    X, _ = blobs(seed)
    search = GridSearchCV(
        quick(ClusteringModuleGMM, **STARTS), {"alpha": [0.0, 0.2]}, cv=2, error_score="raise"
    )
    both = clone(search).set_params(n_jobs=2, estimator__n_jobs=2).fit(X)
    scores = search.fit(X).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(both.cv_results_["mean_test_score"], scores)


def test_lines_of_progress_come_from_the_workers(cls, seed, capsys):
    model = quick(cls, **STARTS, n_jobs=2, verbose=1)
    with joblib.parallel_config("threading"):
        model.fit(overlapping(seed))
    out, err = capsys.readouterr()
    assert out == ""
    for number in range(1, 6):
        assert f"[{cls.__name__}, run {number} of 5] training 1: loss" in err


def test_on_a_cluster_of_dask(seed):
    cls = DeepAEClustering
    distributed = pytest.importorskip("distributed")
    X = overlapping(seed)
    in_turn = quick(cls, **STARTS).fit(X)
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        model = quick(cls, **STARTS).fit(X)
        search = GridSearchCV(quick(cls), {"k": [2, 3]}, cv=2, error_score="raise").fit(X)
    assert_same_fit(model, in_turn)
    alone = GridSearchCV(quick(cls), {"k": [2, 3]}, cv=2).fit(X)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"]
    )
