"""The jobs of ``python -m skaecm fit``, ``predict`` and ``plot``."""

import argparse
import ast
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import Bunch

from . import ClusteringModuleGMM, DeepAEClustering, _tables, save
from . import load as load_saved
from ._compare import Say, agreement, single_if_exact
from ._extras import need
from ._outputs import Output, check_outputs, standard_output, written_together
from .datasets import load

ESTIMATORS = {"deep": DeepAEClustering, "module": ClusteringModuleGMM}

# Parameters that have an option of their own.
OWN_OPTIONS = {"k": "-k", "random_state": "--seed", "verbose": "--quiet"}

# Parameters whose values are code.
CODE = {"autoencoder", "callback"}

# What a fitted model says of rows, in the files that options of these names name.
RESULTS = ("labels", "probabilities", "embedding")

# Progress in a file or a pipe; a terminal has bars.
SECONDS_BETWEEN_LINES = 10.0

FIGURE_SUFFIXES = (".pdf", ".png", ".svg")
DPI = 150

# Rows of a picture of responsibilities: the least certain ones, from the least certain on.
MOST_ROWS = 30

# What plot can draw: of a model, and of rows as a model sees them.
KINDS_OF_DATA = ("embedding", "responsibilities", "confusion")
KINDS = ("loss", "centers", "sizes", *KINDS_OF_DATA)

# Words of JSON and Python in values of --set; anything else is a number, a list or text.
WORDS = {"none": None, "null": None, "true": True, "false": False}


# Reading and writing
# -------------------


def read_data(arguments: argparse.Namespace, columns: Sequence[str] | None = None) -> Bunch:
    """The data set that the arguments name; "-" is a .csv file on standard input."""
    how: Any = {
        "label": False if arguments.no_labels else arguments.label_column,
        "columns": columns,
    }
    if arguments.data != "-":
        dataset = load(arguments.data, **how)
    elif sys.stdin is None:
        raise ValueError("DATA is '-', but there is no standard input.")
    else:
        table = _tables.read_csv(sys.stdin.buffer.read(), "standard input", **how)
        dataset = Bunch(**table._asdict(), name="standard input", image_shape=None)
    dataset.data = single_if_exact(dataset.data)
    return dataset


def check_seed(seed: int) -> None:
    """Raise if a seed is none."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"--seed must be between 0 and {2**32 - 1}, but is {seed}.")


def read_model(path: Path) -> BaseEstimator:
    """The estimator that a file holds."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    with warnings.catch_warnings():
        # What only another fit would miss, or a device that is not here, is no matter.
        warnings.simplefilter("ignore", UserWarning)
        return load_saved(path)


def read_for(model: BaseEstimator, arguments: argparse.Namespace) -> Bunch:
    """The data set that the arguments name, with the columns that a model was fitted to."""
    names = getattr(model, "feature_names_in_", None)
    dataset = read_data(arguments, None if names is None else names.tolist())
    n_features = dataset.data.shape[1]
    if n_features != model.n_features_in_:
        raise ValueError(
            f"{dataset.name} has {n_features} columns of features, but the model was fitted to "
            f"{model.n_features_in_}. If a column holds labels, name it with --label-column."
        )
    return dataset


def result_outputs(arguments: argparse.Namespace) -> list[Output]:
    """The files that are to hold results."""
    named = {kind: getattr(arguments, kind) for kind in RESULTS}
    outputs = [Output(f"--{kind}", path, _tables.SUFFIXES) for kind, path in named.items() if path]
    if any(output.path.suffix.lower() == ".parquet" for output in outputs):
        _tables.import_pandas()
    return outputs


