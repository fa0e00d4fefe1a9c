"""Displays: what they show, that it fits, and what they refuse."""

import sys
import warnings
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from helpers import blobs
from sklearn.cluster import KMeans, MeanShift
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skaecm import ClusteringModuleGMM, DeepAEClustering
from skaecm.metrics import aligned_confusion_matrix
from skaecm.plotting import (
    ClusterCentersDisplay,
    ClusterConfusionDisplay,
    ClusterSizesDisplay,
    EmbeddingDisplay,
    KSearchDisplay,
    LossCurveDisplay,
    ResponsibilitiesDisplay,
)
from skaecm.selection import KSearch

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
plt = pytest.importorskip("matplotlib.pyplot")
CenteredNorm, LogNorm = matplotlib.colors.CenteredNorm, matplotlib.colors.LogNorm

X, Y = blobs(0, n=120)
NAMES = ["height", "width", "a rather long name of a feature", "weight"]
WORDS = np.array(["cat", "dog", "a rather long name of a class"])[Y]

DRAW = {
    "loss": lambda model, X, ax: LossCurveDisplay.from_estimator(model, ax=ax),
    "embedding": lambda model, X, ax: EmbeddingDisplay.from_estimator(model, X, ax=ax),
    "profiles": lambda model, X, ax: ClusterCentersDisplay.from_estimator(model, ax=ax),
    "images": lambda model, X, ax: ClusterCentersDisplay.from_estimator(
        model, image_shape=(2, 2), ax=ax
    ),
    "sizes": lambda model, X, ax: ClusterSizesDisplay.from_estimator(model, ax=ax),
    "confusion": lambda model, X, ax: ClusterConfusionDisplay.from_estimator(
        model, X, like(X, WORDS), ax=ax
    ),
    "responsibilities": lambda model, X, ax: ResponsibilitiesDisplay.from_estimator(
        model, X[:20], ax=ax
    ),
    "search": lambda model, X, ax: KSearchDisplay.from_predictions(
        like(X, np.arange(1, model.k + 1)), like(X, np.linspace(0, 1, model.k)), best=1, ax=ax
    ),
}


def as_frame(array):
    """A DataFrame with named columns, or a Series."""
    pd = pytest.importorskip("pandas")
    return pd.Series(array) if array.ndim == 1 else pd.DataFrame(array, columns=NAMES)


def like(X, array):
    """``array`` as pandas where X is, else as it is."""
    return as_frame(array) if hasattr(X, "iloc") else array


def fit_quietly(model, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X)


def quick(cls, k, **params):
    settings = {"k": k, "random_state": 0, "max_iter": 2}
    if cls is DeepAEClustering:
        settings |= {"hidden_layer_sizes": (8,), "pretrain_iter": 1, "max_iter": 1}
    return cls(**settings | params)


@cache
def fit(cls, k, from_frame=False):
    """An estimator fitted to X, or to X as a frame."""
    return fit_quietly(quick(cls, k), as_frame(X) if from_frame else X)


@pytest.fixture
def deep():
    return fit(DeepAEClustering, 2)


@pytest.fixture
def module():
    return fit(ClusteringModuleGMM, 2)


@pytest.fixture(autouse=True)
def _closed_figures():
    """No figure outlives its test, and no test changes the settings of matplotlib."""
    before = dict(matplotlib.rcParams)
    yield
    plt.close("all")
    assert dict(matplotlib.rcParams) == before


def assert_readable(figure):
    """Draws without a warning, and nothing leaves the figure."""
    figure.canvas.draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert min(box.x0, box.y0, width - box.x1, height - box.y1) > -0.02, box


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("k", [1, 2, 30])
@pytest.mark.parametrize("theme", ["default", "dark_background"])
def test_every_display_at_every_k(cls, name, k, theme):
    # Of the two themes, one has arrays and one has pandas.
    from_frame = theme != "default"
    rows = as_frame(X) if from_frame else X
    with plt.style.context(theme):
        display = DRAW[name](fit(cls, k, from_frame), rows, None)
        assert display.figure_ is display.ax_.get_figure()
        assert_readable(display.figure_)


