"""What a broker, its client and the whole machine spent between two moments, read from /proc.

A broker's CPU time is that of its process with all threads, those that ended and io_uring's workers included. The whole machine's is told
beside it, so that no work can hide in the kernel's own threads (Kafka's writeback runs there) or in its interrupts. What other processes used spoils
a window. It is counted process by process: what no process has is interrupts and the way out of idleness, a disk's mostly (some 4 us for
each that a CPU was woken for, so a quarter of a core where Kafka flushes 40,000 times a second), and belongs to the work that is measured.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
SECTOR = 512
KTHREADD = 2
FOREIGN_SHARE_MAX = 0.05  # Of one core; more by other processes spoils a window.


def fields_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()


def cpu_of(pid):
    """User and system seconds of a process since it began, ended threads included."""
    fields = fields_of(pid)
    return (int(fields[11]) + int(fields[12])) / TICK


def scheduled(pid):
    """Nanosecond-exact seconds on a CPU of each living thread: for what uses too little to count in ticks."""
    seconds = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            seconds[task.name] = int((task / "schedstat").read_text().split()[0]) / 1e9
        except (FileNotFoundError, ProcessLookupError):
            continue  # The thread ended just now.
    return seconds


def resident(pid):
    """Bytes resident now, and at the most so far."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(lines["VmRSS"].split()[0]) * 1024, int(lines["VmHWM"].split()[0]) * 1024


def box():
    """Seconds that all CPUs together were idle since boot, and seconds that the host gave to others.

    What is not idle is busy. The kernel measures idleness, where it only samples what a busy CPU did: short bursts fall between its ticks.
    """
    _user, _nice, _system, idle, wait, _irq, _softirq, steal = map(int, Path("/proc/stat").read_text().split(None, 9)[1:9])
    return (idle + wait) / TICK, steal / TICK


@dataclass
class Processes:
    """CPU seconds of processes, by whose they are."""

    kernel: float = 0.0  # The kernel's own threads.
    others: dict = field(default_factory=dict)  # Of each process that is neither ours nor the kernel's.
    ended: float = 0.0  # Of their children that ended and were waited for.
    are_all: bool = False  # Whether we see every process of the machine, as in a container we do not.


def processes(ours):
    """All that /proc shows, without the processes of `ours`."""
    found = Processes()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in ours:
            continue
        try:
            fields = fields_of(entry.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
        spent = (int(fields[11]) + int(fields[12])) / TICK
        if int(fields[1]) == KTHREADD or int(entry.name) == KTHREADD:
            found.kernel += spent
            found.are_all = True
        else:
            found.others[entry.name] = spent
            found.ended += (int(fields[13]) + int(fields[14])) / TICK
    return found


def spent_by_others(before, after):
    """Seconds that other processes used between two looks; those that ended meanwhile count by what their parents took over from them."""
    living = sum(spent - before.others.get(pid, 0.0) for pid, spent in after.others.items())
    gone = sum(spent for pid, spent in before.others.items() if pid not in after.others)
    return living + max(0.0, after.ended - before.ended - gone)


def disk(folder):
    """Bytes read and written and flushes of the block device that holds a folder, since boot."""
    device = os.stat(folder).st_dev
    for line in Path("/proc/diskstats").read_text().splitlines():
        fields = line.split()
        if (int(fields[0]), int(fields[1])) == (os.major(device), os.minor(device)):
            flushes = int(fields[18]) if len(fields) > 18 else 0
            return {"read": int(fields[5]) * SECTOR, "written": int(fields[9]) * SECTOR, "writes": int(fields[7]), "flushes": flushes}
    return {"read": 0, "written": 0, "writes": 0, "flushes": 0}  # No block device of its own (overlay, network).


@dataclass
class Moment:
    """All counters at one time."""

    at: float
    broker: float
    threads: dict
    clients: dict
    own: float
    processes: Processes
    idle: float
    steal: float
    disk: dict
    load: float = field(default_factory=lambda: os.getloadavg()[0])


def look(broker_pid, client_pids, folder):
    """The counters now. Dear ones first, so that the clock and the CPU times are read close together."""
    found, threads = processes({broker_pid, os.getpid(), *client_pids}), scheduled(broker_pid)
    clients = {pid: cpu_of(pid) for pid in client_pids}
    idle, steal = box()
    times = os.times()
    return Moment(time.monotonic(), cpu_of(broker_pid), threads, clients, times.user + times.system, found, idle, steal, disk(folder))


def between(before, after, ended=0.0):
    """What was spent from one moment to the next, in seconds and bytes; a client of ours that ended meanwhile used `ended` seconds."""
    seconds = after.at - before.at
    broker = after.broker - before.broker
    exact = sum(spent - before.threads.get(thread, 0) for thread, spent in after.threads.items())
    by_client = {pid: spent - before.clients.get(pid, 0) for pid, spent in after.clients.items()}
    client = sum(by_client.values()) + ended
    kernel = after.processes.kernel - before.processes.kernel
    busy = seconds * os.cpu_count() - (after.idle - before.idle) - (after.steal - before.steal)
    own = after.own - before.own
    rest = max(0.0, busy - broker - client - kernel - own)
    # Where we do not see all processes, what is nobody's may be theirs.
    foreign = min(rest, spent_by_others(before.processes, after.processes)) if after.processes.are_all else rest
    return {
        "seconds": seconds,
        "broker_cpu": broker,
        "broker_cpu_exact": exact,
        "client_cpu": client,
        "by_client": by_client,
        "kernel_threads_cpu": kernel,
        "interrupts_cpu": rest - foreign,
        "box_cpu": busy - client - own - foreign,
        "foreign_cpu": foreign,
        "steal": after.steal - before.steal,
        "load": after.load,
        "disk": {key: after.disk[key] - before.disk[key] for key in after.disk},
        "is_spoiled": foreign > FOREIGN_SHARE_MAX * seconds,
    }
