"""Files are replaced atomically."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from paise2nb.core.files import replacement, write_atomically


@pytest.mark.parametrize(("data", "content"), [("ä", b"\xc3\xa4"), (b"\x00\xff", b"\x00\xff")])
def test_a_file_is_written_and_replaced(tmp_path: Path, data: bytes | str, content: bytes) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    write_atomically(path, data)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("mode", "expected"), [(0o600, 0o600), (0o666, 0o644)])
def test_the_umask_is_subtracted_from_the_mode(tmp_path: Path, mode: int, expected: int) -> None:
    umask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", "text", mode=mode)
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


def test_after_an_interrupt_the_old_content_is_still_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def interrupted() -> None:
        with replacement(path) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_the_longest_possible_name_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_atomically(path, "text")
    assert path.read_text() == "text"
