"""A private Redis: on loopback, without persistence, in a folder of its own, never left behind."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/fixture"))

import rabbitmq  # noqa: E402

READY_SECONDS = 10


class RedisError(Exception):
    """Redis could not be started; the message has its output."""


class Redis:
    def __init__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="channel-layer-redis-"))
        # What the fixture does for its nodes: should this process be killed, its guardian ends the
        # marked processes and removes the folder.
        rabbitmq.Guardian.tell("guard", self._folder)
        self._port = rabbitmq.Port()
        self._process = None

    @property
    def url(self):
        return f"redis://127.0.0.1:{self._port.number}/0"

    def start(self):
        log = self._folder / "log.txt"
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                ["redis-server", "--port", str(self._port.number), "--bind", "127.0.0.1",
                 "--save", "", "--appendonly", "no", "--dir", str(self._folder),
                 "--daemonize", "no"],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, rabbitmq.MARKER: str(self._folder)}, start_new_session=True)
        deadline = time.monotonic() + READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RedisError("redis-server did not become ready:\n"
                                 + log.read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def _answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self._port.number), timeout=1) as link:
                link.sendall(b"PING\r\n")
                return link.recv(16).startswith(b"+PONG")
        except OSError:
            return False

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        shutil.rmtree(self._folder)
        rabbitmq.Guardian.tell("release", self._folder)
        self._port.release()
