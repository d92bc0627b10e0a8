"""`Handle`: who owns an open C layer, and `Config`, who owns the options for one."""

from __future__ import annotations

import collections
import ctypes
import os
import sys

from . import _callbacks
from ._callbacks import call_c, is_in_c, keep_interruption, raise_interruption
from ._hooks import Hooks
from ._library import DEFAULT_TIMEOUT, Failure, check, quick, text, waiting
from ._process import identity
from ._unique import Unique
from .errors import InvalidError, Status

ENDED = frozenset(map(int, (Status.CLOSED, Status.FORKED, Status.INVALID)))  # freed is INVALID
MAY_WAIT = frozenset(map(int, (Status.OK, Status.TIMEOUT, Status.REFUSED)))
POLL_BATCH = 256  # callbacks in one turn of an event loop, so that its other tasks get theirs


def option_text(name: str, value) -> str:
    """An option as C takes it: text, numbers, paths."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float, os.PathLike)):
        raise TypeError(
            f"option {name} is a str, a number or a path, not {type(value).__name__}: {value!r}"
        )
    if isinstance(value, float) and abs(value) < 1e300:  # not as 1e-05; nan and inf are refused
        return f"{value:.9f}".rstrip("0").rstrip(".")
    return str(os.fspath(value) if isinstance(value, os.PathLike) else value)


def polled(options: dict) -> dict:
    """Options as the library gets them: those that are None keep their defaults, and callbacks are
    run by Python's own threads."""
    options = {name: value for name, value in options.items() if value is not None}
    if str(options.setdefault("dispatch", "poll")) != "poll":
        raise InvalidError("option dispatch: only `poll` is possible in Python")
    return options


class Config(Unique):
    """Owns a C config."""

    __slots__ = ("pointer",)

    def __init__(self, options, hooks: Hooks) -> None:
        self.pointer = quick.layer_config_new()
        if not self.pointer:
            raise MemoryError
        for name, value in options.items():
            self._set(text(name, "option"), text(option_text(name, value), f"option {name}"))
        self._call_back(quick.layer_config_on_state, _callbacks.STATE, hooks)
        if hooks.on_log is not None:
            self._call_back(quick.layer_config_on_log, _callbacks.LOG, hooks)
        if hooks.on_isolation is not None:
            self._call_back(quick.layer_config_on_isolation, _callbacks.ISOLATION, hooks)

    def _set(self, name: bytes, value: bytes) -> None:
        failure = Failure()
        check(quick.layer_config_set(self.pointer, name, value, failure.at), failure)

    def _call_back(self, function, callback, hooks: Hooks) -> None:
        failure = Failure()
        check(function(self.pointer, callback, hooks.token, None, failure.at), failure)

    def check(self) -> None:
        """Raises what opening a layer with it would raise."""
        failure = Failure()
        check(waiting.layer_config_check(self.pointer, failure.at), failure)

    def __del__(self, free=quick.layer_config_free) -> None:
        pointer, self.pointer = self.pointer, None
        free(pointer)


class Handle(Unique):
    """Owns a C layer and with it its descriptor; what works on the layer refers to this.

    The C layer is freed once nobody can reach this, so that no thread can be inside a call on it or
    about to make one.
    """

    def __init__(self, options: dict, hooks: Hooks, default=None) -> None:
        self._cell = ctypes.c_void_p()
        options = polled(options)
        config, failure = Config(options, hooks), Failure()
        status = waiting.layer_new(config.pointer, ctypes.byref(self._cell), failure.at)
        check(status, failure)
        self.pointer = self._cell.value
        self.hooks = hooks  # they live as long as C may call them
        self.default = default  # converts what MessagePack does not have, or is None
        self.fd = quick.layer_fd(self.pointer)
        self.process = identity()
        self.timeout = float(options.get("timeout", DEFAULT_TIMEOUT))  # of sends, in seconds
        self._put_back = {}  # channel: messages that were taken and reached nobody

    def __del__(self, finalizing=sys.is_finalizing) -> None:
        # Of garbage that refers to itself other finalizers may follow, as of a coroutine that was
        # never finished: they then hand NULL to C, which refuses it.
        layer, self._cell.value = self._cell.value, None
        self.pointer = None
        if layer is not None and not finalizing():  # at exit the system does it, at once
            # What a finalizer raises the interpreter ignores: what a hook raises is left for this
            # thread's next call, and what a signal's handler raises is too.
            try:
                call_c(waiting.layer_close, layer, 0, None)
            except BaseException as problem:
                keep_interruption(problem)
            try:
                call_c(waiting.layer_free, layer)
            except BaseException as problem:
                keep_interruption(problem)

    def run_due(self) -> bool:
        """Runs callbacks that are due, on this thread; False where nothing will ever be due again:
        closed, or from before a fork."""
        status = call_c(quick.layer_poll, self.pointer, POLL_BATCH, 0, None, None)
        raise_interruption()
        return status not in ENDED

    def must_not_wait(self) -> bool:
        """Whether C decides what a call that blocks does on this thread: in a callback, where it
        refuses to wait, also in a signal's handler or a finalizer that interrupts one."""
        # These run after the last callback too, where C waits; and of a closed layer C does not say
        # where it is called.
        return is_in_c() and waiting.layer_wait_ready(self.pointer, 1, None) not in MAY_WAIT

    def check_may_wait(self) -> None:
        """Raises `WouldDeadlockError` where C refuses to wait on this thread."""
        failure = Failure()
        status = waiting.layer_wait_ready(self.pointer, 1, failure.at)
        error = None if status == Status.OK else failure.error(status)  # which frees it in C
        if status == Status.WOULD_DEADLOCK:
            raise error

    def put_back(self, channel: bytes, message) -> None:
        """Keeps a message that was taken, and which a signal's handler kept from its receiver. It
        comes first again."""
        self._put_back.setdefault(channel, collections.deque()).appendleft(message)

    def take_back(self, channel: bytes):
        """The first message that was put back into a channel, or None."""
        if not self._put_back:
            return None
        kept = self._put_back.get(channel)
        try:
            return kept.popleft() if kept else None
        finally:
            if not kept:
                self._put_back.pop(channel, None)
