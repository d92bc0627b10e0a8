"""The outcomes of mutants as a document in Markdown."""

from dataclasses import astuple, dataclass

import tomllib
from judges import CAUGHT, SURVIVED, TIMEOUT, UNVIABLE
from sample import PARTS, PURE, WANTED, Identity, MutantsError

OPEN = "**open**"

INTRODUCTION = """\
# Mutation tests

Made by `make mutants`; [CONTRIBUTING.md](../../CONTRIBUTING.md#mutants) describes it. A mutant is
the library with one planted bug: an operator is changed, or the body of a function replaced. The
unit tests run on each, then the conformance list in C on `memory://`, until a test fails. A mutant
that hangs counts as caught; one that does not compile is unviable and does not count.
"""

SURVIVORS = """\
## Survivors

The reasons are from `tests/mutants/reasons.toml`.
"""


@dataclass(frozen=True)
class Result:
    """The document, and each thing in it that is not as wanted."""

    text: str
    complaints: list


@dataclass
class Row:
    """Counts mutants by their outcomes."""

    sampled: int = 0
    caught: int = 0
    timeout: int = 0
    survived: int = 0
    unviable: int = 0

    def add(self, verdict):
        self.sampled += 1
        if verdict is not None:
            setattr(self, verdict.outcome, getattr(self, verdict.outcome) + 1)

    @property
    def ran(self):
        return self.caught_in_all + self.survived + self.unviable

    @property
    def caught_in_all(self):
        return self.caught + self.timeout

    @property
    def per_cent(self):
        """The share caught of the viable ones; None if there are none."""
        viable = self.caught_in_all + self.survived
        return None if viable == 0 else 100 * self.caught_in_all / viable

    def cells(self):
        share = "-" if self.per_cent is None else f"{self.per_cent:.1f} %"
        return [
            self.sampled,
            self.ran,
            self.unviable,
            self.caught,
            self.timeout,
            self.survived,
            share,
        ]


# The fields of Row are the outcomes that a verdict has.
assert {CAUGHT, TIMEOUT, SURVIVED, UNVIABLE} <= set(Row.__dataclass_fields__)

HEADINGS = ["in the sample", "run", "unviable", "caught", "timeout", "survived", "share caught"]


def read_reasons(text):
    """Why no test notices a mutant, by its identity."""
    reasons = {}
    for entry in tomllib.loads(text).get("survivor", []):
        reason = entry.pop("reason", "").strip()
        if not reason:
            raise MutantsError(f"a survivor of reasons.toml has no reason: {entry}")
        try:
            identity = Identity(**entry)
        except TypeError as error:
            raise MutantsError(f"a survivor of reasons.toml is not one: {error}") from None
        if identity in reasons:
            raise MutantsError(f"a survivor stands twice in reasons.toml: {entry}")
        reasons[identity] = reason
    return reasons


def module_of(mutant):
    """A pure module counts with its folder; in the other part each file counts by itself."""
    below = mutant.identity.file.removeprefix("src/")
    return below.split("/")[0].removesuffix(".rs") if mutant.part == PURE else below


def line(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def rule(texts, numbers):
    return "|" + "---|" * texts + "--:|" * numbers


def escaped(text):
    """Without an end of the cell of a table."""
    return text.replace("|", "\\|")


def code(text):
    """As code in a cell of a table."""
    fence = "``" if "`" in text else "`"
    return f"{fence}{escaped(text)}{fence}"


def made_of(chosen, verdicts, reasons, seed):
    """The document of the mutants of a sample and their verdicts."""
    parts = {part: Row() for part in PARTS}
    modules = {}
    survivors = []
    for mutant in chosen:
        verdict = verdicts.get(mutant.identity)
        parts[mutant.part].add(verdict)
        modules.setdefault((mutant.part, module_of(mutant)), Row()).add(verdict)
        if verdict is not None and verdict.outcome == SURVIVED:
            survivors.append(mutant.identity)

    lines = [INTRODUCTION]
    lines += [
        f"Sample: seed {seed}, in its order; {sum(row.ran for row in parts.values())} of "
        f"{len(chosen)} have run.",
        "",
    ]
    lines += [line("part", *HEADINGS, "wanted"), rule(1, len(HEADINGS) + 1)]
    lines += [line(PARTS[part], *row.cells(), f"{WANTED[part]} %") for part, row in parts.items()]
    lines += ["", line("module", *HEADINGS), rule(1, len(HEADINGS))]
    order = sorted(modules, key=lambda key: (list(PARTS).index(key[0]), key[1]))
    lines += [line(f"`{name}`", *modules[part, name].cells()) for part, name in order]
    lines += ["", SURVIVORS, line("file", "mutant", "line", "reason"), rule(4, 0)]
    for identity in sorted(survivors, key=astuple):
        number = "" if identity.number == 1 else f" (number {identity.number})"
        lines.append(
            line(
                f"`{identity.file}`",
                escaped(identity.change) + number,
                code(identity.line),
                reasons.get(identity, OPEN).replace("\n", " "),
            )
        )

    complaints = [
        f"{PARTS[part]}: {row.per_cent:.1f} % were caught, {WANTED[part]} % are wanted"
        for part, row in parts.items()
        if row.per_cent is not None and row.per_cent < WANTED[part]
    ]
    for identity in survivors:
        if identity not in reasons:
            complaints.append(f"needs a test, or a reason in reasons.toml: {identity}")
    for identity in reasons:
        if identity in verdicts and verdicts[identity].outcome != SURVIVED:
            complaints.append(f"reasons.toml has a mutant that was caught: {identity}")
    return Result("\n".join(lines) + "\n", complaints)
