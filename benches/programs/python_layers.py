"""The Python channel layers, each driven as its users would: all workloads in one program.

    python_layers.py LAYER WORKLOAD [NAME=VALUE]...

LAYER is channels_rabbitmq, redis_core or redis_pubsub; or our own: python, the plain API, or
django, the backend for Django Channels. The broker's address is in CHANNEL_LAYER_TEST_AMQP, that of
Redis in CHANNEL_LAYER_BENCH_REDIS.
Prints one line of JSON, with the figures that the C programs print for the same workload.

One event loop, two layer objects: one sends, one receives. These layers have no window of
confirms: `senders` coroutines each await their send. Messages of coroutines that run at once may
overtake each other, so that it is checked that each arrives once, but not in which order. No more
than `backlog` messages are on their way: in one event loop 64 coroutines that send leave one that
receives behind, and what they send then waits in memory.
"""

import asyncio
import ctypes
import gc
import json
import math
import mmap
import os
import signal
import sys
import threading
import time

import msgpack
from channels.exceptions import ChannelFull

CAPACITY = 100000
FIRST_SEQ = 1 << 40  # so that MessagePack gives each number 9 bytes
GROUP = "bench"
PROCESS_SECONDS = 150  # how long a receiving process lives at most


def fail(text):
    """Ends the program, whatever else runs in it."""
    print(f"python_layers.py: {text}", file=sys.stderr, flush=True)
    os._exit(1)


def finish(figures):
    """Prints, and ends without clean-up: what is left would only wait for its connections."""
    print(json.dumps(figures), flush=True)
    os._exit(0)


def spawn(coroutine):
    """A task whose failure is the program's."""

    def ended(task):
        if not task.cancelled() and task.exception() is not None:
            fail(f"{type(task.exception()).__name__}: {task.exception()}")

    task = asyncio.ensure_future(coroutine)
    task.add_done_callback(ended)
    return task


# --- the layers -----------------------------------------------------------------------------


def new_channels_rabbitmq(capacity=1000, default=False):
    """Option `local_capacity` is also its prefetch."""
    from channels_rabbitmq.core import RabbitmqChannelLayer

    url = os.environ["CHANNEL_LAYER_TEST_AMQP"]
    if default:
        return RabbitmqChannelLayer(host=url)
    return RabbitmqChannelLayer(host=url, local_capacity=capacity, remote_capacity=CAPACITY)


def new_python(capacity=1000, default=False):
    """As the programs in C have it."""
    from channel_layer import Layer

    url = os.environ["CHANNEL_LAYER_TEST_AMQP"]
    if default:
        return PlainLayer(Layer(host=url))
    return PlainLayer(Layer(host=url, prefetch_count=capacity, local_capacity=CAPACITY,
                            remote_capacity=CAPACITY))


class PlainLayer:
    """The plain API under the names of Channels, where they differ; what is measured is the
    layer's own."""

    def __init__(self, layer):
        self.layer = layer
        self.send, self.receive, self.close = layer.send, layer.receive, layer.close
        self.group_add, self.group_send = layer.group_add, layer.group_send

    async def new_channel(self):
        return self.layer.new_channel()

    async def group_discard(self, group, channel):
        self.layer.group_discard(group, channel)


def new_django(capacity=1000, default=False):
    """Its options mean what they mean to channels_rabbitmq."""
    from channel_layer.django import RabbitmqChannelLayer

    url = os.environ["CHANNEL_LAYER_TEST_AMQP"]
    if default:
        return RabbitmqChannelLayer(host=url)
    return RabbitmqChannelLayer(host=url, local_capacity=capacity, remote_capacity=CAPACITY)


def redis_hosts():
    """Each call that is under way has a connection of its own; the client's pool allows 100 unless
    told otherwise, and refuses the next. The client gives up on an answer after 5 seconds, which is
    how long channels_redis itself has Redis wait for a message."""
    address = os.environ["CHANNEL_LAYER_BENCH_REDIS"]
    return [{"address": address, "max_connections": 5000, "socket_timeout": 60}]


def new_redis_core(capacity=CAPACITY, default=False):
    """Option `capacity` holds for each channel, and for what is buffered of it."""
    from channels_redis.core import RedisChannelLayer

    if default:
        return RedisChannelLayer(hosts=redis_hosts())
    return RedisChannelLayer(hosts=redis_hosts(), capacity=CAPACITY)


