"""What is refused, with which words, and what is served, however odd it looks.

A refusal leaves the estimator as it was, fitted or not.
"""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import assert_same_fit, blobs, learned, quick
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from skaecm import ClusteringModuleGMM, DeepAEClustering

# Refused
# -------


def with_value(value):
    X = blobs(0)[0]
    X[3, 2] = value
    return X


BAD_ROWS = {
    "nan": (lambda: with_value(np.nan), "Input X contains NaN"),
    "inf": (lambda: with_value(np.inf), "Input X contains infinity"),
    "sparse nan": (lambda: sp.csr_matrix(with_value(np.nan)), "Input X contains NaN"),
    "complex": (lambda: blobs(0)[0] + 1j, "Complex data not supported"),
    "strings": (lambda: blobs(0)[0].astype(str).astype(object) + "x", "could not convert string"),
    "1-D": (lambda: blobs(0)[0][:, 0], "Expected 2D array, got 1D array"),
    "3-D": (lambda: blobs(0)[0][None], "dim 3"),
    "a number": (lambda: 3.0, "Expected 2D array, got scalar"),
    "no rows": (lambda: np.empty((0, 4)), r"0 sample\(s\)"),
    "no columns": (lambda: np.empty((9, 0)), r"0 feature\(s\)"),
}
TOO_FEW = {"k > n": (lambda: blobs(0, n=2)[0], "k=3 must be at most the number of rows")}
BAD_PARAMETERS = {
    "k = 0": ({"k": 0}, "'k' parameter of {cls} must be an int in the range \\[1, inf\\)"),
    "k = 2.5": ({"k": 2.5}, "'k' parameter of {cls} must be an int"),
    "alpha < 0": ({"alpha": -0.1}, "'alpha' parameter of {cls} must be"),
    "init": ({"init": "best"}, "'init' parameter of {cls} must be"),
    "n_init = 0": ({"n_init": 0}, "'n_init' parameter of {cls} must be"),
    "batch_size = 0": ({"batch_size": 0}, "'batch_size' parameter of {cls} must be"),
    "max_iter < 0": ({"max_iter": -1}, "'max_iter' parameter of {cls} must be"),
    "learning_rate_init = 0": ({"learning_rate_init": 0}, "'learning_rate_init' parameter"),
    "cuda:99": ({"device": "cuda:99"}, "device='cuda:99' does not exist here.*device='auto'"),
    "no such device": ({"device": "gpu"}, "device='gpu' is not a device.*'cpu', 'cuda'"),
    "meta": ({"device": "meta"}, "device='meta' is not supported.*Use device='auto'"),
    "cpu:7": ({"device": "cpu:7"}, "device='cpu:7' does not exist here: torch .* finds 1"),
}


def state_of(estimator):
    """Every attribute, by identity where it is an object."""
    return {name: id(value) for name, value in vars(estimator).items()}


