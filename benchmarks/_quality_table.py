"""The tables of ``quality.py``, from its rows: means, spreads, ranks, and what changes gain.

Knows no method and no data set by name; NumPy and SciPy only.
"""

import numpy as np
from scipy.stats import rankdata

MEASURES = ("acc", "nmi", "ari")


def summaries(rows, methods):
    """What the rows of one data set say of every method that has any, by method."""
    found = {}
    for method in methods:
        mine = [row for row in rows if row["method"] == method]
        scored = [row for row in mine if "error" not in row]
        if not mine:
            continue
        found[method] = {
            "seeds": len(scored),
            "errors": [row["error"] for row in mine if "error" in row],
            **{key: [row[key] for row in scored] for key in MEASURES},
            "costs": median_costs(scored),
            "epochs": median_epochs(scored),
            "clusters": min((row["n_clusters"] for row in scored), default=0),
        }
    return found


def median_costs(rows):
    """Seconds and CPU seconds by device, of the runs on a CPU, the plain one first.

    Only costs on the same device can be compared.
    """
    devices = sorted({row["device"] for row in rows if on_cpu(row)})
    return {
        device: [
            float(np.median([row[key] for row in rows if row["device"] == device]))
            for key in ("seconds", "cpu_seconds")
        ]
        for device in devices
    }


def on_cpu(row):
    """Whether a run was on a CPU, plain or with a library that changes its products."""
    return row["device"].split(",")[0] == "cpu"


def median_epochs(rows):
    """Of all phases together; zero where there are none."""
    return int(np.median([sum(row.get("epochs", {}).values()) for row in rows] or [0]))


def ranks(found, ranked):
    """Rank by method of the means of every measure, among the methods ``ranked``.

    Equal means share a rank. A method none of whose runs gave labels comes last.
    """
    names = [method for method in found if method in ranked]
    places = {method: {} for method in names}
    for key in MEASURES:
        means = [np.mean(found[method][key]) if found[method]["seeds"] else -1 for method in names]
        # As they are printed: what looks equal is equal.
        for method, place in zip(names, rankdata(-np.round(means, 3)), strict=True):
            places[method][key] = float(place)
    return places


def format_measure(values, place):
    """Mean, standard deviation over seeds, and rank."""
    rank = "-" if place is None else f"{place:g}"
    return f"{np.mean(values):.3f} +- {np.std(values):.3f} {rank:>5s}"


def format_data(name, found, places, unit, n_rows, k):
    """The lines of one data set."""
    lines = [
        f"{name}: {n_rows} rows, {k} clusters",
        f"  {'method':28s} {'seeds':>5s} {'ACC':>15s} {'rank':>4s} {'NMI':>15s} {'rank':>4s} "
        f"{'ARI':>15s} {'rank':>4s} {'clusters':>8s} {'epochs':>6s} {'seconds':>8s} {'CPU s':>8s} "
        f"{'of ours':>7s}",
    ]
    of_unit = found[unit]["costs"] if unit in found else {}
    for method, one in found.items():
        start = f"  {method:28s} {one['seeds']:5d} "
        if not one["seeds"]:
            lines.append(f"{start}no labels: {one['errors'][-1][:80]}")
            continue
        place = places.get(method, {})
        measures = " ".join(format_measure(one[key], place.get(key)) for key in MEASURES)
        device, (seconds, cpu_seconds) = next(iter(one["costs"].items()), ("", [np.nan] * 2))
        share = cpu_seconds / of_unit[device][1] if device in of_unit else np.nan
        costs = f"{seconds:8.0f} {cpu_seconds:8.0f} {share:7.2f}"
        lines.append(
            f"{start}{measures} {one['clusters']:8d} {one['epochs'] or '-':>6} "
            + costs.replace("nan", "  -")
            + (f"  {len(one['errors'])} failed" if one["errors"] else "")
        )
    return lines


