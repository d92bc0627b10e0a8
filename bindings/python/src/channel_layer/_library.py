"""Finds and loads the shared library, and turns its errors into exceptions."""

from __future__ import annotations

import ctypes
import numbers
import os
from pathlib import Path

from . import _declarations
from ._unique import Unique
from .errors import ChannelLayerError, InvalidError, Status, error_of

NAME = "libchannel_layer.so.0"
DEFAULT_TIMEOUT = 10.0  # seconds

# These can wait for a while, or for a callback that another thread runs: the interpreter's lock is
# released around them. All others take microseconds and wait for no callback, so that releasing
# and taking the lock would only cost.
WAITING = (
    "layer_send",
    "layer_send_json",
    "layer_group_send",
    "layer_group_send_json",
    "layer_group_add",
    "layer_wait_ready",
    "layer_config_check",
    "layer_new",
    "layer_close",
    "layer_free",
    "layer_receive_cancel",
)
# These are called in both ways: without a wait, and with one.
BOTH = ("layer_poll", "layer_receive_next")


def refuse_subinterpreter() -> None:
    """Callbacks from C find their interpreter by their thread, which is the main one: ctypes would
    hang or crash in another."""
    current, main = (
        ctypes.PYFUNCTYPE(ctypes.c_void_p)((f"PyInterpreterState_{name}", ctypes.pythonapi))
        for name in ("Get", "Main")
    )
    if current() != main():
        raise ImportError(
            "channel_layer cannot be used in a subinterpreter, only in the main interpreter of a "
            "process (with mod_wsgi: WSGIApplicationGroup %{GLOBAL})"
        )


def candidates():
    """Where the library may be: as the environment says, in the package, in the system."""
    given = os.environ.get("CHANNEL_LAYER_LIBRARY")
    if given:
        path = Path(given)
        return [str(path / NAME if path.is_dir() else path)]
    packaged = Path(__file__).with_name(NAME)
    return [str(packaged)] if packaged.exists() else [NAME]


def load():
    problems = []
    for path in candidates():
        try:
            return path, ctypes.PyDLL(path), ctypes.CDLL(path)
        except OSError as problem:
            problems.append(str(problem))
    raise ImportError(
        f"channel_layer: cannot load {NAME}: {'; '.join(problems)}. Install the wheel that holds "
        "it or the library itself, or name its file or folder in CHANNEL_LAYER_LIBRARY"
    )


refuse_subinterpreter()
path, quick, waiting = load()
_declarations.declare(quick, [n for n in _declarations.FUNCTIONS if n not in WAITING])
_declarations.declare(waiting, WAITING + BOTH)

if quick.layer_abi_version() != _declarations.CONSTANTS["LAYER_ABI_VERSION"]:
    raise ImportError(
        f"channel_layer: {path} has ABI {quick.layer_abi_version()}, and this package is made for "
        f"{_declarations.CONSTANTS['LAYER_ABI_VERSION']}"
    )


def version() -> str:
    """The version of the library that is loaded, as "0.1.0"."""
    return quick.layer_version().decode()


def status_name(status: int) -> str:
    """The name of a status, as "LAYER_FULL"."""
    return quick.layer_status_name(status).decode()


class Failure(Unique):
    """Where a C call puts its error: a pointer to hand in, and the exception made from it."""

    __slots__ = ("at", "cell")

    def __init__(self) -> None:
        self.cell = ctypes.c_void_p()
        self.at = ctypes.byref(self.cell)

    def error(self, status: int) -> ChannelLayerError:
        """The exception for a call that has failed; the C error is freed."""
        error = self.cell.value
        if not error:
            return error_of(status, status_name(status))
        text = quick.layer_error_message(error).decode("utf-8", "replace")
        quick.layer_error_free(error)
        self.cell.value = None
        return error_of(status, text)


def lent_error(status: int, error) -> ChannelLayerError:
    """The exception for an error that is only lent, to a `done` callback."""
    text = quick.layer_error_message(error).decode("utf-8", "replace") if error else ""
    return error_of(status, text or status_name(status))


def check(status: int, failure: Failure) -> None:
    if status != Status.OK:
        raise failure.error(status)


def text(value, what: str) -> bytes:
    """A string for C. A NUL would end it early there, so that it is refused here."""
    if not isinstance(value, str):
        raise TypeError(f"{what} must be a str, not {type(value).__name__}")
    try:
        encoded = value.encode()
    except UnicodeEncodeError as problem:
        raise InvalidError(f"{what} {value!r} is not valid Unicode: {problem}") from None
    if b"\0" in encoded:
        raise InvalidError(f"{what} {value!r} has a NUL in it")
    return encoded


def callable_or_none(given, what: str):
    """A function of the user's, or None where there is none."""
    if given is not None and not callable(given):
        raise TypeError(f"{what} is a function, not {type(given).__name__}: {given!r}")
    return given


def milliseconds(seconds) -> int:
    """A timeout in seconds as C takes it; rounded up, so that no wait is cut to none."""
    if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
        raise TypeError(
            f"timeout is a number of seconds, not {type(seconds).__name__}: {seconds!r}"
        )
    if not seconds >= 0:  # as NaN is not
        raise InvalidError(f"timeout is a number of seconds, 0 or more, not {seconds!r}")
    return min(int(-(-seconds * 1000 // 1)), 0xFFFFFFFF) if seconds < 1e7 else 0xFFFFFFFF
