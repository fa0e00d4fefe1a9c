"""Measures of a clustering: against known labels, and scorers that need none."""

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils import _safe_indexing, check_array, check_consistent_length
from sklearn.utils.validation import _num_samples

from ._modularity import judged_rows, neighbour_information, neighbour_modularity

__all__ = [
    "aligned_confusion_matrix",
    "clustering_accuracy",
    "log_likelihood_score",
    "modularity_score",
    "neighbor_information_score",
]


def clustering_accuracy(labels_true: Any, labels_pred: Any) -> float:
    """Accuracy under the best one-to-one matching of clusters and classes.

    Clusters are matched to classes, at most one to one, so that as many rows as
    possible lie in the class of their cluster (the Hungarian method); the rows of
    a cluster or class without a partner count as wrong.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes: numbers or strings.
    labels_pred : array-like of shape (n_samples,)
        Clusters, in any numbering.

    Returns
    -------
    accuracy : float
        Share of rows matched, between 0 and 1; 1 for no rows, as other measures
        of `sklearn.metrics.cluster` have it.

    Raises
    ------
    ValueError
        If an argument is not one-dimensional, holds NaN or the lengths differ.

    Examples
    --------
    >>> from skaecm.metrics import clustering_accuracy
    >>> clustering_accuracy(["a", "a", "b", "b"], [1, 1, 0, 0])
    1.0
    >>> clustering_accuracy([0, 0, 1, 1], [0, 1, 2, 2])
    0.75
    """
    matrix, _, _ = aligned_confusion_matrix(labels_true, labels_pred)
    return float(np.trace(matrix) / matrix.sum()) if matrix.size else 1.0


