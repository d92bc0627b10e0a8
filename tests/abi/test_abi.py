#!/usr/bin/env python3
"""Tests that programs which are built already go on working, and that the gate sees what would
break them. Needs the debug library: make test STAGES="build abi".
"""

import os
import re
import shlex
import subprocess
import tempfile
import unittest
from pathlib import Path

import gate

LIBRARY = gate.ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "libchannel_layer.so"
PROGRAM = gate.FROZEN_HEADER.parent / "every_function.c"
COMPILER = shlex.split(os.environ.get("CC") or "gcc")
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pthread"]


def scratch(test):
    folder = tempfile.TemporaryDirectory()
    test.addCleanup(folder.cleanup)
    return Path(folder.name)


class Gate(unittest.TestCase):
    """The header of today, against what is recorded."""

    def test_the_header_is_compatible_with_the_recorded_abi(self):
        self.assertIsNone(gate.difference(gate.DUMP, gate.HEADER))

    def test_the_header_is_compatible_with_that_of_the_first_release(self):
        self.assertIsNone(gate.break_of_the_first_release())

    def test_the_record_is_up_to_date(self):
        self.assertEqual(
            gate.SYMBOLS.read_text(encoding="utf-8").split(),
            gate.symbols_of(gate.HEADER),
            "functions were added or removed: 'make abi' records what was added",
        )
        # Also enums grow; their numbers are in the dump alone.
        dump = gate.DUMP.read_text(encoding="utf-8")
        for name, enum in gate.api.read(gate.HEADER)["enums"].items():
            for value, number in enum["values"].items():
                self.assertIn(
                    f"<enumerator name='{value}' value='{number}'/>",
                    dump,
                    f"{name} has {value} and the record has not: 'make abi' records it",
                )

    def test_the_library_exports_the_recorded_functions_and_no_others(self):
        self.assertEqual(
            gate.exports_of(LIBRARY), gate.SYMBOLS.read_text(encoding="utf-8").split()
        )

    def test_the_stub_has_everything_of_the_header(self):
        """Held against the words of the header, since the stub is made by a reader of it."""
        code = gate.api.without_comments(gate.HEADER.read_text(encoding="utf-8"))
        words = set(re.findall(r"\b(?:layer_\w+|LAYER_\w+)\b", code))
        # Tags and macros of the preprocessor, and what changes with each release.
        words -= {"LAYER_MUST_USE"} | set(filter(gate.VERSION_CONSTANTS.fullmatch, words))
        self.assertGreater(len(words), 100)
        dump = gate.dump_of(gate.HEADER)
        missing = [word for word in sorted(words) if word not in dump]
        self.assertEqual(missing, [])


