"""The one thread of a kernel that keeps what is displayed up to date.

A thread, because an event loop stands still while a cell runs. It rests while nothing is
displayed, and never prints: only traits of widgets are set from it.
"""

from __future__ import annotations

import atexit
import threading
from typing import Protocol
from weakref import WeakSet

SECONDS = 1.0


class View(Protocol):
    """Something that is displayed, or not."""

    @property
    def displayed(self) -> bool:
        """Whether anybody may see it."""

    def refresh(self, *, anew: bool = True) -> None:
        """Show what is true now; never raises."""


class Poller:
    """Refreshes views once a second, in a daemon thread that starts with the first of them."""

    def __init__(self) -> None:
        self._views: WeakSet[View] = WeakSet()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, view: View) -> None:
        """Keep a view up to date from now on, for as long as somebody else holds it."""
        with self._lock:
            self._views.add(view)

    def look(self) -> None:
        """Refresh what is displayed now, not in a second."""
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
            asked = self._wake.is_set()
            self._wake.clear()
            with self._lock:
                displayed = [view for view in self._views if view.displayed]
            for view in displayed:
                view.refresh(anew=asked)
            self._wake.wait(SECONDS if displayed else None)


__all__ = ["Poller", "View"]