@pytest.mark.parametrize("fitted", [False, True], ids=["unfitted", "fitted"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("kind", [*BAD_ROWS, *TOO_FEW])
def test_rows_that_are_refused(cls, kind, method, fitted):
    make, message = (BAD_ROWS | TOO_FEW)[kind]
    model = quick(cls)
    if fitted:
        model.fit(blobs(0)[0])
        if (kind, method) == ("k > n", "partial_fit"):
            return  # a later block may be as small as it likes: test_estimators.py
    before = state_of(model), fitted and learned(model)
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(make())
    assert state_of(model) == before[0]
    if fitted:
        np.testing.assert_equal(learned(model), before[1])


# As for every estimator of sklearn, the ranges of parameters are checked when a fit
# begins, not again at each partial_fit that goes on with it.
@pytest.mark.parametrize(
    ("method", "fitted"),
    [("fit", False), ("fit", True), ("partial_fit", False)],
    ids=["fit", "fit again", "partial_fit"],
)
@pytest.mark.parametrize("kind", BAD_PARAMETERS)
def test_parameters_that_are_refused(cls, kind, method, fitted):
    params, message = BAD_PARAMETERS[kind]
    X, _ = blobs(0)
    model = quick(cls)
    if fitted:
        model.fit(X)
    model.set_params(**params)
    before = state_of(model)
    with pytest.raises(ValueError, match=message.format(cls=cls.__name__)):
        getattr(model, method)(X)
    assert state_of(model) == before


@pytest.mark.parametrize("kind", ["cuda:99", "no such device", "meta", "cpu:7"])
def test_devices_that_a_later_pass_refuses(cls, kind):
    params, message = BAD_PARAMETERS[kind]
    model = quick(cls).fit(blobs(0)[0]).set_params(**params)
    before = state_of(model), learned(model)
    with pytest.raises(ValueError, match=message):
        model.partial_fit(blobs(0)[0])
    assert state_of(model) == before[0]
    np.testing.assert_equal(learned(model), before[1])


@pytest.mark.parametrize("name", ["n_components", "pretrain_iter", "beta", "lam"])
def test_parameters_of_the_deep_estimator_that_are_refused(name):
    model = quick(DeepAEClustering, **{name: -1})
    before = state_of(model)
    with pytest.raises(ValueError, match=f"'{name}' parameter of DeepAEClustering must be"):
        model.fit(blobs(0)[0])
    assert state_of(model) == before


METHODS = ["predict", "predict_proba", "transform", "score", "score_samples"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", BAD_ROWS)
def test_rows_that_are_refused_after_the_fit(cls, kind, method):
    make, message = BAD_ROWS[kind]
    model = quick(cls, max_iter=0).fit(blobs(0)[0])
    before = state_of(model)
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(make())
    assert state_of(model) == before


@pytest.mark.parametrize("method", [*METHODS, "partial_fit"])
@pytest.mark.parametrize("width", [3, 5])
def test_a_wrong_number_of_features(cls, method, width):
    model = quick(cls, max_iter=0).fit(blobs(0)[0])
    before = state_of(model)
    message = f"X has {width} features, but {cls.__name__} is expecting 4 features"
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(np.zeros((9, width)))
    assert state_of(model) == before


@pytest.mark.parametrize(
    "method", [*METHODS, "inverse_transform", "sample", "get_feature_names_out"]
)
def test_use_before_fit(cls, method):
    model = quick(cls)
    before = state_of(model)
    arguments = () if method in ("sample", "get_feature_names_out") else (blobs(0)[0],)
    with pytest.raises(NotFittedError, match=f"This {cls.__name__} instance is not fitted yet"):
        getattr(model, method)(*arguments)
    assert state_of(model) == before


@pytest.mark.parametrize("method", ["bic", "aic"])
def test_criteria_before_fit(method):
    with pytest.raises(NotFittedError, match="not fitted yet"):
        getattr(quick(ClusteringModuleGMM), method)(blobs(0)[0])


def test_a_device_that_is_gone_at_predict(cls):
    model = quick(cls, max_iter=0).fit(blobs(0)[0]).set_params(device="cuda:99")
    before = state_of(model)
    with pytest.raises(ValueError, match="device='cuda:99' does not exist here"):
        model.predict(blobs(0)[0])
    assert state_of(model) == before


def test_a_loss_that_is_not_finite_names_cause_and_remedies(cls, seed):
    X = blobs(seed, dtype=np.float32)[0]
    model = quick(cls, learning_rate_init=1e30, tol=0.0, n_iter_no_change=50, max_iter=50)
    before = state_of(model)
    message = "loss is not finite.*learning rate.*learning_rate_init.*StandardScaler"
    with pytest.raises(ValueError, match=message):
        model.fit(X)
    assert state_of(model) == before


def test_a_loss_that_is_not_finite_in_a_later_pass(cls, seed):
    X = blobs(seed, dtype=np.float32)[0]
    model = quick(cls).fit(X)
    model.learning_rate_init = 1e30
    state = []

    def fail_sooner_or_later():
        for _ in range(20):
            state[:] = state_of(model), learned(model)
            model.partial_fit(X)

    with pytest.raises(ValueError, match="loss is not finite"):
        fail_sooner_or_later()
    assert state_of(model) == state[0]
    np.testing.assert_equal(learned(model), state[1])


# Served
# ------


@pytest.mark.parametrize("sign", [1, -1])
def test_rows_far_from_all_that_a_fit_saw(cls, seed, dtype, sign):
    """Up to a hundredth of the largest number, the softmax is one, and no logarithm is NaN."""
    model = quick(cls).fit(blobs(seed, dtype=dtype)[0])
    largest = np.finfo(dtype).max / 100
    for scale in (1e5, np.sqrt(largest), largest):
        X = (sign * scale * np.array([[1, 0, 0, 0], [1, 1, 1, 1], [1, -1, 0.5, 0]])).astype(dtype)
        proba = model.predict_proba(X)
        np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
        assert proba.min() >= 0
        np.testing.assert_array_equal(model.predict(X), proba.argmax(axis=1))
        assert np.isfinite(model.transform(X)).all()
        with np.errstate(over="ignore"):  # a squared distance may be infinite
            assert not np.isnan(model.score_samples(X)).any()


def test_one_cluster(cls, seed, dtype):
    X, _ = blobs(seed, dtype=dtype)
    model = quick(cls, k=1).fit(X)
    assert set(model.labels_) == {0}
    np.testing.assert_array_equal(model.predict_proba(X), np.ones((90, 1)))
    np.testing.assert_allclose(model.weights_, [1.0])
    assert np.isfinite(model.score(X))
    if cls is not DeepAEClustering:
        np.testing.assert_allclose(model.cluster_centers_[0], X.mean(axis=0), atol=0.2)


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint16, bool])
def test_integers_and_booleans(cls, seed, kind):
    X, _ = blobs(seed)
    X = (X > 3).astype(kind) if kind is bool else np.abs(np.round(3 * X)).astype(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # few distinct rows: a cluster may be empty
        model = quick(cls).fit(X)
        assert_same_fit(model, quick(cls).fit(X.astype(np.float64)))
    np.testing.assert_array_equal(model.predict(X), model.labels_)


def test_lists(cls, seed):
    X, _ = blobs(seed)
    assert_same_fit(quick(cls).fit(X.tolist()), quick(cls).fit(X))


@pytest.mark.parametrize("layout", ["fortran", "strided", "reversed"])
def test_every_memory_layout(cls, seed, dtype, layout):
    X, _ = blobs(seed, dtype=dtype)
    odd = {
        "fortran": np.asfortranarray(X),
        "strided": np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3],
        "reversed": np.ascontiguousarray(X[::-1, ::-1])[::-1, ::-1],
    }[layout]
    np.testing.assert_array_equal(odd, X)
    model, expected = quick(cls).fit(odd), quick(cls).fit(X)
    assert_same_fit(model, expected)
    np.testing.assert_array_equal(model.predict_proba(odd), expected.predict_proba(X))


def test_foreign_byte_order(cls, seed):
    X, _ = blobs(seed)
    assert_same_fit(quick(cls).fit(X.astype(">f8")), quick(cls).fit(X))
    labels = quick(cls).fit_predict(X.astype(">f4"))
    np.testing.assert_array_equal(labels, quick(cls).fit_predict(X))


def test_a_read_only_memory_map(cls, seed, dtype, tmp_path):
    X, _ = blobs(seed, dtype=dtype)
    np.save(tmp_path / "rows.npy", X)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    assert not mapped.flags.writeable
    model = quick(cls).fit(mapped)
    assert_same_fit(model, quick(cls).fit(X))
    np.testing.assert_array_equal(model.predict(mapped), model.labels_)
    model.partial_fit(mapped)
    np.testing.assert_array_equal(np.load(tmp_path / "rows.npy"), X)


def test_the_rows_are_left_as_they_were(cls, seed):
    X, _ = blobs(seed)
    weight = np.ones(90)
    weight[:9] = 2
    before = X.copy(), weight.copy()
    model = quick(cls).fit(X, sample_weight=weight).partial_fit(X, sample_weight=weight)
    model.predict(X)
    model.score(X, sample_weight=weight)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(weight, before[1])
    # And what was learned does not share memory with them.
    labels = model.predict(X)
    copy, X[:] = X.copy(), 0
    np.testing.assert_array_equal(model.predict(copy), labels)


def test_a_batch_larger_than_the_data(cls, seed):
    X, _ = blobs(seed)
    assert_same_fit(quick(cls, batch_size=90).fit(X), quick(cls, batch_size=10**9).fit(X))


@pytest.mark.parametrize("batch_size", [89, 44, 1])
def test_one_row_left_for_the_last_batch(cls, seed, batch_size):
    X, _ = blobs(seed)
    model = quick(cls, batch_size=batch_size).fit(X)
    assert np.isfinite(model.loss_)
    np.testing.assert_array_equal(model.labels_, model.predict(X))


@pytest.mark.parametrize("n", [1, 2])
def test_as_many_rows_as_clusters(cls, seed, n):
    X = blobs(seed)[0][:n]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # one row is equal to itself
        model = quick(cls, k=n).fit(X)
    assert np.isfinite(model.score(X))
    assert len(model.labels_) == n


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
def test_constant_columns(cls, seed, dtype, value):
    """They tell nothing apart, and change nothing but the width."""
    X, y = blobs(seed, dtype=dtype)
    wide = np.hstack([X, np.full((90, 2), value, dtype)])
    model = quick(cls).fit(wide)
    assert len(set(zip(model.labels_, y, strict=True))) == len(set(model.labels_)) == 3
    assert np.isfinite(model.score(wide))
    np.testing.assert_allclose(
        quick(cls, max_iter=0, k=1).fit(wide).module_.standardizer.offset[4:], value, rtol=1e-6
    )


def test_a_single_column(cls, seed):
    X, y = blobs(seed)
    x = (10.0 * y + X[:, 3])[:, None]
    labels = quick(cls).fit_predict(x)
    assert len(set(zip(labels, y, strict=True))) == 3


@pytest.mark.parametrize("value", [0.0, 0.1, -3e5])
def test_equal_rows_warn(cls, dtype, value):
    X = np.full((20, 3), value, dtype)
    model = quick(cls, k=2)
    ours = ["All rows of X are equal: there is nothing to cluster", "Only 1 of k=2 clusters"]
    of_kmeans = "Number of distinct clusters"
    with pytest.warns(UserWarning, match="|".join([*ours, of_kmeans])) as log:
        model.fit(X)
    messages = [str(warning.message) for warning in log]
    assert [sum(message.startswith(words) for message in messages) for words in ours] == [1, 1]
    assert set(model.labels_) == {0}
    assert np.isfinite(model.score(X))
    assert np.isfinite(model.cluster_centers_).all()
    np.testing.assert_array_equal(model.labels_, model.predict(X))


def test_repeated_rows(cls, seed):
    X = np.repeat(blobs(seed, n=9)[0], 20, axis=0)
    labels = quick(cls).fit_predict(X)
    assert all(len(set(labels[i : i + 20])) == 1 for i in range(0, 180, 20))


# The two tests below fail for DeepAEClustering: see test_placement_is_continuous.
@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_labels_do_not_depend_on_the_unit(cls, seed, dtype, scale):
    X, _ = blobs(seed, dtype=dtype)
    scaled = (X * dtype(scale)).astype(dtype)
    one, other = quick(cls).fit(X), quick(cls).fit(scaled)
    np.testing.assert_array_equal(one.labels_, other.labels_)
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(scaled), atol=1e-3)
    np.testing.assert_allclose(other.cluster_centers_ / scale, one.cluster_centers_, atol=1e-2)
    # A density has a unit: that of X^-d.
    expected = one.score_samples(X).mean() - 4 * np.log(scale)
    assert other.score_samples(scaled).mean() == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_labels_do_not_depend_on_the_origin(cls, seed, offset):
    X, _ = blobs(seed)
    one, other = quick(cls).fit(X), quick(cls).fit(X + offset)
    np.testing.assert_array_equal(one.labels_, other.labels_)
    np.testing.assert_allclose(other.cluster_centers_ - offset, one.cluster_centers_, atol=1e-3)