def result(kind: str, model: BaseEstimator, X: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """What a model says of X, and the names of its columns."""
    if kind == "labels":
        return model.predict(X), ["cluster"]
    if kind == "probabilities":
        values = model.predict_proba(X)
        return values, [f"cluster{j}" for j in range(values.shape[1])]
    return np.asarray(model.transform(X)), [str(name) for name in model.get_feature_names_out()]


def write_results(outputs: Sequence[Output], drafts: Sequence[Path], model, X: np.ndarray) -> None:
    """Write one file for each result that was asked for."""
    for output, draft in zip(outputs, drafts, strict=True):
        kind = output.option.removeprefix("--")
        _tables.write(draft, *result(kind, model, X), kind)


@contextmanager
def warnings_said(say: Say) -> Iterator[None]:
    """Say each warning once, in one line, when the block ends."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # Columns are taken by their names before the model sees them.
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        try:
            yield
        finally:
            for line in dict.fromkeys(f"{w.category.__name__}: {w.message}" for w in caught):
                say(line)


# The verbs
# ---------


def fit(arguments: argparse.Namespace, say: Say) -> None:
    """Fit a model to a data set, keep it, and print what came out."""
    results = result_outputs(arguments)
    outputs = [Output("--model", arguments.model), *results]
    check_outputs(outputs, force=arguments.force, inputs=[arguments.data])
    # The work will end with it, so that it is missed before.
    need("safetensors", "persistence", "--model")
    model = make_model(arguments)
    dataset = read_data(arguments)
    X = dataset.data
    n_rows, n_features = X.shape
    title = f"{dataset.name}: {n_rows} rows, {n_features} features, k={model.k}"
    is_shown = not arguments.quiet and sys.stderr is not None
    if is_shown:
        kept_out = f"; {dataset.target_name!r} is kept out" if dataset.target_name else ""
        say(f"{title}{kept_out}: fitting {type(model).__name__}")
    start = time.perf_counter()
    if is_shown and sys.stderr.isatty():
        model.set_params(verbose=1)
    elif is_shown and model.n_jobs is None:
        model.set_params(callback=epochs_said(say))
    with warnings_said(say):
        model.fit(X)
    seconds = time.perf_counter() - start
    model.set_params(verbose=0, callback=None)
    if dataset.feature_names is not None:
        model.feature_names_in_ = np.array(dataset.feature_names, dtype=object)
    with written_together(outputs) as (model_draft, *drafts), warnings_said(say):
        save(model, model_draft)
        write_results(results, drafts, model, X)
    with standard_output() as out:
        print(title, *describe(model, dataset, seconds), sep="\n", file=out)
        for output in outputs:
            print(f"{output.option.removeprefix('--')}: {output.path}", file=out)


def epochs_said(say: Say) -> Callable[[dict[str, Any]], None]:
    """A callback that says the first epoch of every phase, and then one now and then."""
    phase, then = "", 0.0

    def callback(row: dict[str, Any]) -> None:
        nonlocal phase, then
        now = time.monotonic()
        if row["phase"] != phase or now - then > SECONDS_BETWEEN_LINES:
            phase, then = row["phase"], now
            run = f"run {row['run']}, " if row["run"] > 1 else ""
            say(f"{run}{phase} {row['epoch']}: loss {row['loss']:.4g}")

    return callback


def describe(model: BaseEstimator, dataset: Bunch, seconds: float) -> Iterator[str]:
    """What came out of a fit, in lines."""
    state = "converged" if model.converged_ else "not converged"
    yield (
        f"{type(model).__name__}: {model.n_iter_} epochs, {state}, loss {model.loss_:.4g}, "
        f"{seconds:.1f} s"
    )
    sizes = np.bincount(model.labels_, minlength=len(model.weights_))
    yield f"cluster sizes: {' '.join(map(str, sizes))}"
    if dataset.target is not None:
        shares = agreement(dataset.target, model.labels_)
        yield f"against {dataset.target_name!r}: {', '.join(map(' '.join, shares.items()))}"


def make_model(arguments: argparse.Namespace) -> BaseEstimator:
    """The estimator that the arguments describe."""
    cls = ESTIMATORS[arguments.estimator]
    check_seed(arguments.seed)
    valid = sorted(cls().get_params().keys() - OWN_OPTIONS.keys() - CODE)
    parameters = {}
    for setting in arguments.set:
        name, equals, text = setting.partition("=")
        if name in OWN_OPTIONS:
            raise ValueError(f"--set {setting}: use {OWN_OPTIONS[name]} for {name}.")
        if name in CODE:
            raise ValueError(f"--set {setting}: {name} is code, which only Python can give.")
        if not equals or name not in valid:
            raise ValueError(
                f"--set must be NAME=VALUE with a parameter of {cls.__name__}, but is "
                f"{setting!r}. Its parameters are {', '.join(valid)}."
            )
        value = parse_value(text)
        if not is_plain(value):
            raise ValueError(f"--set {setting}: a value is a number, a word, or a list of these.")
        parameters[name] = value
    return cls(arguments.k, random_state=arguments.seed, **parameters)


def parse_value(text: str) -> Any:
    """A value as JSON or Python would write it; text that neither knows stays text."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def is_plain(value: Any) -> bool:
    """Whether a value is a number, text, True, False, None, or a list of these."""
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, int | float | str)


