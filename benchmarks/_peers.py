"""N2D of ClustPy on one data set, inside the peer's own environment.

Run by ``partners.py`` with that environment's interpreter; knows nothing of skaecm and
sees no labels::

    python _peers.py rows.npz found.npz --k 10 --seed 0 --manifold-params '[null]'

``rows.npz`` holds the rows as ``x``. ``found.npz`` gets ``labels`` (n_variants,
n_samples), ``seconds`` (n_variants,) and ``versions`` as JSON. The variants differ in
the parameters of UMAP: those after the first take over its trained autoencoder, and
their seconds do not contain its training.
"""

import argparse
import importlib.util
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

PACKAGES = ("clustpy", "umap-learn", "scikit-learn", "torch", "numpy")

# What `import torchvision` wants to exist.
OPERATORS = ("nms", "qnms")


def declare_operators():
    """Make torchvision importable where its compiled operators do not fit torch.

    An index may pair a CUDA build of torchvision with torch for the CPU. ClustPy
    imports torchvision, but N2D uses none of its operators. Gives back what has to
    be kept alive.
    """
    folder = Path(importlib.util.find_spec("torchvision").origin).parent
    try:
        for library in folder.glob("_C.*"):
            torch.ops.load_library(library)
    except OSError:
        declared = torch.library.Library("torchvision", "DEF")
        for name in OPERATORS:
            declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return declared
    return None


def main():
    """Fit all variants and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--manifold-params", type=json.loads, default=[None])
    arguments = parser.parse_args()
    kept = declare_operators()
    from clustpy.deep import N2D
    from umap import UMAP

    x = np.load(arguments.rows)["x"]
    labels, seconds, network = [], [], None
    for parameters in arguments.manifold_params:
        if parameters is not None:
            parameters = {"n_components": arguments.k, **parameters}
        model = N2D(
            arguments.k,
            manifold_class=UMAP,
            manifold_params=parameters,
            neural_network=network,
            random_state=arguments.seed,
        )
        started = time.perf_counter()
        labels.append(model.fit(x).labels_)
        seconds.append(time.perf_counter() - started)
        network = model.neural_network_trained_
    del kept
    np.savez(
        arguments.found,
        labels=np.stack(labels),
        seconds=seconds,
        versions=json.dumps({name: version(name) for name in PACKAGES}),
    )


if __name__ == "__main__":
    main()
