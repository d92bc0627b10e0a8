"""Who is measured: how each contender is built, started and described. To add one, add a row to
`roster`: a program that takes `WORKLOAD`s by NAME=VALUE arguments and prints one line of JSON."""

import os
import shlex
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = ROOT / "benches" / "programs"
BINDINGS = ROOT / "bindings"


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

    def __init__(self, name, title, settings, sources, flags):
        self.name, self.title, self.settings = name, title, settings
        self._sources = sources  # workload -> name of the program
        self._flags = flags  # target -> flags of the compiler; Missing says what to do
        self._folder = None

    def build(self, target):
        self._folder = target / "benches"
        self._folder.mkdir(parents=True, exist_ok=True)
        compiler = shlex.split(os.environ.get("CC", "cc"))
        flags = self._flags(target)
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


def library(target):
    """The library that all programs of ours are run with."""
    path = target / "release" / "libchannel_layer.so"
    if not path.exists():
        raise Missing(f"there is no {path}\n`make release` builds the library")
    return path


def library_flags(target):
    release = library(target).parent
    return [f"-I{ROOT}/include", f"-L{release}", "-lchannel_layer", f"-Wl,-rpath,{release}"]


def librabbitmq_flags(_target):
    try:
        return run(["pkg-config", "--cflags", "--libs", "librabbitmq"], "librabbitmq").split()
    except Missing as missing:
        raise Missing(f"{missing}\nthe Debian packages librabbitmq-dev and pkg-config bring it "
                      "(`tests/deps.sh bench`)") from missing


class Lapin(Contender):
    name = "lapin"
    title = "lapin, used plainly (Rust)"
    settings = ("one connection with two channels, tokio's threads; each publish is awaited with "
                "its confirm before the next, as in lapin's own example; prefetch 1000, each "
                "message is acked by itself")

    def __init__(self):
        self._program = None

    def build(self, target):
        # With the flags of the library, so that lapin is not compiled once more.
        run([ROOT / "packaging/build_release.sh", "-p", "channel-layer-bench-lapin"], self.title)
        self._program = target / "release" / "bench_lapin"

    def command(self, workload, parameters):
        if workload not in ("throughput", "latency", "connect"):
            return None
        return [str(self._program), f"measure={workload}", *arguments(parameters)]


class Binding(Contender):
    """A program of a binding: that of single messages, in its language. `start` is what starts it,
    once it is built."""

    start = ()

    def prepare(self, target):
        """Builds the program, and gives the words that start it."""
        raise NotImplementedError

    def build(self, target):
        (target / "benches").mkdir(parents=True, exist_ok=True)
        self.start = [str(word) for word in self.prepare(target)]

    def command(self, workload, parameters):
        if workload not in ("throughput", "latency"):
            return None
        return [*self.start, f"measure={workload}", *arguments(parameters)]


class Cpp(Binding):
    name = "cpp"
    title = "channel-layer (C++)"
    settings = ("two layers in one process, as in C; the program in C++ does what that in C does, "
                "with a lambda for each send")

    def prepare(self, target):
        program = target / "benches" / "layer_send_cpp"
        run([*shlex.split(os.environ.get("CXX", "c++")), "-std=c++17", "-O2", "-Wall", "-Wextra",
             "-Werror", "-pthread", f"-I{BINDINGS}/cpp/include",
             BINDINGS / "cpp/bench/layer_send.cpp", "-o", program, *library_flags(target)],
            self.title)
        return [program]


class Go(Binding):
    name = "go"
    title = "channel-layer (Go)"
    settings = ("two layers in one process; a goroutine sends with SendAsync, a closure for each "
                "send; Handle receives; for latency Send")

    def prepare(self, target):
        release, folder = library(target).parent, target / "benches"
        scratch = folder / "go"
        scratch.mkdir(exist_ok=True)
        # In the surroundings of the binding's own tests: no network, Debian's packages.
        run(["env", f"scratch={scratch}", f"CHANNEL_LAYER_TEST_LIBRARY={release}", "sh", "-eu",
             "-c", 'cd "$1" && . tests/environment.sh && go build -o "$2" ./bench', "sh",
             BINDINGS / "go", folder / "layer_send_go"], self.title)
        return ["env", f"LD_LIBRARY_PATH={release}", folder / "layer_send_go"]


class Ruby(Binding):
    name = "ruby"
    title = "channel-layer (Ruby)"
    settings = ("two layers in one process, each with a thread of Ruby that runs its blocks; a "
                "third sends Hashes with send_async, a lambda for each send; for latency send")

    def prepare(self, target):
        path = library(target)
        run(["ruby", "-e", 'require "ffi"; require "msgpack"'], self.title)
        return ["env", f"CHANNEL_LAYER_LIBRARY={path}", "ruby",
                BINDINGS / "ruby/bench/layer_send.rb"]


class PythonLayer(Contender):
    """One of the layers that python_layers.py drives; `ours` says whether it is of our binding."""

    environment = None  # that of all of them, once it is made

    def __init__(self, name, title, settings, needs_redis=False, ours=False):
        self.name, self.title, self.settings = name, title, settings
        self.needs_redis, self._ours = needs_redis, ours
        self._before = []

    def build(self, target):
        if self._ours:
            self._before = ["env", f"CHANNEL_LAYER_LIBRARY={library(target)}",
                            f"PYTHONPATH={BINDINGS}/python/src", "PYTHONDONTWRITEBYTECODE=1"]
        if PythonLayer.environment is None:
            made = run([ROOT / "tests/interop/environment.sh", "benches-venv",
                        "benches/requirements.txt"], self.title)
            PythonLayer.environment = ROOT / made
        if self.needs_redis:
            run(["redis-server", "--version"], self.title)

    def command(self, workload, parameters):
        return [*self._before, str(PythonLayer.environment / "bin/python"),
                str(PROGRAMS / "python_layers.py"), self.name, workload, *arguments(parameters)]


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
            library_flags),
        Cpp(),
        Go(),
        Ruby(),
        PythonLayer(
            "python", "channel-layer (Python)",
            "two layers in one event loop, 64 coroutines that each await their send; "
            "prefetch_count 1000, local_capacity and remote_capacity 100000", ours=True),
        PythonLayer(
            "django", "channel-layer's backend for Django Channels (Python)",
            "two layers in one event loop, 64 coroutines that each await their send; "
            "local_capacity (which is its prefetch) 1000, remote_capacity 100000, as "
            "channels_rabbitmq has it", ours=True),
        CProgram(
            "librabbitmq", "librabbitmq (C)",
            "two connections with a blocking thread each; at most 1000 messages wait for their "
            "confirm unless said; the socket is corked while the window is filled; prefetch 1000 "
            "unless said, a cumulative ack for each half of it; bindings are all written without "
            "waiting, and the last on each AMQP channel is answered",
            {"throughput": "librabbitmq", "latency": "librabbitmq", "connect": "librabbitmq",
             "groups": "librabbitmq_bind"},
            librabbitmq_flags),
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
