"""One run of chaos: the cluster, the program, the control client, the lanes, the oracle."""

import collections
import contextlib
import fcntl
import os
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import programs
import rabbitmq
from chaos import schedule
from chaos.actions import ACTIONS, World
from chaos.control import Control
from chaos.oracle import Oracle, Rules
from proxy import Proxy, Recorder

HEARTBEAT = 1
NODES, SLOTS, CHANNELS, RATE = 3, 4, 3, 150
GROUP = "chaos"
BROKER_LIMIT, LAYER_LIMIT = 300_000, 400_000
OPTIONS = {
    "timeout": 3, "connect_timeout": 2, "heartbeat": HEARTBEAT, "reconnect_max": 1,
    "stall_after": 0.5, "dispatch_threads": CHANNELS + 1, "max_message_size": LAYER_LIMIT,
}
NODE_SETTINGS = (f"max_message_size = {BROKER_LIMIT}",
                 "cluster_partition_handling = pause_minority")
NET_TICK = 8  # seconds until the nodes of a cluster give one up that is silent
READY_SECONDS = 30  # for the first layers
LEAST_SECONDS = 0.5  # in effect, however long it took to be done
SHOWN_SECONDS = 15  # of the events before a violation
PIPE_SIZE = 1 << 20


class ChaosError(Exception):
    """The run came to an end that says nothing about the library."""


