"""What is raised where nobody calls: by a signal's handler, or out of a user's function."""

import asyncio
import contextlib
import ctypes
import inspect
import math
import os
import signal
import subprocess
import sys
import threading
import time
import uuid

import pytest

import channel_layer
from channel_layer import InvalidError, TimedOutError, _callbacks
from channel_layer._library import Failure, check, quick
from conftest import WAIT

EVERY = [KeyboardInterrupt, SystemExit, asyncio.CancelledError]


class Broken(BaseException):
    """What a program may have of its own."""


# --- out of a user's function ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [*EVERY, Broken])
def test_what_a_handler_raises_leaves_the_loop_and_its_message_stays(kind, layer):
    channel = layer.new_channel()
    told = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))

        def handler(message):
            raise kind("mine")

        receiver = layer.handle(channel, handler)
        await layer.send(channel, {"n": 1})
        await asyncio.wait([receiver.ended], timeout=WAIT)
        raise receiver.ended.exception()

    with pytest.raises(kind):
        asyncio.run(main())
    # asyncio hands on those that end a program, and has the others handled.
    assert [type(each) for each in told] == ([] if kind in EVERY[:2] else [kind])
    assert layer.blocking.receive(channel, WAIT) == {"n": 1}


@pytest.mark.parametrize("kind", [*EVERY, Broken])
def test_what_a_hook_raises_comes_out_of_poll(kind, opened):
    def on_state(state, generation):
        raise kind

    layer = opened(host=f"memory://{uuid.uuid4().hex}", on_state=on_state)
    with pytest.raises(kind):
        while True:
            assert layer.poll(WAIT) > 0
    layer._handle.hooks.on_state = None


def test_of_two_that_are_raised_the_first_comes_out_and_shows_the_other(layer):
    first, second = KeyboardInterrupt("first"), Broken("second")
    for each in (first, second):
        _callbacks.keep_interruption(each)
    with pytest.raises(KeyboardInterrupt) as caught:
        layer.poll()
    assert caught.value is first and first.__context__ is second
    layer.poll()  # once


@pytest.mark.parametrize("kind", [*EVERY, Broken])
def test_what_a_hook_raises_in_a_finalizer_comes_out_of_the_next_call(kind, layer, unraisable):
    states, threads = [], []

    def on_state(state, generation):
        states.append(state)
        threads.append(threading.get_ident())
        if state == channel_layer.State.CLOSED:
            raise kind("mine")

    dropped = channel_layer.Layer(host=f"memory://{uuid.uuid4().hex}", on_state=on_state)
    dropped.blocking.wait_ready(WAIT)
    del dropped
    assert states[-1] == channel_layer.State.CLOSED and set(threads) == {threading.get_ident()}
    with pytest.raises(kind, match="mine"):
        layer.poll()
    layer.poll()  # once
    assert unraisable == []


def test_what_a_signal_handler_raises_in_a_finalizer_comes_out_of_the_next_call(
    layer, interrupts, unraisable
):
    dropped = channel_layer.Layer(host=f"memory://{uuid.uuid4().hex}")
    trip(dropped)
    until_due(dropped, 1)
    fd = dropped._handle.fd
    del dropped
    with pytest.raises(KeyboardInterrupt):
        layer.poll()
    with pytest.raises(OSError):
        os.fstat(fd)  # it is freed all the same
    assert unraisable == []


# --- a signal's handler, in the middle of a callback ----------------------------------------


def trip(layer):
    """Has SIGINT arrive in C, between two callbacks: the interpreter sees it as the next begins."""
    arrive = ctypes.cast(ctypes.pythonapi.PyErr_SetInterrupt, ctypes.c_void_p).value
    failure = Failure()
    channel = layer.new_channel().encode()
    packed = b"\x80"
    check(
        quick.layer_send_async(
            layer._handle.pointer, channel, packed, len(packed), arrive, None, None, failure.at
        ),
        failure,
    )


