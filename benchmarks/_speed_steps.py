"""A step of joint training, prediction, and a fit on a GPU, beside their matrix products.

For `speed.py`: the floor, a loop as people write it, ours, and the parts of ours.
"""

import time
from contextlib import contextmanager, nullcontext
from itertools import islice, pairwise

import numpy as np
import torch
from _cm_speed import fit, resident_peak
from _speed_clock import (
    HIDDEN,
    MNIST_SHAPE,
    WIDTH,
    K,
    image_rows,
    interleaved,
    median,
    synchronize,
)
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skaecm import DeepAEClustering
from skaecm._rows import Rows
from skaecm._steps import STEPS_FIRST

# Matrix products per second of the data sheets, dense, by the name of the device.
PEAK = {"H200": {"float32": 67e12, "tf32": 494e12, "bfloat16": 989e12}}


def layer_shapes(d, hidden, width):
    """(into, out of) every layer of an autoencoder and its mirror image."""
    widths = [d, *hidden, width]
    return list(pairwise(widths + widths[-2::-1]))


def step_products(shapes, batch):
    """Floating point operations of the products of one step."""
    sizes = [into * out for into, out in shapes]
    # The rows need no gradient.
    return 2 * batch * (3 * sum(sizes) - sizes[0])


def make_floor(shapes, batch, device):
    """One step's matrix products, forward and backward, into memory that is there."""

    def draw(*shape):
        return torch.randn(shape, device=device) / shape[-1] ** 0.5

    layers = [
        {
            "x": draw(batch, into),
            "weight": draw(out, into),
            "grad": draw(batch, out),
            "y": draw(batch, out),
            "x_grad": draw(batch, into),
            "weight_grad": draw(out, into),
        }
        for into, out in shapes
    ]

    @torch.no_grad()
    def step():
        for layer in layers:
            torch.mm(layer["x"], layer["weight"].T, out=layer["y"])
        for layer in reversed(layers):
            torch.mm(layer["grad"].T, layer["x"], out=layer["weight_grad"])
            if layer is not layers[0]:
                torch.mm(layer["grad"], layer["weight"], out=layer["x_grad"])

    return step


class PlainAECM(nn.Module):
    """AE-CM in as few lines as it takes."""

    def __init__(self, d, hidden, width, k):
        super().__init__()
        self.encoder = self.layers([d, *hidden, width])
        self.decoder = self.layers([width, *reversed(hidden), d])
        self.assign = nn.Linear(width, k)
        self.means = nn.Parameter(torch.randn(k, width) / width**0.5)

    @staticmethod
    def layers(widths):
        """Linear layers with LeakyReLU between them."""
        layers = [
            layer
            for into, out in pairwise(widths)
            for layer in (nn.Linear(into, out), nn.LeakyReLU(0.2))
        ]
        return nn.Sequential(*layers[:-1])

    def loss(self, x):
        """The terms of the paper, their weights those of our defaults."""
        z = self.encoder(x)
        g = torch.softmax(self.assign(z), dim=1)
        gram = self.means @ self.means.T
        return (
            0.1 * nn.functional.mse_loss(self.decoder(z), x)
            + (z - g @ self.means).pow(2).sum(dim=1).mean()
            + (g * (1 - g)).sum(dim=1).mean()
            + 0.1 * (gram - torch.eye(len(gram), device=x.device)).abs().sum()
            - 0.05 * torch.log(g.mean(dim=0) + 1e-10).sum()
        )


