"""A fit that is kept while it runs, and goes on where it was left off."""

import errno
import os
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import assert_same_fit, blobs, overlapping, quick
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.frozen import FrozenEstimator

import skaecm
from skaecm import Checkpoint, ClusteringModuleGMM, DeepAEClustering, _checkpoint

pytest.importorskip("safetensors")
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# Six epochs of every phase, whatever the loss.
LONG = {"tol": 0.0, "n_iter_no_change": 99, "max_iter": 6}


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    """Of the module alone too."""
    monkeypatch.setattr("skaecm._deep_clustering.MODULE_EPOCHS", 6)


class Killed(Exception):
    """Ends a fit from within."""


class Killing:
    """Counts the epochs that it is called with, and ends the fit at one of them."""

    def __init__(self, phase=None, epoch=None, run=None):
        self.at = (phase, epoch, run)
        self.seen = []

    def __call__(self, row):
        self.seen.append((row["phase"], row["epoch"], row["run"]))
        if self.seen[-1] == self.at:
            raise Killed


def make(cls, **params):
    if cls is DeepAEClustering:
        params = {"pretrain_iter": 4} | params
    return quick(cls, **(LONG | params))


def rows_of(seed, n=150):
    return overlapping(seed, n=n)


def killed_and_resumed(model, at, X, folder, **given):
    """The fit after a kill at an epoch and a second call, and what that one trained."""
    with pytest.raises(Killed):
        clone(model).set_params(checkpoint=folder, callback=Killing(*at)).fit(X, **given)
    callback = Killing()
    again = clone(model).set_params(checkpoint=folder, callback=callback).fit(X, **given)
    return again, callback.seen


# From every phase
# ----------------

PLACES = [
    (ClusteringModuleGMM, {}, ("training", 1, 1)),
    (ClusteringModuleGMM, {}, ("training", 4, 1)),
    (ClusteringModuleGMM, {}, ("averaging", 7, 1)),
    (ClusteringModuleGMM, {"n_init": 3}, ("training", 3, 2)),
    (ClusteringModuleGMM, {"n_init": 3}, ("averaging", 7, 3)),
    (DeepAEClustering, {}, ("pretraining", 1, 0)),
    (DeepAEClustering, {}, ("pretraining", 3, 0)),
    (DeepAEClustering, {}, ("training", 1, 1)),
    (DeepAEClustering, {}, ("training", 5, 1)),
    (DeepAEClustering, {}, ("averaging", 7, 1)),
    (DeepAEClustering, {"n_neighbors": "auto"}, ("neighbours", 1, 0)),
    (DeepAEClustering, {"n_neighbors": "auto", "pretrain_iter": 8}, ("neighbours", 2, 0)),
    (DeepAEClustering, {"n_neighbors": "auto"}, ("training", 3, 1)),
    (DeepAEClustering, {"init": "pinv"}, ("module", 2, 1)),
    (DeepAEClustering, {"init": "pinv"}, ("training", 2, 1)),
    (DeepAEClustering, {"init": "pinv", "n_init": 2}, ("module", 5, 2)),
    (DeepAEClustering, {"n_init": 3}, ("training", 3, 2)),
    (DeepAEClustering, {"n_init": 3}, ("averaging", 7, 3)),
]


@pytest.mark.parametrize(("cls", "params", "at"), PLACES)
def test_a_killed_fit_ends_where_the_whole_one_does(seed, tmp_path, cls, params, at):
    X, model = rows_of(seed, n=300), make(cls, **params)
    whole = clone(model).set_params(callback=Killing())
    whole.fit(X)
    again, seen = killed_and_resumed(model, at, X, tmp_path)
    assert_same_fit(again, whole)
    # The epoch of the kill is trained again, and those before it are not.
    epochs = whole.callback.seen
    assert seen == epochs[epochs.index(at) :]


