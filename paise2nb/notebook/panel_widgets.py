"""The widgets of the panel: buttons that answer while a cell runs, and rows with buttons."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import ipywidgets as widgets
from ipywidgets.widgets.widget_string import HTMLStyle

from paise2nb.notebook import panel_html as html
from paise2nb.views.snapshot import more

SETTLED_SECONDS = 0.8  # a row that changed less than this before a click ignores the click

# Its name, its tooltip, and what a click does with the row.
RowButton: TypeAlias = "tuple[str, str, Callable[[Row], None]]"


class SubshellWidget:
    """A widget whose messages reach the kernel while a cell runs.

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


class Look:
    """The layouts and styles that the widgets of one panel share, because each is sent, too."""

    def __init__(self) -> None:
        self.html, self.html_style = widgets.Layout(), HTMLStyle()
        self.row_text = widgets.Layout(flex="1 1 300px")
        self.button, self.button_style = widgets.Layout(width="auto"), widgets.ButtonStyle()
        self.hidden = widgets.Layout(display="none")
        self.line = widgets.Layout(flex_flow="row wrap", overflow="hidden")
        self.box = widgets.Layout()

    def text(self, layout: widgets.Layout | None = None) -> widgets.HTML:
        """Make a piece of HTML."""
        return widgets.HTML(layout=layout or self.html, style=self.html_style)


class Button(SubshellWidget, widgets.Button):
    """A button that can be pressed at any time."""

    def __init__(
        self, look: Look, description: str, pressed: Callable[[], None], tooltip: str = ""
    ) -> None:
        shared = {"layout": look.button, "style": look.button_style}
        super().__init__(description=description, tooltip=tooltip, **shared)
        self.on_click(lambda _: pressed())


class Number(SubshellWidget, widgets.BoundedIntText):
    """A number that can be changed at any time."""


class Row:
    """A row of the panel with buttons; a refresh may make it show another entry.

    Args:
        look: shared with the other widgets.
        buttons: the buttons, from left to right.
    """

    def __init__(self, look: Look, *buttons: RowButton) -> None:
        self.text, self.details = look.text(look.row_text), look.text()
        self.buttons = [
            Button(look, name, partial(self._press, act), tip) for name, tip, act in buttons
        ]
        line = widgets.Box([self.text, *self.buttons], layout=look.line)
        self.box = widgets.VBox([line, self.details], layout=look.box)
        self.entry: dict[str, Any] = {}
        self.key: object = None
        self.changed_at = 0.0
        self.confirm_until = 0.0

    def show(self, key: object, entry: dict[str, Any]) -> None:
        """Take another entry, or a new state of the same one."""
        if key != self.key:
            self.changed_at = 0.0 if self.key is None else time.monotonic()
            self.key, self.confirm_until = key, 0.0
        self.entry = entry

    def _press(self, act: Callable[[Row], None]) -> None:
        if self.settled:
            act(self)

    @property
    def settled(self) -> bool:
        """Whether it has shown this entry long enough for a click to be meant for it."""
        return time.monotonic() - self.changed_at >= SETTLED_SECONDS


class RowGroup:
    """A title, and rows for a list of entries. An entry keeps its row while it is listed.

    Args:
        look: shared with the other widgets.
        title: shown unless the list is empty.
        key: the key of an entry's identity.
        buttons: the buttons of each row.
    """

    def __init__(self, look: Look, title: str, key: str, *buttons: RowButton) -> None:
        self.rows: list[Row] = []
        self.title, self.box = look.text(), widgets.VBox(layout=look.box)
        self._look = look
        self._title = title
        self._key = key
        self._buttons = buttons

    def show(self, entries: Sequence[dict[str, Any]], total: int) -> list[Row]:
        """Show the first of all entries, and return their rows in the same order."""
        while len(self.rows) < len(entries):
            self.rows.append(Row(self._look, *self._buttons))
        keys = [entry[self._key] for entry in entries]
        known = {row.key: row for row in self.rows}
        free = [row for row in self.rows if row.key not in keys]
        shown = [known.get(key) or free.pop(0) for key in keys]
        for row, key, entry in zip(shown, keys, entries, strict=True):
            row.show(key, entry)
        title = " · ".join([self._title, *more(entries, total)])
        self.title.value = html.block(html.heading(title)) if entries else ""
        children = tuple(row.box for row in shown)
        if children != self.box.children:
            self.box.children = children
        return shown


def inside(widget: widgets.Widget) -> Iterator[widgets.Widget]:
    """Yield every widget below one, with its layouts and styles."""
    for name in ("layout", "style"):
        if widget.has_trait(name):
            yield getattr(widget, name)
    for child in getattr(widget, "children", ()):
        yield from inside(child)
        yield child
