"""`make mutants`: shows that the core simulator can see.

Each entry of mutants.toml breaks one rule of the cores on purpose, in a scratch copy of the repo. The simulator is built with it and has
to find it within the stated number of seeds; unbroken, it has to find nothing in as many. A text that is not there any more, or there more
than once, is an error: the list follows the code. Layers or parts of names, given as
arguments, choose some of the list. Only the standard library.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent.parent
BUILD = Path(os.environ.get("FLOWSTONE_BUILD") or os.environ.get("CARGO_TARGET_DIR") or REPO / "target").resolve() / "mutants"
SCRATCH = BUILD / "repo"
TARGET = BUILD / "target"
RUN_SECONDS_MAX = 300  # A broken core may also run in circles: that is seen, too.

# Builds are many and runs are short: what makes a build quick matters more than the last half of speed.
QUICK_BUILD = {
    "CARGO_TARGET_DIR": str(TARGET),
    "CARGO_PROFILE_RELEASE_LTO": "off",
    "CARGO_PROFILE_RELEASE_CODEGEN_UNITS": "64",
    "CARGO_PROFILE_RELEASE_INCREMENTAL": "true",
    "CARGO_PROFILE_RELEASE_DEBUG": "none",
    "CARGO_PROFILE_RELEASE_OPT_LEVEL": "1",
}


def copy_repo():
    """Copies what git knows of, and leaves untouched what is the same: cargo goes by times."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPO, capture_output=True, check=True).stdout
    names = {name for name in listed.decode().split("\0") if name and (REPO / name).is_file()}
    for name in names:
        source, copy = REPO / name, SCRATCH / name
        if not copy.is_file() or copy.read_bytes() != source.read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    for copy in SCRATCH.rglob("*.rs"):
        if str(copy.relative_to(SCRATCH)) not in names:
            copy.unlink()


def build():
    """Builds the simulator in the scratch copy; returns what cargo said where that failed."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "-p", "flowstone-core-simulator"]
    done = subprocess.run(command, cwd=SCRATCH, env=os.environ | QUICK_BUILD, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr


def find(layer, seeds):
    """Runs the seeds; returns (the first seed that broke a rule, the rule), or None."""
    command = [str(TARGET / "release" / "core-sim"), "--layer", layer, "--seeds", str(seeds), "--brief"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        return "?", "it runs in circles"
    if done.returncode == 0:
        return None
    failed = re.search(r"^[\w-]+: seed (\d+) failed: (.*)$", done.stdout, re.M)
    return (int(failed[1]), failed[2]) if failed else ("?", f"it ended with {done.returncode}")


def try_one(mutant):
    """Breaks one rule and looks whether it is found; returns (found, what to print)."""
    path = SCRATCH / mutant["file"]
    text = path.read_text() if path.is_file() else ""
    broken = text
    for edit in mutant.get("edits") or [mutant]:
        count = broken.count(edit["find"])
        if count != 1:
            return False, f"ERROR: its text is in {mutant['file']} {count} times, not once: {edit['find']!r}"
        broken = broken.replace(edit["find"], edit["replace"])
    path.write_text(broken)
    try:
        problem = build()
        if problem:
            return False, "ERROR: it does not compile:\n" + problem
        found = find(mutant["layer"], mutant["seeds"])
    finally:
        path.write_text(text)
    if found is None:
        return False, f"NOT FOUND in {mutant['seeds']} seeds"
    return True, f"seed {found[0]:>4} of {mutant['seeds']:<5} {found[1][:110]}"


def main():
    mutants = tomllib.loads((HERE / "mutants.toml").read_text())["mutant"]
    if chosen := sys.argv[1:]:
        mutants = [mutant for mutant in mutants if any(name in mutant["name"] or name == mutant["layer"] for name in chosen)]
    began = time.monotonic()
    copy_repo()
    if problem := build():
        sys.exit("the simulator does not build:\n" + problem)
    for layer in sorted({mutant["layer"] for mutant in mutants}):
        seeds = max(mutant["seeds"] for mutant in mutants if mutant["layer"] == layer)
        if failed := find(layer, seeds):
            sys.exit(f"{layer}: seed {failed[0]} fails with nothing broken on purpose: {failed[1]}")
        print(f"{layer}: nothing found in {seeds} seeds with nothing broken", flush=True)
    failures = 0
    for mutant in mutants:
        started = time.monotonic()
        found, words = try_one(mutant)
        failures += not found
        print(f"{time.monotonic() - started:3.0f} s  {mutant['name']:<64} {mutant['layer']:<9} {words}", flush=True)
    print(f"\n{len(mutants) - failures} of {len(mutants)} found ({time.monotonic() - began:.0f} s)")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
