"""The commands as processes: files, pipes, signals, what is refused."""

import os
import re
import shlex
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import ROOT, blobs
from sklearn.datasets import load_iris

import skaecm
from skaecm.__main__ import main

pytest.importorskip("safetensors")

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
NAMES = ["height", "width", "depth", "weight"]
SMALL = ["--set", "hidden_layer_sizes=16,", "--set", "n_components=4", "--set", "pretrain_iter=2"]
SMALL += ["--set", "max_iter=3"]


def command(*arguments):
    return [sys.executable, "-m", "skaecm", *map(str, arguments)]


def run(*arguments, cwd, stdin=None):
    """Exit code, stdout and stderr of one process."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=ENVIRONMENT,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def assert_refused(outcome, *words):
    """Code 2, nothing on stdout, one line on stderr that holds the words."""
    code, out, err = outcome
    assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
    assert ": error: " in err
    assert all(word in err for word in words), err


def csv_lines(X, labels=None, names=NAMES):
    rows = [",".join(map(repr, row)) for row in X.tolist()]
    if labels is None:
        return "\n".join([",".join(names), *rows]) + "\n"
    rows = [f"{row},{'abc'[label]}" for row, label in zip(rows, labels, strict=True)]
    return "\n".join([",".join([*names, "kind"]), *rows]) + "\n"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """One fit of a labelled .csv file: the folder, its rows, and what the process said."""
    folder = tmp_path_factory.mktemp("fitted")
    X, labels = blobs()
    (folder / "rows.csv").write_text(csv_lines(X, labels))
    arguments = ["fit", "rows.csv", "-k", 3, *SMALL, "--label-column", "kind", "--seed", 1]
    arguments += ["--model", "rows.skaecm", "--labels", "labels.csv"]
    arguments += ["--probabilities", "shares.npz", "--embedding", "codes.npy"]
    code, out, err = run(*arguments, cwd=folder)
    assert code == 0, err
    return SimpleNamespace(folder=folder, X=X, labels=labels, out=out, err=err)


@pytest.fixture
def here(fitted, tmp_path, monkeypatch):
    """A folder to work in, with the rows and the model of the fit."""
    for name in ("rows.csv", "rows.skaecm"):
        (tmp_path / name).write_bytes((fitted.folder / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_fit(fitted):
    """The command does what the estimator does, and labels do not reach it."""
    model = skaecm.DeepAEClustering(
        3,
        hidden_layer_sizes=(16,),
        n_components=4,
        pretrain_iter=2,
        max_iter=3,
        random_state=1,
    )
    with pytest.warns(UserWarning, match="still falling"):
        model.fit(fitted.X)
    kept = skaecm.load(fitted.folder / "rows.skaecm")
    assert kept.get_params() == model.get_params()
    assert list(kept.feature_names_in_) == NAMES
    labels = (fitted.folder / "labels.csv").read_text().splitlines()
    assert labels[0] == "cluster"
    np.testing.assert_array_equal(np.array(labels[1:], dtype=int), model.labels_)
    with np.load(fitted.folder / "shares.npz") as archive:
        np.testing.assert_array_equal(archive["probabilities"], model.predict_proba(fitted.X))
    codes = np.load(fitted.folder / "codes.npy")
    np.testing.assert_array_equal(codes, model.transform(fitted.X))
    assert not list(fitted.folder.glob(".*"))


def test_what_fit_says(fitted):
    out = fitted.out.splitlines()
    assert out[0] == "rows: 90 rows, 4 features, k=3"
    assert out[1].startswith("DeepAEClustering: 3 epochs, not converged, loss ")
    assert sum(map(int, out[2].removeprefix("cluster sizes: ").split())) == 90
    assert out[3].startswith("against 'kind': ACC ")
    assert out[4:] == [
        "model: rows.skaecm",
        "labels: labels.csv",
        "probabilities: shares.npz",
        "embedding: codes.npy",
    ]
    start, *phases, warning = fitted.err.splitlines()
    assert start.startswith("rows: 90 rows, 4 features, k=3; 'kind' is kept out: fitting")
    epochs = [line.split(": loss ")[0] for line in phases]
    assert epochs[:2] == ["pretraining 1", "training 1"]
    assert warning.startswith("ConvergenceWarning: The loss was still falling")


def test_predict_finds_columns_by_name(fitted):
    """From standard input to standard output, columns in another order, others left out."""
    reverse = csv_lines(fitted.X[:, ::-1], fitted.labels, NAMES[::-1])
    code, out, err = run("predict", "rows.skaecm", "-", cwd=fitted.folder, stdin=reverse)
    assert (code, err) == (0, "")
    assert out == (fitted.folder / "labels.csv").read_text()


def start(*arguments, cwd):
    """A process whose stdout and stderr can be read while it runs."""
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_nobody_reads_on(here):
    """As before ``head -n 1``: silence, and the code of a shell's tool."""
    np.save(here / "many.npy", np.zeros((100_000, 4)))
    process = start("predict", "rows.skaecm", "many.npy", cwd=here)
    assert process.stdout.readline() == "cluster\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["fit", "digits", "-k", 10, "--model", "m", "--labels", "l.csv"], "pretraining 1: loss "),
        (["compare", "--rows", 600, "--output", "f.png"], "[7/7] DeepAEClustering: started"),
    ],
    ids=["fit", "compare"],
)
def test_ctrl_c(tmp_path, arguments, line):
    """One line, code 130, and none of the files."""
    # A shell's background job is deaf to Ctrl-C, and so are its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(*arguments, cwd=tmp_path)
    signal.signal(signal.SIGINT, before)
    assert any(said.startswith(line) for said in process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    said = f"skaecm {arguments[0]}: interrupted\n"
    assert (process.returncode, out, err) == (130, "", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "broken.csv", "-k", 2, "--model", "m", "--labels", "l.csv"],
        ["predict", "rows.skaecm", "broken.csv", "--labels", "l.csv"],
        ["plot", "rows.skaecm", "broken.csv", "--kind", "embedding", "--output", "f.png"],
        ["compare", "broken.csv", "--output", "f.png"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_broken_input(here, arguments):
    """Code 2, one line, and no file."""
    (here / "broken.csv").write_text(f"{','.join(NAMES)}\n1,2,3,4\n1,nan,3,4\n")
    before = sorted(here.iterdir())
    outcome = run(*arguments, cwd=here)
    place = "broken.csv, line 3, column 'width': 'nan' is not a finite number."
    assert_refused(outcome, f"skaecm {arguments[0]}: error: {place}")
    assert sorted(here.iterdir()) == before


def test_a_folder_that_cannot_be_written(here):
    """It is noticed before the fit."""
    folder = here / "closed"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):  # permissions do not bind root
        folder = "/proc"
        if not os.path.isdir(folder):
            pytest.skip("every folder can be written")
    outcome = run(*FIT[:-1], f"{folder}/m", cwd=here)
    assert_refused(outcome, f"skaecm fit: error: --model: '{folder}/m' cannot be written: ")


def test_plot(fitted):
    arguments = ["--kind", "confusion", "--label-column", "kind", "--output", "confusion.png"]
    code, out, err = run("plot", "rows.skaecm", "rows.csv", *arguments, cwd=fitted.folder)
    assert (code, out, err) == (0, "figure: confusion.png\n", "")
    assert (fitted.folder / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_compare(tmp_path):
    (tmp_path / "four.csv").write_text("a,b\n1,2\n2,1\n8,9\n9,8\n")
    arguments = ["compare", "four.csv", "-k", 2, "--output", "figure.pdf"]
    code, out, err = run(*arguments, cwd=tmp_path)
    assert code == 0
    assert out.splitlines()[-1] == "figure: figure.pdf"
    assert "[7/7] DeepAEClustering: done in" in err
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


# In this process
# ---------------


@pytest.fixture
def call(capsys):
    """Run a command in this process: exit code, stdout and stderr."""

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


MODULE = ["--estimator", "module", "--set", "max_iter=50"]


def test_module_without_header_or_labels(here, fitted, call):
    np.savetxt(here / "bare.csv", fitted.X, delimiter=",")
    code, out, err = call("fit", "bare.csv", "-k", 3, *MODULE, "--model", "bare", "--quiet")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "bare: 90 rows, 4 features, k=3"
    assert "against" not in out
    model = skaecm.load("bare")
    again = skaecm.ClusteringModuleGMM(3, max_iter=50, random_state=0).fit(
        np.loadtxt("bare.csv", delimiter=",")
    )
    np.testing.assert_array_equal(model.labels_, again.labels_)
    assert not hasattr(model, "feature_names_in_")


def test_clusters_are_counted(here, fitted, call):
    np.savetxt(here / "bare.csv", fitted.X, delimiter=",")
    code, out, err = call("fit", "bare.csv", "-k", "auto", *MODULE, "--model", "bare", "--quiet")
    assert (code, err) == (0, "")
    assert "bare: 90 rows, 4 features, k=auto" in out
    assert "cluster sizes: 30 30 30" in out
    assert skaecm.load("bare").n_clusters_ == 3
    runs = ["--set", "n_init=2", "--set", "n_jobs=2", "--model", "side"]
    assert call("fit", "bare.csv", "-k", 3, *MODULE, *runs)[0] == 0


def test_labels_of_any_kind_leave_the_fit_alone(here, fitted, call):
    """Other labels, or none: the same model."""
    rows = csv_lines(fitted.X, 2 - fitted.labels).replace("kind", "target")
    (here / "other.csv").write_text(rows)
    (here / "none.csv").write_text(csv_lines(fitted.X))
    for name in ("other", "none"):
        assert call("fit", f"{name}.csv", "-k", 3, *SMALL, "--seed", 1, "--model", name)[0] == 0
        again, first = skaecm.load(name), skaecm.load("rows.skaecm")
        np.testing.assert_array_equal(again.labels_, first.labels_)
        np.testing.assert_array_equal(again.cluster_centers_, first.cluster_centers_)


def test_no_labels(here, call):
    """A column that could hold labels is a feature if the user says so."""
    (here / "y.csv").write_text("x,y\n1,2\n3,4\n5,9\n2,2\n")
    for option, names in ([], ["x"]), (["--no-labels"], ["x", "y"]):
        arguments = ["--model", "m", "--set", "tol=1e3", "--force"]
        code, _, err = call("fit", "y.csv", "-k", 2, *MODULE, *arguments, *option)
        assert code == 0
        assert ("'y' is kept out" in err) == (not option)
        assert list(skaecm.load("m").feature_names_in_) == names


@pytest.mark.parametrize("suffix", [".csv", ".npy", ".npz", ".parquet"])
def test_formats(here, fitted, call, suffix):
    """Rows and results through every format are the same as by hand."""
    if suffix == ".parquet":
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        pandas.DataFrame(fitted.X, columns=NAMES).to_parquet("in.parquet")
    elif suffix == ".npz":
        np.savez("in.npz", x=fitted.X, y=fitted.labels)
    elif suffix == ".npy":
        np.save("in.npy", fitted.X)
    else:
        (here / "in.csv").write_text(csv_lines(fitted.X))
    arguments = [f"--{kind}={kind}{suffix}" for kind in ("labels", "probabilities", "embedding")]
    assert call("predict", "rows.skaecm", f"in{suffix}", *arguments) == (0, "", "")
    model = skaecm.load("rows.skaecm")
    for kind, expected, columns in [
        ("labels", model.predict, ["cluster"]),
        ("probabilities", model.predict_proba, ["cluster0", "cluster1", "cluster2"]),
        ("embedding", model.transform, [f"deepaeclustering{j}" for j in range(4)]),
    ]:
        if suffix == ".parquet":
            frame = pandas.read_parquet(f"{kind}.parquet")
            found = frame.to_numpy()
            assert list(frame.columns) == columns
        elif suffix == ".npz":
            found = np.load(f"{kind}.npz")[kind]
        elif suffix == ".npy":
            found = np.load(f"{kind}.npy")
        else:
            header, *lines = (here / f"{kind}.csv").read_text().splitlines()
            assert header.split(",") == columns
            found = np.array([line.split(",") for line in lines], dtype=np.float64)
        with pytest.warns(UserWarning, match="valid feature names"):
            wanted = expected(fitted.X)
        np.testing.assert_array_equal(np.squeeze(found), wanted)


@pytest.mark.parametrize(
    "arguments",
    [
        ["loss", "rows.skaecm"],
        ["centers", "rows.skaecm"],
        ["centers", "rows.skaecm", "--image-shape", "2,2"],
        ["sizes", "rows.skaecm"],
        ["sizes", "rows.skaecm", "rows.csv"],
        ["embedding", "rows.skaecm", "rows.csv"],
        ["responsibilities", "rows.skaecm", "rows.csv"],
    ],
    ids=" ".join,
)
def test_plots(here, call, arguments):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    outcome = call("plot", "--output", "figure.svg", "--kind", *arguments)
    pyplot.close("all")
    assert outcome == (0, "figure: figure.svg\n", "")
    assert "<svg" in (here / "figure.svg").read_text()


def test_the_model_knows_its_images(here, call):
    """Rows of a file that does not: the same picture of the centres."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    arguments = [*SMALL, "--label-column", "kind", "--set", "image_shape=2,2", "--model", "m"]
    assert call("fit", "rows.csv", "-k", 3, *arguments)[0] == 0
    pictures = []
    for more in ([], ["rows.csv"], ["--image-shape", "2,2"], ["--image-shape", "4,1"]):
        arguments = ["plot", "m", "--kind", "centers", "--output", "f.png", "--force"]
        assert call(*arguments[:2], *more, *arguments[2:])[0] == 0
        pictures.append((here / "f.png").read_bytes())
    pyplot.close("all")
    assert pictures[0] == pictures[1] == pictures[2] != pictures[3]


FIT = ["fit", "rows.csv", "-k", "3", "--label-column", "kind", "--model", "m"]
PREDICT = ["predict", "rows.skaecm"]
PLOT = ["plot", "rows.skaecm", "--output", "figure.png", "--kind"]
CONFUSION = ["plot", "rows.skaecm", "plain.csv", "--output", "figure.png", "--kind", "confusion"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nothing.csv", *FIT[2:]], "There is no file 'nothing.csv'"),
        (["fit", "rows.txt", *FIT[2:]], "must be the name of a data set or a path that ends in"),
        (["fit", "nan.csv", *FIT[2:]], "nan.csv, line 3, column 'width': 'nan' is not a finite"),
        (["fit", "word.csv", *FIT[2:]], "line 2, column 'width': 'wide' is not a finite number"),
        (["fit", "empty.csv", *FIT[2:]], "empty.csv has no rows below its header"),
        (["fit", "rows.csv", "-k", "3", "--model", "m"], "name it as the label"),
        (["fit", "rows.csv", "-k", "3", "--model", "m", "--label-column", "x"], "no label column"),
        ([*FIT, "--set", "depth=3"], "--set must be NAME=VALUE with a parameter of DeepAECl"),
        ([*FIT, "--set", "tol"], "'tol'. Its parameters are alpha, augment, batch_size, "),
        ([*FIT, "--set", "callback=x"], "--set callback=x: callback is code, which only Python"),
        ([*FIT, "--set", "autoencoder=x"], "autoencoder is code, which only Python can give"),
        ([*FIT, "--set", "augment=x"], "The 'augment' parameter of DeepAEClustering must be a st"),
        ([*FIT, "--set", 'alpha={"a":1}'], "a value is a number, a word, or a list of these"),
        ([*FIT, "--set", "init=[{1, 2}]"], "--set init=[{1, 2}]: a value is a number, a word, or"),
        ([*FIT, "--set", "k=3"], "--set k=3: use -k for k"),
        ([*FIT, "--set", "tol=-1"], "The 'tol' parameter of DeepAEClustering must be a float"),
        ([*FIT, "--set", "device=cuda:99"], "device='cuda:99' does not exist here"),
        ([*FIT, "-k", "91"], "k=91 must be at most the number of rows"),
        ([*FIT, "--seed", "-1"], "--seed must be between 0 and"),
        ([*FIT, "--labels", "l.txt"], "--labels must end in .csv, .npy, .npz, .parquet"),
        ([*FIT, "--labels", "./m"], "--labels must end in"),
        ([*FIT, "--labels", "l.csv", "--embedding", "./l.csv"], "'l.csv' is also --labels"),
        ([*FIT, "--labels", "rows.csv", "--force"], "'rows.csv' is also what is read"),
        ([*FIT, "--labels", "old.csv"], "'old.csv' is there already. Choose another, or give"),
        ([*FIT, "--model", "old.csv"], "'old.csv' is there already"),
        ([*FIT, "--model", "nowhere/m"], "there is no folder 'nowhere' for m"),
        ([*FIT, "--model", "rows.csv/m"], "there is no folder 'rows.csv'"),
        (["predict", "nothing", "rows.csv"], "There is no file 'nothing'"),
        (["predict", "cut.skaecm", "rows.csv"], "cut.skaecm: the file is not one of skaecm.save"),
        (["predict", "rows.csv", "rows.csv"], "rows.csv: the file is not one of skaecm.save"),
        ([*PREDICT, "narrow.csv"], "must have the column 'weight', but its columns are 'height'"),
        ([*PREDICT, "narrow.npy"], "narrow has 3 columns of features, but the model was fitted to"),
        ([*PREDICT, "flat.npy"], "the rows must be numbers, one row a sample and one column"),
        ([*PREDICT, "rows.csv", "--labels", "old.csv"], "'old.csv' is there already"),
        ([*PLOT, "embedding"], "--kind embedding draws rows: give DATA after MODEL"),
        (CONFUSION, "needs labels, but plain has none"),
        ([*PLOT, "centers", "--image-shape", "3,3"], "image_shape must be"),
        ([*PLOT, "loss", "--output", "loss.txt"], "--output must end in .pdf, .png, .svg"),
        ([*PLOT, "loss", "--output", "old.png"], "'old.png' is there already"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_refused(here, fitted, call, arguments, message):
    """One line, code 2, and every file as it was."""
    (here / "nan.csv").write_text(",".join([*NAMES, "kind"]) + "\n1,2,3,4,a\n1,nan,3,4,a\n")
    (here / "word.csv").write_text(",".join([*NAMES, "kind"]) + "\n1,wide,3,4,a\n")
    (here / "empty.csv").write_text(",".join([*NAMES, "kind"]) + "\n")
    (here / "narrow.csv").write_text(csv_lines(fitted.X[:, :3], names=NAMES[:3]))
    (here / "plain.csv").write_text(csv_lines(fitted.X))
    (here / "cut.skaecm").write_bytes((here / "rows.skaecm").read_bytes()[:1000])
    np.save(here / "narrow.npy", fitted.X[:, :3])
    np.save(here / "flat.npy", fitted.X[:, 0])
    for name in ("old.csv", "old.png"):
        (here / name).touch()
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    *progress, error = err.splitlines()
    assert error.startswith(f"skaecm {arguments[0]}: error: ")
    assert message in error
    assert not any("error" in line for line in progress)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_force(here, fitted, call):
    (here / "old.csv").write_text("old")
    assert call(*PREDICT, "rows.csv", "--labels", "old.csv", "--force") == (0, "", "")
    assert (here / "old.csv").read_text() == (fitted.folder / "labels.csv").read_text()


def test_a_model_from_another_device(here, fitted, call):
    skaecm.save(skaecm.load("rows.skaecm").set_params(device="cuda:99"), "rows.skaecm")
    code, out, err = call(*PREDICT, "rows.csv")
    assert (code, err) == (0, "")
    assert out == (fitted.folder / "labels.csv").read_text()


def test_all_files_or_none(here, call, monkeypatch):
    """If the last of several files fails, the first is not there either."""

    def write(path, *_):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(skaecm._verbs._tables, "write", write)
    code, out, err = call(*FIT, *SMALL, "--labels", "l.csv")
    assert (code, out) == (1, "")
    last = err.splitlines()[-1]
    assert last == "skaecm fit: failed: m, l.csv could not be written: No space left on device."
    assert sorted(path.name for path in here.iterdir()) == ["rows.csv", "rows.skaecm"]


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("pandas", [*PREDICT, "rows.csv", "--labels", "l.parquet"], "tables"),
        ("safetensors", [*PREDICT, "rows.csv"], "persistence"),
        ("safetensors", FIT, "persistence"),
        ("matplotlib", [*PLOT, "loss"], "plots"),
    ],
)
def test_missing_extras(here, call, monkeypatch, module, arguments, extra):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(skaecm.DeepAEClustering, "fit", None)
    code, out, err = call(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f'needs {module}. Install it with pip install "skaecm[{extra}]".' in err


def test_the_page_of_the_documentation(tmp_path, monkeypatch, call):
    """Its commands for fit, predict and plot print what it shows, but for numbers."""
    for module in ("pandas", "pyarrow", "matplotlib"):
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    iris = load_iris(as_frame=True)
    species = iris.target_names[iris.target]
    iris.data.assign(species=species).to_csv("iris.csv", index=False)
    page = (ROOT / "doc" / "guide" / "command_line.rst").read_text()
    pattern = r"^   \$ python -m skaecm ((?!compare).*\n)((?:   (?!\$).*\n)*)"
    transcripts = re.findall(pattern, page, re.MULTILINE)
    assert len(transcripts) == 6
    quick = ["--set", "hidden_layer_sizes=16,", "--set", "pretrain_iter=2", "--set", "tol=1e3"]
    for line, answer in transcripts:
        code, out, err = call(*shlex.split(line), *(quick if "fit digits" in line else []))
        assert code == (2 if "error: " in answer else 0)
        shown, said = (
            {re.sub(r"-?\d[\d.]*", "0", words.strip()) for words in text.splitlines()}
            for text in (answer, err + out)
        )
        assert shown == said
    sys.modules["matplotlib.pyplot"].close("all")


@pytest.mark.parametrize("verb", ["fit", "predict", "plot"])
def test_help(capsys, verb):
    with pytest.raises(SystemExit) as caught:
        main([verb, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert f"python -m skaecm {verb} digits" in out
    assert out.count("(default") + out.count("(required)") >= out.count("\n  --")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "digits"], "skaecm fit: error: the following arguments are required: -k, --model"),
        (
            ["fit", "digits", "-k", "x"],
            "skaecm fit: error: argument -k: must be an integer or auto, but is 'x'",
        ),
        ([*PLOT, "pie"], "skaecm plot: error: argument --kind: invalid choice: 'pie'"),
        ([*PLOT, "loss", "--image-shape", "8"], "argument --image-shape: invalid image_shape"),
    ],
)
def test_wrong_usage(capsys, arguments, message):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