class FirstRelease(unittest.TestCase):
    """A program that was built when the library was released first."""

    def build(self, program, include):
        command = [*COMPILER, *STRICT, "-I", include, PROGRAM, "-o", program]
        gate.succeed([*command, "-L", LIBRARY.parent, "-lchannel_layer"])

    def run_program(self, program):
        environment = os.environ | {"LD_LIBRARY_PATH": str(LIBRARY.parent.resolve())}
        return subprocess.run(
            [program],
            env=environment,
            text=True,
            capture_output=True,
            check=False,
            timeout=120,
        )

    def version(self):
        return gate.api.read(gate.HEADER)["constants"]["LAYER_VERSION"]

    def test_its_program_runs_with_the_library_of_today(self):
        program = scratch(self) / "every_function"
        self.build(program, gate.FROZEN_HEADER.parent)
        needed = gate.succeed(["readelf", "-d", program])
        self.assertIn("[libchannel_layer.so.0]", needed)
        result = self.run_program(program)
        self.assertEqual(
            (result.returncode, result.stdout, result.stderr),
            (0, f"built with {gate.FIRST_RELEASE}, ran on {self.version()}\n", ""),
        )

    def test_its_source_builds_with_the_header_of_today(self):
        program = scratch(self) / "every_function"
        self.build(program, gate.HEADER.parent)
        self.assertEqual(self.run_program(program).returncode, 0)

    def test_its_program_asks_for_every_function_that_it_had(self):
        program = scratch(self) / "every_function"
        self.build(program, gate.FROZEN_HEADER.parent)
        lines = gate.succeed(["nm", "-D", "--undefined-only", program]).splitlines()
        asked = sorted(name for line in lines if (name := line.split()[-1]).startswith("layer_"))
        self.assertEqual(
            asked,
            gate.symbols_of(gate.FROZEN_HEADER),
            f"{PROGRAM.relative_to(gate.ROOT)} calls every function of the header beside it",
        )

    def test_its_header_is_that_of_today_until_the_version_grows(self):
        if self.version() != gate.FIRST_RELEASE:
            self.skipTest(f"this is {self.version()}: the header of {gate.FIRST_RELEASE} is frozen")
        advice = (
            f"the version in Cargo.toml is {gate.FIRST_RELEASE} still, which is released: raise it"
            if gate.is_released()
            else f"{gate.FIRST_RELEASE} is not released: 'make abi' copies the header"
        )
        self.assertEqual(
            gate.FROZEN_HEADER.read_text(encoding="utf-8"),
            gate.HEADER.read_text(encoding="utf-8"),
            advice,
        )


# Not in the header itself: so far it has no struct that a program can look into.
STRUCT = """
#include <stdint.h>
typedef struct layer_planted_t {
    uint32_t first;
    uint64_t second;
} layer_planted_t;
"""
TAKES_STRUCT = "\nvoid layer_planted_read(layer_planted_t *planted);\n"
# What stands before the first function.
OPENING = 'extern "C" {\n#endif // __cplusplus\n'


