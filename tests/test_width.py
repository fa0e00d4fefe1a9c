"""How wide the embedding and the layers before it are where nobody says."""

import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import assert_same_fit, quick
from sklearn.base import clone

from skaecm import DeepAEClustering, _blocks
from skaecm._deep_start import PROBES, n_directions
from skaecm._modules import Standardizer
from skaecm._rows import make_rows
from skaecm.autoencoders import MLPAutoencoder


def spread(seed, n=400, d=200):
    """Rows that spread over all of their ``d`` columns."""
    return np.random.RandomState(seed).standard_normal((n, d))


def flat(seed, n=400, d=200):
    """Rows near to a space of five dimensions."""
    rng = np.random.RandomState(seed)
    return rng.standard_normal((n, 5)) @ rng.standard_normal((5, d)) + 0.1 * rng.rand(n, d)


def width(X, sample_weight=None, **params):
    model = quick(DeepAEClustering, **{"n_components": None, **params})
    return model.fit(X, sample_weight=sample_weight).n_components_


def layers(X, sample_weight=None, **params):
    """The widths of the encoder, from the rows to the code."""
    at_once = {"pretrain_iter": 0, "max_iter": 0, "hidden_layer_sizes": "auto"}
    model = quick(DeepAEClustering, **(at_once | params)).fit(X, sample_weight=sample_weight)
    encoder = model.autoencoder_.encoder
    return [m.out_features for m in encoder if isinstance(m, torch.nn.Linear)]


def test_many_rows_that_do_not_spread_get_a_lean_layer_before_the_code(seed):
    assert layers(flat(seed, n=5000)) == [500, 500, 1000, 4]
    assert layers(flat(seed, n=4999)) == [500, 500, 2000, 4]
    assert layers(spread(seed, n=5000)) == [500, 500, 2000, 4]
    assert layers(flat(seed, n=5000), n_components=None) == [500, 500, 1000, 10]
    assert layers(spread(seed), hidden_layer_sizes=(7,), n_components=None) == [7, 100]
    assert layers(flat(seed), hidden_layer_sizes=()) == [4]


def test_auto_is_the_same_fit_as_the_layers_it_stands_for(seed, tmp_path):
    """Alone, where pretraining is cached, and in a file."""
    X, given = flat(seed, n=120), (500, 500, 2000)
    auto, named = (
        quick(DeepAEClustering, hidden_layer_sizes=sizes, memory=str(tmp_path)).fit(X)
        for sizes in ("auto", given)
    )
    assert_same_fit(auto, named)
    assert_same_fit(clone(auto).set_params(memory=None).fit(X), auto)
    assert_same_fit(pickle.loads(pickle.dumps(auto)), auto)


def test_an_autoencoder_of_ones_own_takes_the_place_of_layers(seed):
    pair = MLPAutoencoder((5,))
    assert layers(spread(seed), autoencoder=pair) == [5, 4]
    assert layers(spread(seed), autoencoder=pair, n_components=None) == [5, 100]


def test_rows_that_spread_over_many_directions_get_a_wide_embedding(seed):
    assert width(spread(seed)) == 100
    assert width(flat(seed)) == 10
    # Never wider than X, nor narrower than orthonormal centroids need.
    assert width(spread(seed, n=2000, d=80)) == 80
    assert width(flat(seed), k=12) == 12
    assert width(spread(seed), k=105) == 105
    assert width(spread(seed), n_components=7) == 7


class Blocks:
    """The same rows a hundred at a time."""

    def __init__(self, X):
        self.X = X

    def __iter__(self):
        return iter(np.array_split(self.X, 4))


def test_width_does_not_depend_on_the_form_or_the_unit_of_the_rows(seed, monkeypatch):
    monkeypatch.setattr(_blocks, "WINDOW_BYTES", 200 * 200 * 8)
    for X, expected in ((spread(seed), 100), (flat(seed), 10)):
        assert width(sp.csr_array(X)) == expected
        assert width(1e6 * X - 1e9) == width(1e-9 * X) == expected
        assert width(X.astype(np.float32)) == expected
        assert width(Blocks(X)) == expected


def test_rows_of_no_weight_do_not_widen_the_embedding(seed):
    X = np.vstack([flat(seed), 50 * spread(seed)])
    weight = np.repeat([1.0, 0.0], 400)
    assert width(X) == 100
    assert width(X, weight) == 10


def test_rows_of_no_weight_are_not_counted(seed):
    X = flat(seed, n=6000)
    assert layers(X) == [500, 500, 1000, 4]
    assert layers(X, sample_weight=np.arange(6000) < 4999) == [500, 500, 2000, 4]
    assert layers(X, sample_weight=np.arange(6000) < 5000) == [500, 500, 1000, 4]


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0, 2.0])
def test_number_of_directions_is_the_participation_ratio(seed, dtype, decay):
    X = 3 + spread(seed, n=2000, d=100) * np.arange(1, 101) ** -decay
    weight = np.random.RandomState(seed).uniform(0.5, 1.5, size=len(X))
    centre = np.average(X, axis=0, weights=weight)
    covariance = np.cov(X.T, aweights=weight, bias=True)
    X = X.astype(dtype)
    rows = make_rows(X, weight, torch.device("cpu"), torch.from_numpy(X).dtype)
    scale = torch.tensor(np.trace(covariance) / 100, dtype=rows.dtype).sqrt()
    found = n_directions(rows, Standardizer(torch.from_numpy(centre).to(rows.dtype), scale))
    square = covariance @ covariance
    expected = np.trace(covariance) ** 2 / np.trace(square)
    # What so few random directions may be wrong by.
    deviation = np.sqrt(2 * np.trace(square @ square) / PROBES) / np.trace(square)
    assert expected / found == pytest.approx(1, abs=4 * deviation)
    constant = make_rows(np.ones((5, 3)), None, torch.device("cpu"), torch.float64)
    assert n_directions(constant, Standardizer(torch.ones(3), torch.tensor(1.0))) == 0