def new_redis_pubsub(capacity=CAPACITY, default=False):
    """It has no capacity."""
    from channels_redis.pubsub import RedisPubSubChannelLayer

    return RedisPubSubChannelLayer(hosts=redis_hosts())


async def connected(layer):
    """The layer, with its connection. One of them begins to connect only when it sends or joins a
    group, and what is sent to a layer that is not connected is lost."""
    if hasattr(layer, "carehare_connection"):
        await layer.carehare_connection
    elif hasattr(layer, "layer"):  # ours
        await layer.layer.wait_ready()
    return layer


async def close(layer):
    """Closes the connections of a layer; each has its own name for it."""
    for name in ("close", "close_pools", "flush"):
        if hasattr(layer, name):
            await getattr(layer, name)()
            return


LAYERS = {
    "python": new_python,
    "django": new_django,
    "channels_rabbitmq": new_channels_rabbitmq,
    "redis_core": new_redis_core,
    "redis_pubsub": new_redis_pubsub,
}


# --- messages -------------------------------------------------------------------------------


def message_of(body):
    """A message that takes `body` bytes of MessagePack, less the layer's own keys."""
    message = {"type": "bench.message", "seq": FIRST_SEQ, "text": ""}
    for header in (1, 2, 3, 5):  # of the text, which begins with its length
        message["text"] = "x" * max(0, body - len(msgpack.packb(message)) + 1 - header)
        if len(msgpack.packb(message)) == body:
            return message
        message["text"] = ""
    fail(f"there is no message of {body} bytes")


class Tally:
    """Counts a message once its send was awaited and it has been received."""

    def __init__(self, backlog):
        self.backlog = backlog
        self.sent = self.received = self.complete = 0
        self._open = {}  # by number, whether one of the two has come
        self._room = asyncio.Event()

    async def next(self):
        while self.sent - self.received >= self.backlog:
            self._room.clear()
            await self._room.wait()
        seq = FIRST_SEQ + self.sent
        self.sent += 1
        self._open[seq] = set()
        return seq

    def mark(self, seq, what):
        marks = self._open.get(seq)
        if marks is None or what in marks:
            fail(f"message {seq - FIRST_SEQ} was {what} twice, or never sent")
        marks.add(what)
        if what == "received":
            self.received += 1
            self._room.set()
        if len(marks) == 2:
            del self._open[seq]
            self.complete += 1


def percentiles(microseconds):
    """By nearest rank, as bench.h has it."""
    if not microseconds:
        fail("no message arrived in the time that was measured")
    ordered = sorted(microseconds)

    def at(percent):
        return round(ordered[max(1, math.ceil(percent / 100 * len(ordered))) - 1], 1)

    return {"messages": len(ordered), "p50_us": at(50), "p99_us": at(99), "p999_us": at(99.9),
            "max_us": round(ordered[-1], 1)}


class Clock:
    """Ticks `rate` times a second, by a timer of the kernel: those of the event loop have steps of
    a millisecond. `start` is when the first tick was due."""

    def __init__(self, rate):
        libc = ctypes.CDLL(None, use_errno=True)
        self._timer = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        period = 1 / rate
        self.start = time.monotonic() + 0.01
        # it_interval, then it_value: each seconds and nanoseconds.
        spec = (ctypes.c_long * 4)(int(period), int(period % 1 * 1e9),
                                   int(self.start), int(self.start % 1 * 1e9))
        if self._timer < 0 or libc.timerfd_settime(self._timer, 1, spec, None) != 0:
            fail(f"there is no timer: {os.strerror(ctypes.get_errno())}")
        self._ticks = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self._timer, self._on_timer)

    def _on_timer(self):
        for _ in range(int.from_bytes(os.read(self._timer, 8), sys.byteorder)):
            self._ticks.put_nowait(None)

    async def tick(self):
        await self._ticks.get()


