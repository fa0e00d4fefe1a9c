"""Measures of a clustering against known labels."""

from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics.cluster import contingency_matrix
from sklearn.utils import check_array, check_consistent_length

__all__ = ["clustering_accuracy"]


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
    truth = _check_labels("labels_true", labels_true)
    clusters = _check_labels("labels_pred", labels_pred)
    check_consistent_length(truth, clusters)
    if len(truth) == 0:
        return 1.0
    counts = contingency_matrix(truth, clusters)
    return float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(truth))


def _check_labels(name: str, labels: Any) -> np.ndarray:
    """Labels as a one-dimensional array."""
    array = check_array(
        labels, ensure_2d=False, ensure_min_samples=0, dtype=None, input_name=name, allow_nd=True
    )
    if array.ndim != 1:
        raise ValueError(f"{name} must be 1D: shape is {array.shape!r}.")
    return array
