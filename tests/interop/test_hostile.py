"""What a raw AMQP client can publish to a layer's queue and groups; tests/interop/run.sh starts it.

Each delivery that is no message is acked, counted and logged at a bounded rate, and the layer goes
on receiving good ones. The peer takes no more than two deliveries ahead of its acks, so that each
good message that comes says that all before it were acked.
"""

import asyncio
import datetime
import decimal
import gzip
import pickle
import time
import unittest

import msgpack
import pika

from test_interop import URL, WAIT, Interop, big, message, message_bytes, unique

# Numbers of layer_stat_t.
DELIVERIES, DROPPED_EXPIRED, DROPPED_MALFORMED, DROPPED_NO_MEMBER, DROPPED_FOREIGN = 6, 8, 11, 12, 13
GENERATION, BACKLOG, CHANNELS, DELIVERIES_HELD = 16, 17, 19, 25

WARNING_SECONDS = 5  # one warning of a kind in this time

CHANNEL_KEY, GROUP_KEY = msgpack.packb("__asgi_channel__"), msgpack.packb("__asgi_group__")


def hostile_bodies(recipient):
    """Bodies that must be dropped; `recipient` is the entry of a member that is there."""
    key = recipient[0]
    entry = b"".join(recipient)
    good = b"\x82\xa4type\xa1t" + entry
    bodies = {f"cut_after_{end}_bytes": good[:end] for end in range(len(good))}
    bodies.update({
        "a_byte_after_the_map": good + b"\xc0",
        "a_mebibyte_after_the_map": good + bytes(2**20),
        "two_messages": good + good,
        "both_recipients": b"\x82" + CHANNEL_KEY + b"\xa3a!b" + GROUP_KEY + b"\xa1g",
        "the_recipient_twice": b"\x82" + entry + entry,
        "no_recipient": b"\x81\xa4type\xa1t",
        "an_empty_map": b"\x80",
        "a_recipient_deeper_inside": b"\x81\xa1a\x81" + entry,
        "nil": b"\xc0",
        "an_integer": b"\x07",
        "an_array_of_the_entry": b"\x92" + entry,
        "a_string": b"\xa5hello",
        "an_ext": b"\xd4\x05\x00",
        "the_byte_that_is_no_format": b"\xc1",
        "that_byte_as_a_value": b"\x82\xa1a\xc1" + entry,
        "that_byte_as_a_key": b"\x82\xc1\xa1a" + entry,
        "a_recipient_that_is_nil": b"\x81" + key + b"\xc0",
        "a_recipient_that_is_an_integer": b"\x81" + key + b"\x01",
        "a_recipient_that_is_an_array": b"\x81" + key + b"\x91\xa1g",
        "a_recipient_that_is_a_map": b"\x81" + key + b"\x81\xa1g\xa1g",
        "a_recipient_that_is_an_ext": b"\x81" + key + b"\xd4\x05\x00",
        "a_recipient_with_a_nul": b"\x81" + key + b"\xa3a!\x00",
        "a_recipient_that_is_not_utf8": b"\x81" + key + b"\xa3a!\xff",
        "a_recipient_that_is_a_surrogate": b"\x81" + key + b"\xa5a!\xed\xa0\x80",
        "a_map_of_four_billion": b"\xdf\xff\xff\xff\xff" + entry,
        "an_array_of_four_billion": b"\x82" + entry + b"\xa1a\xdd\xff\xff\xff\xff",
        "bytes_of_four_gibibytes": b"\x82" + entry + b"\xa1a\xc6\xff\xff\xff\xff",
        "a_string_of_four_gibibytes": b"\x82" + entry + b"\xa1a\xdb\xff\xff\xff\xff",
        "a_key_of_four_gibibytes": b"\x82" + entry + b"\xdb\xff\xff\xff\xff",
        "an_ext_of_four_gibibytes": b"\x82" + entry + b"\xa1a\xc9\xff\xff\xff\xff\x05",
        "a_recipient_of_four_gibibytes": b"\x81" + key + b"\xdb\xff\xff\xff\xff",
        "arrays_10000_deep_without_an_end": b"\x82" + entry + b"\xa1a" + b"\x91" * 10000,
        "maps_10000_deep_without_an_end": b"\x82" + entry + b"\xa1a" + b"\x81\xa1a" * 10000,
        "maps_as_keys_without_an_end": b"\x82" + entry + b"\x81" * 10000,
        "arrays_of_four_billion_in_each_other": b"\xdd\xff\xff\xff\xff" * 2000,
        "16_mebibytes_of_zeros": bytes(2**24),
        "a_mebibyte_of_arrays": b"\x81\xa1a" + b"\x91" * 2**20,
        "json": b'{"type": "t", "__asgi_group__": "g"}',
        "pickle": pickle.dumps({"type": "t", "__asgi_group__": "g"}),
        "gzip": gzip.compress(good),
        "text": "Dobrý den".encode(),
    })
    return bodies