def until(layer, stat, value):
    """Waits for a statistic, without running any callback."""
    deadline = time.monotonic() + WAIT
    while layer.stat(channel_layer.Stat[stat]) < value:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def until_due(layer, count):
    """Waits until the outcomes of so many sends are due, without running any callback: they are
    counted a moment before, so that one more is sent after them."""
    until(layer, "SENDS_CONFIRMED", count)
    failure, token = Failure(), next(_callbacks.tokens)  # for which nobody waits
    arguments = layer.new_channel().encode(), b"\x80", 1, _callbacks.DONE, token, None, failure.at
    check(quick.layer_send_async(layer._handle.pointer, *arguments), failure)
    until(layer, "SENDS_CONFIRMED", count + 1)


def interrupt(loop, coroutine):
    """Runs a coroutine until a signal's handler raises out of its loop; then to its end."""
    task = loop.create_task(coroutine)
    alarm = loop.call_later(WAIT, loop.stop)  # where what it waits for was lost
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    alarm.cancel()
    return loop.run_until_complete(asyncio.wait_for(task, WAIT))


@pytest.fixture
def two():
    """A layer, and another one on the same broker: the outcomes of its sends are its own."""
    host = f"memory://{uuid.uuid4().hex}"
    with channel_layer.Layer(host=host) as layer, channel_layer.Layer(host=host) as other:
        for each in (layer, other):
            each.blocking.wait_ready(WAIT)
        yield layer, other


@pytest.fixture
def interrupts():
    """Python's own handler of SIGINT, which raises KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def unraisable(monkeypatch):
    """What the interpreter has ignored, of finalizers."""
    ignored = []
    monkeypatch.setattr(sys, "unraisablehook", lambda each: ignored.append(each.exc_value))
    return ignored


@pytest.fixture
def loop():
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_an_outcome_is_not_lost_to_a_signal(two, loop, interrupts, capfd):
    layer, _ = two

    async def main():
        trip(layer)
        sending = asyncio.ensure_future(layer.send(layer.new_channel(), {}))
        await asyncio.sleep(0)
        until(layer, "SENDS_CONFIRMED", 2)
        await sending

    interrupt(loop, main())
    assert not _callbacks.outcomes
    assert capfd.readouterr().err == ""  # nothing was dropped on the way


def test_an_arrival_is_not_lost_to_a_signal(two, loop, interrupts, capfd):
    layer, other = two
    channel = layer.new_channel()

    async def main():
        receiving = asyncio.ensure_future(layer.receive(channel))
        await asyncio.sleep(0)
        trip(layer)
        other.blocking.send(channel, {"n": 1})
        until(layer, "BACKLOG", 2)
        return await receiving

    assert interrupt(loop, main()) == {"n": 1}
    assert not _callbacks.arrivals
    assert capfd.readouterr().err == ""


def test_a_message_on_its_way_to_a_handler_is_not_lost_to_a_signal(two, loop, interrupts, capfd):
    layer, other = two
    channel = layer.new_channel()

    async def main():
        receiver = layer.handle(channel, lambda message: None)
        trip(layer)
        other.blocking.send(channel, {"n": 1})
        until(layer, "BACKLOG", 2)
        await asyncio.wait([receiver.ended])
        return receiver.ended.exception()

    assert type(interrupt(loop, main())) is KeyboardInterrupt
    assert layer.blocking.receive(channel, WAIT) == {"n": 1}
    assert capfd.readouterr().err == ""


def test_a_message_that_c_has_given_away_is_not_lost_to_a_signal(layer):
    channel = layer.new_channel()
    for n in range(3):
        layer.blocking.send(channel, {"n": n})
    receive_next = quick.layer_receive_next

    class Interrupted:
        """C, and a signal as it returns."""

        @staticmethod
        def layer_receive_next(*arguments):
            receive_next(*arguments)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        channel_layer.message.take(layer._handle, channel.encode(), 0, Interrupted)
    assert layer.blocking.receive(channel, WAIT) == {"n": 0}
    with pytest.raises(KeyboardInterrupt):
        channel_layer.message.take(layer._handle, channel.encode(), 0, Interrupted)

    async def main():
        assert await asyncio.wait_for(layer.receive(channel), WAIT) == {"n": 1}
        with pytest.raises(KeyboardInterrupt):
            channel_layer.message.take(layer._handle, channel.encode(), 0, Interrupted)
        got, all_there = [], asyncio.get_running_loop().create_future()

        def handler(message):
            got.append(message["n"])
            if len(got) == 2:
                all_there.set_result(None)

        receiver = layer.handle(channel, handler)
        await layer.send(channel, {"n": 3})
        await asyncio.wait_for(all_there, WAIT)
        receiver.cancel()
        assert got == [2, 3]

    asyncio.run(main())
    assert layer._handle.take_back(channel.encode()) is None


# --- a call that blocks, where another call is interrupted ----------------------------------

PRELUDE = f"""
import asyncio, ctypes, signal, sys, time
import channel_layer
from channel_layer import _callbacks
from channel_layer._library import Failure, check, quick

