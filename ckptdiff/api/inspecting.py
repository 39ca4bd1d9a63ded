"""`details`, `module`, `values`, `differences`, `overlap`: what people ask about one thing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.facts import module_detail, scheme_detail
from ckptdiff.analysis.overlap import overlap as overlap_of
from ckptdiff.api.common import StrPath, read
from ckptdiff.errors import UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.looking import look
from ckptdiff.jobs.reading import read_one
from ckptdiff.records.detail import (
    DifferenceDetail,
    ModuleDetail,
    Overlap,
    SchemeDetail,
    ValueDetail,
)
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.sources.cache import Cache

if TYPE_CHECKING:
    from ckptdiff.quant.arrays import Array


def details(path: StrPath) -> SchemeDetail:
    """What the documents of the checkpoint at `path` say. Raises `RootError`."""
    return scheme_detail(_scheme(path))


def module(path: StrPath, name: str) -> ModuleDetail:
    """One module of the checkpoint at `path`, by its name on disk or its key.

    Raises `RootError`, and `UsageError` when there is no such module.
    """
    found = module_detail(_scheme(path), name)
    if found is None:
        raise UsageError(f"{path} has no module {name}", _listing(path))
    return found


def values(
    path: StrPath, tensor: str, *, raw: bool = False, cancel: CancelToken | None = None
) -> ValueDetail:
    """Statistics and a histogram of one tensor's values; a quantized weight is dequantised
    unless `raw`.

    Raises `RootError`, `Cancelled`, and `UsageError` when there is no such tensor or it cannot
    be read.
    """
    # Imported late: they need numpy.
    from ckptdiff.analysis.tensors import TensorReader, dequantised_rows
    from ckptdiff.analysis.values import Head, describe
    from ckptdiff.quant.arrays import MisfitError
    from ckptdiff.sources.local import Unreadable

    scheme = _scheme(path)
    homes = {name: shard for name, _, shard in scheme.checkpoint.items()}
    if tensor not in homes:
        raise UsageError(f"{path} has no tensor {tensor}", _listing(path))
    shard = homes[tensor]
    stored = shard.tensors[tensor]
    weight = next((m for m in scheme.coverage.modules.values() if m.weight == tensor), None)
    layout = scheme.layouts.get(weight.key) if weight else None
    dequantised = bool(layout and layout.names) and not raw

    def chunks(reader: TensorReader) -> Iterable[Array]:
        if weight is not None and layout is not None and layout.names and not raw:
            rows = reader.rows(shard, tensor)
            scales = reader.scales(scheme, weight.name)
            yield from dequantised_rows(layout.names[0], rows, scales)
            return
        for _, part in reader.flat(shard, tensor).chunks():
            yield _numbers(stored.dtype, part)

    try:
        with TensorReader() as reader:
            head = Head(tensor, stored.dtype, stored.shape, dequantised)
            (found,) = describe(
                [head], lambda: ((part,) for part in chunks(reader)), cancel or CancelToken()
            )
            reader.confirm(shard)
            return found
    except (Unreadable, MisfitError) as error:
        raise UsageError(f"{tensor} cannot be read: {error}", _listing(path)) from error
    except KeyError as error:
        raise UsageError(
            f"{tensor} is {stored.dtype}, which has no numbers", _listing(path)
        ) from error


def differences(
    a: StrPath,
    b: StrPath,
    tensor: str,
    *,
    raw: bool = False,
    cancel: CancelToken | None = None,
) -> DifferenceDetail:
    """Statistics and histograms of the values of one row of `diff(a, b)`, by its name there,
    and of B - A; `raw`: of what is stored.

    Raises `RootError`, `Cancelled`, and `UsageError` when there is no such row, or one side has
    none of it or cannot be read.
    """
    # Imported late: they need numpy.
    import numpy as np

    from ckptdiff.analysis.differing.alignment import align
    from ckptdiff.analysis.differing.difference import widened
    from ckptdiff.analysis.differing.operands import open_pair
    from ckptdiff.analysis.packings import packings_of
    from ckptdiff.analysis.tensors import TensorReader
    from ckptdiff.analysis.values import Head, describe
    from ckptdiff.jobs.differing import FAILURES

    one, other = _scheme(a), _scheme(b)
    pairs = align(one, other, (packings_of(one), packings_of(other)))
    pair = next((pair for pair in pairs if pair.name == tensor), None)
    if pair is None or pair.a is None or pair.b is None:
        raise UsageError(f"{a} and {b} do not both have a tensor {tensor}", _listing(a))
    sides = pair.a, pair.b
    if obstacle := pair.a.obstacle or pair.b.obstacle:
        raise UsageError(f"{tensor} cannot be compared: {obstacle}", _listing(a))
    if pair.a.shape != pair.b.shape:
        raise UsageError(f"{tensor} has different shapes", _listing(a))
    heads = [
        Head(side.spelled, side.tensor.dtype, side.shape, not raw and side.coding is not None)
        for side in sides
    ]
    if not raw:
        heads.append(Head(tensor, "", pair.a.shape, True))
    elif sides[0].tensor.dtype == sides[1].tensor.dtype and sides[0].coding == sides[1].coding:
        heads.append(Head(tensor, sides[0].tensor.dtype, pair.a.shape, False))

    def chunks(reader: TensorReader) -> Iterator[tuple[Array, ...]]:
        opened = open_pair(reader, one, other, pair, same_scales=False)
        for at in range(0, opened.count, opened.step):
            end = min(at + opened.step, opened.count)
            stored = opened.a.stored(at, end), opened.b.stored(at, end)
            if raw:
                parts = [_numbers(s.tensor.dtype, x) for s, x in zip(sides, stored, strict=True)]
            else:
                parts = [opened.a.values(stored[0], at), opened.b.values(stored[1], at)]
            x, y = widened(*(part.reshape(-1) for part in parts))
            with np.errstate(all="ignore"):  # infinities and NaN are counted
                found = (x, y, y - x) if len(heads) == 3 else (x, y)
            yield tuple(part.astype("f8", copy=False) for part in found)

    try:
        with TensorReader() as reader:
            found = describe(heads, lambda: chunks(reader), cancel or CancelToken())
            for scheme, side in zip((one, other), sides, strict=True):
                reader.confirm(*(s for s in scheme.checkpoint.shards if s.name == side.shard))
    except KeyError as error:
        raise UsageError(
            f"{tensor} is {error.args[0]}, which has no numbers", _listing(a)
        ) from error
    except FAILURES as error:
        raise UsageError(f"{tensor} cannot be read: {error}", _listing(a)) from error
    return DifferenceDetail(tensor, raw, found[0], found[1], found[2] if found[2:] else None)


def overlap(
    root: StrPath = ".",
    *,
    base: StrPath | None = None,
    cache: bool = True,
    jobs: int | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> Overlap:
    """How many bytes each scheme below `root` shares with each other one, base first if there
    is one. Digests that are remembered are not read again. Raises as `check` does.
    """
    cancel = cancel or CancelToken()
    sweep = read(root, base, sink, cancel)
    # With the scan of values, so that the digests are remembered.
    how = Hashing(Cache() if cache else None, jobs=jobs)
    evidence, _ = look(sweep, how, compare=True, sink=sink, cancel=cancel)
    compared = ((evidence.base,) if evidence.base else ()) + evidence.schemes
    return overlap_of(compared)


def _scheme(path: StrPath) -> SchemeEvidence:
    return scheme_evidence(read_one(Path(path)), None)


def _numbers(dtype: str, stored: Array) -> Array:
    """Stored elements as numbers: codes of eight bits as what they encode, without scales."""
    from ckptdiff.quant.tables import E4M3, E8M0, decode

    tables = {"F8_E4M3": E4M3, "F8_E8M0": E8M0}
    return decode(tables[dtype], stored) if dtype in tables else stored


def _listing(path: StrPath) -> str:
    return f"`ckptdiff hash {shlex.quote(str(path))}` lists its tensors."
