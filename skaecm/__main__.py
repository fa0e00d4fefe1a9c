"""The command line: ``python -m skaecm``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils import Bunch

from . import __version__, _compare, _extras, _verbs
from ._outputs import Output, check_outputs, standard_output, written_together

# What a shell reports of a program whose output nobody reads any more.
BROKEN_PIPE = 141
INTERRUPTED = 130

COMPARE = """\
Cluster a data set with KMeans, the four kinds of GaussianMixture,
ClusteringModuleGMM and DeepAEClustering; print one table and write one figure.

Labels, where there are some, are used to measure the clusterings and never to
make them."""

COMPARE_MORE = """\
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
  python -m skaecm compare table.csv --label-column species --output table.png
  SKAECM_DATA=folder python -m skaecm compare usps -k 10"""

FIT = """\
Find k clusters in a data set, keep the fitted model in a file, and print how
the fit went.

Labels, where there are some, are used to measure the clusters and never to
make them."""

FIT_MORE = """\
examples:
  python -m skaecm fit digits -k 10 --model digits.skaecm
  python -m skaecm fit table.csv -k 3 --label-column species --model table.skaecm \\
      --labels clusters.csv --embedding codes.npy
  python -m skaecm fit rows.npz -k 8 --estimator module --set n_init=5 --model rows.skaecm"""

PREDICT = """\
Assign rows to the clusters of a model that `fit` kept. The clusters go to
standard output, unless files are named for what is wanted."""

PREDICT_MORE = """\
Columns are found by their names, where model and data have names: they may come
in any order, and other columns are left out.

examples:
  python -m skaecm predict digits.skaecm new.csv > clusters.csv
  python -m skaecm predict digits.skaecm new.npy --probabilities p.npz
  cat new.csv | python -m skaecm predict digits.skaecm - | head"""

PLOT = """\
Draw a model that `fit` kept."""

PLOT_MORE = """\
kinds:
  loss              loss and its terms, epoch by epoch
  centers           the centres of the clusters, as images or over the features
  sizes             how many rows each cluster has: of DATA, else of the fit
  embedding         the rows of DATA in a plane, coloured by cluster
  responsibilities  shares of the clusters in the least certain rows of DATA, 30 at
                    most, by their number from 0
  confusion         clusters against the labels of DATA

examples:
  python -m skaecm plot digits.skaecm --kind loss --output loss.png
  python -m skaecm plot digits.skaecm digits --kind confusion --output confusion.svg"""

DATA_HELP = (
    "the rows: a .csv file (with or without a header), .npz file (arrays x and perhaps y), .npy "
    "file, or .parquet file; - for csv on standard input; digits, which come along; or the name "
    "of a .npz file in the folder that the variable SKAECM_DATA names"
)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with code 2."""
        command = self.prog.removeprefix("python -m ")
        self.exit(2, f"{command}: error: {message} (see {self.prog} --help)\n")


def number_of_clusters(text: str) -> int | str:
    """An integer or "auto"."""
    if text != "auto" and not text.lstrip("-").isdecimal():
        raise argparse.ArgumentTypeError(f"must be an integer or auto, but is {text!r}")
    return text if text == "auto" else int(text)


