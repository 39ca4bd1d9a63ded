"""Explains what is wrong with a safetensors header: every defect with its place in the file.

An exact, iterative reader of the JSON that a header is. `ckptdiff.formats.safetensors` asks
it only about headers that its fast tier could not wave through, so this is written to be
right about hostile bytes, not to be quick. Nothing is opened or read from disk here.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import NoReturn

from ckptdiff.formats.dtypes import BITS, METADATA, PREFIX, U64, SizeError, nbytes
from ckptdiff.records.checkpoint import Defect, Header, Tensor

MAX_DEFECTS = 1_000
"""Defects that are reported of one file: a hostile header can hold tens of millions."""

MAX_DEPTH = 127
"""Nested JSON objects and lists that the reference library follows."""

MAX_PASSED = 1_000_000
"""Values that are passed over because they are wrong, before reading stops."""

_FIELDS = ("dtype", "shape", "data_offsets")
_JSON = json.JSONDecoder()

# Written out, because \s would also take form feeds and the like, which JSON does not.
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?(?![0-9.eE])")
_NATURAL = re.compile(r"(?:0|[1-9][0-9]*)(?![0-9.eE])")
_DIGIT_LIST = re.compile(r"\[[0-9, \t\n\r]*+\]")
_LITERAL = re.compile(r"true|false|null")
_SURROGATE = re.compile("[\ud800-\udfff]")


class _Stop(Exception):
    """Reading cannot go on. Raised after the defect that says why has been noted."""


def explain(body: bytes, data_bytes: int, file: str) -> tuple[Header | None, tuple[Defect, ...]]:
    """Read a header exactly: what it holds, and every defect in it with its offset.

    `body` is the JSON without the length before it, `data_bytes` the bytes that the file
    has behind it. At most `MAX_DEFECTS` defects come back, and one that says so if there
    are more. The header is None when there is a defect of kind "malformed". Never raises.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        defect = Defect(
            "malformed",
            "the header is not UTF-8",
            file,
            PREFIX + error.start,
            actual=f"byte 0x{body[error.start]:02x}",
        )
        return None, (defect,)
    scanner = _Scanner(text, file)
    header: Header | None = None
    try:
        tensors, metadata = scanner.root()
        header = Header(PREFIX + len(body), tensors, metadata)
    except _Stop:
        pass
    if scanner.defects or header is None:
        return None, _with_byte_offsets(scanner.defects, text)
    # Ranges are compared only when all entries are sound: a wrong one would be reported a
    # second time as a gap, and its neighbours as overlaps.
    found = list(islice(_placement(header, data_bytes, file), MAX_DEFECTS + 1))
    if len(found) > MAX_DEFECTS:
        found[MAX_DEFECTS] = _and_more(found[MAX_DEFECTS])
    return header, tuple(found)


def _placement(header: Header, data_bytes: int, file: str) -> Iterator[Defect]:
    """Gaps, overlaps and missing data, for entries that are sound by themselves."""
    base = header.data_start
    cursor = 0  # all bytes before it belong to a tensor or were reported as a gap
    owner = ""  # the tensor that reaches up to it
    beyond: list[str] = []
    ordered = sorted(header.tensors.items(), key=lambda item: item[1].data_offsets)
    for name, tensor in ordered:
        start, end = tensor.data_offsets
        if start < cursor:
            yield Defect(
                "overlap",
                f"tensor {_show(name)} begins inside tensor {_show(owner)}",
                file,
                base + start,
                name,
                expected=f"data_offsets from {cursor}",
                actual=f"data_offsets from {start}",
            )
        elif cursor < min(start, data_bytes):
            yield _gap(cursor, min(start, data_bytes), base, f"before {_show(name)}", file, name)
        if end > data_bytes:
            beyond.append(name)
        if end >= cursor:
            cursor, owner = end, name
    if beyond:
        yield Defect(
            "truncated",
            f"the file ends before the data of {len(beyond)} of {len(ordered)} tensors does, "
            f"the first is {_show(beyond[0])}",
            file,
            base + data_bytes,
            beyond[0],
            expected=f"a file of {base + cursor} bytes",
            actual=f"{base + data_bytes} bytes",
        )
    elif cursor < data_bytes:
        yield _gap(cursor, data_bytes, base, "after the last tensor", file, None)


