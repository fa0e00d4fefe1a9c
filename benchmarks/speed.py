"""Speed beside the matrix products that a fit cannot do without, and beside peers.

    python benchmarks/speed.py --part step import predict
    python benchmarks/speed.py --part step --again
    python benchmarks/speed.py --table --figure doc/speed.svg

Parts:

- step: one step of joint training (AE-CM). The floor, the forward and backward matrix
  products of the same shapes without bias or activation; a loop as people write it
  (DataLoader, Adam as it comes); ours; and the shares of what ours adds to the floor.
- peers: an epoch of ClustPy's DCN and DEC at equal network and batch, and the whole of
  fit and predict on USPS with our defaults beside DEC with 30 + 30 epochs.
- module: ClusteringModuleGMM beside KMeans, MiniBatchKMeans and GaussianMixture.
- sweep: seconds and peak memory of fits of fixed epochs, one axis at a time.
- predict: rows a second beside the encoder's matrix products alone.
- import: seconds of ``import skaecm`` beside those of torch and scikit-learn.
- gpu: the step, fits on MNIST, and the loss of the digits beside that on the CPU, on CUDA;
  nothing where there is none.

Times are medians of turns in which all that is compared runs once, so that a slow spell
of the machine hits all of it, and a ratio is the median over the turns' ratios. Every
case is one row of ``benchmarks/results/speed.jsonl``; cases whose row is there are not
run again unless ``--again`` asks for it, and the last row of a case counts. Numbers of
threads are those of the environment (OMP_NUM_THREADS). MNIST and USPS are read from the
folder that the environment variable SKAECM_DATA names; without it rows of the same shape
are drawn for the parts that need no labels.

ClustPy runs in an environment of its own, made in the folder ``--peers-folder``, to
which this script hands the part.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from _cm_speed import COMPARED, data_sets, fit, measure, peak_of_fit, resident_peak
from _environment import environment_python
from _speed_clock import HIDDEN, MNIST_SHAPE, gaussian_rows, in_new_process, median
from _speed_peers import run_peer_epochs, run_peer_fits
from _speed_steps import run_gpu_agreement, run_gpu_fit, run_predict, run_step
from sklearn.exceptions import ConvergenceWarning

import skaecm
from skaecm import ClusteringModuleGMM, DeepAEClustering

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "speed.jsonl"
TABLE = RESULTS.with_suffix(".txt")
PEERS_FOLDER = Path(__file__).parent / ".venv-speed-peers"
PEER_PACKAGES = ("clustpy==0.0.3", "torch==2.13.0")

# The sweep: one axis at a time from the base, fits of so many epochs, at most so long.
SWEEP_BASE = {"n": 10_000, "d": 64, "k": 10, "batch": 256}
SWEEP_AXES = {
    "n": (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000),
    "d": (16, 64, 256, 1024, 2048),
    "k": (10, 50, 100, 200, 500),
    "batch": (64, 256, 1024, 4096, 8192),
}
SWEEP_SETTINGS = {
    "ClusteringModuleGMM": {"max_iter": 5},
    "DeepAEClustering": {"hidden_layer_sizes": (256,), "pretrain_iter": 2, "max_iter": 2},
}
SWEEP_SECONDS = 300
SWEEP_GIGABYTES = 4


# Peers
# -----


def hand_over_peers(arguments):
    """Run the part in the environment that has ClustPy."""
    python = environment_python(arguments.peers_folder, PEER_PACKAGES)
    command = [python, __file__, "--part", "peers"]
    command += ["--repeats", str(arguments.repeats), "--seeds", str(arguments.seeds)]
    command += ["--peer-rows", str(arguments.peer_rows)] + ["--again"] * arguments.again
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": path})


# The sweep
# ---------


def sweep_cell(estimator, n, d, k, batch):
    """Seconds and memory of a fit, at most three times; for a process of its own."""
    X = gaussian_rows(n, d, k)
    build = {"ClusteringModuleGMM": ClusteringModuleGMM, "DeepAEClustering": DeepAEClustering}
    model = build[estimator](
        k, batch_size=batch, tol=0.0, device="cpu", random_state=0, **SWEEP_SETTINGS[estimator]
    )
    model.set_params(n_iter_no_change=10**6)
    fit(model, X[: 20 * k])
    before = resident_peak()
    seconds = []
    while not seconds or (len(seconds) < 3 and sum(seconds) < SWEEP_SECONDS / 20):
        begin = time.perf_counter()
        fit(model, X)
        seconds.append(time.perf_counter() - begin)
    return {"seconds": median(seconds), "peak_mib": median(resident_peak() - before)}


def sweep_cells():
    """Every cell once: the base, and each axis from it."""
    cells = [SWEEP_BASE | {axis: value} for axis, values in SWEEP_AXES.items() for value in values]
    return [dict(cell) for cell in dict.fromkeys(tuple(cell.items()) for cell in cells)]


def run_sweep(estimator, cell):
    """One cell within the limits; what is beyond them is said, not run."""
    if 4 * cell["n"] * cell["d"] > 1e9 * SWEEP_GIGABYTES:
        return {"beyond": "memory"}
    figures = in_new_process(sweep_cell, estimator, *cell.values(), seconds=SWEEP_SECONDS)
    return {"beyond": "time"} if figures is None else figures


def slope(n, seconds):
    """Of log time over log n."""
    return float(np.polyfit(np.log(n), np.log(seconds), 1)[0])


# Imports, a second of it all
# ---------------------------


def run_import(repeats):
    """Seconds of imports in fresh processes."""
    statements = {"theirs": "import torch, sklearn", "ours": "import skaecm"}
    seconds = {name: [] for name in statements}
    for turn in range(1 + repeats):
        for name, statement in sorted(statements.items(), reverse=bool(turn % 2)):
            code = f"import time; t = time.perf_counter(); {statement}"
            code += "; print(time.perf_counter() - t)"
            process = subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT
            )
            seconds[name].append(float(process.stdout))
    theirs, ours = (np.array(seconds[name][1:]) for name in ("theirs", "ours"))
    return {
        "theirs_seconds": median(theirs),
        "ours_seconds": median(ours),
        "ours_over_theirs": median(ours / theirs),
    }


def run_smoke():
    """Parts of this script in a second: figures by part."""
    X = gaussian_rows(500, 8, 3)
    return {
        "step": run_step(n=256, d=16, hidden=(16,), batch=32, steps=2, repeats=2),
        "module": measure(lambda: (X, 3), repeats=1),
        "predict": run_predict(n=1000, d=16, hidden=(16,), repeats=1),
        "sweep": sweep_cell("DeepAEClustering", n=200, d=8, k=3, batch=64),
    }


# What there is to run
# --------------------


def cases(arguments):
    """(part, case, function that gives its figures, its keyword arguments)."""
    n, d = MNIST_SHAPE
    repeats = arguments.repeats
    for part in arguments.part:
        if part in ("step", "gpu"):
            device = {"step": "cpu", "gpu": "cuda"}[part]
            for batch in (256, 2048):
                case = {"n": n, "d": d, "hidden": HIDDEN, "batch": batch}
                settings = {"steps": max(1, arguments.steps * 256 // batch), "repeats": repeats}
                yield part, case, run_step, {**case, **settings, "device": device}
        if part == "gpu":
            for precision in ("float32", "tf32", "bfloat16"):
                case = {"epochs": arguments.epochs, "precision": precision}
                yield part, {"data": "mnist"} | case, run_gpu_fit, case
            case = {"seeds": arguments.seeds}
            yield part, {"loss of": "digits"} | case, run_gpu_agreement, case
        if part == "peers":
            case = {"n": arguments.peer_rows, "batch": 256}
            yield part, {"epoch of": "mnist"} | case, run_peer_epochs, case | {"repeats": repeats}
            if os.environ.get("SKAECM_DATA"):
                case = {"name": "usps", "seeds": arguments.seeds}
                yield part, {"fit of": "usps", "seeds": arguments.seeds}, run_peer_fits, case
        if part == "module":
            for name, make in data_sets().items():
                yield part, {"data": name}, measure, {"make": make, "repeats": arguments.seeds}
                for estimator in COMPARED:
                    case = {"data": name, "peak of": estimator}
                    yield part, case, peak_of_fit, {"make": make, "name": estimator}
        if part == "sweep":
            for estimator in SWEEP_SETTINGS:
                for cell in sweep_cells():
                    if cell["n"] <= arguments.largest and matches(cell, arguments.axis):
                        settings = {"estimator": estimator, "cell": cell}
                        case = {"estimator": estimator, **cell}
                        yield part, case, run_sweep, settings
        if part == "predict":
            case = {"n": arguments.rows, "d": d, "hidden": HIDDEN}
            yield part, case, run_predict, {**case, "repeats": arguments.seeds}
        if part == "import":
            yield part, {}, run_import, {"repeats": repeats}


def matches(cell, axes):
    """Whether the cell lies on one of ``axes`` through the base."""
    return any(
        all(cell[key] == value for key, value in SWEEP_BASE.items() if key != axis) for axis in axes
    )


def key_of(part, case):
    """What tells a case from another."""
    return part, json.dumps(case, sort_keys=True)


def make_row(part, case, figures):
    """A case with its figures, and where they come from."""
    return {
        "part": part,
        "case": json.loads(json.dumps(case)),
        "figures": figures,
        "dtype": figures.pop("dtype", "float32"),
        "device": "cuda" if part == "gpu" else "cpu",
        "threads": torch.get_num_threads(),
        "versions": {m.__name__: m.__version__ for m in (skaecm, sklearn, torch, np)},
    }


def read_rows():
    """The last row of every case, in the order in which cases were first run."""
    if not RESULTS.exists():
        return {}
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {key_of(row["part"], row["case"]): row for row in rows}


def keep(row):
    """Append a row."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


