"""C and Python (channels_rabbitmq) on one broker; tests/interop/run.sh starts it.

The C side is peer.c, driven line by line. Values are given by their MessagePack encoding, so that
every format there is crosses the wire, in both directions.
"""

import asyncio
import base64
import json
import math
import os
import random
import struct
import unittest
import uuid

import msgpack
from asgiref.testing import ApplicationCommunicator
from channels.exceptions import ChannelFull
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.layers import get_channel_layer
from channels_rabbitmq.core import RabbitmqChannelLayer
from django.conf import settings

URL = os.environ["CHANNEL_LAYER_TEST_AMQP"]
PEER = os.environ["CHANNEL_LAYER_TEST_PEER"]
WAIT = 20  # seconds for what is sure to come
ATTEMPTS = 2  # to connect a layer in Python
PAUSE = 0.25  # seconds for an ack to arrive, or for what must not come to come

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_rabbitmq.core.RabbitmqChannelLayer",
            "CONFIG": {"host": URL},
        }
    }
)


def big(number, size):
    return number.to_bytes(size, "big", signed=number < 0)


def nested(depth):
    """An array in an array, `depth` of them."""
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


# Name, encoding, value. Every format that the Channels specification allows, at its limits; and
# numbers in more bytes than they need, as other encoders write them.
VALUES = [
    ("nil", b"\xc0", None),
    ("false", b"\xc2", False),
    ("true", b"\xc3", True),
    ("positive_fixint_min", b"\x00", 0),
    ("positive_fixint_max", b"\x7f", 127),
    ("negative_fixint_max", b"\xff", -1),
    ("negative_fixint_min", b"\xe0", -32),
    ("uint8_min", b"\xcc" + big(128, 1), 128),
    ("uint8_max", b"\xcc" + big(255, 1), 255),
    ("uint16_min", b"\xcd" + big(256, 2), 256),
    ("uint16_max", b"\xcd" + big(2**16 - 1, 2), 2**16 - 1),
    ("uint32_min", b"\xce" + big(2**16, 4), 2**16),
    ("uint32_max", b"\xce" + big(2**32 - 1, 4), 2**32 - 1),
    ("uint64_min", b"\xcf" + big(2**32, 8), 2**32),
    ("uint64_greatest_signed", b"\xcf" + big(2**63 - 1, 8), 2**63 - 1),
    ("uint64_least_above_signed", b"\xcf" + big(2**63, 8), 2**63),
    ("uint64_max", b"\xcf" + b"\xff" * 8, 2**64 - 1),
    ("int8_max", b"\xd0" + big(-33, 1), -33),
    ("int8_min", b"\xd0" + big(-128, 1), -128),
    ("int16_max", b"\xd1" + big(-129, 2), -129),
    ("int16_min", b"\xd1" + big(-(2**15), 2), -(2**15)),
    ("int32_max", b"\xd2" + big(-(2**15) - 1, 4), -(2**15) - 1),
    ("int32_min", b"\xd2" + big(-(2**31), 4), -(2**31)),
    ("int64_max", b"\xd3" + big(-(2**31) - 1, 8), -(2**31) - 1),
    ("int64_min", b"\xd3" + big(-(2**63), 8), -(2**63)),
    ("wide_uint64", b"\xcf" + big(1, 8), 1),
    ("wide_int64", b"\xd3" + big(1, 8), 1),
    ("float32", b"\xca" + struct.pack(">f", 0.1), struct.unpack(">f", struct.pack(">f", 0.1))[0]),
    ("float64", b"\xcb" + struct.pack(">d", math.pi), math.pi),
    ("float64_whole", b"\xcb" + struct.pack(">d", 3.0), 3.0),
    ("float64_negative_zero", b"\xcb" + struct.pack(">d", -0.0), -0.0),
    ("float64_infinity", b"\xcb" + struct.pack(">d", math.inf), math.inf),
    ("float64_nan", b"\xcb" + struct.pack(">d", math.nan), math.nan),
    ("str_empty", b"\xa0", ""),
    ("str_unicode", b"\xd9\x20" + "žluťoučký kůň 😀\0\"\\\n/".encode() + b"." * 3,
     "žluťoučký kůň 😀\0\"\\\n/" + "." * 3),
    ("str8", b"\xd9" + big(255, 1) + b"a" * 255, "a" * 255),
    ("str16", b"\xda" + big(65535, 2) + b"b" * 65535, "b" * 65535),
    ("str32", b"\xdb" + big(65536, 4) + b"c" * 65536, "c" * 65536),
    ("bin_empty", b"\xc4\x00", b""),
    ("bin8", b"\xc4" + big(255, 1) + bytes(range(255)), bytes(range(255))),
    ("bin16", b"\xc5" + big(256, 2) + bytes(range(256)), bytes(range(256))),
    ("bin32", b"\xc6" + big(65536, 4) + b"\xff" * 65536, b"\xff" * 65536),
    ("array_empty", b"\x90", []),
    ("array16", b"\xdc" + big(16, 2) + b"\x01" * 16, [1] * 16),
    ("array32", b"\xdd" + big(65536, 4) + b"\xc3" * 65536, [True] * 65536),
    ("map_empty", b"\x80", {}),
    ("map16", b"\xde" + big(16, 2) + b"".join(b"\xa1" + bytes([97 + i, i]) for i in range(16)),
     {chr(97 + i): i for i in range(16)}),
    ("map32", b"\xdf" + big(1, 4) + b"\xa1k\xc0", {"k": None}),
    ("arrays_in_maps_in_arrays", b"\x92\x81\xa1a\x92\x81\xa1b\x90\xc4\x01\xff\x80",
     [{"a": [{"b": []}, b"\xff"]}, {}]),
    # 128 levels are allowed; the message itself is one.
    ("arrays_127_deep", b"\x91" * 126 + b"\x90", nested(127)),
    ("one_mebibyte", b"\xc6" + big(2**20, 4) + b"\x5a" * 2**20, b"\x5a" * 2**20),
]

