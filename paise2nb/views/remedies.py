"""What to do about each kind of failure: the texts of ``remedies.json``, by error class."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Remedy(NamedTuple):
    """The name of a kind of failure, what helps, and the command to type."""

    name: str
    advice: str
    command: str = "paise2 retry --error {error_class}"


_TEXTS = json.loads(Path(__file__).with_name("remedies.json").read_text("utf-8"))
REMEDIES = {error_class: Remedy(**texts) for error_class, texts in _TEXTS.items()}


def remedy_for(error_class: str | None) -> Remedy:
    """Return the remedy for an error class. Errors in a plugin's code are best debugged."""
    advice = "Run the job here, then open the frame with %debug."
    unknown = Remedy(error_class or "failed", advice, "paise2 replay {id}")
    return REMEDIES.get(error_class or "", unknown)
