"""The layer beyond the shared cases: loops, threads, cancellation, misuse, fork."""

import asyncio
import gc
import json
import multiprocessing
import resource
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction

import pytest

import channel_layer
from channel_layer import (
    ClosedError,
    Flow,
    ForkedError,
    InvalidError,
    LogLevel,
    Stat,
    State,
    TimedOutError,
    _callbacks,
)
from channel_layer._library import waiting
from conftest import WAIT

# --- receiving and its cancellation ---------------------------------------------------------


@pytest.mark.slow
async def test_ten_thousand_receivers_cancelled_in_flight_lose_nothing(open_layer):
    layer = open_layer(local_capacity=100000, remote_capacity=100000, prefetch_count=1000)
    channel, count = layer.new_channel(), 10000
    got = []

    async def receive():
        got.append((await layer.receive(channel))["n"])

    async def send():
        for n in range(count):
            await layer.send(channel, {"n": n})

    sending = asyncio.ensure_future(send())
    for n in range(count):
        task = asyncio.ensure_future(receive())
        for _ in range(n % 4):  # at each stage of its wait
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    await sending
    while len(got) < count:
        got.append((await layer.receive(channel, WAIT))["n"])
    assert got == list(range(count))
    assert not _callbacks.arrivals and not _callbacks.outcomes


async def test_a_wait_that_runs_out_in_wait_for_loses_nothing(open_layer):
    layer = open_layer()
    channel = layer.new_channel()
    for n in range(50):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(layer.receive(channel), 0.001)
        await layer.send(channel, {"n": n})
        assert (await layer.receive(channel, WAIT))["n"] == n


async def test_a_task_cancelled_after_it_was_woken_leaves_its_message(open_layer, monkeypatch):
    layer = open_layer()
    channel = layer.new_channel()
    first = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(0)
    (waited_on,) = _callbacks.arrivals.values()
    settle, cancelled = _callbacks.settle, []

    def settle_and_cancel(future, *arguments):
        settle(future, *arguments)
        if future is waited_on:  # it is done, and the task has not run yet
            cancelled.append(first.cancel())

    monkeypatch.setattr(_callbacks, "settle", settle_and_cancel)
    await layer.send(channel, {"n": 1})
    with pytest.raises(asyncio.CancelledError):
        await first
    assert cancelled == [True]
    assert (await layer.receive(channel, WAIT))["n"] == 1


async def test_a_message_that_comes_while_its_handler_is_cancelled_stays(layer, monkeypatch):
    channel = layer.new_channel()
    handled, offered = [], []
    receiver = layer.handle(channel, handled.append)
    cancel_in_library = waiting.layer_receive_cancel

    def cancel_late(*arguments):
        # The handler is gone, and the library does not know yet.
        layer.blocking.send(channel, {"n": 1})
        deadline = time.monotonic() + WAIT
        while layer.stat(Stat.BACKLOG) == 0:
            assert time.monotonic() < deadline
        layer.poll()
        offered.append(layer.stat(Stat.RECEIVERS) == 0)  # it has declined, and so ended
        return cancel_in_library(*arguments)

    monkeypatch.setattr(waiting, "layer_receive_cancel", cancel_late)
    receiver.cancel()
    assert offered == [True]
    assert (await layer.receive(channel, WAIT))["n"] == 1
    assert handled == []


@pytest.mark.parametrize("which", [2**32 + 1, 1 - 2**32, 0, -1])
def test_a_number_that_is_no_statistic_is_refused(which, layer):
    with pytest.raises(InvalidError):
        layer.stat(which)


@pytest.mark.parametrize("which", [1.0, "1", None])
def test_a_statistic_is_named_by_an_integer(which, layer):
    assert layer.stat(1) == layer.stat(Stat(1))
    with pytest.raises(TypeError):
        layer.stat(which)


async def test_several_that_wait_share_the_messages(open_layer):
    layer = open_layer()
    channel = layer.new_channel()
    tasks = [asyncio.ensure_future(layer.receive(channel, WAIT)) for _ in range(20)]
    for n in range(20):
        await layer.send(channel, {"n": n})
    assert sorted(m["n"] for m in await asyncio.gather(*tasks)) == list(range(20))


async def test_iteration_ends_when_the_layer_is_closed(open_layer):
    layer = open_layer()
    channel = layer.new_channel()
    got, third = [], asyncio.Event()

    async def iterate():
        async for message in layer.messages(channel):
            got.append(message["n"])
            if len(got) == 3:
                third.set()

    task = asyncio.ensure_future(iterate())
    for n in range(3):
        await layer.send(channel, {"n": n})
    await asyncio.wait_for(third.wait(), WAIT)
    await layer.close()
    await asyncio.wait_for(task, WAIT)
    assert got == [0, 1, 2]


