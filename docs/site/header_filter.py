"""Rewrites the comments of a header as Doxygen wants them; Doxygen runs it: header_filter.py FILE

The header's comments are plain `//`, and their words are regular: "`name`: who owns it.", "Never
blocks; any thread; ...", "Returns `LAYER_OK`; `LAYER_INVALID` (why)." From that come the tables of
parameters and results. Where a comment refers to the conventions or to a twin ("all else as
`layer_send`"), the tables have what stands there. The code between is passed on unchanged, and
Doxygen warns of what is missing then.
"""

import re
import sys
from pathlib import Path

NAMES = r"`\w+`(?:, `\w+`)*: "
# Where a description of parameters ends.
AFTER_PARAMETERS = rf"(?={NAMES}|Never blocks\b|Blocks\b|Returns |All else |The result |$)"

# What the conventions at the top of the header say of parameters that many functions have.
CONVENTIONS = {
    "layer": "Borrowed.",
    "userdata": "Handed to the callback and to `destroy`. Yours again where the call fails.",
    "destroy": "Called once, after the last call of the callback; may be NULL.",
    "error": "Receives why the call failed, to be freed by `layer_error_free`; may be NULL.",
}


def first_sentence(text):
    """The text up to its first full stop, and the rest."""
    match = re.match(r"(.+?\.)(?=\s+[A-Z`*]|$)\s*(.*)", text, re.DOTALL)
    return (match[1], match[2]) if match else (text, "")


def alternatives(text):
    """The parts between the semicolons that are in no parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == ";" and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def capital(text):
    return text[:1].upper() + text[1:]


class Entry:
    """What a comment says of one function, taken apart."""

    def __init__(self, comment, names):
        self.names = names
        paragraphs = [" ".join(part.split()) for part in comment.split("\n\n")]
        self.comment = " ".join(paragraphs)
        self.brief, rest = first_sentence(paragraphs[0])
        self.prose, self.parameters, self.blocking = [], {}, ""
        self.statuses, self.result = {}, ""
        for paragraph in [rest, *paragraphs[1:]]:
            self._read(paragraph)

    def _read(self, text):
        start = re.search(
            rf"(?:^|(?<=\. )){NAMES}|\b(?:Never blocks|Blocks)\b|\bReturns `LAYER_OK`", text)
        if not start:
            self.prose += [text] if text else []
            return
        self.prose += [text[:start.start()].strip()] if text[:start.start()].strip() else []
        text = text[start.start():]
        while match := re.match(rf"({NAMES})(.*?)\s*{AFTER_PARAMETERS}", text, re.DOTALL):
            first, *more = re.findall(r"`(\w+)`", match[1])
            self.parameters[first] = match[2]
            for name in more:
                self.parameters[name] = f"Of `{first}`, in bytes." if name == "length" else match[2]
            text = text[match.end():]
        text, returns, result = text.partition("Returns ")
        match = re.search(r"\b(?:Never blocks|Blocks)\b.*?\.(?=\s+[A-Z`]|\s*$)", text)
        if match:
            self.blocking = match[0]
            text = text[:match.start()] + text[match.end():]
        self.prose += [text.strip()] if text.strip() else []
        if returns:
            self._read_result(result.strip())

    def _read_result(self, text):
        parts = [re.fullmatch(r"`(LAYER_\w+)`(.*)", part, re.DOTALL)
                 for part in alternatives(text.rstrip("."))]
        if not all(parts):
            self.result = text
            return
        for part in parts:
            why = part[2].strip().lstrip(",").strip()
            self.statuses[part[1]] = (
                why[1:-1] if re.fullmatch(r"\((?:[^()]|\([^()]*\))*\)", why) else why)

    def twins(self):
        """The functions that this one refers to for the rest, that which holds most first."""
        return re.findall(r"(?:all else as|all that is said at) `(layer_\w+)`", self.comment,
                          re.IGNORECASE) + re.findall(
            r"as in `(layer_\w+)`|^`(?=layer_)(\w+)` with(?:out)? ", self.comment)

    def complete(self, entries, meanings):
        """Adds what twins, the conventions and the list of statuses say."""
        own = list(self.parameters)
        gone = re.findall(r"`(LAYER_\w+)` does not occur", self.comment)
        for name in self.twins():
            twin = entries["".join(name)]
            twin.complete(entries, meanings)
            self.parameters = {**twin.parameters, **self.parameters}
            self.blocking = self.blocking or twin.blocking
            self.statuses = self.statuses or {name: why for name, why in twin.statuses.items()
                                              if name not in gone}
        described = {**CONVENTIONS, **self.parameters}
        # Doxygen tells of those that there are not.
        names = [*self.names, *(name for name in own if name not in self.names)]
        for name, text in described.items():
            if text == "see the conventions.":
                described[name] = CONVENTIONS[name]
        self.parameters = {name: described[name] for name in names if name in described}
        self.statuses = {name: why or meanings[name] for name, why in self.statuses.items()}

    def lines(self):
        yield f"\\brief {self.brief}"
        for paragraph in self.prose:
            yield f"\n{paragraph}"
        yield ""
        for name, text in self.parameters.items():
            yield f"\\param {name} {capital(text)}"
        if self.blocking:
            yield f"\n\\par Blocking, threads, callbacks\n{self.blocking}\n"
        if self.result:
            yield f"\\return {self.result}"
        for name, why in self.statuses.items():
            yield f"\\retval {name} {capital(why)}"


def plain(comment):
    """A comment that is not of a function."""
    paragraphs = [" ".join(part.split()) for part in comment.split("\n\n")]
    brief, rest = first_sentence(paragraphs[0])
    return "\n\n".join([f"\\brief {brief}", *([rest] if rest else []), *paragraphs[1:]])


COMMENT = re.compile(r"^([ \t]*)//[^\n]*\n(?:\1//[^\n]*\n)*", re.MULTILINE)
FUNCTION = re.compile(r"(?:LAYER_MUST_USE\s+)?[\w \t\n*]*?\b(layer_\w+)\(([^;]*)\);")


def words(comment):
    """The text of a comment, in which nothing is a command to Doxygen."""
    text = "\n".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())
    return re.sub(r"(`[^`]*`)|([\\@])", lambda match: match[1] or "\\" + match[2], text)


def rewrite(text):
    # The conventions at the top are a page of their own.
    text = text.partition("*/")[2] if text.startswith("/*") else text
    meanings = {name: first_sentence(" ".join(words(comment).split()))[0] for comment, name in
                re.findall(r"((?:^[ \t]+//[^\n]*\n)+)[ \t]+(LAYER_\w+) =", text, re.MULTILINE)}
    entries = {}
    for match in COMMENT.finditer(text):
        function = FUNCTION.match(text, match.end())
        if function and not match[1]:
            entries[function[1]] = Entry(words(match[0]),
                                         re.findall(r"(\w+)(?:,|$)", function[2]))

    def comment(match):
        function = FUNCTION.match(text, match.end())
        if function and not match[1]:
            entry = entries[function[1]]
            entry.complete(entries, meanings)
            body = "\n".join(entry.lines())
        else:
            body = plain(words(match[0]))
        return f"{match[1]}/** " + body.replace("\n", f"\n{match[1]} ") + "\n*/\n"

    # Doxygen looks at macros only where their file has a description.
    return "/** \\file\n \\brief The C API.\n*/\n" + COMMENT.sub(comment, text)


if __name__ == "__main__":
    sys.stdout.write(rewrite(Path(sys.argv[1]).read_text(encoding="utf-8")))