def test_a_start_that_training_does_not_better(cls, seed, tmp_path):
    """The second call has not seen the start's loss."""
    X = rows_of(seed)
    params = {"pretrain_iter": 0} if cls is DeepAEClustering else {}
    model = make(cls, learning_rate_init=1e4, **params)
    again, _ = killed_and_resumed(model, ("training", 4, 1), X, tmp_path)
    assert again.history_[-1]["phase"] == "start"
    assert_same_fit(again, clone(model).fit(X))


@pytest.mark.parametrize(
    "given", ["augment", "n_neighbors", "adjacency", "sample_weight", "sparse"]
)
def test_whatever_a_fit_is_given(cls, seed, tmp_path, given):
    X, rng = rows_of(seed), np.random.RandomState(seed)
    params, others = {}, {}
    if given == "augment":
        params = {"augment": "noise"}
    elif given == "n_neighbors":
        params = {"n_neighbors": 5}
    elif given == "adjacency":
        others = {"adjacency": sp.random_array((150, 150), density=0.02, random_state=rng)}
    elif given == "sample_weight":
        others = {"sample_weight": rng.uniform(size=150)}
    else:
        X = sp.csr_matrix(X * (rng.uniform(size=X.shape) < 0.7))
    model = make(cls, **params)
    again, seen = killed_and_resumed(model, ("training", 4, 1), X, tmp_path, **others)
    assert seen[0] == ("training", 4, 1)
    assert_same_fit(again, clone(model).fit(X, **others))


def test_read_only_rows(cls, seed, tmp_path):
    np.save(tmp_path / "X.npy", rows_of(seed))
    X, model = np.load(tmp_path / "X.npy", mmap_mode="r"), make(cls)
    again, _ = killed_and_resumed(model, ("training", 3, 1), X, tmp_path / "kept")
    assert_same_fit(again, clone(model).fit(X))


def test_a_warm_start(cls, seed, tmp_path):
    X = rows_of(seed)
    first = pickle.dumps(make(cls, warm_start=True, max_iter=2).fit(X))
    whole = pickle.loads(first).fit(X)
    with pytest.raises(Killed):
        pickle.loads(first).set_params(checkpoint=tmp_path, callback=Killing("training", 2, 1)).fit(
            X
        )
    callback = Killing()
    again = pickle.loads(first).set_params(checkpoint=tmp_path, callback=callback).fit(X)
    assert callback.seen[0] == ("training", 2, 1)
    assert_same_fit(again, whole)
    assert_same_fit(pickle.loads(first).set_params(checkpoint=tmp_path).fit(X), whole)
    with pytest.raises(ValueError, match=r"warm_start was .* is no fit to go on from"):
        make(cls, warm_start=True, max_iter=2, checkpoint=tmp_path).fit(X)


@pytest.mark.parametrize("random_state", [None, "RandomState"])
def test_seeds_that_were_drawn_are_kept(cls, seed, tmp_path, random_state, monkeypatch):
    """Whatever is drawn by the second call, the fit goes on with the seeds of the first."""
    X = rows_of(seed)
    drawn = []

    def states(state):
        drawn.append(np.random.RandomState(state) if random_state else None)
        return drawn[-1]

    model = make(cls, n_init=2)
    seeds = np.random.RandomState(1).randint(np.iinfo(np.int32).max, size=3).tolist()
    monkeypatch.setattr("skaecm._base.draw_seeds", lambda *_: seeds)
    whole = clone(model).set_params(random_state=states(1)).fit(X)
    with pytest.raises(Killed):
        clone(model).set_params(
            random_state=states(1), checkpoint=tmp_path, callback=Killing("training", 2, 2)
        ).fit(X)
    monkeypatch.setattr("skaecm._base.draw_seeds", lambda *_: [7, 8, 9])
    again = clone(model).set_params(random_state=states(2), checkpoint=tmp_path).fit(X)
    assert_same_fit(again, whole)


