"""Rows on their way to a module, and the loop that trains it."""

import random
import subprocess
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import ROOT, blobs, quick

from skaecm import _tensors
from skaecm._modules import ClusteringModule, ShallowNetwork, Standardizer
from skaecm._rows import HostRows, ResidentRows, column_moments, make_rows
from skaecm._tensors import compute_dtype, make_generator, resolve_device
from skaecm._training import Training, Watcher, apply

CPU = torch.device("cpu")


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


KINDS = {
    "resident": lambda x: x,
    "read-only": read_only,
    "csr_matrix": sp.csr_matrix,
    "csr_array": sp.csr_array,
}


def rows_of(kind, x, weight=None):
    dtype = compute_dtype(x.dtype, CPU)
    return make_rows(KINDS[kind](x), weight, CPU, dtype)


# Rows
# ----


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_batches(seed, dtype, kind, weighted, monkeypatch):
    monkeypatch.setattr(_tensors, "MOST_ROWS", 40)
    X = blobs(seed, dtype=dtype)[0]
    weight = np.random.RandomState(seed).uniform(size=90) if weighted else None
    rows, expected = rows_of(kind, X, weight), rows_of("resident", X, weight)
    assert isinstance(rows, ResidentRows if kind == "resident" else HostRows)
    assert (len(rows), rows.shape, rows.dtype) == (90, (90, 4), expected.dtype)
    pairs = [
        (rows.batches(16, make_generator(seed)), expected.batches(16, make_generator(seed))),
        (rows.in_order(), expected.in_order()),
    ]
    for batches, others in pairs:
        for batch, other in zip(batches, others, strict=True):
            assert torch.equal(batch.indices, other.indices)
            assert torch.equal(batch.x, other.x)
            assert batch.x.dtype == expected.dtype
            np.testing.assert_array_equal(batch.x, X[batch.indices])
            if weighted:
                np.testing.assert_array_equal(batch.weight, weight.astype(dtype)[batch.indices])
            else:
                assert batch.weight is None


@pytest.mark.parametrize(("n", "batch_size"), [(90, 16), (91, 90), (90, 90), (7, 100), (5, 1)])
def test_batches_are_balanced(seed, n, batch_size):
    rows = ResidentRows(torch.arange(float(n))[:, None])
    batches = list(rows.batches(batch_size, make_generator(seed)))
    sizes = [len(batch.indices) for batch in batches]
    assert len(sizes) == -(-n // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    np.testing.assert_array_equal(np.sort(torch.cat([b.indices for b in batches])), np.arange(n))


def test_order_is_drawn_anew_every_epoch(seed):
    rows, generator = ResidentRows(torch.zeros(90, 1)), make_generator(seed)
    first, second = (torch.cat([b.indices for b in rows.batches(16, generator)]) for _ in range(2))
    assert not torch.equal(first, second)
    again = torch.cat([b.indices for b in rows.batches(16, make_generator(seed))])
    assert torch.equal(first, again)


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_copies(seed, kind):
    X, _ = blobs(seed)
    rows = rows_of(kind, X)
    batch = rows.take(torch.arange(5))
    batch.x.zero_()
    np.testing.assert_array_equal(rows.take(torch.arange(5)).x, X[:5])


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_column_moments(seed, dtype, kind, weighted, offset):
    X = (np.random.RandomState(seed).standard_normal((5000, 3)) + offset).astype(dtype)
    X[:, 2] = offset / 7 + 0.1
    weight = np.random.RandomState(seed).uniform(size=5000) if weighted else None
    if weighted:
        weight /= weight.mean()
    mean, variance = column_moments(rows_of(kind, X, weight))
    assert mean.dtype == variance.dtype == torch.float64
    wide = X.astype(np.float64)
    if weighted:
        weight = weight.astype(dtype).astype(np.float64)
    expected = np.average(wide, axis=0, weights=weight)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    expected = np.average((wide - expected) ** 2, axis=0, weights=weight)
    np.testing.assert_allclose(variance[:2], expected[:2], rtol=1e-5)
    assert variance[2] == 0


# Training
# --------


def make_training(seed, **settings):
    """A module on overlapping rows, far from converged."""
    rng = np.random.RandomState(seed)
    rows = ResidentRows(torch.from_numpy(rng.standard_normal((120, 4))))
    module = ClusteringModule(
        *(torch.from_numpy(rng.standard_normal(shape)) for shape in ((3, 4), (3,), (3, 4)))
    )
    zero = torch.zeros(4, dtype=torch.float64)
    alpha = torch.full((3,), 0.1, dtype=torch.float64)
    network = ShallowNetwork(Standardizer(zero, zero[0] + 1), module, alpha, gamma=1.0, unit=4.0)
    settings = {"batch_size": 32, "learning_rate": 1e-2, "epsilon": 1e-8, **settings}
    generator = make_generator(seed)
    return Training(network, phase="training", generator=generator, **settings), rows


def assert_same_training(first, second):
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, second.module.state_dict()[name]), name
    assert first.history == second.history
    assert (first.epoch, first.best_loss) == (second.epoch, second.best_loss)


