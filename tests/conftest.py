"""Fixtures of the whole suite: the seed, the dtype and the estimator classes."""

import os
from importlib.util import find_spec

import numpy as np
import pytest
from helpers import BOTH, PARTNERS

# Libraries that only extras bring.
EXTRAS = ("onnx", "onnxruntime", "pandas", "pyarrow", "safetensors", "tqdm")

# A script that is no test, looked at for doctests where its libraries are installed.
collect_ignore = [] if find_spec("hypothesis") and find_spec("pandas") else ["fuzz_fits.py"]


def pytest_collection_modifyitems(items):
    """The example of a docstring that names a library runs where that is installed."""
    missing = [name for name in EXTRAS if find_spec(name) is None]
    for item in items:
        if isinstance(item, pytest.DoctestItem) and item.path.suffix == ".py":
            for name in missing:
                if name in item.dtest.docstring:
                    item.add_marker(pytest.mark.skip(reason=f"needs {name}"))


@pytest.fixture
def seed():
    """A seed that every test must pass with, whichever it is (SKAECM_TEST_SEED)."""
    return int(os.environ.get("SKAECM_TEST_SEED", "0"))


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    """Both dtypes that a fit keeps."""
    return request.param


@pytest.fixture(params=BOTH, ids=lambda cls: cls.__name__)
def cls(request):
    """Both estimators."""
    return request.param


@pytest.fixture(params=PARTNERS)
def partners(request):
    """Parameters that give rows partners, of every kind."""
    return PARTNERS[request.param]
