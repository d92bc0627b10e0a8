#!/usr/bin/env python3
"""Prints what include/channel_layer.h declares, as JSON, for the tests of the bindings.

    api.py [HEADER]

    {
      "functions": {"layer_close": {"result": "layer_status_t",
                                    "parameters": [["const layer_t *", "layer"], ...]}, ...},
      "callbacks": {"layer_done_cb": {"result": "void", "parameters": [...]}, ...},
      "enums": {"layer_status_t": {"type": "int32_t", "values": {"LAYER_OK": 0, ...}}, ...},
      "handles": ["layer_t", ...],
      "constants": {"LAYER_NAME_SIZE": 100, "LAYER_VERSION": "0.1.0", ...}
    }

A type is written with one space between its words and before its first star, as above. The
header is generated and regular; what this does not understand of it is an error, so that nothing
is left out in silence.
"""

import json
import re
import sys
from pathlib import Path

HEADER = Path(__file__).resolve().parents[2] / "include" / "channel_layer.h"


class Unreadable(Exception):
    """The header holds something that this reader does not know."""


def without_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


def constants_of(text):
    found = {}
    for name, value in re.findall(r"^#define (LAYER_[A-Z_]+)[ \t]+(\S+)$", text, re.MULTILINE):
        if name == "LAYER_MUST_USE":
            continue
        found[name] = json.loads(value)
    return found


def enums_of(text):
    """The enums, with the integer type that their values travel in."""
    found = {}
    for name, body in re.findall(r"^enum (\w+)\b.*?\{(.*?)\};", text, re.MULTILINE | re.DOTALL):
        values = {}
        for line in filter(None, (part.strip() for part in body.split(","))):
            match = re.fullmatch(r"(\w+) = (-?\d+)", line)
            if not match:
                raise Unreadable(f"enum {name} holds {line!r}")
            values[match[1]] = int(match[2])
        carrier = re.search(rf"^typedef (u?int\d+_t) {name};", text, re.MULTILINE)
        if not carrier:
            raise Unreadable(f"enum {name} has no integer type")
        found[name] = {"type": carrier[1], "values": values}
    return found


def spelled(words):
    """A type with its spaces as this module writes them."""
    return re.sub(r"\s*\*", " *", " ".join(words.split())).replace(" * *", " **")


def parameters_of(text):
    if text.strip() == "void":
        return []
    found = []
    for parameter in text.split(","):
        match = re.fullmatch(r"(.*?[\s*])(\w+)", " ".join(parameter.split()))
        if not match:
            raise Unreadable(f"a parameter is {parameter!r}")
        found.append([spelled(match[1]), match[2]])
    return found


def read(header=HEADER):
    text = without_comments(Path(header).read_text(encoding="utf-8"))
    constants = constants_of(text)
    enums = enums_of(text)
    code = re.sub(r"^enum \w+.*?^\};", "", text, flags=re.MULTILINE | re.DOTALL)
    code = re.sub(r"^#(?:.*\\\n)*.*$", "", code, flags=re.MULTILINE)
    code = re.sub(r'extern "C"\s*\{|^\}', "", code, flags=re.MULTILINE)
    functions, callbacks, handles = {}, {}, []
    for statement in filter(None, (part.strip() for part in code.split(";"))):
        statement = " ".join(statement.replace("LAYER_MUST_USE", "").split())
        if match := re.fullmatch(r"typedef struct (\w+) (\w+)", statement):
            handles.append(match[2])
        elif match := re.fullmatch(r"typedef (.+?)\(\*(\w+)\)\((.*)\)", statement):
            callbacks[match[2]] = {
                "result": spelled(match[1]),
                "parameters": parameters_of(match[3]),
            }
        elif match := re.fullmatch(r"typedef (enum )?(\w+) (\w+)", statement):
            if match[3] not in enums:
                raise Unreadable(f"a declaration is {statement!r}")
        elif match := re.fullmatch(r"([^()]+?[\s*])(\w+)\(([^()]*)\)", statement):
            functions[match[2]] = {
                "result": spelled(match[1]),
                "parameters": parameters_of(match[3]),
            }
        else:
            raise Unreadable(f"a declaration is {statement!r}")
    return {
        "functions": functions,
        "callbacks": callbacks,
        "enums": enums,
        "handles": handles,
        "constants": constants,
    }


def main():
    header = sys.argv[1] if len(sys.argv) > 1 else HEADER
    try:
        print(json.dumps(read(header), indent=2))
    except Unreadable as problem:
        sys.exit(f"api.py: {header}: {problem}")


if __name__ == "__main__":
    main()
