"""The live panel: what the background work is doing, and the buttons that change it.

The widget sends a state and a heartbeat, which ``panel.js`` draws. The browser asks for more and
for changes by messages. They may come while a cell runs, in another thread than the cell's: what
takes a while runs in threads of its own, and shared state is locked.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import anywidget
import traitlets
from IPython.core.getipython import get_ipython
from IPython.display import display

from paise2nb.app import App
from paise2nb.config.settings import DEFAULT_POOL
from paise2nb.core.errors import UsageError
from paise2nb.core.render import amount
from paise2nb.notebook.panel_commands import CHANGES, OF_WORKERS, QUESTIONS, SLOW
from paise2nb.notebook.panel_state import lines, saved, sentence, state
from paise2nb.notebook.poller import Poller
from paise2nb.views.status import Status

REREAD_SECONDS = 5.0  # between two full reads: a process that dies changes no row
READING_SHARE = 0.015  # of a core, at most, which readings of the state may take on average
DISPLAY_SECONDS = 30.0  # within which a frontend must report that it shows the panel
BEAT_SECONDS = 1.0
SAVED_SECONDS = 30.0  # between two changes of the picture in the notebook: each marks it as unsaved
CLOSED = "The app was closed. Run the cell again."
_FOLDER = Path(__file__).parent


class SubshellWidget:
    """A widget with messages that reach the kernel while a cell runs.

    ipykernel 7.4 hands a frontend's message to the shell that last sent one on the comm. If that
    is the main shell, a click waits for the cell. Without that record the frontend chooses.
    """

    comm: Any

    def open(self) -> None:
        """Open the comm."""
        super().open()  # type: ignore[misc]  # a method of the widget class beside this one
        self._forget_shell()

    def _send(self, msg: Any, buffers: Any = None) -> None:
        super()._send(msg, buffers)  # type: ignore[misc]  # as in open
        self._forget_shell()

    def _forget_shell(self) -> None:
        getattr(self.comm, "__dict__", {}).pop("_reply_subshell_id", None)


class Panel(SubshellWidget, anywidget.AnyWidget):
    """The panel of one app. However often it is displayed, it is the same panel.

    Attributes:
        state: what the panel shows, see `panel_state`.
        beat: when the kernel last gave a sign, in seconds since the epoch.
    """

    _esm = _FOLDER / "panel.js"
    _css = _FOLDER / "panel.css"
    state = traitlets.Dict().tag(sync=True)
    beat = traitlets.Float().tag(sync=True)

    def __init__(self, app: App, poller: Poller) -> None:
        self.app = app
        self._poller = poller
        self._lock = threading.RLock()
        self._status: Status | None = None
        self._version = -1
        self._read_at = self._cost = 0.0
        self._displayed_at = -DISPLAY_SECONDS
        self._actions: list[str] = []  # what threads are doing, such as stopping the workers
        self._message = ""
        self._size: int | None = None  # of the running pool default
        self._concurrency: int = app.settings.workers.concurrency
        self._saved_id = uuid4().hex
        self._saved, self._saved_at = "", 0.0
        super().__init__(_view_count=0)
        self.on_msg(self._receive)
        self.observe(lambda _: self._poller.wake(), "_view_count")
        self.refresh()

    @property
    def displayed(self) -> bool:
        """Whether a frontend shows it, or has just been asked to."""
        if self.comm is None:
            return False
        return bool(self._view_count) or time.monotonic() - self._displayed_at < DISPLAY_SECONDS

    def close(self) -> None:
        """Close the panel, with the layout that every widget has."""
        self.layout.close()
        super().close()

    def __repr__(self) -> str:
        return "\n".join(lines(self._status)) if self._status else "watch"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        self.refresh()
        self._displayed_at = time.monotonic()
        self._poller.wake()
        if self._status is not None:
            self._save_picture(again=True)
        return self.bundle()

    def bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return what a notebook shows and keeps, by type."""
        data, metadata = super()._repr_mimebundle_() or ({}, {})
        if self._status is not None:
            data["text/html"] = saved(self._status)
        return data, metadata

    def _save_picture(self, again: bool = False) -> None:
        """Put the present state into the notebook, for a time without a kernel.

        It is an output of its own, above the panel, which hides it: JupyterLab shows no HTML in
        place of a widget that is gone. nbval would take a change of it for another output.
        """
        assert self._status is not None
        if "PYTEST_VERSION" in os.environ or not hasattr(get_ipython(), "kernel"):
            return
        form, now = saved(self._status), time.monotonic()
        if again or (form != self._saved and now - self._saved_at >= SAVED_SECONDS):
            data = {"text/html": saved(self._status, time.time()), "text/plain": repr(self)}
            publish: Any = display  # IPython declares no types here
            publish(data, raw=True, display_id=self._saved_id, update=not again)
            self._saved, self._saved_at = form, now

    # Showing ---------------------------------------------------------------------------------

    def show(self, app: App) -> None:
        """Show another app, because the settings have changed."""
        with self._lock:
            self.app, self._version, self._size = app, -1, None
            self._status, self._message = None, ""  # those of the app before
            self._concurrency = app.settings.workers.concurrency
            self.refresh()

    def refresh(self, *, reread: bool = True) -> None:
        """Show the current state. Errors are shown in the panel, never raised.

        Args:
            reread: read everything, even if no row of the database has changed.
        """
        with self._lock:
            now = time.time()
            if not 0 <= now - self.beat < BEAT_SECONDS:
                self.beat = now
            try:
                if self.app.closed:
                    raise UsageError(CLOSED)
                if reread or self._is_old():
                    self._read()
                problem = ""
            except Exception as error:
                problem = sentence(str(error) or type(error).__name__)
            self._show(problem)
            if not reread and not problem:
                self._save_picture()

    def _is_old(self) -> bool:
        """Whether to read the state again: something has changed, or may have without a trace.

        Only the poller's thread asks; its connection sees what others have written.
        """
        passed = time.monotonic() - self._read_at
        if passed < self._cost / READING_SHARE:
            return False
        version = self.app.queue.job_store.version()
        changed, self._version = version != self._version, version
        return changed or passed >= REREAD_SECONDS

    def _read(self) -> None:
        began = time.thread_time()
        self._status = self.app.status()
        size = self.app.workers.sizes().get(DEFAULT_POOL)
        if size is not None and size != self._size:  # another process may have changed it
            self._concurrency = size
        self._size = size
        self._seen = state(self.app, self._status)
        self._read_at, self._cost = time.monotonic(), time.thread_time() - began

    def _show(self, problem: str) -> None:
        if self._status is None:
            self.state = {"problems": [problem]}
            return
        problems = [problem] if problem else self._seen["problems"]
        self.state = {
            **self._seen,
            "problems": problems,
            "concurrency": self._concurrency,
            "scales": self._size is not None,
            "action": self._action(),
            "message": sentence(self._message),
        }

    def _action(self) -> str:
        if not self._actions or self._status is None:
            return ""
        running, stopping = self._status.jobs["running"], "stopping workers" in self._actions
        finishing = f"; {amount(running, 'job')} still running" if running and stopping else ""
        return f"{', '.join(self._actions)}{finishing} …"

    # Messages --------------------------------------------------------------------------------

    def _receive(self, _widget: object, message: Any, _buffers: object) -> None:
        """Answer a message of a browser: ``{"call", "do", …}``, with the arguments of a command."""
        was_displayed = self.displayed
        self._displayed_at = time.monotonic()
        if not was_displayed:  # last, or the poller could look before this and sleep again
            self._poller.wake()
        arguments = dict(message)
        call, name = arguments.pop("call"), arguments.pop("do")
        if name in SLOW:
            _in_thread(name, lambda: self.send({"call": call, **self._answer(name, arguments)}))
            return
        if name not in CHANGES:
            self.send({"call": call, **self._answer(name, arguments)})
            return
        action = CHANGES[name][0]
        with self._lock:
            others = [CHANGES[other][0] for other in OF_WORKERS]
            if name in OF_WORKERS and any(other in self._actions for other in others):
                self.send({"call": call, "error": f"not now: {self._action()}"})
                return
            self._actions.append(action)
            if name in ("start", "scale"):
                self._concurrency = arguments["concurrency"]
            self._show("")
        _in_thread(action, partial(self._change, call, name, arguments))

    def _change(self, call: object, name: str, arguments: dict[str, Any]) -> None:
        answer = self._answer(name, arguments)
        with self._lock:
            self._actions.remove(CHANGES[name][0])
            if name != "enqueue":  # it is told beside the box
                self._message = str(answer.get("result", ""))
        self.refresh()
        self.send({"call": call, **answer})

    def _answer(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Run a command; return what it returns, or its error."""
        try:
            command = CHANGES[name][1] if name in CHANGES else QUESTIONS.get(name)
            if command is None:
                raise UsageError(f"unknown command {name}: run the cell again")
            return {"result": command(self.app, **arguments)}
        except Exception as error:  # the panel shows it: there is no cell that could
            return {"error": sentence(str(error) or type(error).__name__)}


def _in_thread(name: str, work: Callable[[], None]) -> None:
    threading.Thread(target=work, name=f"paise2 {name}", daemon=True).start()


# One panel for each app ----------------------------------------------------------------------

_panels: dict[App, Panel] = {}


def _refresh_displayed(reread: bool) -> bool:
    displayed = [panel for panel in list(_panels.values()) if panel.displayed]
    for panel in displayed:
        panel.refresh(reread=reread)
    return bool(displayed)


_poller = Poller(_refresh_displayed)


def panel_of(app: App) -> Panel:
    """Return the panel of an app, made on the first call."""
    for known, panel in list(_panels.items()):
        if known.closed or panel.comm is None:
            panel.close()
            del _panels[known]
    if app not in _panels:
        _panels[app] = Panel(app, _poller)
    return _panels[app]


def show_instead(app: App, new: App) -> None:
    """Let the panel of an app show another app, unless that one has a panel."""
    if new not in _panels and (panel := _panels.pop(app, None)) is not None:
        _panels[new] = panel
        panel.show(new)


def close_panels() -> None:
    """Close all panels, and end the thread that updates them."""
    global _poller
    _poller.stop()
    _poller = Poller(_refresh_displayed)
    while _panels:
        _panels.popitem()[1].close()