@pytest.mark.parametrize("name", DRAW)
def test_every_display_draws_on_given_axes(deep, name):
    """Without pyplot, in a figure of the user's own."""
    figure = matplotlib.figure.Figure()
    ax = figure.subplots(1, 2)[1]
    display = DRAW[name](deep, X, ax)
    assert display.ax_ is ax
    assert display.figure_ is figure
    assert not plt.get_fignums()
    assert display.plot(ax) is display
    figure.savefig("/dev/null", format="png")


@pytest.mark.parametrize("name", DRAW)
def test_axes_that_are_none(deep, name):
    with pytest.raises(ValueError, match=r"ax must be one matplotlib Axes .* but is ndarray"):
        DRAW[name](deep, X, plt.subplots(1, 2)[1])


@pytest.mark.parametrize("name", DRAW)
def test_without_matplotlib(deep, name, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ImportError, match=r'needs matplotlib. .* pip install "skaecm\[plots\]"'):
        DRAW[name](deep, X, None)


@pytest.mark.parametrize("name", [name for name in DRAW if name != "search"])
def test_estimators_that_are_not_fitted(cls, name):
    with pytest.raises(NotFittedError):
        DRAW[name](quick(cls, 2), X, None)


# The loss
# --------


def test_loss_is_the_history(deep):
    display = LossCurveDisplay.from_estimator(deep)
    history = deep.history_
    assert [row["phase"] for row in history] == ["pretraining", "training", "averaging"]
    terms = {name for row in history for name in row if row[name]}
    assert set(display.lines_) == terms - {"phase", "epoch", "changed"}
    for name, line in display.lines_.items():
        np.testing.assert_equal(line.get_ydata(), [row.get(name, np.nan) for row in history])
        np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
    (top,) = display.ax_.child_axes
    names = [text.get_text() for text in top.get_xticklabels()]
    assert names == ["pretraining", "training", "averaging"]


def test_loss_from_frames_and_pipelines(deep):
    pytest.importorskip("pandas")
    expected = LossCurveDisplay.from_estimator(deep)
    pipeline = make_pipeline(StandardScaler(), deep)
    for display in (
        LossCurveDisplay.from_history(deep.history_frame()),
        LossCurveDisplay.from_estimator(pipeline),
        LossCurveDisplay(deep.history_).plot(),
    ):
        assert display.lines_.keys() == expected.lines_.keys()
        for name, line in display.lines_.items():
            np.testing.assert_equal(line.get_ydata(), expected.lines_[name].get_ydata())


def epochs(phase, losses):
    return [{"phase": phase, "epoch": i, "loss": v} for i, v in enumerate(losses, 1)]


def test_loss_marks_the_best_epoch_of_each_phase():
    history = epochs("pretraining", [3.0, 1.0, 2.0]) + epochs("training", [9.0, 8.0])
    display = LossCurveDisplay.from_history(history)
    stars = display.ax_.lines[-1]
    np.testing.assert_array_equal(stars.get_xdata(), [2, 5])
    np.testing.assert_array_equal(stars.get_ydata(), [1.0, 8.0])
    assert display.ax_.get_yscale() == "linear"


@pytest.mark.parametrize(
    ("losses", "scale"), [([3.0, 2.0], "linear"), ([99.0, 1.0], "log"), ([99.0, -1.0], "symlog")]
)
def test_loss_is_logarithmic_where_that_helps(losses, scale):
    assert LossCurveDisplay.from_history(epochs("training", losses)).ax_.get_yscale() == scale


def test_short_phases_share_a_name():
    history = epochs("pretraining", np.ones(200)) + epochs("training", [1.0])
    history += epochs("averaging", [1.0])
    display = LossCurveDisplay.from_history(history)
    (top,) = display.ax_.child_axes
    names = [text.get_text() for text in top.get_xticklabels()]
    assert names == ["pretraining", "training, averaging"]
    assert_readable(display.figure_)


def test_loss_passes_keywords_on(deep):
    display = LossCurveDisplay.from_estimator(deep, lw=7, c="red")
    assert {line.get_linewidth() for line in display.lines_.values()} == {7}
    assert {line.get_color() for line in display.lines_.values()} == {"red"}


