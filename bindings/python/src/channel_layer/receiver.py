"""`Receiver`: a function that is called for each message of a channel, in one event loop."""

from __future__ import annotations

import ctypes

from . import _callbacks
from ._callbacks import call_in, resolve, running_loop, tokens
from ._library import Failure, check, quick, waiting
from ._loops import Loops
from ._unique import Unique
from .errors import ClosedError, Flow, Status
from .message import Message

OK = int(Status.OK)


class Receiver(Unique):
    """A handler of a channel, from `Layer.handle`.

    `ended` is a future of its event loop: None once its user has ended it, `Status.CANCELLED` or
    `Status.CLOSED` where the layer did, or the exception that the handler raised. One that is no
    `Exception`, as `KeyboardInterrupt`, is raised in the event loop too, and the message of that
    call stays in its channel.
    """

    def __init__(self, handle, loops: Loops, loop, name: bytes, handler) -> None:
        self._handle = handle
        self._loops = loops
        self._loop = loop
        self._name = name
        self._handler = handler
        self._token = next(tokens)
        self._number = 0
        self._active = True
        self.ended = loop.create_future()
        self._begin()

    def _begin(self) -> None:
        kept = self._handle.take_back(self._name)
        if kept is not None:
            # It was before all that C has.
            self._handle.put_back(self._name, kept)
            self._loop.call_soon(self._take_kept)
            return
        failure, number = Failure(), ctypes.c_uint64()
        _callbacks.receivers[self._token] = self
        status = quick.layer_receive(
            self._handle.pointer,
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

    def _take_kept(self) -> None:
        """Handles a message that was put back, then begins again."""
        kept = self._handle.take_back(self._name) if self._active else None
        if kept is not None:
            try:
                flow = self._handled(kept)
            except BaseException as problem:
                self._handle.put_back(self._name, kept)
                self.interrupted(problem)
                raise
            if flow == Flow.DECLINE:
                self._handle.put_back(self._name, kept)
        self._begin_again()

    def called(self, status: int, message) -> int:
        """What C calls: with a message, or at the end."""
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
        return self._handled(Message._owning(quick.layer_message_ref(message)))

    def _handled(self, message: Message) -> int:
        try:
            flow = self._handler(message)
            flow = Flow.CONTINUE if flow is None else Flow(flow)
        except Exception as error:
            self._end(error=error)
            return Flow.STOP
        if flow != Flow.CONTINUE:
            self._end()
        return flow

    def interrupted(self, problem: BaseException) -> None:
        """Ends the receiver with what came out of its handler and is no `Exception`."""
        self._end(error=problem)

    def _resume(self) -> None:
        """Begins again in our own loop, and runs what is due before another loop does."""
        self._begin_again()
        if self._active:
            self._loops.on_readable(self._loop)

    def _begin_again(self) -> None:
        if not self._active:
            return
        try:
            self._begin()
        except ClosedError:
            self._end(Status.CLOSED)

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
        status = waiting.layer_receive_cancel(self._handle.pointer, self._number, failure.at)
        check(status, failure)
