"""Judges a run of programs/chaos.c while it runs: no duplicate, lie, loss, hang or deafness.

Pure: it is fed with events, each with its time, and has neither a clock nor a thread. Times are
seconds of the monotonic clock. Its `now` is the time of the latest event of the program: what is
due by then is judged in `advance`, some `LAG` later, since events of several sources cross.
"""

import bisect
import collections
from dataclasses import dataclass, field

from ledger import (BUSY, CANCELLED, CLOSED, DISCONNECTED, FORKED, FULL, INTERNAL, INVALID, NAMES,
                    NO_CHANNEL, OK, REFUSED, STATE_READY, TIMEOUT, TOO_LARGE, UNCONFIRMED,
                    WOULD_DEADLOCK)

# Certainly not sent. FULL is too, for a channel alone: another member of a group may have it.
NOT_SENT = {INVALID, NO_CHANNEL, TOO_LARGE, DISCONNECTED, BUSY, REFUSED, CLOSED, CANCELLED}
# What a send may end with, by its kind. CLOSED only where its own layer closes.
UNKNOWN = {TIMEOUT, UNCONFIRMED}
ALLOWED = {
    "d": {OK, FULL, NO_CHANNEL, DISCONNECTED, BUSY, REFUSED, CLOSED} | UNKNOWN,
    "g": {OK, FULL, DISCONNECTED, BUSY, REFUSED, CLOSED} | UNKNOWN,
    "o": {TOO_LARGE, DISCONNECTED, BUSY, REFUSED, CLOSED} | UNKNOWN,
}
# What other calls of the program may end with.
ALLOWED_CALLS = {OK, TIMEOUT, DISCONNECTED, REFUSED, CLOSED}
assert not ({FORKED, INTERNAL, WOULD_DEADLOCK, INVALID} & ALLOWED_CALLS)

LAG = 0.3  # by how much events of different sources may cross
SETTLED = 8.0  # after so many seconds what has not arrived is lost
SILENT = 3.0  # without an event for so long the program hangs
CONTROL = 200  # the sender of the control client's messages


@dataclass(frozen=True)
class Rules:
    """What the layers promise, in seconds."""
    timeout: float = 3.0
    slack: float = 2.0  # for a call, beyond its timeout
    ready: float = 2.0  # until READY, beyond what the control client needed
    heard: float = 1.0  # until a message is heard
    stall_after: float = 0.5  # by which a channel that nobody reads may delay the others


@dataclass(frozen=True)
class Violation:
    rule: str
    at: float
    text: str

    def __str__(self):
        return f"{self.rule}: {self.text}"


@dataclass(slots=True)
class Send:
    at: float
    kind: str
    sender: int
    sequence: int
    layer: int
    channel: int
    origin: int  # the layer that sends
    ended: float = None
    status: int = None
    arrivals: dict = field(default_factory=dict)  # (layer, channel) -> time
    wanted: tuple = ()  # the members of the group when it was sent


@dataclass(slots=True)
class Ping:
    """A message of the control client."""
    at: float
    kind: str
    layer: int
    channel: int
    answered: float = None
    answer: str = None  # acked, nacked, returned or unanswered
    wanted: tuple = ()
    arrivals: dict = field(default_factory=dict)


class History:
    """A value over time."""

    def __init__(self, value, at):
        self._times, self._values = [at], [value]

    def set(self, value, at):
        # Threads of the program may tell in another order than they looked at the clock.
        self._times.append(max(at, self._times[-1]))
        self._values.append(value)

    def at(self, time):
        index = bisect.bisect_right(self._times, time) - 1
        return self._values[index] if index >= 0 else None

    @property
    def last(self):
        return self._values[-1]

    def always(self, value, begin, end):
        """Whether it was `value` from `begin` to `end`."""
        first = bisect.bisect_right(self._times, begin) - 1
        last = bisect.bisect_right(self._times, end)
        return first >= 0 and all(each == value for each in self._values[first:last])

    def next(self, value, after):
        """When it was `value` for the first time at or after `after`; None for not yet."""
        if self.at(after) == value:
            return after
        for index in range(bisect.bisect_right(self._times, after), len(self._times)):
            if self._values[index] == value:
                return self._times[index]
        return None

    def until(self, value, since):
        """When it ceased to be `value`, which it is at `since`; infinity for not yet."""
        for index in range(bisect.bisect_right(self._times, since), len(self._times)):
            if self._values[index] != value:
                return self._times[index]
        return float("inf")