def test_nothing_changes_where_it_is_kept(cls, seed, tmp_path):
    X, _ = blobs(seed)
    assert_same_fit(quick(cls, checkpoint=tmp_path).fit(X), quick(cls).fit(X))
    assert sorted(os.listdir(tmp_path)) == list(_checkpoint.NAMES)


def test_a_finished_fit_is_there_at_once(cls, seed, tmp_path):
    X, callback = rows_of(seed), Killing()
    first = make(cls, n_init=2, checkpoint=str(tmp_path)).fit(X)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    again = make(cls, n_init=2, checkpoint=tmp_path, callback=callback).fit(X)
    assert_same_fit(again, first)
    assert callback.seen == []
    assert before == {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}


@pytest.mark.parametrize("phase", ["pretraining", "module", "training", "averaging"])
def test_a_fit_that_its_callback_stopped_goes_on(seed, tmp_path, phase):
    X, model = rows_of(seed), make(DeepAEClustering, init="pinv", n_init=2)
    stopped = clone(model).set_params(
        checkpoint=Checkpoint(tmp_path, minutes=1e9),
        callback=lambda row: (
            (row["phase"], row["epoch"]) == (phase, 7 if phase == "averaging" else 2)
        ),
    )
    stopped.fit(X)
    assert not stopped.converged_
    callback = Killing()
    again = clone(model).set_params(checkpoint=tmp_path, callback=callback).fit(X)
    assert_same_fit(again, clone(model).fit(X))
    if phase != "averaging":
        assert callback.seen[0][:2] == (phase, 3)


def test_memory_and_checkpoint(seed, tmp_path):
    """A pretraining from the cache is none of the checkpoint's, and one from it is cached."""
    X, model = rows_of(seed), make(DeepAEClustering, memory=str(tmp_path / "memory"), n_init=2)
    whole = make(DeepAEClustering, n_init=2).fit(X)
    for number, at in enumerate([("pretraining", 2, 0), ("training", 2, 2)]):
        again, _ = killed_and_resumed(model, at, X, tmp_path / str(number))
        assert_same_fit(again, whole)


def test_what_looks_on_is_not_part_of_the_fit(seed, tmp_path):
    """Nor is the device, or who is called."""
    X = rows_of(seed)
    model = make(DeepAEClustering)
    with pytest.raises(Killed):
        clone(model).set_params(checkpoint=tmp_path, callback=Killing("training", 3, 1)).fit(X)
    model.set_params(verbose=0, device="cpu", memory=str(tmp_path / "memory"), k=np.int64(3))
    model.set_params(tol=0, checkpoint=Checkpoint(tmp_path, minutes=1))
    assert_same_fit(model.fit(X), make(DeepAEClustering).fit(X))


@pytest.mark.parametrize("init", ["kmeans", "centres", "fitted"])
def test_starts_that_are_given(cls, seed, tmp_path, init):
    X = rows_of(seed)
    start = {
        "kmeans": lambda: FrozenEstimator(KMeans(3, n_init=1, random_state=0).fit(X)),
        "centres": lambda: X[:3],
        "fitted": lambda: FrozenEstimator(make(cls).fit(X)),
    }[init]
    again, _ = killed_and_resumed(make(cls, init=start()), ("training", 3, 1), X, tmp_path)
    assert_same_fit(again, make(cls, init=start()).fit(X))
    assert_same_fit(make(cls, init=start(), checkpoint=tmp_path).fit(X), again)


# Damage
# ------


def damage(path, how):
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(
        {
            "truncated": content[:middle],
            "empty": b"",
            "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
            "text": b"not a file of tensors",
            "longer": content + b"x",
        }[how]
    )


def newest(folder):
    return max((folder / name for name in _checkpoint.NAMES), key=os.path.getmtime)


