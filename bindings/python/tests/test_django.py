"""The backend for Django Channels, alone and beside channels_rabbitmq 4.0.1."""

import asyncio
import logging
import threading

import carehare
import msgpack
import pytest
from asgiref.sync import async_to_sync
from channels.exceptions import ChannelFull, StopConsumer
from channels_rabbitmq.core import RabbitmqChannelLayer as Peer

from channel_layer.django import RabbitmqChannelLayer
from conftest import WAIT, soon, unique


async def test_send_and_receive(new):
    layer = new()
    channel = await layer.new_channel("specific.")
    message = {"type": "x", "bytes": b"\0\xff", "int": 2**63 - 1, "float": 0.1, "list": [None, "é"]}
    await layer.send(channel, message)
    assert await soon(layer.receive(channel)) == message


async def test_groups(new):
    layer = new()
    one, two = await layer.new_channel(), await layer.new_channel()
    group = unique("group")
    await layer.group_add(group, one)
    await layer.group_add(group, two)
    await layer.group_send(group, {"n": 1})
    assert await soon(layer.receive(one)) == {"n": 1}
    assert await soon(layer.receive(two)) == {"n": 1}
    await layer.group_discard(group, two)
    await layer.group_send(group, {"n": 2})
    await layer.send(two, {"n": 3})
    assert await soon(layer.receive(one)) == {"n": 2}
    assert await soon(layer.receive(two)) == {"n": 3}


async def test_a_full_channel_raises_and_a_full_group_is_logged(new, caplog):
    layer = new(local_capacity=1, remote_capacity=1, stall_after=0)
    channel, group = await layer.new_channel(), unique("group")
    await layer.group_add(group, channel)
    with pytest.raises(ChannelFull):
        for n in range(10):
            await layer.send(channel, {"n": n})
    await layer.group_send(group, {"n": 10})
    assert "did not reach all" in caplog.text


async def test_bad_names_and_messages_are_type_errors(new):
    layer = new()
    channel = await layer.new_channel()
    for call in (
        lambda: layer.send("bad name", {}),
        lambda: layer.send("normal", {}),
        lambda: layer.send("x" * 101 + "!", {}),
        lambda: layer.receive("bad name"),
        lambda: layer.group_send("bad group!", {}),
        lambda: layer.group_send("group-and-new-line\n", {}),
        lambda: layer.group_add("bad group!", channel),
        lambda: layer.group_discard("group", "bad name"),
        lambda: layer.send(channel, ["no dict"]),
    ):
        with pytest.raises(TypeError):
            await call()
    with pytest.raises(ValueError, match="__asgi_channel__"):
        await layer.send(channel, {"__asgi_channel__": "x"})
    assert layer.require_valid_channel_name(channel) and layer.require_valid_group_name("group")
    with pytest.raises(TypeError, match="'bad name' is no channel name"):
        layer.require_valid_channel_name("bad name")
    with pytest.raises(TypeError, match="'bad!name' is no group name"):
        layer.require_valid_group_name("bad!name")
    assert layer.extensions == ["groups", "flush"]


UNREADABLE = {
    "a_map_as_a_key": b"\x81\xa1a\xa1b\xa1v",
    "an_array_as_a_key": b"\x91\xa1b\xa1v",
    "a_timestamp_that_is_none": b"\xa1v\xc7\x05\xff\x00\x00\x00\x00\x00",
    "a_timestamp_with_too_many_nanoseconds": b"\xa1v\xd7\xff" + b"\xff" * 8,
    "arrays_10000_deep": b"\xa1v" + b"\x91" * 10000 + b"\xc0",
}


async def publish(url, channel, entries):
    """Publishes to a channel what no layer sends; the broker has it."""
    body = b"\x83\xb0__asgi_channel__" + msgpack.packb(channel) + b"\xa4type\xa1t" + entries
    async with carehare.connect(url) as connection:
        await connection.publish(body, routing_key=channel.partition("!")[0])


@pytest.mark.parametrize("entry", UNREADABLE)
async def test_a_message_that_cannot_be_decoded_is_logged_and_the_next_one_is_received(
    entry, amqp, caplog
):
    layer = RabbitmqChannelLayer(host=amqp)
    try:
        channel = await layer.new_channel()
        await layer.layer.wait_ready(WAIT)
        for n in range(3):
            await publish(amqp, channel, UNREADABLE[entry])
            await layer.send(channel, {"n": n})
            assert await soon(layer.receive(channel)) == {"n": n}
    finally:
        await layer.close()
    # At most once a second, and what was held back is counted.
    records = [each for each in caplog.records if each.name == "channel_layer.django"]
    assert {each.levelno for each in records} == {logging.WARNING}
    assert channel in records[0].getMessage()
    named = [each for each in records if channel in each.getMessage()]
    assert len(named) + sum(each.channel_layer_held_back for each in records) == 3


async def test_close_stops_consumers_that_wait_and_all_later_calls(new):
    layer = new()
    channel = await layer.new_channel()
    task = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(0)
    await layer.close()
    with pytest.raises(StopConsumer):
        await soon(task)
    for call in (layer.receive(channel), layer.send(channel, {}), layer.new_channel()):
        with pytest.raises(StopConsumer):
            await call
    await layer.close()


async def test_a_cancelled_receive_loses_nothing(new):
    layer = new()
    channel = await layer.new_channel()
    for n in range(50):
        task = asyncio.ensure_future(layer.receive(channel))
        await asyncio.sleep(0)
        await layer.send(channel, {"n": n})
        task.cancel()
        try:
            got = await task
        except asyncio.CancelledError:
            got = await soon(layer.receive(channel))
        assert got == {"n": n}


async def test_async_to_sync_in_worker_threads(new):
    layer = new()
    channel = await layer.new_channel()
    receiving = asyncio.ensure_future(layer.receive(channel))
    await asyncio.sleep(0)
    errors = []

    def work(n):
        try:
            async_to_sync(layer.send)(channel, {"n": n})
            own = async_to_sync(layer.new_channel)()
            async_to_sync(layer.send)(own, {"own": n})
            assert async_to_sync(layer.receive)(own) == {"own": n}
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    got = [(await soon(receiving))["n"]]
    got += [(await soon(layer.receive(channel)))["n"] for _ in range(9)]
    for thread in threads:
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
    assert sorted(got) == list(range(10)) and not errors


async def test_none_is_taken_where_channels_rabbitmq_takes_it(new):
    layer = new(remote_capacity=None, expiry=None, local_expiry=None, group_expiry=None)
    channel = await layer.new_channel()
    await layer.send(channel, {})
    assert await soon(layer.receive(channel)) == {}


async def test_one_group_with_channels_rabbitmq_both_ways(amqp):
    ours, theirs = RabbitmqChannelLayer(host=amqp), Peer(host=amqp)
    try:
        group = unique("group")
        here, there = await ours.new_channel(), await theirs.new_channel()
        await ours.group_add(group, here)
        await theirs.group_add(group, there)
        message = {"type": "x", "b": b"\0", "i": -(2**63), "f": 0.1, "n": {"a": [None, True, "é"]}}
        for sender in (ours, theirs):
            await sender.group_send(group, message)
            assert await soon(ours.receive(here)) == message
            assert await soon(theirs.receive(there)) == message
        await theirs.send(here, {"to": "ours"})
        await ours.send(there, {"to": "theirs"})
        assert await soon(ours.receive(here)) == {"to": "ours"}
        assert await soon(theirs.receive(there)) == {"to": "theirs"}
    finally:
        await ours.close()
        await theirs.close()