# Values that no layer sends and that a receiver may make of what it likes: name, entry, and whether
# the JSON view can hold it.
STRANGE = {
    "an_ext": (b"\xa1v\xd4\x05\x00", False),
    "a_timestamp": (b"\xa1v\xd6\xff\x00\x00\x00\x01", False),
    "a_timestamp_that_is_none": (b"\xa1v\xc7\x05\xff\x00\x00\x00\x00\x00", False),
    "an_integer_as_a_key": (b"\x01\xa1v", False),
    "nil_as_a_key": (b"\xc0\xa1v", False),
    "a_map_as_a_key": (b"\x81\xa1a\xa1b\xa1v", False),
    "an_array_10000_deep_as_a_key": (b"\x91" * 10000 + b"\xc0\xa1v", False),
    "a_value_that_is_not_utf8": (b"\xa1v\xa2a\xff", False),
    "a_key_that_is_not_utf8": (b"\xa1\xff\xa1v", False),
    "a_surrogate": (b"\xa1v\xa3\xed\xa0\x80", False),
    "an_integer_above_signed_64_bits": (b"\xa1v\xcf" + b"\xff" * 8, True),
    "not_a_number": (b"\xa1v\xca\x7f\xc0\x00\x00", False),
    "the_mark_of_bytes_in_a_string": (b"\xa1v\xa4\xef\xbf\xbfA", False),
    "arrays_10000_deep": (b"\xa1v" + b"\x91" * 10000 + b"\xc0", False),
    "maps_10000_deep": (b"\xa1v" + b"\x81\xa1a" * 10000 + b"\xc0", False),
    "a_key_of_100000_bytes": (b"\xdb" + big(100000, 4) + b"k" * 100000 + b"\x01", True),
    "type_that_is_no_string": (b"\xa4type\x01", True),
    "type_with_a_nul": (b"\xa4type\xa3a\x00b", True),
    "a_nul_in_a_string": (b"\xa1v\xa3a\x00b", True),
}

# What AMQP can carry beside a body. A good body comes through all of it.
PROPERTIES = {
    "content_type": {"content_type": "application/json"},
    "content_encoding_gzip": {"content_encoding": "gzip"},
    "content_encoding_unknown": {"content_encoding": "x" * 255},
    "message_id_empty": {"message_id": ""},
    "correlation_and_reply": {"correlation_id": "c" * 255, "reply_to": "somebody!else"},
    "priority_and_mode": {"priority": 255, "delivery_mode": 2},
    "expiration": {"expiration": "60000"},
    "expiration_long": {"expiration": "4294967295"},
    "timestamp": {"timestamp": 2**63 - 1},
    "type_app_cluster": {"type": "\x00", "app_id": "\n", "cluster_id": "é" * 100},
    "headers_of_every_type": {"headers": {
        "nil": None, "true": True, "byte": 1, "long": 2**40, "negative": -1,
        "bytes": b"\x00\xff", "decimal": decimal.Decimal("1.25"),
        "time": datetime.datetime(2001, 1, 1), "list": [1, "a", [None, {"deep": []}]],
        "table": {"inner": {"inner": {}}}, "": ""}},
    "headers_that_lie": {"headers": {
        "x-death": "no list", "x-delivery-count": "many", "CC": [], "__asgi_channel__": 1}},
    "headers_100_deep": {"headers": None},  # made below
    "headers_of_12_kilobytes": {"headers": {f"key{i}": "v" * 90 for i in range(120)}},
    "headers_of_100_kilobytes": {"headers": {f"key{i}": "v" * 90 for i in range(1000)}},
    "a_header_key_of_128_bytes": {"headers": {"é" * 64: 1}},
    # Short strings are UTF-8 by AMQP, and RabbitMQ does not look.
    "content_encoding_not_utf8": {"content_encoding": b"\xff\xfe"},
    "message_id_not_utf8": {"message_id": b"\x80" * 255},
    "type_not_utf8": {"type": b"\xff"},
}
for _ in range(100):
    PROPERTIES["headers_100_deep"] = {"headers": {"h": PROPERTIES["headers_100_deep"]["headers"]}}


