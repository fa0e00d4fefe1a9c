"""What a fitted `DeepAEClustering` answers: codes, points, likelihoods, what the fit is worth."""

from abc import ABC
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted

from ._block_rows import rows_of
from ._blocks import Blocks
from ._checks import check_weight, scale_weight
from ._fitted import BaseFittedClusterer
from ._likelihood import log_densities
from ._missing import completed, has_missing
from ._modularity import graph_modularity, judged_rows, neighbour_modularity
from ._rows import make_rows
from ._shares import undivided
from ._tensors import borrow, compute_dtype, resolve_device, sharing_memory, to_numpy
from ._training import apply


class BaseDeepFitted(BaseFittedClusterer, ABC):
    """Abstract base of an estimator that holds a fitted autoencoder and a mixture of its codes."""

    def score(self, X, y=None, sample_weight=None, adjacency=None):
        """How well the clusters hold nearest rows together: their modularity.

        With ``e`` the share of all pairs of a row and one of its 10 nearest rows that lie in one
        cluster, and ``a_j`` the share of the ends of pairs in cluster j, it is ``e - sum_j
        a_j^2``: how many more pairs the clusters hold together than if ends were paired by
        chance [1]_. It is 0 for one cluster and near 1 for many separated ones. Neither the
        embedding nor a weight of the loss is part of it, so settings of all kinds can be
        compared by it (see the user guide).

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to score, of any kind that `fit` takes, best some that it was not fitted on. Of
            more than 10,000 so many are looked at, always the same ones. Neighbours of rows
            of more than 64 features are sought among their principal directions.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Row weights. A pair counts the product of those of its rows.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges among these rows, which take the place of the nearest rows.

        Returns
        -------
        modularity : float
            Between -1/2 and 1; higher is better. 0 where there are no pairs, as for one row.

        See Also
        --------
        score_samples : The log-likelihood of every row.
        skaecm.metrics.modularity_score : The same of any clusterer or pipeline.

        References
        ----------
        .. [1] M. E. J. Newman, M. Girvan, "Finding and evaluating community structure in
           networks", Physical Review E 69 (2004), 026113. :arxiv:`cond-mat/0308217`
        """
        check_is_fitted(self)
        with sharing_memory(self.device), self._opened(X, adjacency) as x:
            x, graph = self._smoothed(self._validate(x, reset=False), adjacency)
            weight = check_weight(sample_weight, x)
            weight, _ = scale_weight(weight, undivided(x.shape[0]))
            if graph is not None:
                return graph_modularity(self._labels(x), graph, weight)
            numbers = judged_rows(x.shape[0], weight)
            if isinstance(x, Blocks):
                cpu = torch.device("cpu")
                rows = rows_of(x, None, cpu, compute_dtype(x.dtype, cpu))
                x = to_numpy(rows.values(torch.from_numpy(numbers)))
            else:
                x = x[numbers]
            labels = self._labels(x)
        if has_missing(x):
            x = completed(x, to_numpy(self.module_.standardizer.offset))
        return neighbour_modularity(labels, x, None if weight is None else weight[numbers])

    def _labels(self, x: Any) -> np.ndarray:
        """Clusters (n,) of checked rows."""
        network, rows = self._borrowed(x)
        return apply(network.labels, rows)

    def _log_density(self, x: Any) -> np.ndarray:
        network, rows = self._borrowed(x)
        mixture = self.weights_, self.embedding_centers_, self.embedding_covariances_[0]
        found = log_densities(network, rows, *mixture, self.noise_variance_)
        return found.astype(x.dtype, copy=False)

    def transform(self, X, adjacency=None):
        """Embed X.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to embed, of any kind that `fit` takes.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges among these rows; None takes every row by itself.

        Returns
        -------
        embedding : ndarray of shape (n_samples, n_components)
            Codes of the autoencoder.
        """
        return self._apply("embed", X, adjacency)

    def inverse_transform(self, X):
        """Decode points of the embedding to the space of the input.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Points of the embedding.

        Returns
        -------
        X_original : ndarray of shape (n_samples, n_features)
            Decoded points.
        """
        check_is_fitted(self)
        code = self._check_code(X, self.n_components_, "the embedding")
        return self._decode(code)

    def sample(self, n_samples=1):
        """Draw from the mixture in the embedding and decode.

        Parameters
        ----------
        n_samples : int, default=1
            Number of points.

        Returns
        -------
        X : ndarray of shape (n_samples, n_features)
            The decoded points, sorted by component.
        y : ndarray of shape (n_samples,)
            Their components.
        """
        check_is_fitted(self)
        code, labels = self._sample(n_samples, self.embedding_centers_, self.embedding_covariances_)
        return self._decode(code), labels

    def _decode(self, code: np.ndarray) -> np.ndarray:
        with sharing_memory(self.device):
            device = resolve_device(self.device)
            network = borrow(self.module_, device)
            rows = make_rows(code, None, device, network.dtype)
            return apply(network.reconstruct, rows).astype(code.dtype, copy=False)
