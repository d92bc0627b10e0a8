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


class Paired(Bar):
    """The library beside another contender, over the rounds that have both."""

    def __init__(self, title, sign, limit, unit, case, figure, other, series, pairs):
        super().__init__(title, sign, limit, unit)
        self.case, self.figure, self.series, self.other = case, figure, series, other
        self.pairs = pairs

    def compare(self, run):
        """The value, and how many pairs it is of."""
        raise NotImplementedError

    def measure(self, run):
        value, pairs = self.compare(run)
        if pairs < self.pairs:
            return None, (f"{pairs} of {self.pairs} pairs" if pairs else "")
        return value, f"{pairs} pair{'s' * (pairs > 1)}"


class Ratio(Paired):
    """The library over another contender: the median over the rounds."""

    def __init__(self, title, sign, limit, case, figure, other, series="layer", pairs=1):
        super().__init__(title, sign, limit, " ×", case, figure, other, series, pairs)

    def compare(self, run):
        return run.ratio(self.case, self.series, self.figure, self.other)


class Added(Paired):
    """What the library has more than another contender: the median over the rounds."""

    def __init__(self, title, limit, unit, case, figure, other, series, pairs=1):
        super().__init__(title, MOST, limit, unit, case, figure, other, series, pairs)

    def compare(self, run):
        return run.difference(self.case, self.series, self.figure, self.other)


class RatioToBest(Bar):
    """The library over the best of several series. The best is that of the medians: the best of
    single rounds would be the one with the most luck."""

    def __init__(self, title, limit, case, figure, others):
        super().__init__(title, LEAST, limit, " ×")
        self.case, self.figure, self.others = case, figure, others

    def measure(self, run):
        ratios = [run.ratio(self.case, "layer", self.figure, other) for other in self.others]
        missing = sum(1 for _, pairs in ratios if not pairs)
        if missing:
            found = len(ratios) - missing
            return None, (f"{found} of {len(ratios)} series" if found else "")
        value, pairs = min(ratios)
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
                "async-200", "per_second", "channels_rabbitmq", series=workloads.DEFAULT_PREFETCH)
    yield Ratio("Async send to callback, default prefetch_count: of librabbitmq with the same",
                LEAST, 0.9, "async-200", "per_second", workloads.LIBRABBITMQ_DEFAULT_PREFETCH,
                series=workloads.DEFAULT_PREFETCH)
    yield Ratio("Blocking sends from 16 threads: of librabbitmq with 16 in flight", LEAST, 0.8,
                "blocking-200-from-16", "per_second", "librabbitmq-16")
    rest = "Latency at rest"
    paced = "Latency at half of librabbitmq's throughput, from the intended send"
    for case, name, p50, p99 in (("latency-at-rest", rest, 1.15, 1.2),
                                 ("latency-at-fixed-rate", paced, 1.2, 1.3)):
        yield Ratio(f"{name}, p50: of librabbitmq", MOST, p50, case, "p50_us", "librabbitmq",
                    pairs=workloads.BLOCKS)
        yield Ratio(f"{name}, p99: of librabbitmq", MOST, p99, case, "p99_us", "librabbitmq",
                    pairs=workloads.BLOCKS)
    for figure, title in (("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9")):
        yield Ratio(f"{rest}, {title}: of channels_rabbitmq", BELOW, 1.0, "latency-at-rest", figure,
                    "channels_rabbitmq")
    for members in (1000, 100000):
        yield Absolute(f"Local fan-out to {members:,} members: deliveries per CPU second", LEAST,
                       10e6, "", f"fan-out-{members}", "per_cpu_second")
    for members in (1000, 100000):
        for name, title in PEER_NAMES.items():
            least = 60.0 if (members, name) == (1000, "redis_pubsub") else 50.0
            yield Ratio(f"Broadcast on the broker to {members:,} members, deliveries per CPU "
                        f"second: of {title}", LEAST, least, f"broadcast-{members}",
                        "per_cpu_second", name)
    for figure, title in (("adds_per_second", "group_add"),
                          ("discards_per_second", "group_discard")):
        for groups in (1000, 10000, 100000):
            yield Ratio(f"{title} of {groups:,} distinct groups: of channels_rabbitmq", LEAST, 3.0,
                        f"groups-{groups}", figure, "channels_rabbitmq")
        yield Flat(f"{title}: 100,000 groups over 1,000 (flat is 0.8 and more)", 0.8,
                   "groups-100000", "groups-1000", figure)
    yield RatioToBest("group_add of 10,000 distinct groups: of the best of librabbitmq with "
                      "bindings alone", 0.9, "groups-10000", "adds_per_second",
                      workloads.RAW_BINDERS)
    for groups in (1000, 100000):
        yield Absolute(f"A distinct group beyond its name, of {groups:,}", MOST, 250.0, " bytes",
                       f"groups-{groups}", "bytes_beyond_name")
    yield Absolute("An idle channel, member of one shared group, with a receiver", MOST, 400.0,
                   " bytes", "idle", "bytes_each_with_receiver")
    yield Ratio("Client CPU per message, async: of librabbitmq", MOST, 1.0, "async-200",
                "cpu_us_per_message", "librabbitmq")
    for body, title in (("64k", "64 KiB"), ("1m", "1 MiB")):
        yield Ratio(f"Bodies of {title}, MB/s: of librabbitmq", LEAST, 0.95, f"async-{body}",
                    "mb_per_second", "librabbitmq")


def _bindings_bars():
    # What a message costs is processor time of the client, not messages per second: those are the
    # broker's, too, and it has most of the time.
    yield Ratio("C++, client CPU per message, async: of C", MOST, 1.1, "bindings-200",
                "cpu_us_per_message", "layer", series="cpp", pairs=7)
    # What Go adds is its own, whatever C takes: a ratio would get worse as C gets better.
    yield Added("Go, client CPU per message, async: added to C", 5.0, " µs", "bindings-200",
                "cpu_us_per_message", "layer", series="go", pairs=7)
    for name, title, least in (("ruby", "Ruby", 10.0), ("python", "Python", 10.0),
                               ("django", "Python with Django", 3.0)):
        yield Ratio(f"{title}, send to receive, messages/s: of channels_rabbitmq", LEAST, least,
                    "bindings-200", "per_second", "channels_rabbitmq", series=name, pairs=5)
        yield Ratio(f"{title}, latency at rest, p50: of channels_rabbitmq", MOST, 1.0,
                    "bindings-latency", "p50_us", "channels_rabbitmq", series=name, pairs=5)


BARS = list(_bars())
BINDINGS_BARS = list(_bindings_bars())


def of(kind):
    """The bars of a kind of run."""
    return BINDINGS_BARS if kind == workloads.BINDINGS else BARS
