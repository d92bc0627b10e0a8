#!/usr/bin/env python3
"""The harness: runs the contenders in turn on one broker, and keeps what they measured.

    run.py [--full|--bindings] [--only CASE...] [--pairs N] [--seconds S] [--without CONTENDER...]

A complete run is kept in benches/results, and BENCHMARKS.md and the chart are made anew. One that
--only, --pairs, --seconds or --without changed is kept in the target folder instead, with a report
beside it. CHANNEL_LAYER_TEST_AMQP names a broker; without it a private one is started.

Ends with 0; 3 where the run is void; 1 where something failed; 2 where it could not begin. A bar
that is missed is no failure.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT / "tests/fixture")]

import bars  # noqa: E402
import contenders  # noqa: E402
import figures  # noqa: E402
import machine  # noqa: E402
import rabbitmq  # noqa: E402
import redis_server  # noqa: E402
import report  # noqa: E402
import workloads  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()

BUSY = 0.3  # load per processor, before a run, above which its figures are doubtful
SAMPLE_SECONDS = 400  # each program ends itself long before


def say(text=""):
    print(text, flush=True)


class SampleFailed(Exception):
    """A contender failed in a case; the message is what it said."""


def run_sample(command, environment):
    """The figures that a contender printed."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        output, said = process.communicate(timeout=SAMPLE_SECONDS)
    except subprocess.TimeoutExpired:
        raise SampleFailed(f"did not end within {SAMPLE_SECONDS} s") from None
    finally:
        # With what it started itself, whatever became of it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0:
        how = (f"status {process.returncode}" if process.returncode > 0
               else signal.Signals(-process.returncode).name)
        raise SampleFailed(f"ended with {how}: {said.strip()[-2000:]}")
    lines = output.strip().splitlines()
    try:
        return json.loads(lines[-1]), said.strip()
    except (IndexError, ValueError):
        raise SampleFailed(f"printed no line of JSON, but {output[-200:]!r}") from None


def plan_of(cases, options):
    """For each case: the entries that run, by series, with their rounds."""
    plan = []
    for case in cases:
        entries = {}
        # A case that `make bench` does not have can still be asked for.
        full = options.kind == workloads.FULL or not any(entry.rounds for entry in case.entries)
        most = max(workloads.rounds_of(entry, full) for entry in case.entries)
        for entry in case.entries:
            rounds = workloads.rounds_of(entry, full)
            if options.pairs:
                # Who runs most often as often as asked for, the others no more often than else.
                rounds = options.pairs if rounds == most else min(rounds, options.pairs)
            if rounds and entry.contender not in options.without:
                entries[entry.series] = (entry, rounds)
        plan.append((case, entries))
    return plan


def parameters_of(case, entry, options, samples):
    parameters = {**case.parameters, **entry.parameters}
    if case.seconds:
        parameters["seconds"] = options.seconds or entry.seconds or case.seconds
    if entry.warmup or case.warmup:
        parameters["warmup"] = entry.warmup or case.warmup
    if case.half_of:
        run = figures.Run({"samples": samples})
        series = case.paced_by or entry.series
        rate = run.median(case.half_of, series, "per_second")
        if rate is None:
            raise SampleFailed(f"{series} has no throughput in {case.half_of} to be paced by")
        parameters["rate"] = round(rate / 2, 1)
    return parameters


def measure(plan, roster, options, environment):
    """Runs all of it, and gives the samples and the failures."""
    samples, failures = [], []
    total = sum(workloads.estimate(entry, case) * rounds
                for case, entries in plan for entry, rounds in entries.values())
    count = sum(rounds for _, entries in plan for _, rounds in entries.values())
    say(f"{count} runs of contenders, about {total / 60:.0f} minutes")
    began = time.monotonic()
    for case, entries in plan:
        say(f"\n{case.name}: {case.title}")
        order = workloads.schedule([(series, rounds) for series, (_, rounds) in entries.items()])
        for position, (number, series) in enumerate(order):
            entry = entries[series][0]
            start = time.monotonic()
            try:
                parameters = parameters_of(case, entry, options, samples)
                command = roster[entry.contender].command(case.workload, parameters)
                if command is None:
                    raise SampleFailed(f"has no workload {case.workload}")
                found, said = run_sample(command, environment)
            except SampleFailed as failed:
                failures.append({"case": case.name, "series": series, "round": number,
                                 "reason": str(failed)})
                say(f"  {series:24} FAILED: {failed}")
                continue
            samples.append({
                "case": case.name, "series": series, "contender": entry.contender,
                "round": number, "position": position, "parameters": parameters,
                "figures": found, "took_seconds": round(time.monotonic() - start, 2),
                "load": machine.load()[0], **({"said": said} if said else {})})
            shown = "  ".join(f"{report.number(found.get(figure))} {title}"
                              for figure, title, _ in case.figures[:3])
            say(f"  {series:24} {shown}   [{(time.monotonic() - began) / 60:.1f} min]")
            if said:
                say(f"    it said: {said.splitlines()[-1][:200]}")
    return samples, failures


