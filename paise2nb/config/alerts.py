"""The alerts in the settings."""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import field
from typing import Annotated, Any

from paise2nb.config.conditions import CONDITIONS, Condition, parse_condition
from paise2nb.config.parser import printable
from paise2nb.config.specs import Range, SecretURL, Section, TimeSpan, WhenText
from paise2nb.core.errors import SettingsError


class Alert(Section):
    """Tells somebody when a condition begins and ends to hold.

    Attributes:
        name: Its name, which no other alert has.
        when: The condition.
        over: Seconds over which the condition is measured, or for which it must have held.
        command: The program that gets the alert as JSON, with its arguments.
        notify: The URL to which Apprise sends the alert.
        every: Seconds until it is repeated while the condition holds; 0: never.
        timeout: Seconds that one delivery may take.
    """

    name: str
    when: WhenText
    over: Annotated[TimeSpan | None, Range(0, 10**9)] = None
    command: tuple[str, ...] = ()
    notify: SecretURL | None = field(default=None, repr=False)
    every: Annotated[TimeSpan, Range(0, 10**9)] = TimeSpan(3600.0)
    timeout: Annotated[TimeSpan, Range(0.001, 10**9)] = TimeSpan(30.0)

    @property
    def condition(self) -> Condition:
        """The parsed condition."""
        return parse_condition(self.when)

    @property
    def seconds(self) -> float:
        """The time over which the condition is measured, or for which it must have held."""
        return CONDITIONS[self.condition.name].window if self.over is None else self.over

    @property
    def held_seconds(self) -> float:
        """For how long the condition must have held; 0 where it is measured over a time."""
        return 0.0 if CONDITIONS[self.condition.name].window else self.seconds

    @property
    def target(self) -> str:
        """Where it is sent, without anything secret."""
        return f"{self.notify.partition(':')[0]}://…" if self.notify else self.command[0]


def public(value: Any) -> Any:
    """Return a copy of a value in its JSON form, with only the schemes of alerts' URLs."""
    match value:
        case [dict(), *_]:
            return [public(element) for element in value]
        case {"notify": str(url)}:
            return {**value, "notify": f"{url.partition(':')[0]}://…"}
    return copy(value)


def check_alerts(found: Sequence[Mapping[str, Any]], origin: str) -> None:
    """Raise SettingsError if an alert lacks a key, or two alerts have the same name."""
    names = [alert.get("name") for alert in found]
    for number, alert in enumerate(found):
        where = f"{origin}: alerts[{number}]"
        if missing := [key for key in ("name", "when") if key not in alert]:
            raise SettingsError(f"{where} has no {missing[0]}")
        where += f" ({printable(alert['name'])})"
        if bool(alert.get("command")) == bool(alert.get("notify")):
            raise SettingsError(f"{where} needs either a command or notify")
        condition = parse_condition(alert["when"]).name
        if alert.get("over") == 0 and CONDITIONS[condition].window:
            raise SettingsError(f"{where}: {condition} is measured over a time; over can't be 0")
        if alert["name"] in names[:number]:
            raise SettingsError(f"{where}: another alert has this name")
