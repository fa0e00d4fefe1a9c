"""The candidates of ``selection.py``: what a fit is worth, from rows without labels.

A judge takes a `Case`, a fitted estimator and the rows that it was not fitted on, and
gives a number, higher for better. Some are controls, of which nothing is hoped.
"""

from functools import cached_property

import numpy as np
from scipy.special import logsumexp
from scipy.stats import entropy, rankdata
from sklearn.cluster import KMeans
from sklearn.metrics import (
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    pairwise_distances,
    silhouette_score,
)
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KNeighborsClassifier

from skaecm import _mixtures
from skaecm._graph import modularity, neighbour_graph, overlap
from skaecm.metrics import neighbor_information_score

EPS = 0.1
TINY = 1e-12


class Judged:
    """What all fits of a data set are judged on: rows, their distances and neighbours."""

    def __init__(self, X, X_fit):
        self.X, self.X_fit = X, X_fit
        self.graphs = {n: neighbour_graph(X.astype(np.float64), n) for n in (5, 10, 30)}
        scale = X.std(axis=0, dtype=np.float64)
        noise = np.random.default_rng(0).standard_normal(X.shape) * scale
        self.noisy = (X + 0.5 * noise).astype(X.dtype)

    @cached_property
    def distances(self):
        return pairwise_distances(self.X.astype(np.float64))


class Case:
    """A fit and the rows to judge it on."""

    def __init__(self, model, rows):
        self.model, self.rows = model, rows
        X = rows.X
        self.z = model.transform(X).astype(np.float64)
        self.g = model.predict_proba(X).astype(np.float64)
        self.labels = self.g.argmax(axis=1)
        self.gbar = self.g.mean(axis=0)


# Likelihoods
# -----------


def decoded_prototypes(case):
    """The mixture of the decoded centroids, all of one variance."""
    model = case.model
    mixture = model.weights_, model.cluster_centers_, model.covariances_
    return _mixtures.log_density(case.rows.X, *mixture).mean()


def input_likelihood(case):
    """The integral over the code, the decoder straight about the code of every row."""
    return case.model.score_samples(case.rows.X).mean()


def embedding_gain(case):
    """The mixture's log-likelihood in the embedding over that of one Gaussian."""
    model, z = case.model, case.z
    one = GaussianMixture(1, covariance_type="full").fit(z)
    return _embedding_likelihood(model, z) - one.score(z)


def _embedding_likelihood(model, z):
    variance = max(float(model.embedding_covariances_[0]), 1e-9)
    squared = ((z[:, None] - model.embedding_centers_[None]) ** 2).sum(axis=2)
    log_components = -0.5 * (z.shape[1] * np.log(2 * np.pi * variance) + squared / variance)
    return logsumexp(np.log(np.maximum(model.weights_, TINY)) + log_components, axis=1).mean()


def reconstruction(case):
    X = case.rows.X
    error = X - case.model.inverse_transform(case.z.astype(X.dtype))
    return -float(np.mean(error.astype(np.float64) ** 2))


# Indices
# -------


def _several(index):
    def judged(z, labels):
        return index(z, labels) if len(np.unique(labels)) > 1 else np.nan

    return judged


silhouette = _several(silhouette_score)
calinski_harabasz = _several(calinski_harabasz_score)
davies_bouldin = _several(lambda z, labels: -davies_bouldin_score(z, labels))
INDICES = {
    "silhouette": silhouette,
    "Calinski-Harabasz": calinski_harabasz,
    "Davies-Bouldin": davies_bouldin,
}


def silhouette_in_x(case):
    if len(np.unique(case.labels)) < 2:
        return np.nan
    return silhouette_score(case.rows.distances, case.labels, metric="precomputed")


# Neighbours
# ----------


def modularity_of(n):
    return lambda case: modularity(overlap(case.labels, case.rows.graphs[n], case.model.k))


def _soft_shares(g, graph):
    shares = g.T @ (graph @ g)
    return shares / shares.sum()


def soft_modularity(case):
    return modularity(_soft_shares(case.g, case.rows.graphs[10]))


def agreement(case):
    """The share of the edges inside clusters."""
    return float(np.trace(overlap(case.labels, case.rows.graphs[10], case.model.k)))


def normalised_cut(case):
    """Minus the mean share of its edges that a cluster has with others."""
    shares = overlap(case.labels, case.rows.graphs[10], case.model.k)
    size = shares.sum(axis=1)
    kept = size > 0
    # An empty cluster is as bad as one cut off entirely from itself.
    return float(np.sum(np.diag(shares)[kept] / size[kept])) / len(size) - 1.0


def _mutual_information(shares):
    size = shares.sum(axis=1)
    kept = shares > 0
    return float((shares[kept] * np.log(shares[kept] / np.outer(size, size)[kept])).sum())


def label_information(n):
    """The mutual information of the clusters of two neighbours."""
    return lambda case: _mutual_information(overlap(case.labels, case.rows.graphs[n], case.model.k))


def normalised_information(case):
    """The same as a share of the entropy of the clusters."""
    shares = overlap(case.labels, case.rows.graphs[10], case.model.k)
    return _mutual_information(shares) / max(entropy(shares.sum(axis=1)), TINY)


