"""The benchmark of choosing without labels: three settings, two of them of its grid, on digits."""

import importlib.util
import json
import sys
import warnings

import numpy as np
import pytest
from helpers import ROOT
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning

FOLDER = ROOT / "benchmarks"
GRID = {
    f"alpha=0.5/k, beta=0.1, lam={lam:g}": {"alpha": 0.5, "beta": 0.1, "lam": lam}
    for lam in (0.1, 1.0)
}


@pytest.fixture
def selection(monkeypatch, tmp_path):
    """The script as a module, small, with results of its own."""
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("selection", FOLDER / "selection.py")
    module = importlib.util.module_from_spec(spec)
    for name in ("partners", "_environment", "_selection_judges", "_selection_table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "selection", module)
    spec.loader.exec_module(module)
    X, y = load_digits(return_X_y=True)
    small = X[:240].astype(np.float32), y[:240], 120
    monkeypatch.setattr(module, "load", lambda name: small)
    monkeypatch.setattr(module, "ALPHAS", (0.5,))
    monkeypatch.setattr(module, "BETAS", (0.1,))
    monkeypatch.setattr(module, "LAMS", (0.1, 1.0))
    monkeypatch.setattr(module, "GRID", GRID)
    monkeypatch.setattr(module, "SETTINGS", GRID | {"max_iter=0": {"max_iter": 0}})
    common = {"hidden_layer_sizes": (16,), "pretrain_iter": 2, "max_iter": 2, "random_state": 0}
    monkeypatch.setattr(module, "COMMON", common)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "selection.jsonl")
    monkeypatch.setattr(module, "TABLE", tmp_path / "selection.txt")
    return module


def test_rows_of_every_judge_a_search_and_a_table(selection, tmp_path, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        selection.run_missing(["digits"], selection.SETTINGS, tmp_path, stability=True)
    rows = [json.loads(line) for line in selection.RESULTS.read_text().splitlines()]
    fits = [row for row in rows if "judges" in row]
    assert [row["setting"] for row in fits] == list(selection.SETTINGS)
    for row in fits:
        assert row["judges"].keys() == selection.JUDGES.keys()
        assert 0 < row["acc"] < 1
    (search,) = [row for row in rows if "search" in row]
    scores = {row["setting"]: row["judges"]["modularity, 10 (score)"] for row in fits}
    assert search["search"] == max(GRID, key=scores.get)
    # All is there: nothing is fitted again, and no row is written.
    capsys.readouterr()
    selection.run_missing(["digits"], selection.SETTINGS, tmp_path, stability=True)
    assert capsys.readouterr().out == ""
    table = selection.write_table()
    for judge in (*selection.JUDGES, *selection.POOLED, selection.STABILITY):
        assert f"  {judge} " in table
    assert selection.TABLE.read_text() == table + "\n"


def test_the_table_gives_correlations_and_regrets(selection):
    accuracies = {"a": 0.5, "b": 0.7, "c": 0.9}
    rows = [
        {
            "data": "made",
            "setting": setting,
            "n_rows": [3, 3],
            "k": 2,
            "acc": acc,
            "ari": 1 - acc,
            "judges": {"good": acc, "bad": -acc, "silent": None},
        }
        for setting, acc in accuracies.items()
    ]
    rows.append({"data": "made", "pooled": {"of all": {"a": 1.0, "b": 3.0, "c": 2.0}}})
    rows.append({"data": "made", "search": "b", "score": 0.6, "refit": {"score": 0.5, "acc": 0.8}})
    judges = ["good", "bad", "silent", "of all"]
    table = selection.format_table(rows, judges, ["a", "b"])
    everything, grid = table.split("The grid")
    figures = {
        line.split("  ")[1]: line.split()[-5:]
        for line in everything.splitlines()
        if line.strip().startswith(tuple(judges))
    }
    assert figures["good"] == ["1.00", "-1.00", "0.000", "1.00", "0.000"]
    assert figures["bad"] == ["-1.00", "1.00", "0.400", "-1.00", "0.400"]
    assert figures["silent"] == ["0.00", "0.00", "0.400", "0.00", "0.400"]
    assert figures["of all"] == ["0.50", "-0.50", "0.200", "0.50", "0.200"]
    (line,) = [line for line in grid.splitlines() if line.strip().startswith("made")]
    assert line.split()[-6:] == ["0.600", "0.700", "0.700", "0.000", "0.500", "0.800"]
