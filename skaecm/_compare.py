"""The comparison of the command line: fit all methods, print a table, draw a figure."""

import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import Bunch

from . import ClusteringModuleGMM, DeepAEClustering
from .metrics import clustering_accuracy
from .plotting import (
    ClusterCentersDisplay,
    ClusterConfusionDisplay,
    ClusterSizesDisplay,
    EmbeddingDisplay,
)

Say = Callable[[str], None]

MEASURES = {
    "ACC": clustering_accuracy,
    "NMI": normalized_mutual_info_score,
    "ARI": adjusted_rand_score,
}

DEEP = "DeepAEClustering"

# Above this width, the mixtures whose cost grows with its square or cube see
# this many principal components.
WIDEST_COVARIANCE = 100

# Share of the median variance of a column added to every variance of scikit-learn's
# mixtures: constant columns would else give them boundless likelihoods.
REGULARISATION = 1e-3


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
    if isinstance(estimator, KMeans | Pipeline):
        return None
    return float(np.mean(estimator.score_samples(X), dtype=np.float64))


def _one_line(text: str) -> str:
    return textwrap.shorten(text, width=300, placeholder=" ...")


# The table
# ---------


def format_table(results: Sequence[Result], target: np.ndarray | None) -> str:
    """Aligned text: one row a method, with ACC, NMI and ARI if there are labels."""
    header = ["method", *(MEASURES if target is not None else []), "score", "seconds"]
    rows = [header, *(_table_row(result, target) for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def agreement(target: np.ndarray, labels: np.ndarray) -> dict[str, str]:
    """What the table says of labels, by the names of its columns."""
    return {name: f"{measure(target, labels):.3f}" for name, measure in MEASURES.items()}


def _table_row(result: Result, target: np.ndarray | None) -> list[str]:
    if target is None:
        shares = []
    elif result.labels is None:
        shares = ["-"] * len(MEASURES)
    else:
        shares = list(agreement(target, result.labels).values())
    score = "-" if result.score is None else f"{result.score:.2f}"
    return [result.name, *shares, score, f"{result.seconds:.1f}"]


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

    figure = Figure(figsize=(13, 8), layout="constrained")
    figure.suptitle(title, fontsize="x-large")
    frames: Any = figure.subfigures(2, 1, height_ratios=(5, 3))
    left, right = frames[0].subplots(1, 2)
    EmbeddingDisplay.from_estimator(estimator, dataset.data, ax=left)
    left.set_title("Embedding, numbers at the centres")
    if dataset.target is None:
        ClusterSizesDisplay.from_estimator(estimator, ax=right)
        right.set_title("Cluster sizes")
    else:
        ClusterConfusionDisplay.from_predictions(dataset.target, estimator.labels_, ax=right)
        right.set_title("Labels against clusters")
    bottom = frames[1].subplots()
    ClusterCentersDisplay.from_estimator(estimator, image_shape=dataset.image_shape, ax=bottom)
    bottom.set_title("Decoded centres")
    figure.savefig(path, dpi=120)
