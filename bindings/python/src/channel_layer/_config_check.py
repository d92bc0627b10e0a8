"""Checks the options of a layer before one is opened."""

from __future__ import annotations

import os

from ._handle import Config
from ._hooks import Hooks
from .errors import InvalidError

# Two values that no option takes whose values are restricted at all.
BAD_VALUES = ("?1", "?22")
FILES = ("tls_ca_file", "tls_cert_file", "tls_key_file")


def check_names(options) -> None:
    """Raises the error for an option that does not exist."""
    for name in options:
        if not _exists(name):
            _set(name, "")  # which says so, and what there is


def check_values(options: dict) -> None:
    """Raises the error for a value that is not allowed, or for options that contradict each other;
    those that are None are left out."""
    options = {name: value for name, value in options.items() if value is not None}
    for name, value in options.items():
        _set(name, value)
    if str(options.get("dispatch", "poll")) != "poll":
        raise InvalidError("option dispatch: only `poll` is possible in Python")
    _check_tls(options)


def _set(name: str, value) -> None:
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


def _check_tls(options: dict) -> None:
    """What the library looks at when a layer is opened."""
    given = [name for name in options if name.startswith("tls_") and str(options[name])]
    if ("tls_cert_file" in given) != ("tls_key_file" in given):
        raise InvalidError(
            "options tls_cert_file and tls_key_file: only one of them is set; set both, or neither "
            "for no client certificate"
        )
    hosts = [each.strip().lower() for each in str(options.get("host", "")).split(",")]
    if given and not any(each.startswith(("amqps:", "memory:")) for each in hosts):
        raise InvalidError(
            f"options {', '.join(given)}: set, but no URL of option host begins with amqps://, so "
            "that nothing would be encrypted; write amqps://, or leave them out"
        )
    for name in FILES:
        if name in given:
            try:
                os.close(os.open(options[name], os.O_RDONLY | os.O_CLOEXEC))
            except OSError as error:
                raise InvalidError(
                    f"option {name}: cannot open {os.fspath(options[name])!r}: {error.strerror}"
                ) from error
