"""The backend for Django Channels in processes that were forked after it was made."""

import asyncio
import gc
import json
import multiprocessing
import os
import queue
import re
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
from pathlib import Path

import pytest
from channels.exceptions import StopConsumer

from channel_layer.django import RabbitmqChannelLayer
from conftest import WAIT, in_thread, soon, unique

FORK = multiprocessing.get_context("fork")


async def use(layer, group):
    """All that a process does with a layer; the name of its queue."""
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    await layer.send(channel, {"from": os.getpid()})
    assert await soon(layer.receive(channel)) == {"from": os.getpid()}
    await layer.group_send(group, {"to": "all"})
    assert await soon(layer.receive(channel)) == {"to": "all"}
    await layer.group_discard(group, channel)
    return channel.split("!")[0]


def in_child(function, *arguments):
    """What a function returns in a forked process, or the exception's text."""
    receiving, sending = FORK.Pipe(duplex=False)

    def run():
        try:
            sending.send(function(*arguments))
        except BaseException as error:
            sending.send(repr(error))
            raise

    child = FORK.Process(target=run)
    child.start()
    try:
        assert receiving.poll(WAIT), "the child hangs"
        answer = receiving.recv()
        child.join(WAIT)
        assert child.exitcode == 0, answer
        return answer
    finally:
        child.kill()
        child.join()


@pytest.fixture
async def layer(host):
    layer = RabbitmqChannelLayer(host=host)
    yield layer
    await layer.close()


async def test_a_layer_that_the_parent_did_not_use_works_in_each_child_and_the_parent(layer):
    queues = [in_child(lambda: asyncio.run(use(layer, unique("group")))) for _ in range(2)]
    queues.append(await use(layer, unique("group")))
    assert len(set(queues)) == 3
    assert all(re.fullmatch("channels_[A-Za-z]{12}", name) for name in queues)


async def test_a_layer_that_the_parent_uses_meanwhile_works_in_the_child(layer):
    mine = await layer.new_channel()
    receiving = asyncio.ensure_future(layer.receive(mine))
    await asyncio.sleep(0)
    stop, errors = threading.Event(), []

    def send():
        async def forever():
            other = await layer.new_channel()
            while not stop.is_set():
                await layer.send(other, {})
                await layer.receive(other)

        try:
            asyncio.run(forever())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        for _ in range(10):
            theirs = in_child(lambda: asyncio.run(use(layer, unique("group"))))
            assert theirs != mine.split("!")[0]
    finally:
        stop.set()
        await in_thread(thread.join, WAIT)
    assert not errors
    await layer.send(mine, {"n": 1})
    assert await soon(receiving) == {"n": 1}


async def test_a_lock_that_was_held_at_the_fork_does_not_hang_the_child(layer):
    await layer.new_channel()
    with layer._own().lock:
        assert in_child(lambda: asyncio.run(use(layer, unique("group"))))


async def test_a_channel_of_the_parent_stays_the_parents(layer):
    mine = await layer.new_channel()
    await layer.layer.wait_ready(WAIT)  # else there is no queue yet that the child could send to

    def child():
        with pytest.raises(ValueError, match="belongs to"):
            asyncio.run(layer.receive(mine))
        asyncio.run(layer.send(mine, {"from": "the child"}))

    in_child(child)
    if not layer.host.startswith("memory:"):  # which reaches no other process
        assert await soon(layer.receive(mine)) == {"from": "the child"}


async def test_a_close_in_one_process_is_none_in_the_other(layer):
    mine = await layer.new_channel()

    async def close():
        await layer.close()
        with pytest.raises(StopConsumer):
            await layer.new_channel()

    in_child(lambda: asyncio.run(close()))
    await layer.send(mine, {"n": 1})
    assert await soon(layer.receive(mine)) == {"n": 1}
    await layer.close()

    async def closed():
        with pytest.raises(StopConsumer):
            await layer.new_channel()

    in_child(lambda: asyncio.run(closed()))


async def test_a_child_with_the_number_of_an_ancestor_opens_a_layer_of_its_own(layer, monkeypatch):
    """As in a container, where a number comes again soon once its process has ended."""
    mine = (await layer.new_channel()).split("!")[0]
    number = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: number)
    assert in_child(lambda: asyncio.run(use(layer, unique("group")))) != mine

    def grandchild():
        asyncio.run(use(layer, unique("group")))
        return in_child(lambda: asyncio.run(use(layer, unique("group"))))

    assert in_child(grandchild) != mine
    assert (await use(layer, unique("group"))) == mine


FORK_IN_C = """
import asyncio, ctypes, os, sys

import test_django_fork
from channel_layer.django import RabbitmqChannelLayer

layer = RabbitmqChannelLayer(host="memory://fork-in-c")
mine = asyncio.run(layer.new_channel()).split("!")[0]
if ctypes.PyDLL(None).fork() == 0:
    status = 1
    try:
        theirs = asyncio.run(test_django_fork.use(layer, "group"))
        status = 0 if theirs != mine else 2
    finally:
        os._exit(status)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_a_fork_that_the_interpreter_does_not_see_is_seen():
    """As of a server in C that has Python within it, and does not tell it."""
    done = subprocess.run(
        [sys.executable, "-c", FORK_IN_C],
        cwd=Path(__file__).resolve().parent,
        timeout=WAIT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def test_a_child_gives_up_the_layer_of_its_parent_at_once(layer):
    parents = weakref.ref(layer.layer)

    def alive():
        gc.collect()
        return parents() is not None

    assert in_child(alive) is False
    assert alive()


# --- gunicorn -------------------------------------------------------------------------------


class Gunicorn:
    """gunicorn with two workers, which loads the site before it forks them."""

    def __init__(self, site):
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--preload", "--workers=2", "--bind=127.0.0.1:0",
             "--graceful-timeout=5", site],
            cwd=Path(__file__).resolve().parent,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self.log = []
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stderr:
            self.log.append(line)
            self._lines.put(line)
        self._lines.put("")

    def address(self):
        while True:
            line = self._lines.get(timeout=WAIT)
            assert line, "".join(self.log)
            found = re.search(r"Listening at: (http://\S+)", line)
            if found:
                return found[1]

    def close(self):
        self._process.terminate()
        try:
            return self._process.wait(WAIT)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join(WAIT)
            self._process.stderr.close()


@pytest.mark.parametrize("site", ["prefork_site:application", "prefork_site:used()"])
def test_a_site_that_gunicorn_loads_before_it_forks_works_in_its_workers(site):
    server = Gunicorn(site)
    try:
        address, answers = server.address(), {}
        deadline = time.monotonic() + WAIT
        while len(answers) < 2:
            assert time.monotonic() < deadline, "".join(server.log)
            with urllib.request.urlopen(address, timeout=WAIT) as response:
                answer = json.load(response)
            answers[answer["pid"]] = answer
        queues = {answer["channel"].split("!")[0] for answer in answers.values()}
        for answer in answers.values():
            assert answer["loaded_by"] == server.pid != answer["pid"]
            assert answer["got"] == {"pid": answer["pid"]}
            if "used" in site:
                assert answer["parent"]["got"] == {"pid": server.pid}
                queues.add(answer["parent"]["channel"].split("!")[0])
        assert len(queues) == (3 if "used" in site else 2)
    finally:
        status = server.close()
    assert status == 0, "".join(server.log)
