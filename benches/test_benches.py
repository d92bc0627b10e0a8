#!/usr/bin/env python3
"""Tests of what turns samples into claims: medians, ratios, verdicts, order, report and chart; and
that BENCHMARKS.md and the chart are what they make of the results in the tree."""

import copy
import json
import os
import shlex
import sys
import tempfile
import unittest
import xml.dom.minidom
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import bars  # noqa: E402
import chart  # noqa: E402
import contenders  # noqa: E402
import figures  # noqa: E402
import machine  # noqa: E402
import report  # noqa: E402
import run  # noqa: E402
import workloads  # noqa: E402


def sample(case, series, number, **values):
    return {"case": case, "series": series, "contender": series, "round": number, "position": 0,
            "parameters": {}, "figures": values, "took_seconds": 1.0, "load": 0.1}


def data_of(samples, started="2026-01-02T03:04:05+00:00", **other):
    return {"format": 1, "kind": "bench", "started": started, "took_seconds": 600.0,
            "commit": {"name": "abc1234", "dirty": False, "source": "1"},
            "machine": {"cpu": "A Processor", "processors": 2, "memory_gib": 8.0, "kernel": "6.1"},
            "versions": {"RabbitMQ": "3.10.8", "lapin": "4.12.3"},
            "settings": {"layer": "as it is"}, "options": {}, "missing": [], "failures": [],
            "load_before": [0.1, 0.1, 0.1], "load_after": [2.0, 1.0, 0.5],
            "samples": samples, **other}


def good_samples():
    """Of the cases of the chart, with librabbitmq well above twice lapin."""
    samples = []
    for number, (ours, theirs) in enumerate(((40000, 50000), (60000, 50000), (55000, 50000))):
        samples.append(sample("async-200", "layer", number, per_second=ours,
                              cpu_us_per_message=12.0))
        samples.append(sample("async-200", "librabbitmq", number, per_second=theirs,
                              cpu_us_per_message=6.0))
    samples.append(sample("async-200", "lapin", 0, per_second=8000, cpu_us_per_message=40.0))
    samples.append(sample("async-200", "channels_rabbitmq", 0, per_second=5000,
                          cpu_us_per_message=200.0))
    for number in range(workloads.BLOCKS):
        samples.append(sample("latency-at-rest", "layer", number, p50_us=115.0, p99_us=300.0,
                              p999_us=900.0))
        samples.append(sample("latency-at-rest", "librabbitmq", number, p50_us=100.0, p99_us=150.0,
                              p999_us=400.0))
    return samples


def good_run(**other):
    return figures.Run(data_of(good_samples(), **other))


def bindings_run(plant=None, started="2026-01-02T03:04:05+00:00", **other):
    """A run in which each binding is where its bars want it. `plant` has figures that are other
    ones, by case and series."""
    samples = []
    for number in range(7):
        for series, per_second, used, latency in (
                ("layer", 50000, 10.0, 120.0), ("cpp", 50000, 10.5, 120.0),
                ("go", 45000, 14.0, 150.0), ("ruby", 40000, 15.0, 160.0),
                ("python", 35000, 18.0, 170.0), ("django", 12000, 50.0, 180.0),
                ("channels_rabbitmq", 3000, 300.0, 200.0)):
            for case, values in (
                    ("bindings-200", {"per_second": per_second, "cpu_us_per_message": used}),
                    ("bindings-latency", {"p50_us": latency, "p99_us": 300.0, "p999_us": 900.0})):
                values.update((plant or {}).get((case, series), {}))
                samples.append(sample(case, series, number, **values))
    return figures.Run(data_of(samples, started=started, kind=workloads.BINDINGS, **other))


