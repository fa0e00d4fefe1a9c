"""`ClusterCentersDisplay`: centres as images or as profiles over the features."""

from math import ceil, prod
from numbers import Integral
from typing import Any, final

import numpy as np
from sklearn.pipeline import Pipeline

from ._style import (
    LETTER,
    SMALLEST_NUMBER,
    Display,
    add_legend,
    as_matrix,
    cluster_colors,
    draw_matrix,
    fitted,
    name_ticks,
    room_for_text,
    style,
)

# Up to so many profiles are lines; more are a heat map.
MAX_LINES = 6

# Up to so many features have a marker each on a line.
MAX_MARKED = 30

# Space between two images and for the number above one, as shares of its height.
GAP = 0.08
CAPTION = 0.26


@final
class ClusterCentersDisplay(Display):
    """Centres of clusters, as images or as profiles over the features.

    Images stand in a grid, their number above them. Profiles of up to six centres
    are lines in the units of the features. More are a heat map of what
    distinguishes them: every centre less the mean of all centres.

    Parameters
    ----------
    centers : ndarray of shape (k, n_features)
        The centres.
    image_shape : tuple of int, default=None
        (height, width) or (3, height, width) of the image that a centre holds in C
        order; None draws profiles.
    sizes : ndarray of shape (k,), default=None
        Rows of every cluster, written above images where there is room.
    feature_names : sequence of str, default=None
        Names of the features; None numbers them.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the centres.
    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skaecm import ClusteringModuleGMM
    >>> from skaecm.plotting import ClusterCentersDisplay
    >>> X, _ = load_digits(return_X_y=True)
    >>> model = ClusteringModuleGMM(k=10, random_state=0).fit(X)
    >>> display = ClusterCentersDisplay.from_estimator(model, image_shape=(8, 8))
    >>> len(display.ax_.images)
    10
    """

    def __init__(self, centers, *, image_shape=None, sizes=None, feature_names=None):
        self.centers = centers
        self.image_shape = image_shape
        self.sizes = sizes
        self.feature_names = feature_names

    @classmethod
    def from_estimator(cls, estimator, *, image_shape=None, feature_names=None, ax=None, **kwargs):
        """Draw the centres of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator
            One of this package, or another with `cluster_centers_`, or a Pipeline
            that ends in one. The centres of a Pipeline are those of its last step,
            on what the steps before it made of X; where these can be undone, pass
            ``pipeline[:-1].inverse_transform(pipeline[-1].cluster_centers_)`` to
            `from_predictions`.
        image_shape : tuple of int, default=None
            (height, width) or (3, height, width) of the image that a centre holds
            in C order; None draws profiles.
        feature_names : array-like of shape (n_features,), default=None
            Names of the features; None takes those that the estimator saw.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For images and the heat map, as in `matplotlib.axes.Axes.imshow`; for
            lines, as in `matplotlib.axes.Axes.plot`. Images take the range of all
            centres as their scale, unless vmin, vmax or a norm with limits are given.

        Returns
        -------
        display : ClusterCentersDisplay
            With `ax_` and `figure_`.

        Raises
        ------
        ValueError
            If the estimator has no centres, or `image_shape` or `feature_names` do
            not fit them.
        """
        last = fitted(estimator, "centres", "cluster_centers_")
        centers = last.cluster_centers_
        if feature_names is None:
            feature_names = _names_seen(estimator, last)
        labels = getattr(last, "labels_", None)  # -1 where a row is in no cluster
        sizes = None if labels is None else np.bincount(labels[labels >= 0], minlength=len(centers))
        return cls.from_predictions(
            centers,
            image_shape=image_shape,
            sizes=sizes,
            feature_names=feature_names,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls, centers, *, image_shape=None, sizes=None, feature_names=None, ax=None, **kwargs
    ):
        """Draw known centres.

        Parameters
        ----------
        centers : array-like of shape (k, n_features)
            The centres. The columns of a DataFrame are the names of the features.
        image_shape : tuple of int, default=None
            (height, width) or (3, height, width) of the image that a centre holds
            in C order; None draws profiles.
        sizes : array-like of shape (k,), default=None
            Rows of every cluster, written above images where there is room.
        feature_names : array-like of shape (n_features,), default=None
            Names of the features.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            As in `from_estimator`.

        Returns
        -------
        display : ClusterCentersDisplay
            With `ax_` and `figure_`.

        Raises
        ------
        ValueError
            If the shapes do not fit each other.
        """
        if feature_names is None and hasattr(centers, "columns"):
            feature_names = list(centers.columns)
        centers = as_matrix("centers", centers, (None, None))
        k, n_features = centers.shape
        if image_shape is not None:
            image_shape = _check_image_shape(image_shape, n_features)
        if feature_names is not None and len(feature_names) != n_features:
            raise ValueError(
                f"feature_names must hold n_features={n_features} names, but holds "
                f"{len(feature_names)}."
            )
        if sizes is not None and np.shape(sizes) != (k,):
            raise ValueError(f"sizes must have shape ({k},), but has shape {np.shape(sizes)}.")
        sizes = None if sizes is None else np.asarray(sizes)
        display = cls(centers, image_shape=image_shape, sizes=sizes, feature_names=feature_names)
        return display.plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the centres.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            As in `from_estimator`.

        Returns
        -------
        display : ClusterCentersDisplay
            The display itself.
        """
        ax = self._start(ax)
        if self.image_shape is not None:
            self._draw_images(ax, kwargs)
        elif len(self.centers) <= MAX_LINES:
            self._draw_lines(ax, kwargs)
        else:
            self._draw_heat_map(ax, kwargs)
        return self

    def _draw_images(self, ax: Any, given: dict[str, Any]) -> None:
        *channels, height, width = self.image_shape
        given, norm = self._take_norm(given)
        images = self.centers.reshape(len(self.centers), *self.image_shape)
        if channels:
            shares = np.clip(np.ma.filled(norm(self.centers), 0), 0, 1)
            images, norm = np.moveaxis(shares.reshape(images.shape), 1, -1), None
        gap, caption = GAP * height, CAPTION * height
        cell = width + gap, height + caption + gap
        frame = room_for_text(ax)
        n_columns = _n_columns(len(images), frame[0] / cell[0], frame[1] / cell[1])
        n_rows = ceil(len(images) / n_columns)
        points = min(frame[0] / (n_columns * cell[0]), frame[1] / (n_rows * cell[1]))
        captions = [str(j) for j in range(len(images))]
        font_size = min(12.0, points * caption)
        if self.sizes is not None:
            longer = [f"{j} ({size})" for j, size in enumerate(self.sizes)]
            fitting = points * cell[0] / (LETTER * (1 + max(map(len, longer))))
            if fitting >= SMALLEST_NUMBER:
                captions, font_size = longer, min(font_size, fitting)
        look = style("image", {"cmap": "gray", "norm": norm}, given)
        for j, image in enumerate(images):
            left, top = j % n_columns * cell[0], j // n_columns * cell[1]
            extent = (left, left + width, top + height, top)
            ax.imshow(image, **{"extent": extent, **look})
            place = left + width / 2, top - 0.04 * height
            ax.text(*place, captions[j], ha="center", va="bottom", fontsize=font_size)
        ax.set(
            xlim=(-gap, n_columns * cell[0]), ylim=(n_rows * cell[1] - caption, -caption - gap / 2)
        )
        ax.set_axis_off()

    def _take_norm(self, given: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        """What is left of ``given``, and its norm, of one range for all images."""
        from matplotlib.cm import ScalarMappable

        given = dict(given)
        norm: Any = ScalarMappable(given.pop("norm", None)).norm
        norm.vmin, norm.vmax = given.pop("vmin", norm.vmin), given.pop("vmax", norm.vmax)
        norm.autoscale_None(self.centers)
        return given, norm

    def _draw_lines(self, ax: Any, given: dict[str, Any]) -> None:
        k, n_features = self.centers.shape
        colors = cluster_colors(k)
        marker = "o" if n_features <= MAX_MARKED else ""
        for j, center in enumerate(self.centers):
            look = {"color": colors[j], "marker": marker, "markersize": 5.0, "label": str(j)}
            ax.plot(center, **style("line", look, given))
        self._name_features(ax)
        ax.set_ylabel("centre")
        add_legend(ax, title="cluster")

    def _draw_heat_map(self, ax: Any, given: dict[str, Any]) -> None:
        deviation = self.centers - self.centers.mean(axis=0)
        limit = np.abs(deviation).max()
        image = draw_matrix(ax, deviation, given, cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.get_figure().colorbar(image, ax=ax, label="centre less the mean of the centres")
        self._name_features(ax)
        name_ticks(ax.yaxis, range(len(self.centers)))
        ax.set_ylabel("cluster")

    def _name_features(self, ax: Any) -> None:
        if self.feature_names is not None:
            name_ticks(ax.xaxis, self.feature_names)
        ax.set_xlabel("feature" if self.feature_names is None else "")


def _check_image_shape(image_shape: Any, n_features: int) -> tuple[int, ...]:
    shape = tuple(image_shape) if np.iterable(image_shape) else (image_shape,)
    fits = (
        all(isinstance(size, Integral) and int(size) > 0 for size in shape)
        and (len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3)))
        and prod(shape) == n_features
    )
    if not fits:
        raise ValueError(
            "image_shape must be (height, width), or (channels, height, width) with 1 or 3 "
            f"channels, of n_features={n_features} values in all, but is {image_shape!r}."
        )
    shape = tuple(int(size) for size in shape)
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


def _names_seen(estimator: Any, last: Any) -> Any:
    """Names of the features that the last step saw, None if they had none."""
    names = getattr(last, "feature_names_in_", None)
    if names is None and isinstance(estimator, Pipeline) and len(estimator) > 1:
        try:
            names = estimator[:-1].get_feature_names_out()
        except (AttributeError, ValueError):  # a step that makes no names
            return None
    return names


def _n_columns(n: int, width: float, height: float) -> int:
    """Columns of a grid of ``n`` unit cells in which they are largest, with few left empty."""
    return max(
        range(1, n + 1),
        key=lambda columns: (
            round(min(width / columns, height / ceil(n / columns)), 9),
            -(-n % columns),
        ),
    )