async def stat_once_it_is(value, peer, number):
    """What a statistic is once it has reached `value`, or when there was time enough for that."""
    deadline = time.monotonic() + WAIT
    while (found := await peer.stat(number)) < value and time.monotonic() < deadline:
        await asyncio.sleep(0.005)
    return found


class Deliveries(Interop):
    async def asyncSetUp(self):
        # Nothing more comes while two deliveries are not acked.
        self.peer = await self.c(prefetch_count=2, local_capacity=2, remote_capacity=1000)
        self.channel = await self.peer.new_channel()
        self.queue = self.channel.split("!")[0]
        self.group = unique("hostile")
        await self.peer.group_add(self.group, self.channel)
        self.connection = pika.BlockingConnection(pika.URLParameters(URL))
        self.addCleanup(self.connection.close)
        self.amqp = self.connection.channel()
        self.amqp.confirm_delivery()

    def publish(self, body, properties=None, to_group=False):
        """Publishes and waits for the broker's confirm: the queue has it."""
        self.amqp.basic_publish(
            "groups" if to_group else "", self.group if to_group else self.queue, body,
            pika.BasicProperties(**(properties or {})), mandatory=True)

    def recipient(self, to_group=False):
        if to_group:
            return GROUP_KEY, msgpack.packb(self.group)
        return CHANNEL_KEY, msgpack.packb(self.channel)

    async def assert_good_messages_come(self, properties=None):
        for to_group in (False, True):
            recipient = (("__asgi_group__", self.group) if to_group
                         else ("__asgi_channel__", self.channel))
            number = unique("good")
            self.publish(message_bytes(msgpack.packb(number), recipient), properties, to_group)
            self.assert_received(message(number), await self.peer.receive(self.channel),
                                 self.channel, self.group if to_group else None)

    async def assert_stat(self, number, value):
        self.assertEqual(await stat_once_it_is(value, self.peer, number), value)

    async def assert_nothing_is_left(self):
        """All was acked, and the connection is the first one."""
        for number in (BACKLOG, CHANNELS, DELIVERIES_HELD):
            self.assertEqual(await self.peer.stat(number), 0, number)
        self.assertEqual(await self.peer.stat(GENERATION), 1)

    async def test_what_is_no_message_is_acked_counted_and_logged_now_and_then(self):
        began = time.monotonic()
        await self.peer.log()
        dropped = 0
        for to_group in (False, True):
            for name, body in hostile_bodies(self.recipient(to_group)).items():
                with self.subTest(name, to_group=to_group):
                    self.publish(body, to_group=to_group)
                    dropped += 1
                    await self.assert_stat(DROPPED_MALFORMED, dropped)
                    await self.assert_good_messages_come()
        await self.assert_nothing_is_left()
        self.assertEqual(await self.peer.stat(DELIVERIES), 3 * dropped)
        elapsed = time.monotonic() - began
        self.assertGreater(dropped, 150)
        warnings = [line for line in await self.peer.log() if line.startswith("malformed_dropped: ")]
        self.assertGreaterEqual(len(warnings), 1)
        self.assertLessEqual(len(warnings), 1 + elapsed / WARNING_SECONDS)
        for line in warnings:
            self.assertLess(len(line), 1000)

    async def test_many_at_once_hold_nothing_up(self):
        bodies = list(hostile_bodies(self.recipient()).values())
        bodies = [body for body in bodies if len(body) < 2**20]
        for body in bodies * 5:
            self.publish(body)
        await self.assert_good_messages_come()
        await self.assert_stat(DROPPED_MALFORMED, 5 * len(bodies))
        await self.assert_nothing_is_left()
        warnings = [line for line in await self.peer.log() if line.startswith("malformed_dropped: ")]
        self.assertGreaterEqual(len(warnings), 1)
        self.assertLess(len(warnings), len(bodies))

    async def test_strange_values_come_as_they_are(self):
        for to_group in (False, True):
            key, value = self.recipient(to_group)
            for name, (entry, fits_json) in STRANGE.items():
                with self.subTest(name, to_group=to_group):
                    for body in (b"\x82" + entry + key + value, b"\x82" + key + value + entry):
                        self.publish(body, to_group=to_group)
                        answer = await self.peer.receive(self.channel)
                        self.assertEqual(answer["status"], "LAYER_OK")
                        self.assertEqual(answer["data"], b"\x81" + entry)
                        self.assertIsNone(answer["type"])
                        self.assertEqual("json" in answer, fits_json, answer.get("json_error"))
        await self.assert_good_messages_come()
        self.assertEqual(await self.peer.stat(DROPPED_MALFORMED), 0)
        await self.assert_nothing_is_left()

    async def test_what_is_for_others_is_acked_and_counted(self):
        foreign = ["somebody!else", "x" * 100 + "!y", self.queue + "x!y", self.queue, "", "!", "!x",
                   "é!x", "q!" + "x" * 2**20]
        for number, name in enumerate(foreign, 1):
            with self.subTest(channel=name[:40]):
                self.publish(b"\x81" + CHANNEL_KEY + msgpack.packb(name))
                await self.assert_stat(DROPPED_FOREIGN, number)
                await self.assert_good_messages_come()
        groups = ["somebody", "", "g" * 100, "é", "a b", "!", "\n", "g" * 2**20, self.group + "x"]
        for number, name in enumerate(groups, 1):
            with self.subTest(group=name[:40]):
                self.publish(b"\x81" + GROUP_KEY + msgpack.packb(name))
                await self.assert_stat(DROPPED_NO_MEMBER, number)
                await self.assert_good_messages_come()
        # The routing key is that of a group of ours, and the body names another one.
        self.publish(b"\x81" + GROUP_KEY + msgpack.packb("somebody"), to_group=True)
        await self.assert_stat(DROPPED_NO_MEMBER, len(groups) + 1)
        await self.assert_good_messages_come()
        await self.assert_nothing_is_left()

    async def test_a_large_message_for_others_is_dropped(self):
        size = 15 << 20  # RabbitMQ 4 takes no more than 16 MiB
        body = (b"\x82\xa1v\xc6" + big(size, 4) + bytes(size)
                + GROUP_KEY + msgpack.packb("somebody"))
        self.publish(body)
        await self.assert_stat(DROPPED_NO_MEMBER, 1)
        await self.assert_good_messages_come()
        await self.assert_nothing_is_left()

    async def test_any_properties_come_with_a_good_message(self):
        for name, properties in PROPERTIES.items():
            with self.subTest(name):
                await self.assert_good_messages_come(properties)
                # And with a bad one.
                before = await self.peer.stat(DROPPED_MALFORMED)
                self.publish(b"\xc1", properties)
                await self.assert_stat(DROPPED_MALFORMED, before + 1)
        await self.assert_good_messages_come()
        await self.assert_nothing_is_left()