async def until(condition, seconds, what):
    """Waits where nothing is measured any more."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            fail(what())
        await asyncio.sleep(0.002)


# --- workloads of single messages -----------------------------------------------------------


async def throughput(new, body=200, senders=64, backlog=500, seconds=3.0, warmup=1.0,
                     prefetch=1000):
    receiving = await connected(new(capacity=prefetch))
    sending = await connected(new(capacity=prefetch))
    channel = await receiving.new_channel()
    tally = Tally(backlog)
    message = message_of(body)
    stop = False

    async def receive():
        while True:
            tally.mark((await receiving.receive(channel))["seq"], "received")

    async def send():
        while not stop:
            seq = await tally.next()
            await sending.send(channel, {**message, "seq": seq})
            tally.mark(seq, "sent")

    spawn(receive())
    running = [spawn(send()) for _ in range(senders)]
    await asyncio.sleep(warmup)
    start, first, cpu = time.monotonic(), tally.complete, time.process_time()
    await asyncio.sleep(seconds)
    count = tally.complete - first
    took, used = time.monotonic() - start, time.process_time() - cpu
    stop = True
    await asyncio.wait(running)
    await until(lambda: tally.complete == tally.sent, 20,
                lambda: f"of {tally.sent} messages {tally.complete} came through")
    if count == 0:
        fail("no message came through in the time that was measured")
    return {"seconds": round(took, 3), "messages": count, "per_second": round(count / took, 1),
            "mb_per_second": round(count / took * body / 1e6, 2),
            "cpu_us_per_message": round(used * 1e6 / count, 2)}


async def latency(new, body=200, seconds=3.0, warmup=1.0, rate=0.0, prefetch=1000):
    receiving = await connected(new(capacity=prefetch))
    sending = await connected(new(capacity=prefetch))
    channel = await receiving.new_channel()
    message = message_of(body)
    return await (latency_at_rate(receiving, sending, channel, message, seconds, warmup, rate)
                  if rate > 0 else
                  latency_at_rest(receiving, sending, channel, message, seconds, warmup))


async def latency_at_rest(receiving, sending, channel, message, seconds, warmup):
    arrived, arrival = 0.0, asyncio.Event()

    async def receive():
        nonlocal arrived
        while True:
            await receiving.receive(channel)
            arrived = time.monotonic()
            arrival.set()

    spawn(receive())
    samples = []
    begin = time.monotonic() + warmup
    while True:
        sent = time.monotonic()
        if sent >= begin + seconds:
            return percentiles(samples)
        await sending.send(channel, message)
        await arrival.wait()
        arrival.clear()
        if sent >= begin:
            samples.append((arrived - sent) * 1e6)


async def latency_at_rate(receiving, sending, channel, message, seconds, warmup, rate):
    first, end = int(warmup * rate), int((warmup + seconds) * rate)
    samples, seen, clock = [], set(), None

    async def receive():
        while True:
            seq = (await receiving.receive(channel))["seq"] - FIRST_SEQ
            if seq in seen:
                fail(f"message {seq} was received twice")
            seen.add(seq)
            if seq >= first:
                samples.append((time.monotonic() - clock.start - seq / rate) * 1e6)

    spawn(receive())
    sends = set()
    await sending.send(channel, {**message, "seq": FIRST_SEQ - 1})  # connects
    await until(lambda: seen, 20, lambda: "the first message did not arrive")
    clock = Clock(rate)
    for seq in range(end):
        await clock.tick()
        task = spawn(sending.send(channel, {**message, "seq": FIRST_SEQ + seq}))
        sends.add(task)
        task.add_done_callback(sends.discard)
    await until(lambda: len(seen) == end + 1, 60,
                lambda: f"of {end} messages {len(seen) - 1} arrived")
    return {**percentiles(samples), "rate": round(rate, 1)}


async def connect(new, seconds=3.0):
    """From a new layer to its first message having arrived: they do not tell when they are
    ready."""
    samples = []
    end = time.monotonic() + seconds
    while len(samples) < 6 or (time.monotonic() < end and len(samples) < 101):
        start = time.monotonic()
        layer = new()
        channel = await layer.new_channel()
        await layer.send(channel, {"type": "bench.message"})
        await layer.receive(channel)
        samples.append((time.monotonic() - start) * 1e3)
        await close(layer)
    samples = sorted(samples[1:])  # the first meets cold files and caches
    return {"connections": len(samples), "median_ms": round(samples[(len(samples) - 1) // 2], 3),
            "max_ms": round(samples[-1], 3)}


# --- groups ---------------------------------------------------------------------------------


async def at_once(count, call, workers=100):
    """Awaits call(0) to call(count - 1), `workers` of them at once."""
    numbers = iter(range(count))

    async def work():
        for number in numbers:
            await call(number)

    await asyncio.gather(*(work() for _ in range(workers)))


async def members_of(layer, count, on_message):
    """Channels that are members of the group and receive, each in a task of its own."""
    channels = [await layer.new_channel() for _ in range(count)]

    async def receive(channel):
        expected = FIRST_SEQ
        while True:
            seq = (await layer.receive(channel))["seq"]
            if seq != expected:
                fail(f"message {seq - FIRST_SEQ} arrived where {expected - FIRST_SEQ} was due")
            expected += 1
            on_message()

    for channel in channels:
        spawn(receive(channel))
    await at_once(count, lambda number: layer.group_add(GROUP, channels[number]))


def cpu_of(pid):
    """Processor seconds of another process."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Receivers:
    """The processes of the workload, each with one member, and what they count in shared memory."""

    def __init__(self, new, count):
        self.counts = memoryview(mmap.mmap(-1, 16 * count)).cast("Q")
        self.pids = []
        for number in range(count):
            pid = os.fork()  # before this process has an event loop
            if pid == 0:
                try:
                    asyncio.run(self._receive(new, number))
                except BaseException as error:
                    fail(f"a receiving process: {error!r}")
            self.pids.append(pid)

    async def _receive(self, new, number):
        signal.alarm(PROCESS_SECONDS)

        def on_message():
            self.counts[2 * number] += 1

        await members_of(new(), 1, on_message)
        self.counts[2 * number + 1] = 1
        parent = os.getppid()
        while os.getppid() == parent:
            await asyncio.sleep(0.5)
        os._exit(1)  # the one that counts is gone

    def ready(self):
        return all(self.counts[2 * number + 1] for number in range(len(self.pids)))

    def total(self):
        return sum(self.counts[2 * number] for number in range(len(self.pids)))

    def cpu(self):
        return sum(cpu_of(pid) for pid in self.pids)

    def end(self):
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def watch_single(each, total):
    """Prints the figures of one message, from now until its last member has it. In a thread, since
    the event loop may not get to anything else any more."""
    start, used = time.monotonic(), time.process_time()

    def watch():
        while total() < each:
            time.sleep(0.005)
        took = time.monotonic() - start
        finish({"seconds": round(took, 3), "deliveries": each, "per_second": round(each / took, 1),
                "per_cpu_second": round(each / (time.process_time() - used), 1),
                "messages_per_second": round(1 / took, 3)})

    threading.Thread(target=watch, daemon=True).start()