def test_the_weights_do_not_depend_on_the_width(seed):
    """Twice the columns: the same loss, term by term, from the same start."""
    X, _ = blobs(seed)
    model = quick(ClusteringModuleGMM, alpha=0.2, max_iter=0)
    loss = model.fit(X).loss_
    assert model.fit(np.hstack([X, X])).loss_ == pytest.approx(loss, rel=1e-9)


def test_columns_on_different_scales_give_one_warning_that_names_the_remedy(cls, seed):
    X, _ = blobs(seed)
    with pytest.warns(UserWarning, match="very different scales.*StandardScaler") as log:
        quick(cls, max_iter=0).fit(X * [1.0, 1.0, 1.0, 1e4])
    assert len(log) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quick(cls, max_iter=0).fit(X * [1.0, 1.0, 1.0, 5.0])


def test_an_embedding_narrower_than_k(seed):
    """One UserWarning; the loss keeps E2 and E3 in full and has no orthonormality."""
    X, _ = blobs(seed)
    model = quick(DeepAEClustering, n_components=2, lam=7.0)
    with pytest.warns(UserWarning, match="n_components=2 is smaller than k=3") as log:
        model.fit(X)
    assert len(log) == 1
    assert model.transform(X).shape == (90, 2)
    row = model.history_[-1]
    assert list(row)[3:] == ["reconstruction", "E1", "E2", "E3", "E4", "changed"]
    np.testing.assert_array_equal(model.labels_, model.predict(X))


