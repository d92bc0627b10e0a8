"""What is computed of the samples of a run: medians, ranges, ratios. Pure."""

from statistics import median


class Run:
    """One run, as its JSON has it."""

    def __init__(self, data):
        self.data = data
        self._samples = {}  # (case, series) -> samples by round
        for sample in data["samples"]:
            rounds = self._samples.setdefault((sample["case"], sample["series"]), {})
            rounds[sample["round"]] = sample

    def series_of(self, case):
        """The series that ran a case, in the order of the roster and the table."""
        return [series for name, series in self._samples if name == case]

    def values(self, case, series, figure):
        """A figure by round."""
        rounds = self._samples.get((case, series), {})
        return {number: sample["figures"][figure] for number, sample in sorted(rounds.items())
                if figure in sample["figures"]}

    def median(self, case, series, figure):
        """None where nothing was measured."""
        values = self.values(case, series, figure)
        return median(values.values()) if values else None

    def range(self, case, series, figure):
        values = self.values(case, series, figure).values()
        return (min(values), max(values)) if values else None

    def pairs(self, case, series, figure, other):
        """Of each round that has both: what one contender did, and what the other did within the
        same minute."""
        ours = self.values(case, series, figure)
        theirs = self.values(case, other, figure)
        return [(ours[number], theirs[number]) for number in ours if theirs.get(number)]

    def ratios(self, case, series, figure, other):
        """One over the other, of each of those rounds."""
        return [ours / theirs for ours, theirs in self.pairs(case, series, figure, other)]

    def ratio(self, case, series, figure, other):
        """The median of those ratios, and how many pairs there were."""
        ratios = self.ratios(case, series, figure, other)
        return (median(ratios) if ratios else None), len(ratios)

    def difference(self, case, series, figure, other):
        """The median of what one has more than the other, and how many pairs there were."""
        found = [ours - theirs for ours, theirs in self.pairs(case, series, figure, other)]
        return (median(found) if found else None), len(found)


VOID_CASE, VOID_FIGURE, VOID_LEAST = "async-200", "per_second", 2.0


def void_reason(run):
    """Why the figures of a run say nothing, or None.

    librabbitmq at its best does many times what plain lapin does on an idle machine. Where it does
    not do twice as much, something else held it back: the machine or its other work."""
    best = run.median(VOID_CASE, "librabbitmq", VOID_FIGURE)
    plain = run.median(VOID_CASE, "lapin", VOID_FIGURE)
    if best is None or plain is None:
        return None
    if best >= VOID_LEAST * plain:
        return None
    return (f"librabbitmq's median of {best:,.0f} messages/s is not twice plain lapin's "
            f"{plain:,.0f}: this machine was too busy or too slow for a figure")
