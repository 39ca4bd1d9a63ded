"""Makes text from strangers harmless to look at: names and messages hold what they like."""

from __future__ import annotations

import unicodedata

# Control, format (bidirectional overrides, zero width), surrogate, private, unassigned,
# line and paragraph separators: nothing that changes how the rest of a line is shown.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))


def printable(text: str) -> str:
    """`text` with everything that is not plainly visible spelled as an escape.

    >>> printable("top10\\x1b[2J")
    'top10\\\\x1b[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spell(char) for char in text)


def _spell(char: str) -> str:
    if unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def width(text: str) -> int:
    """Terminal columns that printable text takes: wide characters count twice."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def fit(text: str, columns: int) -> str:
    """`text` in exactly `columns` columns: padded, or with its middle left out.

    Ends matter: schemes of a sweep begin alike and differ behind.
    """
    text = printable(text)
    if width(text) <= columns:
        return text + " " * (columns - width(text))
    head, tail = "", ""
    front, back = list(text), list(reversed(text))
    # One third in front, the rest behind, as far as whole characters fit.
    while front and width(head + front[0]) <= (columns - 1) // 3:
        head += front.pop(0)
    while back and width(head + tail + back[0]) <= columns - 1:
        tail = back.pop(0) + tail
    text = f"{head}…{tail}"
    return text + " " * (columns - width(text))