def test_no_history():
    model = fit_quietly(quick(ClusteringModuleGMM, 2, max_iter=0), X)
    with pytest.raises(ValueError, match=r"history must have at least one epoch, but is empty"):
        LossCurveDisplay.from_estimator(model)
    with pytest.raises(ValueError, match=r"history must hold a dict with 'phase', 'loss'"):
        LossCurveDisplay.from_history([{"epoch": 1}])
    with pytest.raises(ValueError, match=r"history must hold a dict .* but holds 5"):
        LossCurveDisplay.from_history(5)
    with pytest.raises(ValueError, match=r"must have a history \(history_\), but is KMeans"):
        LossCurveDisplay.from_estimator(KMeans(2, n_init=1).fit(X))


def test_a_search_is_told_to_give_its_best_estimator():
    search = search_over(quick(ClusteringModuleGMM, 2), {"alpha": [0.0]})
    for display in (LossCurveDisplay, ClusterCentersDisplay, ClusterSizesDisplay):
        with pytest.raises(ValueError, match=r"but is GridSearchCV\. Use its best_estimator_\."):
            display.from_estimator(search)
        display.from_estimator(search.best_estimator_)


# The embedding
# -------------


def test_two_columns_are_drawn_as_they_are():
    display = EmbeddingDisplay.from_predictions(X[:, :2], Y)
    np.testing.assert_array_equal(display.points, X[:, :2])
    drawn = np.vstack([points.get_offsets() for points in display.scatter_])
    np.testing.assert_array_equal(np.sort(drawn, axis=0), np.sort(X[:, :2], axis=0))


def test_more_columns_are_projected_by_pca(module):
    display = EmbeddingDisplay.from_estimator(module, X)
    pca = PCA(2).fit(X)
    np.testing.assert_allclose(display.points, pca.transform(X), atol=1e-9)
    np.testing.assert_allclose(display.centers, pca.transform(module.cluster_centers_), atol=1e-9)
    np.testing.assert_array_equal(display.labels, module.predict(X))


