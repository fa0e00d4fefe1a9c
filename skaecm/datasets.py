"""Data sets by name or from a file."""

import csv
import os
import pickle
import zipfile
import zlib
from collections.abc import Sequence
from math import isqrt
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.utils import Bunch

__all__ = ["load"]

FOLDER_VARIABLE = "SKAECM_DATA"
DATA_ARRAYS = ("x", "X", "data")
LABEL_ARRAYS = ("y", "target")
LABEL_COLUMNS = ("label", "target", "y", "class")
# Sets whose rows are square images in C order.
IMAGE_SETS = ("digits", "fashion_mnist", "mnist", "optdigits", "usps")


def load(name_or_path: str | os.PathLike[str], *, label: str | None = None) -> Bunch:
    """Load a data set.

    Parameters
    ----------
    name_or_path : str or path-like
        - "digits", which comes with scikit-learn;
        - any other name: NAME.npz in the folder that the environment variable
          SKAECM_DATA names;
        - the path of a .npz file with an array "x", "X" or "data" (n_samples,
          n_features) and perhaps labels "y" or "target" (n_samples,);
        - the path of a .csv file whose first row names the columns. All columns
          but the labels must be numbers.
    label : str, default=None
        The array (.npz) or column (.csv) that holds the labels. None looks for
        "y" or "target" (.npz), for "label", "target", "y" or "class" (.csv; a
        column with fractions is a feature), and does without if there is none.

    Returns
    -------
    dataset : Bunch
        With the attributes

        - data : ndarray of shape (n_samples, n_features);
        - target : ndarray of shape (n_samples,), or None;
        - name : str;
        - image_shape : (height, width) for sets known to be images, or None.

    Raises
    ------
    ValueError
        If the name is unknown or a file is not as described.
    FileNotFoundError
        If there is no such file.

    Examples
    --------
    >>> from skaecm.datasets import load
    >>> digits = load("digits")
    >>> digits.data.shape, digits.image_shape
    ((1797, 64), (8, 8))
    """
    path = Path(name_or_path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".npz"):
        if suffix or len(path.parts) != 1:
            raise ValueError(
                "name_or_path must be the name of a data set or a path that ends in .npz or "
                f".csv, but is {str(name_or_path)!r}."
            )
        if path.name == "digits":
            if label is not None:
                raise ValueError(
                    "label names a column of a .csv or an array of a .npz file, but the "
                    f"bundled digits have their own labels. Leave out label={label!r}."
                )
            data, target = load_digits(return_X_y=True)
            return _bunch("digits", data, target)
        path = _find(path.name)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    data, target = (_read_csv if suffix == ".csv" else _read_npz)(path, label)
    return _bunch(path.stem, data, target)


def _bunch(name: str, data: np.ndarray, target: np.ndarray | None) -> Bunch:
    side = isqrt(data.shape[1])
    is_image = name in IMAGE_SETS and data.shape[1] >= 64 and side**2 == data.shape[1]
    image_shape = (side, side) if is_image else None
    return Bunch(data=data, target=target, name=name, image_shape=image_shape)


def _find(name: str) -> Path:
    """The file of a named set."""
    setting = os.environ.get(FOLDER_VARIABLE)
    if not setting:
        raise ValueError(
            f"Unknown data set {name!r}: only 'digits' is bundled, and the environment variable "
            f"{FOLDER_VARIABLE} is not set. Set it to the folder that holds {name}.npz, or give "
            "the path of a .npz or .csv file."
        )
    folder = Path(setting)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{FOLDER_VARIABLE} must be a folder of .npz files, but is {setting!r}, which is "
            "not a folder."
        )
    path = folder / f"{name}.npz"
    if not path.is_file():
        known = sorted({"digits", *(file.stem for file in folder.glob("*.npz"))})
        raise ValueError(
            f"Unknown data set {name!r}: there is no {name}.npz in {FOLDER_VARIABLE}={setting}. "
            f"Known names: {', '.join(known)}."
        )
    return path


# Files
# -----


