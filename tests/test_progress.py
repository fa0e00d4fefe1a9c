"""Looking on at a fit: bars and lines, the share of changed labels, the history as a table."""

import re
import subprocess
import sys
import types
from functools import partial

import numpy as np
import pytest
from helpers import ROOT, assert_same_fit, blobs, overlapping, quick
from sklearn.exceptions import NotFittedError

from skaecm import ClusteringModuleGMM, DeepAEClustering, _rows
from skaecm.plotting import LossCurveDisplay

PHASES = {
    ClusteringModuleGMM: ["training"],
    DeepAEClustering: ["pretraining", "training"],
}


# The share of changed labels
# ---------------------------


def test_every_epoch_with_clusters_says_how_many_labels_changed(cls, seed):
    model = quick(cls, n_iter_no_change=6, batch_size=32).fit(overlapping(seed))
    rows = [row for row in model.history_ if row["phase"] != "pretraining"]
    assert len(rows) == 8
    for row in rows:
        assert isinstance(row["changed"], float)
        assert 0 <= row["changed"] <= 1
        # A share of the 300 rows, not rounded.
        assert row["changed"] * 300 == pytest.approx(round(row["changed"] * 300), abs=1e-9)
    assert any(row["changed"] > 0 for row in rows)


def test_pretraining_has_no_labels(seed):
    model = quick(DeepAEClustering, init="pinv").fit(blobs(seed)[0])
    has = {row["phase"]: "changed" in row for row in model.history_}
    assert has == {"pretraining": False, "module": True, "training": True, "averaging": True}


@pytest.mark.parametrize("numbers_held", [0, 100])
@pytest.mark.parametrize("partners", [{}, {"augment": "noise"}, {"n_neighbors": 4}])
def test_labels_are_looked_at_one_by_one_or_together(
    cls, seed, partners, numbers_held, monkeypatch
):
    X = overlapping(seed, n=90)
    params = {"batch_size": 20, "n_iter_no_change": 3, **partners}
    together = quick(cls, **params).fit(X)
    monkeypatch.setattr(_rows, "NUMBERS_HELD", numbers_held)
    assert_same_fit(quick(cls, **params).fit(X), together)


def test_separated_clusters_change_no_labels(cls, seed):
    model = quick(cls, n_iter_no_change=3).fit(blobs(seed)[0])
    assert all(row.get("changed", 0.0) == 0 for row in model.history_)


def test_a_first_epoch_changes_labels_of_the_start(seed):
    """From centres far off, most rows go elsewhere in the first epoch."""
    X = overlapping(seed)
    start = quick(ClusteringModuleGMM, init="random", max_iter=0).fit(X)
    model = quick(ClusteringModuleGMM, init=start, learning_rate_init=1.0, batch_size=8)
    assert model.fit(X).history_[0]["changed"] > 0


def test_a_block_of_a_stream_is_another_one(cls, seed):
    """Passes of partial_fit see other rows: there is no epoch before to compare with."""
    X = overlapping(seed)
    model = quick(cls).fit(X).partial_fit(X[:40]).partial_fit(X[40:])
    assert all("changed" not in row for row in model.history_[-2:])


# Bars
# ----


def shown(text):
    """What the bars on stderr end with: title, epochs, figures."""
    lines = [line.split("\r")[-1] for line in text.split("\n") if line]
    found = [
        re.match(r"(.*): +(\d+)%\|.*\| (\d+)/(\d+) \[.*?, *(loss=.*)\]", line) for line in lines
    ]
    assert all(found), lines
    return [match.groups() for match in found]


@pytest.mark.parametrize("n_init", [1, 2])
def test_a_bar_for_every_phase(cls, seed, capsys, n_init):
    pytest.importorskip("tqdm")
    X = overlapping(seed)
    model = quick(cls, verbose=1, n_init=n_init).fit(X)
    captured = capsys.readouterr()
    assert captured.out == ""
    bars = shown(captured.err)
    runs = [f", run {i + 1} of {n_init}" if n_init > 1 else "" for i in range(n_init)]
    titles = [f"{cls.__name__} training{run}" for run in runs]
    if cls is DeepAEClustering:
        titles.insert(0, "DeepAEClustering pretraining")
    assert [title for title, *_ in bars] == titles
    for title, percent, done, total, figures in bars:
        # Two epochs and the average, of 201 that were allowed: the bar is full all the same.
        assert percent == "100"
        assert done == total == ("2" if "pretraining" in title else "3")
        if "pretraining" in title:
            assert re.fullmatch(r"loss=[\d.]+", figures)
        else:
            assert re.fullmatch(r"loss=[\d.]+, changed=[\d.]+%", figures)
    assert_same_fit(model, quick(cls, n_init=n_init).fit(X))


