"""Accuracy and loss over the epochs: the published start and weights beside our default.

Pendigits and USPS, five seeds each: AE-CM+pre as published, 1000 joint epochs, and our default,
both as `quality.py` runs them. A run is one row of ``benchmarks/results/curves.jsonl``, and one
of `quality.py` if that has none; runs whose row is there are not run again. The table says how
many epochs, pretraining counted, either takes until its accuracy, a moving mean over ten epochs,
comes within one percent of where it ends: for the first time, which a curve that wanders may do by
chance, and to stay. ``--figure`` draws the curves. Labels are used for scoring; no fit sees them.

    python benchmarks/curves.py --data pendigits --method DeepAEClustering
    python benchmarks/curves.py --table --figure

Data are read from the folder that the environment variable SKAECM_DATA names. On two cores a
published run takes half an hour, on a GPU some minutes.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import quality
from sklearn.exceptions import ConvergenceWarning

from skaecm._training import Training
from skaecm.metrics import clustering_accuracy

RESULTS = Path(__file__).parent / "results" / "curves.jsonl"
TABLE = RESULTS.with_suffix(".txt")
FIGURE = RESULTS.with_suffix(".png")

DATA = ("pendigits", "usps")
METHODS = ("AE-CM+pre", quality.OURS)
SEEDS = 5

# Epochs of a moving mean, and how near to its end, as a share of it, is near enough.
WINDOW = 10
NEAR = 0.01

# A curve is kept in at most so many points, each a mean over equally many epochs.
POINTS = 100
NO_TERMS = ("phase", "epoch", "changed")

# Runs
# ----


@contextmanager
def noted(y: np.ndarray) -> Iterator[list[dict]]:
    """What every epoch of the fits in this block gives: the row of its history, and "acc".

    The accuracy is that of the clusters as the epoch met them; pretraining has none.
    """
    rows: list[dict] = []
    run_epoch = Training.run_epoch

    def run_and_note(self, *args, **kwargs):
        loss = run_epoch(self, *args, **kwargs)
        row = dict(self.history[-1])
        if self.labels is not None:
            row["acc"] = clustering_accuracy(y, self.labels.cpu().numpy())
        rows.append(row)
        return loss

    Training.run_epoch = run_and_note
    try:
        yield rows
    finally:
        Training.run_epoch = run_epoch


def moving_mean(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Mean of every value and those before it, ``window`` in all where there are as many."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(stop - window, 0)
    return (total[stop] - total[start]) / (stop - start)


def is_near(mean: np.ndarray) -> np.ndarray:
    """Where a curve is near to its end."""
    return np.abs(mean - mean[-1]) <= NEAR * mean[-1]


def epochs_needed(acc: np.ndarray) -> int:
    """The first epoch, from 1, at which the moving mean of ``acc`` is near to its end.

    It may leave again: that is in favour of long trainings that wander.
    """
    return 1 + int(np.flatnonzero(is_near(moving_mean(acc)))[0])


def epochs_settled(row: dict) -> int:
    """The epoch, pretraining counted, from which on the accuracy stays near to its end.

    Told from the curve as it is kept, in steps of the epochs between its points.
    """
    every = epochs_a_point(row["epochs"])
    near = is_near(moving_mean(np.array(row["acc_curve"]), max(1, WINDOW // every)))
    far = np.flatnonzero(~near)
    n_points = int(far[-1]) + 1 if len(far) else 0
    return int(row["epochs_before"]) + n_points * every + 1


def epochs_a_point(n_epochs: int) -> int:
    """Over how many epochs a point of a kept curve is a mean."""
    return -(-n_epochs // POINTS)


def thinned(values: np.ndarray) -> list[float]:
    """A curve in few points, rounded."""
    every = epochs_a_point(len(values))
    means = np.add.reduceat(values, np.arange(0, len(values), every))
    counts = np.minimum(every, len(values) - np.arange(0, len(values), every))
    return [float(f"{value:.4g}") for value in means / counts]


def curves_of(epochs: list[dict]) -> dict:
    """What a row keeps of the epochs of one fit."""
    clustered = [row for row in epochs if "acc" in row]
    n_before = len(epochs) - len(clustered)
    acc = np.array([row["acc"] for row in clustered])
    joint = [row for row in clustered if row["phase"] != "module"]
    return {
        "epochs_before": n_before,
        "epochs": len(clustered),
        "needed": n_before + epochs_needed(acc),
        "final": round(float(moving_mean(acc)[-1]), 4),
        "acc_curve": thinned(acc),
        "joint_epochs": len(joint),
        "terms": {
            name: thinned(np.array([row[name] for row in joint]))
            for name in joint[-1]
            if name not in (*NO_TERMS, "acc")
        },
    }


def run(name: str, method: str, seed: int, limit: int | None) -> tuple[dict, dict]:
    """A row of `quality.py`, and one with the curves."""
    _, y, _ = quality.load(name, limit)
    with noted(y) as epochs:
        row = quality.run(name, method, seed, peers=None, limit=limit)
    if "error" in row:
        raise RuntimeError(f"{method} on {name}, seed {seed}: {row['error']}")
    kept = ("data", "method", "seed", "settings", "device", "versions", "acc")
    return row, {key: row[key] for key in kept} | curves_of(epochs)


# Rows, table and figure
# ----------------------


def read_rows() -> list[dict]:
    """The rows there are of the present settings."""
    if not RESULTS.exists():
        return []
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return [
        row for row in rows if row["settings"] == quality.settings_of(row["data"], row["method"])
    ]


def key_of(row: dict) -> tuple[str, str, int]:
    """Which run a row is of."""
    return row["data"], row["method"], row["seed"]


def append(path: Path, row: dict) -> None:
    """One more line."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def run_missing(names: list[str], methods: list[str], n_seeds: int) -> None:
    """Run what has no row yet."""
    for seed in range(n_seeds):
        for name in names:
            for method in methods:
                key = name, method, seed
                if key in map(key_of, read_rows()):
                    continue
                row, curves = run(name, method, seed, None)
                append(RESULTS, curves)
                if key not in map(key_of, quality.read_rows()):
                    append(quality.RESULTS, row)
                print(*key, curves["final"], curves["needed"], flush=True)