def test_many_centres_of_an_embedding_are_put_on_a_circle():
    deep = fit(DeepAEClustering, 30)
    display = EmbeddingDisplay.from_estimator(deep, X)
    spread = EmbeddingDisplay.from_estimator(deep, X, projection="centers")
    np.testing.assert_array_equal(display.points, spread.points)
    centers = np.eye(7) + 0.01
    display = EmbeddingDisplay.from_predictions(
        centers, np.arange(7), centers=centers, projection="centers"
    )
    np.testing.assert_allclose(np.linalg.norm(display.centers, axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(display.points, display.centers)


def test_embedding_is_that_of_the_estimator(deep):
    display = EmbeddingDisplay.from_estimator(deep, X, projection="pca")
    by_hand = EmbeddingDisplay.from_predictions(
        deep.transform(X), deep.predict(X), deep.predict_proba(X), deep.embedding_centers_
    )
    np.testing.assert_allclose(display.points, by_hand.points, atol=1e-9)
    np.testing.assert_allclose(display.centers, by_hand.centers, atol=1e-9)
    np.testing.assert_array_equal(display.uncertain, by_hand.uncertain)


@pytest.mark.parametrize("estimator", [KMeans(2, n_init=1), ClusteringModuleGMM(2)])
def test_embedding_of_pipelines_and_of_others(estimator):
    scaled = StandardScaler().fit_transform(X)
    pipeline = fit_quietly(make_pipeline(StandardScaler(), estimator), X)
    display = EmbeddingDisplay.from_estimator(pipeline, X)
    np.testing.assert_allclose(display.points, PCA(2).fit_transform(scaled), atol=1e-9)
    np.testing.assert_array_equal(display.labels, pipeline.predict(X))


def test_uncertain_rows_are_ringed(module):
    proba = module.predict_proba(X)
    threshold = float(np.median(proba.max(axis=1)))
    display = EmbeddingDisplay.from_estimator(module, X, uncertain_below=threshold)
    expected = proba.max(axis=1) < threshold
    np.testing.assert_array_equal(display.uncertain, expected)
    ringed = [points for points in display.scatter_ if len(points.get_edgecolor())]
    assert sum(len(points.get_offsets()) for points in ringed) == expected.sum()
    assert f"({expected.mean():.1%})" in display.ax_.get_xlabel()
    certain = EmbeddingDisplay.from_estimator(module, X, uncertain_below=0)
    assert "ringed" not in certain.ax_.get_xlabel()


def test_many_rows_are_thinned_and_said_to_be():
    rng = np.random.RandomState(0)
    rows, labels = rng.standard_normal((100_000, 2)), rng.choice(["a", "b"], 100_000)
    display = EmbeddingDisplay.from_predictions(rows, labels, rng.dirichlet([1, 1], 100_000))
    assert display.points.shape == (5000, 2)
    assert "5,000 of 100,000 rows" in display.ax_.get_xlabel()
    assert all(points.get_rasterized() for points in display.scatter_)
    assert [text.get_text() for text in display.text_] == ["a", "b"]
    again = EmbeddingDisplay.from_predictions(rows, labels, subsample=None)
    assert again.points.shape == rows.shape
    assert "of" not in again.ax_.get_xlabel()


def test_the_rows_of_a_thinned_fit(module):
    display = EmbeddingDisplay.from_estimator(module, X, subsample=50)
    from_frame = fit(ClusteringModuleGMM, 2, from_frame=True)
    again = EmbeddingDisplay.from_estimator(from_frame, as_frame(X), subsample=50)
    assert len(display.points) == 50
    np.testing.assert_array_equal(display.points, again.points)
    assert "50 of 120 rows" in display.ax_.get_xlabel()
    assert "rows" not in EmbeddingDisplay.from_estimator(module, X).note
    # In a figure without a layout the note is inside.
    figure = matplotlib.figure.Figure()
    display = EmbeddingDisplay.from_estimator(module, X, subsample=50, ax=figure.subplots())
    assert "50 of 120 rows" in [text.get_text() for text in display.ax_.texts][-1]


@pytest.mark.parametrize("width", [1, 4, 60])
def test_sparse_rows(width):
    rng = np.random.RandomState(0)
    rows = sp.csr_matrix(rng.binomial(1, 0.2, size=(80, width)).astype(float))
    model = fit_quietly(quick(ClusteringModuleGMM, 1), rows)
    display = EmbeddingDisplay.from_estimator(model, rows)
    assert display.points.shape == (80, 2)
    if width == 4:
        dense = EmbeddingDisplay.from_estimator(model, rows.toarray())
        np.testing.assert_allclose(display.points, dense.points, atol=1e-9)


def test_equal_rows_have_a_picture():
    display = EmbeddingDisplay.from_predictions(np.ones((10, 3)), np.zeros(10, int))
    assert_readable(display.figure_)


def test_t_sne_is_seeded(deep):
    first, second = (EmbeddingDisplay.from_estimator(deep, X, projection="t-sne") for _ in range(2))
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.centers, second.centers)
    assert_readable(first.figure_)


def test_umap(monkeypatch):
    class UMAP:
        def __init__(self, n_neighbors, random_state, n_jobs):
            assert (n_neighbors, random_state, n_jobs) == (15, 7, 1)

        def fit_transform(self, rows):
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=UMAP))
    display = EmbeddingDisplay.from_predictions(
        X, Y, centers=X[:3], projection="umap", random_state=7
    )
    np.testing.assert_array_equal(display.points, X[:, :2])
    np.testing.assert_array_equal(display.centers, X[:3, :2])
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ImportError, match="pip install umap-learn"):
        EmbeddingDisplay.from_predictions(X, Y, projection="umap")


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((X, Y[:5]), {}, r"labels must have shape \(n_samples=120,\).*but has shape \(5,\)"),
        ((X, Y[:, None]), {}, r"labels must have shape"),
        ((X, Y, np.ones((5, 3))), {}, r"responsibilities must have shape \(120, any\).*\(5, 3\)"),
        ((X, Y, np.ones((120, 2)), X[:3]), {}, r"responsibilities must have shape \(120, 3\)"),
        ((X, Y, None, X[:3, :2]), {}, r"centers must have shape \(any, 4\), but .* \(3, 2\)"),
        ((X, Y, None, X[:2]), {}, r"With centers of k=2 .* integers from 0 to 1, but hold"),
        ((X, WORDS, None, X[:3]), {}, r"With centers of k=3 clusters, labels must be integers"),
        ((X, Y), {"projection": "lda"}, r"projection must be one of \('auto'.* but is 'lda'"),
        ((X, Y), {"projection": "centers"}, r"projection='centers' needs centers"),
        ((X, Y), {"uncertain_below": 2}, r"uncertain_below must be .* 0 and 1, but is 2\."),
        ((X, Y), {"uncertain_below": "9"}, r"uncertain_below must be .*, but is '9'\."),
        ((X, Y), {"subsample": 1}, r"subsample must be an integer of at least 2 .* is 1\."),
        ((X[:1], Y[:1]), {}, r"A projection needs at least 2 rows"),
        ((X[:, 0], Y), {}, r"Expected 2D array"),
    ],
)
def test_embeddings_that_are_refused(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingDisplay.from_predictions(*arguments, **settings)


def test_rows_of_another_width(deep):
    with pytest.raises(ValueError, match="X has 3 features, but DeepAEClustering is expecting 4"):
        EmbeddingDisplay.from_estimator(deep, X[:, :3])


# The centres
# -----------


def test_images_are_the_centres(deep):
    display = ClusterCentersDisplay.from_estimator(deep, image_shape=(1, 4), vmin=-1, cmap="magma")
    for image, center in zip(display.ax_.images, deep.cluster_centers_, strict=True):
        np.testing.assert_array_equal(image.get_array(), center[None])
        assert image.get_clim() == (-1, deep.cluster_centers_.max())
        assert image.get_cmap().name == "magma"
    sizes = np.bincount(deep.labels_, minlength=2)
    captions = [text.get_text() for text in display.ax_.texts]
    assert captions == [f"0 ({sizes[0]})", f"1 ({sizes[1]})"]


def test_images_of_three_channels():
    centers = np.random.RandomState(0).uniform(2, 3, size=(2, 24))
    display = ClusterCentersDisplay.from_predictions(centers, image_shape=[3, 4, 2], vmin=2, vmax=3)
    for image, center in zip(display.ax_.images, centers, strict=True):
        expected = np.moveaxis(center.reshape(3, 4, 2), 0, -1) - 2
        np.testing.assert_allclose(image.get_array(), expected)
    grey = ClusterCentersDisplay.from_predictions(centers, image_shape=(1, 4, 6))
    assert grey.image_shape == (4, 6)


@pytest.mark.parametrize("norm", ["log", LogNorm(), LogNorm(vmin=1e-2)])
def test_images_share_a_norm(norm):
    centers = np.array([[0.0, 0.1, 1.0, 10.0], [1.0, 2.0, 5.0, 20.0]])
    display = ClusterCentersDisplay.from_predictions(centers, image_shape=(2, 2), norm=norm)
    low = getattr(norm, "vmin", None) or 0.1
    assert [image.get_clim() for image in display.ax_.images] == [(low, 20.0)] * 2
    assert all(isinstance(image.norm, LogNorm) for image in display.ax_.images)
    assert_readable(display.figure_)
    colour = ClusterCentersDisplay.from_predictions(
        np.hstack([centers, centers, centers]), image_shape=(3, 2, 2), norm=norm
    )
    expected = np.clip(np.ma.filled(LogNorm(low, 20.0)(centers), 0), 0, 1)
    for image, center in zip(colour.ax_.images, expected, strict=True):
        np.testing.assert_allclose(image.get_array()[..., 0], center.reshape(2, 2))


def test_heat_maps_take_a_norm():
    norm = LogNorm()
    proba = np.array([[0.9, 0.1], [0.999, 0.001]])
    display = ResponsibilitiesDisplay.from_predictions(proba, norm=norm)
    assert display.im_.norm is norm
    assert display.im_.get_clim() == (0.001, 0.999)
    assert_readable(display.figure_)
    display = ClusterConfusionDisplay.from_predictions([0, 0, 0, 1], [0, 0, 0, 1], norm="log")
    assert display.im_.get_clim() == (1, 3)
    centers = np.random.RandomState(0).standard_normal((7, 3))
    display = ClusterCentersDisplay.from_predictions(centers, norm=CenteredNorm(halfrange=9))
    assert display.ax_.images[0].get_clim() == (-9, 9)
    display = ResponsibilitiesDisplay.from_predictions(proba, norm=None)
    assert display.im_.get_clim() == (0, 1)


def test_centres_of_rows_in_no_cluster():
    rows = np.vstack([X, 1e6 + np.zeros((1, 4))])
    model = MeanShift(bandwidth=10.0, cluster_all=False, min_bin_freq=2, bin_seeding=True).fit(rows)
    assert model.labels_.min() == -1
    display = ClusterCentersDisplay.from_estimator(model, image_shape=(2, 2))
    sizes = [np.sum(model.labels_ == j) for j in range(len(model.cluster_centers_))]
    np.testing.assert_array_equal(display.sizes, sizes)


def test_profiles_are_the_centres():
    few, many = (fit(ClusteringModuleGMM, k, True) for k in (6, 7))
    display = ClusterCentersDisplay.from_estimator(few)
    for line, center in zip(display.ax_.lines, few.cluster_centers_, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), center)
    display = ClusterCentersDisplay.from_estimator(many)
    centers = many.cluster_centers_
    (image,) = display.ax_.images
    np.testing.assert_allclose(image.get_array(), centers - centers.mean(axis=0))
    names = [text.get_text() for text in display.ax_.get_xticklabels()]
    assert names == ["height", "width", "a rather long name of...", "weight"]
    assert_readable(display.figure_)


