"""Sends that waited for a lost connection, and receivers that come back later than their sender."""

import process
import rabbitmq
from proxy import Proxy

SCENARIO = "connections lost, the sender's back before the receiver's"

NOWHERE = 1  # a port on which nothing listens


def run(report, _short):
    with rabbitmq.Node() as node, Proxy(node.port) as sender, Proxy(node.port) as receiver:
        proxies = {"sender": sender, "receiver": receiver}

        def obey(program, line):
            order, _, name = line.partition(" ")
            if order not in ("cut", "restore") or name not in proxies:
                return False
            proxy = proxies[name]
            proxy.target = NOWHERE if order == "cut" else node.port
            if order == "cut":
                proxy.cut_all()
            program.stdin.write("done\n")
            program.stdin.flush()
            return True

        process.run(report, "settling", sender.url(), receiver.url(), limit=300, on_line=obey)
