"""What several test files share: small data, quick estimators, comparisons of fits."""

from pathlib import Path

import numpy as np
import pytest
import torch

from skaecm import ClusteringModuleGMM, DeepAEClustering

ROOT = Path(__file__).resolve().parent.parent
BOTH = [ClusteringModuleGMM, DeepAEClustering]

# Every loss is flat after two epochs: a fit that converges at once and does not warn.
AT_ONCE = {"tol": 1e3, "n_iter_no_change": 1}

# For starts that empty clusters, where that does not matter.
FEW_CLUSTERS = "ignore:Only . of k=3:sklearn.exceptions.ConvergenceWarning"

# The terms of the loss, as rows of the history name them.
HISTORY = {
    ClusteringModuleGMM: ["E1", "E2", "E3", "E4"],
    DeepAEClustering: ["reconstruction", "E1", "E2", "orthonormality", "E4"],
}


def quick(cls, **params):
    """An estimator that is small, seeded and converges after two epochs."""
    settings = {"k": 3, "random_state": 0, **AT_ONCE}
    if cls is DeepAEClustering:
        settings |= {"hidden_layer_sizes": (16,), "n_components": 4, "pretrain_iter": 2}
        settings["n_neighbors"] = None
    return cls(**(settings | params))


def blobs(seed=0, n=90, k=3, d=4, dtype=np.float64):
    """Rows and labels of ``k`` <= ``d`` round clusters, more than ten deviations apart."""
    rng = np.random.RandomState(seed)
    labels = rng.permutation(np.arange(n) % k)
    centers = 8.0 * np.eye(k, d) + rng.uniform(-1, 1, size=(k, d))
    X = centers[labels] + 0.7 * rng.standard_normal((n, d))
    return X.astype(dtype), labels


def sheet(seed, n=300, d=6):
    """Rows on two dimensions, bent into ``d``."""
    rng = np.random.RandomState(seed)
    place = rng.uniform(size=(n, 2))
    return np.tanh(place @ rng.standard_normal((2, d)) + 0.1 * rng.standard_normal(d))


def overlapping(seed=0, n=300):
    """Rows of three correlated clusters that touch, far from the origin."""
    rng = np.random.RandomState(seed)
    X, _ = blobs(seed, n=n)
    return (X + 3 * rng.standard_normal(X.shape)) @ (
        np.eye(4) + 0.2 * rng.uniform(size=(4, 4))
    ) + 30


def rows_with_one_start_each(seed):
    """Blobs whose first three rows belong to the three clusters, to be a given start."""
    X, y = blobs(seed)
    first = np.unique(y, return_index=True)[1]
    return np.vstack([X[first], np.delete(X, first, axis=0)])


def learned(estimator):
    """Everything a fit learned that can be compared: arrays, numbers and the module's tensors."""
    values = {
        name: value
        for name, value in vars(estimator).items()
        if name.endswith("_") and not isinstance(value, torch.nn.Module)
    }
    tensors = {name: value.numpy() for name, value in estimator.module_.state_dict().items()}
    return values | tensors | {"module_.alpha": estimator.module_.alpha.numpy()}


def assert_same_fit(first, second):
    """Two fits agree bit for bit in everything they learned."""
    first, second = learned(first), learned(second)
    assert first.keys() == second.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
        assert getattr(value, "dtype", None) == getattr(second[name], "dtype", None), name


def assert_close_fit(first, second, rtol):
    """Two fits agree in labels exactly, and in arrays to ``rtol`` of their size."""
    first, second = learned(first), learned(second)
    for name in ("labels_", "cluster_centers_", "weights_", "covariances_", "loss_"):
        scale = np.abs(first[name]).max()
        np.testing.assert_allclose(
            first[name], second[name], rtol=rtol, atol=rtol * scale, err_msg=name
        )


def the_row_itself(batch, generator):
    return batch


def shaken(batch, generator):
    """An augmentation that can be pickled."""
    noise = torch.randn(batch.shape, generator=generator, dtype=batch.dtype)
    return batch + 0.2 * noise


PARTNERS = {
    "copies": {"augment": "noise"},
    "callable": {"augment": shaken},
    "neighbours": {"n_neighbors": 5},
    "both": {"n_neighbors": 5, "augment": "noise"},
}


def graph_of(y, seed=0, share=0.2):
    """A directed weighted graph of rows of one label; a fifth of the rows is alone."""
    rng = np.random.RandomState(seed)
    n = len(y)
    graph = rng.uniform(0.5, 2, size=(n, n)) * (rng.uniform(size=(n, n)) < share)
    graph *= y[:, None] == y
    graph[: n // 5] = graph[:, : n // 5] = 0
    return graph


def state_of(estimator):
    return {name: id(value) for name, value in vars(estimator).items()}


def assert_refused(model, call, message):
    """``call`` raises and leaves ``model`` as it was."""
    fitted = hasattr(model, "module_")
    before = state_of(model), fitted and learned(model)
    with pytest.raises(ValueError, match=message):
        call(model)
    assert state_of(model) == before[0]
    if fitted:
        np.testing.assert_equal(learned(model), before[1])
