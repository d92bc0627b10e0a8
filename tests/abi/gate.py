#!/usr/bin/env python3
"""Tells whether include/channel_layer.h still keeps its promise to programs that are built already.

    gate.py renew [--break]     records the ABI of the header, where that is compatible: `make abi`
    gate.py stub [HEADER]       prints the C stub of a header

The stage `abi` of the tests compares; `difference` below is what it asks.

What is compared is not the library, in whose debug information a Rust struct behind an opaque
handle looks like a part of the ABI, but a library made from the header alone: a stub that defines
each function and uses each type, enum and constant. tests/abi/README.md says more.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from os import environ
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "include" / "channel_layer.h"
ABI = ROOT / "tests" / "abi"
DUMP = ABI / "channel_layer.abi"
SYMBOLS = ABI / "symbols.txt"
# The release from which on nothing that a program can notice may change in this ABI.
FIRST_RELEASE = "0.1.0"
FROZEN_HEADER = ABI / FIRST_RELEASE / "channel_layer.h"

sys.path.insert(0, str(ROOT / "tests" / "bindings"))
import api  # noqa: E402  its place is known only now

# These change with each release and mean nothing to the linker.
VERSION_CONSTANTS = re.compile(r"LAYER_VERSION(_MAJOR|_MINOR|_PATCH)?")
# A dialect that does not move with the compiler: from C23 on, the header gives its enums a type.
COMPILE = [
    *("-std=c11", "-g", "-shared", "-fPIC"),
    *("-fno-eliminate-unused-debug-types", "-fno-eliminate-unused-debug-symbols"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"),
]
DUMP_OPTIONS = ["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs"]
# Additions break nobody; and the dump is of another machine than perhaps this one.
DIFF_OPTIONS = ["--no-added-syms", "--no-architecture", "--no-show-locs"]


class Refused(Exception):
    """What was asked for is not done; the text says why."""


def run(command, **options):
    try:
        return subprocess.run(command, text=True, capture_output=True, check=False, **options)
    except FileNotFoundError as missing:
        raise Refused(f"{command[0]} is missing; 'make deps' installs it") from missing


def succeed(command, **options):
    result = run(command, **options)
    if result.returncode != 0:
        raise Refused(f"{shlex.join(map(str, command))} failed:\n{result.stdout}{result.stderr}")
    return result.stdout


def declare(parameters):
    return ", ".join(f"{kind} {name}" for kind, name in parameters) or "void"


def stub_of(header):
    """C that has all of the ABI: the compiler holds it against the header's own declarations."""
    parts = api.read(header)
    lines = ['#include "channel_layer.h"', ""]
    for name, function in sorted(parts["functions"].items()):
        kind = function["result"]
        body = "" if kind == "void" else " return 0; "
        lines.append(f"{kind} {name}({declare(function['parameters'])}) {{{body}}}")
    lines.append("")
    # In C, the functions take the integers that the enums are carried in, so that only these
    # variables tie the enums themselves to the library. The same holds for the constants.
    lines += [f"enum {name} abi_{name};" for name in sorted(parts["enums"])]
    lines += [f"{name} abi_typedef_{name};" for name in sorted(parts["enums"])]
    lines += [f"{name} abi_{name};" for name in sorted(parts["callbacks"])]
    lines += [f"{name} *abi_{name};" for name in sorted(parts["handles"])]
    for name, value in sorted(parts["constants"].items()):
        if VERSION_CONSTANTS.fullmatch(name):
            continue
        if not isinstance(value, int) or value < 0:
            raise Refused(f"{name} is {value!r}: the stub can only hold a number from 0 up")
        lines.append(f"char abi_{name}[{name} + 1];")
    return "\n".join(lines) + "\n"


def symbols_of(header):
    """The functions that a program which was built with this header may ask for."""
    return sorted(api.read(header)["functions"])


def exports_of(library):
    """What a library offers to the linker."""
    lines = succeed(["nm", "-D", "--defined-only", library]).splitlines()
    return sorted(line.split()[-1] for line in lines)


def build_stub(header, folder):
    source, library = Path(folder) / "stub.c", Path(folder) / "libstub.so"
    source.write_text(stub_of(header), encoding="utf-8")
    compiler = shlex.split(environ.get("CC") or "gcc")
    # By its name alone, as a program includes it, from whichever folder it is in.
    include = ["-I", str(Path(header).resolve().parent)]
    succeed([*compiler, *COMPILE, *include, "stub.c", "-o", library.name], cwd=folder)
    return library


def versions():
    first = [
        run([*command, "--version"]).stdout.splitlines()[0].strip()
        for command in (["abidw"], shlex.split(environ.get("CC") or "gcc"))
    ]
    return " and ".join(first)


def dump_of(header):
    with tempfile.TemporaryDirectory() as folder:
        return succeed(["abidw", *DUMP_OPTIONS, build_stub(header, folder)])


def difference(dump, header):
    """What abidiff says of the way from a dump to a header: None if nothing breaks."""
    with tempfile.TemporaryDirectory() as folder:
        result = run(["abidiff", *DIFF_OPTIONS, dump, build_stub(header, folder)])
    # Bits 0 and 1: it could not do its work. Bit 2: something changed. Bit 3: and surely breaks.
    if result.returncode & 3:
        raise Refused(f"abidiff failed:\n{result.stdout}{result.stderr}")
    return result.stdout if result.returncode else None


def is_released(changelog=ROOT / "CHANGELOG.md"):
    text = changelog.read_text(encoding="utf-8")
    heading = re.search(rf"^## \[?{re.escape(FIRST_RELEASE)}\b.*$", text, re.MULTILINE)
    if not heading:
        raise Refused(f"CHANGELOG.md has no heading '## {FIRST_RELEASE}'")
    return "unreleased" not in heading[0].lower()


def break_of_the_first_release():
    """As `difference`, from the header of the first release to that of today."""
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / "first.abi"
        dump.write_text(dump_of(FROZEN_HEADER), encoding="utf-8")
        return difference(dump, HEADER)


def renew(may_break):
    broken = difference(DUMP, HEADER) if DUMP.exists() else None
    if broken and not may_break:
        raise Refused(
            f"{broken}\nNothing was written: this is no addition, it breaks programs that are built"
            " already. Where no release has had what changed, ABI_BREAK=1 records it all the same."
        )
    if broken and is_released() and (broken := break_of_the_first_release()):
        raise Refused(
            f"{broken}\nNothing was written: {FIRST_RELEASE} is released, and this breaks its programs."
            " A new ABI has a new SONAME (build.rs), a new LAYER_ABI_VERSION and a first release of"
            " its own (FIRST_RELEASE in tests/abi/gate.py)."
        )
    first, rest = dump_of(HEADER).split("\n", 1)
    DUMP.write_text(f"{first}\n  <!-- made by {versions()}; make abi -->\n{rest}", encoding="utf-8")
    SYMBOLS.write_text("".join(f"{name}\n" for name in symbols_of(HEADER)), encoding="utf-8")
    if not is_released():
        FROZEN_HEADER.parent.mkdir(exist_ok=True)
        FROZEN_HEADER.write_bytes(HEADER.read_bytes())


def main(arguments):
    if arguments in (["renew"], ["renew", "--break"]):
        renew("--break" in arguments)
        print(f"The ABI of the header is recorded: {len(symbols_of(HEADER))} functions.")
    elif arguments[:1] == ["stub"] and len(arguments) <= 2:
        print(stub_of(arguments[1] if len(arguments) == 2 else HEADER), end="")
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (Refused, api.Unreadable) as problem:
        sys.exit(f"abi: {problem}")
