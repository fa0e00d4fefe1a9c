"""Callbacks: the user's own, which may stop a fit, and those of scikit-learn."""

import pickle
import warnings

import numpy as np
import pytest
from helpers import AT_ONCE, FEW_CLUSTERS, assert_same_fit, blobs, learned, overlapping, quick
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._param_validation import InvalidParameterError

from skaecm import ClusteringModuleGMM, DeepAEClustering

# No loss is flat: a fit runs until it is stopped or warns.
ENDLESS = {"tol": 0.0, "n_iter_no_change": 1000}


class Stopping:
    """Notes what it is called with, and stops at an epoch of a phase of a run."""

    def __init__(self, phase=None, epoch=None, run=None):
        self.at = (phase, epoch, run)
        self.seen = []

    def __call__(self, row):
        self.seen.append(row)
        return (row["phase"], row["epoch"], row["run"]) == self.at


def never(row):
    """At the top level of a module, so that it can be pickled."""
    return False


# What a callback sees
# --------------------


@pytest.mark.parametrize("init", ["k-means", "pinv"])
@pytest.mark.filterwarnings(FEW_CLUSTERS)
def test_a_callback_sees_the_history(cls, seed, init):
    X = overlapping(seed)
    callback = Stopping()
    model = quick(cls, init=init, n_iter_no_change=3)
    plain = clone(model).fit(X)
    model.callback = callback
    model.fit(X)
    assert_same_fit(model, plain)
    before = [row["phase"] == "pretraining" for row in model.history_]
    expected = [
        {**row, "run": 0 if early else 1} for row, early in zip(model.history_, before, strict=True)
    ]
    assert callback.seen == expected


def test_a_callback_knows_the_run(cls, seed):
    callback = Stopping()
    model = quick(cls, n_init=3, callback=callback).fit(overlapping(seed))
    epochs = [(row["run"], row["epoch"]) for row in callback.seen if row["phase"] != "pretraining"]
    assert epochs == [(run, epoch) for run in (1, 2, 3) for epoch in (1, 2, 3)]
    assert {row["run"] for row in callback.seen if row["phase"] == "pretraining"} <= {0}
    joint = [row for row in model.history_ if row["phase"] != "pretraining"]
    assert len(joint) == 3
    assert any(
        [row for row in callback.seen if row["run"] == run]
        == [{**row, "run": run} for row in joint]
        for run in (1, 2, 3)
    )


def test_what_a_callback_does_with_its_dict_is_its_own_affair(cls, seed):
    X, _ = blobs(seed)
    assert_same_fit(quick(cls, callback=dict.clear).fit(X), quick(cls).fit(X))


def test_a_callback_sees_the_passes_of_a_stream(cls, seed):
    X, _ = blobs(seed)
    callback = Stopping()
    model = quick(cls, callback=callback)
    for _ in range(3):
        model.partial_fit(X)
    assert callback.seen == [
        {**row, "run": 0 if row["phase"] == "pretraining" else 1} for row in model.history_
    ]
    assert [row["phase"] for row in callback.seen[-2:]] == ["training"] * 2


def test_a_warm_start_is_run_one(cls, seed):
    X, _ = blobs(seed)
    callback = Stopping()
    quick(cls, warm_start=True).fit(X).set_params(callback=callback).fit(X)
    assert [(row["phase"], row["run"]) for row in callback.seen] == [
        ("training", 1),
        ("training", 1),
        ("averaging", 1),
    ]


# Stopping
# --------


