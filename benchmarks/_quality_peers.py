"""One method of ClustPy on one data set, inside the peer's own environment.

Run by ``quality.py`` with that environment's interpreter; knows nothing of skaecm and
sees no labels::

    python _quality_peers.py rows.npz found.npz --method DEC --k 10 --seed 0 --params '{}'

``rows.npz`` holds the rows as ``x``. ``found.npz`` gets ``labels`` (n_samples,),
``seconds``, ``cpu_seconds``, ``threads``, ``device`` and ``versions`` as JSON. ``params``
are those of the method; ``manifold_class`` "UMAP" is the class of umap-learn. Nothing of
ClustPy is changed.
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from _device import device_name
from _peers import PACKAGES, declare_operators


def main():
    """Fit and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", type=Path)
    parser.add_argument("found", type=Path)
    parser.add_argument("--method", required=True)
    parser.add_argument("--k", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--params", type=json.loads, default={})
    arguments = parser.parse_args()
    kept = declare_operators()
    import clustpy.deep

    params = dict(arguments.params)
    if params.get("manifold_class") == "UMAP":
        from umap import UMAP

        params["manifold_class"] = UMAP
    x = np.load(arguments.rows)["x"]
    cls = getattr(clustpy.deep, arguments.method)
    model = cls(arguments.k, random_state=arguments.seed, **params)
    # Numba, too, sets the threads of OpenMP.
    threads = torch.get_num_threads()
    started, started_cpu = time.perf_counter(), time.process_time()
    labels = np.asarray(model.fit(x).labels_)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    del kept
    np.savez(
        arguments.found,
        labels=labels,
        seconds=seconds,
        cpu_seconds=cpu_seconds,
        threads=threads,
        device=device_name(),
        versions=json.dumps({name: version(name) for name in PACKAGES}),
    )


if __name__ == "__main__":
    main()
