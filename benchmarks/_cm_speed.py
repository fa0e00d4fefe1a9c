"""Time, memory and likelihood of ClusteringModuleGMM beside KMeans and GaussianMixture.

`measure` is the whole of it: every estimator with its defaults and one start, in
turns, so that a slow spell of the machine hits all of them.
"""

import multiprocessing
import os
import resource
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skaecm import ClusteringModuleGMM

ESTIMATORS = {
    "module": lambda k, seed: ClusteringModuleGMM(k, random_state=seed),
    "KMeans": lambda k, seed: KMeans(k, n_init=1, random_state=seed),
    "spherical": lambda k, seed: GaussianMixture(
        k, covariance_type="spherical", n_init=1, random_state=seed
    ),
}


def blobs(n=1_000_000, d=32, k=50, spread=1.0, seed=0):
    """Round clusters in float32, their centres drawn ``spread`` deviations wide."""
    rng = np.random.default_rng(seed)
    centers = spread * rng.standard_normal((k, d), dtype=np.float32)
    X = centers[rng.integers(k, size=n)]
    X += rng.standard_normal((n, d), dtype=np.float32)
    return X, k


def mnist(folder):
    """All 70,000 digits, divided by 255, in float32."""
    images = np.load(Path(folder) / "mnist.npz")["x"]
    return images.reshape(len(images), -1).astype(np.float32) / 255, 10


def data_sets():
    """Names and the functions that make them; real data where SKAECM_DATA names a folder."""
    sets = {
        "blobs, touching": lambda: blobs(spread=1.0),
        "blobs, far apart": lambda: blobs(spread=3.0),
    }
    folder = os.environ.get("SKAECM_DATA")
    return {"mnist": lambda: mnist(folder), **sets} if folder else sets


def measure(make, repeats=3):
    """Median seconds, ratios to the module's, and mean log-likelihood of a data set.

    Returns a dict of dicts by estimator: "seconds"; "ratio", the median over turns of
    the module's time as a share of the estimator's; "score" where there is one.
    """
    X, k = make()
    # What is loaded on first use is loaded before the clock runs.
    for build in ESTIMATORS.values():
        fit(build(k, 0), X[: 100 * k])
    seconds = {name: [] for name in ESTIMATORS}
    scores = {name: [] for name in ESTIMATORS}
    for seed in range(repeats):
        for name, build in ESTIMATORS.items():
            begin = time.perf_counter()
            model = fit(build(k, seed), X)
            seconds[name].append(time.perf_counter() - begin)
            # The score of KMeans is minus a distortion, no likelihood.
            scores[name].append(np.nan if name == "KMeans" else model.score(X))
    module = np.array(seconds["module"])
    return {
        name: {
            "seconds": float(np.median(seconds[name])),
            "ratio": float(np.median(module / seconds[name])),
            "score": float(np.mean(scores[name])),
        }
        for name in ESTIMATORS
    }


def fit(model, X):
    """``model`` fitted; EM may stop at its own max_iter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X)


def peak_memory(make, name):
    """MiB that a fit takes on top of the data, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (make, name))


def _peak_memory(make, name):
    X, k = make()
    fit(ESTIMATORS[name](k, 0), X[: 100 * k])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    fit(ESTIMATORS[name](k, 0), X)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def report(name, figures):
    """Lines of a table."""
    for estimator, row in figures.items():
        print(
            f"{name:18s} {estimator:10s} {row['seconds']:8.2f} s   module / this "
            f"{row['ratio']:6.2f}   log-likelihood {row['score']:9.4f}",
            flush=True,
        )
