"""What the backend for Django logs: at most one record of a kind in a second, and none in answer
to its own."""

import asyncio
import logging
import uuid

import pytest

from channel_layer import DisconnectedError, Layer
from channel_layer._throttle import Throttle
from channel_layer.django import RabbitmqChannelLayer
from conftest import soon

LOGGER = "channel_layer.django"


def test_one_of_a_kind_passes_in_an_interval_and_the_others_are_counted():
    now = [0.0]
    throttle = Throttle(1.0, lambda: now[0])
    assert throttle.admit("a") == 0
    assert [throttle.admit("a") for _ in range(3)] == [None] * 3
    assert throttle.admit("b") == 0
    now[0] = 1.0
    assert throttle.admit("a") == 3
    assert throttle.admit("a") is None
    throttle.hold_back("b")
    assert throttle.drain() == {"a": 1, "b": 1}
    assert throttle.drain() == {}
    now[0] = 2.0
    assert throttle.admit("a") == throttle.admit("b") == 0


@pytest.fixture
def lost(monkeypatch):
    """All sends end as if there were no connection."""

    async def send(self, to, message):
        raise DisconnectedError("there is no connection")

    monkeypatch.setattr(Layer, "send", send)
    monkeypatch.setattr(Layer, "group_send", send)


@pytest.fixture
async def backend():
    backend = RabbitmqChannelLayer(host=f"memory://{uuid.uuid4().hex}")
    yield backend
    await backend.close()


async def test_warnings_are_throttled_and_counted_in_the_end(backend, lost, caplog):
    channel = await backend.new_channel()
    for n in range(100):
        await backend.group_send("group", {"n": n})
    await backend.send(channel, {})
    before = [each for each in caplog.records if each.name == LOGGER]
    assert 2 <= len(before) < 50  # one of each kind in each second that this took
    await backend.close()
    records = [each for each in caplog.records if each.name == LOGGER]
    counts = sum(each.channel_layer_held_back for each in records)
    assert len(before) + counts == 101
    assert len(records) == len(before) + 1


class Broadcast(logging.Handler):
    """Sends each record to a group, as a page that shows the log of a site may be fed."""

    def __init__(self, backend):
        super().__init__()
        self.backend, self.count, self.tasks = backend, 0, set()

    def emit(self, record):
        self.count += 1
        task = asyncio.ensure_future(self.backend.group_send("log", {"text": record.getMessage()}))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


@pytest.fixture
def broadcast(backend):
    handler = Broadcast(backend)
    for name in (None, "channel_layer"):
        logging.getLogger(name).addHandler(handler)
    yield handler
    for name in (None, "channel_layer"):
        logging.getLogger(name).removeHandler(handler)


async def test_a_handler_that_sends_each_record_to_a_group_does_not_loop(
    backend, lost, broadcast, monkeypatch
):
    # Without the throttle, which would slow a loop down and not end it.
    monkeypatch.setattr(Throttle, "admit", lambda self, kind: 0)
    await backend.group_send("group", {"n": 1})
    for _ in range(20):
        if not broadcast.tasks:
            break
        await soon(asyncio.gather(*broadcast.tasks))
        await asyncio.sleep(0)
    assert not broadcast.tasks
    assert broadcast.count == 2  # the one record, to the two loggers that have the handler


async def test_a_handler_that_sends_each_record_to_a_group_delivers(backend, broadcast):
    channel = await backend.new_channel()
    await backend.group_add("log", channel)
    logging.getLogger("site").warning("of the site")
    assert (await soon(backend.receive(channel)))["text"] == "of the site"
