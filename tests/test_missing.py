"""Missing entries: what was observed counts, and nothing else does."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import AT_ONCE, assert_close_fit, assert_same_fit, blobs, quick
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.base import clone
from sklearn.utils import get_tags

import skaecm
from skaecm import ClusteringModuleGMM, DeepAEClustering, _losses
from skaecm._missing import (
    completed,
    filled,
    has_missing,
    observed_kmeans,
    squared_distances,
)
from skaecm._modules import mixture_terms, together
from skaecm._rows import (
    IncompleteRows,
    Neighbours,
    PairedRows,
    column_moments,
    make_rows,
)
from skaecm._tensors import make_generator
from skaecm.metrics import clustering_accuracy

CPU = torch.device("cpu")


def incomplete(seed, n=90, d=8, share=0.2, dtype=np.float64):
    """Blobs with missing entries, their labels, and the same rows complete."""
    X, y = blobs(seed, n=n, d=d, dtype=dtype)
    holes = np.random.RandomState(seed + 1).uniform(size=X.shape) < share
    return np.where(holes, np.nan, X).astype(dtype), y, X


def with_nan_stored(X):
    """The rows as CSR: zeros are values and not stored, NaN are stored."""
    return sp.csr_array(X)


# Terms of the loss
# -----------------


def random_terms(seed, n=7, d=5, k=3):
    generator = torch.Generator().manual_seed(seed)
    x, means = (torch.randn(m, d, dtype=torch.float64, generator=generator) for m in (n, k))
    g = torch.softmax(torch.randn(n, k, dtype=torch.float64, generator=generator), dim=1)
    seen = (torch.rand(n, d, dtype=torch.float64, generator=generator) < 0.6).double()
    weight = torch.rand(n, dtype=torch.float64, generator=generator)
    return x, g, means, weight / weight.mean(), seen


def test_terms_are_those_of_loops(seed):
    x, g, means, weight, seen = random_terms(seed)
    (n, d), k = x.shape, len(means)
    expected = dict.fromkeys(["distortion", "e1", "e2", "squared_error"], 0.0)
    xhat = x.flip(0)
    for i in range(n):
        for j in range(d):
            if not seen[i, j]:
                continue
            share = weight[i] / n
            expected["squared_error"] += share * (x[i, j] - xhat[i, j]) ** 2
            expected["e1"] += share * (x[i, j] - sum(g[i] * means[:, j])) ** 2
            for a in range(k):
                expected["distortion"] += share * g[i, a] * (x[i, j] - means[a, j]) ** 2
                expected["e2"] += share * g[i, a] * (1 - g[i, a]) * means[a, j] ** 2
    found = {
        "distortion": _losses.distortion(x, g, means, weight, seen),
        "e1": _losses.e1(x, g, means, weight, seen),
        "e2": _losses.e2(g, means, weight, seen),
        "squared_error": _losses.squared_error(x, xhat, weight, seen),
    }
    for name, value in found.items():
        assert float(value) == pytest.approx(float(expected[name]), rel=1e-12), name
    terms = mixture_terms(x, g, means, weight, 2.0, seen)
    assert float(sum(terms.values())) == pytest.approx(float(found["distortion"]) / 2, rel=1e-12)
    assert float(terms["E1"]) == pytest.approx(float(found["e1"]) / 2, rel=1e-12)


def test_all_seen_is_as_without_a_mask(seed):
    x, g, means, weight, seen = random_terms(seed)
    whole = torch.ones_like(seen)
    for w in (None, weight):
        pairs = [
            (_losses.distortion(x, g, means, w, whole), _losses.distortion(x, g, means, w)),
            (_losses.e1(x, g, means, w, whole), _losses.e1(x, g, means, w)),
            (_losses.e2(g, means, w, whole), _losses.e2(g, means, w)),
            (_losses.squared_error(x, -x, w, whole), _losses.squared_error(x, -x, w)),
        ]
        for masked, plain in pairs:
            torch.testing.assert_close(masked, plain, rtol=1e-12, atol=1e-12)


def test_gradients_are_right_and_none_reaches_a_missing_entry(seed):
    x, g, means, weight, seen = random_terms(seed)
    for tensor in (x, g, means):
        tensor.requires_grad_()
    for function in (
        lambda x, g, means: _losses.distortion(x, g, means, weight, seen),
        lambda x, g, means: _losses.squared_error(x, g @ means, None, seen),
    ):
        assert torch.autograd.gradcheck(function, (x, g, means))
        (gradient,) = torch.autograd.grad(function(x, g, means), x)
        assert (gradient[seen == 0] == 0).all()
        assert (gradient[seen == 1] != 0).all()


@pytest.mark.parametrize("kind", [np.asarray, with_nan_stored], ids=["dense", "sparse"])
def test_squared_distances_are_those_of_loops(seed, dtype, kind):
    X, _, _ = incomplete(seed, n=20, dtype=dtype)
    X[3] = np.nan
    centers = np.random.RandomState(seed).normal(size=(3, 8)).astype(dtype) + 2
    squared, n_observed = squared_distances(kind(X), centers)
    seen = ~np.isnan(X)
    np.testing.assert_array_equal(n_observed, seen.sum(axis=1))
    expected = [[np.sum((x[m] - c[m]) ** 2) for c in centers] for x, m in zip(X, seen, strict=True)]
    rtol = 1e-9 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(squared, expected, rtol=rtol, atol=rtol * 100)


def distortion(X, centers, weight):
    """Distortion of the nearest centres over the observed entries, by NumPy."""
    squared = np.nansum((X[:, None] - centers) ** 2, axis=2)
    return np.average(squared.min(axis=1), weights=weight)


@pytest.mark.parametrize("kind", [np.asarray, with_nan_stored], ids=["dense", "sparse"])
def test_rows_of_few_directions_are_completed(seed, dtype, kind):
    rng = np.random.RandomState(seed)
    X = (rng.standard_normal((200, 2)) @ rng.standard_normal((2, 12)) + 3.0).astype(dtype)
    holes = rng.uniform(size=X.shape) < 0.2
    given = kind(np.where(holes, np.nan, X).astype(dtype))
    means = np.nanmean(np.where(holes, np.nan, X), axis=0)
    found = completed(given, means)
    assert found.dtype == dtype
    found = found.toarray() if sp.issparse(found) else found
    np.testing.assert_array_equal(found[~holes], X[~holes])
    by_means = np.square(filled(np.where(holes, np.nan, X), means) - X).sum()
    assert np.square(found - X).sum() < 0.1 * by_means


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", [np.asarray, with_nan_stored], ids=["dense", "sparse"])
def test_kmeans_over_what_was_observed(seed, kind, weighted):
    X, y, _ = incomplete(seed, share=0.4)
    weight = np.random.RandomState(seed).uniform(size=90) if weighted else None
    start = np.array([X[y == label][:3] for label in range(3)])
    start = np.where(np.isnan(start), 0.0, start).mean(axis=1)
    centers = observed_kmeans(kind(X), start, weight)
    assert distortion(X, centers, weight) < distortion(X, start, weight)
    labels = np.nansum((X[:, None] - centers) ** 2, axis=2).argmin(axis=1)
    w = np.ones(90) if weight is None else weight
    seen = ~np.isnan(X)
    for label, center in enumerate(centers):
        own = w[:, None] * (labels == label)[:, None] * seen
        np.testing.assert_allclose(center, (own * filled(X, center)).sum(0) / own.sum(0))


# Rows
# ----


KINDS = {
    "resident": lambda x: x,
    "read-only": lambda x: np.frombuffer(x.tobytes(), dtype=x.dtype).reshape(x.shape),
    "sparse": with_nan_stored,
}


def rows_of(kind, X, weight=None):
    dtype = torch.float64 if X.dtype == np.float64 else torch.float32
    return IncompleteRows(make_rows(KINDS[kind](X), weight, CPU, dtype))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_are_those_of_the_observed_entries(seed, dtype, kind, weighted):
    X, _, _ = incomplete(seed, dtype=dtype)
    weight = np.random.RandomState(seed).uniform(size=90) if weighted else np.ones(90)
    weight /= weight.mean()
    mean, variance = column_moments(rows_of(kind, X, weight if weighted else None))
    for j, column in enumerate(X.T.astype(np.float64)):
        seen = ~np.isnan(column)
        expected = np.average(column[seen], weights=weight[seen])
        assert float(mean[j]) == pytest.approx(expected, rel=1e-6)
        spread = np.average((column[seen] - expected) ** 2, weights=weight[seen])
        assert float(variance[j]) == pytest.approx(spread, rel=1e-5)


def test_partners_have_entries_missing_of_their_own(seed):
    X, _, _ = incomplete(seed)
    fill = torch.arange(8.0, dtype=torch.float64)
    rows = rows_of("resident", X).filled_with(fill)
    graph = sp.csr_array(np.roll(np.eye(90), 1, axis=1))
    expected = np.where(np.isnan(X), fill, X)
    other = (np.arange(90) + 1) % 90
    for batch in PairedRows(rows, Neighbours(graph, CPU), None).batches(32, make_generator(seed)):
        np.testing.assert_array_equal(batch.partner, expected[other[batch.indices]])
        np.testing.assert_array_equal(batch.partner_seen, ~np.isnan(X[other[batch.indices]]))
        both = together(batch)
        np.testing.assert_array_equal(both.seen, torch.cat([batch.seen, batch.partner_seen]))
    shaken = PairedRows(rows, None, lambda batch, generator: batch + 1)
    for batch in shaken.batches(32, make_generator(seed)):
        x = expected[batch.indices]
        np.testing.assert_array_equal(batch.x, x)
        np.testing.assert_array_equal(batch.partner, np.where(np.isnan(X[batch.indices]), x, x + 1))


# Fits
# ----


@pytest.mark.parametrize("params", [{}, {"n_neighbors": 4}, {"augment": "noise"}])
def test_without_nan_nothing_changes(cls, seed, params):
    X, _ = blobs(seed)
    for rows in (X, sp.csr_array(X)):
        plain, masked = (
            quick(cls, missing=missing, **params).fit(rows) for missing in ("error", "mask")
        )
        assert_same_fit(plain, masked)
        np.testing.assert_array_equal(plain.score_samples(rows), masked.score_samples(rows))


@pytest.mark.parametrize("init", ["k-means", "k-means++", "pinv", "random"])
def test_every_start(cls, seed, init):
    X, _, _ = incomplete(seed)
    model = quick(cls, init=init, missing="mask", alpha=1.0).fit(X)
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    assert np.isfinite(model.score(X))


@pytest.mark.parametrize("params", [{}, {"n_neighbors": 5}, {"augment": "noise"}])
def test_clusters_are_found(cls, seed, params):
    X, y, _ = incomplete(seed, n=200, share=0.1)
    if cls is DeepAEClustering:
        params = params | {"pretrain_iter": 20}
    model = quick(cls, missing="mask", **params)
    model.fit(X)
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    assert clustering_accuracy(y, model.labels_) > 0.9


def test_centres_are_not_drawn_to_the_mean(seed):
    """Of a third of the entries missing, centres are those of the complete rows."""
    X, y, whole = incomplete(seed, n=600, share=0.33)
    model = quick(ClusteringModuleGMM, missing="mask").fit(X)
    expected = np.array([whole[y == label].mean(axis=0) for label in range(3)])
    gaps = np.linalg.norm(expected[:, None] - model.cluster_centers_, axis=2)
    assert gaps.min(axis=1).max() < 1.0
    assert model.covariances_[0] == pytest.approx(0.49, rel=0.5)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_variance_is_that_of_the_observed_entries(cls, seed, weighted):
    X, _, _ = incomplete(seed)
    weight = np.random.RandomState(seed).uniform(size=90) if weighted else None
    model = quick(cls, missing="mask").fit(X, sample_weight=weight)
    g = model.predict_proba(X)
    squared = np.square(X[:, None] - model.cluster_centers_)
    w = np.ones(90) if weight is None else weight
    total = np.einsum("n,nk,nk->", w, g, np.nansum(squared, axis=2))
    expected = total / (w @ (~np.isnan(X)).sum(axis=1))
    np.testing.assert_allclose(model.covariances_, expected)


def test_scores_are_marginal_densities(seed):
    X, _, _ = incomplete(seed, share=0.5)
    model = quick(ClusteringModuleGMM, missing="mask").fit(X)
    X[0] = np.nan
    seen = ~np.isnan(X)
    expected = [0.0]
    for x, m in zip(X[1:], seen[1:], strict=True):
        if not m.any():
            expected.append(0.0)
            continue
        parts = [
            np.log(weight) + multivariate_normal.logpdf(x[m], center[m], variance * np.eye(m.sum()))
            for weight, center, variance in zip(
                model.weights_, model.cluster_centers_, model.covariances_, strict=True
            )
        ]
        expected.append(logsumexp(parts))
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        model.score_samples(with_nan_stored(X)), expected, rtol=1e-7, atol=1e-9
    )
    assert model.score(X) == pytest.approx(np.mean(expected))
    assert model.bic(X) > model.aic(X)


def test_a_row_of_nothing_is_that_of_the_means(cls, seed):
    X, _, _ = incomplete(seed)
    X[4] = np.nan
    model = quick(cls, missing="mask").fit(X)
    means = np.nanmean(X, axis=0)
    proba = model.predict_proba(np.array([X[4], means]))
    np.testing.assert_allclose(proba[0], proba[1], rtol=1e-6)
    assert model.score_samples(X[4:5]) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("kind", ["read-only", "sparse"])
def test_every_storage_gives_the_same_fit(cls, seed, kind):
    X, _, _ = incomplete(seed)
    other = KINDS[kind](X)
    models = [quick(cls, missing="mask", n_neighbors=3).fit(rows) for rows in (X, other)]
    if kind == "sparse":
        assert_close_fit(*models, rtol=1e-6)
    else:
        assert_same_fit(*models)
    np.testing.assert_allclose(models[0].transform(other), models[0].transform(X), atol=1e-9)
    assert np.isnan(X).any()


def test_a_fit_leaves_its_rows_as_they_are(cls, seed):
    X, _, _ = incomplete(seed)
    before = X.copy()
    quick(cls, missing="mask", n_neighbors=3, augment="noise").fit(X).partial_fit(X)
    np.testing.assert_array_equal(X, before)


# Going on
# --------


def test_blocks_with_missing_entries(cls, seed):
    X, _, _ = incomplete(seed)
    model = quick(cls, missing="mask").partial_fit(X)
    later = X + 3
    later[:, 2] = np.nan  # a later block may leave a column out
    model.partial_fit(later).partial_fit(X)
    np.testing.assert_array_equal(model.predict(X), model.labels_)
    model.partial_fit(later)
    np.testing.assert_array_equal(model.predict(later), model.labels_)


@pytest.mark.parametrize("way", ["warm_start", "init", "autoencoder_"])
def test_what_goes_on_fills_as_it_began(cls, seed, way):
    """The means of the first fit stand for what is missing, in training as in `predict`."""
    X, _, _ = incomplete(seed)
    first = quick(cls, missing="mask").fit(X)
    later = X + 2
    if way == "warm_start":
        model = clone(first).set_params(warm_start=True).fit(X).fit(later)
    elif way == "init":
        model = quick(cls, missing="mask", init=first).fit(later)
    elif cls is DeepAEClustering:
        model = quick(cls, missing="mask", init=first.autoencoder_).fit(later)
    else:
        pytest.skip("there is no autoencoder")
    np.testing.assert_array_equal(
        model.module_.standardizer.offset, first.module_.standardizer.offset
    )
    np.testing.assert_array_equal(model.predict(later), model.labels_)


def test_warm_start_of_another_width_is_named(cls, seed):
    X, _, _ = incomplete(seed)
    model = quick(cls, missing="mask", warm_start=True).fit(X)
    with pytest.raises(ValueError, match="n_features_in_=8, but here"):
        model.fit(X[:, :5])


def test_a_fit_is_kept(cls, seed, tmp_path):
    X, _, _ = incomplete(seed)
    model = quick(cls, missing="mask").fit(X)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    pytest.importorskip("safetensors")
    skaecm.save(model, tmp_path / "model")
    again = skaecm.load(tmp_path / "model")
    assert again.missing == "mask"
    assert_same_fit(again, model)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


# What is refused
# ---------------


def test_nan_is_an_error_by_default_that_names_the_way(cls, seed):
    X, _, whole = incomplete(seed)
    with pytest.raises(ValueError, match="contains NaN") as caught:
        quick(cls).fit(X)
    assert "missing='mask'" in caught.value.__notes__[0]
    model = quick(cls).fit(whole)
    with pytest.raises(ValueError, match="contains NaN") as caught:
        model.predict(X)
    assert "missing='mask'" in caught.value.__notes__[0]
    assert not get_tags(quick(cls)).input_tags.allow_nan
    assert get_tags(quick(cls, missing="mask")).input_tags.allow_nan


def test_infinity_stays_an_error(cls, seed):
    X, _, _ = incomplete(seed)
    X[0, 0] = np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        quick(cls, missing="mask").fit(X)


def test_a_column_of_nothing_is_named(cls, seed):
    X, _, _ = incomplete(seed)
    X[:, [1, 6]] = np.nan
    with pytest.raises(ValueError, match=r"hold no entry .*: 1, 6\. .* leave them out"):
        quick(cls, missing="mask").fit(X)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcdefgh"))
    with pytest.raises(ValueError, match="'b', 'g'"):
        quick(cls, missing="mask").fit(frame)


def test_a_column_whose_rows_carry_no_weight_is_named(cls, seed):
    X, _, _ = incomplete(seed)
    X[10:, 1] = np.nan
    weight = np.r_[np.zeros(10), np.ones(80)]
    with pytest.raises(ValueError, match="that carries weight: 1"):
        quick(cls, missing="mask").fit(X, sample_weight=weight)


def test_a_graph_is_refused(cls, seed):
    X, _, whole = incomplete(seed)
    graph = sp.eye(90, k=1)
    with pytest.raises(ValueError, match=r"adjacency mixes rows .* sklearn\.impute"):
        quick(cls, missing="mask").fit(X, adjacency=graph)
    model = quick(cls, missing="mask").fit(whole, adjacency=graph)
    with pytest.raises(ValueError, match="adjacency mixes rows"):
        model.predict(X, adjacency=graph)


@pytest.mark.parametrize("augment", ["image", lambda batch, generator: batch])
def test_other_transformed_copies_are_refused(cls, seed, augment):
    X, _, whole = incomplete(seed)
    model = quick(cls, missing="mask", augment=augment, image_shape=(2, 4))
    with pytest.raises(ValueError, match="augment must be None or 'noise'"):
        model.fit(X)
    model.fit(whole)
    np.testing.assert_array_equal(model.predict(X).shape, (90,))


def test_has_missing():
    X = np.array([[0.0, 1.0], [2.0, 0.0]])
    assert not has_missing(X)
    assert not has_missing(sp.csr_array((2, 2)))
    X[1, 1] = np.nan
    assert has_missing(X)
    assert has_missing(sp.csr_array(X))


def test_deep_settings_pass_through(seed):
    """The narrow embedding and the published start take masks too."""
    X, _, _ = incomplete(seed)
    model = DeepAEClustering(
        3,
        missing="mask",
        hidden_layer_sizes=(8,),
        n_components=3,
        pretrain_iter=2,
        init="pinv",
        random_state=0,
        **AT_ONCE,
    ).fit(X)
    assert model.history_[0]["phase"] == "pretraining"
    np.testing.assert_array_equal(model.predict(X), model.labels_)
