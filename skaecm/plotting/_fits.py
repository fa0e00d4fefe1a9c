"""Displays of how a fit came about: its loss over the epochs, and the search for k."""

import re
from itertools import pairwise
from typing import Any, final

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ._style import (
    LETTER,
    LINE,
    PALETTE,
    Display,
    add_legend,
    as_vector,
    fitted,
    line_color,
    room_for_text,
    style,
)

# What a history holds besides the terms of the loss.
NO_TERMS = ("phase", "epoch", "loss", "changed", "best")

# Up to so many epochs each has a dot: single ones would else not be seen.
MAX_DOTS = 50

# Terms that span more than this factor are drawn on a logarithmic scale; where some are
# negative, it is linear about zero, up to the power of ten below this share of the largest.
WIDE = 20.0
LINEAR = 1e-3

# Space between two panels, as a share of the height of one, and as many k as have a tick.
PANEL_GAP = 0.12
MAX_KS = 15

STYLES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))


@final
class LossCurveDisplay(Display):
    """Loss of a fit and its terms over the epochs.

    The phases follow each other and are named above the axes; a star is the epoch
    of the lowest loss of each. Terms that are zero throughout are left out.

    Parameters
    ----------
    history : list of dict
        One dict an epoch with "phase", "epoch", "loss" and the terms of the loss,
        like `history_` of an estimator.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curves.
    figure_ : matplotlib Figure
        Figure of the axes.
    lines_ : dict of matplotlib Line2D
        The curves by name: "loss" and its terms.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skaecm import ClusteringModuleGMM
    >>> from skaecm.plotting import LossCurveDisplay
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = ClusteringModuleGMM(k=3, random_state=0).fit(X)
    >>> display = LossCurveDisplay.from_estimator(model)
    >>> sorted(display.lines_)
    ['E1', 'E2', 'E3', 'loss']
    >>> display.figure_.savefig("loss.png")  # doctest: +SKIP
    """

    def __init__(self, history):
        self.history = history

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, **kwargs):
        """Draw the loss of a fitted estimator.

        Parameters
        ----------
        estimator : fitted estimator
            One of this package, or a Pipeline that ends in one.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For every line, as in `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : LossCurveDisplay
            With `ax_`, `figure_` and `lines_`.

        Raises
        ------
        ValueError
            If the estimator has no history, as after ``max_iter=0``.
        """
        history = fitted(estimator, "a history", "history_").history_
        return cls.from_history(history, ax=ax, **kwargs)

    @classmethod
    def from_history(cls, history, *, ax=None, **kwargs):
        """Draw the loss from its history.

        Parameters
        ----------
        history : list of dict or DataFrame
            One dict or row an epoch: `history_` or ``history_frame()`` of an estimator.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For every line, as in `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : LossCurveDisplay
            With `ax_`, `figure_` and `lines_`.

        Raises
        ------
        ValueError
            If the history is empty or an epoch has no "phase" or "loss".
        """
        return cls(_check_history(history)).plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For every line, as in `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : LossCurveDisplay
            The display itself.
        """
        ax = self._start(ax)
        epochs = np.arange(1, len(self.history) + 1)
        curves = self._curves()
        dot = "." if len(epochs) <= MAX_DOTS else ""
        self.lines_ = {}
        for i, (name, values) in enumerate(curves.items()):
            look = {"label": name, "marker": dot, "color": line_color(), "linewidth": 2.5}
            if name != "loss":
                look |= {"color": PALETTE[(i - 1) % len(PALETTE)], "linewidth": 1.5}
                look |= {"linestyle": STYLES[(i - 1) % len(STYLES)]}
            (self.lines_[name],) = ax.plot(epochs, values, **style("line", look, kwargs))
        drawn = np.concatenate(list(curves.values()))
        drawn = drawn[np.isfinite(drawn)]
        smallest, largest = np.abs(drawn).min(), np.abs(drawn).max()
        if largest > WIDE * smallest:
            if drawn.min() > 0:
                ax.set_yscale("log")
            else:
                linthresh = 10.0 ** np.floor(np.log10(LINEAR * largest))
                ax.set_yscale("symlog", linthresh=linthresh)
        self._mark_phases(ax, curves["loss"])
        ax.set(xlabel="epoch", ylabel="loss and its terms")
        add_legend(ax)
        return self

    def _curves(self) -> dict[str, np.ndarray]:
        """The loss and its terms by name, NaN where an epoch has none."""
        names = dict.fromkeys(name for row in self.history for name in row)
        curves = {}
        for name in ["loss", *(n for n in names if n not in NO_TERMS)]:
            values = np.array([row.get(name, np.nan) for row in self.history], dtype=np.float64)
            if name == "loss" or np.nan_to_num(values).any():
                curves[name] = values
        return curves

    def _mark_phases(self, ax: Any, loss: np.ndarray) -> None:
        """A band and a name for every phase, and a star at its lowest loss."""
        phases = [row["phase"] for row in self.history]
        starts = [0, *(i for i in range(1, len(loss)) if phases[i] != phases[i - 1]), len(loss)]
        bounds = list(pairwise(starts))
        best = np.array([start + np.argmin(loss[start:stop]) for start, stop in bounds])
        look = {"linestyle": "", "marker": "*", "markersize": 11, "color": line_color()}
        ax.plot(best + 1, loss[best], label="best of its phase", **look)
        for start, stop in bounds[1::2]:
            ax.axvspan(start + 0.5, stop + 0.5, color=line_color(), alpha=0.08, linewidth=0)
        ax.set_xlim(0.5, len(loss) + 0.5)
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        names = [phases[start] for start, _ in bounds]
        _name_phases(ax, names, np.array([(start + stop + 1) / 2 for start, stop in bounds]))


def _name_phases(ax: Any, names: list[str], middles: np.ndarray) -> None:
    """Names above the middles of phases; upright where these are near, together where nearer."""
    import matplotlib

    size = 0.83 * matplotlib.rcParams["font.size"]
    low, high = ax.get_xlim()
    scale = room_for_text(ax)[0] / (high - low)
    shown, places = names[:1], [middles[0]]
    for name, middle in zip(names[1:], middles[1:], strict=True):
        if scale * (middle - places[-1]) < LINE * size:
            shown[-1] += f", {name}"
        else:
            shown.append(name)
            places.append(middle)
    room = scale * np.diff(places).min(initial=np.inf)
    upright = room < LETTER * size * (1 + max(map(len, shown)))
    top = ax.secondary_xaxis("top")
    top.set_ticks(places, shown, fontsize=size, rotation=90 if upright else 0)
    top.tick_params(length=0)


def _check_history(history: Any) -> list[dict[str, Any]]:
    """A history as a list with a dict an epoch."""
    rows = history.to_dict("records") if hasattr(history, "to_dict") else history
    rows = list(rows) if isinstance(rows, list | tuple) else [rows]
    if not rows:
        raise ValueError(
            "history must have at least one epoch, but is empty: a fit with max_iter=0 and no "
            "pretraining trains nothing. Fit with max_iter of at least 1."
        )
    for row in rows:
        if not isinstance(row, dict) or not {"phase", "loss"} <= row.keys():
            raise ValueError(
                "history must hold a dict with 'phase', 'loss' and its terms for every epoch, as "
                f"history_ of an estimator does, but holds {row!r:.80}."
            )
    return rows


@final
class KSearchDisplay(Display):
    """Scores of fits with several numbers of clusters, a panel for every score.

    A dot is the mean over repetitions, the band a standard deviation to both
    sides. A dashed line marks the k that was chosen.

    Parameters
    ----------
    k_values : ndarray of shape (n_k,)
        Numbers of clusters, rising.
    scores : dict of str to ndarray of shape (n_k, n_repetitions)
        Scores by name.
    best : int, default=None
        The k that was chosen.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the curve; with several scores, the axes that hold their panels.
    axes_ : list of matplotlib Axes
        The panels, one for every score.
    figure_ : matplotlib Figure
        Figure of the axes.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skaecm import ClusteringModuleGMM
    >>> from skaecm.plotting import KSearchDisplay
    >>> from skaecm.selection import KSearch
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = ClusteringModuleGMM(random_state=0)
    >>> search = KSearch(model, [2, 3, 4], criterion="stability", random_state=0).fit(X)
    >>> display = KSearchDisplay.from_estimator(search)
    >>> display.scores["stability"].shape
    (3, 3)
    """

    def __init__(self, k_values, scores, *, best=None):
        self.k_values = k_values
        self.scores = scores
        self.best = best

    @classmethod
    def from_estimator(cls, search, *, ax=None, **kwargs):
        """Draw the path of a search over k.

        Parameters
        ----------
        search : fitted KSearch, GridSearchCV or RandomizedSearchCV
            A search over "k", or "step__k" of a Pipeline. Where it goes over other
            parameters too, every k is drawn at the best of them.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For every line, as in `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : KSearchDisplay
            With `ax_`, `axes_` and `figure_`.

        Raises
        ------
        ValueError
            If this is no search over k.
        """
        check_is_fitted(search)
        if hasattr(search, "best_k_"):
            return cls(*_trace(search), best=search.best_k_).plot(ax, **kwargs)
        results = getattr(search, "cv_results_", None)
        if results is None:
            raise ValueError(
                "search must be a fitted KSearch, GridSearchCV or the like, but is "
                f"{type(search).__name__}. For scores of your own use from_predictions."
            )
        found = [name for name in results if name == "param_k" or name.endswith("__k")]
        if len(found) != 1:
            searched = sorted(name.removeprefix("param_") for name in results if "param_" in name)
            raise ValueError(
                "search must go over one parameter named 'k', or 'step__k' of a Pipeline, but "
                f"goes over {searched}. For scores of your own use from_predictions."
            )
        k_values, scores = _search_path(results, found[0])
        best = getattr(search, "best_params_", {}).get(found[0].removeprefix("param_"))
        return cls(k_values, scores, best=best).plot(ax, **kwargs)

    @classmethod
    def from_predictions(cls, k_values, scores, *, best=None, ax=None, **kwargs):
        """Draw known scores over k.

        Parameters
        ----------
        k_values : array-like of shape (n_k,)
            Numbers of clusters.
        scores : array-like of shape (n_k,) or (n_k, n_repetitions), or dict of them
            The score of every k, or several by name.
        best : int, default=None
            The k that was chosen.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For every line, as in `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : KSearchDisplay
            With `ax_`, `axes_` and `figure_`.

        Raises
        ------
        ValueError
            If the scores do not fit `k_values`, or `best` is none of them.
        """
        k_values = as_vector("k_values", k_values, "n_k", "every k once")
        if k_values.dtype.kind not in "iu" or len(np.unique(k_values)) < len(k_values):
            raise ValueError(
                f"k_values must hold integers, each once, but are {k_values.tolist()!r:.80}. "
                "Pass several scores of one k as a row of scores."
            )
        if best is not None and best not in k_values:
            raise ValueError(f"best must be one of k_values, {k_values.tolist()}, but is {best}.")
        named = scores if isinstance(scores, dict) else {"score": scores}
        if not named:
            raise ValueError("scores must hold at least one score, but is empty.")
        order = np.argsort(k_values)
        checked = {}
        for name, values in named.items():
            array = np.asarray(values, dtype=np.float64)
            if array.ndim not in (1, 2) or len(array) != len(k_values) or array.size == 0:
                raise ValueError(
                    f"Scores ({name}) must have shape ({len(k_values)},) or ({len(k_values)}, "
                    f"n_repetitions), a row for every one of k_values, but have shape "
                    f"{array.shape}."
                )
            checked[name] = array.reshape(len(array), -1)[order]
        return cls(k_values[order], checked, best=best).plot(ax, **kwargs)

    def plot(self, ax=None, **kwargs):
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a new figure.
        **kwargs : dict
            For every line, as in `matplotlib.axes.Axes.plot`.

        Returns
        -------
        display : KSearchDisplay
            The display itself.
        """
        ax = self._start(ax)
        n = len(self.scores)
        if n == 1:
            self.axes_ = [ax]
        else:
            ax.set_axis_off()
            height = 1 / (n + (n - 1) * PANEL_GAP)
            tops = [1 - i * (1 + PANEL_GAP) * height for i in range(n)]
            self.axes_ = [ax.inset_axes((0, top - height, 1, height)) for top in tops]
        for panel, color, (name, values) in zip(
            self.axes_, PALETTE * n, self.scores.items(), strict=False
        ):
            mean, spread = values.mean(axis=1), values.std(axis=1)
            look = {"color": color, "marker": "o"}
            (line,) = panel.plot(self.k_values, mean, **style("line", look, kwargs))
            if values.shape[1] > 1:
                panel.fill_between(
                    self.k_values,
                    mean - spread,
                    mean + spread,
                    color=line.get_color(),
                    alpha=0.25,
                    linewidth=0,
                )
            if self.best is not None:
                panel.axvline(self.best, color=line_color(), linestyle="--", linewidth=1)
            panel.set_ylabel(name)
            if len(self.k_values) <= MAX_KS:
                panel.set_xticks(self.k_values)
            if panel is not self.axes_[-1]:
                panel.tick_params(labelbottom=False)
        best = "" if self.best is None else f" (dashed: {self.best}, the best)"
        self.axes_[-1].set_xlabel(f"k{best}")
        return self


def _trace(search: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Every k of a KSearch, and the values (n_k, n_splits) by the name of its criterion."""
    criterion = search.criterion
    name = criterion if isinstance(criterion, str) else getattr(criterion, "__name__", "score")
    results = search.results_
    splits = [values for key, values in results.items() if key.startswith("split")]
    return results["k"], {name: np.column_stack(splits)}


def _search_path(
    results: dict[str, Any], parameter: str
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Every k of a search, and its scores (n_k, n_splits) by name at its best candidate."""
    column = np.ma.asarray(results[parameter])
    rows = np.flatnonzero(~np.ma.getmaskarray(column))  # other grids may leave k alone
    tried = column.data[rows].astype(np.int64)
    k_values = np.unique(tried)
    scores = {}
    for name in results:
        if name.startswith("mean_test_"):
            scorer = name.removeprefix("mean_test_")
            split = re.compile(rf"split\d+_test_{re.escape(scorer)}")
            values = np.column_stack([results[n] for n in results if split.fullmatch(n)])
            means = np.nan_to_num(results[name], nan=-np.inf)
            best = [max(rows[tried == k], key=means.item) for k in k_values]
            scores[scorer] = values[best]
    return k_values, scores
