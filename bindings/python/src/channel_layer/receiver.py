"""`Receiver`: a function that is called for each message of a channel, in one event loop."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from . import _callbacks
from ._callbacks import call_in, resolve, running_loop, tokens
from ._library import Failure, check, quick, waiting
from .errors import ClosedError, Flow, Status
from .message import Message

if TYPE_CHECKING:
    from .layer import Layer

OK = int(Status.OK)


class Receiver:
    """A handler of a channel, from `Layer.handle`.

    `ended` is a future of its event loop: None once its user has ended it, `Status.CANCELLED` or
    `Status.CLOSED` where the layer did, or the exception that the handler raised.
    """

    def __init__(self, layer: Layer, loop, name: bytes, handler) -> None:
        self._layer = layer
        self._loop = loop
        self._name = name
        self._handler = handler
        self._token = next(tokens)
        self._number = 0
        self._active = True
        self.ended = loop.create_future()
        self._begin()

    def _begin(self) -> None:
        failure, number = Failure(), ctypes.c_uint64()
        _callbacks.receivers[self._token] = self
        status = quick.layer_receive(
            self._layer._layer,
            self._name,
            _callbacks.HANDLED,
            self._token,
            None,
            ctypes.byref(number),
            failure.at,
        )
        if status != OK:
            self._end()
            raise failure.error(status)
        self._number = number.value

    def _called(self, status: int, message) -> int:
        if self._loop is not running_loop():
            # Another loop polls. The message stays where it is until ours has a turn.
            if status == OK:
                if not call_in(self._loop, self._resume):
                    self._end()
            else:
                call_in(self._loop, self._end, Status(status))
            return Flow.DECLINE
        if status != OK:
            self._end(Status(status))
            return Flow.STOP
        try:
            flow = self._handler(Message(quick.layer_message_ref(message)))
            flow = Flow.CONTINUE if flow is None else Flow(flow)
        except Exception as error:
            self._end(error=error)
            return Flow.STOP
        if flow != Flow.CONTINUE:
            self._end()
        return flow

    def _resume(self) -> None:
        """Begins again in our own loop, and runs what is due before another loop does."""
        if not self._active:
            return
        try:
            self._begin()
        except ClosedError:
            self._end(Status.CLOSED)
            return
        self._layer._on_readable(self._loop)

    def _end(self, how=None, error=None) -> None:
        self._active = False
        _callbacks.receivers.pop(self._token, None)
        if not self.ended.done():
            resolve(self.ended, how, error)

    def cancel(self) -> None:
        """Ends the receiver; what it did not take stays in the channel. Ending it again is fine."""
        if not self._active:
            return
        self._end()
        failure = Failure()
        status = waiting.layer_receive_cancel(self._layer._layer, self._number, failure.at)
        check(status, failure)
