"""The comparison of the command line: fit all methods, print a table, draw a figure."""

import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from math import ceil, sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import Bunch

from . import ClusteringModuleGMM, DeepAEClustering
from .metrics import clustering_accuracy

Say = Callable[[str], None]

DEEP = "DeepAEClustering"

# Above this width, the mixtures whose cost grows with its square or cube see
# this many principal components.
WIDEST_COVARIANCE = 100

# Share of the median variance of a column added to every variance of scikit-learn's
# mixtures: constant columns would else give them boundless likelihoods.
REGULARISATION = 1e-3

# Points of a scatter plot, labels on an axis, rows of a table with written counts:
# more cannot be read.
MAX_POINTS = 5000
MAX_TICKS = 50
MAX_COUNTS = 12

# Paul Tol's "muted" and a grey, which the colour-blind can tell apart, with a
# marker for every time round.
COLORS = (
    "#332288",
    "#88CCEE",
    "#CC6677",
    "#117733",
    "#DDCC77",
    "#882255",
    "#44AA99",
    "#AA4499",
    "#999933",
    "#888888",
)
MARKERS = "os^DvP"


class Result(NamedTuple):
    """What became of one method; no labels where it failed."""

    name: str
    estimator: BaseEstimator
    labels: np.ndarray | None
    score: float | None
    seconds: float


def single_if_exact(data: np.ndarray) -> np.ndarray:
    """X as float32, twice as fast for all methods, where that changes no value."""
    with np.errstate(over="ignore"):
        single = data.astype(np.float32)
    return single if np.array_equal(single, data) else data.astype(np.float64)


def make_methods(X: np.ndarray, k: int, seed: int) -> dict[str, BaseEstimator]:
    """The methods by name, ready to be fitted to X."""
    variance = X.var(axis=0, dtype=np.float64)
    typical = float(np.median(variance[variance > 0])) if variance.any() else 1.0
    methods: dict[str, BaseEstimator] = {"KMeans": KMeans(k, n_init=10, random_state=seed)}
    for kind in ("spherical", "diag", "tied", "full"):
        mixture = GaussianMixture(
            k, covariance_type=kind, reg_covar=REGULARISATION * typical, random_state=seed
        )
        name = f"GaussianMixture {kind}"
        if kind in ("tied", "full") and X.shape[1] > WIDEST_COVARIANCE:
            pca = PCA(min(WIDEST_COVARIANCE, len(X)), random_state=seed)
            methods[f"{name}, PCA"] = make_pipeline(pca, mixture)
        else:
            methods[name] = mixture
    methods["ClusteringModuleGMM"] = ClusteringModuleGMM(k, random_state=seed)
    methods[DEEP] = DeepAEClustering(k, random_state=seed)
    return methods


def fit_all(methods: dict[str, BaseEstimator], X: np.ndarray, say: Say) -> Iterator[Result]:
    """Fit one method after the other, saying what happens in one line each.

    A method that cannot be fitted says why and leaves the others alone.
    """
    begin = time.perf_counter()
    for i, (name, estimator) in enumerate(methods.items(), start=1):
        step = f"[{i}/{len(methods)}] {name}"
        say(f"{step}: started after {time.perf_counter() - begin:.0f} s")
        start = time.perf_counter()
        labels, score = None, None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                labels = estimator.fit_predict(X)
                seconds = time.perf_counter() - start
                score = _log_likelihood(estimator, X)
            except ValueError as error:
                seconds = time.perf_counter() - start
                say(_one_line(f"{step}: failed: {error}"))
        for message in dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught):
            say(_one_line(f"{step}: {message}"))
        if labels is not None:
            say(f"{step}: done in {seconds:.1f} s")
        yield Result(name, estimator, labels, score, seconds)


def _log_likelihood(estimator: BaseEstimator, X: np.ndarray) -> float | None:
    """Mean log-likelihood of X in nats, of those methods that have one in the space of X."""
    return None if isinstance(estimator, KMeans | Pipeline) else float(estimator.score(X))


def _one_line(text: str) -> str:
    return textwrap.shorten(text, width=300, placeholder=" ...")


# The table
# ---------


