"""Loading by name and from files, and what is refused."""

import io
import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

from skaecm.datasets import load

X = np.arange(12, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of named sets."""
    monkeypatch.setenv("SKAECM_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def write(tmp_path):
    """Write text to a .csv file."""

    def write(text):
        path = tmp_path / "table.csv"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_digits_need_no_folder(monkeypatch):
    monkeypatch.delenv("SKAECM_DATA", raising=False)
    digits = load("digits")
    np.testing.assert_array_equal(digits.data, load_digits().data)
    np.testing.assert_array_equal(digits.target, load_digits().target)
    assert (digits.name, digits.image_shape) == ("digits", (8, 8))


def test_named_set(folder):
    np.savez(folder / "usps.npz", x=np.zeros((3, 256), np.uint8), y=[1, 2, 1])
    dataset = load("usps")
    assert (dataset.name, dataset.image_shape) == ("usps", (16, 16))
    assert dataset.data.dtype == np.uint8
    np.testing.assert_array_equal(dataset.target, [1, 2, 1])


def test_only_known_images_are_images(folder):
    np.savez(folder / "squares.npz", x=np.zeros((3, 256)))
    assert load("squares").image_shape is None


@pytest.mark.parametrize("data_name", ["x", "X", "data"])
@pytest.mark.parametrize("label_name", ["y", "target", None])
def test_npz(tmp_path, data_name, label_name):
    labels = {} if label_name is None else {label_name: np.array(["a", "b", "a", "b"])}
    np.savez(tmp_path / "own.npz", **{data_name: X}, **labels)
    dataset = load(tmp_path / "own.npz")
    assert dataset.data.dtype == np.float32
    np.testing.assert_array_equal(dataset.data, X)
    if label_name is None:
        assert dataset.target is None
    else:
        assert list(dataset.target) == ["a", "b", "a", "b"]


def test_npz_label_by_name(tmp_path):
    np.savez(tmp_path / "own.npz", x=X, y=[0, 0, 0, 0], kind=[0.0, 1.0, 2.0, 1.0])
    target = load(tmp_path / "own.npz", label="kind").target
    assert target.dtype == np.int64
    assert list(target) == [0, 1, 2, 1]


@pytest.mark.parametrize("name", ["label", "target", "y", "class"])
def test_csv_finds_labels(write, name):
    dataset = load(str(write(f"a,{name},b\n1,cat,2.5\n3,dog,-4e1\n\n5,cat,6\n")))
    np.testing.assert_array_equal(dataset.data, [[1, 2.5], [3, -40], [5, 6]])
    assert list(dataset.target) == ["cat", "dog", "cat"]
    assert (dataset.name, dataset.image_shape) == ("table", None)


def test_csv_label_by_name(write):
    dataset = load(write("\ufeffkind,y\n1,10\n2,20\n"), label="kind")
    assert list(dataset.target) == [1, 2]
    np.testing.assert_array_equal(dataset.data, [[10], [20]])


def test_csv_without_labels(write):
    assert load(write("a,b\n1,2\n3,4\n")).target is None


def test_csv_column_with_fractions_is_a_feature(write):
    dataset = load(write("x,y\n0.5,1.5\n1,2\n"))
    assert dataset.target is None
    assert dataset.data.shape == (2, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "table.csv is empty"),
        ("a,b\n", "no rows below its header"),
        (",a\n0,1\n", r"column 1 has no name\. .* numbers the rows \(pandas .*index=False"),
        (",length (cm),width\n0,5.1,3.5\n1,4.9,3\n", "column 1 has no name"),
        (",0,1\n0,5.1,3.5\n1,4.9,3\n", "column 1 has no name"),
        ("a,,b\n1,2,3\n", "column 2 has no name"),
        ("a;b\n1,5;2,5\n", "must have commas between them, but .* has semicolons: 'a;b'"),
        ("1.5;2\n", "must have commas between them, but .* has semicolons"),
        ("a\tb\n1\t2\n", "must have commas between them, but .* has tabs"),
        ("a,b,a\n1,2,3\n", "two columns are called 'a'"),
        ("a,b\n1,2\n3\n", "line 3: 1 cells, but the first row has 2"),
        ("a,b\n1,2\n3,red\n", "table.csv, line 3, column 'b': 'red' is not a finite number"),
        ("a,b\n1,\n", "line 2, column 'b': '' is not a finite number"),
        ("a,b\n1,inf\n", "line 2, column 'b': 'inf' is not a finite number"),
        ("y\n1\n", "no column beside the labels 'y'"),
    ],
)
def test_csv_refused(write, text, message):
    with pytest.raises(ValueError, match=message):
        load(write(text))


def test_csv_that_is_not_text(tmp_path):
    (tmp_path / "table.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match=r"cannot be read as a \.csv file"):
        load(tmp_path / "table.csv")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("colour", "no label column 'colour'; its columns are 'a', 'b'"),
        ("b", "label column 'b' must hold whole numbers or words.* '0.5', '1'"),
    ],
)
def test_csv_label_refused(write, label, message):
    with pytest.raises(ValueError, match=message):
        load(write("a,b\n1,0.5\n2,1\n"), label=label)


@pytest.mark.parametrize(
    ("arrays", "label", "message"),
    [
        ({"z": X}, None, "must hold an array 'x', 'X' or 'data', but holds 'z'"),
        ({"x": X}, "kind", "no label array 'kind': it holds 'x'"),
        ({"x": X[0]}, None, r"the rows must be numbers.* shape \(3,\)"),
        ({"x": X[:0]}, None, r"the rows must be numbers.* shape \(0, 3\)"),
        ({"x": X.astype(str)}, None, "the rows must be numbers.* dtype <U"),
        ({"x": X.astype(object)}, None, "is not an intact .npz file of numbers"),
        ({"x": X * np.nan}, None, "the rows must be finite, but row 0, column 0 is nan"),
        ({"x": X, "y": [1]}, None, r"'y' must hold one label for each of the 4 rows"),
        ({"x": X, "y": X[:, 0] / 2}, None, "'y' must hold whole numbers or words"),
    ],
)
def test_npz_refused(tmp_path, arrays, label, message):
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "own.npz", label=label)


@pytest.mark.parametrize(
    "text", ["1,2\n3,4\n", "1,2\r\n\r\n3,4", "0,1\n1,2\n3,4\n", "1e0, 2.0\n3,4\n"]
)
def test_csv_with_or_without_header(write, text):
    """A first row of numbers is data, unless they count the columns."""
    dataset = load(write(text))
    np.testing.assert_array_equal(dataset.data, [[1, 2], [3, 4]])
    assert dataset.feature_names == (["0", "1"] if text.startswith("0") else None)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("1,2\n3\n", {}, "line 2: 1 cells, but the first row has 2"),
        ("1,2\n3,x\n", {}, "line 2, column 2: 'x' is not a finite number"),
        ("1,nan\n3,4\n", {}, "line 1, column 2: 'nan' is not a finite number"),
        ("5.1,cat\n4.9,dog\n", {}, "the first row must name .* but holds 'cat' beside '5.1'"),
        ("1,2\n3,4\n", {"label": "y"}, "no label column 'y', since its first row holds numbers"),
        ("a,b\n3,4\n", {"columns": ["b", "c"]}, "must have the column 'c', but .* 'a', 'b'"),
    ],
)
def test_csv_with_or_without_header_refused(write, text, options, message):
    with pytest.raises(ValueError, match=message):
        load(write(text), **options)


def test_columns_by_name(write):
    """In the order that is asked for; what is a feature is no label."""
    path = write("y,a,b,target\n1,2,3,cat\n4,5,6,dog\n")
    dataset = load(path, columns=["b", "y"])
    np.testing.assert_array_equal(dataset.data, [[3, 1], [6, 4]])
    assert dataset.feature_names == ["b", "y"]
    assert (list(dataset.target), dataset.target_name) == (["cat", "dog"], "target")
    dataset = load(write("1,2\n3,4\n"), columns=["3", "1"])
    np.testing.assert_array_equal(dataset.data, [[1, 2], [3, 4]])


def test_numbers_that_are_known_names(write):
    dataset = load(write("7,5\n1,2\n"), columns=["5", "7"])
    np.testing.assert_array_equal(dataset.data, [[2, 1]])


def test_no_labels_on_request(write, tmp_path):
    np.savez(tmp_path / "own.npz", x=X, y=[0, 1, 0, 1])
    assert load(tmp_path / "own.npz", label=False).target is None
    dataset = load(write("a,y\n1,2\n3,4\n"), label=False)
    assert (dataset.target, dataset.feature_names) == (None, ["a", "y"])
    assert load("digits", label=False).target is None


def test_a_feature_under_the_name_of_labels(write):
    dataset = load(write("a,y,b\n1,0.5,2\n3,1,4\n"))
    np.testing.assert_array_equal(dataset.data, [[1, 0.5, 2], [3, 1, 4]])
    assert dataset.feature_names == ["a", "y", "b"]
    with pytest.raises(ValueError, match="line 3, column 'y': '' is not a finite number"):
        load(write("a,y,b\n1,0.5,2\n3,,4\n"))


def test_npy(tmp_path):
    np.save(tmp_path / "own.npy", X)
    dataset = load(tmp_path / "own.npy")
    np.testing.assert_array_equal(dataset.data, X)
    assert (dataset.data.dtype, dataset.target, dataset.feature_names) == (X.dtype, None, None)
    with pytest.raises(ValueError, match=r"no label array 'y': a \.npy file is one array"):
        load(tmp_path / "own.npy", label="y")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (X[0], r"the rows must be numbers.* shape \(3,\)"),
        (X * np.nan, "the rows must be finite, but row 0, column 0 is nan"),
        (X.astype(object), "is not an intact .npy file of numbers"),
    ],
)
def test_npy_refused(tmp_path, array, message):
    np.save(tmp_path / "own.npy", array)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "own.npy")


@pytest.fixture
def pandas():
    """pandas with what reads parquet, where they are installed."""
    pytest.importorskip("pyarrow")
    return pytest.importorskip("pandas")


def test_parquet(tmp_path, pandas):
    """As the same table in a .csv file, whatever the types of its columns."""
    frame = pandas.DataFrame({"a": [1.5, 2.5], "n": pandas.array([3, 4], dtype="Int64")})
    frame["flag"] = [True, False]
    frame["class"] = pandas.Categorical(["cat", "dog"])
    frame.to_parquet(tmp_path / "table.parquet")
    dataset = load(tmp_path / "table.parquet")
    np.testing.assert_array_equal(dataset.data, [[1.5, 3, 1], [2.5, 4, 0]])
    assert dataset.feature_names == ["a", "n", "flag"]
    assert (list(dataset.target), dataset.target_name) == (["cat", "dog"], "class")
    dataset = load(tmp_path / "table.parquet", columns=["n"], label="flag")
    np.testing.assert_array_equal(dataset.data, [[3], [4]])
    assert list(dataset.target) == ["True", "False"]
    frame[["n"]].rename(columns={"n": "label"}).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(ValueError, match="no column beside the labels 'label'"):
        load(tmp_path / "table.parquet")


@pytest.mark.parametrize(
    ("columns", "label", "message"),
    [
        ({"a": [1.0, None]}, None, "the rows must be finite, but row 1, column 'a' is nan"),
        (
            {"a": [1.0, 2.0], "b": ["x", "y"]},
            None,
            "column 'b' must hold numbers, but holds .* 'x'",
        ),
        ({"a": [1.0, 2.0], "b": ["x", None]}, "b", "label column 'b' must hold whole numbers"),
        ({"a": []}, None, r"must have rows and columns, but has shape \(0, 1\)"),
        ({"a": [1.0, 2.0]}, "b", "no label column 'b'; its columns are 'a'"),
    ],
)
def test_parquet_refused(tmp_path, pandas, columns, label, message):
    pandas.DataFrame(columns).to_parquet(tmp_path / "table.parquet")
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "table.parquet", label=label)


def test_parquet_that_is_none(tmp_path, pandas):
    path = tmp_path / "table.parquet"
    pandas.DataFrame({"a": [1.0, 2.0]}).to_parquet(path)
    content = path.read_bytes()
    for damaged in (b"", b"a,b\n1,2\n", content[:-20], content[:20] + b"x" * 50 + content[70:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot be read as a \.parquet file|must "):
            load(path)


def cut_archive():
    file = io.BytesIO()
    np.savez(file, x=np.arange(1000.0))
    return file.getvalue()[:500]


def single_array():
    file = io.BytesIO()
    np.save(file, X)
    return file.getvalue()


@pytest.mark.parametrize("suffix", ["npz", "npy"])
@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"PK\x03\x04nothing", cut_archive(), single_array()[:-1]]
)
def test_npy_and_npz_that_are_none(tmp_path, content, suffix):
    path = tmp_path / f"own.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load(path)


def test_an_array_under_the_name_of_an_archive(tmp_path):
    (tmp_path / "own.npz").write_bytes(single_array())
    with pytest.raises(ValueError, match=r"own\.npz is not an intact \.npz file"):
        load(tmp_path / "own.npz")


def test_names_refused(folder, monkeypatch):
    np.savez(folder / "usps.npz", x=X)
    with pytest.raises(ValueError, match=r"no nothing\.npz in SKAECM_DATA=.*: digits, usps"):
        load("nothing")
    with pytest.raises(ValueError, match=r"must be the name .* but is 'table.txt'"):
        load("table.txt")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load(folder / "nothing.csv")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        load(folder / "nothing.npz")
    with pytest.raises(ValueError, match="Leave out label='kind'"):
        load("digits", label="kind")
    monkeypatch.setenv("SKAECM_DATA", str(folder / "nowhere"))
    with pytest.raises(FileNotFoundError, match="SKAECM_DATA must be a folder"):
        load("usps")
    monkeypatch.delenv("SKAECM_DATA")
    with pytest.raises(ValueError, match=r"SKAECM_DATA is not set. Set it .* holds usps.npz"):
        load("usps")
