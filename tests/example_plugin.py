"""The tasks that many tests use. A test writes `SOURCE`, with tasks of its own, as a plugin."""

import asyncio
import time
from pathlib import Path
from typing import Any

from paise2nb import task

SOURCE = Path(__file__).read_text()


@task("echo")
def echo(context: Any, word: Any) -> Any:
    """Return the word."""
    context.log.info("the word is %s", word)
    return word


@task("shout")
def shout(context: Any, word: str) -> str:
    """Return the word in upper case."""
    return word.upper()


@task("later")
async def later(context: Any, word: str) -> str:
    """Return the word reversed, from a coroutine."""
    await asyncio.sleep(0)
    return word[::-1]


@task("stumble", max_retries=0)
def stumble(context: Any, word: str) -> None:
    """Fail with the word as the error."""
    raise ValueError(word)


@task("hold")
def hold(context: Any, path: str) -> str:
    """Run until the file exists."""
    while not Path(path).exists():
        time.sleep(0.01)
    return "released"
