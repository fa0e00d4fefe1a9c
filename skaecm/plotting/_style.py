"""What all displays share: matplotlib on demand, axes, colours, names on an axis, checks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_array, check_is_fitted

from .._extras import need

# The colours of Okabe and Ito, which the colour-blind can tell apart, in an order that puts
# the best seen on white and on black first; a grey stands for their black.
PALETTE = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#8C8C8C",
    "#F0E442",
)

# Beyond them a map whose lightness rises evenly, less its ends, which are too near to
# black and to white; and markers, since near colours of it are alike. Steps of the golden
# ratio keep clusters apart in it that follow each other.
MANY = "plasma"
MANY_RANGE = (0.3, 0.92)
GOLDEN = (5**0.5 - 1) / 2
MARKERS = "osD^vP"

# Sizes of names on an axis, as shares of the size of text; width of a letter and height of
# a line, as shares of their size; letters of a name at most.
NAME_SIZES = (1.0, 0.83, 0.7, 0.58)
LETTER = 0.62
LINE = 1.2
MAX_LETTERS = 24

# Numbers in cells are left out where they would have to be smaller than this, in points.
SMALLEST_NUMBER = 5.5


class Display(ABC):
    """Abstract base of the displays: what was computed, and a way to draw it."""

    @abstractmethod
    def plot(self, ax=None):
        """Draw on ``ax`` or a new figure; sets `ax_` and `figure_`."""

    def _start(self, ax: Any) -> Any:
        """The axes to draw on, new ones in a figure of their own if ``ax`` is None."""
        Axes = need("matplotlib.axes", "plots", type(self).__name__).Axes
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(layout="constrained")
        elif not isinstance(ax, Axes):
            raise ValueError(
                f"ax must be one matplotlib Axes or None, but is {type(ax).__name__}. Of an "
                "array of axes pass one, such as axes[0]."
            )
        self.ax_ = ax
        self.figure_ = ax.get_figure()
        return ax


# What a display is made from
# ---------------------------


def fitted(estimator: Any, what: str, *attributes: str) -> Any:
    """The fitted estimator, of a Pipeline its last step; it has one of ``attributes``."""
    check_is_fitted(estimator)
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    if attributes and not any(hasattr(last, name) for name in attributes):
        remedy = "an estimator of skaecm, or a Pipeline that ends in one"
        if hasattr(last, "best_estimator_"):  # a search over parameters
            remedy = "its best_estimator_"
        raise ValueError(
            f"estimator must have {what} ({' or '.join(attributes)}), but is "
            f"{type(last).__name__}. Use {remedy}."
        )
    return last


def first_steps(estimator: Any, X: Any) -> Any:
    """X as the last step of a Pipeline sees it; else X."""
    if isinstance(estimator, Pipeline) and len(estimator) > 1:
        return estimator[:-1].transform(X)
    return X


def as_labels(name: str, labels: Any, n_rows: int | None = None) -> np.ndarray:
    """Labels as a vector, of ``n_rows`` if that is known."""
    length = "n_samples" if n_rows is None else f"n_samples={n_rows}"
    array = as_vector(name, labels, length, "one label for every row")
    if n_rows not in (None, len(array)):
        raise _wrong_shape(name, array, length, "one label for every row")
    return array


def as_vector(name: str, values: Any, length: str, meaning: str) -> np.ndarray:
    """Values as a vector; an error says what its ``length`` is called and its entries mean."""
    array = check_array(values, ensure_2d=False, allow_nd=True, dtype=None, input_name=name)
    if array.ndim != 1:
        raise _wrong_shape(name, array, length, meaning)
    return array


def _wrong_shape(name: str, array: np.ndarray, length: str, meaning: str) -> ValueError:
    return ValueError(
        f"{name} must have shape ({length},), {meaning}, but has shape {array.shape}."
    )


def as_matrix(name: str, matrix: Any, shape: tuple[int | None, int | None]) -> np.ndarray:
    """A matrix of float64 of ``shape``, None standing for any size."""
    array = check_array(matrix, dtype=np.float64, input_name=name, ensure_2d=False, allow_nd=True)
    if array.ndim != 2 or any(
        want not in (None, have) for want, have in zip(shape, array.shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have shape ({wanted}), but has shape {array.shape}.")
    return array


def check_numbered(labels: np.ndarray, k: int, given: str) -> None:
    """Raise unless labels are numbers of the ``k`` clusters that ``given`` describes."""
    if labels.dtype.kind not in "iub" or not ((labels >= 0) & (labels < k)).all():
        raise ValueError(
            f"With {given} of k={k} clusters, labels must be integers from 0 to {k - 1}, but "
            f"hold {np.unique(labels)[[0, -1]].tolist()}. Number the clusters as {given} does, "
            f"or leave {given} out."
        )


# What is drawn
# -------------


def cluster_colors(k: int) -> np.ndarray:
    """Colours (k, 4) of ``k`` clusters."""
    import matplotlib

    if k <= len(PALETTE):
        return matplotlib.colors.to_rgba_array(list(PALETTE[:k]))
    place = np.argsort(np.argsort(np.arange(k) * GOLDEN % 1))
    return matplotlib.colormaps[MANY](np.linspace(*MANY_RANGE, k))[place]


def cluster_markers(k: int) -> str:
    """Markers of ``k`` clusters: all alike where colours are enough."""
    return MARKERS[0] * k if k <= len(PALETTE) else (MARKERS * k)[:k]


def line_color() -> str:
    """What stands out from the background: the colour of text."""
    import matplotlib

    return matplotlib.rcParams["text.color"]


def style(kind: str, defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """``given`` over ``defaults``, whatever the aliases of a ``kind`` of artist."""
    import matplotlib.cbook
    import matplotlib.collections
    import matplotlib.image
    import matplotlib.lines
    import matplotlib.patches

    artist = {
        "line": matplotlib.lines.Line2D,
        "points": matplotlib.collections.PathCollection,
        "bars": matplotlib.patches.Rectangle,
        "image": matplotlib.image.AxesImage,
    }[kind]
    return defaults | matplotlib.cbook.normalize_kwargs(given, artist)


def makes_room(ax: Any) -> bool:
    """Whether the figure's layout makes room for what stands beside the axes."""
    return ax.figure.get_layout_engine() is not None


