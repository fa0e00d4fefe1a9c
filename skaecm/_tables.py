"""Tables in files: csv, npy, npz and parquet, read as rows of numbers and written."""

import csv
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

import numpy as np

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


def read(
    path: Path,
    *,
    label: Label = None,
    header: bool | None = True,
    columns: Sequence[str] | None = None,
) -> Table:
    """The table of a file; the arguments are those of `skaecm.datasets.load`."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _read_npy(path, label)
    if suffix == ".npz":
        return _read_npz(path, label)
    if suffix == ".parquet":
        return _read_parquet(path, label, columns)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return read_csv(file, str(path), label=label, header=header, columns=columns)
    except OSError as error:
        raise ValueError(f"{path} cannot be read as a .csv file: {error}.") from None


# csv
# ---


def read_csv(
    lines: Iterable[str],
    where: str,
    *,
    label: Label = None,
    header: bool | None = True,
    columns: Sequence[str] | None = None,
) -> Table:
    """The table of the lines of a .csv file, which messages call ``where``."""
    rows = _filled_rows(lines, where)
    first_number, first = next(rows, (0, []))
    if not first:
        raise ValueError(f"{where} is empty: a first row with the names of the columns is needed.")
    if header is None:
        header = _names_columns(where, first, columns)
    elif not any(map(_is_word, first)):
        raise ValueError(
            f"{where}: the first row must name the columns, but holds numbers, "
            f"{_listed(first[:3])}. Put a row of names before it."
        )
    if header:
        return _read_named(rows, where, [name.strip() for name in first], label, columns)
    if label:
        raise ValueError(
            f"{where} has no label column {label!r}, since its first row holds numbers only. Put "
            "a row with the names of the columns before it."
        )
    places = [f"column {i + 1}" for i in range(len(first))]
    values = array("d")
    for number, row in chain([(first_number, first)], rows):
        _check_width(where, number, row, len(first), "the first row has")
        values.extend(_numbers(where, number, row, places))
    return Table(np.array(values).reshape(-1, len(first)))


def _read_named(
    rows: Iterator[tuple[int, list[str]]],
    where: str,
    names: list[str],
    label: Label,
    columns: Sequence[str] | None,
) -> Table:
    """The table of the rows below a header."""
    features, label_index = _choose(where, names, label, columns)
    places = [f"column {names[j]!r}" for j in features]
    values, numbers, cells = array("d"), array("q"), []
    for number, row in rows:
        _check_width(where, number, row, len(names), "the header names")
        values.extend(_numbers(where, number, [row[j] for j in features], places))
        numbers.append(number)
        if label_index is not None:
            cells.append(row[label_index].strip())
    if not numbers:
        raise ValueError(f"{where} has no rows below its header.")
    data = np.array(values).reshape(len(numbers), len(features))
    target = None if label_index is None else _parse_labels(where, label, cells)
    if label_index is not None and target is None and columns is None:
        # A feature under a name that is usual for labels.
        place = [f"column {names[label_index]!r}"]
        pairs = zip(numbers, cells, strict=True)
        column = [_numbers(where, number, [cell], place)[0] for number, cell in pairs]
        data = np.insert(data, label_index, column, axis=1)
        features = list(range(len(names)))
    return _named_table(where, data, names, features, target, label_index)


def _filled_rows(lines: Iterable[str], where: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a .csv file that are not empty, with the numbers of their lines."""
    reader = csv.reader(lines)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{where} cannot be read as a .csv file: {error}.") from None


def _names_columns(where: str, first: Sequence[str], columns: Sequence[str] | None) -> bool:
    """Whether a first row names columns: by words, or by numbers that are known or count up."""
    words = [cell for cell in first if _is_word(cell)]
    fractions = [cell for cell in first if not _is_word(cell) and not cell.strip().isdigit()]
    if words and fractions:
        raise ValueError(
            f"{where}: the first row must name the columns or hold numbers only, but holds "
            f"{words[0]!r} beside {fractions[0]!r}. Put a row with the names of the columns "
            "before it."
        )
    return (
        bool(words)
        or (columns is not None and set(columns) <= set(first))
        or (len(first) > 1 and list(first) == [str(i) for i in range(len(first))])
    )