class Figures(unittest.TestCase):
    def test_medians_and_ranges_are_of_all_rounds(self):
        run = good_run()
        self.assertEqual(run.median("async-200", "layer", "per_second"), 55000)
        self.assertEqual(run.range("async-200", "layer", "per_second"), (40000, 60000))

    def test_an_even_number_of_rounds_has_its_median_between_two(self):
        run = figures.Run(data_of([sample("c", "s", 0, f=1.0), sample("c", "s", 1, f=4.0)]))
        self.assertEqual(run.median("c", "s", "f"), 2.5)

    def test_what_was_not_measured_is_none_and_not_zero(self):
        run = good_run()
        self.assertIsNone(run.median("async-200", "redis_core", "per_second"))
        self.assertIsNone(run.range("idle", "layer", "bytes_each"))
        self.assertEqual(run.ratio("async-200", "redis_core", "per_second", "layer"), (None, 0))

    def test_a_ratio_is_the_median_of_the_pairs_and_not_the_ratio_of_the_medians(self):
        run = figures.Run(data_of([
            sample("c", "layer", 0, f=10), sample("c", "peer", 0, f=10),
            sample("c", "layer", 1, f=30), sample("c", "peer", 1, f=10),
            sample("c", "layer", 2, f=20), sample("c", "peer", 2, f=100)]))
        self.assertEqual(run.ratio("c", "layer", "f", "peer"), (1.0, 3))

    def test_a_round_that_only_one_has_is_no_pair(self):
        ratio, pairs = good_run().ratio("async-200", "layer", "per_second", "channels_rabbitmq")
        self.assertEqual((ratio, pairs), (8.0, 1))

    def test_a_difference_is_the_median_of_the_pairs(self):
        run = figures.Run(data_of([
            sample("c", "go", 0, f=14.0), sample("c", "layer", 0, f=10.0),
            sample("c", "go", 1, f=20.0), sample("c", "layer", 1, f=10.0),
            sample("c", "go", 2, f=12.0), sample("c", "layer", 2, f=9.0),
            sample("c", "go", 3, f=99.0)]))
        self.assertEqual(run.difference("c", "go", "f", "layer"), (4.0, 3))
        self.assertEqual(run.difference("c", "cpp", "f", "layer"), (None, 0))

    def measured_in_blocks(self, broker, ours=130.0, theirs=100.0):
        """The ratio of two contenders whose latency is theirs times what the broker is at, a
        function of the position in the run."""
        order = workloads.schedule([("layer", workloads.BLOCKS), ("librabbitmq", workloads.BLOCKS)])
        latency = {"layer": ours, "librabbitmq": theirs}
        run = figures.Run(data_of([
            sample("c", series, number, p50_us=latency[series] * broker(position))
            for position, (number, series) in enumerate(order)]))
        return run.ratio("c", "layer", "p50_us", "librabbitmq")

    def test_shifts_of_the_broker_cancel_out_over_blocks(self):
        for name, broker in {
                "rest": lambda position: 1.0,
                "one step": lambda position: 1.0 if position < 13 else 1.6,
                "a few spikes": lambda position: 9.0 if position in (4, 11, 12, 30) else 1.0,
                "a drift": lambda position: 1.0 + position / 20,
                "there and back": lambda position: 1.5 if 10 <= position < 25 else 1.0}.items():
            ratio, pairs = self.measured_in_blocks(broker)
            self.assertEqual(pairs, workloads.BLOCKS, name)
            self.assertAlmostEqual(ratio, 1.3, delta=0.02, msg=name)

    def test_void_below_twice_lapin_and_not_at_it(self):
        def with_lapin(per_second):
            samples = [each for each in good_samples() if each["series"] != "lapin"]
            samples.append(sample("async-200", "lapin", 0, per_second=per_second))
            return figures.Run(data_of(samples))

        self.assertIsNone(figures.void_reason(with_lapin(25000)))
        self.assertIn("not twice", figures.void_reason(with_lapin(25001)))

    def test_a_run_without_the_two_is_not_void_but_has_no_verdict_on_it(self):
        self.assertIsNone(figures.void_reason(figures.Run(data_of([]))))


