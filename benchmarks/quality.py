"""Quality of the clusters on seven real data sets, beside other methods.

Every run is one row of ``benchmarks/results/quality.jsonl``; runs whose row is there are
not run again, so that the table can be finished over several days, by several processes.
A row belongs to its settings: after a change of the settings below it is neither counted
nor shown. Those of our own estimator are all of its parameters, and `ENGINE`, to be
raised whenever other code gives other clusters; rows say of which commit they are. Labels
are used for drawing rows and for scoring; no fit sees them. The table made of all rows is
printed, and written beside them.

    python benchmarks/quality.py --data pendigits usps --method KMeans DEC --seeds 5
    python benchmarks/quality.py --budget-minutes 240
    python benchmarks/quality.py --data mnist_70000 --method DeepAEClustering N2D
    python benchmarks/quality.py --method "DeepAEClustering, lam=0" "DeepAEClustering, 4 starts"
    python benchmarks/quality.py --rows 300
    python benchmarks/quality.py --table

Data are read from the folder that the environment variable SKAECM_DATA names, in
float32, prepared as in the paper (images and pendigits divided by their largest possible
value, texts as they are). MNIST and Fashion-MNIST are one fixed stratified draw of 10,000
rows for all methods; their whole sets are data sets of their own, outside the ranks, and
run only where they are named.

The methods:

    - ``DeepAEClustering``: our default, the same for all data.
    - ``..., alone``: the same without partners. ``..., neighbours`` and ``..., images``: our
      settings for tables and for images with partners, those of ``partners.py``. ``..., lam=0``
      and the like: the default with one change, of a parameter or of what the engine does by
      itself (``_quality_engine.py``), run only where they are named. Shown, not ranked.
    - ``AE-CM+rand``, ``AE-CM+pre``: the published starts and tuned weights, in our engine:
      beta times the total variance, (alpha - 1) / B, lambda / B, Adam's epsilon 1e-3 / B,
      so many epochs without stopping early, the end handed back whether or not an epoch
      before was better, one learning rate for all weights (with our engine's threefold one
      for the clustering module, 1000 epochs on Pendigits collapse). Not as published are
      what the engine does by itself: standardised rows, the running average of the
      responsibilities; and the decay of the learning rate of some sets is left out. Sets
      without published weights take the nearest one's.
    - ``Autoencoder + KMeans``: our autoencoder trained to reconstruct only, for as many
      epochs as the peers get altogether, then k-means on the code.
    - ``GaussianMixture``: on 50 principal components where there are more than 100 columns.
    - ClustPy 0.0.3, in an environment of its own, made in ``--peers-folder`` as
      ``partners.py`` makes it. Hidden layers are its defaults, 500-500-2000; ours has such
      by default for texts only, and has rows with them on all sets, as
      ``..., 500-500-2000``. The width of the code is ours, 100 for texts, else the larger of
      k and 10, but for ACe/DeC, which splits it and keeps its wider 20. Epochs are its
      defaults, 100 and 150: as released, and about as many together as our two largest
      numbers (50 and 200), where our fit stops early and no peer does. The table gives the
      epochs that were run (medians), and the CPU seconds of all, both of runs on a CPU
      alone, in units of those of ours with 500-500-2000. N2D, which trains the autoencoder
      only, gets all 250 epochs there, and UMAP with the parameters of its paper, since its
      default manifold does not run for k > 3. VaDE as released takes rows between 0 and 1
      only: it gets Reuters divided by its maximum. ACe/DeC draws a part of its start from no
      seed, so that its runs cannot be repeated exactly; one trial of it, on 300 rows, never
      ended. All else are ClustPy's defaults.

A run that fails, or a peer's that takes longer than ``--peer-hours``, leaves a row with
its error, and is run again with ``--retry``.
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
from typing import NamedTuple

import numpy as np
import sklearn
import torch
from _device import device_name
from _environment import environment_python
from _quality_engine import CHANGES, patched
from _quality_table import format_table
from partners import IMAGE_DATA, IMAGES, LARGEST, NEIGHBOURS, PEER_PACKAGES, PEERS_FOLDER
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import train_test_split

import skaecm
from skaecm import DeepAEClustering, _modules, datasets
from skaecm.metrics import clustering_accuracy

RESULTS = Path(__file__).parent / "results" / "quality.jsonl"
TABLE = RESULTS.with_suffix(".txt")

# To be raised when the same parameters of DeepAEClustering give other clusters: the first for
# our settings, the next for those of them without partners, the last for the published set-ups
# and the plain autoencoder, which a better start or stop of our own leaves as they are.
ENGINE = 12
ALONE_ENGINE = 10
PUBLISHED_ENGINE = 1

# Data
# ----

DATA = ("mnist", "fashion_mnist", "usps", "pendigits", "20news", "reuters_r8", "optdigits")
DRAWN = ("mnist", "fashion_mnist")
WHOLE = {f"{name}_70000": name for name in DRAWN}
DRAW = 10_000
TEXTS = ("20news", "reuters_r8")


def load(name, limit=None):
    """Rows in float32, labels and shape of the images; ``limit`` rows at random."""
    source = WHOLE.get(name, name)
    data = datasets.load(source)
    X, y = data.data.astype(np.float32) / LARGEST.get(source, 1), data.target
    chosen = np.arange(len(X))
    if name in DRAWN:
        chosen, _ = train_test_split(chosen, train_size=DRAW, stratify=y, random_state=0)
    if limit is not None:
        chosen = np.random.default_rng(0).permutation(chosen)[:limit]
    chosen = np.sort(chosen)
    return X[chosen], y[chosen], data.image_shape


# Methods and their settings
# --------------------------

OURS = "DeepAEClustering"
# The layers of the published set-ups and of the peers.
HIDDEN = (500, 500, 2000)
OUR_SETTINGS = {
    OURS: {},
    f"{OURS}, alone": {"n_neighbors": None},
    f"{OURS}, neighbours": NEIGHBOURS,
    f"{OURS}, images": IMAGES,
}
# One change each; run only where they are named.
ABLATIONS = {
    f"{OURS}, {change}": settings
    for change, settings in {
        "random start": {"init": "random"},
        "published start": {"init": "pinv"},
        "k-means++": {"init": "k-means++"},
        "4 starts": {"n_init": 4},
        "no pretraining": {"pretrain_iter": 0},
        "no joint training": {"max_iter": 0},
        "neighbours of X": {"n_neighbors": 10},
        "pretrain_iter=100": {"pretrain_iter": 100},
        "tol=0.001": {"tol": 1e-3},
        "500-500-500": {"hidden_layer_sizes": (500, 500, 500)},
        "500-500-2000": {"hidden_layer_sizes": HIDDEN},
        "gamma=0": {"gamma": 0.0},
        "alpha=0": {"alpha": 0.0},
        "lam=0": {"lam": 0.0},
        "beta=0.01": {"beta": 0.01},
        "beta=1": {"beta": 1.0},
    }.items()
}
# Others, of the engine.
CHANGED = {f"{OURS}, {change}": change for change in CHANGES}
OUR_SETTINGS |= ABLATIONS | {method: {} for method in CHANGED}
# What a run is given beside its settings, and what changes no cluster.
NOT_SETTINGS = (
    "k",
    "random_state",
    "image_shape",
    "device",
    "memory",
    "verbose",
    "callback",
    "n_jobs",
)

# p, beta, alpha, B as published (lambda is 1), and whose are taken where there are none.
PUBLISHED = {
    "mnist": (10, 5, 230, 500),
    "fashion_mnist": (10, 47, 13, 175),
    "usps": (30, 0.04, 3, 45),
    "pendigits": (70, 0.5, 13, 80),
    "r10k": (75, 2.3, 1.7, 250),
    "20news": (100, 232, 10, 300),
}
NEAREST = {"reuters_r8": "r10k", "optdigits": "pendigits"} | WHOLE
STARTS = {
    "AE-CM+rand": {"init": "random", "pretrain_iter": 0},
    "AE-CM+pre": {"init": "pinv", "pretrain_iter": 100},
}
JOINT_EPOCHS = 100
LONG = {("usps", "AE-CM+pre"): 1000, ("pendigits", "AE-CM+pre"): 1000}

OWN_EPOCHS = ("pretrain_iter", "max_iter")
PEER_EPOCHS = {"pretrain_epochs": 100, "clustering_epochs": 150}
ALL_EPOCHS = sum(PEER_EPOCHS.values())
UMAP_OF_PAPER = {"n_neighbors": 20, "min_dist": 0.0}
# The code has k columns, and at least so many, of texts as many as ours.
NARROWEST = {"narrowest": 10}
TEXT_WIDTH = 100
PEERS = {
    **dict.fromkeys(("DEC", "IDEC", "DCN", "DKM"), PEER_EPOCHS | NARROWEST),
    "VaDE": PEER_EPOCHS | NARROWEST | {"largest": 1},
    "ACeDeC": PEER_EPOCHS | {"narrowest": 20},
    "N2D": NARROWEST
    | {
        "pretrain_epochs": ALL_EPOCHS,
        "manifold_class": "UMAP",
        "manifold_params": UMAP_OF_PAPER,
    },
}

AUTOENCODER = "Autoencoder + KMeans"
KMEANS = {"n_init": 10}
MIXTURE = {"n_init": 10, "components_if_over": [50, 100]}
COVARIANCES = ("spherical", "diag", "tied", "full")
SHALLOW = {
    "KMeans": (KMeans, KMEANS),
    "MiniBatchKMeans": (MiniBatchKMeans, KMEANS),
    **{
        f"GaussianMixture, {kind}": (GaussianMixture, MIXTURE | {"covariance_type": kind})
        for kind in COVARIANCES
    },
}

METHODS = (*OUR_SETTINGS, *SHALLOW, AUTOENCODER, *PEERS, *STARTS)
RANKED = tuple(method for method in METHODS if method == OURS or method not in OUR_SETTINGS)
# Ranked a second time in the place of our default.
SAME_LAYERS = f"{OURS}, 500-500-2000"

DEFAULT_SEEDS = 5
SEEDS = dict.fromkeys(LONG, 2)


def applies(name, method):
    """Whether the method is for such data."""
    if method.endswith(", images"):
        return WHOLE.get(name, name) in IMAGE_DATA
    return True


def settings_of(name, method):
    """Everything that decides a run beside its data and seed, as it is after JSON."""
    if method in OUR_SETTINGS:
        params = DeepAEClustering(**OUR_SETTINGS[method]).get_params(deep=False)
        settings = {key: value for key, value in params.items() if key not in NOT_SETTINGS}
        has_partners = params["augment"] or (params["n_neighbors"] and name not in TEXTS)
        settings["engine"] = ENGINE if has_partners else ALONE_ENGINE
        if method in CHANGED:
            settings["change"] = CHANGED[method]
    elif method in STARTS:
        p, beta, alpha, batch = PUBLISHED[NEAREST.get(name, name)]
        settings = STARTS[method] | {
            "published": {"p": p, "beta": beta, "alpha": alpha, "B": batch, "lambda": 1},
            "hidden_layer_sizes": HIDDEN,
            "max_iter": LONG.get((name, method), JOINT_EPOCHS),
            "module_rate": 1.0,
            "engine": PUBLISHED_ENGINE,
        }
    elif method == AUTOENCODER:
        settings = {
            "hidden_layer_sizes": HIDDEN,
            "pretrain_iter": ALL_EPOCHS,
            "kmeans": KMEANS,
            "engine": PUBLISHED_ENGINE,
        }
        if name in TEXTS:
            settings["n_components"] = TEXT_WIDTH
    elif method in PEERS:
        settings = PEERS[method] | ({"narrowest": TEXT_WIDTH} if name in TEXTS else {})
    else:
        settings = SHALLOW[method][1]
    return json.loads(json.dumps(settings))


def trial(settings):
    """The same settings with two epochs of everything."""
    epochs = (*OWN_EPOCHS, *PEER_EPOCHS)
    return {key: min(2, value) if key in epochs else value for key, value in settings.items()}


# Runs
# ----


def timed(function):
    """What ``function`` gives, and its seconds and those of all processors."""
    started, started_cpu = time.perf_counter(), time.process_time()
    value = function()
    return value, {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - started_cpu,
    }


def run_deep(settings, X, k, image_shape, seed):
    """Our estimator with these settings, our own or the published ones."""
    fit_to = DeepAEClustering.fit
    if "published" in settings:
        params = published_params(settings, X)
        fit_to = patched((_modules, "MODULE_RATE", settings["module_rate"]))
    else:
        params = {key: settings[key] for key in settings.keys() - {"engine", "change"}}
        fit_to = CHANGES.get(settings.get("change"), fit_to)
    if params.get("augment") == "image":
        params["image_shape"] = image_shape
    model = DeepAEClustering(k, random_state=seed, **params)
    model, cost = timed(lambda: fit_to(model, X))
    return model.labels_, cost | {"epochs": count_epochs(model)}


def published_params(settings, X):
    """The published weights in the units of our estimator, no early stop, and no way back."""
    published, batch = settings["published"], settings["published"]["B"]
    return {key: settings[key] for key in ("hidden_layer_sizes", "init", *OWN_EPOCHS)} | {
        "n_neighbors": None,
        "n_components": published["p"],
        "beta": published["beta"] * float(X.var(axis=0, dtype=np.float64).sum()),
        "alpha": (published["alpha"] - 1) / batch,
        "lam": published["lambda"] / batch,
        "epsilon": 1e-3 / batch,
        "batch_size": batch,
        # No state is so much better than the end.
        "tol": 1e9,
        "n_iter_no_change": 1 + settings["pretrain_iter"] + settings["max_iter"],
    }


def run_autoencoder(settings, X, k, seed):
    """Pretraining without an early stop, then k-means on the code."""
    epochs = settings["pretrain_iter"]
    model = DeepAEClustering(
        k,
        n_neighbors=None,
        n_components=settings.get("n_components"),
        hidden_layer_sizes=settings["hidden_layer_sizes"],
        pretrain_iter=epochs,
        max_iter=0,
        init="k-means++",
        tol=0.0,
        n_iter_no_change=1 + epochs,
        random_state=seed,
    )

    def fit():
        # Where the start has shifted and scaled the code makes no difference to k-means.
        z = model.fit_transform(X)
        return KMeans(k, random_state=seed, **settings["kmeans"]).fit(z).labels_

    labels, cost = timed(fit)
    return labels, cost | {"epochs": count_epochs(model)}


def count_epochs(model):
    """How many epochs of every phase a fit took."""
    phases = [row["phase"] for row in model.history_ if row["phase"] not in ("start", "best")]
    return {phase: phases.count(phase) for phase in dict.fromkeys(phases)}


def run_shallow(method, settings, X, k, seed):
    """An estimator of scikit-learn."""
    cls, params = SHALLOW[method][0], dict(settings)
    width, columns = params.pop("components_if_over", (None, np.inf))

    def fit():
        rows = X.astype(np.float64)
        if X.shape[1] > columns:
            rows = PCA(width, random_state=seed).fit_transform(rows)
        return cls(k, random_state=seed, **params).fit_predict(rows)

    return timed(fit)


class Peers(NamedTuple):
    """Where peers run, and for how many seconds at most."""

    folder: Path
    seconds: float

    def python(self):
        """The interpreter, in an environment that is made unless it is there."""
        return environment_python(self.folder, PEER_PACKAGES)


def run_peer(method, settings, X, k, seed, peers):
    """A method of ClustPy, in its own environment, which is given the rows only."""
    params = dict(settings)
    params["embedding_size"] = max(k, params.pop("narrowest"))
    largest = params.pop("largest", None)
    if largest is not None and X.max() > largest:
        X = X * (largest / X.max())
    if "manifold_params" in params:
        params["manifold_params"] = {"n_components": k} | params["manifold_params"]
    labels, said = labels_of_peer(method, params, X, k, seed, peers)
    epochs = {key.removesuffix("_epochs"): params[key] for key in PEER_EPOCHS if key in params}
    return labels, said | {"epochs": epochs}


def labels_of_peer(method, params, X, k, seed, peers):
    """Labels by a method of ClustPy with its first argument ``k``, and what the run cost."""
    with tempfile.TemporaryDirectory() as folder:
        rows, found = Path(folder) / "rows.npz", Path(folder) / "found.npz"
        np.savez(rows, x=X)
        command = [peers.python(), Path(__file__).with_name("_quality_peers.py"), rows, found]
        command += ["--method", method, "--k", str(k), "--seed", str(seed)]
        command += ["--params", json.dumps(params)]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                timeout=peers.seconds,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"no end after {peers.seconds / 3600:.3g} hours") from None
        if done.returncode < 0:
            sys.exit(f"{method} was ended by signal {-done.returncode}; nothing is kept of it.")
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise RuntimeError(last[0])
        result = np.load(found)
        cost = {key: float(result[key]) for key in ("seconds", "cpu_seconds")}
        return result["labels"], cost | {
            "threads": int(result["threads"]),
            "device": str(result["device"]),
            "versions": json.loads(str(result["versions"])),
        }


def fit(method, settings, X, k, image_shape, seed, peers):
    """Labels of the rows, and what is said of the run."""
    if method in OUR_SETTINGS or method in STARTS:
        return run_deep(settings, X, k, image_shape, seed)
    if method == AUTOENCODER:
        return run_autoencoder(settings, X, k, seed)
    if method in SHALLOW:
        return run_shallow(method, settings, X, k, seed)
    return run_peer(method, settings, X, k, seed, peers)


def score(y, labels):
    """What is said of one partition."""
    return {
        "acc": round(clustering_accuracy(y, labels), 4),
        "nmi": round(normalized_mutual_info_score(y, labels), 4),
        "ari": round(adjusted_rand_score(y, labels), 4),
        "n_clusters": len(np.unique(labels)),
    }


def engine_commit():
    """The last commit that touched the package, with a + where files have changed since."""
    package = Path(skaecm.__file__).parent
    commands = (["log", "-1", "--format=%h"], ["status", "--porcelain"])
    try:
        found = [
            subprocess.run(
                ["git", "-C", package, *command, "--", "."],
                check=True,
                capture_output=True,
                text=True,
            ).stdout.strip()
            for command in commands
        ]
    except (OSError, subprocess.CalledProcessError):
        return None
    return found[0] + ("+" if found[1] else "")


def run(name, method, seed, peers, limit):
    """A row of results."""
    X, y, image_shape = load(name, limit)
    k = len(np.unique(y))
    settings = settings_of(name, method)
    row = {"data": name, "method": method, "seed": seed, "settings": settings}
    row |= {"n_rows": len(X), "k": k, "threads": torch.get_num_threads()}
    row |= {"device": device_name()}
    row |= {"versions": {m.__name__: m.__version__ for m in (skaecm, sklearn, torch, np)}}
    if "engine" in settings:
        row["commit"] = engine_commit()
    used = settings if limit is None else trial(settings)
    try:
        labels, said = fit(method, used, X, k, image_shape, seed, peers)
    except (RuntimeError, ValueError, FloatingPointError) as error:
        return row | {"error": f"{type(error).__name__}: {error}"}
    said |= {key: round(said[key], 1) for key in ("seconds", "cpu_seconds")}
    return row | score(y, labels) | said


# Rows and table
# --------------


def read_rows():
    """The rows there are of the present settings, the newest of every run."""
    if not RESULTS.exists():
        return []
    rows = {}
    for line in RESULTS.read_text().splitlines():
        row = json.loads(line)
        if row["method"] not in METHODS or row["data"] not in (*DATA, *WHOLE):
            continue
        if row["settings"] == settings_of(row["data"], row["method"]):
            rows[row["data"], row["method"], row["seed"]] = row
    return list(rows.values())


def wanted(names, methods, seeds):
    """The runs (data, method, seed), a seed of everything before the next."""
    for seed in range(seeds or DEFAULT_SEEDS):
        for name in names:
            for method in methods:
                n_seeds = seeds or SEEDS.get((name, method), DEFAULT_SEEDS)
                if seed < n_seeds and applies(name, method):
                    yield name, method, seed


def known_seconds(rows, name, method):
    """How long such a run has taken, zero where there is none yet."""
    seconds = [
        row.get("seconds", 0.0) for row in rows if (row["data"], row["method"]) == (name, method)
    ]
    return float(np.median(seconds)) if seconds else 0.0


def run_missing(runs, run_one, *, seconds=np.inf, retry=False, keep=True):
    """Run what has no row yet and write its row, until ``seconds`` are over.

    A run that would not end in time, going by those of other seeds, is left out. Other
    processes may write rows meanwhile. With ``keep=False`` everything is run and nothing
    written.
    """
    started = time.perf_counter()
    for name, method, seed in runs:
        rows = read_rows() if keep else []
        done = {
            (row["data"], row["method"], row["seed"])
            for row in rows
            if not (retry and "error" in row)
        }
        left = seconds - (time.perf_counter() - started)
        if left < 0:
            return
        if (name, method, seed) in done or known_seconds(rows, name, method) > left:
            continue
        row = run_one(name, method, seed)
        line = json.dumps(row)
        print(line, flush=True)
        if keep:
            RESULTS.parent.mkdir(exist_ok=True)
            with RESULTS.open("a") as file:
                file.write(line + "\n")


def write_table():
    """Write the table and give it back."""
    data = dict.fromkeys(DATA, True) | dict.fromkeys(WHOLE, False)
    shown = [method for method in METHODS if method in (*RANKED, SAME_LAYERS)]
    changes = [method for method in OUR_SETTINGS if method != OURS]
    table = format_table(read_rows(), data, shown, RANKED, OURS, SAME_LAYERS, changes)
    TABLE.write_text(table + "\n")
    return table


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=[*DATA, *WHOLE], default=DATA)
    usual = [method for method in METHODS if method not in ABLATIONS | CHANGED]
    parser.add_argument("--method", nargs="+", choices=METHODS, default=usual)
    parser.add_argument("--seeds", type=int, help="seeds from 0, for all; 5, or 2 of the longest")
    parser.add_argument("--budget-minutes", type=float, default=np.inf, help="then start nothing")
    parser.add_argument("--rows", type=int, help="try it on so many rows, two epochs, one seed")
    parser.add_argument("--retry", action="store_true", help="run again what failed")
    parser.add_argument("--peers-folder", type=Path, default=PEERS_FOLDER)
    parser.add_argument("--peer-hours", type=float, default=6.0, help="of one run, at most")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    # The published set-ups and the trials end before the loss is flat.
    warnings.simplefilter("ignore", ConvergenceWarning)
    peers = Peers(arguments.peers_folder, 3600 * arguments.peer_hours)
    run_one = partial(run, peers=peers, limit=arguments.rows)
    if arguments.rows is not None:
        runs = wanted(arguments.data, arguments.method, 1)
        return run_missing(runs, run_one, keep=False)
    if not arguments.table:
        runs = wanted(arguments.data, arguments.method, arguments.seeds)
        budget = 60 * arguments.budget_minutes
        run_missing(runs, run_one, seconds=budget, retry=arguments.retry)
    print(write_table())
    return None


if __name__ == "__main__":
    sys.exit(main())
