"""`make bench`: Flowstone beside Apache Kafka on this machine, row by row. `--help` says the rest."""

import argparse
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import places  # First: it makes tools/clients/harness importable.
import flame
import report
from brokers import SIDES, new, remove
from clients import Feeder
from machine import described
from rows import ROWS

# The tour of five minutes.
QUICK_ROWS = ["produce-16k", "one-record", "fetch-warm", "latency-1k", "start", "kill-active"]
QUICK_SIDES = ["flowstone", "kafka"]
DISK_BYTES_MIN = 40e9  # A warm-up's most, and a window at 2 GB/s.
SPOILED_MAX = 2  # Rounds of a row and side that are repeated because somebody else used the machine.


class Bench:
    """What all rows share: how long, how often, the feeder, and the terminal."""

    def __init__(self, options):
        self.is_quick = options.quick
        self.rounds = options.rounds
        self.seconds = 4 if options.quick else 6
        self.spoiled_max = 0 if options.keep_spoiled else SPOILED_MAX
        self.warm_windows_max = 14  # A JVM that has not settled after 20 s goes on as it is, and its row says so.
        self.feeder = Feeder(options.feed_mib << 20)
        self.began = time.monotonic()
        self.title = ""

    def sleep(self, seconds):
        time.sleep(seconds)

    def progress(self, text):
        """What is done now, on one line that the next overwrites; nothing where nobody looks."""
        if sys.stderr.isatty():
            print(f"\r\x1b[K{self.clock()} {self.title}: {text}", end="", file=sys.stderr, flush=True)

    def say(self, text):
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        print(f"{self.clock()} {text}", flush=True)

    def clock(self):
        seconds = int(time.monotonic() - self.began)
        return f"[{seconds // 60:02}:{seconds % 60:02}]"


def one(bench, row, side, results, sample):
    """One round of a row on one side, by `sample()`; repeated where it was spoiled."""
    for attempt in range(bench.spoiled_max + 1):
        bench.title = f"{row.name}, {side.title}, round {results.rounds_of(row, side) + 1} of {min(bench.rounds, row.rounds_max)}"
        bench.progress("begins")
        try:
            found = sample()
        except Exception as failure:  # Whatever it was: the other rows are still to come, and the table says what failed.
            results.failed(row, side, failure)
            bench.say(f"{bench.title}: FAILED: {results.failures[-1]['failure']}")
            return
        found["is_kept"] = not found["is_spoiled"] or attempt == bench.spoiled_max
        found["resident_mib"] = found["resident"] / 2**20 if "resident" in found else None
        results.add(row, side, found)
        bench.say(f"{bench.title}: {report.short(row, found)}")
        if found["is_kept"]:
            return


def in_turn(number, things):
    """Every other round the other way, so that a drift of the machine favours nobody."""
    return things if number % 2 == 0 else list(reversed(things))


def steady_rows(bench, rows, sides, results):
    """Rounds of all rows that share a broker's start: every kind of broker in turn, one at a time."""
    kinds = []
    for kind in (SIDES[name].kind for row in rows for name in row.sides if name in sides):
        if kind not in kinds:
            kinds.append(kind)
    for number in range(bench.rounds):
        for kind in in_turn(number, kinds):
            started = Started(kind)
            try:
                for row in rows:
                    for side in (SIDES[name] for name in row.sides if name in sides and SIDES[name].kind == kind):
                        one(bench, row, side, results, lambda row=row, side=side: started.run(bench, row, side, f"{row.name}-{results.next_topic()}"))
            finally:
                started.remove()


class Started:
    """A broker that several rows share; one under which a row failed is replaced for the next."""

    def __init__(self, kind):
        self.kind, self.broker = kind, None

    def run(self, bench, row, side, topic):
        try:
            if not self.broker:
                self.broker = new(self.kind)
                self.broker.start()
            return row.run(bench, row, side, self.broker, topic)
        except Exception:
            self.remove()
            raise

    def remove(self):
        if self.broker:
            remove(self.broker)
            self.broker = None


