"""The member of the fleet in Python, on the package channel_layer; README.md says what it does."""

import asyncio
import sys

from fleet_message import fault_of, message_of

import channel_layer


def say(text):
    print(text, flush=True)


async def receive(layer, channel):
    async for message in layer.messages(channel):
        sender = message.get("from")
        fault = fault_of(message.data, sender)
        say(f"got {sender}" if fault is None else f"wrong {sender}: {fault}")


async def main(host, group, name):
    async with channel_layer.Layer(host=host) as layer:
        channel = layer.new_channel("fleet.")
        receiving = asyncio.create_task(receive(layer, channel))
        await layer.group_add(group, channel)
        say("joined")
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            try:
                await layer.group_send(group, message_of(name))
            except channel_layer.ChannelLayerError as problem:
                say(f"failed {problem}")
            else:
                say("sent")
        layer.group_discard(group, channel)
        receiving.cancel()
        await asyncio.gather(receiving, return_exceptions=True)


asyncio.run(main(*sys.argv[1:]))
