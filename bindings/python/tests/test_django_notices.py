"""`on_disconnect` and `on_reconnect`: messages for the consumers of a process whose layer lost its
connection."""

import asyncio

import pytest

from channel_layer import State, _notices
from channel_layer._notices import Notices, events_of
from conftest import soon

READY, CONNECTING, CLOSED = State.READY, State.CONNECTING, State.CLOSED
LOST = {"type": "layer.lost", "generation": 1}
BACK = {"type": "layer.back", "generation": 2}


@pytest.mark.parametrize(
    "before, state, generation, events",
    [
        (None, CONNECTING, 0, []),
        (None, READY, 1, []),  # the first time
        ((True, 1), CONNECTING, 1, ["disconnect"]),
        ((True, 1), State.REFUSED, 1, ["disconnect"]),
        ((False, 1), CONNECTING, 1, []),
        ((False, 1), READY, 2, ["reconnect"]),
        ((False, 1), READY, 1, ["reconnect"]),  # it was the publishing connection
        ((True, 1), READY, 2, ["disconnect", "reconnect"]),
        ((True, 1), READY, 1, []),
        ((True, 1), CLOSED, 1, []),
        ((False, 1), CLOSED, 1, []),
    ],
)
def test_what_a_change_of_state_means(before, state, generation, events):
    assert events_of(before, state, generation) == events


@pytest.fixture
def layer(new):
    return new(on_disconnect="layer.lost", on_reconnect="layer.back")


def notices_of(layer):
    """Opens the layer; what tells its state from here on is the test."""
    layer.state()
    notices = layer._own().notices
    notices.state_changed(READY, 1)
    return notices


def lose(notices):
    notices.state_changed(CONNECTING, 1)


def reconnect(notices):
    notices.state_changed(READY, 2)


async def test_every_channel_in_use_gets_both_messages(layer):
    await layer.new_channel()
    await layer.layer.wait_ready(20)
    notices = notices_of(layer)
    waits, handles = await layer.new_channel(), await layer.new_channel()
    waiting = asyncio.ensure_future(layer.receive(waits))
    await layer.send(handles, {"n": 1})
    assert await soon(layer.receive(handles)) == {"n": 1}
    await asyncio.sleep(0)
    lose(notices)
    reconnect(notices)
    assert await soon(waiting) == LOST
    assert await soon(layer.receive(waits)) == BACK
    assert await soon(layer.receive(handles)) == LOST
    assert await soon(layer.receive(handles)) == BACK
    await layer.send(waits, {"n": 2})
    assert await soon(layer.receive(waits)) == {"n": 2}
    assert not any(each.waiters for each in notices._channels.values())


async def test_a_channel_that_is_used_later_gets_none(layer):
    lose(notices_of(layer))
    channel = await layer.new_channel()
    await layer.send(channel, {"n": 1})
    assert await soon(layer.receive(channel)) == {"n": 1}


async def test_a_receive_that_is_cancelled_loses_neither_message_nor_notice(layer):
    notices = notices_of(layer)
    channel = await layer.new_channel()
    for n in range(20):
        task = asyncio.ensure_future(layer.receive(channel))
        await asyncio.sleep(0)
        lose(notices)
        notices.state_changed(READY, 1)
        await layer.send(channel, {"n": n})
        task.cancel()
        got = []
        try:
            got.append(await task)
        except asyncio.CancelledError:
            pass
        while len(got) < 3:
            got.append(await soon(layer.receive(channel)))
        assert got == [LOST, {**BACK, "generation": 1}, {"n": n}]


async def test_only_the_type_that_was_asked_for_is_given(new):
    layer = new(on_reconnect="layer.back")
    notices = notices_of(layer)
    channel = await layer.new_channel()
    task = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(0)
    lose(notices)
    reconnect(notices)
    assert await soon(task) == BACK


async def test_on_state_of_config_is_called_too(new):
    seen = asyncio.Queue()
    layer = new(on_disconnect="layer.lost", on_state=lambda *each: seen.put_nowait(each))
    await layer.layer.wait_ready(20)
    assert layer.layer.state() is READY
    while (await soon(seen.get())) != (READY, 1):
        pass


async def test_without_the_options_nothing_is_kept(new):
    layer = new()
    await layer.new_channel()
    layer.state()
    assert layer._own().notices is None


def test_of_channels_that_do_not_receive_only_the_latest_are_kept(monkeypatch):
    monkeypatch.setattr(_notices, "MOST_IDLE", 2)
    notices = Notices("lost", "back")
    notices.state_changed(READY, 1)
    for name in ("a", "b", "c"):
        assert notices.take(name) is None
    lose(notices)
    assert notices.take("a") is None  # it was dropped, and is in use again
    assert notices.take("c") == {"type": "lost", "generation": 1}
    assert notices.take("b") is None


def test_who_does_not_read_keeps_the_last_two():
    notices = Notices("lost", "back")
    notices.take("a")
    for generation in range(1, 10):
        notices.state_changed(READY, generation)
        notices.state_changed(CONNECTING, generation)
    assert [notices.take("a")["type"] for _ in range(2)] == ["back", "lost"]
    assert notices.take("a") is None


async def test_who_begins_to_wait_after_a_notice_is_woken_at_once():
    notices = Notices("lost", "back")
    notices.state_changed(READY, 1)
    before, after, idle = (asyncio.get_running_loop().create_future() for _ in range(3))
    assert notices.take("a") is None
    notices.wait("a", before)
    notices.wait("b", idle)
    notices.stop_waiting("b", idle)
    lose(notices)
    notices.wait("a", after)
    assert before.done() and after.done() and not idle.done()
    assert notices.take("b") == {"type": "lost", "generation": 1}
