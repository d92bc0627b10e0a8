"""What a row of the fault table claims, saw, and whether it held."""

import sys
import time
import traceback


class Report:
    """The checks of one row. A row without a check has shown nothing, and fails."""

    def __init__(self, name, scenario, patience=1):
        self.name = name
        self.scenario = scenario
        self.patience = patience  # by which limits of time are multiplied
        self.checks = 0
        self.failures = []
        self.figures = []
        self._began = time.monotonic()  # and again when it runs
        self.seconds = 0.0

    def check(self, claim, holds, figure=""):
        """Records that `claim` was looked at: `figure` is what was seen."""
        self.checks += 1
        if not holds:
            self.failures.append(f"{claim}: {figure}" if figure else claim)
        self._say("ok" if holds else "NOT OK", claim, figure)
        return holds

    def check_time(self, claim, seconds, limit, slack=0.0):
        """Checks that something took at most `limit` seconds; None is never.

        Where rows run side by side, or beside other work, the limit is longer: there it is to find
        what hangs, and the full form is to measure.
        """
        allowed = (limit + slack) * self.patience
        within = "" if self.patience == 1 else f", here {limit * self.patience:g} s"
        return self.check(f"{claim} within {limit:g} s{within}",
                          seconds is not None and seconds <= allowed,
                          "never" if seconds is None else f"{max(seconds, 0):.2f} s")

    def figure(self, claim, figure):
        """Records a number that is to be seen in the table."""
        self.figures.append(f"{claim} {figure}")
        self._say("figure", claim, figure)

    def note(self, text):
        self._say("note", text, "")

    def _say(self, kind, claim, figure):
        seconds = time.monotonic() - self._began
        line = f"  [{self.name} {seconds:6.1f} s] {kind}: {claim}"
        print(f"{line}: {figure}" if figure != "" else line, flush=True)

    def run(self, row, short):
        """Runs the row's module; what it raises is a failure of the row, not of the run."""
        self._began = time.monotonic()
        try:
            row.run(self, short)
        except Exception as error:  # whatever it is: the next row is to run
            traceback.print_exc(file=sys.stdout)
            first_line = str(error).partition("\n")[0]
            self.check("the row comes to its end", False, f"{type(error).__name__}: {first_line}")
        if not self.checks:
            self.check("the row checks something", False, "it checked nothing")
        self.seconds = time.monotonic() - self._began
        return not self.failures

    def table_row(self):
        result = "holds" if not self.failures else "FAILS: " + "; ".join(self.failures)
        figures = ", ".join(self.figures) or "-"
        return f"| {self.name} | {self.scenario} | {figures} | {result} | {self.seconds:.0f} s |"