@pytest.mark.parametrize("answer", [True, np.True_, 1, "yes"])
def test_a_true_answer_stops_the_fit(cls, seed, answer):
    X = overlapping(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = quick(
            cls, **ENDLESS, callback=lambda row: answer if row["phase"] == "training" else None
        ).fit(X)
    assert (model.n_iter_, model.converged_) == (1, False)
    np.testing.assert_array_equal(model.labels_, model.predict(X))


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_stop_publishes_what_was_trained(cls, seed, epoch):
    """As many epochs at once; what only the average of the weights is, is not there."""
    X = overlapping(seed)
    model = quick(cls, **ENDLESS, callback=Stopping("training", epoch, 1)).fit(X)
    assert (model.n_iter_, model.converged_) == (epoch, False)
    assert len(model.loss_curve_) == epoch
    assert model.history_[-1]["phase"] == "training"
    with pytest.warns(ConvergenceWarning, match="still falling"):
        whole = quick(cls, **ENDLESS, max_iter=epoch).fit(X)
    assert whole.history_[:-1] == model.history_
    assert learned(model).keys() == learned(whole).keys()
    np.testing.assert_array_equal(model.labels_, model.predict(X))
    np.testing.assert_allclose(model.predict_proba(X).mean(axis=0), model.weights_, rtol=1e-10)
    # It can go on from there.
    model.set_params(warm_start=True, callback=None, **AT_ONCE).fit(X)
    assert model.converged_


def test_a_stop_at_the_average_is_too_late(cls, seed):
    X = overlapping(seed)
    model = quick(cls, callback=Stopping("averaging", 3, 1)).fit(X)
    assert_same_fit(model, quick(cls).fit(X))


def test_a_stop_at_the_last_epoch_leaves_the_average_out(cls, seed):
    model = quick(cls, callback=Stopping("training", 2, 1)).fit(overlapping(seed))
    assert (model.n_iter_, model.converged_) == (2, False)
    assert model.history_[-1]["phase"] == "training"


def test_a_stop_while_pretraining_keeps_the_start(seed):
    """The autoencoder of one epoch, and the clusters found in its embedding."""
    X = overlapping(seed)
    params = {"tol": 0.0, "n_iter_no_change": 99}
    model = quick(
        DeepAEClustering, **params, pretrain_iter=9, callback=Stopping("pretraining", 1, 0)
    ).fit(X)
    expected = quick(DeepAEClustering, **params, pretrain_iter=1, max_iter=0).fit(X)
    assert_same_fit(model, expected)
    assert (model.n_iter_, model.converged_) == (0, False)


def test_a_stop_of_the_module_alone_keeps_it(seed):
    X = overlapping(seed)
    callback = Stopping("module", 2, 1)
    model = quick(DeepAEClustering, init="pinv", n_iter_no_change=4, callback=callback).fit(X)
    assert [row["phase"] for row in model.history_] == ["pretraining"] * 2 + ["module"] * 2
    assert (model.n_iter_, model.loss_curve_) == (0, [])
    np.testing.assert_array_equal(model.labels_, model.predict(X))


def test_a_stop_ends_all_runs(cls, seed):
    X = overlapping(seed)
    callback = Stopping("training", 1, 2)
    model = quick(cls, n_init=5, callback=callback).fit(X)
    assert max(row["run"] for row in callback.seen) == 2
    first = quick(cls).fit(X)
    # The better of the run that was finished and the one that was stopped.
    assert model.loss_ <= first.loss_
    assert model.loss_ == first.loss_ or model.n_iter_ == 1


def test_memory_does_not_keep_a_pretraining_that_was_stopped(seed, tmp_path):
    X = overlapping(seed)
    plain = quick(DeepAEClustering, pretrain_iter=4, memory=str(tmp_path), n_iter_no_change=9)
    stopped = clone(plain).set_params(callback=Stopping("pretraining", 1, 0)).fit(X)
    assert len(stopped.history_) == 1
    whole = plain.fit(X)
    assert [row["phase"] for row in whole.history_].count("pretraining") == 4
    callback = Stopping()
    served = clone(plain).set_params(callback=callback).fit(X)
    assert_same_fit(served, whole)
    assert "pretraining" not in {row["phase"] for row in callback.seen}


def test_early_stopping_by_changed_labels(cls, seed):
    """The rule of deep embedded clustering."""
    X = overlapping(seed)
    model = quick(
        cls, **ENDLESS, max_iter=500, callback=lambda row: row.get("changed", 1.0) < 0.01
    ).fit(X)
    curve = [row["changed"] for row in model.history_ if row["phase"] == "training"]
    assert curve[-1] < 0.01
    assert all(changed >= 0.01 for changed in curve[:-1])


# Errors
# ------


@pytest.mark.parametrize("callback", [3, "print", [never]])
def test_a_callback_must_be_callable(cls, seed, callback):
    with pytest.raises(InvalidParameterError, match=f"'callback' parameter of {cls.__name__}"):
        quick(cls, callback=callback).fit(blobs(seed)[0])


@pytest.mark.parametrize("phase", ["pretraining", "training", "averaging"])
def test_an_exception_of_a_callback_leaves_the_estimator_as_it_was(cls, seed, phase):
    if cls is ClusteringModuleGMM and phase == "pretraining":
        return
    X = overlapping(seed)

    def fail(row):
        if row["phase"] == phase:
            raise LookupError("a word of the callback")

    model = quick(cls, callback=fail)
    before = dict(vars(model))
    with pytest.raises(LookupError, match="a word of the callback"):
        model.fit(X)
    assert vars(model) == before
    model.set_params(callback=None).fit(X).set_params(callback=fail)
    before = dict(vars(model))
    with pytest.raises(LookupError, match="a word of the callback"):
        model.fit(X[:, :3])
    assert vars(model) == before


def test_a_callback_is_cloned_and_pickled(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls, callback=never).fit(X)
    assert clone(model).callback is never
    assert pickle.loads(pickle.dumps(model)).callback is never
    assert_same_fit(pickle.loads(pickle.dumps(model)), model)


# Callbacks of scikit-learn
# -------------------------


@pytest.fixture
def callbacks():
    """sklearn.callback, which scikit-learn has from 1.9."""
    return pytest.importorskip("sklearn.callback")


class Tasks:
    """A callback of scikit-learn that notes every hook, and stops at a task."""

    max_propagation_depth = None

    def __init__(self, stop_at=None):
        self.stop_at = stop_at
        self.calls = []

    def setup(self, estimator, context):
        self.calls.append(("setup", context.task_name))

    def teardown(self, estimator, context):
        self.calls.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.calls.append(("begin", context.task_name))

    def on_fit_task_end(self, estimator, context):
        self.calls.append(("end", context.task_name))
        return self.calls[-1] == self.stop_at


class Snapshots:
    """Keeps the estimator as it would be, had the fit stopped there."""

    def __init__(self):
        self.found = []

    def setup(self, estimator, context):
        pass

    teardown = setup

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, X, y, fitted_estimator):
        self.found.append((context.task_name, X, y, fitted_estimator))