def test_training_resumes_bit_for_bit(seed, tmp_path):
    """Four epochs at once, or two, saved to a file, and two more elsewhere."""
    whole, rows = make_training(seed)
    limits = {"tol": 0.0, "n_iter_no_change": 99}
    whole.run(rows, max_iter=4, **limits)
    half, _ = make_training(seed)
    half.run(rows, max_iter=2, **limits)
    torch.save(half.state_dict(), tmp_path / "state.pt")
    resumed, _ = make_training(seed + 1)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.run(rows, max_iter=4, **limits)
    assert_same_training(resumed, whole)
    whole.run_averaging_epoch(rows)
    resumed.run_averaging_epoch(rows)
    assert_same_training(resumed, whole)


def test_going_on_leaves_the_state_it_came_from_alone(seed):
    """One state serves several continuations, or one that is interrupted and tried again."""
    training, rows = make_training(seed)
    training.run_epoch(rows)
    state = training.state_dict()
    state = {**state, "module": {key: value.clone() for key, value in state["module"].items()}}
    ends = []
    for _ in range(2):
        going_on, _ = make_training(seed)
        going_on.load_state_dict(state)
        going_on.run_epoch(rows)
        ends.append(going_on)
    assert_same_training(*ends)


def test_averaging_epoch_is_the_mean_of_the_weights_after_every_step(seed):
    training, rows = make_training(seed)
    twin, _ = make_training(seed)
    seen = []

    def look():
        seen.append([parameter.detach().clone() for parameter in twin.module.parameters()])

    twin.run_epoch(rows, after_step=look)
    assert len(seen) == 4
    training.run_averaging_epoch(rows)
    for parameter, values in zip(
        training.module.parameters(), zip(*seen, strict=True), strict=True
    ):
        np.testing.assert_allclose(parameter.detach(), torch.stack(values).mean(dim=0), rtol=1e-12)
        assert not torch.equal(values[0], values[-1])
    assert training.history[-1]["phase"] == "averaging"
    assert training.history[-1]["loss"] == twin.history[-1]["loss"]


def test_history_is_the_mean_over_the_batches(seed):
    training, rows = make_training(seed, learning_rate=1e-300)
    loss = training.run_epoch(rows)
    row = training.history[0]
    assert row["loss"] == loss == pytest.approx(sum(row[f"E{i}"] for i in (1, 2, 3, 4)))
    # Nothing moves at this learning rate, so data terms are those over all rows.
    terms = training.module.settle(rows)
    for name in ("E1", "E2", "E3"):
        assert row[name] == pytest.approx(terms[name], rel=1e-10)


@pytest.mark.parametrize(("tol", "n_epochs", "converged"), [(1e3, 4, True), (0.0, 6, False)])
def test_stopping(seed, tol, n_epochs, converged):
    training, rows = make_training(seed, learning_rate=1e-3)
    assert training.run(rows, max_iter=6, tol=tol, n_iter_no_change=3) is converged
    assert training.epoch == len(training.history) == n_epochs


class Recorder(Watcher):
    """Notes every call, and has seen enough after ``n_epochs``."""

    def __init__(self, n_epochs):
        self.n_epochs = n_epochs
        self.calls = []

    @property
    def stopped(self):
        return len(self.calls) >= 2 * self.n_epochs

    def begin(self):
        self.calls.append("begin")

    def end(self, row):
        self.calls.append(row)


def test_a_watcher_sees_the_rows_of_the_history(seed):
    training, rows = make_training(seed)
    watch = Recorder(9)
    training.run(rows, max_iter=2, tol=0.0, n_iter_no_change=9, watch=watch)
    training.run_averaging_epoch(rows, watch)
    assert [row["phase"] for row in training.history] == ["training", "training", "averaging"]
    assert watch.calls[::2] == ["begin"] * 3
    assert watch.calls[1::2] == training.history


@pytest.mark.parametrize("n_epochs", [0, 1, 3])
def test_a_watcher_ends_training(seed, n_epochs):
    training, rows = make_training(seed)
    twin, _ = make_training(seed)
    watch = Recorder(n_epochs)
    converged = training.run(rows, max_iter=9, tol=0.0, n_iter_no_change=9, watch=watch)
    twin.run(rows, max_iter=n_epochs, tol=0.0, n_iter_no_change=9)
    assert not converged
    assert_same_training(training, twin)


