"""Where a fit may start: named starts, arrays, fitted estimators, caches and autoencoders."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import (
    assert_same_fit,
    blobs,
    learned,
    overlapping,
    quick,
    rows_with_one_start_each,
)
from sklearn.base import clone
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import make_blobs
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.autoencoders import ConvolutionalAutoencoder, MLPAutoencoder

INITS = ["k-means", "k-means++", "pinv", "random"]


# Starts
# ------


@pytest.mark.parametrize("init", INITS)
@pytest.mark.filterwarnings("ignore:Only . of k=3:sklearn.exceptions.ConvergenceWarning")
def test_named_starts(cls, seed, dtype, init):
    X, _ = blobs(seed, dtype=dtype)
    model = quick(cls, init=init).fit(X)
    assert np.isfinite(model.score(X))
    start = quick(cls, init=init, max_iter=0).fit(X)
    assert not np.array_equal(start.cluster_centers_, model.cluster_centers_)
    if cls is ClusteringModuleGMM and init == "k-means++":
        distance = np.abs(X[:, None] - start.cluster_centers_).max(axis=2)
        assert distance.min(axis=0).max() < 1e-5
    if cls is ClusteringModuleGMM and init in ("k-means", "pinv"):
        # Centres of k-means are the means of their own clusters.
        labels = ((X[:, None] - start.cluster_centers_) ** 2).sum(axis=2).argmin(axis=1)
        means = np.stack([X[labels == label].mean(axis=0) for label in range(3)])
        np.testing.assert_allclose(start.cluster_centers_, means, atol=1e-4)


def test_an_array_as_start(cls, seed):
    X = rows_with_one_start_each(seed)
    for init in (X[:3], X[:3].tolist()):
        model = quick(cls, init=init, max_iter=0).fit(X)
        if cls is ClusteringModuleGMM:
            np.testing.assert_allclose(model.cluster_centers_, X[:3], rtol=1e-12)
        else:
            codes = model.transform(X[:3])
            np.testing.assert_allclose(model.embedding_centers_, codes, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(model.predict(X[:3]), [0, 1, 2])


@pytest.mark.parametrize("shape", [(2, 4), (3, 5)])
def test_an_array_of_a_wrong_shape_is_refused(cls, shape):
    X, _ = blobs(0)
    with pytest.raises(ValueError, match=r"init must hold one row for each of k=3 .* 4 features"):
        quick(cls, init=np.zeros(shape)).fit(X)


def test_a_tied_mixture_comes_back_exactly(seed):
    X = overlapping(seed)
    mixture = GaussianMixture(3, covariance_type="tied", random_state=seed).fit(X)
    model = quick(ClusteringModuleGMM, init=mixture, max_iter=0).fit(X)
    proba = mixture.predict_proba(X)
    assert np.median(proba.max(axis=1)) < 1
    np.testing.assert_allclose(model.predict_proba(X), proba, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(model.labels_, mixture.predict(X))
    np.testing.assert_allclose(model.cluster_centers_, mixture.means_, rtol=1e-12)


def test_a_bayesian_mixture_is_refused(seed):
    # Its responsibilities hold a digamma of the weights: its centres can be passed instead.
    X = overlapping(seed)
    mixture = BayesianGaussianMixture(n_components=3, random_state=seed, tol=10).fit(X)
    model = quick(ClusteringModuleGMM, init=mixture)
    with pytest.raises(ValueError, match=r"init must be a fitted KMeans.*centres as an array"):
        model.fit(X)


@pytest.mark.parametrize("kind", ["spherical", "diag", "full"])
def test_other_mixtures_give_the_nearest_shared_covariance_and_warn(seed, kind):
    X = overlapping(seed)
    mixture = GaussianMixture(3, covariance_type=kind, random_state=seed).fit(X)
    model = quick(ClusteringModuleGMM, init=mixture, max_iter=0)
    with pytest.warns(UserWarning, match=f"covariance_type='{kind}'.*weighted mean"):
        model.fit(X)
    covariances = mixture.covariances_
    if kind == "spherical":
        covariances = [value * np.eye(4) for value in covariances]
    elif kind == "diag":
        covariances = [np.diag(value) for value in covariances]
    shared = sum(pi * S for pi, S in zip(mixture.weights_, covariances, strict=True))
    tied = GaussianMixture(3, covariance_type="tied")
    tied.weights_, tied.means_ = mixture.weights_, mixture.means_
    tied.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(shared))
    np.testing.assert_allclose(model.predict_proba(X), tied.predict_proba(X), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
def test_labels_of_kmeans_come_back_exactly(seed, kind):
    X = np.random.RandomState(seed).standard_normal((500, 3)) + 10
    kmeans = kind(6, n_init=3, random_state=seed).fit(X)
    model = quick(ClusteringModuleGMM, k=6, init=kmeans, max_iter=0).fit(X)
    np.testing.assert_array_equal(model.labels_, kmeans.predict(X))
    np.testing.assert_allclose(model.cluster_centers_, kmeans.cluster_centers_, rtol=1e-12)


def test_a_fitted_estimator_comes_back_exactly(cls, seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    fitted = quick(cls).fit(X)
    before = pickle.dumps(learned(fitted))
    model = quick(cls, init=fitted, max_iter=0).fit(X)
    np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(model.transform(X), fitted.transform(X))
    np.testing.assert_array_equal(model.labels_, fitted.labels_)
    np.testing.assert_array_equal(model.cluster_centers_, fitted.cluster_centers_)
    assert model.loss_ == pytest.approx(fitted.loss_, rel=1e-6)
    # Training goes on from a copy: what was given stays as it was.
    quick(cls, init=fitted).fit(X)
    assert pickle.dumps(learned(fitted)) == before


def test_other_fitted_estimators_as_start_of_the_deep_one(seed):
    X, _ = blobs(seed)
    for other in (
        KMeans(3, n_init=5, random_state=seed).fit(X),
        GaussianMixture(3, random_state=seed).fit(X),
        quick(ClusteringModuleGMM).fit(X),
    ):
        model = quick(DeepAEClustering, init=other, max_iter=0).fit(X)
        codes = model.transform(
            other.means_ if hasattr(other, "means_") else other.cluster_centers_
        )
        np.testing.assert_allclose(model.embedding_centers_, codes, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("init", "message"),
    [
        (KMeans(3), r"init=KMeans\(n_clusters=3\) is not fitted.*FrozenEstimator"),
        (FrozenEstimator(GaussianMixture(3)), "is not fitted.*FrozenEstimator"),
    ],
)
def test_an_unfitted_start_is_refused(cls, init, message):
    with pytest.raises(NotFittedError, match=message):
        quick(cls, init=init).fit(blobs(0)[0])


def test_starts_that_do_not_fit_are_refused(cls, seed):
    X, _ = blobs(seed)
    fitted = quick(cls).fit(X)
    with pytest.raises(ValueError, match="init continues from a fit with k=3, but here k=2"):
        quick(cls, k=2, init=fitted).fit(X)
    with pytest.raises(ValueError, match=r"init continues.*n_features.*=4, but here.*=3"):
        quick(cls, init=fitted).fit(X[:, :3])
    line = LinearRegression().fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"init must be a fitted.*but is a LinearRegression"):
        quick(cls, init=line).fit(X)


def test_a_frozen_start_survives_clone_and_grid_search(cls, seed):
    X, _ = blobs(seed)
    fitted = quick(cls).fit(X)
    model = quick(cls, init=FrozenEstimator(fitted), max_iter=0)
    np.testing.assert_array_equal(clone(model).fit(X).labels_, fitted.labels_)
    search = GridSearchCV(model, {"alpha": [0.0, 0.1]}, cv=2, error_score="raise").fit(X)
    np.testing.assert_array_equal(search.predict_proba(X), fitted.predict_proba(X))
    unfrozen = GridSearchCV(
        clone(model).set_params(init=fitted), {"alpha": [0.1]}, cv=2, error_score="raise"
    )
    with pytest.raises(NotFittedError, match="FrozenEstimator"):
        unfrozen.fit(X)


def test_one_pretrained_autoencoder_serves_many_fits(seed):
    X, _ = blobs(seed, k=4)
    first = quick(DeepAEClustering, k=4, n_components=5, max_iter=0).fit(X)
    autoencoder = first.autoencoder_
    before = {name: value.clone() for name, value in autoencoder.state_dict().items()}
    for k, alpha in ((4, 0.1), (3, 0.1), (2, 0.5)):
        model = clone(
            quick(DeepAEClustering, k=k, alpha=alpha, init=autoencoder, n_components=None, n_init=2)
        ).fit(X)
        assert all(row["phase"] != "pretraining" for row in model.history_)
        assert model.n_components_ == 5
        assert model.embedding_centers_.shape == (k, 5)
    for name, value in autoencoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    start = quick(DeepAEClustering, k=4, n_components=5, init=autoencoder, max_iter=0).fit(X)
    np.testing.assert_allclose(
        start.inverse_transform(start.transform(X)), first.inverse_transform(first.transform(X))
    )
    with pytest.raises(ValueError, match="init continues from a fit with n_components=5"):
        quick(DeepAEClustering, init=autoencoder, n_components=7).fit(X)


# Caching the pretraining
# -----------------------


def test_memory_serves_a_second_fit(seed, tmp_path, capsys):
    X, _ = blobs(seed)

    def fit(**params):
        model = quick(DeepAEClustering, memory=str(tmp_path), verbose=1, **params).fit(X)
        return model, "pretraining" in capsys.readouterr().err

    first, pretrained = fit()
    assert pretrained
    assert any(tmp_path.rglob("*.pkl"))
    again, pretrained = fit()
    assert not pretrained
    assert_same_fit(again, first)
    assert_same_fit(first, quick(DeepAEClustering).fit(X))
    for params in ({"alpha": 0.3}, {"beta": 0.7, "lam": 2.0}, {"n_init": 2}, {"k": 2}):
        assert not fit(**params)[1], params
    for params in (
        {"hidden_layer_sizes": (8,)},
        {"n_components": 5},
        {"pretrain_iter": 1},
        {"random_state": 1},
        {"batch_size": 10},
        {"learning_rate_init": 1e-4},
        {"autoencoder": MLPAutoencoder((5,))},
    ):
        assert fit(**params)[1], params


def test_memory_knows_the_data_and_the_weights(seed, tmp_path, capsys):
    X, _ = blobs(seed)
    model = quick(DeepAEClustering, memory=str(tmp_path), verbose=1)
    weight = np.random.RandomState(seed).uniform(size=90)
    for rows, sample_weight in (
        (X, None),
        (X + 1, None),
        (X, weight),
        (X.astype(np.float32), None),
        (sp.csr_matrix(X), None),
    ):
        clone(model).fit(rows, sample_weight=sample_weight)
        assert "pretraining" in capsys.readouterr().err
        clone(model).fit(rows, sample_weight=sample_weight)
        assert "pretraining" not in capsys.readouterr().err


def test_memory_must_be_a_memory(seed):
    with pytest.raises(ValueError, match="'memory' parameter of DeepAEClustering must be"):
        quick(DeepAEClustering, memory=3).fit(blobs(seed)[0])


# Autoencoders
# ------------


def linear_pair(n_features, n_components, generator):
    """Drawn from torch's global generator, as a user may write it."""
    return torch.nn.Linear(n_features, n_components), torch.nn.Linear(n_components, n_features)


