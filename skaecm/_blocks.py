"""Where rows come from that are not held in memory: arrays in files, and blocks one by one.

`opened` tells such a source from an array, and `Blocks` reads it in pieces. A source that
fits the window is read into memory and is then like any array.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from numbers import Integral
from typing import Any, TypeVar, final

import joblib
import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils import assert_all_finite
from torch import Tensor

Item = TypeVar("Item")

# Rows are shuffled within a window of so many bytes, in the dtype of the computation,
# while a thread fills the next one. A window mixes many blocks from all over an array;
# every block is read at one go, so that a disk seldom has to seek.
WINDOW_BYTES = 2**28
BLOCK_BYTES = 2**23

# Kinds of NumPy's dtypes that hold real numbers.
REAL = "biuf"


# What a source is
# ----------------


def is_array_elsewhere(X: Any) -> bool:
    """Whether X is a memory map, a read-only array, or has shape, dtype and slices of one.

    Arrays of other libraries that scikit-learn knows (the array API) are not.
    """
    if isinstance(X, np.ndarray):
        is_elsewhere = isinstance(X, np.memmap) or (type(X) is np.ndarray and not X.flags.writeable)
    else:
        is_array = all(hasattr(X, name) for name in ("shape", "dtype", "__getitem__"))
        is_elsewhere = is_array and not (sp.issparse(X) or hasattr(X, "__array_namespace__"))
    return (
        is_elsewhere
        and isinstance(X.dtype, np.dtype)
        and X.dtype.kind in REAL
        and len(X.shape) == 2
    )


def is_iterable_of_blocks(X: Any) -> bool:
    """Whether X is nothing but iterable: no container that scikit-learn makes an array of."""
    marks = ("shape", "__array__", "__array_interface__", "__dataframe__")
    return (
        hasattr(X, "__iter__")
        and not isinstance(X, Sequence | Mapping | Set)
        and not any(hasattr(X, mark) for mark in marks)
    )


def computed_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of rows as checked: float32 and float64 stay, uint8 becomes float32."""
    return np.dtype(np.float32 if dtype in (np.float32, np.uint8) else np.float64)


def blocks_of(X: Any) -> Iterator[np.ndarray]:
    """The blocks of an iterable, each a matrix of real numbers of one width."""
    width = None
    for number, given in enumerate(X):
        block = np.asarray(given)
        if block.ndim != 2 or block.dtype.kind not in REAL:
            raise ValueError(
                "A block of X must be an array of real numbers of shape (n_rows, n_features), "
                f"but block {number} is a {type(given).__name__} of shape {block.shape} and "
                f"dtype {block.dtype}."
            )
        width = block.shape[1] if width is None else width
        if block.shape[1] != width:
            raise ValueError(
                f"All blocks of X must have as many columns as the first, {width}, but block "
                f"{number} has shape {block.shape}."
            )
        if len(block):
            yield block


def check_shape(X: Any) -> None:
    """Raise if an array does not know how many rows and columns it has."""
    if not all(isinstance(length, Integral) for length in X.shape):
        raise ValueError(
            f"X must have a known number of rows and columns, but has shape {X.shape}. An array "
            "of dask learns them by its method compute_chunk_sizes()."
        )


