"""A saved file, changed at random a thousand times: run as a process of its own.

    python fuzz_saved.py 1000 folder [seed]

Every file must be read as what was saved or refused with a ValueError that names it.
A file with a right checksum, forged as a whole, may also be read as another estimator.
Nothing may run code, take much memory or long, or end the process. The outcomes are
counted on standard output; the first that is none of these ends the process with 1.
"""

import copy
import json
import random
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import skaecm
from skaecm._documents import checksum

HEADER = 8
MEMORY = 2**30
SECONDS = 20.0

# What a mutation may put in the place of any value of the document.
ODD = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    1e308,
    -0.5,
    "",
    "x",
    "inf",
    "learned.labels_",
    [],
    {},
    [[[]]],
    {"float": "nan"},
    {"tuple": [1, {"tuple": 2}]},
    {"tensor": "network.alpha"},
    {"array": "learned.labels_"},
    {"scalar": "learned.labels_"},
    {"strings": ["a", "b"]},
    {"device": "cuda"},
    {"device": "meta"},
    {"RandomState": [[0] * 624, 10**6, 0, 0.0]},
    {"recipe": {"name": "MLPAutoencoder", "arguments": {"hidden_layer_sizes": 2**62}}},
    {"recipe": {"name": "system", "arguments": {}}},
    {"given again": "function system"},
    {"dict": {"a": {"array": "x"}}},
]

# What no reading may do. An import is allowed: Python imports its own parts late.
CODE = ("os.system", "os.exec", "subprocess.Popen", "pickle.find_class", "ctypes.dlopen", "compile")


class Forgery:
    """The content of a file, to be changed and written with a checksum that is right."""

    def __init__(self, path, content=None):
        from safetensors.numpy import load

        self.path = path
        self.content = path.read_bytes() if content is None else content
        length = int.from_bytes(self.content[:HEADER], "little")
        metadata = json.loads(self.content[HEADER : HEADER + length])["__metadata__"]
        self.document = json.loads(metadata["skaecm"])
        del self.document["sha256"]
        self.tensors = load(self.content)

    def write(self):
        """Write it as it now is."""
        from safetensors.numpy import save

        tensors = {name: torch.from_numpy(array) for name, array in self.tensors.items()}
        whole = self.document | {"sha256": checksum(self.document, tensors)}
        self.path.write_bytes(save(self.tensors, {"skaecm": json.dumps(whole)}))


def nodes(value, path=()):
    """The places of all values in a document."""
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in parts:
        yield (*path, key)
        if isinstance(part, dict | list):
            yield from nodes(part, (*path, key))


def change_node(document, rng):
    """Replace, remove or repeat one value somewhere in a document."""
    *path, last = rng.choice(list(nodes(document)))
    parent = document
    for key in path:
        parent = parent[key]
    kind = rng.random()
    if kind < 0.6:
        parent[last] = copy.deepcopy(rng.choice(ODD))
    elif kind < 0.8:
        del parent[last]
    elif isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
    else:
        parent[rng.choice(["x", "k", "labels_", "given again"])] = copy.deepcopy(parent[last])


