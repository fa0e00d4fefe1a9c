"""Time, memory and likelihood of ClusteringModuleGMM beside KMeans and GaussianMixture.

For `speed.py`: every estimator with its defaults and one start, in turns, so that a slow
spell of the machine hits all of them.
"""

import multiprocessing
import os
import resource
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from skaecm import ClusteringModuleGMM

COMPARED = {
    "module": lambda k, seed: ClusteringModuleGMM(k, random_state=seed),
    "KMeans": lambda k, seed: KMeans(k, n_init=1, random_state=seed),
    "MiniBatchKMeans": lambda k, seed: MiniBatchKMeans(k, n_init=1, random_state=seed),
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


def touching_blobs():
    """10^6 rows of 50 clusters that overlap."""
    return blobs(spread=1.0)


def distant_blobs():
    """10^6 rows of 50 clusters far apart."""
    return blobs(spread=3.0)


def mnist():
    """All 70,000 digits, divided by 255, in float32."""
    images = np.load(Path(os.environ["SKAECM_DATA"]) / "mnist.npz")["x"]
    return images.reshape(len(images), -1).astype(np.float32) / 255, 10


def data_sets():
    """Names and the functions that make them; real data where SKAECM_DATA names a folder."""
    sets = {"blobs, touching": touching_blobs, "blobs, far apart": distant_blobs}
    return {"mnist": mnist, **sets} if os.environ.get("SKAECM_DATA") else sets


def measure(make, repeats=3):
    """Median seconds, ratios to the module's, and mean log-likelihood of a data set.

    Returns a dict of dicts by estimator: "seconds"; "ratio", the median over turns of
    the module's time as a share of the estimator's; "score" where there is one.
    """
    X, k = make()
    # What is loaded on first use is loaded before the clock runs.
    for build in COMPARED.values():
        fit(build(k, 0), X[: 100 * k])
    seconds = {name: [] for name in COMPARED}
    scores = {name: [] for name in COMPARED}
    for seed in range(repeats):
        for name, build in COMPARED.items():
            begin = time.perf_counter()
            model = fit(build(k, seed), X)
            seconds[name].append(time.perf_counter() - begin)
            # The score of k-means is minus a distortion, no likelihood.
            if "KMeans" not in name:
                scores[name].append(model.score(X))
    module = np.array(seconds["module"])
    return {
        name: {
            "seconds": float(np.median(seconds[name])),
            "ratio": float(np.median(module / seconds[name])),
        }
        | ({"score": float(np.mean(scores[name]))} if scores[name] else {})
        for name in COMPARED
    }


def fit(model, X):
    """``model`` fitted; any of them may stop at its own max_iter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X)


def peak_of_fit(make, name):
    """MiB that a fit takes on top of the data, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return {"peak_mib": round(pool.apply(_peak_of_fit, (make, name)), 1)}


def _peak_of_fit(make, name):
    X, k = make()
    fit(COMPARED[name](k, 0), X[: 100 * k])
    before = resident_peak()
    fit(COMPARED[name](k, 0), X)
    return resident_peak() - before


def resident_peak():
    """MiB of memory that this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():
        # ru_maxrss would contain the process that started this one.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