@pytest.mark.parametrize("how", ["truncated", "empty", "flipped", "text", "longer"])
def test_the_one_before_is_used_where_the_newest_is_damaged(cls, seed, tmp_path, how):
    X, model = rows_of(seed), make(cls)
    with pytest.raises(Killed):
        clone(model).set_params(checkpoint=tmp_path, callback=Killing("training", 5, 1)).fit(X)
    os.utime(newest(tmp_path), (2e9, 2e9))
    damage(newest(tmp_path), how)
    callback = Killing()
    again = clone(model).set_params(checkpoint=tmp_path, callback=callback)
    with pytest.warns(
        UserWarning, match=r"is damaged: checkpoint-[01]\.skaecm .*The other file is good"
    ) as log:
        again.fit(X)
    assert {warning.filename for warning in log} == {__file__}
    assert callback.seen[0] == ("training", 4, 1)
    assert_same_fit(again, clone(model).fit(X))


def test_a_file_of_another_program_is_no_checkpoint(seed, tmp_path):
    X, model = rows_of(seed), make(ClusteringModuleGMM, checkpoint=tmp_path)
    skaecm.save(clone(model).set_params(checkpoint=None).fit(X), tmp_path / "checkpoint-0.skaecm")
    with pytest.warns(UserWarning, match="another program, not by a fit.*starts anew"):
        model.fit(X)


def test_a_fit_starts_anew_where_nothing_is_good(cls, seed, tmp_path):
    X, model = rows_of(seed), make(cls)
    with pytest.raises(Killed):
        clone(model).set_params(checkpoint=tmp_path, callback=Killing("training", 5, 1)).fit(X)
    for name in _checkpoint.NAMES:
        damage(tmp_path / name, "truncated")
    callback = Killing()
    again = clone(model).set_params(checkpoint=tmp_path, callback=callback)
    with pytest.warns(UserWarning, match=r"checkpoint-0.*checkpoint-1.*The fit starts anew"):
        again.fit(X)
    assert callback.seen[0][1] == 1
    assert_same_fit(again, clone(model).fit(X))
    assert_same_fit(clone(model).set_params(checkpoint=tmp_path).fit(X), again)


@pytest.mark.parametrize("place", np.linspace(0, 1, 23))
def test_no_bit_can_change_unseen(seed, tmp_path, place):
    X, model = rows_of(seed), make(ClusteringModuleGMM, max_iter=1, checkpoint=tmp_path)
    model.fit(X)
    os.utime(newest(tmp_path), (2e9, 2e9))
    path = newest(tmp_path)
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        clone(model).fit(X)


# Other fits
# ----------


def test_a_refused_parameter_leaves_the_folder_to_the_next_call(cls, seed, tmp_path):
    X = blobs(seed, d=16)[0]
    model = quick(cls, augment="image", checkpoint=tmp_path)
    with pytest.raises(ValueError, match="image_shape"):
        model.fit(X)
    model.set_params(image_shape=(4, 4)).fit(X)


