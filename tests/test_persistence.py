"""Keeping a fit: what is saved comes back bit for bit, and no file does any harm."""

import doctest
import errno
import json
import os
import pickle
import stat
import subprocess
import sys
from contextlib import nullcontext as nothing

import joblib
import numpy as np
import pytest
import sklearn
import torch
from fuzz_saved import Forgery
from helpers import BOTH, ROOT, blobs, quick
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

import skaecm
from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.__main__ import main
from skaecm._persistence import FORMAT
from skaecm.autoencoders import ConvolutionalAutoencoder, MLPAutoencoder

pytest.importorskip("safetensors")

from safetensors.numpy import save_file as save_arrays


def same(first, second):
    """Whether two values are of one type and equal bit for bit, whatever they hold."""
    if type(first) is not type(second):
        return False
    if isinstance(first, torch.Tensor):
        return (
            first.dtype == second.dtype
            and first.device == second.device
            and first.requires_grad == second.requires_grad
            and first.stride() == second.stride()
            and torch.equal(first, second)
        )
    if isinstance(first, np.ndarray | np.generic):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, np.random.RandomState):
        return same(first.get_state(legacy=False), second.get_state(legacy=False))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, nn.Module | BaseEstimator):
        return same(vars(first), vars(second))
    # Functions, and what knows how to compare itself or else to write itself.
    return first == second or (callable(first) and first is second) or repr(first) == repr(second)


def assert_same(first, second):
    """Two estimators hold the same in every attribute, whatever it is called."""
    assert vars(first).keys() == vars(second).keys()
    for name, value in vars(first).items():
        assert same(value, vars(second)[name]), name


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.skaecm"


def there_and_back(estimator, path, **given_again):
    skaecm.save(estimator, path)
    return skaecm.load(path, **given_again)


def a_mixture(X):
    return GaussianMixture(3, covariance_type="tied", random_state=0).fit(X)


# What comes back
# ---------------


def test_everything_comes_back(cls, dtype, path):
    X, _ = blobs(dtype=dtype)
    model = quick(cls, alpha=[0.1, 0.2, 0.3]).fit(X)
    again = there_and_back(model, path)
    assert_same(model, again)
    for method in ("predict", "predict_proba", "transform", "score_samples"):
        assert same(getattr(model, method)(X), getattr(again, method)(X))
    assert same(model.sample(5), again.sample(5))
    assert again.means_ is again.cluster_centers_
    if cls is DeepAEClustering:
        assert again.autoencoder_ is again.module_.autoencoder


FITS = {
    "k = 1": {"k": 1},
    "published": {"init": "pinv"},
    "restarts": {"init": "k-means++", "n_init": 2},
    "centres": {"init": blobs()[0][:3].tolist()},
    "array": {"init": np.asfortranarray(blobs()[0][:3]), "alpha": np.array([0.1, 0.2, 0.3])},
    "copies": {"augment": "noise"},
    "neighbours": {"n_neighbors": 5, "gamma": np.float32(0.5)},
    "kinds": {
        "k": np.int64(3),
        "alpha": (0.1, 0.2, np.float64(0.3)),
        "device": torch.device("cpu"),
        "random_state": np.random.RandomState(0),
        "warm_start": True,
    },
    "words": {"init": np.str_("k-means++"), "device": np.str_("cpu"), "augment": np.str_("noise")},
}


@pytest.mark.parametrize("params", FITS.values(), ids=FITS)
def test_whatever_the_parameters_were(cls, params, path):
    X, _ = blobs()
    model = quick(cls, **params).fit(X)
    model.partial_fit(X[:50])
    again = there_and_back(model, path)
    # A string of NumPy comes back as one of Python.
    words = {name: value for name, value in params.items() if type(value) is np.str_}
    assert all(type(getattr(again, name)) is str for name in words)
    assert_same(model.set_params(**{name: str(value) for name, value in words.items()}), again)
    # The same random numbers follow, so another fit is the same too.
    assert_same(model.fit(X), again.fit(X))