def make_parser() -> Parser:
    """The parser of all arguments."""
    parser = Parser(
        prog="python -m skaecm",
        allow_abbrev=False,
        description="skaecm: joint clustering and embedding for scikit-learn.",
        epilog="Start with: python -m skaecm compare",
    )
    parser.add_argument("--version", action="version", version=f"skaecm {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")

    def add(name: str, run: Any, summary: str, description: str, more: str) -> Any:
        command = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=run)
        return command

    summary = "cluster a data set with all methods and print a table"
    add_compare_options(add("compare", compare, summary, COMPARE, COMPARE_MORE))
    summary = "find clusters in a data set and keep the model"
    add_fit_options(add("fit", _verbs.fit, summary, FIT, FIT_MORE))
    summary = "assign rows to the clusters of a kept model"
    add_predict_options(add("predict", _verbs.predict, summary, PREDICT, PREDICT_MORE))
    summary = "draw a kept model"
    add_plot_options(add("plot", _verbs.plot, summary, PLOT, PLOT_MORE))
    return parser


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``compare``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("data", metavar="DATA", nargs="?", help=f"{DATA_HELP} (default: digits)")
    group.add_argument(
        "--data",
        metavar="DATA",
        dest="data_option",
        help="another way to give DATA (default: digits)",
    )
    parser.add_argument(
        "-k", "--k", type=int, help="number of clusters (default: that of the labels, else 8)"
    )
    add_label_options(parser, "--label")
    add_seed(parser)
    parser.add_argument(
        "--rows", metavar="N", type=int, help="use N rows drawn at random (default: all)"
    )
    parser.add_argument(
        "--output",
        metavar="FIGURE.png",
        type=Path,
        default=Path("skaecm-compare.png"),
        help="figure to write: .png, .pdf or .svg (default: skaecm-compare.png)",
    )
    add_force(parser)


def add_fit_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``fit``."""
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    parser.add_argument(
        "-k",
        type=number_of_clusters,
        required=True,
        help="number of clusters, or auto to count them (required)",
    )
    parser.add_argument(
        "--model",
        metavar="FILE",
        type=Path,
        required=True,
        help="file to keep the model in, for predict, plot and skaecm.load (required)",
    )
    parser.add_argument(
        "--estimator",
        choices=_verbs.ESTIMATORS,
        default="deep",
        help="deep: DeepAEClustering, an autoencoder and its clusters; module: "
        "ClusteringModuleGMM, a mixture on the columns themselves (default: deep)",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter of the estimator, such as max_iter=50, hidden_layer_sizes=64,64 or "
        "init=random; may be given several times (default: those of the estimator). Code, such "
        "as an autoencoder, a callback or an augment of one's own, can only be given in Python",
    )
    add_label_options(parser)
    add_seed(parser)
    add_result_options(parser, "none")
    add_force(parser)
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress (default: on standard error)"
    )


def add_predict_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``predict``."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a file that fit kept")
    parser.add_argument("data", metavar="DATA", help=DATA_HELP)
    add_label_options(parser)
    add_result_options(parser, "none; without any file, labels go to standard output")
    add_force(parser)


def add_plot_options(parser: argparse.ArgumentParser) -> None:
    """The options of ``plot``."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="a file that fit kept")
    parser.add_argument(
        "data", metavar="DATA", nargs="?", help=f"{DATA_HELP} (default: none; some kinds need it)"
    )
    parser.add_argument(
        "--kind",
        choices=_verbs.KINDS,
        required=True,
        help="what to draw, as listed below (required)",
    )
    parser.add_argument(
        "--output",
        metavar="FIGURE.png",
        type=Path,
        required=True,
        help="figure to write: .png, .pdf or .svg (required)",
    )
    parser.add_argument(
        "--image-shape",
        metavar="HEIGHT,WIDTH",
        type=image_shape,
        help="draw the centers as images of this size (default: that of DATA or of the model, "
        "if they are known to be images, else over the features)",
    )
    add_label_options(parser)
    add_force(parser)


def add_label_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Where the labels are; the option has these names too."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--label-column",
        *names,
        metavar="NAME",
        help="column or array that holds labels and is no feature (default: label, target, y or "
        "class, if there is one with whole numbers or words)",
    )
    group.add_argument(
        "--no-labels",
        action="store_true",
        help="take every column for a feature (default: see --label-column)",
    )


