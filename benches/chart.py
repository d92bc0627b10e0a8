"""The chart: an SVG of horizontal bars, made of one run. Pure, and the same for the same run."""

from xml.sax.saxutils import escape

WIDTH = 860
LEFT = 290  # where bars begin
LONGEST = 430
BAR, GAP = 18, 8
FONT = "font-family=\"Segoe UI, Helvetica, Arial, sans-serif\""
# A background of its own, so that it reads in light and in dark surroundings alike.
PAPER, INK, FAINT, LINE = "#ffffff", "#1f2328", "#59636e", "#d1d9e0"
OURS, OTHERS, OURS_SOFT, OTHERS_SOFT = "#0969da", "#8c959f", "#80b8f2", "#c9d1d9"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


class Drawing:
    def __init__(self):
        self.y = 28
        self._parts = []

    def text(self, x, y, words, size=13, colour=INK, anchor="start", weight="normal"):
        self._parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}" text-anchor="{anchor}" '
            f'font-weight="{weight}">{escape(words)}</text>')

    def bar(self, y, height, length, colour):
        self._parts.append(f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{height}" '
                           f'rx="2" fill="{colour}"/>')

    def panel(self, title, hint, rows):
        """`rows` are (label, whether ours, values); the first value is drawn strong, a second one
        thinner below it."""
        self.text(20, self.y, title, size=16, weight="600")
        self.y += 19
        self.text(20, self.y, hint, size=12, colour=FAINT)
        self.y += 12
        most = max(max(values) for _, _, values in rows)
        for label, ours, values in rows:
            thin = BAR // 2 - 1
            height = BAR if len(values) == 1 else thin
            self.text(LEFT - 10, self.y + 14, label, anchor="end",
                      weight="600" if ours else "normal")
            y = self.y
            for index, value in enumerate(values):
                colour = ((OURS, OURS_SOFT) if ours else (OTHERS, OTHERS_SOFT))[index]
                self.bar(y, height, max(1.0, LONGEST * value / most), colour)
                y += height + 2
            self.text(LEFT + LONGEST * max(values) / most + 8, self.y + 14,
                      " / ".join(number(value) for value in values), size=12, colour=FAINT)
            self.y += BAR + GAP
        self.y += 26

    def finish(self, footer):
        self._parts.append(f'<line x1="20" y1="{self.y - 16}" x2="{WIDTH - 20}" '
                           f'y2="{self.y - 16}" stroke="{LINE}"/>')
        for line in footer:
            self.text(20, self.y, line, size=11, colour=FAINT)
            self.y += 15
        height = self.y + 4
        return "\n".join([
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" {FONT}>',
            f'<rect width="{WIDTH}" height="{height}" rx="8" fill="{PAPER}" stroke="{LINE}"/>',
            *self._parts, "</svg>", ""])


def rows_of(run, case, figures, titles):
    rows = []
    for series in run.series_of(case):
        values = [run.median(case, series, figure) for figure in figures]
        if None not in values:
            rows.append((titles.get(series, series), series.startswith("layer"), values))
    return rows


def draw(run, titles, footer):
    """The chart of a run, `titles` naming its series; without a run, one that says so."""
    drawing = Drawing()
    panels = []
    if run is not None:
        panels = [
            ("Throughput", "messages confirmed and received per second, 200 bytes, one producer; "
                           "more is better",
             rows_of(run, "async-200", ["per_second"], titles)),
            ("Latency at rest", "µs from send to callback, median / 99th percentile; less is "
                                "better",
             rows_of(run, "latency-at-rest", ["p50_us", "p99_us"], titles)),
            ("Broadcast to 1,000 local members", "deliveries per second through the broker; more "
                                                 "is better",
             rows_of(run, "broadcast-1000", ["per_second"], titles)),
        ]
    for title, hint, rows in panels:
        if rows:
            drawing.panel(title, hint, rows)
    return drawing.finish(footer)
