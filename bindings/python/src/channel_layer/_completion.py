"""What a thread waits for that has no event loop, where it must not wait in C.

In C no signal's handler runs, so that Ctrl-C would have to wait as well; and where gevent has
patched the standard library, every greenlet would. Such a thread waits for two descriptors instead,
the layer's, at which it runs what is due, and one of its own, which whoever settles it writes to.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from threading import get_ident

from ._process import identity, in_forked_child
from ._unique import Unique

LOOK_AGAIN = 1.0  # seconds after which a wait looks at the layer, whatever its descriptor says


def must_watch() -> bool:
    """Whether this thread waits here, and not in C: where signals' handlers run, or greenlets."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and any(map(monkey.is_module_patched, ("thread", "threading", "socket"))):
        if not monkey.is_module_patched("select"):
            raise RuntimeError(
                "gevent has patched some modules and not `select`: a call that blocks would stop "
                "every greenlet. Use monkey.patch_all(), or its argument select=True"
            )
        return True
    return threading.current_thread() is threading.main_thread()


class Wake(Unique):
    """A pipe that wakes a thread."""

    def __init__(self) -> None:
        self.process = identity()
        self.fd, self._to = os.pipe()
        for each in (self.fd, self._to):
            os.set_blocking(each, False)

    def __del__(self, close=os.close, identity=identity) -> None:
        # A child that was not told of its fork may have other files under these numbers.
        if identity() == self.process:
            for each in (self.fd, self._to):
                close(each)

    def set(self) -> None:
        try:
            os.write(self._to, b"\0")
        except BlockingIOError:
            pass  # it is full, and so it wakes all the same

    def clear(self) -> None:
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass  # somebody was faster


class _Pool:
    """Pipes for the next waits, so that not each has to make one."""

    def __init__(self) -> None:
        self._idle = []
        in_forked_child(self)

    def take(self) -> Wake:
        process = identity()
        while True:
            try:
                wake = self._idle.pop()
            except IndexError:
                return Wake()
            if wake.process == process:
                return wake

    def give_back(self, wake: Wake) -> None:
        if len(self._idle) < 16:
            self._idle.append(wake)

    def after_fork(self) -> None:
        # The parent's pipes are open in the child too, and nothing there has had the time to put
        # other files under their numbers.
        for wake in self._idle:
            wake.process = identity()
        self._idle.clear()


_pool = _Pool()


class Completion(Unique):
    """An outcome or an arrival that a thread waits for. Settled from any thread, once."""

    __slots__ = ("__weakref__", "_thread", "_wake", "error", "is_settled", "value")

    def __init__(self) -> None:
        self._thread = get_ident()
        self._wake = _pool.take()
        self.is_settled = False
        self.value = None
        self.error = None

    def is_own(self) -> bool:
        """Whether this thread is the one that waits."""
        return get_ident() == self._thread

    def settle(self, value, error=None) -> None:
        if self.is_settled:
            return
        self.value = value
        self.error = error
        self.is_settled = True
        if not self.is_own():
            self._wake.set()

    def wait(self, handle, timeout=None) -> bool:
        """Waits until this is settled, at most `timeout` seconds, and runs what is due of the layer
        meanwhile. Whether it is settled."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poller = select.poll()
        poller.register(self._wake.fd, select.POLLIN)
        poller.register(handle.fd, select.POLLIN)
        watches_layer = True
        while not self.is_settled:
            left = LOOK_AGAIN
            if deadline is not None:
                left = min(left, deadline - time.monotonic())
                if left < 0:
                    return False
            ready = {fd for fd, _ in poller.poll(left * 1000)}
            if self._wake.fd in ready:
                self._wake.clear()
                continue
            if watches_layer and not handle.run_due():
                # Closed, and all is run; what settles this may run on another thread still.
                poller.unregister(handle.fd)
                watches_layer = False
        return True

    def end(self) -> None:
        """Gives the pipe up for others to wait with; nobody waits for this any more."""
        _pool.give_back(self._wake)

    def result(self, handle):
        """Waits until this is settled; its value, or its error raised."""
        try:
            self.wait(handle)
        finally:
            self.end()
        if self.error is not None:
            raise self.error
        return self.value