async def test_a_handler_that_raises_ends_its_receiver_with_that(open_layer):
    layer = open_layer()
    channel = layer.new_channel()

    def handler(message):
        raise LookupError("mine")

    receiver = layer.handle(channel, handler)
    await layer.send(channel, {})
    with pytest.raises(LookupError, match="mine"):
        await asyncio.wait_for(receiver.ended, WAIT)


async def test_a_handler_that_stops_has_taken_its_message(open_layer):
    layer = open_layer()
    channel = layer.new_channel()
    receiver = layer.handle(channel, lambda message: Flow.STOP)
    await layer.send(channel, {"n": 1})
    assert await asyncio.wait_for(receiver.ended, WAIT) is None
    await layer.send(channel, {"n": 2})
    assert (await layer.receive(channel, WAIT))["n"] == 2


# --- several loops, threads -----------------------------------------------------------------


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def test_two_loops_share_one_queue_and_each_gets_what_it_waits_for(open_layer):
    layer = open_layer(remote_capacity=1000, stall_after=0)  # however slow the machine is
    loops = [LoopThread(), LoopThread()]
    channels = [layer.new_channel(), layer.new_channel()]
    assert channels[0].split("!")[0] == channels[1].split("!")[0]

    async def talk(mine, other):
        for n in range(500):
            await layer.send(other, {"n": n})
        return [(await layer.receive(mine, WAIT))["n"] for _ in range(500)]

    try:
        futures = [loop.run(talk(channels[i], channels[1 - i])) for i, loop in enumerate(loops)]
        for future in futures:
            assert future.result(60) == list(range(500))
    finally:
        for loop in loops:
            loop.close()


def test_a_loop_that_is_closed_holds_up_no_other(open_layer):
    layer = open_layer()
    channel = layer.new_channel()
    staying = LoopThread()
    try:
        waiting = staying.run(layer.receive(channel))
        for _ in range(20):  # each loop watches, and is gone
            asyncio.run(layer.send(layer.new_channel(), {}))
        gone = LoopThread()
        abandoned = gone.run(layer.receive(layer.new_channel()))
        gone.run(asyncio.sleep(0)).result(WAIT)
        gone.close()
        layer.blocking.send(channel, {"n": 1})
        assert waiting.result(WAIT)["n"] == 1
        del abandoned
    finally:
        staying.close()


def test_a_loop_that_is_busy_holds_up_no_other(open_layer):
    layer = open_layer()
    channel = layer.new_channel()
    busy, other = LoopThread(), LoopThread()
    release = threading.Event()
    try:
        busy.run(layer.send(layer.new_channel(), {})).result(WAIT)
        waiting = other.run(layer.receive(channel))
        busy.loop.call_soon_threadsafe(release.wait)
        layer.blocking.send(channel, {"n": 1})
        assert waiting.result(WAIT)["n"] == 1
    finally:
        release.set()
        busy.close()
        other.close()


def test_a_handler_runs_in_its_own_loop_alone_and_in_order(open_layer):
    layer = open_layer(local_capacity=2000, remote_capacity=2000)
    channel, count = layer.new_channel(), 300
    mine, other = LoopThread(), LoopThread()
    got, threads, done = [], set(), threading.Event()

    def handler(message):
        got.append(message["n"])
        threads.add(threading.get_ident())
        if len(got) == count:
            done.set()

    async def start():
        return layer.handle(channel, handler)

    async def send():
        for n in range(count):
            await layer.send(channel, {"n": n})

    async def cancel(receiver):
        receiver.cancel()

    try:
        receiver = mine.run(start()).result(WAIT)
        other.run(send()).result(WAIT)
        assert done.wait(WAIT)
        mine.run(cancel(receiver)).result(WAIT)
        assert got == list(range(count))
        assert threads == {mine.thread.ident}
    finally:
        mine.close()
        other.close()


