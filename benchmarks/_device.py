"""What a run computes on, as its row says it; knows nothing of skaecm, so that peers can ask."""

import os
from pathlib import Path

import torch


def device_name():
    """The name of the GPU or "cpu", with the library that was loaded before all others.

    Such a library, say ``mkl_avx512_on_amd.c``, changes what a run costs.
    """
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    preloaded = os.environ.get("LD_PRELOAD")
    return f"cpu, {Path(preloaded).stem}" if preloaded else "cpu"
