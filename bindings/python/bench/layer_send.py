#!/usr/bin/env python3
"""Messages from one layer to a channel of another, as benches/programs/layer_send.c has it:

    layer_send.py [api=plain|django|peer] [measure=throughput|latency] [body=BYTES] [window=N]
                  [backlog=N] [prefetch=N] [seconds=S] [warmup=S]

`api`: `channel_layer.Layer`, our backend for Django Channels, or channels_rabbitmq 4.0.1. `window`
coroutines each await their send; one receives. A message counts once its send was awaited and it
was received. The broker's address is in CHANNEL_LAYER_TEST_AMQP. Prints one line of JSON.
"""

import asyncio
import json
import math
import os
import sys
import time

import msgpack

CAPACITY = 100000
FIRST = 1 << 40  # so that MessagePack gives each number 9 bytes
OPTIONS = {
    "api": "plain",
    "measure": "throughput",
    "body": 200,
    "window": 64,
    "backlog": 500,
    "prefetch": 1000,
    "seconds": 3.0,
    "warmup": 1.0,
}


def options_of(arguments):
    options = dict(OPTIONS)
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name not in options:
            sys.exit(f"there is no argument {argument}\n{__doc__}")
        options[name] = type(OPTIONS[name])(value)
    return options


def open_layer(api, prefetch):
    url = os.environ["CHANNEL_LAYER_TEST_AMQP"]
    if api == "plain":
        from channel_layer import Layer

        return Layer(
            host=url, prefetch_count=prefetch, local_capacity=CAPACITY, remote_capacity=CAPACITY
        )
    if api == "django":
        from channel_layer.django import RabbitmqChannelLayer
    elif api == "peer":
        from channels_rabbitmq.core import RabbitmqChannelLayer
    else:
        sys.exit(f"there is no api={api}")
    return RabbitmqChannelLayer(host=url, local_capacity=prefetch, remote_capacity=CAPACITY)


async def channel_of(layer):
    channel = layer.new_channel()
    return await channel if asyncio.iscoroutine(channel) else channel


def message_of(body):
    """A message that takes `body` bytes of MessagePack."""
    message = {"type": "bench.message", "seq": FIRST, "text": ""}
    for header in (1, 2, 3, 5):  # of the text, which begins with its length
        message["text"] = ""
        message["text"] = "x" * max(0, body - len(msgpack.packb(message)) + 1 - header)
        if len(msgpack.packb(message)) == body:
            return message
    sys.exit(f"there is no message of {body} bytes")


class Tally:
    def __init__(self, backlog):
        self.backlog = backlog
        self.sent = self.received = self.complete = 0
        self.open = {}  # by number, what has come of the two
        self.room = asyncio.Event()

    async def next(self):
        while self.sent - self.received >= self.backlog:
            self.room.clear()
            await self.room.wait()
        seq = FIRST + self.sent
        self.sent += 1
        self.open[seq] = None
        return seq

    def mark(self, seq, what):
        if seq not in self.open or self.open[seq] == what:
            raise RuntimeError(f"message {seq - FIRST} was {what} twice, or never sent")
        if what == "received":
            self.received += 1
            self.room.set()
        if self.open[seq] is None:
            self.open[seq] = what
        else:
            del self.open[seq]
            self.complete += 1


async def throughput(sending, receiving, options):
    channel = await channel_of(receiving)
    tally, message, stop = Tally(options["backlog"]), message_of(options["body"]), False

    async def receive():
        while True:
            tally.mark((await receiving.receive(channel))["seq"], "received")

    async def send():
        while not stop:
            seq = await tally.next()
            await sending.send(channel, {**message, "seq": seq})
            tally.mark(seq, "sent")

    tasks = [asyncio.ensure_future(send()) for _ in range(options["window"])]
    receiver = asyncio.ensure_future(receive())
    await asyncio.sleep(options["warmup"])
    start, first, cpu = time.monotonic(), tally.complete, time.process_time()
    await asyncio.sleep(options["seconds"])
    count = tally.complete - first
    took, used = time.monotonic() - start, time.process_time() - cpu
    stop = True
    await asyncio.gather(*tasks)
    deadline = time.monotonic() + 20
    while tally.complete < tally.sent:
        if receiver.done() or time.monotonic() > deadline:
            sys.exit(f"of {tally.sent} messages {tally.complete} came through")
        await asyncio.sleep(0.002)
    receiver.cancel()
    if count == 0:
        sys.exit("no message came through in the time that was measured")
    return {
        "seconds": round(took, 3),
        "messages": count,
        "per_second": round(count / took, 1),
        "mb_per_second": round(count / took * options["body"] / 1e6, 2),
        "cpu_us_per_message": round(used * 1e6 / count, 2),
    }


async def latency(sending, receiving, options):
    channel = await channel_of(receiving)
    message, arrival, arrived, samples = message_of(options["body"]), asyncio.Event(), 0.0, []

    async def receive():
        nonlocal arrived
        while True:
            await receiving.receive(channel)
            arrived = time.monotonic()
            arrival.set()

    receiver = asyncio.ensure_future(receive())
    begin = time.monotonic() + options["warmup"]
    while True:
        sent = time.monotonic()
        if sent >= begin + options["seconds"]:
            break
        await sending.send(channel, message)
        await arrival.wait()
        arrival.clear()
        if sent >= begin:
            samples.append((arrived - sent) * 1e6)
    receiver.cancel()
    samples.sort()

    def at(percent):
        return round(samples[max(1, math.ceil(percent / 100 * len(samples))) - 1], 1)

    return {
        "messages": len(samples),
        "p50_us": at(50),
        "p99_us": at(99),
        "p999_us": at(99.9),
        "max_us": round(samples[-1], 1),
    }


async def main():
    options = options_of(sys.argv[1:])
    measures = {"throughput": throughput, "latency": latency}
    if options["measure"] not in measures:
        sys.exit(f"there is no measure={options['measure']}")
    receiving = open_layer(options["api"], options["prefetch"])
    sending = open_layer(options["api"], options["prefetch"])
    for layer in (receiving, sending):
        if hasattr(layer, "carehare_connection"):
            await layer.carehare_connection  # what is sent before that is lost
        else:
            await getattr(layer, "layer", layer).wait_ready()
    print(json.dumps(await measures[options["measure"]](sending, receiving, options)))
    for layer in (sending, receiving):
        await layer.close()


asyncio.run(main())