def build(plan, options):
    """The roster, by name, of those that take part, and who is missing although asked for."""
    wanted = {entry.contender for _, entries in plan for entry, _ in entries.values()}
    roster, problems = {}, []
    for contender in contenders.roster():
        if contender.name in wanted:
            say(f"building {contender.title}")
            try:
                contender.build(TARGET)
            except contenders.Missing as missing:
                problems.append(f"{contender.title}: {missing}")
            roster[contender.name] = contender
    if problems:
        names = " ".join(sorted(roster))
        raise contenders.Missing("\n".join(problems) + "\n`make bench` installs what it can. "
                                 f"To measure without one: --without NAME, of {names}; the report "
                                 "will say so")
    missing = [{"contender": name, "reason": "left out by --without"} for name in options.without]
    return roster, missing


def environment_of(url, redis_url):
    environment = dict(os.environ, CHANNEL_LAYER_TEST_AMQP=url)
    environment.pop(rabbitmq.MARKER, None)  # the node's own; its processes are found by it
    if redis_url:
        environment["CHANNEL_LAYER_BENCH_REDIS"] = redis_url
    return environment


def show_bars(run):
    say()
    for bar in bars.of(run.data["kind"]):
        verdict = bar.judge(run)
        if verdict.state != bars.NOT_RUN or verdict.note:
            value = report.number(verdict.value) + (bar.unit if verdict.value is not None else "")
            say(f"{verdict.state:8}{value:>16}  wanted {bar.sign} {report.limit_of(bar)}{bar.unit}"
                f"  {bar.title}")


def keep(data, complete):
    """Where the run is kept; with a report of it."""
    name = data["started"][:19].replace(":", "").replace("T", "-") + ".json"
    folder = report.RESULTS if complete else TARGET / "bench-results"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    if complete:
        for written, text in report.made_of().items():
            written.write_text(text, encoding="utf-8")
            say(f"wrote {written.relative_to(ROOT)}")
    else:
        text, drawing = report.of_one(figures.Run(data))
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        if drawing:
            path.with_suffix(".svg").write_text(drawing, encoding="utf-8")
    return path


def options_of(arguments):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--full", dest="kind", action="store_const", const=workloads.FULL,
                       default=workloads.BENCH, help="all cases, not only those of the bars")
    kinds.add_argument("--bindings", dest="kind", action="store_const", const=workloads.BINDINGS,
                       help="the cases of the bindings instead")
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE", help="these cases alone")
    parser.add_argument("--pairs", type=int, metavar="N",
                        help="rounds of those that are compared pair by pair")
    parser.add_argument("--seconds", type=float, metavar="S", help="how long each run measures")
    parser.add_argument("--without", nargs="+", default=[], metavar="CONTENDER",
                        help="leave contenders out that cannot be had here")
    options = parser.parse_args(arguments)
    if (options.pairs is not None and options.pairs < 1) or (
            options.seconds is not None and options.seconds <= 0):
        parser.error("--pairs and --seconds are above 0")
    known = [contender.name for contender in contenders.roster()]
    for name in options.without:
        if name not in known:
            parser.error(f"there is no contender {name}; there are: {' '.join(known)}")
    try:
        options.cases = workloads.chosen(options.kind, options.only)
    except ValueError as error:
        parser.error(str(error))
    return options


def run(options):
    plan = plan_of(options.cases, options)
    roster, missing = build(plan, options)
    bindings = options.kind == workloads.BINDINGS
    load_before = machine.load()
    processors = len(os.sched_getaffinity(0))
    with contextlib.ExitStack() as stack:
        url = os.environ.get("CHANNEL_LAYER_TEST_AMQP")
        if not url:
            url = stack.enter_context(rabbitmq.Node()).url("asgi")
        redis_url = None
        if any(contender.needs_redis for contender in roster.values()):
            redis_url = stack.enter_context(redis_server.Redis()).url
        data = {
            "format": 1,
            "kind": options.kind,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "commit": machine.commit(bindings),
            "machine": machine.describe(),
            "versions": machine.versions(url, contenders.PythonLayer.environment, bindings),
            "settings": {name: contender.settings for name, contender in roster.items()},
            "options": {"only": options.only, "pairs": options.pairs, "seconds": options.seconds,
                        "without": options.without},
            "missing": missing,
            "load_before": load_before,
        }
        for heading in ("machine", "versions"):
            say("; ".join(f"{name} {value}" for name, value in data[heading].items()))
        say(f"commit {data['commit']['name']}{', with changes' * data['commit']['dirty']}; "
            f"load {load_before}")
        if load_before[0] > BUSY * processors:
            say(f"WARNING: the load of this machine was {load_before[0]} before anything began: "
                "others use its processors, and figures will suffer")
        began = time.monotonic()
        data["samples"], data["failures"] = measure(plan, roster, options,
                                                    environment_of(url, redis_url))
        data["took_seconds"] = round(time.monotonic() - began, 1)
        data["load_after"] = machine.load()
    return data


def main(arguments):
    options = options_of(arguments)

    def end(number, _frame):
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    try:
        data = run(options)
    except (contenders.Missing, rabbitmq.FixtureError, redis_server.RedisError, OSError) as error:
        say(f"run.py: {error}")
        return 2
    measured = figures.Run(data)
    show_bars(measured)
    changed = options.only or options.pairs or options.seconds or options.without
    path = keep(data, complete=not changed and not data["failures"])
    say(f"\nkept in {path}")
    for failure in data["failures"]:
        say(f"FAILED: {failure['case']}, {failure['series']}, round {failure['round'] + 1}: "
            f"{failure['reason']}")
    reason = figures.void_reason(measured)
    if reason:
        say(f"VOID: {reason}")
    if data["failures"]:
        return 1
    return 3 if reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