def predict(arguments: argparse.Namespace, say: Say) -> None:
    """Write what a saved model says of a data set; its clusters to stdout if no file is named."""
    outputs = result_outputs(arguments)
    check_outputs(outputs, force=arguments.force, inputs=[arguments.model, arguments.data])
    model = read_model(arguments.model)
    X = read_for(model, arguments).data
    with warnings_said(say):
        if outputs:
            with written_together(outputs) as drafts:
                write_results(outputs, drafts, model, X)
        else:
            with standard_output() as out:
                _tables.write_csv(out, *result("labels", model, X))


def plot(arguments: argparse.Namespace, say: Say) -> None:
    """Draw a saved model, perhaps with a data set."""
    kind, output = arguments.kind, Output("--output", arguments.output, FIGURE_SUFFIXES)
    inputs = [arguments.model, *([arguments.data] if arguments.data else [])]
    check_outputs([output], force=arguments.force, inputs=inputs)
    if kind in KINDS_OF_DATA and not arguments.data:
        raise ValueError(f"--kind {kind} draws rows: give DATA after MODEL.")
    # A file is written, no window opened.
    need("matplotlib", "plots", "--output").use("agg")
    model = read_model(arguments.model)
    dataset = read_for(model, arguments) if arguments.data else None
    if kind == "confusion" and dataset is not None and dataset.target is None:
        raise ValueError(
            f"--kind confusion needs labels, but {dataset.name} has none. Name their column with "
            "--label-column."
        )
    with warnings_said(say):
        display = draw(kind, model, dataset, arguments.image_shape)
        with written_together([output]) as (draft,):
            display.figure_.savefig(draft, dpi=DPI)
    with standard_output() as out:
        print(f"figure: {output.path}", file=out)


def draw(
    kind: str, model: BaseEstimator, dataset: Bunch | None, image_shape: Sequence[int] | None
) -> Any:
    """The display of a kind."""
    from . import plotting

    if kind == "loss":
        return plotting.LossCurveDisplay.from_estimator(model)
    if kind == "centers":
        image_shape = image_shape or model.image_shape or (dataset and dataset.image_shape)
        return plotting.ClusterCentersDisplay.from_estimator(model, image_shape=image_shape)
    if kind == "sizes":
        labels = model.labels_ if dataset is None else model.predict(dataset.data)
        return plotting.ClusterSizesDisplay.from_predictions(labels, weights=model.weights_)
    assert dataset is not None
    if kind == "embedding":
        return plotting.EmbeddingDisplay.from_estimator(model, dataset.data)
    if kind == "responsibilities":
        shares = model.predict_proba(dataset.data)
        rows = np.argsort(shares.max(axis=1), kind="stable")[:MOST_ROWS]
        return plotting.ResponsibilitiesDisplay.from_predictions(shares[rows], row_names=rows)
    return plotting.ClusterConfusionDisplay.from_estimator(model, dataset.data, dataset.target)