class Bars(unittest.TestCase):
    def bar(self, words):
        return next(bar for bar in bars.BARS if words in bar.title)

    def test_met_and_missed(self):
        run = good_run()
        met = self.bar("prefetch_count=1000: of librabbitmq").judge(run)
        self.assertEqual((met.state, met.value), (bars.MET, 1.1))
        missed = self.bar("Client CPU per message").judge(run)
        self.assertEqual((missed.state, missed.value), (bars.MISSED, 2.0))

    def test_at_the_limit_it_is_met_unless_it_must_be_below(self):
        self.assertTrue(bars.holds(1.0, bars.LEAST, 1.0))
        self.assertTrue(bars.holds(1.4, bars.MOST, 1.4))
        self.assertFalse(bars.holds(1.0, bars.BELOW, 1.0))
        self.assertFalse(bars.holds(0.99, bars.LEAST, 1.0))
        self.assertFalse(bars.holds(1.41, bars.MOST, 1.4))

    def test_latency_wants_all_its_blocks(self):
        bar = self.bar("Latency at rest, p50: of librabbitmq")
        self.assertEqual(bar.judge(good_run()).state, bars.MET)
        fewer = [each for each in good_samples()
                 if each["case"] != "latency-at-rest" or each["round"] < 7]
        verdict = bar.judge(figures.Run(data_of(fewer)))
        self.assertEqual((verdict.state, verdict.note),
                         (bars.NOT_RUN, f"7 of {workloads.BLOCKS} pairs"))

    def binders_run(self, without=()):
        """Three rounds: one series is the fastest in one of them, another one in the median."""
        samples = []
        rates = dict.fromkeys(workloads.RAW_BINDERS, (5000, 5000, 5000))
        rates["layer"] = (9000, 9100, 8800)
        rates[workloads.RAW_BINDERS[0]] = (20000, 5000, 5000)
        rates[workloads.RAW_BINDERS[1]] = (10000, 10000, 10000)
        for series, values in rates.items():
            samples += [sample("groups-10000", series, number, adds_per_second=value)
                        for number, value in enumerate(values) if series not in without]
        return figures.Run(data_of(samples))

    def test_the_best_of_several_is_the_best_of_their_medians(self):
        bar = self.bar("group_add of 10,000 distinct groups: of the best")
        verdict = bar.judge(self.binders_run())
        self.assertEqual((verdict.state, verdict.value, verdict.note), (bars.MET, 0.9, "3 pairs"))

    def test_the_best_is_not_known_unless_all_have_run(self):
        bar = self.bar("group_add of 10,000 distinct groups: of the best")
        without = self.binders_run(without=workloads.RAW_BINDERS[1:2])
        self.assertEqual(bar.judge(without).state, bars.NOT_RUN)
        self.assertEqual(bar.judge(without).note, "5 of 6 series")
        self.assertEqual(bar.judge(good_run()).state, bars.NOT_RUN)
        self.assertEqual(bar.judge(good_run()).note, "")

    def test_the_memory_of_a_group_is_held_to_its_bar_at_both_sizes(self):
        for groups, title in ((1000, "1,000"), (100000, "100,000")):
            bar = self.bar(f"A distinct group beyond its name, of {title}")
            for value, state in ((250.0, bars.MET), (251.0, bars.MISSED)):
                run = figures.Run(data_of([sample(f"groups-{groups}", "layer", 0,
                                                  bytes_beyond_name=value, bytes_per_group=999)]))
                self.assertEqual(bar.judge(run).state, state)

    def test_a_run_that_predates_a_case_has_no_verdict_on_it(self):
        for words in ("Latency at half of librabbitmq's throughput", "beyond its name",
                      "librabbitmq with the same"):
            self.assertEqual(self.bar(words).judge(good_run()).state, bars.NOT_RUN, words)

    def test_nothing_is_met_in_a_void_run(self):
        samples = good_samples()
        samples.append(sample("async-200", "lapin", 0, per_second=49000))
        run = figures.Run(data_of(samples))
        self.assertTrue(figures.void_reason(run))
        states = {bar.judge(run).state for bar in bars.BARS}
        self.assertEqual(states, {bars.VOID, bars.NOT_RUN})

    def test_flat_compares_the_library_with_itself(self):
        bar = self.bar("group_add: 100,000 groups over 1,000")
        run = figures.Run(data_of([sample("groups-1000", "layer", 0, adds_per_second=10000.0),
                                   sample("groups-100000", "layer", 0, adds_per_second=7000.0)]))
        verdict = bar.judge(run)
        self.assertEqual((verdict.state, verdict.value), (bars.MISSED, 0.7))

    def test_a_binding_that_is_at_its_bars_meets_them_and_one_that_is_not_misses_its_own(self):
        def missed(plant=None):
            run = bindings_run(plant)
            return [bar.title for bar in bars.of(workloads.BINDINGS)
                    if bar.judge(run).state != bars.MET]

        self.assertEqual(missed(), [])
        planted = {
            "C++, client CPU": {("bindings-200", "cpp"): {"cpu_us_per_message": 11.1}},
            "Go, client CPU": {("bindings-200", "go"): {"cpu_us_per_message": 15.1}},
            "Ruby, send to receive": {("bindings-200", "ruby"): {"per_second": 29900}},
            "Python, send to receive": {("bindings-200", "python"): {"per_second": 29900}},
            "Python with Django, send to receive": {
                ("bindings-200", "django"): {"per_second": 8900}},
            "Ruby, latency": {("bindings-latency", "ruby"): {"p50_us": 201.0}},
            "Python, latency": {("bindings-latency", "python"): {"p50_us": 201.0}},
            "Python with Django, latency": {("bindings-latency", "django"): {"p50_us": 201.0}},
        }
        for title, plant in planted.items():
            found = missed(plant)
            self.assertEqual(len(found), 1, found)
            self.assertTrue(found[0].startswith(title), found)
        self.assertEqual(len(planted), len(bars.BINDINGS_BARS))

    def test_bars_of_bindings_want_all_their_pairs(self):
        data = bindings_run().data
        data["samples"] = [each for each in data["samples"] if each["round"] < 4]
        notes = [bar.judge(figures.Run(data)).note for bar in bars.BINDINGS_BARS]
        self.assertEqual(set(notes), {"4 of 7 pairs", "4 of 5 pairs"})

    def test_each_bar_is_of_a_case_and_series_that_is_run(self):
        ran = {(case.name, entry.series): {figure for figure, _, _ in case.figures}
               for kind in (workloads.BENCH, workloads.BINDINGS)
               for case in workloads.chosen(kind) for entry in case.entries if entry.rounds}
        for bar in [*bars.BARS, *bars.BINDINGS_BARS]:
            wanted = [(getattr(bar, name), series)
                      for name in ("case", "base") if hasattr(bar, name)
                      for series in (getattr(bar, "series", "layer"), getattr(bar, "other", None),
                                     *getattr(bar, "others", ()))
                      if series]
            for key in wanted:
                self.assertIn(key, ran, bar.title)
                self.assertIn(bar.figure, ran[key], bar.title)


