"""100,000 groups that are bound again after a cut, and where the time goes."""

import process

SCENARIO = "100,000 groups bound, connection cut: all restored, each checked by a message"

ONLY_IN_FULL = True


def run(report, _short):
    with process.broker(False) as (url, pid):
        process.run(report, "process_scale", url, pid, 1000, 100000, 1, 0, limit=3600,
                    on_line=process.say)
        report.figure("RSS of the broker afterwards", f"{process.rss_of(pid):.0f} MiB")
