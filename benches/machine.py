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


def versions(url, environment):
    """Of the broker at `url`, of the contenders and of what built them; `environment` is the
    folder of the Python packages, None without."""
    address = urlsplit(url)
    broker = server_version.server_properties(address.hostname, address.port or 5672)
    found = {
        "channel-layer": locked_version("channel-layer"),
        "RabbitMQ": broker.get("version", "unknown"),
        "Erlang": broker.get("platform", "unknown").removeprefix("Erlang/OTP "),
        "librabbitmq": output("pkg-config", "--modversion", "librabbitmq"),
        "lapin": locked_version("lapin"),
        "tokio": locked_version("tokio"),
        "rustc": output("rustc", "--version").removeprefix("rustc "),
        "C compiler": output(*shlex.split(os.environ.get("CC", "cc")), "--version"),
        "Redis": redis_version(),
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


def commit():
    """The commit that is measured, whether what is measured has changes beside it, and a hash of
    that: two commits with the same one are measured as one."""
    described = output("git", "describe", "--always", "--tags")
    status = subprocess.run(["git", "status", "--porcelain", "--", *MEASURED],
                            cwd=ROOT, capture_output=True, text=True, check=False)
    tree = subprocess.run(["git", "ls-tree", "-r", "HEAD", "--", *MEASURED],
                          cwd=ROOT, capture_output=True, check=False)
    return {"name": described, "dirty": bool(status.stdout.strip()) or status.returncode != 0,
            "source": hashlib.sha256(tree.stdout).hexdigest()[:16]}
