"""`EmbeddingDisplay`: rows and centres in a plane."""

from numbers import Integral, Real
from typing import Any, final

import numpy as np
import scipy.sparse as sp
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.manifold import TSNE
from sklearn.utils import check_random_state, resample
from sklearn.utils.validation import _num_samples, check_array

from ._style import (
    Display,
    as_labels,
    as_matrix,
    check_numbered,
    cluster_colors,
    cluster_markers,
    first_steps,
    fitted,
    line_color,
    makes_room,
    style,
)

PROJECTIONS = ("auto", "pca", "centers", "t-sne", "umap")

# Sparse rows of more columns are first reduced to so many.
SPARSE_WIDTH = 50

# Perplexity of t-SNE and neighbours of UMAP, where there are rows enough.
PERPLEXITY = 30.0
UMAP_NEIGHBOURS = 15


@final
class EmbeddingDisplay(Display):
    """Rows of a fit as points of a plane, coloured by cluster.

    A number stands at the centre of every cluster, where there are no centres at
    its median. Rows with a dark ring (light on a dark background) are uncertain:
    their largest responsibility is small. A line below the axis, or inside where
    the figure has no layout engine, says what a ring means and how many of the rows
    are shown.

    Parameters
    ----------
    points : ndarray of shape (n_shown, 2)
        The rows in the plane.
    labels : ndarray of shape (n_shown,)
        Their clusters.
    centers : ndarray of shape (k, 2), default=None
        The centres in the plane.
    uncertain : ndarray of bool of shape (n_shown,), default=None
        Which rows are uncertain.
    axis_names : tuple of str, default=("", "")
        Names of the two axes.
    note : str, default=""
        A line to stand below the axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the points.
    figure_ : matplotlib Figure
        Figure of the axes.
    scatter_ : list of matplotlib PathCollection
        The points, a collection for every cluster that has some.
    text_ : list of matplotlib Annotation
        The numbers at the centres.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skaecm import DeepAEClustering
    >>> from skaecm.plotting import EmbeddingDisplay
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = DeepAEClustering(
    ...     k=3, hidden_layer_sizes=(16,), pretrain_iter=5, random_state=0
    ... ).fit(X)
    >>> display = EmbeddingDisplay.from_estimator(model, X)
    >>> display.points.shape
    (150, 2)
    """

    def __init__(
        self, *, points, labels, centers=None, uncertain=None, axis_names=("", ""), note=""
    ):
        self.points = points
        self.labels = labels
        self.centers = centers
        self.uncertain = uncertain
        self.axis_names = axis_names
        self.note = note

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        *,
        projection="auto",
        uncertain_below=0.9,
        subsample=5000,
        random_state=0,
        ax=None,
        **kwargs,
    ):
        """Draw the embedding of X by a fitted estimator.

        An estimator without an embedding, as ClusteringModuleGMM, KMeans or
        GaussianMixture, has its rows themselves drawn. Rows are transformed and
        predicted without a graph. After ``fit(X, adjacency=A)``, use
        ``from_predictions(model.transform(X, adjacency=A), model.labels_,
        model.predict_proba(X, adjacency=A), model.embedding_centers_)``.

        Parameters
        ----------
        estimator : fitted estimator
            One of this package, KMeans or GaussianMixture, or a Pipeline that ends
            in one; what is drawn is then X after its first steps.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to draw.
        projection : {"auto", "pca", "centers", "t-sne", "umap"}, default="auto"
            How an embedding of more than two columns comes to the plane; one of two
            is drawn as it is.

            - "auto": "centers" where the estimator has an embedding, in which the
              centres end up about equally far from each other; else "pca".
            - "pca": the two main directions of the rows.
            - "centers": the linear projection that puts the centres on a circle. It
              shows many centres apart, where "pca" piles up all but three; up to
              three centres are shown by "pca".
            - "t-sne": t-SNE of rows and centres. Distances between clusters mean
              little.
            - "umap": the same by UMAP, which needs ``pip install umap-learn``.
        uncertain_below : float, default=0.9
            Rows whose largest responsibility is below this are marked.
        subsample : int or None, default=5000
            Largest number of rows drawn, chosen at random; None draws all.
        random_state : int, RandomState instance or None, default=0
            Seed of the choice of rows, of "t-sne" and "umap".
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For the points, as in `matplotlib.axes.Axes.scatter`.

        Returns
        -------
        display : EmbeddingDisplay
            With `ax_`, `figure_`, `scatter_` and `text_`.

        Raises
        ------
        ValueError
            If the estimator has no centres, or a parameter is not as described.
        ImportError
            If "umap" is asked for and not installed.
        """
        names = ("embedding_centers_", "cluster_centers_", "means_")
        last = fitted(estimator, "centres", *names)
        _check_settings(projection, uncertain_below, subsample)
        n_rows = _num_samples(X)
        if subsample is not None and n_rows > subsample:
            X = resample(X, replace=False, n_samples=subsample, random_state=random_state)
        X = first_steps(estimator, X)
        responsibilities = None
        if hasattr(last, "predict_proba"):
            responsibilities = last.predict_proba(X)
            labels = responsibilities.argmax(axis=1)
        else:
            labels = last.predict(X)
        centers = next(getattr(last, name) for name in names if hasattr(last, name))
        embedding = X
        if hasattr(last, "embedding_centers_"):
            embedding = last.transform(X)
            projection = "centers" if projection == "auto" else projection
        display = cls._project(
            embedding, labels, responsibilities, centers, projection, uncertain_below, random_state
        )
        display.note = _note(display.uncertain, uncertain_below, len(display.labels), n_rows)
        return display.plot(ax, **kwargs)

    @classmethod
    def from_predictions(
        cls,
        embedding,
        labels,
        responsibilities=None,
        centers=None,
        *,
        projection="auto",
        uncertain_below=0.9,
        subsample=5000,
        random_state=0,
        ax=None,
        **kwargs,
    ):
        """Draw rows of a known embedding.

        Parameters
        ----------
        embedding : {array-like, sparse matrix} of shape (n_samples, n_components)
            The rows.
        labels : array-like of shape (n_samples,)
            Their clusters or classes: numbers or strings.
        responsibilities : array-like of shape (n_samples, k), default=None
            Responsibilities of the clusters, by which uncertain rows are marked.
        centers : array-like of shape (k, n_components), default=None
            Centres in the embedding; labels are then integers below k.
        projection : {"auto", "pca", "centers", "t-sne", "umap"}, default="auto"
            As in `from_estimator`; "auto" is "pca", and "centers" needs `centers`.
        uncertain_below : float, default=0.9
            Rows whose largest responsibility is below this are marked.
        subsample : int or None, default=5000
            Largest number of rows drawn, chosen at random; None draws all.
        random_state : int, RandomState instance or None, default=0
            Seed of the choice of rows, of "t-sne" and "umap".
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For the points, as in `matplotlib.axes.Axes.scatter`.

        Returns
        -------
        display : EmbeddingDisplay
            With `ax_`, `figure_`, `scatter_` and `text_`.

        Raises
        ------
        ValueError
            If shapes do not fit each other, or a parameter is not as described.
        ImportError
            If "umap" is asked for and not installed.
        """
        _check_settings(projection, uncertain_below, subsample)
        embedding = check_array(
            embedding, accept_sparse="csr", dtype=np.float64, input_name="embedding"
        )
        n_rows, width = embedding.shape
        labels = as_labels("labels", labels, n_rows)
        if centers is not None:
            centers = as_matrix("centers", centers, (None, width))
            check_numbered(labels, len(centers), "centers")
        if responsibilities is not None:
            k = None if centers is None else len(centers)
            responsibilities = as_matrix("responsibilities", responsibilities, (n_rows, k))
        if subsample is not None and n_rows > subsample:
            kept = resample(
                np.arange(n_rows), replace=False, n_samples=subsample, random_state=random_state
            )
            embedding, labels = embedding[kept], labels[kept]
            responsibilities = None if responsibilities is None else responsibilities[kept]
        display = cls._project(
            embedding, labels, responsibilities, centers, projection, uncertain_below, random_state
        )
        display.note = _note(display.uncertain, uncertain_below, len(labels), n_rows)
        return display.plot(ax, **kwargs)

    @classmethod
    def _project(
        cls, code, labels, responsibilities, centers, projection, uncertain_below, random_state
    ):
        """A display of rows and centres, brought to the plane."""
        points, plane_centers, names = _to_plane(code, centers, projection, random_state)
        uncertain = None
        if responsibilities is not None:
            uncertain = np.max(responsibilities, axis=1) < uncertain_below
        return cls(
            points=points,
            labels=np.asarray(labels),
            centers=plane_centers,
            uncertain=uncertain,
            axis_names=names,
        )

    def plot(self, ax=None, **kwargs):
        """Draw the points.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For the points, as in `matplotlib.axes.Axes.scatter`.

        Returns
        -------
        display : EmbeddingDisplay
            The display itself.
        """
        ax = self._start(ax)
        clusters = np.unique(self.labels) if self.centers is None else np.arange(len(self.centers))
        colors, markers = cluster_colors(len(clusters)), cluster_markers(len(clusters))
        is_uncertain = (
            np.zeros(len(self.labels), bool) if self.uncertain is None else self.uncertain
        )
        look = {"s": float(np.clip(20000 / len(self.labels), 8, 30)), "alpha": 0.8}
        look |= {"rasterized": len(self.labels) > 1000}
        self.scatter_, self.text_ = [], []
        # The uncertain ones last, so that nothing hides them.
        for ring, width in ((False, 0.0), (True, 0.8 if is_uncertain.sum() <= 500 else 0.5)):
            for cluster, color, marker in zip(clusters, colors, markers, strict=True):
                rows = (self.labels == cluster) & (is_uncertain == ring)
                if rows.any():
                    drawn = {
                        **look,
                        "facecolor": color,
                        "edgecolor": line_color() if ring else "none",
                        "linewidth": width,
                        "marker": marker,
                    }
                    points = ax.scatter(*self.points[rows].T, **style("points", drawn, kwargs))
                    self.scatter_.append(points)
        for i, cluster in enumerate(clusters):
            if self.centers is None:
                place = np.median(self.points[self.labels == cluster], axis=0)
            else:
                place = self.centers[i]
            self._number(ax, str(cluster), place, colors[i], len(clusters))
        if self.centers is not None:
            ax.update_datalim(self.centers)
            ax.autoscale_view()
        xlabel, ylabel = self.axis_names
        if makes_room(ax):
            xlabel = "\n".join(filter(None, (xlabel, self.note)))
        else:
            ax.text(0.01, 0.01, self.note, transform=ax.transAxes, fontsize="x-small")
        ax.set(xlabel=xlabel, ylabel=ylabel)
        return self

    def _number(self, ax: Any, text: str, place: np.ndarray, color: Any, k: int) -> None:
        """The number of a cluster, framed in its colour."""
        self.text_.append(
            ax.annotate(
                text,
                place,
                ha="center",
                va="center",
                fontsize="medium" if k <= 10 else "small" if k <= 20 else "x-small",
                fontweight="bold",
                bbox={
                    "boxstyle": "round,pad=0.2",
                    "facecolor": ax.get_facecolor(),
                    "edgecolor": color,
                    "linewidth": 2,
                    "alpha": 0.9,
                },
            )
        )


