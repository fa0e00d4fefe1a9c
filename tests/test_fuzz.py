"""Any parameters on any input: the run of `fuzz_fits.py`, and the faults it has found."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT, blobs, quick

from skaecm import ClusteringModuleGMM, DeepAEClustering


def test_fuzzed_fits():
    """200 cases, always the same, or as many as SKAECM_FUZZ_FITS says, in a process."""
    pytest.importorskip("hypothesis")
    pytest.importorskip("pandas")
    n_cases = os.environ.get("SKAECM_FUZZ_FITS", "200")
    command = [sys.executable, str(ROOT / "tests" / "fuzz_fits.py"), n_cases]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    outcomes = json.loads(done.stdout)
    assert sum(outcomes.values()) >= int(n_cases) / 2
    assert {"fitted", "ValueError"} <= outcomes.keys()


@pytest.mark.parametrize("is_one", [True, False])
def test_a_variance_out_of_range_is_not_taken_for_none(cls, seed, is_one):
    """It is infinite, and so is what its rounding may be."""
    X, _ = blobs(seed)
    if is_one:
        X[3, 1] = 1e300
    else:
        X = 1e307 * np.abs(X)
    with pytest.raises(ValueError, match=r"too large or too small for float64: .* inf"):
        quick(cls).fit(X)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_variance_of_coinciding_codes_is_not_negative(seed):
    X = np.zeros((12, 1))
    model = quick(DeepAEClustering, pretrain_iter=0, n_neighbors=3, random_state=seed)
    model.fit(X)
    assert (model.embedding_covariances_ >= 0).all()
    assert np.isfinite(model.sample(5)[0]).all()


def test_weights_after_a_weighted_block_sum_to_one(cls, seed):
    X, _ = blobs(seed, n=200)
    weight = np.random.RandomState(seed).uniform(size=200) ** 4
    model = quick(cls, batch_size=8).partial_fit(X).partial_fit(X, sample_weight=weight)
    assert model.weights_.sum() == pytest.approx(1.0, rel=1e-6)


def test_a_pass_that_breaks_the_network_is_refused(seed):
    """The loss of the last batch is that before its step, which may leave NaN behind."""
    X, _ = blobs(seed, n=20)
    model = quick(ClusteringModuleGMM).partial_fit(X)
    before = model.predict(X)
    model.set_params(learning_rate_init=1e300)
    with pytest.raises(ValueError, match="loss is not finite"):
        model.partial_fit(X)
    np.testing.assert_array_equal(model.predict(X), before)


def test_complex_weights_are_refused(cls, seed):
    X, _ = blobs(seed)
    with pytest.raises(ValueError, match="sample_weight must hold real numbers"):
        quick(cls).fit(X, sample_weight=1j)


def test_centres_too_large_for_the_rows_are_refused(cls, seed):
    """As float32, and without a warning of NumPy."""
    X, _ = blobs(seed, dtype=np.float32)
    with pytest.raises(ValueError, match="init contains infinity or a value too large"):
        quick(cls, init=np.full((3, 4), 1e300)).fit(X)


@pytest.mark.parametrize("factor", [1e-311, 1e-3, 1e300])
def test_the_unit_of_a_graph_does_not_matter(cls, seed, factor):
    """Nor do weights that are hardly numbers any more."""
    X, y = blobs(seed)
    graph = (y[:, None] == y).astype(float)
    fits = [quick(cls).fit(X, adjacency=graph * scale) for scale in (1.0, factor)]
    np.testing.assert_allclose(fits[0].cluster_centers_, fits[1].cluster_centers_, rtol=1e-6)


def test_squared_distances_that_would_overflow_are_refused(cls, seed):
    X, _ = blobs(seed, dtype=np.float32)
    with pytest.raises(ValueError, match="values of X are too large or too small for float32"):
        quick(cls).fit(X * np.float32(5e17))


def test_a_code_that_pretraining_made_too_large_is_told():
    X = blobs(0)[0].astype(np.float32)
    start = DeepAEClustering(3, hidden_layer_sizes=(3,), max_iter=0, random_state=0).fit(X)
    start.autoencoder_.spread.fill_(1e-25)
    with pytest.raises(ValueError, match=r"not finite \(code\) in pretraining.*learning_rate_init"):
        quick(DeepAEClustering, init=start.autoencoder_, n_components=None).fit(X)


def test_rows_far_from_the_origin_are_refused(cls):
    """They fit float32 and vary little, but the square of where they are does not."""
    X = np.column_stack([np.full(12, 1e21), 1e12 * np.arange(12)]).astype(np.float32)
    with pytest.raises(ValueError, match=r"too large or too small for float32: .* means 5e\+41"):
        quick(cls).fit(X)
    quick(cls).fit(X.astype(np.float64))