def names_of(display):
    return [text.get_text() for text in display.ax_.get_xticklabels()]


def test_names_of_features():
    pd = pytest.importorskip("pandas")
    pipeline = make_pipeline(StandardScaler(), quick(ClusteringModuleGMM, 2))
    fit_quietly(pipeline, as_frame(X))
    expected = ["height", "width", "a rather long name of...", "weight"]
    assert names_of(ClusterCentersDisplay.from_estimator(pipeline)) == expected
    centers = pd.DataFrame(X[:3], columns=list("abcd"))
    assert names_of(ClusterCentersDisplay.from_predictions(centers)) == list("abcd")
    display = ClusterCentersDisplay.from_predictions(X[:3], feature_names=list("wxyz"))
    assert names_of(display) == list("wxyz")


@pytest.mark.parametrize("d", [1, 30, 1000])
@pytest.mark.parametrize("k", [2, 30])
def test_wide_profiles(k, d):
    rng = np.random.RandomState(0)
    display = ClusterCentersDisplay.from_predictions(
        rng.standard_normal((k, d)), feature_names=[f"feature {i}" for i in range(d)]
    )
    assert_readable(display.figure_)
    assert len(display.ax_.get_xticks()) <= 60


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_shape": (2, 3)}, r"image_shape must be .* n_features=4 .* is \(2, 3\)"),
        ({"image_shape": (2, 2, 1)}, r"image_shape must be .* is \(2, 2, 1\)"),
        ({"image_shape": (2.0, 2.0)}, r"image_shape must be"),
        ({"image_shape": (-2, -2)}, r"image_shape must be"),
        ({"image_shape": 4}, r"image_shape must be .* but is 4"),
        ({"feature_names": ["a"]}, r"feature_names must hold n_features=4 names, but holds 1"),
        ({"sizes": [1, 2]}, r"sizes must have shape \(3,\), but has shape \(2,\)"),
    ],
)
def test_centres_that_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ClusterCentersDisplay.from_predictions(X[:3], **settings)


