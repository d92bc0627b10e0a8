#!/usr/bin/env python3
"""Counts instructions and allocations of floor 0: counts.py [NAME...]

Without a name it writes what it finds into counts.txt; with names it prints only those, and writes
nothing. `test_counts.py` holds the library against what is written.

Instructions are those that callgrind counts. They depend on the compiler, on the C library, of which
copying and allocating are part, and on valgrind, which says what the processor can do; and a little
on the seed of the hashes: one in a hundred makes a large table twice as slow. Allocations depend on
none of these.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RECORD = HERE / "counts.txt"

# How far instructions may be from those that are recorded.
TOLERANCE = Fraction(3, 100)
# The same where the seed of the hashes decides: it moves a table of 100,000 by up to a third.
TOLERANCE_OF_LARGE_TABLES = Fraction(1, 2)
LARGE_TABLE = "/100000"
# How little they may be from them to be recorded as the same.
SAME = Fraction(1, 100)
# Odd, so that one is in the middle.
RUNS = 3
# What begins the line that names compiler, C library and valgrind.
ENVIRONMENT = "# counted with "
MEASURED = "count::measured"


@dataclass(frozen=True)
class Counts:
    """What one operation takes."""

    instructions: int
    allocations: Fraction
    bytes: Fraction


@dataclass(frozen=True)
class Table:
    """All counts, and with what they were found."""

    environment: str
    rows: dict[str, Counts]


class CountsError(Exception):
    """Nothing could be counted."""


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise CountsError(f"{command[0]} ended with status {done.returncode}:\n{done.stderr}")
    return done.stdout


def environment():
    """What instructions depend on beside the code."""
    rustc = run([os.environ.get("RUSTC", "rustc"), "--version"]).strip()
    libc = os.confstr("CS_GNU_LIBC_VERSION")
    valgrind = run(["valgrind", "--version"]).strip()
    return f"{rustc}, {platform.machine()}, {libc}, {valgrind}"


def build():
    """Builds the program that counts; returns where it is."""
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "build", "--locked", "--profile", "count", "--package", "channel-layer-pure"]
    lines = run([*command, "--bin", "count", "--message-format", "json"], cwd=ROOT).splitlines()
    for message in map(json.loads, lines):
        if message.get("target", {}).get("name") == "count" and message.get("executable"):
            return Path(message["executable"])
    raise CountsError("cargo has built no program 'count'")


def measure(names=()):
    """Builds and runs the program that counts: a few times, and takes what is in the middle."""
    program = build()
    runs = [measure_once(program, names, number) for number in range(RUNS)]
    rows = {}
    for name in runs[0]:
        one, *others = [rows[name] for rows in runs]
        for other in others:
            if (one.allocations, one.bytes) != (other.allocations, other.bytes):
                raise CountsError(f"{name} does not allocate the same in each run")
        instructions = sorted(rows[name].instructions for rows in runs)[RUNS // 2]
        rows[name] = replace(one, instructions=instructions)
    if not rows:
        raise CountsError("the program 'count' has counted nothing")
    return Table(environment(), rows)


def measure_once(program, names, number):
    """One run. The seed of the hashes comes from where the stack is, hence from `number`."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise CountsError("there is no valgrind here: tests/deps.sh installs it")
    with tempfile.TemporaryDirectory() as folder:
        command = [valgrind, "--tool=callgrind", f"--callgrind-out-file={folder}/out"]
        # One file for each call of it, numbered from 1.
        command += [f"--toggle-collect={MEASURED}", f"--dump-after={MEASURED}"]
        # Nothing of this machine's paths, which would move it too.
        environ = {"PATH": os.defpath, "MOVES_THE_STACK": number * 64 * "-"}
        rows = {}
        output = run([*command, f"./{program.name}", *names], env=environ, cwd=program.parent)
        for case, line in enumerate(output.splitlines(), start=1):
            name, repeat, allocations, size = line.split()
            rows[name] = Counts(
                round(Fraction(collected(Path(folder, f"out.{case}")), int(repeat))),
                Fraction(int(allocations), int(repeat)),
                Fraction(int(size), int(repeat)),
            )
        return rows


