"""What a fitted estimator answers: clusters, responsibilities, likelihoods, points.

Rows given here walk the way of a fit: checked, crossed to the device, through the
network, and back. Nothing is learned.
"""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from numbers import Integral
from typing import Any

import numpy as np
import torch
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from . import _mixtures
from ._block_rows import rows_of
from ._blocks import Blocks, opened
from ._checks import narrow_indices, refuse_smoothing
from ._extras import need
from ._graph import check_adjacency, smooth
from ._missing import has_missing
from ._ranks import ALONE, Ranks
from ._rows import IncompleteRows, Rows
from ._tensors import borrow, resolve_device, sharing_memory
from ._training import apply


class BaseFittedClusterer(
    ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator, ABC
):
    """Abstract base of an estimator that holds a fitted network."""

    @abstractmethod
    def transform(self, X, adjacency=None):
        """Map X to the space of the module."""

    @abstractmethod
    def score(self, X, y=None, sample_weight=None, adjacency=None):
        """What the fit is worth on X; higher is better."""

    @abstractmethod
    def _log_density(self, x: Any) -> np.ndarray:
        """Log-density (n,) of checked rows, whatever they are held in."""

    def _validate(self, X, *, reset: bool):
        """X as CSR or as a C-ordered array, float32 or float64; blocks as they are."""
        if isinstance(X, Blocks):
            # Their values are checked when they are first read.
            return validate_data(self, X, reset=reset, skip_check_array=True)
        is_uint8 = getattr(X, "dtype", None) == np.uint8
        try:
            x = validate_data(
                self,
                X,
                reset=reset,
                accept_sparse="csr",
                dtype=np.float32 if is_uint8 else [np.float64, np.float32],
                order="C",
                ensure_all_finite="allow-nan" if self.missing == "mask" else True,
            )
        except ValueError as error:
            if self.missing != "mask" and "contains NaN" in str(error):
                error.add_note("With missing='mask' a fit takes NaN for missing entries.")
            raise
        return narrow_indices(x)

    def _smoothed(self, x, adjacency) -> tuple[Any, Any]:
        """Rows mixed with their neighbours, and the graph that says who these are."""
        if adjacency is None:
            return x, None
        if self.missing == "mask" and has_missing(x):
            refuse_smoothing()
        graph = check_adjacency(adjacency, x.shape[0])
        return narrow_indices(smooth(x, graph)), graph

    def _opened(self, X, adjacency, **whole: Any) -> AbstractContextManager:
        """X as checks take it; in one piece where something that is not None needs that."""
        missing = None if self.missing == "error" else self.missing
        return opened(X, adjacency=adjacency, missing=missing, **whole)

    def _make_rows(
        self,
        x,
        weight,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks = ALONE,
        n_sampled: int = 0,
    ) -> Rows:
        """Checked rows, as incomplete ones where entries are missing on any process."""
        rows = rows_of(x, weight, device, dtype, n_sampled)
        if self.missing == "mask" and any(ranks.gather(has_missing(x))):
            return IncompleteRows(rows)
        return rows

    def _validate_new(self, X, adjacency) -> Any:
        """X of a fitted estimator, mixed with its neighbours where there are edges."""
        return self._smoothed(self._validate(X, reset=False), adjacency)[0]

    def _borrowed(self, x: Any) -> tuple[Any, Rows]:
        """The network on the device, and checked rows on their way to it."""
        device = resolve_device(self.device)
        network = borrow(self.module_, device)
        rows = self._make_rows(x, None, device, network.dtype)
        return network, rows.filled_with(network.standardizer.offset)

    def _apply(self, method: str, X, adjacency) -> np.ndarray:
        """A method of the network, row by row, on X that is checked first."""
        check_is_fitted(self)
        with sharing_memory(self.device), self._opened(X, adjacency) as x:
            x = self._validate_new(x, adjacency)
            network, rows = self._borrowed(x)
            answer = apply(getattr(network, method), rows)
        # Labels are whole numbers whatever X is.
        return answer.astype(x.dtype, copy=False) if answer.dtype.kind == "f" else answer

    def predict(self, X, adjacency=None):
        """Predict the cluster of every row.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to assign, of any kind that `fit` takes.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges among these rows; None takes every row by itself.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Index of the cluster with the largest responsibility.
        """
        return self._apply("labels", X, adjacency)

    def predict_proba(self, X, adjacency=None):
        """Responsibilities of the clusters: the module's softmax.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to assign, of any kind that `fit` takes.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges among these rows; None takes every row by itself.

        Returns
        -------
        responsibilities : ndarray of shape (n_samples, k)
            Rows sum to one.
        """
        return self._apply("proba", X, adjacency)

    def score_samples(self, X, adjacency=None):
        """Log-likelihood of every row under the mixture that was fitted.

        The mixture and its density in the space of X are in the notes on the class. Of a row
        with missing entries it is the marginal density of those observed.

        Parameters
        ----------
        X : {array-like, sparse matrix, blocks} of shape (n_samples, n_features)
            Rows to score, of any kind that `fit` takes.
        adjacency : {sparse matrix, array-like} of shape (n_samples, n_samples), default=None
            Edges among these rows; None takes every row by itself.

        Returns
        -------
        log_prob : ndarray of shape (n_samples,)
            Log-densities in nats.
        """
        check_is_fitted(self)
        with sharing_memory(self.device), self._opened(X, adjacency) as x:
            return self._log_density(self._validate_new(x, adjacency))

    def history_frame(self):
        """The history as a table, the best epochs marked.

        Returns
        -------
        history : pandas.DataFrame
            A row for every epoch of `history_`, and for a state before the end where one
            was kept. The columns are "phase", "epoch", "loss", the terms of the loss,
            "changed" (NaN where there is none) and "best": whether the loss is the lowest of
            its phase, at its first epoch if several have it. A phase is a run of epochs of
            one name: those of a `partial_fit` after a fit are another one.

        Raises
        ------
        ImportError
            If pandas is not installed (``pip install "skaecm[tables]"``).
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.

        Examples
        --------
        >>> from skaecm import ClusteringModuleGMM
        >>> X = [[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]]
        >>> model = ClusteringModuleGMM(k=2, random_state=0).fit(X)
        >>> frame = model.history_frame()
        >>> list(frame.columns)
        ['phase', 'epoch', 'loss', 'E1', 'E2', 'E3', 'E4', 'changed', 'best']
        >>> bool(frame.loc[frame["best"], "loss"].min() == frame["loss"].min())
        True
        """
        check_is_fitted(self)
        pandas = need("pandas", "tables", "history_frame")
        first = dict.fromkeys(["phase", "epoch", "loss"])
        named = first | dict.fromkeys(name for row in self.history_ for name in row)
        names = [name for name in named if name != "changed"]
        frame = pandas.DataFrame(self.history_, columns=[*names, "changed"])
        frame = frame.astype({"loss": float, "changed": float})
        runs = (frame["phase"] != frame["phase"].shift()).cumsum()
        frame["best"] = frame.index.isin(frame.groupby(runs)["loss"].idxmin())
        return frame

    def _check_code(self, X, width: int, what: str) -> np.ndarray:
        """A dense array with one column for each of ``width`` coordinates."""
        check_is_fitted(self)
        code = check_array(X, dtype=self.cluster_centers_.dtype, order="C")
        if code.shape[1] != width:
            raise ValueError(
                f"X has {code.shape[1]} columns, but inverse_transform of "
                f"{type(self).__name__} expects the {width} of {what}."
            )
        return code

    def _sample(self, n_samples: int, centers: np.ndarray, variances: np.ndarray):
        """Draw from a mixture with the learned weights."""
        if not isinstance(n_samples, Integral) or n_samples < 1:
            raise ValueError(f"n_samples must be an integer of at least 1, but is {n_samples!r}.")
        rng = check_random_state(self.random_state)
        return _mixtures.sample(n_samples, self.weights_, centers, variances, rng)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "mask"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
