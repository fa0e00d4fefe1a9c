"""How many clusters: ``k="auto"`` on both estimators, and `n_clusters_`."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import assert_same_fit, blobs, quick
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm._valleys import BETWEEN, FEWEST_ROWS, PLACES, count_clusters, most_clusters, valleys


def spread_blobs(seed, k, d, n, sep=7.0):
    """Rows of ``k`` round clusters whose centres are at least ``sep`` deviations apart."""
    rng = np.random.RandomState(seed)
    side = sep
    while True:
        centers = []
        for center in rng.uniform(-side, side, (500, d)):
            if all(np.linalg.norm(center - other) >= sep for other in centers[:k]):
                centers.append(center)
        if len(centers) >= k:
            break
        side *= 1.2
    labels = rng.permutation(np.arange(n) % k)
    return np.array(centers)[labels] + rng.standard_normal((n, d)), labels


# Counting
# --------


@pytest.mark.parametrize(("k", "d", "n"), [(1, 3, 200), (2, 2, 100), (5, 8, 300), (9, 60, 600)])
def test_separated_clusters_are_counted(seed, dtype, k, d, n):
    X, _ = spread_blobs(seed, k, d, n, sep=9.0)
    assert count_clusters(X.astype(dtype), seed=seed, sample_weight=None) == k


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_clusters_of_different_spread_and_size_are_counted(seed, spread):
    X, _ = blobs(seed, n=300)
    X = np.vstack([X, 40.0 + spread * np.random.RandomState(seed).standard_normal((60, 4))])
    assert count_clusters(X, seed=seed, sample_weight=None) == 4


def test_a_long_cluster_is_one(seed):
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((600, 4)) * [30.0, 1.0, 1.0, 1.0]
    X[::2, 1] += 12.0
    assert count_clusters(X, seed=seed, sample_weight=None) == 2


def test_a_flat_density_is_one_cluster(seed):
    X = np.random.RandomState(seed).uniform(size=(500, 3))
    assert count_clusters(X, seed=seed, sample_weight=None) == 1


def test_counting_does_not_see_scale_place_and_rotation(seed):
    X, _ = spread_blobs(seed, 4, 3, 300, sep=9.0)
    Q, _ = np.linalg.qr(np.random.RandomState(seed).standard_normal((3, 3)))
    for moved in (X, 1e6 * X, X + 1e3, X @ Q):
        assert count_clusters(moved, seed=seed, sample_weight=None) == 4


def test_sparse_rows_are_counted_as_dense_ones(seed):
    X = np.hstack([blobs(seed, n=200, k=4)[0], np.zeros((200, 8))])
    dense = count_clusters(X, seed=seed, sample_weight=None)
    assert dense == count_clusters(sp.csr_matrix(X), seed=seed, sample_weight=None) == 4


def test_rows_without_weight_do_not_count(seed):
    X, y = blobs(seed, n=300, k=4)
    weight = (y < 3).astype(float)
    kept = count_clusters(X[y < 3], seed=seed, sample_weight=None)
    assert count_clusters(X, seed=seed, sample_weight=weight) == kept == 3


@pytest.mark.parametrize(("n", "most"), [(1, 1), (19, 1), (20, 2), (999, 99), (10**6, 100)])
def test_the_most_clusters_depend_on_the_number_of_rows_alone(n, most):
    assert most_clusters(n) == most


def test_equal_rows_are_one_cluster(seed):
    X = np.ones((50, 3))
    assert count_clusters(X, seed=seed, sample_weight=None) == 1
    X[:25] = 0.0
    assert count_clusters(X, seed=seed, sample_weight=None) == 2


def slow_valley(x, labels, a, b, means, lines):
    """The depth of one valley, from the definition."""
    v = lines[:, b] - lines[:, a]
    t = (x[(labels == a) | (labels == b)] - means[a]) @ v / ((means[b] - means[a]) @ v)
    width = PLACES[1] - PLACES[0]
    counts = np.array([((t >= p - width / 2) & (t < p + width / 2)).sum() for p in PLACES])
    t = np.repeat(PLACES, counts)
    h = 1.06 * t.std() * len(t) ** -0.2
    frequency = 2 * np.pi * np.fft.fftfreq(8 * len(PLACES), width)
    kernel = np.exp(-0.5 * (h * frequency) ** 2)
    density = np.fft.ifft(np.fft.fft(counts, 8 * len(PLACES)) * kernel).real[: len(PLACES)]
    return min(
        density[i] / min(density[: i + 1].max(), density[i:].max())
        for i in np.flatnonzero(BETWEEN)
        if min(counts[: i + 1].sum(), counts[i + 1 :].sum()) >= FEWEST_ROWS
    )


def test_valleys_against_their_definition(seed):
    rng = np.random.RandomState(seed)
    means = rng.standard_normal((4, 3)) * 3
    labels = np.arange(400) % 4
    x = means[labels] + rng.standard_normal((400, 3))
    lines = np.linalg.solve(np.eye(3) + 0.3, means.T)
    found = valleys(x, labels, np.ones(400), means, lines)
    for b in range(4):
        for a in range(b):
            np.testing.assert_allclose(
                found[a, b], slow_valley(x, labels, a, b, means, lines), atol=1e-6
            )


# Fits
# ----


def test_auto_is_the_fit_with_the_number_that_was_found(cls, seed, dtype):
    X, _ = blobs(seed, n=200, k=4, dtype=dtype)
    model = quick(cls, k="auto").fit(X)
    assert model.k == "auto"
    assert model.n_clusters_ == 4
    assert_same_fit(model, quick(cls, k=4).fit(X))
    assert clone(model).k == "auto"


def test_both_estimators_find_the_same_number(seed):
    X, _ = spread_blobs(seed, 6, 2, 300, sep=9.0)
    shallow = quick(ClusteringModuleGMM, k="auto").fit(X)
    deep = quick(DeepAEClustering, k="auto", n_components=None).fit(X)
    assert shallow.n_clusters_ == deep.n_clusters_ == 6


def test_the_embedding_is_as_wide_as_there_are_clusters(seed):
    X, _ = spread_blobs(seed, 12, 6, 480, sep=9.0)
    model = quick(DeepAEClustering, k="auto", n_components=None).fit(X)
    k = len(model.weights_)
    assert model.n_components_ == k > 10
    assert_same_fit(model, quick(DeepAEClustering, k=k, n_components=None).fit(X))


@pytest.mark.parametrize(("n", "has_partners"), [(399, False), (400, True)])
def test_neighbours_are_sought_for_the_number_that_was_found(seed, n, has_partners):
    X, _ = blobs(seed, n=n, k=4)
    model = quick(DeepAEClustering, k="auto", n_neighbors="auto").fit(X)
    assert ("contrast" in model.history_[-1]) == has_partners
    assert_same_fit(model, quick(DeepAEClustering, k=4, n_neighbors="auto").fit(X))


def test_an_embedding_of_a_given_width_stays(seed):
    X, _ = blobs(seed, n=200, k=4)
    with pytest.warns(UserWarning, match="n_components=2 is smaller than k=4"):
        model = quick(DeepAEClustering, k="auto", n_components=2).fit(X)
    assert model.n_components_ == 2


def test_auto_where_entries_are_missing(cls, seed):
    X, _ = blobs(seed, n=300)
    X[np.random.RandomState(seed).uniform(size=X.shape) < 0.02] = np.nan
    model = quick(cls, k="auto", missing="mask").fit(X)
    assert_same_fit(model, quick(cls, k=model.n_clusters_, missing="mask").fit(X))


def test_auto_with_partners_weights_and_a_graph(cls, seed):
    X, y = blobs(seed, n=200, k=4)
    rng = np.random.RandomState(seed)
    weight = rng.uniform(0.5, 2.0, size=len(X))
    graph = sp.csr_matrix((y[:, None] == y) & (rng.uniform(size=(200, 200)) < 0.05))
    for settings in ({"n_neighbors": 5}, {"augment": "noise"}):
        model = quick(cls, k="auto", **settings).fit(X, sample_weight=weight, adjacency=graph)
        k = len(model.weights_)
        told = quick(cls, k=k, **settings).fit(X, sample_weight=weight, adjacency=graph)
        assert_same_fit(model, told)


@pytest.mark.parametrize("init", ["k-means++", "pinv", "random"])
@pytest.mark.filterwarnings("ignore:Only .* clusters hold rows")
def test_auto_with_other_starts(cls, seed, init):
    X, _ = blobs(seed, n=200, k=4)
    model = quick(cls, k="auto", init=init, n_init=2).fit(X)
    assert_same_fit(model, quick(cls, k=len(model.weights_), init=init, n_init=2).fit(X))


def test_auto_has_the_number_of_a_start_that_is_given(cls, seed):
    X, _ = blobs(seed, n=200, k=4)
    kmeans = KMeans(3, n_init=1, random_state=0).fit(X)
    for init in (kmeans, kmeans.cluster_centers_, quick(cls, k=3).fit(X)):
        model = quick(cls, k="auto", init=init).fit(X)
        assert len(model.cluster_centers_) == 3
        assert_same_fit(model, quick(cls, k=3, init=init).fit(X))


def test_auto_on_a_given_autoencoder(seed):
    X, _ = blobs(seed, n=200, k=4)
    first = quick(DeepAEClustering, k="auto", max_iter=0).fit(X)
    model = quick(DeepAEClustering, k="auto", init=first.autoencoder_).fit(X)
    assert model.n_clusters_ == 4


def test_auto_goes_on_with_the_number_it_found(cls, seed):
    X, _ = blobs(seed, n=200, k=4)
    half = X[:12]
    model = quick(cls, k="auto", warm_start=True).fit(X)
    assert len(model.fit(half).weights_) == 4
    stream = quick(cls, k="auto").partial_fit(X)
    assert stream.n_clusters_ == 4
    stream.partial_fit(half)
    assert len(stream.weights_) == 4
    assert stream.n_clusters_ == len(np.unique(stream.labels_))


def test_auto_in_a_checkpoint(cls, seed, tmp_path):
    pytest.importorskip("safetensors")
    X, _ = blobs(seed, n=200, k=4)
    model = quick(cls, k="auto", checkpoint=tmp_path).fit(X)
    assert_same_fit(model, quick(cls, k="auto", checkpoint=tmp_path).fit(X))
    with pytest.raises(ValueError, match="k was 'auto', is 4"):
        quick(cls, k=4, checkpoint=tmp_path).fit(X)


def test_auto_of_rows_in_blocks(cls, seed, monkeypatch, tmp_path):
    X, _ = blobs(seed, n=400, k=4)
    np.save(tmp_path / "rows.npy", X)
    monkeypatch.setattr("skaecm._blocks.WINDOW_BYTES", 2**12, raising=True)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert quick(cls, k="auto").fit(mapped).n_clusters_ == 4


@pytest.mark.parametrize("alpha", [[0.1, 0.2], np.ones(4), [-1.0]])
def test_auto_takes_one_number_as_alpha(cls, alpha):
    X, _ = blobs(0)
    with pytest.raises(ValueError, match="alpha must be with k='auto' one number, finite"):
        quick(cls, k="auto", alpha=alpha).fit(X)


def test_other_words_than_auto_are_refused(cls):
    X, _ = blobs(0)
    with pytest.raises(ValueError, match=r"'k' parameter .* must be .*auto"):
        quick(cls, k="many").fit(X)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_n_clusters_are_those_that_hold_rows(cls, seed):
    X = np.repeat(np.eye(3), 10, axis=0) * 9.0
    width = {"n_components": 5} if cls is DeepAEClustering else {}
    with pytest.warns(ConvergenceWarning, match="Only 3 of k=5 clusters hold rows"):
        model = quick(cls, k=5, **width).fit(X)
    assert model.n_clusters_ == len(np.unique(model.labels_)) == 3
    assert len(model.cluster_centers_) == 5


def test_few_rows_are_one_cluster(cls):
    X, _ = blobs(0, n=12)
    model = quick(cls, k="auto").fit(X)
    assert model.n_clusters_ == 1
    assert not model.predict(X).any()