NETWORKS = {
    "wide": {"hidden_layer_sizes": (8, 6), "n_components": 5},
    "recipe": {"autoencoder": MLPAutoencoder([7, 5])},
    "images": {"autoencoder": ConvolutionalAutoencoder((5, 4), channels=(2, 3))},
    "colours": {"autoencoder": ConvolutionalAutoencoder((2, 2, 5), channels=[4])},
}


@pytest.mark.parametrize("params", NETWORKS.values(), ids=NETWORKS)
def test_ready_autoencoders_need_nothing(params, dtype, path):
    X, _ = blobs(d=20, dtype=dtype)
    model = quick(DeepAEClustering, **params).fit(X)
    again = there_and_back(model, path)
    assert_same(model, again)
    assert same(
        model.inverse_transform(model.transform(X)), again.inverse_transform(again.transform(X))
    )


def test_sizes_may_be_numbers_of_numpy(path):
    X, _ = blobs()
    recipe = MLPAutoencoder(np.array([7, 5]))
    model = quick(DeepAEClustering, autoencoder=recipe, n_components=np.int64(3)).fit(X)
    assert same(model.transform(X), there_and_back(model, path).transform(X))


def test_the_network_is_that_of_the_fit_whatever_the_parameters_say(path):
    X, _ = blobs()
    start = quick(DeepAEClustering, autoencoder=MLPAutoencoder((5,))).fit(X)
    model = quick(DeepAEClustering, init=start, hidden_layer_sizes=(50, 50)).fit(X)
    model.set_params(init="k-means", learning_rate_init=1.0)
    assert_same(model, there_and_back(model, path))


@pytest.mark.parametrize("before", [["partial_fit"], ["fit"], ["fit", "partial_fit"]])
def test_a_stream_goes_on(cls, before, path):
    X, _ = blobs()
    model = quick(cls).set_params(max_iter=1, tol=0.0, n_iter_no_change=1)
    warned = pytest.warns(ConvergenceWarning, match="max_iter=1")
    with warned if "fit" in before else nothing():
        for method in before:
            getattr(model, method)(X)
    again = there_and_back(model, path)
    for block in (X[:40], X[40:]):
        assert_same(model.partial_fit(block), again.partial_fit(block))


def test_a_warm_start_goes_on(cls, path):
    X, _ = blobs()
    model = quick(cls, warm_start=True).fit(X)
    again = there_and_back(model, path)
    assert_same(model.fit(X), again.fit(X))


def test_names_and_choices_come_back(cls, path):
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(blobs()[0], columns=list("abçd"))
    model = quick(cls).fit(X).set_output(transform="pandas")
    again = there_and_back(model, path)
    assert_same(model, again)
    pd.testing.assert_frame_equal(model.transform(X), again.transform(X))


def test_requests_come_back(cls, path):
    with sklearn.config_context(enable_metadata_routing=True):
        model = quick(cls).set_fit_request(adjacency=True, sample_weight="w")
        model.set_score_request(sample_weight=False).fit(blobs()[0])
        again = there_and_back(model, path)
        assert repr(again.get_metadata_routing()) == repr(model.get_metadata_routing())
    assert_same(model, again)


def test_the_best_of_a_search_comes_back(cls, path):
    """Its parameters are numbers of NumPy."""
    grid = {"k": np.arange(2, 4), "gamma": np.logspace(-1, 0, 2)}
    search = GridSearchCV(quick(cls), grid, cv=2).fit(blobs()[0])
    assert_same(search.best_estimator_, there_and_back(search.best_estimator_, path))


def test_callbacks_are_not_part_of_a_fit(cls, path):
    """Ours is None in what is loaded, without a word, and those of scikit-learn are not there."""
    seen = []
    model = quick(cls, callback=seen.append).fit(blobs()[0])
    assert seen
    assert_same(there_and_back(model, path), model.set_params(callback=None))
    with pytest.raises(ValueError, match=r"but was given callback. Use set_params"):
        skaecm.load(path, callback=seen.append)
    callback = pytest.importorskip("sklearn.callback")
    model.set_callbacks(callback.ScoringMonitor(scoring=None)).fit(blobs()[0])
    again = there_and_back(model, path)
    assert_same(model.set_callbacks(), again)