# What a sender must not let through. Most of it would end the reader of the Python process that it
# reaches, for good; the rest means something else there than the sender meant.
HOSTILE = {
    "nothing": b"",
    "no_map": b"\x91\x01",
    "a_map_cut_short": b"\x82\xa1a\x01",
    "two_maps": b"\x80\x80",
    "bytes_after_the_map": b"\x80\xc0",
    "an_integer_key": b"\x81\x01\x01",
    "a_bytes_key": b"\x81\xc4\x01a\x01",
    "an_integer_key_deep_inside": b"\x81\xa1a\x91\x81\x01\x01",
    "a_string_that_is_not_utf8": b"\x81\xa1a\xa1\xff",
    "a_key_that_is_not_utf8": b"\x81\xa1\xff\x01",
    "a_surrogate": b"\x81\xa1a\xa3\xed\xa0\x80",
    "an_ext": b"\x81\xa1a\xd4\x05\x00",
    "a_timestamp": b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",
    "a_timestamp_that_is_none": b"\x81\xa1a\xc7\x05\xff\x00\x00\x00\x00\x00",
    "the_byte_that_is_no_format": b"\x81\xa1a\xc1",
    "an_integer_above_signed_64_bits_as_a_key": b"\x81\xcf" + b"\xff" * 8 + b"\x01",
    "a_channel_of_its_own": b"\x81" + msgpack.packb("__asgi_channel__") + b"\xa3a!b",
    "a_group_of_its_own": b"\x81" + msgpack.packb("__asgi_group__") + b"\xa1g",
    "too_deep": b"\x81\xa1a" + b"\x91" * 2000 + b"\xc0",
    "an_array_larger_than_the_message": b"\x81\xa1a\xdd\xff\xff\xff\xff",
}


