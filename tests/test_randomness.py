"""The same seed gives the same bits wherever it runs; Ctrl-C leaves nothing half-made."""

import copy
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import ROOT, assert_close_fit, assert_same_fit, blobs, learned, overlapping, quick

from skaecm._training import Training

SETTINGS = {"n_iter_no_change": 3, "batch_size": 32, "random_state": 7}


def fingerprint(estimator):
    """A digest of every bit learned, equal in every process."""
    digest = hashlib.sha256()
    for name, value in sorted(learned(estimator).items()):
        is_array = isinstance(value, np.ndarray)
        digest.update(name.encode())
        digest.update(value.tobytes() if is_array else repr(value).encode())
    return digest.hexdigest()


def run_python(code, **environment):
    """What a fresh interpreter prints after running ``code`` next to the helpers."""
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    done = subprocess.run(
        [sys.executable, "-c", path + code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return done.stdout.strip()


def fit(cls, seed, **params):
    return quick(cls, **{**SETTINGS, **params}).fit(overlapping(seed, n=150))


@pytest.mark.parametrize("init", ["k-means", "k-means++", "random"])
@pytest.mark.filterwarnings("ignore:Only . of k=3:sklearn.exceptions.ConvergenceWarning")
def test_twice_in_one_process(cls, seed, init):
    first = fit(cls, seed, init=init, n_init=2)
    torch.rand(3)
    assert_same_fit(fit(cls, seed, init=init, n_init=2), first)
    assert fingerprint(fit(cls, seed, init=init, random_state=8)) != fingerprint(first)


def test_in_another_process(cls, seed):
    code = (
        f"from test_randomness import fingerprint, fit\nfrom skaecm import {cls.__name__}\n"
        "import torch; torch.set_num_threads({})\n"
        f"print(fingerprint(fit({cls.__name__}, {seed})))"
    )
    expected = fingerprint(fit(cls, seed))
    assert run_python(code.format(torch.get_num_threads()), PYTHONHASHSEED="5") == expected


def test_in_a_thread(cls, seed):
    expected = fingerprint(fit(cls, seed))
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(fit, cls, seed) for _ in range(2)]
        assert {fingerprint(job.result()) for job in jobs} == {expected}


def test_after_pickling(cls, seed):
    X = overlapping(seed, n=150)
    unfitted = pickle.loads(pickle.dumps(quick(cls, **SETTINGS)))
    fitted = fit(cls, seed)
    assert_same_fit(unfitted.fit(X), fitted)
    loaded = pickle.loads(pickle.dumps(fitted))
    assert_same_fit(loaded, fitted)
    for method in ("predict", "predict_proba", "transform", "score_samples"):
        np.testing.assert_array_equal(getattr(loaded, method)(X), getattr(fitted, method)(X))
    assert_same_fit(loaded.fit(X), fitted)


def test_under_another_number_of_threads(cls, seed, tmp_path):
    """Equal to rounding, and in the labels exactly, on separated blobs."""
    code = (
        "import pickle, torch; from helpers import *\n"
        "torch.set_num_threads({0})\n"
        f"X, _ = blobs({seed}, n=3000)\n"
        f"model = quick({cls.__name__}, n_iter_no_change=2).fit(X)\n"
        "assert torch.get_num_threads() == {0}\n"
        f"pickle.dump(model, open({str(tmp_path)!r} + '/{{0}}.pkl', 'wb'))"
    )
    fits = []
    for n_threads in (1, 3):
        run_python(code.replace("{{0}}", "{0}").format(n_threads), OMP_NUM_THREADS=str(n_threads))
        fits.append(pickle.loads((tmp_path / f"{n_threads}.pkl").read_bytes()))
    assert_close_fit(*fits, rtol=1e-6)


@pytest.mark.parametrize("nudge", [1e-15, -3e-15])
def test_rounding_of_the_rows_stays_rounding(cls, seed, nudge):
    """What another thread count or layout may do to X changes nothing visible."""
    X, _ = blobs(seed)
    noise = 1 + nudge * np.random.RandomState(seed).standard_normal(X.shape)
    for params in ({"max_iter": 0}, {}):
        assert_close_fit(quick(cls, **params).fit(X), quick(cls, **params).fit(X * noise), 1e-6)


def test_a_random_state_instance(cls, seed):
    X = overlapping(seed, n=150)
    fits = [quick(cls, random_state=np.random.RandomState(seed)).fit(X) for _ in range(2)]
    assert_same_fit(*fits)
    assert_same_fit(quick(cls, random_state=seed).fit(X), fits[0])
    # As in sklearn, an instance moves on from one fit to the next.
    assert fingerprint(fits[0].fit(X)) != fingerprint(fits[1])


def test_without_a_seed_fits_differ(cls, seed):
    fits = {fingerprint(fit(cls, seed, random_state=None, init="k-means++")) for _ in range(3)}
    assert len(fits) == 3


def test_starts_of_one_fit_differ(cls, seed, monkeypatch):
    """The restarts of a fit are drawn apart, or the best of them would be the first."""
    losses = []
    original = cls._run

    def noted(self, *args, **kwargs):
        run = original(self, *args, **kwargs)
        losses.append(run.loss)
        return run

    monkeypatch.setattr(cls, "_run", noted)
    X = np.random.RandomState(seed).standard_normal((100, 4))
    model = quick(cls, n_init=4, init="k-means++").fit(X)
    assert len(set(losses)) == 4
    assert model.loss_ == min(losses)


def test_predict_from_several_threads(cls, seed):
    X = np.random.RandomState(seed).standard_normal((2000, 4))
    model = quick(cls).fit(X)
    expected = model.predict_proba(X), model.transform(X)
    with ThreadPoolExecutor(4) as pool:
        methods = (model.predict_proba, model.transform)
        jobs = [tuple(pool.submit(method, X) for method in methods) for _ in range(8)]
        for proba, code in jobs:
            np.testing.assert_array_equal(proba.result(), expected[0])
            np.testing.assert_array_equal(code.result(), expected[1])


# Ctrl-C
# ------


def interrupt_after(monkeypatch, n_steps):
    """KeyboardInterrupt from inside training, after a number of steps of the optimizer."""
    steps = []
    original = torch.optim.Adam.step

    def step(self, *args, **kwargs):
        steps.append(1)
        if len(steps) > n_steps:
            raise KeyboardInterrupt
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", step)


@pytest.mark.parametrize("n_steps", [0, 3, 9])
def test_ctrl_c_leaves_an_unfitted_estimator_unfitted(cls, seed, monkeypatch, n_steps):
    model = quick(cls, batch_size=32, n_iter_no_change=3)
    before = dict(vars(model))
    with monkeypatch.context() as patch:
        interrupt_after(patch, n_steps)
        with pytest.raises(KeyboardInterrupt):
            model.fit(blobs(seed)[0])
    assert vars(model) == before
    expected = quick(cls, batch_size=32, n_iter_no_change=3).fit(blobs(seed)[0])
    assert_same_fit(model.fit(blobs(seed)[0]), expected)


@pytest.mark.parametrize("method", ["fit", "partial_fit", "warm start"])
@pytest.mark.parametrize("n_steps", [0, 2])
def test_ctrl_c_keeps_the_previous_fit(cls, seed, monkeypatch, method, n_steps):
    X = overlapping(seed, n=150)
    model = quick(cls, batch_size=32).fit(X).partial_fit(X)
    model.warm_start = method == "warm start"
    rows = X[:, :3] if method == "fit" else X[:, ::-1]
    twin = pickle.loads(pickle.dumps(model))
    with monkeypatch.context() as patch:
        interrupt_after(patch, n_steps)
        with pytest.raises(KeyboardInterrupt):
            getattr(model, "partial_fit" if method == "partial_fit" else "fit")(rows)
    assert_same_fit(model, twin)
    np.testing.assert_array_equal(model.predict_proba(X), twin.predict_proba(X))
    # Nor does anything unseen differ: the next pass is as if nothing had happened.
    assert_same_fit(model.partial_fit(X), twin.partial_fit(X))


def test_a_copy_and_its_original_go_separate_ways(cls, seed):
    """Even a shallow copy: training never writes into what was published."""
    X = overlapping(seed, n=150)
    model = quick(cls).fit(X).partial_fit(X)
    twin = pickle.loads(pickle.dumps(model))
    copy.copy(model).partial_fit(X)
    assert_same_fit(model, twin)
    assert_same_fit(model.partial_fit(X), twin.partial_fit(X))


def test_sigint_during_a_long_fit(seed):
    """A real Ctrl-C, in a process of its own."""
    code = (
        "import signal, warnings; warnings.simplefilter('ignore')\n"
        # A shell's background job is started deaf to Ctrl-C.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from helpers import *\n"
        f"X = overlapping({seed}, n=3000)\n"
        "model = quick(DeepAEClustering).fit(X)\n"
        "before = learned(model)\n"
        "model.set_params(max_iter=10**6, tol=0.0, n_iter_no_change=10**6)\n"
        "print('training', flush=True)\n"
        "try:\n    model.fit(X)\n"
        "except KeyboardInterrupt:\n"
        "    np.testing.assert_equal(learned(model), before)\n"
        "    print('kept', len(model.predict(X)))\n"
    )
    path = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / 'tests')!r}]\n"
    process = subprocess.Popen(
        [sys.executable, "-c", path + code], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "training\n"
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "kept 3000\n"
    finally:
        process.kill()


def test_training_in_many_threads_at_once(cls, seed):
    """Fits side by side do not disturb one another."""
    expected = [fingerprint(fit(cls, seed, random_state=state)) for state in range(3)]
    results = {}

    def work(state):
        results[state] = fingerprint(fit(cls, seed, random_state=state))

    threads = [threading.Thread(target=work, args=(state,)) for state in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [results[state] for state in range(3)] == expected


def test_the_loop_is_the_one_that_trains(cls, seed, monkeypatch):
    """The interruptions above hit what they mean to: every epoch is one of `Training`."""
    epochs = []
    original = Training.run_epoch
    monkeypatch.setattr(
        Training, "run_epoch", lambda self, *a, **k: epochs.append(1) or original(self, *a, **k)
    )
    assert len(quick(cls).fit(blobs(seed)[0]).history_) == len(epochs)
