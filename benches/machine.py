"""What a run was made on: the machine, its load, the versions of all that takes part."""

import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/rabbitmq4"))

import server_version  # noqa: E402


def output(*command):
    """What a command prints, in one line; why it cannot, where it cannot."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"unknown ({command[0]}: {error.strerror})"
    lines = done.stdout.splitlines()
    if done.returncode != 0 or not lines:
        return f"unknown ({command[0]} ended with status {done.returncode})"
    return lines[0].strip()


def load():
    """The load averages over 1, 5 and 15 minutes."""
    return [round(value, 2) for value in os.getloadavg()]


def describe():
    """The machine."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    return {
        "cpu": model[1].strip() if model else platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "kernel": platform.release(),
    }


def redis_version():
    said = output("redis-server", "--version")
    found = re.search(r"\bv=(\S+)", said)
    return found[1] if found else said


def locked_version(package):
    """The version of a crate in Cargo.lock."""
    lock = (ROOT / "Cargo.lock").read_text(encoding="utf-8")
    found = re.search(rf'^name = "{re.escape(package)}"\nversion = "(.*)"$', lock, re.MULTILINE)
    return found[1] if found else "unknown"


def bindings_versions():
    """Of what the bindings stand on."""
    return {
        "C++ compiler": output(*shlex.split(os.environ.get("CXX", "c++")), "--version"),
        "Go": output("go", "version").removeprefix("go version "),
        "Ruby": output("ruby", "--version"),
        "ffi (gem)": output("ruby", "-e", 'require "ffi"; puts FFI::VERSION'),
        "msgpack (gem)": output("ruby", "-e", 'require "msgpack"; puts MessagePack::VERSION'),
    }


def versions(url, environment, bindings=False):
    """Of the broker at `url`, of the contenders and of what built them; `environment` is the
    folder of the Python packages, None without; `bindings` says whether they take part."""
    address = urlsplit(url)
    broker = server_version.server_properties(address.hostname, address.port or 5672)
    found = {
        "channel-layer": locked_version("channel-layer"),
        "RabbitMQ": broker.get("version", "unknown"),
        "Erlang": broker.get("platform", "unknown").removeprefix("Erlang/OTP "),
        **({} if bindings else {
            "librabbitmq": output("pkg-config", "--modversion", "librabbitmq")}),
        "lapin": locked_version("lapin"),
        "tokio": locked_version("tokio"),
        "rustc": output("rustc", "--version").removeprefix("rustc "),
        "C compiler": output(*shlex.split(os.environ.get("CC", "cc")), "--version"),
        **(bindings_versions() if bindings else {"Redis": redis_version()}),
        "Python": platform.python_version(),
    }
    if environment is not None:
        freeze = subprocess.run([environment / "bin/python", "-m", "pip", "freeze"],
                                capture_output=True, text=True, check=True)
        for line in freeze.stdout.splitlines():
            name, _, version = line.partition("==")
            if name.replace("-", "_") in ("channels_rabbitmq", "carehare", "channels_redis",
                                          "redis", "channels", "msgpack"):
                found[f"{name.replace('-', '_')} (PyPI)"] = version
    return found


# All that a figure depends on, but for the machine.
MEASURED = ["src", "include", "build.rs", "cbindgen.toml", "Cargo.toml", "Cargo.lock",
            "benches/programs", "benches/requirements.txt", "benches/contenders.py",
            "benches/workloads.py", "benches/run.py"]
# The same for the bindings; not their tests, examples and documents.
BINDINGS_MEASURED = [
    "bindings/cpp/include", "bindings/cpp/bench",
    *(f"bindings/go/{name}" for name in
      ("bench", "calls.go", "depth.go", "enums.go", "errors.go", "layer.go", "message.go",
       "raw.go", "receive.go", "send.go", "shim.c", "shim.h", "static.go", "values.go", "go.mod",
       "go.sum", "tests/environment.sh")),
    "bindings/ruby/lib", "bindings/ruby/bench", "bindings/python/src"]


def measured(bindings):
    return [*MEASURED, *BINDINGS_MEASURED] if bindings else MEASURED


def commit(bindings=False):
    """The commit that is measured, whether what is measured has changes beside it, and a hash of
    that: two commits with the same one are measured as one. `bindings` says whether they are
    measured too."""
    paths = measured(bindings)
    described = output("git", "describe", "--always", "--tags")
    status = subprocess.run(["git", "status", "--porcelain", "--", *paths],
                            cwd=ROOT, capture_output=True, text=True, check=False)
    tree = subprocess.run(["git", "ls-tree", "-r", "HEAD", "--", *paths],
                          cwd=ROOT, capture_output=True, check=False)
    return {"name": described, "dirty": bool(status.stdout.strip()) or status.returncode != 0,
            "source": hashlib.sha256(tree.stdout).hexdigest()[:16]}