async def broadcast(new, members=1, in_flight=1, seconds=3.0, warmup=1.0, single=0,
                    receivers=None):
    """With `single`, of one message alone."""
    local = 0

    def on_message():
        nonlocal local
        local += 1

    if receivers:
        each, total = len(receivers.pids), receivers.total
        await until(receivers.ready, 60, lambda: "a receiving process did not become ready")
    else:
        each, total = members, lambda: local
        await members_of(new(), members, on_message)
    # The tasks that receive get to where they wait.
    await asyncio.sleep(0.1)

    def cpu():
        return time.process_time() + (receivers.cpu() if receivers else 0)

    sending = await connected(new())
    message = message_of(200)
    sent = 0
    if single:
        watch_single(each, total)
        await sending.group_send(GROUP, {**message, "seq": FIRST_SEQ})
        await asyncio.Event().wait()
    begin = time.monotonic() + warmup
    start = first = used = None
    while True:
        now = time.monotonic()
        if start is None and now >= begin and total() >= each:
            start, first, used = now, total(), cpu()
        if start is not None and now >= start + seconds and total() >= first + each:
            break
        if sent - total() // each >= in_flight:
            await asyncio.sleep(0.0005)
            continue
        await sending.group_send(GROUP, {**message, "seq": FIRST_SEQ + sent})
        sent += 1
    deliveries, took, used = total() - first, now - start, cpu() - used
    await until(lambda: total() == sent * each, 60,
                lambda: f"of {sent * each} deliveries {total()} came")
    if receivers:
        receivers.end()
    return {"seconds": round(took, 3), "deliveries": deliveries,
            "per_second": round(deliveries / took, 1),
            "per_cpu_second": round(deliveries / used, 1),
            "messages_per_second": round(deliveries / each / took, 2)}


