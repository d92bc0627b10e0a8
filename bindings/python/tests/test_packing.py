"""What a message may hold, and how a value that it may not is named."""

import datetime
import decimal
import uuid
from types import MappingProxyType

import msgpack
import pytest

from channel_layer import InvalidError, TooLargeError
from channel_layer._packing import pack


def nested(depth):
    """So many dicts within each other."""
    message = {}
    for _ in range(depth - 1):
        message = {"x": message}
    return message


CYCLE = {"type": "x", "me": [1]}
CYCLE["me"].append(CYCLE)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, 2**64 - 1, -(2**63), True, 0])
def test_integers_of_64_bits_are_packed(number):
    assert msgpack.unpackb(pack({"n": number})) == {"n": number}


@pytest.mark.parametrize(
    "message, kind, path",
    [
        ({"user": {"joined": datetime.datetime.now()}}, TypeError, "message['user']['joined']"),
        ({"a": [1, {"b": (0, uuid.uuid4())}]}, TypeError, "message['a'][1]['b'][1]"),
        ({"ok": 1, "v": {1, 2}, "w": object()}, TypeError, "message['v']"),
        ({"v": [2**64]}, InvalidError, "message['v'][0]"),
        ({"v": -(2**63) - 1}, InvalidError, "message['v']"),
        ({"a": {"v": "a\ud800"}}, InvalidError, "message['a']['v']"),
        ({"a": {"\ud800": 1}}, InvalidError, "a key of message['a']"),
        ({"v": [{1: 2**64}]}, InvalidError, "message['v'][0] has the key 1"),
        (MappingProxyType({"v": 1j}), TypeError, "message['v']"),
        (CYCLE, InvalidError, "message['me'][1] contains itself"),
        (nested(5000), InvalidError, "message['x']['x']"),
    ],
)
def test_a_value_that_cannot_be_packed_is_named_by_its_path(message, kind, path):
    with pytest.raises(kind) as raised:
        pack(message)
    assert str(raised.value).startswith(path)


def as_text(value):
    if isinstance(value, (uuid.UUID, decimal.Decimal)):
        return str(value)
    if isinstance(value, set):
        return sorted(value)
    if isinstance(value, complex):
        return value + 1
    raise TypeError("that is not mine")


def test_default_converts_what_messagepack_does_not_have():
    number = uuid.uuid4()
    packed = pack({"u": number, "l": [decimal.Decimal("1.5"), {3, 1}]}, as_text)
    assert msgpack.unpackb(packed) == {"u": str(number), "l": ["1.5", [1, 3]]}


def test_what_default_does_not_convert_is_named_by_its_path():
    # What it makes of the others is looked at too, and is no reason.
    message = {"u": uuid.uuid4(), "s": {1, 2}, "l": [b"", None, 1.5, datetime.date.today()]}
    with pytest.raises(TypeError, match=r"message\['l'\]\[3\] .* that is not mine"):
        pack(message, as_text)
    with pytest.raises(TypeError, match=r"message\['c'\] .* complex"):
        pack({"c": 1j}, as_text)
    with pytest.raises(InvalidError, match=r"message\['s'\]\[1\] is an integer out of range"):
        pack({"s": {1, 2**64}}, as_text)


def test_an_exception_of_default_that_is_no_type_error_comes_out():
    def default(value):
        raise LookupError("of mine")

    with pytest.raises(LookupError, match="of mine"):
        pack({"v": object()}, default)


def test_bytes_are_taken_as_packed_and_all_else_is_refused():
    assert pack(b"\x80") == pack(bytearray(b"\x80")) == pack(memoryview(b"\x80")) == b"\x80"
    for message in (None, 1, [1], object()):
        with pytest.raises(TypeError, match="a message is a dict"):
            pack(message)


def test_a_layer_has_a_default_for_all_its_sends(opened):
    layer = opened(host="memory://default", default=as_text)
    channel = layer.new_channel()
    layer.blocking.group_add("g", channel)
    layer.blocking.send(channel, {"v": decimal.Decimal("1.5")})
    layer.blocking.group_send("g", {"v": {2, 1}})
    assert layer.blocking.receive(channel, 20) == {"v": "1.5"}
    assert layer.blocking.receive(channel, 20) == {"v": [1, 2]}


async def test_depth_and_size_are_bounded_by_the_library(layer):
    channel = layer.new_channel()
    await layer.send(channel, nested(128))
    assert await layer.receive(channel, 20) == nested(128)
    for depth in (129, 400):
        with pytest.raises(InvalidError):
            await layer.send(channel, nested(depth))
    with pytest.raises(TooLargeError):
        await layer.send(channel, {"v": bytes(16 * 1024 * 1024)})
