"""Choosing settings without labels: how well candidates for a score rank them.

39 settings of ``DeepAEClustering`` are fitted on one half of each of five data sets, and
what comes out is judged on the other half, without labels, by every candidate of
``_selection_judges.py``. The table gives, for every candidate, the rank correlation with
the accuracy and with the adjusted Rand index of the settings, and the regret: the accuracy
of the best setting less that of the one it would choose; over all settings, and over the
27 of the grid of alpha, beta and lam alone. `SETTINGS` was written down before any figure
was seen. Some candidates are controls, of which nothing was hoped.

Then ``GridSearchCV`` chooses from the same grid by the estimator's own ``score``, on the
same halves, and fits its choice again on all rows.

Every fit is a row of ``benchmarks/results/selection.jsonl``; what has a row is not judged
again. The fits themselves are kept in ``--folder``, so that a new candidate needs none
of them again. The table of all rows is printed, and written beside them.

    python benchmarks/selection.py --folder /tmp/fits
    python benchmarks/selection.py --folder /tmp/fits --data pendigits usps --stability
    python benchmarks/selection.py --folder /tmp/fits --table

Data are read from the folder that the environment variable SKAECM_DATA names, in float32:
5,000 rows drawn at random, which are cut in two. One seed. One pretraining serves all
settings that share it. Labels are used for scoring alone.
"""

import argparse
import json
import sys
import warnings
from itertools import product
from pathlib import Path

import joblib
import numpy as np
import sklearn
import torch
from _selection_judges import JUDGES, POOLED, Case, Judged, pooled
from _selection_table import format_table
from partners import LARGEST
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import GridSearchCV

import skaecm
from skaecm import DeepAEClustering, datasets
from skaecm.metrics import clustering_accuracy

RESULTS = Path(__file__).parent / "results" / "selection.jsonl"
TABLE = RESULTS.with_suffix(".txt")

# Data
# ----

DATA = ("pendigits", "optdigits", "usps", "fashion_mnist", "reuters_r8")
DRAW = 5000


