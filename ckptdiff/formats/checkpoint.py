"""One directory -> one `Checkpoint` record: every document and every header, judged later.

Nothing here raises for what a checkpoint contains: a malformed document is a `Defect`,
one that could not be opened an `Unread`, and the rest is read all the same.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

import xxhash

from ckptdiff.formats.configs import (
    CONFIG_NAME,
    QUANT_CONFIG_NAME,
    parse_model_config,
    parse_quant_config,
)
from ckptdiff.formats.documents import JsonObject, Misfit, read_object
from ckptdiff.formats.index import INDEX_NAME, escapes, parse_index
from ckptdiff.formats.manifests import (
    BASELINE_SUFFIX,
    COVERAGE_SUFFIX,
    MANIFEST_DIR,
    parse_baseline,
    parse_coverage,
)
from ckptdiff.formats.names import bare
from ckptdiff.formats.safetensors import read_shard
from ckptdiff.records.checkpoint import (
    BaselineManifest,
    Checkpoint,
    CoverageManifest,
    Defect,
    Index,
    ModelConfig,
    QuantConfig,
    Shard,
    Unread,
)
from ckptdiff.sources.listing import list_directory
from ckptdiff.sources.local import Unreadable, read_document
from ckptdiff.sources.trace import note_entry

T = TypeVar("T")

WEIGHTS_SUFFIX = ".safetensors"
SINGLE_NAME = "model.safetensors"
COMPANIONS = (
    "chat_template.jinja",
    "chat_template.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)
_NUMBERED = re.compile(r"^(.*)-(\d{5,})-of-(\d{5,})\.safetensors$")
# More shards than any real model has; a forged file name must not make us look for billions.
_MAX_SHARDS = 10_000


def not_judged(name: str) -> str | None:
    """Why a file beside a checkpoint's own weights is none of them; None when it may be."""
    if name.startswith("adapter_model"):
        return "adapter"
    if name.startswith("consolidated"):
        return "consolidated copy of the weights"
    if name.endswith(".gguf"):
        return "GGUF"
    if name.endswith((".bin", ".pt", ".pth")):
        return "pickle"
    return None


def is_checkpoint(path: Path, names: Iterable[str]) -> bool:
    """Whether a directory with these entry names is a checkpoint, readable or not."""
    for name in names:
        if name in (INDEX_NAME, QUANT_CONFIG_NAME) or name.endswith(COVERAGE_SUFFIX):
            return True
        if name.endswith(WEIGHTS_SUFFIX) and not_judged(name) != "adapter":
            return True
        if name == MANIFEST_DIR and _has_coverage(path / name):
            return True
    return False


def read_checkpoint(path: Path, id: str) -> Checkpoint:
    """Everything that the directory says of itself, headers included, tensor data not.

    Never raises for what is in the directory; `Checkpoint.defects` and `.unread` say
    what could not be understood or opened.
    """
    reading = _Reading(path)
    names = reading.list("")
    config = reading.document(CONFIG_NAME, names, parse_model_config)
    quant_config = reading.document(QUANT_CONFIG_NAME, names, parse_quant_config)
    index = reading.document(INDEX_NAME, names, parse_index)
    coverage, baselines = _manifests(reading, names)
    shards = _shards(reading, names, index)
    return Checkpoint(
        id=id,
        path=str(path),
        shards=shards,
        index=index,
        config=config,
        quant_config=quant_config,
        coverage=coverage,
        baselines=baselines,
        defects=tuple(reading.defects) + tuple(_consistency(index, shards)),
        unread=tuple(reading.unread),
        documents=tuple(reading.documents),
        companions=_companions(reading, names),
        title=path.resolve().name,
    )


def read_identity(path: Path) -> tuple[ModelConfig, QuantConfig | None] | None:
    """The model's identity from the configs alone, None where config.json does not tell."""
    reading = _Reading(path)
    config = reading.document(CONFIG_NAME, (CONFIG_NAME,), parse_model_config)
    if config is None:
        return None
    names = reading.list("")
    return config, reading.document(QUANT_CONFIG_NAME, names, parse_quant_config)


