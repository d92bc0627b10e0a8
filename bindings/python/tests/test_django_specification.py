"""The Channel Layer Specification of Django Channels; docs/specification.md has the table of it."""

import asyncio
import inspect
import warnings

import channels.exceptions
import pytest
from channels.exceptions import MessageTooLarge, StopConsumer

from channel_layer import InvalidError, Layer, UnconfirmedError
from channel_layer.django import ForeignChannelError, RabbitmqChannelLayer
from conftest import WAIT, soon, unique

# Names that only look like those that are allowed: other digits, letters, marks, lines.
BAD_PARTS = ("", "a b", "a/b", "a:b", "a?b", "é", "٣", "a\n", "a\0", "x" * 100)


# --- attributes -----------------------------------------------------------------------------


def test_the_backend_has_the_attributes_of_the_specification():
    layer = RabbitmqChannelLayer(host="memory://attributes", group_expiry=60)
    assert layer.ChannelFull is channels.exceptions.ChannelFull
    assert layer.MessageTooLarge is channels.exceptions.MessageTooLarge
    assert layer.extensions == ["groups", "flush"]
    assert layer.group_expiry == 60 and layer.expiry == 60 and layer.capacity == 100
    for name in (
        "send", "receive", "new_channel", "group_add", "group_discard", "group_send", "flush",
    ):  # fmt: skip
        assert inspect.iscoroutinefunction(getattr(layer, name)), name


def test_deprecated_names_warn_as_those_of_channels_do():
    layer = RabbitmqChannelLayer(host="memory://deprecated")
    for old, name in ((layer.valid_channel_name, "a!b"), (layer.valid_group_name, "a")):
        with pytest.warns(DeprecationWarning, match="is deprecated, use require_valid_") as warned:
            assert old(name) is True
        assert warned[0].filename == __file__
        with pytest.warns(DeprecationWarning), pytest.raises(TypeError):
            old("bad name")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert layer.require_valid_channel_name("a!b") and layer.require_valid_group_name("a")


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", BAD_PARTS, ids=ascii)
def test_names_of_other_characters_or_lengths_are_type_errors(part):
    layer = RabbitmqChannelLayer(host="memory://names")
    for require, name in (
        (layer.require_valid_group_name, part),
        (layer.require_valid_group_name, f"a{part}!"),
        (layer.require_valid_channel_name, part),
        (layer.require_valid_channel_name, f"{part}!a"),
        (layer.require_valid_channel_name, "a!b!c"),
        (layer.require_valid_channel_name, b"bytes"),
        (layer.require_valid_channel_name, None),
    ):
        with pytest.raises(TypeError):
            require(name)


def test_names_may_have_99_bytes_of_all_that_is_allowed():
    layer = RabbitmqChannelLayer(host="memory://names")
    allowed = "abcXYZ0189._-"
    assert layer.require_valid_group_name(allowed + "x" * (99 - len(allowed)))
    assert layer.require_valid_channel_name(f"{allowed}!{allowed}".ljust(99, "x"))


async def test_a_normal_channel_is_refused_as_the_peers_do(new):
    layer = new()
    for call in (layer.send("normal", {}), layer.receive("normal"), layer.group_add("g", "normal")):
        with pytest.raises(RuntimeError):
            await call
        call.close()


async def test_receive_of_a_channel_of_another_process_is_an_assertion_error(new):
    layer, other = new(), new()
    foreign = await other.new_channel()
    with pytest.raises(ForeignChannelError) as raised:
        await soon(layer.receive(foreign))
    assert isinstance(raised.value, AssertionError) and isinstance(raised.value, InvalidError)


# --- messages -------------------------------------------------------------------------------


async def test_messages_carry_each_type_of_the_specification(new):
    layer = new()
    channel = await layer.new_channel()
    message = {
        "type": "x", "bytes": b"\0\xff", "text": "é\U0001f600\0", "empty": "", "none": None,
        "integers": [0, -1, 2**63 - 1, -(2**63), 2**64 - 1], "booleans": [True, False],
        "floats": [0.1, -0.0, 1.7976931348623157e308, float("inf")], "dict": {"": {"a": []}},
    }  # fmt: skip
    await layer.send(channel, {**message, "tuple": (1, (2,))})
    got = await soon(layer.receive(channel))
    assert got.pop("tuple") == [1, [2]]
    assert got == message
    for before, after in zip(message.values(), got.values()):
        assert type(before) is type(after)
    assert got["booleans"] == [True, False] and got["booleans"][0] is True


