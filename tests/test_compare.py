"""The command line, run in this process on small data with small settings."""

import sys
import warnings

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.utils import Bunch

import skaecm
from skaecm import DeepAEClustering, _compare
from skaecm.__main__ import main

METHODS = [
    "KMeans",
    "GaussianMixture spherical",
    "GaussianMixture diag",
    "GaussianMixture tied",
    "GaussianMixture full",
    "ClusteringModuleGMM",
    "DeepAEClustering",
]


@pytest.fixture
def small(monkeypatch):
    """Make the module and the deep estimator quick."""
    make_methods = _compare.make_methods

    def make_small_methods(X, k, seed):
        methods = make_methods(X, k, seed)
        methods["ClusteringModuleGMM"].set_params(max_iter=2)
        methods["DeepAEClustering"].set_params(hidden_layer_sizes=(8,), pretrain_iter=1, max_iter=1)
        return methods

    monkeypatch.setattr(_compare, "make_methods", make_small_methods)


@pytest.fixture
def blobs(tmp_path):
    """A .csv file of three labelled blobs, and the same without labels."""
    rng = np.random.RandomState(0)
    X = np.repeat(8 * np.eye(3, 4), 20, axis=0) + rng.standard_normal((60, 4))
    rows = [[*map(str, row), "abc"[i // 20]] for i, row in enumerate(X)]
    for name, width in (("labelled.csv", 5), ("plain.csv", 4)):
        header = ["height", "width", "depth", "weight", "kind"][:width]
        lines = [",".join(row[:width]) for row in [header, *rows]]
        (tmp_path / name).write_text("\n".join(lines))
    return tmp_path


def run(capsys, *arguments):
    """Exit code, lines of stdout and lines of stderr of one command."""
    code = main(["compare", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def table(lines):
    """Header and rows of the table among the lines of stdout."""
    assert set(lines[3]) == {"-"}
    assert {len(line) for line in lines[2:11]} == {len(lines[3])}
    assert [line[:25].rstrip() for line in lines[4:11]] == METHODS
    return lines[2].split(), [line[25:].split() for line in lines[4:11]]


@pytest.mark.parametrize(
    ("name", "extra"), [("labelled.csv", ("--label-column", "kind")), ("plain.csv", ("-k", 3))]
)
def test_compare(small, blobs, capsys, name, extra):
    figure = blobs / "figure.png"
    code, out, err = run(capsys, blobs / name, "--output", figure, *extra)
    assert code == 0
    assert out[0] == err[0] == f"{name[:-4]}: 60 rows, 4 features, k=3, seed=0"
    header, rows = table(out)
    if name == "labelled.csv":
        assert header == ["method", "ACC", "NMI", "ARI", "score", "seconds"]
        assert rows[0][:4] == ["1.000", "1.000", "1.000", "-"]
    else:
        assert header == ["method", "score", "seconds"]
        assert rows[0][0] == "-"
    assert all(np.isfinite(float(row[-2])) for row in rows[1:])
    assert out[-1] == f"figure: {figure}"
    assert figure.read_bytes().startswith(b"\x89PNG")
    for i, method in enumerate(METHODS, start=1):
        started = [line for line in err if line.startswith(f"[{i}/7] {method}: started")]
        done = [line for line in err if line.startswith(f"[{i}/7] {method}: done in")]
        assert len(started) == len(done) == 1


def test_older_names_of_options(small, blobs, capsys):
    """--data, --label and --k are DATA, --label-column and -k."""
    path, figure = blobs / "labelled.csv", ["--output", blobs / "figure.svg", "--force"]
    new = run(capsys, path, "--label-column", "kind", "-k", 2, *figure)
    old = run(capsys, "--data", path, "--label", "kind", "--k", 2, *figure)
    assert new[0] == old[0] == 0
    first, second = (table(lines)[1] for _, lines, _ in (new, old))
    assert [row[:-1] for row in first] == [row[:-1] for row in second]


def test_digits_by_default(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "--rows", 60)
    assert code == 0
    assert out[0] == "digits: 60 rows, 64 features, k=10, seed=0"
    assert out[-1] == "figure: skaecm-compare.png"
    assert (tmp_path / "skaecm-compare.png").stat().st_size > 0
    assert sum("ConvergenceWarning: The loss was still falling" in line for line in err) == 2


def test_same_seed_same_table(small, blobs, capsys):
    arguments = ["--data", blobs / "labelled.csv", "--label", "kind", "--seed", 3, "--rows", 40]
    arguments += ["--output", blobs / "figure.svg", "--force"]
    first, second = (table(run(capsys, *arguments)[1])[1] for _ in range(2))
    assert [row[:-1] for row in first] == [row[:-1] for row in second]


def test_wide_data(small, tmp_path, capsys):
    x = np.random.RandomState(0).standard_normal((30, 110))
    np.savez(tmp_path / "wide.npz", x=x)
    arguments = ["--data", tmp_path / "wide.npz", "--output", tmp_path / "figure.png"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert sum("spherical" in line or "diag" in line for line in out) == 2
    pca = [line.split() for line in out if "PCA  " in line]
    assert [(words[1], words[-2]) for words in pca] == [("tied,", "-"), ("full,", "-")]
    assert any(line.startswith("PCA: fitted to the first 100 principal") for line in out)


def test_constant_data(small, tmp_path, capsys):
    np.savez(tmp_path / "flat.npz", x=np.ones((20, 3)))
    arguments = ["--data", tmp_path / "flat.npz", "--output", tmp_path / "figure.png"]
    code, out, err = run(capsys, *arguments)
    assert code == 0
    assert out[-1].endswith("figure.png")
    assert any("All rows of X are equal" in line for line in err)


def test_without_matplotlib(small, blobs, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    figure = blobs / "figure.png"
    code, out, _ = run(capsys, "--data", blobs / "plain.csv", "--k", 2, "--output", figure)
    assert code == 0
    table(out)
    assert out[-1] == 'figure: none, since matplotlib is missing: pip install "skaecm[plots]"'
    assert not figure.exists()


def test_a_method_that_fails_leaves_the_others(small, blobs, capsys, monkeypatch):
    def fit(self, X, y=None, sample_weight=None):
        warnings.warn("first line\nsecond line", UserWarning, stacklevel=1)
        raise ValueError("cannot\nbe done")

    monkeypatch.setattr(DeepAEClustering, "fit", fit)
    monkeypatch.chdir(blobs)
    code, out, err = run(capsys, "--data", blobs / "labelled.csv", "--label", "kind")
    assert code == 1
    _, rows = table(out)
    assert rows[6][:4] == ["-"] * 4
    assert "1.000" in rows[0]
    assert out[-1] == "figure: none, since DeepAEClustering failed"
    assert "[7/7] DeepAEClustering: failed: cannot be done" in err
    assert "[7/7] DeepAEClustering: UserWarning: first line second line" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.csv"], "There is no file 'nothing.csv'"),
        (["--data", "unknown"], "Unknown data set 'unknown'"),
        (["labelled.csv"], "column 'kind': 'a' is not a finite number"),
        (["--data", "plain.csv", "--label", "kind"], "no label column 'kind'"),
        (["--k", "0"], "-k must be between 1 and the number of rows, 1797, but is 0"),
        (["--rows", "5", "--k", "6"], "-k must be between 1 and the number of rows, 5"),
        (["--rows", "0"], "--rows must be at least 1, but is 0"),
        (["--seed", "-1"], "--seed must be between 0 and 4294967295, but is -1"),
        (["--output", "nowhere/figure.png"], "there is no folder 'nowhere'"),
        (["--output", "figure.txt"], "--output must end in .pdf, .png, .svg"),
        (["--output", "folder.png"], "'folder.png' cannot be written"),
        (["--output", "old.png"], "'old.png' is there already. Choose another, or give --force"),
    ],
)
def test_refused(blobs, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(blobs)
    monkeypatch.setenv("SKAECM_DATA", str(blobs))
    (blobs / "folder.png").mkdir()
    (blobs / "old.png").touch()
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, [])
    assert len(err) == 1
    assert err[0].startswith("skaecm compare: error: ")
    assert message in err[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compare", "-k", "many"], "skaecm compare: error: argument -k/--k: invalid int value"),
        (["compare", "x", "--data", "y"], "skaecm compare: error: argument --data: not allowed"),
        (["compare", "--see", "3"], "skaecm: error: unrecognized arguments: --see"),
        (["compare", "--colour", "red"], "skaecm: error: unrecognized arguments: --colour"),
        (["contrast"], "skaecm: error: argument COMMAND: invalid choice: 'contrast'"),
    ],
)
def test_wrong_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(message)


def test_help_and_version(capsys):
    assert main([]) == 0
    assert "python -m skaecm compare" in capsys.readouterr().out
    for arguments, text in [
        (["--help"], "compare"),
        (["compare", "--help"], "SKAECM_DATA"),
        (["--version"], skaecm.__version__),
    ]:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert text in capsys.readouterr().out


def test_ctrl_c(small, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def interrupt(self, X, y=None, sample_weight=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(KMeans, "fit", interrupt)
    code, out, err = run(capsys, "--rows", 20)
    assert (code, out) == (130, [])
    assert err[-1] == "skaecm compare: interrupted"


@pytest.mark.parametrize(("k", "image_shape"), [(1, None), (11, None), (50, (2, 2))])
@pytest.mark.parametrize("labelled", [False, True])
def test_figure(tmp_path, k, image_shape, labelled):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((120, 4))
    target = np.array([f"a rather long name {i % 60}" for i in range(120)]) if labelled else None
    model = DeepAEClustering(
        k, hidden_layer_sizes=(8,), pretrain_iter=0, max_iter=0, init="k-means++", random_state=0
    ).fit(X)
    dataset = Bunch(data=X, target=target, image_shape=image_shape)
    _compare.draw_figure(dataset, model, tmp_path / "figure.png", "title")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_data_that_float32_would_change_stay_float64():
    assert _compare.single_if_exact(np.array([[0, 255]], np.uint8)).dtype == np.float32
    assert _compare.single_if_exact(np.array([[1.5, 2.0]])).dtype == np.float32
    assert _compare.single_if_exact(np.array([[1e9 + 1, 2.0]])).dtype == np.float64
    assert _compare.single_if_exact(np.array([[1e300, 2.0]])).dtype == np.float64
