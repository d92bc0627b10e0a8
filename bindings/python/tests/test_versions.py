"""versions.sh, with made-up interpreters and runs; and what the README says of versions."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from conftest import WAIT

HERE = Path(__file__).resolve().parent
INTERPRETER = """#!/bin/sh
case $2 in
*sys.version_info*) echo {version} ;;
*ensurepip*) exit {status} ;;
esac
"""
ONE_VERSION = """#!/bin/sh
echo "$@"
case $2 in
python-venv) echo '20 passed, 0 failed{default}' ;;
*) echo '3 passed, 0 failed{other}' ;;
esac
"""


class Tree:
    """A tree of versions.sh alone, and interpreters on PATH."""

    def __init__(self, folder):
        self._folder = folder
        self._tests = folder / "bindings" / "python" / "tests"
        self._path = folder / "path"
        for each in (self._tests, self._path):
            each.mkdir(parents=True)
        shutil.copy(HERE.parent / "pyproject.toml", self._tests.parent)
        shutil.copy(HERE / "versions.sh", self._tests)

    @staticmethod
    def _executable(path, text):
        path.write_text(text, encoding="ascii")
        path.chmod(0o755)

    def add(self, version, environments=True):
        self._executable(
            self._path / f"python{version}",
            INTERPRETER.format(version=version, status=0 if environments else 1),
        )

    def run(self, *arguments, default="", other=""):
        """The status, the table and the last line of versions.sh; the default Python is 3.12."""
        self._executable(
            self._tests / "one_version.sh", ONE_VERSION.format(default=default, other=other)
        )
        done = subprocess.run(
            [self._tests / "versions.sh", *arguments],
            env={
                "CHANNEL_LAYER_TEST_AMQP": "nowhere",
                "CHANNEL_LAYER_TEST_API": "none",
                "CHANNEL_LAYER_TEST_LIBRARY": "none",
                "PATH": f"{self._path}:/usr/bin:/bin",
                "PYENV_ROOT": str(self._folder / "pyenv"),
                "PYTHON": str(self._path / "python3.12"),
            },
            timeout=WAIT,
            capture_output=True,
            text=True,
            check=False,
        )
        table = done.stdout.split("==== by version of Python\n")[1]
        *lines, closing = re.sub(r", in \d+ s$", "", table, flags=re.MULTILINE).splitlines()
        return done.returncode, dict(line.split(": ", 1) for line in lines), closing


@pytest.fixture
def tree(tmp_path):
    tree = Tree(tmp_path)
    tree.add("3.12")
    return tree


def shadowed(tree, *versions):
    """Hides those that this machine has."""
    for version in versions:
        tree.add(version, environments=False)


def test_a_python_that_cannot_make_environments_is_told_of_and_not_used(tree):
    shadowed(tree, "3.9")
    tree.add("3.10")
    status, lines, closing = tree.run("--default")
    assert lines.pop("3.9").startswith("found, but cannot make environments: ")
    assert lines == {"3.12": "20 passed, 0 failed", "3.10": "3 passed, 0 failed"}
    assert (status, closing) == (0, "23 passed, 0 failed")


def test_no_newer_python_than_the_default_stands_for_the_oldest(tree):
    shadowed(tree, "3.9", "3.10", "3.11")
    tree.add("3.13")
    status, lines, closing = tree.run("--default")
    assert list(lines) == ["3.12", "3.9", "3.10", "3.11"]
    assert (status, closing) == (0, "20 passed, 0 failed")


def test_all_that_are_found_are_run(tree):
    shadowed(tree, "3.10")
    for version in ("3.9", "3.11", "3.13"):
        tree.add(version)
    _, lines, closing = tree.run()
    assert list(lines) == ["3.9", "3.10", "3.11", "3.12", "3.13"]
    assert closing == "29 passed, 0 failed"


def test_what_was_skipped_is_carried_through(tree):
    tree.add("3.9")
    _, lines, closing = tree.run("--default", default=", 4 skipped", other=", 5 skipped")
    assert lines == {
        "3.12": "20 passed, 0 failed, 4 skipped",
        "3.9": "3 passed, 0 failed, 5 skipped",
    }
    assert closing == "23 passed, 0 failed, 9 skipped"
    _, _, closing = tree.run("--default", other=", 5 skipped")
    assert closing == "23 passed, 0 failed, 5 skipped"


def test_the_readme_says_which_versions_of_channels_and_django_are_run():
    versions = subprocess.run(
        [HERE / "versions.sh", "--list"], timeout=WAIT, capture_output=True, text=True, check=True
    ).stdout.split()
    pinned = {version: {} for version in versions}
    for line in (HERE / "requirements.txt").read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            each = Requirement(line)
            for version, of in pinned.items():
                if each.marker is None or each.marker.evaluate({"python_version": version}):
                    (specifier,) = each.specifier
                    of[each.name] = ".".join(specifier.version.split(".")[:2])

    readme = (HERE.parent / "README.md").read_text("utf-8")
    names = {"Channels": "channels", "Django": "Django"}
    (sentence,) = re.findall(r"They are run with (.*)\.$", readme, re.MULTILINE)
    general, *exceptions = re.split(r"[;,] on (?:Python )?", sentence)
    said = {version: {} for version in versions}
    for clause in (general, *exceptions):
        version = re.match(r"3\.\d+(?= with )", clause)
        found = re.findall(r"(Channels|Django) (\d+\.\d+)", clause)
        assert found, clause
        for each in [version[0]] if version else versions:
            said[each].update({names[name]: number for name, number in found})
    assert said == {
        version: {name: of[name] for name in names.values()} for version, of in pinned.items()
    }
    span = f"Python {versions[0]} to {versions[-1]}"
    assert span in readme
