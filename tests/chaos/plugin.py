"""The tasks of the chaos suite. An effect is a row with a key and how often it was written."""

from __future__ import annotations

import ctypes
import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

from paise2nb import task

EFFECTS = "effects.db"


def store(context: Any, key: str) -> int:
    """Write the effect of a key; returns how often it has been written by now."""
    connection = sqlite3.connect(context.data_dir / EFFECTS, timeout=60, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=OFF")
        [(times,)] = connection.execute(
            "INSERT INTO effects VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET times = times + 1"
            " RETURNING times",
            (key, context.job_store.now()),
        ).fetchall()
    finally:
        connection.close()
    return int(times)


def wait_for(path: str) -> None:
    """Wait until the file exists."""
    while not Path(path).exists():
        time.sleep(0.01)


@task("effect")
def effect(context: Any, key: str, seconds: float = 0) -> str:
    if seconds > 300:
        raise ValueError("only a mutated row has such a time")
    time.sleep(seconds)
    store(context, key)
    return key


@task("tree")
def tree(context: Any, key: str, seconds: float = 0) -> str:
    """Write an effect, and enqueue a follow-up job that writes another."""
    context.enqueue("effect", f"{key}/leaf", seconds)
    return effect(context, key, seconds)


task("brief", threads=True)(tree)


@task("threaded", pool="many")
def threaded(context: Any, key: str, seconds: float = 0) -> str:
    context.enqueue("effect", f"{key}/leaf", seconds)
    return effect(context, key, seconds)


@task("flaky", max_retries=3, retry_delay=0.05)
def flaky(context: Any, key: str) -> str:
    if store(context, key) == 1:
        raise ConnectionError("the first time fails")
    return key


@task("retried", max_retries=3)
def retried(context: Any, key: str) -> str:
    """Fail once, and then succeed after the retry delay of the settings."""
    if store(context, key) == 1:
        raise ConnectionError("the first time fails")
    store(context, f"{key}/again")
    return key


@task("broken", max_retries=0)
def broken(context: Any, key: str) -> None:
    store(context, key)
    raise ValueError("always")


@task("hold")
def hold(context: Any, key: str, path: str) -> str:
    """Run until the file exists."""
    context.enqueue("effect", f"{key}/leaf")
    wait_for(path)
    store(context, key)
    return str(os.getpid())


def _die(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    if how == "memory":
        allocated = bytearray(700_000_000)
        allocated[::4096] = b"x" * len(allocated[::4096])
        time.sleep(600)
    os._exit(9)


@task("die", max_retries=0, memory_mb=400)
def die(context: Any, how: str) -> None:
    _die(how)


@task("thread_die", pool="many", max_retries=0, memory_mb=400)
def thread_die(context: Any, how: str, path: str) -> None:
    wait_for(path)
    _die(how)


@task("thread_hold", pool="many")
def thread_hold(context: Any, key: str, path: str) -> str:
    wait_for(path)
    store(context, key)
    return key


def _stick(how: str) -> None:
    if how == "regex":  # in C code, and with the interpreter's lock held
        re.match(r"(a+)+$", "a" * 64 + "b")
    time.sleep(600)


task("grow", memory_mb=400, max_retries=0)(die)
task("thread_grow", pool="many", memory_mb=400, max_retries=0)(die)


@task("stick", timeout=1, memory_mb=400, max_retries=0)
def stick(context: Any, how: str) -> None:
    _stick(how)


@task("thread_stick", pool="many", timeout=1, memory_mb=400, max_retries=0)
def thread_stick(context: Any, how: str) -> None:
    _stick(how)