def test_torch_device_objects(cls, seed):
    X, _ = blobs(seed)
    assert_same_fit(quick(cls, device=torch.device("cpu")).fit(X), quick(cls, device="cpu").fit(X))


def test_auto_is_cuda_if_there_is_one(cls, seed, monkeypatch):
    X, _ = blobs(seed)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_same_fit(quick(cls, device="auto").fit(X), quick(cls, device="cpu").fit(X))


def test_convergence_warning_is_about_the_loss_only(cls, seed):
    """A quick fit of the suite converges, so that any warning in it is a real one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        assert quick(cls).fit(blobs(seed)[0]).converged_


def test_a_warm_start_on_other_features(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls, warm_start=True).fit(X)
    before = state_of(model)
    with pytest.raises(ValueError, match="warm_start continues from a fit with n_features_in_=4"):
        model.fit(X[:, :3])
    assert state_of(model) == before


@pytest.mark.parametrize("factor", [1e25, 1e-30])
def test_values_beyond_the_dtype(cls, seed, factor):
    X = (blobs(seed)[0] * factor).astype(np.float32)
    with pytest.raises(ValueError, match="too large or too small for float32"):
        quick(cls).fit(X)
    quick(cls).fit(X.astype(np.float64))


def test_reversed_views_wherever_an_array_is_taken(cls, seed):
    X, _ = blobs(seed)
    model = quick(cls, init=X[:3][::-1]).fit(X)
    code = model.transform(X)
    np.testing.assert_allclose(
        model.inverse_transform(code[::-1])[::-1], model.inverse_transform(code)
    )


def test_sparse_rows_with_64_bit_indices(cls, seed):
    S = sp.csr_array(blobs(seed)[0])
    wide = sp.csr_array((S.data, S.indices.astype(np.int64), S.indptr.astype(np.int64)), S.shape)
    wide.indices, wide.indptr = wide.indices.astype(np.int64), wide.indptr.astype(np.int64)
    assert_same_fit(quick(cls).fit(wide), quick(cls).fit(S))
    assert wide.indices.dtype == np.int64


@pytest.mark.parametrize("n_samples", [0, -1, 2.5])
def test_samples_that_cannot_be_drawn(cls, n_samples):
    model = quick(cls, max_iter=0).fit(blobs(0)[0])
    with pytest.raises(ValueError, match="n_samples must be an integer of at least 1"):
        model.sample(n_samples)


def test_small_data_keep_their_clusters(seed):
    """An average over more than an epoch once hid that a cluster of iris was dying."""
    model = DeepAEClustering(3, random_state=seed, hidden_layer_sizes=(100, 100))
    assert len(np.unique(model.fit_predict(load_iris().data))) == 3