async def test_keys_that_are_no_text_and_reserved_ones_are_value_errors(new):
    layer = new()
    channel = await layer.new_channel()
    for message in (
        {1: 2}, {"a": {b"b": 1}}, {"__asgi_channel__": "x"}, {"__asgi_group__": "x"},
    ):  # fmt: skip
        for send in (layer.send(channel, message), layer.group_send("group", message)):
            with pytest.raises(ValueError):
                await send


async def test_a_message_of_1_mb_arrives(new):
    layer = new()
    channel = await layer.new_channel()
    message = {"type": "x", "text": "é" * 500_000, "bytes": b"\xff" * 750_000}
    await soon(layer.send(channel, message))
    assert await soon(layer.receive(channel)) == message


async def test_a_message_over_the_limit_is_too_large_for_both_sends(new):
    layer = new(max_message_size=1000)
    channel = await layer.new_channel()
    for send in (layer.send, layer.group_send):
        with pytest.raises(MessageTooLarge, match="1000"):
            await send(channel if send == layer.send else "group", {"text": "x" * 1000})
    await layer.send(channel, {"text": "x" * 900})
    assert len((await soon(layer.receive(channel)))["text"]) == 900


async def test_a_default_of_config_converts_what_django_has(new):
    from datetime import date, datetime, timedelta, timezone
    from decimal import Decimal
    from uuid import UUID

    from django.utils.functional import lazystr

    layer = new(default="channel_layer.django.plain")
    channel = await layer.new_channel()
    number = UUID(int=7)
    await layer.send(
        channel,
        {
            "uuid": number,
            "decimal": Decimal("1.50"),
            "lazy": [lazystr("text")],
            "date": date(2026, 1, 2),
            "time": datetime(2026, 1, 2, 3, tzinfo=timezone.utc),
            "span": timedelta(minutes=1),
        },
    )
    assert await soon(layer.receive(channel)) == {
        "uuid": str(number), "decimal": "1.50", "lazy": ["text"], "date": "2026-01-02",
        "time": "2026-01-02T03:00:00+00:00", "span": 60.0,
    }  # fmt: skip
    with pytest.raises(TypeError, match=r"message\['v'\]\[0\]"):
        await layer.send(channel, {"v": [{1, 2}]})


# --- channels -------------------------------------------------------------------------------


async def test_one_reader_gets_the_messages_of_one_writer_in_order(new):
    layer, sender = new(local_capacity=1000), new()
    channel = await layer.new_channel()
    await layer.layer.wait_ready(WAIT)
    await sender.layer.wait_ready(WAIT)
    for n in range(300):
        await soon(sender.send(channel, {"n": n}))
    assert [(await soon(layer.receive(channel)))["n"] for _ in range(300)] == list(range(300))


async def test_each_message_goes_to_one_of_several_readers(new):
    layer = new(local_capacity=1000)
    channel = await layer.new_channel()
    readers = [asyncio.ensure_future(layer.receive(channel)) for _ in range(50)]
    await asyncio.sleep(0)
    for n in range(50):
        await layer.send(channel, {"n": n})
    got = await soon(asyncio.gather(*readers))
    assert sorted(each["n"] for each in got) == list(range(50))
    await layer.send(channel, {"n": "last"})
    assert await soon(layer.receive(channel)) == {"n": "last"}


async def test_new_channels_are_of_this_process_and_differ(new):
    layer = new()
    names = [await layer.new_channel("prefix.") for _ in range(100)]
    assert len(set(names)) == 100
    assert len({each.split("!")[0] for each in names}) == 1
    assert all(layer.require_valid_channel_name(each) for each in names)


# --- groups ---------------------------------------------------------------------------------


