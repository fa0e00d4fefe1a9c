"""The script of twelve tasks runs as it stands, and every task is as short as it says."""

import re

import matplotlib
import numpy as np
import pytest
from helpers import ROOT

SCRIPT = ROOT / "examples" / "twelve_tasks.py"
PIECES = re.split(r"^# Task (\d+): .*\n", SCRIPT.read_text(encoding="utf-8"), flags=re.MULTILINE)
TASKS = dict(zip(map(int, PIECES[1::2]), PIECES[2::2], strict=True))


def test_twelve_tasks_of_five_lines():
    assert list(TASKS) == list(range(1, 13))
    for number, task in TASKS.items():
        lines = [line for line in task.splitlines() if line.strip() and not line.startswith("#")]
        assert 1 <= len(lines) <= 5, f"task {number} has {len(lines)} lines"
        assert not any(";" in line or line.lstrip().startswith("import") for line in lines)


def test_they_run(tmp_path, monkeypatch):
    pytest.importorskip("safetensors")
    monkeypatch.chdir(tmp_path)
    was = matplotlib.get_backend()
    matplotlib.use("Agg")
    scope = {"__name__": "__main__"}
    try:
        exec(compile(SCRIPT.read_text(encoding="utf-8"), str(SCRIPT), "exec"), scope)
    finally:
        import matplotlib.pyplot as plt

        plt.close("all")
        matplotlib.use(was)
    assert scope["labels"].shape == (600,)
    assert scope["new_shares"].shape == (1197, 10)
    assert (tmp_path / "embedding.png").stat().st_size > 10_000
    np.testing.assert_array_equal(scope["same"], scope["new_labels"])
    assert len(set(scope["kinds"])) == 3
    assert scope["best_k"] > 1
    assert scope["best_beta"] in (0.03, 0.3)
    assert len(set(scope["images"].labels_)) == len(set(scope["linked"].labels_)) == 10
    assert len(scope["outliers"]) == len(scope["uncertain"]) == 10
    assert len(set(scope["topics"])) == 4
    assert scope["history"][-1]["changed"] < 0.005
    assert set(scope["first"]) <= set(scope["iris"].feature_names)
