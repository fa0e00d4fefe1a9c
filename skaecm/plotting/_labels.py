"""Displays of labels: sizes of clusters, clusters against classes, responsibilities."""

from typing import final

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..metrics import aligned_confusion_matrix
from ._style import (
    Display,
    as_labels,
    as_matrix,
    as_vector,
    check_numbered,
    cluster_colors,
    draw_matrix,
    first_steps,
    fitted,
    line_color,
    name_ticks,
    style,
)


@final
class ClusterSizesDisplay(Display):
    """Number of rows of every cluster, beside what the weights of a fit expect.

    Parameters
    ----------
    sizes : ndarray of shape (k,)
        Rows of every cluster.
    clusters : ndarray of shape (k,)
        The clusters.
    expected : ndarray of shape (k,), default=None
        The weights of the clusters times the number of rows.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the bars.
    figure_ : matplotlib Figure
        Figure of the axes.
    bars_ : matplotlib BarContainer
        The bars.

    Examples
    --------
    >>> from skaecm.plotting import ClusterSizesDisplay
    >>> display = ClusterSizesDisplay.from_predictions(["a", "b", "b", "a", "b"])
    >>> display.sizes
    array([2, 3])
    """

    def __init__(self, sizes, *, clusters, expected=None):
        self.sizes = sizes
        self.clusters = clusters
        self.expected = expected

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Draw the sizes of the clusters of a fit.

        Parameters
        ----------
        estimator : fitted estimator
            One of this package, or another with `labels_`, or a Pipeline that ends
            in one. A line across a bar is the cluster's weight in `weights_` times
            the number of rows.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For the bars, as in `matplotlib.axes.Axes.bar`.

        Returns
        -------
        display : ClusterSizesDisplay
            With `ax_`, `figure_` and `bars_`.

        Raises
        ------
        ValueError
            If the estimator has no labels.
        """
        last = fitted(estimator, "labels", "labels_")
        weights = getattr(last, "weights_", None)
        return cls.from_predictions(last.labels_, weights=weights, ax=ax, **kwargs)

    @classmethod
    def from_predictions(cls, labels, *, weights=None, ax=None, **kwargs):
        """Draw the sizes of clusters from labels.

        Parameters
        ----------
        labels : array-like of shape (n_samples,)
            Clusters: numbers or strings.
        weights : array-like of shape (k,), default=None
            Weights of the clusters, that sum to one; labels are then integers below
            k, and clusters without rows are drawn too.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For the bars, as in `matplotlib.axes.Axes.bar`.

        Returns
        -------
        display : ClusterSizesDisplay
            With `ax_`, `figure_` and `bars_`.

        Raises
        ------
        ValueError
            If the labels are not one-dimensional, or do not fit the weights.
        """
        labels = as_labels("labels", labels)
        if weights is None:
            clusters, sizes = np.unique(labels, return_counts=True)
            return cls(sizes, clusters=clusters).plot(ax, **kwargs)
        weights = as_vector("weights", weights, "k", "one weight for every cluster")
        weights = weights.astype(np.float64)
        check_numbered(labels, len(weights), "weights")
        sizes = np.bincount(labels, minlength=len(weights))
        clusters = np.arange(len(weights))
        return cls(sizes, clusters=clusters, expected=weights * len(labels)).plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the bars.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For the bars, as in `matplotlib.axes.Axes.bar`.

        Returns
        -------
        display : ClusterSizesDisplay
            The display itself.
        """
        ax = self._start(ax)
        places = np.arange(len(self.sizes))
        look = {"color": cluster_colors(len(places)), "width": 0.8}
        self.bars_ = ax.bar(places, self.sizes, **style("bars", look, kwargs))
        if self.expected is not None:
            ax.hlines(self.expected, places - 0.45, places + 0.45, color=line_color())
        name_ticks(ax.xaxis, self.clusters)
        note = "" if self.expected is None else " (line: weight times rows)"
        ax.set(xlabel=f"cluster{note}", ylabel="rows")
        return self