def test_centres_of_a_wrong_shape():
    with pytest.raises(ValueError, match=r"centers must have shape \(any, any\).* \(4,\)"):
        ClusterCentersDisplay.from_predictions(X[0])


# Sizes, classes and responsibilities
# -----------------------------------


def test_sizes_are_those_of_the_labels(module):
    display = ClusterSizesDisplay.from_estimator(module)
    sizes = np.bincount(module.labels_, minlength=2)
    np.testing.assert_array_equal([bar.get_height() for bar in display.bars_], sizes)
    np.testing.assert_allclose(display.expected, module.weights_ * 120)
    weights = [0.5, 0.2, 0.3]
    display = ClusterSizesDisplay.from_predictions([1, 1, 0], weights=weights, fc="red")
    np.testing.assert_array_equal(display.sizes, [1, 2, 0])
    assert display.bars_[0].get_facecolor() == (1, 0, 0, 1)
    display = ClusterSizesDisplay.from_predictions(as_frame(WORDS))
    assert dict(zip(display.clusters, display.sizes, strict=True)) == dict.fromkeys(set(WORDS), 40)


@pytest.mark.parametrize(
    ("labels", "weights", "message"),
    [
        ([[0, 1]], None, r"labels must have shape \(n_samples,\), .* but has shape \(1, 2\)"),
        ([0, 2], [0.5, 0.5], r"With weights of k=2 .* integers from 0 to 1, but hold \[0, 2\]"),
        (["a"], [1.0], r"With weights of k=1 clusters, labels must be integers"),
        ([0], [[1.0]], r"weights must have shape \(k,\), one weight for every cluster, but has"),
        ([], None, r"minimum of 1 is required"),
    ],
)
def test_sizes_that_are_refused(labels, weights, message):
    with pytest.raises(ValueError, match=message):
        ClusterSizesDisplay.from_predictions(labels, weights=weights)


