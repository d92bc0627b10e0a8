"""Mutants of the library: which there are, and which of them a sample has, in which order."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

PURE = "pure"
UPPER = "upper"
OTHER = "other"

# In the order of the table: the name of each part, and how many per cent the tests are to catch.
PARTS = {PURE: "the pure modules", UPPER: "`src/layer` and `src/ffi`"}
WANTED = {PURE: 90, UPPER: 80}

# Not in the library that users link: code for tests, and code behind a feature.
LEFT_OUT = re.compile(
    r"src/(ffi/)?fuzzing(/|\.rs$)|.*/tests?(/|\.rs$)|.*testing\.rs$|src/layer/tracing_log\.rs$"
)
ROW_OF_FLOOR = re.compile(r"^\| (\d) \| (.*?) \|", re.MULTILINE)
HUNK = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@")


class MutantsError(Exception):
    """The mutants cannot be judged."""


@dataclass(frozen=True)
class Identity:
    """Identifies a mutant, also after lines were added elsewhere in its file."""

    file: str
    change: str
    line: str
    # Counts those that are alike in all else.
    number: int = 1

    def digest(self, seed):
        text = "\0".join([str(seed), self.file, self.change, self.line, str(self.number)])
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Mutant:
    """A change of one file, which a test is to catch."""

    identity: Identity
    part: str
    diff: str


def pure_places(architecture):
    """The files and folders of floor 0, as ARCHITECTURE.md names them."""
    rows = ROW_OF_FLOOR.findall(architecture)
    places = [place for floor, names in rows if floor == "0" for place in names.split("`")[1::2]]
    if not places:
        raise MutantsError("ARCHITECTURE.md names no file of floor 0")
    return places


def part_of(file, pure):
    """The part that a file belongs to; None if its mutants do not count."""
    if not file.startswith("src/") or LEFT_OUT.match(file):
        return None
    below = file.removeprefix("src/")
    if any(below == place or (place.endswith("/") and below.startswith(place)) for place in pure):
        return PURE
    if below.startswith(("layer/", "ffi/")):
        return UPPER
    return OTHER


def mutants_of(listed, source_of, pure):
    """Those that `cargo mutants --list --json --diff` lists; `source_of` reads a file."""
    found, seen, lines = [], Counter(), {}
    for entry in listed:
        file = entry["file"]
        part = part_of(file, pure)
        if part is None:
            continue
        if file not in lines:
            lines[file] = source_of(file).splitlines()
        place, change = entry["name"].split(": ", 1)
        if not place.startswith(f"{file}:"):
            raise MutantsError(f"cargo-mutants names a mutant of {file} in an unknown way: {place}")
        line = lines[file][entry["span"]["start"]["line"] - 1].strip()
        seen[file, change, line] += 1
        identity = Identity(file, change, line, seen[file, change, line])
        found.append(Mutant(identity, part, entry["diff"]))
    return found


def in_order(mutants, seed):
    """By a hash of each, so that any beginning of the order is a fair sample of the whole."""
    return sorted(mutants, key=lambda mutant: mutant.identity.digest(seed))


def sample(mutants, seed, size):
    """`size` of each part, in turns, so that a run that ends early has as many of both."""
    ordered = in_order(mutants, seed)
    columns = [[m for m in ordered if m.part == part][:size] for part in PARTS]
    return [column[at] for at in range(size) for column in columns if at < len(column)]


def apply(diff, text):
    """The text after a diff of it, which must fit exactly."""
    result, taken = [], 0
    old = text.splitlines(keepends=True)
    left = 0
    for line in diff.splitlines(keepends=True):
        if left == 0:
            hunk = HUNK.match(line)
            if hunk:
                start = int(hunk[1]) - 1
                left = int(hunk[2] or 1)
                result += old[taken:start]
                taken = start
                continue
        mark, content = line[:1], line[1:]
        if mark == "+" and not line.startswith("+++ "):
            result.append(content)
        elif left > 0 and mark in (" ", "-"):
            if taken >= len(old) or old[taken].rstrip("\n") != content.rstrip("\n"):
                raise MutantsError(f"a diff does not fit its file:\n{diff}")
            if mark == " ":
                result.append(old[taken])
            taken += 1
            left -= 1
    if left or taken == 0:
        raise MutantsError(f"a diff has no end or no beginning:\n{diff}")
    result += old[taken:]
    return "".join(result)
