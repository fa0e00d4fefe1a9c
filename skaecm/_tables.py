"""Tables in files: csv, npy, npz and parquet, read as rows of numbers and written."""

import csv
import io
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import isfinite, isnan
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np

from ._extras import need

SUFFIXES = (".csv", ".npy", ".npz", ".parquet")
DATA_ARRAYS = ("x", "X", "data")
LABEL_ARRAYS = ("y", "target")
LABEL_COLUMNS = ("label", "target", "y", "class")

# Where the labels are: under this name, under a usual one, or nowhere.
Label = str | None | Literal[False]


class Table(NamedTuple):
    """Rows of numbers, with the names of their columns and their labels where there are any."""

    data: np.ndarray
    feature_names: list[str] | None = None
    target: np.ndarray | None = None
    target_name: str | None = None


def read(path: Path, label: Label = None, columns: Sequence[str] | None = None) -> Table:
    """The table of a file; the arguments are those of `skaecm.datasets.load`."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return read_csv(path.read_bytes(), str(path), label, columns)
    if suffix == ".parquet":
        return _read_parquet(path, label, columns)
    return _read_arrays(path, label)


def _listed(names: Iterable[str]) -> str:
    """Names for a sentence, the first ten of them."""
    shown = [repr(str(name)) for name in names]
    return ", ".join(shown[:10] + ["..."] * (len(shown) > 10)) or "nothing"


# csv
# ---


def read_csv(
    content: bytes, where: str, label: Label = None, columns: Sequence[str] | None = None
) -> Table:
    """The table of the content of a .csv file, which messages call ``where``."""
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        rows = ((reader.line_num, row) for row in reader if row)
        table = _read_rows(rows, where, label, columns)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{where} cannot be read as a .csv file: {error}.") from None
    return table or read_csv(content, where, False, columns)


def _read_rows(
    rows: Iterator[tuple[int, list[str]]],
    where: str,
    label: Label,
    columns: Sequence[str] | None,
) -> Table | None:
    """The table of rows and the numbers of their lines; None as of `_labelled`."""
    number, first = next(rows, (0, []))
    if not first:
        raise ValueError(f"{where} is empty.")
    if len(first) == 1 and any(mark in first[0] for mark in ";\t"):
        mark = "semicolons" if ";" in first[0] else "tabs"
        raise ValueError(
            f"{where}: columns must have commas between them, but the first row has {mark}: "
            f"{first[0][:60]!r}. Write the file with commas, and points in numbers."
        )
    names, label_name, features = None, None, list(range(len(first)))
    if _names_columns(where, first, columns):
        names = [name.strip() for name in first]
        features, label_name = _choose(where, names, label, columns)
    elif label:
        raise ValueError(
            f"{where} has no label column {label!r}, since its first row holds numbers only. Put "
            "a row with the names of the columns before it."
        )
    else:
        rows = chain([(number, first)], rows)
    values, cells = array("d"), []
    for number, row in rows:
        if len(row) != len(first):
            raise ValueError(
                f"{where}, line {number}: {len(row)} cells, but the first row has {len(first)}."
            )
        numbers = [_number(row[j]) for j in features]
        if not all(map(isfinite, numbers)):
            j = features[list(map(isfinite, numbers)).index(False)]
            column = repr(names[j]) if names else j + 1
            raise ValueError(
                f"{where}, line {number}, column {column}: {row[j]!r} is not a finite number. Mend "
                "or remove it, or, if this column holds the labels, name it as the label."
            )
        values.extend(numbers)
        if names and label_name:
            cells.append(row[names.index(label_name)].strip())
    if not values:
        raise ValueError(f"{where} has no rows below its header.")
    data = np.array(values).reshape(-1, len(features))
    if names is None:
        return Table(data)
    return _labelled(where, data, [names[j] for j in features], label, label_name, cells)


def _names_columns(where: str, first: Sequence[str], columns: Sequence[str] | None) -> bool:
    """Whether a first row names columns: by words, or by numbers that are known or count up."""
    filled = [cell.strip() for cell in first if cell.strip()]
    words = [cell for cell in filled if isnan(_number(cell)) and cell.lower() != "nan"]
    fractions = [cell for cell in filled if cell not in words and not cell.isdigit()]
    if words and fractions:
        raise ValueError(
            f"{where}: the first row must name the columns or hold numbers only, but holds "
            f"{words[0]!r} beside {fractions[0]!r}. Put a row with the names of the columns "
            "before it."
        )
    return (
        bool(words)
        or (columns is not None and set(columns) <= set(filled))
        or (len(filled) > 1 and filled == [str(i) for i in range(len(filled))])
    )


def _number(cell: str) -> float:
    """A cell as a number, NaN where it is none."""
    try:
        return float(cell)
    except ValueError:
        return np.nan


# Columns with names
# ------------------


def _choose(
    where: str, names: list[str], label: Label, columns: Sequence[str] | None
) -> tuple[list[int], str | None]:
    """Indices of the columns that are features, and the name of the one that may hold labels."""
    if "" in names:
        raise ValueError(
            f"{where}: column {names.index('') + 1} has no name. Name it, or remove it if it only "
            "numbers the rows (pandas leaves it out by to_csv(..., index=False))."
        )
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"{where}: two columns are called {repeated!r}. Rename one.")
    missing = next((name for name in columns or () if name not in names), None)
    if missing is not None:
        raise ValueError(
            f"{where} must have the column {missing!r}, but its columns are {_listed(names)}."
        )
    if label and label not in names:
        raise ValueError(
            f"{where} has no label column {label!r}; its columns are {_listed(names)}."
        )
    usual = [name for name in LABEL_COLUMNS if name in names and name not in (columns or ())]
    label_name = label or next(iter(usual), None) if label is not False else None
    if columns is None:
        columns = [name for name in names if name != label_name]
    if not columns:
        raise ValueError(f"{where} has no column beside the labels {label_name!r}.")
    return [names.index(name) for name in columns], label_name


def _labelled(
    where: str,
    data: np.ndarray,
    names: list[str],
    label: Label,
    label_name: str | None,
    cells: list[str],
) -> Table | None:
    """The table of rows and their labels; None if what was found by its name are no labels.

    Labels are integers if all are whole numbers, else words.
    """
    if label_name is None:
        return Table(data, names)
    if "" not in cells:
        target = np.array(cells)
        try:
            numbers = target.astype(np.float64)
        except ValueError:
            return Table(data, names, target, label_name)
        if _is_whole(numbers):
            return Table(data, names, numbers.astype(np.int64), label_name)
    if label:
        raise ValueError(
            f"{where}: label column {label!r} must hold whole numbers or words, one a class, "
            "and no empty cell, but holds fractions or empty cells, such as in its first rows "
            f"{_listed(cells[:3])}."
        )
    return None


def _is_whole(labels: np.ndarray) -> bool:
    return bool(np.isfinite(labels).all() and (labels == np.round(labels)).all())


# parquet
# -------


def import_pandas() -> Any:
    """pandas with a reader of parquet; ImportError that says how to install them."""
    need("pyarrow.parquet", "tables", "A .parquet file")
    return need("pandas", "tables", "A .parquet file")


def _read_parquet(path: Path, label: Label, columns: Sequence[str] | None) -> Table:
    """The table of a data frame; its index is no feature."""
    pandas = import_pandas()
    try:
        frame = pandas.read_parquet(path)
    except Exception as error:  # of many kinds, for damaged files
        raise ValueError(f"{path} cannot be read as a .parquet file: {error}.") from None
    where = str(path)
    if frame.empty:
        raise ValueError(f"{where} must have rows and columns, but has shape {frame.shape}.")
    frame.columns = [str(name).strip() for name in frame.columns]
    features, label_name = _choose(where, list(frame.columns), label, columns)
    rows, cells = frame.iloc[:, features], []
    for name, column in rows.items():
        if not pandas.api.types.is_numeric_dtype(column) or column.dtype.kind == "c":
            raise ValueError(
                f"{where}, column {name!r} must hold numbers, but holds {column.dtype}, such "
                f"as {column.iloc[0]!r}. Remove it, or, if it holds the labels, name it as the "
                "label."
            )
    if label_name is not None:
        labels = frame[label_name]
        cells = ["" if pandas.isna(value) else str(value) for value in labels]
    data = rows.to_numpy(dtype=np.float64, na_value=np.nan)
    _check_rows(where, data, list(rows.columns))
    table = _labelled(where, data, list(rows.columns), label, label_name, cells)
    return table or _read_parquet(path, False, columns)


# npy and npz
# -----------


def _read_arrays(path: Path, label: Label) -> Table:
    """The table of one array, or of those of an archive."""
    is_archive, target = path.suffix.lower() == ".npz", None
    wanted = LABEL_ARRAYS if label is None else (label,) if label else ()
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray) == is_archive:
                raise ValueError("the file is of the other kind")
            names = list(found) if is_archive else []
            data_name = next((name for name in DATA_ARRAYS if name in names), None)
            label_name = next((name for name in wanted if name in names), None)
            data = found if not is_archive else found[data_name] if data_name else None
            target = found[label_name] if label_name else None
    except MemoryError:
        raise
    except Exception:  # of many kinds, for damaged files
        raise ValueError(
            f"{path} is not an intact {path.suffix} file of numbers (and words for labels)."
        ) from None
    where = str(path)
    if label and label_name is None:
        held = f"it holds {_listed(names)}" if is_archive else "a .npy file is one array of rows"
        raise ValueError(f"{where} has no label array {label!r}: {held}.")
    if data is None:
        raise ValueError(
            f"{where} must hold an array 'x', 'X' or 'data', but holds {_listed(names)}."
        )
    _check_rows(where, data)
    if target is None:
        return Table(data)
    if target.shape != data.shape[:1]:
        raise ValueError(
            f"{where}: {label_name!r} must hold one label for each of the {len(data)} rows, "
            f"but has shape {target.shape}."
        )
    kind = target.dtype.kind
    if kind not in "biufSU" or (kind == "f" and not _is_whole(target)):
        raise ValueError(
            f"{where}: {label_name!r} must hold whole numbers or words, one a class, but has "
            f"dtype {target.dtype} and values such as {target[0]}."
        )
    return Table(data, None, target.astype(np.int64) if kind == "f" else target, label_name)


def _check_rows(where: str, data: np.ndarray, names: list[str] | None = None) -> None:
    """Raise if an array is not rows of finite numbers."""
    if data.ndim != 2 or data.dtype.kind not in "biuf" or 0 in data.shape:
        raise ValueError(
            f"{where}: the rows must be numbers, one row a sample and one column a feature, but "
            f"have shape {data.shape} and dtype {data.dtype}."
        )
    if not np.isfinite(data).all():
        i, j = np.argwhere(~np.isfinite(data))[0]
        column = repr(names[j]) if names else j
        raise ValueError(
            f"{where}: the rows must be finite, but row {i}, column {column} is {data[i, j]}. Fill "
            "in missing values or leave their rows out."
        )


# Writing
# -------


def write(path: Path, values: np.ndarray, columns: Sequence[str], name: str) -> None:
    """Write values to a file of one of `SUFFIXES`.

    ``columns`` are named in a .csv or .parquet file, the whole array as ``name`` in a
    .npz file.
    """
    suffix = path.suffix.lower()
    if suffix == ".npy":
        np.save(path, values)
    elif suffix == ".npz":
        arrays: dict[str, Any] = {name: values}
        np.savez_compressed(path, **arrays)
    elif suffix == ".parquet":
        frame = import_pandas().DataFrame(values.reshape(len(values), -1), columns=columns)
        frame.to_parquet(path, index=False)
    else:
        write_csv(path, values, columns)


def write_csv(file: Path | TextIO, values: np.ndarray, columns: Sequence[str]) -> None:
    """Write values below the names of their columns, with as many digits as they have."""
    header = ",".join(columns)
    np.savetxt(file, values, fmt="%s", delimiter=",", header=header, comments="")
