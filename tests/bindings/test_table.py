#!/usr/bin/env python3
"""That the table of the cases lets nothing through."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import table  # noqa: E402

CASES = table.wanted([{"name": "one"}, {"name": "two", "brokers": ["rabbitmq"]}])
WHOLE = ["memory one passed", "rabbitmq one passed", "rabbitmq two passed"]


class Table(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for binding in table.BINDINGS:
            self.write(binding, WHOLE)

    def write(self, binding, lines):
        (self.folder / binding).write_text("".join(f"{line}\n" for line in lines), "utf-8")

    def row(self, case):
        lines, well = table.report(self.folder, CASES)
        (row,) = [line.split()[1:] for line in lines if line.split()[0] == case]
        return row, lines, well

    def test_a_whole_table_is_well(self):
        row, lines, well = self.row("one")
        self.assertEqual(row, ["ok"] * 8)
        self.assertEqual(self.row("two")[0], ["-", "ok"] * 4)
        self.assertEqual(lines[-1], "12 passed, 0 failed")
        self.assertTrue(well)

    def test_a_failed_cell_is_shown_and_fails(self):
        self.write("ruby", [WHOLE[0], "rabbitmq one failed", WHOLE[2]])
        row, lines, well = self.row("one")
        self.assertEqual(row, ["ok"] * 5 + ["FAILED"] + ["ok"] * 2)
        self.assertEqual(lines[-1], "11 passed, 1 failed")
        self.assertFalse(well)

    def test_a_missing_cell_is_shown_and_fails(self):
        self.write("go", WHOLE[1:])
        row, lines, well = self.row("one")
        self.assertEqual(row, ["ok"] * 2 + ["MISSING"] + ["ok"] * 5)
        self.assertEqual(lines[-1], "11 passed, 1 failed")
        self.assertFalse(well)

    def test_a_binding_that_recorded_nothing_fails(self):
        (self.folder / "python").unlink()
        row, lines, well = self.row("two")
        self.assertEqual(row, ["-", "ok"] * 3 + ["-", "MISSING"])
        self.assertIn("python has recorded nothing", lines[-2])
        self.assertFalse(well)

    def test_a_line_that_belongs_to_no_cell_fails(self):
        for line in ("memory three passed", "memory two passed", "memory one", "", WHOLE[0],
                     "memory one skipped"):
            with self.subTest(line):
                self.write("cpp", [*WHOLE, line])
                lines, well = table.report(self.folder, CASES)
                self.assertEqual(lines[-1], "12 passed, 1 failed")
                self.assertFalse(well)

    def test_no_case_at_all_fails(self):
        self.assertFalse(table.report(self.folder, {"one": ()})[1])


if __name__ == "__main__":
    unittest.main()