def _check_settings(projection: Any, uncertain_below: Any, subsample: Any) -> None:
    if projection not in PROJECTIONS:
        raise ValueError(f"projection must be one of {PROJECTIONS}, but is {projection!r}.")
    if not (isinstance(uncertain_below, Real) and 0 <= float(uncertain_below) <= 1):
        raise ValueError(
            f"uncertain_below must be a number between 0 and 1, but is {uncertain_below!r}. 0 "
            "marks no row."
        )
    if subsample is not None and not (isinstance(subsample, Integral) and int(subsample) >= 2):
        raise ValueError(
            f"subsample must be an integer of at least 2 or None for all rows, but is "
            f"{subsample!r}."
        )


def _note(uncertain: np.ndarray | None, threshold: float, n_shown: int, n_rows: int) -> str:
    """What must be said about a picture: what its rings are and what it leaves out."""
    parts = []
    if uncertain is not None and uncertain.any():
        share = uncertain.mean()
        parts.append(f"ringed: largest responsibility < {threshold:g} ({share:.1%})")
    if n_shown < n_rows:
        parts.append(f"{n_shown:,} of {n_rows:,} rows")
    return "; ".join(parts)


# To the plane
# ------------


def _to_plane(
    code: Any, centers: np.ndarray | None, projection: str, random_state: Any
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, str]]:
    """Rows and centres (n, 2), (k, 2) and the names of the axes."""
    if sp.issparse(code) and code.shape[1] > SPARSE_WIDTH:
        svd = TruncatedSVD(SPARSE_WIDTH, random_state=random_state).fit(code)
        code = svd.transform(code)
        centers = None if centers is None else svd.transform(centers)
    code = np.asarray(code.toarray() if sp.issparse(code) else code, dtype=np.float64)
    k = 0 if centers is None else len(centers)
    # One array, so that every way below treats rows and centres alike.
    both = code if centers is None else np.vstack([code, centers])
    if projection == "centers" and centers is None:
        raise ValueError("projection='centers' needs centers, but it is None. Try 'pca'.")
    if code.shape[1] == 1:
        noise = check_random_state(random_state).uniform(-1, 1, len(code))
        plane = np.column_stack([both, np.concatenate([noise, np.zeros(k)])])
        names = ("embedding", "random heights")
    elif code.shape[1] == 2:
        plane, names = both, ("column 0", "column 1")
    elif len(code) < 2:
        raise ValueError("A projection needs at least 2 rows, but there is one.")
    elif projection == "t-sne":
        perplexity = min(PERPLEXITY, (len(both) - 1) / 3)
        tsne = TSNE(perplexity=perplexity, random_state=random_state)
        plane, names = tsne.fit_transform(both), ("t-SNE 1", "t-SNE 2")
    elif projection == "umap":
        plane, names = _umap(both, random_state), ("UMAP 1", "UMAP 2")
    elif projection == "centers" and k > 3:
        plane, names = _spread(both, centers), ("linear projection that spreads the centres", "")
    else:
        plane, names = _pca(both, len(code))
    return plane[: len(code)], None if centers is None else plane[len(code) :], names


