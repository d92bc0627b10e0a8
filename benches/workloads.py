"""What is measured: the table of cases. Each has the contenders that run it, how often, and with
which parameters. `make bench` runs the cases of the bars, `make bench-full` all;
`make bench-bindings` those of the bindings, which are a table of their own."""

BENCH, FULL, BINDINGS = "bench", "bench-full", "bench-bindings"  # kinds of runs, as make calls them

MIB = 1 << 20
IN_FLIGHT_BYTES = 32 * MIB  # for large bodies, less than a window of 1000 messages
ON_THEIR_WAY_BYTES = 64 * MIB
SENDERS = 64  # coroutines of the Python layers
PYTHON_BACKLOG = 500  # what they have on their way; see python_layers.py

# Latency beside librabbitmq is measured in short blocks of both in turn: what shifts in the broker
# within minutes is then the same for both halves of a pair. An even number, so that each of the two
# is first as often as the other.
BLOCKS, BLOCK_SECONDS, BLOCK_WARMUP = 20, 1, 0.5

DEFAULT_PREFETCH_COUNT = 10  # the library's, which a test holds against docs/options.md


class Entry:
    """One contender in a case. `series` tells apart what one contender runs with several settings.
    `rounds` are of `make bench` or `make bench-bindings`, 0 for none; `full_rounds` those of
    `make bench-full`. `seconds` and `warmup` are those of the case unless said."""

    def __init__(self, contender, rounds, full_rounds=None, series=None, title=None, seconds=None,
                 warmup=None, estimate=0.0, **parameters):
        self.contender = contender
        self.series = series or contender
        self.title = title  # of the series, where the contender's does not do
        self.rounds = rounds
        self.full_rounds = rounds if full_rounds is None else full_rounds
        self.seconds, self.warmup = seconds, warmup
        self.estimate = estimate  # seconds beside those that are measured
        self.parameters = parameters


class Case:
    """`figures` are (name, title, whether more is better), the first being the one that counts.
    `half_of` names a case: the rate is half of what the same series does there, or of what
    `paced_by` does there, so that all series have one rate."""

    def __init__(self, name, title, workload, figures, entries, seconds=None, warmup=None,
                 half_of=None, paced_by=None, **parameters):
        self.name, self.title, self.workload = name, title, workload
        self.figures = figures
        self.entries = entries
        self.seconds, self.warmup = seconds, warmup
        self.half_of, self.paced_by = half_of, paced_by
        self.parameters = parameters


