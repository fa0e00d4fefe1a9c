"""The fits of `test_distributed.py`: one process of a group runs a job of them, as a script.

``python -m torch.distributed.run ... distributed_fits.py JOB FOLDER`` fits every case of
`CASES` with its part of the rows, and the first process writes what all of them learned.
"""

import json
import os
import signal
import sys
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch.distributed as dist
from helpers import blobs, overlapping, quick
from sklearn.cluster import KMeans

from skaecm import ClusteringModuleGMM, DeepAEClustering

N_ROWS = 240
SEED = int(os.environ.get("SKAECM_TEST_SEED", "0"))
KEPT = "kept"  # in the folder of a group, where its processes work
LONG = {"tol": 0.0, "n_iter_no_change": 99, "max_iter": 5, "batch_size": 32}


def shallow(**params):
    return quick(ClusteringModuleGMM, **(LONG | params))


def deep(**params):
    return quick(DeepAEClustering, **(LONG | params))


# An estimator, and what is special about its rows. Neighbours need all of them everywhere.
CASES = {
    "shallow": (shallow(), ()),
    "shallow, weighted": (shallow(alpha=[0.1, 0.2, 0.3]), ("weighted",)),
    "shallow, sparse": (shallow(batch_size="auto"), ("sparse",)),
    "shallow, drawn": (shallow(init="k-means++", n_init=2), ("weighted",)),
    "shallow, steps of few rows": (shallow(batch_size=3, max_iter=2), ("weighted",)),
    "shallow, neighbours": (shallow(n_neighbors=5), ("weighted", "whole")),
    "shallow, counted": (shallow(k="auto"), ("weighted", "separated")),
    "deep": (deep(), ()),
    "deep, weighted": (deep(alpha=[0.1, 0.2, 0.3]), ("weighted",)),
    "deep, narrow": (deep(n_components=2, init="k-means++"), ("sparse",)),
    "deep, counted": (quick(DeepAEClustering, k="auto"), ("separated",)),
    "deep, published": (quick(DeepAEClustering, init="pinv"), ("weighted",)),
    "deep, neighbours": (deep(n_neighbors=5), ("weighted", "whole")),
    "deep, steps of few rows": (deep(batch_size=3, max_iter=2, n_neighbors=5), ("whole",)),
}
MODES = [
    (name, mode)
    for name, (_, special) in CASES.items()
    for mode in ("whole", "parts")
    if mode == "whole" or "whole" not in special
]


def rows_of(special=()):
    """All rows, and their weights or None."""
    X = blobs(SEED, n=N_ROWS)[0] if "separated" in special else overlapping(SEED, n=N_ROWS)
    weight = np.random.RandomState(SEED).uniform(size=N_ROWS)
    weight[::7] = 0
    return sp.csr_array(X) if "sparse" in special else X, weight if "weighted" in special else None


def part(rank, size):
    """The rows of a process, of all sizes."""
    edges = np.round(N_ROWS * np.linspace(0, 1, size + 1) ** 1.5).astype(int)
    return slice(edges[rank], edges[rank + 1])


def outcome(model, X):
    """What a fit ends with."""
    return {
        "labels": model.labels_.tolist(),
        "predicted": model.predict(X).tolist(),
        "history": [{k: v for k, v in row.items() if k != "phase"} for row in model.history_],
        "loss": model.loss_,
        "weights": model.weights_.tolist(),
        "centers": model.cluster_centers_.tolist(),
        "variance": float(model.covariances_[0]),
        "n_iter": model.n_iter_,
    }


def fit_case(name, mode, rank=0, size=1):
    """A fit of one case, as one of ``size`` processes sees it."""
    model, special = CASES[name]
    X, weight = rows_of(special)
    if mode == "parts":
        own = part(rank, size)
        X, weight = X[own], None if weight is None else weight[own]
    return outcome(model.fit(X, sample_weight=weight), X)


def equal(rank, size, modes=MODES):
    """Every case in every mode."""
    warnings.simplefilter("ignore")
    return {f"{name}: {mode}": fit_case(name, mode, rank, size) for name, mode in modes}


def some(rank, size):
    """Every case in one mode."""
    return equal(rank, size, dict(MODES).items())