# Table and figure
# ----------------


def format_table(rows):
    """Every case with its figures, and the slopes of the sweep."""
    lines = []
    for part in PARTS:
        chosen = [row for row in rows if row["part"] == part]
        if not chosen:
            continue
        lines += ["", part, "-" * len(part)]
        for row in chosen:
            title = ", ".join(f"{key} {show(value)}" for key, value in row["case"].items())
            lines.append(f"{title or part} ({row['dtype']}, {row['threads']} threads)")
            lines += [f"    {name:34s} {show(value)}" for name, value in flat(row["figures"])]
    for estimator in SWEEP_SETTINGS:
        n, seconds = curve(rows, estimator, "n", "seconds")
        large = n >= 10_000
        if large.sum() > 1:
            figure = slope(n[large], seconds[large])
            lines += ["", f"log time over log n, from 10^4 rows, {estimator}: {figure:.2f}"]
    return "\n".join(lines[1:])


def flat(figures, prefix=""):
    """Nested figures as pairs of a name and a value."""
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name} ")
        else:
            yield prefix + name, value


def show(value):
    """For the table: four digits are enough."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return "-".join(str(item) for item in value)
    return str(value)


def curve(rows, estimator, axis, figure):
    """Values of an axis of the sweep and a figure there."""
    base = {key: value for key, value in SWEEP_BASE.items() if key != axis}
    points = sorted(
        (row["case"][axis], row["figures"][figure])
        for row in rows
        if row["part"] == "sweep"
        and row["case"]["estimator"] == estimator
        and figure in row["figures"]
        and all(row["case"][key] == value for key, value in base.items())
    )
    values = np.array(points, dtype=float).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def draw(rows, path):
    """The sweep: seconds above, memory below, a column for each axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    # The same drawing gives the same file.
    plt.rcParams["svg.hashsalt"] = "skaecm"
    figure, panels = plt.subplots(2, len(SWEEP_AXES), figsize=(11, 5), sharey="row", sharex="col")
    for column, axis in zip(panels.T, SWEEP_AXES, strict=True):
        for panel, what in zip(column, ("seconds", "peak_mib"), strict=True):
            for estimator, marker in zip(SWEEP_SETTINGS, "os", strict=True):
                x, y = curve(rows, estimator, axis, what)
                panel.loglog(x, y, marker=marker, markersize=4, label=estimator)
            if axis == "n" and what == "seconds" and len(x) > 1:
                panel.loglog(x, y[-1] * x / x[-1], ":", color="gray", label="linear")
            panel.grid(alpha=0.3)
        column[-1].set_xlabel(axis)
    panels[0, 0].set_ylabel("seconds of a fit")
    panels[1, 0].set_ylabel("memory beside X (MiB)")
    panels[0, 0].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if Path(path).suffix == ".svg" else None)
    plt.close(figure)


