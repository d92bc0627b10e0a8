#!/usr/bin/env python3
"""Floor 0 takes the instructions and allocations that counts.txt says, and a change would be seen."""

import dataclasses
import unittest
from fractions import Fraction

import counts

ADVICE = (
    "\nIf this is meant to be, `make counts` records it; say in the commit why it is worth it.\n"
)


class Recorded(unittest.TestCase):
    """The library as it is."""

    @classmethod
    def setUpClass(cls):
        cls.recorded = counts.from_text(counts.RECORD.read_text())
        cls.measured = counts.measure()

    def expect_none(self, words):
        self.assertFalse(words, "\n".join(["", *words, ADVICE]))

    def test_each_case_is_recorded(self):
        self.expect_none(counts.rows_that_differ(self.recorded, self.measured))

    def test_allocations_are_as_recorded(self):
        self.expect_none(counts.allocations_that_differ(self.recorded, self.measured))

    def test_instructions_are_as_recorded(self):
        if self.recorded.environment != self.measured.environment:
            self.skipTest(
                "only allocations are compared: instructions were recorded with "
                f"{self.recorded.environment}; here is {self.measured.environment}"
            )
        self.expect_none(counts.instructions_that_differ(self.recorded, self.measured))


class Planted(unittest.TestCase):
    """A change in what was counted is found, and named."""

    def setUp(self):
        self.recorded = counts.from_text(counts.RECORD.read_text())
        self.plant_in(lambda name: not name.endswith(counts.LARGE_TABLE))

    def plant_in(self, suits):
        # The most instructions, so that a per cent is many.
        rows = {name: row for name, row in self.recorded.rows.items() if suits(name)}
        self.name = max(rows, key=lambda name: rows[name].instructions)
        self.row = rows[self.name]

    def changed(self, **changes):
        row = dataclasses.replace(self.row, **changes)
        return dataclasses.replace(self.recorded, rows={**self.recorded.rows, self.name: row})

    def assert_found(self, find, changed, words):
        found = find(self.recorded, changed)
        self.assertEqual(len(found), 1, found)
        self.assertIn(self.name, found[0])
        self.assertIn(words, found[0])

    def test_instructions_up_and_down(self):
        find = counts.instructions_that_differ
        for per_cent in (4, -4):
            changed = self.changed(instructions=self.row.instructions * (100 + per_cent) // 100)
            self.assert_found(find, changed, f"({per_cent:+}.0 %)")
        for per_cent in (2, -2):
            changed = self.changed(instructions=self.row.instructions * (100 + per_cent) // 100)
            self.assertEqual(find(self.recorded, changed), [])

    def test_of_a_large_table_only_what_is_more_than_its_seed(self):
        self.plant_in(lambda name: name.endswith(counts.LARGE_TABLE))
        find = counts.instructions_that_differ
        changed = self.changed(instructions=self.row.instructions * 151 // 100)
        self.assert_found(find, changed, "(+51.0 %)")
        changed = self.changed(instructions=self.row.instructions * 149 // 100)
        self.assertEqual(find(self.recorded, changed), [])

    def test_only_what_has_changed_is_recorded_anew(self):
        old = self.row.instructions
        for changed, kept in ((old * 1005 // 1000, old), (old * 102 // 100, old * 102 // 100)):
            row = self.changed(instructions=changed, bytes=self.row.bytes + 1)
            renewed = counts.renewed(self.recorded, row).rows[self.name]
            self.assertEqual((renewed.instructions, renewed.bytes), (kept, self.row.bytes + 1))
        elsewhere = dataclasses.replace(self.changed(instructions=old + 1), environment="other")
        self.assertEqual(counts.renewed(self.recorded, elsewhere), elsewhere)

    def test_one_allocation_more_in_a_thousand(self):
        changed = self.changed(allocations=self.row.allocations + Fraction(1, 1000))
        self.assert_found(counts.allocations_that_differ, changed, "allocations of")

    def test_one_byte_more(self):
        changed = self.changed(bytes=self.row.bytes + 1)
        self.assert_found(counts.allocations_that_differ, changed, "bytes, recorded are")

    def test_a_case_that_is_new_or_gone(self):
        rows = {name: row for name, row in self.recorded.rows.items() if name != self.name}
        without = dataclasses.replace(self.recorded, rows=rows)
        self.assert_found(counts.rows_that_differ, without, "is not there any more")
        found = counts.rows_that_differ(without, self.recorded)
        self.assertEqual(found, [f"{self.name}: is not recorded"])

    def test_what_is_written_is_read(self):
        text = counts.to_text(self.recorded)
        self.assertEqual(counts.from_text(text), self.recorded)
        self.assertEqual(text, counts.RECORD.read_text(), "not as `make counts` writes it")

    def test_a_record_of_nothing_is_refused(self):
        for text in ("", counts.ENVIRONMENT + "rustc\n", "name 1 2 3\n"):
            with self.assertRaises(counts.CountsError):
                counts.from_text(text)

    def test_a_case_that_callgrind_did_not_see_is_refused(self):
        with self.assertRaises(counts.CountsError):
            counts.collected(counts.HERE / "no-such-file")
        with self.assertRaises(counts.CountsError):
            counts.collected(counts.RECORD)


if __name__ == "__main__":
    unittest.main(verbosity=2)
