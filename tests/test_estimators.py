"""What both estimators promise: methods, learned attributes, weights, warnings.

Each promise is an equality between two ways of doing a thing, seen from outside.
"""

import copy
import pickle
import sys
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import (
    AT_ONCE,
    FEW_CLUSTERS,
    HISTORY,
    assert_same_fit,
    blobs,
    overlapping,
    quick,
)
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from skaecm import ClusteringModuleGMM, DeepAEClustering

# Labels, probabilities, codes
# ----------------------------


@pytest.mark.parametrize("kind", ["dense", "sparse", "fortran"])
def test_labels_are_those_of_predict(cls, seed, dtype, kind):
    X = np.random.RandomState(seed).standard_normal((300, 6)).astype(dtype)
    X = {"dense": X, "sparse": sp.csr_matrix(X), "fortran": np.asfortranarray(X)}[kind]
    model = quick(cls, k=4, n_iter_no_change=4, batch_size=32).fit(X)
    proba = model.predict_proba(X)
    np.testing.assert_array_equal(model.labels_, model.predict(X))
    np.testing.assert_array_equal(model.labels_, proba.argmax(axis=1))
    np.testing.assert_array_equal(clone(model).fit_predict(X), model.labels_)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=10 * np.finfo(dtype).eps)
    assert proba.shape == (300, 4)
    assert proba.min() >= 0
    assert np.issubdtype(model.labels_.dtype, np.integer)


def test_separated_clusters_are_found(cls, seed, dtype):
    X, y = blobs(seed, dtype=dtype)
    labels = quick(cls).fit_predict(X)
    assert len(set(zip(labels, y, strict=True))) == len(set(labels)) == 3


def test_code_of_the_clustering_module(seed):
    X, _ = blobs(seed)
    model = quick(ClusteringModuleGMM).fit(X)
    code = model.transform(X)
    np.testing.assert_array_equal(code, model.predict_proba(X))
    np.testing.assert_array_equal(clone(model).fit_transform(X), code)
    np.testing.assert_allclose(model.inverse_transform(code), code @ model.cluster_centers_)
    np.testing.assert_allclose(model.inverse_transform(np.eye(3)), model.means_)


def test_embedding_and_decoder(seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    model = quick(DeepAEClustering, n_components=5).fit(X)
    embedding = model.transform(X)
    assert embedding.shape == (90, 5)
    assert model.n_components_ == 5
    np.testing.assert_array_equal(clone(model).fit_transform(X), embedding)
    assert model.inverse_transform(embedding).shape == X.shape
    rtol = 100 * np.finfo(dtype).eps
    decoded = model.inverse_transform(model.embedding_centers_)
    np.testing.assert_allclose(decoded, model.cluster_centers_, rtol=rtol, atol=rtol)
    # The responsibilities are a softmax, linear in the embedding.
    logits = embedding @ model.module_.clustering.weight.detach().numpy().T
    logits += model.module_.clustering.bias.detach().numpy()
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-3, atol=1e-5)


def test_a_trained_decoder_reconstructs(seed):
    """Inverse_transform of transform explains most of X, in the units of X."""
    X, _ = blobs(seed, n=300)
    X = 100.0 * X + 7.0
    model = quick(
        DeepAEClustering, tol=0.0, n_iter_no_change=50, pretrain_iter=60, batch_size=30, max_iter=0
    ).fit(X)
    residual = X - model.inverse_transform(model.transform(X))
    assert np.square(residual).sum() < 0.2 * np.square(X - X.mean(axis=0)).sum()


def test_default_width_suits_the_number_of_clusters(seed):
    X, _ = blobs(seed)
    assert quick(DeepAEClustering, n_components=None).fit(X).n_components_ == 10
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # clusters may be lost among 12
        assert quick(DeepAEClustering, n_components=None, k=12).fit(X).n_components_ == 12


@pytest.mark.parametrize("width", [2, 5])
def test_codes_of_a_wrong_width_are_refused(cls, seed, width):
    X, _ = blobs(seed)
    model = quick(cls).fit(X)
    right = 3 if cls is ClusteringModuleGMM else 4
    with pytest.raises(ValueError, match=f"X has {width} columns.*expects the {right} of"):
        model.inverse_transform(np.zeros((2, width)))


