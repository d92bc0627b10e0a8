"""Judges the ledger of tests/faults/programs/load.c against what the broker said."""

import bisect
import collections
from dataclasses import dataclass, field

OK, INVALID, FULL, NO_CHANNEL, TOO_LARGE, DISCONNECTED, BUSY, TIMEOUT, UNCONFIRMED = range(9)
REFUSED, CANCELLED, CLOSED, WOULD_DEADLOCK, FORKED, INTERNAL = range(9, 15)
NAMES = ("OK INVALID FULL NO_CHANNEL TOO_LARGE DISCONNECTED BUSY TIMEOUT UNCONFIRMED REFUSED "
         "CANCELLED CLOSED WOULD_DEADLOCK FORKED INTERNAL").split()

# A message with one of these outcomes reaches nobody. FULL is among them for a channel alone.
NOT_SENT = {INVALID, NO_CHANNEL, TOO_LARGE, DISCONNECTED, BUSY, REFUSED, CLOSED, CANCELLED}
# What no send of the load may end with, whatever happens to the broker.
NEVER = {INVALID, TOO_LARGE, CANCELLED, WOULD_DEADLOCK, FORKED, INTERNAL}
STATE_READY = 1

# Of the statistics at the end of the load, by their numbers, those that must be 0.
MUST_BE_ZERO = {10: "dropped as redelivered", 11: "dropped as malformed",
                13: "dropped as foreign", 18: "permits of sends that have ended"}


@dataclass
class Send:
    at: int
    sender: int
    sequence: int
    kind: str
    layer: int
    channel: int
    outcomes: list = field(default_factory=list)  # (time, status)
    deliveries: list = field(default_factory=list)  # (time, layer, channel)


