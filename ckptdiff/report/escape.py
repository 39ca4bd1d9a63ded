"""Makes text from strangers harmless to look at: names and messages hold what they like."""

from __future__ import annotations

import unicodedata

# Control, format (bidirectional overrides, zero width), surrogate, private, unassigned,
# line and paragraph separators: nothing that changes how the rest of a line is shown.
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Me"))
# Letters and marks that Unicode says to show as nothing.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0") | {
    chr(code) for code in (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
# More accents on one letter than any language has would climb over other lines.
_ACCENTS = 2


def printable(text: str) -> str:
    """`text` with everything that is not plainly visible spelled as an escape.

    >>> printable("top10\\x1b[2J")
    'top10\\\\x1b[2J'
    """
    if text.isascii() and text.isprintable():
        return text
    shown, accents = [], 0
    for char in text:
        accents = accents + 1 if unicodedata.combining(char) else 0
        shown.append(_spell(char, hidden=accents > _ACCENTS))
    return "".join(shown)


def _spell(char: str, hidden: bool) -> str:
    if not hidden and char not in _BLANK and unicodedata.category(char) not in _HIDDEN:
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
