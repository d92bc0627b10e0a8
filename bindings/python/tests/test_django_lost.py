"""The backend for Django Channels while its broker is away: it logs, and does not raise."""

import asyncio
import logging

import pytest

from channel_layer.django import RabbitmqChannelLayer
from conftest import WAIT, in_thread, soon, unique

LOGGER = "channel_layer.django"


def warnings_of(caplog):
    """The backend's own records, and none of them worse than a warning."""
    records = [each for each in caplog.records if each.name == LOGGER]
    assert {each.levelno for each in records} <= {logging.WARNING, logging.INFO}
    texts = [each.getMessage() for each in records]
    caplog.clear()
    return texts


@pytest.mark.parametrize("how", ["stop", "kill9"])
async def test_a_lost_connection_is_logged_and_made_again(how, node, caplog):
    caplog.set_level(logging.INFO)
    layer = RabbitmqChannelLayer(host=node.url("asgi"), timeout=0.5)
    try:
        channel, group, later = await layer.new_channel(), unique("group"), unique("later")
        await layer.group_add(group, channel)
        receiving = asyncio.ensure_future(layer.receive(channel))
        await asyncio.sleep(0)
        assert warnings_of(caplog) == []

        await in_thread(getattr(node, how))
        await soon(layer.send(channel, {"n": 1}))
        (text,) = warnings_of(caplog)
        assert "was perhaps not sent" in text and channel in text
        await soon(layer.group_send(group, {"n": 2}))
        (text,) = warnings_of(caplog)
        assert "was perhaps not sent" in text and group in text
        await soon(layer.group_add(later, channel))
        (text,) = warnings_of(caplog)
        assert "is joined" in text and later in text
        await layer.group_discard(group, channel)
        assert not receiving.done()

        await in_thread(node.start)
        await layer.layer.wait_ready(WAIT)
        await layer.group_send(group, {"n": 3})  # it has left that one
        await layer.group_send(later, {"n": 4})
        assert await soon(receiving) == {"n": 4}
        await layer.send(channel, {"n": 5})
        assert await soon(layer.receive(channel)) == {"n": 5}
        assert warnings_of(caplog) == []
    finally:
        await layer.close()


async def test_consumers_get_a_message_of_a_lost_connection_and_one_of_its_return(node):
    layer = RabbitmqChannelLayer(
        host=node.url("asgi"), on_disconnect="layer.lost", on_reconnect="layer.back"
    )
    try:
        await layer.layer.wait_ready(WAIT)
        channel = await layer.new_channel()
        receiving = asyncio.ensure_future(layer.receive(channel))
        await asyncio.sleep(0)
        await in_thread(node.kill9)
        assert await soon(receiving) == {"type": "layer.lost", "generation": 1}
        receiving = asyncio.ensure_future(layer.receive(channel))
        await in_thread(node.start)
        assert await soon(receiving) == {"type": "layer.back", "generation": 2}
        assert layer.generation() == 2
        await layer.send(channel, {"n": 1})
        assert await soon(layer.receive(channel)) == {"n": 1}
    finally:
        await layer.close()


async def test_a_channel_whose_process_is_gone_is_logged(amqp, caplog):
    caplog.set_level(logging.INFO)
    layer, gone = RabbitmqChannelLayer(host=amqp), RabbitmqChannelLayer(host=amqp)
    try:
        channel = await gone.new_channel()
        await gone.send(channel, {})
        await gone.close()
        await layer.send(channel, {})
        (text,) = warnings_of(caplog)
        assert "was lost" in text and channel in text
    finally:
        await layer.close()
