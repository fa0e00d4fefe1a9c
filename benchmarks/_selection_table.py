"""The table of ``selection.py``, from its rows: correlations and regrets.

Knows no candidate and no data set by name; NumPy and SciPy only.
"""

import numpy as np
from scipy.stats import spearmanr


def values_of(rows, pools, judge):
    """What a judge says of every row; where it says nothing, the least. None if it knows none."""
    if not all(judge in row["judges"] or judge in pools.get(row["data"], {}) for row in rows):
        return None
    values = []
    for row in rows:
        pool = pools.get(row["data"], {}).get(judge, {})
        value = row["judges"].get(judge, pool.get(row["setting"]))
        values.append(-np.inf if value is None else value)
    return np.array(values)


def correlation(values, measures):
    """Spearman's, zero where a judge finds all settings alike."""
    if np.ptp(np.nan_to_num(values, neginf=-1e300)) == 0 or np.ptp(measures) == 0:
        return 0.0
    return float(spearmanr(values, measures).statistic)


def figures(rows, pools, judge):
    """Correlation with ACC and ARI, and the regret, of the settings of one data set."""
    values = values_of(rows, pools, judge)
    if values is None:
        return np.nan, np.nan, np.nan
    acc = np.array([row["acc"] for row in rows])
    ari = np.array([row["ari"] for row in rows])
    # Of several that are best alike, the first in the order of the settings, as a search has it.
    return correlation(values, acc), correlation(values, ari), acc.max() - acc[values.argmax()]


def number(value, digits):
    """A column of a set; a stroke where a judge was not asked."""
    return f"{'-':>9s}" if np.isnan(value) else f"{value:9.{digits}f}"


def format_block(title, by_data, pools, judges):
    """The lines of some settings: a line for every judge, the best correlation first."""
    names = list(by_data)
    found = {
        judge: np.array([figures(by_data[name], pools, judge) for name in names])
        for judge in judges
    }
    found = {judge: values for judge, values in found.items() if np.isfinite(values).any()}
    short = [name[:9] for name in names]
    head = " ".join(f"{name:>9s}" for name in short)
    lines = [
        f"{title}: {', '.join(str(len(by_data[name])) for name in names)} settings",
        f"  {'':28s} {'mean over sets':>20s}   {'with ACC':<{10 * len(names)}s}  regret",
        f"  {'candidate':28s} {'ACC':>6s} {'ARI':>6s} {'regret':>6s}   {head}   {head}",
    ]
    for judge in sorted(found, key=lambda judge: -np.nanmean(found[judge][:, 0])):
        acc, ari, regret = np.nanmean(found[judge], axis=0)
        one = " ".join(number(value, 2) for value in found[judge][:, 0])
        two = " ".join(number(value, 3) for value in found[judge][:, 2])
        lines.append(f"  {judge:28s} {acc:6.2f} {ari:6.2f} {regret:6.3f}   {one}   {two}")
    return lines


def format_table(rows, judges, grid):
    """The whole table.

    Parameters
    ----------
    rows : list of dict
        Rows of results: of fits, of pools and of searches.
    judges : sequence of str
        The candidates.
    grid : sequence of str
        The settings of the grid, the others being outside of it.
    """
    fits = [row for row in rows if "judges" in row]
    pools = {}
    for row in rows:
        pools.setdefault(row["data"], {}).update(row.get("pooled", {}) | row.get("stability", {}))
    names = list(dict.fromkeys(row["data"] for row in fits))
    by_data = {name: [row for row in fits if row["data"] == name] for name in names}
    on_grid = {name: [row for row in by_data[name] if row["setting"] in grid] for name in names}
    lines = [
        "Data",
        f"  {'':14s} {'rows':>6s} {'k':>3s} {'worst ACC':>9s} {'best':>6s}  best setting",
    ]
    for name in names:
        acc = np.array([row["acc"] for row in by_data[name]])
        best = by_data[name][acc.argmax()]
        lines.append(
            f"  {name:14s} {sum(best['n_rows']):6d} {best['k']:3d} {acc.min():9.3f} "
            f"{acc.max():6.3f}  {best['setting']}"
        )
    lines += ["", *format_block("All", by_data, pools, judges)]
    lines += ["", *format_block("The grid of alpha, beta and lam", on_grid, pools, judges)]
    searches = [row for row in rows if "search" in row]
    if searches:
        lines += [
            "",
            "GridSearchCV over the grid by the estimator's own score",
            "(score and ACC of the other half; then of all rows, after the fit to all rows)",
            f"  {'':14s} {'chosen':33s} {'score':>6s} {'ACC':>6s} {'best':>6s} {'regret':>6s}   "
            f"{'score':>6s} {'ACC':>6s}",
        ]
    regrets = []
    for row in searches:
        acc = {one["setting"]: one["acc"] for one in on_grid[row["data"]]}
        mine, best = acc[row["search"]], max(acc.values())
        regrets.append(best - mine)
        lines.append(
            f"  {row['data']:14s} {row['search']:33s} {row['score']:6.3f} {mine:6.3f} {best:6.3f} "
            f"{best - mine:6.3f}   {row['refit']['score']:6.3f} {row['refit']['acc']:6.3f}"
        )
    if regrets:
        lines.append(f"  {'mean':54s} {'':6s} {'':6s}{np.mean(regrets):6.3f}")
    return "\n".join(lines)
