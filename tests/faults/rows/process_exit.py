"""A process that ends in the middle of everything."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import process
import programs

SCENARIO = "exit and return from main with open layers, threads inside calls and running callbacks"

WAYS = ("return", "exit", "quick_exit", "close_at_exit", "exit_in_callback", "pthread_exit",
        "destructor")
ANYWHERE = ("return", "exit", "quick_exit", "close_at_exit", "destructor")
LIMIT = 30  # seconds


def run(report, short):
    runs = 2 if short else 100
    programs.build("process_exit")
    with process.broker(short) as (url, _), ThreadPoolExecutor(2) as pool:
        for host in (process.MEMORY, url, "unreachable"):
            label = host.partition(":")[0]
            for way in WAYS if host != "unreachable" else ANYWHERE:
                results = list(pool.map(lambda _: once(host, way), range(runs)))
                wrong = [result for result, _ in results if result is not None]
                slowest = max(seconds for _, seconds in results)
                report.check(f"{label}, {way}: no crash, no hang, the status that was given",
                             not wrong, f"{len(wrong)} of {runs} runs went wrong "
                             f"{wrong[0] if wrong else ''}, the slowest took {slowest:.1f} s")
    report.figure("runs", runs * (2 * len(WAYS) + len(ANYWHERE)))


def once(host, way):
    """What went wrong, if anything, and the seconds it took."""
    status = random.randrange(1, 64)
    milliseconds = random.uniform(0, 50)
    began = time.monotonic()
    child = process.start("process_exit", host, way, f"{milliseconds:.1f}", status)
    try:
        said, _ = child.communicate(timeout=LIMIT)
    except process.subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        return f"{way}: hung", LIMIT
    seconds = time.monotonic() - began
    if child.returncode != status or said:
        return f"{process.ending(child.returncode)}, not {status}: {said[-300:]}", seconds
    return None, seconds