PARTS = ("step", "peers", "module", "sweep", "predict", "import", "gpu")


def main():
    """Run what is missing, print the table and draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--again", action="store_true", help="also cases whose row is there")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--figure", type=Path, help="where to draw the sweep")
    parser.add_argument("--smoke", action="store_true", help="a second of it; nothing is kept")
    parser.add_argument("--repeats", type=int, default=15, help="turns of short timings")
    parser.add_argument("--seeds", type=int, default=3, help="turns of whole fits")
    parser.add_argument("--steps", type=int, default=10, help="steps of batch 256 in a turn")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows to predict")
    parser.add_argument("--peer-rows", type=int, default=MNIST_SHAPE[0], help="rows of an epoch")
    parser.add_argument("--largest", type=int, default=1_000_000, help="largest n of the sweep")
    parser.add_argument("--axis", nargs="+", choices=list(SWEEP_AXES), default=list(SWEEP_AXES))
    parser.add_argument("--epochs", type=int, default=100, help="of each kind, on the GPU")
    parser.add_argument("--peers-folder", type=Path, default=PEERS_FOLDER)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", ConvergenceWarning)
    if arguments.smoke:
        print(json.dumps(run_smoke()))
        return
    if "gpu" in arguments.part and not torch.cuda.is_available():
        arguments.part.remove("gpu")
    if arguments.table:
        arguments.part = []
    if "peers" in arguments.part:
        if importlib.util.find_spec("clustpy") is None:
            hand_over_peers(arguments)
            arguments.part.remove("peers")
        else:
            from _peers import declare_operators

            # ClustPy imports torchvision and uses none of its operators; where those
            # were compiled for another torch they are declared empty.
            kept = declare_operators()
            assert kept is None or kept
    done = read_rows()
    for part, case, function, settings in cases(arguments):
        if key_of(part, case) in done and not arguments.again:
            continue
        keep(make_row(part, case, function(**settings)))
    rows = list(read_rows().values())
    TABLE.write_text(format_table(rows) + "\n")
    print(TABLE.read_text(), end="")
    if arguments.figure is not None:
        draw(rows, arguments.figure)


if __name__ == "__main__":
    main()
