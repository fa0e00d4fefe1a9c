"""Rows with partners, batch by batch, and how copies are made of them."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from helpers import blobs, overlapping, quick, shaken

from skaecm import ClusteringModuleGMM, DeepAEClustering, _graph
from skaecm._augmentation import (
    NOISE,
    ROTATION,
    ImageAugmentation,
    NoiseAugmentation,
    image_background,
)
from skaecm._rows import (
    AugmentedRows,
    Batch,
    HostRows,
    Neighbours,
    PairedRows,
    ResidentRows,
)
from skaecm._training import Training

EXACT = {"rtol": 1e-12, "atol": 1e-12}
CPU = torch.device("cpu")


# Rows with partners
# ------------------


@pytest.fixture(params=["dense", "sparse"])
def plain_rows(request, seed):
    x = overlapping(seed, n=60)
    weight = np.random.RandomState(seed).uniform(size=60)
    if request.param == "dense":
        return ResidentRows(torch.from_numpy(x), weight)
    return HostRows(sp.csr_matrix(x), weight, CPU, torch.float64)


def generator(seed):
    return torch.Generator().manual_seed(seed)


def assert_same_batches(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a is None) == (b is None)
            assert a is b or torch.equal(a, b)


@pytest.mark.parametrize("augment", [None, shaken])
@pytest.mark.parametrize("with_graph", [False, True])
def test_batches_of_pairs(seed, plain_rows, augment, with_graph):
    x = plain_rows.values(torch.arange(60))
    graph = _graph.neighbour_graph(x.numpy(), 4)
    neighbours = Neighbours(graph, CPU) if with_graph else None
    rows = PairedRows(plain_rows, neighbours, augment)
    assert len(rows) == 60
    for batches in (rows.batches(16, generator(seed)), rows.pairs()):
        seen = []
        for batch in batches:
            assert torch.equal(batch.x, x[batch.indices])
            assert torch.equal(batch.weight, plain_rows.weight[batch.indices])
            distance, nearest = torch.cdist(batch.partner, x).min(dim=1)
            if augment is None:
                edges = graph[batch.indices.numpy()][:, nearest.numpy()].diagonal()
                assert float(distance.max()) == pytest.approx(0, abs=1e-5)
                assert (edges if with_graph else nearest == batch.indices).all()
            else:
                assert float(distance.min()) > 0
            seen.append(batch.indices)
        assert torch.equal(torch.cat(seen).sort().values, torch.arange(60))
    assert_same_batches(rows.pairs(), rows.pairs())
    first = list(rows.batches(16, generator(seed)))
    assert_same_batches(first, rows.batches(16, generator(seed)))
    others = list(rows.batches(16, generator(seed + 1)))
    if augment is not None or with_graph:
        order = [torch.cat([batch.indices for batch in run]).argsort() for run in (first, others)]
        partner = [torch.cat([batch.partner for batch in run]) for run in (first, others)]
        assert not torch.equal(partner[0][order[0]], partner[1][order[1]])


def test_augmented_rows_are_transformed_in_random_order_only(seed, plain_rows):
    rows = AugmentedRows(plain_rows, shaken)
    assert_same_batches(rows.in_order(), plain_rows.in_order())
    x = plain_rows.values(torch.arange(60))
    for batch in rows.batches(16, generator(seed)):
        assert batch.partner is None
        assert torch.equal(batch.weight, plain_rows.weight[batch.indices])
        moved = (batch.x - x[batch.indices]).abs()
        assert float(moved.min()) > 0
        assert float(moved.max()) < 0.2 * 6
    one = list(rows.batches(16, generator(seed)))
    assert_same_batches(one, rows.batches(16, generator(seed)))


# Augmentation
# ------------

SHAPES = {"grey": (1, 8, 8), "channels": (3, 6, 10)}


def torch_dtype(dtype):
    return torch.float32 if dtype == np.float32 else torch.float64


def images(seed, shape, dtype, n=40):
    """Random images on a constant margin, that of every channel another one."""
    c, h, w = shape
    x = np.random.RandomState(seed).uniform(size=(n, c, h, w)).astype(dtype)
    margin = np.linspace(0.2, 0.9, c, dtype=dtype)[:, None]
    x[:, :, 0], x[:, :, -1], x[..., 0], x[..., -1] = (margin,) * 4
    return torch.from_numpy(x.reshape(n, -1)), torch.from_numpy(margin[:, 0])


@pytest.mark.parametrize("name", SHAPES)
def test_images_move_within_their_values(seed, dtype, name):
    shape = SHAPES[name]
    x, margin = images(seed, shape, dtype)
    before = x.clone()
    assert torch.equal(image_background(x, shape), margin)
    augment = ImageAugmentation(shape, margin)
    moved = augment(x, generator(seed))
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype
    assert torch.equal(x, before)
    difference = (moved - x).abs().amax(dim=1)
    assert float(difference.min()) > 0.05
    rounding = 1e-5 if dtype == np.float32 else 1e-12
    views, originals = moved.view(40, shape[0], -1), x.view(40, shape[0], -1)
    assert (views.amax(dim=2) <= originals.amax(dim=2) + rounding).all()
    assert (views.amin(dim=2) >= originals.amin(dim=2) - rounding).all()
    # The generator decides, and every image is moved in its own way.
    assert torch.equal(augment(x, generator(seed)), moved)
    assert not torch.equal(augment(x, generator(seed + 1)), moved)
    copies = augment(x[:1].repeat(40, 1), generator(seed))
    assert len(copies.unique(dim=0)) == 40


def test_channels_move_together(seed):
    grey, margin = images(seed, (1, 8, 8), np.float64)
    one = ImageAugmentation((1, 8, 8), margin)(grey, generator(seed))
    three = ImageAugmentation((3, 8, 8), margin.repeat(3))(grey.repeat(1, 3), generator(seed))
    np.testing.assert_allclose(three, one.repeat(1, 3), **EXACT)


@pytest.mark.parametrize("value", [0.0, 0.3, -7.0])
def test_constant_images_stay(seed, dtype, value):
    x = torch.full((5, 48), value, dtype=torch_dtype(dtype))
    augment = ImageAugmentation((3, 4, 4), image_background(x, (3, 4, 4)))
    assert torch.equal(augment(x, generator(seed)), x)


def test_inverted_images_come_in_white(seed, dtype):
    """Nothing dark enters a white image: its views are the views of its negative."""
    x, _ = images(seed, (1, 8, 8), dtype)
    square = x.view(-1, 8, 8)
    square[:, :2], square[:, -2:], square[:, :, :2], square[:, :, -2:] = (0.0,) * 4
    black, white = (image_background(rows, (1, 8, 8)) for rows in (x, 1 - x))
    assert (black, white) == (0.0, 1.0)
    of_black = ImageAugmentation((1, 8, 8), black)(x, generator(seed))
    of_white = ImageAugmentation((1, 8, 8), white)(1 - x, generator(seed))
    rounding = 1e-5 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(of_white, 1 - of_black, rtol=0, atol=rounding)
    corners = of_white.view(-1, 8, 8)[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.median()) == pytest.approx(1.0)


def test_noise_has_the_stated_deviation(seed, dtype):
    deviation = torch.tensor([0.0, 1.0, 50.0], dtype=torch_dtype(dtype))
    x = torch.from_numpy(np.random.RandomState(seed).standard_normal((20000, 3)).astype(dtype))
    augment = NoiseAugmentation(deviation)
    noise = augment(x, generator(seed)) - x
    assert noise.dtype == x.dtype
    np.testing.assert_allclose(noise.std(dim=0), NOISE * deviation, rtol=0.03)
    np.testing.assert_allclose(noise[:, 1].mean(), 0, atol=5 * NOISE / np.sqrt(20000))
    assert torch.equal(augment(x, generator(seed)) - x, noise)
    assert not torch.equal(augment(x, generator(seed + 1)) - x, noise)


def test_noise_of_a_fit_is_that_of_the_columns(seed, monkeypatch):
    """With the weights of the rows."""
    made = []
    original = NoiseAugmentation.__init__

    def noted(self, deviation):
        made.append(deviation.numpy())
        original(self, deviation)

    monkeypatch.setattr(NoiseAugmentation, "__init__", noted)
    X, _ = blobs(seed)
    weight = np.random.RandomState(seed).uniform(size=90)
    quick(ClusteringModuleGMM, augment="noise").fit(X, sample_weight=weight)
    mean = np.average(X, axis=0, weights=weight)
    expected = np.sqrt(np.average((X - mean) ** 2, axis=0, weights=weight))
    np.testing.assert_allclose(made, [expected], rtol=1e-10)


def phases_of_calls(monkeypatch):
    """A list of (phase, batch) that the callable beside it fills."""
    calls, phase = [], [None]
    original = Training.run_epoch

    def noted(self, *args, **kwargs):
        phase[0] = self.phase
        try:
            return original(self, *args, **kwargs)
        finally:
            phase[0] = None

    def augment(batch, generator):
        calls.append((phase[0], batch.clone(), generator))
        return batch

    monkeypatch.setattr(Training, "run_epoch", noted)
    return calls, augment


@pytest.mark.parametrize("n_neighbors", [None, 5])
def test_every_epoch_is_augmented(cls, seed, dtype, monkeypatch, n_neighbors):
    """A callable sees every row once an epoch of every phase, as the user gave it."""
    calls, augment = phases_of_calls(monkeypatch)
    X, _ = blobs(seed, dtype=dtype)
    model = quick(cls, augment=augment, n_neighbors=n_neighbors).fit(X)
    for phase in {row["phase"] for row in model.history_}:
        n_epochs = sum(row["phase"] == phase for row in model.history_)
        batches = [batch for name, batch, _ in calls if name == phase]
        # Before the first epoch of training, the rows of the exact average.
        extra = 2 if phase == "training" else 0
        assert sum(map(len, batches)) == 90 * (n_epochs + extra), phase
        assert all(batch.dtype == torch_dtype(dtype) for batch in batches)
        rows = np.unique(np.concatenate(batches), axis=0)
        assert {row.tobytes() for row in rows} <= {row.tobytes() for row in X}
    expected = {"training", "averaging"} | ({"pretraining"} if cls is DeepAEClustering else set())
    assert {name for name, *_ in calls} - {None} == expected
    assert all(isinstance(drawn, torch.Generator) for *_, drawn in calls)


def test_a_batch_without_partners_is_left_as_it_is(seed):
    """The fields of a batch keep their places: loops unpack the first two."""
    x = torch.from_numpy(blobs(seed)[0])
    assert Batch._fields[:4] == ("x", "weight", "indices", "partner")
    assert Batch._fields[4:] == ("seen", "partner_seen", "part", "partner_is_row")
    assert all(batch.partner is None for batch in ResidentRows(x).batches(32, generator(seed)))


def test_rotation_is_one_of_pixels_in_wide_images_too():
    """A vertical bar in the middle of a wide image turns by no more than the angle."""
    shape = (1, 16, 64)
    image = torch.zeros(shape, dtype=torch.float64)
    image[:, :, 31:33] = 1.0
    batch = image.view(1, -1).repeat(50, 1)
    augment = ImageAugmentation(shape, torch.zeros(1, dtype=torch.float64))
    moved = augment(batch, torch.Generator().manual_seed(0)).view(50, 16, 64)
    columns = torch.arange(64.0, dtype=torch.float64)
    center = (moved * columns).sum(dim=2) / moved.sum(dim=2).clamp(min=1e-9)
    slope = (center[:, 11] - center[:, 4]) / 7
    assert float(slope.abs().max()) < 1.2 * np.tan(np.radians(ROTATION))


def test_an_augmentation_that_writes_into_its_batch(seed):
    """The copy is the partner; the row stays as it is."""
    x = torch.from_numpy(blobs(seed)[0])
    rows = PairedRows(ResidentRows(x), None, lambda batch, generator: batch.add_(1.0))
    for batch in rows.batches(32, generator(seed)):
        assert torch.equal(batch.x, x[batch.indices])
        assert torch.equal(batch.partner, x[batch.indices] + 1)
