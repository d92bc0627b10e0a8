"""Channels that get messages and that nobody reads."""

import process

SCENARIO = "1,000,000 attempts to channels nobody reads, then 100,000 accepted that expire"


def run(report, short):
    attempts, accepted = (20000, 2000) if short else (1000000, 100000)
    with process.broker(short) as (url, _):
        for label, host in (("memory", process.MEMORY), ("rabbitmq", url)):
            process.run(report, "abandoned_channels", host, attempts, accepted, limit=3600,
                        label=label)