def _read_npz(path: Path, label: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Data and labels of an archive of arrays."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            data_name = next((name for name in DATA_ARRAYS if name in archive), None)
            if data_name is None:
                raise ValueError(
                    f"it must hold an array 'x', 'X' or 'data', but holds {_listed(archive)}"
                )
            if label is not None and label not in archive:
                raise ValueError(f"it has no label array {label!r}, but holds {_listed(archive)}")
            names = LABEL_ARRAYS if label is None else (label,)
            label_name = next((name for name in names if name in archive), None)
            data = archive[data_name]
            labels = None if label_name is None else archive[label_name]
    except (AttributeError, TypeError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error):
        # A single array or text under the name of an archive, or a damaged one.
        raise ValueError(f"{path} is not an intact .npz archive.") from None
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} cannot be used: {error}.") from None
    if data.ndim != 2 or data.dtype.kind not in "biuf" or 0 in data.shape:
        raise ValueError(
            f"{path}: {data_name!r} must be numbers with one row a sample and one column a "
            f"feature, but has shape {data.shape} and dtype {data.dtype}."
        )
    if not np.isfinite(data).all():
        row, column = np.argwhere(~np.isfinite(data))[0]
        raise ValueError(
            f"{path}: {data_name!r} must be finite, but row {row}, column {column} is "
            f"{data[row, column]}. Fill in missing values or leave their rows out."
        )
    if labels is None:
        return data, None
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
    return data, labels.astype(np.int64) if labels.dtype.kind == "f" else labels


def _read_csv(path: Path, label: str | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Data and labels of a table with a header."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            names = [name.strip() for name in next(reader, [])]
            lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a .csv file: {error}.") from None
    _check_header(path, names)
    if not lines:
        raise ValueError(f"{path} has no rows below its header.")
    for number, row in lines:
        if len(row) != len(names):
            raise ValueError(
                f"{path}, line {number}: {len(row)} cells, but the header names {len(names)} "
                "columns."
            )
    if label is not None and label not in names:
        raise ValueError(f"{path} has no label column {label!r}; its columns are {_listed(names)}.")
    wanted = LABEL_COLUMNS if label is None else (label,)
    target = None
    label_index = next((names.index(name) for name in wanted if name in names), None)
    if label_index is not None:
        target = _parse_labels([row[label_index].strip() for _, row in lines])
        if target is None and label is not None:
            raise ValueError(
                f"{path}: label column {label!r} must hold whole numbers or words, one a class, "
                f"and no empty cell, but holds fractions or empty cells, such as in its first "
                f"rows {_listed([row[label_index] for _, row in lines[:3]])}."
            )
    features = [i for i in range(len(names)) if target is None or i != label_index]
    if not features:
        raise ValueError(f"{path} has no column beside the labels {names[0]!r}.")
    data = np.empty((len(lines), len(features)))
    for i, (number, row) in enumerate(lines):
        cells = [row[j] for j in features]
        try:
            data[i] = cells
        except ValueError:
            data[i] = np.nan
        if not np.isfinite(data[i]).all():
            j = next(j for j in features if not _is_finite_number(row[j]))
            raise ValueError(
                f"{path}, line {number}, column {names[j]!r}: {row[j]!r} is not a finite number. "
                "Mend or remove it, or, if this column holds the labels, name it as the label."
            )
    return data, target


def _check_header(path: Path, names: list[str]) -> None:
    if not names:
        raise ValueError(f"{path} is empty: a first row with the names of the columns is needed.")
    if all(_is_finite_number(name) for name in names):
        raise ValueError(
            f"{path}: the first row must name the columns, but holds numbers, "
            f"{_listed(names[:3])}. Put a row of names before it."
        )
    if "" in names:
        raise ValueError(
            f"{path}: column {names.index('') + 1} has no name. Name it, or remove it if it only "
            "numbers the rows."
        )
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"{path}: two columns are called {repeated!r}. Rename one.")


def _parse_labels(cells: list[str]) -> np.ndarray | None:
    """Labels as integers if all are whole numbers, else as words; None if unfit."""
    if "" in cells:
        return None
    try:
        values = np.array(cells, dtype=np.float64)
    except ValueError:
        return np.array(cells)
    return values.astype(np.int64) if _is_discrete(values) else None


def _is_discrete(labels: np.ndarray) -> bool:
    if labels.dtype.kind != "f":
        return True
    return bool(np.isfinite(labels).all() and (labels == np.round(labels)).all())


def _is_finite_number(cell: str) -> bool:
    try:
        return bool(np.isfinite(float(cell)))
    except ValueError:
        return False


def _listed(names: Sequence[str]) -> str:
    """Names for a sentence, the first ten of them."""
    shown = [repr(str(name)) for name in list(names)[:10]]
    return ", ".join(shown + ["..."] * (len(list(names)) > 10)) or "nothing"
