"""Others on a layer's broker, which tell what it costs them."""

import itertools
import threading
import time

from chaos import amqp

EXCHANGE = "groups"
PAUSE = 0.002  # between an answer and the next thing to do
PATIENCE = 600  # seconds for one answer; more would end the measurement


class Bystander:
    """Does one thing after the other, and waits for the broker's answer to each."""

    def __init__(self, port, queue, vhost="asgi", user="guest"):
        self._queue = queue
        self._connection = amqp.Connection(port, vhost, user, user, time.monotonic() + PATIENCE,
                                           PATIENCE)
        self._connection.declare_exchange(EXCHANGE)
        self._connection.declare_queue(queue)
        self._lock = threading.Lock()
        self._worst, self._count = 0.0, 0
        self._asked = None  # since when an answer is outstanding
        self._failure = None
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join()
        self._connection.close()

    def take(self):
        """The longest that an answer took since this was asked last, or has taken so far, and how many there
        were; None for the first where there will be none any more, and why for the second."""
        with self._lock:
            if self._failure is not None:
                return None, self._failure
            outstanding = 0.0 if self._asked is None else time.monotonic() - self._asked
            taken = max(self._worst, outstanding), self._count
            self._worst, self._count = 0.0, 0
        return taken

    def _run(self):
        try:
            for number in itertools.count():
                if self._ends.wait(PAUSE):
                    return
                began = time.monotonic()
                with self._lock:
                    self._asked = began
                self._connection.set_deadline(began + PATIENCE)
                self._act(number)
                took = time.monotonic() - began
                with self._lock:
                    self._asked = None
                    self._worst, self._count = max(self._worst, took), self._count + 1
        except (OSError, amqp.AmqpError) as error:
            with self._lock:
                self._failure = error


class Publisher(Bystander):
    """Publishes to its queue and to a group of it by turns."""

    def __init__(self, port):
        super().__init__(port, "publisher")
        self._connection.bind(self._queue, EXCHANGE, self._queue)
        self._connection.consume(self._queue)

    def _act(self, number):
        exchange = EXCHANGE if number % 2 else ""
        tag = self._connection.publish(exchange, self._queue, b"x")
        while True:
            event = self._connection.wait_event(time.monotonic() + PATIENCE)
            if event is None:
                raise amqp.AmqpError(f"no confirm within {PATIENCE} s")
            name, value = event
            if name == "acked" and (value[1] == tag or value[1] >= tag and value[2]):
                return
            if name in ("nacked", "returned"):
                raise amqp.AmqpError(f"a message of the other publisher was {name}")


class Joiner(Bystander):
    """Binds its queue to one of a few groups after the other."""

    GROUPS = 10

    def __init__(self, port):
        super().__init__(port, "joiner")

    def _act(self, number):
        self._connection.bind(self._queue, EXCHANGE, f"joiner-{number % self.GROUPS}")