WAIT = {WAIT}
{inspect.getsource(trip)}
{inspect.getsource(until)}
{inspect.getsource(until_due)}
states = []
layer = channel_layer.Layer(
    host="memory://interrupted", on_state=lambda state, generation: states.append(state)
)
channel = layer.new_channel()
while channel_layer.State.READY not in states:  # after which no callback is due
    layer.poll(WAIT)

def blocks(*_):
    try:
        CALL
        print("returned", flush=True)
    except channel_layer.ChannelLayerError as error:
        print(error.status.name, flush=True)

signal.signal(signal.SIGINT, blocks)
"""
BLOCKING = {
    "send": "layer.blocking.send(channel, {})",
    "send_json": "layer.blocking.send(channel, '{}')",
    "group_send": "layer.blocking.group_send('g', {})",
    "group_add": "layer.blocking.group_add('g', channel)",
    "receive": "layer.blocking.receive(channel)",
    "wait_ready": "layer.blocking.wait_ready(60)",
    "poll": "layer.poll(60)",
    "close": "layer.blocking.close()",
}
IN_A_SIGNAL_HANDLER = """
async def main():
    receiving = asyncio.ensure_future(layer.receive(layer.new_channel()))
    trip(layer)
    sending = asyncio.ensure_future(layer.send("CHANNEL", {}))
    await asyncio.sleep(0)
    until_due(layer, 2)
    await sending
    try:
        await layer.send(channel, {})
    except channel_layer.ClosedError:
        try:
            await receiving
        except channel_layer.ClosedError:
            print("closed")
    else:
        print("usable")
        receiving.cancel()
        await layer.close()

asyncio.run(main())
""".replace('"CHANNEL"', "layer.new_channel()")
IN_A_FINALIZER = """
class Waiter(_callbacks.Completion):
    def __del__(self):
        blocks()

token, failure = next(_callbacks.tokens), Failure()
_callbacks.outcomes[token] = Waiter()
arguments = layer.new_channel().encode(), b"\\x80", 1, _callbacks.DONE, token, None, failure.at
check(quick.layer_send_async(layer._handle.pointer, *arguments), failure)
layer.poll(WAIT)  # the callback has the last reference
try:
    layer.blocking.send(channel, {})
    print("usable")
    layer.blocking.close()
except channel_layer.ClosedError:
    print("closed")
"""


def output_of(code):
    """What a program prints that must end by itself."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        timeout=WAIT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize("call", BLOCKING)
@pytest.mark.parametrize(
    "where", [IN_A_SIGNAL_HANDLER, IN_A_FINALIZER], ids=["signal", "finalizer"]
)
def test_a_call_that_blocks_is_refused_in_the_middle_of_a_callback(where, call):
    output = output_of(PRELUDE.replace("CALL", BLOCKING[call]) + where)
    # To close only begins there, and what waits elsewhere ends.
    expected = ["returned", "closed"] if call == "close" else ["WOULD_DEADLOCK", "usable"]
    assert output == expected


