"""The backend for Django Channels while channels of its process do not take their messages."""

import asyncio
import time

import pytest

import channel_layer.django
from channel_layer import Isolation, Stat
from conftest import soon, unique

REFUSED = "did not reach all"  # what the backend logs of a group message that met a full queue


async def until(backend, which, value):
    """Waits until a statistic has a value."""

    async def look():
        while backend.layer.stat(which) != value:
            await asyncio.sleep(0.005)

    await soon(look())


async def members(backend, group, count):
    """New channels, all in one group."""
    channels = [await backend.new_channel() for _ in range(count)]
    for channel in channels:
        await backend.group_add(group, channel)
    return channels


async def numbers(backend, channel, count):
    """The numbers in the next messages of a channel."""
    return [(await soon(backend.receive(channel)))["n"] for _ in range(count)]


# --- channels that do not take their messages, beside one that does -------------------------


async def test_a_broadcast_that_101_members_do_not_read_delays_no_other_channel(new):
    backend, sender, group = new(), new(), unique("group")
    await members(backend, group, 101)
    prompt = await backend.new_channel()
    await sender.group_send(group, {"type": "news"})
    await until(backend, Stat.BACKLOG, 101)
    hearing = asyncio.ensure_future(numbers(backend, prompt, 300))
    for n in range(300):
        await sender.send(prompt, {"n": n})
    assert await hearing == list(range(300))
    assert backend.layer.stat(Stat.ISOLATIONS) == 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [11, 40, 120])
async def test_members_that_leave_at_once_and_announce_it_deafen_nobody(new, count, caplog):
    backend, group = new(), unique("group")
    leaving = await members(backend, group, count)
    # Each is still a member while it announces it, as in a consumer's `disconnect`.
    await asyncio.gather(*(backend.group_send(group, {"type": "left"}) for _ in leaving))
    await until(backend, Stat.BACKLOG, count * min(count, 100))  # there is credit for 100
    for channel in leaving:
        await backend.group_discard(group, channel)
    caplog.clear()
    (newcomer,) = await members(backend, group, 1)
    for n in range(200):
        await backend.group_send(group, {"type": "talk", "n": n})
        message = await soon(backend.receive(newcomer))
        while message["type"] == "left":  # what was still on its way
            message = await soon(backend.receive(newcomer))
        assert message["n"] == n
    assert backend.layer.stat(Stat.ISOLATIONS) == (1 if count > 100 else 0)
    assert REFUSED not in caplog.text


@pytest.mark.slow
async def test_a_member_that_nobody_reads_loses_its_own_messages_and_no_other_does(new, caplog):
    backend, sender, group = new(), new(), unique("group")
    dead, live = await members(backend, group, 2)
    for n in range(300):
        await sender.group_send(group, {"n": n})
        assert await numbers(backend, live, 1) == [n]
    assert backend.layer.stat(Stat.DROPPED_CHANNEL_FULL) == 200
    assert await numbers(backend, dead, 100) == list(range(100))
    assert REFUSED not in caplog.text
    assert "isolation_began" in {getattr(each, "channel_layer_id", "") for each in caplog.records}


@pytest.mark.slow
async def test_busy_consumers_delay_a_prompt_one_by_stall_after_at_most(
    new, broker, record_testsuite_property
):
    stall_after, busy, generous = 0.5, 8, 3
    backend, sender, group = new(stall_after=stall_after), new(), unique("group")
    prompt = await backend.new_channel()
    handled = 0

    async def consume(channel):
        nonlocal handled
        while True:
            await backend.receive(channel)
            handled += 1
            await asyncio.sleep(busy)

    async def waits():
        longest = 0.0
        for _ in range(200):
            sent = (await soon(backend.receive(prompt)))["sent"]
            longest = max(longest, time.monotonic() - sent)
        return longest

    consumers = [asyncio.ensure_future(consume(c)) for c in await members(backend, group, 101)]
    hearing = asyncio.ensure_future(waits())
    try:
        for _ in range(200):
            await sender.group_send(group, {"type": "work"})
            await sender.send(prompt, {"sent": time.monotonic()})
            await asyncio.sleep(0.01)
        longest = await soon(hearing)
    finally:
        for each in consumers:
            each.cancel()
    record_testsuite_property(f"longest wait with stall_after={stall_after} on {broker}", longest)
    assert handled == len(consumers) and backend.layer.stat(Stat.ISOLATIONS) > 0
    assert longest < generous