def aligned_confusion_matrix(
    labels_true: Any, labels_pred: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows by class and cluster, with matched classes and clusters on the diagonal.

    Clusters are matched to classes, at most one to one, so that as many rows as
    possible lie on the diagonal (the Hungarian method). A class without a cluster
    comes last. So does a cluster without a class, beside others that mostly hold
    the same class.

    Parameters
    ----------
    labels_true : array-like of shape (n_samples,)
        Known classes: numbers or strings.
    labels_pred : array-like of shape (n_samples,)
        Clusters, in any numbering.

    Returns
    -------
    matrix : ndarray of int of shape (n_classes, n_clusters)
        Number of rows of every class in every cluster. The share of the diagonal is
        `clustering_accuracy`.
    classes : ndarray of shape (n_classes,)
        The class of every row of the matrix.
    clusters : ndarray of shape (n_clusters,)
        The cluster of every column of the matrix.

    Raises
    ------
    ValueError
        If an argument is not one-dimensional, holds NaN or the lengths differ.

    Examples
    --------
    >>> from skaecm.metrics import aligned_confusion_matrix
    >>> matrix, classes, clusters = aligned_confusion_matrix(["a", "a", "b", "b"], [1, 1, 0, 2])
    >>> matrix
    array([[2, 0, 0],
           [0, 1, 1]])
    >>> classes.tolist(), clusters.tolist()
    (['a', 'b'], [1, 0, 2])
    """
    truth = _check_labels("labels_true", labels_true)
    found = _check_labels("labels_pred", labels_pred)
    check_consistent_length(truth, found)
    classes, clusters = np.unique(truth), np.unique(found)
    if len(truth) == 0:
        return np.zeros((0, 0), dtype=np.int64), classes, clusters
    counts = contingency_matrix(truth, found, dtype=np.int64)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    no_cluster = np.setdiff1d(np.arange(len(classes)), rows)
    no_class = np.setdiff1d(np.arange(len(clusters)), columns)
    no_class = no_class[np.argsort(counts[:, no_class].argmax(axis=0), kind="stable")]
    rows = np.concatenate([rows, no_cluster])
    columns = np.concatenate([columns, no_class])
    return counts[np.ix_(rows, columns)], classes[rows], clusters[columns]


def _check_labels(name: str, labels: Any) -> np.ndarray:
    """Labels as a one-dimensional array."""
    array = check_array(
        labels, ensure_2d=False, ensure_min_samples=0, dtype=None, input_name=name, allow_nd=True
    )
    if array.ndim != 1:
        raise ValueError(f"{name} must be 1D: shape is {array.shape!r}.")
    return array


# Scorers
# -------


def modularity_score(estimator: Any, X: Any, y: Any = None) -> float:
    """How well clusters hold nearest rows together: their modularity.

    What ``DeepAEClustering.score`` gives, of any clusterer that predicts, to be its ``scoring``.
    Neighbours are those of `X` as it is given here: of a pipeline, those of the rows before
    its first step.

    Parameters
    ----------
    estimator : object with predict
        A fitted clusterer, or a pipeline that ends in one.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows to score, best some that it was not fitted on. Of more than 10,000 so many are
        looked at, always the same ones.
    y : Ignored
        Present for API consistency.

    Returns
    -------
    modularity : float
        Between -1/2 and 1; higher is better.

    Raises
    ------
    TypeError
        If the estimator has no `predict`.
    ValueError
        If X is not numbers, or has missing entries.

    See Also
    --------
    neighbor_information_score : The same pairs, measured in nats.
    skaecm.DeepAEClustering.score : How it is defined.

    Examples
    --------
    >>> from sklearn.cluster import KMeans
    >>> from sklearn.datasets import make_blobs
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skaecm.metrics import modularity_score
    >>> X, _ = make_blobs(600, centers=5, n_features=4, random_state=0)
    >>> search = GridSearchCV(
    ...     KMeans(random_state=0), {"n_clusters": [3, 5, 8]}, scoring=modularity_score, cv=2
    ... )
    >>> search.fit(X).best_params_
    {'n_clusters': 5}
    """
    return neighbour_modularity(*_judged(estimator, X))


def neighbor_information_score(estimator: Any, X: Any, y: Any = None) -> float:
    """What the cluster of a row says of the cluster of its nearest rows: mutual information.

    Of the pairs of a row and one of its 10 nearest rows, ``sum_jl e_jl log(e_jl / (a_j a_l))``
    with the share ``e_jl`` of pairs from cluster j to cluster l, and ``a_j`` its sum over l.
    It prefers even sizes more than `modularity_score` does, and more clusters.

    Parameters
    ----------
    estimator : object with predict
        A fitted clusterer, or a pipeline that ends in one.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows to score, as for `modularity_score`.
    y : Ignored
        Present for API consistency.

    Returns
    -------
    information : float
        In nats, between 0 and the logarithm of the number of clusters; higher is better.

    Raises
    ------
    TypeError
        If the estimator has no `predict`.
    ValueError
        If X is not numbers, or has missing entries.

    See Also
    --------
    modularity_score : The same pairs, how many of them clusters hold together.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skaecm import ClusteringModuleGMM
    >>> from skaecm.metrics import neighbor_information_score
    >>> X = load_iris().data
    >>> model = ClusteringModuleGMM(k=3, random_state=0).fit(X)
    >>> 0 < neighbor_information_score(model, X) < 1.1
    True
    """
    return neighbour_information(*_judged(estimator, X))


def log_likelihood_score(estimator: Any, X: Any, y: Any = None) -> float:
    """Mean log-likelihood of X: the mean of ``score_samples``.

    For the choice of a density, of what finds outliers or is drawn from. It is not a good judge
    of clusters (see the user guide).

    Parameters
    ----------
    estimator : object with score_samples
        A fitted estimator, or a pipeline that ends in one.
    X : array-like of shape (n_samples, n_features)
        Rows to score, of any kind that the estimator takes.
    y : Ignored
        Present for API consistency.

    Returns
    -------
    log_likelihood : float
        Nats per row; higher is better.

    Raises
    ------
    TypeError
        If the estimator has no `score_samples`.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skaecm import ClusteringModuleGMM
    >>> from skaecm.metrics import log_likelihood_score
    >>> X = load_iris().data
    >>> model = ClusteringModuleGMM(k=3, random_state=0).fit(X)
    >>> log_likelihood_score(model, X) == model.score(X)
    True
    """
    if not hasattr(estimator, "score_samples"):
        raise TypeError(
            "log_likelihood_score needs an estimator with score_samples, but was given a "
            f"{type(estimator).__name__}. Use modularity_score, which needs predict alone."
        )
    return float(np.mean(estimator.score_samples(X), dtype=np.float64))


def _judged(estimator: Any, X: Any) -> tuple[np.ndarray, Any]:
    """Predicted clusters of the rows to judge, and these rows."""
    if not hasattr(estimator, "predict"):
        raise TypeError(
            "A scorer of clusters needs an estimator with predict, but was given a "
            f"{type(estimator).__name__}, which cannot assign new rows."
        )
    rows = judged_rows(_num_samples(X))
    X = X if len(rows) == _num_samples(X) else _safe_indexing(X, rows)
    x = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32], input_name="X")
    return estimator.predict(X), x