def test_another_fit_is_refused_and_left_as_it_is(seed, tmp_path):
    X, model = rows_of(seed), make(DeepAEClustering, checkpoint=tmp_path)
    with pytest.raises(Killed):
        clone(model).set_params(callback=Killing("training", 3, 1)).fit(X)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    weight, graph = np.linspace(1, 2, 150), sp.eye_array(150, k=1)
    changed = X.copy()
    changed[7, 2] = np.nextafter(changed[7, 2], 1e9)
    others = [
        (clone(model).set_params(k=2), X, {}, r"k was 3, is 2\."),
        (clone(model).set_params(learning_rate_init=1e-4), X, {}, "rate_init was 0.001, is 0.0001"),
        (clone(model).set_params(max_iter=7), X, {}, "max_iter was 6, is 7"),
        (clone(model).set_params(random_state=1), X, {}, "random_state was 0, is 1"),
        (clone(model).set_params(random_state=None), X, {}, "random_state was 0, is no integer"),
        (clone(model).set_params(alpha=[1, 2, 3]), X, {}, r"alpha was None, is \(1, 2, 3\)"),
        (clone(model).set_params(augment="noise"), X, {}, "augment was None, is 'noise'"),
        (clone(model).set_params(autoencoder=quick), X, {}, "autoencoder was None, is quick"),
        (clone(model).set_params(init=X[:3]), X, {}, "init was 'k-means', is array of shape"),
        (clone(model), changed, {}, "X was 150 x 4 of float64, .* is 150 x 4 of float64, "),
        (clone(model), X[:-1], {}, "X was 150 x 4 .*, is 149 x 4"),
        (clone(model), X.astype(np.float32), {}, "X was .* is 150 x 4 of float32"),
        (clone(model), X, {"sample_weight": weight}, "sample_weight was None, is "),
        (clone(model), X, {"adjacency": graph}, "adjacency was None, is 298 edges"),
        (make(ClusteringModuleGMM, checkpoint=tmp_path), X, {}, "class was DeepAEClustering, is"),
    ]
    for other, rows, given, message in others:
        fresh = dict(vars(other))
        with pytest.raises(ValueError, match=f"holds another fit, and is left.*{message}"):
            other.fit(rows, **given)
        assert vars(other) == fresh
        assert before == {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    assert_same_fit(clone(model).fit(X), clone(model).set_params(checkpoint=None).fit(X))


def test_a_start_with_another_prior_is_another_start(seed, tmp_path):
    X = rows_of(seed)
    weak, strong = (make(DeepAEClustering, alpha=alpha, max_iter=0).fit(X) for alpha in (0.1, 0.2))
    make(DeepAEClustering, init=weak, checkpoint=tmp_path).fit(X)
    with pytest.raises(ValueError, match=r"holds another fit, and is left.*init was "):
        make(DeepAEClustering, init=strong, checkpoint=tmp_path).fit(X)


def test_another_format_is_refused(seed, tmp_path, monkeypatch):
    X, model = rows_of(seed), make(ClusteringModuleGMM, checkpoint=tmp_path)
    clone(model).fit(X)
    old, new = _checkpoint.FORMAT, _checkpoint.FORMAT + 1
    monkeypatch.setattr(_checkpoint, "FORMAT", new)
    match = rf"has format {old}, written by skaecm .* from format {new}\."
    with pytest.raises(ValueError, match=match):
        model.fit(X)


def linear_pair(n_features, n_components, generator):
    """An autoencoder whose width is decided from outside, as edited code would be."""
    width = WIDTH[0]
    encoder = torch.nn.Sequential(
        torch.nn.Linear(n_features, width), torch.nn.Linear(width, n_components)
    )
    return encoder, torch.nn.Linear(n_components, n_features)


WIDTH = [5]


@pytest.mark.parametrize("finished", [False, True])
def test_an_autoencoder_of_other_code_is_refused(seed, tmp_path, monkeypatch, finished):
    X = rows_of(seed)
    model = make(DeepAEClustering, autoencoder=linear_pair, checkpoint=tmp_path)
    if finished:
        clone(model).fit(X)
    else:
        with pytest.raises(Killed):
            clone(model).set_params(callback=Killing("training", 3, 1)).fit(X)
    monkeypatch.setattr(f"{__name__}.WIDTH", [6])
    with pytest.raises(ValueError, match="holds another network than this fit builds"):
        clone(model).fit(X)
    monkeypatch.undo()
    assert_same_fit(clone(model).fit(X), clone(model).set_params(checkpoint=None).fit(X))


# Folders
# -------


def test_a_folder_is_made(cls, seed, tmp_path):
    X, _ = blobs(seed)
    quick(cls, checkpoint=tmp_path / "a" / "b").fit(X)
    assert sorted(os.listdir(tmp_path / "a" / "b")) == list(_checkpoint.NAMES)


def test_what_killed_writes_left_is_taken_away(cls, seed, tmp_path):
    X, _ = blobs(seed)
    (tmp_path / ".checkpoint-1.skaecm.0123").write_bytes(b"half")
    (tmp_path / ".other").write_bytes(b"mine")
    quick(cls, checkpoint=tmp_path).fit(X)
    assert sorted(os.listdir(tmp_path)) == [".other", *_checkpoint.NAMES]


def test_a_folder_that_cannot_be_used_is_told_before_any_work(cls, seed, tmp_path):
    X, callback = blobs(seed)[0], Killing()
    (tmp_path / "file").write_bytes(b"mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below", "/proc/none", "/dev/full"):
        model = quick(cls, checkpoint=folder, callback=callback)
        with pytest.raises(ValueError, match=f"checkpoint='{folder}' cannot be used: .+ Give"):
            model.fit(X)
    assert callback.seen == []
    assert (tmp_path / "file").read_bytes() == b"mine"


def failing(monkeypatch, times, error):
    """Let so many writes through, and then so many end with an error."""
    calls = []

    def write(path, data, write=_checkpoint.write_whole):
        calls.append(path)
        if len(calls) in times:
            raise error
        write(path, data)

    monkeypatch.setattr(_checkpoint, "write_whole", write)
    return calls


def test_a_full_disk_at_the_start(cls, seed, tmp_path, monkeypatch):
    failing(monkeypatch, [1], OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(ValueError, match=r"cannot be used: No space left on device. Give"):
        make(cls, checkpoint=tmp_path).fit(rows_of(seed))


@pytest.mark.parametrize("until", [4, 999])
def test_a_full_disk_on_the_way_costs_no_fit(cls, seed, tmp_path, monkeypatch, until):
    """One warning, of the line that called; the fit is what it is, and later writes count."""
    X, model = rows_of(seed), make(cls)
    calls = failing(monkeypatch, range(3, until), OSError(errno.ENOSPC, "No space left on device"))
    again = clone(model).set_params(checkpoint=tmp_path)
    with pytest.warns(UserWarning, match="could not be written") as log:
        again.fit(X)
    (warning,) = [one for one in log if one.category is UserWarning]
    assert f"checkpoint='{tmp_path}' could not be written: No space left" in str(warning.message)
    assert warning.filename == __file__
    assert len(calls) > 5
    assert_same_fit(again, clone(model).fit(X))
    monkeypatch.undo()
    callback = Killing()
    resumed = clone(model).set_params(checkpoint=tmp_path, callback=callback).fit(X)
    assert_same_fit(resumed, again)
    assert bool(callback.seen) is (until == 999)


class Unkept(torch.nn.Linear):
    """Has a state that no file can hold."""

    def get_extra_state(self):
        return object()

    def set_extra_state(self, state):
        pass


def unkept_pair(n_features, n_components, generator):
    return Unkept(n_features, n_components), torch.nn.Linear(n_components, n_features)


def test_what_no_file_can_hold_costs_no_fit(seed, tmp_path):
    X, model = rows_of(seed), make(DeepAEClustering, autoencoder=unkept_pair)
    again = clone(model).set_params(checkpoint=tmp_path)
    with pytest.warns(UserWarning, match="could not be written: .*encoder._extra_state holds a"):
        again.fit(X)
    np.testing.assert_array_equal(again.labels_, clone(model).fit(X).labels_)


def test_minutes_are_kept_between_writes(cls, seed, tmp_path, monkeypatch):
    calls = failing(monkeypatch, [], None)
    make(cls, checkpoint=Checkpoint(tmp_path, minutes=60)).fit(rows_of(seed))
    assert len(calls) == 2  # the start and the end
    calls.clear()
    make(cls, checkpoint=Checkpoint(tmp_path / "other")).fit(rows_of(seed))
    n_epochs = 6 + 4 * (cls is DeepAEClustering)
    assert len(calls) == 2 + n_epochs
    calls.clear()
    make(cls, checkpoint=Checkpoint(tmp_path / "second", epochs=2)).fit(rows_of(seed))
    assert len(calls) == 2 + n_epochs // 2


def test_without_safetensors(cls, seed, tmp_path, monkeypatch):
    def missing(*_):
        raise ImportError

    monkeypatch.setattr("skaecm._extras.import_module", missing)
    with pytest.raises(ImportError, match=r'needs safetensors.*"skaecm\[persistence\]"'):
        quick(cls, checkpoint=tmp_path).fit(blobs(seed)[0])
    assert os.listdir(tmp_path) == []


# Divergence
# ----------


def nonfinite_from(monkeypatch, phase, epoch):
    """Let a loss be infinite at an epoch."""

    def check(terms, when, check=skaecm._training.check_finite):
        infinite = when == f"epoch {epoch} of {phase}"
        check({"E1": np.inf} if infinite else terms, when)

    monkeypatch.setattr("skaecm._training.check_finite", check)


@pytest.mark.parametrize("phase", ["pretraining", "training"])
def test_a_smaller_rate_goes_on_after_a_divergence(seed, tmp_path, monkeypatch, phase):
    X, model = rows_of(seed), make(DeepAEClustering, checkpoint=tmp_path)
    nonfinite_from(monkeypatch, phase, 3)
    message = f"loss is not finite .* kept in checkpoint='{tmp_path}': with a smaller learning_rate"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            clone(model).fit(X)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"learning_rate_init was 0\.001, is 0\.002"):
        clone(model).set_params(learning_rate_init=0.002).fit(X)
    with pytest.raises(ValueError, match="k was 3, is 2; learning_rate_init was"):
        clone(model).set_params(learning_rate_init=1e-4, k=2).fit(X)
    callback = Killing()
    slower = clone(model).set_params(learning_rate_init=1e-4, callback=callback).fit(X)
    assert callback.seen[0][:2] == (phase, 3)
    assert_same_fit(clone(model).set_params(learning_rate_init=1e-4).fit(X), slower)


def test_weights_that_no_loss_has_seen_are_not_written_either(cls, seed, tmp_path):
    """The one step of the first epoch ends in weights that are not finite."""
    X = rows_of(seed).astype(np.float32)
    model = make(cls, batch_size=150, learning_rate_init=1e39, checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"epoch 2 of .* kept in checkpoint="):
        clone(model).fit(X)
    slower = model.set_params(learning_rate_init=1e-3)
    assert_same_fit(clone(slower).fit(X), clone(slower).set_params(checkpoint=None).fit(X))


# The parameter
# -------------


def test_the_parameter_is_checked(cls):
    X, _ = blobs()
    with pytest.raises(ValueError, match="'checkpoint' parameter of"):
        quick(cls, checkpoint=3).fit(X)
    with pytest.raises(TypeError, match="folder of a Checkpoint must be a str or path-like"):
        Checkpoint(3)
    for minutes in (-1, np.nan):
        with pytest.raises(ValueError, match="minutes of a Checkpoint must be zero or more"):
            Checkpoint("x", minutes=minutes)
    for epochs in (0, 1.5, None):
        with pytest.raises(ValueError, match="epochs of a Checkpoint must be an integer"):
            Checkpoint("x", epochs=epochs)


def test_copies_keep_the_folder_and_files_do_not(cls, seed, tmp_path):
    checkpoint = Checkpoint(tmp_path / "kept", minutes=1)
    model = quick(cls, checkpoint=checkpoint).fit(blobs(seed)[0])
    assert clone(model).checkpoint == pickle.loads(pickle.dumps(model)).checkpoint == checkpoint
    skaecm.save(model, tmp_path / "m.skaecm")
    assert b"kept" not in (tmp_path / "m.skaecm").read_bytes()
    assert skaecm.load(tmp_path / "m.skaecm").checkpoint is None


def test_a_stream_is_not_kept(cls, seed, tmp_path):
    X, _ = blobs(seed)
    model = quick(cls, checkpoint=tmp_path / "kept").partial_fit(X).partial_fit(X)
    assert_same_fit(model, quick(cls).partial_fit(X).partial_fit(X))
    assert not (tmp_path / "kept").exists()
