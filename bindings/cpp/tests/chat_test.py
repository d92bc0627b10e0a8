#!/usr/bin/env python3
"""Two server processes of examples/chat.cpp on one broker, and clients that speak raw WebSocket.

    chat_test.py PROGRAM

Needs CHANNEL_LAYER_TEST_AMQP. Prints `ok NAME` or `not ok NAME`, and closes with the numbers.
"""

import base64
import hashlib
import json
import os
import secrets
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request

SECONDS = 20
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Server:
    """A process of the example."""

    def __init__(self, program):
        self.process = subprocess.Popen([program, os.environ["CHANNEL_LAYER_TEST_AMQP"], "0"],
                                        stdout=subprocess.PIPE, text=True)
        self.url = self.process.stdout.readline().strip()
        self.port = int(self.url.rsplit(":", 1)[1].strip("/"))

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS)

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


class Client:
    """A WebSocket, as RFC 6455 has it."""

    def __init__(self, server, target):
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS)
        self.file = self.socket.makefile("rb")
        key = base64.b64encode(secrets.token_bytes(16)).decode()
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        self.status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().strip()):
            name, value = line.decode().split(":", 1)
            headers[name.lower()] = value.strip()
        if self.status == 101:
            wanted = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
            assert headers["sec-websocket-accept"] == wanted

    def say(self, text):
        data, mask = text.encode(), secrets.token_bytes(4)
        assert len(data) < 126
        self.socket.sendall(bytes([0x81, 0x80 | len(data)]) + mask
                            + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)))

    def hear(self):
        opcode, length = self.file.read(2)
        if length == 126:
            (length,) = struct.unpack(">H", self.file.read(2))
        assert opcode == 0x81, f"a frame of kind {opcode:#x}"
        message = json.loads(self.file.read(length))
        return message["from"], message["text"]

    def hear_until(self, wanted):
        """Until this message; what came on the way is given too."""
        heard = []
        while wanted not in heard:
            heard.append(self.hear())
        return heard

    def close(self):
        self.file.close()
        self.socket.close()


def the_page_is_served(one, _):
    with urllib.request.urlopen(one.url, timeout=SECONDS) as answer:
        assert "text/html" in answer.headers["Content-Type"]
        assert b"new WebSocket" in answer.read()
    try:
        urllib.request.urlopen(one.url + "absent", timeout=SECONDS)
        raise AssertionError("another page was served")
    except urllib.error.HTTPError as problem:
        assert problem.code == 404
        problem.close()


def a_message_typed_at_one_process_arrives_at_the_other(one, other):
    room = "room" + secrets.token_hex(4)
    ada = Client(one, f"/{room}/ada")
    ada.hear_until(("ada", "has joined"))
    bob = Client(other, f"/{room}/bob")
    ada.hear_until(("bob", "has joined"))
    bob.hear_until(("bob", "has joined"))
    for number in range(50):
        ada.say(f"hello {number}, Grüße 😀")
        bob.say(f"and {number} to you")
        for client in (ada, bob):
            heard = {client.hear(), client.hear()}
            assert heard == {("ada", f"hello {number}, Grüße 😀"), ("bob", f"and {number} to you")}
    ada.close()
    bob.close()


def a_room_does_not_hear_another(one, other):
    first, second = ("room" + secrets.token_hex(4) for _ in range(2))
    ada, bob = Client(one, f"/{first}/ada"), Client(other, f"/{second}/bob")
    ada.hear_until(("ada", "has joined"))
    bob.hear_until(("bob", "has joined"))
    ada.say("for my room")
    bob.say("for mine")
    assert ada.hear() == ("ada", "for my room")
    assert bob.hear() == ("bob", "for mine")
    ada.close()
    bob.close()


def a_client_that_leaves_is_forgotten(one, other):
    room = "room" + secrets.token_hex(4)
    ada = Client(one, f"/{room}/ada")
    ada.hear_until(("ada", "has joined"))
    for number in range(20):
        passing = Client(other, f"/{room}/passing{number}")
        ada.hear_until((f"passing{number}", "has joined"))
        passing.close()
    ada.say("alone")
    ada.hear_until(("ada", "alone"))
    ada.close()


def a_name_that_is_not_allowed_is_refused(one, _):
    for target in ("/", "/room", "/room/", "/ro%20om/x", "/room/a!b", "/" + "x" * 41 + "/ada"):
        client = Client(one, target)
        assert client.status == 400, target
        client.close()


def a_server_ends_in_order_at_sigterm_with_clients(one, other):
    ada = Client(one, "/last/ada")
    ada.hear_until(("ada", "has joined"))
    assert one.end() == 0
    assert other.end() == 0
    ada.close()


TESTS = (
    the_page_is_served,
    a_message_typed_at_one_process_arrives_at_the_other,
    a_room_does_not_hear_another,
    a_client_that_leaves_is_forgotten,
    a_name_that_is_not_allowed_is_refused,
    a_server_ends_in_order_at_sigterm_with_clients,
)


def main():
    servers = [Server(sys.argv[1]) for _ in range(2)]
    passed = failed = 0
    try:
        for test in TESTS:
            try:
                test(*servers)
                passed += 1
                print(f"ok chat.{test.__name__}", flush=True)
            except Exception as problem:  # noqa: BLE001  a test that fails in any way has failed
                failed += 1
                print(f"not ok chat.{test.__name__}\n  {type(problem).__name__}: {problem}",
                      flush=True)
    finally:
        for server in servers:
            server.kill()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
