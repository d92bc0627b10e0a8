"""As much of an AMQP 0-9-1 client as the control client and an admin need, each wait with an end.

Of its own, so that what it can do says nothing about a library: it shares no code with any.
"""

import socket
import struct
import time

from proxy import BODY, LOOPBACK, METHOD, Frames

HEADER_FRAME = 2
START, START_OK, TUNE, TUNE_OK = (10, 10), (10, 11), (10, 30), (10, 31)
OPEN, OPEN_OK, CLOSE = (10, 40), (10, 41), (10, 50)
CHANNEL_OPEN, CHANNEL_OPEN_OK, CHANNEL_CLOSE = (20, 10), (20, 11), (20, 40)
EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK = (40, 10), (40, 11)
EXCHANGE_DELETE, EXCHANGE_DELETE_OK = (40, 20), (40, 21)
QUEUE_DECLARE, QUEUE_DECLARE_OK, QUEUE_BIND, QUEUE_BIND_OK = (50, 10), (50, 11), (50, 20), (50, 21)
CONSUME, CONSUME_OK, PUBLISH, RETURN, DELIVER = (60, 20), (60, 21), (60, 40), (60, 50), (60, 60)
ACK, NACK = (60, 80), (60, 120)
CONFIRM_SELECT, CONFIRM_SELECT_OK = (85, 10), (85, 11)

DURABLE, EXCLUSIVE = 2, 4  # of queue.declare; the first of exchange.declare too


class AmqpError(Exception):
    """The broker refused, or did not answer in time."""


def short_string(text):
    data = text.encode()
    return bytes([len(data)]) + data


def long_string(data):
    return struct.pack(">I", len(data)) + data


def table(numbers):
    """A table of 32-bit numbers by name."""
    return long_string(b"".join(short_string(name) + b"I" + struct.pack(">i", number)
                                for name, number in numbers.items()))


NO_TABLE = table({})


class Connection:
    """A connection with AMQP channels in confirm mode, one at first; nothing on it lasts beyond
    `deadline`."""

    def __init__(self, port, vhost, user, password, deadline, connect_seconds):
        self.heard = False  # whether it has heard itself
        self._deadline = deadline
        self._frames = Frames(skip=0)
        self._waiting = []  # frames that have arrived
        self._published = {}  # by AMQP channel
        self._body = None  # of what is being delivered or returned: (method, payload)
        # (name, value): acked and nacked with (AMQP channel, tag, multiple), delivered and returned
        # with a body.
        self.events = []
        limit = min(connect_seconds, self._left())
        self._socket = socket.create_connection((LOOPBACK, port), timeout=limit)
        # A message is three frames; they would wait 40 ms for each other.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._log_in(vhost, user, password)
        except BaseException:
            self.close()
            raise

    def _log_in(self, vhost, user, password):
        self._socket.sendall(b"AMQP\0\0\x09\x01")
        self._wait(START)
        self._send(0, START_OK, NO_TABLE, short_string("PLAIN"),
                   long_string(b"\0" + user.encode() + b"\0" + password.encode()),
                   short_string("en_US"))
        channels, frame, _ = struct.unpack(">HIH", self._wait(TUNE))
        self._send(0, TUNE_OK, struct.pack(">HIH", channels, frame, 0))
        self._call(0, OPEN, OPEN_OK, short_string(vhost), b"\0\0")
        self.open_channel()

    def open_channel(self):
        """The number of a further AMQP channel."""
        number = len(self._published) + 1
        self._published[number] = 0
        self._call(number, CHANNEL_OPEN, CHANNEL_OPEN_OK, b"\0")
        self._call(number, CONFIRM_SELECT, CONFIRM_SELECT_OK, b"\0")
        return number

    def declare_exchange(self, name, kind="direct"):
        self._call(1, EXCHANGE_DECLARE, EXCHANGE_DECLARE_OK, b"\0\0", short_string(name),
                   short_string(kind), b"\0", NO_TABLE)

    def delete_exchange(self, name):
        self._call(1, EXCHANGE_DELETE, EXCHANGE_DELETE_OK, b"\0\0", short_string(name), b"\0")

    def declare_queue(self, name, flags=EXCLUSIVE, **arguments):
        arguments = {name.replace("_", "-"): number for name, number in arguments.items()}
        self._call(1, QUEUE_DECLARE, QUEUE_DECLARE_OK, b"\0\0", short_string(name),
                   bytes([flags]), table(arguments))

    def bind(self, queue, exchange, key):
        self._call(1, QUEUE_BIND, QUEUE_BIND_OK, b"\0\0", short_string(queue),
                   short_string(exchange), short_string(key), b"\0", NO_TABLE)

    def consume(self, queue):
        self._call(1, CONSUME, CONSUME_OK, b"\0\0", short_string(queue), short_string("c"), b"\x02",
                   NO_TABLE)

    def publish(self, exchange, key, body, channel=1):
        """Publishes a small message as mandatory, and returns its tag."""
        self._send(channel, PUBLISH, b"\0\0", short_string(exchange), short_string(key), b"\x01")
        self._send_frame(HEADER_FRAME, channel, struct.pack(">HHQH", 60, 0, len(body), 0))
        self._send_frame(BODY, channel, body)
        self._published[channel] += 1
        return self._published[channel]

    def wait_event(self, until):
        """The next event, or None where `until` comes first."""
        while not self.events:
            if not self._read_frame(until):
                return None
        return self.events.pop(0)

    def set_deadline(self, deadline):
        self._deadline = deadline

    def close(self):
        self._socket.close()

    def _left(self, until=None):
        left = min(self._deadline, until or self._deadline) - time.monotonic()
        if left <= 0:
            raise AmqpError("no answer in time")
        return left

    def _call(self, channel, method, answer, *arguments):
        self._send(channel, method, *arguments)
        return self._wait(answer)

    def _send(self, channel, method, *arguments):
        self._send_frame(METHOD, channel, struct.pack(">HH", *method) + b"".join(arguments))

    def _send_frame(self, kind, channel, payload):
        self._socket.settimeout(self._left())
        self._socket.sendall(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    def _wait(self, method):
        """The arguments of the next `method`; what comes before it is an event."""
        while True:
            arrived = self._read_frame(self._deadline)
            if not arrived:
                raise AmqpError(f"no answer in time, waiting for {method}")
            if arrived[0] == method:
                return arrived[1]

    def _read_frame(self, until):
        """Takes one frame, and tells (method, arguments), or (None, None) for what is none; False
        where `until` comes first."""
        while not self._waiting:
            try:
                self._socket.settimeout(self._left(until))
                data = self._socket.recv(65536)
            except (TimeoutError, AmqpError):
                return False
            if not data:
                raise AmqpError("the connection was closed")
            self._waiting.extend(self._frames.feed(data))
        kind, channel, payload = self._waiting.pop(0)
        if kind == BODY and self._body is not None:
            self.events.append((self._body, payload))
            self._body = None
        if kind != METHOD:
            return None, None
        method, arguments = struct.unpack_from(">HH", payload), payload[4:]
        if method in (CLOSE, CHANNEL_CLOSE):
            code, length = struct.unpack_from(">HB", arguments)
            raise AmqpError(f"{code} {arguments[3:3 + length].decode(errors='replace')}")
        if method in (ACK, NACK):
            tag, flags = struct.unpack_from(">QB", arguments)
            self.events.append(("acked" if method == ACK else "nacked",
                                (channel, tag, bool(flags & 1))))
        elif method in (DELIVER, RETURN):
            self._body = "delivered" if method == DELIVER else "returned"
        return method, arguments
