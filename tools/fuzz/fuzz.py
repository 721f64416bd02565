"""Runs fuzz targets under libFuzzer: `fuzz.py [--seconds N] [--jobs N] [TARGET...]`, all of them where none is named.

Builds the one binary that holds them, with the nightly compiler's coverage and address sanitizer, into the build folder; keeps what it learns there,
apart from the committed corpus, so that the next run goes on from it. What fails is minimised and named. Only the standard library is used.
"""

import argparse
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
BUILD = Path(os.environ.get("FLOWSTONE_BUILD") or REPO / "target").resolve()
FOLDER = BUILD / "fuzz"
HOST = "x86_64-unknown-linux-gnu" if os.uname().machine == "x86_64" else "aarch64-unknown-linux-gnu"
FLAGS = [
    "-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=4", "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table", "-Cllvm-args=-sanitizer-coverage-trace-compares", "-Zsanitizer=address",
    "-Cdebug-assertions", "-Coverflow-checks", "-Ccodegen-units=1",
]  # fmt: skip
# Megabytes: of one allocation, and in all. The targets' own bounds are narrower, but count only what Rust allocates.
MALLOC_LIMIT, RSS_LIMIT = 80, 1024
# Far above what any input takes (milliseconds), since the machine may be busy with something else.
TIMEOUT_SECONDS = 60


def build():
    """The binary. Apart from all other builds, since its flags reach every crate."""
    env = os.environ | {"CARGO_TARGET_DIR": str(FOLDER / "build"), "CARGO_PROFILE_RELEASE_LTO": "off", "RUSTFLAGS": " ".join(FLAGS)}
    command = ["cargo", "+nightly", "build", "--release", "--locked", "--target", HOST, "-p", "flowstone-fuzz", "--features", "libfuzzer"]
    subprocess.run([*command, "--bin", "flowstone-libfuzzer"], cwd=REPO, env=env, check=True)
    return FOLDER / "build" / HOST / "release" / "flowstone-libfuzzer"


def fuzz(binary, target, seconds):
    """Runs one target; its line of the report, and whether it failed."""
    learnt, failures, log = FOLDER / "learnt" / target, FOLDER / "failures" / target, FOLDER / f"{target}.log"
    learnt.mkdir(parents=True, exist_ok=True)
    failures.mkdir(parents=True, exist_ok=True)
    # What a simulated process leaves behind at its end is not freed, and is no leak of the daemon.
    env = os.environ | {"FLOWSTONE_TARGET": target, "ASAN_OPTIONS": "detect_leaks=0"}
    limits = [f"-malloc_limit_mb={MALLOC_LIMIT}", f"-rss_limit_mb={RSS_LIMIT}", f"-timeout={TIMEOUT_SECONDS}"]
    options = [*limits, f"-max_total_time={seconds}", f"-artifact_prefix={failures}/", "-print_final_stats=1", "-detect_leaks=0"]
    with log.open("wb") as out:
        run = subprocess.run([binary, *options, learnt, HERE / "corpus" / target], env=env, stdout=out, stderr=out, check=False)
    text = log.read_text(errors="replace")
    executions = re.search(r"number_of_executed_units:\s*(\d+)", text)
    executions = int(executions.group(1)) if executions else 0
    covered = re.findall(r"cov: (\d+)", text)
    line = f"{target:16} {executions:>12,} executions, {covered[-1] if covered else '?'} edges"
    if run.returncode == 0:
        return line, False
    found = re.search(r"Test unit written to (\S+)", text)
    if not found:
        return f"{line}: FAILED, see {log}", True
    small = Path(found.group(1)).with_suffix(".small")
    minimise = [binary, "-minimize_crash=1", "-max_total_time=30", *limits, f"-exact_artifact_path={small}", found.group(1)]
    subprocess.run(minimise, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return f"{line}: FAILED, see {log}; the input: {small if small.exists() else found.group(1)}", True


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="targets at once")
    chosen = parser.parse_args()
    known = sorted(folder.name for folder in (HERE / "corpus").iterdir())
    unknown = set(chosen.targets) - set(known)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if subprocess.run(["cargo", "+nightly", "--version"], capture_output=True, check=False).returncode:
        sys.exit("libFuzzer needs a nightly compiler: rustup toolchain install nightly --profile minimal")
    binary = build()
    failed = False
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for line, bad in pool.map(lambda target: fuzz(binary, target, chosen.seconds), chosen.targets or known):
            print(line, flush=True)
            failed |= bad
    sys.exit(failed)


if __name__ == "__main__":
    main()
