"""The library loaded at run time, as bindings do, and given back."""

import subprocess

import process
import programs

SCENARIO = "dlopen, use and dlclose, in one process and across many"

LIMIT = 60  # seconds


def run(report, short):
    rounds = 20 if short else 100
    program = programs.build("process_dlopen", linked=False)
    library = programs.library_folder() / "libchannel_layer.so"
    with process.broker(short) as (url, _):
        for label, host in (("memory", process.MEMORY), ("rabbitmq", url)):
            process.follow(
                report, process.start("process_dlopen", library, host, rounds, program=program),
                limit=600, label=label)
            for what, inside in (("loads, uses and unloads it", 1),
                                 ("unloads it with a layer open and a thread inside a call", 0)):
                runs = rounds // 4 if short else rounds
                wrong = [end for end in (once(program, library, host, inside)
                                         for _ in range(runs)) if end]
                report.check(f"{label}: a process that {what} ends in order", not wrong,
                             f"{len(wrong)} of {runs} went wrong {wrong[0] if wrong else ''}")


def once(program, library, host, rounds):
    try:
        done = subprocess.run([program, library, host, str(rounds)], capture_output=True,
                              text=True, check=False, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return "it hung"
    if done.returncode != 0:
        return f"{process.ending(done.returncode)}: {done.stderr[-300:]}"
    return None
