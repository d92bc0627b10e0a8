#!/usr/bin/env python3
"""Makes docs/scaling.md of the newest full run of each version in results/: page.py [--check]

With --check it writes nothing, and fails where the page is not what it would make of the results.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import model  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS = HERE / "results"
DOCUMENT = ROOT / "docs" / "scaling.md"

VERSIONS = ("3.10", "4.3")
# To which the model is carried beyond what was measured.
BEYOND_LAYERS = (300, 1000)
BEYOND_GROUPS = 1000
BEYOND_PROCESSORS = (2, 4, 8, 16)
# A difference between one node and a cluster that is more than the spread of two runs.
APART = 1.25

PHASES = (
    ("connect", "connect"),
    ("join", "join"),
    ("churn", "churn"),
    ("broadcast", "broadcast"),
    ("paced", "broadcast at a rate"),
    ("cut", "cut"),
)

HEAD = """\
<!-- made by benches/scale/page.py -->

# How it scales

How many processes, groups, joins and broadcasts a second a RabbitMQ broker carries, what bounds them
and how that grows. `make scale` measures it in 20 minutes, with the rig in `benches/scale`, and makes
this page of the newest full run of each version.
"""

NO_RUN = """\
**No full run yet.** This page has no figures before `make scale` has run in full: those of a short run,
or of a machine that does other work, would say nothing.
"""

MEASURED = """\
## What is measured

Layers of the C library in up to four processes, each layer with two connections, one queue and one
channel, on one node and on a cluster of three. Each layer joins all its groups, of which a tenth have
the same name in all layers: a message to one of these is a broadcast to all. Then layers join and leave
groups at a rate; one layer broadcasts to all, first with 100 unconfirmed sends, then at a rate; all
connections are cut at once, by `shutdown` on their sockets; and each node is restarted, one after the
other. A message that a layer does not hear fails the run. `benches/README.md` has the details.

The idle phase follows the joins at once. So it is not idle where the broker still works on them:
RabbitMQ 4.3 writes its metadata anew after some 90,000 changes of it, and joins wait meanwhile.

Clients and all nodes share the processors of one machine. So this page can tell what a join or a
broadcast costs in CPU time, on one node and on three; not what three machines gain by having
three times the processors.
"""

FORMULAS = """\
## The model

Each quantity is a line, `y = a + b × x`, with `a` and `b` at least 0, by least squares; `x` is the number
of layers, or of bindings (layers times groups). The two smaller sizes give the line, and the largest
shows how far it is off.

| Quantity | Unit | x |
|---|---|---|
"""

CLUSTER = """\
## What a cluster spreads

| Work | On a cluster |
|---|---|
| connections, own queues, deliveries | are on the node that the layer is connected to: more nodes share them |
| routing of a message | is done by the node of the sender; what goes to queues of other nodes crosses the network |
| bindings | are on every node: each join and leave is a transaction of all nodes (3.10) or a Raft commit of most (4.3), so that nodes add none |
| the loss of a node | costs its layers their connections, which they open elsewhere; the others go on |

So a cluster helps where connections and deliveries bind a broker, and where a node may be lost; it does
not help where joins do.
"""

SETTINGS = """\
## Settings of the broker that matter

