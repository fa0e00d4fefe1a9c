"""Estimators with any parameters on any input: run as a process of its own.

    python fuzz_fits.py 5000 [seed]

Every call of a fit method must end in a fitted estimator that keeps its promises (see
`check_fitted`), or in a ValueError or TypeError that is not torch's, with the estimator as
it was before. Warnings must be of those the package documents. The outcomes are counted on
standard output; the first case that is neither is made as simple as it gets, shown, and
ends the process with 1. Without a seed the cases are always the same.
"""

import collections
import faulthandler
import json
import os
import pickle
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.autoencoders import MLPAutoencoder

# Of a case, by the processor; and by the clock, on a busy machine too, until it hangs.
SECONDS = 30.0
HANGS = 600.0

# What a warning may say.
DOCUMENTED = (
    "All rows of X are equal",
    "The columns of X are on very different scales",
    "clusters hold rows after training",
    "The loss was still falling",
    "Training raised the loss",
    "Training was best in epoch",
    "so many centroids cannot be orthonormal",
    "init has covariance_type",
)
# What scikit-learn says: of a start with fewer distinct rows than clusters, and of X that
# holds infinities of both signs, which it then refuses.
OF_SKLEARN = ("Number of distinct clusters", "invalid value encountered in reduce")


# Parameters
# ----------


def rolled(batch, generator):
    """A transformed copy as it should be."""
    return batch.roll(1, dims=1)


def doubled(batch, generator):
    """No transformed copy: it is of another shape."""
    return torch.cat([batch, batch])


def spoiled(batch, generator):
    """A copy of nothing but NaN."""
    return batch * torch.nan


def no_pair(n_features, n_components, generator):
    """No autoencoder."""
    return torch.nn.Linear(n_features, n_components)


def too_wide(n_features, n_components, generator):
    """An autoencoder of other widths."""
    return torch.nn.Linear(n_features + 1, n_components), torch.nn.Linear(n_components, n_features)


def stop(row):
    """A callback that has seen enough."""
    return True


# No numbers that a loop would count to, no names of folders.
ODD = [None, True, False, -1, 0.5, -0.5, np.nan, np.inf, -np.inf, "", "x", "auto", "k-means"]
ODD += [[], [1], (2, 2), [[0.0]], {}, {"a": 1}, object, rolled, np.int64(2), np.float32(0.25)]
ODD += [np.zeros(2), np.array(["a"]), b"x", 1j, Ellipsis]

# Right values, and wrong ones that are not just odd.
GOOD = {
    "k": [2, 1, 3, 8, 41, np.int32(2), "auto"],
    "alpha": [0.0, 0.5, 10.0, 1e300, 1e-300, [1.0, 0.5], [-1.0, 1.0], [np.nan, 1.0], (0.0,)],
    "gamma": [1.0, 0.0, 1e10, 1e300],
    "augment": [None, "noise", "image", rolled, doubled, spoiled],
    "image_shape": [None, (1, 2), (2, 2), [1, 2, 2], (0, 2), (-1, -2), (2,), ("a", "b"), (1.5, 2)],
    "n_neighbors": [None, 1, 3, 100, "auto"],
    "n_init": [1, 2],
    "n_jobs": [None, 1, 0],
    "batch_size": ["auto", 1, 7, 10**12],
    "max_iter": [1, 0, 3],
    "learning_rate_init": [1e-2, 1e-300, 1.0, 1e10, 1e300],
    "epsilon": [1e-8, 1e-300, 1.0, 1e300],
    "tol": [1e3, 0.0, 1e300],
    "n_iter_no_change": [1, 5, 10**9],
    "missing": ["error", "mask"],
    "device": ["cpu", "auto", "cuda", "meta", "cpu:7", "cuda:x", torch.device("cpu")],
    "warm_start": [False, True],
    "random_state": [0, None, np.random.RandomState(0), 2**32 - 1, 2**32],
    "verbose": [0, False],
    "callback": [None, stop, len],
    "n_components": [None, 1, 2, 12],
    "hidden_layer_sizes": [(3,), (), (2, 3), [np.int64(3)], (0,), (-1,), (2.5,), "33", ((2,),)],
    "autoencoder": [None, MLPAutoencoder((3,)), no_pair, too_wide],
    "beta": [0.1, 0.0, 1e10, 1e300],
    "lam": [0.1, 0.0, 1e10, 1e300],
    "pretrain_iter": [1, 0, 3],
    "mixed_precision": [False, True],
    "memory": [None],
    "checkpoint": [None, "/proc/no folder"],
    "init": ["k-means", "k-means++", "pinv", "random"],
}
BASE = {"k": 2, "max_iter": 1, "random_state": 0}
BASES = {
    ClusteringModuleGMM: BASE,
    DeepAEClustering: BASE | {"hidden_layer_sizes": (3,), "pretrain_iter": 1},
}


