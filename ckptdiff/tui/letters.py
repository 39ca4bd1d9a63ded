"""Which schemes are the same, while others are still hashed: a square of what is known by now.

The shares of bytes, which take every digest, are the business of the tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ckptdiff.tui.store import Column, Computed, Store
from ckptdiff.tui.tables import CELL
from ckptdiff.tui.text import Line, fit, labels, told_apart

if TYPE_CHECKING:
    from ckptdiff.records.report import IdentityRow


def letters_store(ids: Sequence[str], identity: Sequence[IdentityRow]) -> Store:
    """Scheme x scheme while tensors are hashed: the same (=100), not the same (≠), or not known
    yet (…)."""
    short = labels(ids, None)
    letters = {id: group.letter for group in identity for id in group.schemes}

    def cell(row: int, column: int) -> tuple[str, str]:
        one, other = letters.get(ids[row]), letters.get(ids[column])
        if row == column:
            return "·", "dim"
        if one is None or other is None:
            return "…", "dim"
        return ("=100", "warning") if one == other else ("≠", "")

    def column_of(column: int) -> Column:
        title = short[ids[column]]
        width = max(CELL, min(12, len(title) + 1))
        texts = Computed(len(ids), lambda row: cell(row, column)[0])
        return Column(ids[column], title, texts, width, "right",
                      tone=lambda row: cell(row, column)[1])  # fmt: skip

    def name(row: int, width: int) -> Line:
        letter = fit(letters.get(ids[row], "…"), 3)
        return [(letter, "bold"), (told_apart(ids[row], short[ids[row]], width - 3), "")]

    first = Column("scheme", "id scheme", ids, as_given=True, most=60, paint=name)
    groups = Counter(letters.values())
    words = ["identical" if groups[letters.get(id, "")] > 1 else "distinct" for id in ids]
    return Store((first, *map(column_of, range(len(ids)))), ids, {"status": words})
