"""Layers that compute in bfloat16 while training, and in nothing else."""

import numpy as np
import pytest
import torch
from helpers import blobs, learned, quick
from sklearn.base import clone

from skaecm import DeepAEClustering


def a_fit(seed, mixed_precision=True, **params):
    X, _ = blobs(seed, dtype=np.float32)
    settings = {"pretrain_iter": 5, "random_state": seed} | params
    return quick(DeepAEClustering, mixed_precision=mixed_precision, **settings).fit(X), X


def test_it_trains_much_as_full_precision_does(seed):
    mixed, _ = a_fit(seed)
    full, _ = a_fit(seed, mixed_precision=False)
    losses = [[row["loss"] for row in model.history_] for model in (mixed, full)]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=0.1)


def test_same_seed_same_result(seed):
    first, second = learned(a_fit(seed)[0]), learned(a_fit(seed)[0])
    for name, value in first.items():
        np.testing.assert_equal(value, second[name], err_msg=name)


def test_layers_alone_and_training_alone(seed):
    model, X = a_fit(seed)
    seen = set()

    def note(module, inputs, output):
        seen.add((module.training, output.dtype))

    with torch.nn.modules.module.register_module_forward_hook(note):
        model.partial_fit(X)
        assert (True, torch.bfloat16) in seen
        # The clustering module follows the layers, in the dtype of the rows.
        assert (True, torch.float32) in seen
        assert (False, torch.bfloat16) not in seen
        seen.clear()
        model.predict(X)
        assert seen == {(False, torch.float32)}


def test_what_was_learned_is_in_float32(seed):
    model, X = a_fit(seed)
    assert {p.dtype for p in model.module_.parameters()} == {torch.float32}
    assert model.transform(X).dtype == np.float32
    assert (model.predict(X) == model.labels_).all()
    # Nothing of it stays: the same network without it answers the same.
    full = quick(DeepAEClustering, init=model, max_iter=0).fit(X)
    np.testing.assert_array_equal(full.predict_proba(X), model.predict_proba(X))


def test_one_more_pass_and_a_warm_start_keep_to_it(seed):
    X, _ = blobs(seed, dtype=np.float32)
    passes = {}
    for mixed_precision in (True, False):
        model = clone(a_fit(seed, mixed_precision=False)[0]).set_params(max_iter=0).fit(X)
        model.set_params(mixed_precision=mixed_precision).partial_fit(X)
        passes[mixed_precision] = model.loss_
    assert passes[True] != passes[False]
    assert passes[True] == pytest.approx(passes[False], rel=0.1)


def test_float64_is_refused(seed):
    X, _ = blobs(seed)
    model = quick(DeepAEClustering, mixed_precision=True)
    with pytest.raises(ValueError, match=r"mixed_precision=True is for X in float32, .*float64"):
        model.fit(X)
    assert not hasattr(model, "labels_")