def fits_window(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether so many numbers are few enough to be held."""
    return int(np.prod(shape)) * dtype.itemsize <= WINDOW_BYTES


def held_if_small(X: Any) -> np.ndarray | None:
    """All rows of an iterable of blocks if they fit the window, else None."""
    held: list[np.ndarray] = []
    n_rows = 0
    for block in blocks_of(X):
        dtype = held[0].dtype if held else computed_dtype(block.dtype)
        n_rows += len(block)
        if not fits_window((n_rows, block.shape[1]), dtype):
            return None
        # A copy: the next block may come in the same memory.
        held.append(np.array(block, dtype=dtype, order="C"))
    if not held:
        raise ValueError("X must hold at least one row, but its iterator gave none.")
    return np.concatenate(held)


# Reading
# -------


def ahead(pool: ThreadPoolExecutor, items: Iterator[Item]) -> Iterator[Item]:
    """The items, each made in the thread of ``pool`` while the one before is in use."""
    future = pool.submit(next, items, None)
    while (item := future.result()) is not None:
        future = pool.submit(next, items, None)
        yield item


def cut(piece: np.ndarray, first: int, room: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Parts of a piece and the numbers of their first rows: of ``room`` rows, then of ``size``."""
    start = 0
    while start < len(piece):
        yield piece[start : start + room], first + start
        start, room = start + room, size


class Blocks(ABC):
    """Rows (n, d) that are read in pieces, by a thread that reads ahead.

    Parameters
    ----------
    shape : tuple of int
        (n, d).
    dtype : numpy.dtype
        float32 or float64, that of the rows as checked.
    pool : ThreadPoolExecutor
        Has the one thread that reads.
    """

    def __init__(self, shape: tuple[int, int], dtype: np.dtype, pool: ThreadPoolExecutor):
        self.shape = shape
        self.dtype = dtype
        self.pool = pool
        self.is_checked = False

    @abstractmethod
    def draw_order(self, generator: torch.Generator) -> list[int] | None:
        """An order in which pieces can be read; None is their own."""

    @abstractmethod
    def pieces(self, order: list[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """All pieces, of any dtype, each with the number of its first row."""

    def parcels(
        self, size: int, dtype: torch.dtype, order: list[int] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in parcels of ``size``, with their numbers; the last is what is left.

        Two parcels have memory: one is overwritten once the next is asked for. The
        first whole pass checks that the values are finite.
        """
        return ahead(self.pool, self._fill(size, dtype, order))

    def _fill(
        self, size: int, dtype: torch.dtype, order: list[int] | None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        memory = cycle(
            (torch.empty(size, self.shape[1], dtype=dtype), torch.empty(size, dtype=torch.long))
            for _ in range(2)
        )
        x, numbers = next(memory)
        filled = 0
        for first, piece in self.pieces(order):
            for part, row in cut(piece, first, size - filled, size):
                stop = filled + len(part)
                values = x.numpy()[filled:stop]
                np.copyto(values, part, casting="unsafe")
                if not self.is_checked:
                    check_finite(values, row)
                torch.arange(row, row + len(part), out=numbers[filled:stop])
                filled = stop
                if filled == size:
                    yield x, numbers
                    x, numbers = next(memory)
                    filled = 0
        if filled:
            yield x[:filled], numbers[:filled]
        self.is_checked = True


def check_finite(x: np.ndarray, first: int) -> None:
    """Raise as scikit-learn does if a value is not finite, and name the row."""
    try:
        assert_all_finite(x, input_name="X")
    except ValueError as error:
        row = first + int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ValueError(f"{error} See row {row}, counted from 0.") from None


@final
class SlicedBlocks(Blocks):
    """Rows of an array, read by contiguous slices that keep its row chunks whole."""

    def __init__(self, x: Any, pool: ThreadPoolExecutor):
        super().__init__((int(x.shape[0]), int(x.shape[1])), computed_dtype(x.dtype), pool)
        self.x = x
        rows = max(1, BLOCK_BYTES // max(1, self.shape[1] * self.dtype.itemsize))
        self.edges = row_edges(self.shape[0], rows, getattr(x, "chunks", None))

    def draw_order(self, generator: torch.Generator) -> list[int]:
        return torch.randperm(len(self.edges) - 1, generator=generator).tolist()

    def pieces(self, order: list[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
        for i in range(len(self.edges) - 1) if order is None else order:
            first, last = self.edges[i : i + 2]
            yield first, np.asarray(self.x[first:last])


def row_edges(n_rows: int, rows: int, chunks: Any) -> list[int]:
    """Where to cut so many rows into pieces of about ``rows``, never within a chunk.

    ``chunks`` is None, as in HDF5 and Zarr the shape of all chunks, or as in dask the
    lengths of the chunks along each axis.
    """
    if chunks and isinstance(chunks[0], Sequence):
        edges = [0]
        for stop in np.cumsum(chunks[0]).tolist():
            # Small neighbours make one piece.
            if len(edges) > 1 and stop - edges[-2] <= rows:
                edges.pop()
            edges.append(stop)
        return edges
    chunk = chunks[0] if chunks else 1
    return [*range(0, n_rows, max(1, rows // chunk) * chunk), n_rows]


@final
class IteratedBlocks(Blocks):
    """Rows of an iterable of blocks, which come in their own order every time."""

    def __init__(self, x: Any, pool: ThreadPoolExecutor):
        self.x = x
        n_rows, width, dtype = 0, 0, None
        for block in blocks_of(x):
            dtype = computed_dtype(block.dtype) if dtype is None else dtype
            check_finite(block, n_rows)
            n_rows, width = n_rows + len(block), block.shape[1]
        super().__init__((n_rows, width), np.dtype(dtype), pool)
        self.is_checked = True

    def draw_order(self, generator: torch.Generator) -> None:
        """None: they come as they come."""

    def pieces(self, order: list[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
        first = 0
        for block in blocks_of(self.x):
            if first + len(block) > self.shape[0] or block.shape[1] != self.shape[1]:
                self._refuse(first + len(block), block.shape[1])
            yield first, block
            first += len(block)
        if first < self.shape[0]:
            self._refuse(first, self.shape[1])

    def _refuse(self, n_rows: int, width: int) -> None:
        raise ValueError(
            f"X must give the same blocks every time it is iterated over, but gave an array of "
            f"shape {self.shape} first and {(n_rows, width)} later. Its __iter__ must "
            "return a new iterator every time."
        )


def fingerprint(x: Any) -> Any:
    """What tells checked data from other data, for a cache: itself, or hashes of its pieces."""
    if not isinstance(x, Blocks):
        return x
    hashes = [joblib.hash(np.ascontiguousarray(piece)) for _, piece in x.pieces()]
    return type(x).__name__, str(x.dtype), hashes


@contextmanager
def opened(X: Any, **whole: Any) -> Iterator[Any]:
    """X as checks take it: `Blocks` where it stays where it is, else an array.

    The thread that reads ahead lives as long as the context. ``whole`` are the parameters
    that need all rows at hand, None where they are not given.

    Raises
    ------
    ValueError
        If X is an iterator, or larger than the window and no array in memory or a map while
        a parameter needs all rows.
    """
    needed = [name for name, value in whole.items() if value is not None]
    if is_array_elsewhere(X):
        check_shape(X)
        is_small = fits_window(X.shape, computed_dtype(X.dtype))
        if isinstance(X, np.ndarray):
            held = X if is_small or needed else None
        else:
            held = np.array(X[0 : X.shape[0]], computed_dtype(X.dtype)) if is_small else None
    elif is_iterable_of_blocks(X):
        if iter(X) is X:
            raise ValueError(
                f"X must be iterable more than once, but is a {type(X).__name__}, which one pass "
                "uses up. Pass an array, or an instance of a class whose __iter__ returns a new "
                "iterator over the blocks every time."
            )
        held = held_if_small(X)
    else:
        held = X
    if held is not None:
        yield held
        return
    if needed:
        raise ValueError(
            f"{' and '.join(needed)} cannot be used where X is read in blocks, as all rows must be "
            f"at hand: X is a {type(X).__name__} of more than {WINDOW_BYTES >> 20} MiB. Pass a "
            "NumPy array or a memory map."
        )
    with ThreadPoolExecutor(1, "skaecm-reader") as pool:
        yield (SlicedBlocks if is_array_elsewhere(X) else IteratedBlocks)(X, pool)
