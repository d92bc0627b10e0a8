"""A cluster of three loses a node, and is restarted one node after the other."""

import contextlib
import time

import rabbitmq
from load import Load
from proxy import Proxy, Recorder

SCENARIO = "one node of three killed, rolling restart of all"
READY_SECONDS = 5


def run(report, short):
    back = []
    with contextlib.ExitStack() as stack:
        cluster = stack.enter_context(rabbitmq.Cluster(3))
        recorder = Recorder()
        proxies = [stack.enter_context(Proxy(node.port, recorder)) for node in cluster.nodes]
        # Each layer begins with another node: the group of all spans the cluster.
        load = stack.enter_context(Load(",".join(proxy.url() for proxy in proxies),
                                        ("layers=3", "rate=800"), timeout=4))
        load.wait_started()
        connected = [proxy.connections_now for proxy in proxies]
        if not report.check("each node has a layer, and each layer two connections",
                            connected == [2, 2, 2], str(connected)):
            report.note(load.log())
        time.sleep(1)  # of load

        def lose(name, end):
            before = load.generations()
            end()
            ended = time.monotonic()
            ready = load.wait_next(before, READY_SECONDS + 10)
            took = None if ready is None else max(ready - ended, 0)
            report.check_time(f"{name}: ready elsewhere", took, READY_SECONDS)
            back.append(took or 0)
            time.sleep(1)

        def each_node(verb, end):
            for number, node in enumerate(cluster.nodes[:1] if short else cluster.nodes):
                # After a loss the layers are on other nodes, and perhaps none is on this one.
                if proxies[number].connections_now:
                    lose(f"node {number} {verb}", getattr(node, end))
                else:
                    getattr(node, end)()
                node.start()

        each_node("killed", "kill9")
        if not short:
            for turn in range(3):
                each_node(f"stopped, turn {turn}", "stop")
        ledger = load.end()
        lost = ledger.judge(report, recorder, load.timeout)
        problems = [problem for proxy in proxies for problem in proxy.problems]
        report.check("the proxies understood what they passed on", not problems, str(problems[:1]))
        report.figure("losses of a node", len(back))
        report.figure("sends", len(ledger.sends))
        report.figure("lost", lost)
        report.figure("ready elsewhere after", f"{max(back):.2f} s at most")