def format_table(results: Sequence[Result], target: np.ndarray | None) -> str:
    """Aligned text: one row a method, with ACC, NMI and ARI if there are labels."""
    header = ["method", *(["ACC", "NMI", "ARI"] if target is not None else []), "score", "seconds"]
    rows = [header, *(_table_row(result, target) for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def _table_row(result: Result, target: np.ndarray | None) -> list[str]:
    measures = (clustering_accuracy, normalized_mutual_info_score, adjusted_rand_score)
    if target is None:
        agreement = []
    elif result.labels is None:
        agreement = ["-"] * len(measures)
    else:
        agreement = [f"{measure(target, result.labels):.3f}" for measure in measures]
    score = "-" if result.score is None else f"{result.score:.2f}"
    return [result.name, *agreement, score, f"{result.seconds:.1f}"]


# The figure
# ----------


def draw_figure(dataset: Bunch, estimator: DeepAEClustering, path: Path, title: str) -> None:
    """Write a picture of a fit: its embedding, its clusters, its decoded centres.

    Parameters
    ----------
    dataset : Bunch
        What was fitted: data, target, image_shape.
    estimator : DeepAEClustering
        Fitted to ``dataset.data``.
    path : Path
        Where to write; the suffix decides the format.
    title : str
        Title of the whole.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing.
    """
    from matplotlib.figure import Figure

    k = len(estimator.cluster_centers_)
    n_rows, n_columns = _grid(k)
    heights = [5.2, 0.5 + 1.1 * n_rows]
    figure = Figure(figsize=(13, sum(heights) + 0.4), layout="constrained")
    figure.suptitle(title, fontsize="x-large")
    frames: Any = figure.subfigures(2, 1, height_ratios=heights)
    top, bottom = frames
    left, right = top.subplots(1, 2)
    _draw_embedding(left, dataset.data, estimator)
    if dataset.target is None:
        _draw_sizes(right, estimator.labels_, k)
    else:
        _draw_agreement(right, estimator.labels_, dataset.target)
    _draw_centers(bottom, n_rows, n_columns, dataset, estimator)
    figure.savefig(path, dpi=120)


def _grid(k: int) -> tuple[int, int]:
    """Rows and columns of k panels in a wide frame."""
    n_rows = ceil(k / max(10, ceil(sqrt(5 * k))))
    return n_rows, ceil(k / n_rows)


def _font_size(n_labels: int) -> str:
    """Size at which so many labels fit beside each other."""
    return "medium" if n_labels <= 15 else "x-small" if n_labels <= 30 else "xx-small"


def _color(cluster: int) -> str:
    return COLORS[cluster % len(COLORS)]


def _draw_embedding(ax: Any, X: np.ndarray, estimator: DeepAEClustering) -> None:
    """The embedding in a plane, coloured by cluster, the centroids numbered."""
    shown = np.arange(len(X))
    if len(X) > MAX_POINTS:
        shown = np.sort(np.random.RandomState(0).choice(len(X), MAX_POINTS, replace=False))
    code = estimator.transform(X[shown]).astype(np.float64)
    plane, names = _plane(code, estimator.embedding_centers_)
    points, centers = code @ plane, estimator.embedding_centers_ @ plane
    labels = estimator.labels_[shown]
    size = float(np.clip(20000 / len(shown), 8, 30))
    for cluster in np.unique(labels):
        marker = MARKERS[cluster // len(COLORS) % len(MARKERS)]
        ax.scatter(
            *points[labels == cluster].T,
            s=size,
            color=_color(cluster),
            marker=marker,
            alpha=0.6,
            linewidths=0,
        )
    ax.update_datalim(centers)
    ax.autoscale_view()
    for cluster, center in enumerate(centers):
        ax.annotate(
            str(cluster),
            center,
            ha="center",
            va="center",
            fontsize="small" if len(centers) <= 20 else "xx-small",
            fontweight="bold",
            bbox={
                "boxstyle": "circle,pad=0.2",
                "facecolor": "white",
                "edgecolor": _color(cluster),
                "linewidth": 2,
            },
        )
    ax.set(title="Embedding, numbers at the centroids", **names)


def _plane(code: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """Two directions (p, 2) of the embedding to look along, and their names.

    Orthonormal centroids are equally far from each other, so that the principal
    plane shows three of them and piles up the rest: from four on, the linear view
    is the one that puts the centroids on a circle.
    """
    k = len(centers)
    if k <= 3:
        _, axes = np.linalg.eigh(np.atleast_2d(np.cov(code.T, bias=True)))
        return axes[:, :-3:-1], {"xlabel": "component 1 (PCA)", "ylabel": "component 2 (PCA)"}
    angles = 2 * np.pi * np.arange(k) / k
    circle = np.column_stack([np.sin(angles), np.cos(angles)])
    name = "linear projection that spreads the centroids"
    return np.linalg.pinv(centers, rcond=0.1) @ circle, {"xlabel": name}


def _draw_sizes(ax: Any, labels: np.ndarray, k: int) -> None:
    """Rows of every cluster."""
    ax.bar(range(k), np.bincount(labels, minlength=k), color=[_color(j) for j in range(k)])
    ax.set(title="Cluster sizes", xlabel="cluster", ylabel="rows")
    ax.set_xticks(range(0, k, ceil(k / MAX_TICKS)))
    ax.spines[["top", "right"]].set_visible(False)


def _draw_agreement(ax: Any, labels: np.ndarray, target: np.ndarray) -> None:
    """Clusters against classes, in the order of their best matching."""
    classes, clusters = np.unique(target), np.unique(labels)
    counts = contingency_matrix(target, labels).T
    rows, columns = linear_sum_assignment(counts, maximize=True)
    column = counts.argmax(axis=1)
    column[rows] = columns
    # Along the diagonal; a cluster without a class of its own below those that share its class.
    order = np.lexsort((~np.isin(np.arange(len(clusters)), rows), column))
    clusters, counts = clusters[order], counts[order]
    shares = counts / counts.sum(axis=1, keepdims=True)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.figure.colorbar(image, ax=ax, label="share of the cluster")
    if max(counts.shape) <= MAX_COUNTS:
        for (i, j), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[i, j] > 0.5 else "black"
                ax.text(j, i, count, ha="center", va="center", color=color, fontsize="small")
    ax.set(title="Clusters against labels", xlabel="label", ylabel="cluster (rows)")
    names = [f"{c} ({n})" for c, n in zip(clusters, counts.sum(axis=1), strict=True)]
    step = ceil(len(names) / MAX_TICKS)
    ax.set_yticks(range(0, len(names), step), names[::step], fontsize=_font_size(len(names)))
    names = [name if len(name) <= 16 else f"{name[:13]}..." for name in map(str, classes)]
    step = ceil(len(names) / MAX_TICKS)
    ax.set_xticks(
        range(0, len(names), step),
        names[::step],
        fontsize=_font_size(len(names)),
        rotation=90 if sum(map(len, names)) > 50 else 0,
    )


def _draw_centers(
    frame: Any, n_rows: int, n_columns: int, dataset: Bunch, estimator: DeepAEClustering
) -> None:
    """A panel for every decoded centre: an image, or a profile over the features."""
    centers = estimator.cluster_centers_
    sizes = np.bincount(estimator.labels_, minlength=len(centers))
    panels = frame.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
    if dataset.image_shape is None:
        frame.suptitle("Decoded centres, less the mean of X, over the features")
    else:
        frame.suptitle("Decoded centres")
    mean, low, high = dataset.data.mean(axis=0), dataset.data.min(), dataset.data.max()
    for cluster, ax in enumerate(panels.flat):
        if cluster >= len(centers):
            ax.set_axis_off()
            continue
        if dataset.image_shape is None:
            ax.axhline(0, color="0.8", linewidth=1)
            ax.plot(centers[cluster] - mean, color=_color(cluster), linewidth=1.5)
            ax.spines[["top", "right"]].set_visible(False)
            ax.tick_params(labelsize="x-small")
        else:
            image = centers[cluster].reshape(dataset.image_shape)
            ax.imshow(image, cmap="gray", vmin=low, vmax=high)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set(color=_color(cluster), linewidth=2)
        ax.set_title(f"{cluster} ({sizes[cluster]})", fontsize="small")
