"""The live panel: what the background work is doing, and the buttons that change it.

Only ipywidgets, no JavaScript of its own: each part is a piece of HTML that is sent anew when it
has changed. Buttons may be pressed while a cell runs, so what they do runs in threads and what
is shared is locked. That the panel is stale is said by the style sheet alone: an animation that
every update starts anew, and that nobody stops when the kernel is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from paise2nb.core.render import (
    STYLE,
    amount,
    bare_table,
    duration,
    escape,
    in_cell_words,
    link,
    one_line,
)
from paise2nb.notebook.poller import Poller
from paise2nb.views import snapshot as snapshots
from paise2nb.views.snapshot import Snapshot
from paise2nb.views.status import Status

if TYPE_CHECKING:
    from paise2nb.app import App
    from paise2nb.views.jobs import Jobs

REREAD_SECONDS = 5.0  # at the latest: a process that died changes no row
DISPLAY_SECONDS = 10.0  # that a frontend has to say that it shows the panel
CONFIRM_SECONDS = 5.0
SETTLED_SECONDS = 0.8  # a button under the pointer whose job has just changed is not meant

STYLES = STYLE.removesuffix("</style>") + (
    "@keyframes paise2-stale{to{color:var(--jp-ui-font-color3,#999);opacity:.6}}"
    "@keyframes paise2-stale-words{to{max-width:20em}}"
    ".paise2 .updated{animation:paise2-stale .3s linear 5s forwards}"
    ".paise2 .updated::after{content:'· not updating';display:inline-block;max-width:0;"
    "margin-left:.4em;overflow:hidden;white-space:nowrap;vertical-align:bottom;"
    "animation:paise2-stale-words .3s linear 5s forwards}"
    ".paise2-watch{border:1px solid var(--jp-border-color2,rgba(128,128,128,.35));"
    "border-radius:6px;padding:10px 16px 14px;background:var(--jp-layout-color1,transparent);"
    "color:var(--jp-ui-font-color1,inherit);max-width:1100px;overflow:hidden}"
    ".paise2-watch .widget-html-content{line-height:1.45;white-space:normal}"
    ".paise2-watch .widget-box{gap:2px 4px}"
    ".paise2-watch .widget-html{height:auto;min-height:0;margin:0;overflow:visible}"
    ".paise2-watch .widget-html>.widget-html-content{align-self:flex-start;width:100%}"
    ".paise2-watch .widget-html.jupyter-widgets-disconnected::before{display:none}"
    ".paise2 .head{display:flex;flex-wrap:wrap;gap:2px 14px;align-items:baseline}"
    ".paise2 .head b{font-size:1.2em}"
    ".paise2 .tiles{display:flex;flex-wrap:wrap;gap:8px;margin:8px 0}"
    ".paise2 .tile{display:flex;flex-direction:column;min-width:5.2em;padding:5px 12px;"
    "border-radius:5px;background:var(--jp-layout-color2,rgba(128,128,128,.12))}"
    ".paise2 .tile.zero{background:none;opacity:.55}"
    ".paise2 .tile>:last-child{font-size:.85em;opacity:.85}"
    ".paise2-count{font-size:1.6em;line-height:1.25;font-weight:600;"
    "font-variant-numeric:tabular-nums}"
    ".paise2-count[data-state=completed]{color:var(--jp-success-color1,#2e7d32)}"
    ".paise2-count[data-state=failed]{color:var(--jp-error-color1,#c62828)}"
    ".paise2-count[data-state=retrying],.paise2-count[data-state=scheduled]"
    "{color:var(--jp-warn-color0,#b26a00)}"
    ".paise2-count[data-state=running]{color:var(--jp-brand-color1,#1565c0)}"
    ".paise2 .tile.zero .paise2-count{color:inherit;font-weight:400}"
    ".paise2 h4{margin:12px 0 3px;font-size:.85em;font-weight:600;letter-spacing:.04em;"
    "text-transform:uppercase;color:var(--jp-ui-font-color2,inherit)}"
    ".paise2 .facts{display:flex;flex-wrap:wrap;gap:4px 22px;align-items:flex-end}"
    ".paise2 .facts svg{display:block}"
    ".paise2 .problem{border-left:3px solid var(--jp-warn-color1,#b26a00);padding:2px 8px;"
    "margin:4px 0}"
    ".paise2 .entry{overflow-wrap:anywhere;padding:2px 0}"
    ".paise2 .dim{color:var(--jp-ui-font-color2,inherit);opacity:.9}"
    ".paise2 .scroll{overflow-x:auto}"
    ".paise2 code{display:inline-block;font-family:var(--jp-code-font-family,monospace);"
    "font-size:.92em;background:var(--jp-layout-color2,rgba(128,128,128,.12));"
    "padding:1px 4px;border-radius:3px}"
    ".paise2 pre{font-size:.85em;max-height:16em;overflow:auto;"
    "background:var(--jp-layout-color2,rgba(128,128,128,.12));padding:6px 8px;border-radius:4px}"
    ".paise2 summary{cursor:pointer}"
    "</style>"
)


class SubshellWidget:
    """A widget whose messages reach the kernel while a cell runs.

    ipykernel 7.4 hands what a frontend sends to the shell that last published on the comm: where
    that is the main one, a click waits for the cell. Forgetting it, the frontend's choice stands.
    """

    comm: Any

    def open(self) -> None:
        """Open the comm."""
        super().open()  # type: ignore[misc]
        self._forget_shell()

    def _send(self, msg: Any, buffers: Any = None) -> None:
        super()._send(msg, buffers)  # type: ignore[misc]
        self._forget_shell()

    def _forget_shell(self) -> None:
        getattr(self.comm, "__dict__", {}).pop("_reply_subshell_id", None)


class Button(SubshellWidget, widgets.Button):
    """A button that can be pressed at any time."""

    def __init__(self, description: str, pressed: Callable[[], None], tooltip: str = "") -> None:
        super().__init__(
            description=description, tooltip=tooltip, layout=widgets.Layout(width="auto")
        )
        self.on_click(lambda _: pressed())


class Number(SubshellWidget, widgets.BoundedIntText):
    """A number that can be changed at any time."""


# Pieces of HTML ------------------------------------------------------------------------------


def block(*parts: str) -> str:
    """HTML in the panel's style."""
    return f'<div class="paise2">{"".join(parts)}</div>'


