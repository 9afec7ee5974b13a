"""A small file system that can be filled up."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(mount_point: Path, megabytes: int = 12) -> Iterator[None]:
    """Mount a small file system."""
    mount_point.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(mount_point)],
        capture_output=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("machine: no right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(mount_point)], check=True)


def fill(filler: Path) -> None:
    """Use all space that is left."""
    with filler.open("wb", buffering=0) as file:
        for size in (100_000, 1000, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