def collected(path):
    """The instructions in a file of callgrind."""
    try:
        found = re.search(r"^totals: (\d+)$", path.read_text(), re.MULTILINE)
    except FileNotFoundError:
        found = None
    if found is None or found.group(1) == "0":
        raise CountsError(f"callgrind has not seen one call of {MEASURED} for each case")
    return int(found.group(1))


def shown(number):
    return f"{float(number):.3f}".rstrip("0").rstrip(".")


def to_text(table):
    """The table as it is written, sorted by name."""
    lines = [
        "# What one operation of floor 0 takes. `make counts` writes this anew; the stage `counts`",
        "# of the tests fails where instructions differ by more than 3 % (50 % for tables of 100,000),",
        "# or allocations at all.",
        ENVIRONMENT + table.environment,
        f"{'# operation':<46} {'instructions':>12} {'allocations':>12} {'bytes':>12}",
    ]
    for name, row in sorted(table.rows.items()):
        numbers = [str(row.instructions), shown(row.allocations), shown(row.bytes)]
        lines.append(f"{name:<46} " + " ".join(f"{number:>12}" for number in numbers))
    return "\n".join(lines) + "\n"


def from_text(text):
    found = None
    rows = {}
    for line in text.splitlines():
        if line.startswith(ENVIRONMENT):
            found = line.removeprefix(ENVIRONMENT)
        elif not line.startswith("#"):
            name, instructions, allocations, size = line.split()
            rows[name] = Counts(int(instructions), Fraction(allocations), Fraction(size))
    if found is None or not rows:
        raise CountsError("counts.txt names no counts, or not with what they were found")
    return Table(found, rows)


def rows_that_differ(recorded, measured):
    """Names that are only in one of the tables."""
    words = [f"{name}: is not recorded" for name in measured.rows if name not in recorded.rows]
    words += [f"{name}: is not there any more" for name in recorded.rows if name not in measured.rows]
    return sorted(words)


def allocations_that_differ(recorded, measured):
    """In words, sorted; rows that are only in one table are not among them."""
    words = []
    for name in sorted(recorded.rows.keys() & measured.rows.keys()):
        old, new = recorded.rows[name], measured.rows[name]
        was = [shown(old.allocations), shown(old.bytes)]
        now = [shown(new.allocations), shown(new.bytes)]
        if was != now:
            words.append(
                f"{name}: {now[0]} allocations of {now[1]} bytes, recorded are {was[0]} of {was[1]}"
            )
    return words


def instructions_that_differ(recorded, measured):
    """In words, sorted; rows that are only in one table are not among them."""
    words = []
    for name in sorted(recorded.rows.keys() & measured.rows.keys()):
        old, new = recorded.rows[name].instructions, measured.rows[name].instructions
        large = name.endswith(LARGE_TABLE)
        if abs(new - old) > (TOLERANCE_OF_LARGE_TABLES if large else TOLERANCE) * old:
            change = 100 * (new - old) / old
            words.append(f"{name}: {new} instructions, recorded are {old} ({change:+.1f} %)")
    return words


def renewed(recorded, measured):
    """What to record. A row stays as it is while it is as good as the same, so that a change of the
    file shows what has changed."""
    if recorded.environment != measured.environment:
        return measured
    rows = dict(measured.rows)
    for name, new in measured.rows.items():
        old = recorded.rows.get(name, new)
        # From what is recorded, so that small steps add up to one that is seen.
        if abs(new.instructions - old.instructions) <= SAME * old.instructions:
            rows[name] = replace(new, instructions=old.instructions)
    return replace(measured, rows=rows)


def main(names):
    try:
        table = measure(names)
        if names:
            print(to_text(table), end="")
        else:
            if RECORD.exists():
                table = renewed(from_text(RECORD.read_text()), table)
            RECORD.write_text(to_text(table))
    except CountsError as error:
        sys.exit(f"counts: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
