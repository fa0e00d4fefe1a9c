"""Clusters counted: how many are found where nobody says, and what they are worth.

Ten sets of separated round blobs, of 3 to 20 clusters in 2 to 100 features, and four real data
sets, 2,000 rows at random of each for all methods. Labels are used for drawing blobs and for
scoring; no fit sees them. Every run is one row of
``benchmarks/results/number_of_clusters.jsonl``; runs whose row is there are not run again. A
row belongs to the parameters of its method, and those of ours to `ENGINE`, to be raised
whenever other code finds other clusters. The table made of all rows is printed, and written
beside them.

    python benchmarks/number_of_clusters.py --method ClusteringModuleGMM --seeds 5
    python benchmarks/number_of_clusters.py --data digits usps --peers-folder folder
    python benchmarks/number_of_clusters.py --table

Each of our estimators counts, and fits the same rows with the true number beside.
``BayesianGaussianMixture`` has 40 components at first, on 20 principal directions where X is
wider, and finds as many clusters as get a row; ``DipDECK`` is that of ClustPy 0.0.3 with its
defaults, which begin with 35 clusters, in an environment of its own in ``--peers-folder``.
Real data are read from the folder that the environment variable SKAECM_DATA names, in float32,
prepared as in ``quality.py``; the digits are bundled with scikit-learn.
"""

import argparse
import json
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import torch
from quality import NOT_SETTINGS, PEERS_FOLDER, Peers, engine_commit, labels_of_peer, load
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score
from sklearn.mixture import BayesianGaussianMixture

import skaecm
from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.metrics import clustering_accuracy

RESULTS = Path(__file__).parent / "results" / "number_of_clusters.jsonl"
TABLE = RESULTS.with_suffix(".txt")
ENGINE = {"ClusteringModuleGMM": 1, "DeepAEClustering": 18}
DRAW = 2000

# Clusters, features, rows, and the range of the clusters' standard deviations.
BLOBS = {
    "blobs 3": (3, 2, 300, (1.0, 1.0)),
    "blobs 4": (4, 5, 500, (0.5, 1.0)),
    "blobs 5": (5, 50, 600, (1.0, 1.0)),
    "blobs 6": (6, 2, 1000, (1.0, 1.0)),
    "blobs 8": (8, 10, 800, (0.3, 1.0)),
    "blobs 10": (10, 3, 2000, (1.0, 1.0)),
    "blobs 12": (12, 20, 1500, (0.5, 1.0)),
    "blobs 15": (15, 8, 2000, (1.0, 1.0)),
    "blobs 17": (17, 100, 2000, (1.0, 1.0)),
    "blobs 20": (20, 6, 2000, (0.5, 1.0)),
}
REAL = ("digits", "pendigits", "usps", "reuters_r8")
DATA = (*BLOBS, *REAL)

# Centres are at least so many of the largest deviations apart.
SEPARATION = 7.0

COMPONENTS = 40
WIDEST = 20

OURS = {"ClusteringModuleGMM": ClusteringModuleGMM, "DeepAEClustering": DeepAEClustering}
TRUE = ", true k"
METHODS = (*OURS, *(name + TRUE for name in OURS), "BayesianGaussianMixture", "DipDECK")
SETTINGS = {
    "BayesianGaussianMixture": {"n_components": COMPONENTS, "max_iter": 500, "widest": WIDEST},
    "DipDECK": {},
}


def draw_blobs(k, n_features, n_rows, deviations):
    """Rows and labels, always the same; the clusters are of equal size."""
    rng = np.random.default_rng(k)
    side = SEPARATION
    centers = []
    while len(centers) < k:
        centers, side = [], 1.1 * side
        for center in rng.uniform(-side, side, (1000, n_features)):
            if all(np.linalg.norm(center - other) >= SEPARATION for other in centers):
                centers.append(center)
    labels = rng.permutation(np.arange(n_rows) % k)
    spread = rng.uniform(*deviations, k)[labels, None]
    X = np.array(centers)[labels] + spread * rng.standard_normal((n_rows, n_features))
    return X.astype(np.float32), labels


def read(name):
    """Rows and labels of a data set."""
    if name in BLOBS:
        return draw_blobs(*BLOBS[name])
    if name == "digits":
        X, y = load_digits(return_X_y=True)
        return (X / 16).astype(np.float32), y
    X, y, _ = load(name, DRAW)
    return X, y


def settings_of(method):
    """What a row must say to be of the present method."""
    if method in SETTINGS:
        return SETTINGS[method]
    name = method.removesuffix(TRUE)
    params = {key: v for key, v in OURS[name]().get_params().items() if key not in NOT_SETTINGS}
    return json.loads(json.dumps(params)) | {"engine": ENGINE[name]}


