"""The broker runs short of memory and blocks all who publish."""

import subprocess
import time

import programs
import rabbitmq
from load import Load
from proxy import Proxy

SCENARIO = "memory alarm on"
CLOSE_SECONDS = 2


def run(report, short):
    with rabbitmq.Node() as node, Proxy(node.port) as proxy:
        calls(report, node)
        under_load(report, node, proxy, 2 if short else 20)


def alarm(node, on):
    node.ctl("set_vm_memory_high_watermark", *(("absolute", "1") if on else ("0.4",)))


def calls(report, node):
    """What each call comes to while publishers are blocked."""
    process = subprocess.Popen([str(programs.build("alarm")), node.url()], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    with process:
        try:
            lines = read_until(process, "filled")
            alarm(node, True)
            process.stdin.write("on\n")
            process.stdin.flush()
            lines = read_until(process, "done")
            alarm(node, False)
            process.stdin.write("off\n")
            process.stdin.flush()
            lines.update(read_until(process, None))
            process.wait(20)
        finally:
            process.kill()
    # The first is handed over before anybody knows; timeout is 1 s. Once the layer knows, it publishes
    # nothing, so that it can be certain.
    for name, allowed in (("first_send", ("LAYER_TIMEOUT", "LAYER_BUSY")),
                          ("blocked_send", ("LAYER_BUSY",))):
        status, seconds = lines[name]
        report.check(f"{name} ends in time, as {' or '.join(allowed)}",
                     status in allowed and float(seconds) < 1.5, f"{status} after {seconds} s")
    report.check("the state says that publishers are blocked", lines["blocked"] == ["1", "1"],
                 str(lines["blocked"]))
    received, seconds = lines["received"]
    report.check("all 60 messages are received meanwhile", received == "60",
                 f"{received} in {seconds} s")
    report.check("groups are joined meanwhile", lines["group_add"][0] == "LAYER_OK",
                 str(lines["group_add"]))
    report.check_time("close returns", float(lines["close"][1]), 1, slack=0.2)
    report.check("sends work again afterwards", lines["send_afterwards"][0] == "LAYER_OK",
                 str(lines["send_afterwards"]))
    report.check("no send has kept its permit", lines["in_flight"] == ["0"],
                 str(lines["in_flight"]))
    report.figure("received meanwhile", f"{received} in {seconds} s")
    report.figure("close after", f"{lines['close'][1]} s of 1 s")


def read_until(process, last):
    lines = {}
    for line in process.stdout:
        name, *rest = line.split()
        lines[name] = rest
        if name == last:
            break
    return lines


def under_load(report, node, proxy, times):
    options = {"timeout": 1, "max_in_flight": 100}
    with Load(proxy.url(), **options) as load, Load(proxy.url(), **options) as closed:
        load.wait_started()
        closed.wait_started()
        before = load.generations()
        for _ in range(times):
            alarm(node, True)
            time.sleep(2)  # of load
            alarm(node, False)
            time.sleep(1)
        report.check("an alarm ends no connection", load.generations() == before)
        alarm(node, True)
        time.sleep(1.5)
        ended = closed.end(f"close {CLOSE_SECONDS * 1000}")
        alarm(node, False)
        ledger = load.end()
    slowest = max(microseconds for microseconds, _ in ended.closes) / 1e6
    report.check_time("close returns under load", slowest, CLOSE_SECONDS, slack=0.3)
    unended = [n for n, send in ended.sends.items() if len(send.outcomes) != 1]
    report.check("each send that a close met has one outcome", not unended, str(len(unended)))
    # What the close drops is lost; the others' messages to each other are not.
    ledger.judge(report, proxy.recorder, load.timeout)
    statuses = ledger.statuses()
    report.check("sends ended as busy or timed out",
                 statuses.get("BUSY", 0) + statuses.get("TIMEOUT", 0) > 0, str(statuses))
    report.figure("outcomes", statuses)