class Layer:
    def __init__(self, opened):
        self.opened = opened
        self.closing = float("inf")
        self.generation = 0
        self.renamed = float("inf")  # from then on its channels have the name of another queue
        self.ready = History(False, opened)
        self.live = {}  # channel -> History: whether somebody receives from it
        self.member_since = {}  # channel -> when layer_group_add said so

    def all_live(self, begin, end):
        return all(live.always(True, begin, end) for live in self.live.values())


@dataclass
class Disturbance:
    """What an action does, from `begin` to `end`, and for as long after it as nobody can notice it.
    `loses`: the broker may lose what it has acked; `spares_queues`: no layer loses its queue."""
    action: str
    begin: float
    unnoticed: float = 0.0
    loses: bool = False
    spares_queues: bool = False
    end: float = float("inf")

    def meets(self, begin, end):
        return self.begin <= end and begin <= self.end + self.unnoticed


@dataclass
class Probe:
    """One connection of the control client."""
    began: float
    ended: float = None
    heard: bool = None


class Oracle:
    """Fed with events by `feed` (lines of the program), `disturb`, `activate`, `probe_*`, `ping_*`.

    `acked` and `returned` are the ids of which the broker said so, to be looked into at any time.
    """

    def __init__(self, rules, acked, returned):
        self.rules = rules
        self.now = 0.0
        self.violations = []
        self.layers = {}
        self.gap = 0.0  # the longest liveness gap: from a success of the control client to READY
        self.slowest_heard = 0.0
        self.counts = collections.Counter()
        self.losses = collections.Counter()  # why -> how many
        self.statuses = collections.Counter()
        self._acked, self._returned = acked, returned
        self._sends = {}
        self._pending = collections.OrderedDict()  # id -> when it began, without an outcome
        self._to_settle = collections.deque()  # (when it ended, id)
        self._last = {}  # (layer, channel, sender, kind) -> sequence
        # (layer, channel, sender, kind) -> [(sent, arrived)], to find what arrived later
        self._ways = collections.defaultdict(collections.deque)
        self._disturbances = []
        self._activities = []
        self._divisions = []
        self._lost_ready = collections.deque()  # (when, layer), to be judged
        self._lost_queues = collections.deque()  # the same
        self._refusals = collections.deque()  # (when, id) of FULL and NO_CHANNEL, to be judged
        self._probes = []
        self._checks = collections.deque()  # successes of the control client, to be judged
        self._pings = {}
        self._ping_checks = collections.deque()
        self._userdata = None

    # What happens.

    def feed(self, line):
        """A line of the program."""
        words = line.split()
        kind, at, rest = words[0], int(words[1]) / 1e6, words[2:]
        self.now = max(self.now, at)
        getattr(self, f"_on_{kind}")(at, *rest)

    def disturb(self, action, begin, unnoticed=0.0):
        """Something is being done or undone: nothing is expected until its end, which is to be set
        in what is returned."""
        self._disturbances.append(Disturbance(action, begin, unnoticed))
        return self._disturbances[-1]

    def divide(self, action, begin, unnoticed=0.0):
        """The broker is divided, until its end: nobody need hear who is on the other side."""
        self._divisions.append(Disturbance(action, begin, unnoticed))
        return self._divisions[-1]

    def activate(self, action, begin, unnoticed=0.0, loses=False, spares_queues=False):
        """An action is in effect, until its end: who has lost something by it may be ready again,
        and lose it again."""
        self._activities.append(Disturbance(action, begin, unnoticed, loses, spares_queues))
        return self._activities[-1]

    def probe_began(self, at):
        probe = Probe(at)
        self._probes.append(probe)
        return probe

    def probe_ended(self, probe, at, heard):
        """The control client has declared, bound and heard, or could not."""
        probe.ended, probe.heard = at, heard
        self.counts["control client heard" if heard else "control client did not hear"] += 1
        if heard:
            self._checks.append(probe)

    def ping_sent(self, number, at, kind, layer=None, channel=None):
        wanted = self._members(at) if kind == "g" else ((layer, channel),)
        self._pings[number] = Ping(at, kind, layer, channel, wanted=wanted)

    def ping_answered(self, number, at, answer):
        ping = self._pings[number]
        ping.answered, ping.answer = at, answer
        self._ping_checks.append(number)

    def ended(self):
        """The program has ended: what is left is judged."""
        self.now += 3600
        for number, began in self._pending.items():
            self._violate("hang", f"the send {number} of {began:.3f} has no outcome")
        self._pending.clear()
        self._settle()
        if self._userdata is None:
            self._violate("end", "the program ended without saying so")
        elif self._userdata[0] != self._userdata[1]:
            self._violate("end", "of {} userdata {} were destroyed".format(*self._userdata))

    # Lines of the program.

    def _on_N(self, at, layer, channel, _name):
        self.layers.setdefault(int(layer), Layer(at)).live[int(channel)] = History(False, at)

    def _on_M(self, at, layer, channel):
        self.layers[int(layer)].member_since[int(channel)] = at

    def _on_V(self, at, layer, channel, live):
        self.layers[int(layer)].live[int(channel)].set(live == "1", at)

    def _on_T(self, at, layer, state, generation):
        # The first may come before the layer has channels.
        number, layer = int(layer), self.layers.setdefault(int(layer), Layer(at))
        if layer.ready.last and int(state) != STATE_READY:
            self._lost_ready.append((at, number))
        layer.ready.set(int(state) == STATE_READY, at)
        if 0 < layer.generation < int(generation):
            self._lost_queues.append((at, number))
        layer.generation = int(generation)

    def _on_Q(self, at, layer):
        self.layers[int(layer)].renamed = at
        self.counts["queues renamed"] += 1

    def _on_X(self, at, layer):
        self.layers[int(layer)].closing = at

    def _on_K(self, _at):
        pass

    def _on_E(self, _at, given, destroyed):
        self._userdata = (int(given), int(destroyed))

    def _on_F(self, _at, what, wanted, got):
        self.counts["calls of forked children"] += 1
        if wanted != got:
            self._violate("fork", f"{what} in a forked child: {got} instead of {wanted}")

    def _on_A(self, _at, call, microseconds, status, limit):
        status = int(status)
        self._judge_time(call, int(microseconds), int(limit))
        if status not in ALLOWED_CALLS:
            self._violate("status", f"{call} ends with {NAMES[status]}")

    def _on_C(self, _at, layer, microseconds, status, limit):
        self._judge_time(f"layer_close of layer {layer}", int(microseconds), int(limit))
        if int(status) not in (OK, TIMEOUT):
            self._violate("status", f"layer_close ends with {NAMES[int(status)]}")

    def _judge_time(self, call, microseconds, limit):
        if microseconds / 1e6 > limit / 1e3 + self.rules.slack:
            self._violate("hang", f"{call} took {microseconds / 1e6:.2f} s of {limit / 1e3:g} s")

    def _on_S(self, at, number, sender, sequence, kind, layer, channel, origin):
        send = Send(at, kind, int(sender), int(sequence), int(layer), int(channel), int(origin))
        send.wanted = self._members(at) if kind == "g" else ((send.layer, send.channel),)
        self._sends[int(number)] = send
        self._pending[int(number)] = at
        self.counts["sends"] += 1

    def _on_O(self, at, number, status):
        number, status = int(number), int(status)
        send = self._sends.get(number)
        if send is None or send.status is not None:
            self._violate("outcome", f"message {number} has an outcome too many: {NAMES[status]}")
            return
        send.ended, send.status = at, status
        self.statuses[NAMES[status]] += 1
        del self._pending[number]
        if at - send.at > self.rules.timeout + self.rules.slack:
            self._violate("hang", f"the send {number} took {at - send.at:.2f} s")
        if status not in ALLOWED[send.kind] or (
                status == CLOSED and self.layers[send.origin].closing > at + LAG):
            self._violate("status", f"message {number} ({send.kind}) ends with {NAMES[status]}")
        # The proxy records what the broker says before it passes it on.
        if status == OK and number not in self._acked:
            self._violate("lie", f"message {number} is OK, and the broker did not ack it")
        if status == OK and number in self._returned:
            self._violate("lie", f"message {number} is OK, and the broker returned it")
        if self._says_not_sent(send) and send.arrivals:
            self._deny(number, send)
        if status == OK:
            self._to_settle.append((at, number))
        elif send.kind == "d" and status in (FULL, NO_CHANNEL):
            self._refusals.append((at, number))

    def _on_D(self, at, layer, channel, number, sender, sequence):
        number, place = int(number), (int(layer), int(channel))
        self.counts["deliveries"] += 1
        if int(sender) == CONTROL:
            self._hear(at, number, place)
            return
        send = self._sends.get(number)
        if send is None:
            self._violate("invention", f"message {number} arrived, which nobody sent")
            return
        if send.kind != "g" and place != (send.layer, send.channel):
            self._violate("misdelivery", f"message {number} arrived at channel {place}, "
                          f"sent to {(send.layer, send.channel)}")
        if place in send.arrivals:
            self._violate("duplicate", f"message {number} arrived twice at channel {place}")
        send.arrivals[place] = at
        if send.status is not None and self._says_not_sent(send):
            self._deny(number, send)
        if send.kind == "o":
            self._violate("lie", f"message {number} arrived, which is larger than is allowed")
        if send.status in UNKNOWN:
            # A node that was frozen may still take what lay in its socket, when its sender has long
            # been told that nobody knows, and has gone on elsewhere.
            return
        way = (*place, send.sender, send.kind)
        if self._last.get(way, 0) >= send.sequence:
            self._violate("order", f"message {number} (sequence {sequence} of sender {sender}) "
                          f"arrived at channel {place} after {self._last[way]}")
        self._last[way] = send.sequence
        self._ways[way].append((send.at, at))

    def _hear(self, at, number, place):
        ping = self._pings.get(number)
        if ping is None:
            self._violate("invention", f"message {number} arrived, which nobody sent")
        elif place in ping.arrivals:
            self._violate("duplicate", f"ping {number} arrived twice at channel {place}")
        elif ping.kind == "d" and place != (ping.layer, ping.channel):
            self._violate("misdelivery", f"ping {number} arrived at channel {place}")
        else:
            ping.arrivals[place] = at

    def _deny(self, number, send):
        self._violate("denial", f"message {number} arrived at {list(send.arrivals)}, "
                      f"and its outcome is {NAMES[send.status]}")

    @staticmethod
    def _says_not_sent(send):
        return send.status in NOT_SENT or (send.status == FULL and send.kind == "d")

    def _members(self, at):
        return tuple((number, channel) for number, layer in self.layers.items()
                     if layer.closing > at for channel, since in layer.member_since.items()
                     if since < at)

    # What is judged when its time has come.

    def advance(self, wall):
        """Judges what is due; `wall` is the time of whoever calls."""
        if self.now and wall - self.now > SILENT:
            self._violate("hang", f"the program has said nothing for {wall - self.now:.1f} s")
        while self._pending:
            number, began = next(iter(self._pending.items()))
            if self.now - began <= self.rules.timeout + self.rules.slack + LAG:
                break
            del self._pending[number]
            self._violate("hang", f"the send {number} has no outcome after "
                          f"{self.now - began:.2f} s")
        self._judge_readiness()
        self._judge_stability()
        self._judge_contagion()
        self._judge_refusals()
        self._judge_hearing()
        self._settle()

    def _disturbed(self, begin, end):
        return any(each.meets(begin, end) for each in self._disturbances)

    def _divided(self, begin, end):
        return any(each.meets(begin, end) for each in self._divisions)

    def _judge_readiness(self):
        while self._checks:
            probe = self._checks[0]
            due = probe.ended + self.rules.ready
            later = [each for each in self._probes if probe.began < each.began <= due]
            if self.now < due + LAG or any(each.ended is None for each in later):
                return
            self._checks.popleft()
            self._probes = [each for each in self._probes if each.began >= probe.began]
            if self._disturbed(probe.began, due) or any(not each.heard for each in later):
                self.counts["readiness not judged"] += 1
                continue
            self.counts["readiness judged"] += 1
            for number, layer in self.layers.items():
                if layer.opened > probe.began or layer.closing <= due:
                    continue
                ready = layer.ready.next(True, probe.began)
                self.gap = max(self.gap, (ready or due) - probe.ended)
                if ready is None or ready > due:
                    self._violate("liveness", f"layer {number} is not READY by {due:.3f}: the "
                                  f"control client connected at {probe.began:.3f} and heard after "
                                  f"{probe.ended - probe.began:.2f} s")

    def _judge_stability(self):
        """A layer loses nothing while nothing is done."""
        while self._lost_ready and self.now >= self._lost_ready[0][0] + LAG:
            at, number = self._lost_ready.popleft()
            if self.layers[number].closing > at + LAG and not any(
                    each.meets(at - 1, at) for each in self._activities):
                self._violate("stability", f"layer {number} was not READY any more at {at:.3f}, "
                              "and nothing was done to it")

    def _judge_contagion(self):
        """A layer loses no queue by what costs it only the connection that it publishes by."""
        while self._lost_queues and self.now >= self._lost_queues[0][0] + LAG:
            at, number = self._lost_queues.popleft()
            met = [each for each in self._activities if each.meets(at - self.rules.ready, at)]
            if met and all(each.spares_queues for each in met):
                self._violate("contagion", f"layer {number} has another queue at {at:.3f}, and "
                              f"only {met[-1].action} was done")

    def _judge_refusals(self):
        """No queue is missing whose layer is READY, and none is full whose channels are read."""
        while self._refusals and self.now >= self._refusals[0][0] + LAG:
            at, number = self._refusals.popleft()
            send = self._sends[number]
            layer = self.layers[send.layer]
            begin, end = send.at - self.rules.ready, at + LAG
            if (self._disturbed(begin, end) or self._divided(begin, end) or layer.renamed <= end
                    or layer.closing <= end or not layer.ready.always(True, begin, end)):
                continue
            if send.status == FULL and not layer.all_live(begin, end):
                continue
            self._violate("lie", f"message {number} of {send.at:.3f} is {NAMES[send.status]}, and "
                          f"layer {send.layer} is READY and reads all its channels")

    def _judge_hearing(self):
        while self._ping_checks:
            ping = self._pings[self._ping_checks[0]]
            latest = ping.answered + self.rules.heard + self.rules.stall_after
            if self.now < latest + LAG:
                return
            number = self._ping_checks.popleft()
            for place in ping.wanted:
                self._judge_ping(number, ping, place)

    def _judge_ping(self, number, ping, place):
        layer = self.layers[place[0]]
        live = layer.live[place[1]]
        limit = ping.answered + self.rules.heard
        if not layer.all_live(ping.at - self.rules.stall_after, limit):
            limit += self.rules.stall_after
        # A layer that was not ready may tell its users so a moment later than it is.
        begin = ping.at - LAG
        if (self._disturbed(begin, limit)
                or self._divided(begin, limit) or layer.closing <= limit
                or not layer.ready.always(True, begin, limit)
                or not live.always(True, begin, limit)
                or (ping.kind == "d" and layer.renamed <= limit)
                or (ping.kind == "g" and ping.answer in ("nacked", "unanswered"))):
            self.counts["hearing not judged"] += 1
            return
        self.counts["hearing judged"] += 1
        arrived = ping.arrivals.get(place)
        way = "by the group" if ping.kind == "g" else "directly"
        if arrived is not None:
            self.slowest_heard = max(self.slowest_heard, arrived - ping.at)
        if arrived is None or arrived > limit:
            heard = "not yet" if arrived is None else f"only {arrived - ping.answered:.2f} s later"
            self._violate("deafness", f"layer {place[0]} is READY, and its channel {place[1]} has "
                          f"{heard} heard ping {number}, sent {way} at {ping.at:.3f} and "
                          f"{ping.answer} at {ping.answered:.3f}")

    def _settle(self):
        while self._to_settle and self.now >= self._to_settle[0][0] + SETTLED:
            _, number = self._to_settle.popleft()
            send = self._sends[number]
            for place in send.wanted:
                if place not in send.arrivals:
                    self._explain(number, send, place)

    def _explain(self, number, send, place):
        """Why a confirmed message did not arrive; a violation where nothing explains it.

        A queue is first in, first out, and dies with its connection. So a message may be lost with
        all that came after it; one that is missing before another of the same sender is a defect.
        """
        layer = self.layers[place[0]]
        end = layer.ready.until(True, send.at)
        way = (*place, send.sender, send.kind)
        if not layer.ready.at(send.at):
            why = "its layer was not ready"
        elif layer.closing < send.ended + SETTLED:
            why = "its layer was closed"
        elif not layer.live[place[1]].always(True, send.at - 1, send.ended + 1):
            why = "nobody received from its channel"
        elif send.kind == "d" and layer.renamed < send.ended + SETTLED:
            why = "its layer has another queue"
        elif any(each.loses and each.meets(send.at, send.ended + 1)
                 for each in self._activities):
            why = "the broker lost it"
        elif end <= send.ended + SETTLED and not self._arrived_later(way, send.at, end):
            why = "its connection was lost"
        else:
            self.losses["unexplained"] += 1
            self._violate("loss", f"message {number} ({send.kind}), sent at {send.at:.3f} and "
                          f"confirmed, did not arrive at channel {place}, which was ready")
            return
        self.losses[why] += 1

    def _arrived_later(self, way, sent, before):
        """Whether a message that was sent after `sent` arrived by `way` before `before`."""
        arrivals = self._ways[way]
        # What was sent before all that is still to be settled says nothing any more.
        while arrivals and arrivals[0][0] < self.now - 10 * SETTLED:
            arrivals.popleft()
        return any(each > sent and arrived < before for each, arrived in arrivals)

    def _violate(self, rule, text):
        self.violations.append(Violation(rule, self.now, text))