def memory():
    """Resident bytes, with what the allocator holds free given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def groups(new, groups=1000, in_flight=100):
    layer = new()
    channel = await layer.new_channel()
    await layer.group_add("bench-first", channel)  # sets up what later ones find
    before, cpu, start = memory(), time.process_time(), time.monotonic()
    await at_once(groups, lambda number: layer.group_add(f"bench-group-{number:08}", channel),
                  in_flight)
    added, cpu = time.monotonic() - start, time.process_time() - cpu
    held = memory() - before
    start = time.monotonic()
    await at_once(groups, lambda number: layer.group_discard(f"bench-group-{number:08}", channel),
                  in_flight)
    discarded = time.monotonic() - start
    return {"groups": groups, "adds_per_second": round(groups / added, 1),
            "discards_per_second": round(groups / discarded, 1),
            "bytes_per_group": round(held / groups, 1),
            "cpu_us_per_add": round(cpu * 1e6 / groups, 2)}


async def idle(new, channels=100000):
    """The names are counted: a name is one object, which program and layer share."""
    layer = new()
    first = await layer.new_channel()
    await layer.group_add(GROUP, first)
    before = memory()
    names = [await layer.new_channel() for _ in range(channels)]
    await at_once(channels, lambda number: layer.group_add(GROUP, names[number]))
    members = memory()
    for name in names:
        spawn(layer.receive(name))
    await asyncio.sleep(1)
    receivers = memory()
    return {"channels": channels, "bytes_each": round((members - before) / channels, 1),
            "bytes_each_with_receiver": round((receivers - before) / channels, 1)}


async def slow(new, channels=16, rate=2000.0, slow_ms=50.0, seconds=5.0):
    receiving, sending = await connected(new(default=True)), await connected(new(default=True))
    names = [await receiving.new_channel() for _ in range(channels)]
    message = message_of(200)
    samples, received, refused, clock = [], [0] * channels, 0, None
    end = int(rate * seconds)

    async def receive(number):
        while True:
            seq = (await receiving.receive(names[number]))["seq"] - FIRST_SEQ
            received[number] += 1
            if number != 0 and clock is not None:
                samples.append((time.monotonic() - clock.start - seq / rate) * 1e6)
            if number == 0 and clock is not None:
                await asyncio.sleep(slow_ms / 1e3)

    async def send(seq):
        nonlocal refused
        try:
            await sending.send(names[seq % channels], {**message, "seq": FIRST_SEQ + seq})
        except ChannelFull:
            refused += 1

    for number in range(channels):
        spawn(receive(number))
    for number in range(channels):  # connects
        await send(number)
    await until(lambda: all(received), 20, lambda: "the first messages did not arrive")
    received[:] = [0] * channels
    clock = Clock(rate)
    sends = set()
    for seq in range(end):
        await clock.tick()
        task = spawn(send(seq))
        sends.add(task)
        task.add_done_callback(sends.discard)
    await until(lambda: not sends, 60, lambda: f"{len(sends)} sends did not end")
    await asyncio.sleep(1)
    to_slow = len(range(0, end, channels))
    return {**percentiles(samples),
            "fast_received_percent": round(100 * sum(received[1:]) / (end - to_slow), 2),
            "slow_received_percent": round(100 * received[0] / to_slow, 2),
            "refused": refused, "rate": rate}


WORKLOADS = {function.__name__: function
             for function in (throughput, latency, connect, broadcast, groups, idle, slow)}


def main(arguments):
    if len(arguments) < 2 or arguments[0] not in LAYERS or arguments[1] not in WORKLOADS:
        fail(f"usage: python_layers.py {'|'.join(LAYERS)} {'|'.join(WORKLOADS)} [NAME=VALUE]...")
    new, workload = LAYERS[arguments[0]], WORKLOADS[arguments[1]]
    values = {}
    for argument in arguments[2:]:
        name, _, value = argument.partition("=")
        values[name] = float(value) if "." in value or name == "rate" else int(value)
    # Whatever hangs, a run has an end, and it is a failure.
    signal.alarm(int(values.get("seconds", 5)) + values.pop("limit", 60))
    processes = values.pop("processes", 0)
    if processes:
        values["receivers"] = Receivers(new, processes)

    async def run():
        # Inside, so that nothing is cancelled, which the layers would log at length.
        finish(await workload(new, **values))

    try:
        asyncio.run(run())
    except Exception as error:
        fail(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
