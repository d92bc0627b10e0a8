#!/usr/bin/env python3
"""The scale rig: layers in a few processes, on one node and on a cluster of three.

    rig.py [--short] [--versions VERSION...] [--only one|cluster] [--layers N...]

In full, 10, 30 and 100 layers with 1,000 groups each, a tenth of them shared, on each version: an
hour. The run is kept in benches/scale/results, one file for each version, and docs/scaling.md is made
anew. With --short, 2, 4 and 8 layers with 20 groups on one node: a minute. That run, and one with
--only or --layers or in which something failed, is kept in the target folder, with a page beside it.

3.10 is the machine's own RabbitMQ; each other version is in a root that tests/rabbitmq4/make_root.sh
makes. Ends with 0; 1 where a phase failed; 2 where it could not begin.
"""

import argparse
import contextlib
import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT / "tests/fixture"),
                str(ROOT / "tests/faults"), str(ROOT / "tests/rabbitmq4")]

import machine  # noqa: E402
import page  # noqa: E402
import rabbitmq  # noqa: E402
import server_version  # noqa: E402
from process import cpu_of, rss_of  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()

OF_THE_MACHINE = "3.10"
PROCESSES = 4  # at most: so many share the layers
NODES_OF_CLUSTER = 3
CHURN_RATE = 100  # joins and as many leaves a second, of all processes together
PACED_RATE = 20  # broadcasts a second
RECOVER_SECONDS = 240  # until all layers hear again
REPLY_SECONDS = 400  # a command of layers.c ends itself before


class Failed(Exception):
    """A phase did not come to its end; the message says which and why."""


class CannotBegin(Exception):
    """Something that the rig needs is not there; the message says what to do."""


