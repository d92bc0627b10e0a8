#!/usr/bin/env python3
"""Prints what is linked into the library, as a CycloneDX bill of materials in JSON.

    sbom.py [TARGET]        TARGET as rustc names it; this machine's where it is left out

What is asked is `cargo tree`, which resolves features as the build does: what the crate depends on,
and what these depend on, without what only builds, tests or expands macros. Rust's standard library
is added, since it is linked in too. The same tree and toolchain give the same bytes: with
SOURCE_DATE_EPOCH they hold that time, else none.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
import uuid
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CRATE = "channel-layer"
LINE = re.compile(r"(\d+)(\S+) v(\S+)(?: \([^()]*\))?\|([^|]*)\|(?: \(\*\))?")


def run(variable, default, *arguments):
    command = [*shlex.split(os.environ.get(variable) or default), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def rustc():
    """What rustc says of itself, by name."""
    lines = run("RUSTC", "rustc", "--version", "--verbose").splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def tree(target):
    """For each linked crate, as (name, version): its licence, and those that it depends on."""
    text = run(
        *("CARGO", "cargo", "tree", "--locked", "--package", CRATE, "--target", target),
        *("--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "{p}|{l}|"),
    )
    licences, needs, above = {}, {}, []
    for line in text.splitlines():
        match = LINE.fullmatch(line)
        if not match:
            raise SystemExit(f"sbom.py: cargo tree says {line!r}, which is not understood")
        depth, name, version, licence = int(match[1]), match[2], match[3], match[4]
        crate = (name, version)
        if not licence:
            raise SystemExit(f"sbom.py: {name} {version} does not say its licence")
        # As it was written before there was SPDX.
        licences[crate] = licence.replace("/", " OR ")
        needs.setdefault(crate, set())
        if depth > 0:
            needs[above[depth - 1]].add(crate)
        above[depth:] = [crate]
    return licences, needs


def checksums():
    with open(ROOT / "Cargo.lock", "rb") as file:
        packages = tomllib.load(file)["package"]
    return {(each["name"], each["version"]): each.get("checksum") for each in packages}


def reference(crate):
    return f"pkg:cargo/{crate[0]}@{crate[1]}"


def component(crate, licence, checksum):
    found = {
        "type": "library",
        "bom-ref": reference(crate),
        "name": crate[0],
        "version": crate[1],
        "licenses": [{"expression": licence}],
        "purl": reference(crate),
    }
    if checksum:  # of the crate's source, as the registry has it
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return found


def standard_library(compiler):
    version = compiler["release"]
    return {
        "type": "library",
        "bom-ref": f"pkg:generic/rust-std@{version}",
        "name": "rust-std",
        "version": version,
        "description": "the standard library of Rust, with the crates that are part of it",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
        "purl": f"pkg:generic/rust-std@{version}",
    }


def bill(target=None):
    compiler = rustc()
    target = target or compiler["host"]
    licences, needs = tree(target)
    sums = checksums()
    ours = next(crate for crate in licences if crate[0] == CRATE)
    others = sorted(set(licences) - {ours})
    std = standard_library(compiler)
    metadata = {
        "component": component(ours, licences[ours], None),
        "properties": [{"name": "channel-layer:target", "value": target}],
    }
    if "SOURCE_DATE_EPOCH" in os.environ:
        moment = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), timezone.utc)
        metadata["timestamp"] = moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    found = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata,
        "components": [component(crate, licences[crate], sums[crate]) for crate in others] + [std],
        "dependencies": [
            {
                "ref": reference(crate),
                "dependsOn": sorted(map(reference, needs[crate])) + [std["bom-ref"]],
            }
            for crate in [ours, *others]
        ]
        + [{"ref": std["bom-ref"], "dependsOn": []}],
    }
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    found["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, digest)}"
    return found


def main():
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        sys.exit(__doc__)
    try:
        print(json.dumps(bill(*sys.argv[1:]), indent=2))
    except subprocess.CalledProcessError as failure:
        sys.exit(f"sbom.py: {shlex.join(failure.cmd)} ended with status {failure.returncode}")


if __name__ == "__main__":
    main()
