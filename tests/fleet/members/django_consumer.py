"""The member of the fleet that is a Django Channels consumer on channels_rabbitmq, as deployed."""

import asyncio
import sys

from django.conf import settings

HOST, GROUP, NAME = sys.argv[1:]
settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": "channels_rabbitmq.core.RabbitmqChannelLayer",
            "CONFIG": {"host": HOST},
        }
    }
)

from channels.consumer import AsyncConsumer  # noqa: E402  (it reads the settings)
from channels.layers import get_channel_layer  # noqa: E402
from fleet_message import fault_of, message_of  # noqa: E402


def say(text):
    print(text, flush=True)


class Member(AsyncConsumer):
    async def fleet_message(self, message):
        sender = message.get("from")
        fault = fault_of(message, sender)
        say(f"got {sender}" if fault is None else f"wrong {sender}: {fault}")

    async def fleet_join(self, _event):
        await self.channel_layer.group_add(GROUP, self.channel_name)
        say("joined")

    async def fleet_send(self, _event):
        try:
            await self.channel_layer.group_send(GROUP, message_of(NAME))
        except Exception as problem:
            say(f"failed {problem!r}")
        else:
            say("sent")

    async def fleet_leave(self, _event):
        await self.channel_layer.group_discard(GROUP, self.channel_name)


async def main():
    events = asyncio.Queue()

    async def discard_output(_message):
        pass

    # What an ASGI server does: one queue of events for one connection's consumer.
    consumer = asyncio.create_task(Member.as_asgi()({"type": "fleet"}, events.get, discard_output))
    await events.put({"type": "fleet.join"})
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        await events.put({"type": "fleet.send"})
    await events.put({"type": "fleet.leave"})
    while not events.empty():
        await asyncio.sleep(0.01)
    consumer.cancel()
    await asyncio.gather(consumer, return_exceptions=True)
    await get_channel_layer().close()


asyncio.run(main())
