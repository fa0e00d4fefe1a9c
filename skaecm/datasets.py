"""Data sets by name or from a file."""

import os
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from typing import Literal

from sklearn.datasets import load_digits
from sklearn.utils import Bunch

from . import _tables

__all__ = ["load"]

FOLDER_VARIABLE = "SKAECM_DATA"
# Sets whose rows are square images in C order.
IMAGE_SETS = ("digits", "fashion_mnist", "mnist", "optdigits", "usps")


def load(
    name_or_path: str | os.PathLike[str],
    *,
    label: str | Literal[False] | None = None,
    columns: Sequence[str] | None = None,
) -> Bunch:
    """Load a data set.

    Parameters
    ----------
    name_or_path : str or path-like
        - "digits", which comes with scikit-learn;
        - any other name: NAME.npz in the folder that the environment variable
          SKAECM_DATA names;
        - the path of a .npz file with an array "x", "X" or "data" (n_samples,
          n_features) and perhaps labels "y" or "target" (n_samples,);
        - the path of a .npy file with one array (n_samples, n_features);
        - the path of a .csv file, or of a .parquet file (needs the extra
          ``tables``). All columns but the labels must be numbers. A .csv file has
          commas between its columns; its first row names them, or is data if it
          holds numbers only, other than ``0,1,2,...``. A column without a name,
          such as an index that pandas has written, is refused.
    label : str, False or None, default=None
        The array (.npz) or column (.csv, .parquet) that holds the labels. None
        looks for "y" or "target" (.npz), for "label", "target", "y" or "class"
        (.csv, .parquet; a column with fractions is a feature), and does without
        if there is none. False takes no column for labels.
    columns : sequence of str, default=None
        Names of the columns that are features, in this order; the others are left
        out. None is all but the labels. Not used where columns have no names.

    Returns
    -------
    dataset : Bunch
        With the attributes

        - data : ndarray of shape (n_samples, n_features);
        - target : ndarray of shape (n_samples,), or None;
        - feature_names : list of str, or None where columns have no names;
        - target_name : the label column or array, or None;
        - name : str;
        - image_shape : (height, width) for sets known to be images, or None.

    Raises
    ------
    ValueError
        If the name is unknown or a file is not as described.
    FileNotFoundError
        If there is no such file.
    ImportError
        If pandas or pyarrow is missing for a .parquet file.

    Examples
    --------
    >>> from skaecm.datasets import load
    >>> digits = load("digits")
    >>> digits.data.shape, digits.image_shape
    ((1797, 64), (8, 8))
    """
    path = Path(name_or_path)
    suffix = path.suffix.lower()
    if suffix not in _tables.SUFFIXES:
        if suffix or len(path.parts) != 1:
            raise ValueError(
                "name_or_path must be the name of a data set or a path that ends in "
                f"{', '.join(_tables.SUFFIXES)}, but is {str(name_or_path)!r}."
            )
        if path.name == "digits":
            if label:
                raise ValueError(
                    "label names a column of a table or an array of a .npz file, but the "
                    f"bundled digits have their own labels. Leave out label={label!r}."
                )
            data, target = load_digits(return_X_y=True)
            table = _tables.Table(data, None, target, "target")
            return _bunch("digits", table if label is None else _tables.Table(data))
        path = _find(path.name)
    table = _tables.read(path, label, columns)
    return _bunch(path.stem, table)


def _bunch(name: str, table: _tables.Table) -> Bunch:
    n_features = table.data.shape[1]
    side = isqrt(n_features)
    is_image = name in IMAGE_SETS and n_features >= 64 and side**2 == n_features
    return Bunch(**table._asdict(), name=name, image_shape=(side, side) if is_image else None)


def _find(name: str) -> Path:
    """The file of a named set."""
    setting = os.environ.get(FOLDER_VARIABLE)
    if not setting:
        raise ValueError(
            f"Unknown data set {name!r}: only 'digits' is bundled, and the environment variable "
            f"{FOLDER_VARIABLE} is not set. Set it to the folder that holds {name}.npz, or give "
            f"the path of a file: {', '.join(_tables.SUFFIXES)}."
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
