"""The filter language: words that must be in a row, `field:word`, and `!` in front of either.

Fields are those that the rows have (`dtype:`, `rule:`, `status:`); a field's word must begin
one of the row's words there, plain text may stand anywhere in its name.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

TEXT = "text"


class Term(NamedTuple):
    """One condition. `needle` is casefolded; `field` is "text" for a plain word."""

    field: str
    needle: str
    inverted: bool = False


class Filter(NamedTuple):
    """All of `terms` must hold. `unknown` are fields that the rows do not have."""

    terms: tuple[Term, ...] = ()
    unknown: tuple[str, ...] = ()


def parse(text: str, fields: Collection[str]) -> Filter:
    """The filter that somebody typed. A word with a colon is plain text unless what stands
    before the colon is all letters, as in a field.

    >>> parse("!status:ok", ["status"]).terms
    (Term(field='status', needle='ok', inverted=True),)
    """
    terms, unknown = [], []
    for word in text.split():
        inverted = word.startswith("!")
        word = word[inverted:]
        field, colon, needle = word.partition(":")
        if not colon or not field.isalpha():
            field, needle = TEXT, word
        elif field.casefold() not in fields:
            unknown.append(field)
            continue
        if needle:  # "status:" while somebody is still typing says nothing yet
            terms.append(Term(field.casefold(), needle.casefold(), inverted))
    return Filter(tuple(terms), tuple(unknown))


def count_text(shown: int, total: int) -> str:
    """How much of it is shown.

    >>> count_text(312, 48120)
    '312 of 48,120'
    """
    return f"{shown:,} of {total:,}"
