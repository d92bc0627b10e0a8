"""Many channels, groups and memberships in one layer."""

import process

SCENARIO = "100,000 channels, 100,000 groups and 1,000,000 memberships in one layer, then cut off"


def run(report, short):
    channels, groups, members, sample = (1000, 200, 5, 100) if short else (100000, 100000, 10, 1000)
    with process.broker(short) as (url, pid):
        if short:
            process.run(report, "process_scale", process.MEMORY, 0, channels, 10 * groups, members,
                        sample, limit=60, label="memory")
        process.run(report, "process_scale", url, pid, channels, groups, members, sample,
                    limit=3600, label="rabbitmq", on_line=process.say)
        report.figure("RSS of the broker afterwards", f"{process.rss_of(pid):.0f} MiB")