@final
class ClusterConfusionDisplay(Display):
    """Classes against clusters, in the order that puts matched ones on the diagonal.

    Clusters are matched to classes by `skaecm.metrics.aligned_confusion_matrix`.
    Numbers are written into the cells where there is room, but for zeros.

    Parameters
    ----------
    matrix : ndarray of shape (n_classes, n_clusters)
        Rows of every class in every cluster, or shares of them.
    classes : ndarray of shape (n_classes,)
        The class of every row of the matrix.
    clusters : ndarray of shape (n_clusters,)
        The cluster of every column of the matrix.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the matrix.
    figure_ : matplotlib Figure
        Figure of the axes.
    im_ : matplotlib AxesImage
        The matrix.

    Examples
    --------
    >>> from skaecm.plotting import ClusterConfusionDisplay
    >>> display = ClusterConfusionDisplay.from_predictions(["a", "a", "b", "b"], [1, 1, 0, 1])
    >>> display.matrix
    array([[2, 0],
           [1, 1]])
    >>> display.clusters
    array([1, 0])
    """

    def __init__(self, matrix, *, classes, clusters):
        self.matrix = matrix
        self.classes = classes
        self.clusters = clusters

    @classmethod
    def from_estimator(
        cls, estimator, X, y, *, normalize=None, cmap="viridis", colorbar=True, ax=None, **kwargs
    ):
        """Draw known classes against the clusters that an estimator predicts.

        It predicts without a graph. After ``fit(X, adjacency=A)``, pass
        ``model.predict(X, adjacency=A)`` to `from_predictions`.

        Parameters
        ----------
        estimator : fitted estimator
            Any clusterer with `predict`, or a Pipeline that ends in one.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to assign.
        y : array-like of shape (n_samples,)
            Their classes: numbers or strings.
        normalize : {"true", "pred", "all"}, default=None
            Shares of the class, the cluster or all rows in place of counts.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours.
        colorbar : bool, default=True
            Whether to draw the scale of the colours.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            As in `matplotlib.axes.Axes.imshow`.

        Returns
        -------
        display : ClusterConfusionDisplay
            With `ax_`, `figure_` and `im_`.

        Raises
        ------
        ValueError
            If y does not have a class for every row, or a parameter is not as
            described.
        """
        check_is_fitted(estimator)
        labels = estimator.predict(X)
        y = as_labels("y", y, len(labels))
        return cls.from_predictions(
            y, labels, normalize=normalize, cmap=cmap, colorbar=colorbar, ax=ax, **kwargs
        )

    @classmethod
    def from_predictions(
        cls,
        labels_true,
        labels_pred,
        *,
        normalize=None,
        cmap="viridis",
        colorbar=True,
        ax=None,
        **kwargs,
    ):
        """Draw known classes against clusters.

        Parameters
        ----------
        labels_true : array-like of shape (n_samples,)
            Classes: numbers or strings.
        labels_pred : array-like of shape (n_samples,)
            Clusters, in any numbering.
        normalize : {"true", "pred", "all"}, default=None
            Shares of the class, the cluster or all rows in place of counts.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours.
        colorbar : bool, default=True
            Whether to draw the scale of the colours.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            As in `matplotlib.axes.Axes.imshow`.

        Returns
        -------
        display : ClusterConfusionDisplay
            With `ax_`, `figure_` and `im_`.

        Raises
        ------
        ValueError
            If the labels do not fit each other, or a parameter is not as described.
        """
        if normalize not in (None, "true", "pred", "all"):
            raise ValueError(
                f"normalize must be 'true', 'pred', 'all' or None, but is {normalize!r}."
            )
        truth = as_labels("labels_true", labels_true)
        found = as_labels("labels_pred", labels_pred, len(truth))
        matrix, classes, clusters = aligned_confusion_matrix(truth, found)
        # Every class and every cluster has a row at least.
        if normalize is not None:
            axis = {"true": 1, "pred": 0, "all": None}[normalize]
            matrix = matrix / matrix.sum(axis=axis, keepdims=True)
        display = cls(matrix, classes=classes, clusters=clusters)
        return display.plot(ax, cmap=cmap, colorbar=colorbar, **kwargs)

    def plot(self, ax=None, *, cmap="viridis", colorbar=True, **kwargs):
        """Draw the matrix.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours.
        colorbar : bool, default=True
            Whether to draw the scale of the colours.
        **kwargs : dict
            As in `matplotlib.axes.Axes.imshow`.

        Returns
        -------
        display : ClusterConfusionDisplay
            The display itself.
        """
        ax = self._start(ax)
        are_counts = self.matrix.dtype.kind in "iu"
        self.im_ = draw_matrix(
            ax,
            self.matrix,
            kwargs,
            numbers=self.matrix,
            number_format="d" if are_counts else ".2f",
            cmap=cmap,
            vmin=0,
        )
        if colorbar:
            ax.get_figure().colorbar(self.im_, ax=ax, label="rows" if are_counts else "share")
        name_ticks(ax.xaxis, self.clusters)
        name_ticks(ax.yaxis, self.classes)
        ax.set(xlabel="cluster", ylabel="class")
        return self


