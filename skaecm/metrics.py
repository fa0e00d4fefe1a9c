"""Measures of a clustering against known labels."""

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils import check_array, check_consistent_length

__all__ = ["aligned_confusion_matrix", "clustering_accuracy"]


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
