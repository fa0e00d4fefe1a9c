"""The plan of the house: imports run one way, files stay small, importing stays light."""

import ast
import subprocess
import sys

import pytest
from helpers import ROOT

PACKAGE = ROOT / "skaecm"

# Each room and what it may import inside the package, from the ground up. A new
# file needs a line here; doc/contributing.rst says what each room owns.
ROOMS = {
    "_version": set(),
    "_extras": set(),
    "_losses": set(),
    "_tensors": set(),
    "_missing": set(),
    "_mixtures": {"_missing"},
    "autoencoders": set(),
    "_ranks": set(),
    "_rows": {"_ranks", "_tensors"},
    "_shares": {"_ranks", "_rows", "_tensors"},
    "_blocks": set(),
    "_block_rows": {"_blocks", "_rows", "_tensors"},
    "_augmentation": set(),
    "_kmeans": set(),
    "_graph": {"_extras"},
    "_steps": {"_ranks", "_rows"},
    "_training": {"_rows", "_steps", "_tensors"},
    "_initialization": {"_kmeans", "_missing", "_mixtures"},
    "_cuts": {"_graph", "_initialization", "_kmeans"},
    "_resizing": {"_initialization", "_kmeans", "_mixtures"},
    "_valleys": {"_graph", "_initialization", "_kmeans"},
    "_modules": {"_losses", "_ranks", "_rows", "_steps"},
    "_checks": {"_ranks", "_rows", "_shares"},
    "_partners": {
        "_augmentation",
        "_block_rows",
        "_checks",
        "_graph",
        "_missing",
        "_rows",
        "_tensors",
        "autoencoders",
    },
    "_pretraining": {"_blocks", "_modules", "_rows", "_tensors", "_training", "autoencoders"},
    "_progress": {"_ranks", "_training"},
    "_fitted": {
        "_block_rows",
        "_blocks",
        "_checks",
        "_extras",
        "_graph",
        "_missing",
        "_mixtures",
        "_ranks",
        "_rows",
        "_shares",
        "_tensors",
        "_training",
    },
}
ROOMS |= {
    "_data": {
        "_block_rows",
        "_kmeans",
        "_losses",
        "_missing",
        "_modules",
        "_partners",
        "_rows",
        "_shares",
        "_tensors",
        "_valleys",
    },
    "_files": set(),
    "_values": {"autoencoders"},
    "_stored_network": {"_modules", "_pretraining", "_tensors", "_training", "_values"},
    "_documents": {"_extras", "_values", "_version"},
    "_identity": {"_rows", "_tensors"},
    "_checkpoint": {
        "_documents",
        "_extras",
        "_files",
        "_modules",
        "_ranks",
        "_stored_network",
        "_tensors",
        "_training",
        "_values",
        "_version",
    },
}
ROOMS["_learned"] = {"_data", "_mixtures", "_modules", "_tensors", "_training"}
ROOMS["_runs"] = {"_block_rows", "_data", "_modules", "_progress", "_rows", "_training"}
ROOMS["_base"] = ROOMS.keys() - {
    "_version",
    "_extras",
    "_files",
    "_values",
    "_stored_network",
    "_documents",
    "_losses",
    "_pretraining",
    "_augmentation",
    "autoencoders",
}
BELOW = {"_base", *ROOMS["_base"], "_pretraining", "autoencoders"}
ROOMS |= {
    "_clustering_module": BELOW - {"_pretraining", "autoencoders"},
    "_deep_start": {
        "_checks",
        "_cuts",
        "_data",
        "_graph",
        "_initialization",
        "_mixtures",
        "_modules",
        "_partners",
        "_pretraining",
        "_progress",
        "_rows",
        "_tensors",
        "_training",
        "_valleys",
    },
    "_likelihood": {"_mixtures", "_modules", "_rows", "_tensors"},
    "_modularity": {"_graph"},
    "_deep_fitted": {
        "_block_rows",
        "_blocks",
        "_checks",
        "_fitted",
        "_likelihood",
        "_missing",
        "_modularity",
        "_rows",
        "_shares",
        "_tensors",
        "_training",
    },
    "_deep_clustering": BELOW | {"_deep_fitted", "_deep_start"},
    "_onnx": {"_base", "_extras", "_files", "_modules"},
    "_persistence": {
        "_clustering_module",
        "_deep_clustering",
        "_documents",
        "_extras",
        "_files",
        "_modules",
        "_stored_network",
        "_tensors",
        "_values",
        "_version",
    },
    "__init__": {
        "_checkpoint",
        "_clustering_module",
        "_deep_clustering",
        "_onnx",
        "_persistence",
        "_version",
    },
}