def add_result_options(parser: argparse.ArgumentParser, otherwise: str) -> None:
    """Files for what a model says of the rows."""
    for kind, content in {
        "labels": "the cluster of every row (from 0)",
        "probabilities": "the shares of every row in the clusters",
        "embedding": "the code of every row in the embedding",
    }.items():
        parser.add_argument(
            f"--{kind}",
            metavar="FILE",
            type=Path,
            help=f"write {content} to this .csv, .npy, .npz or .parquet file "
            f"(default: {otherwise})",
        )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """The random seed."""
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")


def add_force(parser: argparse.ArgumentParser) -> None:
    """The leave to overwrite."""
    parser.add_argument(
        "--force",
        action="store_true",
        help="replace files that are there already (default: refuse, before any work)",
    )


def image_shape(text: str) -> tuple[int, ...]:
    """Two or three whole numbers with commas between them."""
    shape = tuple(map(int, text.split(",")))
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError
    return shape


# compare
# -------


def prepare(arguments: argparse.Namespace) -> tuple[Bunch, int]:
    """The data set and k; ValueError or OSError where an argument will not do."""
    check_outputs([figure_of(arguments)], force=arguments.force)
    seed, n_rows = arguments.seed, arguments.rows
    _verbs.check_seed(seed)
    if n_rows is not None and n_rows < 1:
        raise ValueError(f"--rows must be at least 1, but is {n_rows}.")
    arguments.data = arguments.data or arguments.data_option or "digits"
    dataset = _verbs.read_data(arguments)
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
        raise ValueError(f"-k must be between 1 and the number of rows, {n_rows}, but is {k}.")
    return dataset, k


def figure_of(arguments: argparse.Namespace) -> Output:
    """The figure to write."""
    return Output("--output", arguments.output, _verbs.FIGURE_SUFFIXES)


def compare(arguments: argparse.Namespace, say: _verbs.Say) -> int:
    """Fit, print the table, draw the figure; 1 if a method failed, else 0."""
    dataset, k = prepare(arguments)
    seed = arguments.seed
    n_rows, n_features = dataset.data.shape
    title = f"{dataset.name}: {n_rows} rows, {n_features} features, k={k}, seed={seed}"
    say(title)
    methods = _compare.make_methods(dataset.data, k, seed)
    results = list(_compare.fit_all(methods, dataset.data, say))
    with standard_output() as out:
        print(title, _compare.format_table(results, dataset.target), sep="\n\n", file=out)
        if any(isinstance(result.estimator, Pipeline) for result in results):
            print(
                f"\nPCA: fitted to the first {_compare.WIDEST_COVARIANCE} principal components, "
                "since a covariance of all features costs too much; no score in the same space.",
                file=out,
            )
    failed = [result.name for result in results if result.labels is None]
    if _compare.DEEP in failed:
        figure = f"none, since {_compare.DEEP} failed"
    else:
        output, deep = figure_of(arguments), methods[_compare.DEEP]
        try:
            with written_together([output]) as (draft,):
                _compare.draw_figure(dataset, deep, draft, f"{_compare.DEEP} on {title}")
            figure = str(output.path)
        except ModuleNotFoundError:
            figure = f"none, since matplotlib is missing: {_extras.command('plots')}"
    with standard_output() as out:
        print(f"\nfigure: {figure}", file=out)
    return 1 if failed else 0


# Running
# -------


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0

    def say(line: str) -> None:
        """Show progress, warnings and errors."""
        if sys.stderr is not None:
            print(line, file=sys.stderr, flush=True)

    def fail(what: str, error: BaseException | str = "") -> None:
        say(f"skaecm {arguments.command}: {what}{' '.join(str(error).split())}")

    try:
        return arguments.run(arguments, say) or 0
    except KeyboardInterrupt:
        fail("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except (ImportError, OSError, ValueError) as error:
        fail("error: ", error)
        return 2
    except RuntimeError as error:
        fail("failed: ", error)
    except Exception as error:
        fail(f"failed: {type(error).__name__}: ", error)
    return 1


if __name__ == "__main__":
    sys.exit(main())
