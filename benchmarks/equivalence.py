"""Does the clustering module find what EM finds? The paper's first experiment.

ClusteringModuleGMM, EM for the very same model (isotropic components, one shared
variance), scikit-learn's GaussianMixture(covariance_type="spherical") and KMeans
start from the same centres: those of the module's own start in its default settings,
of the best of some runs of k-means, or rows drawn by k-means++. For each data set the
table shows the adjusted Rand index of every partition with that of the EM twin, and
the gap between the mean log-likelihoods of the twin and the module, as a share of what
the twin gains over one isotropic Gaussian.

    python benchmarks/equivalence.py --seeds 20

Blobs are made here. Real sets are read from the folder that the environment
variable SKAECM_DATA names, and left out where it is not set.
"""

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.base import clone
from sklearn.cluster import KMeans, kmeans_plusplus
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.mixture import GaussianMixture

from skaecm import ClusteringModuleGMM

# Starts at the centres of k-means, by the runs of which the best is taken.
KMEANS_RUNS = {"10 k-means": 10, "1 k-means": 1}


def em_twin(X, centers, max_iter=5000, tol=1e-9):
    """EM for isotropic components of one shared variance; labels and mean log-likelihood."""
    n, d = X.shape
    weights = np.full(len(centers), 1 / len(centers))
    variance = euclidean_distances(X, centers, squared=True).min(axis=1).sum() / (n * d)
    previous = -np.inf
    for _ in range(max_iter):
        squared = euclidean_distances(X, centers, squared=True)
        log_joint = np.log(weights) - squared / (2 * variance)
        log_joint -= d / 2 * np.log(2 * np.pi * variance)
        log_prob = logsumexp(log_joint, axis=1)
        g = np.exp(log_joint - log_prob[:, None])
        if log_prob.mean() - previous < tol:
            break
        previous = log_prob.mean()
        size = np.maximum(g.sum(axis=0), 1e-300)
        weights, centers = size / n, (g.T @ X) / size[:, None]
        variance = (g * euclidean_distances(X, centers, squared=True)).sum() / (n * d)
    return g.argmax(axis=1), log_prob.mean()


def compare(X, k, start, seed):
    """Figures of one data set from one start."""
    if start == "default":
        module = ClusteringModuleGMM(k, random_state=seed)
        centers = clone(module).set_params(max_iter=0).fit(X).cluster_centers_
    elif start in KMEANS_RUNS:
        kmeans = KMeans(k, n_init=KMEANS_RUNS[start], random_state=seed)
        centers = kmeans.fit(X).cluster_centers_
    else:
        centers, _ = kmeans_plusplus(X, k, random_state=seed)
    if start != "default":
        module = ClusteringModuleGMM(k, init=centers, random_state=seed)
    labels, log_likelihood = em_twin(X, centers)
    one = norm.logpdf(X - X.mean(axis=0), scale=np.sqrt(X.var(axis=0).mean())).sum(axis=1).mean()
    kmeans = KMeans(k, init=centers, n_init=1).fit(X)
    mixture = GaussianMixture(
        k, covariance_type="spherical", means_init=centers, random_state=seed
    ).fit(X)
    module.fit(X)
    return {
        "module": adjusted_rand_score(labels, module.labels_),
        "spherical": adjusted_rand_score(labels, mixture.predict(X)),
        "KMeans": adjusted_rand_score(labels, kmeans.labels_),
        "gap": (log_likelihood - module.score(X)) / (log_likelihood - one),
        "epochs": module.n_iter_,
        "converged": module.converged_,
    }


def blobs(seed, separation):
    """Equal isotropic blobs whose centres lie at least ``separation`` deviations apart."""
    rng = np.random.default_rng(seed)
    k, d = int(rng.integers(2, 11)), int(rng.integers(2, 51))
    centers = rng.normal(size=(k, d))
    nearest = (euclidean_distances(centers) + np.diag(np.full(k, np.inf))).min()
    centers *= separation / nearest
    labels = rng.integers(k, size=200 * k)
    return centers[labels] + rng.normal(size=(len(labels), d)), k


def report(name, rows):
    """One line of the table: means, the worst ARI of the module and the worst gap."""
    mean = {key: np.mean([row[key] for row in rows]) for key in rows[0]}
    worst = min(row["module"] for row in rows)
    print(
        f"{name:34s} {len(rows):5d} {mean['module']:7.3f} {worst:7.3f} {mean['spherical']:9.3f} "
        f"{mean['KMeans']:7.3f} {100 * mean['gap']:9.3f} "
        f"{100 * max(row['gap'] for row in rows):9.3f} {mean['epochs']:7.1f} "
        f"{mean['converged']:5.2f}",
        flush=True,
    )


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="blobs of so many seeds")
    parser.add_argument("--real-seeds", type=int, default=5, help="starts on real data")
    arguments = parser.parse_args()
    # sklearn's EM may stop at its own max_iter; its partition is compared as it is.
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("ARI with the EM twin of the same model; gap in % of the twin's gain over one Gaussian")
    print(
        f"{'data, start':34s} {'runs':>5s} {'module':>7s} {'worst':>7s} {'spherical':>9s} "
        f"{'KMeans':>7s} {'gap':>9s} {'worst gap':>9s} {'epochs':>7s} {'conv':>5s}"
    )
    for start in ("default", *KMEANS_RUNS, "k-means++"):
        for separation, label in ((8, "separated blobs"), (4, "touching blobs")):
            rows = []
            for seed in range(arguments.seeds):
                X, k = blobs(seed, separation)
                rows.append(compare(X, k, start, seed))
            report(f"{label}, {start}", rows)
        folder = os.environ.get("SKAECM_DATA")
        for name in ("pendigits", "usps") if folder else ():
            X = np.load(Path(folder) / f"{name}.npz")["x"].astype(np.float64)
            report(
                f"{name}, {start}",
                [compare(X, 10, start, seed) for seed in range(arguments.real_seeds)],
            )


if __name__ == "__main__":
    main()
