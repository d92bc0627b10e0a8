"""A web chat in uvicorn and in daphne, with WebSockets over TCP: 60 clients leave a room at once,
with an announcement each, while the consumer of one more hangs, or of none. The channels that
nobody reads any more must not keep messages from a visitor who comes afterwards.

With WEB_CHAT_BACKEND=channels_rabbitmq.core.RabbitmqChannelLayer in the environment it runs on
channels_rabbitmq, which passes where no consumer hangs, and stalls beside one that does.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from conftest import WAIT, soon, unique

OURS = "channel_layer.django.RabbitmqChannelLayer"
BACKEND = os.environ.get("WEB_CHAT_BACKEND", OURS)
LEAVING = 60
BROADCASTS = 200
HEARING = 5  # seconds for one broadcast: `stall_after`, which is 1, and time for a busy machine

# uvicorn ends by the signal that it was sent, once it has shut down.
ENDED = (0, -signal.SIGTERM)
COMMANDS = {
    "uvicorn": [
        "uvicorn",
        "--ws=websockets-sansio",
        "--lifespan=off",
        "--log-level=warning",
        "--timeout-graceful-shutdown=1",  # for the consumer that hangs
        "--fd",
    ],
    "daphne": ["daphne", "--verbosity=0", "--fd"],
}


class Server:
    """A server process with the site of `web_chat_site`, on a socket that is listening already:
    clients that connect wait until it accepts them."""

    def __init__(self, command, host, log):
        self._log = log
        with socket.create_server(("127.0.0.1", 0), backlog=LEAVING * 2) as listening:
            self.address = "ws://{}:{}".format(*listening.getsockname())
            number = listening.fileno()
            with log.open("wb") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", *command, str(number), "web_chat_site:application"],
                    cwd=Path(__file__).resolve().parent,
                    env={**os.environ, "WEB_CHAT_BACKEND": BACKEND, "WEB_CHAT_HOST": host},
                    pass_fds=[number],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )

    def log(self):
        return self._log.read_text("utf-8", errors="replace")

    def close(self):
        """Ends it; the status, None if it had to be killed."""
        self._process.terminate()
        try:
            return self._process.wait(WAIT)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()


class Clients:
    """Opens WebSockets; they are closed in the end."""

    def __init__(self, address):
        self._address = address
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._stack.aclose()

    async def open(self, path):
        """A WebSocket that the consumer has accepted; what joins a room is in it then."""
        return await self._stack.enter_async_context(
            connect(
                f"{self._address}/{path}",
                compression=None,
                proxy=None,
                open_timeout=WAIT,
                close_timeout=1,
            )
        )


async def broadcasts_heard(address, leaving, hanging):
    """How many broadcasts in a row a visitor hears, of BROADCASTS, where each is sent once the one
    before was heard. Before the visitor comes, the room is joined by `hanging` clients whose
    consumers hang and by `leaving` clients that leave at once."""
    name = unique("room")
    async with Clients(address) as clients:
        events = await clients.open("events")
        for _ in range(hanging):
            await clients.open(f"hang/{name}")
        room = await asyncio.gather(*(clients.open(f"room/{name}") for _ in range(leaving)))
        await asyncio.gather(*(each.close() for each in room))
        seen = [await soon(events.recv()) for _ in range(leaving + hanging)]
        assert sorted(seen) == ["hangs"] * hanging + ["left"] * leaving

        visitor, speaker = await clients.open(f"room/{name}"), await clients.open(f"say/{name}")
        for n in range(BROADCASTS):
            await speaker.send(str(n))
            try:
                text = await asyncio.wait_for(next_broadcast(visitor), HEARING)
            except asyncio.TimeoutError:
                return n
            assert text == str(n)
        return BROADCASTS


async def next_broadcast(visitor):
    """An announcement that was sent before the visitor came may reach it all the same."""
    while True:
        text = await visitor.recv()
        if text != "left":
            return text


@pytest.fixture(params=sorted(COMMANDS))
def server(request, broker, host, tmp_path):
    if broker == "memory" and BACKEND != OURS:
        pytest.skip("memory:// is of this library")
    server = Server(COMMANDS[request.param], host, tmp_path / "server.log")
    try:
        yield server
    finally:
        status = server.close()
        print(server.log())  # which pytest shows where the test failed
    assert status in ENDED


@pytest.mark.slow
@pytest.mark.parametrize("hanging", [0, 1])
async def test_visitor_hears_all_after_a_mass_departure(server, hanging):
    assert await broadcasts_heard(server.address, LEAVING, hanging) == BROADCASTS