def _gap(start: int, end: int, base: int, where: str, file: str, name: str | None) -> Defect:
    return Defect(
        "gap",
        f"{end - start} bytes {where} belong to no tensor",
        file,
        base + start,
        name,
        expected="0 bytes",
        actual=f"{end - start} bytes",
    )


def _and_more(defect: Defect) -> Defect:
    message = f"more than {MAX_DEFECTS} defects: the rest is not listed"
    return Defect(defect.kind, message, defect.file, defect.offset)


def _with_byte_offsets(defects: list[Defect], text: str) -> tuple[Defect, ...]:
    """Turn positions in the header's text into byte offsets in the file, in file order."""
    positions = sorted({defect.offset or 0 for defect in defects})
    offsets: list[int] = []
    position, offset = 0, PREFIX
    for following in positions:
        offset += len(text[position:following].encode())
        position = following
        offsets.append(offset)
    placed = (
        replace(defect, offset=offsets[bisect_left(positions, defect.offset or 0)])
        for defect in defects
    )
    return tuple(sorted(placed, key=lambda defect: defect.offset or 0))


def _show(value: str) -> str:
    """A name or a piece of the header, quoted, printable, and short enough for a line."""
    return repr(value if len(value) <= 120 else value[:119] + "…")


class _Scanner:
    """Reads a header's JSON from left to right without recursion.

    `defects` has positions in `text` for offsets. What is understood but wrong is noted
    and reading goes on; after what is not JSON there is no telling, so `_Stop` is raised.
    """

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.pos = 0
        self.defects: list[Defect] = []
        self.passed = 0

    def root(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The whole header; meaningful only if it noted no defect. Raises `_Stop`."""
        if self.peek() != "{":
            self.skip_value(depth=0)  # tells JSON of another kind from no JSON at all
            self.note(0, "the header is not a JSON object", expected="a JSON object")
            raise _Stop
        tensors: dict[str, Tensor] = {}
        metadata: dict[str, str] = {}
        for name, at in self.members("tensor", depth=1):
            if name == METADATA:
                metadata = self.metadata()
                continue
            self.check_text(name, at, f"the tensor name {_show(name)}", name)
            tensor = self.entry(name)
            if tensor is not None:
                tensors[name] = tensor
        if self.peek():
            self.fail("something follows the header's JSON object")
        return tensors, metadata

    def entry(self, name: str) -> Tensor | None:
        """One tensor's entry at the current position, or None if it is not sound."""
        at = self.pos
        if not self.opens("{", f"the entry of {_show(name)}", "an object", name, depth=1):
            return None
        dtype: str | None = None
        shape: tuple[int, ...] | None = None
        offsets: tuple[int, ...] | None = None
        places: dict[str, int] = {}
        noted = len(self.defects)
        for key, key_at in self.members("key", depth=2, tensor=name):
            places.setdefault(key, self.pos)
            if key == "dtype":
                dtype = self.dtype(name)
            elif key == "shape":
                shape = self.naturals(key, name)
            elif key == "data_offsets":
                offsets = self.naturals(key, name)
            else:
                self.skip_value(depth=2)
                self.note(key_at, f"unknown key {_show(key)}", name, expected=", ".join(_FIELDS))
        for field in _FIELDS:
            if field not in places:
                self.note(at, f"the entry of {_show(name)} has no {field}", name, expected=field)
        if offsets is not None and len(offsets) != 2:
            self.note(
                places["data_offsets"],
                f"data_offsets of {_show(name)} are not a pair",
                name,
                expected="2 numbers",
                actual=f"{len(offsets)} numbers",
            )
        if len(self.defects) > noted or dtype is None or shape is None or offsets is None:
            return None
        start, end = offsets
        if start > end:
            message = f"data_offsets of {_show(name)} are reversed"
            self.note(places["data_offsets"], message, name, actual=f"[{start}, {end}]")
            return None
        try:
            size = nbytes(dtype, shape)
        except SizeError as error:
            message = f"shape of {_show(name)}: {error}"
            self.note(places["shape"], message, name, actual=_show_shape(shape))
            return None
        if size != end - start:
            self.note(
                places["data_offsets"],
                f"{_show(name)} does not have the size of its shape and dtype",
                name,
                expected=f"{size} bytes for {dtype} {_show_shape(shape)}",
                actual=f"{end - start} bytes",
            )
            return None
        return Tensor(dtype, shape, (start, end))

    def dtype(self, name: str) -> str | None:
        at = self.pos
        if not self.opens('"', f"dtype of {_show(name)}", "a string", name, depth=2):
            return None
        value = self.string()
        if value in BITS:
            return value
        message = f"unknown dtype of {_show(name)}"
        self.note(at, message, name, expected="a safetensors dtype", actual=_show(value))
        return None

    def naturals(self, field: str, name: str) -> tuple[int, ...] | None:
        """A list of integers from 0 to 2^64 - 1, or None if it is anything else."""
        what = f"{field} of {_show(name)}"
        if not self.opens("[", what, "a list of non-negative integers", name, depth=2):
            return None
        plain = _DIGIT_LIST.match(self.text, self.pos)
        if plain:
            try:
                found: list[int] = _JSON.decode(plain[0])
            except ValueError:
                found = [U64]  # no JSON, or thousands of digits: say below which
            if max(found, default=0) < U64:
                self.pos = plain.end()
                return tuple(found)
        self.pos += 1
        values: list[int] = []
        noted = len(self.defects)
        if self.peek() == "]":
            self.pos += 1
            return ()
        while True:
            self.peek()
            self.count_passed()
            at = self.pos
            match = _NATURAL.match(self.text, at)
            # Digits are counted first: int() of thousands of them is slow, or refused.
            if match and match.end() - at <= 20 and (value := int(match[0])) < U64:
                values.append(value)
                self.pos = match.end()
            else:
                self.skip_value(depth=3)
                self.note(
                    at,
                    f"{what} holds something that is not a non-negative 64-bit integer",
                    name,
                    expected="an integer from 0 to 2^64 - 1",
                    actual=_show(self.text[at : self.pos]),
                )
            if self.separator("]"):
                return tuple(values) if len(self.defects) == noted else None

    def metadata(self) -> dict[str, str]:
        """The value of `__metadata__`: a map from strings to strings, or null."""
        if self.text.startswith("null", self.pos):  # none: the reference library agrees
            self.pos += 4
            return {}
        if not self.opens("{", METADATA, "an object", None, depth=1):
            return {}
        metadata: dict[str, str] = {}
        for key, at in self.members(f"{METADATA} key", depth=2):
            what = f"{METADATA} {_show(key)}"
            self.check_text(key, at, f"the key of {what}", None)
            at = self.pos
            if self.opens('"', what, "a string", None, depth=2):
                metadata[key] = self.string()
                self.check_text(metadata[key], at, f"the value of {what}", None)
        return metadata

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
                    f"{what} {_show(key)} occurs twice, first at byte {self.byte_offset(first)}",
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
        actual = _show(self.text[at : self.pos])
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
            raise _Stop

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
            self.note(at, f"{what} holds a lone surrogate", name, actual=_show(value))

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
        """Add a defect at position `at`. Raises `_Stop` when there are too many."""
        if name is not None:  # a lone surrogate must not reach whoever prints the name
            name = name.encode(errors="backslashreplace").decode()
        defect = Defect("malformed", message, self.file, at, name, expected, actual)
        if len(self.defects) >= MAX_DEFECTS:
            self.defects.append(_and_more(defect))
            raise _Stop
        self.defects.append(defect)

    def fail(self, message: str) -> NoReturn:
        """Note that what stands here is not JSON, and stop."""
        rest = self.text[self.pos : self.pos + 20]
        found = _show(rest) if rest else "the end of the header"
        self.note(self.pos, f"not JSON: {message}", actual=found)
        raise _Stop


def _show_shape(shape: tuple[int, ...]) -> str:
    shown = ", ".join(str(length) for length in shape[:8])
    return f"[{shown}, …]" if len(shape) > 8 else f"[{shown}]"
