"""One fit by the workers of a Dask cluster; needs ``pip install "dask[distributed]"``."""

from urllib.parse import urlsplit

import numpy as np
import torch.distributed as dist
from dask.distributed import Client, LocalCluster
from sklearn.datasets import load_digits

from skaecm import DeepAEClustering


def fit_part(model, own, address, rank, size):
    """What one worker does: it joins the others, and fits with its rows."""
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=size)
    try:
        return model.fit(own)
    finally:
        dist.destroy_process_group()


def main():
    """Fit on two workers of this machine, and alone."""
    X = load_digits().data
    model = DeepAEClustering(k=10, hidden_layer_sizes=(100,), pretrain_iter=10, random_state=0)
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        workers = list(client.scheduler_info()["workers"])
        # They meet at the first of them, at a port that is free there.
        address = f"tcp://{urlsplit(workers[0]).hostname}:29511"
        parts = np.array_split(X, len(workers))
        futures = [
            client.submit(fit_part, model, part, address, rank, len(workers), workers=[worker])
            for rank, (part, worker) in enumerate(zip(parts, workers, strict=True))
        ]
        fitted = client.gather(futures)
    alone = model.fit(X)
    labels = np.concatenate([part.labels_ for part in fitted])
    curves = np.subtract(fitted[0].loss_curve_, alone.loss_curve_)
    print(f"{len(workers)} workers, {fitted[0].n_iter_} epochs, loss {fitted[0].loss_:.6f}")
    print(f"largest difference of the loss curve to one process: {np.abs(curves).max():.1e}")
    print(f"labels that differ: {np.count_nonzero(labels != alone.labels_)} of {len(labels)}")


if __name__ == "__main__":
    main()
