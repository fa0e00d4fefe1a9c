"""A fit on a GPU agrees with one on the CPU; runs where there is one."""

import numpy as np
import pytest
import torch
from helpers import blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from skaecm import ClusteringModuleGMM, DeepAEClustering

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

ESTIMATORS = [
    ClusteringModuleGMM(3, random_state=0),
    DeepAEClustering(3, hidden_layer_sizes=(64,), random_state=0),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_devices_agree(estimator, seed):
    X, _ = blobs(seed, n=600)
    on_cpu = estimator.set_params(device="cpu").fit(X)
    labels, loss = on_cpu.labels_, on_cpu.loss_
    on_cuda = estimator.set_params(device="cuda").fit(X)
    assert adjusted_rand_score(labels, on_cuda.labels_) >= 0.99
    assert on_cuda.loss_ == pytest.approx(loss, rel=0.01)
    assert {p.device.type for p in on_cuda.module_.parameters()} == {"cpu"}
    np.testing.assert_array_equal(on_cuda.labels_, on_cuda.predict(X))
    on_cuda.set_params(device="cpu")
    np.testing.assert_array_equal(labels, on_cuda.predict(X))


def test_rows_without_room_stay_on_the_cpu_and_memory_is_given_back(monkeypatch):
    X = np.random.RandomState(0).normal(size=(100_000, 512)).astype(np.float32)
    settings = {"max_iter": 1, "random_state": 0, "device": "cuda"}
    with pytest.warns(ConvergenceWarning):
        resident = ClusteringModuleGMM(3, **settings).fit(X)
    monkeypatch.setattr("skaecm._rows.room_for_rows", lambda device: X.nbytes - 1)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with pytest.warns(ConvergenceWarning):
        model = ClusteringModuleGMM(3, **settings).fit(X)
    assert torch.cuda.max_memory_allocated() - before < X.nbytes / 2
    assert torch.cuda.memory_reserved() - before < X.nbytes / 10
    np.testing.assert_array_equal(model.labels_, resident.labels_)
