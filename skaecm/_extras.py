"""Packages that only some need: imported when they are, or the sentence that installs them."""

from importlib import import_module
from typing import Any


def command(extra: str) -> str:
    """What installs an extra, in any shell."""
    return f'pip install "skaecm[{extra}]"'


def need(module: str, extra: str, who: str) -> Any:
    """The module that ``who`` needs; ImportError that says what to install if it is missing."""
    try:
        return import_module(module)
    except ImportError:
        package = module.partition(".")[0]
        raise ImportError(f"{who} needs {package}. Install it with {command(extra)}.") from None