def flip(content, rng, end):
    """Flip one to three bits in the first ``end`` bytes."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        content[rng.randrange(end)] ^= 1 << rng.randrange(8)
    return bytes(content)


def splice(content, rng):
    """Cut a piece out, put it elsewhere, or put random bytes there."""
    start, stop = sorted(rng.randrange(len(content)) for _ in range(2))
    place = rng.randrange(len(content))
    piece = content[start:stop] if rng.random() < 0.7 else rng.randbytes(rng.randint(1, 200))
    if rng.random() < 0.5:
        return content[:place] + piece + content[place:]
    return content[:place] + piece + content[place + len(piece) :]


def change_length(content, rng):
    """Say that the header is of another length."""
    length = rng.choice([0, 1, 2, 99, 10**8, 2**31, 2**63, 2**64 - 1, rng.randrange(len(content))])
    return length.to_bytes(HEADER, "little") + content[HEADER:]


def change_header(content, rng):
    """Change the JSON around the document: names, dtypes, shapes, offsets, metadata."""
    length = int.from_bytes(content[:HEADER], "little")
    header = json.loads(content[HEADER : HEADER + length])
    change_node(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(HEADER, "little") + text + content[HEADER + length :]


def forge_document(path, content, rng):
    """Change the document, and make the checksum right."""
    forgery = Forgery(path, content)
    for _ in range(rng.randint(1, 2)):
        change_node(forgery.document, rng)
    forgery.write()


def forge_tensors(path, content, rng):
    """Change a tensor's shape, dtype, name or values, and make the checksum right."""
    forgery = Forgery(path, content)
    name = rng.choice(sorted(forgery.tensors))
    array = forgery.tensors.pop(name)
    kind = rng.randrange(6)
    if kind == 0:
        forgery.tensors[name + rng.choice("x.0")] = array
    elif kind == 1:
        forgery.tensors[name] = array.astype(rng.choice(["f2", "f4", "f8", "i8", "u1", "bool"]))
    elif kind == 2:
        forgery.tensors[name] = array.reshape(*array.shape, 1)
    elif kind == 3:
        forgery.tensors[name] = np.concatenate([array.ravel()] * 2)
    elif kind == 4:
        odd = rng.randbytes(array.nbytes)
        forgery.tensors[name] = np.frombuffer(odd, dtype=array.dtype).reshape(array.shape).copy()
    forgery.write()


def mutate(path, content, rng):
    """Write a mutation of ``content``; whether its checksum was made right."""
    length = int.from_bytes(content[:HEADER], "little")
    kind = rng.randrange(9)
    if kind == 0:
        path.write_bytes(flip(content, rng, len(content)))
    elif kind == 1:
        path.write_bytes(flip(content, rng, HEADER + length))
    elif kind == 2:
        path.write_bytes(content[: rng.randrange(len(content))])
    elif kind == 3:
        path.write_bytes(splice(content, rng))
    elif kind == 4:
        path.write_bytes(change_length(content, rng))
    elif kind == 5:
        path.write_bytes(change_header(content, rng))
    elif kind in (6, 7):
        forge_document(path, content, rng)
    else:
        forge_tensors(path, content, rng)
    return kind >= 6


def what_ran():
    """A list that grows when the interpreter is asked for what no file may ask for."""
    seen = []
    sys.addaudithook(lambda event, args: seen.append(event) if event in CODE else None)
    return seen


def main(n_mutations, folder, seed=0):
    from helpers import BOTH, blobs, quick
    from test_persistence import assert_same

    X, _ = blobs()
    rng = random.Random(seed)
    path = Path(folder) / "fuzzed"
    models, files = [], []
    for cls in BOTH:
        model = quick(cls, alpha=np.ones(3), random_state=np.random.RandomState(0))
        models.append(model.fit(X).partial_fit(X))
        skaecm.save(model, path)
        files.append(path.read_bytes())
        assert_same(skaecm.load(path), model)
    outcomes: dict[str, int] = {}
    ran = what_ran()
    before = peak_memory()
    for i in range(n_mutations):
        forged = mutate(path, files[i % 2], rng)
        ran.clear()
        start = time.perf_counter()
        found = None
        try:
            found = skaecm.load(path)
        except ValueError as error:
            outcome = "named" if str(error).startswith(f"{path}: ") else f"unnamed: {error}"
        else:
            outcome = "forged and read"
            if not forged:
                assert_same(found, models[i % 2])
                outcome = "equal"
        seconds = time.perf_counter() - start
        if (
            outcome.startswith("unnamed")
            or ran
            or seconds > SECONDS
            or peak_memory() - before > MEMORY
        ):
            sys.exit(f"mutation {i} of seed {seed}: {outcome}, {seconds:.1f} s, {ran}")
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        if found is not None:
            use(found, X)
    print(json.dumps(outcomes))


def peak_memory():
    """Bytes that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def use(estimator, X):
    """What a forged estimator does when used is an exception at worst."""
    for method in (estimator.predict, estimator.partial_fit):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                method(X)
        except Exception:
            pass


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:]))
