#!/usr/bin/env python3
"""Builds the wheel, with the shared library in it: build_wheel.py LIBRARY_FOLDER OUTPUT_FOLDER

Prints the path of the wheel. With --unpacked FOLDER it puts the package and its metadata into a
folder instead, without the library, as a distribution does that has it in the system.

Needs Python 3.11; for a wheel `strip` (binutils), and cargo, which knows what is linked into the
library: the wheel lists that, with its licences. No build tool has to be fetched, since a wheel is
a zip file with three texts of its own. Its tag says the oldest glibc that the library runs with.
The wheel is the same for the same input.
"""

import base64
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import tomllib

HERE = Path(__file__).resolve().parent
LIBRARY = "libchannel_layer.so.0"
LICENCES = ("LICENSE-APACHE", "LICENSE-MIT")
LINKED = "linked-crates.txt"  # the licences of what the library is linked with
BILL = "channel_layer.cdx.json"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can name
MACHINES = {62: "x86_64", 183: "aarch64"}  # by their number in an ELF file


def description():
    """The README, whose links into the tree lead nowhere from a package index."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


def metadata_of(project, licences):
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"Keywords: {','.join(project['keywords'])}",
        f"License-Expression: {project['license']}",
        *(f"License-File: {name}" for name in licences),
        *(f"Classifier: {each}" for each in project["classifiers"]),
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {each}" for each in project["dependencies"]),
    ]
    for extra, dependencies in project["optional-dependencies"].items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {each}; extra == '{extra}'" for each in dependencies]
    lines.append("Description-Content-Type: text/markdown")
    return "\n".join(lines) + "\n\n" + description()


def stripped(library):
    """The library without what only a debugger reads, which is most of it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / LIBRARY
        subprocess.run(["strip", "--strip-unneeded", "-o", file, library], check=True)
        return file.read_bytes()


def machine_of(library):
    machine = MACHINES.get(int.from_bytes(library[18:20], "little"))
    if library[:4] != b"\x7fELF" or machine is None:
        sys.exit(f"build_wheel.py: {LIBRARY} is not for {' or '.join(MACHINES.values())}")
    return machine


def said_by(script, *arguments):
    """What a script of the folder packaging says."""
    command = [sys.executable, HERE.parents[1] / "packaging" / script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        sys.exit(f"build_wheel.py: {script} ended with status {done.returncode}")
    return done.stdout


def tag_of(library):
    """The tag for a library: the newest version of glibc that its symbols are of, the machine."""
    versions = re.findall(rb"\0GLIBC_2\.(\d+)(?=\0|\.)", library)
    return f"py3-none-manylinux_2_{max(map(int, versions))}_{machine_of(library)}"


def record_line(name, content):
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    return f"{name},sha256={digest},{len(content)}\n"


def read_project():
    return tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def modules():
    package = HERE / "src" / "channel_layer"
    return {f"channel_layer/{each.name}": each.read_bytes() for each in package.glob("*.py")}


def unpack(output):
    project = read_project()
    files = modules()
    info = f"{project['name']}-{project['version']}.dist-info"
    files[f"{info}/METADATA"] = metadata_of(project, LICENCES).encode()
    for name, content in files.items():
        path = Path(output) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def build(library, output):
    project = read_project()
    library = stripped(Path(library) / LIBRARY)
    tag = tag_of(library)
    stem = f"{project['name']}-{project['version']}"
    info = f"{stem}.dist-info"
    files = modules()
    files[f"channel_layer/{LIBRARY}"] = library
    for name in LICENCES:
        files[f"{info}/licenses/{name}"] = (HERE.parents[1] / name).read_bytes()
    files[f"{info}/licenses/{LINKED}"] = said_by("linked_crates.py", "--texts")
    files[f"{info}/sboms/{BILL}"] = said_by("sbom.py", f"{machine_of(library)}-unknown-linux-gnu")
    files[f"{info}/METADATA"] = metadata_of(project, (*LICENCES, LINKED)).encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: build_wheel.py\nRoot-Is-Purelib: false\nTag: {tag}\n"
    ).encode()
    record = "".join(record_line(name, files[name]) for name in sorted(files))
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    Path(output).mkdir(parents=True, exist_ok=True)
    wheel = Path(output) / f"{stem}-{tag}.whl"
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
    if sys.argv[1] == "--unpacked":
        unpack(sys.argv[2])
    else:
        print(build(sys.argv[1], sys.argv[2]))


if __name__ == "__main__":
    main()
