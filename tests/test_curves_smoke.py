"""The benchmark of the curves over epochs: what it counts, and a short run of it."""

import importlib.util
import sys

import numpy as np
import pytest
from helpers import ROOT, blobs

FOLDER = ROOT / "benchmarks"


@pytest.fixture
def curves(monkeypatch, tmp_path):
    """The script as a module, with results of its own."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("curves", FOLDER / "curves.py")
    module = importlib.util.module_from_spec(spec)
    for name in ("quality", "partners", "_environment", "_quality_table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "curves", module)
    spec.loader.exec_module(module)
    for name in ("RESULTS", "TABLE", "FIGURE"):
        monkeypatch.setattr(module, name, tmp_path / getattr(module, name).name)
    monkeypatch.setattr(module.quality, "RESULTS", tmp_path / "quality.jsonl")
    return module


def test_epochs_until_the_accuracy_is_near_to_its_end(curves, seed):
    acc = np.random.default_rng(seed).uniform(0.5, 0.9, size=57)
    means = [acc[max(0, i - curves.WINDOW + 1) : i + 1].mean() for i in range(len(acc))]
    np.testing.assert_allclose(curves.moving_mean(acc), means, rtol=1e-12)
    needed = curves.epochs_needed(acc)
    near = [abs(mean - means[-1]) <= 0.01 * means[-1] for mean in means]
    assert near.index(True) == needed - 1
    assert curves.epochs_needed(np.full(30, 0.7)) == 1


def test_epochs_until_the_accuracy_stays_near_to_its_end(curves):
    steps = np.repeat([0.7, 0.5, 0.7], [20, 30, 40])
    row = {"epochs_before": 5, "epochs": 90, "acc_curve": steps.tolist()}
    # The moving mean has forgotten the fall ten epochs later, but for one percent.
    assert curves.epochs_needed(steps) == 1
    assert curves.epochs_settled(row) == 5 + 60
    long = {"epochs_before": 5, "epochs": 900, "acc_curve": np.repeat(steps, 10)[::9].tolist()}
    assert curves.epochs_settled(long) == pytest.approx(5 + 501, abs=9)
    assert curves.epochs_settled(row | {"acc_curve": [0.7] * 90}) == 6


@pytest.mark.parametrize("n", [1, 99, 100, 101, 1001])
def test_thinned_curves_keep_the_mean(curves, seed, n):
    values = np.random.default_rng(seed).uniform(1, 2, size=n)
    points = curves.thinned(values)
    every = -(-n // curves.POINTS)
    assert len(points) == -(-n // every)
    expected = [values[i : i + every].mean() for i in range(0, n, every)]
    np.testing.assert_allclose(points, expected, rtol=1e-3)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_short_run(curves, monkeypatch):
    """Noting the epochs gives no other clusters; the figure is drawn."""
    X, y = blobs(dtype=np.float32)
    monkeypatch.setattr(curves.quality, "load", lambda name, limit: (X, y, None))
    full_run = curves.run
    monkeypatch.setattr(curves, "run", lambda *key: full_run(*key[:3], len(X)))
    names, methods = ["pendigits"], list(curves.METHODS)
    curves.run_missing(names, methods, 1)
    rows = curves.read_rows()
    assert [row["method"] for row in rows] == methods
    for row in rows:
        assert 1 <= row["needed"] <= row["epochs_before"] + row["epochs"]
        assert 0 < row["final"] <= 1
        assert {"loss", "reconstruction", "E1", "E2"} <= row["terms"].keys()
        assert all(np.isfinite(values).all() for values in row["terms"].values())
    assert len(curves.quality.read_rows()) == len(methods)
    for row, method in zip(rows, methods, strict=True):
        alone = curves.quality.run("pendigits", method, 0, peers=None, limit=len(X))
        assert alone["acc"] == row["acc"]
    curves.run_missing(names, methods, 1)
    assert curves.read_rows() == rows
    table = curves.format_table(rows)
    assert len(table.splitlines()) == 1 + len(methods)
    pytest.importorskip("matplotlib")
    curves.draw(rows)
    assert curves.FIGURE.stat().st_size > 1000
