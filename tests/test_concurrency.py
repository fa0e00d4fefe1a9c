"""Threads and processes: what runs at once gives what runs alone."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
from helpers import ROOT, assert_same_fit, blobs, quick
from sklearn.model_selection import GridSearchCV

SEEDS = range(6)


def fit_of(cls, seed, X):
    """One small fit, as a job for a worker."""
    return quick(cls, random_state=seed, n_iter_no_change=2).fit(X)


@pytest.mark.parametrize("missing", ["error", "mask"])
def test_predictions_of_eight_threads(cls, seed, missing):
    """200 calls on one estimator, of all kinds at once, are the serial ones bit for bit."""
    X, _ = blobs(seed, n=400)
    model = quick(cls, missing=missing).fit(X)
    if missing == "mask":
        X[np.random.RandomState(seed).uniform(size=X.shape) < 0.2] = np.nan
    methods = [model.predict, model.predict_proba, model.transform, model.score]
    jobs = [(methods[i % 4], X[i % 7 : 300 + i]) for i in range(100)]
    expected = [method(rows) for method, rows in jobs]
    at_once = threading.Barrier(8)
    with ThreadPoolExecutor(8, initializer=at_once.wait) as pool:
        found = list(pool.map(lambda job: job[0](job[1]), jobs + jobs))
    for value, other in zip(found, expected + expected, strict=True):
        np.testing.assert_array_equal(value, other)


def test_fits_in_threads_are_the_serial_ones(cls, seed):
    X, _ = blobs(seed)
    expected = [fit_of(cls, number, X) for number in SEEDS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda number: fit_of(cls, number, X), SEEDS))
    for fit, other in zip(found, expected, strict=True):
        assert_same_fit(fit, other)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_fits_in_workers_of_joblib_are_the_serial_ones(cls, seed, backend):
    X, _ = blobs(seed)
    expected = [fit_of(cls, number, X) for number in SEEDS]
    found = joblib.Parallel(2, backend=backend)(
        joblib.delayed(fit_of)(cls, number, X) for number in SEEDS
    )
    for fit, other in zip(found, expected, strict=True):
        assert_same_fit(fit, other)


def test_a_search_over_two_workers_is_the_serial_one(cls, seed):
    X, _ = blobs(seed)
    searches = [
        GridSearchCV(quick(cls, n_iter_no_change=2), {"k": [2, 3]}, cv=3, n_jobs=n_jobs).fit(X)
        for n_jobs in (1, 2)
    ]
    serial, parallel = (search.cv_results_["mean_test_score"] for search in searches)
    np.testing.assert_array_equal(serial, parallel)
    assert_same_fit(searches[0].best_estimator_, searches[1].best_estimator_)


# A script of its own: what has been forked must not be the process of the tests.
IN_PROCESSES = """
import multiprocessing, sys
import numpy as np
sys.path[:0] = {folders!r}
from helpers import BOTH, assert_same_fit, blobs
from test_concurrency import fit_of

if __name__ == "__main__":
    X, _ = blobs(0)
    expected = [fit_of(cls, 0, X) for cls in BOTH]  # torch has computed here before the fork
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        found = pool.starmap(fit_of, [(cls, 0, X) for cls in BOTH])
        labels = pool.map(expected[0].predict, [X])
    for fit, other in zip(found, expected):
        assert_same_fit(fit, other)
    np.testing.assert_array_equal(labels[0], expected[0].labels_)
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_fits_in_processes_are_those_of_the_parent(method, tmp_path):
    """With one thread a process: a fork that follows parallel work of torch may hang."""
    script = tmp_path / "fits.py"
    folders = [str(ROOT), str(ROOT / "tests")]
    script.write_text(IN_PROCESSES.format(folders=folders, method=method))
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