# The implied mixture
# -------------------


def implied_mixture(model):
    """sklearn's spherical mixture with the learned attributes set by hand."""
    mixture = GaussianMixture(len(model.weights_), covariance_type="spherical")
    mixture.weights_ = model.weights_.astype(float)
    mixture.means_ = model.cluster_centers_.astype(float)
    mixture.covariances_ = model.covariances_.astype(float)
    mixture.precisions_cholesky_ = 1 / np.sqrt(mixture.covariances_)
    return mixture


def test_score_is_that_of_the_implied_mixture(seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    model = quick(ClusteringModuleGMM).fit(X)
    mixture = implied_mixture(model)
    rtol = 1e-10 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(model.score_samples(X), mixture.score_samples(X), rtol=rtol)
    assert model.score(X) == pytest.approx(mixture.score(X.astype(float)), rel=rtol)
    assert model.score(X) == pytest.approx(np.mean(model.score_samples(X), dtype=float))
    assert isinstance(model.score(X), float)
    weight = np.random.RandomState(seed).uniform(size=len(X))
    expected = np.average(model.score_samples(X), weights=weight)
    assert model.score(X, sample_weight=weight) == pytest.approx(expected)
    assert model.score(X, np.zeros(len(X))) == model.score(X)


def test_score_prefers_the_right_number_of_clusters(cls, seed):
    X, _ = blobs(seed, n=300)
    params = {"max_iter": 0}
    if cls is DeepAEClustering:
        params |= {"pretrain_iter": 50, "tol": 0.0, "n_iter_no_change": 50}
    scores = [quick(cls, k=k, **params).fit(X[::2]).score(X[1::2]) for k in (1, 2, 3)]
    assert scores == sorted(scores)


def test_bic_and_aic(seed):
    X, _ = blobs(seed)
    n, d = X.shape
    model = quick(ClusteringModuleGMM).fit(X)
    n_parameters = 3 * d + (3 - 1) + 1
    log_likelihood = np.sum(model.score_samples(X))
    bic = -2 * log_likelihood + n_parameters * np.log(n)
    aic = -2 * log_likelihood + 2 * n_parameters
    assert model.bic(X) == pytest.approx(bic)
    assert model.aic(X) == pytest.approx(aic)
    assert model.bic(X.tolist()) == pytest.approx(bic)
    assert model.bic(sp.csr_matrix(X)) == pytest.approx(bic)
    weight = np.random.RandomState(seed).uniform(size=n)
    weighted = -2 * n * model.score(X, sample_weight=weight)
    assert model.bic(X, weight) == pytest.approx(weighted + n_parameters * np.log(n))
    assert model.aic(X, weight) == pytest.approx(weighted + 2 * n_parameters)


def test_sample_of_the_clustering_module(seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    model = quick(ClusteringModuleGMM, random_state=seed).fit(X)
    points, labels = model.sample(3000)
    assert points.shape == (3000, 4)
    assert points.dtype == dtype
    np.testing.assert_array_equal(labels, np.sort(labels))
    np.testing.assert_allclose(np.bincount(labels) / 3000, model.weights_, atol=0.06)
    deviation = np.sqrt(model.covariances_[0])
    for label, center in enumerate(model.cluster_centers_):
        drawn = points[labels == label]
        np.testing.assert_allclose(drawn.mean(axis=0), center, atol=5 * deviation / 25)
        np.testing.assert_allclose(drawn.std(axis=0), deviation, rtol=0.2)
    np.testing.assert_array_equal(model.sample(3000)[0], points)
    assert model.sample()[0].shape == (1, 4)


def test_sample_of_the_deep_estimator_is_decoded(seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    model = quick(DeepAEClustering, random_state=seed).fit(X)
    points, labels = model.sample(40)
    assert points.shape == (40, 4)
    assert points.dtype == dtype
    assert np.unique(points, axis=0).shape == points.shape
    model.embedding_covariances_ = np.zeros(3, dtype)
    points, labels = model.sample(40)
    np.testing.assert_allclose(points, model.cluster_centers_[labels], rtol=1e-3, atol=1e-5)


# Learned attributes
# ------------------


def test_shapes_and_dtypes(cls, seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    model = quick(cls).fit(X)
    shapes = {"cluster_centers_": (3, 4), "means_": (3, 4), "weights_": (3,), "covariances_": (3,)}
    if cls is DeepAEClustering:
        shapes |= {"embedding_centers_": (3, 4), "embedding_covariances_": (3,)}
    for name, shape in shapes.items():
        assert getattr(model, name).shape == shape, name
        assert getattr(model, name).dtype == dtype, name
    np.testing.assert_array_equal(model.means_, model.cluster_centers_)
    assert {np.ptp(model.covariances_), model.n_features_in_} == {0, 4}
    assert not hasattr(model, "feature_names_in_")
    assert isinstance(model.module_, torch.nn.Module)
    for tensor in (*model.module_.parameters(), *model.module_.buffers()):
        assert tensor.device.type == "cpu"
        assert tensor.dtype == (torch.float32 if dtype == np.float32 else torch.float64)
    for method in (model.transform, model.predict_proba, model.score_samples):
        assert method(X).dtype == dtype
    assert model.inverse_transform(model.transform(X)).dtype == dtype


def test_uint8_is_computed_in_float32(cls, seed):
    X, _ = blobs(seed)
    X = np.clip(10 * X + 100, 0, 255).astype(np.uint8)
    model = quick(cls).fit(X)
    assert model.transform(X).dtype == np.float32
    assert_same_fit(model, quick(cls).fit(X.astype(np.float32)))
    assert quick(cls).fit(X.astype(np.int64)).transform(X.astype(np.int64)).dtype == np.float64


@pytest.mark.parametrize("weighted", [False, True])
def test_weights_covariances_and_loss_of_the_clustering_module(seed, weighted):
    """They follow from the public attributes alone: g, M and the total variance."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((200, 5)) * [1, 2, 3, 1, 1] + 5
    weight = rng.uniform(size=200) if weighted else np.ones(200)
    model = quick(ClusteringModuleGMM, alpha=[0.1, 0.5, 0.3], n_iter_no_change=3)
    model.fit(X, sample_weight=weight)
    g = model.predict_proba(X)
    squared = np.square(X[:, None, :] - model.cluster_centers_).sum(axis=2)
    distortion = np.average((g * squared).sum(axis=1), weights=weight)
    total = np.average(np.square(X - np.average(X, axis=0, weights=weight)).sum(1), weights=weight)
    gbar = np.average(g, axis=0, weights=weight)
    np.testing.assert_allclose(model.weights_, gbar, rtol=1e-9)
    np.testing.assert_allclose(model.covariances_, distortion / 5, rtol=1e-9)
    prior = -np.sort([0.1, 0.5, 0.3]) @ np.log(np.sort(gbar))
    assert model.loss_ == pytest.approx(distortion / total + prior, rel=1e-7)


@pytest.mark.parametrize("width", [2, 6])
@pytest.mark.filterwarnings("ignore:n_components=2 is smaller than k=3:UserWarning")
def test_weights_covariances_and_loss_of_the_deep_estimator(seed, width):
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((200, 5)) * [1, 2, 3, 1, 1] + 5
    weight = rng.uniform(size=200)
    settings = {"alpha": 0.2, "beta": 0.4, "lam": 0.7, "n_components": width}
    model = quick(DeepAEClustering, **settings).fit(X, sample_weight=weight)
    g, z, M = model.predict_proba(X), model.transform(X), model.embedding_centers_

    def mean(values):
        return np.average(values, weights=weight)

    total = mean(np.square(X - np.average(X, axis=0, weights=weight)).sum(axis=1))
    residual = np.square(X - model.inverse_transform(z)).sum(axis=1)
    expected = 0.4 * mean(residual) / total
    if width == 6:
        expected += mean(np.square(z - g @ M).sum(axis=1)) + mean((g * (1 - g)).sum(axis=1))
        expected += 0.7 * np.abs(M @ M.T - np.eye(3)).sum()
    else:
        expected += mean((g * np.square(z[:, None] - M).sum(axis=2)).sum(axis=1))
    gbar = np.average(g, axis=0, weights=weight)
    expected += -0.2 * np.log(gbar).sum()
    assert model.loss_ == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(model.weights_, gbar, rtol=1e-9)
    for centers, points, covariances in (
        (model.cluster_centers_, X, model.covariances_),
        (M, z, model.embedding_covariances_),
    ):
        squared = np.square(points[:, None] - centers).sum(axis=2)
        variance = mean((g * squared).sum(axis=1)) / points.shape[1]
        np.testing.assert_allclose(covariances, variance, rtol=1e-9)


def test_covariances_are_floored(seed):
    """Three distinct rows leave no variance; a millionth of the total one is kept."""
    rng = np.random.RandomState(seed)
    X = np.repeat(8.0 * np.eye(3, 4) + rng.uniform(size=(3, 4)), 10, axis=0)
    model = quick(ClusteringModuleGMM, max_iter=0).fit(X)
    np.testing.assert_allclose(model.covariances_, 1e-6 * X.var(axis=0).mean(), rtol=1e-6)
    assert np.isfinite(model.score(X))


def test_history(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls, n_iter_no_change=3).fit(X)
    assert (model.converged_, model.n_iter_) == (True, 4)
    joint = [row for row in model.history_ if row["phase"] != "pretraining"]
    assert [(row["phase"], row["epoch"]) for row in joint] == [
        *(("training", epoch) for epoch in (1, 2, 3, 4)),
        ("averaging", 5),
    ]
    for row in joint:
        assert list(row) == ["phase", "epoch", "loss", *HISTORY[cls], "changed"]
        assert all(isinstance(row[name], float) for name in HISTORY[cls])
        assert row["loss"] == pytest.approx(sum(row[name] for name in HISTORY[cls]))
    assert model.loss_curve_ == [row["loss"] for row in joint[:4]]
    pretraining = [row for row in model.history_ if row["phase"] == "pretraining"]
    assert len(pretraining) == (2 if cls is DeepAEClustering else 0)
    assert all(list(row) == ["phase", "epoch", "loss", "reconstruction"] for row in pretraining)


def test_training_lowers_the_loss(cls, seed):
    X = np.random.RandomState(seed).standard_normal((200, 6))
    start = quick(cls, max_iter=0).fit(X)
    trained = quick(cls, n_iter_no_change=20, max_iter=50, learning_rate_init=1e-3).fit(X)
    assert trained.loss_ < start.loss_
    assert trained.loss_curve_[-1] < trained.loss_curve_[0]


def test_max_iter_0_keeps_the_start(cls, seed):
    X, _ = blobs(seed)
    centers = X[[0, 1, 2]]
    model = quick(cls, max_iter=0, init="k-means").fit(X)
    assert (model.n_iter_, model.converged_, model.loss_curve_) == (0, False, [])
    if cls is ClusteringModuleGMM:
        given = quick(cls, max_iter=0, init=centers)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # two of them in one cluster
            given.fit(X)
        rows = {tuple(np.round(row, 9)) for row in given.cluster_centers_}
        assert rows == {tuple(np.round(row, 9)) for row in centers}


# Restarts, warm starts, partial fits
# -----------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_best_of_several_starts_is_kept(cls, seed):
    """The starts of a seed begin alike, so more of them can only lower the loss."""
    X = np.random.RandomState(seed).standard_normal((120, 5))
    settings = {"init": "random", "max_iter": 0, "random_state": seed, "pretrain_iter": 0}
    if cls is ClusteringModuleGMM:
        del settings["pretrain_iter"]
    losses = [quick(cls, n_init=n, **settings).fit(X).loss_ for n in range(1, 9)]
    assert losses == sorted(losses, reverse=True)


def test_warm_start_goes_on(cls, seed):
    X = overlapping(seed)
    fitted = quick(cls).fit(X)
    warm = pickle.loads(pickle.dumps(fitted)).set_params(warm_start=True, max_iter=0).fit(X)
    np.testing.assert_array_equal(warm.predict_proba(X), fitted.predict_proba(X))
    assert warm.n_iter_ == 0
    # Going on from a fit is the same as starting from it.
    warm.set_params(max_iter=5).fit(X)
    assert all(row["phase"] != "pretraining" for row in warm.history_)
    from_init = quick(cls, init=FrozenEstimator(fitted)).fit(X)
    np.testing.assert_array_equal(warm.predict_proba(X), from_init.predict_proba(X))
    assert not np.array_equal(warm.predict_proba(X), fitted.predict_proba(X))
    # Without it, fit starts anew.
    assert_same_fit(warm.set_params(warm_start=False).fit(X), fitted)


def test_first_partial_fit_makes_the_start(cls, seed):
    X, _ = blobs(seed)
    partial = quick(cls).partial_fit(X)
    start = quick(cls, max_iter=0).fit(X)
    assert_same_fit(partial, start)


def test_later_partial_fits_are_passes(cls, seed):
    X = overlapping(seed, n=180)
    model = quick(cls).partial_fit(X[:60])
    for stop, n_passes in ((120, 1), (180, 2)):
        before = model.predict_proba(X)
        block = X[stop - 60 : stop]
        assert model.partial_fit(block) is model
        assert model.n_iter_ == n_passes
        np.testing.assert_array_equal(model.labels_, model.predict(block))
        assert not np.array_equal(model.predict_proba(X), before)
    passes = [row for row in model.history_ if row["phase"] == "training"]
    assert [row["epoch"] for row in passes] == [1, 2]
    assert model.loss_curve_ == [row["loss"] for row in passes]


def test_partial_fits_lower_the_loss(cls, seed):
    X = np.random.RandomState(seed).standard_normal((200, 6))
    model = quick(cls, batch_size=50).partial_fit(X)
    start = model.loss_
    for _ in range(20):
        model.partial_fit(X)
    assert model.loss_ < start


def test_partial_fit_continues_a_fit(cls, seed):
    X = overlapping(seed)
    model = quick(cls).fit(X)
    n_iter, n_rows, before = model.n_iter_, len(model.history_), model.predict_proba(X)
    model.partial_fit(X[:30])
    assert (model.n_iter_, len(model.history_)) == (n_iter + 1, n_rows + 1)
    assert len(model.labels_) == 30
    assert 0 < np.abs(model.predict_proba(X) - before).max() < 0.5


@pytest.mark.parametrize("first", ["fit", "partial_fit"])
def test_pickling_between_partial_fits_changes_nothing(cls, seed, first):
    X, _ = blobs(seed)
    straight = getattr(quick(cls, random_state=seed), first)(X)
    pickled = pickle.loads(pickle.dumps(straight))
    for _ in range(3):
        straight.partial_fit(X)
        pickled = pickle.loads(pickle.dumps(pickled)).partial_fit(X)
    assert_same_fit(straight, pickled)


def test_partial_fit_of_few_rows_after_the_first(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls).partial_fit(X)
    model.partial_fit(X[:1])
    assert model.labels_.shape == (1,)


def test_partial_fit_heeds_a_changed_prior(cls, seed):
    """What set_params changes between two passes holds from the next pass on."""
    X, _ = blobs(seed)
    model = quick(cls).partial_fit(X).partial_fit(X).set_params(alpha=3.0).partial_fit(X)
    expected = -3.0 * np.log(model.weights_).sum()
    assert model.history_[-1]["E4"] == pytest.approx(expected, rel=0.05)


def test_partial_fit_heeds_a_changed_learning_rate(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls).partial_fit(X).partial_fit(X)
    before = model.cluster_centers_.copy()
    model.set_params(learning_rate_init=1e-9).partial_fit(X)
    np.testing.assert_allclose(model.cluster_centers_, before, atol=1e-5)


# The prior
# ---------


def test_alpha_as_one_number_or_one_for_each_cluster(cls, seed):
    X, _ = blobs(seed)
    one = quick(cls, alpha=0.3).fit(X)
    assert_same_fit(quick(cls, alpha=np.full(3, 0.3)).fit(X), one)
    assert_same_fit(quick(cls, alpha=[0.3] * 3).fit(X), one)
    rising, falling = (quick(cls, alpha=alpha).fit(X) for alpha in ([0, 0.2, 1], [1, 0.2, 0]))
    np.testing.assert_array_equal(rising.predict_proba(X), falling.predict_proba(X))
    assert rising.loss_ == falling.loss_
    if cls is DeepAEClustering:
        paired, even = (quick(cls, alpha=alpha, n_neighbors=5) for alpha in (None, 0.5 / 3))
        assert_same_fit(paired.fit(X), even.fit(X))


def test_default_alpha_draws_halfway_to_the_sizes_of_the_start(seed):
    X, _ = blobs(seed)
    start = quick(DeepAEClustering, alpha=0.0, max_iter=0).fit(X)
    alpha = 0.25 / 3 + 0.25 * start.weights_
    default = quick(DeepAEClustering, alpha=None).fit(X)
    given = quick(DeepAEClustering, alpha=alpha).fit(X)
    np.testing.assert_allclose(default.predict_proba(X), given.predict_proba(X), atol=1e-6)
    assert default.loss_ == pytest.approx(given.loss_)


@pytest.mark.filterwarnings(FEW_CLUSTERS)
def test_a_random_start_says_nothing_about_sizes(seed):
    X, _ = blobs(seed)
    default, even = (
        quick(DeepAEClustering, alpha=alpha, init="random").fit(X) for alpha in (None, 0.5 / 3)
    )
    assert_same_fit(default, even)


def test_a_default_alpha_is_kept_where_a_fit_goes_on(seed):
    X, y = blobs(seed)
    X = X[(y != 0) | (np.arange(len(y)) % 5 == 0)]
    start = quick(DeepAEClustering, alpha=0.0, max_iter=0).fit(X)
    alpha = 0.25 / 3 + 0.25 * start.weights_
    fitted = quick(DeepAEClustering).fit(X)
    ways = {
        "init": lambda alpha: quick(DeepAEClustering, alpha=alpha, init=fitted).fit(X),
        "warm_start": lambda alpha: (
            copy.deepcopy(fitted).set_params(alpha=alpha, warm_start=True).fit(X)
        ),
        "partial_fit": lambda alpha: (
            copy.deepcopy(fitted).set_params(alpha=alpha).partial_fit(X).partial_fit(X[:40])
        ),
        "pickle": lambda alpha: (
            pickle.loads(pickle.dumps(fitted)).set_params(alpha=alpha).partial_fit(X)
        ),
    }
    for way, go_on in ways.items():
        default, given, other = (go_on(one) for one in (None, alpha, 0.5 / 3))
        assert default.loss_ == pytest.approx(given.loss_, rel=1e-9), way
        assert default.loss_ != pytest.approx(other.loss_, rel=1e-9), way


def test_no_alpha_is_that_of_the_fit_before(seed):
    X, _ = blobs(seed)
    before = quick(DeepAEClustering, alpha=3.0).fit(X)
    default, given = (
        quick(DeepAEClustering, alpha=alpha, init=before).fit(X) for alpha in (None, 3.0)
    )
    assert_same_fit(default, given)
    alphas = (model.module_.alpha.numpy() for model in (default, before))
    assert not np.shares_memory(*alphas)


def test_clusters_that_are_split_or_merged_have_a_default_alpha_of_their_own(seed):
    X, _ = blobs(seed)
    fitted = quick(DeepAEClustering, warm_start=True).fit(X)
    for k in (2, 4):
        start = copy.deepcopy(fitted).set_params(k=k, alpha=0.0, max_iter=0).fit(X)
        alpha = 0.25 / k + 0.25 * start.weights_
        default, given = (
            copy.deepcopy(fitted).set_params(k=k, alpha=one).fit(X) for one in (None, alpha)
        )
        assert default.loss_ == pytest.approx(given.loss_)


@pytest.mark.parametrize(
    "alpha", [[0.1, 0.1], [0.1, 0.1, -1.0], [0.1, 0.1, np.nan], [[0.1] * 3], [0.1, 0.1, np.inf]]
)
def test_alpha_that_is_refused(cls, alpha):
    with pytest.raises(ValueError, match="alpha must be one number or k=3 of them"):
        quick(cls, alpha=alpha).fit(blobs(0)[0])


def test_a_strong_prior_draws_sizes_together(seed):
    rng = np.random.RandomState(seed)
    X = np.vstack([rng.standard_normal((20, 2)), rng.standard_normal((180, 2)) + 2])
    settings = {"k": 2, "n_iter_no_change": 60, "max_iter": 100, "learning_rate_init": 1e-2}
    spread = [
        np.ptp(quick(ClusteringModuleGMM, alpha=alpha, **settings).fit(X).weights_)
        for alpha in (0.0, 10.0)
    ]
    assert spread[1] < max(spread[0], 0.02)
    assert spread[1] < 0.05


# Warnings and words
# ------------------


def far_center(seed):
    """Two clusters, and a start whose middle centre attracts nothing."""
    X, y = blobs(seed, k=2)
    centers = np.stack([X[y == 0].mean(axis=0), np.full(4, -1e3), X[y == 1].mean(axis=0)])
    return X, centers


def test_collapse_is_seen_and_empty_clusters_are_numbered_last(seed):
    X, centers = far_center(seed)
    model = quick(ClusteringModuleGMM, init=centers, max_iter=0)
    with pytest.warns(ConvergenceWarning, match="Only 2 of k=3 clusters hold rows.*try") as log:
        model.fit(X)
    assert len(log) == 1
    assert set(model.labels_) == {0, 1}
    np.testing.assert_allclose(model.cluster_centers_, centers[[0, 2, 1]], rtol=1e-9)
    assert model.weights_[2] < 1e-6
    np.testing.assert_array_equal(model.labels_, model.predict(X))
    np.testing.assert_allclose(model.predict_proba(X).mean(axis=0), model.weights_, atol=1e-12)
    assert np.isfinite(model.score(X))
    assert np.isfinite(model.sample(10)[0]).all()


def test_numbering_goes_on_through_partial_fits(seed):
    X, centers = far_center(seed)
    model = quick(ClusteringModuleGMM, init=centers).partial_fit(X)
    assert set(model.labels_) == {0, 1}
    np.testing.assert_array_equal(model.partial_fit(X).labels_, model.predict(X))


def test_collapse_of_the_deep_estimator(seed):
    """Fewer distinct rows than clusters: at least one must be empty."""
    X = np.repeat(8.0 * np.eye(2, 4) + np.arange(4), 15, axis=0)
    model = quick(DeepAEClustering, init="k-means++", max_iter=0)
    with pytest.warns(ConvergenceWarning, match="Only [12] of k=3 clusters hold rows"):
        model.fit(X)
    assert set(model.labels_) == set(range(len(set(model.labels_))))


def test_stopping_early_warns(cls, seed):
    X = np.random.RandomState(seed).standard_normal((60, 4))
    model = quick(cls, tol=0.0, n_iter_no_change=10, max_iter=2)
    with pytest.warns(ConvergenceWarning, match="after max_iter=2 epochs. Increase max_iter"):
        model.fit(X)
    assert (model.converged_, model.n_iter_) == (False, 2)


def warning_of(cls, kind, seed):
    """An estimator and rows that give one warning of a kind."""
    X, _ = blobs(seed)
    if kind == "converge":
        return quick(cls, tol=0.0, n_iter_no_change=10, max_iter=1), X
    if kind == "scales":
        return quick(cls, max_iter=0), X * [1, 1, 1, 1e5]
    if kind == "equal":
        return quick(cls, k=1, max_iter=0), np.ones((9, 4))
    if kind == "width":
        return quick(DeepAEClustering, n_components=2, max_iter=0), X
    mixture = GaussianMixture(3, covariance_type="diag").fit(X)
    return quick(ClusteringModuleGMM, init=mixture, max_iter=0), X


@pytest.mark.parametrize("kind", ["converge", "scales", "equal", "width", "mixture"])
def test_warnings_point_at_the_callers_line(cls, seed, kind):
    model, X = warning_of(cls, kind, seed)
    with pytest.warns((UserWarning, ConvergenceWarning)) as log:
        model.fit(X)
    assert [warning.filename for warning in log] == [__file__]


def test_words_only_when_asked_for(cls, seed, capsys, monkeypatch):
    """Lines where there is no tqdm; its bars are tested in test_progress.py."""
    X, _ = blobs(seed)
    quick(cls, verbose=0).fit(X).partial_fit(X)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    model = quick(cls, verbose=1).fit(X)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert len(lines) == len(model.history_)
    for line, row in zip(lines, model.history_, strict=True):
        assert line.startswith(f"[{cls.__name__}] {row['phase']} {row['epoch']}: loss ")
    assert_same_fit(model, quick(cls).fit(X))


def test_parameters_are_kept_as_given(cls, seed):
    X, _ = blobs(seed)
    alpha = [0.1, 0.2, 0.3]
    model = quick(cls, alpha=alpha, batch_size=10_000, **AT_ONCE)
    before = model.get_params()
    model.fit(X).partial_fit(X)
    assert model.get_params() == before
    assert model.alpha is alpha
