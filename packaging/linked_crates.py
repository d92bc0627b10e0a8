#!/usr/bin/env python3
"""Says which crates are linked into the library, and under which licences.

linked_crates.py            one line for each licence: the licence, and the crates that are under it
linked_crates.py --texts    each crate with its version, and the licence texts that it comes with

They are those of the bill of materials that sbom.py makes.
"""

import json
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import sbom  # noqa: E402

# As crates name the files that are to travel with them.
TEXTS = ("LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE")


def linked_packages():
    """What cargo knows of each crate in the bill of materials, but for our own."""
    host = sbom.rustc()["host"]
    linked, _ = sbom.tree(host)
    metadata = json.loads(
        sbom.run(
            *("CARGO", "cargo", "metadata", "--locked", "--format-version", "1"),
            *("--filter-platform", host),
        )
    )
    found = [each for each in metadata["packages"] if (each["name"], each["version"]) in linked]
    if len(found) != len(linked):
        sys.exit(f"linked_crates.py: cargo tree has {len(linked)} crates, its metadata {len(found)}")
    others = [each for each in found if each["name"] != sbom.CRATE]
    return sorted(others, key=lambda each: (each["name"], each["version"]))


def licence(package):
    if not package["license"]:
        sys.exit(f"linked_crates.py: {package['name']} does not say its licence")
    # "MIT/Apache-2.0" is how it was written before SPDX; the order of a choice says nothing.
    words = package["license"].replace("/", " OR ")
    return " OR ".join(sorted(words.split(" OR "))) if " AND " not in words else words


def summary():
    crates = defaultdict(set)
    for package in linked_packages():
        crates[licence(package)].add(package["name"])
    return "\n".join(
        textwrap.fill(
            f"{name}: {', '.join(sorted(crates[name]))}",
            78,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name in sorted(crates)
    )


def texts():
    """Each crate, then each text once, with the crates that have it."""
    bearers = defaultdict(list)
    lines = [
        "The library is linked with these crates, whose source is on crates.io, and with the",
        "standard library of Rust (MIT OR Apache-2.0). The texts that they come with follow.",
        "",
    ]
    for package in linked_packages():
        title = f"{package['name']} {package['version']}"
        authors = ", ".join(package["authors"]) or "its authors"
        lines.append(f"{title}: {package['license']}; by {authors}")
        for path in sorted(Path(package["manifest_path"]).parent.iterdir()):
            if path.is_file() and path.name.upper().startswith(TEXTS):
                text = path.read_text(encoding="utf-8", errors="replace").strip()
                bearers[text].append(f"{title} ({path.name})")
    for text, names in sorted(bearers.items(), key=lambda item: item[1]):
        lines += [
            "",
            "=" * 80,
            *textwrap.wrap(", ".join(names), 80, break_on_hyphens=False),
            "-" * 80,
            text,
        ]
    return "\n".join(lines)


def main():
    forms = {(): summary, ("--texts",): texts}
    if tuple(sys.argv[1:]) not in forms:
        sys.exit(__doc__)
    print(forms[tuple(sys.argv[1:])]())


if __name__ == "__main__":
    main()
