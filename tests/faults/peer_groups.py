"""Many groups of a layer of channels_rabbitmq, whose connection is then cut: what process_scale does
with ours, for the Python peer. Run by the environment of the interop tests:

    peer_groups.py URL CHANNELS GROUPS SECONDS

Prints the claims as the C programs do. It gives up SECONDS after the cut.
"""

import asyncio
import logging
import os
import socket
import sys
import time

from channels_rabbitmq.core import RabbitmqChannelLayer

AHEAD = 100


def tell(claim, figure):
    print(f"figure\t{claim}\t{figure}", flush=True)


def cut():
    """Shuts the connections of this process down."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            # A copy, so that the descriptor stays the loop's.
            with socket.socket(fileno=os.dup(int(name))) as connection:
                connection.getpeername()
                connection.shutdown(socket.SHUT_RDWR)
                count += 1
        except OSError:
            continue  # not a connection
    return count


async def in_turn(calls):
    """Awaits all, some at once."""
    room = asyncio.Semaphore(AHEAD)

    async def one(call):
        async with room:
            await call

    await asyncio.gather(*(one(call) for call in calls))


async def reaches_its_member(layer, members):
    """How many groups do not bring a message to their member."""
    wrong = 0

    async def one(group, channel):
        nonlocal wrong
        await layer.group_send(group, {"type": "test", "group": group})
        try:
            message = await asyncio.wait_for(layer.receive(channel), 20)
        except asyncio.TimeoutError:
            wrong += 1
        else:
            wrong += message["group"] not in members or members[message["group"]] != channel

    await in_turn(one(group, channel) for group, channel in members.items())
    return wrong


async def main(url, channels, groups, seconds):
    layer = RabbitmqChannelLayer(host=url, remote_capacity=1000000)
    names = [await layer.new_channel() for _ in range(channels)]
    members = {f"peer-{number}": names[number % channels] for number in range(groups)}
    began = time.monotonic()
    await in_turn(layer.group_add(group, channel) for group, channel in members.items())
    tell("the peer's groups", f"{groups} in {time.monotonic() - began:.2f} s")
    wrong = await reaches_its_member(layer, members)
    if wrong:
        print(f"fails\tthe peer works before the cut\t{wrong} groups do not", flush=True)
        return 1

    before = layer._carehare_connection
    began = time.monotonic()
    cut()
    while layer._carehare_connection is before:
        await asyncio.sleep(0.001)
    try:
        await asyncio.wait_for(asyncio.shield(layer.carehare_connection), seconds)
    except asyncio.TimeoutError:
        tell("the peer's cut to ready", f"not within {seconds:.0f} s")
    else:
        tell("the peer's cut to ready", f"{time.monotonic() - began:.2f} s")
        wrong = await reaches_its_member(layer, members)
        tell("the peer's groups that were not restored", wrong)
    print("holds\tthe peer was measured\tchannels_rabbitmq, the same number of groups", flush=True)
    sys.stdout.flush()
    # It waits for its connection for ever, where there is none.
    os._exit(0)


if __name__ == "__main__":
    # What it says of each failed attempt has a page of traceback.
    logging.getLogger("channels_rabbitmq").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.exit(asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]),
                              float(sys.argv[4]))))
