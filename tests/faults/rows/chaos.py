"""Faults at random, all that there are, and an oracle that checks all the time."""

import tempfile
import time
from pathlib import Path

from chaos import run as chaos_run
from chaos import schedule

SCENARIO = "faults at random on a cluster of three, by a seed"
# Too long for a run of all rows, and not the same each time.
ONLY_BY_NAME = True
SECONDS, SHORT_SECONDS = 1200, 300
SHOWN_EVENTS = 40  # of an excerpt; the file has all

_settings = {"seed": None, "without": ()}


def configure(seed, without):
    """What run.py was told: which run this is, and what is left out of it."""
    unknown = sorted(set(without) - set(schedule.NAMES))
    if unknown:
        raise ValueError(f"there is no action {unknown[0]}; there are: {', '.join(schedule.NAMES)}")
    _settings.update(seed=seed, without=tuple(without))


def run(report, short):
    seconds = SHORT_SECONDS if short else SECONDS
    seed = _settings["seed"]
    if seed is None:
        seed = int(time.time())
    report.figure("seed", seed)
    if _settings["without"]:
        report.figure("without", ", ".join(_settings["without"]))
    steps = schedule.plan(seed, seconds, _settings["without"])
    report.note(f"{len(steps)} actions in {seconds} s")
    chaos = chaos_run.Run(steps, seconds, say=lambda line: print(line, flush=True)).run()
    oracle = chaos.oracle
    if chaos.excerpt:
        show_excerpt(report, chaos.excerpt, seed)
    report.check("no duplicate, no lie, no unexplained loss, no hang, no deafness",
                 not oracle.violations, "; ".join(map(str, oracle.violations[:3])))
    report.check("all that was to be done was done", not chaos.problems,
                 "; ".join(map(str, chaos.problems[:3])))
    for claim in ("readiness judged", "hearing judged", "sends", "deliveries"):
        report.check(f"the oracle has seen: {claim}", oracle.counts[claim] > 0,
                     str(oracle.counts[claim]))
    report.note(f"actions: {dict(sorted(chaos.actions.items()))}")
    report.note(f"outcomes: {dict(sorted(oracle.statuses.items()))}")
    report.note(f"losses: {dict(sorted(oracle.losses.items()))}")
    report.note(f"counts: {dict(sorted(oracle.counts.items()))}")
    report.figure("actions", sum(chaos.actions.values()))
    report.figure("lost, and explained", sum(oracle.losses.values()) - oracle.losses["unexplained"])
    report.figure("longest liveness gap", f"{oracle.gap:.2f} s")
    report.figure("heard after", f"{oracle.slowest_heard:.2f} s at most")


def show_excerpt(report, excerpt, seed):
    """Writes the events around a violation into a file, and shows the last of them."""
    path = Path(tempfile.gettempdir(), f"channel-layer-chaos-{seed}-{int(time.time())}.txt")
    path.write_text("\n".join(excerpt) + "\n", encoding="utf-8")
    report.note(f"the events around it: {path}")
    # Sends and deliveries come by the hundred; the file has them.
    shown = [line for line in excerpt if not line.startswith(("S ", "O ", "D "))]
    for line in shown[-SHOWN_EVENTS:]:
        report.note(line)
