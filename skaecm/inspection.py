"""Explaining a fit: which features separate a cluster, which rows are uncertain."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.special import entr
from sklearn.utils import Bunch, check_array, gen_batches
from torch import Tensor
from torch.nn.functional import linear

from skaecm import ClusteringModuleGMM, DeepAEClustering

__all__ = ["assignment_entropy", "rank_features"]

# Rows of a step, fewer where they are wide.
MOST_ROWS = 1024
MOST_VALUES = 2**22


def rank_features(estimator: ClusteringModuleGMM | DeepAEClustering, X: Any) -> Bunch:
    r"""Rank the features by how much they separate each cluster from the rest.

    The log-odds of cluster a against cluster l are a difference of two inputs of the
    module's softmax, ``log g_a(x) / g_l(x) = s_a(x) - s_l(x)``. On the way from the
    centre of l to that of a they rise by the integral of their gradient, of which
    feature j has a share of its own. The mean gradient over the rows of both clusters
    stands for the one on that way, and the clusters l count by their weights:

    .. math::

        I_{aj} = \sum_{l \ne a} \frac{w_l}{1 - w_a} \,
            \tfrac{1}{2} \left(
                \underset{x \in a}{\mathrm{mean}} + \underset{x \in l}{\mathrm{mean}}
            \right) \frac{\partial (s_a - s_l)(x)}{\partial x_j} \; (c_a - c_l)_j

    with the centres c decoded to the space of X, the weights w of the clusters, and
    means over rows weighted by their responsibilities.

    Parameters
    ----------
    estimator : ClusteringModuleGMM or DeepAEClustering
        A fitted estimator.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows to look at, as for `predict`; those of the fit or others, each by itself
        where the fit had a graph. The cost is that of `k` backward passes over them, on
        the CPU: of many rows, a sample will do.

    Returns
    -------
    result : sklearn.utils.Bunch
        - importances : ndarray of shape (k, n_features). ``I`` as above, in nats.
          A negative one says that the feature speaks against the cluster where the
          others place it. Zero where `k` is 1.
        - ranking : ndarray of shape (k, n_features). For every cluster, the indices of
          the features, the most important first.
        - feature_names : ndarray of shape (n_features,). The names seen in `fit`, else
          "x0", "x1", ...

    Raises
    ------
    TypeError
        If the estimator is of another kind.
    ValueError
        If X is not as `predict` takes it.

    See Also
    --------
    assignment_entropy : How uncertain the cluster of every row is.

    Notes
    -----
    The unit of a feature plays no part: the gradient is divided by what the centres
    are multiplied by. In :class:`~skaecm.ClusteringModuleGMM` the gradient is constant
    and ``I_aj`` the mean of ``(W_a - W_l)_j (c_a - c_l)_j``, which sums over the
    features to the rise of the log-odds exactly; where W, b is the E-step of a mixture
    it is the squared distance of the centres along the feature, in units of the
    variance. In :class:`~skaecm.DeepAEClustering` it is a first-order account of the
    network: of features that carry the same, any may have the credit.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skaecm import ClusteringModuleGMM
    >>> from skaecm.inspection import rank_features
    >>> X = load_iris(as_frame=True).data
    >>> model = ClusteringModuleGMM(k=3, random_state=0).fit(X)
    >>> result = rank_features(model, X)
    >>> result.importances.shape
    (3, 4)
    >>> result.feature_names[result.ranking[0, 0]]
    'petal length (cm)'
    """
    if not isinstance(estimator, ClusteringModuleGMM | DeepAEClustering):
        raise TypeError(
            "estimator must be a fitted ClusteringModuleGMM or DeepAEClustering, but is a "
            f"{type(estimator).__name__}. Of a pipeline, pass the last step and the rows that "
            "reach it."
        )
    g = estimator.predict_proba(X).astype(np.float64)
    x = check_array(X, accept_sparse="csr", dtype=[np.float64, np.float32])
    centers = estimator.cluster_centers_.astype(np.float64)
    k, n_features = centers.shape
    shares = g / g.sum(axis=0)
    rest = _weights_of_the_others(estimator.weights_.astype(np.float64))
    importances = np.zeros((k, n_features))
    size = max(1, min(MOST_ROWS, MOST_VALUES // n_features))
    for rows in gen_batches(x.shape[0], size):
        for a, gradient in enumerate(_logit_gradients(estimator.module_, x[rows])):
            mean = shares[rows].T @ gradient
            # What s_a rises by on the way from every other centre. It counts for a
            # against that cluster, and as much for that cluster against a.
            rise = 0.5 * (mean[a] + mean) * (centers[a] - centers)
            importances[a] += rest[a] @ rise
            importances += rest[:, [a]] * rise
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        names = np.array([f"x{j}" for j in range(n_features)], dtype=object)
    ranking = np.argsort(-importances, axis=1, kind="stable")
    return Bunch(importances=importances, ranking=ranking, feature_names=names)


def assignment_entropy(estimator: Any, X: Any) -> np.ndarray:
    """Entropy of the responsibilities of every row.

    It is 0 where one cluster has all of the row and ``log k`` where all clusters have
    the same share. It says how uncertain a row's cluster is among those there are; for
    rows that are unlike any cluster, see `score_samples`.

    Parameters
    ----------
    estimator : object with predict_proba
        A fitted estimator of this package, a pipeline that ends in one, or another
        estimator with probabilities.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
        Rows to look at.

    Returns
    -------
    entropy : ndarray of shape (n_samples,)
        Entropies in nats, of the dtype of the responsibilities.

    Raises
    ------
    TypeError
        If the estimator has no `predict_proba`.
    ValueError
        If X is not as `predict_proba` takes it.

    See Also
    --------
    rank_features : Which features separate each cluster from the rest.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skaecm import ClusteringModuleGMM
    >>> from skaecm.inspection import assignment_entropy
    >>> X = load_iris().data
    >>> model = ClusteringModuleGMM(k=3, random_state=0).fit(X)
    >>> assignment_entropy(model, X).shape
    (150,)
    """
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            "estimator must have predict_proba, but is a "
            f"{type(estimator).__name__}. KMeans, for one, has none: its assignments are certain."
        )
    # A share rounded to a little over one has an entropy a little below zero.
    return np.maximum(entr(estimator.predict_proba(X)).sum(axis=1), 0.0)


def _weights_of_the_others(weights: np.ndarray) -> np.ndarray:
    """``w_l / (1 - w_a)`` in row a and column l, zero on the diagonal (k, k)."""
    others = np.tile(weights, (len(weights), 1))
    np.fill_diagonal(others, 0.0)
    return others / np.maximum(others.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)


def _logit_gradients(network: Any, x: Any) -> Iterator[np.ndarray]:
    """Gradients (n, d) of the softmax's inputs s_a at rows ``x`` (n, d), one a after another."""
    dense = x.toarray() if hasattr(x, "toarray") else x
    module = network.clustering
    with torch.enable_grad():
        inputs: Tensor = torch.tensor(dense, dtype=network.dtype, requires_grad=True)
        logits = linear(network.embed(inputs), module.weight, module.bias)
        totals = logits.sum(dim=0).unbind()
    for a, total in enumerate(totals):
        (gradient,) = torch.autograd.grad(total, inputs, retain_graph=a + 1 < len(totals))
        yield gradient.double().numpy()