def test_in_a_fresh_process(tmp_path):
    X, _ = blobs()
    models = [quick(cls).fit(X).partial_fit(X[:50]) for cls in BOTH]
    for i, model in enumerate(models):
        skaecm.save(model, tmp_path / str(i))
    np.save(tmp_path / "X.npy", X)
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r}); os.chdir({str(tmp_path)!r})\n"
        "import numpy, pickle, skaecm; X = numpy.load('X.npy')\n"
        "models = [skaecm.load('0'), skaecm.load('1')]\n"
        "found = [(m, m.predict(X), m.predict_proba(X), m.transform(X)) for m in models]\n"
        "sys.stdout.buffer.write(pickle.dumps(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    for model, (again, *found) in zip(models, pickle.loads(done.stdout), strict=True):
        assert_same(model, again)
        expected = [model.predict(X), model.predict_proba(X), model.transform(X)]
        assert same(found, expected)


def test_a_device_that_is_not_here(cls, path):
    X, _ = blobs()
    model = quick(cls).fit(X).set_params(device="cuda:7")
    with pytest.warns(
        UserWarning, match="device='cuda:7' does not exist here, so device is 'auto'"
    ):
        again = there_and_back(model, path)
    assert again.device == "auto"
    again.predict(X)
    assert_same(model.set_params(device="cpu"), again.set_params(device="cpu"))
    assert same(model.predict(X), again.predict(X))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_fit_of_a_gpu_rests_on_the_cpu(cls, path):
    X, _ = blobs()
    model = quick(cls, device="cuda").fit(X).partial_fit(X[:50])
    again = there_and_back(model, path)
    assert_same(model, again)
    models = model.set_params(device="cpu"), again.set_params(device="cpu")
    assert same(*(model.predict_proba(X) for model in models))


# What a file cannot hold
# -----------------------


def shaken(batch, generator):
    return batch + 0.1 * torch.randn(batch.shape, generator=generator, dtype=batch.dtype)


def normalized(n_features, n_components, generator):
    """A custom autoencoder, with buffers and with a tensor that both halves share."""
    encoder = nn.Sequential(
        nn.Linear(n_features, n_components, bias=False), nn.BatchNorm1d(n_components)
    )
    decoder = Transposed(encoder[0].weight)
    return encoder, decoder


class Transposed(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, z):
        return z @ self.weight


def test_a_callable_is_given_again(cls, path):
    X, _ = blobs()
    model = quick(cls, augment=shaken).fit(X)
    skaecm.save(model, path)
    sentence = r"a file cannot hold augment \(function shaken\).*skaecm.load\(path, augment=...\)"
    with pytest.warns(UserWarning, match=sentence) as said:
        again = skaecm.load(path)
    assert said[0].filename == __file__
    # All that was learned is there, with the default for another fit.
    assert again.augment is None
    assert_same(model, again.set_params(augment=shaken))
    again = skaecm.load(path, augment=shaken)
    assert_same(model, again)
    assert_same(model.fit(X), again.fit(X))
    assert skaecm.load(path, augment=None).augment is None


def test_objects_are_given_again(path):
    X, _ = blobs()
    start = KMeans(3, n_init=1, random_state=0).fit(X)
    model = quick(DeepAEClustering, init=start, augment=shaken).fit(X)
    skaecm.save(model, path)
    with pytest.warns(
        UserWarning, match=r"augment \(function shaken\), init \(KMeans\).*augment=..., init=..."
    ) as said:
        again = skaecm.load(path)
    assert (len(said), again.init, again.augment) == (1, "k-means", None)
    assert same(model.predict_proba(X), again.predict_proba(X))
    with pytest.warns(UserWarning, match=r"a file cannot hold augment \(function shaken\)"):
        assert skaecm.load(path, init=start).init is start
    assert_same(model, skaecm.load(path, init=start, augment=shaken))


@pytest.mark.parametrize("kind", [str, joblib.Memory])
def test_no_file_chooses_a_folder_of_pickles(kind, tmp_path, path):
    """`memory` is None in what is loaded, without a word, also if the file names a folder."""
    X, _ = blobs()
    cache = tmp_path / "cache"
    memory = str(cache) if kind is str else joblib.Memory(cache, verbose=0)
    model = quick(DeepAEClustering, memory=memory).fit(X)
    skaecm.save(model, path)
    assert b"memory" not in path.read_bytes()
    assert_same(model.set_params(memory=None), skaecm.load(path))
    with pytest.raises(ValueError, match=r"but was given memory. Use set_params"):
        skaecm.load(path, memory=memory)
    forgery = Forgery(path)
    for value in (str(cache), {"given again": "Memory"}):
        forgery.document["parameters"] |= dict.fromkeys(["memory", "callback", "checkpoint"], value)
        forgery.write()
        assert_same(model, skaecm.load(path))


