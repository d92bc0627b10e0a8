#!/usr/bin/env python3
"""Fills the pages with what they quote, and tells of their code blocks: quotes.py [--check]

A comment before each code block of docs/ says where it comes from:

    <!-- quote: examples/epoll.c [loop] -->   the lines between `[loop]` and `[end]` of that file
    <!-- run: ... -->                         the tests run it; the words are for readers
    <!-- output of NAME: ... -->              what NAME prints, held against what it does print;
                                              without `of`, what the block before it prints
    <!-- shown: why -->                       not run, and why
"""

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1]
FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARKER = re.compile(r"<!-- (?P<kind>quote|run|output|shown)(?: of (?P<of>[\w.]+))?"
                    r"(?:: (?P<words>[^\n]*?))? -->\n\Z")


class Wrong(Exception):
    """What a page says of its blocks cannot be."""


@dataclass
class Block:
    page: Path
    line: int
    kind: str
    of: str
    words: str
    language: str
    text: str
    span: tuple

    @property
    def place(self):
        return f"{self.page.relative_to(DOCS.parent)}:{self.line}"


def pages():
    return sorted(path for path in DOCS.rglob("*.md"))


def blocks(page):
    """The code blocks of a page, but for those that are directives of Sphinx."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in FENCE.finditer(text):
        if fence["language"].startswith("{"):
            continue
        line = text.count("\n", 0, fence.start()) + 1
        marker = MARKER.search(text[:fence.start()])
        if not marker:
            raise Wrong(f"{page}:{line}: no comment says where this code block comes from")
        found.append(Block(page, line, marker["kind"], marker["of"] or "", marker["words"] or "",
                           fence["language"], fence["text"], fence.span("text")))
    return found


def region(block):
    """What a block that quotes is to hold."""
    source = re.fullmatch(r"(\S+) \[(.+)\]", block.words)
    if not source:
        raise Wrong(f"{block.place}: this is no file and [region]: {block.words}")
    path = DOCS / source[1]
    text = path.read_text(encoding="utf-8")
    found = re.findall(rf"^[^\n]*\[{re.escape(source[2])}\][^\n]*\n(.*?)^[^\n\[]*\[end\]", text,
                       re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        raise Wrong(f"{block.place}: {path.name} has {len(found)} regions [{source[2]}]")
    return textwrap.dedent(found[0]).strip("\n") + "\n"


def filled(page):
    """The text of a page with its quotes as they are to be."""
    text = page.read_text(encoding="utf-8")
    for block in reversed(blocks(page)):
        if block.kind == "quote":
            text = text[:block.span[0]] + region(block) + text[block.span[1]:]
    return text


def main():
    drifted = []
    for page in pages():
        wanted = filled(page)
        if page.read_text(encoding="utf-8") != wanted:
            drifted.append(str(page.relative_to(DOCS.parent)))
            if "--check" not in sys.argv:
                page.write_text(wanted, encoding="utf-8")
    if "--check" in sys.argv and drifted:
        sys.exit(f"quotes.py: not as in the examples, 'make docs' mends them: {' '.join(drifted)}")


if __name__ == "__main__":
    try:
        main()
    except (Wrong, OSError) as error:
        sys.exit(f"quotes.py: {error}")