def section(title: str, *parts: str) -> str:
    """A titled part of the panel; nothing where it is empty."""
    return block(f"<h4>{escape(title)}</h4>", *parts) if any(parts) else ""


def tiles(counts: Mapping[str, int]) -> str:
    """The number of roots in each state."""
    return "".join(
        f'<div class="tile{"" if number else " zero"}">'
        f'<span class="paise2-count" data-state="{escape(state)}">{number}</span>'
        f"<span>{escape(state)}</span></div>"
        for state, number in counts.items()
    )


def plot(snapshot: Snapshot) -> str:
    """What ended in each of the last minutes, as bars; what failed stands on top."""
    minutes = snapshots.by_minute(snapshot)
    most = max(done + failed for _, done, failed in minutes)
    if not most:
        return ""
    width, height, step = 12 * len(minutes), 34, 12

    def bars(colour: str, spans: Iterable[tuple[int, int]]) -> str:
        return "".join(
            f'<rect x="{number * step}" y="{height - height * (low + size) / most:.1f}"'
            f' width="{step - 3}" height="{height * size / most:.1f}" rx="1.5" fill="{colour}"/>'
            for number, (low, size) in enumerate(spans)
            if size
        )

    return (
        f'<svg width="{width}" height="{height + 1}" viewBox="0 0 {width} {height + 1}" role="img"'
        f' aria-label="ended in each of the last {len(minutes)} minutes">'
        f'<rect x="0" y="{height}" width="{width}" height="1" fill="currentColor" opacity=".25"/>'
        + bars("var(--jp-brand-color1,#1565c0)", ((0, done) for _, done, _ in minutes))
        + bars("var(--jp-error-color1,#c62828)", ((done, lost) for _, done, lost in minutes))
        + "</svg>"
    )