async def test_adding_twice_and_discarding_who_is_no_member_are_fine(new):
    layer = new()
    channel, group = await layer.new_channel(), unique("group")
    await layer.group_discard(group, channel)
    await layer.group_add(group, channel)
    await layer.group_add(group, channel)
    await layer.group_send(group, {"n": 1})
    await layer.send(channel, {"n": 2})
    assert await soon(layer.receive(channel)) == {"n": 1}
    assert await soon(layer.receive(channel)) == {"n": 2}
    await layer.group_discard(group, channel)
    await layer.group_discard(group, channel)
    await layer.group_send(group, {"n": 3})
    await layer.send(channel, {"n": 4})
    assert await soon(layer.receive(channel)) == {"n": 4}


# --- flush ----------------------------------------------------------------------------------


async def test_flush_ends_the_channels_memberships_and_messages_of_the_process(new):
    layer, other = new(), new()
    group = unique("group")
    channel, waits, theirs = (
        await layer.new_channel(), await layer.new_channel(), await other.new_channel(),
    )  # fmt: skip
    await layer.group_add(group, channel)
    await other.group_add(group, theirs)
    await layer.send(channel, {"n": 1})
    waiting = asyncio.ensure_future(layer.receive(waits))
    await asyncio.sleep(0)
    await soon(layer.flush())
    with pytest.raises(StopConsumer):
        await soon(waiting)
    with pytest.raises(ForeignChannelError):
        await soon(layer.receive(channel))
    await soon(other.group_send(group, {"n": 2}))
    assert await soon(other.receive(theirs)) == {"n": 2}
    again = await layer.new_channel()
    await layer.send(again, {"n": 3})
    assert await soon(layer.receive(again)) == {"n": 3}
    await layer.group_add(group, again)
    await layer.group_send(group, {"n": 4})
    assert await soon(layer.receive(again)) == {"n": 4}


async def test_flush_of_a_layer_that_was_not_opened_or_is_closed(new):
    layer = new()
    await layer.flush()
    assert layer._own().layer is None
    await layer.close()
    with pytest.raises(StopConsumer):
        await layer.flush()


# --- the end --------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "flush"])
async def test_calls_that_race_the_end_end_well_or_stop_the_consumer(end, new, caplog):
    layer = new(local_capacity=1000, remote_capacity=1000)
    group = unique("group")
    mine = [await layer.new_channel() for _ in range(20)]
    await layer.layer.wait_ready(WAIT)
    calls = []
    for n, channel in enumerate(mine):
        calls += [
            layer.send(channel, {"n": n}),
            layer.group_add(f"{group}.{n}", channel),
            layer.group_send(group, {"n": n}),
            layer.receive(channel),
            layer.receive(mine[0]),
        ]
        if n == 10:
            calls.append(getattr(layer, end)())
    outcomes = await soon(asyncio.gather(*calls, return_exceptions=True))
    strange = [
        each
        for each in outcomes
        if isinstance(each, BaseException)
        and not isinstance(each, StopConsumer)
        # What comes after a flush meets a new layer, to which the old names are foreign.
        and not (end == "flush" and isinstance(each, InvalidError))
    ]
    assert strange == []
    assert any(isinstance(each, StopConsumer) for each in outcomes)
    assert not [each for each in caplog.records if each.name == "channel_layer.django"]


@pytest.mark.parametrize("end", ["close", "flush"])
async def test_what_the_end_leaves_unconfirmed_stops_the_consumer(end, new, monkeypatch, caplog):
    layer = new()
    channel = await layer.new_channel()

    async def call(self, *_):
        await getattr(layer, end)()
        raise UnconfirmedError("it was handed over")

    for name, arguments in (
        ("send", (channel, {})),
        ("group_send", ("group", {})),
        ("group_add", ("group", channel)),
    ):
        layer.generation()
        monkeypatch.setattr(Layer, name, call)
        with pytest.raises(StopConsumer):
            await getattr(layer, name)(*arguments)
        monkeypatch.undo()
        if end == "close":
            break
    assert not [each for each in caplog.records if each.name == "channel_layer.django"]