@dataclass(slots=True)
class _Reading:
    """Collects what goes wrong while one directory is read."""

    path: Path
    defects: list[Defect] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)

    @property
    def unlisted(self) -> bool:
        """Whether the directory itself could not be listed: then nothing is known of it."""
        return any(item.path == "." for item in self.unread)

    def list(self, folder: str) -> tuple[str, ...]:
        try:
            return tuple(entry.name for entry in list_directory(self.path / folder))
        except Unreadable as error:
            self.unread.append(Unread(folder or ".", error.reason))
            return ()

    def document(
        self, name: str, names: Iterable[str], parse: Callable[[JsonObject], T]
    ) -> T | None:
        """The parsed document, None when it is absent or when a record says what is wrong."""
        if name not in names:
            return None
        self.documents.append(name)
        match read_object(self.path, name):
            case Defect() as defect:
                self.defects.append(defect)
            case Unread() as unread:
                self.unread.append(unread)
            case document:
                try:
                    return parse(document)
                except Misfit as misfit:
                    self.defects.append(Defect("malformed", str(misfit), name))
        return None


def _manifests(
    reading: _Reading, names: tuple[str, ...]
) -> tuple[tuple[CoverageManifest, ...], tuple[BaselineManifest, ...]]:
    paths = list(names)
    if MANIFEST_DIR in names:
        paths += [f"{MANIFEST_DIR}/{name}" for name in reading.list(MANIFEST_DIR)]
    coverage: list[CoverageManifest] = []
    baselines: list[BaselineManifest] = []
    for path in paths:
        if path.endswith(COVERAGE_SUFFIX):
            if found := reading.document(path, paths, partial(parse_coverage, name=path)):
                coverage.append(found)
        elif path.endswith(BASELINE_SUFFIX) and (
            baseline := reading.document(path, paths, partial(parse_baseline, name=path))
        ):
            baselines.append(baseline)
    # The manifest that is named after the directory governs, should there be several.
    own = reading.path.resolve().name
    coverage.sort(key=lambda m: (not PurePosixPath(m.name).name.startswith(own), m.name))
    return tuple(coverage), tuple(baselines)


def _companions(reading: _Reading, names: tuple[str, ...]) -> dict[str, bytes]:
    """Digests of the files that a tokenizer or processor is loaded from."""
    found = {}
    for name in COMPANIONS:
        if name in names:
            try:
                found[name] = xxhash.xxh3_128_digest(read_document(reading.path / name))
            except Unreadable as error:
                reading.unread.append(Unread(name, error.reason))
    return found


def _has_coverage(folder: Path) -> bool:
    try:
        return any(entry.name.endswith(COVERAGE_SUFFIX) for entry in list_directory(folder))
    except Unreadable:
        return False


def _shards(reading: _Reading, names: tuple[str, ...], index: Index | None) -> tuple[Shard, ...]:
    """The shards that a loader would read, with defects for those that are not there."""
    present = [n for n in names if n.endswith(WEIGHTS_SUFFIX) and not not_judged(n)]
    wanted = _wanted(present, names, index)
    if not wanted and not reading.unlisted:
        reading.defects.append(
            Defect("no-weights", "holds no safetensors weights", ".", expected=SINGLE_NAME)
        )
    shards = []
    counts = Counter(index.weight_map.values()) if index else Counter[str]()
    for name in wanted:
        if index is not None and escapes(name):
            reading.defects.append(
                Defect("escaping-path", "leads out of the checkpoint", INDEX_NAME, actual=name)
            )
        elif _exists(reading.path / name):
            shards.append(read_shard(reading.path, name))
        else:
            reading.defects.append(
                Defect("missing-shard", "is not there", name, expected=_expected_by(counts[name]))
            )
    for name in sorted(set(present).difference(wanted)):
        if index is not None and name == SINGLE_NAME:
            message = f"is what some loaders take, and others what {INDEX_NAME} names"
            reading.defects.append(Defect("two-readings", message, name))
        else:
            reading.defects.append(Defect("stray-shard", "is read by no loader", name))
    return tuple(shards)


