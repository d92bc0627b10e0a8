#!/usr/bin/env python3
"""A RabbitMQ node for a test in another language: prints its URL, then takes orders by line.

`start`, `stop`, `kill9` and `restart` are answered by `done`. The end of the input ends the node.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fixture"))

import rabbitmq  # noqa: E402


def main():
    with rabbitmq.Node() as node:
        print(node.url("asgi"), flush=True)
        for line in sys.stdin:
            order = line.strip()
            if order not in ("start", "stop", "kill9", "restart"):
                sys.exit(f"node.py: there is no order {order!r}")
            getattr(node, order)()
            print("done", flush=True)


if __name__ == "__main__":
    main()
