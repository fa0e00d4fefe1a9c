"""Checks of the input and of parameters against it; every message a user may see.

A message names the parameter, what it may be, what came and what to try. A call
that is refused changes nothing (`unchanged_on_failure`).
"""

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Number
from typing import Any

import joblib
import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import _check_sample_weight, check_array, check_is_fitted
from torch import Tensor

from ._ranks import Ranks
from ._rows import Rows
from ._shares import Share

# Parameters that may be another on every process of a fit.
OF_A_PROCESS = ("callback", "checkpoint", "device", "memory", "n_jobs", "verbose")

# A largest column this many times wider than the lower quartile decides alone.
SCALE_RATIO = 100.0

# The total variance may be so large a share of the largest number.
ROOM = 1e-4


def check_weight(sample_weight: Any, x: Any) -> np.ndarray | None:
    """Weights of zero or more, as given."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, complex | np.complexfloating):
        # Of an array scikit-learn says so.
        raise ValueError(f"sample_weight must hold real numbers, but is {sample_weight!r}.")
    return _check_sample_weight(sample_weight, x, dtype=np.float64, ensure_non_negative=True)


def figures(weight: np.ndarray) -> tuple[float, int, bool]:
    """The mean of weights, how many are not zero, and whether all are equal."""
    n_weighted = int(np.count_nonzero(weight))
    if n_weighted == 0:
        raise ValueError(
            "Sample weights must contain at least one non-zero number, but all of "
            "sample_weight is zero."
        )
    return float(weight.mean()), n_weighted, bool(np.ptp(weight) == 0)


def scale_weight(weight: np.ndarray | None, share: Share) -> tuple[np.ndarray | None, int]:
    """Weights of mean one over all rows, None where all are equal, and how many are not zero."""
    if weight is None:
        return None, share.n_all
    mean, n_weighted, are_equal = share.ranks.first(figures, share.stack(weight))
    return (None if are_equal else weight / mean), n_weighted


def plain(value: Any) -> Any:
    """A parameter as what can be compared between processes; of an object its type."""
    if value is None or isinstance(value, str | Number):
        return value
    if isinstance(value, list | tuple | np.ndarray):
        return np.asarray(value, dtype=object).tolist()
    return type(value).__name__


def check_processes(
    estimator: BaseEstimator, x: Any, weight: np.ndarray | None, ranks: Ranks
) -> None:
    """Raise if the processes of a fit differ in what decides what they do."""
    parameters = estimator.get_params(deep=False).items()
    ranks.same(
        {name: plain(value) for name, value in parameters if name not in OF_A_PROCESS}
        | {
            "The number of features of X": x.shape[1],
            "The dtype of X": str(x.dtype),
            "Whether there is a sample_weight": weight is not None,
            "Whether the estimator is fitted": hasattr(estimator, "module_"),
            "Whether there is a checkpoint": estimator.checkpoint is not None,
            "The number of scikit-learn's callbacks": len(getattr(estimator, "_skl_callbacks", ())),
        }
    )


def check_range(variance: float, offset: float, n_features: int, dtype: np.dtype) -> None:
    """Raise if a mean variance that is not zero has no room in the dtype of X.

    Squared distances add up all features, and some are much larger than most. Neither may
    the mean square of the columns' means, ``offset``, be too large.
    """
    limits = np.finfo(dtype)
    largest = ROOM * float(limits.max) / n_features
    if not offset < largest or (variance != 0 and not float(limits.tiny) < variance < largest):
        raise ValueError(
            f"The values of X are too large or too small for {dtype}: their variance is "
            f"{variance:.3g}, and the mean square of the columns' means {offset:.3g}. Multiply X "
            "by a constant, pass it as float64, or use sklearn.preprocessing.StandardScaler."
        )


def narrow_indices(x: Any) -> Any:
    """A CSR matrix with 32-bit indices where they are enough, as k-means asks for."""
    if (
        not sp.issparse(x)
        or x.indices.dtype == np.int32
        or max(x.nnz, *x.shape) > np.iinfo(np.int32).max
    ):
        return x
    parts = x.data, x.indices.astype(np.int32), x.indptr.astype(np.int32)
    return type(x)(parts, shape=x.shape)


def fitted_init(init: Any) -> Any:
    """The estimator that ``init`` is or freezes, which must be fitted; else ``init``."""
    estimator = init.estimator if isinstance(init, FrozenEstimator) else init
    if isinstance(estimator, BaseEstimator):
        try:
            check_is_fitted(estimator)
        except NotFittedError:
            raise NotFittedError(
                f"init={estimator!r} is not fitted. Fit it first. sklearn.clone (and so "
                "GridSearchCV and Pipeline) drops the fit of an estimator given as a "
                "parameter: wrap it as init=sklearn.frozen.FrozenEstimator(fitted)."
            ) from None
    return estimator


def fitted_centers(init: BaseEstimator) -> np.ndarray:
    """Centres in the space of X of a fitted k-means or mixture."""
    for name in ("cluster_centers_", "means_"):
        centers = getattr(init, name, None)
        if centers is not None:
            return centers
    raise ValueError(
        "init must be a fitted DeepAEClustering, the autoencoder_ of one, or a fitted "
        f"estimator with cluster_centers_ or means_, but is a {type(init).__name__}."
    )


def check_picklable(parameter: str, value: Any) -> None:
    """Raise if what a parameter holds cannot be a key of a cache."""
    try:
        joblib.hash(value)
    except (pickle.PicklingError, AttributeError, TypeError):
        raise ValueError(
            f"With memory, {parameter} must be something that can be pickled, but is {value!r}. "
            "Use a function or class at the top level of a module, or memory=None."
        ) from None


def check_precision(mixed_precision: bool, dtype: np.dtype, computed: torch.dtype) -> None:
    """Raise if layers were to compute in less than the precision that X asks for."""
    if mixed_precision and computed != torch.float32:
        raise ValueError(
            f"mixed_precision=True is for X in float32, but X has dtype {dtype}. Pass "
            "X.astype('float32'), or mixed_precision=False."
        )


def check_hidden_sizes(sizes: Any) -> None:
    """Raise if these are neither "auto" nor widths of layers."""
    is_auto = isinstance(sizes, str) and sizes == "auto"
    if not is_auto and not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
        raise ValueError(
            f'hidden_layer_sizes must be "auto" or hold integers of at least 1, but is {sizes!r}.'
        )


def check_same(parameter: str, pairs: dict[str, tuple[int, int]]) -> None:
    """Raise if a fitted start and the estimator that takes it differ in a number."""
    for name, (theirs, ours) in pairs.items():
        if theirs != ours:
            raise ValueError(
                f"{parameter} continues from a fit with {name}={theirs}, but here "
                f"{name}={ours}. Make the two agree, or start anew."
            )


def init_centers(init: Any, k: int, n_features: int, dtype: np.dtype) -> np.ndarray:
    """Centres (k, n_features) given as an array, checked."""
    with np.errstate(over="ignore"):  # what is too large for the dtype is refused
        centers = check_array(init, dtype=dtype, order="C", input_name="init")
    if centers.shape != (k, n_features):
        raise ValueError(
            f"init must hold one row for each of k={k} clusters and one column for each of "
            f"the {n_features} features of X, but has shape {centers.shape}."
        )
    return centers


def check_augmented(augmented: Any, batch: Tensor) -> None:
    """Raise if a callable given as ``augment`` does not give a batch back."""
    if not isinstance(augmented, Tensor) or augmented.shape != batch.shape:
        came = tuple(augmented.shape) if isinstance(augmented, Tensor) else type(augmented).__name__
        raise ValueError(
            f"augment must return a tensor of the shape of its batch, {tuple(batch.shape)}, "
            f"but returned {came}."
        )
    if augmented.dtype != batch.dtype or augmented.device != batch.device:
        raise ValueError(
            f"augment must keep the dtype and device of its batch, {batch.dtype} on "
            f"{batch.device}, but returned {augmented.dtype} on {augmented.device}."
        )


def check_augment_of_incomplete(augment: Any) -> None:
    """Raise if rows with missing entries cannot be transformed by ``augment``."""
    if augment not in (None, "noise"):
        raise ValueError(
            "With missing entries in X, augment must be None or 'noise', which leaves them "
            f"where they are, but is {augment!r}. Fill them first, for instance by "
            "sklearn.impute.SimpleImputer."
        )


def refuse_smoothing() -> None:
    """Raise since rows with missing entries cannot be mixed with their neighbours."""
    raise ValueError(
        "adjacency mixes rows with their neighbours, but X has missing entries. Fill them "
        "first, for instance by sklearn.impute.SimpleImputer, or leave adjacency out."
    )


def check_columns(mean: np.ndarray, names: Any) -> None:
    """Raise if columns have no mean, since no row that carries weight has an entry there."""
    empty = np.flatnonzero(np.isnan(mean))
    if len(empty):
        shown = [str(j) if names is None else repr(names[j]) for j in empty[:5]]
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise ValueError(
            f"These columns of X hold no entry in any row that carries weight: "
            f"{', '.join(shown)}{more}. Nothing can be learned of them: leave them out."
        )


@contextmanager
def unchanged_on_failure(estimator: BaseEstimator) -> Iterator[None]:
    """Give an estimator its attributes back if the block is left by an exception."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def strengths(alpha: Any, k: int, rows: Rows) -> Tensor:
    """alpha (k,) on the device of ``rows``; checked, too, where k is not yet found and 0."""
    values = np.asarray(alpha, dtype=np.float64)
    if values.shape not in ((), (k,)) or not np.isfinite(values).all() or (values < 0).any():
        allowed = f"one number or k={k} of them" if k else "with k='auto' one number"
        raise ValueError(f"alpha must be {allowed}, finite and zero or more, but is {alpha!r}.")
    return torch.from_numpy(np.full(k, values)).to(rows.device, rows.dtype)