def _wanted(present: list[str], names: tuple[str, ...], index: Index | None) -> list[str]:
    if index is not None:
        return sorted(set(index.weight_map.values()))
    if SINGLE_NAME in present:
        return [SINGLE_NAME]
    if numbered := next((m for n in present if (m := _NUMBERED.match(n))), None):
        stem, width, count = numbered[1], len(numbered[2]), int(numbered[3])
        return [
            f"{stem}-{i:0{width}}-of-{numbered[3]}{WEIGHTS_SUFFIX}"
            for i in range(1, min(count, _MAX_SHARDS) + 1)
        ]
    consolidated = [n for n in names if n.startswith("consolidated") and n.endswith(WEIGHTS_SUFFIX)]
    return present or consolidated


def _exists(path: Path) -> bool:
    """Whether there is a directory entry of that name, be it a dangling link or a fifo."""
    note_entry(path)
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        pass  # something is in the way; opening it tells what
    return True


def _expected_by(count: int) -> str:
    if not count:
        return "a shard of the numbered series"
    return f"{count} {'tensor' if count == 1 else 'tensors'} of {INDEX_NAME}"


def _consistency(index: Index | None, shards: tuple[Shard, ...]) -> Iterator[Defect]:
    """What index and headers say against each other, where both could be read."""
    names = list(_names(index, shards))
    yield from names
    # With other tensors than the index names, another size is no news.
    if index is not None and index.total_size is not None and not names:
        yield from _total_size(index, index.total_size, shards)


def _names(index: Index | None, shards: tuple[Shard, ...]) -> Iterator[Defect]:
    first: dict[str, Shard] = {}
    for shard in shards:
        for name in shard.tensors:
            if first.setdefault(name, shard) is not shard:
                yield Defect("twice", f"is in {first[name].name} too", shard.name, tensor=name)
    yield from _mixed_prefixes(first)
    if index is None:
        return
    readable = {shard.name: shard for shard in shards if shard.header}
    for name, file in index.weight_map.items():
        if file in readable and name not in readable[file].tensors:
            elsewhere = first[name].name if name in first else None
            message = f"is in {elsewhere} instead" if elsewhere else "is in no shard"
            yield Defect(
                "absent-tensor", message, file, tensor=name, expected=file, actual=elsewhere
            )
    for name, shard in first.items():
        if name not in index.weight_map:
            yield Defect("not-indexed", f"is not in {INDEX_NAME}", shard.name, tensor=name)


def _total_size(index: Index, stated: int, shards: tuple[Shard, ...]) -> Iterator[Defect]:
    readable = [shard for shard in shards if shard.header]
    total = sum(t.nbytes for shard in readable for t in shard.tensors.values())
    if len(readable) == len(set(index.weight_map.values())) and total != stated:
        yield Defect(
            "total-size",
            "states another size than the headers add up to",
            INDEX_NAME,
            expected=str(total),
            actual=str(stated),
        )


# Parts of a model that lie side by side under one prefix.
_TOGETHER = ("layers", "embed_tokens", "norm")


def _mixed_prefixes(tensors: Mapping[str, Shard]) -> Iterator[Defect]:
    """Tensors whose prefix is not that of the rest of their part of the model.

    Names are compared without their prefixes, so that exports and bases of different spelling
    can be; a loader compares them whole, and would not find these.
    """
    parts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in tensors:
        key = bare(name)
        root = key.partition(".")[0]
        part = _TOGETHER[0] if root in _TOGETHER else root
        parts[part][name[: len(name) - len(key)]].append(name)
    for prefixes in parts.values():
        usual = max(prefixes, key=lambda prefix: len(prefixes[prefix]))
        for prefix, names in prefixes.items():
            for name in names if prefix != usual else ():
                message = f'begins with "{prefix}", and the rest of its kind with "{usual}"'
                yield Defect(
                    "mixed-prefixes", message, tensors[name].name, tensor=name, expected=usual
                )