def raised(call):
    """What a call raises, as text."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def wrong(rank, size):
    """Calls that are refused on every process, since they are wrong on the second or together."""
    X, _ = rows_of()
    bad = X.copy()
    bad[3, 2] = np.nan
    second = rank == 1

    def fail(row):
        if second:
            raise KeyError("of the second")

    calls = {
        "bad rows": lambda: shallow().fit(bad if second else X),
        "not allowed": lambda: deep(k=-1 if second else 3).fit(X),
        "not allowed for these rows": lambda: shallow(init=KMeans(4 if second else 3).fit(X)).fit(
            X
        ),
        "k": lambda: shallow(k=4 if second else 3).fit(X),
        "random_state": lambda: shallow(random_state=rank).fit(X),
        "alpha": lambda: shallow(alpha=[0.1, 0.2, 0.3 + rank]).fit(X),
        "features": lambda: shallow().fit(X[:, : 4 - rank]),
        "weights": lambda: shallow().fit(X, sample_weight=None if second else np.ones(len(X))),
        "neighbours": lambda: shallow(n_neighbors=3).fit(X[rank:]),
        "graph": lambda: shallow().fit(X, adjacency=sp.eye(len(X) - rank)),
        "few rows": lambda: shallow(k=9).fit(X[: 3 + rank]),
        "one row": lambda: shallow(k=1).fit(X[:1]),
        "callback": lambda: shallow(callback=fail).fit(X),
        "diverged": lambda: shallow(learning_rate_init=1e30).fit(X.astype(np.float32)),
        "nothing": lambda: shallow().fit(X),
    }
    return {name: raised(call) for name, call in calls.items()}


def other(rank, size):
    """What cannot be compared with one process, or is more than one fit."""
    warnings.simplefilter("ignore")
    X, _ = rows_of()
    own = X[part(rank, size)]
    seen = []

    def stop_on_second(row):
        seen.append(row["epoch"])
        return rank == 1 and row["epoch"] == 3

    learned = {}
    stopped = shallow(callback=stop_on_second, verbose=1).fit(own)
    learned["stopped"] = [*seen, stopped.n_iter_, stopped.converged_]
    for augment in ("noise", "image"):
        model = deep(augment=augment, image_shape=(2, 2)).fit(own)
        learned[augment] = [model.loss_, model.cluster_centers_.tolist()]
        assert (model.labels_ == model.predict(own)).all()
    drawn = shallow(random_state=None).fit(own)
    learned["drawn"] = [drawn.loss_, drawn.cluster_centers_.tolist()]
    streamed = shallow().partial_fit(own).partial_fit(own).partial_fit(own)
    learned["streamed"] = [streamed.loss_, streamed.cluster_centers_.tolist()]
    warm = shallow(warm_start=True).fit(own).fit(own)
    learned["warm"] = [warm.loss_, warm.cluster_centers_.tolist()]
    # The second cluster has rows on the last process alone, and the third none.
    y = (np.arange(40) >= 30).astype(int)
    X = 9.0 * y[:, None] + blobs(SEED, n=40, k=1)[0]
    start = np.stack([X[0], X[0] + 1e3, X[-1]])
    empty = shallow(init=start, max_iter=0).fit(X[:25] if rank == 0 else X[25:])
    learned["empty"] = [empty.weights_.tolist(), sorted({*empty.labels_.tolist()} | {0, 1})]
    return learned


def fit_kept(folder=None, rank=0, size=1, callback=None):
    """The fit that is killed and resumed, with every process a part of the rows."""
    model = deep(checkpoint=folder, callback=callback)
    X, weight = rows_of(["weighted"])
    own = part(rank, size)
    return outcome(model.fit(X[own], sample_weight=weight[own]), X[own])


def killed(rank, size):
    """The last process is killed while it trains; what the others raise, and when."""
    begun = time.monotonic()

    def kill(row):
        nonlocal begun
        begun = time.monotonic()
        if rank == size - 1 and (row["phase"], row["epoch"]) == ("training", 4):
            os.kill(os.getpid(), signal.SIGKILL)

    # Checkpoints need an extra, being killed does not.
    kept = KEPT if find_spec("safetensors") else None
    message = raised(lambda: fit_kept(kept, rank, size, kill))
    return {"message": message, "seconds": time.monotonic() - begun}


def resumed(rank, size):
    """The fit that was killed, by so many processes; the epochs that were left, and its end."""
    warnings.simplefilter("ignore")
    seen = []
    learned = fit_kept(KEPT, rank, size, lambda row: seen.append((row["phase"], row["epoch"])))
    return {"seen": seen, **learned}


JOBS = {job.__name__: job for job in (equal, some, wrong, other, killed, resumed)}


def main(jobs, folder):
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    # torchrun says where the others are; without it they meet at a file.
    where = "env://" if "MASTER_ADDR" in os.environ else f"file://{folder}/group"
    os.chdir(folder)
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=size)
    for job in jobs.split(","):
        learned = JOBS[job](rank, size)
        Path(f"{job}-{rank}.json").write_text(json.dumps(learned))


if __name__ == "__main__":
    main(*sys.argv[1:])
