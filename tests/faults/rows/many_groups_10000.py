"""10,000 groups that are bound again after a cut, and the same for the Python peer."""

import process

SCENARIO = "10,000 groups bound, connection cut: all restored, each checked by a message"

PEER_SECONDS = 120  # how long the peer may take to come back


def run(report, short):
    groups = 300 if short else 10000
    with process.broker(short) as (url, pid):
        process.run(report, "process_scale", url, pid, 100, groups, 1, 0, limit=1800,
                    on_line=process.say)
        if not short:
            process.run_peer(report, "peer_groups.py", url, 100, groups, PEER_SECONDS, limit=1800)