class Names(Interop):
    async def test_a_channel_of_ours_with_a_name_that_cannot_be_received_expires(self):
        # A message to a good name must be received before it expires too. A machine that is too
        # slow for that tries again with twice the expiry, so that no load makes the test fail.
        expiry = 0.5
        while not await self.messages_to_bad_names_expire(expiry):
            expiry *= 2
            self.assertLess(expiry, WAIT, "no message to a good name was received")

    async def messages_to_bad_names_expire(self, expiry):
        """False if this machine was too slow to receive the message to a good name in time."""
        peer = await self.c(prefetch_count=2, local_capacity=100, local_expiry=expiry)
        channel = await peer.new_channel()
        queue = channel.split("!")[0]
        connection = pika.BlockingConnection(pika.URLParameters(URL))
        self.addCleanup(connection.close)
        amqp = connection.channel()
        amqp.confirm_delivery()
        names = [queue + "!" + "x" * 100, queue + "!" + "x" * 2**20, queue + "!a!b", queue + "!é",
                 queue + "!a b", queue + "!"]
        for name in names:
            amqp.basic_publish("", queue, b"\x81" + CHANNEL_KEY + msgpack.packb(name))
        body = message_bytes(b"\x01", ("__asgi_channel__", channel))
        amqp.basic_publish("", queue, body)
        answer = await peer.receive(channel, expiry)
        if answer["status"] == "LAYER_TIMEOUT":
            return False
        self.assert_received(message(1), answer, channel)
        self.assertEqual(await stat_once_it_is(len(names), peer, DROPPED_EXPIRED), len(names))
        self.assertEqual(await peer.stat(CHANNELS), 0)
        return True


if __name__ == "__main__":
    unittest.main(buffer=True, warnings="ignore")