@pytest.mark.parametrize("normalize", [None, "true", "pred", "all"])
@pytest.mark.parametrize("frame", [False, True], ids=["array", "pandas"])
def test_confusion_is_the_aligned_matrix(normalize, frame):
    model = fit(ClusteringModuleGMM, 4)
    y = as_frame(WORDS) if frame else WORDS
    display = ClusterConfusionDisplay.from_estimator(model, X, y, normalize=normalize)
    matrix, classes, clusters = aligned_confusion_matrix(WORDS, model.predict(X))
    np.testing.assert_array_equal(display.classes, classes)
    np.testing.assert_array_equal(display.clusters, clusters)
    sums = {"true": matrix.sum(1, keepdims=True), "pred": matrix.sum(0), "all": matrix.sum()}
    np.testing.assert_allclose(display.matrix, matrix / sums.get(normalize, 1))
    written = {text.get_text() for text in display.ax_.texts}
    form = "d" if normalize is None else ".2f"
    assert written == {format(value, form) for value in display.matrix.flat} - {format(0, form)}
    bare = ClusterConfusionDisplay.from_predictions(y, model.predict(X), colorbar=False)
    assert len(bare.figure_.axes) == 1


def test_confusions_that_are_refused(module):
    with pytest.raises(ValueError, match=r"normalize must be 'true', 'pred', 'all' or None"):
        ClusterConfusionDisplay.from_predictions(Y, Y, normalize=True)
    with pytest.raises(ValueError, match=r"labels_pred must have shape \(n_samples=120,\)"):
        ClusterConfusionDisplay.from_predictions(Y, Y[:3])
    with pytest.raises(ValueError, match=r"y must have shape \(n_samples=120,\)"):
        ClusterConfusionDisplay.from_estimator(module, X, Y[:3])


def test_responsibilities_are_those_of_the_rows(deep):
    pd = pytest.importorskip("pandas")
    display = ResponsibilitiesDisplay.from_estimator(deep, X[:5])
    np.testing.assert_array_equal(display.im_.get_array(), deep.predict_proba(X[:5]))
    pipeline = fit_quietly(make_pipeline(StandardScaler(), quick(ClusteringModuleGMM, 3)), X)
    rows = pd.DataFrame(X[:3], index=["ann", "bob", "cid"])
    display = ResponsibilitiesDisplay.from_estimator(pipeline, rows)
    np.testing.assert_allclose(display.responsibilities, pipeline.predict_proba(rows))
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["ann", "bob", "cid"]
    shown = ResponsibilitiesDisplay.from_predictions(pd.DataFrame(np.eye(2), index=["x", "y"]))
    assert [text.get_text() for text in shown.ax_.get_yticklabels()] == ["x", "y"]


def test_responsibilities_that_are_refused():
    with pytest.raises(ValueError, match=r"responsibilities must have shape \(any, any\)"):
        ResponsibilitiesDisplay.from_predictions([0.5, 0.5])
    with pytest.raises(ValueError, match=r"row_names must hold .* n_samples=2 rows, but holds 1"):
        ResponsibilitiesDisplay.from_predictions(np.eye(2), row_names=["a"])
    with pytest.raises(ValueError, match=r"must have responsibilities .* but is KMeans"):
        ResponsibilitiesDisplay.from_estimator(KMeans(2, n_init=1).fit(X), X)


# The search for k
# ----------------


def search_over(estimator, grid, **settings):
    search = GridSearchCV(estimator, grid, cv=3, **settings)
    return fit_quietly(search, X)


def test_search_over_k():
    search = search_over(quick(ClusteringModuleGMM, 2), {"k": [3, 1, 2]})
    display = KSearchDisplay.from_estimator(search)
    np.testing.assert_array_equal(display.k_values, [1, 2, 3])
    assert display.best == search.best_params_["k"]
    line = display.ax_.lines[0]
    expected = search.cv_results_["mean_test_score"][[1, 2, 0]]
    np.testing.assert_allclose(line.get_ydata(), expected)
    spread = search.cv_results_["std_test_score"][[1, 2, 0]]
    np.testing.assert_allclose(display.scores["score"].std(axis=1), spread)
    assert_readable(display.figure_)


