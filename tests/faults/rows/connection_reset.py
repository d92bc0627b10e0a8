"""Connections are reset at any byte: amid frames, logins, declarations and binds."""

import random
import time

import rabbitmq
from load import Load
from proxy import Proxy

SCENARIO = "proxy: RST at a random byte"


def run(report, short):
    times = 12 if short else 200
    seed = random.randrange(1 << 32)
    report.note(f"seed {seed}")
    chance = random.Random(seed)
    amid_login = 0
    slowest = 0.0
    with rabbitmq.Node() as node, Proxy(node.port) as proxy:
        with Load(proxy.url(), timeout=4) as load:
            load.wait_started()
            for _ in range(times):
                before, cuts = load.generations(), proxy.cuts
                proxy.cut_after(chance.randrange(60000))
                if chance.random() < 0.5:
                    # The one that comes in its place, too: what a login and the first
                    # declarations take is some 3,000 bytes.
                    proxy.cut_next(chance.randrange(3000))
                    amid_login += 1
                for _ in range(10):
                    if proxy.wait_for_cut(cuts + 1, 2):
                        break
                    # Those that were armed had been cut already, and their ends not been seen.
                    proxy.cut_after(chance.randrange(60000))
                if not report.check("the cut happens", proxy.cuts > cuts):
                    break
                began = time.monotonic()
                ready = load.wait_ready(15)
                if not report.check("ready again", ready is not None, str(before)):
                    break
                slowest = max(slowest, time.monotonic() - began)
            proxy.disarm()
            ledger = load.end()
        lost = ledger.judge(report, proxy.recorder, load.timeout)
        statuses = ledger.statuses()
        report.check("cuts met sends in flight", statuses.get("UNCONFIRMED", 0) > 0, str(statuses))
        report.check("the proxy understood what it passed on", not proxy.problems,
                     str(proxy.problems[:1]))
        report.figure("rounds", f"{times}, {amid_login} with a second cut in what follows")
        report.figure("connections cut", proxy.cuts)
        report.figure("sends", len(ledger.sends))
        report.figure("unconfirmed", statuses.get("UNCONFIRMED", 0))
        report.figure("lost", lost)
        report.figure("slowest return", f"{slowest:.2f} s")