def test_a_bar_for_the_module_alone_and_for_a_pass(seed, capsys):
    pytest.importorskip("tqdm")
    X, _ = blobs(seed)
    model = quick(DeepAEClustering, verbose=1, init="pinv").fit(X)
    titles = [title.split()[-1] for title, *_ in shown(capsys.readouterr().err)]
    assert titles == ["pretraining", "module", "training"]
    model.partial_fit(X)
    assert [bar[2:4] for bar in shown(capsys.readouterr().err)] == [("1", "1")]


def test_no_bar_without_epochs(cls, seed, capsys):
    model = quick(cls, verbose=1, max_iter=0)
    if cls is DeepAEClustering:
        model.set_params(pretrain_iter=0)
    model.fit(blobs(seed)[0])
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_bar_is_closed_by_an_error(cls, seed, capsys):
    tqdm = pytest.importorskip("tqdm.auto").tqdm
    params = {"learning_rate_init": 1e30, "tol": 0.0, "n_iter_no_change": 99, "max_iter": 99}
    with pytest.raises(ValueError, match="loss is not finite"):
        quick(cls, verbose=1, **params).fit(blobs(seed, dtype=np.float32)[0])
    assert not getattr(tqdm, "_instances", ())
    assert capsys.readouterr().err.endswith("\n")


class Stub:
    """What a notebook shows, without one: its attributes are what it was told."""

    def __init__(self, **told):
        self.layout = types.SimpleNamespace()
        self.style = types.SimpleNamespace()
        self.bar_style = ""
        vars(self).update(told)


@pytest.mark.parametrize("n_init", [1, 2])
def test_the_widget_of_a_notebook_is_full_too(cls, seed, n_init, monkeypatch):
    notebook = pytest.importorskip("tqdm.notebook")
    boxes = []
    for name in ("IProgress", "HTML", "TqdmHBox"):
        monkeypatch.setattr(notebook, name, Stub, raising=False)
    monkeypatch.setattr(notebook, "display", boxes.append, raising=False)
    monkeypatch.setattr("tqdm.auto.tqdm", notebook.tqdm)
    quick(cls, verbose=1, n_init=n_init).fit(overlapping(seed))
    assert len(boxes) == n_init + (cls is DeepAEClustering)
    for box in boxes:
        title, progress, figures = box.children
        n_epochs = 2 if "pretraining" in title.value else 3
        assert (progress.value, progress.max, progress.bar_style) == (n_epochs, n_epochs, "success")
        assert "100%" in title.value
        assert f"{n_epochs}/{n_epochs}" in figures.value
        assert "loss=" in figures.value
        # The time is that of the epochs, not of what followed.
        assert "?" not in figures.value


def test_bars_may_be_switched_off(seed, capsys, monkeypatch):
    tqdm = pytest.importorskip("tqdm.auto").tqdm
    monkeypatch.setattr("tqdm.auto.tqdm", partial(tqdm, disable=True))
    quick(ClusteringModuleGMM, verbose=1).fit(overlapping(seed))
    assert capsys.readouterr() == ("", "")


NOTEBOOK = """
import sys, types
kernel = types.ModuleType("IPython")
kernel.get_ipython = lambda: types.SimpleNamespace(config={"IPKernelApp": {}})
sys.modules["IPython"] = kernel
sys.modules["ipywidgets"] = None
from helpers import blobs, quick
from skaecm import ClusteringModuleGMM
quick(ClusteringModuleGMM, verbose=1).fit(blobs()[0])
"""