def test_search_over_a_pipeline_and_more():
    """Several scores, of every k the best of what else was tried."""
    pipeline = make_pipeline(StandardScaler(), quick(ClusteringModuleGMM, 2))
    step = "clusteringmodulegmm"
    search = search_over(
        pipeline,
        {f"{step}__k": [1, 2], f"{step}__alpha": [0.0, 5.0]},
        scoring={"first": lambda model, X, y=None: -model[-1].alpha, "second": lambda *_: 1.0},
        refit="first",
    )
    display = KSearchDisplay.from_estimator(search)
    np.testing.assert_array_equal(display.scores["first"], np.zeros((2, 3)))
    np.testing.assert_array_equal(display.scores["second"], np.ones((2, 3)))
    assert [panel.get_ylabel() for panel in display.axes_] == ["first", "second"]
    assert_readable(display.figure_)


@pytest.mark.parametrize("criterion", ["bic", "stability", lambda model, X: -abs(model.k - 2)])
def test_a_search_for_k_is_its_trace(criterion):
    X = np.random.RandomState(0).standard_normal((60, 3))
    model = ClusteringModuleGMM(tol=1e3, n_iter_no_change=1, random_state=0)
    search = KSearch(model, [4, 2, 3], criterion=criterion, random_state=0).fit(X)
    display = KSearchDisplay.from_estimator(search)
    assert display.best == search.best_k_
    (name,) = display.scores
    assert name == (criterion if isinstance(criterion, str) else "<lambda>")
    np.testing.assert_array_equal(display.ax_.lines[0].get_xdata(), [2, 3, 4])
    np.testing.assert_allclose(display.ax_.lines[0].get_ydata(), search.results_["mean"])
    np.testing.assert_allclose(display.scores[name].std(axis=1), search.results_["std"])
    assert_readable(display.figure_)


def test_scores_are_sorted_by_k():
    scores = {"one": [3.0, 1.0, 2.0], "more": [[3, 4], [1, 2], [2, 3]]}
    display = KSearchDisplay.from_predictions(np.array([30, 10, 20]), scores, best=20)
    np.testing.assert_array_equal(display.axes_[0].lines[0].get_ydata(), [1, 2, 3])
    np.testing.assert_array_equal(display.axes_[1].lines[0].get_ydata(), [1.5, 2.5, 3.5])
    assert "20, the best" in display.axes_[1].get_xlabel()
    np.testing.assert_array_equal(display.axes_[0].lines[1].get_xdata(), [20, 20])


@pytest.mark.parametrize(
    ("k_values", "scores", "settings", "message"),
    [
        ([1, 2], [1.0], {}, r"Scores \(score\) must have shape \(2,\) or \(2, .* shape \(1,\)"),
        ([1, 2], {"a": 1.0}, {}, r"Scores \(a\) must have shape"),
        ([1, 2], {}, {}, r"scores must hold at least one score"),
        ([1, 1], [1.0, 2.0], {}, r"k_values must hold integers, each once, but are \[1, 1\]"),
        ([1.5], [1.0], {}, r"k_values must hold integers"),
        ([[1, 2]], [1.0], {}, r"k_values must have shape \(n_k,\), every k once, but has shape"),
        ([1, 2], [1.0, 2.0], {"best": 3}, r"best must be one of k_values, \[1, 2\], but is 3"),
    ],
)
def test_searches_that_are_refused(k_values, scores, settings, message):
    with pytest.raises(ValueError, match=message):
        KSearchDisplay.from_predictions(k_values, scores, **settings)


def test_estimators_that_are_no_search(module):
    with pytest.raises(ValueError, match=r"fitted KSearch, GridSearchCV .* Clustering"):
        KSearchDisplay.from_estimator(module)
    with pytest.raises(NotFittedError):
        KSearchDisplay.from_estimator(GridSearchCV(module, {"k": [1]}))
    search = search_over(quick(ClusteringModuleGMM, 2), {"alpha": [0.0]})
    with pytest.raises(ValueError, match=r"must go over one parameter named 'k'.*\['alpha'\]"):
        KSearchDisplay.from_estimator(search)