def test_a_command_needs_no_more_than_the_network(path, capsys):
    """Nor does it speak of what only another fit would miss."""
    X, _ = blobs()
    start = KMeans(3, n_init=1, random_state=0).fit(X)
    rows = path.with_name("rows.npy")
    np.save(rows, X)
    for params in ({"init": start, "augment": shaken}, {"init": start, "device": "cpu"}):
        model = quick(DeepAEClustering, callback=[].append, **params).fit(X)
        skaecm.save(model.set_params(device="cuda:7"), path)
        assert main(["predict", str(path), str(rows)]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        labels = model.set_params(device="cpu").predict(X)
        np.testing.assert_array_equal(np.array(out.split()[1:], dtype=int), labels)
    skaecm.save(quick(DeepAEClustering, autoencoder=normalized).fit(X), path)
    assert main(["predict", str(path), str(rows)]) == 2
    assert "cannot hold autoencoder (function normalized)" in capsys.readouterr().err


def test_only_what_is_missing_is_given_again(cls, path):
    skaecm.save(quick(cls).fit(blobs()[0]), path)
    with pytest.raises(
        ValueError, match=r"could not hold \(nothing\), but was given k. Use set_params"
    ):
        skaecm.load(path, k=4)


def test_a_custom_autoencoder_needs_its_code(path):
    X, _ = blobs()
    model = quick(DeepAEClustering, autoencoder=normalized).fit(X).partial_fit(X[:40])
    skaecm.save(model, path)
    with pytest.raises(ValueError, match=r"hold autoencoder \(function normalized\), whose code"):
        skaecm.load(path)
    again = skaecm.load(path, autoencoder=normalized)
    assert_same(model, again)
    weights = again.autoencoder_.encoder[0].weight, again.autoencoder_.decoder.weight
    assert weights[0] is weights[1]
    assert_same(model.partial_fit(X), again.partial_fit(X))

    with pytest.raises(
        ValueError, match="must be the callable of the fit, which builds it, but is None"
    ):
        skaecm.load(path, autoencoder=None)
    with pytest.raises(ValueError, match=r"does not fit: autoencoder.decoder.0.bias.* of the fit"):
        skaecm.load(path, autoencoder=MLPAutoencoder((4,)))

    def broken(n_features, n_components, generator):
        raise AttributeError("no such network")

    with pytest.raises(ValueError, match="cannot be built: no such network") as error:
        skaecm.load(path, autoencoder=broken)
    assert isinstance(error.value.__cause__, AttributeError)


def test_the_code_is_needed_too_where_the_start_was_custom(path):
    X, _ = blobs()
    start = quick(DeepAEClustering, autoencoder=normalized).fit(X)
    model = quick(DeepAEClustering, init=start.autoencoder_).fit(X)
    skaecm.save(model, path)
    with pytest.raises(ValueError, match=r"hold autoencoder \(a custom one\), whose code"):
        skaecm.load(path)
    with pytest.warns(UserWarning, match=r"hold init \(Autoencoder\)"):
        assert skaecm.load(path, autoencoder=normalized).init == "k-means"
    again = skaecm.load(path, autoencoder=normalized, init=start.autoencoder_)
    assert_same(model, again)
    assert again.autoencoder is None


def test_custom_layers_that_are_ready_ones_need_no_code(path):
    """The network is in the file; only the parameter is not."""

    def plain(n_features, n_components, generator):
        return nn.Sequential(nn.Linear(n_features, n_components)), nn.Sequential(
            nn.Linear(n_components, n_features)
        )

    model = quick(DeepAEClustering, autoencoder=plain).fit(blobs()[0])
    assert same(there_and_back(model, path, autoencoder=None).module_, model.module_)
    with pytest.warns(UserWarning, match=r"autoencoder \(function plain\): the default has taken"):
        assert same(skaecm.load(path).module_, model.module_)


@pytest.mark.parametrize("change", ["bias", "frozen", "other", "nested"])
def test_layers_that_are_not_quite_ready_ones_are_custom(change, path):
    def nearly(n_features, n_components, generator):
        encoder = nn.Sequential(nn.Linear(n_features, n_components, bias=change != "bias"))
        if change == "frozen":
            encoder[0].bias.requires_grad_(False)
        if change == "other":
            encoder.append(nn.ELU())
        if change == "nested":
            encoder = nn.Sequential(encoder)
        return encoder, nn.Sequential(nn.Linear(n_components, n_features))

    model = quick(DeepAEClustering, autoencoder=nearly).fit(blobs()[0])
    skaecm.save(model, path)
    with pytest.raises(ValueError, match="must be the callable of the fit"):
        skaecm.load(path, autoencoder=None)
    assert_same(model, skaecm.load(path, autoencoder=nearly))


# What is not saved
# -----------------


def test_only_fitted_estimators_of_ours(cls, path):
    X, _ = blobs()
    with pytest.raises(NotFittedError, match=cls.__name__):
        skaecm.save(quick(cls), path)
    pipeline = make_pipeline(StandardScaler(), quick(cls)).fit(X)
    sentence = r"got a Pipeline. .* of a Pipeline the last step, pipeline\[-1\]. Keep its first"
    with pytest.raises(TypeError, match=sentence):
        skaecm.save(pipeline, path)
    # What the sentence says is so.
    rows = pipeline[:-1].transform(X)
    kept = path.with_name("last")
    assert same(there_and_back(pipeline[-1], kept).predict(rows), pipeline.predict(X))
    with pytest.raises(TypeError, match="got a KMeans"):
        skaecm.save(KMeans(3), path)

    class Ours(cls):
        pass

    with pytest.raises(TypeError, match="got a Ours"):
        skaecm.save(Ours(), path)
    assert not path.exists()


def test_the_first_page_saves_what_can_be_saved(tmp_path, monkeypatch):
    """Its names mean at the end what its last lines take them for."""
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "doc" / "start.rst").read_text()
    examples = doctest.DocTestParser().get_examples(page)
    quick_fit = {
        "hidden_layer_sizes=(100,)": "hidden_layer_sizes=(8,), max_iter=0, pretrain_iter=0"
    }
    names = {}
    for example in examples:
        source = example.source
        for slow, fast in quick_fit.items():
            source = source.replace(slow, fast)
        exec(compile(source, "start.rst", "single"), names)
    again = skaecm.load("digits.skaecm")
    assert type(again) is DeepAEClustering
    assert same(again.predict(names["X"]), names["model"].predict(names["X"]))


