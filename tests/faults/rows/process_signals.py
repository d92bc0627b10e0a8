"""A host with signals and handlers of its own, and SIGPIPE at its default."""

import process
import rabbitmq

SCENARIO = "signals at 1 kHz and more, a profiler, and a broker that is killed under load"


def run(report, short):
    seconds = 0.4 if short else 20
    process.run(report, "process_signals", process.MEMORY, seconds, limit=300, label="memory")
    with rabbitmq.Node() as node:

        def on_line(child, line):
            if line != "kill":
                return False
            node.kill9()
            if not short:
                node.start()
            child.stdin.write("go on\n")
            child.stdin.flush()
            return True

        process.run(report, "process_signals", node.url(), seconds,
                    "gone" if short else "back", limit=300, label="rabbitmq", on_line=on_line)
