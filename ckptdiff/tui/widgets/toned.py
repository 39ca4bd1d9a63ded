"""Lines of plain text in named tones: the base of every widget of the app.

A tone is a component class, so that `app.tcss` alone says what it looks like in which theme. The
app has them, not each widget: Textual works out every class of every widget whenever it applies
styles, which was half of the time to the first frame. Text is never parsed for markup.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from ckptdiff.tui.text import Line

TONES = (
    "dim", "bold", "error", "warning", "ok", "info", "accent", "title", "active", "key",
    "header", "cursor", "cell", "blur", "mark", "conflict", "heat1", "heat2", "heat3", "heat4",
    "fp8", "int8", "fourbit", "half", "full", "other", "verdict-fail", "verdict-pass",
    "verdict-open",
)  # fmt: skip
# The `COMPONENT_CLASSES` of an app that shows such widgets.
TONE_CLASSES = frozenset(f"tone--{tone}" for tone in TONES)


class Toned(Widget):
    """A widget whose lines are made of (text, tone) pieces."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._styles: dict[tuple[str, str], Style] = {}

    def notify_style_update(self) -> None:
        """The theme or the place changed: what was worked out for tones holds no more."""
        self._styles.clear()
        super().notify_style_update()

    def tone(self, under: str, name: str = "") -> Style:
        """The style of a tone over another one; unknown ones are a mistake (KeyError)."""
        style = self._styles.get((under, name))
        if style is None:
            style = self.rich_style
            for part in (under, name):
                if part:
                    style += self.app.get_component_styles(f"tone--{part}").partial_rich_style
            self._styles[under, name] = style
        return style

    def strip(self, line: Line, width: int, under: str = "", edge: Line = ()) -> Strip:
        """`line` in exactly `width` columns over the tone `under`, and `edge` behind it.

        Strips are dear, segments less so: there is one strip, and neighbours in one tone are
        one segment.
        """
        segments: list[Segment] = []
        used = 0
        text, last = "", ""
        for part, tone in line:
            used += len(part) if part.isascii() else cell_len(part)
            if tone == last:
                text += part
                continue
            if text:
                segments.append(Segment(text, self.tone(under, last)))
            text, last = part, tone
        if last == "" and used <= width:
            text += " " * (width - used)
        if text:
            segments.append(Segment(text, self.tone(under, last)))
        if last != "" and used < width:
            segments.append(Segment(" " * (width - used), self.tone(under)))
        if used > width:
            segments = list(Strip(segments, used).crop(0, width))
        for part, tone in edge:
            segments.append(Segment(part, self.tone("", tone)))
            width += cell_len(part)
        return Strip(segments, width)
