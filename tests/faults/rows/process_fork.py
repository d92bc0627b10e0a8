"""Children of a process that uses the library, and servers that fork their workers."""

import process

SCENARIO = "fork with an open layer under load, prefork servers, fork at the first use"


def run(report, short):
    children, workers, messages, first_uses = (10, 4, 200, 12) if short else (250, 16, 2000, 500)
    with process.broker(short) as (url, _):
        for label, host in (("memory", process.MEMORY), ("rabbitmq", url)):
            process.run(report, "process_fork", host, children, limit=600, label=label)
            process.run(report, "process_first_use", host, first_uses, limit=600, label=label)
        for way in ("fresh", "used"):
            process.run(report, "process_prefork", url, workers, messages, way, limit=300,
                        label=f"prefork, parent {way}")
    report.figure("children", 2 * 2 * children)
