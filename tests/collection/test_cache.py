"""The cache: entries are complete or absent, even after kills, damage and concurrent writes."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from paise2nb.collection.cache import Cache
from paise2nb.core.errors import StorageError

DAY = 86400.0


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def age(cache: Cache, key: str, days: float) -> None:
    then = time.time() - days * DAY
    os.utime(cache.directory / key[:2] / key[2:], (then, then))


def test_bytes_are_found_by_the_hash_of_their_content(cache: Cache) -> None:
    key = cache.put(b"words")
    assert key == hashlib.sha256(b"words").hexdigest()
    assert cache.get(key) == b"words"
    assert key in cache
    assert cache.put(b"words") == key
    assert cache.size() == 5


def test_empty_bytes_can_be_stored(cache: Cache) -> None:
    assert cache.get(cache.put(b"")) == b""


def test_a_missing_entry_is_a_key_error(cache: Cache) -> None:
    key = "0" * 64
    assert key not in cache
    with pytest.raises(KeyError):
        cache.get(key)


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 64 + "\n"])
def test_a_key_never_leads_out_of_the_directory(cache: Cache, key: str) -> None:
    assert key not in cache
    with pytest.raises(KeyError):
        cache.get(key)


def test_entries_are_private_to_the_user(cache: Cache) -> None:
    key = cache.put(b"words")
    path = cache.directory / key[:2] / key[2:]
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (cache.directory, path.parent, path)]
    assert modes == [0o700, 0o700, 0o600]


def test_a_damaged_entry_counts_as_absent_and_can_be_put_again(cache: Cache) -> None:
    key = cache.put(b"words")
    (cache.directory / key[:2] / key[2:]).write_bytes(b"wor")
    with pytest.raises(KeyError):
        cache.get(key)
    assert cache.get(cache.put(b"words")) == b"words"


def test_removal_keeps_needed_and_new_entries(cache: Cache) -> None:
    needed, young, old = (cache.put(word) for word in (b"needed", b"young", b"old"))
    age(cache, needed, 40)
    age(cache, old, 40)
    assert cache.remove({needed}, 30 * DAY) == 1
    assert [key in cache for key in (needed, young, old)] == [True, True, False]
    assert cache.remove({needed}, 0) == 1
    assert cache.remove(set(), 0) == 1
    assert cache.size() == 0


def test_putting_an_old_entry_again_makes_it_new(cache: Cache) -> None:
    key = cache.put(b"words")
    age(cache, key, 40)
    cache.put(b"words")
    assert cache.remove(set(), 30 * DAY) == 0


def test_clearing_counts_the_entries(cache: Cache) -> None:
    cache.put(b"one")
    cache.put(b"two")
    assert cache.clear() == 2
    assert cache.clear() == 0


def test_a_put_during_removals_is_never_lost(cache: Cache) -> None:
    done = threading.Event()
    key = cache.put(b"words")

    def remove() -> None:
        while not done.is_set():
            cache.remove(set(), 30 * DAY)

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for _ in range(300):
            if key in cache:
                age(cache, key, 40)
            cache.put(b"words")
            assert cache.get(key) == b"words"
    finally:
        done.set()
        remover.join()


def test_many_threads_put_the_same_bytes(cache: Cache) -> None:
    keys: list[str] = []
    threads = [
        threading.Thread(target=lambda: keys.extend(cache.put(bytes([n])) for n in range(50)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 50
    assert all(cache.get(key) for key in keys)
    assert cache.size() == 50


def test_a_killed_writer_leaves_only_complete_entries(cache: Cache) -> None:
    script = (
        "import os, sys; from pathlib import Path; from paise2nb.collection.cache import Cache\n"
        "cache = Cache(Path(sys.argv[1]))\n"
        "while True: print(cache.put(os.urandom(300_000)), flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(cache.directory)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        keys = [writer.stdout.readline().strip() for _ in range(20)]
        writer.send_signal(signal.SIGKILL)
        keys += [line.strip() for line in writer.stdout if len(line) == 65]
    for key in keys:
        assert len(cache.get(key)) == 300_000
    listed = [p.parent.name + p.name for p in cache.directory.glob("??/*")]
    for key in listed:
        assert "." in key or len(cache.get(key)) == 300_000
    cache.remove(set(), 0)
    assert list(cache.directory.glob("??/*")) == []


def test_the_error_of_a_directory_that_can_not_be_created_has_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="choose another with --data-dir"):
        Cache(tmp_path / "file" / "cache")
