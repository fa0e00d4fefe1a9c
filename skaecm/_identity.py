"""Which fit is it: a class, the parameters that decide its result, and its data, in words.

Two fits with the same words end alike, given the same seeds. Data and arrays are told by
a digest, functions by their names, as nobody can compare their code.
"""

import dataclasses
import hashlib
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator
from sklearn.frozen import FrozenEstimator
from torch import Tensor, nn

from ._rows import Rows
from ._tensors import to_numpy

# Parameters that do not decide what is learned, or only its last digits, and two that
# `identity` tells in words of their own.
FREE = {
    "callback",
    "checkpoint",
    "device",
    "memory",
    "n_jobs",
    "random_state",
    "verbose",
    "warm_start",
}


def digest(arrays: Iterable[np.ndarray]) -> str:
    """The same for the same bytes, however they are cut into arrays."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).view(np.uint8).data)
    return found.hexdigest()[:16]


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Every bit of integers of 64 bits spread over all of them (Steele et al. 2014, splitmix64)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def sum_of_rows(x: np.ndarray, numbers: np.ndarray) -> int:
    """A sum over rows (n, d) that tells their values and their numbers (n,)."""
    words = np.ascontiguousarray(x).view(f"u{x.itemsize}").astype(np.uint64)
    # Odd factors: no change of one value is lost.
    factors = mixed(np.arange(x.shape[1], dtype=np.uint64)) | np.uint64(1)
    rows = (words * factors).sum(axis=1) + mixed(numbers.astype(np.uint64))
    return int(mixed(rows).sum())


def rows_in_words(rows: Rows) -> str:
    """Rows, whatever kind they are of and whichever process goes through them."""
    n_rows, n_features = rows.shape
    batches = rows.in_order()
    own = sum(sum_of_rows(to_numpy(batch.x), to_numpy(batch.indices)) for batch in batches)
    values = sum(rows.ranks.gather(own)) % 2**64
    return f"{n_rows} x {n_features} of {str(rows.dtype).removeprefix('torch.')}, {values:016x}"


def weights_in_words(rows: Rows) -> str:
    """The weights of rows; on the first process, which asks for them, of all."""
    return "None" if rows.weight is None else digest([rows.ranks.stack(to_numpy(rows.weight))])


def graph_in_words(graph: sp.csr_array | None) -> str:
    """The edges that a user gave."""
    if graph is None:
        return "None"
    return f"{graph.nnz} edges, {digest([graph.indptr, graph.indices, graph.data])}"


def network_in_words(network: nn.Module) -> str:
    """The weights of a network, and its prior, if it has one."""
    values = (*network.state_dict().values(), getattr(network, "alpha", None))
    return digest(to_numpy(value).reshape(-1) for value in values if isinstance(value, Tensor))


def value_in_words(value: Any) -> str:
    """The value of a parameter, in one line."""
    if isinstance(value, FrozenEstimator):
        return value_in_words(value.estimator)
    if value is None or isinstance(value, bool | np.bool_ | str):
        return repr(value)
    if isinstance(value, Integral):
        return str(int(value))
    if isinstance(value, Real):
        return repr(float(value)).removesuffix(".0")  # 1.0 is the integer 1
    if isinstance(value, nn.Module):
        return f"{type(value).__name__} {network_in_words(value)}"
    if isinstance(value, BaseEstimator):
        return estimator_in_words(value)
    if dataclasses.is_dataclass(value):
        return repr(value)
    if callable(value):
        return str(getattr(value, "__qualname__", type(value).__qualname__))
    array = np.asarray(value)
    if array.ndim == 1 and len(array) <= 8:
        return "(" + ", ".join(value_in_words(part) for part in array.tolist()) + ")"
    return f"array of shape {array.shape}, {digest([array.astype(np.float64).reshape(-1)])}"


def estimator_in_words(estimator: BaseEstimator) -> str:
    """What a fitted estimator learned that a start may use."""
    if hasattr(estimator, "module_"):
        return f"{type(estimator).__name__} {network_in_words(estimator.module_)}"
    names = ("cluster_centers_", "means_", "weights_", "covariances_")
    arrays = [np.asarray(getattr(estimator, name)) for name in names if hasattr(estimator, name)]
    return f"{type(estimator).__name__} {digest(array.reshape(-1) for array in arrays)}"


def identity(
    estimator: BaseEstimator, rows: Rows, graph: sp.csr_array | None, *, is_warm: bool
) -> dict[str, str]:
    """What decides the result of a fit, by name, in words.

    Of `random_state` only an integer does: of all else the seeds come from it, and these
    are kept.
    """
    seed = estimator.random_state
    return {
        "class": type(estimator).__name__,
        **{
            name: value_in_words(value)
            for name, value in estimator.get_params(deep=False).items()
            if name not in FREE
        },
        "random_state": str(seed) if isinstance(seed, Integral) else "no integer",
        "warm_start": network_in_words(estimator.module_) if is_warm else "no fit to go on from",
        "X": rows_in_words(rows),
        "sample_weight": weights_in_words(rows),
        "adjacency": graph_in_words(graph),
    }