# These talk to estimators through public names alone, and no room above knows them.
PUBLIC = {"skaecm", "autoencoders", "_version"}
GUESTS = {
    "metrics": PUBLIC | {"_modularity"},
    "inspection": PUBLIC,
    "selection": PUBLIC,
    "_tables": {"_extras"},
    "datasets": PUBLIC | {"_tables"},
    "plotting._style": {"_extras"},
    "plotting._fits": {"plotting._style"},
    "plotting._embedding": {"plotting._style"},
    "plotting._centers": {"plotting._style"},
    "plotting._labels": {"plotting._style", "metrics"},
    "plotting": {
        "plotting._fits",
        "plotting._embedding",
        "plotting._centers",
        "plotting._labels",
    },
    "_compare": PUBLIC | {"metrics", "datasets", "plotting"},
    "_outputs": set(),
    "_verbs": PUBLIC
    | {"metrics", "datasets", "plotting", "_extras", "_tables", "_compare", "_outputs"},
    "__main__": PUBLIC | {"datasets", "_compare", "_extras", "_outputs", "_verbs"},
}
ALLOWED = ROOMS | GUESTS

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path):
    """The file's dotted name; a folder's own, as "plotting", is that of its __init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def folder_of(path):
    """The folders of the package that a file is in, from the outermost."""
    return path.relative_to(PACKAGE).parts[:-1]


def imports(tree, folder=()):
    """Rooms that a file imports, wherever in it; "skaecm" for the package's own names."""
    files = {room_of(path) for path in FILES}

    def room(parts):
        """The room of a dotted name, which may go on with a name inside the room."""
        found = [i for i in range(1, len(parts) + 1) if ".".join(parts[:i]) in files]
        return ".".join(parts[: found[-1]]) if found else parts[0]

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                parts = alias.name.split(".")
                if parts[0] == "skaecm":
                    yield room(parts[1:]) if len(parts) > 1 else "skaecm"
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".")
            if node.level == 0 and parts[0] != "skaecm":
                continue
            above = folder[: len(folder) + 1 - node.level] if node.level else ()
            inside = [*above, *(parts[1:] if node.level == 0 else [p for p in parts if p])]
            if inside:
                yield from (room([*inside, name.name]) for name in node.names)
            else:
                yield from (name.name if name.name in files else "skaecm" for name in node.names)


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=room_of)
def test_imports_run_one_way(path):
    room = room_of(path)
    assert room in ALLOWED, f"{room} has no line in the table of rooms"
    wrong = set(imports(tree_of(path), folder_of(path))) - ALLOWED[room]
    assert not wrong, f"{room} may not import {sorted(wrong)}"


def test_the_table_is_one_way():
    """Every room stands above all it may import."""
    order = [*ROOMS, *GUESTS]
    for room, below in ALLOWED.items():
        assert all(order.index(name) < order.index(room) for name in below - {"skaecm"}), room
    assert not set(GUESTS) & set().union(*ROOMS.values())


def test_the_table_names_what_is_there():
    """No line outlives its file."""
    assert set(ALLOWED) <= {room_of(path) for path in FILES}


def test_imports_are_seen():
    """The parser above sees every way to write an import, also inside a function."""
    source = """
from . import _losses
from ._rows import Rows
from skaecm import ClusteringModuleGMM
from skaecm._base import Data
import skaecm._mixtures as mixtures
import skaecm
import numpy

def later():
    from ._training import Training
"""
    expected = ["_losses", "_rows", "skaecm", "_base", "_mixtures", "skaecm", "_training"]
    assert list(imports(ast.parse(source))) == expected


def test_imports_in_a_folder_are_seen():
    source = """
from . import _style
from ._style import cluster_colors
from ..metrics import clustering_accuracy
from .. import ClusteringModuleGMM, _base
from ..plotting._style import Display
from skaecm.plotting import EmbeddingDisplay
import skaecm.plotting._style
"""
    style = "plotting._style"
    expected = [style, style, "metrics", "skaecm", "_base", style, "plotting", style]
    assert list(imports(ast.parse(source), ("plotting",))) == expected


@pytest.mark.parametrize("path", FILES, ids=room_of)
def test_files_are_small_and_say_what_they_own(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 600
    assert ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("room", ["_losses", "_rows", "_training", "_modules", "autoencoders"])
def test_torch_rooms_do_not_know_the_estimators_of_sklearn(room):
    assert "sklearn" not in (PACKAGE / f"{room}.py").read_text().replace("sklearn.preproc", "")


def test_importing_is_light():
    """No plotting and no extras come with the package, no data frames but those of sklearn."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import sklearn.cluster, torch\n"
        "before = set(sys.modules); import skaecm, skaecm.autoencoders\n"
        "heavy = {'matplotlib', 'pandas', 'polars', 'IPython', 'safetensors', 'onnx'}\n"
        "heavy &= set(sys.modules) - before\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import skaecm\n"
        "assert all(hasattr(skaecm, name) for name in skaecm.__all__)\n"
        "assert {'ClusteringModuleGMM', 'DeepAEClustering', '__version__'} <= set(skaecm.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
