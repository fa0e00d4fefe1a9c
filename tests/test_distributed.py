"""A fit of several processes: real ones, equal to one process, and to be told when one is gone."""

import json
import os
import runpy
import signal
import subprocess
import sys
import warnings
from importlib.util import find_spec
from itertools import chain
from shutil import copytree

import distributed_fits
import numpy as np
import pytest
import torch.distributed as dist
from helpers import ROOT, assert_same_fit, quick

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="needs torch.distributed"
)

SCRIPT = ROOT / "tests" / "distributed_fits.py"

# Far more than any job takes; what hangs fails.
LIMIT = 300


def environment():
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


def read(folder, job, ranks):
    return [json.loads((folder / f"{job}-{rank}.json").read_text()) for rank in ranks]


@pytest.fixture(scope="module")
def alone():
    """Every case by one process without a group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            f"{name}: {mode}": distributed_fits.fit_case(name, mode)
            for name, mode in distributed_fits.MODES
        }


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """Four processes, of which the last is killed at the end: the folder, and how they ended."""
    folder = tmp_path_factory.mktemp("four")
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), "some,killed", str(folder)],
            env=environment() | {"RANK": str(rank), "WORLD_SIZE": "4"},
        )
        for rank in range(4)
    ]
    return folder, [process.wait(timeout=LIMIT) for process in processes]


@pytest.fixture(scope="module")
def pair(tmp_path_factory, four):
    """Two processes that torchrun starts: the folder, and what they printed."""
    folder, jobs = tmp_path_factory.mktemp("pair"), "equal,wrong,other"
    if find_spec("safetensors"):
        copytree(four[0] / "kept", folder / "kept")
        jobs += ",resumed"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    run = subprocess.run(
        [*torchrun, "--nproc-per-node", "2", str(SCRIPT), jobs, str(folder)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return folder, run.stderr


def assert_equal_to_one_process(of_ranks, alone):
    for name in of_ranks[0]:
        expected, found = alone[name], [learned[name] for learned in of_ranks]
        labels = [learned["labels"] for learned in found]
        if name.endswith("parts"):
            assert [*chain(*labels)] == expected["labels"], name
        else:
            assert all(one == expected["labels"] for one in labels), name
        for learned in found:
            assert learned["labels"] == learned["predicted"], name
            for key in ("history", "loss", "weights", "centers", "variance", "n_iter"):
                # The same bits on every process.
                assert learned[key] == found[0][key], (name, key)
        assert len(found[0]["history"]) == len(expected["history"])
        for row, other in zip(found[0]["history"], expected["history"], strict=True):
            assert row == pytest.approx(other, abs=1e-5), name
        for key in ("loss", "weights", "centers", "variance"):
            np.testing.assert_allclose(found[0][key], expected[key], rtol=1e-6, atol=1e-7)


def test_two_processes_equal_one(pair, alone):
    of_ranks = read(pair[0], "equal", range(2))
    assert of_ranks[0].keys() == alone.keys()
    assert_equal_to_one_process(of_ranks, alone)


def test_four_processes_equal_one(four, alone):
    of_ranks = read(four[0], "some", range(4))
    assert len(of_ranks[0]) == len(distributed_fits.CASES)
    assert_equal_to_one_process(of_ranks, alone)


def test_a_group_of_one_process_changes_nothing(cls):
    X, weight = distributed_fits.rows_of(["weighted"])
    expected = quick(cls).fit(X, sample_weight=weight)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        assert_same_fit(quick(cls).fit(X, sample_weight=weight), expected)
    finally:
        dist.destroy_process_group()


MESSAGES = {
    "bad rows": "Input X contains NaN",
    "not allowed": "The 'k' parameter of DeepAEClustering must be",
    "not allowed for these rows": "init continues from a fit with k=4, but here k=3",
    "k": "k must be the same on all processes of a fit, but is 3 on rank 0 and 4 on rank 1",
    "random_state": "random_state must be the same on all processes",
    "alpha": "alpha must be the same on all processes",
    "features": "The number of features of X must be the same on all processes",
    "weights": "Whether there is a sample_weight must be the same on all processes",
    "neighbours": "n_neighbors and adjacency need all rows on every process",
    "graph": "adjacency must have one row and one column for each of the n_samples=240",
    "few rows": "k=9 must be at most the number of rows that carry weight, but n_samples=7",
    "one row": "n_samples=1 is too few for 2 processes",
    "callback": "KeyError: 'of the second'",
    "diverged": "The loss is not finite",
    "nothing": "nothing",
}


def test_what_is_wrong_on_one_process_is_raised_on_all(pair):
    first, second = read(pair[0], "wrong", range(2))
    assert first.keys() == second.keys() == MESSAGES.keys()
    for name, message in MESSAGES.items():
        assert message in first[name], (name, first[name])
        assert message in second[name], (name, second[name])
    assert first["bad rows"].startswith("ValueError: Rank 1 of 2 cannot go on, so that none can:")


def test_other_fits_end_the_same_everywhere(pair):
    """Stops, transformed rows, streams, a warm start, any seed, clusters of no rows."""
    first, second = read(pair[0], "other", range(2))
    assert first == second
    assert first["stopped"] == [1, 2, 3, 3, False]
    weights, numbers = first["empty"]
    assert weights[0] == pytest.approx(30 / 40)
    assert numbers == [0, 1]


def test_one_of_them_shows_progress(pair):
    shown = [line for line in pair[1].replace("\r", "\n").splitlines() if "ClusteringMod" in line]
    assert shown
    assert max(line.count("training") for line in shown) == 1


def test_a_killed_process_ends_the_others(four):
    folder, codes = four
    assert codes == [0, 0, 0, -signal.SIGKILL]
    for learned in read(folder, "killed", range(3)):
        assert learned["message"].startswith(
            "RuntimeError: A process of the group ended or cannot be reached"
        )
        assert learned["seconds"] < 60


@pytest.mark.parametrize("size", [1, 2])
def test_what_four_were_killed_in_others_end(four, pair, size, tmp_path, monkeypatch):
    """It ends as if nobody had been killed, whatever the number of processes."""
    pytest.importorskip("safetensors")
    if size == 1:
        copytree(four[0] / "kept", tmp_path / "kept")
        monkeypatch.chdir(tmp_path)
        of_ranks = [distributed_fits.resumed(0, 1)]
        of_ranks = json.loads(json.dumps(of_ranks))
    else:
        of_ranks = read(pair[0], "resumed", range(size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = distributed_fits.fit_kept()
    for learned in of_ranks:
        assert learned.pop("seen") == [["training", 4], ["training", 5], ["averaging", 6]]
    assert_equal_to_one_process([{"parts": one} for one in of_ranks], {"parts": expected})


def test_a_process_of_torchrun_without_a_group_is_warned(cls, monkeypatch):
    X, _ = distributed_fits.rows_of()
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    with pytest.warns(UserWarning, match=r"torchrun started 4 processes.*init_process_group"):
        quick(cls).fit(X)


def test_the_script_of_the_guide_runs(monkeypatch, capsys):
    """As torchrun starts it, with one process."""
    where = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in where.items():
        monkeypatch.setenv(name, value)
    runpy.run_path(str(ROOT / "examples" / "with_torchrun.py"))
    assert "rank 0 of 1: labels of 1797 rows" in capsys.readouterr().out
    assert not dist.is_initialized()
