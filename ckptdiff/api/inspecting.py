"""`details`, `module`, `values`, `overlap`: what people ask about one thing under the cursor."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.analysis.facts import module_detail, scheme_detail
from ckptdiff.analysis.overlap import overlap as overlap_of
from ckptdiff.api.common import StrPath, read
from ckptdiff.errors import UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.looking import look
from ckptdiff.jobs.reading import read_one
from ckptdiff.records.detail import ModuleDetail, Overlap, SchemeDetail, ValueDetail
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.sources.cache import Cache


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
    from ckptdiff.analysis.values import describe
    from ckptdiff.quant.arrays import Array, MisfitError
    from ckptdiff.quant.tables import E4M3, E8M0, decode
    from ckptdiff.sources.local import Unreadable

    scheme = _scheme(path)
    homes = {name: shard for name, _, shard in scheme.checkpoint.items()}
    if tensor not in homes:
        raise UsageError(f"{path} has no tensor {tensor}", _listing(path))
    shard = homes[tensor]
    stored = shard.tensors[tensor]
    weight = next((m for m in scheme.coverage.modules.values() if m.weight == tensor), None)
    layout = scheme.layouts.get(weight.key) if weight else None
    tables = {"F8_E4M3": E4M3, "F8_E8M0": E8M0}

    def chunks(reader: TensorReader) -> Iterable[Array]:
        if weight is not None and layout is not None and layout.names and not raw:
            rows = reader.rows(shard, tensor)
            scales = reader.scales(scheme, weight.name)
            yield from dequantised_rows(layout.names[0], rows, scales)
            return
        for _, part in reader.flat(shard, tensor).chunks():
            yield decode(tables[stored.dtype], part) if stored.dtype in tables else part

    try:
        with TensorReader() as reader:
            dequantised = bool(layout and layout.names) and not raw
            found = describe(
                tensor,
                stored.dtype,
                stored.shape,
                dequantised,
                partial(chunks, reader),
                cancel or CancelToken(),
            )
            reader.confirm(shard)
            return found
    except (Unreadable, MisfitError) as error:
        raise UsageError(f"{tensor} cannot be read: {error}", _listing(path)) from error
    except KeyError as error:
        raise UsageError(f"{tensor} is {stored.dtype}, which has no numbers", "") from error


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


def _listing(path: StrPath) -> str:
    return f"`ckptdiff hash {shlex.quote(str(path))}` lists its tensors."
