"""The likelihood of DeepAEClustering: exact where the decoder is linear, free of coordinates."""

import copy
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import overlapping, quick
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skaecm import DeepAEClustering

D, P = 4, 3


def linear(n_features, n_components, generator):
    """Linear maps without a start of their own: of principal components, but for the weights."""
    return nn.Linear(n_features, n_components), nn.Linear(n_components, n_features)


def fitted(seed, X=None, **params):
    X = overlapping(seed) if X is None else X
    settings = {
        "n_components": P,
        "pretrain_iter": 20,
        "max_iter": 5,
        "tol": 0.0,
        "n_iter_no_change": 99,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return quick(DeepAEClustering, **(settings | params)).fit(X)


def factors(model):
    """The decoded mixture of a linear decoder, from public attributes: means and covariance."""
    origin = model.inverse_transform(np.zeros((1, P)))
    loadings = model.inverse_transform(np.eye(P)) - origin
    variance = model.embedding_covariances_[0]
    covariance = model.noise_variance_ * np.eye(D) + variance * loadings.T @ loadings
    return model.cluster_centers_, covariance


def closed_form(model, X, seen=None):
    """``log sum_k pi_k N(x; mu_k, C)`` of every row, from the observed entries."""
    means, covariance = factors(model)
    values = np.empty(len(X))
    for i, x in enumerate(X):
        kept = np.arange(D) if seen is None else np.flatnonzero(seen[i])
        values[i] = logsumexp(
            [
                np.log(weight)
                + multivariate_normal.logpdf(x[kept], mean[kept], covariance[np.ix_(kept, kept)])
                for weight, mean in zip(model.weights_, means, strict=True)
            ]
        )
    return values


def test_a_linear_decoder_gives_the_closed_form(seed):
    X = overlapping(seed)
    model = fitted(seed, X, autoencoder=linear)
    np.testing.assert_allclose(model.score_samples(X), closed_form(model, X), rtol=1e-9)
    np.testing.assert_allclose(model.score_samples(sp.csr_array(X)), closed_form(model, X))
    assert model.score_samples(X.astype(np.float32)).dtype == np.float32


def test_missing_entries_are_integrated_out(seed):
    X = overlapping(seed)
    holes = np.random.RandomState(seed).uniform(size=X.shape) < 0.3
    holes[holes.all(axis=1)] = False
    X[holes] = np.nan
    model = fitted(seed, X, autoencoder=linear, missing="mask")
    expected = closed_form(model, X, ~holes)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-9)


def test_noise_variance_is_the_error_of_the_reconstruction(seed):
    X = overlapping(seed)
    weight = np.random.RandomState(seed).uniform(size=len(X))
    model = quick(DeepAEClustering).fit(X, sample_weight=weight)
    error = np.square(X - model.inverse_transform(model.transform(X))).mean(axis=1)
    assert model.noise_variance_ == pytest.approx(np.average(error, weights=weight), rel=1e-9)


def moved(model, turn, scale, shift):
    """The same model in other coordinates of its embedding, ``z' = scale z turn + shift``."""
    other = copy.deepcopy(model)
    autoencoder, clustering = other.module_.autoencoder, other.module_.clustering
    there, back = nn.Linear(P, P), nn.Linear(P, P)
    turn, shift = torch.from_numpy(turn), torch.from_numpy(shift)
    # What lies between the network and the embedding, `place`, comes first.
    place = autoencoder.shift, autoencoder.spread
    with torch.no_grad():
        there.weight = nn.Parameter(scale * turn.T / place[1])
        there.bias = nn.Parameter(shift - there.weight @ place[0])
        back.weight = nn.Parameter(turn / scale * place[1])
        back.bias = nn.Parameter(place[0] - back.weight @ shift)
        clustering.means.copy_(scale * clustering.means @ turn + shift)
    autoencoder.encoder = nn.Sequential(autoencoder.encoder, there)
    autoencoder.decoder = nn.Sequential(back, autoencoder.decoder)
    autoencoder.shift = torch.zeros_like(place[0])
    autoencoder.spread = torch.ones_like(place[1])
    other.embedding_centers_ = clustering.means.detach().numpy()
    other.embedding_covariances_ = scale**2 * model.embedding_covariances_
    return other


@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_the_coordinates_of_the_embedding_do_not_matter(seed, scale):
    rng = np.random.RandomState(seed)
    X = overlapping(seed)
    model = fitted(seed, X)
    turn = np.linalg.qr(rng.standard_normal((P, P)))[0]
    other = moved(model, turn, scale, rng.standard_normal(P))
    z = scale * model.transform(X) @ turn
    np.testing.assert_allclose(np.ptp(other.transform(X), 0), np.ptp(z, 0), rtol=1e-9)
    np.testing.assert_allclose(
        other.inverse_transform(other.transform(X)),
        model.inverse_transform(model.transform(X)),
        rtol=1e-9,
    )
    np.testing.assert_allclose(other.score_samples(X), model.score_samples(X), rtol=1e-6)
