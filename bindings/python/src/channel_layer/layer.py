"""`Layer`: an open channel layer, for asyncio; `Layer.blocking` is for threads without a loop."""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import operator

from . import _callbacks
from ._callbacks import FOREIGN, is_run_inside_c, outcomes, running_loop, settle, tokens
from ._declarations import CONSTANTS
from ._handle import Config, Handle, polled
from ._hooks import Hooks
from ._library import (
    DEFAULT_TIMEOUT,
    Failure,
    callable_or_none,
    check,
    milliseconds,
    quick,
    text,
    waiting,
)
from ._loops import Loops
from ._packing import pack
from ._unique import Unique
from .blocking import Blocking
from .errors import (
    ClosedError,
    DiscardedError,
    InvalidError,
    Stat,
    State,
    Status,
    TimedOutError,
)
from .message import Message, take
from .receiver import Receiver

OK, BUSY, TIMEOUT = int(Status.OK), int(Status.BUSY), int(Status.TIMEOUT)
CANCELLED = int(Status.CANCELLED)
MAYBE_STATS = range(2**32)  # ctypes would cut others to these; which exist the library knows
TURNS = 64  # messages that are received at once before others of the event loop get a turn


class Layer(Unique):
    """An open channel layer: one queue on the broker, with any number of channels.

    Options are those of the library, as `Layer(host="amqp://...", expiry=30)`; those that are None
    keep their defaults. Opening never waits for the network: it connects in the background.

    Every method can be used from any thread, and the coroutines in any number of event loops at
    once: all share the one queue. Each loop that awaits something of the layer watches its
    descriptor, and whichever is awake first runs what is due and hands the outcome to the loop that
    waits for it; a loop that ends or is busy holds up no other.

    `on_log(level, id, target, text)`, `on_state(state, generation)` and `on_isolation(event,
    channel, count)` are called by a loop that watches, or by `poll`, on its thread. They must not
    wait. What they raise goes to `sys.excepthook`.

    `on_isolation`: the layer isolates channels when messages that nobody takes have kept the broker
    from sending for `stall_after` seconds. With `Isolation.BEGAN`, `count` messages wait in memory.
    With `Isolation.LOST`, `channel` (None: several channels that are not reported separately) has
    lost its `count` newest messages since the last such call. With `Isolation.ENDED`, channels have
    lost `count` messages in all. `channel` is None except with `LOST`.

    `default(value)` is called for a value in a message that MessagePack does not have, as a UUID or
    a datetime, and returns what is sent instead; or it raises TypeError, as that of `json.dumps`.
    """

    def __init__(
        self, *, on_log=None, on_state=None, on_isolation=None, default=None, **options
    ) -> None:
        hooks = Hooks(on_log, on_state, on_isolation)
        self._handle = Handle(options, hooks, callable_or_none(default, "default"))
        self._loops = Loops(self._handle)
        self._turns = 0

    @staticmethod
    def check(**options) -> None:
        """Raises the error that `Layer(**options)` would raise, and opens nothing: there is no
        connection, no name look-up and no thread. It reads the files that opening would read."""
        Config(polled(options), Hooks(None, None, None)).check()

    @property
    def blocking(self) -> Blocking:
        """The forms that block their thread, for threads without an event loop."""
        return Blocking(self._handle, self._loops)

    # --- event loops ------------------------------------------------------------------------

    def poll(self, timeout: float = 0.0) -> int:
        """Runs what is due on this thread, waiting up to `timeout` seconds for the first; returns
        how many callbacks ran. Only a program without an event loop needs it, for its `on_log`,
        `on_state` and `on_isolation`. Raises `ClosedError` once the layer is closed and nothing is
        due."""
        return self.blocking.poll(timeout)

    async def _outcome(self, function, *arguments):
        """Makes an async C call and awaits its outcome. Of a task that is cancelled meanwhile the
        call goes on; its outcome is told to nobody."""
        loop = self._loops.running()
        deadline = None
        while True:
            token = next(tokens)
            outcomes[token] = future = loop.create_future()
            failure = Failure()
            status = function(
                self._handle.pointer, *arguments, _callbacks.DONE, token, None, failure.at
            )
            if status == OK:
                return await future
            del outcomes[token]
            error = failure.error(status)
            if status != BUSY:
                raise error
            # As the blocking form, it waits for a place. Nothing tells of one where other threads
            # hold them all, or where the broker blocks: so it asks again, ever more seldom.
            now = loop.time()
            if deadline is None:
                deadline, pause = now + self._handle.timeout, 0.001
            if now >= deadline:
                raise error
            await asyncio.sleep(min(pause, deadline - now))
            pause = min(pause * 2, 0.05)

    # --- state ------------------------------------------------------------------------------

    async def wait_ready(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Waits until both connections stand and every group is bound; `TimedOutError` else."""
        loop = self._loops.running()
        milliseconds(timeout)
        deadline = loop.time() + timeout
        while True:
            future = loop.create_future()
            self._handle.hooks.wait(future)
            timer = None
            try:
                failure = Failure()
                status = waiting.layer_wait_ready(self._handle.pointer, 0, failure.at)
                if status == OK:
                    return
                error = failure.error(status)
                left = deadline - loop.time()
                if status != TIMEOUT or left <= 0:
                    raise error
                # At times it looks for itself: of very many changes of state some are not told.
                timer = loop.call_later(min(left, 1.0), settle, future, None)
                await future
            finally:
                if timer is not None:
                    timer.cancel()
                self._handle.hooks.stop_waiting(future)

    def state(self) -> State:
        """The state of the layer now."""
        failure, state = Failure(), ctypes.c_int32()
        check(quick.layer_state(self._handle.pointer, ctypes.byref(state), failure.at), failure)
        return State(state.value)

    def stat(self, which) -> int:
        """A counter or gauge, by its `Stat`."""
        failure, value, number = Failure(), ctypes.c_uint64(), operator.index(which)
        if number not in MAYBE_STATS:
            raise InvalidError(f"there is no statistic {number}")
        status = quick.layer_stat(self._handle.pointer, number, ctypes.byref(value), failure.at)
        check(status, failure)
        return value.value

    def stats(self) -> dict:
        """All counters and gauges, by name."""
        return {each.name: self.stat(each) for each in Stat}

    def prometheus(self, labels=None) -> str:
        """All counters and gauges in the text format of Prometheus, to be served as
        `text/plain; version=0.0.4`, with these labels (a dict of strings) on each.
        A value can hold anything but control characters other than a new line."""
        escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
        pairs = ",".join(
            f'{name}="{str(of).translate(escapes)}"' for name, of in (labels or {}).items()
        )
        given, length, failure = text(pairs, "labels"), ctypes.c_size_t(), Failure()
        status = quick.layer_stats_prometheus(
            self._handle.pointer, given, None, 0, ctypes.byref(length), failure.at
        )
        check(status, failure)
        room = ctypes.create_string_buffer(length.value + 1)
        status = quick.layer_stats_prometheus(
            self._handle.pointer, given, room, len(room), ctypes.byref(length), failure.at
        )
        check(status, failure)
        return room.value.decode()

    # --- channels and groups ----------------------------------------------------------------

    def new_channel(self, prefix: str = "") -> str:
        """Makes up a new channel name, `<queue>!<prefix><12 random letters>`."""
        failure, size = Failure(), CONSTANTS["LAYER_NAME_SIZE"]
        name = ctypes.create_string_buffer(size)
        status = quick.layer_new_channel(
            self._handle.pointer, text(prefix, "prefix") or None, name, size, failure.at
        )
        check(status, failure)
        return name.value.decode()

    def channel_discard(self, channel: str) -> None:
        """Gives a channel up: drops its memberships, messages and receivers. Never waits."""
        failure = Failure()
        status = quick.layer_channel_discard(
            self._handle.pointer, text(channel, "channel"), failure.at
        )
        check(status, failure)

    async def group_add(self, group: str, channel: str) -> None:
        """Adds a channel to a group; returns when what is sent to the group arrives here."""
        await self._outcome(
            quick.layer_group_add_async, text(group, "group"), text(channel, "channel")
        )

    def group_discard(self, group: str, channel: str) -> None:
        """Removes a channel from a group. Never waits; the broker follows."""
        failure = Failure()
        status = quick.layer_group_discard(
            self._handle.pointer, text(group, "group"), text(channel, "channel"), failure.at
        )
        check(status, failure)

    # --- sending ----------------------------------------------------------------------------

    async def send(self, channel: str, message) -> None:
        """Sends a message to a channel and awaits the broker's confirm.

        `message`: a dict; or bytes, as MessagePack; or str, as JSON. Raises what is in
        `channel_layer.errors`.
        """
        if isinstance(message, str):
            await self._outcome(
                quick.layer_send_json_async, text(channel, "channel"), text(message, "JSON")
            )
            return
        name, packed = text(channel, "channel"), pack(message, self._handle.default)
        await self._outcome(quick.layer_send_async, name, packed, len(packed))

    async def group_send(self, group: str, message) -> None:
        """Sends a message to every member of a group, in all processes; else as `send`.

        `FullError`: at least one member process refused it; the others have it.
        """
        if isinstance(message, str):
            await self._outcome(
                quick.layer_group_send_json_async, text(group, "group"), text(message, "JSON")
            )
            return
        name, packed = text(group, "group"), pack(message, self._handle.default)
        await self._outcome(quick.layer_group_send_async, name, packed, len(packed))

    # --- receiving --------------------------------------------------------------------------

    async def receive(self, channel: str, timeout=None) -> Message:
        """The next message of a channel of this layer.

        `timeout`: seconds, or None to wait for as long as it takes; then `TimedOutError`. Of a call
        that is cancelled or timed out no message is lost. Several that wait share the messages.
        """
        return await self._next(channel, timeout, None)

    async def _next(self, channel: str, timeout, notices):
        """The next message of a channel, or the next of `notices` for it, which are a dict."""
        # Between a message's leaving its channel and the return there is no await, so that no
        # cancellation can come between: a cancelled call has taken nothing.
        loop = self._loops.running()
        name = text(channel, "channel")
        deadline = None if timeout is None else loop.time() + milliseconds(timeout) / 1000
        self._turns += 1
        if self._turns >= TURNS:
            self._turns = 0
            await asyncio.sleep(0)
        while True:
            message = None if notices is None else notices.take(channel)
            if message is None:
                message = take(self._handle, name)
            if message is not None:
                return message
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                raise TimedOutError(f"no message came to {channel} within {timeout} s")
            await self._arrival(loop, name, left, notices)

    async def _arrival(self, loop, name: bytes, timeout, notices) -> None:
        """Waits until there may be a message in a channel, or a notice for it."""
        future = loop.create_future()
        token, receiver, failure = next(tokens), ctypes.c_uint64(), Failure()
        _callbacks.arrivals[token] = future
        status = quick.layer_receive(
            self._handle.pointer,
            name,
            _callbacks.ARRIVED,
            token,
            None,
            ctypes.byref(receiver),
            failure.at,
        )
        if status != OK:
            del _callbacks.arrivals[token]
            raise failure.error(status)
        timer = None if timeout is None else loop.call_later(timeout, settle, future, TIMEOUT)
        ended = FOREIGN
        try:
            if notices is not None:
                notices.wait(name.decode(), future)
            ended = await future
        finally:
            if notices is not None:
                notices.stop_waiting(name.decode(), future)
            if timer is not None:
                timer.cancel()
            waits = _callbacks.arrivals.pop(token, None) is not None
            # Where another thread ran the callback it may not have left C yet, which then has the
            # first message in its hands: who looked now would find the second.
            if waits or ended >= FOREIGN or ended == TIMEOUT:
                waiting.layer_receive_cancel(self._handle.pointer, receiver.value, None)
        ended %= FOREIGN
        if ended == CANCELLED:
            raise DiscardedError(f"channel {name.decode()} was discarded while it was waited on")

    async def messages(self, channel: str):
        """`async for message in layer.messages(channel)`, until the layer is closed or the channel
        discarded."""
        while True:
            try:
                message = await self.receive(channel)
            except (ClosedError, DiscardedError):
                return
            yield message

    def handle(self, channel: str, handler) -> Receiver:
        """Has `handler(message)` called for each message of a channel, in order, in the running
        event loop. It must not wait; to await something for each message, use `messages`.

        It returns None or `Flow.CONTINUE` to go on, `Flow.STOP` to end, or `Flow.DECLINE` for a
        message that it did not take: that stays first in its channel, and the receiver ends.
        """
        if inspect.iscoroutinefunction(handler):
            raise TypeError("a handler is a plain function; `async for` awaits for each message")
        if not callable(handler):
            raise TypeError(f"a handler is a function, not {type(handler).__name__}")
        return Receiver(
            self._handle, self._loops, self._loops.running(), text(channel, "channel"), handler
        )

    # --- the end ----------------------------------------------------------------------------

    async def close(self, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Closes the layer within `timeout` seconds; undelivered messages are dropped. Closing
        again is fine. `TimedOutError`: the layer is closed all the same, and something of it ends
        later. Of a task that is cancelled meanwhile, closing goes on."""
        bound = milliseconds(timeout)
        if is_run_inside_c(running_loop()) and self.state() is State.CLOSED:
            return  # what is left ends elsewhere, since nothing of it can come here
        with self._loops.closing():
            await self._outcome(quick.layer_close_async, bound)

    async def __aenter__(self) -> Layer:
        return self

    async def __aexit__(self, *_) -> None:
        await self.close()

    def __enter__(self) -> Layer:
        return self

    def __exit__(self, *_) -> None:
        self.blocking.close()