class Planted(unittest.TestCase):
    """Defects planted in copies of the header."""

    def headers(self, text, struct=STRUCT):
        folder = scratch(self)
        (folder / "planted.h").write_text(struct, encoding="utf-8")
        text = text.replace("#include <stdint.h>", '#include <stdint.h>\n#include "planted.h"')
        text = text.replace(OPENING, OPENING + TAKES_STRUCT)
        header = folder / "channel_layer.h"
        header.write_text(text, encoding="utf-8")
        return header

    def difference(self, before, after, struct=STRUCT):
        """What the gate says where `before` in the header has become `after`."""
        text = gate.HEADER.read_text(encoding="utf-8")
        self.assertEqual(text.count(before), 1, f"the header has {before!r} once")
        dump = scratch(self) / "before.abi"
        dump.write_text(gate.dump_of(self.headers(text)), encoding="utf-8")
        return gate.difference(dump, self.headers(text.replace(before, after), struct))

    def assert_caught(self, before, after, says, **more):
        report = self.difference(before, after, **more)
        self.assertIsNotNone(report, f"{after!r} in the place of {before!r} was not caught")
        self.assertIn(says, report)

    def assert_passes(self, before, after):
        self.assertIsNone(self.difference(before, after))

    def test_no_change_passes(self):
        self.assert_passes("LAYER_OK = 0,", "LAYER_OK = 0,")

    def test_an_added_parameter_is_caught(self):
        self.assert_caught(
            "int layer_fd(const layer_t *layer)",
            "int layer_fd(const layer_t *layer, int which)",
            "parameter 2 of type 'int' was added",
        )

    def test_a_parameter_of_another_type_is_caught(self):
        self.assert_caught(
            "const char *layer_status_name(int32_t status)",
            "const char *layer_status_name(int64_t status)",
            "int64_t",
        )

    def test_a_result_of_another_type_is_caught(self):
        self.assert_caught(
            "uint32_t layer_abi_version(void)", "uint64_t layer_abi_version(void)", "uint64_t"
        )

    def test_a_removed_function_is_caught(self):
        self.assert_caught("uint32_t layer_abi_version(void);", "", "layer_abi_version")

    def test_a_renamed_function_is_caught(self):
        self.assert_caught(
            "uint32_t layer_abi_version(void)", "uint32_t layer_abi(void)", "layer_abi_version"
        )

    def test_a_parameter_added_to_a_callback_is_caught(self):
        self.assert_caught(
            "typedef void (*layer_destroy_cb)(void *userdata);",
            "typedef void (*layer_destroy_cb)(void *userdata, int why);",
            "parameter 2 of type 'int' was added",
        )

    def test_a_changed_enum_value_is_caught(self):
        self.assert_caught("LAYER_INTERNAL = 14,", "LAYER_INTERNAL = 15,", "'14' to '15'")

    def test_a_removed_enum_value_is_caught(self):
        self.assert_caught("LAYER_INTERNAL = 14,", "", "LAYER_INTERNAL")

    def test_an_enum_carried_by_another_integer_is_caught(self):
        self.assert_caught(
            "typedef int32_t layer_status_t;", "typedef int8_t layer_status_t;", "layer_status_t"
        )

    def test_a_changed_constant_is_caught(self):
        self.assert_caught(
            "#define LAYER_NAME_SIZE 100", "#define LAYER_NAME_SIZE 101", "LAYER_NAME_SIZE"
        )

    def test_a_changed_struct_field_is_caught(self):
        self.assert_caught(
            "LAYER_OK = 0,",
            "LAYER_OK = 0,",
            "second",
            struct=STRUCT.replace("uint64_t second", "uint32_t second"),
        )

    def test_a_removed_struct_field_is_caught(self):
        self.assert_caught(
            "LAYER_OK = 0,",
            "LAYER_OK = 0,",
            "second",
            struct=STRUCT.replace("    uint64_t second;\n", ""),
        )

    def test_a_struct_field_added_at_the_end_is_caught(self):
        """Whoever holds one by value has too little room."""
        self.assert_caught(
            "LAYER_OK = 0,",
            "LAYER_OK = 0,",
            "third",
            struct=STRUCT.replace("second;\n", "second;\n    uint64_t third;\n"),
        )

    def test_an_added_function_passes(self):
        self.assert_passes(
            "uint32_t layer_abi_version(void);",
            "uint32_t layer_abi_version(void);\nuint32_t layer_added(layer_t *layer);",
        )

    def test_an_enum_value_added_at_the_end_passes(self):
        self.assert_passes("LAYER_INTERNAL = 14,", "LAYER_INTERNAL = 14,\n    LAYER_MORE = 15,")

    def test_another_version_passes(self):
        version = gate.api.read(gate.HEADER)["constants"]["LAYER_VERSION"]
        self.assert_passes(f'LAYER_VERSION "{version}"', 'LAYER_VERSION "0.99.0"')

    def test_a_library_that_lacks_a_function_shows_in_its_exports(self):
        folder = scratch(self)
        stub = gate.stub_of(gate.HEADER).replace("uint32_t layer_abi_version", "static uint32_t gone")
        stub = stub.replace(" gone(", " __attribute__((unused)) gone(")
        (folder / "lacking.c").write_text(stub, encoding="utf-8")
        library = folder / "liblacking.so"
        include = ["-I", gate.HEADER.parent]
        gate.succeed([*COMPILER, *gate.COMPILE, *include, folder / "lacking.c", "-o", library])
        functions = [name for name in gate.exports_of(library) if not name.startswith("abi_")]
        recorded = gate.SYMBOLS.read_text(encoding="utf-8").split()
        self.assertEqual(sorted(set(recorded) - set(functions)), ["layer_abi_version"])