class Ledger:
    def __init__(self, path):
        self.sends = {}
        self.states = collections.defaultdict(list)  # layer -> [(time, state, generation)]
        self.adds = []  # (microseconds, status)
        self.closes = []
        self.statistics = {}
        self.userdata = None
        self.problems = []  # what can only be a defect
        self.deliveries = 0
        # (layer, channel, sender, d|g) -> the last sequence
        self._last = {}
        with open(path, encoding="ascii") as lines:
            for line in lines:
                self._read(line.split())

    def _read(self, words):
        kind, at, *rest = words
        at = int(at)
        if kind == "S":
            number, sender, sequence, way, layer, channel = rest
            self.sends[int(number)] = Send(at, int(sender), int(sequence), way, int(layer),
                                           int(channel))
        elif kind == "O":
            send = self.sends.get(int(rest[0]))
            if send is None:
                self.problems.append(f"an outcome for message {rest[0]}, which nobody sent")
            else:
                send.outcomes.append((at, int(rest[1])))
        elif kind == "D":
            self._read_delivery(at, *map(int, rest))
        elif kind == "T":
            layer, state, generation = map(int, rest)
            self.states[layer].append((at, state, generation))
        elif kind == "A":
            self.adds.append(tuple(map(int, rest)))
        elif kind == "R":
            layer, which, value = map(int, rest)
            self.statistics[layer, which] = value
        elif kind == "C":
            layer, microseconds, status = map(int, rest)
            self.closes.append((microseconds, status))
        elif kind == "E":
            self.userdata = tuple(map(int, rest))

    def _read_delivery(self, at, layer, channel, number, sender, sequence):
        self.deliveries += 1
        send = self.sends.get(number)
        if send is None:
            self.problems.append(f"message {number} arrived, which nobody sent")
            return
        if send.kind == "d" and (layer, channel) != (send.layer, send.channel):
            self.problems.append(f"message {number} arrived at another channel than it was sent to")
        if any((layer, channel) == (l, c) for _, l, c in send.deliveries):
            self.problems.append(f"message {number} arrived twice at channel {layer}.{channel}")
        send.deliveries.append((at, layer, channel))
        way = (layer, channel, sender, send.kind)
        if self._last.get(way, 0) >= sequence:
            self.problems.append(f"message {number} (the {sequence}th of sender {sender}) arrived "
                                 f"at channel {layer}.{channel} after the {self._last[way]}th")
        self._last[way] = sequence

    # What the ledger says.

    def statuses(self):
        """How many sends ended with each status."""
        counts = collections.Counter(
            NAMES[send.outcomes[0][1]] for send in self.sends.values() if send.outcomes)
        return dict(sorted(counts.items()))

    def readiness(self, layer):
        """The times at which the layer became ready and ceased to be: [(from, to)]."""
        spans, since = [], None
        for at, state, _ in self.states[layer]:
            if state == STATE_READY and since is None:
                since = at
            elif state != STATE_READY and since is not None:
                spans.append((since, at))
                since = None
        if since is not None:
            spans.append((since, float("inf")))
        return spans

    def judge(self, report, recorder, timeout, slack=2.0, broker_loses=False):
        """Checks what must hold whatever the fault was; returns how often messages were lost.

        `timeout` is that of the layers, in seconds. `broker_loses`: the fault makes a broker lose
        what it has acked, beside a connection that stands.
        """
        sends = self.sends
        report.check("sends were made", len(sends) > 100, f"{len(sends)} sends, "
                     f"{self.deliveries} deliveries")
        without = [n for n, send in sends.items() if len(send.outcomes) != 1]
        report.check("each send has one outcome", not without, f"{len(without)} have not")
        never = [n for n, send in sends.items() for _, s in send.outcomes if s in NEVER]
        report.check("no send ends with a status that fits no fault", not never, f"{len(never)}")
        problems = self.problems
        report.check("no message is duplicated, misdelivered, invented or out of order",
                     not problems, "; ".join(problems[:3]) or "none")
        lies = [n for n, send in sends.items()
                if send.outcomes and send.outcomes[0][1] == OK and n not in recorder.acked]
        report.check("no LAYER_OK without the broker's ack", not lies,
                     f"{len(lies)} of {self.statuses().get('OK', 0)}")
        returned = [n for n in recorder.returned if n in sends and sends[n].outcomes
                    and sends[n].outcomes[0][1] == OK]
        report.check("no LAYER_OK for a message that the broker returned", not returned,
                     f"{len(returned)} of {len(recorder.returned)}")
        arrived = [n for n, send in sends.items() if send.deliveries and send.outcomes
                   and self._says_not_sent(send)]
        report.check("what was not sent does not arrive", not arrived, f"{len(arrived)}")
        late = max((at - send.at for send in sends.values() for at, _ in send.outcomes), default=0)
        report.check("each send ends in time", late <= (timeout + slack) * 1e6,
                     f"the slowest after {late / 1e6:.2f} s, timeout {timeout} s")
        slow = max((microseconds for microseconds, _ in self.adds), default=0)
        report.check("each layer_group_add ends in time", slow <= (timeout + slack) * 1e6,
                     f"the slowest after {slow / 1e6:.2f} s")
        lost, unexplained = self._losses()
        report.check("what was confirmed arrives, or is lost with its receiver's queue",
                     not unexplained or broker_loses,
                     f"{lost} lost, {len(unexplained)} of them unexplained"
                     + (f": {unexplained[:3]}" if unexplained else ""))
        for (layer, which), value in self.statistics.items():
            if which in MUST_BE_ZERO:
                report.check(f"layer {layer}: {MUST_BE_ZERO[which]}", value == 0, str(value))
        report.check("all userdata was destroyed", self.userdata is not None
                     and self.userdata[0] == self.userdata[1], str(self.userdata))
        report.note(f"outcomes: {self.statuses()}")
        return lost

    @staticmethod
    def _says_not_sent(send):
        status = send.outcomes[0][1]
        return status in NOT_SENT or (status == FULL and send.kind == "d")

    def _losses(self):
        """How often a confirmed message missed a channel, and which of these nothing explains.

        A queue is first in, first out, and dies with its connection. So a message may be lost with
        all that came after it; one that is missing before another of the same sender is a defect.
        """
        channels = {(layer, channel) for send in self.sends.values()
                    for _, layer, channel in send.deliveries}
        spans = {layer: self.readiness(layer) for layer, _ in channels}
        arrived_later = self._arrivals()
        lost, unexplained = 0, []
        for number, send in self.sends.items():
            if not send.outcomes or send.outcomes[0][1] != OK:
                continue
            wanted = {(send.layer, send.channel)} if send.kind == "d" else channels
            missed = wanted - {(layer, channel) for _, layer, channel in send.deliveries}
            for layer, _ in missed:
                lost += 1
                end = self._end_of_span(spans[layer], send.at)
                if end is None:
                    continue  # the layer was not ready: its groups were not all bound
                if end == float("inf") or arrived_later(layer, send) < end:
                    unexplained.append((number, send.kind, layer))
        return lost, unexplained

    def _arrivals(self):
        """Gives a function: when the first message that was sent after `send`, by the same sender,
        arrived at `layer`."""
        arrivals = collections.defaultdict(list)  # (layer, sender) -> [(sent, arrived)]
        for send in self.sends.values():
            for at, layer, _ in send.deliveries:
                arrivals[layer, send.sender].append((send.at, at))
        earliest = {}
        for way, pairs in arrivals.items():
            pairs.sort()
            firsts, first = [], float("inf")
            for _, at in reversed(pairs):
                first = min(first, at)
                firsts.append(first)
            earliest[way] = ([sent for sent, _ in pairs], firsts[::-1])

        def first_after(layer, send):
            sent, firsts = earliest.get((layer, send.sender), ([], []))
            at = bisect.bisect_right(sent, send.at)
            return firsts[at] if at < len(firsts) else float("inf")

        return first_after

    @staticmethod
    def _end_of_span(spans, time):
        """When the span of readiness that holds `time` ends; None if none holds it."""
        at = bisect.bisect_right(spans, (time, float("inf"))) - 1
        return spans[at][1] if at >= 0 and time <= spans[at][1] else None