AWAITING = {
    "send": "send(own, {})",
    "send_json": "send(own, '{}')",
    "group_send": "group_send('g', {})",
    "group_add": "group_add('g', own)",
    "receive": "receive(own)",
    "wait_ready": "wait_ready(60)",
    "close": "close()",
}
IN_A_LOOP_OF_A_CALLBACK = """
loop = asyncio.new_event_loop()
if WATCHES:
    loop.run_until_complete(layer.send(channel, {}))

def on_state(state, generation):
    if state == channel_layer.State.READY:
        own = OF.new_channel()
        async def awaits():
            await OF.AWAITED
        try:
            loop.run_until_complete(awaits())
            print("returned")
        except channel_layer.ChannelLayerError as error:
            print(error.status.name)
        told.append(state)

told = []
calls = channel_layer.Layer(host="memory://calls", on_state=on_state)
while not told:
    calls.poll(WAIT)
for each in calls, layer:
    loop.run_until_complete(each.send(each.new_channel(), {}))
print("usable")
"""


@pytest.mark.parametrize("call", AWAITING)
@pytest.mark.parametrize("watches", [False, True], ids=["new", "watches"])
@pytest.mark.parametrize("of", ["calls", "layer"], ids=["its_layer", "another"])
def test_what_is_awaited_in_a_loop_that_a_callback_runs_is_refused(of, watches, call):
    code = IN_A_LOOP_OF_A_CALLBACK.replace("OF", of).replace("AWAITED", AWAITING[call])
    output = output_of(PRELUDE.replace("CALL", "None") + code.replace("WATCHES", str(watches)))
    assert output == ["WOULD_DEADLOCK", "usable"]


def test_a_closed_layer_may_be_closed_again_in_a_loop_that_a_callback_runs():
    code = """
def on_state(state, generation):
    if state == channel_layer.State.CLOSED:
        asyncio.run(layer.close())
        asyncio.run(calls.close())
        print("closed")

calls = channel_layer.Layer(host="memory://calls", on_state=on_state)
layer.blocking.close()
calls.blocking.close()
"""
    assert output_of(PRELUDE.replace("CALL", "None") + code) == ["closed"]


def test_a_handler_begins_what_its_own_loop_runs_later():
    code = """
async def main():
    other = channel_layer.Layer(host="memory://other")
    heard, theirs = asyncio.get_running_loop().create_future(), other.new_channel()

    def handler(message):
        other.handle(theirs, heard.set_result)  # this loop watches it from here on
        return channel_layer.Flow.STOP

    ended = layer.handle(channel, handler).ended
    await layer.send(channel, {})
    await ended
    await other.send(theirs, {"n": 1})
    print((await heard)["n"])

asyncio.run(main())
"""
    assert output_of(PRELUDE.replace("CALL", "None") + code) == ["1"]


@pytest.mark.parametrize("call", [each for each in BLOCKING if each not in ("receive", "poll")])
def test_a_call_that_blocks_waits_in_a_signal_handler_after_the_last_callback(call):
    code = """
trip(layer)
layer.poll(WAIT)  # the signal arrives in C, and no callback follows
"""
    assert output_of(PRELUDE.replace("CALL", BLOCKING[call]) + code) == ["returned"]


WITH_A_LOCK = {
    "of the loops": (
        "layer.blocking.close()",
        """
class Loop(asyncio.SelectorEventLoop):
    def add_reader(self, *arguments):
        if arguments[0] == layer._handle.fd:
            signal.raise_signal(signal.SIGINT)
        super().add_reader(*arguments)

loop = Loop()
try:
    loop.run_until_complete(layer.send(channel, {}))
except channel_layer.ClosedError:
    print("done")
loop.close()
""",
    ),
    "of the hooks": (
        "layer.blocking.wait_ready(WAIT)",
        """
class Waiters(set):
    def add(self, waiter):
        super().add(waiter)
        if len(self) == 1:
            signal.raise_signal(signal.SIGINT)

layer._handle.hooks._waiters = Waiters()
layer.blocking.wait_ready(WAIT)
print("done")
""",
    ),
    "of the notices": (
        "notices.state_changed(channel_layer.State.CONNECTING, 1)",
        """
import collections
from channel_layer._notices import Notices

class Channels(collections.OrderedDict):
    def get(self, name):
        signal.raise_signal(signal.SIGINT)
        return super().get(name)

notices = Notices("lost", "back")
notices.state_changed(channel_layer.State.READY, 1)
notices._channels = Channels()
notices.take(channel)
print("done")
""",
    ),
}


