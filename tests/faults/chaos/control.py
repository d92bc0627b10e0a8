"""The control client: connects afresh each second, and shows what the broker can do just now.

It declares a queue, binds it to the groups exchange and hears itself by both ways. Where it can,
the layers must be able to as well. Then it sends a ping to each channel that they have.
"""

import collections
import itertools
import threading
import time

from chaos import amqp
from chaos.oracle import CONTROL

GROUPS = "groups"
INTERVAL = 1.0
PROBE_SECONDS = 3.0  # for one probe, over all hosts
CONNECT_SECONDS = 0.5  # for one host to take the connection
LOGIN_SECONDS = 0.8  # for one host to let it in, before the next is tried
PING_SECONDS = 2.0  # for the answers to pings


def message(number, sender, recipient=None, name=""):
    """A message as programs/numbered.h writes it, with the key of the wire for its recipient."""
    fields = ((b"n", number), (b"s", sender), (b"q", number))
    body = b"".join(b"\xa1" + key + b"\xcf" + value.to_bytes(8, "big") for key, value in fields)
    count = 4 if recipient else 3
    if recipient:
        key, value = recipient.encode(), name.encode()
        body += bytes([0xa0 | len(key)]) + key + b"\xd9" + bytes([len(value)]) + value
    return bytes([0x80 | count]) + body


class Control:
    """`ports` are those of the hosts; `tell` gives the oracle, under its lock (`with tell() as …`).

    `channels()` gives the channels that are open: {name: (layer, channel)}; `record` takes what
    goes wrong, for whoever looks at a violation.
    """

    def __init__(self, ports, tell, channels, group, record, vhost="asgi", user="guest",
                 password="guest"):
        self._ports = ports
        self._tell = tell
        self._channels = channels
        self._group = group
        self._record = record
        self._login = (vhost, user, password)
        self._numbers = itertools.count(3)  # what it says to itself has 1 and 2
        self._turns = itertools.count()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.problem = None  # what ended the client itself

    def start(self):
        self._thread.start()

    def stop(self):
        self._stop.set()
        self._thread.join(PROBE_SECONDS + PING_SECONDS + 1)

    def _run(self):
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                self._probe(next(self._turns))
                self._stop.wait(max(0.0, began + INTERVAL - time.monotonic()))
        except Exception as error:  # shown by the row: without a control client nothing is judged
            self.problem = error

    def _probe(self, turn):
        began = time.monotonic()
        with self._tell() as oracle:
            probe = oracle.probe_began(began)
        connection = None
        try:
            connection = self._connect(turn, began + PROBE_SECONDS)
            self._hear_itself(connection, turn, began + PROBE_SECONDS)
        except (OSError, amqp.AmqpError) as error:
            self._record(f"the control client does not hear: {error}")
        with self._tell() as oracle:
            oracle.probe_ended(probe, time.monotonic(), connection is not None and connection.heard)
        if connection is None:
            return
        try:
            if connection.heard:
                self._ping(connection)
        except (OSError, amqp.AmqpError) as error:
            # Pings that were cut off are not judged; the next probe shows whether it lasts.
            self._record(f"the control client was cut off: {error}")
        finally:
            connection.close()

    def _connect(self, turn, deadline):
        """A connection to the first host that takes one; each probe begins with another."""
        error = amqp.AmqpError("there are no hosts")
        for offset in range(len(self._ports)):
            port = self._ports[(turn + offset) % len(self._ports)]
            try:
                return amqp.Connection(port, *self._login, min(
                    deadline, time.monotonic() + LOGIN_SECONDS), CONNECT_SECONDS)
            except (OSError, amqp.AmqpError) as each:
                error = each
        raise error

    def _hear_itself(self, connection, turn, deadline):
        connection.set_deadline(deadline)
        queue = f"chaos-control-{turn}"
        connection.declare_exchange(GROUPS)
        connection.declare_queue(queue)
        connection.bind(queue, GROUPS, queue)
        connection.consume(queue)
        bodies = {message(1, CONTROL), message(2, CONTROL)}
        for exchange, body in zip((GROUPS, ""), sorted(bodies)):
            connection.publish(exchange, queue, body)
        while bodies:
            event = connection.wait_event(deadline)
            if event is None:
                raise amqp.AmqpError("it does not hear itself")
            if event[0] == "delivered":
                bodies.discard(event[1])
        connection.heard = True

    def _ping(self, connection):
        connection.set_deadline(time.monotonic() + PING_SECONDS + 1)
        # One that is for a queue on a node that hangs keeps what is behind it on its AMQP channel.
        lanes = collections.defaultdict(connection.open_channel)
        numbers = {}  # (AMQP channel, tag) -> number
        returned = set()
        pings = [("d", name, *place) for name, place in self._channels().items()]
        for kind, name, layer, channel in (*pings, ("g", self._group, None, None)):
            number = next(self._numbers)
            if kind == "d":
                body = message(number, CONTROL, "__asgi_channel__", name)
                way = ("", name.partition("!")[0])
            else:
                body = message(number, CONTROL, "__asgi_group__", name)
                way = (GROUPS, name)
            lane = lanes[way]
            with self._tell() as oracle:
                oracle.ping_sent(number, time.monotonic(), kind, layer, channel)
            numbers[lane, connection.publish(*way, body, lane)] = number
        until = time.monotonic() + PING_SECONDS
        while numbers:
            event = connection.wait_event(until)
            if event is None:
                break
            name, value = event
            if name == "returned":
                returned.add(int.from_bytes(value[4:12], "big"))
            elif name in ("acked", "nacked"):
                lane, tag, multiple = value
                for each in [(at, t) for at, t in numbers
                             if at == lane and (t == tag or (multiple and t < tag))]:
                    number = numbers.pop(each)
                    answer = "returned" if number in returned else name
                    with self._tell() as oracle:
                        oracle.ping_answered(number, time.monotonic(), answer)
        for number in numbers.values():
            with self._tell() as oracle:
                oracle.ping_answered(number, time.monotonic(), "unanswered")