def test_no_attribute_is_lost(cls, path):
    model = quick(cls).fit(blobs()[0])
    model.mine_ = 1
    with pytest.raises(
        TypeError, match=f"attributes of {cls.__name__}, which would be lost: mine_"
    ):
        skaecm.save(model, path)
    del model.mine_
    model.module_.clustering.mine = 1
    with pytest.raises(TypeError, match=r"attributes of ClusteringModule, .*: mine"):
        skaecm.save(model, path)
    del model.module_.clustering.mine
    model.history_[-1]["mine"] = None
    with pytest.raises(ValueError, match="history"):
        skaecm.save(model, path)
    del model.history_[-1]["mine"]
    model.loss_ = None
    with pytest.raises(ValueError, match="loss_ is of another type"):
        skaecm.save(model, path)
    assert not path.exists()


def test_a_custom_state_of_tensors_alone(path):
    class Stateful(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    def stateful(n_features, n_components, generator):
        return Stateful(n_features, n_components), nn.Linear(n_components, n_features)

    model = quick(DeepAEClustering, autoencoder=stateful).fit(blobs()[0])
    with pytest.raises(
        TypeError, match=r"encoder._extra_state of the custom .* is a dict, not a tensor"
    ):
        skaecm.save(model, path)


# The file
# --------


def test_strings_paths_and_an_old_file(cls, path):
    X, _ = blobs()
    first, second = quick(cls).fit(X), quick(cls, random_state=1).fit(X[::-1])
    skaecm.save(first, str(path))
    assert_same(first, skaecm.load(path))
    skaecm.save(second, path)
    assert_same(second, skaecm.load(str(path)))
    assert os.listdir(path.parent) == [path.name]


def test_a_file_is_written_as_any_other(path):
    model = quick(ClusteringModuleGMM).fit(blobs()[0])
    skaecm.save(model, path)
    other = path.with_name("other")
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)
    # The same bytes, too.
    link = path.with_name("link")
    link.symlink_to(other)
    skaecm.save(model, link)
    assert link.is_symlink()
    assert other.read_bytes() == path.read_bytes()