def window_of(body):
    return max(1, min(1000, IN_FLIGHT_BYTES // body))


def backlog_of(body):
    return max(2 * window_of(body), min(50000, ON_THEIR_WAY_BYTES // body))


PER_SECOND = ("per_second", "messages/s", True)
MB_PER_SECOND = ("mb_per_second", "MB/s", True)
CPU = ("cpu_us_per_message", "client CPU s per million messages", False)
LATENCIES = (("p50_us", "p50 µs", False), ("p99_us", "p99 µs", False),
             ("p999_us", "p99.9 µs", False))
DELIVERIES = (("per_second", "deliveries/s", True),
              ("per_cpu_second", "deliveries per CPU second", True))

DEFAULT_PREFETCH = "layer-default-prefetch"
LIBRABBITMQ_DEFAULT_PREFETCH = "librabbitmq-default-prefetch"


def python_peers(rounds, full_rounds=None, **parameters):
    return [Entry(name, rounds, full_rounds, estimate=1.5, **parameters)
            for name in ("channels_rabbitmq", "redis_core", "redis_pubsub")]


def in_window(rounds, full_rounds, window):
    return Entry("librabbitmq", rounds, full_rounds, series=f"librabbitmq-{window}",
                 title=f"librabbitmq (C), {window} in flight", window=window)


def in_blocks(contender):
    return Entry(contender, BLOCKS, seconds=BLOCK_SECONDS, warmup=BLOCK_WARMUP)


def raw_binders(rounds):
    """librabbitmq with bindings alone, in each of the ways that may be the fastest."""
    for kind in ("exchange", "queue"):
        for channels in (1, 4, 16):
            yield Entry("librabbitmq", rounds, series=f"librabbitmq-bind-{kind}-{channels}",
                        title=f"librabbitmq (C), bindings to one {kind} over {channels} AMQP "
                              f"channel{'s' * (channels > 1)}",
                        estimate=3.5, kind=kind, channels=channels)


RAW_BINDERS = tuple(entry.series for entry in raw_binders(0))


def throughput_cases():
    def case(name, title, entries, body=200, figures=(PER_SECOND, CPU), **parameters):
        backlog = backlog_of(body)
        for entry in entries:
            if entry.contender in ("layer", "librabbitmq", "lapin"):
                entry.parameters.setdefault("backlog", backlog)
                if entry.contender != "lapin":
                    entry.parameters.setdefault("window", window_of(body))
            else:
                entry.parameters.setdefault("senders", SENDERS)
                entry.parameters.setdefault("backlog", min(PYTHON_BACKLOG, backlog))
        return Case(name, title, "throughput", figures, entries, seconds=3, warmup=1, body=body,
                    **parameters)

    yield case(
        "async-200", "Throughput: 200-byte messages, one producer, asynchronous",
        [Entry("layer", 7), Entry("librabbitmq", 7),
         Entry("layer", 7, series=DEFAULT_PREFETCH,
               title="channel-layer, default prefetch", prefetch=0),
         Entry("librabbitmq", 7, series=LIBRABBITMQ_DEFAULT_PREFETCH,
               title=f"librabbitmq (C), prefetch {DEFAULT_PREFETCH_COUNT}",
               prefetch=DEFAULT_PREFETCH_COUNT),
         Entry("lapin", 3), *python_peers(3)])
    for producers in (4, 16):
        yield case(f"async-200-from-{producers}",
                   f"Throughput: 200-byte messages, {producers} producer threads, asynchronous",
                   [Entry("layer", 0, 5, producers=producers), Entry("librabbitmq", 0, 5)])
    for producers in (1, 4, 16):
        rounds = 7 if producers == 16 else 0
        yield case(f"blocking-200-from-{producers}",
                   f"Throughput: 200-byte messages, {producers} blocking producer "
                   f"thread{'s' * (producers > 1)}",
                   [Entry("layer", rounds, 7, mode="blocking", producers=producers,
                          window=producers),
                    in_window(rounds, 7, producers)])
    for body, name, rounds in ((64, "64", 0), (4096, "4k", 0), (65536, "64k", 5), (MIB, "1m", 5)):
        large = body >= 65536
        yield case(f"async-{name}", f"Throughput: bodies of {size(body)}, one producer, "
                                    "asynchronous",
                   [Entry("layer", rounds, 5), Entry("librabbitmq", rounds, 5),
                    Entry("lapin", 0, 3), *python_peers(0, 2)],
                   body=body, figures=(MB_PER_SECOND, PER_SECOND, CPU) if large
                   else (PER_SECOND, MB_PER_SECOND, CPU))


def size(count):
    if count >= MIB:
        return f"{count // MIB} MiB"
    return f"{count // 1024} KiB" if count >= 1024 else f"{count} bytes"


def latency_cases():
    yield Case("latency-at-rest", "Latency from send to callback, at rest (200 bytes)", "latency",
               LATENCIES, [in_blocks("layer"), in_blocks("librabbitmq"), Entry("lapin", 3),
                           *python_peers(3)],
               seconds=3, warmup=1, body=200)
    yield Case("latency-at-fixed-rate",
               "Latency from send to callback, all at half of librabbitmq's throughput (200 bytes, "
               "open loop)", "latency",
               LATENCIES + (("rate", "messages/s sent", True),),
               [in_blocks("layer"), in_blocks("librabbitmq")],
               seconds=BLOCK_SECONDS, half_of="async-200", paced_by="librabbitmq", body=200)
    yield Case("latency-at-half-load",
               "Latency from send to callback, at half of each contender's own throughput "
               "(200 bytes, open loop)", "latency",
               LATENCIES + (("rate", "messages/s sent", True),),
               [Entry("layer", 0, 5), Entry("librabbitmq", 0, 5), Entry("lapin", 0, 3),
                *python_peers(0, 3)],
               seconds=3, warmup=1, half_of="async-200", body=200)


def group_cases():
    for members in (1000, 100000):
        yield Case(f"fan-out-{members}",
                   f"Local fan-out to {members:,} members, from an arrived message to the last "
                   "callback, without a broker", "fanout",
                   (("per_cpu_second", "deliveries per CPU second", True),
                    ("per_second", "deliveries/s", True)),
                   [Entry("layer", 5, estimate=1)], seconds=1, members=members)
    for members in (1, 10, 1000, 100000):
        barred = members >= 1000
        in_flight = max(2, min(1000, 100000 // members))
        large = members == 100000
        # (contender, seconds beside those that are measured, parameters). channels_redis core gets
        # slower with each member that waits for its next message, and with each message on its way:
        # it has fewer of them, and with 100,000 members one alone, without a second.
        core = {"single": 1} if large else {"in_flight": max(1, min(1000, 10000 // members))}
        peers = (("channels_rabbitmq", 15 if large else 3, {}),
                 ("redis_core", 30 if large else 3, core),
                 ("redis_pubsub", 12 if large else 3, {}))
        yield Case(f"broadcast-{members}",
                   f"Broadcast through the broker to {members:,} local member"
                   f"{'s' * (members > 1)}", "broadcast", DELIVERIES,
                   [Entry("layer", 3 if barred else 0, 3),
                    *(Entry(name, (2 if large else 3) if barred else 0, 2 if large else 3,
                            estimate=seconds, limit=150, **parameters)
                      for name, seconds, parameters in peers)],
                   seconds=3, warmup=1, members=members, in_flight=in_flight)
    yield Case("broadcast-processes", "Broadcast to 10 processes with one member each",
               "broadcast", DELIVERIES,
               [Entry("layer", 0, 3), *python_peers(0, 3)],
               seconds=3, warmup=1, processes=10, in_flight=100)
    for groups in (1000, 10000, 100000):
        large = groups == 100000
        yield Case(f"groups-{groups}", f"{groups:,} distinct groups of one channel added, then "
                                       "discarded", "groups",
                   (("adds_per_second", "group_add/s", True),
                    ("discards_per_second", "group_discard/s", True),
                    ("bytes_per_group", "bytes per group (RSS)", False),
                    ("bytes_beyond_name", "bytes of the heap per group beyond its name", False)),
                   [Entry("layer", 2 if large else 3, 2 if large else 3,
                          estimate=2 + groups / 5000, in_flight=1000),
                    *(raw_binders(3) if groups == 10000 else ()),
                    Entry("channels_rabbitmq", 1 if large else 3, 2 if large else 3,
                          estimate=1 + groups / 1000, limit=300),
                    *(Entry(name, 0, 1 if large else 2, estimate=1 + groups / 1000, limit=300)
                      for name in ("redis_core", "redis_pubsub"))], groups=groups)


def process_cases():
    yield Case("idle", "Memory of 100,000 idle channels, members of one group (RSS)", "idle",
               (("bytes_each_with_receiver", "bytes each, with a receiver that waits", False),
                ("bytes_each", "bytes each, without", False)),
               [Entry("layer", 3, estimate=1),
                *(Entry(name, 0, 1, estimate=40, limit=300)
                  for name in ("channels_rabbitmq", "redis_core", "redis_pubsub"))],
               channels=100000)
    yield Case("slow-receiver",
               "A slow receiver among fast ones: 2,000 messages/s to 16 channels, of which one "
               "takes 50 ms for each; what the 15 others get (default capacities)", "slow",
               (*LATENCIES, ("fast_received_percent", "% received by the fast", True),
                ("slow_received_percent", "% received by the slow", True)),
               [Entry("layer", 0, 3, estimate=2),
                Entry("layer", 0, 3, series="layer-holding", estimate=2,
                      title="channel-layer, stall_after=0", holding=1),
                *python_peers(0, 3)],
               seconds=5, channels=16, rate=2000.0, slow_ms=50)
    yield Case("connect", "From connecting to ready", "connect",
               (("median_ms", "median ms", False), ("max_ms", "slowest ms", False)),
               [Entry("layer", 0, 3), Entry("librabbitmq", 0, 3), Entry("lapin", 0, 3),
                *python_peers(0, 3)], seconds=2)


def bindings_cases():
    """The same job through each binding, beside C and beside the Python package. C++ and Go have
    the window and the backlog of the program in C, and so does Ruby; Python what the Python package
    has."""
    c_like = ("layer", "cpp", "go", "ruby")
    python_like = ("python", "django", "channels_rabbitmq")

    def entries(rounds, c_parameters, python_parameters):
        return [Entry(name, rounds[name], estimate=1.0,
                      **(c_parameters if name in c_like else python_parameters))
                for name in (*c_like, *python_like)]

    rounds = {**dict.fromkeys(("layer", "cpp", "go"), 7),
              **dict.fromkeys(("ruby", *python_like), 5)}
    yield Case("bindings-200", "Throughput of the bindings: 200-byte messages, prefetch 1000",
               "throughput", (PER_SECOND, CPU),
               entries(rounds, {"window": window_of(200)},
                       {"senders": SENDERS, "backlog": PYTHON_BACKLOG}),
               seconds=3, warmup=1, body=200, prefetch=1000)
    rounds = {**dict.fromkeys(("layer", "cpp", "go"), 3),
              **dict.fromkeys(("ruby", *python_like), 5)}
    yield Case("bindings-latency", "Latency of the bindings from send to receive, at rest (200 "
                                   "bytes, prefetch 1000)", "latency", LATENCIES,
               entries(rounds, {}, {}), seconds=3, warmup=1, body=200, prefetch=1000)


# Groups last: the broker needs a while to forget 100,000 of them.
CASES = [*throughput_cases(), *latency_cases(), *process_cases(), *group_cases()]
BINDINGS_CASES = list(bindings_cases())


def cases_of(kind):
    """All cases that a run of this kind can have."""
    return BINDINGS_CASES if kind == BINDINGS else CASES


def case_named(name):
    return next(case for case in [*CASES, *BINDINGS_CASES] if case.name == name)


def rounds_of(entry, full):
    return entry.full_rounds if full else entry.rounds


def chosen(kind, only=()):
    """The cases of a run, in order. With `only`, those cases and what they stand on."""
    cases = cases_of(kind)
    if only:
        known = {case.name for case in cases}
        unknown = sorted(set(only) - known)
        if unknown:
            raise ValueError(f"there is no case {', '.join(unknown)}; there are: "
                             + ", ".join(case.name for case in cases))
        wanted = set(only) | {case.half_of for case in cases if case.name in only and case.half_of}
        return [case for case in cases if case.name in wanted]
    return [case for case in cases
            if any(rounds_of(entry, kind == FULL) for entry in case.entries)]


def schedule(rounds):
    """The order of runs: A B C, then C B A, and so on, so that what drifts drifts for all alike.
    `rounds` has (series, how often) in order; gives (round, series), rounds from 0."""
    order = []
    for number in range(max((count for _, count in rounds), default=0)):
        turn = [series for series, count in rounds if count > number]
        order.extend((number, series) for series in (turn if number % 2 == 0 else turn[::-1]))
    return order


def estimate(entry, case):
    """How long one run takes, in seconds."""
    return ((entry.seconds or case.seconds or 0) + (entry.warmup or case.warmup or 0) + 0.7
            + entry.estimate)
