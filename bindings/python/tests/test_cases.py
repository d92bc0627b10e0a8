"""The cases that every binding replays, tests/bindings/cases.json."""

import asyncio
import base64
import contextlib
import json
import math
import os
import time
import uuid
from pathlib import Path

import pytest

import channel_layer
from channel_layer import ChannelLayerError, Flow, Stat, State, Status

CASES = json.loads(
    (Path(__file__).resolve().parents[3] / "tests" / "bindings" / "cases.json").read_text("utf-8")
)["cases"]
WAIT = 5  # seconds


def value_of(given):
    if isinstance(given, list):
        return [value_of(each) for each in given]
    if not isinstance(given, dict):
        return given
    if len(given) == 1:
        ((form, inner),) = given.items()
        if form == "$bytes":
            return base64.b64decode(inner)
        if form == "$int":
            return int(inner)
        if form == "$float":
            return float(inner)
        if form == "$repeat":
            return value_of(inner[0]) * inner[1]
        if form == "$nest":
            value = []
            for _ in range(inner - 1):
                value = [value]
            return value
    return {key: value_of(each) for key, each in given.items()}


def same(left, right):
    """Equal in value and type, at every level; without recursion by depth for a plain nest."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return left == right


def test_values_of_another_type_are_not_the_same():
    assert not same(1, 1.0) and not same("a", b"a") and not same([1], [True])
    assert same({"a": [math.nan]}, {"a": [math.nan]})


class Run:
    """One run of a case."""

    def __init__(self, broker):
        self.id = uuid.uuid4().hex[:12]
        amqp = os.environ["CHANNEL_LAYER_TEST_AMQP"]
        self.host = amqp if broker == "rabbitmq" else f"memory://{self.id}"
        self.layers = {}
        self.names = {}

    def open(self, options):
        return channel_layer.Layer(**{"host": self.host, **options})

    def channel(self, step):
        return self.names.get(step["channel"], step["channel"])

    def group(self, text):
        return f"{text[1:]}.{self.id}" if text and text[0] == "~" else text

    def words(self, text):
        return self.names.get(text, text)

    async def step(self, step):
        action = getattr(self, "do_" + step["do"])
        layer = self.layers.get(step.get("layer"))
        if "status" not in step:
            await action(layer, step)
            return
        with pytest.raises(ChannelLayerError) as caught:
            await action(layer, step)
        assert caught.value.status == Status[step["status"][len("LAYER_") :]], caught.value
        for words in step.get("says", ()):
            assert self.words(words) in str(caught.value)

    async def do_open(self, _, step):
        self.open(step["options"]).blocking.close()

    async def do_wait_ready(self, layer, step):
        await layer.wait_ready(WAIT)

    async def do_new_channel(self, layer, step):
        self.names["$" + step["as"]] = layer.new_channel(step["prefix"])

    async def do_send(self, layer, step):
        await asyncio.get_running_loop().run_in_executor(
            None, layer.blocking.send, self.channel(step), value_of(step["message"])
        )

    async def do_send_async(self, layer, step):
        await layer.send(self.channel(step), value_of(step["message"]))

    async def do_group_send(self, layer, step):
        await asyncio.get_running_loop().run_in_executor(
            None, layer.blocking.group_send, self.group(step["group"]), value_of(step["message"])
        )

    async def do_group_send_async(self, layer, step):
        await layer.group_send(self.group(step["group"]), value_of(step["message"]))

    async def do_send_json(self, layer, step):
        await layer.send(self.channel(step), step["json"])

    async def do_group_send_json(self, layer, step):
        await layer.group_send(self.group(step["group"]), step["json"])

    async def do_send_packed(self, layer, step):
        await layer.send(self.channel(step), bytes.fromhex(step["packed"]))

    async def do_receive(self, layer, step):
        seconds = step.get("milliseconds", 5000) / 1000
        message = await layer.receive(self.channel(step), seconds)
        assert message.channel == self.channel(step)
        if "message" in step:
            assert same(message.data, value_of(step["message"]))
        if "type" in step:
            assert message.type == step["type"]
        if "from_group" in step:
            assert message.group == self.group(step["from_group"])
        if "json" in step:
            assert message.json == step["json"]

    async def do_handle(self, layer, step):
        expected = [value_of(each) for each in step["messages"]]
        got, all_came = [], asyncio.Event()

        def handler(message):
            got.append(message.data)
            if len(got) == len(expected):
                all_came.set()

        receiver = layer.handle(self.channel(step), handler)
        await asyncio.wait_for(all_came.wait(), WAIT)
        receiver.cancel()
        assert await receiver.ended is None
        assert same(got, expected)

    async def do_decline(self, layer, step):
        got = []

        def handler(message):
            got.append(message.data)
            return Flow.DECLINE

        receiver = layer.handle(self.channel(step), handler)
        assert await asyncio.wait_for(receiver.ended, WAIT) is None
        assert same(got, [value_of(step["message"])])

    async def do_cancel(self, layer, step):
        receiver = layer.handle(self.channel(step), lambda message: pytest.fail("it was called"))
        receiver.cancel()
        assert await receiver.ended is None

    async def do_handle_until(self, layer, step):
        receiver = layer.handle(self.channel(step), lambda message: pytest.fail("it was called"))
        for each in step["then"]:
            await self.step(each)
        ended = await asyncio.wait_for(receiver.ended, WAIT)
        assert ended is Status[step["ends"][len("LAYER_") :]]

    async def do_group_add(self, layer, step):
        await layer.group_add(self.group(step["group"]), self.channel(step))

    async def do_group_discard(self, layer, step):
        layer.group_discard(self.group(step["group"]), self.channel(step))

    async def do_channel_discard(self, layer, step):
        layer.channel_discard(self.channel(step))

    async def do_stat(self, layer, step):
        deadline = time.monotonic() + WAIT
        while layer.stat(Stat[step["which"]]) != step["value"]:
            assert time.monotonic() < deadline, layer.stats()
            await asyncio.sleep(0.002)

    async def do_state(self, layer, step):
        assert layer.state() is State[step["state"]]

    async def do_close(self, layer, step):
        await layer.close()


@contextlib.contextmanager
def recorded(on, name):
    """Tells tests/bindings/table.py how a case ended, where that is wanted."""
    result = "failed"
    try:
        yield
        result = "passed"
    finally:
        if path := os.environ.get("CHANNEL_LAYER_TEST_TABLE"):
            with open(path, "a", encoding="utf-8") as file:
                file.write(f"{on} {name} {result}\n")


@pytest.mark.parametrize(
    ("case", "on"),
    [
        pytest.param(case, on, id=f"{case['name']}-{on}")
        for case in CASES
        for on in case.get("brokers", ["memory", "rabbitmq"])
    ],
)
async def test_case(case, on):
    run = Run(on)
    with recorded(on, case["name"]):
        try:
            for name, options in case["layers"].items():
                run.layers[name] = run.open(options)
            for step in case["steps"]:
                await run.step(step)
        finally:
            for layer in run.layers.values():
                await layer.close()