A layer with G groups has two connections, two queues (its own, exclusive, and the keeper), two exchanges
and G + 4 bindings on the broker, an exchange and a binding more for each 1,000 groups beyond the first,
and some AMQP channels, of which up to 32 only while it binds.
[What a layer has on the broker](concepts.md#what-a-layer-has-on-the-broker) names them.

| Setting | What it decides |
|---|---|
| file descriptors (`ulimit -n`, `LimitNOFILE`) | two for each layer: how many layers a node takes |
| `channel_max`, limits of channels of a user | with few, groups are bound over fewer AMQP channels at once, and so more slowly on RabbitMQ 4 |
| limits of connections of a vhost or user, `max-connections` | two for each layer; a layer beyond the limit is `LAYER_REFUSED` |
| limits of queues of a vhost, `max-queues` | two for each layer; where the keeper is refused, all groups are bound again after each lost connection |
| `vm_memory_high_watermark` | bindings are in memory: above it the broker blocks publishers, and sends end as `LAYER_BUSY` or `LAYER_TIMEOUT` |
| the management plugin, `collect_statistics_interval` | the broker reports each connection, channel and queue at this interval, whether anybody looks or not |
| `heartbeat` (also the option of the layer) | each connection is heard, and each layer probes itself, at this interval: the cost of being idle |
| disks of a RabbitMQ 4 node | a binding is a Raft commit, which is written to disk on most nodes of a cluster |
| `cluster_partition_handling` | what becomes of a cluster that is split; exclusive queues are on one node whatever it says |
"""


# --- numbers --------------------------------------------------------------------------------


def number(value):
    """Three digits, and thousands with commas."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def with_unit(value, unit):
    return number(value) + (f" {unit}" if unit and value is not None else "")


def percent(share):
    return "–" if share is None else f"{share * 100:+.0f} %"


def formula(line, quantity):
    return f"{line.fixed:.3g} + {line.per_unit:.3g} × {quantity.grows_with}"


def table(header, rows):
    return "\n".join(["| " + " | ".join(header) + " |", "|" + "---|" * len(header),
                      *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def nodes_title(nodes):
    return "one node" if nodes == 1 else f"cluster of {nodes}"


# --- sections -------------------------------------------------------------------------------


def topologies(data):
    """By number of nodes, the runs from small to large."""
    found = {}
    for run in model.by_size(data["runs"]):
        found.setdefault(run["nodes"], []).append(run)
    return dict(sorted(found.items()))


def quantity_rows(found, value):
    """A row for each quantity that any run has."""
    return [row for row in (value(quantity) for quantity in model.QUANTITIES)
            if any(cell != "–" for cell in row[1:])]


def measured_table(found):
    runs = [run for of_nodes in found.values() for run in of_nodes]
    header = ["Quantity", *(f"{nodes_title(run['nodes'])}, {run['layers']} layers" for run in runs)]

    def row(quantity):
        return [quantity.title, *(with_unit(quantity.of(run), quantity.unit) for run in runs)]

    return table(header, quantity_rows(found, row))


def join_steps(found):
    """Joins a second where there are few groups, and where there are many."""
    rows = []
    for nodes, runs in found.items():
        for run in runs:
            steps = run["phases"].get("join", {}).get("steps", [])
            if len(steps) == 2 and all(step["seconds"] for step in steps):
                rows.append([f"{nodes_title(nodes)}, {run['layers']} layers",
                             *(number(step["joins"] / step["seconds"]) for step in steps)])
    return table(["Joins a second", "the first tenth of the groups", "the rest"], rows)


def prediction_table(found):
    rows = []
    for nodes, runs in found.items():
        for quantity in model.QUANTITIES:
            prediction = model.predict(quantity, runs)
            if prediction is not None:
                rows.append([f"{quantity.title} ({nodes_title(nodes)})",
                             formula(prediction.line, quantity),
                             with_unit(prediction.predicted, quantity.unit),
                             with_unit(prediction.measured, quantity.unit),
                             percent(prediction.error)])
    return table(["Quantity", "Line of the smaller sizes", "Predicted", "Measured", "Error"], rows)


def bottleneck_table(found, processors):
    rows = []
    for nodes, runs in found.items():
        largest = runs[-1]
        for phase, title in PHASES:
            figures = largest["phases"].get(phase, {})
            bound_by = model.bottleneck(figures, processors)
            if bound_by is not None:
                broker, client = model.busy(figures)
                rows.append([f"{title} ({nodes_title(nodes)})", number(broker), number(client),
                             bound_by])
    return table(["Phase", "processors busy: broker", "clients", "Bound by"], rows)


def rates(run):
    """What a run did a second, with the CPU time of the broker for each, and the phase it is of."""
    phases = run["phases"]
    for title, name, count in (("joins", "join", "joins"),
                               ("broadcasts to all", "broadcast", "broadcasts")):
        figures = phases.get(name, {})
        rate = ratio(figures.get(count), figures.get("seconds"))
        if rate:
            yield title, rate, ratio(figures.get("broker_cpu"), figures[count]), figures


def carried_table(found, processors):
    """Rates as measured; and, where processors bind them, for a broker that has more: extrapolated."""
    rows = []
    for nodes, runs in found.items():
        for run in runs:
            for title, rate, seconds_each, figures in rates(run):
                bound_by = model.bottleneck(figures, processors)
                more = [number(model.carried(seconds_each, have))
                        if bound_by in model.BY_PROCESSORS else "–" for have in BEYOND_PROCESSORS]
                cost = None if seconds_each is None else seconds_each * 1000
                rows.append([f"{title}, {run['layers']} layers ({nodes_title(nodes)})",
                             number(rate), bound_by or "–", with_unit(cost, "ms"), *more])
    header = ["What", "measured, a second", "bound by", "CPU time of the broker for each",
              *(f"{have} processors (extrapolated)" for have in BEYOND_PROCESSORS)]
    return table(header, rows)


def room_table(found):
    """What the slopes say of layers and groups that are there and do nothing: extrapolated."""
    rows = []
    for nodes, runs in found.items():
        slopes = [model.slope(name, runs) for name in ("idle_broker", "memory")]
        rows.append([nodes_title(nodes),
                     *(number(room / slope) if slope else "–"
                       for slope, room in zip(slopes, (1, 1024), strict=True))])
    return table(["", "idle layers that one processor carries (extrapolated)",
                  "groups in 1 GiB of the broker's memory (extrapolated)"], rows)


def summary(found):
    """What the largest size did, in a line for each number of nodes."""
    lines = []
    for nodes, runs in found.items():
        largest = runs[-1]
        did = [f"{number(rate)} {title} a second" for title, rate, _, _ in rates(largest)]
        for phase, figure, title in (
                ("cut", "ready_seconds", "all layers were ready again {} after all connections were "
                                         "cut"),
                ("restart", "seconds", "{} after a node was restarted")):
            seconds = largest["phases"].get(phase, {}).get(figure)
            if seconds is not None:
                did.append(title.format(with_unit(seconds, "s")))
        lines.append(f"- {nodes_title(nodes).capitalize()}, {largest['layers']} layers with "
                     f"{largest['groups']:,} groups each: {'; '.join(did)}.\n")
    return "".join(lines)


def ratio(value, count):
    return value / count if value is not None and count else None


def cluster_table(found):
    """At the largest size that one node and the cluster have."""
    if len(found) < 2:
        return None
    one, cluster = list(found.values())[0], list(found.values())[-1]
    sizes = {run["layers"] for run in one} & {run["layers"] for run in cluster}
    if not sizes:
        return None
    size = max(sizes)
    (left,), (right,) = ([run for run in runs if run["layers"] == size] for runs in (one, cluster))
    rows = []
    for quantity in model.QUANTITIES:
        mine, theirs = quantity.of(left), quantity.of(right)
        if mine and theirs is not None:
            factor = theirs / mine
            verdict = ("less on the cluster" if factor < 1 / APART
                       else "more on the cluster" if factor > APART else "alike")
            rows.append([quantity.title, with_unit(mine, quantity.unit),
                         with_unit(theirs, quantity.unit), number(factor), verdict])
    return table([f"At {size} layers", nodes_title(1), nodes_title(right["nodes"]), "ratio", ""],
                 rows)


def beyond_table(found):
    header = ["Quantity", "Line of all sizes",
              *(f"{layers:,} layers (extrapolated)" for layers in BEYOND_LAYERS)]
    rows = []
    for nodes, runs in found.items():
        for quantity in model.QUANTITIES:
            far = [model.extrapolate(quantity, runs, layers, BEYOND_GROUPS)
                   for layers in BEYOND_LAYERS]
            if None not in far:
                rows.append([f"{quantity.title} ({nodes_title(nodes)})",
                             formula(far[0][0], quantity),
                             *(with_unit(value, quantity.unit) for _, value in far)])
    return table(header, rows)


def of_version(version, data):
    found = topologies(data)
    machine = data["machine"]
    broker = sorted({run["broker"] for run in data["runs"]})
    warnings = []
    if data["kind"] != "full":
        warnings.append("**A short run: it shows that the rig works, and no figure of it counts.**")
    if data["failures"]:
        warnings.append("**Phases failed:** " + "; ".join(
            f"{nodes_title(failure['nodes'])}, {failure['layers']} layers: "
            f"{failure['reason'].splitlines()[0]}" for failure in data["failures"]) + ".")
    parts = [
        f"## RabbitMQ {version}\n",
        f"Made on {data['started'][:10]} at commit {data['commit']['name']}"
        f"{' with changes beside it' * data['commit']['dirty']}, with RabbitMQ "
        f"{', '.join(broker) or 'that did not start'}: {machine['cpu']}, "
        f"{machine['processors']} processors for clients and nodes together, "
        f"{machine['memory_gib']} GiB; load {data['load_before'][0]} before.\n",
        *(f"{warning}\n" for warning in warnings),
    ]
    if not data["runs"]:
        return parts
    groups = sorted({run["groups"] for run in data["runs"]})
    parts += [
        f"### Measured on {version}\n",
        f"Each layer has {' or '.join(f'{count:,}' for count in groups)} groups.\n",
        summary(found),
        measured_table(found),
        join_steps(found),
        f"### What bounds it on {version}\n",
        f"At the largest size. A phase that keeps {model.BUSY:.0%} of the processors busy is bound by "
        f"them; a broker that is busy for {model.ONE_PROCESS:.0%} of the time or more, on a machine "
        "that has more to give, by work that it does one after the other.\n",
        bottleneck_table(found, machine["processors"]),
        f"### Predicted and measured on {version}\n",
        "From the smaller sizes to the largest.\n",
        prediction_table(found),
    ]
    if data["kind"] == "full":
        parts += [
            f"### What a broker carries on {version}\n",
            "Rates and CPU time are measured. Rates for other numbers of processors are "
            "**extrapolated**, as `processors / CPU time of the broker for each`, for a broker that "
            "has these to itself. There are none where processors did not bind the rate: more of them "
            "would not raise it.\n",
            carried_table(found, machine["processors"]),
            "**Extrapolated** too, as 1 processor or 1 GiB by the slope of the line of all sizes, "
            "where it is a line (see below):\n",
            room_table(found),
        ]
    comparison = cluster_table(found)
    if comparison is not None:
        parts += [
            f"### When a cluster helps on {version}\n",
            "All nodes share the processors of one machine here: what takes no more CPU time on the "
            "cluster can gain by more machines; what takes more is the price of a cluster.\n",
            comparison,
        ]
    if data["kind"] == "full":
        parts += [
            f"### Beyond what was measured on {version}\n",
            f"**Extrapolated** by the line of all sizes, each layer with {BEYOND_GROUPS:,} groups. "
            f"What missed the largest size by more than a factor of {model.FAR_OFF} is no line, and "
            "is left out.\n",
            beyond_table(found),
        ]
    return parts


def text_of(by_version):
    """The page. `by_version` has the data of each version that was measured."""
    parts = [HEAD]
    if not by_version:
        parts.append(NO_RUN)
    parts.append(MEASURED)
    parts.append(FORMULAS + "".join(
        f"| {quantity.title} | {quantity.unit or '–'} | {quantity.grows_with} |\n"
        for quantity in model.QUANTITIES))
    for version, data in by_version.items():
        parts += of_version(version, data)
    missing = [version for version in VERSIONS if version not in by_version]
    if by_version and missing:
        parts.append(f"There is no full run on RabbitMQ {' and '.join(missing)} yet.\n")
    parts += [CLUSTER, SETTINGS]
    return "\n".join(parts)


def newest(folder=RESULTS):
    """The newest run of each version, which the names of the files begin with the time of."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        found[data["version"]] = data
    return {version: found[version] for version in sorted(found, key=version_key)}


def version_key(version):
    return [int(part) for part in version.split(".")]


def main(arguments):
    wanted = text_of(newest())
    if arguments == ["--check"]:
        if not DOCUMENT.exists() or DOCUMENT.read_text(encoding="utf-8") != wanted:
            print(f"{DOCUMENT.relative_to(ROOT)} is not what benches/scale/page.py makes of the "
                  "results: run it, and commit what it writes", file=sys.stderr)
            return 1
        return 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    DOCUMENT.write_text(wanted, encoding="utf-8")
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