def test_an_autoencoder_of_the_users(seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    fits = []
    for global_seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(global_seed)
            fits.append(quick(DeepAEClustering, autoencoder=linear_pair).fit(X))
    assert_same_fit(*fits)
    layers = [m for m in fits[0].autoencoder_.modules() if isinstance(m, torch.nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(4, 4), (4, 4)]
    other = quick(DeepAEClustering, autoencoder=linear_pair, random_state=1).fit(X)
    assert not np.array_equal(other.cluster_centers_, fits[0].cluster_centers_)


def test_hidden_layer_sizes_are_an_autoencoder(seed):
    X, _ = blobs(seed)
    assert_same_fit(
        quick(DeepAEClustering, hidden_layer_sizes=(7, 5)).fit(X),
        quick(DeepAEClustering, autoencoder=MLPAutoencoder((7, 5))).fit(X),
    )


def linear(*shape):
    return torch.nn.Linear(*shape)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (lambda d, p, _: linear(d, p), "must return a pair .* but returned Linear"),
        (lambda d, p, _: (linear(d, p),) * 3, "must return a pair"),
        (lambda d, p, _: (linear(d + 1, p), linear(p, d)), "encoder .* does not take rows of 4"),
        (lambda d, p, _: (linear(d, p), linear(p + 1, d)), "decoder .* does not take rows of 4"),
        (lambda d, p, _: (linear(d, p + 1), linear(p, d)), "encoder .* must map rows of 4 .* of 4"),
        (lambda d, p, _: (linear(d, p), linear(p, d + 1)), "decoder .* must map rows of 4 .* of 4"),
        (lambda d, p, _: ("encoder", "decoder"), "must return a pair .* of torch modules"),
    ],
    ids=["one", "three", "encoder-in", "decoder-in", "encoder-out", "decoder-out", "strings"],
)
def test_autoencoders_that_are_refused(recipe, message):
    with pytest.raises(ValueError, match=message):
        quick(DeepAEClustering, autoencoder=recipe).fit(blobs(0)[0])


