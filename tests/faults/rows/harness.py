"""The harness itself: defects that are planted in the library's calls are found."""

import time

import programs
import rabbitmq
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
    report.figure("planted and found", len(defects))


def failures_with(node, shim, defect):
    silent = Silent("planted", "")
    with Proxy(node.port) as proxy:
        with Load(proxy.url(), preload=shim, planted=defect, timeout=2) as load:
            load.wait_started()
            time.sleep(1)  # of load
            ledger = load.end()
        ledger.judge(silent, proxy.recorder, load.timeout)
    return silent.failures