@final
class ResponsibilitiesDisplay(Display):
    """Responsibilities of the clusters for single rows.

    A line of the picture is a row, and its numbers sum to one. They are written
    where there is room, but for those that round to zero.

    Parameters
    ----------
    responsibilities : ndarray of shape (n_samples, k)
        Responsibilities.
    row_names : sequence, default=None
        Names of the rows; None numbers them.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the responsibilities.
    figure_ : matplotlib Figure
        Figure of the axes.
    im_ : matplotlib AxesImage
        The responsibilities.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skaecm import ClusteringModuleGMM
    >>> from skaecm.plotting import ResponsibilitiesDisplay
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = ClusteringModuleGMM(k=3, random_state=0).fit(X)
    >>> display = ResponsibilitiesDisplay.from_estimator(model, X[::15])
    >>> display.responsibilities.shape
    (10, 3)
    """

    def __init__(self, responsibilities, *, row_names=None):
        self.responsibilities = responsibilities
        self.row_names = row_names

    @classmethod
    def from_estimator(cls, estimator, X, *, cmap="viridis", ax=None, **kwargs):
        """Draw the responsibilities for the rows of X.

        The estimator predicts without a graph. After ``fit(X, adjacency=A)``, pass
        ``model.predict_proba(X, adjacency=A)`` to `from_predictions`.

        Parameters
        ----------
        estimator : fitted estimator
            One of this package, or another with `predict_proba`, or a Pipeline that
            ends in one.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            The rows, a few dozen at most to be read. The index of a DataFrame is
            their names.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            As in `matplotlib.axes.Axes.imshow`.

        Returns
        -------
        display : ResponsibilitiesDisplay
            With `ax_`, `figure_` and `im_`.

        Raises
        ------
        ValueError
            If the estimator has no responsibilities.
        """
        last = fitted(estimator, "responsibilities", "predict_proba")
        names = None if not hasattr(X, "iloc") else list(X.index)
        responsibilities = last.predict_proba(first_steps(estimator, X))
        return cls.from_predictions(responsibilities, row_names=names, cmap=cmap, ax=ax, **kwargs)

    @classmethod
    def from_predictions(
        cls, responsibilities, *, row_names=None, cmap="viridis", ax=None, **kwargs
    ):
        """Draw known responsibilities.

        Parameters
        ----------
        responsibilities : array-like of shape (n_samples, k)
            What `predict_proba` gave. The index of a DataFrame names the rows.
        row_names : array-like of shape (n_samples,), default=None
            Names of the rows; None numbers them.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            As in `matplotlib.axes.Axes.imshow`.

        Returns
        -------
        display : ResponsibilitiesDisplay
            With `ax_`, `figure_` and `im_`.

        Raises
        ------
        ValueError
            If the responsibilities are not a matrix, or the names do not fit.
        """
        if row_names is None and hasattr(responsibilities, "iloc"):
            row_names = list(responsibilities.index)
        responsibilities = as_matrix("responsibilities", responsibilities, (None, None))
        n_rows = len(responsibilities)
        if row_names is not None and len(row_names) != n_rows:
            raise ValueError(
                f"row_names must hold a name for each of n_samples={n_rows} rows, but holds "
                f"{len(row_names)}."
            )
        return cls(responsibilities, row_names=row_names).plot(ax, cmap=cmap, **kwargs)

    def plot(self, ax=None, *, cmap="viridis", **kwargs):
        """Draw the responsibilities.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        cmap : str or matplotlib Colormap, default="viridis"
            Colours.
        **kwargs : dict
            As in `matplotlib.axes.Axes.imshow`.

        Returns
        -------
        display : ResponsibilitiesDisplay
            The display itself.
        """
        ax = self._start(ax)
        values = self.responsibilities
        self.im_ = draw_matrix(
            ax, values, kwargs, numbers=values, number_format=".2f", cmap=cmap, vmin=0, vmax=1
        )
        ax.get_figure().colorbar(self.im_, ax=ax, label="responsibility")
        name_ticks(ax.xaxis, range(values.shape[1]))
        name_ticks(ax.yaxis, range(len(values)) if self.row_names is None else self.row_names)
        ax.set(xlabel="cluster", ylabel="row")
        return self
