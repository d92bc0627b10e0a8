#!/usr/bin/env python3
"""Makes BENCHMARKS.md, chart.svg and three sentences of README.md of the two newest runs in
results/, and a section of BENCHMARKS.md of the two newest of the bindings: report.py [--check]

With --check it writes nothing, and fails where they are not what it would make of the results.
"""

import json
import sys
import textwrap
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bars  # noqa: E402
import chart  # noqa: E402
import contenders  # noqa: E402
import figures  # noqa: E402
import workloads  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benches" / "results"
DOCUMENT = ROOT / "BENCHMARKS.md"
CHART = ROOT / "benches" / "chart.svg"
README = ROOT / "README.md"
SENTENCES_BEGIN, SENTENCES_END = "<!-- made by benches/report.py -->\n", "<!-- until here -->\n"

APART = timedelta(hours=1)


def load(path):
    return figures.Run(json.loads(path.read_text(encoding="utf-8")))


def of_bindings(run):
    return run.data["kind"] == workloads.BINDINGS


def newest(bindings=False, folder=RESULTS):
    """The two newest runs, of the bindings or of the rest, the older first. Their names are their
    times."""
    runs = [load(path) for path in sorted(folder.glob("*.json"))]
    return [run for run in runs if of_bindings(run) == bindings][-2:]


def titles():
    """What each series is called."""
    found = {contender.name: contender.title for contender in contenders.roster()}
    for case in [*workloads.CASES, *workloads.BINDINGS_CASES]:
        for entry in case.entries:
            if entry.title:
                found[entry.series] = entry.title
    return found


def started(run):
    return datetime.fromisoformat(run.data["started"])


def number(value):
    """Three digits where that is enough, and thousands with commas."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def warnings(runs):
    """What a reader must know before any figure."""
    lines = []
    for index, run in enumerate(runs, 1):
        reason = figures.void_reason(run)
        if reason:
            lines.append(f"**VOID: run {index}: {reason}.**")
        for missing in run.data["missing"]:
            lines.append(f"**MISSING in run {index}: {missing['contender']}: "
                         f"{' '.join(missing['reason'].split())}**")
        if run.data["commit"]["dirty"]:
            lines.append(f"**Run {index} was made with changes that are not committed.**")
    if len(runs) < 2:
        lines.append(f"**There {'is one run' if runs else 'is no run yet'}: figures count once two "
                     "runs, made at least an hour apart, agree.**")
    elif started(runs[1]) - started(runs[0]) < APART:
        minutes = (started(runs[1]) - started(runs[0])).total_seconds() / 60
        lines.append(f"**The two runs began {minutes:.0f} minutes apart, which is less than an "
                     "hour: they do not count as two.**")
    if len({run.data["commit"]["source"] for run in runs}) > 1:
        lines.append("**The two runs are of different sources.**")
    return lines


def bars_table(runs, wanted):
    header = ["Bar", "wanted"]
    for index in range(1, len(runs) + 1):
        header += [f"run {index}", ""]
    rows = []
    for bar in wanted:
        row = [bar.title, f"{bar.sign} {limit_of(bar)}{bar.unit}"]
        for run in runs:
            verdict = bar.judge(run)
            value = number(verdict.value) + (bar.unit if verdict.value is not None else "")
            note = f" ({verdict.note})" if verdict.note else ""
            state = verdict.state if verdict.state == bars.MET else f"**{verdict.state}**"
            row += [value + note, state]
        rows.append(row)
    return table(header, rows)


def limit_of(bar):
    return f"{bar.limit:,.0f}" if bar.limit >= 1000 else f"{bar.limit:g}"


def cell(run, case, series, figure):
    value = run.median(case, series, figure)
    if value is None:
        return "–"
    low, high = run.range(case, series, figure)
    if low == high:
        return number(value)
    return f"{number(value)} ({number(low)} – {number(high)})"


def case_section(case, runs, names):
    """A case's figures, of all contenders and both runs; nothing where no run has it."""
    series = []
    for run in runs:
        series += [each for each in run.series_of(case.name) if each not in series]
    if not series:
        return []
    # In the order of the table, whatever order they ran in.
    order = [entry.series for entry in case.entries]
    series.sort(key=lambda each: order.index(each) if each in order else len(order))
    header = ["Contender"]
    for _, title, _ in case.figures:
        header += [f"{title}, run {index}" for index in range(1, len(runs) + 1)]
    rows = []
    for each in series:
        row = [names.get(each, each)]
        for figure, _, _ in case.figures:
            row += [cell(run, case.name, each, figure) for run in runs]
        rows.append(row)
    return [f"### {case.title}", "", *table(header, rows), ""]


