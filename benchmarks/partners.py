"""Accuracy and cost of partners: augmentation, neighbours and given graphs.

Four parts, each with one setting for all of its data:

- images: ``augment="image"`` with neighbours.
- neighbours: ``n_neighbors`` without augmentation, beside N2D of ClustPy 0.0.3.
- graphs: rows with a graph, both informative and neither enough. Features and graph
  together, beside features alone (without and with ``n_neighbors``), the graph alone,
  and k-means on rows that are mixed with their neighbours just as `fit` mixes them.
- cost: seconds of an epoch with partners over those of one without.

Every run is one row of ``benchmarks/results/partners.jsonl``; runs whose row is there
are not run again, so that the table can be finished over several sessions. A row
belongs to its settings: after a change of the settings below it is neither counted nor
shown. Labels are used for scoring, and in the part graphs for making the graph; no fit
sees them. The table made of all rows is printed, and written beside them.

    python benchmarks/partners.py --part graphs cost
    python benchmarks/partners.py --part neighbours --data pendigits --method N2D
    python benchmarks/partners.py --table

Data are read from the folder that the environment variable SKAECM_DATA names, in
float32, images and pendigits divided by their largest possible value.

N2D runs in an environment of its own, made in the folder ``--peers-folder``, with all
defaults but one: its default manifold, t-SNE with k components, does not run for k > 3,
so that it is given the UMAP of its paper; once with UMAP's defaults (and k components),
once with the parameters of the paper, on the same autoencoder, whose training its
seconds leave out. Where the package index pairs torch for the CPU with torchvision for
CUDA, the operators of torchvision are declared empty: ClustPy imports them, N2D uses
none. Nothing of ClustPy is changed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import sklearn
import torch
from _device import device_name
from _environment import environment_python
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import kneighbors_graph

import skaecm
from skaecm import DeepAEClustering, datasets
from skaecm._graph import smooth
from skaecm._tensors import make_generator
from skaecm._training import Training
from skaecm.metrics import clustering_accuracy

RESULTS = Path(__file__).parent / "results" / "partners.jsonl"
TABLE = RESULTS.with_suffix(".txt")
PEERS_FOLDER = Path(__file__).parent / ".venv-peers"

# The settings
# ------------

IMAGES = {
    "augment": "image",
    "n_neighbors": 10,
    "hidden_layer_sizes": (500, 500, 500),
    "pretrain_iter": 20,
    "max_iter": 20,
}
NEIGHBOURS = {
    "n_neighbors": 10,
    "hidden_layer_sizes": (500, 500, 500),
    "pretrain_iter": 30,
    "max_iter": 20,
}
GRAPHS = {"hidden_layer_sizes": (500, 500, 500), "pretrain_iter": 20, "max_iter": 20}
GRAPH_NEIGHBOURS = {"n_neighbors": 10}

# The two generators were set so that k-means on the features and spectral clustering of
# the graph each get an accuracy of 0.6 to 0.7, on seeds that are not scored below, and
# before the two were ever used together.

# Documents of six newsgroups (comp.graphics, misc.forsale, rec.autos, sci.med, sci.space,
# talk.politics.mideast). Every document cites so many others. With the probabilities
# ``shares`` each is one of the nearest by the cosine of tf-idf, one of the same group, or
# any document.
DOCUMENTS = {
    "groups": (1, 6, 7, 13, 14, 17),
    "rows_per_group": 500,
    "citations": 4,
    "nearest": 10,
    "shares": (0.2, 0.3, 0.5),
}

# A stochastic block model whose blocks are Gaussian in the features too, around normal
# centres and with the standard deviation one. Degrees are expected numbers of edges.
BLOCKS = {
    "blocks": 6,
    "rows_per_block": 500,
    "width": 32,
    "deviation_of_centres": 0.3,
    "degree_inside": 8.0,
    "degree_outside": 12.0,
}

# Which epochs are timed, and how often.
COST = {
    "n_neighbors": {"n_neighbors": 10},
    "augment='image'": {"augment": "image"},
}
COST_REPEATS = 7

PEER_PACKAGES = ("clustpy==0.0.3", "umap-learn==0.5.12", "torch==2.13.0")
PEERS = {"N2D": None, "N2D, UMAP of paper": {"n_neighbors": 20, "min_dist": 0.0}}

IMAGE_DATA = ("usps", "mnist", "fashion_mnist", "optdigits")

LARGEST = {"mnist": 255, "fashion_mnist": 255, "optdigits": 16, "pendigits": 100}
SEEDS = {"mnist": 3, "fashion_mnist": 3}
DEFAULT_SEEDS = 5

# Data
# ----


def load(name, limit=None):
    """Rows in float32, labels and shape of the images; ``limit`` rows at random."""
    data = datasets.load(name)
    X, y = data.data.astype(np.float32) / LARGEST.get(name, 1), data.target
    if limit is not None:
        chosen = np.random.default_rng(0).permutation(len(X))[:limit]
        X, y = X[chosen], y[chosen]
    return X, y, data.image_shape


def documents(seed):
    """Rows, graph and labels of `DOCUMENTS`."""
    rng = np.random.default_rng(seed)
    X, y, _ = load("20news")
    chosen = np.concatenate(
        [
            rng.permutation(np.flatnonzero(y == group))[: DOCUMENTS["rows_per_group"]]
            for group in DOCUMENTS["groups"]
        ]
    )
    X, y = X[chosen], y[chosen]
    n = len(X)
    near = kneighbors_graph(X, DOCUMENTS["nearest"], metric="cosine").indices.reshape(n, -1)
    source = np.repeat(np.arange(n), DOCUMENTS["citations"])
    kind = rng.choice(3, size=len(source), p=DOCUMENTS["shares"])
    target = rng.integers(n, size=len(source))
    target[kind == 0] = near[source, rng.integers(near.shape[1], size=len(source))][kind == 0]
    for group in np.unique(y):
        inside = (kind == 1) & (y[source] == group)
        target[inside] = rng.choice(np.flatnonzero(y == group), size=inside.sum())
    return X, make_graph(source, target, n), y


def blocks(seed):
    """Rows, graph and labels of `BLOCKS`."""
    rng = np.random.default_rng(seed)
    k, size = BLOCKS["blocks"], BLOCKS["rows_per_block"]
    n = k * size
    y = np.repeat(np.arange(k), size)
    centres = BLOCKS["deviation_of_centres"] * rng.normal(size=(k, BLOCKS["width"]))
    X = (centres[y] + rng.normal(size=(n, BLOCKS["width"]))).astype(np.float32)
    same = y[:, None] == y
    probability = np.where(
        same, BLOCKS["degree_inside"] / size, BLOCKS["degree_outside"] / (n - size)
    )
    source, target = np.nonzero(np.triu(rng.random((n, n)) < probability, k=1))
    return X, make_graph(source, target, n), y


def make_graph(source, target, n):
    """The symmetric graph of ``n`` rows with these edges, of weight one, without loops."""
    graph = sp.csr_array((np.ones(len(source)), (source, target)), shape=(n, n))
    graph = graph + graph.T
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.data[:] = 1.0
    return graph


GENERATORS = {"documents": (documents, DOCUMENTS), "blocks": (blocks, BLOCKS)}

# Runs: each gives rows of results
# --------------------------------


def score(y, labels, seconds):
    """What is said of one partition."""
    return {
        "acc": round(clustering_accuracy(y, labels), 4),
        "nmi": round(normalized_mutual_info_score(y, labels), 4),
        "ari": round(adjusted_rand_score(y, labels), 4),
        "seconds": round(seconds, 1),
        "n_rows": len(y),
    }


def timed(function):
    """What ``function`` gives, and its seconds."""
    started = time.perf_counter()
    value = function()
    return value, time.perf_counter() - started


def run_deep(settings, name, seed, limit):
    """DeepAEClustering on rows without a graph."""
    X, y, image_shape = load(name, limit)
    if "augment" in settings:
        settings = settings | {"image_shape": image_shape}
    model = DeepAEClustering(len(np.unique(y)), random_state=seed, **settings)
    model, seconds = timed(lambda: model.fit(X))
    return [score(y, model.labels_, seconds) | {"epochs": model.n_iter_}]


def run_peer(python, name, seed, limit):
    """All variants of N2D, by the interpreter ``python``."""
    X, y, _ = load(name, limit)
    with tempfile.TemporaryDirectory() as folder:
        rows, found = Path(folder) / "rows.npz", Path(folder) / "found.npz"
        np.savez(rows, x=X)
        command = [python, Path(__file__).with_name("_peers.py"), rows, found]
        command += ["--k", str(len(np.unique(y))), "--seed", str(seed)]
        command += ["--manifold-params", json.dumps(list(PEERS.values()))]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        subprocess.run(command, check=True, env=environment)
        result = np.load(found)
        versions = json.loads(str(result["versions"]))
        return [
            score(y, labels, seconds) | {"versions": versions}
            for labels, seconds in zip(result["labels"], result["seconds"], strict=True)
        ]


def run_graph(method, name, seed, limit):
    """One method on rows with a graph, both drawn anew for every seed."""
    X, graph, y = GENERATORS[name][0](seed)
    k = len(np.unique(y))
    if method.startswith("KMeans"):
        model = KMeans(k, n_init=10, random_state=seed)
        rows = smooth(X, graph) if method == "KMeans, smoothed" else X
        labels, seconds = timed(lambda: model.fit(rows).labels_)
    elif method == "SpectralClustering, graph":
        model = SpectralClustering(k, affinity="precomputed", random_state=seed)
        affinity = sp.csr_matrix(graph)
        labels, seconds = timed(lambda: model.fit(affinity).labels_)
    else:
        settings = {"n_neighbors": None} | deep_settings(method)
        model = DeepAEClustering(k, random_state=seed, **settings)
        adjacency = graph if method.endswith("both") else None
        labels, seconds = timed(lambda: model.fit(X, adjacency=adjacency).labels_)
    return [score(y, labels, seconds)]


def deep_settings(method):
    """The settings of DeepAEClustering on rows with a graph."""
    return GRAPHS if method == "DeepAEClustering, features" else GRAPHS | GRAPH_NEIGHBOURS


def run_cost(name, seed, limit):
    """Seconds of epochs with and without partners, interleaved; the ratios of medians."""
    X, y, image_shape = load(name, limit)
    epochs = {}
    for variant, settings in {"without": {}, **COST}.items():
        if "augment" in settings:
            settings = settings | {"image_shape": image_shape}
        settings = {"n_neighbors": None, "pretrain_iter": 0} | settings
        model = DeepAEClustering(len(np.unique(y)), random_state=seed, **settings)
        data = model._with_partners(model._check_data(X, None, None, reset=True))
        assert bool(data.partners) == (variant != "without")
        autoencoder, *_ = model._prepare(data, seed)
        network, _ = model._start(autoencoder, data, seed)
        pretraining = Training(
            autoencoder,
            phase="pretraining",
            generator=make_generator(seed),
            **model._training_settings(data),
        )
        training = model._make_training(network, data, seed)
        epochs[variant, "pretraining"] = partial(pretraining.run_epoch, data.partners.pretraining)
        epochs[variant, "joint"] = partial(training.run_epoch, data.partners.training)
    seconds = {key: [] for key in epochs}
    for _ in range(1 + COST_REPEATS):
        for key, epoch in epochs.items():
            seconds[key].append(timed(epoch)[1])
    # The first epoch of each warms up.
    median = {key: np.median(values[1:]) for key, values in seconds.items()}
    return [
        {
            f"{phase}_{what}": round(figure, 3)
            for phase in ("pretraining", "joint")
            for what, figure in (
                ("seconds", median[variant, phase]),
                ("ratio", median[variant, phase] / median["without", phase]),
            )
        }
        | {"n_rows": len(X)}
        for variant in COST
    ]


# What there is to run
# --------------------

GRAPH_METHODS = (
    "KMeans, features",
    "DeepAEClustering, features",
    "DeepAEClustering, neighbours",
    "SpectralClustering, graph",
    "KMeans, smoothed",
    "DeepAEClustering, both",
)
DATA = {
    "images": IMAGE_DATA,
    "neighbours": ("pendigits", "usps", "mnist"),
    "graphs": tuple(GENERATORS),
    "cost": ("usps",),
}
METHODS = {
    "images": ("DeepAEClustering",),
    "neighbours": ("DeepAEClustering", *PEERS),
    "graphs": GRAPH_METHODS,
    "cost": tuple(COST),
}


def settings_of(part, name, method):
    """Everything that decides a run beside its data and seed, as it is after JSON."""
    if part == "images":
        settings = IMAGES
    elif method in PEERS:
        settings = {"manifold_class": "UMAP", "manifold_params": PEERS[method]}
    elif part == "neighbours":
        settings = NEIGHBOURS
    elif part == "graphs":
        settings = {"generator": GENERATORS[name][1]}
        if method.startswith("DeepAEClustering"):
            settings = settings | deep_settings(method)
    else:
        settings = COST[method]
    return json.loads(json.dumps(settings))


def run(part, name, method, seed, python, limit):
    """Rows of results by method: a run may serve several methods."""
    if part == "cost":
        methods, found = METHODS["cost"], run_cost(name, seed, limit)
    elif part == "graphs":
        methods, found = [method], run_graph(method, name, seed, limit)
    elif method in PEERS:
        methods, found = list(PEERS), run_peer(python(), name, seed, limit)
    else:
        settings = IMAGES if part == "images" else NEIGHBOURS
        methods, found = [method], run_deep(settings, name, seed, limit)
    here = {m.__name__: m.__version__ for m in (skaecm, sklearn, torch, np)}
    return [
        {
            "part": part,
            "data": name,
            "method": method,
            "seed": seed,
            "settings": settings_of(part, name, method),
            **figures,
            "threads": torch.get_num_threads(),
            "device": device_name(),
            "versions": figures.get("versions", here),
        }
        for method, figures in zip(methods, found, strict=True)
    ]


# Rows and table
# --------------


def read_rows():
    """The rows there are of the present settings."""
    if not RESULTS.exists():
        return []
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return [
        row
        for row in rows
        if row["method"] in METHODS[row["part"]]
        and row["settings"] == settings_of(row["part"], row["data"], row["method"])
    ]


def format_table(rows):
    """Mean and standard deviation over seeds of every part, data set and method."""
    lines = [
        f"{'part':10s} {'data':13s} {'method':28s} {'seeds':>5s} {'ACC':>14s} {'NMI':>14s} "
        f"{'ARI':>14s} {'seconds':>7s} on"
    ]
    for part in ("images", "neighbours", "graphs"):
        for name in DATA[part]:
            for method in METHODS[part]:
                chosen = [
                    row
                    for row in rows
                    if (row["part"], row["data"], row["method"]) == (part, name, method)
                ]
                if not chosen:
                    continue
                figures = []
                for key in ("acc", "nmi", "ari"):
                    values = [row[key] for row in chosen]
                    figures.append(f"{np.mean(values):.3f} +- {np.std(values):.3f}")
                seconds = np.median([row["seconds"] for row in chosen])
                devices = dict.fromkeys(row.get("device", "cpu") for row in chosen)
                lines.append(
                    f"{part:10s} {name:13s} {method:28s} {len(chosen):5d} "
                    + " ".join(figures)
                    + f" {seconds:7.0f} {', '.join(devices)}"
                )
    chosen = [row for row in rows if row["part"] == "cost"]
    if chosen:
        lines += ["", "Seconds of an epoch with partners, and over one without"]
        lines.append(f"{'data':13s} {'partners':28s} {'pretraining':>16s} {'joint':>16s}")
    for row in chosen:
        lines.append(
            f"{row['data']:13s} {row['method']:28s} "
            + " ".join(
                f"{row[f'{phase}_seconds']:7.2f} ({row[f'{phase}_ratio']:.2f} x)"
                for phase in ("pretraining", "joint")
            )
        )
    return "\n".join(lines)


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--data", nargs="+", help="only these data sets")
    parser.add_argument("--method", nargs="+", help="only these methods")
    parser.add_argument("--seeds", type=int, help="seeds from 0, for all data sets")
    parser.add_argument("--rows", type=int, help="try it on so many rows; nothing is kept")
    parser.add_argument("--peers-folder", type=Path, default=PEERS_FOLDER)
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    # One setting for all data need not suit each: its max_iter is a part of it.
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows = read_rows() if arguments.rows is None else []
    done = {(row["part"], row["data"], row["method"], row["seed"]) for row in rows}
    for part in () if arguments.table else arguments.part:
        for name in DATA[part]:
            if arguments.data is not None and name not in arguments.data:
                continue
            seeds = arguments.seeds or SEEDS.get(name, DEFAULT_SEEDS)
            for seed in range(1 if part == "cost" else seeds):
                for method in METHODS[part]:
                    if arguments.method is not None and method not in arguments.method:
                        continue
                    if (part, name, method, seed) in done:
                        continue
                    python = partial(environment_python, arguments.peers_folder, PEER_PACKAGES)
                    for row in run(part, name, method, seed, python, arguments.rows):
                        print(json.dumps(row), flush=True)
                        done.add((part, name, row["method"], seed))
                        if arguments.rows is not None:
                            continue
                        RESULTS.parent.mkdir(exist_ok=True)
                        with RESULTS.open("a") as file:
                            file.write(json.dumps(row) + "\n")
    if arguments.rows is not None:
        return
    # Another process may have written rows meanwhile.
    table = format_table(read_rows())
    TABLE.write_text(table + "\n")
    print(table)


if __name__ == "__main__":
    sys.exit(main())
