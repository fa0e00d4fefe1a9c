"""Values as JSON and tensors, and back: a closed set of kinds, none of which is code.

Plain JSON values stand for themselves. Everything else is an object with one key,
which names its kind; what has bytes is a tensor, and the object holds its name.
"""

import dataclasses
import math
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from .autoencoders import ConvolutionalAutoencoder, MLPAutoencoder

RECIPES = {cls.__name__: cls for cls in (MLPAutoencoder, ConvolutionalAutoencoder)}

# Words of the state of a Mersenne twister; a larger position would read beyond them.
TWISTER_WORDS = 624


class Refusal(Exception):
    """Why a file is not read: a sentence for the user that is complete as it is."""


class NotKept(TypeError):
    """A value is of a kind that a file cannot hold."""


@final
class Writer:
    """Turns values into JSON, and collects their tensors under names of their own.

    An array that comes twice is written once, and is one array again when read.
    """

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._written: dict[int, tuple[Any, dict[str, Any]]] = {}

    def encode(self, value: Any, name: str) -> Any:
        """``value`` as JSON; ``name`` is that of its tensor, or the root of several.

        Raises
        ------
        NotKept
            If the value, or one inside it, is of no known kind.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is np.str_:
            return str(value)
        if type(value) is float:
            return value if math.isfinite(value) else {"float": str(value)}
        if type(value) is list:
            return self._items(value, name)
        if type(value) is tuple:
            return {"tuple": self._items(value, name)}
        if type(value) is dict and all(type(key) is str for key in value):
            return {
                "dict": {key: self.encode(part, f"{name}.{key}") for key, part in value.items()}
            }
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, np.random.RandomState):
            state = value.get_state(legacy=False)
            if state["bit_generator"] != "MT19937":
                raise NotKept(f"{name} holds a RandomState of {state['bit_generator']}")
            key, position = state["state"]["key"].tolist(), state["state"]["pos"]
            return {"RandomState": [key, position, state["has_gauss"], state["gauss"]]}
        if type(value) in RECIPES.values():
            arguments = {
                field.name: self.encode(getattr(value, field.name), f"{name}.{field.name}")
                for field in dataclasses.fields(value)
            }
            return {"recipe": {"name": type(value).__name__, "arguments": arguments}}
        if isinstance(value, Tensor) or type(value) is np.ndarray or isinstance(value, np.generic):
            return self._array(value, name)
        raise NotKept(f"{name} holds a {describe(value)}, which a file cannot hold")

    def _items(self, values: Any, name: str) -> list[Any]:
        return [self.encode(value, f"{name}.{i}") for i, value in enumerate(values)]

    def _array(self, value: Any, name: str) -> dict[str, Any]:
        if id(value) in self._written:
            return self._written[id(value)][1]
        if isinstance(value, Tensor):
            kind, tensor = "tensor", value.detach()
        elif value.dtype == object:
            if value.ndim != 1 or not all(type(part) in (str, np.str_) for part in value):
                raise NotKept(f"{name} holds an array of objects, which a file cannot hold")
            return {"strings": [str(part) for part in value]}
        else:
            kind = "array" if isinstance(value, np.ndarray) else "scalar"
            try:
                tensor = torch.from_numpy(np.array(value, order="C"))
            except (TypeError, ValueError):
                raise NotKept(f"{name} is of {value.dtype}, which a file cannot hold") from None
        self.add(tensor, name)
        code = {kind: name}
        # The value is kept beside its id, which could else become that of another.
        self._written[id(value)] = value, code
        return code

    def add(self, tensor: Tensor, name: str) -> None:
        """Write a copy of ``tensor`` under ``name``."""
        assert name not in self.tensors
        self.tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


@final
class Reader:
    """Turns the JSON and the tensors of a `Writer` into values again.

    Whatever does not look as if a `Writer` wrote it is a ValueError.
    """

    def __init__(self, tensors: dict[str, Tensor]):
        self.tensors = tensors
        self.unread = set(tensors)
        self._read: dict[str, Any] = {}

    def decode(self, code: Any) -> Any:
        """The value that ``code`` stands for."""
        if code is None or isinstance(code, bool | int | float | str):
            return code
        if isinstance(code, list):
            return [self.decode(part) for part in code]
        if not isinstance(code, dict) or len(code) != 1:
            raise ValueError(f"{code!r} is no value")
        ((kind, part),) = code.items()
        match kind:
            case "float" if part in ("inf", "-inf", "nan"):
                return float(part)
            case "tuple" if isinstance(part, list):
                return tuple(self.decode(part))
            case "dict" if isinstance(part, dict):
                return {key: self.decode(value) for key, value in part.items()}
            case "device" if isinstance(part, str):
                return torch.device(part)
            case "strings" if isinstance(part, list) and all(isinstance(s, str) for s in part):
                return np.array(part, dtype=object)
            case "RandomState" if isinstance(part, list) and len(part) == 4:
                return random_state(*part)
            case "recipe" if isinstance(part, dict) and part.get("name") in RECIPES:
                recipe = RECIPES[part["name"]]
                arguments = {name: self.decode(value) for name, value in part["arguments"].items()}
                return recipe(**arguments)
            case "tensor" | "array" | "scalar" if isinstance(part, str):
                return self._array(kind, part)
        raise ValueError(f"{kind!r} is no kind of value, or not with {part!r}")

    def _array(self, kind: str, name: str) -> Any:
        key = f"{kind} {name}"
        if key not in self._read:
            tensor = self.take(name)
            if kind == "scalar" and tensor.ndim:
                raise ValueError(f"{name} is no scalar")
            if kind != "tensor":
                self._read[key] = tensor.numpy()[()] if kind == "scalar" else tensor.numpy()
            else:
                self._read[key] = tensor
        return self._read[key]

    def take(self, name: str) -> Tensor:
        """The tensor of this name, in memory of its own."""
        if name not in self.tensors:
            raise ValueError(f"the tensor {name!r} is missing")
        self.unread.discard(name)
        return self.tensors[name].clone()


def random_state(key: Any, position: Any, has_gauss: Any, gauss: Any) -> np.random.RandomState:
    """A RandomState in this state, which numpy itself does not check in full."""
    words = np.array(key, dtype=np.uint32)
    if (
        words.shape != (TWISTER_WORDS,)
        or type(position) is not int
        or not 0 <= position <= TWISTER_WORDS
        or has_gauss not in (0, 1)
        or type(gauss) is not float
    ):
        raise ValueError("no state of a RandomState")
    random = np.random.RandomState()
    random.set_state(("MT19937", words, position, has_gauss, gauss))
    return random


def describe(value: Any) -> str:
    """What a value is, in few words: "function shaken", "KMeans"."""
    kind = type(value).__name__
    name = getattr(value, "__name__", None)
    return f"{kind} {name}" if isinstance(name, str) else kind
