"""What a layer tells by itself: its state, log records, isolation. And who waits for its state."""

from __future__ import annotations

import threading

from . import _callbacks
from ._callbacks import resolve, tokens
from ._library import callable_or_none
from ._unique import Unique
from .errors import Isolation, LogLevel, State


class Hooks(Unique):
    """The functions that a user gave for what a layer tells, each of them None where there is none,
    and the futures that are settled with each change of the state."""

    __slots__ = ("__weakref__", "_lock", "_waiters", "on_isolation", "on_log", "on_state", "token")

    def __init__(self, on_log, on_state, on_isolation) -> None:
        self.on_log = callable_or_none(on_log, "on_log")
        self.on_state = callable_or_none(on_state, "on_state")
        self.on_isolation = callable_or_none(on_isolation, "on_isolation")
        self._waiters = set()
        self._lock = threading.RLock()  # a signal's handler may interrupt who holds it
        self.token = next(tokens)
        _callbacks.hooks[self.token] = self

    def wait(self, waiter) -> None:
        """Has a future or a Completion settled with the next change of the state."""
        with self._lock:
            self._waiters.add(waiter)

    def stop_waiting(self, waiter) -> None:
        with self._lock:
            self._waiters.discard(waiter)

    def state_changed(self, state: int, generation: int) -> None:
        with self._lock:
            waiters = list(self._waiters)
        for waiter in waiters:
            resolve(waiter, None)
        if self.on_state is not None:
            self.on_state(State(state), generation)

    def logged(self, level: int, id: str, target: str, message: str) -> None:
        if self.on_log is not None:
            self.on_log(LogLevel(level), id, target, message)

    def isolated(self, event: int, channel, count: int) -> None:
        if self.on_isolation is not None:
            self.on_isolation(Isolation(event), channel, count)
