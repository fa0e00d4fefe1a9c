"""The one home of device, dtype and generator; NumPy to torch and back."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

# Most rows, and most values, of a step of a pass without gradients: enough for the
# matrix products to run at full speed, few enough to bound the memory of wide layers
# and of wide sparse rows.
MOST_ROWS = 4096
MOST_VALUES = 2**22

# Rows stay in the memory of the CPU where they would take more of a GPU's: of all of it, so
# that several processes share it from the start, and of what these have left free.
MOST_OF_ALL = 8
MOST_OF_FREE = 2

# What torch says on every device where memory runs out, or no memory is that large.
NO_MEMORY = ("ried to allocate", "Storage size calculation overflowed")


def inference_rows(n_features: int) -> int:
    """Rows per step of a pass without gradients."""
    return max(1, min(MOST_ROWS, MOST_VALUES // n_features))


def resolve_device(device: str | torch.device) -> torch.device:
    """Turn the user's ``device`` into a device that exists.

    ``"auto"`` is CUDA if there is one, else the CPU. ``"mps"`` has to be asked
    for, since it computes in float32 only.
    """
    remedy = "Use device='auto' (CUDA if there is one, else CPU) or device='cpu'."
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError:
        raise ValueError(
            f"device={device!r} is not a device. Allowed are 'auto' and torch's names: "
            f"'cpu', 'cuda', 'cuda:0', 'mps'. {remedy}"
        ) from None
    found = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }
    if resolved.type not in found:
        raise ValueError(
            f"device={device!r} is not supported. Allowed are 'auto', 'cpu', 'cuda', "
            f"'cuda:<index>' and 'mps'. {remedy}"
        )
    if (resolved.index or 0) >= found[resolved.type]:
        raise ValueError(
            f"device={device!r} does not exist here: torch {torch.__version__} finds "
            f"{found[resolved.type]} device(s) of type {resolved.type!r}. {remedy}"
        )
    return resolved


def room_for_rows(device: torch.device) -> float:
    """How many bytes the rows of one call may take of a memory that processes share."""
    if device.type != "cuda":
        return float("inf")
    free, total = torch.cuda.mem_get_info(device)
    return min(total / MOST_OF_ALL, free / MOST_OF_FREE)


@contextmanager
def sharing_memory(device: str | torch.device) -> Iterator[None]:
    """A call on the user's ``device``, which other processes may use too.

    Memory that torch would keep for later is given back at the end. If it runs out, that
    is a `MemoryError` which says what to try.
    """
    try:
        yield
    except RuntimeError as error:
        # torch has a class for it on a GPU alone.
        if not any(sign in str(error) for sign in NO_MEMORY):
            raise
        raise MemoryError(
            f"The memory of device={str(device)!r} ran out. Try smaller hidden_layer_sizes, "
            "n_components or batch_size, fewer processes at a time (n_jobs), or device='cpu' in "
            f"place of a GPU. torch says: {str(error).splitlines()[0]}"
        ) from None
    finally:
        torch.cuda.empty_cache()


def compute_dtype(dtype: np.dtype, device: torch.device) -> torch.dtype:
    """The dtype to compute in: that of the rows, or float32 on mps."""
    if dtype == np.float32 or device.type == "mps":
        return torch.float32
    return torch.float64


def draw_seeds(random_state, n_seeds: int) -> list[int]:
    """Draw ``n_seeds`` integers up front, one for each independent part of a fit."""
    drawn = check_random_state(random_state).randint(np.iinfo(np.int32).max, size=n_seeds)
    return [int(seed) for seed in drawn]


def make_generator(seed: int) -> torch.Generator:
    """A generator on the CPU, so that a seed means the same on every device."""
    return torch.Generator().manual_seed(seed)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A NumPy array with the values of ``tensor``."""
    return tensor.detach().cpu().numpy()


def borrow(module: Module, device: torch.device) -> Module:
    """``module`` on ``device``: itself where it is there already, else a copy.

    Fitted modules rest on the CPU and may serve several threads at once, so
    they are never moved.
    """
    resting = next(module.parameters()).device
    if resting == device:
        return module
    return copy.deepcopy(module).to(device)


def rest_on_cpu(state: Any) -> Any:
    """A copy of a nested state with every tensor on the CPU."""
    if isinstance(state, Tensor):
        return state.detach().cpu().clone()
    if isinstance(state, dict):
        return {key: rest_on_cpu(value) for key, value in state.items()}
    if isinstance(state, list):
        return [rest_on_cpu(value) for value in state]
    return state
