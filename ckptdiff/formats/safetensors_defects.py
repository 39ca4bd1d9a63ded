"""Explains what is wrong with a safetensors header: every defect with its place in the file.

`ckptdiff.formats.safetensors` asks only about headers that its fast tier could not wave through,
so this is written to be right about hostile bytes, not to be quick. How their JSON is read is
`json_scanner`'s; nothing is opened or read from disk here.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from ckptdiff.formats.dtypes import BITS, METADATA, PREFIX, U64, SizeError, nbytes
from ckptdiff.formats.json_scanner import MAX_DEFECTS, Scanner, Stop, and_more, shown
from ckptdiff.records.checkpoint import Defect, Header, Tensor

_FIELDS = ("dtype", "shape", "data_offsets")
_NATURAL = re.compile(r"(?:0|[1-9][0-9]*)(?![0-9.eE])")
_DIGIT_LIST = re.compile(r"\[[0-9, \t\n\r]*+\]")


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
    scanner = _HeaderReader(text, file)
    header: Header | None = None
    try:
        tensors, metadata = scanner.root()
        header = Header(PREFIX + len(body), tensors, metadata)
    except Stop:
        pass
    if scanner.defects or header is None:
        return None, _with_byte_offsets(scanner.defects, text)
    # Ranges are compared only when all entries are sound: a wrong one would be reported a
    # second time as a gap, and its neighbours as overlaps.
    found = list(islice(_placement(header, data_bytes, file), MAX_DEFECTS + 1))
    if len(found) > MAX_DEFECTS:
        found[MAX_DEFECTS] = and_more(found[MAX_DEFECTS])
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
                f"tensor {shown(name)} begins inside tensor {shown(owner)}",
                file,
                base + start,
                name,
                expected=f"data_offsets from {cursor}",
                actual=f"data_offsets from {start}",
            )
        elif cursor < min(start, data_bytes):
            yield _gap(cursor, min(start, data_bytes), base, f"before {shown(name)}", file, name)
        if end > data_bytes:
            beyond.append(name)
        if end >= cursor:
            cursor, owner = end, name
    if beyond:
        yield Defect(
            "truncated",
            f"the file ends before the data of {len(beyond)} of {len(ordered)} tensors does, "
            f"the first is {shown(beyond[0])}",
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


class _HeaderReader(Scanner):
    """What a safetensors header has to hold. The current position is at a value when a method
    that reads one is called, and behind it afterwards."""

    def root(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The whole header; meaningful only if it noted no defect. Raises `Stop`."""
        if self.peek() != "{":
            self.skip_value(depth=0)  # tells JSON of another kind from no JSON at all
            self.note(0, "the header is not a JSON object", expected="a JSON object")
            raise Stop
        tensors: dict[str, Tensor] = {}
        metadata: dict[str, str] = {}
        for name, at in self.members("tensor", depth=1):
            if name == METADATA:
                metadata = self.metadata()
                continue
            self.check_text(name, at, f"the tensor name {shown(name)}", name)
            tensor = self.entry(name)
            if tensor is not None:
                tensors[name] = tensor
        if self.peek():
            self.fail("something follows the header's JSON object")
        return tensors, metadata

    def entry(self, name: str) -> Tensor | None:
        """One tensor's entry at the current position, or None if it is not sound."""
        at = self.pos
        if not self.opens("{", f"the entry of {shown(name)}", "an object", name, depth=1):
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
                self.note(key_at, f"unknown key {shown(key)}", name, expected=", ".join(_FIELDS))
        for field in _FIELDS:
            if field not in places:
                self.note(at, f"the entry of {shown(name)} has no {field}", name, expected=field)
        if offsets is not None and len(offsets) != 2:
            self.note(
                places["data_offsets"],
                f"data_offsets of {shown(name)} are not a pair",
                name,
                expected="2 numbers",
                actual=f"{len(offsets)} numbers",
            )
        if len(self.defects) > noted or dtype is None or shape is None or offsets is None:
            return None
        return self.sized(name, dtype, shape, (offsets[0], offsets[1]), places)

    def sized(
        self,
        name: str,
        dtype: str,
        shape: tuple[int, ...],
        offsets: tuple[int, int],
        places: Mapping[str, int],
    ) -> Tensor | None:
        """A tensor of fields that are sound by themselves, or None if they contradict each
        other; `places` are the positions of the fields."""
        start, end = offsets
        if start > end:
            message = f"data_offsets of {shown(name)} are reversed"
            self.note(places["data_offsets"], message, name, actual=f"[{start}, {end}]")
            return None
        try:
            size = nbytes(dtype, shape)
        except SizeError as error:
            message = f"shape of {shown(name)}: {error}"
            self.note(places["shape"], message, name, actual=_show_shape(shape))
            return None
        if size != end - start:
            self.note(
                places["data_offsets"],
                f"{shown(name)} does not have the size of its shape and dtype",
                name,
                expected=f"{size} bytes for {dtype} {_show_shape(shape)}",
                actual=f"{end - start} bytes",
            )
            return None
        return Tensor(dtype, shape, offsets)

    def dtype(self, name: str) -> str | None:
        at = self.pos
        if not self.opens('"', f"dtype of {shown(name)}", "a string", name, depth=2):
            return None
        value = self.string()
        if value in BITS:
            return value
        message = f"unknown dtype of {shown(name)}"
        self.note(at, message, name, expected="a safetensors dtype", actual=shown(value))
        return None

    def naturals(self, field: str, name: str) -> tuple[int, ...] | None:
        """A list of integers from 0 to 2^64 - 1, or None if it is anything else."""
        what = f"{field} of {shown(name)}"
        if not self.opens("[", what, "a list of non-negative integers", name, depth=2):
            return None
        plain = _DIGIT_LIST.match(self.text, self.pos)
        if plain:
            try:
                found: list[int] = json.loads(plain[0])
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
                    actual=shown(self.text[at : self.pos]),
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
            what = f"{METADATA} {shown(key)}"
            self.check_text(key, at, f"the key of {what}", None)
            at = self.pos
            if self.opens('"', what, "a string", None, depth=2):
                metadata[key] = self.string()
                self.check_text(metadata[key], at, f"the value of {what}", None)
        return metadata


def _show_shape(shape: tuple[int, ...]) -> str:
    shown = ", ".join(str(length) for length in shape[:8])
    return f"[{shown}, …]" if len(shape) > 8 else f"[{shown}]"