def starting_rows(bench, rows, sides, results):
    """Rounds of the rows that start brokers of their own."""
    for row in rows:
        for number in range(min(bench.rounds, row.rounds_max)):
            for side in in_turn(number, [SIDES[name] for name in row.sides if name in sides]):
                one(bench, row, side, results, lambda row=row, side=side: row.run(bench, row, side))


def options_of(arguments):
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="make bench", description="Flowstone beside Apache Kafka. Rows: " + ", ".join(names))
    parser.add_argument("--rows", default=os.environ.get("ROWS"), help="some of them, by comma (ROWS=)")
    parser.add_argument("--brokers", default=os.environ.get("BROKERS"), help="sides, by comma (BROKERS=): " + ", ".join(SIDES))
    parser.add_argument("--rounds", type=int, default=int(os.environ.get("ROUNDS") or 0), help="rounds of every row (ROUNDS=)")
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--feed-mib", type=int, default=int(os.environ.get("FEED_MIB") or 1 << 20), help="most memory that is kept touched; 0: none (FEED_MIB=)")
    keep = bool(os.environ.get("KEEP_SPOILED"))
    parser.add_argument("--keep-spoiled", action="store_true", default=keep, help="repeat no round because others used the machine; they are marked (KEEP_SPOILED=1)")
    parser.add_argument("--flame", metavar="ROW", choices=names, help="no figures: a flame graph of Flowstone under this row's load")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.rows = options.rows.split(",") if options.rows else QUICK_ROWS if options.quick else names
    options.brokers = options.brokers.split(",") if options.brokers else QUICK_SIDES if options.quick else list(SIDES)
    for given, known in ((options.rows, names), (options.brokers, SIDES)):
        for name in given:
            if name not in known:
                parser.error(f"{name!r} is none of {', '.join(known)}")
    return options


def draw(folder):
    """Charts beside the results, by the Python that has matplotlib."""
    python = places.CLIENTS / "charts" / "bin" / "python"
    if python.exists():
        subprocess.run([python, Path(__file__).with_name("charts.py"), folder / "results.json"], check=False)
    else:
        print("No charts: tools/clients/setup.sh charts brings matplotlib")


def main():
    options = options_of(sys.argv[1:])
    for needed in (places.BLAST, places.FLOWSTONED):
        if not needed.exists():
            sys.exit(f"{needed} is missing: run `make bench`, which builds it")
    # One at a time: both would use the same CPUs and the same data folder.
    places.BENCH.mkdir(parents=True, exist_ok=True)
    lock = (places.BENCH / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another comparison runs in {places.BENCH}: wait for it")
    if shutil.disk_usage(places.BENCH).free < DISK_BYTES_MIN:
        sys.exit(f"{places.BENCH} needs {DISK_BYTES_MIN / 1e9:.0f} GB free: a row may write that much; FLOWSTONE_BUILD= chooses another place")
    # Kafka opens three files a partition, so ten thousand of them need more than the usual limit.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    folder = places.BENCH / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    # Told to end, we end what we started, as after ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bench = Bench(options)
    results = report.Results(described(), options)
    if options.flame:
        bench.say(flame.draw(bench, next(row for row in ROWS if row.name == options.flame)))
        bench.feeder.close()
        return
    rows = [row for row in ROWS if row.name in options.rows]
    bench.say(results.machine["line"])
    try:
        steady_rows(bench, [row for row in rows if row.load], options.brokers, results)
        starting_rows(bench, [row for row in rows if not row.load], options.brokers, results)
    except KeyboardInterrupt:
        bench.say("interrupted: what there is so far follows")
    finally:
        bench.feeder.close()
        (folder / "results.json").write_text(json.dumps(results.document(), indent=1))
    table = report.table(results, rows)
    (folder / "table.txt").write_text(results.machine["line"] + "\n" + table)
    (folder / "table.md").write_text(report.markdown(results, rows))
    print(table, end="")
    print(f"\nEvery sample: {folder}/results.json; the table: table.txt, and table.md for a README")
    draw(folder)
    sys.exit(1 if results.failures else 0)


if __name__ == "__main__":
    main()