class Order(unittest.TestCase):
    def test_contenders_alternate_and_the_order_turns(self):
        self.assertEqual(workloads.schedule([("a", 3), ("b", 3)]),
                         [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")])

    def test_who_runs_less_often_runs_in_the_first_rounds(self):
        self.assertEqual(workloads.schedule([("a", 2), ("b", 1), ("c", 2)]),
                         [(0, "a"), (0, "b"), (0, "c"), (1, "c"), (1, "a")])

    def test_nothing_is_no_order(self):
        self.assertEqual(workloads.schedule([]), [])

    def test_make_bench_takes_no_more_than_its_time(self):
        def minutes(kind):
            return sum(workloads.estimate(entry, case)
                       * workloads.rounds_of(entry, kind == workloads.FULL)
                       for case in workloads.chosen(kind) for entry in case.entries) / 60

        self.assertLess(minutes(workloads.BENCH), 22)  # of 25: machines differ
        self.assertGreater(minutes(workloads.FULL), minutes(workloads.BENCH))
        self.assertLess(minutes(workloads.BINDINGS), 7)

    def test_bindings_are_measured_in_turn_with_c_and_with_the_python_package(self):
        for case in workloads.chosen(workloads.BINDINGS):
            order = workloads.schedule([(entry.series, entry.rounds) for entry in case.entries])
            first = [series for number, series in order if number == 0]
            self.assertEqual(first, ["layer", "cpp", "go", "ruby", "python", "django",
                                     "channels_rabbitmq"])
            self.assertEqual(case.parameters["prefetch"], 1000)

    def test_a_kind_of_run_has_its_own_cases_alone(self):
        with self.assertRaisesRegex(ValueError, "there are: bindings-200, bindings-latency"):
            workloads.chosen(workloads.BINDINGS, ["async-200"])
        with self.assertRaisesRegex(ValueError, "no case bindings-200"):
            workloads.chosen(workloads.FULL, ["bindings-200"])
        self.assertEqual(run.options_of(["--bindings"]).cases, workloads.BINDINGS_CASES)

    def test_the_pairs_of_the_bars_are_seven(self):
        for name in ("async-200", "blocking-200-from-16"):
            case = workloads.case_named(name)
            self.assertEqual([entry.rounds for entry in case.entries[:2]], [7, 7])

    def test_latency_beside_librabbitmq_alternates_in_short_blocks(self):
        self.assertEqual(workloads.BLOCKS % 2, 0)
        for name in ("latency-at-rest", "latency-at-fixed-rate"):
            case = workloads.case_named(name)
            order = workloads.schedule([(entry.series, entry.rounds) for entry in case.entries])
            place = {key: position for position, key in enumerate(order)}
            first = 0
            for number in range(workloads.BLOCKS):
                ours, theirs = place[number, "layer"], place[number, "librabbitmq"]
                self.assertEqual(abs(ours - theirs), 1, (name, number))
                first += ours < theirs
            self.assertEqual(first, workloads.BLOCKS / 2, name)
            for entry in case.entries[:2]:
                parameters = run.parameters_of(case, entry, run.options_of([]), good_samples())
                self.assertEqual((parameters["seconds"], parameters["warmup"]), (1, 0.5))
            for full in (False, True):
                self.assertEqual([workloads.rounds_of(entry, full) for entry in case.entries[:2]],
                                 [workloads.BLOCKS] * 2)

    def test_the_default_prefetch_is_the_library_s(self):
        text = (contenders.ROOT / "docs/options.md").read_text(encoding="utf-8")
        section = text.split("### `prefetch_count`\n")[1].split("###")[0]
        self.assertIn(f"- Default: {workloads.DEFAULT_PREFETCH_COUNT}, or", section)
        entries = {entry.series: entry.parameters
                   for entry in workloads.case_named("async-200").entries}
        ours = entries[workloads.DEFAULT_PREFETCH]
        theirs = entries[workloads.LIBRABBITMQ_DEFAULT_PREFETCH]
        self.assertEqual(theirs, {**ours, "prefetch": workloads.DEFAULT_PREFETCH_COUNT})

    def test_half_load_brings_the_case_it_stands_on(self):
        names = [case.name for case in workloads.chosen(workloads.BENCH, ["latency-at-half-load"])]
        self.assertEqual(names, ["async-200", "latency-at-half-load"])

    def test_an_unknown_case_is_named_and_the_known_ones_are_told(self):
        with self.assertRaisesRegex(ValueError, "no case nonsense; there are: async-200"):
            workloads.chosen(workloads.BENCH, ["nonsense"])

    def test_each_entry_is_of_a_contender_that_has_the_workload(self):
        roster = {contender.name: contender for contender in contenders.roster()}
        environment = mock.patch.object(contenders.PythonLayer, "environment", Path("venv"))
        with environment, tempfile.TemporaryDirectory() as folder:
            for contender in roster.values():
                with mock.patch.object(contenders, "run", return_value=""), \
                        mock.patch.object(contenders, "library",
                                          lambda target: target / "library.so"), \
                        mock.patch.object(contenders, "library_flags", return_value=[]):
                    contender._flags = lambda _target: []
                    contender.build(Path(folder))
            for case in [*workloads.CASES, *workloads.BINDINGS_CASES]:
                for entry in case.entries:
                    command = roster[entry.contender].command(case.workload, {"a": 1})
                    self.assertEqual(command[-1], "a=1", (case.name, entry.series))

    def test_each_binding_is_run_with_the_library_that_c_is_run_with(self):
        with tempfile.TemporaryDirectory() as name:
            target = Path(name)
            ours = [contender for contender in contenders.roster()
                    if contender.name in ("cpp", "go", "ruby", "python", "django")]
            ran = []

            def take(command, _what):
                ran.append(" ".join(str(word) for word in command))
                return ""

            environment = mock.patch.object(contenders.PythonLayer, "environment", Path("venv"))
            with environment, mock.patch.object(contenders, "run", take):
                for contender in ours:
                    with self.assertRaisesRegex(contenders.Missing, "make release"):
                        contender.build(target)
                (target / "release").mkdir()
                (target / "release/libchannel_layer.so").touch()
                for contender in ours:
                    ran.clear()
                    contender.build(target)
                    said = " ".join([*ran, *contender.command("throughput", {})])
                    self.assertIn(str(target / "release"), said, contender.name)

    def test_the_hash_of_the_bindings_is_of_all_that_they_run(self):
        files = contenders.run(["git", "ls-files", "--", *machine.BINDINGS_MEASURED],
                               "git").splitlines()
        for path in machine.BINDINGS_MEASURED:
            self.assertTrue(any(file.startswith(path) for file in files), path)
        # Each source of a binding, but for its tests and examples.
        sources = [path.relative_to(contenders.ROOT) for pattern in
                   ("cpp/include/*.hpp", "go/*.go", "go/*.[ch]", "ruby/lib/**/*.rb",
                    "python/src/**/*.py", "*/bench/*")
                   for path in contenders.BINDINGS.glob(pattern)
                   if path.is_file() and not path.name.endswith("_test.go")]
        self.assertGreater(len(sources), 30)
        for source in sources:
            self.assertTrue(any(str(source).startswith(path)
                                for path in machine.BINDINGS_MEASURED), source)
        self.assertEqual(machine.measured(False), machine.MEASURED)
        self.assertLess(set(machine.MEASURED), set(machine.measured(True)))

    def test_the_programs_of_c_compile(self):
        for program in sorted(contenders.PROGRAMS.glob("layer_*.c")):
            contenders.run([*shlex.split(os.environ.get("CC", "cc")), "-std=c11", "-fsyntax-only",
                            "-Wall", "-Wextra", "-Werror", "-pthread",
                            f"-I{contenders.ROOT}/include", program], program.name)

    def test_the_programs_of_the_bindings_can_be_read(self):
        bindings = contenders.BINDINGS
        contenders.run([*shlex.split(os.environ.get("CXX", "c++")), "-std=c++17", "-fsyntax-only",
                        "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{contenders.ROOT}/include",
                        f"-I{bindings}/cpp/include", bindings / "cpp/bench/layer_send.cpp"], "C++")
        contenders.run(["gofmt", "-e", bindings / "go/bench/main.go"], "Go")
        contenders.run(["ruby", "-wc", bindings / "ruby/bench/layer_send.rb"], "Ruby")
        compile((contenders.PROGRAMS / "python_layers.py").read_text(encoding="utf-8"),
                "python_layers.py", "exec")

    def test_in_one_case_each_series_is_there_once(self):
        for case in [*workloads.CASES, *workloads.BINDINGS_CASES]:
            series = [entry.series for entry in case.entries]
            self.assertEqual(len(series), len(set(series)), case.name)

    def test_large_bodies_are_bounded_by_their_bytes(self):
        self.assertEqual(workloads.window_of(200), 1000)
        self.assertEqual(workloads.window_of(1 << 20), 32)
        self.assertEqual(workloads.backlog_of(200), 50000)
        self.assertEqual(workloads.backlog_of(1 << 20), 64)


class PythonProgram(unittest.TestCase):
    """That a layer which gives wrong results is no figure."""

    # Layers of one queue in memory, in place of those that need packages and a broker.
    PROGRAM = """
import asyncio, sys
from unittest import mock

sys.modules.update({name: mock.MagicMock() for name in ("msgpack", "channels",
                                                        "channels.exceptions")})
import python_layers

queue, until = asyncio.Queue(), python_layers.until

class Honest:
    async def new_channel(self):
        return "channel"

    async def send(self, _channel, message):
        await asyncio.sleep(0)
        queue.put_nowait(message)

    async def receive(self, _channel):
        return await queue.get()

class Doubles(Honest):
    async def send(self, channel, message):
        await super().send(channel, message)
        if message["seq"] == python_layers.FIRST_SEQ + 99:
            await super().send(channel, message)

class Loses(Honest):
    async def send(self, channel, message):
        if message["seq"] != python_layers.FIRST_SEQ + 99:
            await super().send(channel, message)

python_layers.LAYERS = {layer.__name__: lambda capacity, layer=layer: layer()
                        for layer in (Honest, Doubles, Loses)}
python_layers.message_of = lambda body: {"type": "bench.message"}
python_layers.until = lambda condition, seconds, what: until(condition, 0.2, what)
python_layers.main(sys.argv[1:])
"""

    def measure(self, layer):
        environment = dict(os.environ, PYTHONPATH=str(contenders.PROGRAMS),
                           PYTHONDONTWRITEBYTECODE="1")
        return run.run_sample(
            [sys.executable, "-c", self.PROGRAM, layer, "throughput", "senders=4", "backlog=50",
             "seconds=0.1", "warmup=0.1"], environment)[0]

    def test_an_honest_layer_is_measured(self):
        self.assertGreater(self.measure("Honest")["per_second"], 0)

    def test_a_message_that_comes_twice_fails_the_run(self):
        with self.assertRaisesRegex(run.SampleFailed, "message 99 was received twice"):
            self.measure("Doubles")

    def test_a_message_that_does_not_come_fails_the_run(self):
        with self.assertRaisesRegex(run.SampleFailed, r"of \d+ messages \d+ came through"):
            self.measure("Loses")


class Harness(unittest.TestCase):
    def python(self, program):
        return run.run_sample([sys.executable, "-c", program], None)

    def test_a_line_of_json_is_what_was_measured(self):
        found, said = self.python("import sys; print('{\"f\": 1}'); sys.stderr.write('a word')")
        self.assertEqual((found, said), ({"f": 1}, "a word"))

    def test_a_contender_that_fails_is_no_sample(self):
        with self.assertRaisesRegex(run.SampleFailed, "status 3: it broke"):
            self.python("import sys; sys.stderr.write('it broke'); print('{\"f\": 1}'); "
                        "sys.exit(3)")
        with self.assertRaisesRegex(run.SampleFailed, "SIGALRM"):
            self.python("import os, signal; os.kill(os.getpid(), signal.SIGALRM)")

    def test_a_contender_that_prints_nothing_is_no_sample(self):
        with self.assertRaisesRegex(run.SampleFailed, "no line of JSON"):
            self.python("pass")

    def test_a_failure_is_kept_and_the_others_are_measured(self):
        case = workloads.Case("c", "A case", "w", (("f", "f", True),),
                              [workloads.Entry("good", 2), workloads.Entry("bad", 2)])
        options = run.options_of([])

        class Fake:
            def __init__(self, program):
                self.program = program

            def command(self, _workload, _parameters):
                return [sys.executable, "-c", self.program]

        roster = {"good": Fake("print('{\"f\": 1}')"), "bad": Fake("raise SystemExit(1)")}
        with mock.patch.object(run, "say"):
            samples, failures = run.measure(run.plan_of([case], options), roster, options, None)
        self.assertEqual([each["series"] for each in samples], ["good", "good"])
        self.assertEqual([each["series"] for each in failures], ["bad", "bad"])

    def test_the_rate_is_half_of_the_contender_s_own_throughput(self):
        case = workloads.case_named("latency-at-half-load")
        entry = case.entries[0]
        options = run.options_of([])
        parameters = run.parameters_of(case, entry, options, good_samples())
        self.assertEqual(parameters["rate"], 27500)
        with self.assertRaisesRegex(run.SampleFailed, "no throughput"):
            run.parameters_of(case, entry, options, [])

    def test_the_fixed_rate_is_half_of_librabbitmq_s_throughput_for_all(self):
        case = workloads.case_named("latency-at-fixed-rate")
        rates = {run.parameters_of(case, entry, run.options_of([]), good_samples())["rate"]
                 for entry in case.entries}
        self.assertEqual(rates, {25000})
        ours = [each for each in good_samples() if each["series"] == "layer"]
        with self.assertRaisesRegex(run.SampleFailed, "librabbitmq has no throughput"):
            run.parameters_of(case, case.entries[0], run.options_of([]), ours)

    def test_who_cannot_be_built_ends_the_run_unless_left_out(self):
        options = run.options_of(["--only", "connect"])
        plan = run.plan_of(options.cases, options)

        def missing(*_):
            raise contenders.Missing("nothing here")

        with mock.patch.object(run, "say"), mock.patch.object(contenders, "run", missing):
            with self.assertRaisesRegex(contenders.Missing, "nothing here"):
                run.build(plan, options)
        options = run.options_of(["--only", "connect", "--without", "lapin", "redis_core"])
        plan = run.plan_of(options.cases, options)
        self.assertNotIn("lapin", plan[0][1])
        with mock.patch.object(run, "say"), mock.patch.object(contenders, "run", return_value=""), \
                mock.patch.object(contenders, "library_flags", return_value=[]), \
                mock.patch.object(contenders.PythonLayer, "environment", Path("venv")), \
                tempfile.TemporaryDirectory() as folder, \
                mock.patch.object(run, "TARGET", Path(folder)):
            roster, left_out = run.build(plan, options)
        self.assertNotIn("lapin", roster)
        self.assertEqual([each["contender"] for each in left_out], ["lapin", "redis_core"])


class Report(unittest.TestCase):
    def test_both_runs_are_shown_with_their_verdicts(self):
        later = good_run(started="2026-01-02T05:00:00+00:00")
        text = report.document([good_run(), later], None)
        self.assertIn("| Async send to callback, prefetch_count=1000: of librabbitmq | ≥ 1 × | "
                      "1.10 × (3 pairs) | met | 1.10 × (3 pairs) | met |", text)
        self.assertIn("| **missed** |", text)
        self.assertIn("| channel-layer (C) | 55,000 (40,000 – 60,000) |", text)
        self.assertIn("| Started (UTC) | 2026-01-02 03:04 | 2026-01-02 05:00 |", text)
        self.assertNotIn("VOID", text)
        self.assertNotIn("less than an hour", text)

    def test_runs_within_an_hour_are_no_pair(self):
        later = good_run(started="2026-01-02T03:59:05+00:00")
        self.assertIn("began 55 minutes apart", report.document([good_run(), later], None))

    def test_one_run_is_said_to_be_one(self):
        self.assertIn("There is one run", report.document([good_run()], None))
        self.assertIn("no run yet", report.document([], None))

    def test_void_missing_and_uncommitted_stand_before_the_first_table(self):
        samples = good_samples()
        samples.append(sample("async-200", "lapin", 0, per_second=49000))
        data = data_of(samples, missing=[{"contender": "redis_core", "reason": "not to be had"}],
                       commit={"name": "abc1234", "dirty": True, "source": "1"})
        top = report.document([figures.Run(data)], None).split("\n|")[0]
        self.assertIn("VOID: run 1", top)
        self.assertIn("MISSING in run 1: redis_core: not to be had", top)
        self.assertIn("not committed", top)
        self.assertIn("VOID", report.drawing([figures.Run(data)]))

    def test_sources_that_differ_are_said_and_commits_are_not(self):
        for source, said in (("2", True), ("1", False)):
            other = good_run(started="2026-01-02T05:00:00+00:00",
                             commit={"name": "def5678", "dirty": False, "source": source})
            text = report.document([good_run(), other], None)
            self.assertEqual("different sources" in text, said)

    def test_the_sentences_are_of_the_newest_run_and_stand_between_their_marks(self):
        text = f"a\n{report.SENTENCES_BEGIN}old\n{report.SENTENCES_END}z\n"
        made = report.readme([good_run()], text)
        self.assertEqual(made, report.readme([good_run()], made))
        self.assertTrue(made.startswith("a\n") and made.endswith("z\n"))
        self.assertIn("55,000", made)
        self.assertNotIn("old", made)
        self.assertRaises(ValueError, report.readme, [good_run()], "no marks\n")

    def test_a_void_run_makes_no_claim(self):
        samples = [*good_samples(), sample("async-200", "lapin", 0, per_second=49000)]
        said = report.sentences([figures.Run(data_of(samples))])
        self.assertIn("void", said)
        self.assertNotIn("times", said)

    def test_the_two_newest_are_read_the_older_first(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for hour in ("05", "03", "04"):
                data = data_of([], started=f"2026-01-02T{hour}:00:00+00:00")
                (folder / f"2026-01-02-{hour}0000.json").write_text(json.dumps(data))
            hours = [report.started(run).hour for run in report.newest(folder=folder)]
        self.assertEqual(hours, [4, 5])

    def test_runs_of_the_bindings_have_a_section_of_their_own(self):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for made in (good_run(started="2026-01-02T03:00:00+00:00"),
                         bindings_run(started="2026-01-02T04:00:00+00:00"),
                         good_run(started="2026-01-02T05:00:00+00:00"),
                         bindings_run(started="2026-01-02T06:00:00+00:00"),
                         bindings_run({("bindings-200", "go"): {"cpu_us_per_message": 16.0}},
                                      started="2026-01-02T07:00:00+00:00")):
                hour = made.data["started"][:13].replace("T", "-")
                (folder / f"{hour}0000.json").write_text(json.dumps(made.data))
            text = report.made_of(folder)[report.DOCUMENT]
        general, bindings = text.split("## Bindings\n")
        self.assertIn("| Started (UTC) | 2026-01-02 03:00 | 2026-01-02 05:00 |", general)
        self.assertIn("| Started (UTC) | 2026-01-02 06:00 | 2026-01-02 07:00 |", bindings)
        self.assertNotIn("Go, client CPU", general)
        self.assertNotIn("librabbitmq", bindings)
        self.assertIn("| Go, client CPU per message, async: added to C | ≤ 5 µs | 4.00 µs (7 pairs) "
                      "| met | 6.00 µs (7 pairs) | **missed** |", bindings)
        self.assertIn("| channels_rabbitmq (Python) | 3,000 | 3,000 | 300 | 300 |", bindings)
        self.assertIn("| channel-layer (Go) | 45,000 |", bindings)

    def test_a_run_of_the_bindings_alone_has_no_chart(self):
        text, drawing = report.of_one(bindings_run())
        self.assertIsNone(drawing)
        self.assertIn("There is one run", text)
        self.assertNotIn("chart.svg", text)
        text, drawing = report.of_one(good_run())
        self.assertIsNotNone(drawing)
        self.assertNotIn("## Bindings", text)

    def test_the_bindings_have_their_own_first_words_of_doubt(self):
        doubtful = bindings_run(missing=[{"contender": "ruby", "reason": "not to be had"}])
        general, bindings = report.document([good_run()], [doubtful]).split("## Bindings\n")
        self.assertNotIn("MISSING", general)
        self.assertIn("MISSING in run 1: ruby: not to be had", bindings.split("\n|")[0])

    def test_the_report_of_a_run_changes_with_a_figure(self):
        data = data_of(good_samples())
        other = copy.deepcopy(data)
        other["samples"][0]["figures"]["per_second"] += 1000
        before, after = figures.Run(data), figures.Run(other)
        self.assertNotEqual(report.document([before], None), report.document([after], None))

    def test_the_chart_is_well_formed_and_shows_each_contender(self):
        drawing = report.drawing([good_run()])
        self.assertEqual(drawing, report.drawing([good_run()]))
        xml.dom.minidom.parseString(drawing)
        for words in ("channel-layer (C)", "librabbitmq (C)", "55,000", "115 / 300"):
            self.assertIn(words, drawing)

    def test_bars_of_the_chart_are_as_long_as_their_figures(self):
        rows = [("a", True, [100.0]), ("b", False, [50.0])]
        drawing = chart.Drawing()
        drawing.panel("t", "h", rows)
        widths = [element.getAttribute("width") for element in
                  xml.dom.minidom.parseString(drawing.finish([])).getElementsByTagName("rect")[1:]]
        self.assertEqual([float(width) for width in widths], [chart.LONGEST, chart.LONGEST / 2])

    def test_what_is_in_the_tree_is_made_of_the_results_in_the_tree(self):
        for path, text in report.made_of().items():
            self.assertEqual(path.read_text(encoding="utf-8"), text,
                             f"{path.name} is not what benches/report.py makes of benches/results")


if __name__ == "__main__":
    unittest.main(verbosity=2)
