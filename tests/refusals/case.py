"""A RabbitMQ node, and processes with a layer on it.

A process with a layer is tests/interop/peer.c, driven line by line; many sends at once are storm.c.
"""

import atexit
import functools
import json
import os
import subprocess
import time
import unittest

import rabbitmq

from admin import Admin

PEER = os.environ["CHANNEL_LAYER_TEST_PEER"]
STORM = os.environ["CHANNEL_LAYER_TEST_STORM"]
WAIT = 30  # seconds for what is sure to come
LONG_ENOUGH = 15  # seconds for what takes 5 by design
LIMIT = 65536
LONG = "long" * 2500  # no broker takes a frame of that size before the login, by default
VHOSTS = ("/", "asgi", "durable", "queues", "users")
# Set for each test that is about rights, and what README lists.
LEAST = {"configure": "^channels_.*$", "write": r"^(channels_.*|groups|amq\.default)$",
         "read": "^(channels_.*|groups)$"}


class Peer:
    """A C process with a layer of its own."""

    def __init__(self, options, ready_ms=WAIT * 1000):
        words = [f"{name}={value}" for name, value in options.items()]
        self._process = subprocess.Popen([PEER, f"ready-ms={ready_ms}", *words], text=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._log = []
        self.opened = self._answer()

    def _answer(self):
        line = self._process.stdout.readline()
        if not line:
            raise AssertionError(f"the peer ended with status {self._process.wait()}")
        return json.loads(line)

    def ask(self, *words):
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def send_signal(self, number):
        self._process.send_signal(number)

    def log(self):
        """All records so far, each with its id."""
        self._log.extend(self.ask("log")["log"])
        return "\n".join(self._log)

    def records(self):
        """The ids of all records so far."""
        return [line.split(": ", 1)[0] for line in self.log().splitlines()]

    def close(self):
        if self._process.stdin.closed:
            return
        self._process.stdin.close()
        self._process.wait(WAIT)
        self._process.stdout.close()


def packed(size):
    """{"b": that many bytes} in hexadecimal digits."""
    return "81a162c6" + size.to_bytes(4, "big").hex() + "00" * size


def start_node(settings=()):
    users = [rabbitmq.User(name, password, VHOSTS, tags=tags)
             for name, password, tags in (("guest", "guest", ("administrator",)),
                                          ("user", "user", ()), ("long", LONG, ()))]
    node = rabbitmq.Node(vhosts=VHOSTS, users=users, settings=settings)
    try:
        return node.start()
    except BaseException:
        node.close()
        raise


@functools.cache
def common_node():
    """The node of all classes that need no settings of their own."""
    node = start_node()
    atexit.register(node.close)
    return node


class Case(unittest.TestCase):
    settings = ()

    @classmethod
    def setUpClass(cls):
        if cls.settings:
            cls.node = start_node(cls.settings)
            cls.addClassCleanup(cls.node.close)
        else:
            cls.node = common_node()
        cls.admin = Admin(cls.node)

    def set(self, name, value):
        """Gives the broker, until the test ends, a setting for connections that are made from now on."""
        self.addCleanup(self.admin.set_application, name, self.admin.set_application(name, value))

    def permit(self, configure, write, read):
        """Gives `user` rights, until the test ends."""
        self.addCleanup(self.admin.set_permissions, "user", ".*", ".*", ".*")
        self.admin.set_permissions("user", configure, write, read)

    def open(self, vhost="asgi", user="guest", ready_ms=WAIT * 1000, **options):
        peer = Peer({"host": self.node.url(vhost, user), **options}, ready_ms)
        self.addCleanup(peer.close)
        return peer

    def ready(self, **options):
        peer = self.open(**options)
        self.assert_status("LAYER_OK", peer.opened)
        return peer

    def assert_logs(self, peer, record):
        """There is a record with this id, now or soon."""
        self.assertTrue(rabbitmq.wait_until(lambda: record in peer.records(), WAIT), peer.log())

    def assert_status(self, status, answer, *words):
        self.assertEqual(answer["status"], status, answer)
        for word in words:
            self.assertIn(word, answer["error"])

    def assert_receives(self, peer, channel, number):
        answer = peer.ask("receive", channel, str(WAIT * 1000))
        self.assert_status("LAYER_OK", answer)
        self.assertEqual(answer["json"], {"n": number})

    def assert_refused(self, *words, **options):
        """The layer hears at once that it will not be taken, and why; its process ends then."""
        began = time.monotonic()
        self.assert_status("LAYER_REFUSED", self.open(**options).opened, *words)
        self.assertLess(time.monotonic() - began, WAIT / 2)

    def storm(self, *words, user="guest"):
        done = subprocess.run([STORM, self.node.url(user=user), *map(str, words)], timeout=4 * WAIT,
                              stdout=subprocess.PIPE, check=True)
        told = json.loads(done.stdout)
        self.assertTrue(told["is_over"], told)
        return told

    def channel_errors(self):
        """How many AMQP channels the broker has closed for an error so far."""
        def count(what):
            return self.node._log.read_text(encoding="utf-8").count(what)
        # It writes its log late: a line that is there has all before it there too.
        last = "'long' in virtual host 'asgi' to"  # RabbitMQ 4 writes "user" before it
        seen = count(last)
        self.admin.set_permissions("long", ".*", ".*", ".*")
        self.assertTrue(rabbitmq.wait_until(lambda: count(last) > seen, WAIT))
        return count("operation basic.publish caused")
