"""Columns of plain values, and a view of them: which rows are shown, and in which order.

No widget and no app in here: a hundred thousand rows are filtered and sorted as lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, overload

from ckptdiff.tui.filters import TEXT, Filter
from ckptdiff.tui.text import Align, Line

Value = str | float | None


class Computed(Sequence[Value]):
    """Values that are worked out when they are looked at: a square of a thousand schemes has a
    million of them."""

    def __init__(self, count: int, value: Callable[[int], Value]) -> None:
        self._count, self._value = count, value

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> Value: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Value]: ...
    def __getitem__(self, row: int | slice) -> Value | Sequence[Value]:
        if isinstance(row, slice):
            return [self._value(n) for n in range(self._count)[row]]
        return self._value(range(self._count)[row])


class Column(NamedTuple):
    """One column. `values` are what is sorted by and, through `text`, what is shown.

    `width` None: at least `least` and at most `most` columns of what is left over. `tone` names
    the tone of a row's cell, `faults` are the rows that somebody looks for in it; `paint(row,
    width)`, when given, draws the cell in exactly `width` columns. Values `as_given` are in
    order already, so that sorting keeps it. `wide_only` columns need a wide screen.
    """

    name: str
    title: str
    values: Sequence[Value]
    width: int | None = None
    align: Align = "left"
    text: Callable[[Value], str] = str
    tone: Callable[[int], str] | None = None
    faults: frozenset[int] | None = None
    paint: Callable[[int, int], Line] | None = None
    as_given: bool = False
    wide_only: bool = False
    most: int = 60
    least: int = 14


@dataclass(slots=True)
class Store:
    """Rows behind a grid. `keys` tell rows apart when the data is replaced by newer data;
    `facets` are the words of each row under the fields of a filter."""

    columns: tuple[Column, ...]
    keys: Sequence[str]
    facets: Mapping[str, Sequence[str]] = field(default_factory=dict)
    view: list[int] = field(init=False)
    sorted_by: str | None = None
    descending: bool = False
    filter: Filter = field(default_factory=Filter)
    _order: list[int] = field(init=False)
    _folded: dict[str, list[str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._order = list(range(len(self.keys)))
        self.view = self._order

    @property
    def total(self) -> int:
        return len(self.keys)

    def __len__(self) -> int:
        return len(self.view)

    def column(self, name: str) -> Column:
        """Raises `KeyError` for a name that no column has."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def sort(self, name: str | None, descending: bool = False) -> None:
        """Order rows by a column, None: as they came. Rows without a value come last."""
        self.sorted_by, self.descending = name, descending
        rows = range(len(self.keys))
        if name is None:
            self._order = list(rows)
        else:
            column = self.column(name)
            if column.as_given:
                self._order = list(reversed(rows)) if descending else list(rows)
            else:
                self._order = _sorted(column.values, descending)
        self._apply()

    def narrow(self, wanted: Filter) -> None:
        """Show only rows for which the filter holds."""
        self.filter = wanted
        self._apply()

    def row_of(self, key: str) -> int | None:
        """The position in the view of the row with this key, None when it is not shown."""
        try:
            row = self.keys.index(key)
        except ValueError:
            return None
        return self.view.index(row) if row in self.view else None

    def _apply(self) -> None:
        rows = self._order
        for term in self.filter.terms:
            folded = self._fold(term.field)
            # A field's words stand behind a space each, so that a match begins a word.
            needle = term.needle if term.field == TEXT else f" {term.needle}"
            if term.inverted:
                rows = [row for row in rows if needle not in folded[row]]
            else:
                rows = [row for row in rows if needle in folded[row]]
        self.view = rows

    def _fold(self, name: str) -> list[str]:
        if name not in self._folded:
            words = self.facets.get(name, self.keys if name == TEXT else [""] * self.total)
            space = "" if name == TEXT else " "
            self._folded[name] = [f"{space}{text.casefold()}" for text in words]
        return self._folded[name]


def _sorted(values: Sequence[Value], descending: bool) -> list[int]:
    """Rows by value; those without one (None, NaN) last in either direction."""
    present = [row for row, value in enumerate(values) if value is not None and value == value]
    absent = [row for row, value in enumerate(values) if value is None or value != value]
    present.sort(key=values.__getitem__, reverse=descending)  # type: ignore[arg-type]
    return present + absent
