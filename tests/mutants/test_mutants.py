#!/usr/bin/env python3
"""Tests of `make mutants` that build nothing: the sample, the runs of tests, the table."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import judges
import run
import sample
import table
from judges import CAUGHT, SURVIVED, TIMEOUT, UNVIABLE, Verdict
from sample import PARTS, PURE, UPPER, Identity, Mutant, MutantsError

SOURCE = """\
fn first() -> bool {
    1 < 2
}

fn second() -> bool {
    1 < 2 && 2 < 3
}
"""
DIFF = """\
--- src/name.rs
+++ replace < with > in first
@@ -1,5 +1,5 @@
 fn first() -> bool {
-    1 < 2
+    1 > /* ~ changed by cargo-mutants ~ */ 2
 }
{blank}
 fn second() -> bool {
""".replace("{blank}", " ")


def listed(name, line, file="src/name.rs"):
    place, change = name.split(" ", 1)
    return {
        "file": file,
        "name": f"{file}:{place}: {change}",
        "diff": DIFF,
        "span": {"start": {"line": line, "column": 1}},
    }


def mutants(entries, source=SOURCE):
    return sample.mutants_of(entries, lambda _: source, ["name.rs", "wire/"])


def many(count):
    """So many of each part."""
    return [
        Mutant(Identity(file, f"replace < with > in f{number}", "a < b"), part, DIFF)
        for number in range(count)
        for part, file in ((PURE, "src/name.rs"), (UPPER, "src/layer/mod.rs"))
    ]


class Parts(unittest.TestCase):
    def test_floor_0_of_the_architecture_is_pure(self):
        pure = sample.pure_places((run.ROOT / "ARCHITECTURE.md").read_text())
        for file, part in {
            "src/wire/decode.rs": PURE,
            "src/groups.rs": PURE,
            "src/layer/outbox.rs": UPPER,
            "src/ffi/layer/send.rs": UPPER,
            "src/dispatch.rs": sample.OTHER,
            "src/broker/rabbitmq/consumer.rs": sample.OTHER,
            "src/layer/tracing_log.rs": None,
            "src/ffi/fuzzing/model.rs": None,
            "src/fuzzing/wire.rs": None,
            "src/broker/testing.rs": None,
            "src/wire/tests/decode.rs": None,
            "src/wire/tests.rs": None,
            "build.rs": None,
        }.items():
            self.assertEqual(sample.part_of(file, pure), part, file)

    def test_an_architecture_without_floors_is_refused(self):
        with self.assertRaises(MutantsError):
            sample.pure_places("| 1 | `sync.rs` | locks |")


class Identities(unittest.TestCase):
    def test_a_mutant_is_the_same_after_lines_were_added_above(self):
        before = mutants([listed("2:7 replace < with > in first", 2)])
        after = mutants([listed("4:7 replace < with > in first", 4)], "// One.\n// Two.\n" + SOURCE)
        self.assertEqual(before, after)

    def test_mutants_that_are_alike_are_numbered(self):
        entries = [listed(f"6:{column} replace < with > in second", 6) for column in (7, 16)]
        entries.append(listed("6:11 replace && with || in second", 6))
        self.assertEqual([mutant.identity.number for mutant in mutants(entries)], [1, 2, 1])

    def test_mutants_of_test_code_are_left_out(self):
        entries = [listed("2:7 replace < with > in first", 2, file="src/fuzzing/wire.rs")]
        self.assertEqual(mutants(entries), [])


class Samples(unittest.TestCase):
    def test_the_sample_depends_on_the_seed_and_not_on_the_order_of_the_list(self):
        everything = many(50)
        chosen = sample.sample(everything, 1, 10)
        self.assertEqual(sample.sample(everything[::-1], 1, 10), chosen)
        self.assertNotEqual(sample.sample(everything, 2, 10), chosen)

    def test_the_sample_is_the_same_in_another_process(self):
        code = "import test_mutants as t; print(*t.sample.sample(t.many(50), 1, 10), sep='\\n')"
        for hash_seed in ("1", "2"):
            printed = subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                capture_output=True,
                text=True,
                cwd=run.HERE,
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
            ).stdout
            self.assertEqual(printed.splitlines(), [str(m) for m in sample.sample(many(50), 1, 10)])

    def test_a_smaller_sample_is_the_beginning_of_a_larger_one(self):
        everything = many(50)
        self.assertEqual(sample.sample(everything, 1, 10), sample.sample(everything, 1, 30)[:20])

    def test_the_parts_take_turns(self):
        parts = [mutant.part for mutant in sample.sample(many(50), 1, 10)]
        self.assertEqual(parts, [PURE, UPPER] * 10)

    def test_a_part_with_few_mutants_is_taken_whole(self):
        few = many(3) + [m for m in many(20) if m.part == PURE][3:]
        chosen = sample.sample(few, 1, 10)
        self.assertEqual([m.part for m in chosen].count(UPPER), 3)
        self.assertEqual([m.part for m in chosen].count(PURE), 10)


class Diffs(unittest.TestCase):
    def test_a_line_is_changed(self):
        self.assertEqual(
            sample.apply(DIFF, SOURCE),
            SOURCE.replace("    1 < 2\n}", "    1 > /* ~ changed by cargo-mutants ~ */ 2\n}"),
        )

    def test_lines_are_removed(self):
        diff = (
            "--- src/name.rs\n+++ replace second -> bool with true\n@@ -4,4 +4,4 @@\n \n"
            " fn second() -> bool {\n-    1 < 2 && 2 < 3\n+    true\n }\n"
        )
        self.assertEqual(sample.apply(diff, SOURCE), SOURCE.replace("1 < 2 && 2 < 3", "true"))

    def test_a_line_that_looks_like_the_head_of_a_file_is_removed(self):
        diff = "--- src/name.rs\n+++ delete\n@@ -1,2 +1,1 @@\n--- a\n b\n"
        self.assertEqual(sample.apply(diff, "-- a\nb\nc\n"), "b\nc\n")

    def test_a_diff_of_another_text_is_refused(self):
        for text in (SOURCE.replace("1 < 2", "1 <= 2"), "// One.\n" + SOURCE, "fn first() {\n"):
            with self.assertRaises(MutantsError):
                sample.apply(DIFF, text)

    def test_a_diff_that_changes_nothing_is_refused(self):
        with self.assertRaises(MutantsError):
            sample.apply("--- src/name.rs\n+++ nothing\n", SOURCE)


def watch(script, confirm=judges.always, read=judges.rust_result, idle=30.0):
    return judges.watch(["bash", "-c", script], read, confirm, idle)


class Watching(unittest.TestCase):
    def test_tests_that_pass_let_the_mutant_survive(self):
        self.assertEqual(watch("echo 'test a::b ... ok'"), Verdict(SURVIVED))

    def test_a_test_that_fails_again_catches_it_at_once(self):
        asked = []
        verdict = watch(
            "echo 'test a::b ... ok'; echo 'test a::c ... FAILED'; exec sleep 1000",
            lambda name: asked.append(name) or True,
        )
        self.assertEqual(verdict, Verdict(CAUGHT, "a::c"))
        self.assertEqual(asked, ["a::c"])

    def test_a_test_that_does_not_fail_again_does_not_catch_it(self):
        script = "echo 'test a::b ... FAILED'; echo 'test a::c ... {}'; exit 101"
        self.assertEqual(watch(script.format("ok"), lambda _: False), Verdict(SURVIVED))
        verdict = watch(script.format("FAILED"), lambda name: name == "a::c")
        self.assertEqual(verdict, Verdict(CAUGHT, "a::c"))

    def test_a_test_that_should_panic_is_read(self):
        verdict = watch("echo 'test a::b - should panic ... FAILED'; exit 101")
        self.assertEqual(verdict, Verdict(CAUGHT, "a::b"))

    def test_the_list_in_c_is_read(self):
        verdict = watch(
            "echo 'ok one'; echo '# not ok'; echo 'not ok two'; exit 1", read=judges.c_result
        )
        self.assertEqual(verdict, Verdict(CAUGHT, "two"))

    def test_tests_that_hang_are_a_timeout_and_are_ended_with_their_children(self):
        with tempfile.TemporaryDirectory() as folder:
            pid = Path(folder) / "pid"
            script = f"sleep 1000 & echo $! >{pid}; echo 'test a::b ... ok'; wait"
            with mock.patch.object(judges, "SLEEPING_SAMPLES", 2):
                self.assertEqual(watch(script, idle=0.5), Verdict(TIMEOUT, "after a::b"))
            child = int(pid.read_text())
            deadline = time.monotonic() + 30
            while Path(f"/proc/{child}").exists() and not is_zombie(child):
                self.assertLess(time.monotonic(), deadline, "the child was not ended")
                time.sleep(0.01)

    def test_tests_that_spin_are_a_timeout(self):
        verdict = watch("echo 'test a::b ... ok'; while :; do :; done", idle=0.5)
        self.assertEqual(verdict, Verdict(TIMEOUT, "after a::b"))

    def test_tests_that_print_and_never_end_one_are_a_timeout(self):
        verdict = watch("while echo working; do sleep 0.1; done", idle=0.1)
        self.assertEqual(verdict, Verdict(TIMEOUT, "after the first test"))

    def test_a_test_that_works_on_a_busy_machine_is_waited_for(self):
        # Silent for longer than it may be, and on the processor for less.
        script = (
            "for part in {1..30}; do for ((i = 0; i < 2000; i++)); do :; done; sleep 0.05; done; "
            "echo 'test a::b ... ok'"
        )
        self.assertEqual(watch(script, idle=0.7), Verdict(SURVIVED))

    def test_tests_that_end_one_by_one_may_take_long_together(self):
        script = "for test in 1 2 3; do sleep 1; echo test a::b$test ... ok; done"
        with mock.patch.object(judges, "SLEEPING_SAMPLES", 0):
            self.assertEqual(watch(script, idle=2.0), Verdict(SURVIVED))

    def wait_until(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def test_a_process_is_seen_to_work_and_to_sleep(self):
        with judges.Process(["bash", "-c", "while :; do :; done"]) as process:
            self.wait_until(process.runs)
            self.wait_until(lambda: process.processor_seconds() >= 0.2)
        with judges.Process(["bash", "-c", "echo; exec sleep 1000"]) as process:
            process.line(60)
            self.wait_until(lambda: not process.runs())
            self.assertLess(process.processor_seconds(), 0.2)

    def test_a_crash_catches_it(self):
        self.assertEqual(watch("kill -SEGV $$"), Verdict(CAUGHT, "signal SIGSEGV"))

    def test_a_crash_after_a_flaky_test_says_nothing_of_the_mutant(self):
        with self.assertRaisesRegex(MutantsError, "a::b"):
            watch("echo 'test a::b ... FAILED'; kill -ABRT $$", lambda _: False)

    def test_a_failure_without_a_test_catches_it(self):
        self.assertEqual(watch("exit 101"), Verdict(CAUGHT, "exit status 101"))


def is_zombie(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def cargo(folder, printed, status, errors=""):
    """A program that answers as cargo does."""
    path = Path(folder) / "cargo"
    lines = "\n".join(json.dumps(message) for message in printed)
    path.write_text(f"#!/bin/bash\ncat <<'END'\n{lines}\nEND\necho '{errors}' >&2\nexit {status}\n")
    path.chmod(0o755)
    return path


class Building(unittest.TestCase):
    def built(self, printed, status, errors=""):
        with tempfile.TemporaryDirectory() as folder:
            before = os.environ.get("CARGO")
            os.environ["CARGO"] = str(cargo(folder, printed, status, errors))
            try:
                return judges.Tree(folder, folder, 1).judge("src/name.rs", PURE)
            finally:
                os.environ.pop("CARGO")
                if before is not None:
                    os.environ["CARGO"] = before

    @staticmethod
    def error(**changes):
        error = {"level": "error", "code": None, "spans": [], "rendered": "it failed", **changes}
        return {"reason": "compiler-message", "message": error}

    def test_a_mutant_with_an_error_in_its_code_is_unviable(self):
        verdict = self.built([self.error(code={"code": "E0308"})], 101)
        self.assertEqual(verdict, Verdict(UNVIABLE))

    def test_a_build_that_fails_for_another_reason_says_nothing_of_the_mutant(self):
        for printed in ([], [self.error(rendered="linking with `cc` failed")]):
            with self.assertRaisesRegex(MutantsError, "No space left"):
                self.built(printed, 101, "No space left on device")

    def test_a_build_without_a_test_program_is_an_error(self):
        with self.assertRaises(MutantsError):
            self.built([], 0)


REASON = """
[[survivor]]
file = "src/name.rs"
change = "replace < with > in f0"
line = "a < b"
reason = "both are the same"
"""


class Tables(unittest.TestCase):
    def made(self, outcomes, reasons=""):
        """The document where the mutants of each part had these outcomes."""
        chosen = many(len(outcomes))
        verdicts = {
            m.identity: Verdict(outcome)
            for m, outcome in zip(chosen, [o for o in outcomes for _ in PARTS], strict=True)
            if outcome
        }
        return table.made_of(chosen, verdicts, table.read_reasons(reasons), 1)

    def row(self, text, name):
        return [
            cell.strip()
            for cell in re.search(rf"^\| {re.escape(name)} \|(.*)\|$", text, re.MULTILINE)[1].split(
                "|"
            )
        ]

    def test_the_share_is_of_those_that_compile_and_ran(self):
        text = self.made([CAUGHT] * 3 + [TIMEOUT, SURVIVED, UNVIABLE, None]).text
        expected = ["7", "6", "1", "3", "1", "1", "80.0 %"]
        self.assertEqual(self.row(text, PARTS[PURE]), [*expected, "90 %"])
        for module in ("`name`", "`layer/mod.rs`"):
            self.assertEqual(self.row(text, module), expected)
        self.assertIn("12 of 14", text)

    def test_nothing_is_said_of_what_did_not_run(self):
        result = self.made([None, UNVIABLE])
        self.assertEqual(self.row(result.text, "`name`")[-1], "-")
        self.assertEqual(result.complaints, [])

    def test_a_share_below_what_is_wanted_is_a_complaint(self):
        complaints = self.made([CAUGHT] * 8 + [SURVIVED] * 2).complaints
        shares = [complaint for complaint in complaints if "%" in complaint]
        self.assertEqual(len(shares), 1, complaints)
        self.assertIn(PARTS[PURE], shares[0])

    def test_a_survivor_without_a_reason_is_open(self):
        result = self.made([SURVIVED] + [CAUGHT] * 10)
        self.assertEqual(result.text.count(table.OPEN), 2)
        self.assertEqual(len(result.complaints), 2)

    def test_a_survivor_with_a_reason_is_explained(self):
        result = self.made([SURVIVED] + [CAUGHT] * 10, REASON)
        self.assertIn("both are the same", result.text)
        self.assertEqual(result.text.count(table.OPEN), 1)
        self.assertEqual(len(result.complaints), 1)

    def test_a_reason_for_a_mutant_that_was_caught_is_a_complaint(self):
        result = self.made([CAUGHT] * 11, REASON)
        self.assertEqual(len(result.complaints), 1)

    def test_a_reason_must_be_given_once_and_name_a_mutant(self):
        for wrong in (
            REASON.replace("both are the same", " "),
            REASON + REASON,
            REASON.replace("line =", "lines ="),
            REASON.replace("change =", "# "),
        ):
            with self.assertRaises(MutantsError):
                table.read_reasons(wrong)

    def test_a_bar_in_the_code_does_not_end_a_cell(self):
        self.assertEqual(table.code("a || b"), "`a \\|\\| b`")


class Records(unittest.TestCase):
    def test_a_run_goes_on_where_the_last_one_ended(self):
        one, other = many(1)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "verdicts.jsonl"
            record = run.Record(path)
            record.add(one, Verdict(SURVIVED))
            record.add(other, Verdict(CAUGHT, "a::b"))
            record.add(one, Verdict(TIMEOUT))
            expected = {one.identity: Verdict(TIMEOUT), other.identity: Verdict(CAUGHT, "a::b")}
            self.assertEqual(record.verdicts, expected)
            self.assertEqual(run.Record(path).verdicts, expected)


class Committed(unittest.TestCase):
    """RESULT.md is of one run, and reasons.toml speaks of its survivors."""

    def setUp(self):
        self.text = run.RESULT.read_text()
        rows = [
            re.split(r" (?<!\\)\| ", line.strip("| "))
            for line in self.text.splitlines()
            if line.startswith("| ")
        ]
        self.parts = [row for row in rows if row[0] in PARTS.values()]
        self.survivors = [row for row in rows if len(row) == 4 and row[0] != "file"]
        self.modules = [
            row
            for row in rows
            if row not in self.parts + self.survivors and row[0] not in ("file", "part", "module")
        ]

    def test_the_modules_add_up_to_the_parts_and_the_survivors_are_all_there(self):
        self.assertEqual(len(self.parts), len(PARTS))
        self.assertGreater(len(self.modules), 20)
        for column in range(1, 7):
            of_parts = sum(int(row[column]) for row in self.parts)
            self.assertEqual(of_parts, sum(int(row[column]) for row in self.modules))
        self.assertEqual(sum(int(row[6]) for row in self.parts), len(self.survivors))

    def test_each_share_is_that_of_its_row(self):
        for row in self.parts + self.modules:
            _, judged, unviable, caught, timeout, survived = map(int, row[1:7])
            self.assertEqual(judged, unviable + caught + timeout + survived, row)
            counted = table.Row(caught=caught, timeout=timeout, survived=survived)
            self.assertEqual(row[7], counted.cells()[-1], row)

    def test_reasons_are_those_of_survivors(self):
        reasons = table.read_reasons(run.REASONS.read_text())
        shown = [row[3] for row in self.survivors if row[3] != table.OPEN]
        self.assertEqual(
            sorted(shown), sorted(reason.replace("\n", " ") for reason in reasons.values())
        )


if __name__ == "__main__":
    unittest.main()