def facts(snapshot: Snapshot, now: float) -> str:
    """Throughput, time left, the oldest that waits."""
    status = snapshot.status
    words = []
    if status.completed_per_minute:
        words.append(f"{amount(round(status.completed_per_minute), 'job')} a minute")
    if snapshot.left:
        words.append(f"left: {snapshot.left}")
    if snapshot.oldest is not None and now - snapshot.oldest >= 1:
        words.append(f"the oldest waits for {duration(round(now - snapshot.oldest))}")
    words.append(amount(status.items, "item"))
    return block(
        f'<div class="facts">{plot(snapshot)}<span>{escape(" · ".join(words))}</span></div>'
    )


def problems(status: Status) -> str:
    """What keeps jobs from running, with what helps."""
    found = (f"paused: {status.paused}" if status.paused else "", status.problem)
    return block(*(f'<div class="problem">{_words(text)}</div>' for text in found if text))


def _words(text: str) -> str:
    return escape(one_line(in_cell_words(text)))


def retry_line(row: Mapping[str, Any], now: float) -> str:
    """One retry: what, which attempt, when, why."""
    return block(
        f'<div class="entry"><span class="soon">{snapshots.countdown(row["due"], now)}</span>'
        f" · {escape(row['attempt'])} · job {row['id']}: {escape(row['task'])}"
        f" {link(row['argument'])}"
        f'<div class="dim">{escape(one_line(row["error"] or "", 200))}</div></div>'
    )


def failure_line(row: Mapping[str, Any]) -> str:
    """One group of failures: how many, what cures them."""
    command = f"<code>{_words(row['command'])}</code>"
    return block(
        f'<div class="entry"><b class="bad">{row["jobs"]:,} × {escape(row["name"])}</b>'
        f" · {_words(row['advice'])} {command}</div>"
    )


def failure_details(row: Mapping[str, Any]) -> str:
    """The last failure of a group, to be opened."""
    opened = link(row["argument"], "Open")
    facts = amount(row["attempts"], "attempt") + (f" · {opened}" if "href" in opened else "")
    traceback = f"<pre>{escape(row['traceback'])}</pre>" if row["traceback"] else ""
    return block(
        f"<details><summary>job {row['id']}: {escape(row['task'])} "
        f"{escape(one_line(row['argument'], 100))}</summary>"
        f'<div class="entry">{escape(one_line(row["error"] or "", 400))}</div>'
        f'<div class="dim">{facts}</div>{traceback}</details>'
    )


def latest(items: Sequence[Mapping[str, Any]]) -> str:
    """The newest items: title, as a link, and how they begin."""
    return section(
        "Latest items",
        *(
            f'<div class="entry">{link(row["url"], row["title"] or row["url"])}'
            f'<div class="dim">{escape(row["snippet"])}</div></div>'
            for row in items
        ),
    )


def fallback(status: Status) -> str:
    """The panel where there is no kernel: counts, which are the same for the same work."""
    lines = (f"<div>{_words(line)}</div>" for line in status.lines())
    return STYLES + block(f'<div class="tiles">{tiles(status.roots)}</div>', *lines)


# The panel -----------------------------------------------------------------------------------


