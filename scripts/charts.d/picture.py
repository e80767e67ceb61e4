"""Draws a dashboard from its file and the answers of a running Prometheus to its queries. For docs/overview.png:

    prometheus --config.file=... &   godwit ... &   godwit-cli load pair ...
    python scripts/charts.d/picture.py deploy/grafana/dashboards/overview.json http://127.0.0.1:9090 docs/overview.png

The picture has the titles, places, units, queries and legends of the panels, but not Grafana's design. Needs matplotlib.
"""

import argparse
import json
import re
import time
import urllib.parse
import urllib.request
from datetime import datetime, timezone
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates
import matplotlib.pyplot as plt

PAPER, PANEL, INK, FAINT = "#111217", "#181b1f", "#d5d6da", "#2c3035"
COLOURS = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#ffb357"]
SHADES = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c"}


def human(value, unit):
    """Formats a value for people."""
    if unit == "s":
        for factor, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
            if abs(value) >= factor or name == "µs":
                return f"{value / factor:.3g} {name}" if value else "0 s"
    suffix = {"ops": "/s", "mps": "/s"}.get(unit, "")
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g} k{suffix}"
    return f"{value:.4g}{suffix}"


class Prometheus:
    def __init__(self, url, minutes, step, ago):
        self.url, self.step = url, step
        self.end = time.time() - ago
        self.start = self.end - 60 * minutes

    def series(self, expression):
        """The series that a query returns over the shown time, each as labels and (time, value) points."""
        expression = expression.replace("$__rate_interval", f"{4 * self.step}s").replace("$instance", ".*")
        query = {"query": expression, "start": self.start, "end": self.end, "step": self.step}
        with urllib.request.urlopen(f"{self.url}/api/v1/query_range?{urllib.parse.urlencode(query)}") as answer:
            found = json.load(answer)["data"]["result"]
        for one in found:
            points = [(float(when), float(value)) for when, value in one["values"] if value != "NaN"]
            if points:
                yield one["metric"], points


def name(legend, labels):
    return re.sub(r"{{ *(\w+) *}}", lambda found: labels.get(found[1], ""), legend)


def draw(panel, place, figure, prometheus):
    unit = panel["fieldConfig"]["defaults"].get("unit", "")
    x, y, width, height = place
    figure.text(x + 0.004, y + height - 0.004, panel["title"], color=INK, fontsize=8.5, va="top", weight="bold")
    lines = [
        (name(target["legendFormat"], labels), points)
        for target in panel["targets"]
        for labels, points in prometheus.series(target["expr"])
    ]
    if panel["type"] == "stat":
        value = lines[0][1][-1][1] if lines else None
        shade = "green"
        for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
            if value is not None and (step["value"] is None or value >= step["value"]):
                shade = step["color"]
        text = "no data" if value is None else human(value, unit)
        colour = FAINT if value is None else SHADES[shade]
        figure.text(x + width / 2, y + height * 0.42, text, color=colour, fontsize=17, ha="center", va="center")
        return
    axes = figure.add_axes((x + 0.034, y + 0.036, width - 0.042, height - 0.064), facecolor=PANEL)
    stacked = "stacking" in panel["fieldConfig"]["defaults"].get("custom", {})
    times = lambda points: [datetime.fromtimestamp(when, timezone.utc) for when, _ in points]
    if stacked and len({len(points) for _, points in lines}) == 1:
        values = [[value for _, value in points] for _, points in lines]
        axes.stackplot(times(lines[0][1]), *values, labels=[text for text, _ in lines], colors=COLOURS, alpha=0.6)
    else:
        for number, (text, points) in enumerate(lines):
            values = [value for _, value in points]
            axes.plot(times(points), values, label=text, color=COLOURS[number % len(COLOURS)], linewidth=1)
    if not lines:
        axes.text(0.5, 0.5, "no data: nothing of that kind has happened", color="#8e9197", fontsize=7, ha="center", transform=axes.transAxes)
    axes.set_xlim(datetime.fromtimestamp(prometheus.start, timezone.utc), datetime.fromtimestamp(prometheus.end, timezone.utc))
    axes.set_ylim(bottom=0, top=None if lines and axes.get_ylim()[1] > 0 else 1)
    axes.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M"))
    axes.yaxis.set_major_formatter(lambda value, _: human(value, unit))
    axes.tick_params(colors="#8e9197", labelsize=6.5, length=0)
    axes.grid(color=FAINT, linewidth=0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if lines:
        columns = max(1, int(width * 270 / (6 + max(len(text) for text, _ in lines))))
        axes.legend(loc="upper left", bbox_to_anchor=(-0.03, -0.10), ncols=columns, fontsize=6, frameon=False, labelcolor=INK)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("dashboard", type=Path)
    arguments.add_argument("prometheus")
    arguments.add_argument("picture", type=Path)
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--step", type=int, default=5, help="seconds, Prometheus' scrape interval")
    arguments.add_argument("--ago", type=float, default=0, help="seconds: draw it as it was then")
    arguments = arguments.parse_args()
    dashboard = json.loads(arguments.dashboard.read_text())
    prometheus = Prometheus(arguments.prometheus, arguments.minutes, arguments.step, arguments.ago)
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = plt.figure(figsize=(15, rows * 0.37 + 0.6), facecolor=PAPER)
    top = 1 - 0.6 / (rows * 0.37 + 0.6)
    figure.text(0.006, (1 + top) / 2, dashboard["title"], color=INK, fontsize=13, va="center")
    for panel in dashboard["panels"]:
        grid, gap = panel["gridPos"], 0.003
        height = grid["h"] / rows * top
        place = (grid["x"] / 24 + gap, top - grid["y"] / rows * top - height + gap, grid["w"] / 24 - 2 * gap, height - 2 * gap)
        if panel["type"] == "row":
            figure.text(place[0], place[1] + place[3] / 2, panel["title"], color=INK, fontsize=10, va="center")
            continue
        figure.add_artist(plt.Rectangle(place[:2], *place[2:], color=PANEL, zorder=-1, transform=figure.transFigure))
        draw(panel, place, figure, prometheus)
    figure.savefig(arguments.picture, dpi=100, facecolor=PAPER)


main()