@dataclass(frozen=True)
class Size:
    """How much one run measures."""

    layers: int
    groups: int
    idle_seconds: float
    churn_seconds: float
    paced_seconds: float
    deliveries: int  # of all broadcasts without pause, together

    @property
    def broadcasts(self):
        return max(self.deliveries // self.layers, 100)


FULL = tuple(Size(layers, 1000, 10, 15, 10, 100_000) for layers in (10, 30, 100))
SHORT = tuple(Size(layers, 20, 1, 1, 1, 2_000) for layers in (2, 4, 8))


def say(text=""):
    print(text, flush=True)


# --- the processes --------------------------------------------------------------------------


def build(library):
    """The program that holds layers, against the library in `library`."""
    if not (library / "libchannel_layer.so").exists():
        raise CannotBegin(f"there is no {library}/libchannel_layer.so; `make scale` builds it")
    program = TARGET / "scale" / library.name / "layers"
    program.parent.mkdir(parents=True, exist_ok=True)
    command = [*shlex.split(os.environ.get("CC", "cc")), "-std=c11", "-O2", "-Wall", "-Wextra",
               "-Werror", "-pthread", str(HERE / "layers.c"), "-o", str(program),
               f"-I{ROOT}/include", f"-L{library}", "-lchannel_layer", f"-Wl,-rpath,{library}",
               "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotBegin(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return program


class Member:
    """One process of layers: commands go in, a line of JSON comes back for each."""

    def __init__(self, program, hosts, layers, first, groups):
        environment = dict(os.environ, CHANNEL_LAYER_TEST_AMQP=hosts)
        environment.pop(rabbitmq.MARKER, None)  # the node's own; its processes are found by it
        self.layers = layers
        self._process = subprocess.Popen(
            [str(program), f"layers={layers}", f"first={first}", f"groups={groups}"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, bufsize=1)
        self.pid = self._process.pid
        self._lines = queue.Queue()
        self._said = []
        self._readers = [threading.Thread(target=self._read, daemon=True),
                         threading.Thread(target=self._listen, daemon=True)]
        for reader in self._readers:
            reader.start()

    def _read(self):
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _listen(self):
        for line in self._process.stderr:
            self._said = [*self._said[-19:], line.rstrip("\n")]

    def order(self, command):
        try:
            self._process.stdin.write(command + "\n")
        except BrokenPipeError:
            self._fail(command)

    def reply(self, command):
        try:
            line = self._lines.get(timeout=REPLY_SECONDS)
        except queue.Empty:
            raise Failed(f"{command}: no answer of a process of layers within {REPLY_SECONDS} s"
                         ) from None
        if line is None:
            self._fail(command)
        return json.loads(line)

    def said(self):
        """The last warnings of its layers."""
        return "\n".join(self._said)

    def _fail(self, command):
        self._process.wait()
        for reader in self._readers:
            reader.join()
        raise Failed(f"{command}: a process of layers ended with status "
                     f"{self._process.returncode}")

    def end(self):
        """Ends it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


class Fleet:
    """All processes of layers of one run."""

    def __init__(self, program, hosts, size):
        self.size = size
        self.members = []
        count = min(PROCESSES, size.layers)
        first = 0
        for number in range(count):
            layers = size.layers // count + (number < size.layers % count)
            self.members.append(Member(program, hosts, layers, first, size.groups))
            first += layers

    def all(self, command):
        """The reply of each process to a command that they are all given at once."""
        for member in self.members:
            member.order(command)
        return [member.reply(command) for member in self.members]

    def one(self, command):
        self.members[0].order(command)
        return self.members[0].reply(command)

    def cpu(self):
        return sum(cpu_of(member.pid) for member in self.members)

    def mib(self):
        return sum(rss_of(member.pid) for member in self.members)

    def end(self):
        for member in self.members:
            member.end()


# --- the broker -----------------------------------------------------------------------------


class Broker:
    """One node or a cluster, whose processor time and memory can be read."""

    def __init__(self, nodes, server):
        self._started = (rabbitmq.Cluster(nodes, server=server) if nodes > 1
                         else rabbitmq.Node(server=server))
        self.nodes = self._started.nodes if nodes > 1 else [self._started]
        self._pids = []

    def __enter__(self):
        self._started.__enter__()
        self.look()
        return self

    def __exit__(self, *problem):
        for node in self.nodes:
            # One that has 100,000 bindings to delete takes longer to stop than anybody waits.
            with contextlib.suppress(rabbitmq.FixtureError):
                if node.running():
                    node.kill9()
        self._started.__exit__(*problem)

    def look(self):
        """Finds the processes of the nodes, which are others after a restart."""
        self._pids = [node.pid for node in self.nodes]

    @property
    def hosts(self):
        return ",".join(node.url() for node in self.nodes)

    def cpu(self):
        return sum(cpu_of(pid) for pid in self._pids)

    def mib(self):
        return sum(rss_of(pid) for pid in self._pids)

    def version(self):
        return server_version.server_properties(rabbitmq.LOOPBACK, self.nodes[0].port)["version"]


# --- the phases -----------------------------------------------------------------------------


class Run:
    """Measures one size on one broker."""

    def __init__(self, broker, fleet, size):
        self._broker, self._fleet, self._size = broker, fleet, size
        self.phases = {}

    @contextlib.contextmanager
    def _phase(self, name):
        """Measures what is done inside; `found`, which it gives, takes further figures. `seconds`
        is the whole time unless these say otherwise."""
        say(f"    {name} …")
        found = {}
        broker, client, began = self._broker.cpu(), self._fleet.cpu(), time.monotonic()
        yield found
        found = {
            "seconds": round(time.monotonic() - began, 3),
            "broker_cpu": round(self._broker.cpu() - broker, 2),
            "client_cpu": round(self._fleet.cpu() - client, 2),
            "broker_mib": round(self._broker.mib(), 1),
            "client_mib": round(self._fleet.mib(), 1),
            "load": machine.load()[0],
            **found,
        }
        self.phases[name] = found
        say("      " + "  ".join(f"{key} {value}" for key, value in found.items()
                                 if not isinstance(value, list)))

    def measure(self):
        for part in (self._connect, self._join, self._idle, self._churn, self._broadcast,
                     self._paced, self._cut, self._restart, self._close):
            part()

    def _connect(self):
        with self._phase("connect") as found:
            replies = self._fleet.all("open")
            found["seconds"] = max(reply["seconds"] for reply in replies)

    def _join(self):
        """First a tenth, so that it shows whether a join takes longer where there are more."""
        size = self._size
        steps = []
        with self._phase("join") as found:
            for start, end in ((0, size.groups // 10), (size.groups // 10, size.groups)):
                replies = self._fleet.all(f"join {start} {end}")
                steps.append({"joins": sum(reply["joins"] for reply in replies),
                              "seconds": max(reply["seconds"] for reply in replies)})
            found["joins"] = sum(step["joins"] for step in steps)
            found["seconds"] = round(sum(step["seconds"] for step in steps), 3)
            found["steps"] = steps
        self._must_hear_own("join")

    def _idle(self):
        with self._phase("idle"):
            time.sleep(self._size.idle_seconds)  # what a layer costs that does nothing

    def _churn(self):
        seconds = max(self._size.churn_seconds, 2 * self._size.layers / CHURN_RATE)
        with self._phase("churn") as found:
            for member in self._fleet.members:  # each at a rate by its layers
                member.order(f"churn {CHURN_RATE * member.layers / self._size.layers} {seconds}")
            replies = [member.reply("churn") for member in self._fleet.members]
            found["changes"] = sum(reply["changes"] for reply in replies)
            found["rate"] = CHURN_RATE
            for figure in ("join_p50_ms", "join_p99_ms", "join_max_ms"):
                found[figure] = max(reply[figure] for reply in replies)

    def _broadcast(self):
        count = self._size.broadcasts
        self._fleet.all("listen")
        with self._phase("broadcast") as found:
            sent = self._fleet.one(f"broadcast {count} 0")
            heard = self._all_heard("broadcast", count)
            found["broadcasts"] = count
            found["seconds"] = round((heard["last"] - sent["began"]) / 1e9, 3)
            found["confirmed_seconds"] = sent["seconds"]

    def _paced(self):
        count = int(PACED_RATE * self._size.paced_seconds)
        self._fleet.all("listen")
        with self._phase("paced") as found:
            self._fleet.one(f"broadcast {count} {PACED_RATE}")
            heard = self._all_heard("paced", count)
            found.update(broadcasts=count, rate=PACED_RATE, **heard["latency"])

    def _all_heard(self, phase, count):
        """Until each layer has heard `count` messages; a layer that has not is a failure."""
        replies = self._fleet.all(f"heard {count} 120")
        short = sum(reply["short"] for reply in replies)
        messages = sum(reply["messages"] for reply in replies)
        if short or messages != count * self._size.layers:
            raise Failed(f"{phase}: {short} of {self._size.layers} layers have not heard all; "
                         f"{messages} messages of {count * self._size.layers} arrived")
        # The slowest process counts: each has the layers that it has.
        return {"last": max(reply["last"] for reply in replies),
                "latency": {figure: max(reply[figure] for reply in replies)
                            for figure in ("heard_p50_ms", "heard_p99_ms", "heard_max_ms")}}

    def _must_hear_own(self, phase):
        """Each layer gets what is sent to a sample of its own groups, and no other layer does."""
        count = min(self._size.groups // 2, 50)
        self._fleet.all("listen")
        self._fleet.all(f"touch {count}")
        self._all_heard(f"{phase}, groups of one layer", count)
        bound = sum(reply["bound"] for reply in self._fleet.all("bound"))
        if bound != self._size.layers * self._size.groups:
            raise Failed(f"{phase}: {bound} groups are bound, not "
                         f"{self._size.layers * self._size.groups}")

    def _recovered(self, phase, since):
        """Until all layers are ready and a broadcast has reached each; the seconds since `since`."""
        deadline = time.monotonic() + RECOVER_SECONDS
        tries = 0
        while time.monotonic() < deadline:
            tries += 1
            if not all(reply["complete"] for reply in self._fleet.all("ready 0 60")):
                continue
            self._fleet.all("listen")
            if self._fleet.one("probe")["status"] != "LAYER_OK":
                continue
            # A message that has not arrived by then was lost: another one is sent.
            replies = self._fleet.all("heard 1 2")
            if all(reply["complete"] for reply in replies):
                last = max(reply["last"] for reply in replies)
                return round(last / 1e9 - since, 3), tries
        raise Failed(f"{phase}: after {RECOVER_SECONDS} s no broadcast reaches all layers")

    def _cut(self):
        with self._phase("cut") as found:
            replies = self._fleet.all("cut")
            at = min(reply["at"] for reply in replies)
            ready = self._fleet.all(f"ready {at} {RECOVER_SECONDS}")
            if not all(reply["complete"] for reply in ready):
                raise Failed(f"cut: {sum(reply['ready'] for reply in ready)} of "
                             f"{self._size.layers} layers are ready after {RECOVER_SECONDS} s")
            found["connections"] = sum(reply["connections"] for reply in replies)
            found["ready_seconds"] = round(max(reply["ready_max_ms"] for reply in ready) / 1e3, 3)
            found["seconds"], found["probes"] = self._recovered("cut", at / 1e9)
        self._must_hear_own("cut")

    def _restart(self):
        """Each node is stopped and started. On a cluster the time that a layer is not ready counts;
        on one node only the part of it after the node accepts connections again."""
        say("    restart …")
        each = []
        self._fleet.all("down")
        for node in self._broker.nodes:
            began = time.monotonic()
            killed = False
            try:
                node.stop()
            except rabbitmq.FixtureError:
                killed = True  # it did not stop in time, and does not run any more
                if node.running():
                    raise
            stop_seconds = round(time.monotonic() - began, 3)
            if len(self._broker.nodes) == 1:
                node.start()
                began = time.monotonic()
            heard_seconds, tries = self._recovered("restart", began)
            down = self._fleet.all("down")
            lost = sum(reply["lost"] for reply in down)
            seconds = (max(reply["longest_ms"] for reply in down) / 1e3
                       if len(self._broker.nodes) > 1
                       else max(max(reply["last_ready"] for reply in down) / 1e9 - began, 0))
            if not node.running():
                node.start()
            each.append({"seconds": round(seconds, 3), "lost": lost, "probes": tries,
                         "heard_seconds": heard_seconds, "stop_seconds": stop_seconds,
                         "killed": killed})
        self._broker.look()
        # Layers that have moved stay where they are: one node, but not all, may have had none.
        if not any(entry["lost"] for entry in each):
            raise Failed("restart: no layer has lost its connections to a node that was stopped")
        worst = max(entry["seconds"] for entry in each)
        self.phases["restart"] = {"seconds": worst, "nodes": each, "load": machine.load()[0]}
        say(f"      seconds {worst}")
        for entry in each:
            say("        " + "  ".join(f"{key} {value}" for key, value in entry.items()))
        self._must_hear_own("restart")

    def _close(self):
        say("    close …")
        replies = self._fleet.all("close")
        self.phases["close"] = {"seconds": max(reply["seconds"] for reply in replies)}


# --- all of it ------------------------------------------------------------------------------


def server_of(version):
    """The start script of a version."""
    if version == OF_THE_MACHINE:
        return rabbitmq.find_server()
    server = ROOT / "tests/rabbitmq4/bin" / version / "rabbitmq-server"
    if not server.exists():
        raise CannotBegin(f"there is no {server}: of which version is RabbitMQ {version}?")
    done = subprocess.run([ROOT / "tests/rabbitmq4/make_root.sh", version], capture_output=True,
                          text=True, check=False)
    if done.returncode != 0:
        raise CannotBegin(f"tests/rabbitmq4/make_root.sh {version} ended with status "
                          f"{done.returncode}\n{done.stdout}{done.stderr}")
    return str(server)


def measure(program, version, nodes, size, server):
    """One run, with what it was made on; and why it is not whole, where a phase failed: what was
    measured before that still holds."""
    load = machine.load()[0]
    with Broker(nodes, server) as broker:
        found = broker.version()
        if not found.startswith(f"{version}."):
            raise CannotBegin(f"the broker is RabbitMQ {found}, and not {version}")
        say(f"  RabbitMQ {found}, {nodes} node{'s' * (nodes > 1)}, {size.layers} layers with "
            f"{size.groups} groups each; load {load}")
        before = broker.mib()
        fleet = Fleet(program, broker.hosts, size)
        run = Run(broker, fleet, size)
        found = {
            "nodes": nodes, "layers": size.layers, "groups": size.groups,
            "processes": len(fleet.members), "broker": found, "load_before": load,
            "broker_mib_before": round(before, 1), "phases": run.phases,
        }
        try:
            run.measure()
        except (Failed, rabbitmq.FixtureError) as failed:
            said = "\n".join(member.said() for member in fleet.members)
            return found, f"{failed}\n{said}".rstrip()
        finally:
            fleet.end()
        return found, None


def measure_version(version, options, program):
    """The data of all runs on one version, as it is kept."""
    sizes, topologies = (SHORT, (1,)) if options.short else (FULL, (1, NODES_OF_CLUSTER))
    if options.only:
        topologies = (1,) if options.only == "one" else (NODES_OF_CLUSTER,)
    if options.layers:
        sizes = tuple(size for size in sizes if size.layers in options.layers)
    server = server_of(version)
    data = {
        "format": 1,
        "version": version,
        "kind": "short" if options.short else "full",
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": machine.commit(),
        "machine": machine.describe(),
        "library": options.library.name,
        "options": {"only": options.only, "layers": options.layers},
        "load_before": machine.load(),
        "runs": [],
        "failures": [],
    }
    began = time.monotonic()
    for nodes in topologies:
        for size in sizes:
            try:
                run, reason = measure(program, version, nodes, size, server)
                data["runs"].append(run)
            except rabbitmq.FixtureError as failed:  # a node did not start, or not end
                reason = str(failed)
            if reason is not None:
                data["failures"].append({"nodes": nodes, "layers": size.layers,
                                         "reason": reason})
                say(f"    FAILED: {reason}")
    data["took_seconds"] = round(time.monotonic() - began, 1)
    return data


def keep(data):
    """Where the data of a version is kept."""
    complete = data["kind"] == "full" and not data["failures"] and not any(
        data["options"].values())
    folder = page.RESULTS if complete else TARGET / "scale-results"
    folder.mkdir(parents=True, exist_ok=True)
    name = data["started"][:19].replace(":", "").replace("T", "-")
    path = folder / f"{name}-{data['version']}.json"
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return path, complete


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small sizes on one node: a minute")
    parser.add_argument("--versions", nargs="+", action="extend", default=[], metavar="VERSION",
                        help="of RabbitMQ: 3.10 4.3, and in short 3.10 alone")
    parser.add_argument("--only", choices=("one", "cluster"), help="one node, or a cluster, alone")
    parser.add_argument("--layers", nargs="+", type=int, default=[], metavar="N",
                        help="these sizes alone")
    parser.add_argument("--library", type=Path, metavar="FOLDER",
                        help="where libchannel_layer.so is: in short target/debug, else "
                             "target/release")
    options = parser.parse_args(arguments)
    known = [size.layers for size in (SHORT if options.short else FULL)]
    if not set(options.layers) <= set(known):
        parser.error(f"--layers: there are the sizes {', '.join(map(str, known))}")
    options.library = (options.library or TARGET / ("debug" if options.short else "release")
                       ).resolve()
    versions = options.versions or ([OF_THE_MACHINE] if options.short else page.VERSIONS)

    def end(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    failed = False
    kept = {}
    try:
        program = build(options.library)
        for version in versions:
            say(f"{version}:")
            data = measure_version(version, options, program)
            path, complete = keep(data)
            say(f"  kept in {path}, after {data['took_seconds']:.0f} s")
            failed = failed or bool(data["failures"])
            if not complete:
                kept[version] = data
    except (CannotBegin, rabbitmq.FixtureError, OSError) as error:
        say(f"rig.py: {error}")
        return 2
    if kept:
        beside = TARGET / "scale-results" / "scaling.md"
        beside.write_text(page.text_of(kept), encoding="utf-8")
        say(f"wrote {beside}")
    if len(kept) < len(versions):
        page.DOCUMENT.write_text(page.text_of(page.newest()), encoding="utf-8")
        say(f"wrote {page.DOCUMENT.relative_to(ROOT)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
