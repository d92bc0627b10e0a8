"""Programs of their own: the README's, an exit with an open layer; a broker's restart; a loop whose
executor is full."""

import asyncio
import itertools
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import channel_layer
from channel_layer import BusyError, DisconnectedError, TimedOutError, UnconfirmedError
from channel_layer._library import waiting
from conftest import WAIT, in_thread, soon

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


async def test_the_handler_of_the_readme_ends_as_it_says(open_layer, capsys):
    readme = (HERE.parent / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(def take.*?)```", readme, re.DOTALL)
    layer, scope = open_layer(), {"Flow": channel_layer.Flow}
    exec(f"async def example(layer, channel):\n{textwrap.indent(code, '    ')}", scope)
    channel = layer.new_channel()
    for text in ("hello", "bye", "later"):
        await layer.send(channel, {"text": text})
    await soon(scope["example"](layer, channel))
    assert capsys.readouterr().out == "hello\nbye\nended: None\n"
    assert (await soon(layer.receive(channel)))["text"] == "later"
    await layer.send(channel, {"no": "text"})
    with pytest.raises(KeyError, match="text"):
        await soon(scope["example"](layer, channel))


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


# --- without the executor of a loop ---------------------------------------------------------


class Full(ThreadPoolExecutor):
    """An executor that has no thread left."""

    def __init__(self):
        super().__init__(max_workers=1)
        self.release = threading.Event()
        self.submit(self.release.wait)

    def close(self):
        self.release.set()
        self.shutdown()


@pytest.fixture
async def full():
    """The running loop's executor is full for as long as the test runs."""
    executor = Full()
    asyncio.get_running_loop().set_default_executor(executor)
    yield
    executor.close()


async def test_json_is_sent_while_the_executor_is_full(full, open_layer):
    layer = open_layer()
    channel = layer.new_channel()
    await soon(layer.group_add("executor", channel))
    await soon(layer.send(channel, '{"n": 1}'))
    await soon(layer.group_send("executor", '{"n": 2}'))
    assert [await soon(layer.receive(channel)) for _ in range(2)] == [{"n": 1}, {"n": 2}]
    with pytest.raises(channel_layer.InvalidError):
        await layer.send(channel, "[1]")


async def test_a_layer_is_closed_while_the_executor_is_full(full, open_layer):
    layer = open_layer()
    await soon(layer.wait_ready())
    await soon(layer.close())
    assert layer.state() is channel_layer.State.CLOSED
    await soon(layer.close())  # again is fine


async def test_json_keeps_its_time_limit_while_the_executor_is_full(full, opened):
    layer = opened(host="amqp://127.0.0.1:1/", timeout=0.2)  # nobody listens there
    began = time.monotonic()
    with pytest.raises(channel_layer.DisconnectedError):
        await soon(layer.send("queue!channel", "{}"))
    assert 0.2 <= time.monotonic() - began < 5


async def test_a_close_keeps_its_time_limit_with_a_broker_that_does_not_answer(full, opened):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and says nothing
        layer = opened(host=f"amqp://127.0.0.1:{silent.getsockname()[1]}/", connect_timeout=60)
        began = time.monotonic()
        try:
            await soon(layer.close(0.5))
        except channel_layer.TimedOutError:
            pass
        assert time.monotonic() - began < 5
        assert layer.state() is channel_layer.State.CLOSED


async def test_every_one_that_closes_a_layer_at_once_is_told_when_it_is_closed(open_layer):
    layer = open_layer()
    await soon(layer.wait_ready())
    closes = [layer.close() for _ in range(5)]
    closes += [in_thread(lambda: asyncio.run(layer.close())) for _ in range(3)]
    closes += [in_thread(layer.blocking.close) for _ in range(2)]
    assert await soon(asyncio.gather(*closes)) == [None] * 10


async def test_a_loop_watches_until_the_last_that_closes_is_told(layer):
    await soon(layer.wait_ready())
    loop, loops = asyncio.get_running_loop(), layer._loops
    with loops.closing():
        with loops.closing():
            pass
        await asyncio.sleep(0.01)
        assert loop.remove_reader(layer._handle.fd)
        loop.add_reader(layer._handle.fd, loops.on_readable, loop)
    await asyncio.sleep(0.01)
    assert not loop.remove_reader(layer._handle.fd)


async def test_a_layer_is_closed_twice_in_a_row(layer):
    async def twice():
        await layer.wait_ready()
        for _ in range(2):
            await layer.close()

    await soon(asyncio.ensure_future(twice()))
    await asyncio.sleep(0.01)
    assert not asyncio.get_running_loop().remove_reader(layer._handle.fd)


async def test_a_loop_that_saw_the_end_of_a_layer_is_told_when_it_closes_it(layer):
    await soon(layer.wait_ready())
    loop = asyncio.get_running_loop()
    assert waiting.layer_close(layer._handle.pointer, WAIT * 1000, None) == 0
    layer._loops.on_readable(loop)  # as when its descriptor is readable
    assert not loop.remove_reader(layer._handle.fd)
    await soon(layer.close())


AT_EXIT = """
import asyncio, atexit, os
import channel_layer

layer = channel_layer.Layer(host=os.environ["CHANNEL_LAYER_TEST_AMQP"])
channel = layer.new_channel()

async def last():
    await layer.send(channel, '{"n": 1}')
    print((await layer.receive(channel, 20))["n"])
    await layer.close()
    print(layer.state().name)

atexit.register(lambda: asyncio.run(last()))
"""


def test_at_exit_json_is_sent_and_a_layer_is_closed():
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT],
        timeout=2 * WAIT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("1\nCLOSED\n", "", 0)
