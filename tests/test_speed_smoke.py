"""The speed benchmark runs and its figures are numbers; times are not asserted."""

import importlib.util
import sys

import numpy as np
from helpers import ROOT

FOLDER = ROOT / "benchmarks"


def test_the_smallest_case_runs_and_is_finite(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("speed", FOLDER / "speed.py")
    speed = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "speed", speed)
    spec.loader.exec_module(speed)
    for part, figures in speed.run_smoke().items():
        for name, value in speed.flat(figures):
            assert np.isfinite(value), (part, name)
