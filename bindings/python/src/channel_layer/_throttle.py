"""How often a record of one kind is logged."""

from __future__ import annotations

import threading
import time


class Throttle:
    """Lets one record of a kind through per interval, and counts those that are held back."""

    def __init__(self, interval: float = 1.0, clock=time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._kinds = {}  # kind: [when the next may be logged, how many were held back]
        self._lock = threading.Lock()

    def admit(self, kind):
        """How many of this kind were held back since the last that was let through; None where
        this one is held back too."""
        with self._lock:
            entry = self._kinds.setdefault(kind, [None, 0])
            now = self._clock()
            if entry[0] is not None and now < entry[0]:
                entry[1] += 1
                return None
            held_back, entry[1] = entry[1], 0
            entry[0] = now + self._interval
            return held_back

    def hold_back(self, kind) -> None:
        """Counts one that must not be logged now."""
        with self._lock:
            self._kinds.setdefault(kind, [None, 0])[1] += 1

    def drain(self) -> dict:
        """How many of each kind were held back and not reported; they count as reported."""
        with self._lock:
            counts = {kind: entry[1] for kind, entry in self._kinds.items() if entry[1]}
            for entry in self._kinds.values():
                entry[1] = 0
            return counts
