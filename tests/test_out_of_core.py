"""Rows that are not held in memory: maps, arrays in files, blocks one by one."""

import pickle
import subprocess
import sys
import threading
from contextlib import contextmanager

import joblib
import numpy as np
import pytest
import torch
from helpers import ROOT, assert_close_fit, assert_same_fit, blobs, quick
from sklearn.metrics import adjusted_rand_score

from skaecm import ClusteringModuleGMM, DeepAEClustering, _blocks, _modules
from skaecm._block_rows import BlockRows, balanced
from skaecm._blocks import opened, row_edges
from skaecm._rows import ResidentRows, column_moments
from skaecm._tensors import make_generator
from skaecm._training import Training

CPU = torch.device("cpu")
N, CHUNK = 1000, 16


class Sliced:
    """No more of an array than shape, dtype and slices; counts the rows that are read."""

    def __init__(self, X):
        self.X = X
        self.shape, self.dtype = X.shape, X.dtype
        self.n_read = 0

    def __getitem__(self, key):
        assert isinstance(key, slice)
        rows = self.X[key]
        self.n_read += len(rows)
        return rows


class Iterated:
    """Blocks of some lengths, in the same memory every time; counts the passes."""

    def __init__(self, X, *sizes):
        self.X, self.sizes = X, sizes or (CHUNK,)
        self.n_passes = 0

    def __iter__(self):
        self.n_passes += 1
        memory = np.empty((max(self.sizes), self.X.shape[1]), self.X.dtype)
        start = i = 0
        while start < len(self.X):
            rows = self.X[start : start + self.sizes[i % len(self.sizes)]]
            memory[: len(rows)] = rows
            yield memory[: len(rows)]
            start, i = start + len(rows), i + 1


def memory_map(X, path):
    np.save(path / "rows.npy", X)
    return np.load(path / "rows.npy", mmap_mode="r")


def hdf5(X, path):
    h5py = pytest.importorskip("h5py")
    file = h5py.File(path / f"rows{len(list(path.iterdir()))}.h5", "w")
    return file.create_dataset("X", data=X, chunks=(CHUNK, X.shape[1]))


def dask_array(X, path):
    return pytest.importorskip("dask.array").from_array(X, chunks=(CHUNK, X.shape[1]))


KINDS = {
    "memory map": memory_map,
    "sliced": lambda X, path: Sliced(X),
    "hdf5": hdf5,
    "dask": dask_array,
    "iterated": lambda X, path: Iterated(X),
    "uneven": lambda X, path: Iterated(X, 7, 300, 1),
}
ARRAYS = list(KINDS)[:4]


@pytest.fixture
def small_window(monkeypatch):
    """Windows of 128 rows of four numbers in float64, pieces of 16."""
    monkeypatch.setattr(_blocks, "WINDOW_BYTES", 128 * 4 * 8)
    monkeypatch.setattr(_blocks, "BLOCK_BYTES", CHUNK * 4 * 8)


@contextmanager
def rows_in_blocks(source, weight=None, n_sampled=100):
    """BlockRows of a source larger than the window."""
    with opened(source) as blocks:
        yield BlockRows(blocks, weight, CPU, getattr(torch, str(blocks.dtype)), n_sampled)


# Equalities
# ----------


@pytest.mark.parametrize("values", [np.float32, np.float64, np.uint8, np.int16])
@pytest.mark.parametrize("kind", KINDS)
def test_what_fits_the_window_is_an_array(cls, seed, kind, values, tmp_path):
    X = np.abs(blobs(seed)[0] * 10).astype(values)
    model = quick(cls).fit(KINDS[kind](X, tmp_path))
    expected = quick(cls).fit(X)
    assert_same_fit(model, expected)
    source = KINDS[kind](X, tmp_path)
    for method in ("predict", "predict_proba", "transform", "score_samples"):
        answer = getattr(expected, method)(X)
        np.testing.assert_array_equal(getattr(model, method)(source), answer)
        assert getattr(model, method)(source).dtype == answer.dtype