def labels_of(method, X, k, seed, peers):
    """Labels by one method, which is told ``k`` only if it is one that is to know it."""
    if method == "DipDECK":
        return labels_of_peer(method, {}, X, 35, seed, peers)[0]
    if method == "BayesianGaussianMixture":
        reduced = PCA(WIDEST, random_state=seed).fit_transform(X) if X.shape[1] > WIDEST else X
        mixture = BayesianGaussianMixture(n_components=COMPONENTS, max_iter=500, random_state=seed)
        return mixture.fit_predict(reduced.astype(np.float64))
    told = k if method.endswith(TRUE) else "auto"
    return OURS[method.removesuffix(TRUE)](told, random_state=seed).fit(X).labels_


def run(name, method, seed, peers):
    """A row of results."""
    X, y = read(name)
    k = len(np.unique(y))
    row = {"data": name, "method": method, "seed": seed, "settings": settings_of(method)}
    row |= {"n_rows": len(X), "n_features": X.shape[1], "k": k}
    row |= {"versions": {m.__name__: m.__version__ for m in (skaecm, sklearn, torch, np)}}
    if "engine" in row["settings"]:
        row["commit"] = engine_commit()
    started = time.perf_counter()
    try:
        labels = labels_of(method, X, k, seed, peers)
    except (RuntimeError, ValueError) as error:
        return row | {"error": f"{type(error).__name__}: {error}"}
    return row | {
        "found": len(np.unique(labels)),
        "acc": round(clustering_accuracy(y, labels), 4),
        "nmi": round(normalized_mutual_info_score(y, labels), 4),
        "seconds": round(time.perf_counter() - started, 1),
    }


def read_rows():
    """The rows there are of the present settings, the newest of every run."""
    if not RESULTS.exists():
        return []
    rows = {}
    for line in RESULTS.read_text().splitlines():
        row = json.loads(line)
        known = row["method"] in METHODS and row["data"] in DATA
        if known and row["settings"] == settings_of(row["method"]):
            rows[row["data"], row["method"], row["seed"]] = row
    return list(rows.values())


def format_table(rows):
    """What was found of every data set by every method, over seeds, and how often exactly."""
    lines = []
    for name in DATA:
        mine = [row for row in rows if row["data"] == name]
        if not mine:
            continue
        one = mine[0]
        lines.append(f"{name}: {one['n_rows']} rows, {one['n_features']} features, k = {one['k']}")
        lines.append(f"  {'method':28s} {'found':20s} {'ACC':>6s} {'NMI':>6s} {'seconds':>8s}")
        for method in METHODS:
            chosen = sorted((r for r in mine if r["method"] == method), key=lambda r: r["seed"])
            scored = [row for row in chosen if "error" not in row]
            if scored:
                found = " ".join(str(row["found"]) for row in scored)
                acc, nmi, seconds = (
                    np.mean([row[key] for row in scored]) for key in ("acc", "nmi", "seconds")
                )
                lines.append(f"  {method:28s} {found:20s} {acc:6.3f} {nmi:6.3f} {seconds:8.1f}")
            elif chosen:
                lines.append(f"  {method:28s} {chosen[-1]['error'][:60]}")
        lines.append("")
    lines.append("Sets of blobs that ended with their number, of those that were tried, by seed")
    for method in METHODS:
        shares = []
        for seed in sorted({row["seed"] for row in rows}):
            mine = [
                row
                for row in rows
                if (row["method"], row["seed"]) == (method, seed) and row["data"] in BLOBS
            ]
            if mine:
                shares.append(f"{sum(r.get('found') == r['k'] for r in mine)}/{len(mine)}")
        if shares:
            lines.append(f"  {method:28s} {' '.join(shares)}")
    return "\n".join(lines)


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--method", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--seeds", type=int, default=1, help="seeds from 0")
    parser.add_argument("--peers-folder", type=Path, default=PEERS_FOLDER)
    parser.add_argument("--peer-hours", type=float, default=1.0, help="of one run, at most")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    peers = Peers(arguments.peers_folder, 3600 * arguments.peer_hours)
    done = {(row["data"], row["method"], row["seed"]) for row in read_rows()}
    for seed in range(0 if arguments.table else arguments.seeds):
        for name in arguments.data:
            for method in arguments.method:
                if (name, method, seed) in done:
                    continue
                line = json.dumps(run(name, method, seed, peers))
                print(line, flush=True)
                RESULTS.parent.mkdir(exist_ok=True)
                with RESULTS.open("a") as file:
                    file.write(line + "\n")
    TABLE.write_text(format_table(read_rows()) + "\n")
    print(TABLE.read_text(), end="")


if __name__ == "__main__":
    main()
