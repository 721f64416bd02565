"""The steps of `make test`, `make clients` and `make audit`, one after another, with one line of totals at the end.

Each step is a command; its output goes to a file in the build folder, and to the screen only where it failed. What a step skipped is shown with
its reason. Only the standard library: this runs before anything is installed.
"""

import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
CLIENTS = REPO / "tools" / "clients"
BUILD = Path(os.environ.get("FLOWSTONE_BUILD") or REPO / "target").resolve()
LOGS = BUILD / "test-logs"
LINES_SHOWN = 120  # Of a failed step's output; the whole is in its file.
SEEDS = os.environ.get("SEEDS", "500")


@dataclass
class Totals:
    """What tests came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def of_one(text):
    """A step that is one check: its exit status is all there is to count."""
    del text
    return Totals(passed=1)


def of_cargo(text):
    totals = Totals()
    for passed, failed, ignored in re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored", text, re.M):
        totals.add(Totals(int(passed), int(failed), int(ignored)))
    totals.reasons = re.findall(r"^test (.* \.\.\. ignored.*)$", text, re.M)
    # A test that skips itself (no root, no loop device) says so in a line of this form, and counts as passed to cargo.
    for reason in re.findall(r"^SKIPPED: (.*)$", text, re.M):
        totals.passed -= 1
        totals.skipped += 1
        totals.reasons.append(reason)
    return totals


def of_pytest(text):
    totals = Totals()
    summaries = re.findall(r"^(?:=+ )?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s", text, re.M)
    for count, kind in re.findall(r"(\d+) ([a-z]+)", summaries[-1] if summaries else ""):
        if kind in ("passed", "xpassed"):
            totals.passed += int(count)
        elif kind in ("failed", "error", "errors"):
            totals.failed += int(count)
        elif kind in ("skipped", "xfailed"):
            totals.skipped += int(count)
    totals.reasons = [f"{where}: {why}" for where, why in re.findall(r"^SKIPPED \[\d+\] (.*?): (.*)$", text, re.M)]
    return totals


def of_simulator(text):
    """A seed is a test: what one seed played through counts as one."""
    return Totals(sum(map(int, re.findall(r"^[\w-]+: (\d+) seeds in ", text, re.M))), len(re.findall(r"^[\w-]+: seed \d+ failed", text, re.M)))


def of_faults(text):
    totals = Totals(len(re.findall(r"^   passed in ", text, re.M)), len(re.findall(r"^   FAILED after ", text, re.M)))
    totals.reasons = re.findall(r"^SKIPPED: (.*)$", text, re.M)
    totals.skipped = len(totals.reasons)
    return totals


class Run:
    """Steps one after another, and what they came to."""

    def __init__(self):
        self.totals = Totals()
        LOGS.mkdir(parents=True, exist_ok=True)

    def step(self, title, command, count, env=None, background=None):
        """Runs one command from the top of the clone. `background` is waited for first; a step whose background failed has failed."""
        print(f"== {title}", flush=True)
        began = time.monotonic()
        log = LOGS / (re.sub(r"\W+", "-", title).strip("-").lower() + ".log")
        exit_status = background.wait() if background else 0
        if exit_status == 0:
            with log.open("wb") as out:
                exit_status = subprocess.run(command, cwd=REPO, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | (env or {}), check=False).returncode
        else:
            log = background.log
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(errors="replace"))
        # A check that failed has not passed; a suite that failed still says how many of its tests did.
        totals = Totals() if exit_status != 0 and count is of_one else count(text)
        if exit_status != 0 and totals.failed == 0:
            totals.failed = 1
        if totals.failed:
            print("\n".join(text.splitlines()[-LINES_SHOWN:]))
            print(f"   FAILED, the whole output: {log}")
        for reason in totals.reasons:
            print(f"   skipped: {reason}")
        print(f"   {totals} ({time.monotonic() - began:.0f} s)", flush=True)
        self.totals.add(totals)
        return totals.failed == 0

    def skip(self, title, reason):
        print(f"== {title}\n   skipped: {reason}", flush=True)
        self.totals.add(Totals(skipped=1))

    def end(self):
        """The totals, alone on the last line."""
        print(f"\n{self.totals}", flush=True)
        sys.exit(1 if self.totals.failed else 0)


class Background:
    """A command that runs beside the steps until one needs its result."""

    def __init__(self, name, command):
        self.log = LOGS / f"{name}.log"
        LOGS.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as out:
            self.process = subprocess.Popen(command, cwd=REPO, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.said = False

    def wait(self):
        status = self.process.wait()
        if not self.said:
            print(*(f"   {line}" for line in self.log.read_text(errors="replace").splitlines() if line.startswith("setup:")), sep="\n", flush=True)
            self.said = True
        return status


def pytest(*words):
    return [str(BUILD / "clients" / "venv" / "bin" / "pytest"), "-c", str(CLIENTS / "pytest.ini"), "--rootdir", str(CLIENTS), *words]


def test(run):
    # Fetched while cargo compiles: Debian's packages, Kafka's jars, the Python clients, librdkafka's tests.
    fetched = Background("setup", [str(CLIENTS / "setup.sh"), "kcat", "jars", "python", "librdkafka", "valgrind"])
    run.step("Format", ["cargo", "fmt", "--all", "--check"], of_one)
    run.step("Lints", ["cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"], of_one)
    run.step("Documentation", ["cargo", "doc", "--workspace", "--no-deps", "--locked"], of_one, env={"RUSTDOCFLAGS": "-D warnings"})
    run.step("Unit and integration tests", ["cargo", "test", "--workspace", "--locked", "--no-fail-fast"], of_cargo)
    # The cores alone, without any runtime: quick to build, and thousands of seeds a second.
    if run.step("Core simulator: build", ["cargo", "build", "--release", "--locked", "-p", "flowstone-core-simulator"], of_one):
        run.step(f"Core simulator: {SEEDS} seeds", [str(BUILD / "release" / "core-sim"), "--seeds", SEEDS], of_simulator)
    # The simulator apart from the daemon: built in one go, cargo would join their features, and the daemon would hold the simulated world.
    if run.step("Simulator: build", ["cargo", "build", "--release", "--locked", "-p", "flowstone-simulator"], of_one):
        run.step(f"Simulator: {SEEDS} seeds", [str(BUILD / "release" / "flowstone-simulator"), "--seeds", SEEDS], of_simulator)
    if run.step("Daemon and tool: build", ["cargo", "build", "--release", "--locked", "-p", "flowstone-broker", "-p", "flowstone-cli"], of_one):
        if run.step("Fault scenarios: build", ["cargo", "build", "--release", "--locked", "-p", "flowstone-faults"], of_one):
            run.step("Fault scenarios, the quick ones", [str(BUILD / "release" / "flowstone-faults"), "run", "--quick"], of_faults)
        run.step("Real clients, the quick part", pytest("-m", "not whole", str(CLIENTS)), of_pytest, background=fetched)
    compare = REPO / "benches" / "compare"
    run.step("The comparison's arithmetic", pytest(str(compare)), of_pytest, env={"PYTHONPATH": str(compare)}, background=fetched)
    # A count is repeatable where a time is not: this holds on a loaded machine too.
    if run.step("Instructions of the produce path: build", ["cargo", "build", "--release", "--locked", "-p", "flowstone-micro"], of_one):
        run.step("Instructions of the produce path", [str(BUILD / "release" / "flowstone-instructions")], of_one, background=fetched)


def clients(run):
    """Everything the client suites have."""
    for title, folder in [
        ("Kafka's own tools", "kafka-tools"),
        ("The codec against Kafka's own classes", "codec"),
        ("The metadata quorum against Kafka's own code", "metadata"),
        ("Python clients and raw bytes", "python"),
        ("kcat", "kcat"),
        ("Node clients", "node"),
        ("Go clients", "go"),
        ("Kills under load", "crash"),
        ("librdkafka's own tests", "librdkafka"),
    ]:
        run.step(title, pytest(str(CLIENTS / folder)), of_pytest)


def audit(run):
    deny = BUILD / "tools" / "bin" / "cargo-deny"
    deny = [str(deny)] if deny.exists() else ["cargo-deny"]
    run.step("Licences, bans, sources", [*deny, "--all-features", "check", "licenses", "bans", "sources"], of_one)
    reached = subprocess.run([*deny, "fetch", "db"], cwd=REPO, capture_output=True, check=False).returncode == 0
    if reached:
        run.step("Advisories", [*deny, "--all-features", "check", "advisories"], of_one)
    else:
        run.skip("Advisories", "the advisory database cannot be reached from here")


def main():
    steps = {"test": test, "clients": clients, "audit": audit}
    if len(sys.argv) != 2 or sys.argv[1] not in steps:
        sys.exit(f"usage: steps.py {'|'.join(steps)}")
    run = Run()
    steps[sys.argv[1]](run)
    run.end()


if __name__ == "__main__":
    main()