class Place:
    """A line of the panel with buttons, that shows now this job and now that one.

    Args:
        buttons: as they stand behind the text.
    """

    def __init__(self, *buttons: Button) -> None:
        self.text, self.details = widgets.HTML(), widgets.HTML()
        self.text.layout.flex = "1 1 300px"
        row = widgets.Box(
            [self.text, *buttons], layout=widgets.Layout(flex_flow="row wrap", overflow="hidden")
        )
        self.box = widgets.VBox([row, self.details])
        self.row: dict[str, Any] = {}
        self.key: object = None
        self.changed = 0.0
        self.armed = 0.0

    def hold(self, key: object, row: dict[str, Any]) -> None:
        """Show another row, or the same one as it is now."""
        if key != self.key:
            self.changed = 0.0 if self.key is None else time.monotonic()
            self.key, self.armed = key, 0.0
        self.row = row

    @property
    def settled(self) -> bool:
        """Whether it has shown this row, and no other, for long enough to be meant by a click."""
        return time.monotonic() - self.changed >= SETTLED_SECONDS


class Panel(SubshellWidget, widgets.VBox):
    """The dashboard of one app. Display it as often as you like: it is the same panel.

    Args:
        app: what it shows.
        poller: keeps it up to date while it is displayed.
    """

    def __init__(self, app: App, poller: Poller) -> None:
        self.app = app
        self._poller = poller
        self._lock = threading.RLock()
        self._overview: Snapshot | None = None
        self._version = -1
        self._read_at = 0.0
        self._asked = 0.0
        self._doing = ""  # what a thread is at, such as stopping the workers
        self._said = ""
        self._retries: list[Place] = []
        self._failures: list[Place] = []
        names = ("head", "counts", "said", "problems", "facts", "workers", "retrying", "failed")
        self._html = {name: widgets.HTML() for name in (*names, "items", "log")}
        self._start = Button("Start workers", self._on_start, "Start the background workers")
        self._stop = Button("Stop workers", self._on_stop, "Running jobs finish first")
        self._again = Button("Retry failed", self._on_retry, "Every failed job, once more")
        self._refresh = Button("Refresh", self._on_refresh, "Where it does not move by itself")
        self.concurrency = Number(
            value=app.settings.workers.concurrency, min=1, max=1024, description="Concurrency",
            tooltip="Processes of the pool default", style={"description_width": "initial"},
            layout=widgets.Layout(width="150px"),
        )  # fmt: skip
        controls = (self._start, self._stop, self.concurrency, self._again, self._refresh)
        self._retry_box, self._failure_box = widgets.VBox(), widgets.VBox()
        html = self._html
        super().__init__(
            [
                widgets.HTML(STYLES, layout=widgets.Layout(display="none")),
                html["head"], html["counts"],
                widgets.Box(controls, layout=widgets.Layout(flex_flow="row wrap")),
                html["said"], html["problems"], html["facts"], html["workers"],
                html["retrying"], self._retry_box, html["failed"], self._failure_box,
                html["items"], html["log"],
            ],
            _view_count=0,
        )  # fmt: skip
        self.add_class("paise2-watch")
        self.observe(lambda _: poller.look(), "_view_count")
        poller.add(self)
        self.refresh()

    @property
    def displayed(self) -> bool:
        """Whether a frontend shows it, or has been asked to just now."""
        if self.comm is None:
            return False
        return bool(self._view_count) or time.monotonic() - self._asked < DISPLAY_SECONDS

    def close(self) -> None:
        """Let go of the panel and of every widget in it."""
        for widget in _inside(self):
            widget.close()
        super().close()

    def __repr__(self) -> str:
        return repr(self._snapshot.status) if self._overview else "watch"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        self.refresh()
        self._asked = time.monotonic()
        self._poller.look()
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs) or {}
        bundle["text/plain"] = repr(self)
        if self._overview is not None:
            bundle["text/html"] = fallback(self._snapshot.status)
        return bundle

    # Showing ---------------------------------------------------------------------------------

    def refresh(self, *, anew: bool = True) -> None:
        """Show what is true now.

        Args:
            anew: read everything, even where no row has changed.
        """
        with self._lock:
            if self.app.closed:
                self._html["said"].value = block("This app was closed: run the cell again.")
                return
            try:
                snapshot = self._read(anew)
                self._show(snapshot, time.time())
            except Exception as error:  # it is shown here; the thread and the buttons go on
                self._html["problems"].value = block(
                    f'<div class="problem">{_words(str(error) or type(error).__name__)}</div>'
                )

    def _read(self, anew: bool) -> Snapshot:
        now = time.monotonic()
        if not anew:  # called by the poller's thread, whose connection tells what others wrote
            version = self.app.queue.job_store.version()
            anew = version != self._version or now - self._read_at >= REREAD_SECONDS
            self._version = version
        if anew or self._overview is None:
            self._overview, self._read_at = self.app.snapshot(), now
        return self._overview

    def _show(self, snapshot: Snapshot, now: float) -> None:
        status = snapshot.status
        clock = time.strftime("%H:%M:%S", time.localtime(now))
        rows, columns = snapshots.worker_rows(snapshot, now)
        idle = "Jobs run in this process." if status.immediate else "No worker runs."
        doing = self._doing
        if doing and status.jobs["running"] and doing.startswith("stopping"):
            doing += f": {amount(status.jobs['running'], 'running job')} may finish first"
        said = doing + " …" if doing else self._said
        parts = {
            "head": block(
                f'<div class="head"><b>paise2</b> <span>{escape(status.profile)}</span>'
                f'<span class="updated">Updated {clock}</span></div>'
            ),
            "counts": block(f'<div class="tiles">{tiles(status.roots)}</div>'),
            "said": block(f'<div class="note">{_words(said)}</div>') if said else "",
            "problems": problems(status),
            "facts": facts(snapshot, now),
            "workers": section(
                "Workers",
                f'<div class="scroll">{bare_table(rows, columns) if rows else idle}</div>',
            ),
            "retrying": section("Next retries", " " if snapshot.retries else ""),
            "failed": section("Failures", " " if snapshot.failures else ""),
            "items": latest(snapshot.items),
            "log": section(
                "Log",
                "\n".join(map(escape, snapshot.log))
                and (f"<pre>{escape(chr(10).join(snapshot.log))}</pre>"),
            ),
        }
        for name, value in parts.items():
            self._html[name].value = value
        self._again.disabled = not status.jobs["failed"]
        self._start.button_style = "" if status.workers else "primary"
        self._start.disabled = self._stop.disabled = bool(self._doing)
        self._fill_retries(snapshot.retries, now)
        self._fill_failures(snapshot.failures)

    def _fill_retries(self, rows: Sequence[dict[str, Any]], now: float) -> None:
        def place() -> Place:
            made = Place(
                Button("Retry now", lambda: self._move(made, "retry"), "Now instead of later"),
                Button("Cancel", lambda: self._move(made, "cancel"), "Out of the queue"),
            )
            return made

        for place_, row in _placed(self._retries, self._retry_box, rows, "id", place):
            place_.text.value = retry_line(row, now)

    def _fill_failures(self, rows: Sequence[dict[str, Any]]) -> None:
        def place() -> Place:
            made = Place(
                Button("Retry", lambda: self._move(made, "retry"), "The job that is shown below"),
                Button("Retry all", lambda: self._retry_all(made), "Every job of this group"),
            )
            return made

        for place_, row in _placed(self._failures, self._failure_box, rows, "group", place):
            place_.text.value = failure_line(row)
            place_.details.value = failure_details(row)
            every = place_.box.children[0].children[2]
            armed = time.monotonic() < place_.armed
            every.description = ("Really retry {:,}?" if armed else "Retry all {:,}").format(
                row["jobs"]
            )
            every.button_style = "warning" if armed else ""
            every.layout.display = "none" if row["jobs"] == 1 else ""

    # Buttons ---------------------------------------------------------------------------------

    def _act(self, words: str, work: Callable[[], str]) -> None:
        """Do something that may take a while; the panel stays alive and says how it went."""

        def run() -> None:
            try:
                said = work()
            except Exception as error:
                said = str(error) or type(error).__name__
            with self._lock:
                self._doing, self._said = "", said
            self._poller.look()

        with self._lock:
            if self._doing:
                return
            self._doing = words
            self.refresh()
        threading.Thread(target=run, name=f"paise2 {words}", daemon=True).start()

    def _on_start(self) -> None:
        def start() -> str:
            found = self.app.workers.start(concurrency=self.concurrency.value)
            running = sum(worker["pool"] == "default" for worker in found.workers)
            said = found.message or ""
            if running != self.concurrency.value and said.endswith("already running"):
                said += "; stop them to change their number"
            return said

        self._act("starting workers", start)

    def _on_stop(self) -> None:
        self._act("stopping workers", lambda: self.app.workers.stop().message or "stopped")

    def _on_refresh(self) -> None:
        """Show what is true now, and send again what a frontend has not taken from a thread."""
        self.refresh()
        for widget in _inside(self):
            if isinstance(widget, widgets.HTML | Button):
                widget.send_state()

    def _on_retry(self) -> None:
        self._again_with(lambda: self.app.jobs(state="failed"))

    def _again_with(self, chosen: Callable[[], Jobs]) -> None:
        self._act("retrying", lambda: f"{amount(len(chosen().retry()), 'job')} back in the queue")

    def _move(self, place: Place, verb: str) -> None:
        if not place.settled:
            return
        job = self.app.job(place.row["id"])
        moved = "back in the queue" if verb == "retry" else "cancelled"
        self._act(verb, lambda: f"{amount(len(getattr(job, verb)()), 'job')} {moved}")

    def _retry_all(self, place: Place) -> None:
        if not place.settled:
            return
        if time.monotonic() >= place.armed:
            place.armed = time.monotonic() + CONFIRM_SECONDS
            self.refresh(anew=True)
            return
        place.armed = 0.0
        word, status = place.row["error_class"], place.row["status"]

        def chosen() -> Jobs:
            found = self.app.jobs(state="failed", error=word)
            if status is not None:
                rows = found.to_dicts()
                found = self.app.jobs(*(r["id"] for r in rows if r["error"].startswith(status)))
            return found

        self._again_with(chosen)


