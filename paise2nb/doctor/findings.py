"""What a check has found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        state: ``ok``, ``warning`` or ``wrong``.
        check: what was checked.
        text: what was found.
        advice: what to do about it.
    """

    state: str
    check: str
    text: str
    advice: str = ""
