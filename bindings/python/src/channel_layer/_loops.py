"""The event loops that watch a layer's descriptor."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref

from ._callbacks import call_in, is_run_inside_c, running_loop
from ._handle import Handle
from ._library import Failure, check, quick
from ._process import identity
from ._unique import Unique
from .errors import ForkedError


class Loops(Unique):
    """The loops that watch: each runs what is due of the layer, whichever is awake first."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._loops = weakref.WeakSet()
        self._seen = None  # the loop that was here last
        self._lock = threading.RLock()  # a signal's handler may interrupt who holds it
        self._closers = 0  # that wait for the layer to be closed

    def running(self):
        """The running loop, which watches from here on."""
        loop = running_loop()
        if loop is None:
            raise RuntimeError("there is no running event loop; `layer.blocking` needs none")
        if is_run_inside_c(loop):
            self._handle.check_may_wait()  # nothing can be due in this loop before C goes on
        if loop is not self._seen:
            self._watch(loop)
        return loop

    def _watch(self, loop) -> None:
        handle = self._handle
        with self._lock:
            if loop not in self._loops:
                if handle.fd < 0 or identity() != handle.process:
                    self._raise_forked()
                loop.add_reader(handle.fd, self.on_readable, loop)
                self._loops.add(loop)
            self._seen = loop

    def _raise_forked(self) -> None:
        """Says so of a layer from before a fork, in the words of C where it knows of the fork."""
        failure, state = Failure(), ctypes.c_int32()
        check(quick.layer_state(self._handle.pointer, ctypes.byref(state), failure.at), failure)
        raise ForkedError("the layer was opened before this process was forked")

    def on_readable(self, loop) -> None:
        """Runs what is due, in a loop."""
        if not self._handle.run_due():
            with self._lock:
                self._loops.discard(loop)  # it watches again if it asks for something
                self._seen = None
            loop.remove_reader(self._handle.fd)

    @contextlib.contextmanager
    def closing(self):
        """While the layer is closed. Once it is, and nobody waits for that any more, no loop has to
        watch. Where closing ran out of time, something may still come."""
        with self._lock:
            self._closers += 1
        is_closed = False
        try:
            yield
            is_closed = True
        finally:
            with self._lock:
                self._closers -= 1
                ends = is_closed and self._closers == 0
                loops = list(self._loops) if ends else []
                if ends:
                    self._loops.clear()
                    self._seen = None
        for loop in loops:
            if not loop.is_closed():
                call_in(loop, self._stop, loop)

    def _stop(self, loop) -> None:
        with self._lock:
            if loop not in self._loops:  # it may have come again meanwhile, to close again
                loop.remove_reader(self._handle.fd)
