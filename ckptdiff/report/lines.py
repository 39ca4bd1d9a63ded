"""Lines of 80 columns, and the parts that several text reports have in common."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.report import BaseRow
from ckptdiff.records.sweep import PassedOver
from ckptdiff.report.escape import printable, width
from ckptdiff.report.style import paint

COLUMNS = 80
# A list shows this many items; the count and the JSON have the rest.
SHOWN = 5
# A name may be as long as a file. No scheme and no tensor that anybody named is, and wrapping
# takes time by the square of a word's length.
_LONG_WORD = re.compile(r"\S{400,}")
_LONGEST = 20_000


def wrap(text: str, indent: str, further: str | None = None) -> list[str]:
    """Printable lines of at most `COLUMNS` columns, the first behind `indent`."""
    text = _LONG_WORD.sub(lambda word: f"{word[0][:200]}…{word[0][-60:]}", text)
    text = printable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
    # textwrap counts characters: one that takes two columns gets a second, taken out again.
    spaced = "".join(f"{char}\0" if width(char) == 2 else char for char in text)
    lines = textwrap.wrap(
        spaced,
        COLUMNS if spaced == text else COLUMNS - 1,
        initial_indent=indent,
        subsequent_indent=indent if further is None else further,
        break_on_hyphens=False,
    )
    return [line.replace("\0", "") for line in lines] or [indent]


def command_lines(command: str, label: str) -> Iterator[str]:
    """A command line behind `label`, as a shell takes it: lines end in a backslash."""
    line, started = label, False
    for word in map(shlex.quote, shlex.split(command)):
        word = printable(word)
        if started and width(line) + width(word) + 3 > COLUMNS:
            yield f"{line} \\"
            line = f"{' ' * (len(label) + 3)} {word}"
        else:
            line, started = f"{line} {word}", True
    yield line


def verdict_lines(word: str, style: str, sentence: str, color: bool) -> list[str]:
    """The first sentence of a report behind its word.

    Further lines are indented: names are chosen by strangers, and must not be able to begin a
    line of their own.
    """
    lines = wrap(f"{word}: {sentence}", "", "    ")
    lines[0] = paint(word, style, color) + lines[0].removeprefix(word)
    return lines


def base_line(base: BaseRow | None, why_not: str = "") -> Iterator[str]:
    """Which base was used, or why none was."""
    if base is not None:
        yield from wrap(f"base: {base.id} (found by {base.found_by})", "", "  ")
    else:
        yield from wrap(f"base: none ({why_not})" if why_not else "base: none found", "", "  ")


def unread_lines(unread: Sequence[Unread], color: bool) -> Iterator[str]:
    """What could not be looked at."""
    if unread:
        yield ""
        yield paint("not read", "warning", color)
        for item in unread:
            yield from wrap(f"{item.path}: {item.reason}", "  ", "    ")


def passed_over_lines(items: Iterable[PassedOver]) -> Iterator[str]:
    """What was seen and deliberately not judged, by reason."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for item in items:
        grouped[item.reason].append(item.path)
    if not grouped:
        return
    yield ""
    yield "passed over"
    for reason, paths in grouped.items():
        shown = ", ".join(paths[:SHOWN])
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        yield from wrap(f"{reason}: {shown}{more}", "  ", "    ")