def format_means(found, places, methods):
    """The lines of the mean ranks over the data sets, the best first."""
    rows = []
    for method in methods:
        mine = [places[name][method] for name in places if method in places[name]]
        if not mine:
            continue
        scored = [found[name][method] for name in places if method in places[name]]
        scored = [one for one in scored if one["seeds"]]
        spread = np.mean([np.std(one["acc"]) for one in scored]) if scored else np.nan
        mean = [np.mean([one[key] for one in mine]) for key in MEASURES]
        rows.append((np.mean(mean), method, len(mine), mean, spread))
    lines = [
        "Mean rank over data sets",
        f"  {'method':28s} {'sets':>4s} {'ACC':>6s} {'NMI':>6s} {'ARI':>6s} {'all':>6s} "
        f"{'spread of ACC':>13s}",
    ]
    for total, method, n_sets, mean, spread in sorted(rows, key=lambda row: (row[0], row[1])):
        lines.append(
            f"  {method:28s} {n_sets:4d} "
            + " ".join(f"{value:6.2f}" for value in mean)
            + f" {total:6.2f} {spread:13.3f}"
        )
    return lines


def format_changes(rows, data, ours, changes):
    """The lines of the ablations: what changes gain over ``ours``, by the same seeds.

    Gains of accuracy and NMI by data set, and the time as a share of that of ``ours``, the mean
    of the data sets' medians.
    """
    runs = {(row["data"], row["method"], row["seed"]): row for row in rows if "error" not in row}
    labels = [change.removeprefix(f"{ours}, ") for change in changes]
    width = max(map(len, labels))
    lines = [
        f"Ablations: {ours} with one change, less {ours} with the same seeds, ACC and NMI",
        f"  {'change':{width}s} {'seeds':>5s} "
        + " ".join(f"{name:>13s}" for name in data)
        + "  time",
    ]
    for change, label in zip(changes, labels, strict=True):
        cells, counts, costs = [], [], []
        for name in data:
            pairs = [
                (row, runs[name, ours, seed])
                for (of_data, method, seed), row in runs.items()
                if (of_data, method) == (name, change) and (name, ours, seed) in runs
            ]
            if not pairs:
                cells.append(f"{'-':>13s}")
                continue
            gains = [np.mean([one[key] - base[key] for one, base in pairs]) for key in MEASURES[:2]]
            cells.append(" ".join(f"{gain:+6.3f}" for gain in gains))
            counts.append(len(pairs))
            shares = [
                one["cpu_seconds"] / base["cpu_seconds"]
                for one, base in pairs
                if one["device"] == base["device"] and on_cpu(one)
            ]
            costs += [np.median(shares)] if shares else []
        if counts:
            seeds = "-".join(dict.fromkeys([str(min(counts)), str(max(counts))]))
            cost = f"{np.mean(costs):5.2f}" if costs else f"{'-':>5s}"
            lines.append(f"  {label:{width}s} {seeds:>5s} {' '.join(cells)} {cost}")
    return lines


def format_table(rows, data, methods, ranked, ours, twin, changes):
    """The whole table.

    Parameters
    ----------
    rows : list of dict
        Rows of results.
    data : dict of str to bool
        Data sets in order, and whether they count for the mean rank.
    methods : sequence of str
        Methods in order, those that have lines of their own.
    ranked : sequence of str
        Those that are ranked.
    ours : str
        One of these.
    twin : str
        A method that is not ranked, and has mean ranks of its own in the place of ``ours``.
        Its CPU seconds are the unit of the others'.
    changes : sequence of str
        Methods that are ``ours`` with one change.
    """
    lines, found, places, of_twin = [], {}, {}, {}
    others = {twin, *ranked} - {ours}
    for name in data:
        mine = [row for row in rows if row["data"] == name]
        if not mine:
            continue
        found[name] = summaries(mine, methods)
        placed = ranks(found[name], ranked)
        lines += format_data(name, found[name], placed, twin, mine[0]["n_rows"], mine[0]["k"])
        lines.append("")
        if data[name]:
            places[name] = placed
            of_twin[name] = ranks(found[name], others)
    lines += format_means(found, places, methods)
    lines += [f"In the place of {ours}:", *format_means(found, of_twin, [twin])[2:]]
    lines += ["", *format_changes(rows, [name for name in data if data[name]], ours, changes)]
    return "\n".join(lines)
