"""Builds a tree with a mutant in it, and runs tests on it until one fails."""

import json
import os
import queue
import re
import resource
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from sample import PURE, UPPER, MutantsError

CAUGHT = "caught"
TIMEOUT = "timeout"
SURVIVED = "survived"
UNVIABLE = "unviable"

# Tests that take seconds run last.
SLOW = ("fuzzing::tests::", "ffi::fuzzing::tests::", "back_pressure::tests::starvation::")
# Those of them that use the layer.
SLOW_ABOVE = ("ffi::fuzzing::tests::", "fuzzing::tests::replay::hostile_programs_")
# These need a RabbitMQ node.
LEFT_OUT = ("broker::rabbitmq::tests::",)

# Tests may hang if none ends for so long.
IDLE_SECONDS = 90
IDLE_SECONDS_OF_QUICK_TESTS = 30
# How often the state of their threads is looked at then, twice a second.
SLEEPING_SAMPLES = 10
# How many times as long they may take at most, on a machine that has no time for them.
MOST_IDLE = 20
# A mutant may allocate without end.
MOST_MEMORY = 8 << 30

RUST_RESULT = re.compile(r"\btest (\S+)(?: - should panic)? \.\.\. (ok|FAILED)")
C_RESULT = re.compile(r"^(ok|not ok) (\S+)")


@dataclass(frozen=True)
class Verdict:
    """The outcome of a mutant, and the test that caught it."""

    outcome: str
    by: str = ""


@dataclass(frozen=True)
class Result:
    """A test that has ended."""

    name: str
    passed: bool


def rust_result(line):
    found = RUST_RESULT.search(line)
    return found and Result(found[1], found[2] == "ok")


def c_result(line):
    found = C_RESULT.match(line)
    return found and Result(found[2], found[1] == "ok")