@st.composite
def starts(draw, n_features):
    """Something to be the `init`: arrays and estimators that fit X or do not."""
    kind = draw(st.sampled_from(["array", "kmeans", "mixture", "module", "deep", "unfitted"]))
    width = max(1, n_features + draw(st.sampled_from([0, 0, 0, 1])))
    k = draw(st.sampled_from([2, 3]))
    rows = np.random.RandomState(0).normal(size=(12, width))
    if kind == "array":
        spoiler = draw(st.sampled_from([1.0, 0.0, 1e300, np.nan, np.inf]))
        return rows[:k] * spoiler
    if kind == "kmeans":
        found = KMeans(k, n_init=1).fit(rows)
    elif kind == "mixture":
        covariance = draw(st.sampled_from(["tied", "full", "diag", "spherical"]))
        found = GaussianMixture(k, covariance_type=covariance, reg_covar=1e-2).fit(rows)
    elif kind == "unfitted":
        found = KMeans(k)
    else:
        cls = ClusteringModuleGMM if kind == "module" else DeepAEClustering
        found = cls(**BASES[cls] | {"k": k, "max_iter": 0}).fit(rows)
        if kind == "deep" and draw(st.booleans()):
            return found.autoencoder_
    return FrozenEstimator(found) if draw(st.booleans()) else found


@st.composite
def parameters(draw, cls, n_features):
    """A few parameters that are not those of `BASES`."""
    names = sorted(cls._get_param_names())
    chosen = BASES[cls] | {"missing": draw(st.sampled_from(["error", "mask"]))}
    for name in draw(st.lists(st.sampled_from(names), max_size=3, unique=True)):
        is_odd = name not in ("checkpoint", "memory", "verbose") and draw(st.integers(0, 7)) == 7
        if is_odd:
            chosen[name] = draw(st.sampled_from(ODD))
        elif name == "init" and draw(st.booleans()):
            chosen[name] = draw(starts(n_features))
        else:
            chosen[name] = draw(st.sampled_from(GOOD[name]))
    return chosen


# Input
# -----

DTYPES = ["f8", "f4", "f2", "g", "i8", "i4", "u1", "?", "O", "c16", "U9", "M8[s]"]
CONTAINERS = [
    "array",
    "list",
    "read-only",
    "Fortran",
    "strided",
    "csr_array",
    "csr_matrix",
    "csc_matrix",
    "coo_array",
    "pandas",
]
NO_ROWS = [None, 0, 1.5, "rows", b"x", {}, [], [[]], [[], []], [1, 2, 3], [[1, 2], [3]], object()]
NO_ROWS += [np.zeros((2, 2, 2)), np.float64(3), iter([[1.0]]), [["a", "b"]], [[None, 1.0]]]


@st.composite
def matrices(draw):
    """Rows: of any shape, dtype, size of values, container, and with all that goes wrong."""
    if draw(st.integers(0, 19)) == 19:
        return draw(st.sampled_from(NO_ROWS))
    n, d = draw(st.sampled_from([12, 40, 25, 7])), draw(st.sampled_from([2, 4, 6, 1]))
    if draw(st.integers(0, 7)) == 7:
        n, d = draw(st.sampled_from([(1, 2), (2, 1), (1, 1), (0, 2), (2, 0), (0, 0), (5, 4)]))
    rng = np.random.RandomState(draw(st.integers(0, 99)))
    x = rng.normal(size=(n, d)) + 4.0 * rng.randint(2, size=(n, 1))
    changes = draw(st.lists(st.sampled_from(CHANGES), max_size=2))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for change in changes:
            x = change(x, rng)
        dtype = draw(st.sampled_from(["f8"] * 8 + ["f4"] * 4 + DTYPES))
        try:
            x = x.astype(dtype)
        except ValueError:
            x = np.nan_to_num(x).astype("i8").astype(dtype)
        return contained(x, draw(st.sampled_from(["array"] * 6 + CONTAINERS)))


