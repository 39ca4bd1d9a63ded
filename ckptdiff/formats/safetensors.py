"""Reads safetensors headers and locates every defect in them, whatever the file holds.

The `safetensors` library says "invalid" and stops; a linter has to say where. Two tiers:
`_parse_plain` lets msgspec decode a header and answers only "all fine", fast; when it
cannot, `explain` reads the same bytes with an exact, iterative scanner that names each
defect with its byte offset. The two agree on what is fine; tests hold them to it.

What the reference library accepts is accepted here too, except where JSON lets a file say
two things at once or something that loaders ignore: tensor names and metadata keys that
occur twice (the last one wins silently), unknown keys in an entry, entries written as
lists, and dtypes written as {"F32": null}. A linter that passed these would be guessing.

Tensor data is never read here.
"""

from __future__ import annotations

import gc
import json
import re
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from ckptdiff.formats.dtypes import METADATA, PREFIX, nbytes
from ckptdiff.records.checkpoint import Defect, Header, Shard, Tensor, Unread
from ckptdiff.sources.local import (
    CHANGED,
    NotRegular,
    Unreadable,
    identity,
    open_regular,
    read_range,
)

if TYPE_CHECKING:
    from msgspec.json import Decoder

MAX_HEADER = 100_000_000
"""Bytes of the longest header that the reference library reads."""

_LFS_POINTER = b"version https://git-lfs"


def read_shard(directory: Path, name: str) -> Shard:
    """Read the header of the safetensors file `name` in `directory`.

    Never raises for anything that a file can be or contain. `unread` is set when it could
    not be looked at, `defects` tell what is wrong with it. Where `header` is present, each
    of its tensors has a known dtype and as many bytes as its shape needs; only with
    defects of the kinds "truncated", "overlap" and "gap" may their ranges pass the end of
    the file, overlap, or leave bytes out.
    """
    path = str(directory / name)
    try:
        with open_regular(path) as file:
            size = file.identity.size
            # 64 bytes rather than 8: enough to tell what a file is that is no safetensors.
            start = read_range(file.fd, 0, min(size, 64))
            length = int.from_bytes(start[:PREFIX], "little")
            if length <= MAX_HEADER:
                start = read_range(file.fd, 0, min(size, PREFIX + length))
            if identity(file.fd) != file.identity:
                raise Unreadable(CHANGED)
            stamp = file.identity
    except NotRegular as error:
        defect = Defect(
            "malformed",
            f"not a file but {error.reason}",
            name,
            expected="a regular file",
            actual=error.reason,
        )
        return Shard(name, path, defects=(defect,))
    except Unreadable as error:
        return Shard(name, path, unread=Unread(name, error.reason))
    header, defects = parse_header(start, size, name)
    digest = xxhash.xxh3_128_digest(start[: PREFIX + length])
    return Shard(name, path, stamp, header, defects, header_digest=digest)


def parse_header(raw: bytes, file_size: int, file: str) -> tuple[Header | None, tuple[Defect, ...]]:
    """Parse and check a header. Pure, and never raises for any bytes.

    `raw` is the beginning of the file: the 8 bytes of length and the header that follows
    (more does no harm), or the whole file where that is shorter. `file_size` is in bytes,
    `file` is the name that defects carry. Offsets of defects count from the start of the
    file. The header is None when there is a defect of kind "malformed" or when the header
    itself is cut off.
    """
    length = int.from_bytes(raw[:PREFIX], "little")
    unframed = _frame_defect(raw, length, file_size, file)
    if unframed:
        return None, (unframed,)
    body = raw[PREFIX : PREFIX + length]
    data_bytes = file_size - PREFIX - length
    header = _parse_plain(body, data_bytes)
    if header is not None:
        return header, ()
    # Imported late: compiling its patterns takes longer than reading most headers.
    from ckptdiff.formats.safetensors_defects import explain

    return explain(body, data_bytes, file)


