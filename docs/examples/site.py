"""The Django side of a group that is shared with a C program: site.py HOST

Runs a consumer as Channels does, without a web server around it. Prints "ready" once the group is
joined, and ends when the C program has joined and was answered.
"""

import asyncio
import sys

from channels.consumer import AsyncConsumer
from channels.layers import get_channel_layer
from channels.routing import ProtocolTypeRouter
from django.conf import settings

# [settings]
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_rabbitmq.core.RabbitmqChannelLayer",
        "CONFIG": {"host": sys.argv[1]},
    },
}
# [end]


# [consumer]
class ArenaConsumer(AsyncConsumer):
    async def arena_enter(self, event):
        await self.channel_layer.group_add("arena", self.channel_name)
        print("ready", flush=True)

    async def player_joined(self, event):  # {"type": "player.joined", ...} of the C program
        await self.channel_layer.send(event["reply_to"], {"type": "site.welcome"})
        await self.send({"type": "arena.done"})
# [end]


async def main():
    inbox, outcome = asyncio.Queue(), asyncio.get_running_loop().create_future()

    async def send(event):
        outcome.set_result(event)

    await inbox.put({"type": "arena.enter"})
    application = ProtocolTypeRouter({"arena": ArenaConsumer.as_asgi()})
    running = asyncio.ensure_future(application({"type": "arena"}, inbox.get, send))
    event = await asyncio.wait_for(outcome, 20)
    running.cancel()
    await asyncio.wait([running])
    await get_channel_layer().close()
    return 0 if event["type"] == "arena.done" else 1


if __name__ == "__main__":
    settings.configure(CHANNEL_LAYERS=CHANNEL_LAYERS)
    sys.exit(asyncio.run(main()))