class Renewal(unittest.TestCase):
    """What `make abi` writes, and what it refuses; on a copy of the record."""

    def setUp(self):
        folder = scratch(self)
        self.header = folder / "channel_layer.h"
        self.text = gate.HEADER.read_text(encoding="utf-8")
        places = {
            "HEADER": self.header,
            "DUMP": folder / "recorded.abi",
            "SYMBOLS": folder / "symbols.txt",
            "FROZEN_HEADER": folder / "first" / "channel_layer.h",
        }
        for name, place in places.items():
            self.addCleanup(setattr, gate, name, getattr(gate, name))
            setattr(gate, name, place)
        self.addCleanup(setattr, gate, "is_released", gate.is_released)
        self.released(False)
        self.write(self.text)
        gate.renew(may_break=False)
        self.recorded = gate.DUMP.read_text(encoding="utf-8")

    def released(self, released):
        gate.is_released = lambda: released

    def write(self, text):
        self.header.write_text(text, encoding="utf-8")

    def add(self):
        text = self.text.replace(
            "uint32_t layer_abi_version(void);",
            "uint32_t layer_abi_version(void);\nuint32_t layer_added(void);",
        )
        self.write(text)
        return text

    def remove(self):
        self.write(self.text.replace("uint32_t layer_abi_version(void);", ""))

    def test_it_records_additions(self):
        text = self.add()
        gate.renew(may_break=False)
        self.assertIn("layer_added", gate.DUMP.read_text(encoding="utf-8"))
        self.assertIn("layer_added\n", gate.SYMBOLS.read_text(encoding="utf-8"))
        self.assertEqual(gate.FROZEN_HEADER.read_text(encoding="utf-8"), text)

    def test_it_says_by_what_it_was_made(self):
        self.assertRegex(self.recorded, r"<!-- made by abidw: [0-9.]+ and .+; make abi -->")

    def test_it_refuses_what_breaks_programs(self):
        self.remove()
        with self.assertRaisesRegex(gate.Refused, "layer_abi_version(.|\n)*ABI_BREAK=1"):
            gate.renew(may_break=False)
        self.assertEqual(gate.DUMP.read_text(encoding="utf-8"), self.recorded)

    def test_told_so_it_records_a_break_before_the_first_release(self):
        self.remove()
        gate.renew(may_break=True)
        self.assertNotIn("layer_abi_version", gate.DUMP.read_text(encoding="utf-8"))

    def test_told_so_it_records_a_change_of_what_came_after_the_first_release(self):
        self.released(True)
        text = self.add()
        gate.renew(may_break=False)
        self.write(text.replace("layer_added(void)", "layer_added(int which)"))
        with self.assertRaisesRegex(gate.Refused, "ABI_BREAK=1"):
            gate.renew(may_break=False)
        gate.renew(may_break=True)
        self.assertIsNone(gate.difference(gate.DUMP, self.header))

    def test_no_one_can_record_a_break_of_the_first_release(self):
        self.released(True)
        self.remove()
        with self.assertRaisesRegex(gate.Refused, "is released"):
            gate.renew(may_break=True)
        self.assertEqual(gate.DUMP.read_text(encoding="utf-8"), self.recorded)

    def test_the_header_of_the_first_release_stays_once_it_is_released(self):
        self.released(True)
        self.add()
        gate.renew(may_break=False)
        self.assertEqual(gate.FROZEN_HEADER.read_text(encoding="utf-8"), self.text)


class Changelog(unittest.TestCase):
    def is_released(self, heading):
        path = scratch(self) / "CHANGELOG.md"
        path.write_text(f"# Changelog\n\n{heading}\n\n- All.\n", encoding="utf-8")
        return gate.is_released(path)

    def test_it_says_whether_the_first_release_is_out(self):
        self.assertFalse(self.is_released("## 0.1.0 (unreleased)"))
        self.assertFalse(self.is_released("## [0.1.0] - unreleased"))
        self.assertTrue(self.is_released("## [0.1.0] - 2027-01-31"))
        with self.assertRaises(gate.Refused):
            self.is_released("## 0.2.0")


if __name__ == "__main__":
    unittest.main()