def _log_lift(g, partner, gbar):
    lift = (g * partner / np.maximum(gbar, TINY)).sum(axis=-1)
    return np.log((1 - EPS) * lift + EPS)


def pair_lift(n, hard=False):
    """The mean log-lift of neighbours: the objective of pairs in a fit."""

    def judge(case):
        graph = case.rows.graphs[n].tocoo()
        g = np.eye(case.model.k)[case.labels] if hard else case.g
        rows = _log_lift(g[graph.row], g[graph.col], g.mean(axis=0))
        return float(rows.mean())

    return judge


def noise_lift(case):
    """The mean log-lift of rows and noisy copies."""
    partner = case.model.predict_proba(case.rows.noisy).astype(np.float64)
    return float(_log_lift(case.g, partner, case.gbar).mean())


def noise_agreement(case):
    """The adjusted Rand index of the clusters of rows and of noisy copies."""
    return adjusted_rand_score(case.labels, case.model.predict(case.rows.noisy))


# Agreement with another clustering
# ---------------------------------


def kmeans_agreement(case):
    """The adjusted Rand index with k-means on the codes of the judged rows."""
    found = KMeans(case.model.k, n_init=5, random_state=0).fit_predict(case.z)
    return adjusted_rand_score(case.labels, found)


def neighbour_prediction(case):
    """The adjusted Rand index with the labels that the fitted rows give to nearest rows of X."""
    model = case.model
    classifier = KNeighborsClassifier(10).fit(case.rows.X_fit, model.labels_)
    return adjusted_rand_score(case.labels, classifier.predict(case.rows.X))


# Controls
# --------


def balance(case):
    return float(entropy(np.bincount(case.labels, minlength=case.model.k)))


def confidence(case):
    return float(case.g.max(axis=1).mean())


def information_maximisation(case):
    """Entropy of the mean minus the mean entropy of the responsibilities."""
    return float(entropy(case.gbar) - entropy(case.g, axis=1).mean())


JUDGES = {
    "decoded prototypes": decoded_prototypes,
    "input likelihood": input_likelihood,
    "reconstruction": reconstruction,
    "embedding gain": embedding_gain,
    **{
        f"{name}, embedding": lambda case, index=index: index(case.z, case.labels)
        for name, index in INDICES.items()
    },
    "silhouette, X": silhouette_in_x,
    "Calinski-Harabasz, X": lambda case: calinski_harabasz(case.rows.X, case.labels),
    "Davies-Bouldin, X": lambda case: davies_bouldin(case.rows.X, case.labels),
    "modularity, 5": modularity_of(5),
    "modularity, 10 (score)": lambda case: case.model.score(case.rows.X),
    "modularity, 30": modularity_of(30),
    "soft modularity, 10": soft_modularity,
    "edges inside, 10": agreement,
    "normalised cut, 10": normalised_cut,
    "information, 5": label_information(5),
    "information, 10": lambda case: neighbor_information_score(case.model, case.rows.X),
    "information, 30": label_information(30),
    "normalised information, 10": normalised_information,
    "pair lift, 5": pair_lift(5),
    "pair lift, 10": pair_lift(10),
    "pair lift, 30": pair_lift(30),
    "hard pair lift, 10": pair_lift(10, hard=True),
    "noise lift": noise_lift,
    "noise agreement": noise_agreement,
    "k-means agreement": kmeans_agreement,
    "neighbour prediction": neighbour_prediction,
    "balance": balance,
    "confidence": confidence,
    "information maximisation": information_maximisation,
    "minus loss": lambda case: -case.model.loss_,
}


# All settings together
# ---------------------


def silhouette_of(distances, labels):
    """`silhouette_score` of given distances (n, n), by one matrix product."""
    number, size = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    if len(size) < 2:
        return np.nan
    totals = distances @ np.eye(len(size))[number]
    rows = np.arange(len(labels))
    own = totals[rows, number] / np.maximum(size[number] - 1, 1)
    means = totals / size
    means[rows, number] = np.inf
    nearest = means.min(axis=1)
    values = (nearest - own) / np.maximum(np.maximum(own, nearest), TINY)
    return float(np.where(size[number] > 1, values, 0.0).mean())


def pooled(cases):
    """The mean rank of the clusters of every case, over the embeddings of all of them.

    An index of a clustering in its own embedding compares numbers of different spaces. Here
    every space judges all clusterings, and all spaces count alike: the pooled score of
    arXiv 2403.14830, without its choice among the spaces.
    """
    ranks = {judge: np.zeros(len(cases)) for judge in POOLED}
    for space in cases:
        distances = pairwise_distances(space.z)
        values = {
            "silhouette, pooled": [silhouette_of(distances, case.labels) for case in cases],
            "Calinski-Harabasz, pooled": [
                calinski_harabasz(space.z, case.labels) for case in cases
            ],
            "Davies-Bouldin, pooled": [davies_bouldin(space.z, case.labels) for case in cases],
        }
        for judge in POOLED:
            ranks[judge] += rankdata(np.nan_to_num(values[judge], nan=-np.inf)) / len(cases)
    return ranks


POOLED = dict.fromkeys(f"{name}, pooled" for name in INDICES)
