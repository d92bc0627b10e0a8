#!/usr/bin/env python3
"""Plants bugs in the library, one at a time, and counts those that the tests catch.

    run.py                  goes on with the sample, and writes RESULT.md
    run.py --again          runs the tests on the survivors again, after a test was written
    run.py --diff COMMIT    tests all mutants of what has changed since a commit; writes nothing
    run.py --table          tests nothing, and writes RESULT.md

The bugs are those of cargo-mutants, which is installed below the target folder. They are built in a
copy of the tree there. Each verdict is kept there too, so that a run can be interrupted at any time
and the next goes on. `reasons.toml` says why no test catches a survivor.

Exits with 0 if the shares caught are as wanted and each survivor has a reason, with 1 if not, with
2 if the mutants could not be tested.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import table
from judges import SURVIVED, UNVIABLE, Tree, Verdict
from sample import PARTS, Identity, MutantsError, apply, in_order, mutants_of, pure_places, sample

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULT = HERE / "RESULT.md"
REASONS = HERE / "reasons.toml"

# Another version knows other mutants.
VERSION = "27.1.0"
SEED = 1
SIZE = 200


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode != 0:
        raise MutantsError(f"{' '.join(map(str, command))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def work_folder():
    target = Path(os.environ.get("CARGO_TARGET_DIR", "target"))
    folder = (target if target.is_absolute() else ROOT / target) / "mutants"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tool(work):
    """cargo-mutants in the version that the sample is drawn from."""
    program = work / "tool" / "bin" / "cargo-mutants"
    if not program.exists() or VERSION not in run([program, "mutants", "--version"]):
        print(f"installing cargo-mutants {VERSION} below {work}", flush=True)
        cargo = os.environ.get("CARGO", "cargo")
        environment = {**os.environ, "CARGO_TARGET_DIR": str(work / "tool" / "build")}
        run(
            [
                cargo,
                "install",
                "cargo-mutants",
                "--locked",
                "--version",
                VERSION,
                "--force",
                "--root",
                work / "tool",
            ],
            env=environment,
        )
    return program


def mutants(work, commit=None):
    command = [tool(work), "mutants", "--list", "--json", "--diff", "--dir", ROOT]
    if commit is None:
        listed = run(command, cwd=ROOT)
    else:
        with tempfile.NamedTemporaryFile("w", suffix=".diff") as diff:
            diff.write(
                run(
                    [
                        "git",
                        "diff",
                        "--no-ext-diff",
                        "--src-prefix=a/",
                        "--dst-prefix=b/",
                        commit,
                        "--",
                        "src",
                    ],
                    cwd=ROOT,
                )
            )
            diff.flush()
            listed = run([*command, "--in-diff", diff.name], cwd=ROOT)
    pure = pure_places((ROOT / "ARCHITECTURE.md").read_text())
    # It lists nothing, not even a list, where a diff changes no code.
    return mutants_of(json.loads(listed or "[]"), lambda file: (ROOT / file).read_text(), pure)


def copy_tree(folder):
    """Makes `folder` what the tree is, committed or not; returns a hash of what can fail a test."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    names = sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())
    digest = hashlib.sha256()
    for name in names:
        source, copy = ROOT / name, folder / name
        content = source.read_bytes()
        # Not this folder, whose RESULT.md each run writes.
        if not source.is_relative_to(HERE):
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        # What is the same keeps its time, so that cargo builds only what is not.
        if not copy.exists() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        copy.chmod(source.stat().st_mode & 0o777)
    wanted = set(names)
    for path in folder.rglob("*"):
        if path.is_file() and str(path.relative_to(folder)) not in wanted:
            path.unlink()
    return digest.hexdigest()


class Record:
    """The verdicts, a line of JSON each; the last one of a mutant counts."""

    def __init__(self, path):
        self.path = path
        self.verdicts = {}
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                identity = Identity(**entry["mutant"])
                self.verdicts[identity] = Verdict(entry["outcome"], entry["by"])

    def add(self, mutant, verdict):
        self.verdicts[mutant.identity] = verdict
        entry = {"mutant": vars(mutant.identity), "outcome": verdict.outcome, "by": verdict.by}
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def check_unchanged(tree, fingerprint, work):
    """All tests must pass without a mutant, or a failure would prove nothing."""
    passed = work / "unchanged.passed"
    if passed.exists() and passed.read_text() == fingerprint:
        return
    passed.unlink(missing_ok=True)
    tree.prepare()
    for part in PARTS:
        verdict = tree.judge("src/lib.rs", part)
        if verdict.outcome != SURVIVED:
            raise MutantsError(
                f"the tests do not pass without a mutant: {verdict.outcome} {verdict.by}"
            )
    passed.write_text(fingerprint)


