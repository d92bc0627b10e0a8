"""One channel among 1,000 that gets messages and that nobody receives."""

import process

SCENARIO = "a channel that nobody receives among 1,000, isolated"

LIMIT = 1.2


def run(report, short):
    # The short form looks at who loses what: its times say nothing.
    rounds, seconds, rate, limit = (1, 0.5, 500, 0) if short else (80, 0.5, 2000, LIMIT)
    with process.broker(short) as (url, _):
        hosts = (("memory", process.MEMORY), ("rabbitmq", url)) if short else (("rabbitmq", url),)
        for label, host in hosts:
            process.run(report, "slow_channel", host, rounds, seconds, rate, limit, limit=900,
                        label=label)
