"""A fit on a GPU agrees with one on the CPU; runs where there is one."""

from threading import Thread

import numpy as np
import pytest
import torch
from helpers import blobs
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from torch import nn

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.autoencoders import ConvolutionalAutoencoder

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


# Recorded steps
# --------------

still_falling = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DEEP = {"hidden_layer_sizes": (64,), "pretrain_iter": 3, "n_neighbors": None}
SHORT = {
    "max_iter": 4,
    "tol": 0.0,
    "n_iter_no_change": 99,
    "random_state": 0,
    "device": "cuda",
}
VARIANTS = {
    "module": ClusteringModuleGMM(3),
    "deep": DeepAEClustering(3, **DEEP),
    "neighbours": DeepAEClustering(3, **{**DEEP, "n_neighbors": 5}),
    "noise": DeepAEClustering(3, augment="noise", **DEEP),
    "bfloat16": DeepAEClustering(3, mixed_precision=True, **DEEP),
    "images": DeepAEClustering(
        3,
        augment="image",
        image_shape=(4, 4),
        autoencoder=ConvolutionalAutoencoder((4, 4), channels=(4,)),
        **DEEP,
    ),
}


@pytest.fixture(params=VARIANTS)
def short_fit(request):
    return VARIANTS[request.param].set_params(**SHORT)


def learned(model):
    return [tensor.clone() for tensor in model.module_.state_dict().values()]


def fit_short(model, X, **arguments):
    model.fit(X, **arguments)
    return learned(model), model.history_, model.labels_


@still_falling
def test_recorded_steps_are_the_steps(short_fit, seed, monkeypatch):
    X = blobs(seed, n=600, d=16)[0].astype(np.float32)
    weight = np.random.RandomState(seed).uniform(0.5, 1.5, size=len(X))
    arguments = {} if short_fit.get_params().get("augment") else {"sample_weight": weight}
    recorded, history, labels = fit_short(short_fit, X, **arguments)
    monkeypatch.setattr("skaecm._steps.KNOWN", ())
    one_by_one, same_history, same_labels = fit_short(short_fit, X, **arguments)
    assert history == same_history
    np.testing.assert_array_equal(labels, same_labels)
    for here, there in zip(recorded, one_by_one, strict=True):
        assert torch.equal(here, there)


@still_falling
def test_missing_entries_in_recorded_steps(seed, monkeypatch):
    X, _ = blobs(seed, n=600, d=16)
    X[np.random.RandomState(seed).uniform(size=X.shape) < 0.1] = np.nan
    model = DeepAEClustering(3, missing="mask", **DEEP, **SHORT)
    recorded, *_ = fit_short(model, X)
    monkeypatch.setattr("skaecm._steps.KNOWN", ())
    for here, there in zip(recorded, fit_short(model, X)[0], strict=True):
        assert torch.equal(here, there)


class Moody(nn.Module):
    """Does what no recording knows: it looks at what it computes."""

    def forward(self, x):
        return -x if float(x.detach().mean()) < 0 else x


def moody_autoencoder(n_features, n_components, generator):
    return nn.Linear(n_features, n_components), nn.Sequential(
        Moody(), nn.Linear(n_components, n_features)
    )


@still_falling
def test_modules_of_the_user_are_not_recorded(seed):
    X, _ = blobs(seed, n=300)
    settings = {**DEEP, **SHORT, "autoencoder": moody_autoencoder}
    fit_short(DeepAEClustering(3, **settings), X)


@still_falling
def test_resumed_and_streamed_fits_on_a_gpu(tmp_path, seed):
    X = blobs(seed, n=600)[0]
    whole = fit_short(DeepAEClustering(3, **DEEP, **SHORT), X)
    model = DeepAEClustering(3, **DEEP, **SHORT, checkpoint=tmp_path)

    def stop(row):
        if (row["phase"], row["epoch"]) == ("training", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.set_params(callback=stop).fit(X)
    resumed = fit_short(model.set_params(callback=None), X)
    for here, there in zip(whole[0], resumed[0], strict=True):
        assert torch.equal(here, there)
    # The optimizer goes on where it was, on either device.
    model.set_params(checkpoint=None).partial_fit(X)
    model.partial_fit(X)
    model.set_params(device="cpu").partial_fit(X)
    assert np.isfinite(model.loss_)


@still_falling
def test_threads_record_side_by_side(seed):
    X = blobs(seed, n=600)[0]
    models = [DeepAEClustering(3, **DEEP, **SHORT) for _ in range(4)]
    alone, *_ = fit_short(DeepAEClustering(3, **DEEP, **SHORT), X)
    threads = [Thread(target=model.fit, args=(X,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for model in models:
        for here, there in zip(alone, learned(model), strict=True):
            assert torch.equal(here, there)
