"""Accuracy with missing entries: masked, or filled with the column means, beside complete rows.

A share of the entries of every data set is removed at random, other ones for every
seed. Three arms of the same estimator and settings see the complete rows, the rows with
NaN under ``missing="mask"``, and the rows filled by scikit-learn's SimpleImputer. Labels
are used for scoring alone.

Every run is one row of ``benchmarks/results/missing.jsonl``; runs whose row is there are
not run again, and a row of other settings is neither counted nor shown. The table of all
rows is printed, and written beside them.

    python benchmarks/missing.py
    python benchmarks/missing.py --method ClusteringModuleGMM --share 0.2 --seeds 5
    python benchmarks/missing.py --table

Data are read from the folder that the environment variable SKAECM_DATA names, in
float32. The deep estimator has the lighter settings of ``partners.py``, since a fit at its
defaults takes several minutes.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import skaecm
from skaecm import ClusteringModuleGMM, DeepAEClustering, datasets
from skaecm.metrics import clustering_accuracy

RESULTS = Path(__file__).parent / "results" / "missing.jsonl"
TABLE = RESULTS.with_suffix(".txt")

LIGHT = {"hidden_layer_sizes": (500, 500, 500), "pretrain_iter": 30, "max_iter": 20}
METHODS = {
    "ClusteringModuleGMM": (ClusteringModuleGMM, {}),
    "DeepAEClustering": (DeepAEClustering, LIGHT),
    "DeepAEClustering, neighbours": (DeepAEClustering, LIGHT | {"n_neighbors": 10}),
}
ARMS = ("complete", "mask", "mean")
DATA = ("usps",)
SHARES = (0.2, 0.5)
SEEDS = 3


def remove(X, share, seed):
    """X with NaN in place of a random share of its entries."""
    X = X.copy()
    X[np.random.default_rng(seed).random(X.shape) < share] = np.nan
    return X


def settings_of(method):
    """The settings of a method, as they are after JSON."""
    return json.loads(json.dumps(METHODS[method][1]))


def run(name, method, arm, share, seed):
    """One fit, as a row of results."""
    data = datasets.load(name)
    X, y = data.data.astype(np.float32), data.target
    cls, settings = METHODS[method]
    if cls is DeepAEClustering:
        settings = {"n_neighbors": None} | settings
    if arm != "complete":
        X = remove(X, share, seed)
    if arm == "mask":
        settings = settings | {"missing": "mask"}
    started = time.perf_counter()
    if arm == "mean":
        X = SimpleImputer().fit_transform(X)
    labels = cls(len(np.unique(y)), random_state=seed, **settings).fit(X).labels_
    return {
        "data": name,
        "method": method,
        "arm": arm,
        "share": 0.0 if arm == "complete" else share,
        "seed": seed,
        "settings": settings_of(method),
        "acc": round(clustering_accuracy(y, labels), 4),
        "nmi": round(normalized_mutual_info_score(y, labels), 4),
        "ari": round(adjusted_rand_score(y, labels), 4),
        "seconds": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "versions": {m.__name__: m.__version__ for m in (skaecm, sklearn, torch, np)},
    }


def read_rows():
    """The rows there are of the present settings."""
    if not RESULTS.exists():
        return []
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return [
        row
        for row in rows
        if row["method"] in METHODS and row["settings"] == settings_of(row["method"])
    ]


def format_table(rows):
    """Mean and standard deviation over seeds of every data set, method, share and arm."""
    lines = [
        f"{'data':6s} {'method':28s} {'missing':>7s} {'arm':8s} {'seeds':>5s} {'ACC':>14s} "
        f"{'NMI':>14s} {'ARI':>14s} {'seconds':>7s}"
    ]
    kinds = sorted({(r["data"], r["method"], r["share"], r["arm"]) for r in rows})
    for kind in kinds:
        chosen = [r for r in rows if (r["data"], r["method"], r["share"], r["arm"]) == kind]
        figures = []
        for key in ("acc", "nmi", "ari"):
            values = [row[key] for row in chosen]
            figures.append(f"{np.mean(values):.3f} +- {np.std(values):.3f}")
        name, method, share, arm = kind
        lines.append(
            f"{name:6s} {method:28s} {share:7.0%} {arm:8s} {len(chosen):5d} "
            + " ".join(figures)
            + f" {np.median([row['seconds'] for row in chosen]):7.0f}"
        )
    return "\n".join(lines)


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=DATA)
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--share", nargs="+", type=float, default=SHARES)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds from 0")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    # One number of epochs for all arms need not suit each.
    warnings.simplefilter("ignore", ConvergenceWarning)
    keys = ("data", "method", "arm", "share", "seed")
    done = {tuple(row[key] for key in keys) for row in read_rows()}
    jobs = [
        (name, method, arm, 0.0 if arm == "complete" else share, seed)
        for name in arguments.data
        for method in arguments.method
        for seed in range(arguments.seeds)
        for share in arguments.share
        for arm in ARMS
    ]
    for job in () if arguments.table else dict.fromkeys(jobs):
        if job in done:
            continue
        row = run(*job)
        print(json.dumps(row), flush=True)
        RESULTS.parent.mkdir(exist_ok=True)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
    # Another process may have written rows meanwhile.
    table = format_table(read_rows())
    TABLE.write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    sys.exit(main())
