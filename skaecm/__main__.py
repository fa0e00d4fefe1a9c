"""The command line: ``python -m skaecm``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch

from . import __version__, _compare
from .datasets import load

FIGURE_SUFFIXES = (".pdf", ".png", ".svg")

DESCRIPTION = """\
Cluster a data set with KMeans, the four kinds of GaussianMixture,
ClusteringModuleGMM and DeepAEClustering; print one table and write one figure.

Labels, where there are some, are used to measure the clusterings and never to
make them."""

EPILOG = """\
columns of the table:
  ACC      share of rows whose cluster matches their label, best one-to-one
           matching
  NMI      normalised mutual information with the labels
  ARI      adjusted Rand index: 0 by chance, 1 for equal partitions
  score    mean log-likelihood of a row in nats, where a method has one for the
           data as they are; higher is better
  seconds  time of the fit

examples:
  python -m skaecm compare
  python -m skaecm compare --data table.csv --label species --output table.png
  SKAECM_DATA=folder python -m skaecm compare --data usps"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with code 2."""
        command = self.prog.removeprefix("python -m ")
        self.exit(2, f"{command}: error: {message} (see {self.prog} --help)\n")


def make_parser() -> Parser:
    """The parser of all arguments."""
    parser = Parser(
        prog="python -m skaecm",
        description="skaecm: joint clustering and embedding for scikit-learn.",
        epilog="Start with: python -m skaecm compare",
    )
    parser.add_argument("--version", action="version", version=f"skaecm {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    compare = commands.add_parser(
        "compare",
        help="cluster a data set with all methods and print a table",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument(
        "--data",
        metavar="NAME|FILE",
        default="digits",
        help="digits (the default), the name of a .npz file in the folder SKAECM_DATA, or the "
        "path of a .npz file (arrays x and perhaps y) or a .csv file (with a header)",
    )
    compare.add_argument(
        "--label",
        metavar="COLUMN",
        help="column or array of the labels (default: label, target, y or class, if there)",
    )
    compare.add_argument(
        "--k", type=int, help="number of clusters (default: that of the labels, else 8)"
    )
    compare.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    compare.add_argument(
        "--rows", metavar="N", type=int, help="use N rows drawn at random (default: all)"
    )
    compare.add_argument(
        "--output",
        metavar="FIGURE.png",
        type=Path,
        default=Path("skaecm-compare.png"),
        help="figure to write: .png, .pdf or .svg (default: skaecm-compare.png)",
    )
    return parser


def say(line: str) -> None:
    """Show progress."""
    print(line, file=sys.stderr, flush=True)


def check_output(path: Path) -> None:
    """Raise now, not after the fits, if the figure cannot be written."""
    if path.suffix.lower() not in FIGURE_SUFFIXES:
        raise ValueError(
            f"--output must end in {', '.join(FIGURE_SUFFIXES)}, but is {str(path)!r}."
        )
    if not path.parent.is_dir():
        raise ValueError(
            f"--output: there is no folder {str(path.parent)!r} for {path.name}. Make it, or "
            "choose another."
        )
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"--output: {str(path)!r} cannot be written. Choose another.")


def prepare(arguments: argparse.Namespace) -> tuple[Bunch, int]:
    """The data set and k; ValueError or OSError where an argument will not do."""
    check_output(arguments.output)
    seed, n_rows = arguments.seed, arguments.rows
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be between 0 and {2**32 - 1}, but is {seed}.")
    if n_rows is not None and n_rows < 1:
        raise ValueError(f"--rows must be at least 1, but is {n_rows}.")
    dataset = load(arguments.data, label=arguments.label)
    if n_rows is not None and n_rows < len(dataset.data):
        rng = np.random.RandomState(seed)
        chosen = np.sort(rng.choice(len(dataset.data), n_rows, replace=False))
        dataset.data = dataset.data[chosen]
        dataset.target = None if dataset.target is None else dataset.target[chosen]
    k = arguments.k
    if k is None:
        k = 8 if dataset.target is None else len(np.unique(dataset.target))
    n_rows = len(dataset.data)
    if not 1 <= k <= n_rows:
        raise ValueError(f"--k must be between 1 and the number of rows, {n_rows}, but is {k}.")
    dataset.data = _compare.single_if_exact(dataset.data)
    return dataset, k


def compare(dataset: Bunch, k: int, seed: int, output: Path) -> int:
    """Fit, print the table, draw the figure; 1 if a method failed, else 0."""
    n_rows, n_features = dataset.data.shape
    title = f"{dataset.name}: {n_rows} rows, {n_features} features, k={k}, seed={seed}"
    say(title)
    methods = _compare.make_methods(dataset.data, k, seed)
    results = list(_compare.fit_all(methods, dataset.data, say))
    print(title, _compare.format_table(results, dataset.target), sep="\n\n")
    if any(isinstance(result.estimator, Pipeline) for result in results):
        print(
            f"\nPCA: fitted to the first {_compare.WIDEST_COVARIANCE} principal components, "
            "since a covariance of all features costs too much; no score in the same space."
        )
    failed = [result.name for result in results if result.labels is None]
    deep = methods[_compare.DEEP]
    if _compare.DEEP in failed:
        figure = f"none, since {_compare.DEEP} failed"
    else:
        try:
            _compare.draw_figure(dataset, deep, output, f"{_compare.DEEP} on {title}")
            figure = str(output)
        except ModuleNotFoundError:
            figure = 'none, since matplotlib is missing: pip install "skaecm[plots]"'
    print(f"\nfigure: {figure}")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        dataset, k = prepare(arguments)
    except (OSError, ValueError) as error:
        say(f"skaecm compare: error: {' '.join(str(error).split())}")
        return 2
    try:
        return compare(dataset, k, arguments.seed, arguments.output)
    except KeyboardInterrupt:
        say("skaecm compare: interrupted")
        return 130


if __name__ == "__main__":
    sys.exit(main())
