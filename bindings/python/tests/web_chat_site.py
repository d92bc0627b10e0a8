"""A web chat on Django Channels, for an ASGI server with one process: `web_chat_site:application`.

| WebSocket | what its consumer does |
|---|---|
| `/room/NAME` | joins the room, sends what is broadcast there, announces when it leaves |
| `/hang/NAME` | joins the room, and hangs in the first message that it is given |
| `/say/NAME` | broadcasts each text that it receives, without joining |
| `/events` | sends `left` after each departure from a room, `hangs` when a consumer hangs |

The process ends when its standard input does, so that it does not outlive a test that was killed.
"""

import asyncio
import contextlib
import os
import sys
import threading

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

settings.configure(
    CHANNEL_LAYERS={
        "default": {
            "BACKEND": os.environ["WEB_CHAT_BACKEND"],
            "CONFIG": {"host": os.environ["WEB_CHAT_HOST"]},
        }
    }
)
django.setup()


class Events(AsyncWebsocketConsumer):
    """Tells a test what happened in this process, without a message over the layer under test."""

    watchers = set()

    async def connect(self):
        await self.accept()
        self.watchers.add(self)

    async def disconnect(self, code):
        self.watchers.discard(self)

    @classmethod
    async def emit(cls, event):
        for watcher in list(cls.watchers):
            await watcher.send(text_data=event)


class Room(AsyncWebsocketConsumer):
    """As in Channels' tutorial, with an announcement on departure."""

    async def connect(self):
        self.room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_add(self.room, self.channel_name)
        await self.accept()

    async def disconnect(self, code):
        await self.channel_layer.group_send(self.room, {"type": "note", "text": "left"})
        await self.channel_layer.group_discard(self.room, self.channel_name)
        await Events.emit("left")

    async def note(self, message):
        # uvicorn raises it, as ASGI says, where the client has left; daphne does not. It would end
        # this consumer without a call of disconnect(), so without the announcement.
        with contextlib.suppress(OSError):
            await self.send(text_data=message["text"])


class Hang(Room):
    async def note(self, message):
        await Events.emit("hangs")
        await asyncio.Event().wait()


class Say(AsyncWebsocketConsumer):
    async def receive(self, text_data=None, bytes_data=None):
        room = self.scope["url_route"]["kwargs"]["room"]
        await self.channel_layer.group_send(room, {"type": "note", "text": text_data})


def end_with_standard_input():
    sys.stdin.read()
    os._exit(1)


threading.Thread(target=end_with_standard_input, daemon=True).start()

application = ProtocolTypeRouter(
    {
        "websocket": URLRouter(
            [
                path("room/<room>", Room.as_asgi()),
                path("hang/<room>", Hang.as_asgi()),
                path("say/<room>", Say.as_asgi()),
                path("events", Events.as_asgi()),
            ]
        )
    }
)
