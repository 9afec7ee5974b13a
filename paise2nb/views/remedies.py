"""What to do about each kind of failure: the texts of ``remedies.json``, by error class."""

import json
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from paise2nb.config.settings import Settings

_RETRY = "paise2 retry --error {error_class}"


class Remedy(NamedTuple):
    """The name of a kind of failure, what helps, and the commands to type.

    Attributes:
        command: the first one.
        then: the one after it, when the cause is gone.
        unless: a setting and a value: with this value, only a retry is needed.
    """

    name: str
    advice: str
    command: str = _RETRY
    then: str | None = None
    unless: tuple[str, Any] | None = None


_TEXTS = json.loads(Path(__file__).with_name("remedies.json").read_text("utf-8"))
REMEDIES = {error_class: Remedy(**texts) for error_class, texts in _TEXTS.items()}


def remedy_for(error_class: str | None, settings: Settings, restart: bool = False) -> Remedy:
    """Return the remedy for an error class. Errors in a plugin's code are best debugged.

    Args:
        error_class: the error class.
        settings: the settings of this process.
        restart: whether the workers have to be restarted to use them.
    """
    advice = "Run the job here, then open the frame with %debug."
    unknown = Remedy(error_class or "failed", advice, "paise2 replay {id}", _RETRY)
    remedy = REMEDIES.get(error_class or "", unknown)
    if remedy.unless is not None and attrgetter(remedy.unless[0])(settings) == remedy.unless[1]:
        if restart:
            advice = "The setting has changed. Restart the workers, then try again."
            return Remedy(remedy.name, advice, "paise2 worker restart", _RETRY)
        return Remedy(remedy.name, "The setting has changed. Try again.")
    return remedy
