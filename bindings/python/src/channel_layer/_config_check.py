"""Finds options that do not exist, whatever their values are."""

from __future__ import annotations

from ._handle import Config
from ._hooks import Hooks
from .errors import InvalidError

# Two values that no option takes whose values are restricted at all.
BAD_VALUES = ("?1", "?22")


def check_names(options) -> None:
    """Raises the error for an option that does not exist."""
    for name in options:
        if not _exists(name):
            _set(name, "")  # which says so, and what there is


def _set(name: str, value: str) -> None:
    Config({name: value}, Hooks(None, None, None))


def _error_text(name: str, value: str):
    try:
        _set(name, value)
    except InvalidError as error:
        return str(error)
    return None


def _exists(name: str) -> bool:
    """The error for a value that is not allowed names it; that for an unknown name does not."""
    first, second = (_error_text(name, value) for value in BAD_VALUES)
    return first is None or first != second
