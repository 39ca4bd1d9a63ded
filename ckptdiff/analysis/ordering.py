"""How schemes are ordered wherever they are listed."""

from __future__ import annotations

import re


def natural(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key under which top10 comes before top100 and after top9.

    >>> sorted(["top100", "top10", "top9"], key=natural)
    ['top9', 'top10', 'top100']
    """
    parts = re.findall(r"[0-9]{1,18}|[^0-9]+", name)
    return tuple((0, int(p)) if p.isdecimal() else (1, p) for p in parts)
