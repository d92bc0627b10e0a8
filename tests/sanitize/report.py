#!/usr/bin/env python3
"""What a sanitizer found: reads the reports that it wrote into a folder, a file for each process.

    report.py TOOL FOLDER                     prints all findings, then one line that sums up; the
                                              exit status is 1 if there are any
    report.py TOOL FOLDER --expect KIND TEXT  succeeds if there is a finding of this kind whose
                                              report holds TEXT

TOOL is valgrind, address or thread. One file for each process, since the exit status of a forked
child says what its test wants to know, and not what was found in it.
"""

import argparse
import re
import sys
from pathlib import Path


class Found:
    """What was found in the processes of a run."""

    def __init__(self):
        self.processes = 0
        self.unfinished = 0  # processes that ended without a summary, such as by a signal
        self.findings = []  # kind and report
        self.suppressed = {}  # name of the suppression: how often it matched
        self.left_out = 0  # leaks in children that only forked


# --- valgrind -------------------------------------------------------------------------------

# A record is what stands between empty lines.
LEAK = re.compile(r"[\d,]+ (?:\([^)]*\) )?bytes in [\d,]+ blocks are "
                  r"(definitely|possibly) lost")
USED = re.compile(r"^used_suppression: +(\d+) (\S+)", re.MULTILINE)
# The list at the end repeats what was reported before.
REPEATED = re.compile(r"\d+ errors? in context \d+ of \d+:")
STACK = re.compile(r"^ +at 0x", re.MULTILINE)


def read_valgrind(folder):
    found = Found()
    logs = {}
    for path in sorted(folder.glob("valgrind.*")):
        text = re.sub(r"^==\d+== ?|^--\d+-- ?", "", path.read_text(errors="replace"), flags=re.M)
        command = re.search(r"^Command: (.*)$", text, re.M)
        parent = re.search(r"^Parent PID: (\d+)$", text, re.M)
        pid = path.suffix[1:]
        logs[pid] = (command and command[1], parent and parent[1], text)
    for command, parent, text in logs.values():
        found.processes += 1
        # Of a child that forked and did not exec. What its parent's other threads held is out of
        # reach there, since those threads are not there: all of that seems lost.
        forked = parent in logs and logs[parent][0] == command
        if "ERROR SUMMARY" not in text:
            found.unfinished += 1
        for count, name in USED.findall(text):
            if not forked:
                found.suppressed[name] = found.suppressed.get(name, 0) + int(count)
        for record in re.split(r"\n\s*\n", text):
            record = record.strip()
            if not STACK.search(record) or REPEATED.match(record):
                continue
            # Not the line that names the thread.
            first = next(line for line in record.splitlines() if not line.startswith("Thread "))
            leak = LEAK.search(first)
            if leak and forked:
                found.left_out += 1
            elif leak:
                found.findings.append((f"{leak[1]} lost", record))
            else:
                found.findings.append((first, record))
    return found


# --- the compilers' sanitizers --------------------------------------------------------------

ADDRESS_ERROR = re.compile(r"^==\d+==ERROR: (\w+Sanitizer): (.*)$", re.M)
TSAN_USED = re.compile(r"^(\d+) (\w+:.*)$", re.M)


def read_address(folder):
    found = Found()
    for path in sorted(folder.glob("address.*")):
        text = path.read_text(errors="replace")
        found.processes += 1
        errors = list(ADDRESS_ERROR.finditer(text))
        for error, following in zip(errors, [*errors[1:], None]):
            report = text[error.start():following.start() if following else None]
            found.findings.append((error[2], report))
    return found


def read_thread(folder):
    found = Found()
    for path in sorted(folder.glob("thread.*")):
        text = path.read_text(errors="replace")
        found.processes += 1
        for report in text.split("==================\n"):
            if "WARNING: ThreadSanitizer:" in report or "ERROR: ThreadSanitizer:" in report:
                kind = re.search(r"ThreadSanitizer: (.*?)(?: \(pid=.*)?$", report, re.M)[1]
                found.findings.append((kind, report))
        matched = re.search(r"^ThreadSanitizer: Matched \d+ suppressions.*\n((?:.+\n?)*)", text,
                            re.M)
        for count, name in TSAN_USED.findall(matched[1]) if matched else ():
            found.suppressed[name] = found.suppressed.get(name, 0) + int(count)
    return found


READERS = {"valgrind": read_valgrind, "address": read_address, "thread": read_thread}

# --- the program ----------------------------------------------------------------------------


def summary(tool, found):
    kinds = {}
    for kind, _ in found.findings:
        kinds[kind] = kinds.get(kind, 0) + 1
    errors = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    suppressed = ", ".join(f"{count} by {name}" for name, count in sorted(found.suppressed.items()))
    parts = [f"{len(found.findings)} errors" + (f" ({errors})" if errors else ""),
             f"{sum(found.suppressed.values())} suppressed" + (f" ({suppressed})" if suppressed
                                                               else "")]
    if tool == "valgrind":
        parts += [f"{found.processes} processes", f"{found.unfinished} of them without a summary",
                  f"{found.left_out} leaks of children that only forked left out"]
    return ", ".join(parts)


def main(arguments):
    parser = argparse.ArgumentParser(description="Reads the reports of a sanitizer.")
    parser.add_argument("tool", choices=READERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--expect", nargs=2, metavar=("KIND", "TEXT"))
    options = parser.parse_args(arguments)
    found = READERS[options.tool](options.folder)
    if options.expect:
        kind, text = options.expect
        if any(kind in each and text in report for each, report in found.findings):
            return 0
        print(f"no '{kind}' with '{text}' among {len(found.findings)} findings:",
              *(each for each, _ in found.findings), sep="\n    ")
        return 1
    for _, report in found.findings:
        print(report)
    print(summary(options.tool, found))
    if options.tool == "valgrind" and not found.processes:
        print("report.py: no process was looked at", file=sys.stderr)
        return 1
    # What ended without a summary was not looked at to its end.
    return 1 if found.findings or found.unfinished else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