def test_what_stops_writing_leaves_the_old_file(path, monkeypatch):
    X, _ = blobs()
    model = quick(ClusteringModuleGMM).fit(X)
    skaecm.save(model, path)

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=f"No space left on device: '{path}'"):
        skaecm.save(model.fit(X[::-1]), path)

    def stopped(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", stopped)
    with pytest.raises(KeyboardInterrupt):
        skaecm.save(model, path)
    assert os.listdir(path.parent) == [path.name]
    assert_same(skaecm.load(path), quick(ClusteringModuleGMM).fit(X))


def test_folders(path):
    model = quick(ClusteringModuleGMM).fit(blobs()[0])
    missing = path.parent / "missing" / "model"
    with pytest.raises(FileNotFoundError, match=str(missing)):
        skaecm.save(model, missing)
    with pytest.raises(FileNotFoundError, match=str(missing)):
        skaecm.load(missing)
    with pytest.raises(IsADirectoryError):
        skaecm.save(model, path.parent)
    with pytest.raises(IsADirectoryError):
        skaecm.load(path.parent)
    assert os.listdir(path.parent) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is read-only to root")
def test_a_read_only_folder(path):
    model = quick(ClusteringModuleGMM).fit(blobs()[0])
    skaecm.save(model, path)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=str(path)):
            skaecm.save(model, path)
        assert_same(model, skaecm.load(path))
    finally:
        path.parent.chmod(0o700)


def test_the_missing_package_is_named(path, monkeypatch):
    model = quick(ClusteringModuleGMM).fit(blobs()[0])
    for name in [name for name in sys.modules if name.partition(".")[0] == "safetensors"]:
        monkeypatch.setitem(sys.modules, name, None)
    sentence = r'needs safetensors. Install it with pip install "skaecm\[persistence\]"'
    with pytest.raises(ImportError, match=f"skaecm.save {sentence}"):
        skaecm.save(model, path)
    with pytest.raises(ImportError, match=f"skaecm.load {sentence}"):
        skaecm.load(path)


# Files that are not ours, not whole, or not honest
# -------------------------------------------------


@pytest.fixture
def saved(path):
    """The content of a file, and how to write it changed, with a checksum that is right."""
    X, _ = blobs()
    skaecm.save(quick(DeepAEClustering).fit(X).partial_fit(X), path)
    return Forgery(path)


@pytest.mark.parametrize("content", [b"", b"x", b"x" * 1000, b"\0" * 1000, b"PK\3\4", b"\xff" * 99])
def test_not_safetensors(content, path):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.skaecm: the file is not one of skaecm.save"):
        skaecm.load(path)


def test_a_pickle_is_not_opened(path):
    path.write_bytes(pickle.dumps(quick(ClusteringModuleGMM)))
    with pytest.raises(ValueError, match=r"not one of skaecm.save"):
        skaecm.load(path)


def test_of_another_program(path):
    for metadata in (None, {"format": "pt"}):
        save_arrays({"a": np.zeros(3)}, path, metadata)
        with pytest.raises(ValueError, match="written by another program"):
            skaecm.load(path)


def test_damage_is_seen(saved, path):
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"\0", whole[:100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="or is damaged"):
            skaecm.load(path)
    # A bit of the last weight, and one of a number in the document.
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    number = whole.replace(b"random_state", b"random_stat5", 1)
    for content in (flipped, number):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="does not have its checksum"):
            skaecm.load(path)


