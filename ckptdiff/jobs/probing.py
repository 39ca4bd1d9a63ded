"""Probes in a child process: starts it, hashes meanwhile, and gathers what it says.

The child loads the reference and computes its logits while the checkpoints are hashed here, with
the digests that `check` remembers. What the numbers add up to is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

from ckptdiff.analysis.ordering import natural
from ckptdiff.analysis.probing import noise_row
from ckptdiff.errors import Cancelled, UsageError
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.jobs.children import Child, Message, Program
from ckptdiff.jobs.hashing import Hashing, digest_shards
from ckptdiff.records.checkpoint import Checkpoint, FileIdentity, Shard
from ckptdiff.records.digests import ShardDigests
from ckptdiff.records.probe import NoiseRow, Prompt, Scores
from ckptdiff.sources.local import identity_of

PROGRAM = Program(
    module="ckptdiff.runtime.probe",
    title="the probe",
    extra="probe",
    packages=("torch", "transformers", "accelerate"),
    environment={
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # Without a workspace of fixed size cuBLAS may add up in another order each time.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    },
)


@dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How to compute. `tokenizer` is the directory that it is loaded from; `device` is auto,
    cpu, cuda (all GPUs) or a list such as cuda:0,cuda:1; `dtype` is auto or a float's name;
    `trust_remote_code` runs the code that comes with the model."""

    tokenizer: str
    device: str = "auto"
    dtype: str = "auto"
    activations: str = "off"
    raw: bool = False
    perplexity: bool = False
    batch_size: int | None = None
    max_length: int | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class ReferenceRun:
    """What the child says of the reference, once it has computed it."""

    device: str
    dtype: str
    batches: int
    tokens: int
    perplexity: float | None
    noise: NoiseRow


@dataclass(slots=True)
class ProbeRun:
    """What a probe found, by scheme. `same` maps a scheme to the one whose model it makes,
    `failed` to why it has no numbers. `digests` are those of all shards, by path."""

    reference: ReferenceRun | None = None
    scores: dict[str, Scores] = field(default_factory=dict)
    perplexity: dict[str, float | None] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    digests: Mapping[str, ShardDigests] = field(default_factory=dict)


def run_probe(
    reference: Checkpoint,
    others: Sequence[Checkpoint],
    prompts: Sequence[Prompt],
    options: ProbeOptions,
    how: Hashing,
    *,
    log: Path | None = None,
    on_result: Callable[[ProbeRun], None] | None = None,
    sink: Sink,
    cancel: CancelToken,
) -> ProbeRun:
    """Probe `others` against `reference`; `on_result` hears of every scheme as it is done.

    Raises `CapabilityError` when an extra, a device or memory is missing, `UsageError` for a
    reference or prompts that cannot be used, `ChildError` and `Cancelled`. A scheme that
    cannot be computed is in `failed`.
    """
    found = ProbeRun()
    shards = [shard for each in (reference, *others) for shard in each.shards]
    with Child(PROGRAM, log=log) as child:
        child.send(_request(reference, others, prompts, options))
        hashing = CancelToken()
        feeder = Thread(target=_feed, args=(child, shards, how, found, hashing), daemon=True)
        feeder.start()
        try:
            for message in child.messages(sink, cancel):
                _take(found, message)
                if on_result is not None:
                    on_result(found)
        finally:
            hashing.cancel()
            feeder.join()
    _drop_changed(found, reference, others)
    return found


def _drop_changed(found: ProbeRun, reference: Checkpoint, others: Sequence[Checkpoint]) -> None:
    """Numbers of files that are not those any more whose headers were read are of nothing."""
    if _changed(reference):
        raise UsageError(
            f"{reference.path} changed while it was probed",
            "Run this again when nothing writes to it.",
        )
    changed = {other.id for other in others if _changed(other)}
    for other in others:
        if other.id in changed or found.same.get(other.id) in changed:
            for kept in (found.scores, found.perplexity, found.same):
                kept.pop(other.id, None)
            found.failed.setdefault(other.id, "it changed while it was probed")


def _changed(checkpoint: Checkpoint) -> bool:
    return any(_identity(shard.path) != shard.identity for shard in checkpoint.shards)


def _identity(path: str) -> FileIdentity | None:
    try:
        return identity_of(Path(path).stat())
    except OSError:
        return None


def _feed(
    child: Child, shards: Sequence[Shard], how: Hashing, found: ProbeRun, cancel: CancelToken
) -> None:
    """Hash, in a thread of its own, and tell the child. Without digests it computes anyway."""
    digests: Mapping[str, ShardDigests] = {}
    try:
        digests = digest_shards(shards, how, sink=silent, cancel=cancel)
    except Cancelled:
        return
    finally:
        found.digests = digests
        child.send({"digests": dict(_known(shards, digests))})


def _known(shards: Sequence[Shard], digests: Mapping[str, ShardDigests]) -> Any:
    for shard in shards:
        if shard.path in digests and shard.identity is not None:
            by_name = digests[shard.path].digests
            yield (
                str(Path(shard.path).absolute()),
                {
                    "identity": astuple(shard.identity),
                    "digests": {name: digest.hex() for name, digest in by_name.items()},
                },
            )


def _request(
    reference: Checkpoint,
    others: Sequence[Checkpoint],
    prompts: Sequence[Prompt],
    options: ProbeOptions,
) -> Message:
    return {
        **asdict(options),
        "tokenizer": str(Path(options.tokenizer).absolute()),
        "reference": _named(reference),
        # Of schemes that are the same the first is computed: let it be the first by name.
        "others": [_named(other) for other in sorted(others, key=lambda o: natural(o.id))],
        "prompts": [
            {
                "text": prompt.text,
                "messages": [dict(message) for message in prompt.messages],
                "images": [str(Path(image).absolute()) for image in prompt.images],
            }
            for prompt in prompts
        ],
    }


def _named(checkpoint: Checkpoint) -> Message:
    # The child works in a directory of its own.
    return {"id": checkpoint.id, "path": str(Path(checkpoint.path).absolute())}


def _take(found: ProbeRun, message: Message) -> None:
    match message["kind"]:
        case "reference":
            noise = message["noise"]
            found.reference = ReferenceRun(
                device=message["device"],
                dtype=message["dtype"],
                batches=message["batches"],
                tokens=message["tokens"],
                perplexity=message["perplexity"],
                noise=noise_row(noise["batching"], noise["precision"]),
            )
        case "scores":
            columns = {name: tuple(values) for name, values in message["scores"].items()}
            found.scores[message["scheme"]] = Scores(**columns)
            found.perplexity[message["scheme"]] = message["perplexity"]
        case "same":
            found.same[message["scheme"]] = message["as_"]
        case "failed":
            found.failed[message["scheme"]] = message["reason"]
