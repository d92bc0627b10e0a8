"""Who is measured: how each contender is built, started and described. To add one, add a row to
`roster`: a program that takes `WORKLOAD`s by NAME=VALUE arguments and prints one line of JSON."""

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "benches" / "programs"


class Missing(Exception):
    """A contender cannot be built or started here; the message says why and what to do."""


def run(command, what):
    """The output of a command that prepares something."""
    try:
        done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True,
                              text=True, check=False)
    except OSError as error:
        raise Missing(f"{what}: cannot run {command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()
        raise Missing(f"{what}: {shlex.join(str(word) for word in command)} ended with status "
                      f"{done.returncode}\n{said}")
    return done.stdout.strip()


class Contender:
    """`build` raises Missing; `command` gives the words that start a workload, None where the
    contender has none. `parameters` are those of the case that the program understands."""

    name = title = settings = ""
    needs_redis = False

    def build(self, target):
        raise NotImplementedError

    def command(self, workload, parameters):
        raise NotImplementedError


def arguments(parameters):
    return [f"{name}={value}" for name, value in parameters.items()]


class CProgram(Contender):
    """Programs of C: `sources` has the one of each workload."""

    def __init__(self, name, title, settings, sources, flags, before):
        self.name, self.title, self.settings = name, title, settings
        self._sources = sources  # workload -> name of the program
        self._flags = flags  # target -> flags of the compiler
        self._before = before  # what to say where the flags cannot be had
        self._folder = None

    def build(self, target):
        self._folder = target / "benches"
        self._folder.mkdir(parents=True, exist_ok=True)
        compiler = shlex.split(os.environ.get("CC", "cc"))
        try:
            flags = self._flags(target)
        except Missing as missing:
            raise Missing(f"{missing}\n{self._before}") from missing
        for program in sorted(set(self._sources.values())):
            run([*compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread",
                 PROGRAMS / f"{program}.c", "-o", self._folder / program, *flags, "-lm"],
                self.title)

    def command(self, workload, parameters):
        program = self._sources.get(workload)
        if program is None:
            return None
        # These three are measured by the program of single messages.
        measure = ([f"measure={workload}"] if workload in ("throughput", "latency", "connect")
                   else [])
        return [str(self._folder / program), *measure, *arguments(parameters)]


def library_flags(target):
    release = target / "release"
    if not (release / "libchannel_layer.so").exists():
        raise Missing(f"there is no {release}/libchannel_layer.so")
    return [f"-I{ROOT}/include", f"-L{release}", "-lchannel_layer", f"-Wl,-rpath,{release}"]


def librabbitmq_flags(_target):
    return run(["pkg-config", "--cflags", "--libs", "librabbitmq"], "librabbitmq").split()


class Lapin(Contender):
    name = "lapin"
    title = "lapin, used plainly (Rust)"
    settings = ("one connection with two channels, tokio's threads; each publish is awaited with "
                "its confirm before the next, as in lapin's own example; prefetch 1000, each "
                "message is acked by itself")

    def __init__(self):
        self._program = None

    def build(self, target):
        run([*shlex.split(os.environ.get("CARGO", "cargo")), "build", "--locked", "--release",
             "-p", "channel-layer-bench-lapin"], self.title)
        self._program = target / "release" / "bench_lapin"

    def command(self, workload, parameters):
        if workload not in ("throughput", "latency", "connect"):
            return None
        return [str(self._program), f"measure={workload}", *arguments(parameters)]


class PythonLayer(Contender):
    """One of the layers that python_layers.py drives."""

    environment = None  # that of all of them, once it is made

    def __init__(self, name, title, settings, needs_redis=False):
        self.name, self.title, self.settings = name, title, settings
        self.needs_redis = needs_redis

    def build(self, _target):
        if PythonLayer.environment is None:
            made = run([ROOT / "tests/interop/environment.sh", "benches-venv",
                        "benches/requirements.txt"], self.title)
            PythonLayer.environment = ROOT / made
        if self.needs_redis:
            run(["redis-server", "--version"], self.title)

    def command(self, workload, parameters):
        return [str(PythonLayer.environment / "bin/python"), str(PROGRAMS / "python_layers.py"),
                self.name, workload, *arguments(parameters)]


def roster():
    """All contenders, in the order of the report."""
    return [
        CProgram(
            "layer", "channel-layer (C)",
            "two layers in one process; remote_capacity and local_capacity 100000, expiry 60, "
            "prefetch_count 1000 unless said; dispatch=thread with one thread",
            {"throughput": "layer_send", "latency": "layer_send", "connect": "layer_connect",
             "fanout": "layer_fanout", "broadcast": "layer_broadcast", "groups": "layer_groups",
             "idle": "layer_idle", "slow": "layer_slow"},
            library_flags, "`make release` builds the library"),
        CProgram(
            "librabbitmq", "librabbitmq (C)",
            "two connections with a blocking thread each; at most 1000 messages wait for their "
            "confirm unless said; the socket is corked while the window is filled; prefetch 1000, "
            "a cumulative ack for every 500",
            {"throughput": "librabbitmq", "latency": "librabbitmq", "connect": "librabbitmq"},
            librabbitmq_flags, "the Debian packages librabbitmq-dev and pkg-config bring it "
                               "(`tests/deps.sh bench`)"),
        Lapin(),
        PythonLayer(
            "channels_rabbitmq", "channels_rabbitmq (Python)",
            "two layers in one event loop, 64 coroutines that each await their send; "
            "local_capacity (which is its prefetch) 1000, remote_capacity 100000"),
        PythonLayer(
            "redis_core", "channels_redis core (Python)",
            "two layers in one event loop, 64 coroutines that each await their send; capacity "
            "100000; a Redis of its own, without persistence", needs_redis=True),
        PythonLayer(
            "redis_pubsub", "channels_redis pubsub (Python)",
            "two layers in one event loop, 64 coroutines that each await their send; a Redis of "
            "its own, without persistence. A send is not confirmed by a receiver, and what nobody "
            "receives is lost", needs_redis=True),
    ]