def test_a_notebook_without_widgets_gets_no_warning():
    pytest.importorskip("tqdm")
    done = subprocess.run(
        [sys.executable, "-c", NOTEBOOK],
        check=True,
        capture_output=True,
        cwd=ROOT / "tests",
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": ""},
    )
    assert done.stdout == b""
    assert b"Warning" not in done.stderr
    assert [title for title, *_ in shown(done.stderr.decode())] == ["ClusteringModuleGMM training"]


def test_silence_does_not_import_tqdm(cls, seed, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.ModuleType("tqdm.auto"))
    quick(cls, verbose=0).fit(blobs(seed)[0])


# Lines, where there is no tqdm
# -----------------------------


def test_lines_name_the_run(cls, seed, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    X = overlapping(seed)
    model = quick(cls, verbose=1, n_init=2).fit(X)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    name = cls.__name__
    if cls is DeepAEClustering:
        for line, row in zip(lines[:2], model.history_, strict=False):
            assert line.startswith(f"[{name}] pretraining {row['epoch']}: loss {row['loss']:.4g}")
        lines = lines[2:]
    assert len(lines) == 6
    for i, line in enumerate(lines):
        phase = "averaging" if i % 3 == 2 else "training"
        start = f"[{name}, run {i // 3 + 1} of 2] {phase} {i % 3 + 1}: loss "
        assert line.startswith(start)
        assert ", changed " in line


# The history as a table
# ----------------------


def test_history_frame(cls, seed):
    pandas = pytest.importorskip("pandas")
    model = quick(cls, n_iter_no_change=4, n_neighbors=4).fit(overlapping(seed))
    frame = model.history_frame()
    assert list(frame.columns[:3]) == ["phase", "epoch", "loss"]
    assert list(frame.columns[-2:]) == ["changed", "best"]
    assert frame["best"].dtype == bool
    assert set(frame.columns[3:-2]) == {
        name for row in model.history_ for name in row if name not in frame.columns[[0, 1, 2, -2]]
    }
    for row, entry in zip(model.history_, frame.to_dict("records"), strict=True):
        best = entry.pop("best")
        assert {name: value for name, value in entry.items() if not pandas.isna(value)} == row
        losses = [other["loss"] for other in model.history_ if other["phase"] == row["phase"]]
        assert best == (losses.index(min(losses)) == row["epoch"] - 1 or len(losses) == 1)
    assert frame.groupby("phase")["best"].sum().eq(1).all()


def test_history_frame_has_the_best_of_what_the_curve_has(cls, seed):
    """A phase is a run of one name, in the frame and in the picture of the losses."""
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    import matplotlib.pyplot as plt

    X = overlapping(seed)
    model = quick(cls, n_iter_no_change=3).fit(X).partial_fit(X[:40]).partial_fit(X[40:])
    frame = model.history_frame()
    phases = [row["phase"] for row in model.history_]
    starts = [i for i, phase in enumerate(phases) if i == 0 or phase != phases[i - 1]]
    assert phases.count("training") == 6
    assert phases[-3:] == ["averaging", "training", "training"]
    best = np.flatnonzero(frame["best"])
    assert len(best) == len(starts)
    np.testing.assert_array_equal(np.searchsorted(starts, best, side="right") - 1, range(len(best)))
    figure, ax = plt.subplots()
    LossCurveDisplay.from_estimator(model, ax=ax)
    (stars,) = [line for line in ax.lines if line.get_label() == "best of its phase"]
    np.testing.assert_array_equal(stars.get_xdata(), best + 1)
    plt.close(figure)


def test_history_frame_of_few_epochs(seed):
    pytest.importorskip("pandas")
    X, _ = blobs(seed)
    frame = quick(ClusteringModuleGMM, max_iter=0).fit(X).history_frame()
    assert frame.shape == (0, 5)
    frame = quick(DeepAEClustering, max_iter=0).fit(X).history_frame()
    assert list(frame["phase"]) == ["pretraining"] * 2
    assert frame["changed"].dtype == float
    assert frame["changed"].isna().all()


def test_history_frame_of_an_unfitted_estimator(cls):
    with pytest.raises(NotFittedError):
        quick(cls).history_frame()


def test_history_frame_without_pandas(cls, seed, monkeypatch):
    model = quick(cls).fit(blobs(seed)[0])
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(
        ImportError, match=r'history_frame needs pandas. .*pip install "skaecm\[tables\]"'
    ):
        model.history_frame()