def contained(x, container):
    """The array as something else that holds rows."""
    if container == "list":
        return x.tolist()
    if container == "read-only":
        x.flags.writeable = False
    elif container == "Fortran":
        return np.asfortranarray(x)
    elif container == "strided":
        return np.repeat(x, 2, axis=0)[::2]
    elif container == "pandas":
        import pandas

        return pandas.DataFrame(x, columns=[f"c{j}" for j in range(x.shape[1])])
    elif container != "array" and x.dtype.kind in "fiub?" and x.dtype.char not in "eg":
        return getattr(sp, container)(x)
    return x


def scattered(value):
    """A change that puts a value at a few places."""

    def change(x, rng):
        x[rng.uniform(size=x.shape) < 0.15] = value
        return x

    return change


def scaled(factor):
    """A change of the unit."""
    return lambda x, rng: x * factor


def column(value):
    """A change that makes the first column constant."""

    def change(x, rng):
        x[:, :1] = value
        return x

    return change


def row(value):
    """A change that makes the first row constant."""

    def change(x, rng):
        x[:1] = value
        return x

    return change


CHANGES = [scaled(10.0**e) for e in (0, -320, -200, -150, -30, -18, -12, 12, 18, 30, 150, 307)]
CHANGES += [scattered(value) for value in (0.0, np.nan, np.nan, np.inf, -np.inf, 1e300, 1e30)]
CHANGES += [column(value) for value in (0.0, np.nan, 1e9)]
CHANGES += [row(value) for value in (np.nan, 1e6)]
CHANGES += [
    lambda x, rng: x + 1e9,
    lambda x, rng: x * np.logspace(0, 9, x.shape[1]),
    lambda x, rng: np.repeat(x[:1], len(x), axis=0),
    lambda x, rng: np.tile(x[: max(1, len(x) // 3)], (3, 1))[: len(x)],
    lambda x, rng: np.round(x),
]


@st.composite
def weights(draw, n):
    """Weights of ``n`` rows, or something else."""
    kind = draw(st.sampled_from(["none"] * 5 + ["right"] * 2 + ["wrong"]))
    rng = np.random.RandomState(0)
    if kind == "none":
        return None
    if kind == "wrong":
        odd = [np.ones(n + 1), -np.ones(n), np.full(n, np.nan), np.ones((n, 2)), "w", ["a"] * n]
        return draw(st.sampled_from([*odd, np.full(n, np.inf), {}, 1j, np.full(n, 1j)]))
    uniform = rng.uniform(size=n)
    values = [np.ones(n), uniform, uniform.astype("f4"), uniform.tolist(), uniform > 0.5, 1.0, 0]
    values += [np.eye(1, n)[0], uniform * 1e-310, uniform * 1e300, 10.0 ** (300 * uniform)]
    return draw(st.sampled_from([*values, np.zeros(n)]))


@st.composite
def graphs(draw, n):
    """Edges between ``n`` rows, or something else."""
    if draw(st.integers(0, 4)) < 4:
        return None
    rng = np.random.RandomState(0)
    edges = np.where(rng.uniform(size=(n, n)) < 0.2, rng.uniform(size=(n, n)), 0)
    values = [sp.csr_array(edges), edges, edges.tolist(), np.eye(n), np.zeros((n, n)), edges > 0]
    values += [sp.coo_matrix(edges), edges * 1e-310, edges * 1e300, -edges, edges * np.nan]
    values += [edges * 1j, edges[:-1], np.ones(n), 3, "graph", sp.csr_array((n + 1, n)), {}]
    return draw(st.sampled_from(values))


# Cases
# -----


@st.composite
def cases(draw):
    """An estimator, and the calls of one of its fit methods."""
    cls = draw(st.sampled_from([ClusteringModuleGMM, DeepAEClustering]))
    X = draw(matrices())
    try:
        n, d = X.shape if hasattr(X, "shape") else np.shape(X)
    except ValueError:  # ragged, or not of two axes
        n, d = 5, 2
    estimator = cls(**draw(parameters(cls, d)))
    method = draw(st.sampled_from(["fit", "fit", "fit", "partial_fit", "fit_transform"]))
    given_too = {"sample_weight": draw(weights(n))}
    if method != "partial_fit":
        given_too["adjacency"] = draw(graphs(n))
    return estimator, method, X, given_too


def check_fitted(estimator, X, adjacency):
    """Raise unless the fitted estimator keeps what it promises."""
    n, k = len(estimator.labels_), len(estimator.weights_)
    assert estimator.k in (k, "auto")
    assert estimator.n_clusters_ == len(np.unique(estimator.labels_))
    proba = estimator.predict_proba(X, adjacency)
    assert proba.shape == (n, k)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, atol=1e-5)
    labels = estimator.predict(X, adjacency)
    np.testing.assert_array_equal(labels, estimator.labels_)
    assert ((labels >= 0) & (labels < k)).all()
    assert np.isfinite(estimator.score_samples(X, adjacency)).all()
    assert np.isfinite(estimator.score(X, adjacency=adjacency))
    code = estimator.transform(X, adjacency)
    assert code.shape == (n, estimator._n_features_out)
    assert np.isfinite(code).all()
    back = estimator.inverse_transform(code)
    assert back.shape == (n, estimator.n_features_in_)
    points, components = estimator.sample(3)
    assert points.shape == (3, estimator.n_features_in_)
    assert components.shape == (3,)
    assert np.isfinite(estimator.loss_)
    assert np.isfinite(estimator.cluster_centers_).all()
    assert (estimator.covariances_ > 0).all()
    assert np.isfinite(estimator.covariances_).all()
    assert abs(estimator.weights_.sum() - 1.0) < 1e-4
    for record in estimator.history_:
        assert isinstance(record["phase"], str)
        is_start = record is estimator.history_[-1] and record["phase"] == "start"
        assert (record["epoch"] == 0) if is_start else (record["epoch"] >= 1)
        assert all(np.isfinite(value) for value in record.values() if isinstance(value, float))
    if estimator.callback is None:
        again = pickle.loads(pickle.dumps(without_functions(estimator)))
        np.testing.assert_array_equal(again.predict_proba(X, adjacency), proba)


def without_functions(estimator):
    """A shallow copy whose parameters can be pickled."""
    copy = type(estimator).__new__(type(estimator))
    vars(copy).update(vars(estimator))
    return copy.set_params(init="k-means", random_state=0)


def check_refused(estimator, before, error):
    """Raise unless an error is one for the user and left the estimator alone."""
    assert isinstance(error, ValueError | TypeError), type(error)
    assert str(error)
    frames = traceback.extract_tb(error.__traceback__)
    assert f"{os.sep}torch{os.sep}" not in frames[-1].filename, frames[-1]
    after = vars(estimator)
    assert before.keys() == after.keys()
    assert all(after[name] is value for name, value in before.items())


def check_warnings(caught):
    """Raise unless all warnings are documented ones."""
    for warning in caught:
        text = str(warning.message)
        is_known = any(part in text for part in DOCUMENTED) and warning.category in (
            UserWarning,
            ConvergenceWarning,
        )
        assert is_known or any(part in text for part in OF_SKLEARN), (
            warning.category,
            text,
            warning.filename,
        )


def outcome(case):
    """What a case ends in, as a word."""
    estimator, method, X, given_too = case
    started = time.process_time()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2 if method == "partial_fit" else 1):
            before = dict(vars(estimator))
            try:
                getattr(estimator, method)(X, **given_too)
            except Exception as error:
                check_refused(estimator, before, error)
                check_warnings(caught)
                return type(error).__name__
        adjacency = given_too.get("adjacency")
        check_fitted(estimator, X, adjacency)
    check_warnings(caught)
    assert time.process_time() - started < SECONDS
    return "fitted"


def main(n_cases, number=None):
    """Run so many cases and print what they ended in."""
    outcomes: collections.Counter = collections.Counter()

    def count(case):
        faulthandler.dump_traceback_later(HANGS, exit=True)
        outcomes[outcome(case)] += 1

    run = given(cases())(count)
    run = settings(
        max_examples=n_cases,
        derandomize=number is None,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )(run)
    if number is not None:
        run = seed(number)(run)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run()
        os.chdir("/")
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
