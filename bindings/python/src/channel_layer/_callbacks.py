"""What C calls: one function for each kind of callback, made once and never freed.

userdata is a number, by which the Python object is found in a table here. So C never holds a
pointer to a Python object: nothing can dangle, a late call finds nothing, and no `destroy` is
needed, which C might run on a thread of its own, and no foreign thread shall enter the interpreter.
A table gives an entry up when its last call comes or its owner takes it out, whichever is first.

No exception can pass through C. What users' functions raise is theirs to hear of: an `Exception`
goes where their kind of function says, anything else (`KeyboardInterrupt`, `SystemExit`) is kept
and raised once C has returned, by `raise_interruption`. A signal's handler runs wherever the main
thread is, so that it may also raise in the middle of a function here: that one then starts again.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import opcode
import sys
import weakref
from threading import get_ident

from . import _declarations
from ._completion import Completion
from ._library import lent_error
from .errors import Flow

tokens = itertools.count(1)  # 0 would come back as None
outcomes = {}  # token: what waits for the outcome of an async call, a future or a Completion
arrivals = {}  # token: what waits for a message, the same
receivers = {}  # token: a Receiver
hooks = weakref.WeakValueDictionary()  # token: the Hooks of a layer

running_loop = asyncio._get_running_loop  # None where there is none; it is part of asyncio's API
DECLINE = int(Flow.DECLINE)
FOREIGN = 1000  # added to the status of an arrival that another thread than its own was told of

_interruptions = {}  # thread: the exceptions to be raised there once C has returned
# The threads that are in a call of C that may run callbacks: the event loop that made the call.
_in_c = {}


def settle(future, value, error=None) -> None:
    if future.done():
        return  # its task was cancelled meanwhile
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def resolve(waiter, value, error=None) -> None:
    """Settles what waits, from any thread: whoever polls runs the callbacks of all that wait."""
    if isinstance(waiter, Completion):
        waiter.settle(value, error)
        return
    loop = waiter.get_loop()
    if loop is running_loop():
        settle(waiter, value, error)
    else:
        call_in(loop, settle, waiter, value, error)


def is_own(waiter) -> bool:
    """Whether what waits belongs to this thread."""
    if isinstance(waiter, Completion):
        return waiter.is_own()
    return waiter.get_loop() is running_loop()


def call_in(loop, function, *arguments) -> bool:
    """Has a loop call a function; False where it is closed, so that nobody waits there any more."""
    try:
        loop.call_soon_threadsafe(function, *arguments)
    except RuntimeError:
        if loop.is_closed():
            return False
        raise
    return True


def call_c(function, *arguments) -> int:
    """Makes a call of C that may run callbacks on this thread."""
    thread = get_ident()
    is_outermost = thread not in _in_c
    try:
        if is_outermost:
            _in_c[thread] = running_loop()
        return function(*arguments)
    finally:
        if is_outermost:
            _in_c.pop(thread, None)


def is_in_c() -> bool:
    """Whether this thread is in a call of C that may run callbacks: then it may be in one."""
    return get_ident() in _in_c


def is_run_inside_c(loop) -> bool:
    """Whether the running loop was started where this thread was in such a call already, so that
    the call cannot go on before the loop ends."""
    thread = get_ident()
    return thread in _in_c and _in_c[thread] is not loop


def keep_interruption(problem: BaseException) -> None:
    """Keeps an exception until C has returned."""
    _interruptions.setdefault(get_ident(), []).append(problem)


def raise_interruption() -> None:
    """Raises what could not pass through C, after each call that may run callbacks."""
    if _interruptions:
        kept = _interruptions.pop(get_ident(), None)
        if kept:
            # The others are shown as what was raised before it.
            for before, after in zip(kept[1:], kept):
                if after.__context__ is None:
                    after.__context__ = before
            raise kept[0]


def _starting_in_its_try(function):
    """A function that begins with `try`, in which nothing can be raised before that.

    CPython 3.11 and newer look for signals as a function begins, in the instruction RESUME, outside
    any `try` in it. ctypes then prints the exception of a signal's handler and drops it with the
    callback's arguments. Of a RESUME that says 2, after a `yield from`, they do not look.
    """
    resume = opcode.opmap.get("RESUME")
    code = bytearray(function.__code__.co_code)
    if resume is not None:
        at = next(at for at in range(0, len(code), 2) if code[at] == resume)
        code[at + 1] = 2
        function.__code__ = function.__code__.replace(co_code=bytes(code))
    return function


def _callback(kind: str, interrupted):
    """Makes a callback of a function. Where an exception comes out of it, `interrupted` is called
    with it and the arguments, and its result is the callback's."""

    def make(function):
        @_declarations.callback_type(kind)
        @_starting_in_its_try
        def callback(*arguments):
            try:
                return function(*arguments)
            except BaseException as problem:
                return interrupted(problem, *arguments)

        return callback

    return make


def _done_again(problem, token, status, error) -> None:
    keep_interruption(problem)
    _settle_outcome(token, status, error)


def _settle_outcome(token, status, error) -> None:
    waiter = outcomes.get(token)
    if waiter is not None:
        resolve(waiter, None, lent_error(status, error) if status else None)
        outcomes.pop(token, None)


_done = _callback("layer_done_cb", _done_again)(_settle_outcome)


def _arrived_again(problem, token, status, _message) -> int:
    keep_interruption(problem)
    return _settle_arrival(token, status, _message)


def _settle_arrival(token, status, _message) -> int:
    # The message is left where it is, first in its channel: the coroutine takes it when it runs.
    # Had it been cancelled by then, a message that was taken here would be lost.
    waiter = arrivals.get(token)
    if waiter is not None:
        resolve(waiter, status if is_own(waiter) else status + FOREIGN)
        arrivals.pop(token, None)
    return DECLINE


_arrived = _callback("layer_receive_cb", _arrived_again)(_settle_arrival)


def _handler_interrupted(problem, token, _status, _message) -> int:
    keep_interruption(problem)
    receiver = receivers.get(token)
    if receiver is not None:
        receiver.interrupted(problem)
    return DECLINE  # what it was about to take stays in the channel


@_callback("layer_receive_cb", _handler_interrupted)
def _handled(token, status, message):
    receiver = receivers.get(token)
    return DECLINE if receiver is None else receiver.called(status, message)


def _hook_interrupted(problem, *_) -> None:
    if isinstance(problem, Exception):
        sys.excepthook(type(problem), problem, problem.__traceback__)  # there is no caller to tell
    else:
        keep_interruption(problem)


@_callback("layer_state_cb", _hook_interrupted)
def _state(token, state, generation):
    owner = hooks.get(token)
    if owner is not None:
        owner.state_changed(state, generation)


@_callback("layer_log_cb", _hook_interrupted)
def _log(token, level, id, target, message):
    owner = hooks.get(token)
    if owner is not None:
        owner.logged(level, id.decode(), target.decode(), message.decode("utf-8", "replace"))


@_callback("layer_isolation_cb", _hook_interrupted)
def _isolation(token, event, channel, count):
    owner = hooks.get(token)
    if owner is not None:
        owner.isolated(event, None if channel is None else channel.decode(), count)


def _address(callback) -> int:
    return ctypes.cast(callback, ctypes.c_void_p).value


DONE = _address(_done)
ARRIVED = _address(_arrived)
HANDLED = _address(_handled)
STATE = _address(_state)
LOG = _address(_log)
ISOLATION = _address(_isolation)
