"""Channels that get messages and that nobody reads."""

import process

SCENARIO = "1,000,000 attempts to channels nobody reads, then 100,000 accepted that expire"


def run(report, short):
    # With few ahead the first half of a short run has seen the most that there will be.
    attempts, accepted, ahead = (20000, 1500, 200) if short else (1000000, 100000, 1000)
    with process.broker(short) as (url, _):
        for label, host in (("memory", process.MEMORY), ("rabbitmq", url)):
            process.run(report, "abandoned_channels", host, attempts, accepted, ahead,
                        limit=3600, label=label)
