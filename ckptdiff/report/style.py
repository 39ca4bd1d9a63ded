"""Colour for terminals, as an addition: every colour stands beside a word that says it."""

from __future__ import annotations

_CODES = {"error": "31;1", "warning": "33", "info": "36", "ok": "32", "dim": "2", "bold": "1"}


def paint(text: str, style: str, color: bool) -> str:
    """`text` in a named style, or as it is when colour is off or the style unknown."""
    code = _CODES.get(style)
    return f"\x1b[{code}m{text}\x1b[0m" if color and code else text


def human_bytes(count: float) -> str:
    """Bytes in decimal units, three digits at most: 1.12 MB, 12.3 GB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    if unit == "B":
        return f"{count:.0f} B"
    digits = 2 if count < 10 else 1 if count < 100 else 0
    return f"{count:.{digits}f} {unit}"
