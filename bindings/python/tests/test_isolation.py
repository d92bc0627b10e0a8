"""on_isolation: what is reported when channels that nobody reads keep the broker from sending."""

import asyncio
import re
import sys
import time
from pathlib import Path

import pytest

from channel_layer import ClosedError, FullError, InvalidError, Isolation, Stat, State
from conftest import WAIT, soon, unique

# Two messages use up all credit, and are all that a channel keeps.
SMALL = {"local_capacity": 1, "prefetch_count": 1, "channel_capacity": 2, "stall_after": 0.1}


class Events:
    """What `on_isolation` was called with."""

    def __init__(self):
        self._queue = asyncio.Queue()

    def __call__(self, *event):
        self._queue.put_nowait(event)

    async def next(self):
        return await soon(self._queue.get())

    async def losses(self, total):
        """What each channel lost, until it is `total` in all."""
        lost = {}
        while sum(lost.values()) < total:
            event, channel, count = await self.next()
            assert event is Isolation.LOST
            lost[channel] = lost.get(channel, 0) + count
        return lost


def poll_until(layer, true):
    """Runs callbacks on this thread until `true()` is."""
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        layer.poll(deadline - time.monotonic())


async def deliveries(layer, count):
    """Waits for that many deliveries."""
    while layer.stat(Stat.DELIVERIES) < count:
        await asyncio.sleep(0.005)


async def isolate(layer, events):
    """A channel that holds two messages and has lost none, while channels are isolated."""
    channel = layer.new_channel()
    for n in range(2):
        await layer.send(channel, {"n": n})
    assert await events.next() == (Isolation.BEGAN, None, 2)
    return channel


async def test_isolation_begins_takes_the_newest_messages_and_ends(open_layer):
    events = Events()
    layer = open_layer(on_isolation=events, **SMALL)
    channel = await isolate(layer, events)
    for n in range(2, 7):
        await layer.send(channel, {"n": n})
    assert await events.losses(5) == {channel: 5}
    stats = layer.stats()
    assert stats["ISOLATING"] == stats["ISOLATIONS"] == 1
    assert stats["DROPPED_CHANNEL_FULL"] == 5 and stats["DROPPED_TOTAL_FULL"] == 0
    assert [(await layer.receive(channel, WAIT))["n"] for _ in range(2)] == [0, 1]
    assert await events.next() == (Isolation.ENDED, None, 5)
    assert layer.stat(Stat.ISOLATING) == 0
    await layer.send(channel, {"n": 7})
    assert (await layer.receive(channel, WAIT))["n"] == 7


async def test_losses_of_many_channels_are_reported_for_the_first_hundred_by_name(open_layer):
    events, group = Events(), unique("group")
    layer = open_layer(on_isolation=events, **{**SMALL, "channel_capacity": 1})
    channels = [layer.new_channel() for _ in range(103)]
    for channel in channels:
        await layer.group_add(group, channel)
    for n in range(2):
        await layer.group_send(group, {"n": n})
    assert await events.next() == (Isolation.BEGAN, None, 103)
    lost = await events.losses(103)
    assert lost.pop(None) == 3
    assert len(lost) == 100 and set(lost) < set(channels) and set(lost.values()) == {1}


async def test_beyond_total_capacity_the_fullest_channel_loses_its_newest_message(open_layer):
    events = Events()
    layer = open_layer(on_isolation=events, total_capacity=2, **SMALL)
    fullest = await isolate(layer, events)
    other = layer.new_channel()
    await layer.send(other, {"n": 2})
    assert await events.losses(1) == {fullest: 1}
    assert layer.stat(Stat.DROPPED_TOTAL_FULL) == 1
    assert (await layer.receive(other, WAIT))["n"] == 2
    assert (await layer.receive(fullest, WAIT))["n"] == 0
    assert await events.next() == (Isolation.ENDED, None, 1)


async def test_without_stall_after_senders_are_refused_and_nothing_is_lost(open_layer):
    events = Events()
    layer = open_layer(remote_capacity=1, **{**SMALL, "stall_after": 0})
    channel = layer.new_channel()
    # One is held in memory and one by the connection; a third waits on the broker.
    for n in range(2):
        await layer.send(channel, {"n": n})
        await soon(deliveries(layer, n + 1))
    await layer.send(channel, {"n": 2})
    with pytest.raises(FullError):
        await layer.send(channel, {})
    await isolate(open_layer(on_isolation=events, **SMALL), events)  # as it would be by now
    with pytest.raises(FullError):
        await layer.send(channel, {})
    assert [(await layer.receive(channel, WAIT))["n"] for _ in range(3)] == [0, 1, 2]
    assert layer.stat(Stat.ISOLATIONS) == 0
    with pytest.raises(InvalidError, match="stall_after"):
        open_layer(stall_after=-1)


def test_events_come_by_poll_and_an_exception_in_the_hook_stops_nothing(open_layer, monkeypatch):
    told, raised = [], []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, _: raised.append(str(error)))

    def hook(*event):
        told.append(event)
        raise LookupError(event[0].name)

    layer = open_layer(on_isolation=hook, **SMALL)
    channel = layer.new_channel()
    for n in range(2):
        layer.blocking.send(channel, {"n": n})
    poll_until(layer, lambda: told)
    for n in range(2, 5):
        layer.blocking.send(channel, {"n": n})
    poll_until(layer, lambda: sum(n for event, _, n in told if event is Isolation.LOST) == 3)
    assert [layer.blocking.receive(channel, WAIT)["n"] for _ in range(2)] == [0, 1]
    poll_until(layer, lambda: told[-1] == (Isolation.ENDED, None, 3))
    assert raised == [event.name for event, _, _ in told]


def test_the_example_of_the_readme_reports_isolation(host, capsys):
    readme = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(from channel_layer import Iso.*?)```", readme, re.DOTALL)
    scope = {"OPTIONS": {"host": host, **SMALL}}
    exec(code.replace("Layer(", "Layer(**OPTIONS, "), scope)
    layer, printed = scope["layer"], []

    def is_printed(text):
        printed.append(capsys.readouterr().out)
        return text in "".join(printed)

    try:
        channel = layer.new_channel()
        for n in range(3):
            layer.blocking.send(channel, {"n": n})
        poll_until(layer, lambda: is_printed("lost"))
        for _ in range(2):
            layer.blocking.receive(channel, WAIT)
        poll_until(layer, lambda: is_printed("in all"))
    finally:
        layer.blocking.close()
    assert "".join(printed) == (
        "isolation began, 2 messages wait in memory\n"
        f"{channel} lost 1 messages\n"
        "isolation ended, channels lost 1 messages in all\n"
    )


@pytest.mark.parametrize("inside", [False, True], ids=["outside", "inside_the_hook"])
async def test_a_layer_can_be_closed_while_channels_are_isolated(open_layer, inside):
    events, layers = Events(), []

    def hook(*event):
        if inside:
            layers[0].blocking.close(0)
        events(*event)

    layer = open_layer(on_isolation=hook, **SMALL)
    layers.append(layer)
    channel = await isolate(layer, events)
    if not inside:
        assert layer.stat(Stat.ISOLATING) == 1
        await layer.close()
    with pytest.raises(ClosedError):
        await layer.send(channel, {})
    assert layer.state() is State.CLOSED
