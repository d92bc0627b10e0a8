#!/usr/bin/env python3
"""Tests what comes into the library with its dependencies: that deny.toml allows it, and that the
bill of materials says it. Needs the debug library: make test STAGES="build supply".
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug" / "libchannel_layer.so"
SBOM = ROOT / "packaging" / "sbom.py"


def run(*command, **environment):
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=os.environ | environment,
        text=True,
        capture_output=True,
        check=False,
    )


def environment():
    """The folder of the virtual environment with the packages of requirements.txt."""
    made = run("tests/interop/environment.sh", "supply-venv", "tests/supply/requirements.txt")
    if made.returncode != 0:
        raise RuntimeError(made.stdout + made.stderr)
    return ROOT / made.stdout.strip()


class Deny(unittest.TestCase):
    def deny(self, *checks, config="deny.toml", manifest="Cargo.toml"):
        result = run(
            "tests/supply/deny.sh",
            *checks,
            CARGO_DENY_CONFIG=str(config),
            CARGO_DENY_MANIFEST=str(manifest),
        )
        return result.returncode, result.stdout + result.stderr

    def scratch(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Path(folder.name)

    def config(self, before, after):
        """A copy of deny.toml with a change."""
        text = (ROOT / "deny.toml").read_text(encoding="utf-8")
        self.assertEqual(text.count(before), 1, f"deny.toml has {before!r} once")
        path = self.scratch() / "deny.toml"
        path.write_text(text.replace(before, after), encoding="utf-8")
        return path

    def test_the_dependencies_are_allowed(self):
        status, output = self.deny()
        self.assertEqual(status, 0, output)
        self.assertRegex(output, "bans ok, licenses ok, sources ok")
        self.assertNotIn("warning", output)

    def test_a_licence_that_is_not_allowed_is_refused(self):
        status, output = self.deny("licenses", config=self.config('    "ISC",\n', ""))
        self.assertNotEqual(status, 0)
        self.assertIn("license is not explicitly allowed", output)
        self.assertIn("untrusted", output)

    def test_a_banned_crate_is_refused(self):
        config = self.config('{ crate = "openssl-sys"', '{ crate = "slab"')
        status, output = self.deny("bans", config=config)
        self.assertNotEqual(status, 0)
        self.assertIn("slab", output)

    def test_a_crate_twice_is_refused(self):
        status, output = self.deny("bans", config=self.config("getrandom@0.2", "getrandom@0.9"))
        self.assertNotEqual(status, 0)
        self.assertIn("found 2 duplicate entries for crate 'getrandom'", output)

    def test_a_crate_of_a_repository_is_refused(self):
        folder = self.scratch()

        def crate(name, dependencies):
            (folder / name / "src").mkdir(parents=True)
            (folder / name / "src" / "lib.rs").touch()
            (folder / name / "Cargo.toml").write_text(
                f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2024"\nlicense = "MIT"\n'
                f"[dependencies]\n{dependencies}\n[workspace]\n",
                encoding="utf-8",
            )

        crate("theirs", "")
        git = ["git", "-C", folder / "theirs", "-c", "user.name=A", "-c", "user.email=a@b"]
        commands = [
            [*git, "init", "--quiet"],
            [*git, "add", "."],
            [*git, "commit", "--quiet", "--message", "All"],
        ]
        crate("ours", f'theirs = {{ git = "file://{folder}/theirs", version = "1" }}')
        manifest = folder / "ours" / "Cargo.toml"
        cargo_home = str(folder / "cargo")
        commands.append(["cargo", "generate-lockfile", "--manifest-path", manifest])
        for command in commands:
            done = run(*command, CARGO_HOME=cargo_home)
            self.assertEqual(done.returncode, 0, done.stderr)
        result = run(
            "tests/supply/deny.sh",
            "sources",
            CARGO_DENY_MANIFEST=str(manifest),
            CARGO_HOME=cargo_home,
        )
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("detected 'git' source not explicitly allowed", result.stdout + result.stderr)


class BillOfMaterials(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.text = cls.made()
        cls.bill = json.loads(cls.text)
        cls.components = {
            f"{each['name']}-{each['version']}": each for each in cls.bill["components"]
        }

    @staticmethod
    def made(*arguments, **environment):
        made = run(sys.executable, SBOM, *arguments, **environment)
        if made.returncode != 0:
            raise RuntimeError(made.stderr)
        return made.stdout

    def test_it_is_valid_cyclonedx(self):
        program = """if True:
            import json, sys
            from cyclonedx.schema import SchemaVersion
            from cyclonedx.validation.json import JsonStrictValidator
            validator = JsonStrictValidator(SchemaVersion.V1_6)
            faults = [validator.validate_str(text) for text in json.load(sys.stdin)]
            json.dump([fault and str(fault).splitlines()[0] for fault in faults], sys.stdout)
        """
        broken = self.text.replace('"type": "library"', '"type": "book"', 1)
        result = subprocess.run(
            [environment() / "bin" / "python", "-c", program],
            input=json.dumps([self.text, broken]),
            text=True,
            capture_output=True,
            check=False,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        whole, planted = json.loads(result.stdout)
        self.assertIsNone(whole)
        self.assertIn("'book' is not one of", planted)

    def test_each_crate_that_left_its_trace_in_the_library_is_in_it(self):
        """Panics name the files that code came from."""
        pattern = rb"/registry/src/[^/\0]+/([A-Za-z0-9_-]+-[0-9]+\.[0-9]+\.[0-9]+[A-Za-z0-9.+-]*)/"
        found = {each.decode() for each in re.findall(pattern, LIBRARY.read_bytes())}
        self.assertGreater(len(found), 30, "the traces were not found")
        self.assertEqual(sorted(found - set(self.components)), [])

    def test_what_only_builds_or_tests_is_not_in_it(self):
        names = {each["name"] for each in self.bill["components"]}
        self.assertEqual(names & {"cbindgen", "proptest", "cc", "syn", "serde_derive"}, set())
        self.assertLessEqual({"lapin", "rustls", "ring", "tokio", "rust-std"}, names)

    def test_each_component_says_its_licence_and_each_crate_its_checksum(self):
        lock = (ROOT / "Cargo.lock").read_text(encoding="utf-8")
        for name, each in self.components.items():
            self.assertTrue(each["licenses"][0]["expression"], name)
            if each["name"] != "rust-std":
                self.assertIn(f'checksum = "{each["hashes"][0]["content"]}"', lock, name)

    def test_it_says_what_depends_on_what(self):
        needs = {each["ref"]: each["dependsOn"] for each in self.bill["dependencies"]}
        ours = self.bill["metadata"]["component"]["bom-ref"]
        direct = {each.split("/")[1].split("@")[0] for each in needs[ours]}
        self.assertIn("lapin", direct)
        self.assertNotIn("ring", direct)
        references = {each["bom-ref"] for each in self.bill["components"]} | {ours}
        self.assertEqual(set(needs), references)
        self.assertEqual({each for some in needs.values() for each in some} - references, set())

    def test_it_is_the_same_each_time(self):
        epoch = {"SOURCE_DATE_EPOCH": "1700000000"}
        self.assertEqual(self.made(**epoch), self.made(**epoch))
        self.assertEqual(
            json.loads(self.made(**epoch))["metadata"]["timestamp"], "2023-11-14T22:13:20Z"
        )
        self.assertEqual(self.made(), self.text)

    def test_it_can_be_made_for_another_target(self):
        bill = json.loads(self.made("aarch64-apple-darwin"))
        names = {each["name"] for each in bill["components"]}
        self.assertIn("security-framework", names)
        self.assertNotIn("security-framework", {each["name"] for each in self.bill["components"]})


if __name__ == "__main__":
    unittest.main()