def make_plain_loop(x, hidden, batch, steps):
    """So many steps as most people write them."""
    torch.manual_seed(0)
    model = PlainAECM(x.shape[1], hidden, WIDTH, K).to(x.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(x), batch_size=batch, shuffle=True)

    def run():
        total = 0.0
        for (rows,) in islice(loader, steps):
            loss = model.loss(rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        return total

    return run


class SomeBatches(Rows):
    """The first batches of every epoch over ``rows``, and no others."""

    def __init__(self, rows, steps):
        super().__init__(rows.shape, None, rows.device, rows.dtype)
        self.weight = rows.weight
        self.rows = rows
        self.steps = steps

    def values(self, index):
        """Those of all rows."""
        return self.rows.values(index)

    def batches(self, batch_size, generator):
        """The first ones."""
        return islice(self.rows.batches(batch_size, generator), self.steps)


def our_training(X, hidden, batch, device, mixed_precision=False):
    """A `Training`, its network and its rows as `fit` makes them, past the first epoch."""
    model = DeepAEClustering(
        K,
        n_components=WIDTH,
        hidden_layer_sizes=hidden,
        n_neighbors=None,
        init="random",
        pretrain_iter=0,
        batch_size=batch,
        device=device,
        mixed_precision=mixed_precision,
        random_state=0,
    )
    data = model._check_data(X, None, None, reset=True)
    prepared, *_ = model._prepare(data, 0)
    network, _ = model._start(prepared, data, 0)
    training = model._make_training(network, data, 0)
    network.settle(data.rows)
    network.train()
    training.epoch = 1
    return training, network, data.rows


@contextmanager
def tf32():
    """Products of float32 by units that round their factors, as a user of torch asks for it."""
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def run_step(n, d, hidden, batch, steps, repeats, device="cpu"):
    """The floor, the plain loop, ours and its parts, ``steps`` steps of each a turn.

    On a GPU, where steps are recorded, there are no parts: what stands beside ours are steps
    asked for kernel by kernel, and steps in other precisions.
    """
    X = image_rows(n, d)
    shapes = layer_shapes(d, hidden, WIDTH)
    floor = make_floor(shapes, batch, device)
    training, network, rows = our_training(X, hidden, batch, device)
    mixed, *_ = our_training(X, hidden, batch, device, mixed_precision=True)
    some = SomeBatches(rows, steps)
    resident = torch.from_numpy(X).to(device)
    is_gpu = torch.device(device).type == "cuda"

    def times(function):
        return lambda: [function() for _ in range(steps)]

    compared = {
        "floor": times(floor),
        "plain": make_plain_loop(resident, hidden, batch, steps),
        "ours": lambda: training.run_epoch(some),
        "mixed": lambda: mixed.run_epoch(some),
    }
    if is_gpu:
        compared |= on_gpu_beside_ours(X, hidden, batch, device, some)
        for _ in range(2 + STEPS_FIRST // steps):
            for function in compared.values():
                function()
    else:
        compared |= {
            part: times(function)
            for part, function in parts_of_step(training, network, rows).items()
        }
        generator = torch.Generator().manual_seed(0)
        compared["index"] = lambda: [None for _ in some.batches(batch, generator)]
    seconds = interleaved(compared, repeats, device)
    floor_seconds = seconds["floor"]
    products = step_products(shapes, batch) * steps
    figures = {
        f"{name}_ms": median(1e3 * seconds[name] / steps) for name in ("floor", "plain", "ours")
    }
    figures |= {
        f"{name}_over_floor": median(seconds[name] / floor_seconds)
        for name in ("ours", "mixed", "plain")
    }
    figures |= {
        f"plain_over_{name}": median(seconds["plain"] / seconds[name]) for name in ("ours", "mixed")
    }
    if is_gpu:
        figures |= {
            "tf32_over_floor": median(seconds["tf32"] / floor_seconds),
            "one_by_one_over_ours": median(seconds["one_by_one"] / seconds["ours"]),
        }
        kinds = {"ours": "float32", "tf32": "tf32", "mixed": "bfloat16"}
        return figures | {
            key: value
            for name, kind in kinds.items()
            for key, value in achieved(products / np.median(seconds[name]), kind, device).items()
        }
    rest = seconds["ours"] - seconds["index"] - seconds["loss"] - seconds["optimizer"]
    figures["of_floor"] = {
        "indexing": median(seconds["index"] / floor_seconds),
        "bias_activation_autograd": median(seconds["layers"] / floor_seconds) - 1,
        "loss": median((seconds["loss"] - seconds["layers"]) / floor_seconds),
        "optimizer": median(seconds["optimizer"] / floor_seconds),
        "loop": median(rest / floor_seconds),
    }
    return figures | {"gflops": median(products / np.median(seconds["ours"]) / 1e9)}


def parts_of_step(training, network, rows):
    """What a step is made of but for its rows, by name: each does it once."""
    generator = torch.Generator().manual_seed(0)
    one = next(rows.batches(training.batch_size, generator))
    x = network.standardizer(one.x)
    x_grad = torch.randn_like(x) / x.numel()
    z_grad = torch.randn_like(network.autoencoder.encode(x).detach()) / len(x)

    def layers():
        network.zero_grad()
        code = network.autoencoder.encoder(x)
        torch.autograd.backward([network.autoencoder.decoder(code), code], [x_grad, z_grad])

    def loss():
        network.zero_grad()
        sum(network.loss_terms(one).values()).backward()

    return {"layers": layers, "loss": loss, "optimizer": training.optimizer.step}


def on_gpu_beside_ours(X, hidden, batch, device, some):
    """Epochs of ``some`` batches whose steps are asked for otherwise."""
    one_by_one, *_ = our_training(X, hidden, batch, device)
    one_by_one.steps.can_record = False
    rounding, *_ = our_training(X, hidden, batch, device)

    def rounded():
        with tf32():
            rounding.run_epoch(some)

    return {"one_by_one": lambda: one_by_one.run_epoch(some), "tf32": rounded}


def achieved(per_second, kind, device):
    """The rate of products of a kind of number, and its share of the device's peak."""
    name = torch.cuda.get_device_name(device)
    figures = {"device_name": name, f"{kind}_tflops": median(per_second / 1e12)}
    for key, peak in PEAK.items():
        if key in name:
            figures[f"{kind}_over_peak"] = median(per_second / peak[kind])
    return figures


def run_predict(n, d, hidden, repeats, rows_per_product=4096):
    """Seconds of predict beside the encoder's matrix products alone."""
    X = image_rows(n, d)
    model = DeepAEClustering(
        K,
        n_components=WIDTH,
        hidden_layer_sizes=hidden,
        n_neighbors=None,
        init="random",
        pretrain_iter=0,
        max_iter=0,
        device="cpu",
        random_state=0,
    )
    fit(model, X[:1000])
    weights = [torch.randn(out, into) / into**0.5 for into, out in pairwise([d, *hidden, WIDTH])]
    blocks = torch.from_numpy(X).split(rows_per_product)
    outputs = [torch.empty(rows_per_product, len(weight)) for weight in weights]

    def floor():
        for block in blocks:
            for weight, output in zip(weights, outputs, strict=True):
                block = torch.mm(block, weight.T, out=output[: len(block)])

    before = resident_peak()
    model.predict(X)
    peak = resident_peak() - before
    seconds = interleaved({"floor": floor, "predict": lambda: model.predict(X)}, repeats)
    return {
        "floor_rows_per_second": median(n / seconds["floor"]),
        "predict_rows_per_second": median(n / seconds["predict"]),
        "of_floor": median(seconds["floor"] / seconds["predict"]),
        "peak_mib": median(peak),
        "x_mib": median(X.nbytes / 2**20),
    }


def run_gpu_fit(epochs, precision):
    """MNIST with so many pretraining and so many joint epochs."""
    X = image_rows(*MNIST_SHAPE)
    model = DeepAEClustering(
        K,
        n_neighbors=None,
        hidden_layer_sizes=HIDDEN,
        tol=0.0,
        n_iter_no_change=10**6,
        device="cuda",
        mixed_precision=precision == "bfloat16",
        random_state=0,
    )
    with tf32() if precision == "tf32" else nullcontext():
        # What is loaded and chosen on first use is loaded before the clock runs.
        fit(model.set_params(pretrain_iter=3, max_iter=3), X[:4096])
        model.set_params(pretrain_iter=epochs, max_iter=epochs)
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        fit(model, X)
        synchronize("cuda")
        seconds = time.perf_counter() - begin
    peak = torch.cuda.max_memory_allocated() / 2**20
    return {
        "seconds": median(seconds),
        "peak_mib": median(peak),
        "epochs": model.n_iter_,
        "device_name": torch.cuda.get_device_name(),
    }


def run_gpu_agreement(seeds):
    """The loss of fits of the digits on a GPU over that on the CPU."""
    X = load_digits().data
    losses = {"cpu": [], "cuda": []}
    for seed in range(seeds):
        for device, values in losses.items():
            model = DeepAEClustering(K, device=device, random_state=seed)
            values.append(float(fit(model, X).loss_))
    means = {device: float(np.mean(values)) for device, values in losses.items()}
    return {
        "dtype": str(X.dtype),
        "cpu_loss": float(f"{means['cpu']:.6g}"),
        "cuda_loss": float(f"{means['cuda']:.6g}"),
        "cuda_over_cpu": float(f"{means['cuda'] / means['cpu']:.6g}"),
        "seed_by_seed": [
            float(f"{there / here:.6g}")
            for here, there in zip(losses["cpu"], losses["cuda"], strict=True)
        ],
    }
