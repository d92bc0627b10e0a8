"""Faults at random, all that there are, and an oracle that checks all the time."""

import tempfile
import time

from chaos import run as chaos_run
from chaos import schedule

SCENARIO = "faults at random on a cluster of three, by a seed"
# Too long for a run of all rows, and not the same each time.
ONLY_BY_NAME = True
SECONDS, SHORT_SECONDS = 1200, 300
SECONDS_AFTER_STEPS = 15  # where steps are given: until what they did has shown
SHOWN_EVENTS = 40  # of an excerpt; the file has all

_settings = {"seed": None, "without": (), "steps": ()}


def configure(seed, without, steps):
    """What run.py was told: which run this is, what it leaves out, or the steps that it has in the
    place of those of a seed."""
    schedule.check_names(without)
    _settings.update(seed=seed, without=tuple(without), steps=[schedule.parse(s) for s in steps])


def choose_steps(report, short):
    """The seconds of the run, and its steps."""
    if _settings["steps"]:
        steps = sorted(_settings["steps"])
        return max(step.at + step.lasts for step in steps) + SECONDS_AFTER_STEPS, steps
    seconds = SHORT_SECONDS if short else SECONDS
    seed = _settings["seed"]
    if seed is None:
        seed = int(time.time())
    report.figure("seed", seed)
    if _settings["without"]:
        report.figure("without", ", ".join(_settings["without"]))
    return seconds, schedule.plan(seed, seconds, _settings["without"])


def run(report, short):
    seconds, steps = choose_steps(report, short)
    report.note(f"{len(steps)} actions in {seconds:g} s")
    chaos = chaos_run.Run(steps, seconds, say=lambda line: print(line, flush=True)).run()
    oracle = chaos.oracle
    if chaos.excerpt:
        show_excerpt(report, chaos.excerpt)
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


def show_excerpt(report, excerpt):
    """Writes the events around a violation into a file, and shows the last of them."""
    with tempfile.NamedTemporaryFile("w", prefix="channel-layer-chaos-", suffix=".txt",
                                     delete=False, encoding="utf-8") as file:
        file.write("\n".join(excerpt) + "\n")
    report.note(f"the events around it: {file.name}")
    # Sends and deliveries come by the hundred; the file has them.
    shown = [line for line in excerpt if not line.startswith(("S ", "O ", "D "))]
    for line in shown[-SHOWN_EVENTS:]:
        report.note(line)
