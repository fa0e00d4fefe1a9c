"""Several processes on one GPU: what each may take, what it gives back, what is said if it ends."""

import numpy as np
import pytest
import torch
from helpers import assert_same_fit, blobs, quick

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm._tensors import room_for_rows

CUDA = torch.device("cuda")
TOTAL = 80 * 2**30


def crowd(monkeypatch, used):
    """A GPU of `TOTAL` bytes of which so many are taken."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (TOTAL - used, TOTAL))


def test_no_process_takes_all_memory_and_each_leaves_some(monkeypatch):
    used = 0.0
    for _ in range(30):
        crowd(monkeypatch, used)
        room = room_for_rows(CUDA)
        assert 0 < room <= TOTAL / 8
        assert room <= (TOTAL - used) / 2
        used += room
    assert used < TOTAL


def test_on_the_cpu_rows_are_where_they_may_stay():
    assert room_for_rows(torch.device("cpu")) == float("inf")


PARTNERS = [{}, {"n_neighbors": 4}, {"augment": "noise"}]


@pytest.mark.parametrize("settings", PARTNERS, ids=str)
def test_rows_without_room_give_the_same_fit(cls, seed, settings, monkeypatch):
    X, _ = blobs(seed)
    weight = np.random.RandomState(seed).uniform(size=len(X))
    fits = []
    for room in float("inf"), X.nbytes - 1:
        # The CPU as a device whose memory is shared.
        monkeypatch.setattr("skaecm._rows.room_for_rows", lambda device, room=room: room)
        model = quick(cls, **settings).fit(X, sample_weight=weight)
        fits.append((model, model.predict_proba(X), model.transform(X), model.score(X)))
    (resident, *answers), (elsewhere, *others) = fits
    assert_same_fit(resident, elsewhere)
    for ours, theirs in zip(answers, others, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_rows_without_room_never_cross_as_a_whole(cls, seed, monkeypatch):
    X, _ = blobs(seed)
    crossed = []
    original = torch.from_numpy

    def watched(array):
        if array.ndim == 2 and array.shape[1] == X.shape[1]:
            crossed.append(len(array))
        return original(array)

    monkeypatch.setattr(torch, "from_numpy", watched)
    monkeypatch.setattr("skaecm._rows.room_for_rows", lambda device: 0)
    monkeypatch.setattr("skaecm._rows.inference_rows", lambda width: 50)
    quick(cls, batch_size=32).fit(X).predict(X)
    assert 1 <= max(crossed) <= 50


def test_what_is_done_gives_its_memory_back(cls, seed, monkeypatch):
    X, _ = blobs(seed)
    given_back = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(True))
    model = quick(cls)
    calls = [model.fit, model.predict, model.transform, model.partial_fit]
    for n_calls, call in enumerate(calls, 1):
        call(X)
        assert len(given_back) == n_calls
    with pytest.raises(ValueError, match="NaN"):
        model.fit(np.full_like(X, np.nan))
    assert len(given_back) == len(calls) + 1


SIZES = [(10**7, 10**7), (2**62, 4)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_network_that_no_memory_holds(sizes, seed):
    X, _ = blobs(seed)
    model = DeepAEClustering(3, hidden_layer_sizes=sizes)
    with pytest.raises(MemoryError, match=r"memory of device='auto' ran out. Try smaller hidden"):
        model.fit(X)
    assert not hasattr(model, "module_")


def test_a_full_gpu(seed):
    X, _ = blobs(seed)
    before = ClusteringModuleGMM(3, random_state=0).fit(X)
    labels = before.labels_

    def full(batch, generator):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 ...")

    before.set_params(augment=full)
    with pytest.raises(MemoryError, match=r"n_jobs\), or device='cpu'.*Tried to allocate 2.00 GiB"):
        before.fit(X)
    assert before.labels_ is labels


def test_another_error_of_torch_passes_as_it_is(seed):
    X, _ = blobs(seed)

    def broken(batch, generator):
        return batch @ batch

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        ClusteringModuleGMM(3, augment=broken).fit(X)
