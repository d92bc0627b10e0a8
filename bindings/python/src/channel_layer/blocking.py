"""`Blocking`: the calls of a layer for threads without an event loop."""

from __future__ import annotations

import ctypes
import select
import time

from . import _callbacks
from ._callbacks import FOREIGN, arrivals, call_c, outcomes, raise_interruption, tokens
from ._completion import LOOK_AGAIN, Completion, must_watch
from ._library import DEFAULT_TIMEOUT, Failure, check, milliseconds, quick, text, waiting
from ._loops import Loops
from ._packing import pack
from ._unique import Unique
from .errors import DiscardedError, Status, TimedOutError
from .message import Message, take

OK, BUSY, TIMEOUT = int(Status.OK), int(Status.BUSY), int(Status.TIMEOUT)
CANCELLED = int(Status.CANCELLED)
LONGEST = 3600.0  # seconds that one call of C waits


class Blocking(Unique):
    """The forms of a layer's calls that block their thread, with Python's lock released.

    In the main thread a signal's handler runs at once; where it raises, as of Ctrl-C, so does the
    call. What it has begun goes on: a message may be sent all the same. With gevent's
    `monkey.patch_all()` other greenlets go on.
    """

    def __init__(self, handle, loops: Loops) -> None:
        self._handle = handle
        self._loops = loops

    def wait_ready(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """As `Layer.wait_ready`."""
        handle, failure, bound = self._handle, Failure(), milliseconds(timeout)
        if handle.must_not_wait() or not must_watch():
            check(waiting.layer_wait_ready(handle.pointer, bound, failure.at), failure)
            return
        deadline = time.monotonic() + timeout
        while True:
            completion = Completion()
            handle.hooks.wait(completion)
            try:
                status = waiting.layer_wait_ready(handle.pointer, 0, failure.at)
                if status == OK:
                    return
                error = failure.error(status)
                left = deadline - time.monotonic()
                if status != TIMEOUT or left <= 0:
                    raise error
                completion.wait(handle, min(left, LOOK_AGAIN))
            finally:
                handle.hooks.stop_waiting(completion)
                completion.end()

    def send(self, channel: str, message) -> None:
        """As `Layer.send`."""
        name = text(channel, "channel")
        if isinstance(message, str):
            json = text(message, "JSON")
            self._call(waiting.layer_send_json, quick.layer_send_json_async, name, json)
        else:
            packed = pack(message, self._handle.default)
            self._call(waiting.layer_send, quick.layer_send_async, name, packed, len(packed))

    def group_send(self, group: str, message) -> None:
        """As `Layer.group_send`."""
        name = text(group, "group")
        if isinstance(message, str):
            json = text(message, "JSON")
            self._call(waiting.layer_group_send_json, quick.layer_group_send_json_async, name, json)
        else:
            packed = pack(message, self._handle.default)
            self._call(
                waiting.layer_group_send, quick.layer_group_send_async, name, packed, len(packed)
            )

    def group_add(self, group: str, channel: str) -> None:
        """As `Layer.group_add`."""
        self._call(
            waiting.layer_group_add,
            quick.layer_group_add_async,
            text(group, "group"),
            text(channel, "channel"),
        )

    def _call(self, blocking, asynchronous, *arguments) -> None:
        """Makes a C call that waits for the broker: in C, or here."""
        handle, failure = self._handle, Failure()
        if handle.must_not_wait() or not must_watch():
            status = call_c(blocking, handle.pointer, *arguments, failure.at)
            raise_interruption()  # layer_close runs what is due
            check(status, failure)
            return
        deadline = None
        while True:
            token, completion = next(tokens), Completion()
            outcomes[token] = completion
            failure = Failure()
            status = asynchronous(
                handle.pointer, *arguments, _callbacks.DONE, token, None, failure.at
            )
            if status == OK:
                completion.result(handle)
                return
            del outcomes[token]
            error = failure.error(status)
            if status != BUSY:
                raise error
            # As the form that waits in C, it waits for a place; see `Layer._outcome`.
            now = time.monotonic()
            if deadline is None:
                deadline, pause = now + handle.timeout, 0.001
            if now >= deadline:
                raise error
            completion.wait(handle, min(pause, deadline - now))
            completion.end()
            pause = min(pause * 2, 0.05)

    def receive(self, channel: str, timeout=None) -> Message:
        """As `Layer.receive`."""
        handle, name = self._handle, text(channel, "channel")
        deadline = None if timeout is None else time.monotonic() + milliseconds(timeout) / 1000
        watches = not handle.must_not_wait() and must_watch()
        while True:
            left = LONGEST if deadline is None else max(0.0, deadline - time.monotonic())
            bound = 0 if watches else milliseconds(min(left, LONGEST))
            message = take(handle, name, bound, quick if watches else waiting)
            if message is not None:
                return message
            if left == 0:
                raise TimedOutError(f"no message came to {channel} within {timeout} s")
            if watches:
                self._arrival(name, left)

    def _arrival(self, name: bytes, timeout: float) -> None:
        """Waits until there may be a message in a channel; see `Layer._arrival`."""
        handle, completion = self._handle, Completion()
        token, receiver, failure = next(tokens), ctypes.c_uint64(), Failure()
        arrivals[token] = completion
        status = quick.layer_receive(
            handle.pointer,
            name,
            _callbacks.ARRIVED,
            token,
            None,
            ctypes.byref(receiver),
            failure.at,
        )
        if status != OK:
            del arrivals[token]
            raise failure.error(status)
        ended = FOREIGN
        try:
            ended = completion.value if completion.wait(handle, timeout) else FOREIGN
        finally:
            completion.end()
            waits = arrivals.pop(token, None) is not None
            if waits or ended >= FOREIGN:
                waiting.layer_receive_cancel(handle.pointer, receiver.value, None)
        if ended % FOREIGN == CANCELLED:
            raise DiscardedError(f"channel {name.decode()} was discarded while it was waited on")

    def poll(self, timeout: float = 0.0) -> int:
        """As `Layer.poll`."""
        handle, failure, ran = self._handle, Failure(), ctypes.c_size_t()
        bound = milliseconds(timeout)
        watches = bound > 0 and not handle.must_not_wait() and must_watch()
        deadline = time.monotonic() + timeout
        while True:
            status = call_c(
                waiting.layer_poll,
                handle.pointer,
                0,
                0 if watches else bound,
                ctypes.byref(ran),
                failure.at,
            )
            raise_interruption()
            check(status, failure)
            left = deadline - time.monotonic()
            if ran.value or not watches or left <= 0:
                return ran.value
            poller = select.poll()
            poller.register(handle.fd, select.POLLIN)
            poller.poll(min(left, LOOK_AGAIN) * 1000)

    def close(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """As `Layer.close`."""
        bound = milliseconds(timeout)
        calls = waiting.layer_close, quick.layer_close_async
        if self._handle.must_not_wait():
            self._call(*calls, bound)  # it only begins: the loops watch until the layer is closed
            return
        with self._loops.closing():
            self._call(*calls, bound)