def warn_about_scales(deviation: np.ndarray) -> None:
    """Warn once when all rows are equal or few columns outweigh the rest by far."""
    varying = np.sort(deviation[deviation > 0])
    if len(varying) == 0:
        warnings.warn(
            "All rows of X are equal: there is nothing to cluster.", UserWarning, stacklevel=5
        )
        return
    lower_quartile = varying[(len(varying) - 1) // 4]
    if varying[-1] > SCALE_RATIO * lower_quartile:
        warnings.warn(
            "The columns of X are on very different scales (standard deviations from "
            f"{lower_quartile:.3g} at the lower quartile to {varying[-1]:.3g}), so a few of "
            "them decide alone. sklearn.preprocessing.StandardScaler puts them on one scale.",
            UserWarning,
            stacklevel=5,
        )


def warn_about_empty(n_found: int, k: int) -> None:
    """Warn that only ``n_found`` clusters hold rows."""
    warnings.warn(
        f"Only {n_found} of k={k} clusters hold rows after training; the empty ones are numbered "
        "last and weights_ shows them. X may have fewer distinct rows than k; else try a "
        "smaller k, a larger alpha, a larger n_init or another init.",
        ConvergenceWarning,
        stacklevel=4,
    )


def warn_about_width(width: int, k: int) -> None:
    """Warn that an embedding is too narrow for orthonormal centroids."""
    if width < k:
        warnings.warn(
            f"n_components={width} is smaller than k={k}: so many centroids cannot be "
            "orthonormal, and nothing fixes the scale of the embedding. Use at least "
            f"n_components={k}.",
            UserWarning,
            stacklevel=6,
        )


def warn_about_unconverged(max_iter: int, history: list[dict[str, Any]]) -> None:
    """Warn that training ended before the loss was flat, and whether another state was kept."""
    phase, epoch = history[-1]["phase"], history[-1]["epoch"]
    if phase == "start":
        message = (
            f"Training raised the loss in max_iter={max_iter} epochs, and the start was kept. "
            "Try a smaller learning_rate_init, or a larger max_iter."
        )
    elif phase == "best":
        message = (
            f"Training was best in epoch {epoch} of max_iter={max_iter}: what came after raised "
            "the loss, and the state there was kept. Try a smaller learning_rate_init, or a larger "
            "tol to stop earlier."
        )
    else:
        message = (
            f"The loss was still falling after max_iter={max_iter} epochs. "
            "Increase max_iter, or tol to stop earlier."
        )
    warnings.warn(
        message,
        ConvergenceWarning,
        stacklevel=4,
    )
