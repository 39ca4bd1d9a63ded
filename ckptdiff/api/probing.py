"""`probe`: how far the next-token distributions of schemes are from a reference's."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ckptdiff.api.common import StrPath, read
from ckptdiff.api.probe_reports import ProbeReports
from ckptdiff.errors import BaseError, CapabilityError, UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.formats.prompts import DEFAULT_SOURCE, default_prompts, read_prompts
from ckptdiff.jobs.children import require
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.probing import PROGRAM, ProbeOptions, ProbeRun, run_probe
from ckptdiff.jobs.reading import read_one
from ckptdiff.records.checkpoint import Checkpoint, Unread
from ckptdiff.records.probe import Activations, ProbeReport, Prompt
from ckptdiff.sources.cache import Cache

if TYPE_CHECKING:
    from typing import Literal

    Dtype = Literal["auto", "float32", "bfloat16", "float16"]

DTYPES = ("auto", "float32", "bfloat16", "float16")
_DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


def probe(
    reference: StrPath | None = None,
    others: Sequence[StrPath] = (),
    *,
    sweep: StrPath | None = None,
    base: StrPath | None = None,
    prompts: StrPath | Sequence[Prompt] | None = None,
    limit: int | None = None,
    max_length: int | None = None,
    device: str = "auto",
    dtype: Dtype = "auto",
    activations: Activations = "off",
    raw: bool = False,
    perplexity: bool = False,
    batch_size: int | None = None,
    trust_remote_code: bool = False,
    cache: bool = True,
    jobs: int | None = None,
    log: StrPath | None = None,
    on_result: Callable[[ProbeReport], None] | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> ProbeReport:
    """Compare the logits behind the last token of prompts: `others` against `reference`, or
    every scheme of `sweep` against its base (`base`, or the one that is found).

    `prompts` is a file or a sequence (default: 64 of our own), of which the first `limit` are
    used, each cut to `max_length` tokens. `device` is auto, cpu, cuda (all GPUs) or a list such
    as cuda:0,cuda:1; `dtype` auto is float32 where it fits, else bfloat16. `activations` static
    rounds the inputs of quantized linears by their input scales; `raw` ignores all scales, to
    show what that does. `batch_size` is the number of prompts that are computed together
    (default: what suits the device), less only where memory runs out. `trust_remote_code` runs
    the code that comes with the model. `log` takes what the child process prints, `on_result`
    hears of the report as it grows: whether KL rises is said in the whole one.

    Raises `UsageError` for a reference or prompts that cannot be used, `BaseError` when a sweep
    has no base, `CapabilityError` when an extra, a GPU or memory is missing, `ChildError` when
    the child fails, `Cancelled`. A scheme that cannot be computed is in `unread`.
    """
    _require_known(device, dtype, activations, raw, limit, max_length, batch_size)
    require(PROGRAM)
    cancel = cancel or CancelToken()
    first, rest, unread = _subjects(reference, others, sweep, base, sink, cancel)
    given = _prompts(prompts)
    chosen = given[:limit]
    tokenizer, notes = _tokenizer(first, rest)
    options = ProbeOptions(
        tokenizer=tokenizer.path,
        device=device,
        dtype=dtype,
        activations=activations,
        raw=raw,
        perplexity=perplexity,
        batch_size=batch_size,
        max_length=max_length,
        trust_remote_code=trust_remote_code,
    )
    source = DEFAULT_SOURCE if prompts is None else "given"
    if isinstance(prompts, str | os.PathLike):
        source = os.fspath(prompts)
    reports = ProbeReports(
        first,
        rest,
        chosen,
        options,
        source=source,
        loaded=len(given),
        notes=notes,
        unread=unread,
    )

    def heard(run: ProbeRun) -> None:
        if on_result is not None and run.reference is not None:
            on_result(reports.part(run))

    run = run_probe(
        first,
        rest,
        chosen,
        options,
        Hashing(Cache() if cache else None, jobs=jobs),
        log=None if log is None else Path(log),
        on_result=heard,
        sink=sink,
        cancel=cancel,
    )
    return reports.whole(run)


def probe_needs() -> str | None:
    """What has to be installed before a probe can run here, None when nothing has."""
    try:
        require(PROGRAM)
    except CapabilityError as error:
        return f"{error.message}: {error.next_step}"
    return None


def _require_known(
    device: str,
    dtype: str,
    activations: str,
    raw: bool,
    limit: int | None,
    length: int | None,
    rows: int | None,
) -> None:
    if device != "auto" and not all(map(_DEVICE.fullmatch, device.split(","))):
        raise UsageError(
            f"there is no device {device!r}", "Known are auto, cpu, cuda and cuda:0,cuda:1."
        )
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}", f"Known are {', '.join(DTYPES)}.")
    if activations not in ("off", "static"):
        raise UsageError(f"activations is {activations!r}", "Known are off and static.")
    if raw and activations == "static":
        raise UsageError("raw ignores the scales that static activations need", "Choose one.")
    if any(number is not None and number < 1 for number in (limit, length, rows)):
        raise UsageError("limit, max_length and batch_size are counts", "Give 1 or more.")


def _subjects(
    reference: StrPath | None,
    others: Sequence[StrPath],
    sweep: StrPath | None,
    base: StrPath | None,
    sink: Sink,
    cancel: CancelToken,
) -> tuple[Checkpoint, tuple[Checkpoint, ...], tuple[Unread, ...]]:
    """The reference, what is compared with it, and what of a sweep could not be read."""
    if sweep is None:
        if reference is None or not others or base is not None:
            raise UsageError(
                "a reference and another checkpoint are needed",
                "Name REF and OTHER, or `--sweep ROOT` with `--base DIR`.",
            )
        named = [replace(read_one(Path(path)), id=os.fspath(path)) for path in (reference, *others)]
        if len({checkpoint.id for checkpoint in named}) < len(named):
            raise UsageError("a checkpoint is named twice", "Name each once.")
        return named[0], tuple(named[1:]), ()
    if reference is not None or others:
        raise UsageError("--sweep takes all schemes below it", "Name no checkpoint beside it.")
    found = read(sweep, base, sink, cancel)
    if found.base is None:
        raise BaseError(f"{sweep} has no base: {found.base_note}", "Name it by --base DIR.")
    loadable = tuple(scheme for scheme in found.schemes if scheme.shards)
    lost = tuple(Unread(s.id, "it holds no weights") for s in found.schemes if not s.shards)
    if not loadable:
        raise UsageError(f"{sweep} holds no scheme beside its base", "Name the sweep's directory.")
    return found.base.checkpoint, loadable, (*found.unread, *lost)


def _prompts(prompts: StrPath | Sequence[Prompt] | None) -> tuple[Prompt, ...]:
    if prompts is None:
        return default_prompts()
    if isinstance(prompts, str | os.PathLike):
        return read_prompts(Path(prompts))
    if not prompts:
        raise UsageError("there is no prompt", "Give at least one, or leave prompts out.")
    return tuple(prompts)


def _tokenizer(
    reference: Checkpoint, others: Sequence[Checkpoint]
) -> tuple[Checkpoint, tuple[str, ...]]:
    """The checkpoint whose tokenizer is used for all, and what there is to say about that."""
    owners = [c for c in (reference, *others) if any(name in c.companions for name in _TOKENIZERS)]
    if not owners:
        raise UsageError(
            f"{reference.path} has no tokenizer, and no other checkpoint here has",
            "Put the tokenizer's files beside the reference's weights.",
        )
    notes = []
    if owners[0] is not reference:
        notes.append(f"the tokenizer is that of {owners[0].id}: the reference has none")
    for other in owners[1:]:
        shared = owners[0].companions.keys() & other.companions.keys() & set(_TOKENIZERS)
        if any(owners[0].companions[name] != other.companions[name] for name in shared):
            notes.append(f"{other.id} has another tokenizer, which was not used")
    return owners[0], tuple(notes)
