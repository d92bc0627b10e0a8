"""The broker crashes and comes back, under load."""

import time

import rabbitmq
from load import Load
from proxy import Proxy

READY_SECONDS = 2
SCENARIO = "broker kill -9 and restart"


def run(report, short):
    times = 2 if short else 20
    back = []
    with rabbitmq.Node() as node, Proxy(node.port) as proxy:
        with Load(proxy.url(), timeout=4) as load:
            load.wait_started()
            for _ in range(times):
                time.sleep(0.5)  # of load
                before = load.generations()
                node.kill9()
                gone = load.wait_unready(5)
                report.check("the loss is noticed", gone is not None)
                node.start()
                answers = time.monotonic()
                ready = load.wait_ready(20, after=before)
                took = None if ready is None else max(ready - answers, 0)
                if not report.check_time("ready after the broker answers", took, READY_SECONDS):
                    break
                back.append(took)
            ledger = load.end()
        lost = ledger.judge(report, proxy.recorder, load.timeout)
        report.check("sends that met the crash ended as unconfirmed or unsent",
                     ledger.statuses().get("UNCONFIRMED", 0) > 0, str(ledger.statuses()))
        report.check("the proxy understood what it passed on", not proxy.problems,
                     str(proxy.problems[:1]))
        report.figure("kills", times)
        report.figure("sends", len(ledger.sends))
        report.figure("lost around kills", lost)
        report.figure("ready after", f"{max(back, default=0):.2f} s at most")