@contextlib.contextmanager
def alone(work):
    """The folder of the copy has one run at a time."""
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MutantsError(f"another run is under way in {work}") from None
        yield


def judge_all(chosen, record, work):
    """Tests each in turn, and records its verdict at once."""
    if not chosen:
        return
    with alone(work):
        tree = Tree(work / "tree", work / "build", SEED)
        print("the tests without a mutant", flush=True)
        check_unchanged(tree, copy_tree(tree.folder), work)
        for at, mutant in enumerate(chosen, 1):
            began = time.monotonic()
            verdict = judge(tree, mutant)
            record.add(mutant, verdict)
            print(
                f"{at} of {len(chosen)}: {verdict.outcome:<8} {time.monotonic() - began:4.0f} s  "
                f"{mutant.identity.file}: {mutant.identity.change}  {verdict.by}",
                flush=True,
            )


def judge(tree, mutant):
    """Builds the mutant and tests it; the tree is as before then."""
    file = tree.folder / mutant.identity.file
    before = file.read_text()
    file.write_text(apply(mutant.diff, before))
    try:
        return tree.judge(mutant.identity.file, mutant.part)
    finally:
        file.write_text(before)
        # Inputs that failed with one mutant are not tried on the next.
        shutil.rmtree(tree.folder / "proptest-regressions", ignore_errors=True)


def judge_change(commit, record, work):
    """Whether each mutant of a change is caught or has a reason."""
    found = in_order(mutants(work, commit), SEED)
    # Those with a verdict too, since the change may have altered their tests.
    judge_all(found, record, work)
    verdicts = [(mutant, record.verdicts[mutant.identity]) for mutant in found]
    survivors = [mutant for mutant, verdict in verdicts if verdict.outcome == SURVIVED]
    reasons = table.read_reasons(REASONS.read_text())
    print()
    unexplained = 0
    for mutant in survivors:
        reason = reasons.get(mutant.identity, "")
        unexplained += not reason
        print(
            f"survived: {mutant.identity.file}: {mutant.identity.change}\n"
            f"    {mutant.identity.line}\n    {reason or 'no reason in reasons.toml'}"
        )
    viable = sum(verdict.outcome != UNVIABLE for _, verdict in verdicts)
    print(f"{viable - len(survivors)} of {viable} viable mutants of the change were caught")
    return unexplained == 0


def main(arguments):
    parser = argparse.ArgumentParser(description="Plants bugs, and counts those that tests catch.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--again", action="store_true", help="test the survivors again")
    what.add_argument("--diff", metavar="COMMIT", help="test what has changed since it")
    what.add_argument("--table", action="store_true", help="test nothing, and write RESULT.md")
    options = parser.parse_args(arguments)
    work = work_folder()
    record = Record(work / "verdicts.jsonl")
    if options.diff is not None:
        return judge_change(options.diff, record, work)
    chosen = sample(mutants(work), SEED, SIZE)
    known = record.verdicts
    if options.again:
        judge_all(
            [
                mutant
                for mutant in chosen
                if mutant.identity in known and known[mutant.identity].outcome == SURVIVED
            ],
            record,
            work,
        )
    elif not options.table:
        judge_all([mutant for mutant in chosen if mutant.identity not in known], record, work)
    reasons = table.read_reasons(REASONS.read_text())
    result = table.made_of(chosen, record.verdicts, reasons, SEED)
    RESULT.write_text(result.text)
    print(result.text)
    for complaint in result.complaints:
        print(complaint)
    return not result.complaints


if __name__ == "__main__":
    try:
        sys.exit(0 if main(sys.argv[1:]) else 1)
    except MutantsError as error:
        print(f"mutants: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(
            "mutants: interrupted; the next run goes on, --table writes RESULT.md", file=sys.stderr
        )
        sys.exit(130)