def add_legend(ax: Any, **kwargs: Any) -> None:
    """A legend beside the axes where there will be room, else inside."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if makes_room(ax) else {}
    ax.legend(**place, fontsize="small", title_fontsize="small", **kwargs)


def room_for_text(ax: Any) -> tuple[float, float]:
    """Width and height of axes in points, less what colour bars and names will take."""
    box = ax.get_window_extent()
    points = 0.8 * 72 / ax.figure.dpi
    return points * box.width, points * box.height


def name_ticks(axis: Any, names: Sequence[Any]) -> None:
    """A tick for every name at 0, 1, ..., or for as many of them as can be read.

    The largest size that fits is taken; names too long to stand beside each other
    are turned.
    """
    import matplotlib

    texts = [str(name) for name in names]
    texts = [s if len(s) <= MAX_LETTERS else f"{s[: MAX_LETTERS - 3]}..." for s in texts]
    is_x = axis.axis_name == "x"
    length = room_for_text(axis.axes)[0 if is_x else 1]
    sizes = matplotlib.rcParams["font.size"] * np.array(NAME_SIZES)
    widest = LETTER * sum(len(text) + 1 for text in texts)
    upright = sizes[widest * sizes <= length] if is_x else sizes[:0]
    turned = sizes[LINE * len(texts) * sizes <= length]
    fitting = upright if len(upright) else turned
    step = 1 if len(fitting) else ceil(LINE * len(texts) * sizes[-1] / length)
    axis.set_ticks(
        range(0, len(texts), step),
        texts[::step],
        fontsize=fitting[0] if len(fitting) else sizes[-1],
        rotation=90 if is_x and not len(upright) else 0,
    )


def draw_matrix(
    ax: Any,
    matrix: np.ndarray,
    given: dict[str, Any],
    *,
    numbers: np.ndarray | None = None,
    number_format: str = "",
    **look: Any,
) -> Any:
    """A heat map, with ``numbers`` but zeros written into its cells where there is room."""
    import matplotlib

    if given.get("norm") is not None:  # it has limits of its own
        look = {name: value for name, value in look.items() if name not in ("vmin", "vmax")}
    image = ax.imshow(matrix, **style("image", {"aspect": "auto", **look}, given))
    if numbers is None:
        return image
    texts = [[format(number, number_format) for number in row] for row in numbers]
    letters = max(len(text) for row in texts for text in row)
    width, height = room_for_text(ax)
    n_rows, n_columns = matrix.shape
    size = min(width / n_columns / (LETTER * (letters + 1)), height / n_rows / LINE)
    if size < SMALLEST_NUMBER:
        return image
    zero = format(0 * numbers[0, 0], number_format)
    for (i, j), value in np.ndenumerate(matrix):
        if texts[i][j] != zero:
            red, green, blue, _ = image.to_rgba(value)
            is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
            ax.text(
                j,
                i,
                texts[i][j],
                ha="center",
                va="center",
                color="black" if is_light else "white",
                fontsize=min(size, 0.83 * matplotlib.rcParams["font.size"]),
            )
    return image