def test_later_versions_are_named(saved, path):
    saved.document["format"] = FORMAT + 1
    saved.document["versions"]["skaecm"] = "3.1"
    saved.write()
    with pytest.raises(
        ValueError,
        match=rf"format {FORMAT + 1}, written by skaecm 3.1, but .* reads format {FORMAT}. Upgrade",
    ):
        skaecm.load(path)
    saved.document["format"] = FORMAT - 1
    saved.write()
    with pytest.raises(ValueError, match=rf"reads format {FORMAT}. Use skaecm 3.1, or") as error:
        skaecm.load(path)
    assert "Upgrade" not in str(error.value)
    saved.document["format"] = FORMAT
    saved.document["parameters"]["delta"] = 1.0
    saved.write()
    with pytest.raises(ValueError, match=r"skaecm 3.1, .* does not know: delta. Upgrade skaecm"):
        skaecm.load(path)


def test_a_parameter_that_came_later_has_its_default(saved, path):
    del saved.document["parameters"]["gamma"]
    saved.write()
    assert skaecm.load(path).gamma == 1.0


def test_tensors_that_do_not_fit(saved, path):
    weight = "network.clustering.weight"
    for forge in (
        lambda tensors: tensors.pop(weight),
        lambda tensors: tensors.update({weight: tensors[weight][:2]}),
        lambda tensors: tensors.update({weight: tensors[weight].astype(np.float32)}),
        lambda tensors: tensors.update({"learned.labels_": np.zeros(3)}),
        lambda tensors: tensors.update({"training.optimizer.0.exp_avg": np.zeros(3)}),
        lambda tensors: tensors.update({"network.more": np.zeros(3)}),
        lambda tensors: tensors.update({"more": np.zeros(3)}),
    ):
        other = Forgery(path, saved.content)
        forge(other.tensors)
        other.write()
        with pytest.raises(ValueError, match=r"is damaged: .*(fit|missing|shape|needless)"):
            skaecm.load(path)


def test_enormous_sizes_ask_for_no_memory(saved, path):
    layers = saved.document["network"]["layers"]
    layers[0][0][1]["out_features"] = layers[0][2][1]["in_features"] = 2**60
    saved.write()
    with pytest.raises(ValueError, match="is damaged"):
        skaecm.load(path)


MANY = 2 * 10**8
ENORMOUS = {
    "no clusters": {
        "learned.cluster_centers_": (0, MANY),
        "learned.embedding_centers_": (0, 4),
        "learned.embedding_covariances_": (0,),
        "learned.covariances_": (0,),
        "learned.weights_": (0,),
        "network.alpha": (0,),
    },
    "no features": {"learned.cluster_centers_": (MANY, 0)},
    "no rows": {"learned.labels_": (0,)},
    "no embedding": {"learned.embedding_centers_": (0, MANY)},
    "no weights": {"learned.weights_": (MANY, 0)},
}


@pytest.mark.parametrize("shapes", ENORMOUS.values(), ids=ENORMOUS)
def test_enormous_shapes_ask_for_no_memory(shapes, saved, path):
    """An array without values has axes that no byte of the file stands for."""
    resource = pytest.importorskip("resource")
    for name, shape in shapes.items():
        saved.tensors[name] = np.empty(shape, saved.tensors[name].dtype)
    if "learned.cluster_centers_" in shapes:
        saved.document["learned"]["n_features_in_"] = shapes["learned.cluster_centers_"][1]
    saved.write()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ValueError, match=r"is damaged: (there must be|.* of another type or shape)"
    ):
        skaecm.load(path)
    # In kilobytes on Linux; elsewhere perhaps in bytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17


def test_names_of_code_mean_nothing(saved, path):
    saved.document["estimator"] = "os.system"
    saved.write()
    with pytest.raises(ValueError, match="is damaged"):
        skaecm.load(path)


def test_fuzzed_files(tmp_path):
    """Fifty mutations of two files, or as many as SKAECM_FUZZ says, in a process."""
    n_mutations = os.environ.get("SKAECM_FUZZ", "50")
    command = [sys.executable, str(ROOT / "tests" / "fuzz_saved.py"), n_mutations, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)
    assert sum(outcomes.values()) == int(n_mutations)
    assert outcomes.keys() <= {"equal", "named", "forged and read"}
