"""The command that prints the rows that a filter leaves, should the command line have one.

Whether an option picks just the rows on screen is not assumed but counted. The words for whole
reports are the table of actions' and must not move in here.
"""

from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase
from glob import escape

from ckptdiff.records.delta import SHOWN_ROWS, UNSHOWN
from ckptdiff.tui.actions import Words, shown_words
from ckptdiff.tui.filters import TEXT
from ckptdiff.tui.state import State
from ckptdiff.tui.store import Store

# Columns of Diff as `--sort` calls them, and whether the largest comes first.
_SORTS = {"rel_error": ("error", True), "max_abs": ("max", True), "changed": ("changed", True),
          "tensor": ("name", False)}  # fmt: skip


def view_words(state: State, store: Store | None) -> tuple[Words | None, str]:
    """The command that prints what is on screen, and in what it is not quite that ("" when it
    is). None where no command shows the mode."""
    words = shown_words(state)
    if words is None or store is None:
        return words, ""
    if state.mode == "diff":
        return _diff(words, store)
    if not store.filter.terms:
        return words, ""
    more = _layers(store) if state.mode == "layers" else None
    return (words, "the whole report") if more is None else ((*words, *more), "")


def _layers(store: Store) -> Words | None:
    """Options for the filter of Layers, None when there are none."""
    pattern = _pattern(store)
    status = store.facets["status"]
    narrowed = any(term.field == "status" for term in store.filter.terms)
    rows = [
        row
        for row, name in enumerate(store.keys)
        if (pattern is None or fnmatchcase(name, pattern))
        and not (narrowed and status[row] != "mismatch")
    ]
    if set(rows) != set(store.view):
        return None
    modules = () if pattern is None else ("--modules", pattern)
    return (*modules, *(("--mismatches",) if narrowed else ()))


def _diff(words: Words, store: Store) -> tuple[Words, str]:
    """Options for the filter, the rows and the order of Diff."""
    pattern = _pattern(store)
    status = store.facets["status"]
    matching = [
        row for row, name in enumerate(store.keys) if pattern is None or fnmatchcase(name, pattern)
    ]
    shown = Counter(status[row] for row in store.view)
    if not shown or set(store.view) != {row for row in matching if status[row] in shown}:
        return words, "the whole report"
    options = [] if pattern is None else ["--tensors", pattern]
    # As they came is the order of errors as well.
    sort, falls = _SORTS.get(store.sorted_by or "rel_error", ("", False))
    ordered = bool(sort) and (store.sorted_by is None or falls == store.descending)
    if ordered and sort != "error":
        options += ["--sort", sort]
    if len(store) > SHOWN_ROWS:  # which counts kinds of rows by themselves: never fewer than that
        options += ["--limit", str(len(store))]
    if UNSHOWN in shown or set(shown) != {status[row] for row in matching}:
        options += [word for name in sorted(shown) for word in ("--only", name)]
    return (*words, *options), "" if ordered else "in the order of errors"


def _pattern(store: Store) -> str | None:
    """The words of the filter as a pattern for names; None without any."""
    found = [
        escape(term.needle)
        for term in store.filter.terms
        if term.field == TEXT and not term.inverted
    ]
    return "*" + "*".join(found) + "*" if found else None