def _pca(both: np.ndarray, n_rows: int) -> tuple[np.ndarray, tuple[str, str]]:
    """Rows and centres along the two main directions of the rows."""
    with np.errstate(divide="ignore", invalid="ignore"):  # equal rows have no variance
        pca = PCA(2, svd_solver="full").fit(both[:n_rows])
    shares = np.nan_to_num(pca.explained_variance_ratio_)
    first, second = (
        f"component {i} ({share:.1%} of variance)" for i, share in enumerate(shares, 1)
    )
    return pca.transform(both), (first, second)


def _spread(both: np.ndarray, centers: Any) -> np.ndarray:
    """The linear projection whose images of the centres are nearest to a circle.

    Orthonormal centres are equally far from each other, so that the main directions
    show three of them and pile up the rest.
    """
    angles = 2 * np.pi * np.arange(len(centers)) / len(centers)
    circle = np.column_stack([np.sin(angles), np.cos(angles)])
    mean = np.mean(centers, axis=0)
    return (both - mean) @ (np.linalg.pinv(centers - mean, rcond=0.1) @ circle)


def _umap(both: np.ndarray, random_state: Any) -> np.ndarray:
    try:
        from umap import UMAP
    except ImportError:
        raise ImportError(
            "projection='umap' needs the package umap-learn. Install it with pip install "
            "umap-learn, or use 't-sne'."
        ) from None
    n_neighbors = min(UMAP_NEIGHBOURS, len(both) - 1)
    # Seeded, it runs in one thread, and would warn that it does.
    model = UMAP(n_neighbors=n_neighbors, random_state=random_state, n_jobs=1)
    return model.fit_transform(both)