def groups(rows: list[dict]) -> Iterator[tuple[str, str, list[dict]]]:
    """The rows by data set and method, where there are any."""
    for name in DATA:
        for method in METHODS:
            mine = [row for row in rows if (row["data"], row["method"]) == (name, method)]
            if mine:
                yield name, method, mine


def format_table(rows: list[dict]) -> str:
    """Epochs until near the end, by data set and method: median, mean and spread over seeds."""
    lines = [
        f"{'data':10s} {'method':18s} {'seeds':>5s} {'final ACC':>15s} {'epochs in all':>13s} "
        f"{'first near the end':>18s} {'mean':>15s} {'near to stay':>12s} {'mean':>15s}"
    ]
    for name, method, mine in groups(rows):
        final = [row["final"] for row in mine]
        needed = [row["needed"] for row in mine]
        settled = [epochs_settled(row) for row in mine]
        total = [row["epochs_before"] + row["epochs"] for row in mine]
        lines.append(
            f"{name:10s} {method:18s} {len(mine):5d} {np.mean(final):6.3f} +- {np.std(final):.3f} "
            f"{np.median(total):13.0f} {np.median(needed):18.0f} "
            f"{np.mean(needed):6.1f} +- {np.std(needed):5.1f} {np.median(settled):12.0f} "
            f"{np.mean(settled):6.1f} +- {np.std(settled):5.1f}"
        )
    return "\n".join(lines)


def draw(rows: list[dict]) -> None:
    """Write the figure: for every data set the accuracy, and the terms of either loss."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        len(DATA), 1 + len(METHODS), figsize=(13, 8), squeeze=False, layout="constrained"
    )
    terms = dict.fromkeys(term for row in rows for term in row["terms"])
    color = {name: f"C{i}" for i, name in enumerate([*METHODS, *terms])}
    empty = {
        (name, method): line[1:][i]
        for name, line in zip(DATA, axes, strict=True)
        for i, method in enumerate(METHODS)
    }
    for name, method, mine in groups(rows):
        accuracy, losses = axes[DATA.index(name), 0], empty.pop((name, method))
        for row in mine:
            where = row["epochs_before"] + np.linspace(1, row["epochs"], len(row["acc_curve"]))
            accuracy.plot(where, row["acc_curve"], color=color[method], alpha=0.7)
            for term, values in row["terms"].items():
                where = np.linspace(1, row["joint_epochs"], len(values))
                losses.plot(where, values, color=color[term], alpha=0.7)
        losses.set(title=f"{name}: {method}", xlabel="joint epoch", ylabel="loss and its terms")
        losses.set_yscale("symlog", linthresh=0.001)
        losses.xaxis.get_major_locator().set_params(integer=True)
    for name, (ax, *_) in zip(DATA, axes, strict=True):
        ax.set(title=f"{name}: accuracy", xlabel="epoch, pretraining counted", ylabel="ACC")
        ax.set(xscale="log", xlim=(25, 1300), ylim=(0.4, 1.0), xticks=[30, 100, 300, 1000])
        ax.xaxis.set_major_formatter("{x:.0f}")
        ax.xaxis.set_minor_locator(plt.NullLocator())
    for ax in empty.values():
        ax.set_axis_off()
    lines = [plt.Line2D([], [], color=color[name], label=name) for name in color]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
    figure.savefig(FIGURE)
    plt.close(figure)


def main() -> None:
    """Run what is missing, print the table, and draw the curves where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds from 0")
    parser.add_argument("--rows", type=int, help="try it on so many rows, two epochs, one seed")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--figure", action="store_true", help="draw the curves")
    arguments = parser.parse_args()
    # The published set-ups and the trials end before the loss is flat.
    warnings.simplefilter("ignore", ConvergenceWarning)
    if arguments.rows is not None:
        for name in arguments.data:
            for method in arguments.method:
                print(json.dumps(run(name, method, 0, arguments.rows)[1]))
        return
    if not arguments.table:
        run_missing(arguments.data, arguments.method, arguments.seeds)
    rows = read_rows()
    table = format_table(rows)
    TABLE.write_text(table + "\n")
    print(table)
    if arguments.figure:
        draw(rows)


if __name__ == "__main__":
    sys.exit(main())
