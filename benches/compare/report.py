"""What came of a run: every sample as JSON, medians with their ranges as a table, and how each goal fared."""

import statistics

from brokers import SIDES


FAILURE_CHARACTERS_MAX = 400


class Results:
    """All samples of a run, those of spoiled rounds included but marked."""

    def __init__(self, machine, options):
        self.machine, self.options = machine, vars(options)
        self.samples, self.failures, self.topics = {}, [], 0

    def next_topic(self):
        self.topics += 1
        return self.topics

    def add(self, row, side, sample):
        self.samples.setdefault((row.name, side.name), []).append(sample)

    def failed(self, row, side, failure):
        why = " ".join(f"{type(failure).__name__}: {failure}".split())[-FAILURE_CHARACTERS_MAX:]
        self.failures.append({"row": row.name, "side": side.name, "failure": why})

    def failures_of(self, row):
        return [failure for failure in self.failures if failure["row"] == row.name]

    def kept(self, row, side_name):
        return kept(self.samples.get((row.name, side_name), []))

    def rounds_of(self, row, side):
        return len(self.kept(row, side.name))

    def values(self, row, side_name, key):
        return [sample[key] for sample in self.kept(row, side_name) if sample.get(key) is not None]

    def median(self, row, side_name, key):
        values = self.values(row, side_name, key)
        return statistics.median(values) if values else None

    def document(self):
        rows = [
            {"row": row, "side": side, "title": SIDES[side].title, "durability": SIDES[side].durability, "samples": samples}
            for (row, side), samples in self.samples.items()
        ]
        return {"machine": self.machine, "options": self.options, "rows": rows, "failures": self.failures}


def kept(samples):
    return [sample for sample in samples if sample["is_kept"]]


def number(value, digits):
    return "-" if value is None else f"{value:,.{digits}f}"


def ranged(results, row, side, metric):
    """Median, and the range where there are several."""
    values = results.values(row, side, metric.key)
    if not values:
        return "-"
    text = number(statistics.median(values), metric.digits)
    return text if len(values) == 1 else f"{text} ({number(min(values), metric.digits)}-{number(max(values), metric.digits)})"


def short(row, sample):
    """One sample on one line, while the run goes on."""
    parts = [f"{number(sample.get(metric.key), metric.digits)} {metric.title}" for metric in (row.metric, *row.extra)]
    told = {metric.key for metric in (row.metric, *row.extra)}
    if sample.get("mb_s") and "mb_s" not in told:
        parts.append(f"{sample['mb_s']:,.0f} MB/s")
    if sample.get("requests_s") and "requests_s" not in told:
        parts.append(f"{sample['requests_s']:,.0f} requests/s")
    if sample.get("client_per_gb") and not row.is_latency:
        parts.append(f"client {sample['client_per_gb']:.2f} CPU-s/GB")
    parts.append(f"load {sample['load']:.1f}")
    if not sample.get("is_warm", True):
        parts.append("windows did not agree")
    if not sample.get("is_cold", True):
        parts.append("not root, so caches stayed warm")
    if sample["is_spoiled"]:
        why = f"other processes used {sample['foreign_cpu']:.1f} CPU-s"
        parts.append(f"{why}: thrown away" if not sample["is_kept"] else f"{why}: kept, with this remark")
    return ", ".join(parts)


COLUMNS = [
    ("MB/s", "mb_s", 0),
    ("req/s", "requests_s", 0),
    ("CPU-s/GB", "cpu_per_gb", 2),
    ("us/req", "us_per_request", 1),
    ("box/GB", "box_per_gb", 2),
    ("p50 ms", "p50_ms", 2),
    ("p99 ms", "p99_ms", 2),
    ("p99.9", "p99.9_ms", 1),
    ("MiB", "resident_mib", 0),
    ("write/B", "disk_written_per_byte", 2),
    ("read MB/s", "disk_read_mb_s", 0),
    ("flush/s", "flushes_s", 0),
]


