"""Which process is meant: a pid alone may have passed to an innocent one.

A process is named by its pid, its start time and the boot it belongs to, as far as the system
tells them. Only one whose whole name still fits is ever counted as alive, or signalled.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from errno import EMFILE
from functools import cache
from pathlib import Path

DYING_SECONDS = 5.0
MARK = "PAISE2_MARK"  # a variable of the environment, by which descendants are known


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


def family_mb(pid: int) -> float:
    """The memory that a process and its descendants hold, in MB.

    What a fork shares with it is divided among those who share it (Pss, proc_pid_smaps(5)).
    """
    return resident_mb(pid) + sum(map(_proportional_mb, descendants(pid)))


def _proportional_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except OSError:
        return resident_mb(pid)
    return next((int(line.split()[1]) / 1000 for line in lines if line[:4] == b"Pss:"), 0.0)


# What a process leaves behind ----------------------------------------------------------------


def new_mark() -> str:
    """A mark: the value of MARK in the environment of a process and of all that descend from it."""
    return os.urandom(8).hex()


def end_marked(mark: str) -> int:
    """Kill every process that bears a mark, whatever session or parent it has taken; how many."""
    ended: set[int] = set()
    deadline = time.monotonic() + DYING_SECONDS
    while found := _marked(mark):  # until none is left: they may start others meanwhile
        for pid in found - ended:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        ended |= found
        if time.monotonic() > deadline:  # one that waits for a device can't be ended
            break
        time.sleep(0.002)
    return len(ended)


def _marked(mark: str) -> set[int]:
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):  # none where there is no /proc
        with suppress(OSError):  # another user's, or gone
            if wanted in entry.read_bytes().split(b"\0"):
                found.add(int(entry.parent.name))
    return found - {os.getpid()}


def descendants(pid: int, threads: Iterable[int] | None = None) -> list[int]:
    """The processes under one, or under some of its threads: nearest first."""
    found: list[int] = []
    folder = Path(f"/proc/{pid}/task")
    with suppress(OSError):
        for thread in threads or [int(name) for name in os.listdir(folder)]:
            with suppress(OSError):
                found += map(int, (folder / str(thread) / "children").read_bytes().split())
    return found + [below for child in found for below in descendants(child)]


def has_children() -> bool:
    """Whether this process has any child, ended ones that nobody has waited for included."""
    if not hasattr(os, "waitid"):  # macOS, before Python 3.13
        return False
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_children(threads: Iterable[int] | None = None) -> int:
    """Kill what this process, or some of its threads, have started; how many were alive."""
    found = descendants(os.getpid(), threads)
    living = [pid for pid in found if identity(pid)]
    for pid in found:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    for pid in found:
        with suppress(ChildProcessError):  # a grandchild: its own parent, or init, waits for it
            os.waitpid(pid, 0)
    return len(living)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own has ended, where the system can: prctl(2).

    They become children of the main thread, for which `reap_orphans` waits when they have ended.
    """
    import ctypes

    with suppress(AttributeError):
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def reap_orphans() -> None:
    """Let the adopted go that have ended; no other thread's children, who may be waited for."""
    try:
        adopted = Path(f"/proc/self/task/{os.getpid()}/children").read_bytes().split()
    except OSError:
        return
    for pid in adopted:
        with suppress(ChildProcessError):
            os.waitpid(int(pid), os.WNOHANG)


def bound_files(most: int) -> None:
    """Let this process hold no more open files than that, and leave no core dump."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (least, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def open_files() -> int:
    """How many files this process holds open; 0 where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError as error:  # where no more can be opened, not even this
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if error.errno == EMFILE else 0
