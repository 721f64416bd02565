"""Charts of one run, as SVG and PNG: `charts.py results.json`. Reads only that file, so old runs can be drawn again.

Bars are medians, whiskers the range of the rounds. Runs with the virtual environment that setup.sh makes for it (matplotlib).
"""

import json
import statistics
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402 (after the choice of a back end that needs no display)

COLOURS = {
    "flowstone": "#0b6e99",
    "flowstone-memory": "#7fb7d0",
    "flowstone-2": "#0b6e99",
    "kafka": "#d9822b",
    "kafka-tuned": "#e8b27d",
    "kafka-flush": "#8a4b08",
}
NAMES = {
    "produce-16k": "produce\n16 KiB",
    "produce-64k": "produce\n64 KiB",
    "produce-1m": "produce\n1 MB",
    "fetch-warm": "fetch\nwarm",
    "fan-out": "16 consumers\non 20 MB/s",
    "one-record": "1 record\n16 connections",
    "connections-200": "1 record\n200 connections",
    "connections-2000": "1 record\n2,000 connections",
}


class Run:
    """Samples of a results.json by row and side."""

    def __init__(self, path):
        document = json.loads(path.read_text())
        self.machine = document["machine"]
        self.rows = {}
        for entry in document["rows"]:
            self.rows.setdefault(entry["row"], {})[entry["side"]] = entry
        self.folder = path.parent

    def values(self, row, side, key):
        entry = self.rows.get(row, {}).get(side)
        samples = entry["samples"] if entry else []
        return [sample[key] for sample in samples if sample["is_kept"] and sample.get(key) is not None]

    def save(self, figure, name):
        under = f"{self.machine['line']}. Median and range of rounds."
        figure.text(0.01, 0.01, under, fontsize=6, color="#666666")
        for kind in ("svg", "png"):
            figure.savefig(self.folder / f"{name}.{kind}", dpi=160)
        plt.close(figure)
        print(f"Chart: {self.folder}/{name}.svg and .png")


def bars(axes, run, rows, key, label):
    """Groups of bars, one group a row, one bar a side that has it."""
    rows = [row for row in rows if any(run.values(row, side, key) for side in COLOURS)]
    labelled = set()
    for at, row in enumerate(rows):
        sides = [side for side in COLOURS if run.values(row, side, key)]
        width = 0.8 / len(sides)
        for place, side in enumerate(sides):
            values = run.values(row, side, key)
            middle = statistics.median(values)
            x = at - 0.4 + width * (place + 0.5)
            entry = run.rows[row][side]
            name = f"{entry['title']}: {entry['durability']}"
            axes.bar(x, middle, width * 0.92, color=COLOURS[side], label=None if name in labelled else name)
            axes.errorbar(x, middle, yerr=[[middle - min(values)], [max(values) - middle]], color="#333333", linewidth=0.8, capsize=2)
            axes.text(x, max(values), f"{middle:.3g}", ha="center", va="bottom", fontsize=7)
            labelled.add(name)
    axes.set_xticks(range(len(rows)), [NAMES.get(row, row) for row in rows], fontsize=8)
    axes.set_ylabel(label, fontsize=9)
    axes.margins(y=0.12)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)
    return rows


def legend(figure, *all_axes):
    found = {}
    for axes in all_axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(found.values(), found.keys(), loc="upper center", ncols=2, fontsize=7, frameon=False)


def cost(run):
    figure, (by_gb, by_request) = plt.subplots(1, 2, figsize=(11, 4.6), width_ratios=(5, 4))
    some = bars(by_gb, run, ["produce-16k", "produce-64k", "produce-1m", "fetch-warm", "fan-out"], "cpu_per_gb", "broker CPU-seconds per GB")
    more = bars(by_request, run, ["one-record", "connections-200", "connections-2000"], "us_per_request", "broker CPU, µs per request")
    if some or more:
        legend(figure, by_gb, by_request)
        figure.tight_layout(rect=(0, 0.03, 1, 0.88))
        run.save(figure, "cost")


def latency(run):
    figure, axes = plt.subplots(figsize=(7, 4.2))
    points = ["p50", "p90", "p99", "p99.9", "max"]
    drawn = False
    for side, colour in COLOURS.items():
        values = [run.values("latency-1k", side, f"{point}_ms") for point in points]
        if all(values):
            entry = run.rows["latency-1k"][side]
            axes.plot(points, [statistics.median(each) for each in values], "o-", color=colour, label=f"{entry['title']}: {entry['durability']}")
            axes.fill_between(points, [min(each) for each in values], [max(each) for each in values], color=colour, alpha=0.15)
            drawn = True
    if drawn:
        axes.set_yscale("log")
        axes.set_ylabel("ms from the intended send time, 1,000 requests/s", fontsize=9)
        axes.grid(axis="y", color="#dddddd")
        axes.legend(fontsize=7, frameon=False)
        figure.tight_layout(rect=(0, 0.03, 1, 1))
        run.save(figure, "latency")


def starts(run):
    shown = [
        ("start", "start_seconds", "empty start\nto first answer, s"),
        ("kill-active", "first_ack_seconds", "SIGKILL, 4 GB active:\nfirst record, s"),
        ("partitions-10k", "created_seconds", "10,000 partitions:\ncreated, s"),
        ("partitions-10k", "restart_seconds", "10,000 partitions:\nafter SIGKILL, s"),
        ("partitions-10k", "resident_mib", "10,000 partitions:\nMiB resident"),
    ]
    shown = [one for one in shown if any(run.values(one[0], side, one[1]) for side in COLOURS)]
    if not shown:
        return
    figure, all_axes = plt.subplots(1, len(shown), figsize=(2.3 * len(shown), 3.8), squeeze=False)
    for axes, (row, key, label) in zip(all_axes[0], shown, strict=True):
        bars(axes, run, [row], key, "")
        axes.set_xticks([0], [label], fontsize=8)
    legend(figure, *all_axes[0])
    figure.tight_layout(rect=(0, 0.04, 1, 0.88))
    run.save(figure, "starts")


def main():
    run = Run(Path(sys.argv[1]))
    plt.rcParams["svg.hashsalt"] = "flowstone"
    cost(run)
    latency(run)
    starts(run)


if __name__ == "__main__":
    main()
