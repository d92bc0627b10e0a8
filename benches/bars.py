"""The bars: what the library is held to, as ratios within one run. Pure."""

import figures
import workloads

LEAST, MOST, BELOW = "≥", "≤", "<"

MET, MISSED, VOID, NOT_RUN = "met", "missed", "void", "not run"


class Verdict:
    """`value` is None where the run has nothing to judge; `state` says what came of it."""

    def __init__(self, value, state, note=""):
        self.value, self.state, self.note = value, state, note


def holds(value, sign, limit):
    return {LEAST: value >= limit, MOST: value <= limit, BELOW: value < limit}[sign]


class Bar:
    """`title` says what is compared, `sign` and `limit` what is wanted; `unit` follows a value."""

    def __init__(self, title, sign, limit, unit=""):
        self.title, self.sign, self.limit, self.unit = title, sign, limit, unit

    def measure(self, run):
        """The value, or None; and what to note beside it."""
        raise NotImplementedError

    def judge(self, run):
        value, note = self.measure(run)
        if value is None:
            return Verdict(None, NOT_RUN, note)
        if figures.void_reason(run):
            return Verdict(value, VOID, note)
        return Verdict(value, MET if holds(value, self.sign, self.limit) else MISSED, note)


class Ratio(Bar):
    """The library over another contender: the median over the rounds that have both."""

    def __init__(self, title, sign, limit, case, figure, other, series="layer", pairs=1):
        super().__init__(title, sign, limit, " ×")
        self.case, self.figure, self.series, self.other = case, figure, series, other
        self.pairs = pairs

    def measure(self, run):
        value, pairs = run.ratio(self.case, self.series, self.figure, self.other)
        if pairs < self.pairs:
            return None, (f"{pairs} of {self.pairs} pairs" if pairs else "")
        return value, f"{pairs} pair{'s' * (pairs > 1)}"


class Absolute(Bar):
    """A median of the library's own."""

    def __init__(self, title, sign, limit, unit, case, figure, series="layer"):
        super().__init__(title, sign, limit, unit)
        self.case, self.figure, self.series = case, figure, series

    def measure(self, run):
        return run.median(self.case, self.series, self.figure), ""


class Flat(Bar):
    """The library's median in one case over that in another."""

    def __init__(self, title, limit, case, base, figure):
        super().__init__(title, LEAST, limit, " ×")
        self.case, self.base, self.figure = case, base, figure

    def measure(self, run):
        value = run.median(self.case, "layer", self.figure)
        base = run.median(self.base, "layer", self.figure)
        return (value / base if value is not None and base else None), ""


PEER_NAMES = {"channels_rabbitmq": "channels_rabbitmq", "redis_core": "channels_redis core",
              "redis_pubsub": "channels_redis pubsub"}


def _bars():
    send = "Async send to callback, prefetch_count=1000"
    yield Ratio(f"{send}: of librabbitmq", LEAST, 1.0, "async-200", "per_second", "librabbitmq")
    yield Ratio(f"{send}: of channels_rabbitmq", LEAST, 5.0, "async-200", "per_second",
                "channels_rabbitmq")
    yield Ratio("Async send to callback, default prefetch_count: of channels_rabbitmq", LEAST, 2.0,
                "async-200", "per_second", "channels_rabbitmq", series="layer-default-prefetch")
    yield Ratio("Blocking sends from 16 threads: of librabbitmq with 16 in flight", LEAST, 0.8,
                "blocking-200-from-16", "per_second", "librabbitmq-16")
    rest = "Latency at rest"
    yield Ratio(f"{rest}, p50: of librabbitmq", MOST, 1.4, "latency-at-rest", "p50_us",
                "librabbitmq", pairs=7)
    yield Ratio(f"{rest}, p99: of librabbitmq", MOST, 1.5, "latency-at-rest", "p99_us",
                "librabbitmq", pairs=7)
    for figure, title in (("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9")):
        yield Ratio(f"{rest}, {title}: of channels_rabbitmq", BELOW, 1.0, "latency-at-rest", figure,
                    "channels_rabbitmq")
    for members in (1000, 100000):
        yield Absolute(f"Local fan-out to {members:,} members: deliveries per CPU second", LEAST,
                       10e6, "", f"fan-out-{members}", "per_cpu_second")
    for members in (1000, 100000):
        for name, title in PEER_NAMES.items():
            yield Ratio(f"Broadcast on the broker to {members:,} members, deliveries per CPU "
                        f"second: of {title}", LEAST, 50.0, f"broadcast-{members}",
                        "per_cpu_second", name)
    for figure, title in (("adds_per_second", "group_add"),
                          ("discards_per_second", "group_discard")):
        for groups in (1000, 10000, 100000):
            yield Ratio(f"{title} of {groups:,} distinct groups: of channels_rabbitmq", LEAST, 3.0,
                        f"groups-{groups}", figure, "channels_rabbitmq")
        yield Flat(f"{title}: 100,000 groups over 1,000 (flat is 0.8 and more)", 0.8,
                   "groups-100000", "groups-1000", figure)
    yield Absolute("An idle channel, member of one shared group, with a receiver", MOST, 400.0,
                   " bytes", "idle", "bytes_each_with_receiver")
    yield Ratio("Client CPU per message, async: of librabbitmq", MOST, 1.5, "async-200",
                "cpu_us_per_message", "librabbitmq")
    for body, title in (("64k", "64 KiB"), ("1m", "1 MiB")):
        yield Ratio(f"Bodies of {title}, MB/s: of librabbitmq", LEAST, 0.9, f"async-{body}",
                    "mb_per_second", "librabbitmq")


def _bindings_bars():
    # What a message costs is processor time of the client, not messages per second: those are the
    # broker's, too, and it has most of the time.
    for name, title, most in (("cpp", "C++", 1.1), ("go", "Go", 1.5)):
        yield Ratio(f"{title}, client CPU per message, async: of C", MOST, most, "bindings-200",
                    "cpu_us_per_message", "layer", series=name, pairs=7)
    for name, title in (("ruby", "Ruby"), ("python", "Python"), ("django", "Python with Django")):
        yield Ratio(f"{title}, send to receive, messages/s: of channels_rabbitmq", LEAST, 3.0,
                    "bindings-200", "per_second", "channels_rabbitmq", series=name, pairs=5)
        yield Ratio(f"{title}, latency at rest, p50: of channels_rabbitmq", MOST, 1.0,
                    "bindings-latency", "p50_us", "channels_rabbitmq", series=name, pairs=5)


BARS = list(_bars())
BINDINGS_BARS = list(_bindings_bars())


def of(kind):
    """The bars of a kind of run."""
    return BINDINGS_BARS if kind == workloads.BINDINGS else BARS