def message_bytes(encoding, recipient=None):
    """A message whose value has this encoding, with a recipient key as on the wire or none."""
    pairs = msgpack.packb("type") + msgpack.packb("test.value") + msgpack.packb("value") + encoding
    if recipient is None:
        return b"\x82" + pairs
    return b"\x83" + pairs + b"".join(msgpack.packb(part) for part in recipient)


def message(value):
    return {"type": "test.value", "value": value}


def boxed(value):
    """A value as JSON holds it: bytes are U+FFFF and base64, as the specification proposes."""
    if isinstance(value, bytes):
        return "\uffff" + base64.b64encode(value).decode()
    if isinstance(value, list):
        return [boxed(each) for each in value]
    if isinstance(value, dict):
        return {key: boxed(each) for key, each in value.items()}
    return value


def fits_json(value):
    return not isinstance(value, float) or math.isfinite(value)


def unique(prefix):
    return f"{prefix}-{uuid.uuid4().hex}"


class Peer:
    """A C process with a layer of its own."""

    @classmethod
    async def open(cls, **options):
        peer = cls()
        options.setdefault("host", URL)
        peer._process = await asyncio.create_subprocess_exec(
            PEER, *(f"{name}={value}" for name, value in options.items()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=2**24)
        answer = await peer._answer()
        if answer["status"] != "LAYER_OK":
            raise AssertionError(f"the C peer did not start: {answer}")
        return peer

    async def _answer(self):
        line = await asyncio.wait_for(self._process.stdout.readline(), WAIT + 10)
        if not line:
            raise AssertionError(f"the C peer ended with status {await self._process.wait()}")
        return json.loads(line)

    async def ask(self, *words):
        self._process.stdin.write(" ".join(words).encode() + b"\n")
        await self._process.stdin.drain()
        return await self._answer()

    async def new_channel(self):
        return (await self.ask("new-channel"))["channel"]

    async def send(self, channel, data):
        return (await self.ask("send", channel, data.hex()))["status"]

    async def send_json(self, channel, value):
        return (await self.ask("send-json", channel, json.dumps(value)))["status"]

    async def group_send(self, group, data):
        return (await self.ask("group-send", group, data.hex()))["status"]

    async def group_send_json(self, group, value):
        return (await self.ask("group-send-json", group, json.dumps(value)))["status"]

    async def group_add(self, group, channel):
        answer = await self.ask("group-add", group, channel)
        assert answer["status"] == "LAYER_OK", answer

    async def group_discard(self, group, channel):
        answer = await self.ask("group-discard", group, channel)
        assert answer["status"] == "LAYER_OK", answer

    async def stat(self, number):
        return (await self.ask("stat", str(number)))["value"]

    async def prometheus(self, labels):
        return (await self.ask("prometheus", labels))["text"]

    async def log(self):
        return (await self.ask("log"))["log"]

    async def receive(self, channel, seconds=WAIT):
        answer = await self.ask("receive", channel, str(int(seconds * 1000)))
        if "data" in answer:
            answer["data"] = bytes.fromhex(answer["data"])
        return answer

    async def close(self):
        self._process.stdin.close()
        try:
            status = await asyncio.wait_for(self._process.wait(), WAIT)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()
            raise AssertionError("the C peer did not close its layer") from None
        if status != 0:
            raise AssertionError(f"the C peer ended with status {status}")


class Interop(unittest.IsolatedAsyncioTestCase):
    async def c(self, **options):
        peer = await Peer.open(**options)
        self.addAsyncCleanup(peer.close)
        return peer

    async def python(self, **options):
        for _ in range(ATTEMPTS):
            layer = RabbitmqChannelLayer(host=URL, **options)
            connected = asyncio.ensure_future(layer.carehare_connection)
            done, _ = await asyncio.wait([connected], timeout=WAIT)
            if done:
                self.addAsyncCleanup(layer.close)
                return layer
            # On RabbitMQ 4.3 one in some hundred never connects; nor can it be closed then.
        raise AssertionError(f"{ATTEMPTS} layers in Python have not connected")

    async def python_receive(self, layer, channel):
        return await asyncio.wait_for(layer.receive(channel), WAIT)

    def assert_same(self, expected, got):
        """Equal in value and in type: 1 is not True, and NaN is NaN."""
        self.assertEqual(msgpack.packb(expected), msgpack.packb(got))

    def assert_received(self, expected, answer, channel, group=None):
        self.assertEqual(answer["status"], "LAYER_OK", answer.get("error"))
        self.assert_same(expected, msgpack.unpackb(answer["data"]))
        self.assertEqual(answer["channel"], channel)
        self.assertEqual(answer["group"], group)

    async def assert_nothing_comes(self, peer, channel):
        self.assertEqual((await peer.receive(channel, PAUSE))["status"], "LAYER_TIMEOUT")

    async def assert_nothing_comes_to_python(self, layer, channel):
        with self.assertRaises(asyncio.TimeoutError):
            await asyncio.wait_for(layer.receive(channel), PAUSE)


class Values(Interop):
    """One test for each value and direction; `load` below makes them."""

    async def c_sends(self, encoding, value):
        c, python = await self.c(), await self.python()
        channel = await python.new_channel()
        group = unique("values")
        await python.group_add(group, channel)
        self.assertEqual(await c.send(channel, message_bytes(encoding)), "LAYER_OK")
        self.assert_same(message(value), await self.python_receive(python, channel))
        self.assertEqual(await c.group_send(group, message_bytes(encoding)), "LAYER_OK")
        self.assert_same(message(value), await self.python_receive(python, channel))
        if fits_json(value):
            self.assertEqual(await c.send_json(channel, message(boxed(value))), "LAYER_OK")
            self.assert_same(message(value), await self.python_receive(python, channel))

    async def python_sends(self, encoding, value):
        c, python = await self.c(), await self.python()
        channel = await c.new_channel()
        group = unique("values")
        await c.group_add(group, channel)

        await python.send(channel, message(value))
        self.assert_received(message(value), await c.receive(channel), channel)
        await python.group_send(group, message(value))
        self.assert_received(message(value), await c.receive(channel), channel, group)

        # And in this very encoding, which Python's own encoder may not choose.
        connection = await python.carehare_connection
        await connection.publish(message_bytes(encoding, ("__asgi_channel__", channel)),
                                 exchange_name="", routing_key=channel.split("!")[0])
        answer = await c.receive(channel)
        self.assert_received(message(value), answer, channel)
        self.assertEqual(answer["data"], message_bytes(encoding))
        self.assertEqual(answer["type"], "test.value")
        if fits_json(value):
            self.assert_same(message(boxed(value)), answer["json"])
        else:
            self.assertIn("value", answer["json_error"])

    @classmethod
    def load(cls):
        for name, encoding, value in VALUES:
            # Else the table is wrong, and not what it tests.
            assert msgpack.packb(msgpack.unpackb(encoding)) == msgpack.packb(value), name

            async def c_sends(self, encoding=encoding, value=value):
                await self.c_sends(encoding, value)

            async def python_sends(self, encoding=encoding, value=value):
                await self.python_sends(encoding, value)

            setattr(cls, f"test_c_sends_{name}", c_sends)
            setattr(cls, f"test_python_sends_{name}", python_sends)


Values.load()


class Messages(Interop):
    async def test_an_empty_message_passes_both_ways(self):
        c, python = await self.c(), await self.python()
        c_channel, python_channel = await c.new_channel(), await python.new_channel()
        self.assertEqual(await c.send(python_channel, b"\x80"), "LAYER_OK")
        self.assertEqual(await self.python_receive(python, python_channel), {})
        await python.send(c_channel, {})
        answer = await c.receive(c_channel)
        self.assertEqual((answer["data"], answer["json"], answer["type"]), (b"\x80", {}, None))

    async def test_an_answer_to_the_channel_named_in_the_question(self):
        c, python = await self.c(), await self.python()
        c_channel, python_channel = await c.new_channel(), await python.new_channel()
        await python.send(c_channel, {"type": "question", "reply_channel": python_channel})
        question = (await c.receive(c_channel))["json"]
        self.assertEqual(
            await c.send_json(question["reply_channel"], {"type": "answer", "from": c_channel}),
            "LAYER_OK")
        self.assertEqual(await self.python_receive(python, python_channel),
                         {"type": "answer", "from": c_channel})

    async def test_order_is_kept_both_ways(self):
        c, python = await self.c(local_capacity=1000), await self.python(local_capacity=1000)
        c_channel, python_channel = await c.new_channel(), await python.new_channel()
        for number in range(300):
            await python.send(c_channel, message(number))
            self.assertEqual(await c.send(python_channel, msgpack.packb(message(number))),
                             "LAYER_OK")
        for number in range(300):
            self.assertEqual((await c.receive(c_channel))["json"], message(number))
            self.assertEqual(await self.python_receive(python, python_channel), message(number))

    async def test_c_learns_that_the_python_process_is_gone(self):
        c, python = await self.c(), await self.python()
        channel = await python.new_channel()
        self.assertEqual(await c.send_json(channel, message(1)), "LAYER_OK")
        await python.close()
        for _ in range(100):  # RabbitMQ removes the queue a moment after the connection
            status = await c.send_json(channel, message(2))
            if status != "LAYER_OK":
                break
            await asyncio.sleep(0.05)
        self.assertEqual(status, "LAYER_NO_CHANNEL")


class Groups(Interop):
    async def test_a_group_of_both_hears_both(self):
        c, python = await self.c(), await self.python()
        c_channel, python_channel = await c.new_channel(), await python.new_channel()
        group = unique("both")
        await c.group_add(group, c_channel)
        await python.group_add(group, python_channel)

        self.assertEqual(await c.group_send_json(group, message("from C")), "LAYER_OK")
        self.assert_received(message("from C"), await c.receive(c_channel), c_channel, group)
        self.assert_same(message("from C"), await self.python_receive(python, python_channel))

        await python.group_send(group, message("from Python"))
        self.assert_received(message("from Python"), await c.receive(c_channel), c_channel, group)
        self.assert_same(message("from Python"), await self.python_receive(python, python_channel))

    async def test_each_of_many_members_hears_once(self):
        c, python = await self.c(), await self.python()
        group = unique("many")
        c_channels = [await c.new_channel() for _ in range(3)]
        python_channels = [await python.new_channel() for _ in range(3)]
        for channel in c_channels:
            await c.group_add(group, channel)
        for channel in python_channels:
            await python.group_add(group, channel)
        self.assertEqual(await c.group_send_json(group, message(1)), "LAYER_OK")
        await python.group_send(group, message(2))
        for channel in c_channels:
            self.assertEqual((await c.receive(channel))["json"], message(1))
            self.assertEqual((await c.receive(channel))["json"], message(2))
            await self.assert_nothing_comes(c, channel)
        for channel in python_channels:
            self.assertEqual(await self.python_receive(python, channel), message(1))
            self.assertEqual(await self.python_receive(python, channel), message(2))
            await self.assert_nothing_comes_to_python(python, channel)

    async def test_who_left_hears_no_more(self):
        c, python = await self.c(), await self.python()
        c_channel, python_channel = await c.new_channel(), await python.new_channel()
        group = unique("left")
        await c.group_add(group, c_channel)
        await python.group_add(group, python_channel)

        await python.group_discard(group, python_channel)
        self.assertEqual(await c.group_send_json(group, message(1)), "LAYER_OK")
        self.assertEqual((await c.receive(c_channel))["json"], message(1))
        await self.assert_nothing_comes_to_python(python, python_channel)

        await python.group_add(group, python_channel)
        await c.group_discard(group, c_channel)
        await python.group_send(group, message(2))
        self.assertEqual(await self.python_receive(python, python_channel), message(2))
        await self.assert_nothing_comes(c, c_channel)

    async def test_another_groups_exchange_is_another_world(self):
        exchange = unique("exchange")
        c, python = await self.c(groups_exchange=exchange), await self.python()
        near = await self.python(groups_exchange=exchange)
        group = unique("worlds")
        c_channel, channel, near_channel = (
            await c.new_channel(), await python.new_channel(), await near.new_channel())
        await c.group_add(group, c_channel)
        await python.group_add(group, channel)
        await near.group_add(group, near_channel)
        self.assertEqual(await c.group_send_json(group, message(1)), "LAYER_OK")
        self.assertEqual(await self.python_receive(near, near_channel), message(1))
        self.assertEqual((await c.receive(c_channel))["json"], message(1))
        await self.assert_nothing_comes_to_python(python, channel)

    async def test_a_django_consumer_answers_c(self):
        group = unique("room")

        class Consumer(AsyncWebsocketConsumer):
            async def connect(self):
                await self.channel_layer.group_add(group, self.channel_name)
                await self.accept()

            async def chat_message(self, event):
                await self.send(text_data=event["text"])
                await self.channel_layer.send(
                    event["from"], {"type": "chat.seen", "by": self.channel_name})

        c = await self.c()
        channel = await c.new_channel()
        browser = ApplicationCommunicator(
            Consumer.as_asgi(), {"type": "websocket", "path": "/", "headers": []})
        await browser.send_input({"type": "websocket.connect"})
        self.assertEqual((await browser.receive_output(WAIT))["type"], "websocket.accept")
        layer = get_channel_layer()
        self.addAsyncCleanup(layer.close)

        text = "Dobrý den"
        self.assertEqual(
            await c.group_send_json(
                group, {"type": "chat.message", "text": text, "from": channel}),
            "LAYER_OK")
        self.assertEqual((await browser.receive_output(WAIT))["text"], text)
        answer = await c.receive(channel)
        self.assertEqual(answer["type"], "chat.seen")
        self.assertTrue(answer["json"]["by"].startswith("specific.") or "!" in answer["json"]["by"])
        await browser.send_input({"type": "websocket.disconnect", "code": 1000})
        await browser.wait(WAIT)


class Full(Interop):
    """A receiver that does not receive: who sends hears so, and nobody else suffers."""

    async def fill_python(self, c, channel):
        """What C hears until Python's queue is full, and the numbers of what was accepted."""
        accepted = []
        for number in range(10):
            status = await c.send_json(channel, message(number))
            if status != "LAYER_OK":
                return status, accepted
            accepted.append(number)
            await asyncio.sleep(PAUSE)
        return "never", accepted

    async def test_c_hears_that_python_is_full_and_that_it_has_room_again(self):
        # One in Python's memory, unacknowledged, and one on the broker.
        c, python = await self.c(), await self.python(local_capacity=1, remote_capacity=1)
        channel = await python.new_channel()
        self.assertEqual(await self.fill_python(c, channel), ("LAYER_FULL", [0, 1]))
        for number in (0, 1):
            self.assertEqual(await self.python_receive(python, channel), message(number))
        self.assertEqual(await c.send_json(channel, message(2)), "LAYER_OK")
        self.assertEqual(await self.python_receive(python, channel), message(2))

    async def test_python_hears_that_c_is_full_and_that_it_has_room_again(self):
        # One within C's capacity, one beyond it and unacknowledged, and one on the broker.
        c = await self.c(local_capacity=1, prefetch_count=1, remote_capacity=1)
        python = await self.python()
        channel = await c.new_channel()
        for number in range(3):
            await python.send(channel, message(number))
            await asyncio.sleep(PAUSE)
        with self.assertRaises(ChannelFull):
            await python.send(channel, message(3))
        for number in range(3):
            self.assertEqual((await c.receive(channel))["json"], message(number))
        await python.send(channel, message(4))
        self.assertEqual((await c.receive(channel))["json"], message(4))

    async def test_c_sends_to_a_group_whose_python_member_is_full(self):
        c, python = await self.c(), await self.python(local_capacity=1, remote_capacity=1)
        c_channel, python_channel = await c.new_channel(), await python.new_channel()
        group = unique("full")
        await c.group_add(group, c_channel)
        await python.group_add(group, python_channel)
        await self.fill_python(c, python_channel)
        self.assertEqual(await c.group_send_json(group, message("all")), "LAYER_FULL")
        self.assertEqual((await c.receive(c_channel))["json"], message("all"))

    async def test_python_sends_to_a_group_whose_c_member_is_full(self):
        c = await self.c(local_capacity=1, prefetch_count=1, remote_capacity=1)
        python = await self.python()
        c_channel, python_channel = await c.new_channel(), await python.new_channel()
        group = unique("full")
        await c.group_add(group, c_channel)
        await python.group_add(group, python_channel)
        for number in range(3):
            await python.send(c_channel, message(number))
            await asyncio.sleep(PAUSE)
        with self.assertLogs("channels_rabbitmq.core", "WARNING") as logs:
            await python.group_send(group, message("all"))
        self.assertIn("at capacity", logs.output[0])
        self.assertEqual(await self.python_receive(python, python_channel), message("all"))
        for number in range(3):
            self.assertEqual((await c.receive(c_channel))["json"], message(number))
        await self.assert_nothing_comes(c, c_channel)


class Reader(Interop):
    """Nothing that C lets through may end the reader of a Python process."""

    async def test_hostile_messages_are_refused_by_the_sender(self):
        c, python = await self.c(), await self.python()
        channel = await python.new_channel()
        group = unique("hostile")
        await python.group_add(group, channel)
        for name, data in HOSTILE.items():
            with self.subTest(name):
                self.assertEqual(await c.send(channel, data), "LAYER_INVALID")
                self.assertEqual(await c.group_send(group, data), "LAYER_INVALID")
        self.assertEqual(await c.send(channel, msgpack.packb(message("alive"))), "LAYER_OK")
        self.assertEqual(await self.python_receive(python, channel), message("alive"))

    async def test_mutilated_messages_are_refused_or_harmless(self):
        seed = random.SystemRandom().randrange(2**32)
        dice = random.Random(seed)
        c = await self.c()
        python = await self.python(local_capacity=10000, remote_capacity=10000)
        channel = await python.new_channel()
        originals = [message_bytes(encoding) for _, encoding, _ in VALUES if len(encoding) < 50]
        originals += [data for data in HOSTILE.values() if len(data) < 50]
        accepted = 0
        refused = 0
        for _ in range(3000):
            data = bytearray(dice.choice(originals))
            for _ in range(dice.randint(1, 3)):
                at = dice.randint(0, len(data))
                how = dice.randrange(4)
                if how == 0:
                    data[at:at + 1] = bytes([dice.randrange(256)])
                elif how == 1:
                    data[at:at] = bytes([dice.randrange(256)])
                elif how == 2:
                    del data[at:at + dice.randint(1, 4)]
                else:
                    data += dice.choice(originals)[:dice.randint(1, 8)]
            status = await c.send(channel, bytes(data))
            self.assertIn(status, ("LAYER_OK", "LAYER_INVALID"), f"seed {seed}: {data.hex()}")
            if status == "LAYER_OK":
                accepted += 1
                received = await self.python_receive(python, channel)
                # What arrived is what was sent, so that nothing was accepted by mistake either.
                self.assert_same(msgpack.unpackb(bytes(data)), received)
            else:
                refused += 1
        # Else the mutilation is too weak or too strong to show anything.
        self.assertGreater(accepted, 100, f"seed {seed}")
        self.assertGreater(refused, 100, f"seed {seed}")
        self.assertEqual(await c.send(channel, msgpack.packb(message("alive"))), "LAYER_OK")
        self.assertEqual(await self.python_receive(python, channel), message("alive"))
