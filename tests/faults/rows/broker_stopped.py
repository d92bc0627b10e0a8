"""The broker freezes: its connections stand, and nothing comes back."""

import time

import rabbitmq
from ledger import OK
from load import Load
from proxy import Proxy

READY_SECONDS = 2
SCENARIO = "SIGSTOP of the broker"


def run(report, short):
    frozen, heartbeat = (7, 1) if short else (60, 10)
    noticed_within = 3 * heartbeat
    options = {"timeout": 1, "heartbeat": heartbeat, "connect_timeout": 3}
    with rabbitmq.Node() as node, Proxy(node.port) as proxy:
        with Load(proxy.url(), **options) as load, Load(proxy.url(), **options) as closed:
            load.wait_started()
            closed.wait_started()
            time.sleep(1)  # of load
            before = load.generations()
            node.sigstop()
            stopped = time.monotonic()
            # One that closes while its broker is silent, and does not know it yet.
            ended = closed.end("close 2000")
            for microseconds, _ in ended.closes:
                report.check_time("close returns", microseconds / 1e6, 2, slack=0.3)
            report.check("a call that a close meets ends", all(
                len(send.outcomes) == 1 for send in ended.sends.values()), str(ended.statuses()))
            noticed = load.wait_unready(3 * noticed_within)
            took = None if noticed is None else noticed - stopped
            report.check_time("the dead peer is noticed", took, noticed_within, slack=0.5)
            time.sleep(max(0, frozen - (time.monotonic() - stopped)))
            node.sigcont()
            answers = time.monotonic()
            ready = load.wait_ready(20, after=before)
            report.check_time("ready after the broker answers",
                              None if ready is None else ready - answers, READY_SECONDS)
            ledger = load.end()
        lost = ledger.judge(report, proxy.recorder, load.timeout)
        # What was on its way when the signal was sent may have been answered.
        met = [s for s in ledger.sends.values() for at, _ in s.outcomes
               if (stopped + 0.5) * 1e6 <= s.at < answers * 1e6]
        counts = {}
        for send in met:
            name = send.outcomes[0][1]
            counts[name] = counts.get(name, 0) + 1
        report.check("sends to a silent broker end as timed out or unconfirmed, not as sent",
                     ledger.statuses().get("TIMEOUT", 0) + ledger.statuses().get("UNCONFIRMED", 0)
                     > 0 and all(send.outcomes[0][0] >= answers * 1e6 for send in met
                                 if send.outcomes[0][1] == OK), str(ledger.statuses()))
        report.figure("frozen for", f"{frozen} s")
        report.figure("noticed after", f"{took or 0:.1f} s (heartbeat {heartbeat} s)")
        report.figure("lost", lost)
