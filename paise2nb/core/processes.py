"""Identify, measure and end processes.

A process is identified by its pid, its start time, the boot of the machine and the pid namespace,
because the same pid may belong to another process, later or in another container. Read from /proc
rather than with psutil: importing psutil makes `paise2 status` 7 % slower, and its start times move
with the wall clock.
"""

import os
import resource
import signal
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from errno import EMFILE
from functools import cache
from pathlib import Path

from paise2nb.core.clock import boot
from paise2nb.core.files import working_directory

DYING_SECONDS = 5.0
COMMAND_LENGTH = 80  # characters of a command line in a message
MARK = "PAISE2_MARK"  # an environment variable: all descendants of a process inherit its value
LASTING_THREADS = set[int]()  # native ids of threads that outlast a job, as do their children
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@cache
def _here() -> str:
    """Return ``BOOT-NAMESPACE``: processes with another value can't be seen from this one.

    A namespace is its inode with the start time of its pid 1, because the kernel gives the inode of
    a namespace that is gone to a new one.
    """
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # a kernel without namespaces
        namespace = 0
    first = _stat(1)
    return f"{boot()[:8]}-{namespace}.{first[19].decode() if first else 0}"


def _stat(pid: int) -> list[bytes] | None:
    """Return the fields after the command (proc_pid_stat(5)), None if it is gone or hidden."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    return stat[stat.rindex(b")") + 2 :].split()  # the command may contain spaces and brackets


def program(module: str, *words: str) -> list[str]:
    """Return the command that calls ``main`` of a module in a new process.

    It has the same import path as this process, so that the same modules can be imported.

    Raises:
        UsageError: The working directory was deleted.
    """
    path = [entry or str(working_directory()) for entry in sys.path]
    text = f"import sys; sys.path[:] = {path!r}; from {module} import main; main()"
    return [sys.executable, "-c", text, *words]


@contextmanager
def environment(**changes: str | None) -> Iterator[None]:
    """Change the environment while the block runs; None removes a variable."""
    before = {name: os.environ.get(name) for name in changes}
    try:
        _set(changes)
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def usable_cores() -> int:
    """Return the number of cores that this process may use: its affinity and its cgroup's quota."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no control groups, or no quota: "max 100000"
        return cores


def identity(pid: int) -> str | None:
    """Return the identity ``PID-START-BOOT-NAMESPACE`` of a process.

    None means that it is dead, or a zombie, as seen from this pid namespace.
    """
    fields = _stat(pid)
    if fields is None or fields[0] in (b"Z", b"X"):
        return None
    return f"{pid}-{fields[19].decode()}-{_here()}"


def sees_itself() -> bool:
    """Whether /proc shows the pid namespace of this process, so that it has an identity."""
    return os.readlink("/proc/self") == str(os.getpid())


def pid_of(name: str) -> int:
    """Return the pid in an identity."""
    return int(name.partition("-")[0])


def is_visible(name: str) -> bool:
    """Whether this process can see if that one is running: same boot and same pid namespace.

    An identity without a namespace was stored by an earlier version.
    """
    return _here().startswith(name.split("-", 2)[-1])


def alive(name: str) -> bool:
    """Whether the process with that identity is visible and running."""
    return is_visible(name) and (identity(pid_of(name)) or "").startswith(name)


def send(name: str, number: signal.Signals) -> bool:
    """Send a signal to the process with that identity. Return False if it is gone."""
    with suppress(ProcessLookupError):
        if alive(name):
            os.kill(pid_of(name), number)
            return True
    return False


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped, by Ctrl-Z or a debugger."""
    fields = _stat(pid)
    return fields is not None and fields[0] in (b"T", b"t")


def command_line(pid: int) -> str:
    """Return the beginning of the command line of a process, empty if unknown."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").split()
    except OSError:
        return ""
    return b" ".join(words).decode(errors="replace")[:COMMAND_LENGTH]


# Resources -----------------------------------------------------------------------------------


def resident_mb(pid: int) -> float:
    """Return the resident memory of a process in MB, 0 if unknown."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def family_mb(pid: int) -> float:
    """Return the memory of a process and its descendants in MB.

    Pages that a descendant shares with others count in proportion: Pss in proc_pid_smaps(5).
    """
    return resident_mb(pid) + sum(map(_proportional_mb, descendants(pid)))


def _proportional_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines()
    except OSError:
        return resident_mb(pid)
    return next((int(line.split()[1]) / 1000 for line in lines if line[:4] == b"Pss:"), 0.0)


def bound_files(most: int) -> None:
    """Limit the number of open files of this process, and disable core dumps."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def open_files() -> int:
    """Return the number of open files of this process, 0 if unknown."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError as error:
        # Listing needs an open file, too: if none is left, all are in use.
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0] if error.errno == EMFILE else 0


# Descendants ---------------------------------------------------------------------------------


def new_mark() -> str:
    """Return a new value for `MARK`."""
    return os.urandom(8).hex()


def end_marked(mark: str) -> int:
    """Kill every process with that mark, whatever its session or parent. Return their number."""
    ended: set[int] = set()
    deadline = time.monotonic() + DYING_SECONDS
    while found := _marked(mark):  # repeated, because they may start others meanwhile
        for pid in found - ended:
            _kill(pid)
        ended |= found
        if time.monotonic() > deadline:  # a process that waits for a device can't be killed
            break
        time.sleep(0.002)
    return len(ended)


def _marked(mark: str) -> set[int]:
    wanted = f"{MARK}={mark}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # the process of another user, or gone
            if wanted in entry.read_bytes().split(b"\0"):
                found.add(int(entry.parent.name))
    return found - {os.getpid()}


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def descendants(pid: int, threads: Iterable[int] | None = None) -> list[int]:
    """Return the pids of the descendants of a process, or of some of its threads.

    Args:
        pid: The process.
        threads: Native thread identifiers. None means all threads.
    """
    found: list[int] = []
    with suppress(OSError):
        for thread in threads or map(int, os.listdir(f"/proc/{pid}/task")):
            found += _children(pid, thread)
    return found + [below for child in found for below in descendants(child)]


def _children(pid: int, thread: int) -> list[int]:
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{thread}/children").read_bytes().split()]
    except OSError:  # the thread has ended
        return []


def has_children() -> bool:
    """Whether this process has children, including ended ones that were not waited for."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end_children(threads: Iterable[int] | None = None) -> int:
    """Kill the descendants of this process, or of some of its threads.

    Args:
        threads: Native thread identifiers. None means all threads.

    Returns:
        The number of descendants that were running.
    """
    found = descendants(os.getpid(), threads)
    running = [pid for pid in found if identity(pid)]
    for pid in found:
        _kill(pid)
    for pid in found:
        with suppress(ChildProcessError):  # not a child: its parent, or init, waits for it
            os.waitpid(pid, 0)
    return len(running)


def adopt_orphans() -> None:
    """Make this process the parent of descendants that lose theirs: prctl(2).

    They become children of the main thread. `reap_orphans` waits for those that have ended.
    """
    import ctypes  # here, because only workers need it

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(but: Collection[int] = ()) -> None:
    """Wait for adopted children that have ended, but not for the children of other threads.

    Those may be waited for by the threads that started them.

    Args:
        but: Children that the main thread has started itself.
    """
    for pid in set(_children(os.getpid(), os.getpid())).difference(but):  # of the main thread
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
