"""Text from strangers: into cells of a fixed width, as a terminal counts columns, and numbers.

Every name, path and message that is drawn goes through `shown` or `fit`. No markup is parsed
anywhere in the app: what is drawn is plain text beside a tone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from rich.cells import cell_len

from ckptdiff.report.escape import printable

Align = Literal["left", "right"]
# A run of text and the name of the tone that it is drawn in ("" for the widget's own).
Piece = tuple[str, str]
Line = Sequence[Piece]

# Flags are pairs of letters and skin tones follow a hand: terminals disagree on how many
# columns such a sequence takes, so each of its parts is spelled.
_JOINING = re.compile("[\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff]")
_ANEW = re.compile(r"_v\d+$")
_TOKENS = re.compile(r"[^_\-./]+|[_\-./]")


def shown(text: str) -> str:
    """`text` with everything spelled that is invisible or of a width that nobody agrees on."""
    if text.isascii():
        return text if text.isprintable() else printable(text)
    return _JOINING.sub(lambda found: f"\\U{ord(found[0]):08x}", printable(text))


def fit(text: str, columns: int, align: Align = "left") -> str:
    """`text` in exactly `columns` columns: padded, or with its middle left out.

    Ends matter: schemes of a sweep begin alike and differ behind.
    """
    text = shown(text)
    width = len(text) if text.isascii() else cell_len(text)
    if width > columns:
        text = elided(text, columns)
        width = cell_len(text)
    pad = " " * (columns - width)
    return pad + text if align == "right" else text + pad


def fit_end(text: str, columns: int) -> str:
    """As `fit`, with the front left out: of a module's name the end says most."""
    text = shown(text)
    if cell_len(text) <= columns:
        return fit(text, columns)
    return fit("…" + _start(text[::-1], columns - 1)[::-1], columns)


def elided(text: str, columns: int) -> str:
    """Printable text in at most `columns` columns, a third of them in front of the gap."""
    if columns < 1:
        return ""
    head = _start(text, (columns - 1) // 3)
    tail = _start(text[::-1], columns - 1 - cell_len(head))[::-1]
    # An accent whose letter fell into the gap would sit on the gap.
    while tail and cell_len(tail[0]) == 0:
        tail = tail[1:]
    return f"{head}…{tail}"


def _start(text: str, columns: int) -> str:
    """As many whole characters from the start of `text` as fit."""
    if text.isascii():
        return text[:columns]
    used = 0
    for position, char in enumerate(text):
        used += cell_len(char)
        if used > columns:
            return text[:position]
    return text


def wrapped(text: str, columns: int) -> list[str]:
    """Lines of at most `columns` columns, broken at spaces where there are any."""
    lines, line = [], ""
    for word in shown(text).split(" "):
        while cell_len(word) > columns:
            room = columns - cell_len(line) - bool(line)
            if room < columns // 2:
                lines.append(line)
                line, room = "", columns
            part = _start(word, room) or word[:1]
            lines.append(f"{line} {part}" if line else part)
            line, word = "", word[len(part) :]
        if line and cell_len(line) + 1 + cell_len(word) > columns:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line] if line or not lines else lines


def clipped(lines: list[Line], rows: int, columns: int) -> list[Line]:
    """The first `rows` lines of at most `columns` columns; where there are more, an ellipsis
    ends the last of them."""
    if len(lines) <= rows:
        return lines
    *front, (text, tone) = lines[rows - 1]
    room = columns - 1 - sum(cell_len(part) for part, _ in front)
    return [*lines[: rows - 1], [*front, (f"{_start(text, room).rstrip()}…", tone)]]


def texts(text: str, width: int, tone: str = "", indent: str = "") -> list[Line]:
    """Lines of at most `width` columns, all behind `indent`."""
    return [[(indent + line, tone)] for line in wrapped(text, max(16, width - len(indent)))]


def fields(pairs: Iterable[tuple[str, str]], width: int, tone: str = "") -> list[Line]:
    """Labels in a column of their own, values wrapped beside them."""
    pairs = [(shown(label), value) for label, value in pairs]
    column = min(14, max((len(label) for label, _ in pairs), default=0)) + 2
    lines: list[Line] = []
    for label, value in pairs:
        first, *rest = wrapped(value, max(16, width - column - 2))
        lines.append([(f"  {label:<{column - 1}} ", "dim"), (first, tone)])
        lines += [[(" " * (column + 2) + line, tone)] for line in rest]
    return lines


def short_names(names: Sequence[str]) -> list[str]:
    """The names without the tokens that all of them begin and end with; what marks the one that
    was written anew stays behind.

    >>> short_names(["fp8_top10_coco", "fp8_top10_coco_v2", "fp8_top100_coco"])
    ['top10', 'top10_v2', 'top100']
    """
    if len(names) < 2:
        return [name.rpartition("/")[2] or name for name in names]
    stems = [_ANEW.sub("", name) for name in names]
    marks = [name.removeprefix(stem) for name, stem in zip(names, stems, strict=True)]
    if len(set(stems)) > 1 and len(set(marks)) > 1:
        return [short + mark for short, mark in zip(short_names(stems), marks, strict=True)]
    split = [_TOKENS.findall(name) for name in names]
    front = _alike(split)
    back = _alike([tokens[front:][::-1] for tokens in split])
    short = ["".join(tokens[front : len(tokens) - back]).strip("_-./") for tokens in split]
    return short if all(short) and len(set(short)) == len(set(names)) else list(names)


def labels(ids: Sequence[str], base: str | None) -> dict[str, str]:
    """A short name for each scheme, and "base" for the base, should it be among them."""
    schemes = [id for id in ids if id != base]
    return {
        **dict(zip(schemes, short_names(schemes), strict=True)),
        **({base: "base"} if base else {}),
    }


def told_apart(id: str, label: str, columns: int) -> str:
    """A scheme's id in exactly `columns` columns, so that what tells it apart stays in it."""
    text = shown(id)
    if cell_len(text) <= columns:
        return fit(text, columns)
    label = shown(label)
    if (start := text.find(_ANEW.sub("", label))) > 0:
        whole, text = text, f"…{text[start:]}"
        if cell_len(text) > columns > cell_len(label) + 1:
            # What was left out of a label may be in its middle.
            text = _start(text, columns - 1) + "…" if label in whole else label
    return fit(text, columns)


def _alike(rows: Sequence[Sequence[str]]) -> int:
    """How many tokens all rows begin with."""
    return next(
        (n for n, tokens in enumerate(zip(*rows, strict=False)) if len(set(tokens)) > 1),
        min(map(len, rows)),
    )


def whole_number(text: str, least: int | None = None) -> int | None:
    """A number that somebody typed, None for nothing. Raises `ValueError` for any other text and
    for a number below `least`."""
    if not text:
        return None
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text) or (least is not None and int(text) < least):
        wanted = "no whole number" if least is None else f"no number of {least} or more"
        raise ValueError(f"{text} is {wanted}")
    return int(text)