def test_changed_is_the_share_of_other_labels(seed):
    """At a rate of nothing the pass meets the labels of all rows at once."""
    training, rows = make_training(seed, learning_rate=1e-300)
    network = training.module
    start = network.labels(rows.x)
    training.run_epoch(rows)
    assert training.history[0]["changed"] == 0
    with torch.no_grad():
        network.clustering.weight += 1
        network.clustering.weight[0] -= 5
    moved = network.labels(rows.x)
    training.run_epoch(rows)
    expected = float((moved != start).double().mean())
    assert 0 < training.history[1]["changed"] == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(training.labels, moved, rtol=0, atol=0)
    training.run_epoch(rows)
    assert training.history[2]["changed"] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_not_finite(seed, value):
    training, rows = make_training(seed)
    rows.x[7, 2] = value
    message = r"loss is not finite \(E1.*epoch 1 of training.*learning_rate_init.*StandardScaler"
    with pytest.raises(ValueError, match=message):
        training.run_epoch(rows)


@pytest.mark.parametrize("kind", KINDS)
def test_apply_is_the_function_of_all_rows_in_order(seed, kind):
    X = np.random.RandomState(seed).standard_normal((9000, 3))
    result = apply(lambda x: 2 * x[:, :1], rows_of(kind, X))
    np.testing.assert_array_equal(result, 2 * X[:, :1])


# The world is left as it was found
# ---------------------------------


def world():
    state = np.random.get_state()  # noqa: NPY002
    return {
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": [state[0], state[1].tolist(), *state[2:]],
        "random": random.getstate(),
        "threads": torch.get_num_threads(),
        "dtype": torch.get_default_dtype(),
        "grad": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filters": list(warnings.filters),
        "errors": np.geterr(),
    }


def global_pair(n_features, n_components, generator):
    """An autoencoder that draws from torch's global generator."""
    return torch.nn.Linear(n_features, n_components), torch.nn.Linear(n_components, n_features)


@pytest.mark.parametrize("random_state", [0, None])
@pytest.mark.parametrize("init", ["k-means", "k-means++", "random"])
@pytest.mark.filterwarnings("ignore:Only . of k=3:sklearn.exceptions.ConvergenceWarning")
def test_a_fit_leaves_the_world_as_it_was(cls, seed, init, random_state):
    X, _ = blobs(seed)
    # The first optimizer of a process has torch import more, and sympy with it, which adds
    # filters of warnings.
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))])
    models = [quick(cls, init=init, random_state=0)]
    if hasattr(models[0], "autoencoder"):
        models.append(quick(cls, init=init, autoencoder=global_pair, random_state=0))
    if random_state is None:
        # sklearn's None is NumPy's global generator: only that one may move.
        models = [model.set_params(random_state=None) for model in models]
    for model in models:
        before = world()
        model.fit(X).partial_fit(X)
        model.predict(X)
        model.transform(X)
        model.sample(3)
        after = world()
        if random_state is None:
            assert before.pop("numpy") != after.pop("numpy")
        assert after == before


def test_a_failed_fit_leaves_the_world_as_it_was(cls, seed):
    before = world()
    with pytest.raises(ValueError, match="loss is not finite"):
        quick(cls, learning_rate_init=1e30, tol=0.0, n_iter_no_change=99, max_iter=99).fit(
            blobs(seed, dtype=np.float32)[0]
        )
    assert world() == before


def test_import_leaves_the_world_as_it_was():
    code = (
        "import torch, sklearn.cluster, sklearn.mixture, scipy.sparse, joblib\n"
        "from test_rows_training import world\n"
        "import sys; names = [name for name in sys.modules if name.startswith('skaecm')]\n"
        "for name in names: del sys.modules[name]\n"
        "before = world()\n"
        "import skaecm, skaecm.autoencoders\n"
        "assert world() == before\n"
    )
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    subprocess.run([sys.executable, "-c", path + code], check=True)


# Devices
# -------


def test_devices_that_exist():
    assert resolve_device("cpu") == torch.device("cpu") == resolve_device(torch.device("cpu"))
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_mps_computes_in_float32():
    assert compute_dtype(np.dtype(np.float64), torch.device("mps")) == torch.float32
    assert compute_dtype(np.dtype(np.float64), CPU) == torch.float64
    assert compute_dtype(np.dtype(np.float32), CPU) == torch.float32
