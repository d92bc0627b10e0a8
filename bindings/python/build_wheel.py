#!/usr/bin/env python3
"""Builds the wheel, with the shared library in it: build_wheel.py LIBRARY_FOLDER OUTPUT_FOLDER

Prints the path of the wheel. Written with the standard library alone, since a wheel is a zip file
with three texts of its own, and no build tool has to be fetched for it. The wheel is the same for
the same input.
"""

import base64
import hashlib
import re
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TAG = "py3-none-manylinux_2_34_x86_64"
LIBRARY = "libchannel_layer.so.0"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can name


def project():
    text = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.*)"$', text, re.MULTILINE)[1]
    summary = re.search(r'^description = "(.*)"$', text, re.MULTILINE)[1]
    msgpack = re.search(r'^dependencies = \["(.*)"\]$', text, re.MULTILINE)[1]
    django = re.search(r'^django = \["(.*)"\]$', text, re.MULTILINE)[1]
    python = re.search(r'^requires-python = "(.*)"$', text, re.MULTILINE)[1]
    metadata = (
        "Metadata-Version: 2.4\n"
        "Name: channel_layer\n"
        f"Version: {version}\n"
        f"Summary: {summary}\n"
        "License-Expression: MIT OR Apache-2.0\n"
        f"Requires-Python: {python}\n"
        f"Requires-Dist: {msgpack}\n"
        "Provides-Extra: django\n"
        f"Requires-Dist: {django}; extra == 'django'\n"
        "Description-Content-Type: text/markdown\n\n"
    )
    return version, metadata + (HERE / "README.md").read_text(encoding="utf-8")


def record_line(name, content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"


def build(library, output):
    version, metadata = project()
    info = f"channel_layer-{version}.dist-info"
    package = HERE / "src" / "channel_layer"
    files = {f"channel_layer/{each.name}": each.read_bytes() for each in package.glob("*.py")}
    files[f"channel_layer/{LIBRARY}"] = (Path(library) / LIBRARY).read_bytes()
    for name in ("LICENSE-APACHE", "LICENSE-MIT"):
        files[f"{info}/licenses/{name}"] = (HERE.parents[1] / name).read_bytes()
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: build_wheel.py\nRoot-Is-Purelib: false\nTag: {TAG}\n"
    ).encode()
    record = "".join(record_line(name, files[name]) for name in sorted(files))
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    Path(output).mkdir(parents=True, exist_ok=True)
    wheel = Path(output) / f"channel_layer-{version}-{TAG}.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files, key=lambda name: (".dist-info/" in name, name)):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100755 if name.endswith(LIBRARY) else 0o100644) << 16
            archive.writestr(entry, files[name])
    return wheel


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(build(sys.argv[1], sys.argv[2]))


if __name__ == "__main__":
    main()
