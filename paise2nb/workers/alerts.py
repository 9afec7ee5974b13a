"""Check the alerts and have their messages delivered, in a thread beside the supervisor.

The thread has its own connections, and each delivery is a process: nothing here can hold up a
rescue. A message is stored before it is delivered, so that it is delivered at least once, also if
the supervisor is killed meanwhile.
"""

import logging
import socket
import threading
import time
from typing import Any

from paise2nb.config.alerts import Alert
from paise2nb.config.settings import Settings
from paise2nb.core.clock import iso
from paise2nb.core.errors import StorageError, redacted, shortened
from paise2nb.core.render import duration, one_line
from paise2nb.jobs.alerts import AlertState, measure, read_states, write_states
from paise2nb.jobs.store import JobStore
from paise2nb.workers.delivery import Delivery

logger = logging.getLogger("paise2nb.alerts")

SHORTEST_CHECK, LONGEST_CHECK = 0.1, 15.0  # seconds between two checks
DELIVERY_CHECK = 0.05  # seconds, while a delivery runs
# An alert is over when its condition has not held for so long (or for `every`, if that is shorter),
# so that a value near the limit gives few messages.
SETTLE_SECONDS = 300.0
END_SECONDS = 5.0  # for running deliveries when the supervisor ends
SHORTEST_RETRY = 1.0  # seconds
LENGTH = 2000  # characters of a message