class Failing(Tasks):
    """Fails at the end of the second epoch of a phase."""

    def on_fit_task_end(self, estimator, context):
        super().on_fit_task_end(estimator, context)
        if self.calls.count(("end", "epoch")) == 2:
            raise LookupError("a word of the callback")


def epochs(n):
    return [("begin", "epoch"), ("end", "epoch")] * n


def phase(name, n_epochs):
    return [("begin", name), *epochs(n_epochs), ("end", name)]


@pytest.mark.parametrize("n_init", [1, 2])
@pytest.mark.filterwarnings(FEW_CLUSTERS)
def test_tasks_of_a_fit(cls, seed, callbacks, n_init):
    X = overlapping(seed)
    tasks = Tasks()
    model = quick(cls, n_init=n_init, init="pinv").set_callbacks(tasks).fit(X)
    expected = []
    for i in range(n_init):
        run = f", run {i + 1} of {n_init}" if n_init > 1 else ""
        if cls is DeepAEClustering:
            expected += phase(f"module{run}", 2)
        expected += phase(f"training{run}", 3)
    if cls is DeepAEClustering:
        expected = phase("pretraining", 2) + expected
    expected = [("setup", "fit"), ("begin", "fit"), *expected, ("end", "fit"), ("teardown", "fit")]
    assert tasks.calls == expected
    assert_same_fit(model, quick(cls, n_init=n_init, init="pinv").fit(X))


def test_tasks_of_a_stream(cls, seed, callbacks):
    X, _ = blobs(seed)
    tasks = Tasks()
    model = quick(cls).partial_fit(X).set_callbacks(tasks).partial_fit(X)
    within = [("begin", "partial_fit"), *phase("training", 1), ("end", "partial_fit")]
    assert tasks.calls == [("setup", "partial_fit"), *within, ("teardown", "partial_fit")]
    assert_same_fit(model, quick(cls).partial_fit(X).partial_fit(X))


@pytest.mark.parametrize("stop_at", [("end", "epoch"), ("end", "training, run 1 of 3")])
def test_a_callback_of_sklearn_stops_a_fit(seed, callbacks, stop_at):
    tasks = Tasks(stop_at)
    model = quick(ClusteringModuleGMM, n_init=3).set_callbacks(tasks).fit(overlapping(seed))
    n_epochs = 1 if stop_at[1] == "epoch" else 3
    assert tasks.calls == [
        ("setup", "fit"),
        ("begin", "fit"),
        *phase("training, run 1 of 3", n_epochs),
        ("end", "fit"),
        ("teardown", "fit"),
    ]
    assert model.n_iter_ == min(n_epochs, 2)


def test_an_exception_of_sklearns_callback(cls, seed, callbacks):
    X = overlapping(seed)
    model = quick(cls).set_callbacks(Failing())
    before = dict(vars(model))
    with pytest.raises(LookupError, match="a word of the callback"):
        model.fit(X)
    assert vars(model) == before
    (failing,) = model._skl_callbacks
    assert failing.calls[-1] == ("teardown", "fit")


def test_bad_input_tears_callbacks_down(cls, callbacks):
    tasks = Tasks()
    with pytest.raises(ValueError, match="NaN"):
        quick(cls).set_callbacks(tasks).fit([[np.nan]] * 9)
    assert tasks.calls == [("setup", "fit"), ("begin", "fit"), ("teardown", "fit")]