@pytest.mark.parametrize("lock", WITH_A_LOCK)
def test_a_signal_handler_may_interrupt_who_holds_a_lock_that_it_takes(lock):
    call, code = WITH_A_LOCK[lock]
    assert output_of(PRELUDE.replace("CALL", call) + code) == ["returned", "done"]


# --- a call that blocks ---------------------------------------------------------------------

BLOCKED = """
import os, signal, sys, time
import channel_layer

def main(host, call):
    # Nobody listens there, so that nothing is ever confirmed or ready.
    layer = channel_layer.Layer(host=host, timeout=60)
    channel = layer.new_channel() if call == "receive" else "q!c"
    print("waits", flush=True)
    begin = time.monotonic()
    {call}

try:
    main(*sys.argv[1:])
except KeyboardInterrupt:
    print("interrupted", time.time(), flush=True)
    os._exit(0)  # it shall not wait for the layer to close
"""
CALLS = {
    "receive": "layer.blocking.receive(channel)",
    "receive_with_a_timeout": "layer.blocking.receive(layer.new_channel(), 60)",
    "send": "layer.blocking.send(channel, {})",
    "group_send": "layer.blocking.group_send('g', {})",
    "group_add": "layer.blocking.group_add('g', layer.new_channel())",
    "wait_ready": "layer.blocking.wait_ready(60)",
    "poll": "[layer.poll(60) for _ in range(1000)]",
}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_blocks_sees_ctrl_c_at_once(call):
    code = BLOCKED.replace("{call}", CALLS[call])
    child = subprocess.Popen(
        [sys.executable, "-c", code, "amqp://127.0.0.1:1/", call.split("_")[0]],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "waits\n"
        # It is to be inside the call: the kernel says so of a process that waits.
        deadline = time.monotonic() + WAIT
        with open(f"/proc/{child.pid}/stat", encoding="ascii") as stat:
            while stat.read().split()[2] != "S":
                assert time.monotonic() < deadline
                stat.seek(0)
        sent = time.time()
        child.send_signal(signal.SIGINT)
        output, _ = child.communicate(timeout=WAIT)
        word, at = output.split()
        assert word == "interrupted" and child.returncode == 0
        assert float(at) - sent < 0.2
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_call_that_blocks_in_another_thread_waits_in_c(layer):
    channel, got = layer.new_channel(), []
    thread = threading.Thread(target=lambda: got.append(layer.blocking.receive(channel, WAIT)))
    thread.start()
    layer.blocking.send(channel, {"n": 1})
    thread.join(WAIT)
    assert got == [{"n": 1}]


def test_a_main_thread_that_blocks_is_woken_by_whoever_polls(layer):
    channel, stop = layer.new_channel(), threading.Event()

    def poll():
        while not stop.is_set():
            with contextlib.suppress(channel_layer.ClosedError):
                layer.poll(0.01)

    threads = [threading.Thread(target=poll) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        began = time.monotonic()
        for n in range(200):
            layer.blocking.send(channel, {"n": n})
            assert layer.blocking.receive(channel, WAIT) == {"n": n}
        assert time.monotonic() - began < 200 * 0.1
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT)


@pytest.mark.parametrize("timeout", [math.nan, -1, -math.inf])
def test_a_timeout_that_is_no_time_is_refused(timeout, layer):
    channel = layer.new_channel()
    for call in (
        lambda: layer.poll(timeout),
        lambda: layer.blocking.receive(channel, timeout),
        lambda: layer.blocking.wait_ready(timeout),
        lambda: layer.blocking.close(timeout),
        lambda: asyncio.run(layer.receive(channel, timeout)),
        lambda: asyncio.run(layer.wait_ready(timeout)),
        lambda: asyncio.run(layer.close(timeout)),
    ):
        with pytest.raises(ValueError, match="timeout"):
            call()
    with pytest.raises(TimedOutError):
        layer.blocking.receive(channel, 0)
    assert issubclass(InvalidError, ValueError)