@pytest.mark.parametrize("kind", ARRAYS[1:])
@pytest.mark.parametrize("weighted", [False, True])
def test_arrays_larger_than_the_window_give_one_fit(
    cls, seed, kind, weighted, tmp_path, small_window
):
    X, _ = blobs(seed, n=N)
    weight = np.random.RandomState(seed).uniform(size=N) if weighted else None
    expected = quick(cls).fit(memory_map(X, tmp_path), sample_weight=weight)
    source = KINDS[kind](X, tmp_path)
    assert_same_fit(quick(cls).fit(source, sample_weight=weight), expected)
    partial = [quick(cls).partial_fit(rows).partial_fit(rows) for rows in (X, source)]
    assert_close_fit(*partial, rtol=0.1)
    np.testing.assert_array_equal(partial[1].labels_, partial[1].predict(source))


@pytest.mark.parametrize("kind", KINDS)
def test_fits_in_blocks_find_what_fits_in_memory_find(cls, seed, kind, tmp_path, small_window):
    X, y = blobs(seed, n=N)
    order = np.argsort(y, kind="stable") if kind in ARRAYS else np.arange(N)
    X, y = X[order], y[order]
    source = KINDS[kind](X, tmp_path)
    model, again = quick(cls).fit(source), quick(cls).fit(source)
    assert_same_fit(model, again)
    assert adjusted_rand_score(y, model.labels_) == 1
    np.testing.assert_array_equal(model.labels_, model.predict(X))
    np.testing.assert_allclose(model.weights_, quick(cls).fit(X).weights_.mean(), atol=0.05)
    assert model.score(source) == pytest.approx(quick(cls).fit(X).score(X), rel=0.1)
    assert_same_fit(pickle.loads(pickle.dumps(model)), model)


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_array(cls, seed, dtype, kind, tmp_path, small_window):
    X, _ = blobs(seed, n=N, dtype=dtype)
    weight = np.random.RandomState(seed).uniform(size=N)
    source, model = KINDS[kind](X, tmp_path), quick(cls).fit(X)
    for method in ("predict", "predict_proba", "transform"):
        np.testing.assert_array_equal(getattr(model, method)(source), getattr(model, method)(X))
    np.testing.assert_allclose(model.score_samples(source), model.score_samples(X), rtol=1e-5)
    for given in (None, weight):
        assert model.score(source, sample_weight=given) == pytest.approx(
            model.score(X, sample_weight=given), rel=1e-6
        )
    if cls is ClusteringModuleGMM:
        assert model.bic(source) == pytest.approx(model.bic(X), rel=1e-6)
        assert model.aic(source) == pytest.approx(model.aic(X), rel=1e-6)


def test_the_methods_of_a_fit(cls, seed, tmp_path, small_window):
    X, _ = blobs(seed, n=N)
    source = Iterated(X)
    model = quick(cls).fit(source)
    np.testing.assert_array_equal(quick(cls).fit_predict(source), model.labels_)
    np.testing.assert_array_equal(quick(cls).fit_transform(source), model.transform(X))
    assert model.n_features_in_ == 4
    assert not hasattr(model, "feature_names_in_")
    several = quick(cls, n_init=2).fit(source)
    assert several.loss_ <= model.loss_ + 1e-6
    loss = model.loss_
    model.set_params(warm_start=True, max_iter=5, tol=0.0, n_iter_no_change=99)
    with pytest.warns(UserWarning, match="still falling"):
        model.fit(source)
    assert model.loss_ < loss


def test_frames_out(cls, seed, small_window):
    pandas = pytest.importorskip("pandas")
    X, _ = blobs(seed, n=N)
    model = quick(cls).set_output(transform="pandas").fit(Sliced(X))
    code = model.transform(Sliced(X))
    assert isinstance(code, pandas.DataFrame)
    np.testing.assert_array_equal(code, model.transform(X))


