"""The machine, the versions and the moment of a run, for whoever reads its figures later."""

import os
import platform
import subprocess
import time

from places import BENCH, REPO


def first_line(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPO)
    lines = (done.stdout + done.stderr).splitlines()
    return lines[0] if done.returncode == 0 and lines else "unknown"


def field(path, name):
    with open(path) as lines:
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "unknown")


def file_system(folder):
    """The mount that holds a folder: device, type, options."""
    best = ("", "unknown", "unknown", "")
    with open("/proc/mounts") as lines:
        for line in lines:
            device, mount, kind, options = line.split()[:4]
            if os.path.commonpath([mount, folder]) == mount and len(mount) >= len(best[0]):
                best = (mount, device, kind, options)
    return {"device": best[1], "type": best[2], "options": best[3]}


def described():
    dirty = "-dirty" if first_line(["git", "status", "--porcelain", "-uno"]) != "unknown" else ""
    found = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "commit": first_line(["git", "rev-parse", "--short=12", "HEAD"]) + dirty,
        "cpu": field("/proc/cpuinfo", "model name"),
        "cpus": os.cpu_count(),
        "is_virtual": "hypervisor" in field("/proc/cpuinfo", "flags").split(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "file_system": file_system(str(BENCH)),
        "java": first_line(["java", "-version"]),
        "load": os.getloadavg()[0],
    }
    virtual = ", a virtual machine" if found["is_virtual"] else ""
    found["line"] = (
        f"{found['cpus']} x {found['cpu']}{virtual}, {found['memory_gib']} GiB, Linux {found['kernel']}, {found['file_system']['type']}, "
        f"commit {found['commit']}, {found['date']}, load average {found['load']:.2f}"
    )
    return found
