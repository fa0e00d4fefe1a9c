"""Choosing the number of clusters without labels: a search with its trace."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin, MetaEstimatorMixin, _fit_context, clone
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import KFold, ShuffleSplit
from sklearn.utils import _safe_indexing, check_random_state, get_tags
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import check_is_fitted

from . import DeepAEClustering


class KSearch(MetaEstimatorMixin, ClusterMixin, BaseEstimator):
    """Search over the number of clusters, without labels.

    For every k the estimator is fitted and judged, several times unless the criterion is
    "bic". One pretraining for every set of rows serves all k; with ``n_neighbors="auto"`` it has
    neighbours where the largest k would take them.

    Parameters
    ----------
    estimator : ClusteringModuleGMM or DeepAEClustering
        What is fitted, with all parameters but `k`. It is left as it is.
    k_values : iterable of int
        Numbers of clusters to try.
    criterion : {"score", "stability", "bic"} or callable, default="score"
        How a fit is judged.

        - "score": ``estimator.score`` of rows it has not seen, in `n_splits` folds. Taken
          is the smallest k that is behind the highest mean by no more than one standard
          error of the difference [1]_.
        - "stability": two fits, on one half of the rows each, agree on all rows; the
          adjusted Rand index of their labels, over `n_splits` halvings [2]_. Taken is the
          largest k that is behind the highest mean by no more than one standard error of
          the difference, as too few clusters may be stable too.
        - "bic": ``estimator.bic`` of the rows of the fit, which only ClusteringModuleGMM
          has. Taken is the k of the lowest.
        - a callable ``(estimator, X) -> float``, the higher the better, as scorers of
          scikit-learn are: judges as "score" does.
    n_splits : int, default=3
        Number of folds or halvings, at least 2; "bic" has none.
    n_jobs : int, default=None
        Number of processes among which the fits are shared, by joblib.
    random_state : int, RandomState instance or None, default=None
        Seed of the splits. The fits have that of the estimator.
    verbose : int, default=0
        How much joblib says of the fits that are done.

    Attributes
    ----------
    best_k_ : int
        The number of clusters that was taken.
    best_estimator_ : estimator
        Fitted with it to all rows, as ``estimator.set_params(k=best_k_).fit(X)``.
    results_ : dict of ndarray of shape (n_k,)
        The trace, a table for pandas: "k", rising; "mean" and "std" of the criterion; and
        "split0", "split1", ..., its single values.
    labels_ : ndarray of shape (n_samples,)
        Cluster of every row of X, of `best_estimator_`.
    n_features_in_ : int
        Number of features seen in `fit`.

    See Also
    --------
    skaecm.plotting.KSearchDisplay : Draws the trace.
    sklearn.model_selection.GridSearchCV : Searches over other parameters too.

    Notes
    -----
    DeepAEClustering is pretrained once for every set of rows, in the width of the largest k
    (at least 10) unless `n_components` is given, if its `init` is "k-means". With another
    `init`, every fit goes all its way alone.

    References
    ----------
    .. [1] L. Breiman, J. Friedman, R. Olshen, C. Stone, "Classification and regression
       trees", Wadsworth (1984), section 3.4.3.
    .. [2] T. Lange, V. Roth, M. Braun, J. Buhmann, "Stability-based validation of clustering
       solutions", Neural Computation 16 (2004).

    Examples
    --------
    >>> from sklearn.datasets import make_blobs
    >>> from skaecm import ClusteringModuleGMM
    >>> from skaecm.selection import KSearch
    >>> X, _ = make_blobs(300, centers=4, random_state=3)
    >>> model = ClusteringModuleGMM(random_state=0)
    >>> search = KSearch(model, range(2, 8), criterion="bic").fit(X)
    >>> search.best_k_
    4
    >>> search.results_["k"]
    array([2, 3, 4, 5, 6, 7])
    >>> bool((search.predict(X) == search.labels_).all())
    True
    """

    _parameter_constraints: dict = {
        "estimator": [HasMethods(["fit", "predict", "score"])],
        "k_values": [Iterable],
        "criterion": [StrOptions({"score", "stability", "bic"}), callable],
        "n_splits": [Interval(Integral, 2, None, closed="left")],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator,
        k_values,
        *,
        criterion="score",
        n_splits=3,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.k_values = k_values
        self.criterion = criterion
        self.n_splits = n_splits
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Try every k, and fit with the best.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to cluster.
        y : Ignored
            No labels are used.

        Returns
        -------
        self : object
            The fitted search.

        Raises
        ------
        ValueError
            If `k_values` are no integers of at least 1, the estimator has no `bic`, or
            rows are too few for `n_splits` or a k.
        """
        k_values = check_k_values(self.k_values)
        if self.criterion == "bic" and not hasattr(self.estimator, "bic"):
            raise ValueError(
                f"criterion='bic' is for ClusteringModuleGMM, but {type(self.estimator).__name__} "
                "has no method bic. Use criterion='stability' or 'score'."
            )
        X = X if hasattr(X, "shape") else np.asarray(X)
        trains, tests = self._splits(X)
        run = Parallel(n_jobs=self.n_jobs, verbose=self.verbose)
        starts = run(delayed(start)(self.estimator, k_values[-1], X, rows) for rows in trains)
        found = run(
            delayed(judge)(estimator, k, self.criterion, X, train, test)
            for k in k_values
            for estimator, train, test in zip(starts, trains, tests, strict=True)
        )
        by_k = [found[i : i + len(trains)] for i in range(0, len(found), len(trains))]
        if self.criterion == "stability":
            by_k = [list(map(adjusted_rand_score, of_k[::2], of_k[1::2])) for of_k in by_k]
        values = np.array(by_k, dtype=np.float64)
        self.results_ = {
            "k": k_values,
            "mean": values.mean(axis=1),
            "std": values.std(axis=1),
            **{f"split{i}": column for i, column in enumerate(values.T)},
        }
        self.best_k_ = best_k(k_values, values, self.criterion)
        self.best_estimator_ = clone(self.estimator).set_params(k=self.best_k_).fit(X)
        self.labels_ = self.best_estimator_.labels_
        return self

    def _splits(self, X) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The rows of every fit of one k, and those that judge it."""
        rows = np.arange(X.shape[0])
        if self.criterion == "bic":
            return [rows], [rows]
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if self.criterion != "stability":
            folds = KFold(self.n_splits, shuffle=True, random_state=seed).split(rows)
            trains, tests = zip(*folds, strict=True)
            return list(trains), list(tests)
        halvings = ShuffleSplit(self.n_splits, test_size=0.5, random_state=seed).split(rows)
        halves = [np.sort(half) for halving in halvings for half in halving]
        return halves, [rows] * len(halves)

    def predict(self, X):
        """Predict the cluster of every row, by the best estimator.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to assign.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Index of the cluster.
        """
        check_is_fitted(self)
        return self.best_estimator_.predict(X)

    def transform(self, X):
        """Map X to the space of the module, by the best estimator.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to map.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features_out)
            As `transform` of the best estimator gives it.
        """
        check_is_fitted(self)
        return self.best_estimator_.transform(X)

    def score(self, X, y=None):
        """Score of X, by the best estimator.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to score.
        y : Ignored
            Present for API consistency.

        Returns
        -------
        score : float
            The higher, the better.
        """
        check_is_fitted(self)
        return self.best_estimator_.score(X)

    @property
    def n_features_in_(self):
        """Number of features seen in `fit`."""
        check_is_fitted(self)
        return self.best_estimator_.n_features_in_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.estimator).input_tags
        return tags


def check_k_values(k_values: Any) -> np.ndarray:
    """Numbers of clusters, rising, each once."""
    values = list(k_values)
    if not values or not all(isinstance(k, Integral) and int(k) >= 1 for k in values):
        raise ValueError(f"k_values must hold integers of at least 1, but are {values!r:.80}.")
    return np.unique(values)


def start(estimator: Any, most: int, X: Any, rows: np.ndarray) -> Any:
    """The estimator that is fitted to these rows with every k up to ``most``.

    A deep one starts from an autoencoder that is trained here, once for all.
    """
    estimator = clone(estimator)
    if not isinstance(estimator, DeepAEClustering) or estimator.init != "k-means":
        return estimator
    first = clone(estimator).set_params(k=int(most), max_iter=0, n_init=1)
    first.fit(_safe_indexing(X, rows))
    return estimator.set_params(init=first.autoencoder_)


def judge(
    estimator: Any, k: int, criterion: Any, X: Any, train: np.ndarray, test: np.ndarray
) -> Any:
    """What one fit is judged by: a number, or for the stability its labels."""
    model = clone(estimator).set_params(k=int(k)).fit(_safe_indexing(X, train))
    rows = _safe_indexing(X, test)
    if callable(criterion):
        return criterion(model, rows)
    return getattr(model, "predict" if criterion == "stability" else criterion)(rows)


def best_k(k_values: np.ndarray, values: np.ndarray, criterion: Any) -> int:
    """The k to take of ``k_values`` (n_k,), given the values (n_k, n_splits) of all."""
    mean = values.mean(axis=1)
    if criterion == "bic":
        return int(k_values[mean.argmin()])
    behind = values[mean.argmax()] - values
    error = behind.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
    as_good = k_values[behind.mean(axis=1) <= error]
    return int(as_good.max() if criterion == "stability" else as_good.min())