def verdict(is_aim, is_reached):
    return "aim reached" if is_aim else "reached" if is_reached else "MISSED"


def goals(results, row):
    """How each goal of a row fared, as far as it was measured."""
    for goal in row.goals:
        ours, theirs = (results.median(row, side, row.metric.key) for side in (goal.side, goal.against))
        if ours and theirs:
            factor = ours / theirs if row.metric.more_is_better else theirs / ours
            yield {
                "what": f"{row.metric.title} against {SIDES[goal.against].title}",
                "text": f"x {factor:.2f} (at least {goal.at_least:.2g}, aim {goal.aim:.2g})",
                "factor": factor,
                "verdict": verdict(factor >= goal.aim, factor >= goal.at_least),
            }
    for limit in row.limits:
        metric, value = row.metric_of(limit.metric), results.median(row, "flowstone", limit.metric)
        if value is not None:
            word = "at least" if metric.more_is_better else "at most"
            fits = (lambda bound: value >= bound) if metric.more_is_better else (lambda bound: value <= bound)
            yield {
                "what": metric.title,
                "text": f"{number(value, metric.digits)} ({word} {limit.at_least:g}, aim {limit.aim:g})",
                "verdict": verdict(fits(limit.aim), fits(limit.at_least)),
            }


def table(results, rows):
    """All of it for a terminal."""
    lines = []
    for row in rows:
        sides = [side for side in row.sides if results.kept(row, side)]
        failures = results.failures_of(row)
        if not sides and not failures:
            continue
        lines += ["", f"{row.name}: {row.title}"]
        width = max((len(SIDES[side].title) for side in sides), default=0)
        columns = [column for column in COLUMNS if any(results.values(row, side, column[1]) for side in sides)]
        if columns:
            lines.append(" " * (width + 2) + " ".join(f"{title:>9}" for title, _key, _digits in columns))
        for side in sides:
            cells = []
            for _title, key, digits in columns:
                cells.append(f"{number(results.median(row, side, key), digits):>9}")
            lines.append(f"  {SIDES[side].title:<{width}}" + " ".join(cells) + f"   {SIDES[side].durability}")
        for side in sides:
            told = [f"{metric.title} {ranged(results, row, side, metric)}" for metric in (row.metric, *row.extra)]
            lines.append(f"  {SIDES[side].title}: {'; '.join(told)}")
        lines += [f"  {goal['verdict']}: {goal['what']} {goal['text']}" for goal in goals(results, row)]
        lines += [f"  FAILED in a round: {SIDES[failure['side']].title}: {failure['failure']}" for failure in failures]
    return "\n".join(lines) + "\n"


def markdown(results, rows):
    """One line a row for a README: Flowstone, Kafka, and how the goals fared."""
    # A run that was interrupted has fewer rounds than it was to have.
    rounds = {len(samples) for samples in map(kept, results.samples.values())} - {0}
    told = " or ".join(map(str, sorted(rounds)))
    lines = [
        f"Measured on {results.machine['line']}. Median of {told} rounds, in brackets the range.",
        "",
        "| row | figure | Flowstone, flushed | Kafka 4.3.1, not flushed | Kafka, `flush.messages=1` | |",
        "|---|---|---:|---:|---:|---|",
    ]
    for row in rows:
        failures = [f"{SIDES[failure['side']].title} failed in a round" for failure in results.failures_of(row)]
        if not any(results.kept(row, side) for side in row.sides) and not failures:
            continue
        told = "; ".join([f"{goal['text']}: {goal['verdict']}" for goal in goals(results, row)] + failures)
        for metric in (row.metric, *row.extra):
            cells = [ranged(results, row, side, metric) for side in ("flowstone", "kafka", "kafka-flush")]
            if "flowstone-2" in row.sides:
                cells[1] = f"two shards: {ranged(results, row, 'flowstone-2', metric)}"
            first = metric is row.metric
            lines.append(f"| {row.title if first else ''} | {metric.title} | {' | '.join(cells)} | {told if first else ''} |")
    return "\n".join(lines) + "\n"
