"""What C calls: one function for each kind of callback, made once and never freed.

userdata is a number, by which the Python object is found in a table here. So C never holds a
pointer to a Python object: nothing can dangle, a late call finds nothing, and no `destroy` is
needed, which C might run on a thread of its own, and no foreign thread shall enter the interpreter.
A table gives an entry up when its last call comes or its owner takes it out, whichever is first.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import sys
import weakref

from . import _declarations
from ._library import lent_error
from .errors import Flow

tokens = itertools.count(1)  # 0 would come back as None
outcomes = {}  # token: the future of an async call
arrivals = {}  # token: the future of a coroutine that waits for a message
receivers = {}  # token: a Receiver
layers = weakref.WeakValueDictionary()  # token: a Layer, for its hooks

running_loop = asyncio._get_running_loop  # None where there is none; it is part of asyncio's API
DECLINE = int(Flow.DECLINE)
FOREIGN = 1000  # added to the status of an arrival that another thread than its loop's was told of


def settle(future, value, error=None) -> None:
    if future.done():
        return  # its task was cancelled meanwhile
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def resolve(future, value, error=None) -> None:
    """Settles a future from any thread: whoever polls runs the callbacks of every event loop."""
    loop = future.get_loop()
    if loop is running_loop():
        settle(future, value, error)
    else:
        call_in(loop, settle, future, value, error)


def call_in(loop, function, *arguments) -> bool:
    """Has a loop call a function; False where it is closed, so that nobody waits there any more."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if loop.is_closed():
            return False
        raise
    return True


@_declarations.callback_type("layer_done_cb")
def _done(token, status, error):
    future = outcomes.pop(token)
    resolve(future, None, lent_error(status, error) if status else None)


@_declarations.callback_type("layer_receive_cb")
def _arrived(token, status, _message):
    # The message is left where it is, first in its channel: the coroutine takes it when it runs.
    # Had it been cancelled by then, a message that was taken here would be lost.
    future = arrivals.pop(token, None)
    if future is not None:
        own = future.get_loop() is running_loop()
        resolve(future, status if own else status + FOREIGN)
    return DECLINE


@_declarations.callback_type("layer_receive_cb")
def _handled(token, status, message):
    receiver = receivers.get(token)
    return DECLINE if receiver is None else receiver._called(status, message)


@_declarations.callback_type("layer_state_cb")
def _state(token, state, generation):
    layer = layers.get(token)
    if layer is not None:
        try:
            layer._state_changed(state, generation)
        except Exception:
            sys.excepthook(*sys.exc_info())  # of the user's function; there is no caller to tell


@_declarations.callback_type("layer_log_cb")
def _log(token, level, id, target, message):
    layer = layers.get(token)
    if layer is not None:
        try:
            layer._logged(level, id.decode(), target.decode(), message.decode("utf-8", "replace"))
        except Exception:
            sys.excepthook(*sys.exc_info())


@_declarations.callback_type("layer_isolation_cb")
def _isolation(token, event, channel, count):
    layer = layers.get(token)
    if layer is not None:
        try:
            layer._isolated(event, None if channel is None else channel.decode(), count)
        except Exception:
            sys.excepthook(*sys.exc_info())


def _address(callback) -> int:
    return ctypes.cast(callback, ctypes.c_void_p).value


DONE = _address(_done)
ARRIVED = _address(_arrived)
HANDLED = _address(_handled)
STATE = _address(_state)
LOG = _address(_log)
ISOLATION = _address(_isolation)