class AlertMonitor:
    """Checks the alerts of the settings until it is closed.

    Args:
        job_store: Only this monitor uses it.
        settings: The resolved settings.
    """

    def __init__(self, job_store: JobStore, settings: Settings) -> None:
        self._job_store = job_store
        self._settings = settings
        self._deliveries: dict[str, Delivery] = {}
        self._states: dict[str, AlertState] = {}
        self._check_at = 0.0  # monotonic
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop. Deliveries that do not end soon are killed, and repeated after the next start."""
        self._closed.set()
        self._thread.join(2 * END_SECONDS)
        self._job_store.close()

    def _run(self) -> None:
        spans = (span for a in self._settings.alerts for span in (a.every, a.seconds) if span)
        pause = max(SHORTEST_CHECK, min([LONGEST_CHECK, *(span / 4 for span in spans)]))
        while not self._closed.is_set():
            try:
                self._step(pause)
            except Exception:  # without this thread nothing would tell that something is wrong
                logger.exception("the alerts can't be checked now")
            self._closed.wait(DELIVERY_CHECK if self._deliveries else pause)
        deadline = time.monotonic() + END_SECONDS
        while self._deliveries and time.monotonic() < deadline:
            time.sleep(DELIVERY_CHECK)
            self._end_deliveries()
        for delivery in self._deliveries.values():
            delivery.kill()
        self._store()

    def _step(self, pause: float) -> None:
        if not self._states:
            known = read_states(self._job_store)
            self._states = {a.name: known.get(a.name, AlertState()) for a in self._settings.alerts}
        if time.monotonic() >= self._check_at:
            self._check_at = time.monotonic() + pause
            for alert in self._settings.alerts:
                self._check(alert)
        self._end_deliveries()
        self._store()
        self._start_deliveries()

    def _check(self, alert: Alert) -> None:
        """Measure an alert, and make the message that is due."""
        state, now = self._states[alert.name], self._job_store.now()
        try:
            value, text = measure(alert, self._job_store, self._settings)
        except (StorageError, OSError) as error:
            logger.warning("alert %s can't be checked now: %s", alert.name, error)
            return
        began_at = state.began_at
        if event := advance(alert, state, alert.condition.holds(value), now):
            began_at = state.began_at or began_at or now
            if event != "firing":
                word = "over" if event == "over" else "still"
                text = f"{word} after {duration(now - began_at)}{text and f': {text}'}"
            iso_time = self._job_store.iso_time
            times = {"began_at": iso_time(began_at), "at": iso_time(now)}
            state.message = make_message(alert, self._settings, event, text, value=value, **times)
            state.attempts, state.retry_at, state.error = 0, 0.0, None
            logger.warning("alert %s (%s), %s: %s", alert.name, alert.when, event, text)

    def _store(self) -> None:
        try:
            write_states(self._job_store, self._states)
        except StorageError as error:  # a full disk must not keep its own alert back
            logger.warning("the state of the alerts can't be stored now: %s", error)

    def _start_deliveries(self) -> None:
        for alert in self._settings.alerts:
            state = self._states[alert.name]
            due = state.message is not None and state.retry_at <= self._job_store.now()
            if state.message is not None and due and alert.name not in self._deliveries:
                self._deliveries[alert.name] = Delivery(alert, state.message)

    def _end_deliveries(self) -> None:
        for name, delivery in list(self._deliveries.items()):
            state = self._states[name]
            if not delivery.ended():
                continue
            del self._deliveries[name]
            error = delivery.error()
            if delivery.message is not state.message:
                continue  # a later message has replaced it
            if error is None:
                state.message, state.attempts, state.error = None, 0, None
                continue
            state.attempts, state.error = state.attempts + 1, error
            delay = max(SHORTEST_RETRY, self._settings.workers.retry.delay(state.attempts))
            state.retry_at = self._job_store.now() + delay
            logger.error("alert %s can't be delivered, and is tried again: %s", name, error)


def advance(alert: Alert, state: AlertState, holds: bool, now: float) -> str | None:
    """Change the state of an alert.

    Args:
        alert: The alert.
        state: Its state.
        holds: Whether its condition holds now.
        now: The time of the job store.

    Returns:
        What has to be told: ``firing``, ``repeated``, ``over`` or None.
    """
    if holds:
        state.held_since, state.clear_since = state.held_since or now, None
        if state.began_at is None:
            if now - state.held_since < alert.held_seconds:
                return None
            state.began_at = state.said_at = now
            return "firing"
        if alert.every and now - state.said_at >= alert.every and state.message is None:
            state.said_at = now
            return "repeated"
        return None
    state.held_since = None
    if state.began_at is None:
        return None
    state.clear_since = state.clear_since or now
    if now - state.clear_since < min(SETTLE_SECONDS, alert.every or SETTLE_SECONDS):
        return None
    state.began_at = state.clear_since = None
    return "over"


def make_message(
    alert: Alert, settings: Settings, event: str, text: str, **facts: Any
) -> dict[str, Any]:
    """Return the message that is delivered, which is JSON. No fact of it is secret."""
    host = socket.gethostname()
    titles = {"repeated": " goes on", "over": " is over", "test": " (a test)"}
    return {
        "alert": alert.name,
        "event": event,
        "test": event == "test",
        "title": f"paise2 on {host}: {alert.name}{titles.get(event, '')}",
        "text": shortened(redacted(one_line(text)), LENGTH),
        "when": alert.when,
        "over": alert.seconds,
        "value": None,
        "began_at": None,
        "at": iso(time.time()),
        "host": host,
        "profile": settings.profile,
        "data_dir": str(settings.data_dir),
        **facts,
    }


def send_tests(settings: Settings) -> list[dict[str, Any]]:
    """Deliver a message that is marked as a test for each alert.

    Returns:
        For each alert its name, its target, and ``error``: why it could not be delivered, or None.
    """
    running = []
    for alert in settings.alerts:
        text = f"a test: this is how the alert {alert.name} ({alert.when}) arrives"
        running.append(Delivery(alert, make_message(alert, settings, "test", text)))
    while [delivery for delivery in running if not delivery.ended()]:
        time.sleep(DELIVERY_CHECK)
    return [
        {"name": alert.name, "to": alert.target, "error": delivery.error()}
        for alert, delivery in zip(settings.alerts, running, strict=True)
    ]
