#!/usr/bin/env python3
"""Shows which case passed in which binding, on which broker.

    table.py FOLDER

In FOLDER there is a file for each binding, named after it, as its replay of cases.json has written
it: a line `BROKER CASE passed` or `BROKER CASE failed` for each run of a case. Closes with `N
passed, N failed`: each cell of the table counts, and one without a line has failed. So has a line
that belongs to no cell.
"""

import json
import sys
from pathlib import Path

BINDINGS = ("cpp", "go", "ruby", "python")
BROKERS = ("memory", "rabbitmq")
CASES = Path(__file__).resolve().parent / "cases.json"


def wanted(cases):
    """By case, the brokers that it runs on."""
    return {case["name"]: tuple(case.get("brokers", BROKERS)) for case in cases}


def read(folder, cases):
    """What came of each cell, by (binding, broker, case), and what is wrong with the files."""
    cells = {(binding, broker, case): "missing"
             for binding in BINDINGS for case, brokers in cases.items() for broker in brokers}
    problems = []
    for binding in BINDINGS:
        try:
            lines = (folder / binding).read_text("utf-8").splitlines()
        except FileNotFoundError:
            problems.append(f"{binding} has recorded nothing: there is no {folder / binding}")
            continue
        for line in lines:
            words = line.split(" ")
            cell = (binding, *words[:2])
            if len(words) != 3 or words[2] not in ("passed", "failed"):
                problems.append(f"{binding} has recorded what is no result: {line!r}")
            elif cell not in cells:
                problems.append(f"{binding} has recorded what is no case of that broker: {line!r}")
            elif cells[cell] != "missing":
                problems.append(f"{binding} has recorded a case twice: {line!r}")
            else:
                cells[cell] = words[2]
    return cells, problems


def table(cells, cases):
    shown = {"passed": "ok", "failed": "FAILED", "missing": "MISSING", None: "-"}
    width = max(map(len, cases)) + 2
    columns = [(binding, broker) for binding in BINDINGS for broker in BROKERS]
    yield "".ljust(width) + "".join((b if on == BROKERS[0] else "").ljust(10) for b, on in columns)
    yield "case".ljust(width) + "".join(broker.ljust(10) for _, broker in columns)
    for case in cases:
        yield case.ljust(width) + "".join(
            shown[cells.get((*column, case))].ljust(10) for column in columns)


def report(folder, cases):
    """The lines to print, and whether all is well."""
    cells, problems = read(folder, cases)
    passed = sum(result == "passed" for result in cells.values())
    failed = len(cells) - passed + len(problems)
    lines = [line.rstrip() for line in table(cells, cases)]
    return [*lines, *problems, f"{passed} passed, {failed} failed"], passed > 0 and failed == 0


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lines, well = report(Path(sys.argv[1]), wanted(json.loads(CASES.read_text("utf-8"))["cases"]))
    print("\n".join(lines))
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