def test_threads_without_a_loop_send_and_receive(open_layer):
    layer = open_layer(local_capacity=1000, remote_capacity=1000)
    channel = layer.new_channel()

    def send(start):
        for n in range(start, start + 50):
            layer.blocking.send(channel, {"n": n})

    threads = [threading.Thread(target=send, args=(50 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    got = sorted(layer.blocking.receive(channel, WAIT)["n"] for _ in range(200))
    for thread in threads:
        thread.join()
    assert got == list(range(200))


def test_log_and_states_come_by_poll(open_layer):
    states, records = [], []
    layer = open_layer(
        on_state=lambda state, generation: states.append((state, generation)),
        on_log=lambda *record: records.append(record),
    )
    layer.blocking.wait_ready(WAIT)
    while (State.READY, 1) not in states or not records:
        layer.poll(WAIT)
    layer.blocking.close()
    level, id, target, text = records[0]
    assert (level, id, target) == (LogLevel.INFO, "connected", "channel_layer::broker")
    assert text.startswith("connected to")


def test_statistics_come_as_text_for_prometheus(open_layer):
    layer = open_layer()
    layer.blocking.wait_ready(WAIT)
    layer.blocking.send(layer.new_channel(), {"n": 1})
    text = layer.prometheus({"site": 'a "b"\n\\é', "zone": "3"})
    assert 'channel_layer_sends_total{site="a \\"b\\"\\n\\\\é",zone="3"} 1\n' in text
    assert "channel_layer_ready 1\n" in layer.prometheus()
    with pytest.raises(InvalidError, match="the library's own"):
        layer.prometheus({"reason": "mine"})


def test_a_close_while_threads_are_inside_calls_ends_them(open_layer):
    layer = open_layer()
    layer.blocking.wait_ready(WAIT)
    channel, errors = layer.new_channel(), []

    def receive():
        try:
            layer.blocking.receive(channel)
        except ClosedError as error:
            errors.append(error)

    threads = [threading.Thread(target=receive) for _ in range(8)]
    for thread in threads:
        thread.start()
    layer.blocking.close()
    for thread in threads:
        thread.join(WAIT)
    assert len(errors) == 8


# --- misuse ---------------------------------------------------------------------------------


async def test_a_closed_layer_raises_the_text_of_c(open_layer):
    layer = open_layer()
    await layer.close()
    with pytest.raises(ClosedError, match="closed"):
        layer.new_channel()
    with pytest.raises(ClosedError, match="closed"):
        layer.poll()


@pytest.mark.parametrize("message", [None, 1, ["a"], object()])
async def test_a_message_of_a_wrong_type_is_a_type_error(layer, message):
    with pytest.raises(TypeError):
        await layer.send(layer.new_channel(), message)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800"])
async def test_a_value_that_cannot_travel_is_invalid(layer, value):
    with pytest.raises(InvalidError):
        await layer.send(layer.new_channel(), {"a": value})


async def test_integers_above_signed_64_bits_arrive(layer):
    channel = layer.new_channel()
    numbers = [2**63 - 1, 2**63, 2**64 - 1, -(2**63)]
    await layer.send(channel, {"a": numbers})
    await layer.send(channel, json.dumps({"a": numbers}))
    for _ in range(2):
        got = await asyncio.wait_for(layer.receive(channel), 10)
        assert got == {"a": numbers}
        assert json.loads(got.json) == {"a": numbers}
    with pytest.raises(InvalidError, match=r"message\.a\[1\]"):
        await layer.send(channel, json.dumps({"a": [0, 2**64]}))


async def test_names_of_a_wrong_type_or_with_a_nul_are_refused(layer):
    channel = layer.new_channel()
    with pytest.raises(TypeError):
        await layer.send(channel.encode(), {})
    with pytest.raises(InvalidError, match="NUL"):
        await layer.send(channel + "\0more", {})


def test_options_of_a_wrong_type_are_refused():
    with pytest.raises(TypeError, match="expiry"):
        channel_layer.Layer(host="memory://misuse", expiry=[1])
    with pytest.raises(InvalidError, match="dispatch"):
        channel_layer.Layer(host="memory://misuse", dispatch="thread")


@pytest.mark.parametrize("name", ["on_log", "on_state", "on_isolation", "default"])
@pytest.mark.parametrize("given", [5, "print", False])
def test_a_hook_that_cannot_be_called_is_a_type_error(name, given):
    hooks = dict(_callbacks.hooks)
    with pytest.raises(TypeError, match=f"{name} is a function, not {type(given).__name__}"):
        channel_layer.Layer(host="memory://misuse", **{name: given})
    assert dict(_callbacks.hooks) == hooks


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"host": "memory://check", "expiry": 30, "stall_after": None}, None),
        ({"expiry": "soon"}, InvalidError),
        ({"no_such_option": 1}, InvalidError),
        ({"expiry": [1]}, TypeError),
        ({"dispatch": "thread"}, InvalidError),
        ({"tls_ca_file": "/dev/null"}, InvalidError),  # nothing would be encrypted
        ({"host": "amqps://nowhere.invalid/", "tls_ca_file": "/dev/null"}, InvalidError),
        ({"host": "amqps://nowhere.invalid/", "tls_ca_pem": "none"}, InvalidError),
    ],
)
def test_a_check_of_options_raises_what_opening_would(options, error):
    said = []
    for take in (channel_layer.Layer.check, channel_layer.Layer):
        try:
            taken = take(**options)
        except (InvalidError, TypeError) as problem:
            said.append((type(problem), str(problem)))
        else:
            said.append((None, None))
            if taken is not None:
                taken.blocking.close()
    assert said[0] == said[1]
    assert said[0][0] is error


