#!/usr/bin/env python3
"""Tests of the model and of the page, with figures that are made up; and that docs/scaling.md is what
page.py makes of the results in the tree."""

import contextlib
import io
import json
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import model  # noqa: E402
import page  # noqa: E402
import rig  # noqa: E402


def run_of(layers, nodes=1, groups=1000, **changed):
    """A run in which each cost is a line: fixed, and for each layer or binding."""
    bindings = layers * groups
    phases = {
        "connect": {"seconds": 0.5 + 0.01 * layers, "broker_cpu": 0.02 * layers,
                    "client_cpu": 0.01 * layers, "broker_mib": 100.0},
        "join": {"seconds": 0.1 + bindings / 5000, "broker_cpu": bindings * 2e-4,
                 "client_cpu": bindings * 2e-5, "joins": bindings,
                 "broker_mib": 100 + bindings * 1e-3,
                 "steps": [{"joins": bindings // 10, "seconds": bindings / 60000},
                           {"joins": bindings - bindings // 10, "seconds": bindings / 5500}]},
        "idle": {"seconds": 10.0, "broker_cpu": 0.1 * layers, "client_cpu": 0.01 * layers},
        "churn": {"seconds": 10.0, "broker_cpu": 2.0, "client_cpu": 1.0, "changes": 1000,
                  "join_p99_ms": 3.0},
        "broadcast": {"seconds": 4.0, "broker_cpu": 5.0 + 0.2 * layers, "client_cpu": 1.5,
                      "broadcasts": 1000},
        "paced": {"seconds": 10.0, "broker_cpu": 1.0, "client_cpu": 0.5, "heard_p50_ms": 0.4,
                  "heard_p99_ms": 1.0 + 0.05 * layers},
        "cut": {"seconds": 1.0 + 0.02 * layers, "ready_seconds": 0.3 + 0.02 * layers,
                "broker_cpu": 1.0, "client_cpu": 0.5},
        "restart": {"seconds": 2.0 + bindings / 4000},
        "close": {"seconds": 0.1},
    }
    return {"nodes": nodes, "layers": layers, "groups": groups, "processes": 4,
            "broker": "3.10.8", "broker_mib_before": 90.0, "phases": phases, **changed}


def data_of(*runs, **changed):
    return {"format": 1, "version": "3.10", "kind": "full",
            "started": "2026-01-02T03:04:05+00:00",
            "commit": {"name": "abc1234", "dirty": False, "source": "1"},
            "machine": {"cpu": "A Processor", "processors": 2, "memory_gib": 8.0, "kernel": "6.1"},
            "load_before": [0.1, 0.1, 0.1], "options": {"only": None, "layers": []},
            "runs": list(runs), "failures": [], **changed}


def full():
    return data_of(*(run_of(layers, nodes) for nodes in (1, 3) for layers in (10, 30, 100)))


def quantity(name):
    (found,) = (each for each in model.QUANTITIES if each.name == name)
    return found


class Lines(unittest.TestCase):
    def test_go_through_two_points(self):
        line = model.fit([(10, 3.0), (30, 7.0)])
        self.assertAlmostEqual(line.fixed, 1.0)
        self.assertAlmostEqual(line.per_unit, 0.2)
        self.assertAlmostEqual(line.at(100), 21.0)

    def test_of_more_points_have_the_least_squares(self):
        # By hand: mean (2, 4), spread 2, covariance 3.
        line = model.fit([(1, 2.0), (2, 5.0), (3, 5.0)])
        self.assertAlmostEqual(line.per_unit, 1.5)
        self.assertAlmostEqual(line.fixed, 1.0)

    def test_never_fall_since_no_cost_is_below_nothing(self):
        line = model.fit([(10, 8.0), (30, 4.0)])
        self.assertEqual((line.fixed, line.per_unit), (6.0, 0))
        self.assertEqual(line.at(1000), 6.0)

    def test_never_begin_below_nothing(self):
        line = model.fit([(10, 1.0), (30, 5.0)])
        self.assertEqual(line.fixed, 0)
        self.assertAlmostEqual(line.per_unit, 160 / 1000)  # sum of x*y by sum of x*x

    def test_of_one_size_are_refused(self):
        with self.assertRaises(ValueError):
            model.fit([(10, 1.0), (10, 2.0)])


class Predictions(unittest.TestCase):
    def test_of_what_grows_as_the_model_says_have_no_error(self):
        runs = [run_of(layers) for layers in (100, 10, 30)]
        for name in ("connect", "join", "join_broker", "memory", "idle_broker", "broadcast_broker",
                     "paced_p99", "cut", "restart"):
            with self.subTest(name):
                prediction = model.predict(quantity(name), runs)
                self.assertAlmostEqual(prediction.error, 0)
                self.assertAlmostEqual(prediction.measured, quantity(name).of(runs[0]))

    def test_are_made_without_the_largest_size(self):
        runs = [run_of(layers) for layers in (10, 30, 100)]
        runs[2]["phases"]["connect"]["seconds"] = 15.0
        prediction = model.predict(quantity("connect"), runs)
        self.assertAlmostEqual(prediction.predicted, 1.5)
        self.assertEqual(prediction.measured, 15.0)
        self.assertAlmostEqual(prediction.error, -0.9)

    def test_grow_with_bindings_where_joins_do(self):
        runs = [run_of(10, groups=1000), run_of(30, groups=100), run_of(100, groups=500)]
        prediction = model.predict(quantity("join"), runs)
        self.assertAlmostEqual(prediction.line.per_unit, 1 / 5000)
        self.assertAlmostEqual(prediction.predicted, 0.1 + 50000 / 5000)

    def test_need_three_sizes(self):
        self.assertIsNone(model.predict(quantity("join"), [run_of(10), run_of(30)]))

    def test_need_the_figure_in_each(self):
        runs = [run_of(layers) for layers in (10, 30, 100)]
        del runs[1]["phases"]["churn"]
        self.assertIsNone(model.predict(quantity("churn_join"), runs))

    def test_of_what_was_nothing_have_no_error_in_percent(self):
        self.assertIsNone(model.Prediction(model.Line(1, 0), 1.0, 0).error)


class Extrapolation(unittest.TestCase):
    def test_uses_all_sizes(self):
        runs = [run_of(layers) for layers in (10, 30, 100)]
        line, value = model.extrapolate(quantity("join"), runs, 1000, 1000)
        self.assertAlmostEqual(value, 0.1 + 1_000_000 / 5000)
        self.assertAlmostEqual(line.per_unit, 1 / 5000)

    def test_is_not_made_of_what_the_smaller_sizes_do_not_say(self):
        runs = [run_of(layers) for layers in (10, 30, 100)]
        measured = quantity("idle_broker").of(runs[2])
        for factor, is_made in ((1.9, True), (2.1, False), (1 / 1.9, True), (1 / 2.1, False)):
            runs[2] = run_of(100)
            runs[2]["phases"]["idle"]["broker_cpu"] *= factor
            self.assertAlmostEqual(quantity("idle_broker").of(runs[2]), factor * measured)
            far = model.extrapolate(quantity("idle_broker"), runs, 1000, 1000)
            self.assertEqual(far is not None, is_made, factor)
            self.assertEqual(model.slope("idle_broker", runs) is not None, is_made, factor)

    def test_refuses_what_was_measured(self):
        runs = [run_of(layers) for layers in (10, 30, 100)]
        with self.assertRaises(ValueError):
            model.extrapolate(quantity("connect"), runs, 100, 1000)


class Costs(unittest.TestCase):
    def test_are_for_each_of_what_was_done(self):
        run = run_of(100)
        self.assertAlmostEqual(quantity("broadcast").of(run), 4.0)
        self.assertAlmostEqual(quantity("broadcast_broker").of(run), 25.0)
        self.assertAlmostEqual(quantity("churn_broker").of(run), 2.0)
        self.assertAlmostEqual(quantity("idle_broker").of(run), 1.0)
        self.assertAlmostEqual(quantity("memory").of(run), 110.0)

    def test_of_a_phase_that_is_missing_are_unknown(self):
        run = run_of(100)
        run["phases"] = {}
        for each in model.QUANTITIES:
            self.assertIsNone(each.of(run), each.name)

    def test_say_what_a_broker_carries(self):
        self.assertAlmostEqual(model.carried(0.0002, 4), 20000)
        self.assertIsNone(model.carried(0, 4))


class Bottlenecks(unittest.TestCase):
    def test_are_who_keeps_the_processors_busy(self):
        for broker, client, processors, wanted in (
                (14.0, 5.0, 2, model.PROCESSORS_BROKER),
                (5.0, 14.0, 2, model.PROCESSORS_CLIENTS),
                (9.0, 2.0, 2, model.ONE_BROKER_PROCESS),
                (3.0, 2.0, 2, model.WAITING),
                (14.0, 5.0, 8, model.ONE_BROKER_PROCESS),
                (2.0, 9.0, 2, model.WAITING)):
            with self.subTest(broker=broker, client=client, processors=processors):
                self.assertEqual(model.bottleneck(
                    {"seconds": 10.0, "broker_cpu": broker, "client_cpu": client}, processors),
                    wanted)

    def test_without_figures_are_unknown(self):
        self.assertIsNone(model.bottleneck({"seconds": 10.0}, 2))
        self.assertIsNone(model.bottleneck({}, 2))


class Page(unittest.TestCase):
    def rows(self, text, begin):
        return [line for line in text.splitlines() if line.startswith(f"| {begin}")]

    def test_is_what_the_newest_results_make_of_it(self):
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            self.assertEqual(page.main(["--check"]), 0, said)

    def test_that_has_drifted_is_found(self):
        with tempfile.TemporaryDirectory() as folder:
            document = Path(folder) / "scaling.md"
            with mock.patch.object(page, "DOCUMENT", document), \
                    mock.patch.object(page, "ROOT", Path(folder)), \
                    contextlib.redirect_stderr(io.StringIO()):
                self.assertEqual(page.main(["--check"]), 1)
                document.write_text(page.text_of(page.newest()) + "More.\n", encoding="utf-8")
                self.assertEqual(page.main(["--check"]), 1)
                document.write_text(page.text_of(page.newest()), encoding="utf-8")
                self.assertEqual(page.main(["--check"]), 0)

    def test_without_a_run_says_so_and_has_no_figures(self):
        text = page.text_of({})
        self.assertIn("No full run yet", text)
        self.assertNotIn("Measured on", text)
        self.assertNotIn("xtrapolated", text)
        self.assertIn("## Settings of the broker that matter", text)

    def test_with_a_run_has_each_quantity_predicted_and_measured(self):
        text = page.text_of({"3.10": full()})
        self.assertNotIn("No full run yet", text)
        for each in model.QUANTITIES:
            self.assertEqual(len(self.rows(text, f"{each.title} (one node)")),
                             2, each.name)  # predicted, and beyond
            self.assertEqual(len(self.rows(text, f"{each.title} (cluster of 3)")), 2, each.name)
        (row, _) = self.rows(text, "connect: until the last layer is ready (one node)")
        self.assertEqual(row, "| connect: until the last layer is ready (one node) "
                              "| 0.5 + 0.01 × layers | 1.50 s | 1.50 s | +0 % |")

    def test_shows_the_error_of_a_prediction(self):
        data = full()
        data["runs"][2]["phases"]["connect"]["seconds"] = 3.0
        self.assertIn("| 1.50 s | 3.00 s | -50 % |", page.text_of({"3.10": data}))

    def test_goes_beyond_the_measured_sizes_only_where_a_prediction_was_right(self):
        data = full()
        data["runs"][2]["phases"]["connect"]["seconds"] = 15.0
        text = page.text_of({"3.10": data})
        (row,) = self.rows(text, "connect: until the last layer is ready (one node)")
        self.assertIn("-90 %", row)

    def test_marks_what_goes_beyond_the_measured_sizes_with_its_formula(self):
        text = page.text_of({"3.10": full()})
        section = text.split("### Beyond what was measured on 3.10")[1].split("\n## ")[0]
        self.assertIn("**Extrapolated**", section)
        self.assertIn("300 layers (extrapolated) | 1,000 layers (extrapolated)", section)
        (row,) = self.rows(section, "join: until the last group is bound (one")
        self.assertIn("| 0.1 + 0.0002 × bindings | 60.1 s | 200 s |", row)

    def test_extrapolates_a_rate_to_more_processors_where_processors_bind_it(self):
        data = full()
        join, broadcast = (data["runs"][2]["phases"][name] for name in ("join", "broadcast"))
        join.update(seconds=20.0, broker_cpu=20.0, client_cpu=5.0)
        broadcast.update(seconds=25.0, broker_cpu=25.0, client_cpu=20.0)
        text = page.text_of({"3.10": data})
        (row,) = self.rows(text, "joins, 100 layers (one node)")
        self.assertEqual(row, "| joins, 100 layers (one node) | 5,000 | " + model.ONE_BROKER_PROCESS +
                         " | 0.2 ms | – | – | – | – |")
        (row,) = self.rows(text, "broadcasts to all, 100 layers (one node)")
        self.assertEqual(row, "| broadcasts to all, 100 layers (one node) | 40.0 | " +
                         model.PROCESSORS_BROKER + " | 25.0 ms | 80.0 | 160 | 320 | 640 |")

    def test_says_what_layers_and_groups_that_do_nothing_take(self):
        (row,) = self.rows(page.text_of({"3.10": full()}), "one node | ")
        # 0.01 processors for a layer, 0.001 MiB for a binding.
        self.assertEqual(row, "| one node | 100 | 1,024,000 |")

    def test_begins_with_what_the_largest_size_did(self):
        text = page.text_of({"3.10": full()})
        self.assertIn("- One node, 100 layers with 1,000 groups each: 4,975 joins a second; "
                      "250 broadcasts to all a second; all layers were ready again 2.30 s after all "
                      "connections were cut; 27.0 s after a node was restarted.", text)

    def test_compares_one_node_and_a_cluster_at_the_largest_size_of_both(self):
        data = full()
        data["runs"][5]["phases"]["join"]["broker_cpu"] *= 3
        data["runs"][5]["phases"]["paced"]["heard_p50_ms"] /= 2
        section = page.text_of({"3.10": data}).split("### When a cluster helps")[1]
        (row,) = self.rows(section, "join: CPU time of the broker | 20.0 s | 60.0 s")
        self.assertIn("| 3.00 | more on the cluster |", row)
        (row,) = self.rows(section, "broadcast at a rate: latency, median |")
        self.assertIn("| 0.5 | less on the cluster |", row)
        (row,) = self.rows(section, "cut: until the last layer is ready | 2.30")
        self.assertIn("| 1.00 | alike |", row)

    def test_says_what_bounds_each_phase(self):
        data = full()
        (row,) = self.rows(page.text_of({"3.10": data}), "join (one node)")
        self.assertIn(model.ONE_BROKER_PROCESS, row)

    def test_without_figures_of_a_phase_has_no_row_of_it(self):
        data = full()
        for run in data["runs"]:
            del run["phases"]["restart"]
        self.assertNotIn("restart of a node", page.text_of({"3.10": data}).split("## RabbitMQ")[1])

    def test_warns_of_a_short_run_and_of_failures(self):
        text = page.text_of({"3.10": data_of(run_of(2), kind="short", failures=[
            {"nodes": 1, "layers": 4, "reason": "cut: deaf\nmore"}])})
        self.assertIn("no figure of it counts", text)
        self.assertIn("one node, 4 layers: cut: deaf.", text)
        self.assertNotIn("xtrapolated", text)

    def test_names_the_versions_that_were_not_run(self):
        self.assertIn("no full run on RabbitMQ 4.3 yet", page.text_of({"3.10": full()}))

    def test_is_made_of_the_newest_run_of_each_version(self):
        with tempfile.TemporaryDirectory() as folder:
            for day, version, layers in (("03", "3.10", 7), ("01", "3.10", 5), ("02", "4.3", 6)):
                path = Path(folder) / f"2026-01-{day}-000000-{version}.json"
                path.write_text(json.dumps(data_of(run_of(layers), version=version)))
            found = page.newest(Path(folder))
        self.assertEqual({version: data["runs"][0]["layers"] for version, data in found.items()},
                         {"3.10": 7, "4.3": 6})


class Keeping(unittest.TestCase):
    def kept(self, **changed):
        with tempfile.TemporaryDirectory() as folder:
            with mock.patch.object(page, "RESULTS", Path(folder, "results")), \
                    mock.patch.object(rig, "TARGET", Path(folder, "target")):
                path, complete = rig.keep(data_of(run_of(10), **changed))
                self.assertEqual(json.loads(path.read_text())["version"], "3.10")
                return path.relative_to(folder).parts[0], complete

    def test_is_in_the_tree_for_a_full_run_alone(self):
        self.assertEqual(self.kept(), ("results", True))
        for changed in ({"kind": "short"}, {"options": {"only": "one", "layers": []}},
                        {"options": {"only": None, "layers": [10]}},
                        {"failures": [{"nodes": 1, "layers": 10, "reason": "x"}]}):
            with self.subTest(changed):
                self.assertEqual(self.kept(**changed), ("target", False))


class Failing(unittest.TestCase):
    def measured(self, **attributes):
        broker = mock.MagicMock()
        broker.__enter__.return_value = mock.Mock(**{
            "version.return_value": "3.10.8", "mib.return_value": 90.0})
        fleet = mock.Mock(members=[mock.Mock(**{"said.return_value": "refused"})])
        options = mock.Mock(short=True, only=None, layers=[2], library=Path("debug"))
        with contextlib.ExitStack() as stack:
            for name, value in {"Broker": mock.Mock(return_value=broker),
                                "Fleet": mock.Mock(return_value=fleet), "say": mock.Mock(),
                                "server_of": mock.Mock(), **attributes}.items():
                stack.enter_context(mock.patch.object(rig, name, value))
            return rig.measure_version("3.10", options, None), fleet

    def test_keeps_what_was_measured_before_and_says_why(self):
        def measure(run):
            run.phases["connect"] = {"seconds": 1.0}
            raise rig.Failed("join: too slow")

        with mock.patch.object(rig.Run, "measure", measure):
            data, fleet = self.measured()
        self.assertEqual(data["runs"][0]["phases"], {"connect": {"seconds": 1.0}})
        self.assertEqual(data["failures"], [
            {"nodes": 1, "layers": 2, "reason": "join: too slow\nrefused"}])
        fleet.end.assert_called_once()
        self.assertIn("join: too slow.", page.text_of({"3.10": data}))

    def test_of_a_node_that_does_not_start_is_told(self):
        problem = mock.Mock(side_effect=rig.rabbitmq.FixtureError("no port"))
        data, _ = self.measured(Broker=problem)
        self.assertEqual(data["runs"], [])
        self.assertEqual(data["failures"], [{"nodes": 1, "layers": 2, "reason": "no port"}])
        self.assertIn("that did not start", page.text_of({"3.10": data}))


class Fleet:
    """Answers as processes of layers do; `replies` by the first word of the command, each a list for
    all processes, the last of which stays."""

    def __init__(self, **replies):
        self.replies = replies
        self.asked = []
        self.members = []

    def all(self, command):
        self.asked.append(command)
        name = command.split()[0]
        found = self.replies[name]
        return found.pop(0) if len(found) > 1 else found[0]

    def one(self, command):
        return self.all(command)


class Hearing(unittest.TestCase):
    size = rig.Size(2, 20, 1, 1, 1, 1000)

    def run_on(self, fleet):
        return rig.Run(None, fleet, self.size)

    def heard(self, **changed):
        return {"complete": True, "messages": 10, "short": 0, "last": 5_000_000_000,
                "heard_p50_ms": 1.0, "heard_p99_ms": 2.0, "heard_max_ms": 3.0, **changed}

    def test_of_a_layer_that_missed_a_message_fails(self):
        run = self.run_on(Fleet(heard=[[self.heard(short=1, messages=9)]]))
        with self.assertRaisesRegex(rig.Failed, "1 of 2 layers"):
            run._all_heard("broadcast", 5)

    def test_of_a_layer_that_missed_what_another_got_twice_fails(self):
        run = self.run_on(Fleet(heard=[[self.heard(short=1, messages=10)]]))
        with self.assertRaises(rig.Failed):
            run._all_heard("broadcast", 5)

    def test_of_more_messages_than_were_sent_fails(self):
        run = self.run_on(Fleet(heard=[[self.heard(messages=11)]]))
        with self.assertRaises(rig.Failed):
            run._all_heard("broadcast", 5)

    def test_takes_the_slowest_process(self):
        run = self.run_on(Fleet(heard=[[self.heard(messages=5),
                                        self.heard(messages=5, last=7, heard_p99_ms=9.0)]]))
        found = run._all_heard("broadcast", 5)
        self.assertEqual(found["last"], 5_000_000_000)
        self.assertEqual(found["latency"]["heard_p99_ms"], 9.0)

    def test_after_a_loss_is_tried_again_until_all_layers_hear(self):
        fleet = Fleet(
            ready=[[{"complete": False}], [{"complete": True}]],
            listen=[[{}]],
            probe=[{"status": "LAYER_UNCONFIRMED"}, {"status": "LAYER_OK"}],
            heard=[[self.heard(), self.heard(complete=False)], [self.heard(), self.heard()]])
        self.assertEqual(self.run_on(fleet)._recovered("cut", 2.0), (3.0, 4))
        self.assertEqual(sum(command == "probe" for command in fleet.asked), 3)

    def test_that_never_comes_back_fails(self):
        fleet = Fleet(ready=[[{"complete": True}]], listen=[[{}]],
                      probe=[{"status": "LAYER_OK"}], heard=[[self.heard(complete=False)]])
        with mock.patch.object(rig, "RECOVER_SECONDS", 0.05), self.assertRaises(rig.Failed):
            self.run_on(fleet)._recovered("cut", 2.0)

    def test_needs_every_group_bound(self):
        fleet = Fleet(listen=[[{}]], touch=[[{}]], heard=[[self.heard(messages=20)]],
                      bound=[[{"bound": 40}], [{"bound": 39}]])
        run = self.run_on(fleet)
        run._must_hear_own("join")
        with self.assertRaisesRegex(rig.Failed, "39 groups"):
            run._must_hear_own("join")


if __name__ == "__main__":
    unittest.main()
