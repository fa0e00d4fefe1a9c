"""Displays of how a fit came about: its loss over the epochs, and the search for k."""

from itertools import groupby
from typing import Any, final

import numpy as np

from ._style import PALETTE, Display, add_legend, fitted, line_color, style

# Up to so many epochs each has a dot: single ones would else not be seen.
MAX_DOTS = 50

# Terms that span more than this factor are drawn on a logarithmic scale; where some are
# negative, it is linear about zero, up to the power of ten below this share of the largest.
WIDE = 20.0
LINEAR = 1e-3

# Phases whose middles are nearer than this share of the axis have slanted names.
NEAR = 0.2

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
        is_own = ax is None
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
        add_legend(ax, is_own)
        return self

    def _curves(self) -> dict[str, np.ndarray]:
        """The loss and its terms by name, NaN where an epoch has none."""
        names = dict.fromkeys(name for row in self.history for name in row)
        curves = {}
        for name in ["loss", *(n for n in names if n not in ("phase", "epoch", "loss"))]:
            values = np.array([row.get(name, np.nan) for row in self.history], dtype=np.float64)
            if name == "loss" or np.nan_to_num(values).any():
                curves[name] = values
        return curves

    def _mark_phases(self, ax: Any, loss: np.ndarray) -> None:
        """A band and a name for every phase, and a star at its lowest loss."""
        middles: list[float] = []
        names: list[str] = []
        best: list[int] = []
        start = 0
        for name, rows in groupby(row["phase"] for row in self.history):
            stop = start + len(list(rows))
            if len(names) % 2:
                ax.axvspan(start + 0.5, stop + 0.5, color=line_color(), alpha=0.08, linewidth=0)
            middles.append((start + stop + 1) / 2)
            names.append(name)
            best.append(start + int(np.argmin(loss[start:stop])))
            start = stop
        ax.plot(
            np.array(best) + 1,
            loss[best],
            linestyle="",
            marker="*",
            markersize=11,
            color=line_color(),
            label="best of its phase",
        )
        ax.set_xlim(0.5, len(loss) + 0.5)
        top = ax.secondary_xaxis("top")
        top.set_ticks(middles, names, fontsize="small")
        top.tick_params(length=0)
        if len(middles) > 1 and np.diff(middles).min() < NEAR * len(loss):
            for text in top.get_xticklabels():
                text.set(rotation=25, ha="left", va="bottom", rotation_mode="anchor")


def _check_history(history: Any) -> list[dict[str, Any]]:
    """A history as a list with a dict an epoch, free of NaN."""
    rows = history.to_dict("records") if hasattr(history, "to_dict") else list(history)
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
    return [
        {key: row[key] for key in row if key != "best" and row[key] == row[key]} for row in rows
    ]
