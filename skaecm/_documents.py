"""A document of JSON, its tensors and a checksum as one safetensors file; and back.

The tensors are all that has bytes. The header of the file holds the document, under the
name of what wrote it. Reading executes no code.
"""

import hashlib
import json
import os
from typing import Any

import numpy as np
import sklearn
import torch
from torch import Tensor

from ._extras import need
from ._values import Refusal
from ._version import __version__


def versions() -> dict[str, str]:
    """Who writes a file."""
    return {
        "skaecm": __version__,
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
    }


def checksum(document: dict[str, Any], tensors: dict[str, Tensor]) -> str:
    """SHA-256 of a document and of tensors with their names and shapes."""
    digest = hashlib.sha256(json.dumps(document, allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # One without values may have strides that allow no view.
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pack(document: dict[str, Any], tensors: dict[str, Tensor], *, mark: str, writer: str) -> bytes:
    """The bytes of a file; ``mark`` names the document in it, ``writer`` who needs it."""
    safetensors = need("safetensors.torch", "persistence", writer)
    whole = document | {"sha256": checksum(document, tensors)}
    return safetensors.save(tensors, {mark: json.dumps(whole)})


def unpack(
    path, *, mark: str, writer: str, reader: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The document and the tensors of a file that ``writer`` wrote; `verify` them."""
    safetensors = need("safetensors", "persistence", reader)
    open(path, "rb").close()  # An OSError, if any, is that of Python.
    try:
        with safetensors.safe_open(os.fspath(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if mark not in metadata:
                raise Refusal(
                    f"this safetensors file was written by another program, not by {writer}."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        # The file can be opened, so its content is what the system does not like.
        raise ValueError(error) from None
    document = json.loads(metadata[mark], parse_constant=no_number, object_pairs_hook=unique_keys)
    return document, tensors


def verify(document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Take the checksum out of a document; raise if it is not that of the content."""
    if document.pop("sha256") != checksum(document, tensors):
        raise ValueError("its content does not have its checksum")


def no_number(constant: str) -> Any:
    """JSON has no NaN and no infinities."""
    raise ValueError(f"{constant} is not JSON")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, no key of which comes twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found
