"""Which state of a training a fit hands back: its end, its start, or an epoch between."""

import numpy as np
import pytest
import torch
from helpers import HISTORY, assert_same_fit, blobs, learned, overlapping, quick
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning

from skaecm import Checkpoint, DeepAEClustering

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# Far from a minimum, with steps large enough to go there and back in a few epochs.
FAR = {"init": "random", "pretrain_iter": 0, "learning_rate_init": 0.03}

# Eight epochs of ten steps, whatever the loss.
EPOCHS = {"max_iter": 8, "batch_size": 30, "tol": 0.0, "n_iter_no_change": 99}


class Flip(torch.autograd.Function):
    """The identity, whose gradient has the opposite sign."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Turncoat(torch.nn.Module):
    """Lets a decoder learn for so many steps, and unlearn from then on."""

    def __init__(self, n_steps):
        super().__init__()
        self.n_steps = n_steps
        self.register_buffer("n_seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        if not self.training:
            return x
        self.n_seen += 1
        return x if self.n_seen <= self.n_steps else Flip.apply(x)


def turning(n_features, n_components, generator):
    """A pair of layers; after fifty steps, five epochs here, training undoes what it did."""
    encoder = torch.nn.Linear(n_features, n_components)
    decoder = torch.nn.Linear(n_components, n_features)
    return encoder, torch.nn.Sequential(decoder, Turncoat(50))


def make(**params):
    return quick(DeepAEClustering, autoencoder=turning, **(FAR | EPOCHS | params))


# An epoch before the end
# -----------------------


def test_the_best_epoch_is_kept_where_training_breaks_down(seed):
    """What comes back is what a callback would have stopped at, and the history says so."""
    X = overlapping(seed)
    model = make(random_state=seed).fit(X)
    *epochs, last = model.history_
    assert [row["phase"] for row in epochs] == ["training"] * 8 + ["averaging"]
    assert list(last) == ["phase", "epoch", "loss", *HISTORY[DeepAEClustering]]
    assert (last["phase"], last["loss"]) == ("best", model.loss_)
    losses = model.loss_curve_
    assert last["epoch"] == 1 + int(np.argmin(losses)) < 8
    assert model.loss_ < losses[-1]
    assert (model.n_iter_, model.converged_) == (8, False)

    def there(row):
        return row["epoch"] == last["epoch"]

    stopped = clone(model).set_params(callback=there).fit(X)
    assert stopped.history_ == epochs[: last["epoch"]]
    own = {"history_", "loss_curve_", "n_iter_"}
    found, expected = learned(model), learned(stopped)
    for name in expected.keys() - own:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_an_epoch_that_is_kept_is_said(seed):
    X = overlapping(seed)
    with pytest.warns(ConvergenceWarning, match=r"best in epoch [5-7] of max_iter=8: .* kept"):
        make(random_state=seed).fit(X)


def test_a_training_that_has_seen_no_progress_since_its_best_epoch_has_converged(seed):
    model = make(random_state=seed, n_iter_no_change=4, max_iter=20).fit(overlapping(seed))
    assert (model.converged_, model.history_[-1]["phase"]) == (True, "best")


def test_within_tol_the_end_is_kept(seed):
    model = make(random_state=seed, n_iter_no_change=8, tol=10.0).fit(overlapping(seed))
    assert model.history_[-1]["phase"] == "averaging"


@pytest.mark.parametrize("epoch", [4, 7, 9])
def test_a_killed_fit_has_the_same_epoch(seed, tmp_path, epoch):
    """The kept state is in the checkpoint: the second call may never see that epoch."""
    pytest.importorskip("safetensors")
    X = overlapping(seed)

    def kill(row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    model = make(random_state=seed)
    with pytest.raises(KeyboardInterrupt):
        clone(model).set_params(checkpoint=Checkpoint(tmp_path), callback=kill).fit(X)
    again = clone(model).set_params(checkpoint=Checkpoint(tmp_path)).fit(X)
    assert again.history_[-1]["phase"] == "best"
    assert_same_fit(again, model.fit(X))


def test_of_several_runs_that_break_down_the_best_is_kept(seed):
    X = overlapping(seed)
    fits = [make(random_state=seed, n_init=n).fit(X) for n in (1, 2, 3)]
    assert [model.history_[-1]["phase"] for model in fits] == 3 * ["best"]
    losses = [model.loss_ for model in fits]
    assert losses == sorted(losses, reverse=True)


def test_the_kept_epoch_ends_the_table_and_the_curve(seed):
    pytest.importorskip("pandas")
    plt = pytest.importorskip("matplotlib.pyplot")
    from skaecm.plotting import LossCurveDisplay

    model = make(random_state=seed).fit(overlapping(seed))
    last = model.history_frame().iloc[-1]
    assert (last["phase"], last["epoch"]) == ("best", model.history_[-1]["epoch"])
    assert (last["loss"], bool(last["best"])) == (model.loss_, True)
    curve = LossCurveDisplay.from_estimator(model).lines_["loss"].get_ydata()
    np.testing.assert_array_equal(curve, [row["loss"] for row in model.history_])
    plt.close("all")


# The start
# ---------


def test_a_fit_is_no_worse_than_its_start(cls, seed):
    """Steps that are far too large: what comes back is the start, and the history says so."""
    X, _ = blobs(seed)
    params = {"tol": 1e-4}
    if cls is DeepAEClustering:
        # Pretraining takes such steps too.
        params["pretrain_iter"] = 0
    trained = quick(cls, learning_rate_init=1e4, max_iter=2, **params).fit(X)
    start = quick(cls, max_iter=0, **params).fit(X)
    *epochs, last = trained.history_
    assert {row["phase"] for row in epochs} == {"training", "averaging"}
    assert list(last) == ["phase", "epoch", "loss", *HISTORY[cls]]
    assert (last["phase"], last["epoch"], last["loss"]) == ("start", 0, trained.loss_)
    assert trained.n_iter_ > 0
    own = {"history_", "loss_curve_", "n_iter_", "converged_"}
    found, expected = learned(trained), learned(start)
    for name in expected.keys() - own:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


def test_a_start_that_is_kept_is_said(cls, seed):
    X, _ = blobs(seed)
    params = {"pretrain_iter": 0} if cls is DeepAEClustering else {}
    model = quick(cls, learning_rate_init=1e4, max_iter=2, tol=1e-4, n_iter_no_change=3, **params)
    with pytest.warns(ConvergenceWarning, match=r"raised the loss in max_iter=2.*start was kept"):
        model.fit(X)
    # What a callback stops is what it saw last, better or worse.
    stopped = model.set_params(callback=lambda row: True).fit(X)
    assert [row["phase"] for row in stopped.history_] == ["training"]


# Of several runs
# ---------------


class Noting(DeepAEClustering):
    """Notes what every run of a fit ended with: its loss, its prior, its responsibilities."""

    def _run(self, network, history, data, seed, watch):
        run = super()._run(network, history, data, seed, watch)
        alpha = network.alpha.numpy().copy()
        self.noted.append((run.loss, alpha, network.clustering.gbar.numpy().copy()))
        return run


def fit_noting(seed):
    """Eight small runs, each with a prior to the sizes of its own start."""
    small = quick(DeepAEClustering, k=4, init="k-means++", n_init=8, random_state=seed)
    model = Noting(**small.get_params())
    model.noted = []
    return model.fit(np.random.RandomState(seed).lognormal(size=(200, 4)))


def test_runs_with_priors_of_their_own_are_compared_without_what_these_cost(seed):
    """What counts is how far the sizes are from those that the prior draws to, their divergence."""
    model = fit_noting(seed)
    assert len({tuple(alpha) for _, alpha, _ in model.noted}) > 1

    def compared(noted):
        loss, alpha, gbar = noted
        alpha, gbar = np.sort(alpha), np.sort(gbar)
        cost, divergence = -alpha @ np.log(gbar), alpha @ np.log(alpha / alpha.sum() / gbar)
        return loss - cost + divergence

    best = min(model.noted, key=compared)
    assert model.loss_ == best[0]


def test_some_run_has_the_lowest_loss_only_for_its_prior():
    """So that the test above tells one rule from the other."""

    def differ(seed):
        model = fit_noting(seed)
        return model.loss_ != min(loss for loss, _, _ in model.noted)

    assert any(differ(seed) for seed in range(20))
