"""Runs the programs about the process itself, and hands what they claim to a report."""

import contextlib
import os
import signal
import subprocess
import threading

import programs
import rabbitmq

MEMORY = "memory://faults"


def start(name, *arguments, program=None, **options):
    """Starts tests/faults/programs/`name`.c with its output to be read."""
    command = [str(program or programs.build(name)), *(str(argument) for argument in arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, bufsize=1, **options)


def follow(report, process, limit, label="", on_line=None):
    """Hands each claim of `process` to the report until it ends, which must be by itself, with
    status 0 and within `limit` seconds. `on_line` is told the lines that are no claim."""
    prefix = f"{label}: " if label else ""
    timed_out = threading.Event()

    def give_up():
        timed_out.set()
        process.kill()

    timer = threading.Timer(limit, give_up)
    timer.start()
    claims = 0
    other = []
    try:
        for line in process.stdout:
            kind, _, rest = line.rstrip("\n").partition("\t")
            claim, _, figure = rest.partition("\t")
            if kind in ("holds", "fails"):
                claims += 1
                report.check(prefix + claim, kind == "holds", figure)
            elif kind == "figure":
                report.figure(prefix + claim, figure)
            elif on_line is None or not on_line(process, line.rstrip("\n")):
                other.append(line.rstrip("\n"))
        status = process.wait()
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            pipe.close()
    said = "; ".join(other[-5:])
    if timed_out.is_set():
        report.check(f"{prefix}the program ends within {limit} s", False, said)
    else:
        report.check(f"{prefix}the program ends by itself and in order",
                     status == 0 and claims > 0, f"{ending(status)}, {claims} claims {said}")


def run(report, name, *arguments, limit, label="", on_line=None):
    """Starts a program and follows it to its end."""
    follow(report, start(name, *arguments), limit, label, on_line)


def ending(status):
    """How a return code of subprocess reads."""
    return f"status {status}" if status >= 0 else f"ended by {signal.Signals(-status).name}"


def cpu_of(pid):
    """The CPU seconds that a process has used."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_of(pid):
    """The resident memory of a process in MiB."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextlib.contextmanager
def broker(short):
    """A broker that is only used: for a short form the one of `make test`, if that is there; else
    a node of the row's own. Gives its URL and the pid of its virtual machine."""
    url = os.environ.get("CHANNEL_LAYER_TEST_AMQP")
    if short and url:
        yield url, int(os.environ["CHANNEL_LAYER_TEST_AMQP_PID"])
        return
    with rabbitmq.Node() as node:
        try:
            yield node.url(), node.pid
        finally:
            # One that has 100,000 bindings to delete takes longer to stop than anybody waits.
            if node.running():
                node.kill9()


def say(_process, line):
    """Takes a line that is no claim, and shows it."""
    print(f"    {line}", flush=True)
    return True


def run_peer(report, script, *arguments, limit):
    """Runs tests/faults/`script` with the Python packages of the interop tests."""
    made = subprocess.run([programs.ROOT / "tests/interop/environment.sh"], capture_output=True,
                          text=True, check=True)
    python = programs.ROOT / made.stdout.strip() / "bin/python"
    here = programs.ROOT / "tests/faults"
    follow(report, start("", here / script, *arguments, program=python), limit, on_line=say)
