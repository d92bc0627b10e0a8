"""Programs of their own: the README's, an exit with an open layer; and a broker's restart."""

import asyncio
import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import channel_layer
from channel_layer import BusyError, DisconnectedError, TimedOutError, UnconfirmedError
from conftest import WAIT, in_thread

HERE = Path(__file__).resolve().parent
EXIT = """
import asyncio, os, sys, threading
import channel_layer

layer = channel_layer.Layer(host=os.environ["CHANNEL_LAYER_TEST_AMQP"], remote_capacity=100000)
channel = layer.new_channel()

def send():
    while True:
        layer.blocking.send(channel, {"n": 1})

for _ in range(2):
    threading.Thread(target=send, daemon=True).start()

async def main():
    asyncio.ensure_future(layer.receive(layer.new_channel()))
    layer.handle(channel, lambda message: None)
    await asyncio.gather(*[layer.send(channel, {"n": 2}) for _ in range(50)])

asyncio.run(main())
sys.exit(7)
"""


@pytest.mark.slow
def test_exit_with_an_open_layer_under_load():
    for _ in range(int(os.environ.get("CHANNEL_LAYER_TEST_EXITS", "100"))):
        done = subprocess.run(
            [sys.executable, "-c", EXIT], timeout=WAIT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (7, "")


def test_the_example_of_the_readme_runs(tmp_path):
    readme = (HERE.parent / "README.md").read_text("utf-8")
    code, output = re.search(
        r"```python\n(.*?)```\n\nprints\n\n```\n(.*?)```", readme, re.DOTALL
    ).groups()
    program = tmp_path / "example.py"
    program.write_text(code, encoding="utf-8")
    for host in ("memory://readme", os.environ["CHANNEL_LAYER_TEST_AMQP"]):
        done = subprocess.run(
            [sys.executable, str(program), host],
            timeout=WAIT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == (output, "")


@pytest.mark.parametrize("how", ["restart", "kill9"])
async def test_messages_flow_again_after_the_broker_was_restarted_under_load(how, node, opened):
    layer = opened(host=node.url("asgi"), timeout=2, remote_capacity=100000)
    await layer.wait_ready(WAIT)
    channel, stop, confirmed = layer.new_channel(), False, 0
    numbers = itertools.count()

    async def send():
        nonlocal confirmed
        while not stop:
            try:
                await layer.send(channel, {"n": next(numbers)})
                confirmed += 1
            except (BusyError, DisconnectedError, TimedOutError, UnconfirmedError):
                pass
            except channel_layer.NoChannelError:
                await asyncio.sleep(0.01)  # our own queue is being made again

    got, came = Counter(), asyncio.Event()

    async def receive():
        async for message in layer.messages(channel):
            got[message["n"]] += 1
            came.set()

    tasks = [asyncio.ensure_future(send()) for _ in range(16)]
    receiver = asyncio.ensure_future(receive())
    await asyncio.wait_for(came.wait(), WAIT)
    if how == "kill9":
        await in_thread(node.kill9)
        await in_thread(node.start)
    else:
        await in_thread(node.restart)
    await layer.wait_ready(WAIT)
    before = confirmed
    came.clear()
    await asyncio.wait_for(came.wait(), WAIT)
    while confirmed == before:
        await asyncio.sleep(0.01)
    stop = True
    await asyncio.wait_for(asyncio.gather(*tasks), WAIT)
    await layer.close()
    await asyncio.wait_for(receiver, WAIT)
    assert [number for number, times in got.items() if times > 1] == []
