"""The one thread of a kernel that keeps displayed panels up to date.

It is a thread because an event loop does not run while a cell does. It sleeps while nothing is
displayed, and it never prints: it only sets traits of widgets.
"""

import atexit
import threading
from collections.abc import Callable

SECONDS = 0.5  # between two looks: a change is shown within a second, also if a look takes long


class Poller:
    """Calls a function twice a second, in a daemon thread that starts when needed.

    Args:
        refresh: refreshes what is displayed, and returns whether anything is. It is called with
            True after `wake`: then it reads everything again.
    """

    def __init__(self, refresh: Callable[[bool], bool]) -> None:
        self._refresh = refresh
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Refresh now, and twice a second from then on if anything is displayed."""
        with self._lock:
            if self._stop.is_set():
                return
            if self._thread is None or not self._thread.is_alive():
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
            self._wake.wait(SECONDS if self._refresh(woken) else None)
