"""Clustering accuracy against a search over all matchings."""

from itertools import permutations

import numpy as np
import pytest

from skaecm.metrics import clustering_accuracy


def accuracy_by_search(truth, clusters):
    """The best share over all one-to-one maps from clusters to classes."""
    n = max(truth.max(), clusters.max()) + 1
    return max(np.mean(np.array(p)[clusters] == truth) for p in permutations(range(n)))


@pytest.mark.parametrize(("n_classes", "n_clusters"), [(3, 3), (2, 5), (5, 2), (1, 4)])
def test_equals_a_search_over_matchings(n_classes, n_clusters):
    rng = np.random.RandomState(n_classes)
    for _ in range(5):
        truth, clusters = rng.randint(n_classes, size=30), rng.randint(n_clusters, size=30)
        expected = accuracy_by_search(truth, clusters)
        assert clustering_accuracy(truth, clusters) == pytest.approx(expected, abs=1e-15)


def test_numbering_and_types_do_not_matter():
    truth = ["b", "a", "a", "c"]
    assert clustering_accuracy(truth, [5, -1, -1, 0]) == 1.0
    assert clustering_accuracy([5, -1, -1, 0], truth) == 1.0


def test_no_rows():
    assert clustering_accuracy([], []) == 1.0


@pytest.mark.parametrize(
    ("truth", "clusters", "message"),
    [
        ([0, 1], [0, 1, 1], "inconsistent numbers of samples"),
        ([[0, 1], [1, 0]], [0, 1], r"labels_true must be 1D: shape is \(2, 2\)"),
        ([0, 1], [[0], [1]], r"labels_pred must be 1D: shape is \(2, 1\)"),
        ([0.0, np.nan], [0, 1], "labels_true contains NaN"),
    ],
)
def test_refused(truth, clusters, message):
    with pytest.raises(ValueError, match=message):
        clustering_accuracy(truth, clusters)
