"""Accuracy of DeepAEClustering with one default setting, beside KMeans.

The same with ``n_neighbors=None`` shows what partners do, and with ``mixed_precision=True``
what that costs.

Every data set and seed is one row of ``benchmarks/results/accuracy.jsonl``; rows that are
there are not run again, so that the table can be finished over several sessions. Labels are
used for scoring only. The table made of all rows is printed, and written beside them.

    python benchmarks/accuracy.py --data digits pendigits usps --seeds 5

The digits are bundled with scikit-learn; other sets are read from the folder that the
environment variable SKAECM_DATA names.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import skaecm
from skaecm import DeepAEClustering, datasets
from skaecm.metrics import clustering_accuracy

RESULTS = Path(__file__).parent / "results" / "accuracy.jsonl"
TABLE = RESULTS.with_suffix(".txt")
METHODS = {
    "KMeans": lambda k, seed: KMeans(k, n_init=10, random_state=seed),
    "DeepAEClustering": lambda k, seed: DeepAEClustering(k, random_state=seed),
    "  n_neighbors=None": lambda k, seed: DeepAEClustering(k, n_neighbors=None, random_state=seed),
    "  mixed precision": lambda k, seed: DeepAEClustering(
        k, mixed_precision=True, random_state=seed
    ),
}


def run(method, name, seed):
    """Fit one method on one data set; a row of results."""
    data = datasets.load(name)
    X = data.data.astype(np.float32)
    k = len(np.unique(data.target))
    started = time.perf_counter()
    model = METHODS[method](k, seed).fit(X)
    seconds = time.perf_counter() - started
    return {
        "data": name,
        "method": method,
        "seed": seed,
        "acc": round(clustering_accuracy(data.target, model.labels_), 4),
        "nmi": round(normalized_mutual_info_score(data.target, model.labels_), 4),
        "ari": round(adjusted_rand_score(data.target, model.labels_), 4),
        "epochs": int(model.n_iter_),
        "converged": bool(getattr(model, "converged_", True)),
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "versions": {m.__name__: m.__version__ for m in (skaecm, sklearn, torch, np)},
    }


def read_rows():
    """The rows there are."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def format_table(rows):
    """Mean and standard deviation over seeds of every data set and method."""
    lines = [f"{'data':12s} {'method':18s} {'seeds':>5s} {'ACC':>13s} {'NMI':>13s} {'ARI':>13s}"]
    for name in dict.fromkeys(row["data"] for row in rows):
        for method in METHODS:
            chosen = [r for r in rows if (r["data"], r["method"]) == (name, method)]
            if not chosen:
                continue
            figures = []
            for key in ("acc", "nmi", "ari"):
                values = [row[key] for row in chosen]
                figures.append(f"{np.mean(values):.3f} +- {np.std(values):.3f}")
            lines.append(f"{name:12s} {method:18s} {len(chosen):5d} " + " ".join(figures))
    return "\n".join(lines)


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=["digits", "pendigits", "usps"])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    rows = read_rows()
    done = {(row["data"], row["method"], row["seed"]) for row in rows}
    for seed in range(arguments.seeds):
        for name in arguments.data:
            for method in METHODS:
                if (name, method, seed) in done:
                    continue
                rows.append(run(method, name, seed))
                RESULTS.parent.mkdir(exist_ok=True)
                with RESULTS.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(json.dumps(rows[-1]), flush=True)
    TABLE.write_text(format_table(rows) + "\n")
    print(TABLE.read_text(), end="")


if __name__ == "__main__":
    main()
