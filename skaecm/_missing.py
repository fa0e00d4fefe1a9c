"""Missing entries, marked by NaN: found, filled, left out of distances. NumPy in and out."""

from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils import gen_batches
from sklearn.utils.extmath import randomized_svd

# Directions from which entries are completed: so many, and at most this share of the columns,
# or they would follow the noise. After so many rounds neighbours hardly change.
DIRECTIONS = 32
SHARE_OF_COLUMNS = 0.25
ROUNDS = 10
HOLES_AT_ONCE = 2**16

# k-means over what was observed starts close to its end, so that few steps do.
STEPS = 20


def has_missing(x: Any) -> bool:
    """Whether any entry of ``x`` (n, d), dense or CSR, is missing."""
    values = x.data if sp.issparse(x) else x
    with np.errstate(invalid="ignore"):
        return values.size > 0 and bool(np.isnan(values.min()))


def missing_entries(x: Any) -> Any:
    """1 where an entry of ``x`` (n, d) is missing, else 0; CSR where ``x`` is."""
    if not sp.issparse(x):
        return np.isnan(x).astype(x.dtype)
    holes = type(x)((np.isnan(x.data).astype(x.dtype), x.indices, x.indptr), x.shape, copy=True)
    holes.eliminate_zeros()
    return holes


def filled(x: Any, values: np.ndarray) -> Any:
    """A copy of ``x`` (n, d) with ``values`` (d,) of the columns where entries are missing."""
    x = x.copy()
    if sp.issparse(x):
        holes = np.flatnonzero(np.isnan(x.data))
        x.data[holes] = values[x.indices[holes]]
    else:
        rows, columns = np.nonzero(np.isnan(x))
        x[rows, columns] = values[columns]
    return x


def completed(x: Any, values: np.ndarray) -> Any:
    """A copy of ``x`` (n, d) whose missing entries are those of its principal directions.

    They begin with ``values`` (d,) and then come, in turns with the directions, from the
    projection of their rows: iterated principal components (Kiers 1997), not centred, so
    that sparse rows stay sparse.
    """
    known = filled(x, values)
    n_directions = min(DIRECTIONS, int(SHARE_OF_COLUMNS * x.shape[1]), x.shape[0] - 1)
    if n_directions < 1:
        return known
    if sp.issparse(x):
        entries, holes = known.data, np.flatnonzero(np.isnan(x.data))
        rows = np.searchsorted(x.indptr, holes, side="right") - 1
        columns = x.indices[holes]
    else:
        entries, holes = known.reshape(-1), np.flatnonzero(np.isnan(x))
        rows, columns = np.divmod(holes, x.shape[1])
    for _ in range(ROUNDS):
        directions = randomized_svd(known, n_directions, random_state=0)[2].T
        codes = known @ directions
        for some in gen_batches(len(holes), HOLES_AT_ONCE):
            projected = codes[rows[some]] * directions[columns[some]]
            entries[holes[some]] = projected.sum(axis=1)
    return known


def squared_distances(x: Any, centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances (n, k) over the observed entries, and their numbers (n,).

    ``sum_j m_ij (x_ij - c_kj)^2`` with m_ij one where x_ij was observed and else zero:
    the distance of rows filled with zeros, less what these zeros add.
    """
    if not sp.issparse(x):
        # Far from the origin the distances would drown in their rounding.
        center = centers.mean(axis=0)
        x, centers = x - center, centers - center
    missing = missing_entries(x)
    known = filled(x, np.zeros(x.shape[1], x.dtype))
    squared = euclidean_distances(known, centers, squared=True) - missing @ np.square(centers).T
    n_missing = np.asarray(missing.sum(axis=1)).ravel()
    return np.maximum(squared, 0.0), x.shape[1] - n_missing


def observed_kmeans(x: Any, centers: np.ndarray, sample_weight: np.ndarray | None) -> np.ndarray:
    """Centres (k, d) of k-means over the observed entries of ``x``, from ``centers``.

    No step can raise ``sum_ij m_ij (x_ij - c_kj)^2`` with k the centre of row i.
    """
    n, k = x.shape[0], len(centers)
    weight = np.ones(n) if sample_weight is None else sample_weight
    missing, known = missing_entries(x), filled(x, np.zeros(x.shape[1], x.dtype))
    before = None
    for _ in range(STEPS):
        labels = squared_distances(x, centers)[0].argmin(axis=1)
        if before is not None and (labels == before).all():
            break
        before = labels
        member = sp.csr_array((weight, (labels, np.arange(n))), shape=(k, n))
        total, n_missing = (
            part.toarray() if sp.issparse(part) else part
            for part in (member @ known, member @ missing)
        )
        n_observed = np.bincount(labels, weights=weight, minlength=k)[:, None] - n_missing
        # Where a cluster has no entry of a column, its centre stays. The tolerance is
        # that of differences of sums of weights.
        has_some = n_observed > 1e-9 * weight.sum()
        centers = np.where(has_some, total / np.where(has_some, n_observed, 1.0), centers)
    return centers
