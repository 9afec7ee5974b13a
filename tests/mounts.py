"""Commands that see another table of mounted filesystems than the machine's."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# A mount namespace of its own, in which another file stands for the table of this process.
SCRIPT = 'mount --bind "$1" /proc/$$/mounts && shift && exec "$@"'


def paise2_on(kind: str, directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command with a directory that seems to be a mounted filesystem.

    Args:
        kind: the type of the filesystem.
        directory: it seems to be mounted here, and holds a file with the table.
        words: the command, without ``paise2``.
    """
    if not shutil.which("unshare"):
        pytest.skip("machine: no unshare")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("machine: no permission for mount namespaces")
    table = directory / "mounts"
    table.write_text(f"sda / ext4 rw 0 0\nserver:/x {directory.resolve()} {kind} rw 0 0\n")
    command = [sys.executable, "-m", "paise2nb", *words]
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", str(table), *command],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
