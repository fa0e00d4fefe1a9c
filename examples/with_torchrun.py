"""One fit by several processes: ``torchrun --nproc-per-node 2 examples/with_torchrun.py``."""

import numpy as np
import torch.distributed as dist
from sklearn.datasets import load_digits

from skaecm import DeepAEClustering

dist.init_process_group()
rank, size = dist.get_rank(), dist.get_world_size()

# Every process reads rows of its own.
own = np.array_split(load_digits().data, size)[rank]
model = DeepAEClustering(
    k=10, hidden_layer_sizes=(100,), pretrain_iter=10, max_iter=200, random_state=0, verbose=1
)
labels = model.fit_predict(own)
print(f"rank {rank} of {size}: labels of {len(labels)} rows, loss {model.loss_:.6f}")

dist.destroy_process_group()
