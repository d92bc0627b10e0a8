"""A host with signals and handlers of its own, and SIGPIPE at its default."""

import process
import rabbitmq

SCENARIO = "signals at 1 kHz and more, a profiler, and a broker that is lost under load"


def run(report, short):
    seconds = 0.4 if short else 20
    process.run(report, "process_signals", process.MEMORY, seconds, limit=300, label="memory")
    with process.broker(short) as (url, _):
        process.run(report, "process_signals", url, seconds, "cut", limit=300, label="cut")
    if short:
        return
    with rabbitmq.Node() as node:

        def on_line(child, line):
            if line != "kill":
                return False
            node.kill9()
            node.start()
            child.stdin.write("back\n")
            child.stdin.flush()
            return True

        process.run(report, "process_signals", node.url(), seconds, "kill", limit=300,
                    label="kill -9", on_line=on_line)