def test_fitted_estimators(cls, seed, callbacks):
    """Each is what a fit gives that is stopped there, and the last is the fit itself."""
    X = overlapping(seed)
    y = np.arange(len(X))
    snapshots = Snapshots()
    params = {"n_iter_no_change": 3, "batch_size": 64}
    model = quick(cls, **params).set_callbacks(snapshots).fit(X, y)
    assert_same_fit(model, quick(cls, **params).fit(X))
    assert all(rows is X and labels is y for _, rows, labels, _ in snapshots.found)
    found = [fitted for name, _, _, fitted in snapshots.found if name == "epoch"]
    if cls is DeepAEClustering:
        # Clusters come after pretraining.
        assert found[:2] == [None, None]
        found = found[2:]
    assert len(found) == 5
    for epoch, fitted in enumerate(found[:-1], start=1):
        stopped = quick(cls, **params, callback=Stopping("training", epoch, 1)).fit(X)
        assert_same_fit(fitted, stopped)
        np.testing.assert_array_equal(fitted.predict(X), stopped.predict(X))
    assert_same_fit(found[-1], model)
    name, *_, fitted = snapshots.found[-1]
    assert name == "fit"
    assert_same_fit(fitted, model)


def scores(monitor, name="adjusted_rand_score"):
    return [row[name] for row in monitor.get_logs().data if name in row]


def test_scoring_monitor(cls, seed, callbacks):
    pandas = pytest.importorskip("pandas")
    X, y = blobs(seed)
    X = pandas.DataFrame(X, columns=list("abcd"))
    monitor = callbacks.ScoringMonitor(scoring=["adjusted_rand_score", "v_measure_score"])
    model = quick(cls).set_callbacks(monitor).fit(X, y, sample_weight=np.arange(90.0) + 1)
    # Two epochs, the average, and the fit as a whole.
    assert len(scores(monitor)) == len(scores(monitor, "v_measure_score")) == 4
    assert scores(monitor)[-1] == adjusted_rand_score(y, model.labels_) == 1
    assert "adjusted_rand_score" in monitor.get_logs().data_as_pandas


def test_scoring_monitor_without_labels(cls, seed, callbacks):
    """scikit-learn 1.9 scores where there is a y, and logs the tasks all the same."""
    monitor = callbacks.ScoringMonitor(scoring="adjusted_rand_score")
    quick(cls).set_callbacks(monitor).fit(blobs(seed)[0])
    assert scores(monitor) == []


def test_scoring_monitor_in_a_pipeline(cls, seed, callbacks):
    X, y = blobs(seed)
    monitor = callbacks.ScoringMonitor(scoring="adjusted_rand_score")
    pipeline = make_pipeline(StandardScaler(), quick(cls).set_callbacks(monitor)).fit(X, y)
    assert len(scores(monitor)) == 4
    assert_same_fit(pipeline[-1], quick(cls).fit(StandardScaler().fit_transform(X)))
    # As a step that is not the last it scores too.
    pipeline = make_pipeline(quick(cls).set_callbacks(monitor), StandardScaler()).fit(X, y)
    assert len(scores(monitor)) == 4


def test_scoring_monitor_in_a_grid_search(cls, seed, callbacks):
    X, y = blobs(seed)
    monitor = callbacks.ScoringMonitor(scoring="adjusted_rand_score")
    search = GridSearchCV(quick(cls).set_callbacks(monitor), {"alpha": [0.0, 0.1]}, cv=2).fit(X, y)
    # Two settings on two folds, and the refit.
    assert len(scores(monitor)) == 5 * 4
    assert_same_fit(search.best_estimator_, quick(cls, alpha=search.best_params_["alpha"]).fit(X))


@pytest.mark.parametrize("where", ["alone", "pipeline", "grid search"])
def test_progress_bar(cls, seed, callbacks, where, capsys):
    pytest.importorskip("rich")
    X, _ = blobs(seed)
    bar = callbacks.ProgressBar(max_propagation_depth=None)
    if where == "alone":
        model = quick(cls).set_callbacks(bar).fit(X)
    elif where == "pipeline":
        model = make_pipeline(StandardScaler(), quick(cls)).set_callbacks(bar).fit(X)[-1]
    else:
        search = GridSearchCV(quick(cls), {"alpha": [0.0, 0.1]}, cv=2)
        model = search.set_callbacks(bar).fit(X).best_estimator_
    assert model.converged_
    shown = capsys.readouterr().out
    assert f"{cls.__name__} - fit" in shown
    assert f"{cls.__name__} - training" in shown
    assert ("pretraining" in shown) is (cls is DeepAEClustering)


def test_callbacks_outlive_a_copy(cls, seed, callbacks):
    X, y = blobs(seed)
    monitor = callbacks.ScoringMonitor(scoring="adjusted_rand_score")
    model = quick(cls).set_callbacks(monitor).fit(X, y)
    copy = pickle.loads(pickle.dumps(model))
    assert_same_fit(copy, model)
    assert clone(model)._skl_callbacks == [monitor]
    assert model.get_params() == quick(cls).get_params()
