"""The wheel: what it says of itself, and that it works where there is nothing of this tree."""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.specifiers import SpecifierSet
from packaging.utils import parse_wheel_filename
from trove_classifiers import classifiers

from conftest import ROOT

BINDING = ROOT / "bindings" / "python"
BUILDER = os.environ.get("PYTHON") or "python3"
USES = """
import asyncio, os, pathlib, sys

import channel_layer
from channel_layer import _library
from channel_layer.django import RabbitmqChannelLayer

assert pathlib.Path(_library.path).parent == pathlib.Path(channel_layer.__file__).parent
assert channel_layer.version() == channel_layer.__version__
with channel_layer.Layer(host="memory://wheel") as layer:
    channel = layer.new_channel()
    layer.blocking.send(channel, {"n": 1})
    assert layer.blocking.receive(channel, 5).data == {"n": 1}


async def main():
    layer = RabbitmqChannelLayer(host=sys.argv[1])
    channel = await layer.new_channel()
    await layer.group_add("wheel", channel)
    await layer.group_send("wheel", {"type": "hello"})
    assert await asyncio.wait_for(layer.receive(channel), 10) == {"type": "hello"}
    await layer.close()


asyncio.run(main())
print("the wheel works")
"""


def run(command, **more):
    done = subprocess.run(
        [str(each) for each in command],
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
        **more,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(folder):
    """A wheel of the library that is tested; as `make wheel`, by the default Python."""
    library = os.environ["CHANNEL_LAYER_TEST_LIBRARY"]
    return Path(run([BUILDER, BINDING / "build_wheel.py", library, folder]).strip())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that the environment names, or one that is built here."""
    given = os.environ.get("CHANNEL_LAYER_TEST_WHEEL")
    return Path(given).resolve() if given else built(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def files(wheel):
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def metadata(files):
    (name,) = (each for each in files if each.endswith(".dist-info/METADATA"))
    return Metadata.from_email(files[name], validate=True)


def test_its_tag_is_the_oldest_platform_that_it_runs_on(wheel):
    ((python, abi, platform),) = (
        (tag.interpreter, tag.abi, tag.platform) for tag in parse_wheel_filename(wheel.name)[3]
    )
    assert (python, abi) == ("py3", "none")
    said = " ".join(run([sys.executable, "-m", "auditwheel", "show", wheel]).split())
    assert f'is consistent with the following platform tag: "{platform}"' in said, said


def test_its_record_names_every_file_with_its_digest(files):
    (record,) = (each for each in files if each.endswith(".dist-info/RECORD"))
    lines = files[record].decode().splitlines()
    expected = [f"{record},,"]
    for name, content in files.items():
        if name != record:
            digest = urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            expected.append(f"{name},sha256={digest},{len(content)}")
    assert sorted(lines) == sorted(expected)


def test_it_holds_the_package_the_library_and_the_licences(files, metadata):
    info = f"channel_layer-{metadata.version}.dist-info"
    package = {
        f"channel_layer/{each.name}" for each in (BINDING / "src/channel_layer").glob("*.py")
    }
    licences = {"LICENSE-APACHE", "LICENSE-MIT", "linked-crates.txt"}
    others = {
        *("METADATA", "RECORD", "WHEEL", "sboms/channel_layer.cdx.json"),
        *(f"licenses/{name}" for name in licences),
    }
    assert set(files) == {
        *package,
        "channel_layer/libchannel_layer.so.0",
        *(f"{info}/{name}" for name in others),
    }
    assert set(metadata.license_files) == licences
    for name in ("LICENSE-APACHE", "LICENSE-MIT"):
        assert files[f"{info}/licenses/{name}"] == (ROOT / name).read_bytes()


def test_it_names_every_crate_that_is_linked_in_with_the_text_of_its_licence(files, metadata):
    info = f"channel_layer-{metadata.version}.dist-info"
    bill = json.loads(files[f"{info}/sboms/channel_layer.cdx.json"])
    texts = files[f"{info}/licenses/linked-crates.txt"].decode()
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["version"] == str(metadata.version)
    crates = {each["purl"]: each for each in bill["components"] if "cargo" in each["purl"]}
    assert len(crates) > 50
    for each in crates.values():
        name = f"{each['name']} {each['version']}"
        assert re.search(rf"^{re.escape(name)}: ", texts, re.MULTILINE), name
    # Those whose licences ask that their text be passed on.
    assert re.search(r"^ring [0-9.]+ \(LICENSE", texts, re.MULTILINE)
    for words in ("UNICODE LICENSE V3", "Redistributions in binary form must reproduce"):
        assert words in texts, words


def test_a_distribution_that_has_the_library_in_the_system_gets_no_word_of_it(tmp_path):
    run([BUILDER, BINDING / "build_wheel.py", "--unpacked", tmp_path])
    (name,) = tmp_path.glob("*.dist-info/METADATA")
    unpacked = Metadata.from_email(name.read_bytes(), validate=True)
    assert set(unpacked.license_files) == {"LICENSE-APACHE", "LICENSE-MIT"}
    others = {each.name for each in name.parent.iterdir()}
    assert others == {"METADATA"} and not list(tmp_path.rglob("*.so*"))


def test_its_metadata_is_whole(metadata):
    cargo = (ROOT / "Cargo.toml").read_text("utf-8")
    assert str(metadata.version) == re.search(r'^version = "(.*)"$', cargo, re.MULTILINE)[1]
    assert metadata.license_expression == re.search(r'^license = "(.*)"$', cargo, re.MULTILINE)[1]
    assert metadata.summary and metadata.keywords
    assert metadata.provides_extra == ["django"]
    assert {each.name for each in metadata.requires_dist} == {"msgpack", "channels"}
    assert set(metadata.classifiers) <= classifiers
    assert metadata.description_content_type == "text/markdown"
    assert metadata.description.startswith("# channel_layer for Python")
    # Links that lead nowhere from a package index, hosts that were made up.
    assert not re.search(r"\]\((?!https://)", metadata.description)
    assert not metadata.project_urls and not metadata.home_page


def test_the_versions_of_python_that_it_claims_are_those_that_it_is_tested_on(metadata):
    claimed = re.findall(
        r"^Programming Language :: Python :: (3\.\d+)$",
        "\n".join(metadata.classifiers),
        re.MULTILINE,
    )
    assert metadata.requires_python == SpecifierSet(f">={claimed[0]}")
    assert run([BINDING / "tests" / "versions.sh", "--list"]).split() == claimed


@pytest.mark.slow
def test_it_is_the_same_for_the_same_input(tmp_path):
    one, two = built(tmp_path / "one"), built(tmp_path / "two")
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_it_works_in_a_fresh_environment_outside_the_tree(wheel, amqp, tmp_path):
    outside = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CHANNEL_LAYER_LIBRARY", "PYTHONPATH", "LD_LIBRARY_PATH")
    }
    # The environment's Python itself, not the link to it that a virtual environment has.
    base = getattr(sys, "_base_executable", sys.executable)
    run([base, "-m", "venv", tmp_path / "venv"], env=outside)
    python = tmp_path / "venv/bin/python"
    wheels = os.environ.get("CHANNEL_LAYER_TEST_WHEELS")
    source = ["--no-index", "--find-links", wheels] if wheels else []
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", *source, f"{wheel}[django]"], cwd=tmp_path, env=outside)
    run([*pip, "check"], cwd=tmp_path, env=outside)
    said = run([python, "-c", USES, amqp], cwd=tmp_path, env=outside)
    assert said == "the wheel works\n"
