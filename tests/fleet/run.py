#!/usr/bin/env python3
"""Lets one process per language share a group on one broker, and shows who received whom.

    run.py [NAME...]    all members, or those

Needs the library (CHANNEL_LAYER_TEST_LIBRARY, or target/debug) and in CHANNEL_LAYER_TEST_AMQP the
URL of a RabbitMQ node; `make fleet` provides both. README.md beside this says what a member does.
Closes with `N passed, N failed`: a test is that one member received another's message whole.
"""

import os
import queue
import secrets
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEMBERS = Path(__file__).resolve().parent / "members"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
LIBRARY = Path(os.environ.get("CHANNEL_LAYER_TEST_LIBRARY", TARGET / "debug")).resolve()
OUTPUT = Path(os.environ.get("CHANNEL_LAYER_TEST_OUTPUT", TARGET)).resolve() / "fleet"

JOIN_SECONDS = 60  # a Go program or a Django site starts in one or two
ANSWER_SECONDS = 30


class CannotStart(Exception):
    """A member could not be built or did not join; the message says why."""


def built(command, what, **environment):
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False,
                          env={**os.environ, **environment})
    if done.returncode != 0:
        raise CannotStart(f"{what} does not build: {shlex.join(map(str, command))}\n"
                          f"{done.stdout}{done.stderr}")


def linked():
    return ["-L", LIBRARY, "-lchannel_layer", f"-Wl,-rpath,{LIBRARY}"]


def c_member():
    program = OUTPUT / "member-c"
    built([*shlex.split(os.environ.get("CC", "cc")), "-std=c11", "-Wall", "-Wextra", "-Werror",
           "-O1", "-g", "-pthread", "-Iinclude", "-Itests/c", MEMBERS / "member.c", "-o", program,
           *linked()], "the member in C")
    return [program], {}


def cpp_member():
    program = OUTPUT / "member-cpp"
    built([*shlex.split(os.environ.get("CXX", "c++")), "-std=c++17", "-Wall", "-Wextra", "-Werror",
           "-O1", "-g", "-pthread", "-Iinclude", "-Ibindings/cpp/include", MEMBERS / "member.cpp",
           "-o", program, *linked()], "the member in C++")
    return [program], {}


def go_member():
    """Built as the tests of the binding are, in its module."""
    program = OUTPUT / "member-go"
    script = ("set -eu; cd bindings/go; scratch=$(mktemp -d); trap 'rm -rf \"$scratch\"' EXIT; "
              ". tests/environment.sh; go build -o \"$1\" ./tests/fleet")
    built(["sh", "-c", script, "go-member", program], "the member in Go",
          CHANNEL_LAYER_TEST_LIBRARY=str(LIBRARY))
    return [program], {"LD_LIBRARY_PATH": str(LIBRARY)}


def ruby_member():
    return (["ruby", "-I", "bindings/ruby/lib", MEMBERS / "member.rb"],
            {"CHANNEL_LAYER_LIBRARY": str(LIBRARY / "libchannel_layer.so.0")})


def python_member():
    python = python_of("python-venv", "bindings/python/tests/requirements.txt")
    return [python, MEMBERS / "python_member.py"], {
        "PYTHONPATH": str(ROOT / "bindings/python/src"),
        "CHANNEL_LAYER_LIBRARY": str(LIBRARY)}


def python_of(name, requirements):
    """The interpreter of an environment with these packages; made if it is not there."""
    done = subprocess.run(["tests/interop/environment.sh", name, requirements], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CannotStart(f"{requirements} cannot be installed:\n{done.stderr}")
    return ROOT / done.stdout.strip() / "bin/python"


def django_member():
    python = python_of("interop-venv", "tests/interop/requirements.txt")
    return [python, "-W", "ignore", MEMBERS / "django_consumer.py"], {}


STARTERS = {
    "c": c_member,
    "cpp": cpp_member,
    "go": go_member,
    "ruby": ruby_member,
    "python": python_member,
    "django": django_member,
}


class Member:
    """A process of the fleet, and the lines that it says."""

    def __init__(self, name, group):
        command, environment = STARTERS[name]()
        self.name = name
        self.lines = queue.Queue()
        self.process = subprocess.Popen(
            [*map(str, command), os.environ["CHANNEL_LAYER_TEST_AMQP"], group, name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8", cwd=ROOT,
            env={**os.environ, **environment})
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def say(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def next_line(self, deadline):
        """What it says next; an error in words where it says nothing."""
        try:
            line = self.lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return "says nothing in time"
        if line is None:
            self.lines.put(None)
            return f"has ended with status {self.process.wait()}"
        return line

    def end(self):
        """Ends it as its README says; its status, or why it has none."""
        try:
            self.process.stdin.close()
            return self.process.wait(timeout=ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "it did not end"
        except BrokenPipeError:
            return self.process.wait()


def broadcast(sender, members):
    """Lets one send; by the receiver's name, what it said of it, `got` where all was right."""
    sender.say("send")
    deadline = time.monotonic() + ANSWER_SECONDS
    said = {}
    for member in members:
        # `sent` may come before or after the member's own message.
        wanted = 2 if member is sender else 1
        lines = [member.next_line(deadline) for _ in range(wanted)]
        if member is sender and "sent" in lines:
            lines.remove("sent")
        said[member.name] = "got" if lines == [f"got {sender.name}"] else "; ".join(lines)
    return said


def show(names, results):
    width = max(map(len, names)) + 2
    print("sender \\ receiver".ljust(20) + "".join(name.ljust(width) for name in names))
    for sender in names:
        row = results[sender]
        print(sender.ljust(20) + "".join(
            ("yes" if row[name] == "got" else "NO").ljust(width) for name in names))
    for sender in names:
        for receiver in names:
            if results[sender][receiver] != "got":
                print(f"from {sender} to {receiver}: {results[sender][receiver]}")


def main(names):
    unknown = [name for name in names if name not in STARTERS]
    if unknown:
        sys.exit(f"run.py: there is no member {unknown[0]!r}; there are: {' '.join(STARTERS)}")
    if "CHANNEL_LAYER_TEST_AMQP" not in os.environ:
        sys.exit("run.py: CHANNEL_LAYER_TEST_AMQP names no broker; start this by `make fleet`")
    names = names or list(STARTERS)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    group = f"fleet-{secrets.token_hex(8)}"
    members, failed = [], 0
    try:
        for name in names:
            members.append(Member(name, group))
        deadline = time.monotonic() + JOIN_SECONDS
        for member in members:
            line = member.next_line(deadline)
            if line != "joined":
                raise CannotStart(f"the member {member.name} has not joined: it {line}")
        results = {member.name: broadcast(member, members) for member in members}
        show(names, results)
        outcomes = [said == "got" for row in results.values() for said in row.values()]
        for member in members:
            status = member.end()
            if status != 0:
                print(f"{member.name} ended with {status}")
            outcomes.append(status == 0)
        failed = outcomes.count(False)
        print(f"{outcomes.count(True)} passed, {failed} failed")
    except CannotStart as problem:
        print(f"run.py: {problem}", file=sys.stderr)
        print("0 passed, 1 failed")
        failed = 1
    finally:
        for member in members:
            if member.process.poll() is None:
                member.process.kill()
                member.process.wait()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
