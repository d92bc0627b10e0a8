"""`Blocking`: the calls of a layer for threads without an event loop."""

from __future__ import annotations

import ctypes
import time
from typing import TYPE_CHECKING

from ._library import DEFAULT_TIMEOUT, Failure, check, milliseconds, text, waiting
from .errors import Status, TimedOutError
from .message import Message, pack

if TYPE_CHECKING:
    from .layer import Layer

OK, TIMEOUT = int(Status.OK), int(Status.TIMEOUT)
SLICE = 0.25  # seconds after which a blocking receive lets Python look at its signals


class Blocking:
    """The forms of a layer's calls that block their thread, with Python's lock released."""

    def __init__(self, layer: Layer) -> None:
        self._owner = layer

    def wait_ready(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """As `Layer.wait_ready`."""
        owner, failure = self._owner, Failure()
        check(waiting.layer_wait_ready(owner._layer, milliseconds(timeout), failure.at), failure)

    def send(self, channel: str, message) -> None:
        """As `Layer.send`."""
        self._send(waiting.layer_send, waiting.layer_send_json, text(channel, "channel"), message)

    def group_send(self, group: str, message) -> None:
        """As `Layer.group_send`."""
        self._send(
            waiting.layer_group_send, waiting.layer_group_send_json, text(group, "group"), message
        )

    def _send(self, send, send_json, name: bytes, message) -> None:
        owner, failure = self._owner, Failure()
        if isinstance(message, str):
            status = send_json(owner._layer, name, text(message, "JSON"), failure.at)
        else:
            packed = pack(message)
            status = send(owner._layer, name, packed, len(packed), failure.at)
        check(status, failure)

    def group_add(self, group: str, channel: str) -> None:
        """As `Layer.group_add`."""
        owner, failure = self._owner, Failure()
        status = waiting.layer_group_add(
            owner._layer, text(group, "group"), text(channel, "channel"), failure.at
        )
        check(status, failure)

    def receive(self, channel: str, timeout=None) -> Message:
        """As `Layer.receive`. It waits in steps, so that Python can act on signals in between."""
        owner, name, message = self._owner, text(channel, "channel"), ctypes.c_void_p()
        deadline = None if timeout is None else time.monotonic() + milliseconds(timeout) / 1000
        while True:
            left = SLICE if deadline is None else max(0.0, deadline - time.monotonic())
            failure = Failure()
            status = waiting.layer_receive_next(
                owner._layer,
                name,
                milliseconds(min(left, SLICE)),
                ctypes.byref(message),
                failure.at,
            )
            if status == OK:
                return Message(message.value)
            error = failure.error(status)
            if status != TIMEOUT:
                raise error
            if left == 0:  # C knows of the last step alone
                raise TimedOutError(f"no message came to {channel} within {timeout} s")

    def close(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """As `Layer.close`."""
        owner, failure = self._owner, Failure()
        bound = milliseconds(timeout)
        status = waiting.layer_close(owner._layer, bound, failure.at)
        if status != Status.FORKED:
            owner._unwatch()
        check(status, failure)