def machine_table(runs):
    rows = []

    def add(title, get):
        rows.append([title, *(str(get(run.data)) for run in runs)])

    add("Started (UTC)", lambda data: data["started"].replace("T", " ")[:16])
    add("Took", lambda data: f"{data['took_seconds'] / 60:.0f} min, `make {data['kind']}`")
    add("Commit", lambda data: data["commit"]["name"]
        + (" and changes" if data["commit"]["dirty"] else ""))
    add("Processor", lambda data: f"{data['machine']['processors']} × {data['machine']['cpu']}")
    add("Memory", lambda data: f"{data['machine']['memory_gib']} GiB")
    add("Kernel", lambda data: data["machine"]["kernel"])
    add("Load before, after", lambda data: f"{data['load_before'][0]}, {data['load_after'][0]}")
    names = []
    for run in runs:
        names += [name for name in run.data["versions"] if name not in names]
    for name in names:
        add(name, lambda data, name=name: data["versions"].get(name, "–"))
    return table(["", *(f"run {index}" for index in range(1, len(runs) + 1))], rows)


def warning_lines(runs):
    lines = []
    for warning in warnings(runs):
        lines += [f"> {warning}", ">"]
    return [*lines[:-1], ""] if lines else []


def settings_table(run):
    names = titles()
    return table(["Contender", "how it is used"],
                 [[names.get(name, name), text] for name, text in run.data["settings"].items()])


def general_part(runs):
    """What is told of the runs of `make bench`."""
    lines = warning_lines(runs)
    if not runs:
        return lines
    lines += [
        "![Throughput and latency by contender](benches/chart.svg)", "",
        "## Bars", "",
        "What the library is held to. A ratio is the median over the rounds of one run in which "
        "both were measured one after the other; × says of what.", "",
        *bars_table(runs, bars.BARS), "",
        "## Figures", "",
        "The median of the rounds, and in brackets the lowest and the highest. – where a run does "
        "not have it.", ""]
    for case in workloads.CASES:
        lines += case_section(case, runs, titles())
    return [*lines, "## Machine and versions", "", *machine_table(runs), "", "## Settings", "",
            *settings_table(runs[-1]), ""]


def bindings_part(runs):
    """The section of the runs of `make bench-bindings`."""
    lines = [
        "## Bindings", "",
        "The library through C++, Go, Ruby and Python, beside its programs in C and beside "
        "`channels_rabbitmq`, in runs of their own: `make bench-bindings`.", "",
        *warning_lines(runs)]
    if not runs:
        return lines
    lines += [
        "What the bindings are held to. What a message costs is the processor time of the process "
        "that sends and receives it.", "",
        *bars_table(runs, bars.BINDINGS_BARS), ""]
    for case in workloads.BINDINGS_CASES:
        lines += case_section(case, runs, titles())
    return [*lines, "### Machine and versions of the bindings", "", *machine_table(runs), "",
            "### Settings of the bindings", "", *settings_table(runs[-1]), ""]


def document(runs, bindings):
    """BENCHMARKS.md, of the runs of `make bench` and those of `make bench-bindings`; None leaves
    the part out."""
    lines = [
        "# Benchmarks", "",
        "Generated by `benches/report.py` from the two newest runs in `benches/results`: do not "
        "edit. `make bench` makes a run; [benches/README.md](benches/README.md) says what is "
        "measured and how to read it.", ""]
    if runs is not None:
        lines += general_part(runs)
    if bindings is not None:
        lines += bindings_part(bindings)
    return "\n".join(lines)