async def test_credit_counts_deliveries_and_not_their_copies(new):
    backend, group = new(local_capacity=2, stall_after=0), unique("group")
    idle = await members(backend, group, 50)
    prompt = await backend.new_channel()
    await backend.group_send(group, {"n": 0})
    await until(backend, Stat.BACKLOG, 50)
    assert backend.layer.stat(Stat.DELIVERIES_HELD) == 1
    for n in range(20):  # with the other credit
        await backend.send(prompt, {"n": n})
        assert await numbers(backend, prompt, 1) == [n]

    await backend.group_send(group, {"n": 1})
    await until(backend, Stat.BACKLOG, 100)
    assert backend.layer.stat(Stat.DELIVERIES_HELD) == 2
    await backend.send(prompt, {"n": 20})
    hearing = asyncio.ensure_future(numbers(backend, prompt, 1))
    for channel in idle[1:]:
        assert await numbers(backend, channel, 1) == [0]
    assert not hearing.done()  # one channel has not taken the first broadcast
    assert await numbers(backend, idle[0], 1) == [0]
    assert await hearing == [20]
    assert backend.layer.stat(Stat.DELIVERIES_HELD) == 1


async def test_config_takes_the_options_and_the_hook_of_isolation(new):
    told = []
    backend = new(
        local_capacity=1,
        stall_after=0.1,
        channel_capacity=1,
        on_isolation=lambda *event: told.append(event),
    )
    channel = await backend.new_channel()
    for n in range(3):
        await backend.send(channel, {"n": n})
    await until(backend, Stat.DROPPED_CHANNEL_FULL, 2)
    assert await numbers(backend, channel, 1) == [0]
    await until(backend, Stat.ISOLATING, 0)

    async def look():
        while told[-1:] != [(Isolation.ENDED, None, 2)]:
            await asyncio.sleep(0.005)

    await soon(look())
    assert told[0] == (Isolation.BEGAN, None, 1)


# --- what expires ---------------------------------------------------------------------------


async def test_a_membership_expires_only_while_nobody_receives_from_its_channel(new):
    backend, group = new(group_expiry=0.3), unique("group")
    used = await backend.new_channel()
    # It receives before it joins: a slow broker's answer to the join may outlast `group_expiry`.
    receiving = asyncio.ensure_future(backend.receive(used))
    await asyncio.sleep(0)  # the task runs up to where it waits for a message
    await backend.group_add(group, used)
    for expired in range(1, 4):
        await members(backend, group, 1)
        await until(backend, Stat.MEMBERSHIPS_EXPIRED, expired)
    assert backend.layer.stat(Stat.MEMBERSHIPS) == 1
    await backend.group_send(group, {"n": 1})
    assert await soon(receiving) == {"n": 1}
    await until(backend, Stat.MEMBERSHIPS, 0)


@pytest.mark.parametrize("config", [{}, {"group_expiry": None}, {"group_expiry": "never"}])
async def test_without_group_expiry_no_membership_expires(new, config, monkeypatch):
    given = {}

    class Recording(channel_layer.Layer):
        def __init__(self, **options):
            given.update(options)
            super().__init__(**options)

    monkeypatch.setattr(channel_layer.django, "Layer", Recording)
    # The library's own default would not expire within a test either.
    backend, short, group = new(**config), new(group_expiry=0.1), unique("group")
    await members(backend, group, 1)
    assert given["group_expiry"] == "never"
    for expired in range(1, 4):
        await members(short, group, 1)
        await until(short, Stat.MEMBERSHIPS_EXPIRED, expired)
    assert given["group_expiry"] == 0.1
    assert backend.layer.stat(Stat.MEMBERSHIPS_EXPIRED) == 0
    assert backend.layer.stat(Stat.MEMBERSHIPS) == 1


@pytest.mark.parametrize(
    "expires, stays",
    [
        ({"expiry": 1}, {"expiry": 60}),
        ({"expiry": 60, "local_expiry": 0.6}, {"expiry": 1, "local_expiry": 60}),
    ],
    ids=["expiry", "local_expiry"],
)
async def test_what_waits_in_memory_expires_after_local_expiry_or_else_expiry(new, expires, stays):
    short, long = new(**expires), new(**stays)
    channel, kept = await short.new_channel(), await long.new_channel()
    await long.send(kept, {"n": 1})
    await until(long, Stat.BACKLOG, 1)
    for expired in range(1, 3):  # two: the other message then has waited for longer than 1 s
        await short.send(channel, {"n": 2})
        await until(short, Stat.DROPPED_EXPIRED, expired)
    assert long.layer.stat(Stat.DROPPED_EXPIRED) == 0
    assert await numbers(long, kept, 1) == [1]
