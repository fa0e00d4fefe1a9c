"""Clustering accuracy against a search over all matchings."""

from itertools import permutations

import numpy as np
import pytest

from skaecm.metrics import aligned_confusion_matrix, clustering_accuracy


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


@pytest.mark.parametrize(("n_classes", "n_clusters"), [(3, 3), (2, 5), (5, 2), (1, 4), (4, 1)])
def test_aligned_matrix_counts_and_aligns(n_classes, n_clusters):
    rng = np.random.RandomState(n_classes)
    names = np.array(list("edcba"))
    for _ in range(5):
        truth, found = names[rng.randint(n_classes, size=30)], 7 * rng.randint(n_clusters, size=30)
        matrix, classes, clusters = aligned_confusion_matrix(truth, found)
        expected = [[np.sum((truth == a) & (found == b)) for b in clusters] for a in classes]
        np.testing.assert_array_equal(matrix, expected)
        assert sorted(classes) == sorted(set(truth))
        assert sorted(clusters) == sorted(set(found))
        assert np.trace(matrix) / 30 == clustering_accuracy(truth, found)


def test_aligned_matrix_puts_what_has_no_partner_last():
    # Two clusters of "a", two of "b": the larger of each is matched.
    truth = list("aaaaabbbbb")
    matrix, classes, clusters = aligned_confusion_matrix(truth, [0, 0, 1, 1, 1, 2, 3, 3, 3, 3])
    assert (classes.tolist(), clusters.tolist()) == (["a", "b"], [1, 3, 0, 2])
    np.testing.assert_array_equal(matrix, [[3, 0, 2, 0], [0, 4, 0, 1]])
    # Three classes, two clusters: "b" is the smallest and has none.
    matrix, classes, clusters = aligned_confusion_matrix(list("aabccc"), [0, 0, 0, 1, 1, 1])
    assert (classes.tolist(), clusters.tolist()) == (["a", "c", "b"], [0, 1])
    np.testing.assert_array_equal(matrix, [[2, 0], [0, 3], [1, 0]])


def test_aligned_matrix_of_no_rows():
    matrix, classes, clusters = aligned_confusion_matrix([], [])
    assert matrix.shape == (0, 0)
    assert len(classes) == len(clusters) == 0
