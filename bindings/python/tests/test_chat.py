"""The example program: a chat between processes."""

import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from conftest import WAIT, unique

CHAT = Path(__file__).resolve().parents[1] / "examples" / "chat.py"


class Talker:
    """A process of the chat."""

    def __init__(self, host, room, name):
        self._process = subprocess.Popen(
            [sys.executable, str(CHAT), host, room, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def say(self, text):
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()

    def hears(self):
        """The next line; None at the end."""
        return self._lines.get(timeout=WAIT)

    def leave(self):
        """Ends the input; the status, and what is on the standard error."""
        self._process.stdin.close()
        status = self._process.wait(WAIT)
        return status, self._process.stderr.read()

    def close(self):
        self._process.kill()
        self._process.wait()
        self._reader.join(WAIT)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            stream.close()


@pytest.fixture
def talker(amqp):
    talkers = []

    def one(room, name):
        talkers.append(Talker(amqp, room, name))
        return talkers[-1]

    yield one
    for each in talkers:
        each.close()


def test_who_is_in_a_room_hears_all_that_is_said_there_and_nothing_else(talker):
    room, other_room = unique("room"), unique("room")
    ann, eve = talker(room, "ann"), talker(other_room, "eve")
    for each, name in ((ann, "ann"), (eve, "eve")):  # whoever hears itself is in
        each.say(f"I am {name}")
        assert each.hears() == f"{name}: I am {name}"
    bob = talker(room, "bob")
    bob.say("Grüße ☃")
    assert ann.hears() == bob.hears() == "bob: Grüße ☃"
    ann.say("hello")
    assert ann.hears() == bob.hears() == "ann: hello"

    assert ann.leave() == (0, "") and ann.hears() is None
    bob.say("is anybody there?")
    assert bob.hears() == "bob: is anybody there?"
    assert bob.leave() == (0, "") and bob.hears() is None
    assert eve.leave() == (0, "") and eve.hears() is None


def test_without_arguments_it_says_how_it_is_called():
    done = subprocess.run(
        [sys.executable, str(CHAT)], timeout=WAIT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "chat.py HOST ROOM NAME" in done.stderr


def test_a_host_that_is_none_is_named():
    done = subprocess.run(
        [sys.executable, str(CHAT), "nothing://", "room", "ann"],
        stdin=subprocess.DEVNULL,
        timeout=WAIT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1 and "InvalidError" in done.stderr and "host" in done.stderr
