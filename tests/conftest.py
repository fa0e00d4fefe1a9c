"""Fixtures of the whole suite: the seed, the dtype and the estimator classes."""

import os

import numpy as np
import pytest
from helpers import BOTH


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
