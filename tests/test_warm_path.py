"""``warm_start`` along a path of k: clusters split and merged, all others as they were."""

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import assert_same_fit, blobs, learned, quick
from scipy.special import logsumexp, softmax
from scipy.stats import norm
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm._initialization import Start, posterior_encoder, within_variance
from skaecm._resizing import merged, resized, split


def start_of(x, labels, weight=None):
    """The E-step of the mixture of labelled rows."""
    means = np.array([x[labels == j].mean(axis=0) for j in range(labels.max() + 1)])
    return posterior_encoder(means, within_variance(x, means, weight))


def logits_of(start, x):
    return x @ start.weight.T + start.bias


# One step
# --------


def test_a_split_cuts_the_cluster_that_is_two(seed):
    x, y = blobs(seed, n=120, k=4)
    start = start_of(x, np.minimum(y, 2))
    labels = logits_of(start, x).argmax(axis=1)
    new = split(start, x, labels, np.ones(len(x)))
    assert adjusted_rand_score(y, logits_of(new, x).argmax(axis=1)) == 1.0
    for before, after in zip(start, new, strict=True):
        np.testing.assert_array_equal(after[:2], before[:2])
    halves = np.sort(new.means[2:], axis=0)
    np.testing.assert_allclose(halves, np.sort([x[y == j].mean(axis=0) for j in (2, 3)], axis=0))


def test_halves_share_the_responsibility_as_the_mixture_says(seed):
    x, y = blobs(seed, n=120, k=4)
    weight = np.random.RandomState(seed).uniform(size=len(x))
    start = start_of(x, np.minimum(y, 2), weight)
    new = split(start, x, logits_of(start, x).argmax(axis=1), weight)
    deviation = np.sqrt(within_variance(x, start.means, weight))
    share = np.bincount(y, weight)[2:]
    order = (
        [2, 3]
        if np.allclose(new.means[2], np.average(x[y == 2], axis=0, weights=weight[y == 2]))
        else [3, 2]
    )

    def log_density(mean):
        return norm.logpdf(x, mean, deviation).sum(axis=1)

    mixture = logsumexp(
        [
            log_density(new.means[j]) + np.log(share[o - 2] / share.sum())
            for j, o in zip((2, 3), order, strict=True)
        ],
        axis=0,
    )
    expected = logits_of(start, x)[:, 2] + mixture - log_density(start.means[2])
    np.testing.assert_allclose(logsumexp(logits_of(new, x)[:, 2:], axis=1), expected, rtol=1e-9)


@pytest.mark.parametrize("cold", [0.03, 0.5])
def test_a_split_keeps_the_temperature(seed, cold):
    x, y = blobs(seed, n=120, k=4)
    start = start_of(x, np.minimum(y, 2))
    labels = logits_of(start, x).argmax(axis=1)
    expected = split(start, x, labels, np.ones(len(x)))
    warm = Start(cold * start.weight, cold * start.bias, start.means)
    found = split(warm, x, labels, np.ones(len(x)))
    np.testing.assert_allclose(logits_of(found, x), cold * logits_of(expected, x), rtol=1e-9)


def test_a_merger_joins_what_costs_least(seed):
    x, y = blobs(seed, n=120, k=4)
    cut = np.where(y == 3, 3 + (x[:, 0] > np.median(x[y == 3, 0])), y)
    start = start_of(x, cut)
    weight = np.random.RandomState(seed).uniform(0.5, 1.0, size=len(x))
    new = merged(start, x, cut, weight)
    np.testing.assert_array_equal(new.means[:3], start.means[:3])
    share = np.bincount(cut, weight)[3:]
    np.testing.assert_allclose(new.means[3], np.average(start.means[3:], axis=0, weights=share))
    before = softmax(logits_of(start, new.means[3:]), axis=1)[0, 3:].sum()
    np.testing.assert_allclose(softmax(logits_of(new, new.means[3:]), axis=1)[0, 3], before)
    assert adjusted_rand_score(y, logits_of(new, x).argmax(axis=1)) == 1.0


def test_an_empty_cluster_goes_first(seed):
    x, y = blobs(seed, n=120, k=4)
    start = start_of(x, y)
    more = Start(*(np.concatenate([part, part[:1]]) for part in start))
    more.bias[4] = -1e3
    new = resized(more, x, None, np.zeros(4), 1.0, 4)
    assert sorted(new.means.sum(axis=1)) == pytest.approx(sorted(start.means.sum(axis=1)))


