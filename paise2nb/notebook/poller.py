"""The one thread of a kernel that keeps displayed views up to date.

It is a thread because an event loop stands still while a cell runs. It sleeps while nothing is
displayed, and it never prints: it only sets traits of widgets.
"""

from __future__ import annotations

import atexit
import threading
from typing import Protocol
from weakref import WeakSet

SECONDS = 1.0


class View(Protocol):
    """Something that may be displayed."""

    @property
    def displayed(self) -> bool:
        """Whether a user may see it."""

    def refresh(self, *, reread: bool = True) -> None:
        """Show the current state; never raises."""


class Poller:
    """Refreshes displayed views once a second, in a daemon thread that starts when needed."""

    def __init__(self) -> None:
        self._views: WeakSet[View] = WeakSet()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, view: View) -> None:
        """Keep a view up to date for as long as something else refers to it."""
        with self._lock:
            self._views.add(view)

    def wake(self) -> None:
        """Refresh the displayed views now."""
        with self._lock:
            if self._stop.is_set():
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="paise2 watch", daemon=True)
                atexit.register(self.stop)
                self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """End the thread, and wait for it."""
        self._stop.set()
        self._wake.set()
        atexit.unregister(self.stop)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.is_set():
            woken = self._wake.is_set()
            self._wake.clear()
            with self._lock:
                displayed = [view for view in self._views if view.displayed]
            for view in displayed:
                view.refresh(reread=woken)
            self._wake.wait(SECONDS if displayed else None)
