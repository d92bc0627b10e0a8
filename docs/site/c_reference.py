"""What the pages need beside Sphinx's own: lists of functions, the conventions, links from names.

`c-api` lists names of the header, each with its first sentence, and then describes each in full.
`c-conventions` shows the text at the top of the header.
A name of the header, or of an option, that stands alone in backticks becomes a link to where it is
described. A name that looks like one of the header and is none fails the build. Cells of tables
know the heading of their column, for narrow windows.
"""

import os
import re
from pathlib import Path
from xml.etree import ElementTree

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

LOGGER = logging.getLogger(__name__)
HEADER = Path(__file__).resolve().parents[2] / "include" / "channel_layer.h"
OPTIONS_PAGE = "options"
LIKE_A_NAME = re.compile(r"LAYER_[A-Z_]*[A-Z]|layer_\w*[a-z](\(\))?")
DIRECTIVES = {"function": "doxygenfunction", "enum": "doxygenenum", "typedef": "doxygentypedef",
              "define": "doxygendefine"}


def members():
    """Of each name that the header declares, its kind and its first sentence."""
    tree = ElementTree.parse(Path(os.environ["CHANNEL_LAYER_DOCS_XML"]) / "channel__layer_8h.xml")
    return {
        member.find("name").text: (
            member.get("kind"),
            markdown(member.find("briefdescription")),
        )
        for member in tree.iter("memberdef")
    }


def markdown(element):
    text = element.text or ""
    for child in element:
        inner = markdown(child)
        text += f"`{inner}`" if child.tag == "computeroutput" else inner
        text += child.tail or ""
    return " ".join(text.split())


class Api(SphinxDirective):
    has_content = True

    def run(self):
        known = members()
        self.env.note_dependency(HEADER)
        names = [line.strip() for line in self.content if line.strip()]
        for name in names:
            if name not in known:
                raise self.error(f"the header declares no '{name}'")
        lines = [f"- `{name}`: {known[name][1]}" for name in names]
        for name in names:
            lines += ["", f"```{{{DIRECTIVES[known[name][0]]}}} {name}", "```"]
        return self.parse_text_to_nodes("\n".join(lines))


class Conventions(SphinxDirective):
    def run(self):
        self.env.note_dependency(HEADER)
        comment = re.search(r"CONVENTIONS[^\n]*\n(.*?)\*/", HEADER.read_text(encoding="utf-8"),
                            re.DOTALL)[1]
        text = re.sub(r"^ \* ?", "", comment, flags=re.MULTILINE).strip()
        # Names are plain there, as in any comment of C.
        text = re.sub(r"(?<![\w`*])((?:LAYER|layer)_\w+\b)(?!`)(?! \*)", r"`\1`", text)
        text = re.sub(r"(?<![\w`])(_\w+(?:\(NULL\))?)", r"`\1`", text)
        paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
        # One that begins with a word of its own is about that.
        marked = [re.sub(r"^([A-Z]\w+\.) ", r"**\1** ", text) for text in paragraphs]
        return self.parse_text_to_nodes("\n\n".join(marked))


class LinkNames(SphinxPostTransform):
    default_priority = 5

    def run(self, **kwargs):
        targets = self.env.c_reference_targets = getattr(
            self.env, "c_reference_targets", None) or self.targets()
        for literal in list(self.document.findall(is_name)):
            name = literal.astext()
            ancestor = literal.parent
            while ancestor and not isinstance(ancestor, (nodes.reference, nodes.title)):
                ancestor = ancestor.parent
            if ancestor:
                continue
            target = targets.get(name.removesuffix("()"))
            if target and (name.isidentifier() or name.endswith("()")):
                # Names of options are words that mean other things too.
                if target[0] == OPTIONS_PAGE and "_" not in name and not follows_option(literal):
                    continue
                reference = make_refnode(self.app.builder, self.env.docname, *target, [])
                literal.replace_self(reference)
                reference += literal
            elif isinstance(literal, nodes.literal) and LIKE_A_NAME.fullmatch(name):
                LOGGER.warning("the header declares no '%s'", name, location=literal)

    def targets(self):
        found = {}
        for name, _, kind, document, anchor, _ in self.env.domains.c_domain.get_objects():
            if kind != "functionParam":
                found[name.rpartition(".")[2]] = (document, anchor)
        for section in self.env.get_doctree(OPTIONS_PAGE).findall(nodes.section):
            title = section.next_node(nodes.title)
            if len(title) == 1 and isinstance(title[0], nodes.literal):
                found[title.astext()] = (OPTIONS_PAGE, section["ids"][0])
        return found


class LabelCells(SphinxPostTransform):
    """Puts the heading of its column into each cell, to be shown where rows do not fit."""

    default_priority = 900
    formats = ("html",)

    def run(self, **kwargs):
        for table in self.document.findall(nodes.table):
            headings = [entry.astext() for head in table.findall(nodes.thead)
                        for entry in head.findall(nodes.entry)]
            for body in table.findall(nodes.tbody):
                for row in body.findall(nodes.row):
                    # That of the first column is the heading of its row.
                    for heading, entry in list(zip(headings, row))[1:]:
                        if entry.astext().strip():
                            entry[0].insert(0, nodes.inline(text=heading, classes=["column"]))


def is_name(node):
    """Whether it is in backticks, or heads a line in a table of statuses."""
    return isinstance(node, nodes.literal) or (
        isinstance(node, nodes.strong) and node.astext().startswith("LAYER_"))


def follows_option(literal):
    before = literal.parent[literal.parent.index(literal) - 1:literal.parent.index(literal)]
    return bool(before) and re.search(r"\boptions? $", before[0].astext()) is not None


def setup(app):
    app.add_directive("c-api", Api)
    app.add_directive("c-conventions", Conventions)
    app.add_post_transform(LinkNames)
    app.add_post_transform(LabelCells)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
