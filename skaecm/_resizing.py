"""A module with more clusters or fewer, made from a trained one. NumPy in, NumPy out.

A split cuts the cluster in two from which that takes the most distortion, a merger joins the
two clusters to which it adds the least, an empty one first; all others stay as they are.
"""

from typing import Any

import numpy as np
from sklearn.metrics.pairwise import euclidean_distances

from ._initialization import Start, within_variance
from ._kmeans import TINY, halve, ward
from ._mixtures import VARIANCE_FLOOR


def resized(
    start: Start, x: Any, weight: np.ndarray | None, offset: np.ndarray, scale: float, k: int
) -> Start:
    """``start`` with ``k`` clusters, split or merged one by one.

    It sees the rows x (n, p), dense or sparse, as ``(x - offset) / scale``.
    """
    weight = np.ones(x.shape[0]) if weight is None else weight
    line = start.weight / scale
    start = Start(line, start.bias - line @ offset, scale * start.means + offset)
    while len(start.means) != k:
        logits = x @ start.weight.T + start.bias
        labels = np.asarray(logits).argmax(axis=1)
        change = split if len(start.means) < k else merged
        start = change(start, x, labels, weight)
    bias = start.bias + start.weight @ offset
    return Start(scale * start.weight, bias, (start.means - offset) / scale)


def split(start: Start, x: Any, labels: np.ndarray, weight: np.ndarray) -> Start:
    """One cluster more: two halves in the place of one, which share its responsibility.

    ``W_h = W + (mu_h - mu) / s^2`` and ``b_h = b - (||mu_h||^2 - ||mu||^2) / (2 s^2) + log pi_h``
    multiply its part of the softmax by the mixture of the halves over the one component: at
    the temperature of the module, where it has one.
    """
    sizes, halves = halve(x, start.means, labels, weight)
    squared = np.square(halves[:, 0] - halves[:, 1]).sum(axis=1)
    cut = ward(sizes[:, 0], sizes[:, 1], squared).argmax()
    means, share = halves[cut], sizes[cut] / max(sizes[cut].sum(), TINY)
    variance = max(within_variance(x, start.means, weight), VARIANCE_FLOOR)
    norms = np.square(means).sum(axis=1) - np.square(start.means[cut]).sum()
    gain = np.log(np.maximum(share, TINY)) - norms / (2.0 * variance)
    cold = coldness(start, variance)
    halved = Start(
        start.weight[cut] + cold * (means - start.means[cut]) / variance,
        start.bias[cut] + cold * gain,
        means,
    )
    return Start(
        *(
            np.concatenate([np.delete(whole, cut, axis=0), parts])
            for whole, parts in zip(start, halved, strict=True)
        )
    )


def coldness(start: Start, variance: float) -> float:
    """What the lines ``W`` of a module are of those of its mixture, ``mu / s^2``; at most 1."""
    lines, means = (part - part.mean(axis=0) for part in (start.weight, start.means))
    slope = (lines * means).sum() / max(np.square(means).sum(), TINY)
    return float(np.clip(slope * variance, 0.0, 1.0))


def merged(start: Start, x: Any, labels: np.ndarray, weight: np.ndarray) -> Start:
    """One cluster fewer: where its centre is, it has the responsibility of the two together."""
    sizes = np.bincount(labels, weights=weight, minlength=len(start.means))
    cost = ward(sizes[:, None], sizes, euclidean_distances(start.means, squared=True))
    first, second = np.triu_indices(len(sizes), 1)
    pair = cost[first, second].argmin()
    both = [first[pair], second[pair]]
    share = sizes[both] / sizes[both].sum() if sizes[both].sum() > 0 else np.full(2, 0.5)
    line, mean = share @ start.weight[both], share @ start.means[both]
    logits = start.weight[both] @ mean + start.bias[both]
    bias = np.logaddexp(*logits) - line @ mean
    joined = Start(line[None], np.array([bias]), mean[None])
    return Start(
        *(
            np.concatenate([np.delete(whole, both, axis=0), one])
            for whole, one in zip(start, joined, strict=True)
        )
    )
