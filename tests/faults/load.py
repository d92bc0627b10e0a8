"""Runs tests/faults/programs/load.c and follows it while it runs."""

import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import programs
from ledger import STATE_READY, Ledger


class LoadError(Exception):
    """The load ended by itself, hung, or complained."""


class Load:
    """A process under load. `settings` are those of load.c, `options` those of its layers.

    `preload` is a library that comes before ours, and `planted` the defect that it brings.
    """

    def __init__(self, host, settings=(), preload=None, planted=None, **options):
        self.timeout = float(options.get("timeout", 10))
        self._folder = tempfile.TemporaryDirectory(prefix="channel-layer-load-")
        self._ledger = Path(self._folder.name, "ledger")
        self._changed = threading.Condition()
        self._states = {}  # layer -> (state, generation, when)
        self._words = set()
        self._layers = None  # how many there are
        self._log = open(Path(self._folder.name, "log"), "w+", encoding="utf-8", errors="replace")
        environment = dict(os.environ)
        if preload is not None:
            environment["LD_PRELOAD"] = str(preload)
        if planted is not None:
            environment["PLANTED"] = planted
        command = [str(programs.build("load")), host, str(self._ledger), *settings,
                   *(f"layer.{name}={value}" for name, value in options.items())]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self._log, text=True, env=environment)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            words = line.split()
            with self._changed:
                if words[0] == "state":
                    layer, state, generation = map(int, words[1:])
                    self._states[layer] = (state, generation, time.monotonic())
                else:
                    if words[0] == "started":
                        self._layers = int(words[1])
                    self._words.add(words[0])
                self._changed.notify_all()
        with self._changed:
            self._words.add("closed")
            self._changed.notify_all()

    def _wait(self, condition, seconds):
        with self._changed:
            self._changed.wait_for(lambda: condition() or "closed" in self._words, seconds)
            if condition():
                return True
            if "closed" in self._words:
                raise LoadError(f"the load has ended early\n{self.log_tail()}")
            return False

    def wait_started(self):
        # What a layer is told of its state may come later than the end of a wait for it.
        if not self._wait(lambda: len(self._states) == self._layers, 40):
            raise LoadError(f"the load did not start\n{self.log_tail()}")
        return self

    def generations(self):
        """The generation of each layer, to be given to `wait_ready`."""
        with self._changed:
            return {layer: generation for layer, (_, generation, _) in self._states.items()}

    def wait_ready(self, seconds, after=None):
        """Waits until every layer is ready again, in a generation later than `after` says.

        Returns the moment at which the last of them was (of time.monotonic), or None.
        """
        return self._wait_states(seconds, lambda states: all(
            state == STATE_READY and (after is None or generation > after[layer])
            for layer, state, generation in states))

    def wait_unready(self, seconds):
        """Waits until every layer knows that it is not ready. Returns the last one's moment."""
        return self._wait_states(seconds, lambda states: all(
            state != STATE_READY for _, state, _ in states))

    def wait_next(self, before, seconds):
        """Waits until a layer is ready in a generation later than `before` says, and all are
        ready. Returns the moment."""
        return self._wait_states(seconds, lambda states: (
            all(state == STATE_READY for _, state, _ in states)
            and any(generation > before[layer] for layer, _, generation in states)))

    def wait_any_unready(self, seconds):
        """Waits until some layer knows that it is not ready. Returns the moment."""
        return self._wait_states(seconds, lambda states: any(
            state != STATE_READY for _, state, _ in states))

    def _wait_states(self, seconds, condition):
        """Waits until `condition` holds for [(layer, state, generation)]. Returns the moment of
        the last change, or None."""
        def holds():
            return condition([(layer, state, generation)
                              for layer, (state, generation, _) in self._states.items()])
        if not self._wait(holds, seconds):
            return None
        with self._changed:
            return max(when for _, _, when in self._states.values())

    def end(self, command="stop", seconds=180):
        """Ends the load and returns its ledger."""
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.close()
        except BrokenPipeError:
            pass  # its status tells why
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise LoadError(f"the load did not end within {seconds} s\n{self.log_tail()}") from None
        if status != 0:
            raise LoadError(f"the load ended with status {status}\n{self.log_tail()}")
        self._reader.join(10)
        return Ledger(self._ledger)

    def log(self):
        self._log.flush()
        return Path(self._log.name).read_text(encoding="utf-8", errors="replace")

    def log_tail(self):
        return "\n".join(self.log().splitlines()[-40:])

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for stream in (self.process.stdout, self._log):
            stream.close()
        self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