@pytest.mark.parametrize("augment", ["noise", "image", lambda batch, generator: batch + 0.1])
def test_views_of_rows_in_blocks(cls, seed, augment, tmp_path, small_window):
    X, y = blobs(seed, n=N)
    settings = {"augment": augment, "image_shape": (2, 2)}
    model = quick(cls, **settings).fit(memory_map(X, tmp_path))
    assert_same_fit(quick(cls, **settings).fit(Sliced(X)), model)
    if augment != "image":  # an image of four pixels hardly survives
        assert adjusted_rand_score(y, model.labels_) > 0.9
    model.partial_fit(Iterated(X))
    assert len(model.labels_) == N


@pytest.mark.filterwarnings("ignore:Only . of k=3:sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("init", ["k-means++", "pinv", "random"])
def test_starts_of_rows_in_blocks(cls, seed, init, small_window):
    X, _ = blobs(seed, n=N)
    model = quick(cls, init=init).fit(Sliced(X))
    assert_same_fit(quick(cls, init=init).fit(Sliced(X)), model)
    np.testing.assert_array_equal(model.labels_, model.predict(X))


def test_rows_without_weight_do_not_influence(cls, seed, small_window):
    """Whatever lies in them, the same is learned for the other rows."""
    X, _ = blobs(seed, n=N)
    weight = np.random.RandomState(seed).uniform(0.5, 1, size=N)
    weight[::3] = 0
    other = X.copy()
    other[::3] *= 100
    fits = [quick(cls).fit(Sliced(rows), sample_weight=weight) for rows in (X, other)]
    kept = weight > 0
    np.testing.assert_array_equal(fits[0].labels_[kept], fits[1].labels_[kept])
    for name in ("cluster_centers_", "weights_", "covariances_", "loss_"):
        np.testing.assert_allclose(getattr(fits[0], name), getattr(fits[1], name), rtol=1e-6)


def test_a_cache_knows_the_blocks(seed, tmp_path, small_window):
    X, _ = blobs(seed, n=N)
    epochs = []
    settings = {"memory": joblib.Memory(tmp_path / "cache", verbose=0), "callback": epochs.append}

    def n_pretrained(source):
        epochs.clear()
        quick(DeepAEClustering, **settings).fit(source)
        return sum(row["phase"] == "pretraining" for row in epochs)

    other = X.copy()
    other[700, 2] += 1e-9
    assert n_pretrained(memory_map(X, tmp_path)) == 2
    assert n_pretrained(Sliced(X)) == 0
    assert n_pretrained(Sliced(other)) == 2
    # Blocks that come in their own order are shuffled in another way.
    assert n_pretrained(Iterated(X)) == 2


# Rows
# ----


@pytest.mark.parametrize(("n", "batch_size"), [(N, 32), (N, 129), (997, 300), (N, 10**6), (600, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_comes_once(seed, kind, n, batch_size, tmp_path, small_window):
    X, _ = blobs(seed, n=n)
    weight = np.random.RandomState(seed).uniform(size=n)
    with rows_in_blocks(KINDS[kind](X, tmp_path), weight) as rows:
        generator = make_generator(seed)
        passes = [list(rows.batches(batch_size, generator)) for _ in range(2)]
        again = list(rows.batches(batch_size, make_generator(seed)))
    sizes = [len(batch.x) for batch in passes[0]]
    assert len(sizes) == -(-n // batch_size)
    assert max(sizes) - min(sizes) <= 1
    for batches in passes:
        indices = torch.cat([batch.indices for batch in batches])
        np.testing.assert_array_equal(np.sort(indices), np.arange(n))
        for batch in batches:
            np.testing.assert_array_equal(batch.x, X[batch.indices.numpy()])
            np.testing.assert_array_equal(batch.weight, weight[batch.indices.numpy()])
    first, second, third = (torch.cat([b.indices for b in p]) for p in (*passes, again))
    assert not torch.equal(first, second)
    assert torch.equal(first, third)


@pytest.mark.parametrize("kind", ["sliced", "iterated"])
def test_rows_are_shuffled_within_windows_of_blocks(seed, kind, tmp_path, small_window):
    with rows_in_blocks(KINDS[kind](blobs(seed, n=N)[0], tmp_path)) as rows:
        order = torch.cat([b.indices for b in rows.batches(10, make_generator(seed))]).numpy()
    blocks = [set(window // CHUNK) for window in np.array_split(order, 8)]
    # A window holds whole blocks, but for the two at its ends and what one left over.
    assert all(8 <= len(window) <= 12 for window in blocks)
    follows = np.array([max(window) - min(window) < 12 for window in blocks])
    assert follows.all() if kind == "iterated" else not follows.any()


@pytest.mark.parametrize("kind", KINDS)
def test_in_order_as_if_resident(seed, dtype, kind, tmp_path, small_window, monkeypatch):
    monkeypatch.setattr("skaecm._tensors.MOST_ROWS", 90)
    X, _ = blobs(seed, n=N, dtype=dtype)
    resident = ResidentRows(torch.from_numpy(X))
    index = torch.tensor([7, 999, 7, 0, 640])
    with rows_in_blocks(KINDS[kind](X, tmp_path)) as rows:
        for batch, expected in zip(rows.in_order(), resident.in_order(), strict=True):
            assert torch.equal(batch.x, expected.x)
            assert torch.equal(batch.indices, expected.indices)
            batch.x.zero_()
        assert torch.equal(rows.values(index), resident.values(index))
        assert torch.equal(rows.take(index).x, resident.x[index])


@pytest.mark.parametrize("offset", [0.0, 1e6])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_of_one_pass(seed, dtype, weighted, offset, small_window, monkeypatch):
    monkeypatch.setattr("skaecm._tensors.MOST_ROWS", 90)
    X = (np.random.RandomState(seed).standard_normal((N, 3)) + offset).astype(dtype)
    X[:, 2] = offset / 7 + 0.1
    weight = np.random.RandomState(seed).uniform(size=N) if weighted else None
    if weighted:
        weight[:90] = 0
    source = Sliced(X)
    with rows_in_blocks(source, weight) as rows:
        mean, variance, _ = rows.survey
        assert source.n_read == N
        expected = column_moments(rows)
    np.testing.assert_allclose(mean, expected[0], rtol=1e-12)
    np.testing.assert_allclose(variance[:2], expected[1][:2], rtol=1e-9)
    assert variance[2] == 0


def test_the_sample_follows_the_weights(seed, small_window):
    X = np.arange(N * 4, dtype=np.float64).reshape(N, 4)
    weight = np.where(np.arange(N) % 2, 3.0, 1.0)
    weight[::10] = 0
    samples = []
    for given, size in ((None, 100), (weight, 100), (weight, 2 * N)):
        with rows_in_blocks(Iterated(X, 7, 300), given, size) as rows:
            sample = rows.survey.sample[:, 0] // 4
        assert len(np.unique(sample)) == len(sample)
        np.testing.assert_array_equal(np.sort(sample), sample)
        samples.append(sample.astype(int))
    plain, weighted, whole = samples
    assert len(plain) == len(weighted) == 100
    assert 400 < plain.mean() < 600
    assert 400 < weighted.mean() < 600
    assert 0.3 < np.mean(plain % 2) < 0.7 < np.mean(weighted % 2)
    np.testing.assert_array_equal(whole, np.flatnonzero(weight))


def test_edges_keep_chunks_whole():
    assert row_edges(10, 4, None) == [0, 4, 8, 10]
    assert row_edges(10, 4, (3, 7)) == [0, 3, 6, 9, 10]
    assert row_edges(10, 4, (2, 7)) == [0, 4, 8, 10]
    assert row_edges(10, 1, (4, 7)) == [0, 4, 8, 10]
    assert row_edges(10, 4, ((5, 1, 1, 3), (7,))) == [0, 5, 7, 10]
    assert row_edges(10, 5, ((5, 1, 1, 3), (7,))) == [0, 5, 10]
    assert list(balanced(10, 3)) == [4, 3, 3]


def test_labels_are_gathered_from_memory_that_is_used_again(seed, small_window, monkeypatch):
    """At a rate of nothing no label changes after the start."""
    monkeypatch.setattr("skaecm._tensors.MOST_ROWS", 90)
    X, _ = blobs(seed, n=N)
    model = quick(ClusteringModuleGMM, learning_rate_init=1e-300).fit(Sliced(X))
    assert [row["changed"] for row in model.history_] == [0.0] * 3


# Passes and memory
# -----------------


def test_passes_of_a_fit(small_window):
    X, _ = blobs(0, n=N)

    def n_passes(method, model, source):
        before = source.n_read
        getattr(model, method)(source)
        # To see whether rows have partners, the first parcels are looked at.
        return (source.n_read - before) // N

    # Two epochs of pretraining and two of joint training, where there are any.
    model, source = quick(DeepAEClustering), Sliced(X)
    assert n_passes("fit", model, source) == 2 + 2 + 5
    assert n_passes("fit", quick(ClusteringModuleGMM), Sliced(X)) == 2 + 5
    assert n_passes("partial_fit", model, source) == 2
    for method in ("predict", "predict_proba", "transform", "score_samples"):
        assert n_passes(method, model, source) == 1
    blocks = Iterated(X)
    model.predict(blocks)
    # A look whether it is small, a count, and the pass.
    assert blocks.n_passes == 3


def test_chunks_of_dask_are_computed_once_a_pass(seed, small_window):
    array = pytest.importorskip("dask.array")
    X, _ = blobs(seed, n=N)
    model, computed = quick(ClusteringModuleGMM).fit(X), []

    def noted(block, block_info=None):
        computed.append(block_info[0]["chunk-location"])
        return block

    source = array.from_array(X, chunks=(90, 2)).map_blocks(noted, dtype=X.dtype, meta=X[:0])
    computed.clear()
    np.testing.assert_array_equal(model.predict(source), model.predict(X))
    assert len(computed) == len(set(computed)) == 24


MEMORY = """
import sys, numpy as np
sys.path[:0] = {path!r}
from helpers import quick
from skaecm import ClusteringModuleGMM, DeepAEClustering, _blocks
_blocks.WINDOW_BYTES, _blocks.BLOCK_BYTES = 2**22, 2**18
def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
peak = 0
def look(row):
    global peak
    peak = max(peak, anonymous())
X = np.load({file!r}, mmap_mode="r")
for cls in (ClusteringModuleGMM, DeepAEClustering):
    quick(cls).fit(np.array(X[:9000]))
    before = anonymous()
    model = quick(cls, batch_size=2048, callback=look).fit(X)
    look(None)
    model.predict(X)
    look(None)
    assert peak - before < 160, (cls, peak, before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded_by_the_window(tmp_path):
    """A map of 256 MiB in a process of its own, with windows of 4 MiB."""
    X = np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.float32, (2**18, 256))
    block = blobs(0, n=2**12, d=256, dtype=np.float32)[0]
    for start in range(0, len(X), len(block)):
        X[start : start + len(block)] = block
    X.flush()
    code = MEMORY.format(path=[str(ROOT), str(ROOT / "tests")], file=str(tmp_path / "X.npy"))
    subprocess.run([sys.executable, "-c", code], check=True)


# Streams
# -------


def test_the_running_average_of_a_stream(seed, monkeypatch):
    """Whatever the sizes of the blocks, a batch of b rows moves it by b / lookback."""
    gbar, lookback = None, None
    original = Training.run_epoch

    def at_rest(self, rows, **arguments):
        """Nothing is learned, so that the twin can tell every batch's responsibilities."""
        nonlocal gbar, lookback
        network = self.module
        lookback = min(300, lookback + len(rows) // 2)
        twin = torch.Generator()
        twin.set_state(self.generator.get_state())
        for batch in rows.batches(self.batch_size, twin):
            rate = min(1.0, len(batch.x) / lookback)
            with torch.no_grad():
                gbar = (1 - rate) * gbar + rate * network.proba(batch.x).mean(dim=0).numpy()
        return original(self, rows, **arguments)

    monkeypatch.setattr(Training, "run_epoch", at_rest)
    X, _ = blobs(seed, n=900)
    model = quick(ClusteringModuleGMM, learning_rate_init=1e-300).partial_fit(X[:60])
    np.testing.assert_allclose(model.weights_, model.predict_proba(X[:60]).mean(axis=0))
    gbar, lookback, start = model.weights_, 30, 60
    for size in (1, 200, 40, 599):
        model.partial_fit(X[start : start + size])
        start += size
        assert model.module_.clustering.lookback == lookback
        np.testing.assert_allclose(model.weights_, gbar, rtol=1e-9)
    assert lookback == _modules.ROWS_PER_CLUSTER * 3


def test_a_stream_after_a_small_first_block(cls, seed):
    """The average is of the stream, not of the last batch."""
    X, y = blobs(seed, n=3000)
    model = quick(cls, batch_size=50, learning_rate_init=1e-9).partial_fit(X[:9])
    model.partial_fit(X)
    last = X[y == 0][:50]
    model.partial_fit(last)
    assert model.weights_.max() < 0.6


def test_a_pass_of_a_stream_over_a_source(cls, seed, small_window):
    """One block or all blocks at once: a source is one pass, whatever it is cut into."""
    X, _ = blobs(seed, n=N)
    models = [quick(cls).fit(X).partial_fit(source) for source in (Iterated(X), Iterated(X, 50))]
    assert_same_fit(*models)
    assert models[0].history_[-1]["epoch"] == models[0].n_iter_
    assert len(models[0].labels_) == N


# Refused
# -------


def test_one_pass_only(cls):
    X, _ = blobs(0)
    for source in (iter([X]), (X for _ in range(2)), map(np.asarray, [X])):
        for method in ("fit", "partial_fit"):
            with pytest.raises(ValueError, match=r"iterable more than once, but is a .*__iter__"):
                getattr(quick(cls), method)(source)
        with pytest.raises(ValueError, match="iterable more than once"):
            quick(cls).fit(X).predict(source)


class Shrinking(Iterated):
    """Gives a row less with every pass."""

    def __iter__(self):
        yield from super().__iter__()
        self.X = self.X[:-1]


@pytest.mark.parametrize("pieces", ["small", "large"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite(cls, pieces, value, request):
    if pieces == "large":
        request.getfixturevalue("small_window")
    X, _ = blobs(0, n=N)
    model = quick(cls).fit(X)
    bad = X.copy()
    bad[777, 2] = value
    message = "Input X contains " + ("NaN" if np.isnan(value) else "infinity")
    message += r"(.|\n)*See row 777, counted from 0" if pieces == "large" else ""
    for source in (Sliced(bad), Iterated(bad)):
        before = dict(vars(model))
        for method in ("fit", "partial_fit", "predict", "score"):
            with pytest.raises(ValueError, match=message):
                getattr(model, method)(source)
        assert vars(model) == before


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([np.zeros(4)], r"block 0 is a ndarray of shape \(4,\) and dtype float64"),
        ([np.zeros((2, 4), dtype=complex)], "real numbers.*complex128"),
        ([np.zeros((2, 4)), np.zeros((2, 3))], r"as the first, 4, but block 1 has shape \(2, 3\)"),
        ([[["a", "b"]]], "block 0 is a list of shape .*dtype <U1"),
        ([], "at least one row, but its iterator gave none"),
        ([np.zeros((0, 4))], "at least one row"),
    ],
)
def test_blocks_that_are_refused(cls, blocks, message):
    class Source:
        def __iter__(self):
            return iter(blocks)

    with pytest.raises(ValueError, match=message):
        quick(cls).fit(Source())


def test_sources_that_do_not_fit(cls, tmp_path, small_window):
    X, _ = blobs(0, n=N)
    model = quick(cls).fit(X)
    adjacency = np.eye(N)
    for source in (Sliced(X), Iterated(X)):
        name = type(source).__name__
        with pytest.raises(ValueError, match=f"n_neighbors cannot be used.*{name} of more than"):
            quick(cls, n_neighbors=3).fit(source)
        with pytest.raises(ValueError, match="n_neighbors cannot be used"):
            quick(cls, n_neighbors=3).partial_fit(source)
        with pytest.raises(ValueError, match=r"adjacency cannot be used.*memory map"):
            quick(cls).fit(source, adjacency=adjacency)
        with pytest.raises(ValueError, match="adjacency cannot be used"):
            model.predict(source, adjacency=adjacency)
        with pytest.raises(ValueError, match=r"sample_weight.shape == \(9,\), expected \(1000,\)"):
            quick(cls).fit(source, sample_weight=np.ones(9))
        with pytest.raises(ValueError, match="k=1001 must be at most the number of rows"):
            quick(cls, k=1001).fit(source)
    for source in (Sliced(X[:, :3]), Iterated(X[:, :3])):
        with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4"):
            model.predict(source)
    with pytest.raises(
        ValueError, match=r"same blocks every time.*\(1000, 4\) first and \(999, 4\)"
    ):
        quick(cls).fit(Shrinking(X))
    # A map has all rows at hand.
    neighbours = quick(cls, n_neighbors=3)
    mapped = memory_map(X, tmp_path)
    assert_same_fit(neighbours.fit(mapped), pickle.loads(pickle.dumps(neighbours)).fit(X))


def test_a_dask_array_of_unknown_length(cls):
    X = dask_array(blobs(0)[0], None)
    with pytest.raises(ValueError, match=r"known number of rows.*compute_chunk_sizes\(\)"):
        quick(cls).fit(X[X[:, 0] > 0])


def test_what_scikit_learn_takes_itself(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls).fit(X)
    for same in (X.tolist(), tuple(map(tuple, X)), torch.from_numpy(X), np.asfortranarray(X)):
        assert_same_fit(quick(cls).fit(same), model)
    with pytest.raises(ValueError, match="Expected 2D array"):
        quick(cls).fit(Sliced(X[:, 0]))
    with pytest.raises(TypeError, match="not 'set'"):
        quick(cls).fit({1, 2})


class OutOfOrder(Exception):
    """Of a user's iterator."""


def test_the_thread_ends_with_the_call(cls, seed, small_window):
    X, _ = blobs(seed, n=N)
    before = set(threading.enumerate())
    model = quick(cls).fit(Sliced(X))
    model.predict(Iterated(X))
    assert set(threading.enumerate()) == before

    class Failing(Iterated):
        def __iter__(self):
            yield from super().__iter__()
            if self.n_passes > 4:
                raise OutOfOrder

    failing = [
        (Failing(X), OutOfOrder, {}),
        (Sliced(X), ValueError, {"learning_rate_init": 1e200}),
        (Sliced(X), OutOfOrder, {"callback": lambda row: (_ for _ in ()).throw(OutOfOrder)}),
    ]
    for source, error, settings in failing:
        # Held, as a debugger would hold it.
        with pytest.raises(error) as held:
            quick(cls, **settings).fit(source)
        assert set(threading.enumerate()) == before
        assert held.value is not None
