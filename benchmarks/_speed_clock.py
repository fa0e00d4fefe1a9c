"""Clocks and rows that the parts of `speed.py` share."""

import multiprocessing
import os
import time

import numpy as np
import torch

from skaecm import datasets

# The network, and the shape of MNIST.
HIDDEN = (500, 500, 2000)
WIDTH = 10
K = 10
MNIST_SHAPE = (70_000, 784)


def interleaved(functions, repeats, device="cpu"):
    """Seconds (repeats,) of every function by name, all of them once a turn."""
    seconds = {name: [] for name in functions}
    names = list(functions)
    for turn in range(1 + repeats):
        # Each is the first of a turn as often as any other.
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            synchronize(device)
            begin = time.perf_counter()
            functions[name]()
            synchronize(device)
            seconds[name].append(time.perf_counter() - begin)
    # The first turn warms up.
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def synchronize(device):
    """Wait for what has been asked of the device."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def median(values):
    """As a number of four digits that JSON takes."""
    return float(f"{np.median(values):.4g}")


def in_new_process(function, *arguments, seconds):
    """What ``function`` gives in a process of its own; None if it takes too long."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        try:
            return pool.apply_async(function, arguments).get(seconds)
        except multiprocessing.TimeoutError:
            return None


def image_rows(n, d):
    """Rows (n, d) in float32: MNIST where it is at hand and fits, else as empty as it."""
    if (n, d) == MNIST_SHAPE and os.environ.get("SKAECM_DATA"):
        return datasets.load("mnist").data.astype(np.float32) / 255
    rng = np.random.default_rng(0)
    X = rng.random((n, d), dtype=np.float32)
    X[X < 0.8] = 0.0
    return X


def gaussian_rows(n, d, k):
    """Round clusters in float32, two deviations apart in every direction."""
    rng = np.random.default_rng(0)
    centers = 2 * rng.standard_normal((k, d), dtype=np.float32)
    X = rng.standard_normal((n, d), dtype=np.float32)
    X += centers[rng.integers(k, size=n)]
    return X
