"""The model of scale: what grows with what, fitted to small sizes, held against a larger one.

Pure: figures in, figures out. Each quantity is taken to be

    y = a + b * x,   a >= 0, b >= 0

with x the number of layers, or of bindings (layers times groups): a broker binds one group after the
other, so that joins take a time for each; a broadcast has a fixed cost and one for each queue; a
connection costs what a connection costs. What does not grow so is not hidden: the error of the
prediction shows it.

A *run* is what rig.py measured with one version, one number of nodes and one number of layers.
"""

from dataclasses import dataclass
from typing import Callable

LAYERS, BINDINGS = "layers", "bindings"

# Above this share of all processors a phase is bound by them.
BUSY = 0.8
# A prediction that is off by a larger factor is no prediction.
FAR_OFF = 2
# Above this many processors a broker works on more than one thing at a time.
ONE_PROCESS = 0.7


@dataclass(frozen=True)
class Line:
    """y = fixed + per_unit * x."""

    fixed: float
    per_unit: float

    def at(self, x):
        return self.fixed + self.per_unit * x


def fit(points):
    """The line through `points`, (x, y) each, by least squares among those that begin at 0 or above
    and do not fall: a cost that falls with the size would soon be below nothing."""
    if len({x for x, _ in points}) < 2:
        raise ValueError("a line needs two different sizes")
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    per_unit = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    if per_unit < 0:
        return Line(max(mean_y, 0), 0)
    fixed = mean_y - per_unit * mean_x
    if fixed < 0:
        return Line(0, max(sum(x * y for x, y in points) / sum(x * x for x, _ in points), 0))
    return Line(fixed, per_unit)


def phase(name, figure):
    return lambda run: run["phases"].get(name, {}).get(figure)


def each(name, figure, number, scale=1):
    """A figure of a phase for each of what it did."""
    def value(run):
        found = run["phases"].get(name, {})
        if found.get(figure) is None or not found.get(number):
            return None
        return found[figure] / found[number] * scale
    return value


def memory(run):
    """What the layers and their groups add to the resident memory of the broker."""
    before, after = run.get("broker_mib_before"), run["phases"].get("join", {}).get("broker_mib")
    return None if before is None or after is None else max(after - before, 0)


def idle_cores(which):
    return each("idle", which, "seconds")


@dataclass(frozen=True)
class Quantity:
    """What is measured, predicted and extrapolated. `of` gives its value in a run, None where the
    run has none."""

    name: str
    title: str
    unit: str
    grows_with: str
    of: Callable


QUANTITIES = (
    Quantity("connect", "connect: until the last layer is ready", "s", LAYERS,
             phase("connect", "seconds")),
    Quantity("join", "join: until the last group is bound", "s", BINDINGS,
             phase("join", "seconds")),
    Quantity("join_broker", "join: CPU time of the broker", "s", BINDINGS,
             phase("join", "broker_cpu")),
    Quantity("join_client", "join: CPU time of the clients", "s", BINDINGS,
             phase("join", "client_cpu")),
    Quantity("memory", "memory of the broker for layers and groups", "MiB", BINDINGS, memory),
    Quantity("idle_broker", "idle: processors busy, broker", "", LAYERS,
             idle_cores("broker_cpu")),
    Quantity("idle_client", "idle: processors busy, clients", "", LAYERS,
             idle_cores("client_cpu")),
    Quantity("churn_join", "churn: time of a join, 99th percentile", "ms", BINDINGS,
             phase("churn", "join_p99_ms")),
    Quantity("churn_broker", "churn: CPU time of the broker for a join and a leave", "ms",
             BINDINGS, each("churn", "broker_cpu", "changes", 1000)),
    Quantity("broadcast", "broadcast: time for each, without pause", "ms", LAYERS,
             each("broadcast", "seconds", "broadcasts", 1000)),
    Quantity("broadcast_broker", "broadcast: CPU time of the broker for each", "ms", LAYERS,
             each("broadcast", "broker_cpu", "broadcasts", 1000)),
    Quantity("broadcast_client", "broadcast: CPU time of the clients for each", "ms", LAYERS,
             each("broadcast", "client_cpu", "broadcasts", 1000)),
    Quantity("paced_p50", "broadcast at a rate: latency, median", "ms", LAYERS,
             phase("paced", "heard_p50_ms")),
    Quantity("paced_p99", "broadcast at a rate: latency, 99th percentile", "ms",
             LAYERS, phase("paced", "heard_p99_ms")),
    Quantity("cut", "cut: until the last layer is ready", "s", LAYERS,
             phase("cut", "ready_seconds")),
    Quantity("cut_heard", "cut: until all layers hear a broadcast", "s", LAYERS,
             phase("cut", "seconds")),
    Quantity("restart", "restart of a node: until the last layer is ready", "s",
             BINDINGS, phase("restart", "seconds")),
)


