"""Epochs and fits beside ClustPy's DCN and DEC, inside the environment that has ClustPy.

For `speed.py`, which hands this part to that environment's interpreter.
"""

import time

import numpy as np
import torch
from _cm_speed import fit
from _speed_clock import HIDDEN, MNIST_SHAPE, WIDTH, K, image_rows, interleaved, median
from _speed_steps import our_training

from skaecm import DeepAEClustering, datasets
from skaecm.metrics import clustering_accuracy


def clustpy_epochs(X, batch):
    """Functions that run one epoch of DCN, of DEC and of ClustPy's pretraining."""
    from clustpy.deep._data_utils import get_dataloader
    from clustpy.deep._utils import mean_squared_error
    from clustpy.deep.dcn import _DCN_Module
    from clustpy.deep.dec import _DEC_Module
    from clustpy.deep.neural_networks import FeedforwardAutoencoder

    cpu = torch.device("cpu")
    rng = np.random.default_rng(0)
    labels = rng.integers(K, size=len(X)).astype(np.int32)
    centers = rng.standard_normal((K, WIDTH)).astype(np.float32)
    loader = get_dataloader(X, batch, shuffle=True)

    def network():
        return FeedforwardAutoencoder([X.shape[1], *HIDDEN, WIDTH], random_state=0)

    def adam(*modules):
        parameters = [parameter for module in modules for parameter in module.parameters()]
        return torch.optim.Adam(parameters, lr=1e-4)

    first, second, third = network(), network(), network()
    dcn, dec = _DCN_Module(labels, centers), _DEC_Module(centers, alpha=1.0)
    dcn_adam, dec_adam = adam(first), adam(second, dec)
    return {
        # Weights as DCN's and DEC's defaults: DEC does not reconstruct.
        "DCN": lambda: dcn.fit(
            first, loader, loader, 1, cpu, dcn_adam, mean_squared_error, 0.1, 1.0
        ),
        "DEC": lambda: dec.fit(second, loader, 1, cpu, dec_adam, mean_squared_error, 1.0, 0.0),
        "pretraining": lambda: third.fit(n_epochs=1, dataloader=loader),
    }


def run_peer_epochs(n, batch, repeats):
    """Seconds of an epoch of MNIST's shape, ours and theirs."""
    X = image_rows(*MNIST_SHAPE)[:n]
    training, _, rows = our_training(X, HIDDEN, batch, "cpu")
    mixed, *_ = our_training(X, HIDDEN, batch, "cpu", mixed_precision=True)
    functions = {
        "ours": lambda: training.run_epoch(rows),
        "mixed": lambda: mixed.run_epoch(rows),
        **clustpy_epochs(X, batch),
    }
    seconds = interleaved(functions, repeats)
    return {f"{name}_seconds": median(values) for name, values in seconds.items()} | {
        f"{name}_over_ours": median(values / seconds["ours"])
        for name, values in seconds.items()
        if name != "ours"
    }


def run_peer_fits(name, seeds):
    """Fit and predict with defaults, and with DEC's layers, beside DEC with 30 + 30 epochs."""
    from clustpy.deep import DEC

    data = datasets.load(name)
    X, y = data.data.astype(np.float32), data.target
    k = len(np.unique(y))
    builders = {
        "ours": lambda seed: DeepAEClustering(k, random_state=seed),
        "mixed": lambda seed: DeepAEClustering(k, mixed_precision=True, random_state=seed),
        "wide": lambda seed: DeepAEClustering(k, hidden_layer_sizes=HIDDEN, random_state=seed),
        "DEC": lambda seed: DEC(k, pretrain_epochs=30, clustering_epochs=30, random_state=seed),
    }
    seconds = {key: [] for key in builders}
    accuracy = {key: [] for key in builders}
    for seed in range(seeds):
        for key, build in builders.items():
            begin = time.perf_counter()
            labels = fit(build(seed), X).predict(X)
            seconds[key].append(time.perf_counter() - begin)
            accuracy[key].append(clustering_accuracy(y, labels))
    dec = np.array(seconds["DEC"])
    return {
        f"{key}_{what}": median(figure)
        for key in builders
        for what, figure in (
            ("seconds", seconds[key]),
            ("over_DEC", np.array(seconds[key]) / dec),
            ("acc", np.mean(accuracy[key])),
            ("acc_std", np.std(accuracy[key])),
        )
    }
