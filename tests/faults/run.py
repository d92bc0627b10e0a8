#!/usr/bin/env python3
"""Causes the faults that the documentation speaks of, and checks what it promises.

    run.py [--short] [--seed N] [--without ACTION] [--step STEP] [ROW...]

Each file of rows/ is a row of the table that is printed at the end: a scenario under load, what
it must show, and the figures seen. `--short` runs each row in its short form, as `make test` does;
without it the rows run in full, which takes hours. `run.py --list` names the rows. Rows that say
ONLY_BY_NAME run where they are named. `--seed`, `--without` and `--step` are for the row `chaos`.
CHANNEL_LAYER_FAULTS_LIBRARY is the folder of the library under test, target/debug if not set.
"""

import argparse
import importlib
import queue
import sys
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "fixture")]

import rabbitmq
from report import Report


def run(reports, rows, short, jobs):
    """Runs the rows, `jobs` at a time."""
    waiting = queue.SimpleQueue()
    for report in reports:
        waiting.put(report)

    def work():
        while True:
            try:
                report = waiting.get_nowait()
            except queue.Empty:
                return
            print(f"---- {report.name}: {report.scenario}", flush=True)
            report.run(rows[report.name], short)

    # Daemons, so that a signal does not have to wait for them.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(arguments):
    names = sorted(path.stem for path in (HERE / "rows").glob("*.py"))
    parser = argparse.ArgumentParser(description="Causes faults, and checks what is promised.")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(names))
    parser.add_argument("--short", action="store_true", help="the short form of each row")
    parser.add_argument("--jobs", type=int, default=1, help="how many rows run side by side")
    parser.add_argument("--seed", type=int, help="which run of chaos; a new one if not given")
    parser.add_argument("--without", action="append", default=[], metavar="ACTION",
                        help="an action that chaos leaves out")
    parser.add_argument("--step", action="append", default=[], metavar="ACTION:AT:LASTS:DRAW",
                        help="an action of chaos, in the place of those of a seed")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(names))
        return 0
    unknown = [row for row in options.rows if row not in names]
    if unknown:
        parser.error(f"there is no row {unknown[0]}; there are: {', '.join(names)}")

    rows = {name: importlib.import_module(f"rows.{name}") for name in options.rows or names}
    if not options.rows:
        rows = {name: row for name, row in rows.items() if not getattr(row, "ONLY_BY_NAME", False)}
    if options.short:
        rows = {name: row for name, row in rows.items() if not getattr(row, "ONLY_IN_FULL", False)}
    for row in rows.values():
        if hasattr(row, "configure"):
            try:
                row.configure(options.seed, options.without, options.step)
            except ValueError as error:
                parser.error(str(error))
    patience = 3 if options.short else 1
    reports = [Report(name, row.SCENARIO, patience) for name, row in rows.items()]
    signals = rabbitmq.Signals()  # so that a signal ends the nodes too
    try:
        run(reports, rows, options.short, options.jobs)
    except rabbitmq.Ended as ended:
        # The rows are in the middle of something: their loads end with our end of their pipes,
        # and their nodes by their guardian.
        return 128 + ended.number
    signals.hold()
    rabbitmq.Guardian.dismiss()

    print("\n| row | scenario | figures | result | time |\n|---|---|---|---|---|")
    for report in reports:
        print(report.table_row())
    failed = sum(bool(report.failures) for report in reports)
    print(f"\n{len(reports) - failed} passed, {failed} failed")
    return 1 if failed or not reports else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