class Process:
    """A program whose output is read line by line, and which is killed with its children."""

    def __init__(self, command, **options):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))

        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=limit,
            **options,
        )
        self._lines = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with self._process.stdout as output:
            for line in output:
                self._lines.put(line)
        self._lines.put(None)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()

    def line(self, seconds):
        """The next line, None at the end; raises queue.Empty if none comes in time."""
        return self._lines.get(timeout=max(seconds, 0))

    def status(self):
        return self._process.wait()

    def _stats(self):
        """The fields of each thread of the group, from the state on."""
        for path in Path("/proc").glob("[0-9]*/task/*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended
            if int(fields[2]) == self._process.pid:
                yield fields

    def runs(self):
        """Whether one of its threads runs or waits for a processor or a disk."""
        return any(fields[0] in "RD" for fields in self._stats())

    def processor_seconds(self):
        """What its threads have used."""
        ticks = sum(int(fields[11]) + int(fields[12]) for fields in self._stats())
        return ticks / os.sysconf("SC_CLK_TCK")


def next_line(process, idle):
    """The next line, None at the end; raises queue.Empty if the tests hang.

    On a busy machine a test may wait for a processor for long. So it hangs only if all its threads
    sleep, or if they have used a processor for `idle` seconds.
    """
    try:
        return process.line(idle)
    except queue.Empty:
        used, until = process.processor_seconds(), time.monotonic() + MOST_IDLE * idle
    slept = 0
    while True:
        try:
            return process.line(0.5)
        except queue.Empty:
            slept = 0 if process.runs() else slept + 1
            spins = process.processor_seconds() - used > idle
            if slept >= SLEEPING_SAMPLES or spins or time.monotonic() > until:
                raise


def watch(command, read, confirm, idle=IDLE_SECONDS, **options):
    """Runs tests until one fails; `confirm` says whether a failed one fails again by itself.

    A test that fails once and not again is flaky and proves nothing, so the others go on.
    """
    last, unsure = "the first test", []
    with Process(command, **options) as process:
        began = time.monotonic()
        try:
            while (line := next_line(process, idle)) is not None:
                result = read(line)
                if result is None:
                    if time.monotonic() - began > MOST_IDLE * idle:
                        raise queue.Empty
                    continue
                last, began = result.name, time.monotonic()
                if not result.passed:
                    if confirm(last):
                        return Verdict(CAUGHT, last)
                    unsure.append(last)
            status = process.status()
        except queue.Empty:
            return Verdict(TIMEOUT, f"after {last}")
    if status < 0 or status > 128:
        number = -status if status < 0 else status - 128
        if unsure:
            raise MutantsError(f"the tests crash after what passes by itself: {', '.join(unsure)}")
        return Verdict(CAUGHT, f"signal {signal.Signals(number).name}")
    if status != 0 and not unsure:
        return Verdict(CAUGHT, f"exit status {status}")
    return Verdict(SURVIVED)


def always(_):
    return True


class Tree:
    """A copy of the tree, in which mutants are built."""

    def __init__(self, folder, target, seed):
        self.folder = Path(folder)
        self.target = Path(target)
        self.environment = {
            **os.environ,
            "CARGO_TARGET_DIR": str(self.target),
            # What differs from one mutant to the next is one file.
            "CARGO_INCREMENTAL": "1",
            # Takes most of the time that linking takes.
            "CARGO_PROFILE_DEV_DEBUG": "0",
            "CARGO_TERM_COLOR": "never",
            # A test that has failed runs again by itself.
            "PROPTEST_RNG_SEED": str(seed),
            # The C harness ends a case by the clock, and a busy machine is slow.
            "CHANNEL_LAYER_TEST_SLOWDOWN": "2",
        }
        self._conformance = self.target / "c-tests" / "conformance.run"

    def _cargo(self, *arguments):
        """The messages of cargo; None if the code does not compile. Other failures are errors."""
        cargo = os.environ.get("CARGO", "cargo")
        command = [cargo, *arguments, "--locked", "--message-format", "json"]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            text=True,
            capture_output=True,
            check=False,
        )
        messages = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode == 0:
            return messages
        errors = [
            message["message"]
            for message in messages
            if message["reason"] == "compiler-message" and message["message"]["level"] == "error"
        ]
        in_code = any(error["code"] or error["spans"] for error in errors)
        if not in_code:
            said = "\n".join(error["rendered"] for error in errors)
            raise MutantsError(f"{' '.join(command)} failed:\n{said}\n{done.stderr}")
        return None

    def _tests(self, *arguments):
        """The test program that cargo builds; None if it does not compile."""
        messages = self._cargo("test", "--no-run", *arguments)
        if messages is None:
            return None
        programs = [
            message["executable"]
            for message in messages
            if message["reason"] == "compiler-artifact"
            and message["executable"]
            and message["profile"]["test"]
        ]
        if len(programs) != 1:
            raise MutantsError(f"cargo test {' '.join(arguments)} built {len(programs)} programs")
        return programs[0]

    def _rust(self, program, names=(), skipped=(), idle=IDLE_SECONDS):
        """Runs the tests whose names have one of `names` in them, or all."""
        options = {"cwd": self.folder, "env": self.environment}

        def again(name):
            alone = watch([program, "--exact", name], rust_result, always, **options)
            return alone.outcome != SURVIVED

        skips = [word for name in (*skipped, *LEFT_OUT) for word in ("--skip", name)]
        return watch([program, *names, *skips], rust_result, again, idle, **options)

    def _list_in_c(self, host, *names):
        """The list of behaviours in C, or the cases with one of `names` in theirs, on a host."""
        if self._cargo("rustc", "--lib", "--crate-type", "cdylib") is None:
            raise MutantsError("the tests compile and the library does not")
        environment = {**self.environment, "CHANNEL_LAYER_TEST_HOST": host}
        options = {"cwd": self.folder, "env": environment}

        def again(name):
            alone = watch([self._conformance, name], c_result, always, **options)
            return alone.outcome != SURVIVED

        return watch([self._conformance, *names], c_result, again, **options)

    def _on_memory(self):
        return self._list_in_c("memory://conformance")

    def _offline(self):
        """Cases of RabbitMQ alone that need no node: each connection is refused."""
        return self._list_in_c("amqp://127.0.0.1:1/", "_nothing_listens")

    def prepare(self):
        """Builds what mutants do not change."""
        environment = {
            **self.environment,
            # Required, and not used for memory://.
            "CHANNEL_LAYER_TEST_AMQP": "none",
            "CHANNEL_LAYER_C_TEST_BROKERS": "memory",
            "CHANNEL_LAYER_TEST_OUTPUT": str(self.target),
        }
        for command in (["make", "build"], ["tests/c/run.sh", "conformance", "option"]):
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            if done.returncode != 0:
                raise MutantsError(f"{' '.join(command)} failed:\n{done.stdout}")

    def judge(self, file, part):
        """Runs the quickest tests first."""
        program = self._tests("--lib")
        if program is None:
            return Verdict(UNVIABLE)
        own = re.split(r"[/.]", file.removeprefix("src/"))[0] + "::"
        quick = {"skipped": SLOW, "idle": IDLE_SECONDS_OF_QUICK_TESTS}

        def neighbours():
            return self._rust(program, names=[own], **quick)

        def units():
            return self._rust(program, **quick)

        def slow_units():
            return self._rust(program, names=SLOW)

        def programs():
            return self._rust(program, names=SLOW_ABOVE)

        def documents():
            documents = self._tests("--test", "docs")
            return Verdict(CAUGHT, "docs") if documents is None else self._rust(documents)

        if part == PURE:
            stages = [neighbours, units, documents, slow_units, self._on_memory]
        elif part == UPPER:
            # A file imports only from rows above its own, so no other test can see these files.
            stages = [neighbours, self._offline, self._on_memory, programs]
        else:
            stages = [neighbours, units, self._offline, self._on_memory, slow_units]
        for stage in stages:
            verdict = stage()
            if verdict.outcome != SURVIVED:
                return verdict
        return verdict