def _frame_defect(raw: bytes, length: int, file_size: int, file: str) -> Defect | None:
    """What is wrong with the stated header length, looking at nothing behind it."""
    if len(raw) < PREFIX:
        what = "the file is empty" if not raw else f"the file ends after {len(raw)} bytes"
        return Defect(
            "truncated",
            f"{what}, before its header",
            file,
            len(raw),
            expected=f"at least {PREFIX} bytes",
            actual=f"{len(raw)} bytes",
        )
    if raw.startswith(_LFS_POINTER):
        return Defect(
            "malformed",
            "a Git LFS pointer: the weights themselves were never downloaded",
            file,
            0,
            expected="a safetensors file",
            actual="a Git LFS pointer",
        )
    if length == 0:
        return Defect("malformed", "the header is stated to be 0 bytes long", file, 0)
    if length > MAX_HEADER:
        text = all(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in raw[:64])
        return Defect(
            "malformed",
            "a text file, not safetensors" if text else "the stated header length is too large",
            file,
            0,
            expected=f"a header of at most {MAX_HEADER} bytes",
            actual=f"{length} bytes",
        )
    if PREFIX + length > min(len(raw), file_size):
        return Defect(
            "truncated",
            "the file ends inside its header",
            file,
            min(len(raw), file_size),
            expected=f"a header of {length} bytes",
            actual=f"{min(len(raw), file_size) - PREFIX} bytes",
        )
    return None


# --- The fast tier: "all fine" or None --------------------------------------------------

_METADATA_FIRST = re.compile(rb'[ \t\n\r]*\{[ \t\n\r]*"__metadata__"[ \t\n\r]*:[ \t\n\r]*(?=\{)')
_METADATA_END = re.compile(rb'[ \t\n\r]*(?:,(?=[ \t\n\r]*")|(?=\}))')
_NEGATIVE_ZERO = re.compile(rb"-0[ \t\n\r]*[],]")
_JSON_PAIRS = json.JSONDecoder(object_pairs_hook=list)


def _parse_plain(body: bytes, data_bytes: int) -> Header | None:
    """The header, if it is sound and plainly written; None says nothing about why not."""
    from msgspec import MsgspecError

    try:
        # Hundreds of thousands of small objects that are all kept: collecting garbage
        # while they are made finds none and takes three times as long as making them.
        with _GC_PAUSE.paused():
            metadata, rest = _split_metadata(body)
            # Without a backslash every string stands for itself, so that counting quotes
            # counts strings. Each decoded tensor needs at least five: its name, three
            # keys and its dtype. If there are no others, nothing occurs twice, and there
            # is no key that msgspec skipped.
            if b"\\" in rest:
                return None
            if b"-" in rest and _NEGATIVE_ZERO.search(rest):  # msgspec takes -0 for 0
                return None
            tensors = _decoder().decode(rest)
            if rest.count(b'"') != 10 * len(tensors) or METADATA in tensors:
                return None
            # Nearly all files have their tensors in order, and sorting takes a while.
            if not _tiles(tensors.values(), data_bytes) and not _tiles(
                sorted(tensors.values(), key=attrgetter("data_offsets")), data_bytes
            ):
                return None
    except (MsgspecError, ValueError, RecursionError):
        return None
    return Header(PREFIX + len(body), tensors, metadata)


@cache
def _decoder() -> Decoder[dict[str, Tensor]]:
    from msgspec.json import Decoder

    return Decoder(dict[str, Tensor])


def _split_metadata(body: bytes) -> tuple[dict[str, str], bytes]:
    """Cut `__metadata__` off, which the reference library always writes first.

    Raises ValueError unless it is a plain map of strings.
    """
    first = _METADATA_FIRST.match(body)
    if first is None:
        return {}, body
    text = body.decode()
    pairs, end = _JSON_PAIRS.raw_decode(text, first.end())
    if not all(type(value) is str for _, value in pairs):
        raise ValueError("a value that is not a string")
    metadata: dict[str, str] = dict(pairs)
    if len(metadata) != len(pairs):
        raise ValueError("a key that occurs twice")
    for key, value in pairs:
        (key + value).encode()  # UnicodeEncodeError, a ValueError, for lone surrogates
    after = _METADATA_END.match(body, len(text[:end].encode()))
    if after is None:
        raise ValueError("not followed by an entry or the end")
    return metadata, b"{" + body[after.end() :]


def _tiles(tensors: Iterable[Tensor], data_bytes: int) -> bool:
    """Whether the tensors have the right sizes and cover the data once, in this order.

    Raises SizeError for a dtype and shape that cannot be.
    """
    sizes: dict[tuple[str, tuple[int, ...]], int] = {}
    cursor = 0
    for tensor in tensors:
        start, end = tensor.data_offsets
        key = (tensor.dtype, tensor.shape)
        size = sizes.get(key)
        if size is None:
            size = sizes[key] = nbytes(*key)
        if start != cursor or end - start != size:
            return False
        cursor = end
    return cursor == data_bytes


class _GcPause:
    """Pauses the cyclic garbage collector for as long as any thread asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._was_enabled = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        with self._lock:
            if self._depth == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0 and self._was_enabled:
                    gc.enable()


_GC_PAUSE = _GcPause()