def _is_word(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return True
    return False


def _check_width(where: str, number: int, row: Sequence[str], width: int, since: str) -> None:
    if len(row) != width:
        raise ValueError(f"{where}, line {number}: {len(row)} cells, but {since} {width} columns.")


def _numbers(where: str, number: int, cells: Sequence[str], places: Sequence[str]) -> list[float]:
    """The cells of a line as numbers, which must be finite."""
    try:
        values = list(map(float, cells))
        if all(map(isfinite, values)):
            return values
    except ValueError:
        pass
    place, cell = next(
        (place, cell)
        for place, cell in zip(places, cells, strict=True)
        if _is_word(cell) or not cell.strip() or not isfinite(float(cell))
    )
    raise ValueError(
        f"{where}, line {number}, {place}: {cell!r} is not a finite number. Mend or remove it, "
        "or, if this column holds the labels, name it as the label."
    )


# Columns with names
# ------------------


def _choose(
    where: str, names: list[str], label: Label, columns: Sequence[str] | None
) -> tuple[list[int], int | None]:
    """Indices of the columns that are features, and of the one that may hold labels."""
    if "" in names:
        raise ValueError(
            f"{where}: column {names.index('') + 1} has no name. Name it, or remove it if it only "
            "numbers the rows."
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
    wanted = [label] if label else []
    if label is None:
        wanted = [name for name in LABEL_COLUMNS if columns is None or name not in columns]
    label_index = next((names.index(name) for name in wanted if name in names), None)
    if columns is not None:
        return [names.index(name) for name in columns], label_index
    return [i for i in range(len(names)) if i != label_index], label_index


def _parse_labels(where: str, label: Label, cells: list[str]) -> np.ndarray | None:
    """Labels as integers if all are whole numbers, else as words; None if they are none.

    Those of a column that was named have to be labels.
    """
    if "" not in cells:
        try:
            values = np.array(cells, dtype=np.float64)
        except ValueError:
            return np.array(cells)
        if _is_discrete(values):
            return values.astype(np.int64)
    if label:
        raise ValueError(
            f"{where}: label column {label!r} must hold whole numbers or words, one a class, "
            "and no empty cell, but holds fractions or empty cells, such as in its first rows "
            f"{_listed(cells[:3])}."
        )
    return None


def _is_discrete(labels: np.ndarray) -> bool:
    if labels.dtype.kind != "f":
        return True
    return bool(np.isfinite(labels).all() and (labels == np.round(labels)).all())


def _named_table(
    where: str,
    data: np.ndarray,
    names: list[str],
    features: list[int],
    target: np.ndarray | None,
    label_index: int | None,
) -> Table:
    target_name = None if target is None or label_index is None else names[label_index]
    if not features:
        raise ValueError(f"{where} has no column beside the labels {target_name!r}.")
    return Table(data, [names[j] for j in features], target, target_name)


# parquet
# -------


def import_pandas() -> Any:
    """pandas with a reader of parquet; ImportError that says how to install them."""
    try:
        import pandas
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ImportError(
            ".parquet files need pandas and pyarrow: pip install skaecm[tables]"
        ) from None
    return pandas


def _read_parquet(path: Path, label: Label, columns: Sequence[str] | None) -> Table:
    """The table of a data frame; its index is no feature."""
    pandas = import_pandas()
    try:
        frame = pandas.read_parquet(path)
    except Exception as error:  # of many kinds, for damaged files
        raise ValueError(f"{path} cannot be read as a .parquet file: {error}.") from None
    names = [str(name).strip() for name in frame.columns]
    if 0 in frame.shape:
        raise ValueError(
            f"{path} must have rows and columns, but has {frame.shape[0]} rows and "
            f"{frame.shape[1]} columns."
        )
    features, label_index = _choose(str(path), names, label, columns)
    target = None
    if label_index is not None:
        column = frame.iloc[:, label_index]
        cells = [
            "" if missing else str(value)
            for value, missing in zip(column, column.isna(), strict=True)
        ]
        target = _parse_labels(str(path), label, cells)
        if target is None and columns is None:
            features = list(range(len(names)))
    data = np.empty((len(frame), len(features)))
    for i, j in enumerate(features):
        column = frame.iloc[:, j]
        if not pandas.api.types.is_numeric_dtype(column) or column.dtype.kind == "c":
            raise ValueError(
                f"{path}, column {names[j]!r} must hold numbers, but holds {column.dtype}, such "
                f"as {column.iloc[0]!r}. Remove it, or, if it holds the labels, name it as the "
                "label."
            )
        data[:, i] = column.to_numpy(dtype=np.float64, na_value=np.nan)
        if not np.isfinite(data[:, i]).all():
            row = np.flatnonzero(~np.isfinite(data[:, i]))[0]
            raise ValueError(
                f"{path}, column {names[j]!r} must be finite, but row {row} is {data[row, i]}. "
                "Fill in missing values or leave their rows out."
            )
    return _named_table(str(path), data, names, features, target, label_index)


# npy and npz
# -----------


def _read_npy(path: Path, label: Label) -> Table:
    """The table of one array."""
    if label:
        raise ValueError(f"{path} has no label array {label!r}: a .npy file is one array of rows.")
    try:
        with path.open("rb") as file:
            data = np.load(file, allow_pickle=False)
    except MemoryError:
        raise
    except Exception:  # of many kinds, for damaged files
        data = None
    if not isinstance(data, np.ndarray):
        raise ValueError(f"{path} is not an intact .npy file of numbers.")
    _check_array(str(path), "the array", data)
    return Table(data)


def _read_npz(path: Path, label: Label) -> Table:
    """Data and labels of an archive of arrays."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            data_name = next((name for name in DATA_ARRAYS if name in archive), None)
            if data_name is None:
                raise ValueError(
                    f"it must hold an array 'x', 'X' or 'data', but holds {_listed(archive)}"
                )
            if label and label not in archive:
                raise ValueError(f"it has no label array {label!r}, but holds {_listed(archive)}")
            names = () if label is False else LABEL_ARRAYS if label is None else (label,)
            label_name = next((name for name in names if name in archive), None)
            data = archive[data_name]
            labels = None if label_name is None else archive[label_name]
    except MemoryError:
        raise
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} cannot be used: {error}.") from None
    except Exception:
        # A single array or text under the name of an archive, or a damaged one.
        raise ValueError(f"{path} is not an intact .npz archive.") from None
    _check_array(str(path), repr(data_name), data)
    if labels is None:
        return Table(data)
    if labels.shape != data.shape[:1]:
        raise ValueError(
            f"{path}: {label_name!r} must hold one label for each of the {len(data)} rows, "
            f"but has shape {labels.shape}."
        )
    if labels.dtype.kind not in "biufSU" or not _is_discrete(labels):
        raise ValueError(
            f"{path}: {label_name!r} must hold whole numbers or words, one a class, but has "
            f"dtype {labels.dtype} and values such as {labels[0]}."
        )
    target = labels.astype(np.int64) if labels.dtype.kind == "f" else labels
    return Table(data, target=target, target_name=label_name)


def _check_array(where: str, name: str, data: np.ndarray) -> None:
    """Raise if an array is not rows of finite numbers."""
    if data.ndim != 2 or data.dtype.kind not in "biuf" or 0 in data.shape:
        raise ValueError(
            f"{where}: {name} must be numbers with one row a sample and one column a "
            f"feature, but has shape {data.shape} and dtype {data.dtype}."
        )
    if not np.isfinite(data).all():
        row, column = np.argwhere(~np.isfinite(data))[0]
        raise ValueError(
            f"{where}: {name} must be finite, but row {row}, column {column} is "
            f"{data[row, column]}. Fill in missing values or leave their rows out."
        )


def _listed(names: Iterable[str]) -> str:
    """Names for a sentence, the first ten of them."""
    shown = [repr(str(name)) for name in names]
    return ", ".join(shown[:10] + ["..."] * (len(shown) > 10)) or "nothing"


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
        with path.open("w", newline="", encoding="utf-8") as file:
            write_csv(file, values, columns)


def write_csv(file: TextIO, values: np.ndarray, columns: Sequence[str]) -> None:
    """Write values below the names of their columns, with as many digits as they have."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(row.astype(str) for row in values.reshape(len(values), -1))
