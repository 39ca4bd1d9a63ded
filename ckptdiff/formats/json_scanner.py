"""Reads the JSON of a header exactly: from left to right, without recursion, every fault noted.

It is made for hostile bytes and knows nothing of what a header has to say: which keys there are,
and what their values mean, is `safetensors_defects`' to tell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NoReturn

from ckptdiff.formats.dtypes import PREFIX
from ckptdiff.records.checkpoint import Defect

MAX_DEFECTS = 1_000
"""Defects that are reported of one file: a hostile header can hold tens of millions."""

MAX_DEPTH = 127
"""Nested JSON objects and lists that the reference library follows."""

MAX_PASSED = 1_000_000
"""Values that are passed over because they are wrong, before reading stops."""

_JSON = json.JSONDecoder()

# Written out, because \s would also take form feeds and the like, which JSON does not.
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![0-9.eE])")
_LITERAL = re.compile(r"true|false|null")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Stop(Exception):
    """Reading cannot go on. Raised after the defect that says why has been noted."""


class Scanner:
    """Reads a header's JSON from left to right without recursion.

    `defects` has positions in `text` for offsets. What is understood but wrong is noted
    and reading goes on; after what is not JSON there is no telling, so `Stop` is raised.
    """

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.pos = 0
        self.defects: list[Defect] = []
        self.passed = 0

    def members(
        self, what: str, depth: int, tensor: str | None = None
    ) -> Iterator[tuple[str, int]]:
        """The members of the object at the current position: key and the key's position.

        The current position is then at the value, which the caller has to read. Notes
        keys that occur twice, compared as JSON means them: "\\u0041" is "A".
        """
        self.pos += 1
        if self.peek() == "}":
            self.pos += 1
            return
        seen: dict[str, int] = {}
        while True:
            at, key = self.key()
            first = seen.setdefault(key, at)
            if first != at:
                self.note(
                    at,
                    f"{what} {shown(key)} occurs twice, first at byte {self.byte_offset(first)}",
                    key if tensor is None and depth == 1 else tensor,
                    expected="once",
                    actual="twice or more",
                )
            yield key, at
            if self.separator("}"):
                return

    def key(self) -> tuple[int, str]:
        """An object's key and colon: its position and value; then the value comes next."""
        if self.peek() != '"':
            self.fail("expected a key in double quotes")
        at = self.pos
        key = self.string()
        if self.peek() != ":":
            self.fail("expected ':'")
        self.pos += 1
        self.peek()
        return at, key

    def separator(self, closer: str) -> bool:
        """Read what follows a value: True for `closer`, False for a comma."""
        found = self.peek()
        if found != closer and found != ",":
            self.fail(f"expected ',' or '{closer}'")
        self.pos += 1
        return found == closer

    def opens(self, opener: str, what: str, expected: str, name: str | None, depth: int) -> bool:
        """Whether the value here begins as it should; notes and skips it otherwise."""
        at = self.pos
        if self.peek() == opener:
            return True
        self.skip_value(depth)
        actual = shown(self.text[at : self.pos])
        self.note(at, f"{what} is not {expected}", name, expected=expected, actual=actual)
        return False

    def string(self) -> str:
        try:
            value, self.pos = _JSON.raw_decode(self.text, self.pos)
        except json.JSONDecodeError as error:
            self.pos = error.pos
            self.fail(error.msg[0].lower() + error.msg[1:])
        return str(value)

    def skip_value(self, depth: int) -> None:
        """Pass over any JSON value that lies `depth` objects and lists deep."""
        closers: list[str] = []
        while True:
            opener = self.peek()
            self.count_passed()
            if opener == "{" or opener == "[":
                if depth + len(closers) >= MAX_DEPTH:
                    self.fail(f"nested more than {MAX_DEPTH} deep")
                closers.append("}" if opener == "{" else "]")
                self.pos += 1
                if self.peek() != closers[-1]:
                    if opener == "{":
                        self.key()
                    continue
                closers.pop()
                self.pos += 1
            else:
                self.skip_scalar()
            while closers and self.separator(closers[-1]):
                closers.pop()
            if not closers:
                return
            if closers[-1] == "}":
                self.key()

    def count_passed(self) -> None:
        """Count a value of a header that is wrong already, so that the end of it is near."""
        self.passed += 1
        if self.passed > MAX_PASSED:
            at = self.pos
            self.note(at, f"more than {MAX_PASSED:,} values that belong to no tensor")
            raise Stop

    def skip_scalar(self) -> None:
        if self.text.startswith('"', self.pos):
            self.string()
            return
        match = _NUMBER.match(self.text, self.pos) or _LITERAL.match(self.text, self.pos)
        if match is None:
            self.fail("expected a JSON value")
        self.pos = match.end()

    def peek(self) -> str:
        """Pass over white space: the character that comes next, "" at the end."""
        match = _SPACE.match(self.text, self.pos)
        assert match is not None  # it matches the empty string
        self.pos = match.end()
        return self.text[self.pos : self.pos + 1]

    def check_text(self, value: str, at: int, what: str, name: str | None) -> None:
        """Note a string that no UTF-8 can hold, since JSON can spell half a character."""
        if _SURROGATE.search(value):
            self.note(at, f"{what} holds a lone surrogate", name, actual=shown(value))

    def byte_offset(self, position: int) -> int:
        return PREFIX + len(self.text[:position].encode())

    def note(
        self,
        at: int,
        message: str,
        name: str | None = None,
        expected: str | None = None,
        actual: str | None = None,
    ) -> None:
        """Add a defect at position `at`. Raises `Stop` when there are too many."""
        if name is not None:  # a lone surrogate must not reach whoever prints the name
            name = name.encode(errors="backslashreplace").decode()
        defect = Defect("malformed", message, self.file, at, name, expected, actual)
        if len(self.defects) >= MAX_DEFECTS:
            self.defects.append(and_more(defect))
            raise Stop
        self.defects.append(defect)

    def fail(self, message: str) -> NoReturn:
        """Note that what stands here is not JSON, and stop."""
        rest = self.text[self.pos : self.pos + 20]
        found = shown(rest) if rest else "the end of the header"
        self.note(self.pos, f"not JSON: {message}", actual=found)
        raise Stop


def and_more(defect: Defect) -> Defect:
    message = f"more than {MAX_DEFECTS} defects: the rest is not listed"
    return Defect(defect.kind, message, defect.file, defect.offset)


def shown(value: str) -> str:
    """A name or a piece of the header, quoted, printable, and short enough for a line."""
    return repr(value if len(value) <= 120 else value[:119] + "…")