def load(name):
    """Rows in float32 and labels, those of the half to fit on first, and how many these are."""
    data = datasets.load(name)
    X, y = data.data.astype(np.float32) / LARGEST.get(name, 1), data.target
    chosen = np.random.default_rng(0).permutation(len(X))[:DRAW]
    return X[chosen], y[chosen], -(-len(chosen) // 2)


# Settings
# --------

COMMON = {
    "hidden_layer_sizes": (500, 500, 500),
    "pretrain_iter": 50,
    "max_iter": 40,
    "n_neighbors": None,
    "random_state": 0,
}

# Alpha times k, beta and lam: a decade around 0.5 and the defaults, either way.
ALPHAS, BETAS, LAMS = (0.05, 0.5, 5.0), (0.01, 0.1, 1.0), (0.01, 0.1, 1.0)
GRID = {
    f"alpha={alpha:g}/k, beta={beta:g}, lam={lam:g}": {"alpha": alpha, "beta": beta, "lam": lam}
    for alpha, beta, lam in product(ALPHAS, BETAS, LAMS)
}
OTHERS = {
    "n_components=20": {"n_components": 20},
    "n_components=50": {"n_components": 50},
    "hidden_layer_sizes=(100,)": {"hidden_layer_sizes": (100,)},
    "hidden_layer_sizes=(200, 200)": {"hidden_layer_sizes": (200, 200)},
    "init='k-means++'": {"init": "k-means++"},
    "init='pinv'": {"init": "pinv"},
    "init='random'": {"init": "random"},
    "pretrain_iter=0": {"pretrain_iter": 0},
    "pretrain_iter=5": {"pretrain_iter": 5},
    "max_iter=0": {"max_iter": 0},
    "augment='noise'": {"augment": "noise"},
    "n_neighbors=10": {"n_neighbors": 10},
}
SETTINGS = GRID | OTHERS


def params_of(setting, k):
    """All parameters that are not defaults."""
    params = COMMON | SETTINGS[setting]
    if "alpha" in params:
        params["alpha"] = params["alpha"] / k
    return {"k": k} | params


# The candidate that needs another fit of every setting.
STABILITY = "stability"

# Fits
# ----


class Kept(DeepAEClustering):
    """An estimator whose fits are kept in the folder of its cached pretraining."""

    def fit(self, X, y=None):
        """Fit, or find the same fit."""
        params = self.get_params(deep=False)
        folder = Path(params.pop("memory"))
        path = folder / f"{joblib.hash((params, X))}.joblib"
        if not path.exists():
            super().fit(X)
            # Written under another name first: a run may be cut short.
            learned = {name: value for name, value in vars(self).items() if name not in params}
            del learned["memory"]
            joblib.dump(learned, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
        vars(self).update(joblib.load(path))
        return self


def run(name, settings, folder):
    """A row for every setting that has none with all judges."""
    X, y, half = load(name)
    k = len(np.unique(y))
    judged = Judged(X[half:], X[:half])
    for setting in settings:
        params = params_of(setting, k)
        model = Kept(**params, memory=str(folder)).fit(X[:half])
        case = Case(model, judged)
        yield {
            "data": name,
            "setting": setting,
            "params": params,
            "n_rows": [half, len(X) - half],
            "k": k,
            "acc": round(clustering_accuracy(y[half:], case.labels), 4),
            "nmi": round(normalized_mutual_info_score(y[half:], case.labels), 4),
            "ari": round(adjusted_rand_score(y[half:], case.labels), 4),
            "n_clusters": len(np.unique(case.labels)),
            "n_iter": model.n_iter_,
            "threads": torch.get_num_threads(),
            "versions": {m.__name__: m.__version__ for m in (skaecm, sklearn, torch, np)},
            "judges": {judge: value_of(ask(case)) for judge, ask in JUDGES.items()},
        }


def value_of(number):
    """A number for JSON; None where a judge has none."""
    return float(f"{number:.8g}") if np.isfinite(number) else None


def kept_fits(name, settings, folder):
    """The fits of settings, the rows that they saw and those to judge them on."""
    X, y, half = load(name)
    k = len(np.unique(y))
    models = {
        setting: Kept(**params_of(setting, k), memory=str(folder)).fit(X[:half])
        for setting in settings
    }
    return models, X[:half], X[half:]


def run_pooled(name, settings, folder):
    """A row of what can be said of settings only together."""
    models, fitted, judged = kept_fits(name, settings, folder)
    rows = Judged(judged, fitted)
    found = pooled([Case(model, rows) for model in models.values()])
    values = {
        judge: dict(zip(models, map(value_of, numbers), strict=True))
        for judge, numbers in found.items()
    }
    return {"data": name, "pooled": values}


def run_stability(name, settings, folder):
    """A row of the agreement of every fit with one of the same setting to the judged rows."""
    models, _, judged = kept_fits(name, settings, folder)
    values = {
        setting: value_of(
            adjusted_rand_score(model.predict(judged), clone(model).fit(judged).labels_)
        )
        for setting, model in models.items()
    }
    return {"data": name, "stability": {STABILITY: values}}


def run_search(name, folder):
    """A row of a search of the grid by the estimator's own score."""
    X, y, half = load(name)
    k = len(np.unique(y))
    numbers = np.arange(len(X))
    grid = {"alpha": [alpha / k for alpha in ALPHAS], "beta": BETAS, "lam": LAMS}
    search = GridSearchCV(
        Kept(k, **COMMON, memory=str(folder)),
        grid,
        cv=[(numbers[:half], numbers[half:])],
        error_score="raise",
    ).fit(X)
    alpha, beta, lam = (search.best_params_[name] for name in grid)
    labels = search.best_estimator_.labels_
    return {
        "data": name,
        "search": f"alpha={round(alpha * k, 6):g}/k, beta={beta:g}, lam={lam:g}",
        "score": value_of(search.best_score_),
        "refit": {
            "score": value_of(search.best_estimator_.score(X)),
            "acc": round(clustering_accuracy(y, labels), 4),
            "nmi": round(normalized_mutual_info_score(y, labels), 4),
            "ari": round(adjusted_rand_score(y, labels), 4),
        },
    }


# Rows and table
# --------------


def read_rows():
    """The newest row of every fit, of every pool and of every search."""
    rows = {}
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    for row in map(json.loads, lines):
        what = {"pooled", "stability", "search"} & row.keys() or {row["setting"]}
        rows[row["data"], what.pop()] = row
    return rows


def run_missing(names, settings, folder, *, stability=False):
    """Fit and judge what has no row with all judges, and write its row."""
    rows = read_rows()
    RESULTS.parent.mkdir(exist_ok=True)

    def keep(row):
        line = json.dumps(row)
        print(line, flush=True)
        with RESULTS.open("a") as file:
            file.write(line + "\n")

    for name in names:
        missing = [
            setting
            for setting in settings
            if rows.get((name, setting), {}).get("judges", {}).keys() != JUDGES.keys()
        ]
        for row in run(name, missing, folder) if missing else ():
            keep(row)
        if missing or rows.get((name, "pooled"), {}).get("pooled", {}).keys() != POOLED.keys():
            keep(run_pooled(name, settings, folder))
        if missing or (name, "search") not in rows:
            keep(run_search(name, folder))
        if stability and (name, "stability") not in rows:
            keep(run_stability(name, settings, folder))


def write_table():
    """Write the table and give it back."""
    judges = [*JUDGES, *POOLED, STABILITY]
    table = format_table(list(read_rows().values()), judges, list(GRID))
    TABLE.write_text(table + "\n")
    return table


def main():
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=DATA, help="sets, by name")
    parser.add_argument("--folder", type=Path, required=True, help="where fits are kept")
    parser.add_argument("--grid", action="store_true", help="no other settings than its own")
    parser.add_argument("--stability", action="store_true", help="every setting is fitted twice")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    # Of so many settings some have not converged after max_iter epochs, and some lose clusters.
    warnings.simplefilter("ignore", ConvergenceWarning)
    if not arguments.table:
        arguments.folder.mkdir(parents=True, exist_ok=True)
        settings = GRID if arguments.grid else SETTINGS
        run_missing(arguments.data, settings, arguments.folder, stability=arguments.stability)
    print(write_table())


if __name__ == "__main__":
    sys.exit(main())