def drawing(runs):
    if not runs:
        return chart.draw(None, {}, ["No run has been made yet."])
    run = runs[-1]
    machine, versions = run.data["machine"], run.data["versions"]
    footer = [f"{run.data['started'][:10]}, {run.data['commit']['name']}, "
              f"RabbitMQ {versions['RabbitMQ']}, {machine['processors']} × {machine['cpu']}. "
              "All figures: BENCHMARKS.md"]
    reason = figures.void_reason(run)
    if reason:
        footer.insert(0, f"VOID: {reason}.")
    return chart.draw(run, titles(), footer)


def sentences(runs):
    """What a newcomer should know, the bad beside the good; of the newest run."""
    if not runs:
        return "No run has been made yet."
    run = runs[-1]
    reason = figures.void_reason(run)
    if reason:
        return f"The newest run is void: {reason}."

    def ours(case, figure):
        return number(run.median(case, "layer", figure))

    def times(case, figure, other):
        return number(run.ratio(case, "layer", figure, other)[0])

    return (
        f"From one process to another by way of RabbitMQ, all on {run.data['machine']['processors']}"
        f" processors, it moves {ours('async-200', 'per_second')} confirmed messages of 200 bytes a "
        f"second: {times('async-200', 'per_second', 'channels_rabbitmq')} times as many as "
        f"`channels_rabbitmq`, and {times('async-200', 'per_second', 'librabbitmq')} of what raw "
        f"librabbitmq does at its best, at {times('async-200', 'cpu_us_per_message', 'librabbitmq')} "
        "times its processor time.\n"
        f"A message at rest takes {ours('latency-at-rest', 'p50_us')} µs from the send to the "
        f"callback, {times('latency-at-rest', 'p50_us', 'librabbitmq')} times as long as with "
        "librabbitmq and two threads that block, and "
        f"{times('latency-at-rest', 'p50_us', 'channels_rabbitmq')} of what it takes in Python; 16 "
        "threads that each wait for their own send get "
        f"{times('blocking-200-from-16', 'per_second', 'librabbitmq-16')} of what librabbitmq does "
        "with 16 in flight.\n"
        "Where a group has 1,000 members in a process, a broadcast through the broker costs "
        f"{times('broadcast-1000', 'per_cpu_second', 'channels_rabbitmq')} times less than in "
        "Python; but to add a group is bound by the broker, and only "
        f"{times('groups-10000', 'adds_per_second', 'channels_rabbitmq')} times as fast.")


def readme(runs, text):
    """README.md, with its sentences made anew."""
    before, begin, rest = text.partition(SENTENCES_BEGIN)
    _, end, after = rest.partition(SENTENCES_END)
    if not begin or not end:
        raise ValueError(f"README.md has no lines {SENTENCES_BEGIN!r} and {SENTENCES_END!r}")
    lines = textwrap.fill(" ".join(sentences(runs).split()), 100, break_long_words=False,
                          break_on_hyphens=False)
    return f"{before}{begin}{lines}\n{end}{after}"


def of_one(run):
    """The document of one run alone, and its chart, which a run of the bindings does not have."""
    if of_bindings(run):
        return document(None, [run]), None
    return document([run], None), drawing([run])


def made_of(folder=RESULTS):
    """What the files hold."""
    runs = newest(folder=folder)
    return {DOCUMENT: document(runs, newest(bindings=True, folder=folder)), CHART: drawing(runs),
            README: readme(runs, README.read_text(encoding="utf-8"))}


def main(arguments):
    if arguments not in ([], ["--check"]):
        print("usage: report.py [--check]", file=sys.stderr)
        return 2
    wrong = []
    for path, text in made_of().items():
        if not arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            wrong.append(path.relative_to(ROOT))
    for path in wrong:
        print(f"{path} is not what report.py makes of benches/results: run it, and commit",
              file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
