"""Files are replaced atomically."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
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


@pytest.mark.skipif(os.geteuid() != 0, reason="machine: only root can give a directory away")
@pytest.mark.parametrize(
    ("owner", "mode", "user", "accepted"),
    [
        (0, 0o2775, 1000, True),  # a volume of root, writable by a group of this user
        (0, 0o1777, 1000, False),
        (1000, 0o755, 0, False),
        (1000, 0o755, 1000, True),
    ],
)
def test_a_data_directory_of_another_user(
    tmp_path: Path, owner: int, mode: int, user: int, accepted: bool
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").touch()
    os.chown(volume, owner, 1000)
    volume.chmod(mode)
    tmp_path.chmod(0o755)
    # Relative, because the other user may not enter the directories above.
    script = (
        "import os, sys; from pathlib import Path;"
        " from paise2nb.core.files import claim_directory;"
        " user = int(sys.argv[1]); os.setgroups([1000]); os.setresuid(user, user, user);"
        " claim_directory(Path('volume'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(user)],
        cwd=tmp_path,
        capture_output=True,
        check=False,
        text=True,
    )
    assert (done.returncode == 0) is accepted, done.stderr
    if not accepted:
        assert f"--data-dir volume/paise2), or make it yours: chown {user}" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="machine: only root can become another user")
def test_a_user_without_a_home_directory_can_name_the_data_directory(tmp_path: Path) -> None:
    script = (
        "import os, sys; from paise2nb.config.settings import Settings;"
        " Settings.resolve('test');"  # imports what the other user may not read
        " os.environ.pop('HOME', None); os.setresuid(54321, 54321, 54321); os.chdir('/');"
        " from paise2nb.core.errors import SettingsError;"
        " Settings.resolve(data_dir='/somewhere')\n"
        "try: Settings.resolve('development')\n"
        "except SettingsError as error: sys.exit(0 if '--data-dir' in str(error) else 1)\n"
        "sys.exit(1)"
    )
    cleared = {k: v for k, v in os.environ.items() if not k.startswith("PAISE2_")}
    subprocess.run([sys.executable, "-c", script], env=cleared, check=True)
