"""Real processes, killed while they fit, and resumed: a few of what ``make drill`` runs."""

import importlib.util

import pytest
from helpers import ROOT

pytest.importorskip("safetensors")


def test_killed_fits_end_where_the_whole_ones_do(seed):
    spec = importlib.util.spec_from_file_location("drill", ROOT / "benchmarks" / "drill.py")
    drill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drill)
    said = []
    n_killed, n_equal = drill.drill_kills(3, seed, say=said.append)
    assert n_equal == 3, said
    assert n_killed > 0, said
