"""Models in the ONNX format answer as the estimators do, and nothing is said meanwhile."""

import logging
import os
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from helpers import ROOT, blobs, overlapping, quick
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from torch import nn

import skaecm
from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.autoencoders import ConvolutionalAutoencoder

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def session_of(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.fixture(scope="module")
def many_digits():
    """10,000 jittered digits."""
    X = load_digits().data
    rng = np.random.RandomState(0)
    rows = X[rng.randint(len(X), size=10_000)]
    return rows + rng.normal(scale=0.5, size=rows.shape)


FITS = {
    "module": (ClusteringModuleGMM, {}),
    "layers": (DeepAEClustering, {"hidden_layer_sizes": (32, 16)}),
    "images": (DeepAEClustering, {"autoencoder": ConvolutionalAutoencoder((8, 8), (4, 8))}),
    "odd images": (DeepAEClustering, {"autoencoder": ConvolutionalAutoencoder((2, 4, 8), (3,))}),
}


@pytest.mark.parametrize(("cls", "params"), FITS.values(), ids=FITS)
def test_models_answer_as_estimators(cls, params, dtype, many_digits, path):
    X = many_digits.astype(dtype)
    model = quick(cls, k=10, **{"n_components": 10} | params if cls is DeepAEClustering else params)
    model.fit(X[:1000])
    skaecm.export_onnx(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    session = session_of(path)
    assert [(i.name, i.shape[1:], i.type) for i in session.get_inputs()] == [
        ("X", [64], "tensor(float)" if dtype == np.float32 else "tensor(double)")
    ]
    assert [output.name for output in session.get_outputs()] == ["label", "probabilities"]
    transformed = path.with_name("transform.onnx")
    skaecm.export_onnx(model, transformed, method="transform")
    other = session_of(transformed)
    for rows in (X, X[:1]):
        label, proba = session.run(None, {"X": rows})
        assert label.dtype == np.int64
        np.testing.assert_array_equal(label, model.predict(rows))
        np.testing.assert_allclose(proba, model.predict_proba(rows), rtol=0, atol=1e-5)
        (code,) = other.run(["transformed"], {"X": rows})
        expected = model.transform(rows)
        assert code.dtype == dtype
        tolerance = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(code, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_ties_are_for_the_first_as_everywhere(dtype, path):
    """Clusters of the same weights have the same responsibilities."""
    X = overlapping(n=10_000)[:, :3].astype(dtype)
    model = quick(ClusteringModuleGMM, k=6).fit(X)
    network = model.module_.clustering
    with torch.no_grad():
        network.weight[3:], network.bias[3:] = network.weight[:3], network.bias[:3]
    skaecm.export_onnx(model, path)
    label, proba = session_of(path).run(None, {"X": X})
    np.testing.assert_array_equal(label, proba.argmax(axis=1))
    expected = model.predict_proba(X)
    tied = [np.all(p[:, :3] == p[:, 3:], axis=1) for p in (proba, expected)]
    tied = np.logical_and(*tied)
    np.testing.assert_array_equal(label[tied], model.predict(X)[tied])
    np.testing.assert_array_equal(label % 3, model.predict(X) % 3)


def smooth(n_features, n_components, generator):
    """A custom autoencoder of layers that are no ready ones."""
    encoder = nn.Sequential(nn.Linear(n_features, 6), nn.Tanh(), nn.Linear(6, n_components))
    return encoder, nn.Linear(n_components, n_features)


def test_a_custom_autoencoder(dtype, path):
    X, _ = blobs(dtype=dtype)
    model = quick(DeepAEClustering, autoencoder=smooth).fit(X)
    skaecm.export_onnx(model, path, method="transform")
    if dtype == np.float32:
        (code,) = session_of(path).run(None, {"X": X})
        np.testing.assert_allclose(code, model.transform(X), rtol=1e-4, atol=1e-5)


class Sorted(nn.Module):
    """Looks at values on the way, which no graph of operations can."""

    def __init__(self, n_features, n_components):
        super().__init__()
        self.linear = nn.Linear(n_features, n_components)

    def forward(self, x):
        return self.linear(x) if float(x.sum()) > 0 else -self.linear(x)


def test_a_custom_autoencoder_that_is_no_graph(path, capfd):
    def branching(n_features, n_components, generator):
        return Sorted(n_features, n_components), nn.Linear(n_components, n_features)

    model = quick(DeepAEClustering, autoencoder=branching).fit(blobs()[0])
    with pytest.raises(
        ValueError, match=r"cannot be written in ONNX. A custom .* reason: "
    ) as error:
        skaecm.export_onnx(model, path)
    assert len(str(error.value)) < 1000
    assert not path.exists()
    assert capfd.readouterr() == ("", "")


def numpy_state():
    return np.random.get_state()[1].tolist()  # noqa: NPY002


def test_nothing_is_said_and_nothing_changed(path, capfd, caplog, recwarn):
    model = quick(DeepAEClustering).fit(blobs()[0])
    before = [torch.get_rng_state(), numpy_state(), torch.get_default_dtype()]
    levels = [logging.getLogger(name).level for name in ("", "torch.onnx", "onnxscript")]
    filters = list(warnings.filters)
    network = {name: tensor.clone() for name, tensor in model.module_.state_dict().items()}
    layers = str(model.module_)
    skaecm.export_onnx(model, path)
    assert capfd.readouterr() == ("", "")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not recwarn.list
    after = [torch.get_rng_state(), numpy_state(), torch.get_default_dtype()]
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert levels == [logging.getLogger(name).level for name in ("", "torch.onnx", "onnxscript")]
    assert filters == warnings.filters
    assert layers == str(model.module_)
    assert all(torch.equal(network[name], t) for name, t in model.module_.state_dict().items())


def test_a_model_does_not_say_where_it_was_made(path):
    skaecm.export_onnx(quick(DeepAEClustering).fit(blobs()[0]), path)
    content = path.read_bytes()
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content


def test_strings_and_an_old_file(path):
    path.write_text("old")
    skaecm.export_onnx(quick(ClusteringModuleGMM).fit(blobs()[0]), str(path))
    assert [i.name for i in session_of(path).get_inputs()] == ["X"]
    missing = path.parent / "missing" / "model"
    with pytest.raises(FileNotFoundError, match=str(missing)):
        skaecm.export_onnx(quick(ClusteringModuleGMM).fit(blobs()[0]), missing)
    assert os.listdir(path.parent) == [path.name]


def test_what_is_refused(cls, path):
    with pytest.raises(TypeError, match="DeepAEClustering, but got a KMeans"):
        skaecm.export_onnx(KMeans(3), path)
    with pytest.raises(NotFittedError, match=cls.__name__):
        skaecm.export_onnx(quick(cls), path)
    model = quick(cls).fit(blobs()[0])
    with pytest.raises(ValueError, match="'predict_proba', 'transform', but is 'predict'"):
        skaecm.export_onnx(model, path, method="predict")
    assert not path.exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_the_missing_package_is_named(package, path, monkeypatch):
    model = quick(ClusteringModuleGMM).fit(blobs()[0])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'needs {package}. .*pip install "skaecm\[onnx\]"'):
        skaecm.export_onnx(model, path)


@pytest.mark.parametrize("version", ["2.4.1", "2.4.0+cpu"])
def test_an_old_torch_is_named_first(version, path, monkeypatch):
    model = quick(ClusteringModuleGMM).fit(blobs()[0])
    monkeypatch.setattr(torch, "__version__", version)
    monkeypatch.setitem(sys.modules, "onnx", None)
    sentence = f"needs torch 2.5 or later, but this is torch {re.escape(version)}. Upgrade torch"
    with pytest.raises(ImportError, match=sentence):
        skaecm.export_onnx(model, path)
    assert not path.exists()
