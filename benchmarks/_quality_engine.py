"""The engine with one part taken out, or one more put in: ablations of ``quality.py``.

Parts have no parameters, since the default has what pays. A change is a function that fits a
given estimator to X in its own way, and leaves the package as it was.
"""

from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import numpy as np

from skaecm import DeepAEClustering, _cuts, _deep_start, _initialization, _modules
from skaecm._training import Training

Change = Callable[[DeepAEClustering, np.ndarray], DeepAEClustering]

# What the learning rates are times, after every epoch of a phase.
DECAY = 0.9

# At most so many moves, each of one merge and one split.
MOVES = 3

# What stand-ins call.
RUN_EPOCH = Training.run_epoch
STEADINESS = _cuts.steadiness
NEAR_PARTNERS = _deep_start.near_partners


def patched(*parts: tuple[Any, str, Any]) -> Change:
    """The fit while every part (owner, name, stand-in) is replaced."""

    def fit(model: DeepAEClustering, X: np.ndarray) -> DeepAEClustering:
        with ExitStack() as stack:
            for part in parts:
                stack.enter_context(patch.object(*part))
            return model.fit(X)

    return fit


def run_decaying_epoch(training: Training, *args: Any, **kwargs: Any) -> float:
    """An epoch after which all learning rates are smaller."""
    loss = RUN_EPOCH(training, *args, **kwargs)
    for group in training.optimizer.param_groups:
        group["lr"] *= DECAY
    return loss


def go_on(model: DeepAEClustering, X: np.ndarray, k: int) -> DeepAEClustering:
    """Merge or split to ``k`` clusters and train on; the history is that of both fits."""
    history = model.history_
    model.set_params(k=k, warm_start=True).fit(X)
    model.history_ = history + model.history_
    return model


def split_and_merge(model: DeepAEClustering, X: np.ndarray) -> DeepAEClustering:
    """After the fit, two clusters are merged and one is split while ``score`` rises.

    As ``warm_start`` does either: by the distortion in the embedding, and joint training goes
    on. ``score`` is the modularity of the clusters among the nearest rows of X.
    """
    best, score = model.fit(X), model.score(X)
    for _ in range(MOVES):
        moved = go_on(go_on(deepcopy(best), X, best.k - 1), X, best.k)
        if moved.score(X) <= score:
            break
        best, score = moved, moved.score(X)
    return best


def merge_after_training(model: DeepAEClustering, X: np.ndarray) -> DeepAEClustering:
    """Train twice as many clusters, merge them to those asked for, and train on."""
    k = model.k
    return go_on(model.set_params(k=2 * k).fit(X), X, k)


def near_once(z: np.ndarray, data: Any, besides: Any = None) -> Any:
    """Partners that are near in the code, but no further ones besides them."""
    return NEAR_PARTNERS(z, data) if besides is None else data.partners


# Of the two ways to cut the graph of neighbours, merged clusters as if there was no other.
MERGED = (_cuts, "spectral_clusters", lambda *_: None)

CHANGES: dict[str, Change] = {
    "no averaging epoch": patched((Training, "run_averaging_epoch", lambda *_, **__: None)),
    # k clusters of k-means in the code, the consensus of its runs, in place of surplus clusters
    # merged along the graph.
    "no surplus at the start": patched(MERGED, (_cuts, "SURPLUS", (1,))),
    "less steady cut at the start": patched(
        (_cuts, "steadiness", lambda *args: -STEADINESS(*args))
    ),
    "cut along the first neighbours": patched((_deep_start, "near_partners", near_once)),
    "start not softened": patched((_initialization, "SOFTENING", 1.0)),
    # The best run of k-means without partners, one try with them.
    "no consensus at the start": patched(
        MERGED,
        (_initialization, "NEARLY", 0.0),
        (_cuts, "SURPLUS", (8,)),
        (_cuts, "SURPLUS_RUNS", 1),
    ),
    # These two hardly matter but to fits without partners.
    "start as sharp as it is": patched((_initialization, "APART", 1.0)),
    "prior to equal sizes": patched((DeepAEClustering, "_draw_to_sizes", lambda *_: None)),
    "one learning rate": patched((_modules, "MODULE_RATE", 1.0), (_modules, "CONTRAST_RATE", 1.0)),
    "decaying rates": patched((Training, "run_epoch", run_decaying_epoch)),
    "merges and splits": split_and_merge,
    "2k merged at the end": merge_after_training,
}