def test_a_check_of_options_starts_no_thread():
    code = """
import os
from channel_layer import Layer
before = os.listdir("/proc/self/task"), len(os.listdir("/proc/self/fd"))
Layer.check(host="amqp://me:secret@nowhere.invalid/", expiry=30)
assert (os.listdir("/proc/self/task"), len(os.listdir("/proc/self/fd"))) == before
layer = Layer(host="memory://check")
assert len(os.listdir("/proc/self/task")) > len(before[0])
layer.blocking.close()
"""
    subprocess.run([sys.executable, "-c", code], timeout=WAIT, check=True)


async def test_a_coroutine_function_is_no_handler(layer):

    async def handler(message):
        pass

    with pytest.raises(TypeError, match="async for"):
        layer.handle(layer.new_channel(), handler)


def test_a_negative_timeout_is_refused(layer):
    with pytest.raises(InvalidError):
        layer.blocking.receive(layer.new_channel(), -1)
    with pytest.raises(TimedOutError):
        layer.blocking.receive(layer.new_channel(), 0)


@pytest.mark.parametrize("given", [True, "1", [1], None])
async def test_a_timeout_of_a_wrong_type_is_a_type_error(layer, given):
    channel = layer.new_channel()
    calls = [
        layer.wait_ready,
        layer.close,
        layer.blocking.wait_ready,
        layer.blocking.close,
        layer.blocking.poll,
        layer.poll,
    ]
    if given is not None:  # which waits for as long as it takes
        calls += [
            lambda timeout: layer.receive(channel, timeout),
            lambda timeout: layer.blocking.receive(channel, timeout),
        ]
    for call in calls:
        with pytest.raises(TypeError, match=f"timeout .*, not {type(given).__name__}"):
            await call(given)
    assert layer.state() is not State.CLOSED


def test_a_timeout_is_any_real_number(layer):
    channel = layer.new_channel()
    for given in (0, 0.01, Fraction(1, 100), float("inf")):
        layer.blocking.send(channel, {"a": 1})
        assert layer.blocking.receive(channel, given or 1) == {"a": 1}
    with pytest.raises(InvalidError, match="timeout"):
        layer.blocking.receive(channel, float("nan"))


def test_coroutines_need_a_loop(layer):
    coroutine = layer.send(layer.new_channel(), {})
    with pytest.raises(RuntimeError, match="event loop"):
        coroutine.send(None)


def resident():
    """The memory of this process, in bytes."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_messages_that_nobody_refers_to_are_freed(opened):
    """What C keeps of a message is memory that the garbage collector does not see."""
    layer = opened(host="memory://freed")
    channel = layer.new_channel()
    pad = bytes(10_000)

    def receive(count):
        for _ in range(count):
            layer.blocking.send(channel, {"pad": pad})
            assert layer.blocking.receive(channel, WAIT)["pad"] == pad

    receive(2_000)
    before = resident()
    receive(10_000)
    gc.collect()
    assert resident() - before < 40_000_000  # all of them would take 100 MB


def test_a_message_outlives_its_layer():
    layer = channel_layer.Layer(host="memory://outlives")
    channel = layer.new_channel()
    layer.blocking.send(channel, {"n": 1})
    message = layer.blocking.receive(channel, WAIT)
    layer.blocking.close()
    del layer
    gc.collect()
    assert message.data == {"n": 1} and message.channel == channel


# --- fork -----------------------------------------------------------------------------------


def _in_child(layer, channel, host, pipe):
    def error_of(call):
        try:
            call()
        except ForkedError as error:
            return str(error)
        return None

    async def send():
        await layer.send(channel, {})

    texts = [
        error_of(lambda: layer.blocking.send(channel, {})),
        error_of(lambda: asyncio.run(send())),
        error_of(layer.new_channel),
        error_of(layer.poll),
        error_of(layer.blocking.close),
    ]
    with channel_layer.Layer(host=host) as own:
        mine = own.new_channel()
        own.blocking.send(mine, {"n": 2})
        texts.append(own.blocking.receive(mine, WAIT)["n"])
    pipe.send(texts)


def test_a_forked_child_is_told_so_and_opens_its_own(open_layer, host):
    layer = open_layer()
    layer.blocking.wait_ready(WAIT)
    channel = layer.new_channel()
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(layer, channel, host, sending))
    child.start()
    assert receiving.poll(WAIT)
    *texts, own = receiving.recv()
    child.join(WAIT)
    assert child.exitcode == 0
    assert all(text and "fork" in text for text in texts), texts
    assert own == 2
    layer.blocking.send(channel, {"n": 1})  # the parent goes on
    assert layer.blocking.receive(channel, WAIT)["n"] == 1


def test_a_blocking_receive_lets_signals_through(layer):

    class Interrupted(Exception):
        pass

    def handler(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with pytest.raises(Interrupted):
            layer.blocking.receive(layer.new_channel())
    finally:
        signal.signal(signal.SIGALRM, before)
