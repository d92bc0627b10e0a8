"""The harness itself: defects that are planted in the library's calls are found."""

import time

import programs
import rabbitmq
from chaos.run import Run
from chaos.schedule import Step
from load import Load
from proxy import Proxy
from report import Report

SCENARIO = "a defect of each kind is planted, and found"

# Each defect of planted.c, and what the judgement must say of it.
DEFECTS = {
    "lie": "no LAYER_OK without the broker's ack",
    "denial": "what was not sent does not arrive",
    "duplicate": "no message is duplicated, misdelivered, invented or out of order",
    "disorder": "no message is duplicated, misdelivered, invented or out of order",
    "loss": "what was confirmed arrives, or is lost with its receiver's queue",
    "echo": "each send has one outcome",
}
# These take their time, since the load waits for what does not come.
SLOW_DEFECTS = {
    "hang": "each send ends in time",
    "silence": "each send has one outcome",
    "undestroyed": "all userdata was destroyed",
}

# What the oracle of the row `chaos` must call each of them, in a run with two actions.
CHAOS_STEPS = (Step(2, 0, "process_forked", 0), Step(3, 0, "connections_cut", 0))
CHAOS_SECONDS = 12
CHAOS_DEFECTS = {"deafness": "deafness", "unready": "liveness"}
MORE_CHAOS_DEFECTS = {
    "lie": "lie", "denial": "denial", "duplicate": "duplicate", "disorder": "order",
    "loss": "loss", "echo": "outcome", "hang": "hang", "silence": "hang", "undestroyed": "end",
    "unforked": "fork",
}


class Silent(Report):
    """A report of failures that are wanted."""

    def _say(self, kind, claim, figure):
        pass


def run(report, short):
    defects = dict(DEFECTS) if short else {**DEFECTS, **SLOW_DEFECTS}
    shim = programs.build("planted", flags=("-ldl",), shared=True)
    with rabbitmq.Node() as node:
        for defect in (None, *defects):
            found = failures_with(node, shim, defect)
            if defect is None:
                report.check("without a defect nothing fails", not found, str(found))
            else:
                wanted = defects[defect]
                report.check(f"the planted {defect} is found", any(
                    failure.startswith(wanted) for failure in found), str(found))
        chaos_defects = dict(CHAOS_DEFECTS) if short else {**CHAOS_DEFECTS, **MORE_CHAOS_DEFECTS}
        for defect in (None, *chaos_defects):
            found = violations_with(node, shim, defect)
            if defect is None:
                report.check("chaos: without a defect nothing is violated", not found, str(found))
            else:
                report.check(f"chaos: the planted {defect} is found",
                             chaos_defects[defect] in found, str(found))
    report.figure("planted and found", len(defects) + len(chaos_defects))


def failures_with(node, shim, defect):
    silent = Silent("planted", "")
    with Proxy(node.port) as proxy:
        with Load(proxy.url(), preload=shim, planted=defect, timeout=2) as load:
            load.wait_started()
            time.sleep(1)  # of load
            ledger = load.end()
        ledger.judge(silent, proxy.recorder, load.timeout)
    return silent.failures


def violations_with(node, shim, defect):
    """The rules that the oracle of chaos sees violated, and what else goes wrong."""
    run = Run(CHAOS_STEPS, CHAOS_SECONDS, alone=node, say=lambda _: None, preload=shim,
              planted=defect).run()
    return [violation.rule for violation in run.oracle.violations] + run.problems
