"""A grid search over the loss weights, in one process and in two.

Twelve settings of alpha, beta and lam on the digits, two folds each, by GridSearchCV:

    - one process and one thread of torch (``OMP_NUM_THREADS=1``), the unit;
    - one process with as many threads as there are by default;
    - two processes, nothing else set: joblib gives each its share of the cores.

Every search runs in an interpreter of its own, in turns, and is one row of
``benchmarks/results/grid_search.jsonl``; runs whose row is there are not run again. The table
made of all rows, the medians of the wall times and their ratios, is printed and written
beside them. What GridSearchCV says of its progress goes to the terminal. The machine should do
nothing else meanwhile.

    python benchmarks/grid_search.py
    python benchmarks/grid_search.py --epochs 2 --runs 1 --try
"""

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import sklearn
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import skaecm
from skaecm import DeepAEClustering

RESULTS = Path(__file__).parent / "results" / "grid_search.jsonl"
TABLE = RESULTS.with_suffix(".txt")

GRID = {"alpha": [0.0, 0.05, 0.2], "beta": [0.1, 1.0], "lam": [0.1, 1.0]}
EPOCHS = 20

# The number of processes, and of threads where that is set.
WAYS = {
    "one process, one thread": (1, 1),
    "one process, default threads": (1, None),
    "two processes": (2, None),
}
UNIT = "one process, one thread"


def measure(n_jobs, epochs):
    """Search in this process; what it took, with the start of workers."""
    warnings.simplefilter("ignore")
    X = load_digits().data.astype(np.float32)
    model = DeepAEClustering(10, pretrain_iter=epochs, max_iter=epochs, random_state=0)
    search = GridSearchCV(model, GRID, cv=2, refit=False, n_jobs=n_jobs, verbose=2)
    started = time.perf_counter()
    search.fit(X)
    seconds = time.perf_counter() - started
    # The same workers answer: how many threads each of them has.
    threads = joblib.Parallel(n_jobs)(joblib.delayed(torch.get_num_threads)() for _ in range(4))
    return {
        "seconds": round(seconds, 2),
        "threads": max(threads),
        "scores": [round(float(score), 6) for score in search.cv_results_["mean_test_score"]],
    }


def run(way, number, epochs):
    """A row of results, from an interpreter of its own; its progress goes to the terminal."""
    n_jobs, threads = WAYS[way]
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, __file__, "--measure", str(n_jobs), "--epochs", str(epochs)]
    lines = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            lines.append(line)
            if line.startswith("[CV]"):
                print(f"{way}: {line.strip()}", flush=True)
    if process.returncode:
        sys.exit(f"{way} failed.")
    return {
        "way": way,
        "run": number,
        "epochs": epochs,
        **json.loads(lines[-1]),
        "cores": joblib.cpu_count(),
        "versions": {m.__name__: m.__version__ for m in (skaecm, sklearn, torch, np, joblib)},
    }


def read_rows(epochs):
    """The rows there are."""
    if not RESULTS.exists():
        return []
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return [row for row in rows if row["epochs"] == epochs]


def format_table(rows):
    """Medians of the wall times, their ratios, and whether the scores are the same."""
    unit = np.median([row["seconds"] for row in rows if row["way"] == UNIT] or [np.nan])
    lines = [f"{'':30s} {'runs':>4s} {'seconds':>8s} {'of unit':>8s} {'threads a process':>18s}"]
    for way in WAYS:
        mine = [row for row in rows if row["way"] == way]
        if mine:
            seconds = np.median([row["seconds"] for row in mine])
            threads = max(row["threads"] for row in mine)
            lines.append(
                f"{way:30s} {len(mine):4d} {seconds:8.1f} {seconds / unit:8.2f} {threads:18d}"
            )
    if rows:
        scores = np.array([row["scores"] for row in rows])
        lines.append(
            f"{rows[0]['cores']} cores; scores differ by at most {np.ptp(scores, axis=0).max():.2g}"
        )
    return "\n".join(lines)


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of pretraining and training")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--try", dest="is_trial", action="store_true", help="keep nothing")
    parser.add_argument("--measure", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, arguments.epochs)))
        return
    rows = [] if arguments.is_trial else read_rows(arguments.epochs)
    done = {(row["way"], row["run"]) for row in rows}
    for number in range(arguments.runs):
        for way in WAYS:
            if (way, number) in done:
                continue
            rows.append(run(way, number, arguments.epochs))
            if not arguments.is_trial:
                RESULTS.parent.mkdir(exist_ok=True)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    table = format_table(rows)
    if not arguments.is_trial:
        TABLE.write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    main()