def test_offset_and_scale_are_those_of_the_module(seed):
    x, y = blobs(seed, n=120, k=4)
    offset, scale = x.mean(axis=0), 3.0
    seen = (x - offset) / scale
    for labels, k in ((np.minimum(y, 2), 4), (y, 2)):
        start = start_of(seen, labels)
        expected = resized(start, seen, None, np.zeros(4), 1.0, k)
        found = resized(start, x, None, offset, scale, k)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


# Fits
# ----


@pytest.mark.parametrize("first", [3, 5, 6])
@pytest.mark.filterwarnings("ignore:Only .* clusters hold rows")
def test_a_path_over_k_finds_the_clusters(cls, seed, first):
    X, y = blobs(seed, n=160, k=4)
    settings = {"pretrain_iter": 30, "n_components": 6} if cls is DeepAEClustering else {}
    model = quick(cls, k=first, warm_start=True, **settings).fit(X)
    model.set_params(k=4, max_iter=0).fit(X)
    assert adjusted_rand_score(y, model.labels_) > 0.95
    model.set_params(max_iter=100).fit(X)
    assert adjusted_rand_score(y, model.labels_) == 1.0
    assert model.cluster_centers_.shape == (4, X.shape[1])
    assert model.weights_.sum() == pytest.approx(1.0)


def test_the_same_k_goes_on_as_it_did(cls, seed):
    X, _ = blobs(seed)
    first = quick(cls, warm_start=True).fit(X)
    np.testing.assert_array_equal(
        learned(clone(first).fit(X).set_params(max_iter=0).fit(X))["clustering.means"],
        learned(first)["clustering.means"],
    )


def test_one_seed_one_path(cls, seed):
    X, _ = blobs(seed)
    paths = [quick(cls, warm_start=True).fit(X).set_params(k=4).fit(X) for _ in range(2)]
    assert_same_fit(*paths)


def test_a_path_over_sparse_rows_is_that_over_dense_ones(seed):
    X = np.hstack([blobs(seed)[0], np.zeros((90, 8))])
    labels = []
    for rows in (X, sp.csr_matrix(X)):
        model = quick(ClusteringModuleGMM, k=2, warm_start=True).fit(rows)
        for k in (3, 4, 3):
            model.set_params(k=k).fit(rows)
        labels.append(model.labels_)
    assert adjusted_rand_score(*labels) == 1.0


@pytest.mark.filterwarnings("ignore:Only .* clusters hold rows")
def test_a_path_over_incomplete_rows_and_weights(cls, seed):
    X, _ = blobs(seed)
    rng = np.random.RandomState(seed)
    X[rng.uniform(size=X.shape) < 0.05] = np.nan
    weight = rng.uniform(size=len(X))
    model = quick(cls, warm_start=True, missing="mask").fit(X, sample_weight=weight)
    for k in (4, 2):
        model.set_params(k=k).fit(X, sample_weight=weight)
        assert model.predict_proba(X).shape == (len(X), k)


def test_a_path_over_rows_in_blocks(cls, seed, monkeypatch, tmp_path):
    X, y = blobs(seed, n=400, k=4)
    np.save(tmp_path / "rows.npy", X)
    monkeypatch.setattr("skaecm._blocks.WINDOW_BYTES", 2**12)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    settings = {"pretrain_iter": 20} if cls is DeepAEClustering else {}
    model = quick(cls, k=3, warm_start=True, **settings).fit(mapped)
    model.set_params(k=4, max_iter=0).fit(mapped)
    assert adjusted_rand_score(y, model.labels_) > 0.95


def test_a_path_that_is_kept(cls, seed, tmp_path):
    pytest.importorskip("safetensors")
    X, _ = blobs(seed)
    model = quick(cls, warm_start=True).fit(X)
    paths = []
    for _ in range(2):
        path = clone(model).set_params(warm_start=True).fit(X).set_params(k=4)
        paths.append(path.set_params(checkpoint=tmp_path).fit(X))
    assert_same_fit(*paths)


def test_more_clusters_than_the_embedding_is_wide(seed):
    X, _ = blobs(seed)
    model = quick(DeepAEClustering, warm_start=True).fit(X).set_params(k=5)
    with pytest.warns(UserWarning, match="n_components=4 is smaller than k=5"):
        model.fit(X)
    assert model.n_components_ == 4


def test_one_more_pass_keeps_its_clusters(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls).fit(X).set_params(k=4)
    before = model.labels_
    with pytest.raises(ValueError, match="partial_fit continues from a fit with k=3, but here k=4"):
        model.partial_fit(X)
    assert model.labels_ is before