class Program:
    """programs/chaos.c: its events go to `on_line`, its end to `on_end`."""

    COMMAND_SECONDS = 40  # the program itself tells which call hangs, long before

    def __init__(self, hosts, folder, on_line, preload=None, planted=None):
        self._on_line = on_line
        self._changed = threading.Condition()
        self._done = set()
        self._number = 0
        self._channels = {}  # name -> (layer, channel)
        self.problem = None
        self.log_path = Path(folder, "log")
        environment = dict(os.environ)
        if preload is not None:
            environment.update(LD_PRELOAD=str(preload), PLANTED=planted or "")
        command = [str(programs.build("chaos")), hosts, str(SLOTS), str(CHANNELS), str(RATE),
                   *(f"{name}={value}" for name, value in OPTIONS.items())]
        with open(self.log_path, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=log, text=True, bufsize=1, env=environment)
        # So that the program does not wait for this one to read, which would look like a hang.
        fcntl.fcntl(self.process.stdout, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            for line in self.process.stdout:
                if line.startswith("done "):
                    with self._changed:
                        self._done.add(int(line.split()[1]))
                        self._changed.notify_all()
                    continue
                if line.startswith(("N ", "X ")):
                    self._note(line.split())
                self._on_line(line)
        except Exception as error:  # shown by the run, which waits for it
            self.problem = error
        with self._changed:
            self._done.add("end")
            self._changed.notify_all()

    def _note(self, words):
        with self._changed:
            if words[0] == "N":
                self._channels[words[4]] = (int(words[2]), int(words[3]))
            else:
                layer = int(words[2])
                self._channels = {name: place for name, place in self._channels.items()
                                  if place[0] != layer}

    def channels(self):
        with self._changed:
            return dict(self._channels)

    def command(self, text, wait=True):
        with self._changed:
            self._number += 1
            number = self._number
            try:
                self.process.stdin.write(f"{number} {text}\n")
                self.process.stdin.flush()
            except BrokenPipeError:
                raise ChaosError("the program has ended early") from None
            if wait and not self._changed.wait_for(
                    lambda: number in self._done or "end" in self._done, self.COMMAND_SECONDS):
                raise ChaosError(f"the program has not done '{text}' in {self.COMMAND_SECONDS} s")

    def ended(self):
        with self._changed:
            return "end" in self._done

    def stop(self, seconds):
        """Ends the program in good order; its status, or None where it hangs."""
        with contextlib.suppress(BrokenPipeError):  # its status tells why
            self.process.stdin.write("stop\n")
            self.process.stdin.flush()
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(10)
        return status

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._reader.join(10)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


class Run:
    """Runs the steps of a schedule for `seconds`, on a cluster of its own or on the node given as
    `alone`. `preload` is a library that comes before ours, and `planted` the defect that it brings.

    Afterwards `oracle` has the violations and the figures, `problems` what else went wrong, and
    `excerpt` the events around the first violation.
    """

    def __init__(self, steps, seconds, alone=None, say=print, preload=None, planted=None):
        self._steps = steps
        self._seconds = seconds
        self._alone = alone
        self._say = say
        self._preload, self._planted = preload, planted
        self._lock = threading.RLock()
        self._recent = collections.deque()  # (time, line)
        self._over = threading.Event()
        self._began = 0.0
        self.recorder = Recorder()
        self.oracle = Oracle(Rules(timeout=OPTIONS["timeout"], stall_after=OPTIONS["stall_after"]),
                             self.recorder.acked, self.recorder.returned)
        self.actions = collections.Counter()
        self.problems = []
        self.excerpt = []

    def run(self):
        with contextlib.ExitStack() as stack:
            cluster = self._make_cluster(stack)
            proxies = [stack.enter_context(Proxy(node.port, self.recorder))
                       for node in cluster.nodes]
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="channel-layer-chaos-"))
            self._program = Program(",".join(proxy.url() for proxy in proxies), folder,
                                    self._on_line, self._preload, self._planted)
            stack.callback(self._program.kill)
            self._world = World(cluster, proxies, self._program, SLOTS, CHANNELS, BROKER_LIMIT,
                                LAYER_LIMIT, 0.6 * NET_TICK)
            self._control = Control([proxy.port for proxy in proxies], self._telling,
                                    self._program.channels, GROUP, self._note)
            self._act()
            self.problems.extend(f"proxy: {problem}" for proxy in proxies
                                 for problem in proxy.problems)
        return self

    def _make_cluster(self, stack):
        if self._alone is not None:
            return Alone([self._alone])
        cluster = rabbitmq.Cluster(NODES, settings=NODE_SETTINGS)
        for node in cluster.nodes:
            (node.folder / "advanced.config").write_text(
                f"[{{kernel, [{{net_ticktime, {NET_TICK}}}]}}].\n", encoding="ascii")
        return stack.enter_context(cluster)

    def _act(self):
        for slot in range(SLOTS):
            self._program.command(f"open {slot}", wait=False)
        self._control.start()
        lanes = []
        try:
            self._wait_for_first_layers()
            self._began = time.monotonic()
            lanes = [threading.Thread(target=self._run_lane, args=(lane,), daemon=True)
                     for lane in schedule.LANES]
            for lane in lanes:
                lane.start()
            until = self._began + self._seconds
            while time.monotonic() < until and not self._look():
                time.sleep(0.1)
        finally:
            self._over.set()
            # Each undoes what it has done, so that the program can end in good order.
            for lane in lanes:
                lane.join(World.WHOLE_SECONDS)
            self._control.stop()
        if not self.oracle.violations and not self.problems:
            self._end()

    def _wait_for_first_layers(self):
        def ready():
            with self._lock:
                layers = self.oracle.layers.values()
                return len(layers) == SLOTS and all(
                    layer.ready.last and len(layer.member_since) == CHANNELS for layer in layers)

        if not rabbitmq.wait_until(lambda: ready() or self._look(), READY_SECONDS) or not ready():
            raise ChaosError(f"the first layers are not ready\n{self._log_tail()}")

    def _end(self):
        status = self._program.stop(120)
        with self._telling() as oracle:
            if status is None:
                self.problems.append("the program does not end")
            elif status != 0:
                self.problems.append(f"the program ended with status {status}: {self._log_tail(5)}")
            else:
                oracle.ended()
            if oracle.violations or self.problems:
                self._keep_excerpt()

    def _look(self):
        """Judges what is due; whether the run is over."""
        with self._telling() as oracle:
            oracle.advance(time.monotonic())
            for source in (self._program, self._control):
                if source.problem is not None:
                    self.problems.append(f"{type(source).__name__}: {source.problem!r}")
                    source.problem = None
        if self._program.ended():
            self.problems.append(f"the program has ended early: {self._log_tail(5)}")
        over = bool(oracle.violations or self.problems)
        if over:
            self._keep_excerpt()
        return over

    def _run_lane(self, lane):
        for step in self._steps:
            if schedule.lane_of(step.action) != lane:
                continue
            if self._over.wait(max(0.0, self._began + step.at - time.monotonic())):
                return
            try:
                self._run_step(step)
            except Exception as error:  # shown by the run: what was not done shows nothing
                self.problems.append(f"{step.action}: {type(error).__name__}: {error}")
                return

    def _run_step(self, step):
        action = ACTIONS[step.action](self._world, step.draw)
        self.actions[step.action] += 1
        begun = time.monotonic()
        with self._active(action, step), self._dividing(action, step):
            with contextlib.ExitStack() as suspended:
                with self._disturbing(action, step, action.UNNOTICED):
                    action.do()
                self._record(f"do {step.action}:{step.at:g}:{step.lasts:g}:{step.draw} "
                             f"{action.target()}")
                if action.SUSPENDS:
                    suspended.enter_context(self._disturbing(action, step))
                if step.lasts:
                    # rabbitmqctl may have taken all of it.
                    self._over.wait(max(LEAST_SECONDS, begun + step.lasts - time.monotonic()))
                    self._record(f"undo {step.action}")
                with self._disturbing(action, step):
                    action.undo()
            action.restore()
        if step.lasts:
            self._record(f"undone {step.action}")

    def _active(self, action, step):
        """While it is in effect the layers may lose what they have, and get it again."""
        return self._telling_of(action, lambda oracle: oracle.activate(
            step.action, time.monotonic(), action.UNNOTICED * HEARTBEAT, action.LOSES,
            action.SPARES_QUEUES))

    def _dividing(self, action, step):
        """While it is in effect what one layer sends may not reach another."""
        if not action.DIVIDES:
            return contextlib.nullcontext()
        return self._telling_of(action, lambda oracle: oracle.divide(
            step.action, time.monotonic(), action.UNNOTICED * HEARTBEAT))

    def _disturbing(self, action, step, unnoticed=0):
        """While it is being done nothing is expected of the layers."""
        return self._telling_of(action, lambda oracle: oracle.disturb(
            step.action, time.monotonic(), unnoticed * HEARTBEAT))

    @contextlib.contextmanager
    def _telling_of(self, action, begin):
        if not action.DISTURBS:
            yield
            return
        with self._telling() as oracle:
            disturbance = begin(oracle)
        try:
            yield
        finally:
            disturbance.end = time.monotonic()

    @contextlib.contextmanager
    def _telling(self):
        with self._lock:
            yield self.oracle

    def _on_line(self, line):
        with self._lock:
            self.oracle.feed(line)
            if not line.startswith("K "):
                self._remember(line.rstrip("\n"))

    def _record(self, text):
        now = time.monotonic()
        self._say(f"    {now - self._began:8.2f} s {text}")
        self._note(text)

    def _note(self, text):
        """Has it among the events around a violation."""
        with self._lock:
            self._remember(f"# {int(time.monotonic() * 1e6)} {text}")

    def _remember(self, line):
        now = time.monotonic()
        self._recent.append((now, line))
        while self._recent[0][0] < now - SHOWN_SECONDS:
            self._recent.popleft()

    def _keep_excerpt(self):
        """The events until now, and what the layers have logged meanwhile, in the order of time."""
        with self._lock:
            if self.excerpt:
                return
            log = self._program.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
            events = [(int(line.split()[1]), line) for _, line in self._recent]
            since = events[0][0] if events else 0
            logged = [(int(line.split()[0]), line) for line in log if line[:1].isdigit()]
            told = [f"! {violation}" for violation in self.oracle.violations]
            self.excerpt = [line for at, line in sorted(events + logged) if at >= since] + told

    def _log_tail(self, lines=20):
        text = self._program.log_path.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])


class Alone:
    """A single node in the place of a cluster."""

    def __init__(self, nodes):
        self.nodes = nodes
