"""Connections end with FIN, crawl, arrive in crumbs, or go silent in one direction."""

import time

import rabbitmq
from load import Load
from proxy import Proxy

SCENARIO = "proxy: FIN, delay, trickle, one direction stalled"
HEARTBEAT = 1
LOST = " connection_lost "


def run(report, short):
    rounds = 1 if short else 10
    with rabbitmq.Node() as node, Proxy(node.port) as proxy:
        with Load(proxy.url(), timeout=3, heartbeat=HEARTBEAT, connect_timeout=3) as load:
            load.wait_started()
            for _ in range(rounds):
                before = load.generations()
                proxy.cut_all(reset=False)
                report.check("ready again after a FIN", load.wait_ready(10, after=before))

                lost = load.log().count(LOST)
                proxy.delay = 0.05
                time.sleep(1.5)  # of load
                proxy.delay, proxy.trickle = 0, 11
                time.sleep(1.5)
                proxy.trickle = 0
                report.check("slow bytes end no connection", load.log().count(LOST) == lost)

                for way, within in (("to_client", 3 * HEARTBEAT), ("to_broker", 4 * HEARTBEAT)):
                    proxy.stall(way)
                    began = time.monotonic()
                    noticed = load.wait_unready(20)
                    # Where the broker hears nothing it is the broker that hangs up, by its own
                    # count: after two heartbeats without a byte, and it looks once in each.
                    report.check_time(f"silence {way} is noticed",
                                      None if noticed is None else noticed - began,
                                      within, slack=0.7)
                    proxy.resume()
                    # A link that had not noticed yet goes on as it was.
                    report.check(f"ready again after silence {way}", load.wait_ready(15))
            ledger = load.end()
        ledger.judge(report, proxy.recorder, load.timeout)
        report.check("the proxy understood what it passed on", not proxy.problems,
                     str(proxy.problems[:1]))
        report.figure("rounds", rounds)
        report.figure("outcomes", ledger.statuses())
