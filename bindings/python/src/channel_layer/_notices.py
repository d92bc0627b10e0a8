"""Messages that a layer itself gives to the channels of its process: of a connection that was lost,
and of one that is back."""

from __future__ import annotations

import collections
import threading

from ._callbacks import resolve
from .errors import State, Status

TIMEOUT = int(Status.TIMEOUT)
# A consumer that handles a message does not receive meanwhile, and is in use all the same; of one
# that has ended nobody tells. So this many that do not receive are kept, the latest.
MOST_IDLE = 10_000


def events_of(before, state: State, generation: int) -> list:
    """What a change of the state means to consumers: a list of "disconnect" and "reconnect".

    `before`: None until the layer was ready once; then whether it was ready, and the generation
    when it was last. Closing is neither. A loss that was over before it was reported is both.
    """
    if before is None:
        return []
    was_ready, last = before
    if state == State.READY:
        if not was_ready:
            return ["reconnect"]
        return ["disconnect", "reconnect"] if generation > last else []
    return ["disconnect"] if was_ready and state != State.CLOSED else []


class _Channel:
    __slots__ = ("notices", "waiters")

    def __init__(self) -> None:
        self.waiters = []
        # Who has not read the last two does not need those before: they tell to look again.
        self.notices = collections.deque(maxlen=2)


class Notices:
    """Gives a message of a type to each channel in use: one that is received from, and one whose
    last `receive` has ended, unless 10,000 others did later."""

    def __init__(self, on_disconnect=None, on_reconnect=None) -> None:
        self._types = {"disconnect": on_disconnect, "reconnect": on_reconnect}
        self._before = None
        self._channels = collections.OrderedDict()  # those without waiters by when they had one
        self._idle = 0
        # A signal's handler may interrupt who holds it, and run callbacks.
        self._lock = threading.RLock()

    def state_changed(self, state: State, generation: int) -> None:
        with self._lock:
            events = events_of(self._before, state, generation)
            if state == State.READY:
                self._before = True, generation
            elif self._before is not None:
                self._before = False, self._before[1]
        for event in events:
            if self._types[event] is not None:
                self._post({"type": self._types[event], "generation": generation})

    def _post(self, notice: dict) -> None:
        with self._lock:
            waiters = []
            for channel in self._channels.values():
                channel.notices.append(notice)
                waiters.extend(channel.waiters)
        for waiter in waiters:
            resolve(waiter, TIMEOUT)

    def take(self, name: str):
        """The first notice for a channel, or None. From here on the channel is in use."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                self._channels[name] = _Channel()
                self._idle += 1
                self._drop_idle()
                return None
            if not channel.waiters:
                self._channels.move_to_end(name)
            return dict(channel.notices.popleft()) if channel.notices else None

    def wait(self, name: str, waiter) -> None:
        """Has a future that waits for a message of a channel settled with a notice."""
        with self._lock:
            channel = self._channels.get(name)
            if channel is None:
                channel = self._channels[name] = _Channel()
                self._idle += 1
            if not channel.waiters:
                self._idle -= 1
            channel.waiters.append(waiter)
            is_there = bool(channel.notices)
        if is_there:
            resolve(waiter, TIMEOUT)

    def stop_waiting(self, name: str, waiter) -> None:
        with self._lock:
            channel = self._channels.get(name)
            if channel is None or waiter not in channel.waiters:
                return  # an exception came before it waited
            channel.waiters.remove(waiter)
            if not channel.waiters:
                self._channels.move_to_end(name)
                self._idle += 1
                self._drop_idle()

    def _drop_idle(self) -> None:
        while self._idle > MOST_IDLE:
            name = next(name for name, each in self._channels.items() if not each.waiters)
            del self._channels[name]
            self._idle -= 1