def size_of(run, grows_with):
    """How large a run is, in layers or in bindings."""
    return run["layers"] * (run["groups"] if grows_with == BINDINGS else 1)


def points(quantity, runs):
    found = [(size_of(run, quantity.grows_with), quantity.of(run)) for run in runs]
    return [(x, y) for x, y in found if y is not None]


@dataclass(frozen=True)
class Prediction:
    """What the smaller sizes say of the largest, and what was measured there."""

    line: Line
    predicted: float
    measured: float

    @property
    def error(self):
        """By how much of what was measured the prediction is off; None where that is 0."""
        return (self.predicted - self.measured) / self.measured if self.measured else None

    @property
    def holds(self):
        """Whether it is within a factor of FAR_OFF of what was measured."""
        return self.predicted <= FAR_OFF * self.measured and self.measured <= FAR_OFF * self.predicted


def by_size(runs):
    return sorted(runs, key=lambda run: run["layers"])


def predict(quantity, runs):
    """From all sizes but the largest, of `runs` with one version and number of nodes; None where
    fewer than three sizes have the quantity."""
    known = points(quantity, by_size(runs))
    if len({x for x, _ in known}) < 3:
        return None
    (x, measured), smaller = known[-1], known[:-1]
    line = fit(smaller)
    return Prediction(line, line.at(x), measured)


def line_of(quantity, runs):
    """The line through all sizes; None where there are not two of them, or where those before the
    largest say something else of it: then it is no line."""
    known = points(quantity, runs)
    prediction = predict(quantity, runs)
    if len({x for x, _ in known}) < 2 or (prediction is not None and not prediction.holds):
        return None
    return fit(known)


def extrapolate(quantity, runs, layers, groups):
    """The line through all sizes, and what it says of a size beyond them; None without a line."""
    known = points(quantity, runs)
    line = line_of(quantity, runs)
    if line is None:
        return None
    x = layers * (groups if quantity.grows_with == BINDINGS else 1)
    if x <= max(size for size, _ in known):
        raise ValueError(f"{x} {quantity.grows_with} are not beyond what was measured")
    return line, line.at(x)


def slope(name, runs):
    """What one layer or binding more adds to a quantity; None without a line."""
    (quantity,) = (each for each in QUANTITIES if each.name == name)
    line = line_of(quantity, runs)
    return None if line is None else line.per_unit


def busy(figures):
    """How many processors the broker and the clients kept busy in a phase; None without figures."""
    seconds = figures.get("seconds")
    if not seconds or figures.get("broker_cpu") is None or figures.get("client_cpu") is None:
        return None
    return figures["broker_cpu"] / seconds, figures["client_cpu"] / seconds


PROCESSORS_BROKER = "processors, most of it in the broker"
PROCESSORS_CLIENTS = "processors, most of it in the clients"
BY_PROCESSORS = (PROCESSORS_BROKER, PROCESSORS_CLIENTS)
ONE_BROKER_PROCESS = "the broker, serially on one processor"
WAITING = "waiting: round trips, disk or timers"


def bottleneck(figures, processors):
    """What bounds a phase, by who is busy; None without figures. A broker that is busy for about as
    long as the phase takes, on a machine that has more to give, works in one process."""
    found = busy(figures)
    if found is None:
        return None
    broker, client = found
    if broker + client >= BUSY * processors:
        return PROCESSORS_BROKER if broker >= client else PROCESSORS_CLIENTS
    return ONE_BROKER_PROCESS if broker >= ONE_PROCESS else WAITING


def carried(seconds_each, processors):
    """How many things a second `processors` of a broker carry, if each takes it so long and nothing
    else bounds it; None where it is not known."""
    return processors / seconds_each if seconds_each else None
