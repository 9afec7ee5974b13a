"""Which process is meant: a pid alone may have passed to an innocent one.

A process is named by its pid, its start time and the boot it belongs to, as far as the system
tells them. Only one whose whole name still fits is ever counted as alive, or signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
from functools import cache
from pathlib import Path


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8]
    except OSError:
        return ""


def identity(pid: int) -> str | None:
    """The name of a live process: pid, start time and boot. None if it is dead or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        return _identity_by_ps(pid)
    # Fields after the command, which may itself hold spaces and brackets: proc_pid_stat(5).
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return f"{pid}-{fields[19].decode()}-{_boot()}"


def _identity_by_ps(pid: int) -> str | None:
    """For systems without /proc (macOS): the same from ps(1)."""
    line = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.split(maxsplit=1)
    if len(line) < 2 or line[0].startswith("Z"):
        return None
    return f"{pid}-{line[1].strip().replace(' ', '_')}-"


def alive(name: str) -> bool:
    """Whether the process of that name still runs."""
    return identity(int(name.split("-", 1)[0])) == name


def send(name: str, number: signal.Signals) -> bool:
    """Signal the process of that name, and no other; False if it is gone."""
    if not alive(name):
        return False
    try:
        os.kill(int(name.split("-", 1)[0]), number)
    except ProcessLookupError:
        return False
    return True


def resident_mb(pid: int) -> float:
    """The memory that a process holds, in MB; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