@pytest.mark.parametrize("sizes", [(0,), (5, -1), (2.5,)])
def test_hidden_layer_sizes_that_are_refused(sizes):
    with pytest.raises(ValueError, match='hidden_layer_sizes must be "auto" or hold integers'):
        quick(DeepAEClustering, hidden_layer_sizes=sizes).fit(blobs(0)[0])


@pytest.mark.parametrize(
    ("image_shape", "channels"),
    [
        ((8, 8), (3, 5)),
        ((7, 5), (3, 5)),
        ((5, 7), (2, 3, 4)),
        ((3, 9, 4), (6,)),
        ((2, 6, 10), (4, 8, 16)),
        ((1, 1, 5), (2, 2)),
        ((1, 1), (4,)),
    ],
)
def test_convolutional_autoencoder_maps_every_image_shape(seed, image_shape, channels):
    n_features = int(np.prod(image_shape))
    recipe = ConvolutionalAutoencoder(image_shape, channels)
    encoder, decoder = recipe(n_features, 3, torch.Generator().manual_seed(seed))
    x = torch.rand(2, n_features, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = encoder(x)
    assert z.shape == (2, 3)
    assert decoder(z).shape == x.shape
    decoder(z).square().sum().backward()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    assert all(parameter.grad is not None for parameter in parameters)
    again = recipe(n_features, 3, torch.Generator().manual_seed(seed))
    assert torch.equal(again[1](again[0](x)), decoder(z))


def test_convolutions_see_neighbouring_pixels(seed):
    """The first layer is local: a pixel far from another one does not reach it."""
    encoder, _ = ConvolutionalAutoencoder((9, 8), (2,))(72, 3, torch.Generator().manual_seed(seed))
    x = torch.zeros(2, 72, dtype=torch.float64)
    x[1, 0] = 1.0
    response = encoder[:2](x)
    reached = (response[1] - response[0]).abs().amax(dim=0) > 0
    assert reached[0, 0]
    assert not reached[2:, :].any()
    assert not reached[:, 2:].any()


def test_fit_with_convolutions(seed, dtype):
    rng = np.random.RandomState(seed)
    X = rng.uniform(size=(60, 35)).astype(dtype)
    X[:20, :12] += 3
    X[20:40, 12:24] += 3
    recipe = ConvolutionalAutoencoder(image_shape=(7, 5), channels=(3, 4))
    model = quick(DeepAEClustering, autoencoder=recipe).fit(X)
    assert model.inverse_transform(model.transform(X)).shape == X.shape
    np.testing.assert_array_equal(model.labels_, model.predict(X))


@pytest.mark.parametrize("image_shape", [(6, 5), (35,), (0, 35), (1, 1, 7, 5)])
def test_image_shapes_that_are_refused(image_shape):
    recipe = ConvolutionalAutoencoder(image_shape=image_shape)
    with pytest.raises(ValueError, match=r"image_shape must be .* product of 35, the number of"):
        quick(DeepAEClustering, autoencoder=recipe).fit(np.random.RandomState(0).rand(20, 35))


class Noisy:
    """An autoencoder whose modules behave differently in training."""

    def __call__(self, n_features, n_components, generator):
        encoder = torch.nn.Sequential(
            torch.nn.Linear(n_features, 8),
            torch.nn.BatchNorm1d(8),
            torch.nn.Dropout(0.5),
            torch.nn.Linear(8, n_components),
        )
        return encoder, torch.nn.Linear(n_components, n_features)


@pytest.mark.parametrize("settings", [{"max_iter": 0}, {}], ids=["start", "trained"])
def test_modules_with_dropout_and_batch_norm_are_used_in_evaluation_mode(seed, settings):
    X = overlapping(seed)
    before = torch.get_rng_state()
    torch.manual_seed(seed)
    model = quick(DeepAEClustering, autoencoder=Noisy(), **settings).fit(X)
    torch.set_rng_state(before)
    for fitted in (model, quick(DeepAEClustering, autoencoder=Noisy()).partial_fit(X)):
        assert not any(module.training for module in fitted.module_.modules())
        np.testing.assert_array_equal(fitted.predict(X), fitted.labels_)
        np.testing.assert_allclose(fitted.predict_proba(X[:1]), fitted.predict_proba(X)[:1])


def test_an_autoencoder_without_parameters(seed):
    model = quick(
        DeepAEClustering,
        autoencoder=lambda d, p, _: (torch.nn.Identity(), torch.nn.Identity()),
        n_components=4,
    )
    with pytest.raises(ValueError, match="no parameters to train"):
        model.fit(overlapping(seed))


def test_memory_asks_for_an_autoencoder_that_can_be_pickled(seed, tmp_path):
    model = quick(DeepAEClustering, autoencoder=lambda d, p, _: None, memory=str(tmp_path))
    with pytest.raises(ValueError, match=r"With memory, autoencoder must be .* pickled"):
        model.fit(overlapping(seed))


def test_training_keeps_many_clusters_that_are_as_far_from_each_other(seed):
    # The fourth draw lost three clusters while a start looked at the next cluster alone.
    for draw in (seed, 3):
        X, y = make_blobs(17 * 50, 50, centers=17, random_state=draw)
        model = DeepAEClustering(17, hidden_layer_sizes=(100,), n_neighbors=None, random_state=draw)
        assert adjusted_rand_score(y, model.fit_predict(X)) == 1
