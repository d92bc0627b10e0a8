#!/usr/bin/env python3
"""A chat room for the terminals of any number of processes: chat.py HOST ROOM NAME

Each line of the standard input goes to all in the room, whatever language they are written in; the
end of the input leaves it.
"""

import asyncio
import sys

from channel_layer import ChannelLayerError, Layer


async def show(layer, channel):
    async for message in layer.messages(channel):
        print(f"{message.get('from')}: {message.get('text')}", flush=True)


async def main(host, room, name):
    loop = asyncio.get_running_loop()
    async with Layer(host=host) as layer:
        channel = layer.new_channel("chat.")
        await layer.group_add(room, channel)
        showing = asyncio.ensure_future(show(layer, channel))
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                await layer.group_send(
                    room, {"type": "chat.text", "from": name, "text": line.rstrip("\n")}
                )
            except ChannelLayerError as error:
                print(f"not to all: {error}", file=sys.stderr)
        showing.cancel()
        layer.channel_discard(channel)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    asyncio.run(main(*sys.argv[1:]))
