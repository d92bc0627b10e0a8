"""100,000 groups whose connection is cut, what that costs others on the broker, and what the broker has of
them before, during and after."""

import time

import process
import rabbitmq
from bystander import Joiner, Publisher

SCENARIO = "100,000 groups bound, connection cut: all restored, each checked by a message"

ONLY_IN_FULL = True

GROUPS = 100_000
WORST_CONFIRM = 0.5  # seconds
EXPIRY = 60  # seconds that the keeper of a layer's exchange outlives it
DELETED = 300  # seconds that the broker may take to delete them
# What `list_queues`, `list_exchanges` and `list_bindings` of rabbitmqctl show of layers, as numbers; without
# the bindings of the default exchange.
WHAT_THERE_IS = """
    V = <<"asgi">>,
    Count = fun(Names) -> length([Name || {resource, _, _, <<"channels_", Name/binary>>} <- Names]) end,
    {Count([amqqueue:get_name(Q) || Q <- rabbit_amqqueue:list(V)]),
     Count([element(2, X) || X <- rabbit_exchange:list(V)]),
     Count([element(4, B) || B <- rabbit_binding:list(V), element(4, element(2, B)) =/= <<>>])}.
"""


class Watched:
    """A report that also tells, at each claim, how long others waited since the last one."""

    def __init__(self, report, node, publisher, joiner):
        self._report = report
        self._node = node
        self._publisher = publisher
        self._joiner = joiner

    def check(self, claim, holds, figure=""):
        self._report.check(claim, holds, figure)
        self.look(f"until {claim}")

    def figure(self, claim, figure):
        self._report.figure(claim, figure)

    def look(self, until):
        (worst, confirms), (longest, binds) = self._publisher.take(), self._joiner.take()
        self._report.check_time(f"each of {confirms} confirms of another publisher, {until},", worst,
                                WORST_CONFIRM)
        if self._report.check("another can bind", longest is not None, binds):
            self._report.note(f"the longest of {binds} binds of another: {longest:.2f} s")
        self._report.note(f"queues, exchanges and bindings of layers: {self.what_there_is()}")
        # The program goes on meanwhile: what the listing costs others counts too.
        return longest

    def what_there_is(self):
        return self._node.eval(WHAT_THERE_IS)


def run(report, _short):
    with rabbitmq.Node() as node:
        try:
            with Publisher(node.port) as publisher, Joiner(node.port) as joiner:
                watched = Watched(report, node, publisher, joiner)
                process.run(watched, "process_scale", node.url(), node.pid, 1000, GROUPS, 1, 0, limit=3600,
                            on_line=process.say)
                time.sleep(EXPIRY)
                gone = rabbitmq.wait_until(lambda: watched.what_there_is() == "{0,0,0}", DELETED)
                worst = watched.look("while the broker deletes what is left")
                report.check("nothing of the layer is left on the broker", gone)
                report.figure("longest bind of another while the broker deletes all", f"{worst or -1:.1f} s")
            report.figure("RSS of the broker afterwards", f"{process.rss_of(node.pid):.0f} MiB")
        finally:
            # One that has bindings to delete takes longer to stop than anybody waits.
            if node.running():
                node.kill9()