def _inside(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    """Every widget below one, its layouts and styles too."""
    for name in ("layout", "style"):
        if widget.has_trait(name):
            yield getattr(widget, name)
    for child in getattr(widget, "children", ()):
        yield from _inside(child)
        yield child


def _placed(
    places: list[Place],
    box: widgets.VBox,
    rows: Sequence[dict[str, Any]],
    key: str,
    make: Callable[[], Place],
) -> list[tuple[Place, dict[str, Any]]]:
    """A place for each row, the one that it has had if it was there before."""
    while len(places) < len(rows):
        places.append(make())
    free = [place for place in places if place.key not in [row[key] for row in rows]]
    known = {place.key: place for place in places}
    placed = [(known.get(row[key]) or free.pop(0), row) for row in rows]
    for place, row in placed:
        place.hold(row[key], row)
    children = tuple(place.box for place, _ in placed)
    if children != box.children:
        box.children = children
    return placed


# One for each app ----------------------------------------------------------------------------

_poller = Poller()
_panels: dict[App, Panel] = {}


def panel_of(app: App) -> Panel:
    """The panel of an app, made when first asked for."""
    for known, panel in list(_panels.items()):
        if known.closed or panel.comm is None:
            panel.close()
            del _panels[known]
    if app not in _panels:
        _panels[app] = Panel(app, _poller)
    return _panels[app]


def close_panels() -> None:
    """End the thread and take the panels away."""
    global _poller
    _poller.stop()
    _poller = Poller()
    while _panels:
        _panels.popitem()[1].close()


__all__ = ["Panel", "close_panels", "panel_of"]
