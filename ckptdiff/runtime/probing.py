"""A probe from its request to the numbers of every scheme.

`ckptdiff.jobs.probing` says what is sent. Means, intervals and sentences are not made here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from ckptdiff.analysis.evidence import scheme_evidence
from ckptdiff.errors import CapabilityError, CkptdiffError, UsageError
from ckptdiff.records.checkpoint import FileIdentity
from ckptdiff.records.digests import ShardDigests
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.probe import Prompt
from ckptdiff.runtime.bench import Bench, Loadable
from ckptdiff.runtime.child import Channel, during
from ckptdiff.runtime.contents import contents
from ckptdiff.runtime.filling import Filling, arrange
from ckptdiff.runtime.loading import find_device, read_scheme
from ckptdiff.runtime.prompts import Encoder
from ckptdiff.runtime.skeleton import DTYPES, difference, read_config

Request = Mapping[str, Any]


def carry_out(channel: Channel) -> None:
    """Compute the reference, then every other checkpoint of the request, on all its devices."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    request = channel.receive()
    path = Path(request["reference"]["path"])
    devices = _devices(request["device"])
    static = request["activations"] == "static"
    reference = read_scheme(path)
    given = [_prompt(each) for each in request["prompts"]]
    trusted = request["trust_remote_code"]
    with during(channel.sink, "encode", None, "prompts"):
        config = read_config(path, trusted)
        encoder = Encoder(Path(request["tokenizer"]), config, request["max_length"], trusted)
        prompts = encoder.encode(given)

    def start(device: torch.device) -> Bench:
        bench = Bench(
            path,
            device,
            dtype=DTYPES.get(request["dtype"]),
            static=static,
            losses=request["perplexity"],
            rows=request["batch_size"],
            trust_remote_code=trusted,
            sink=channel.sink,
        )
        loadable = _loadable(bench.filling, request["reference"]["id"], reference, False, static)
        bench.refer_to(loadable, prompts, encoder.pad)
        return bench

    with ThreadPoolExecutor(len(devices)) as pool:
        benches = list(pool.map(start, devices))
        noise = benches[0].noise()
        channel.send(
            "reference",
            device=", ".join(_device_name(device) for device in devices),
            dtype=str(benches[0].dtype).removeprefix("torch."),
            batches=len(benches[0].batches),
            tokens=sum(prompt.length for prompt in prompts),
            perplexity=benches[0].perplexity,
            noise=asdict(noise),
        )
        digests = channel.receive()["digests"]
        # What lies in the models has keys now, so that schemes need not write it again.
        known = scheme_evidence(reference.checkpoint, _digests(reference, digests))
        loadable = _loadable(benches[0].filling, "", known, False, static)
        for bench in benches:
            bench.filling.holds(loadable.arrangement)
        groups = _groups(channel, benches[0].filling, request, config, digests, static)
        # Neighbours in coverage differ in few tensors: each device takes a run of them.
        size = -(-len(groups) // len(benches)) if groups else 1
        runs = [groups[n : n + size] for n in range(0, len(groups), size)]
        list(pool.map(partial(_score_all, channel), benches[: len(runs)], runs))


def _score_all(channel: Channel, bench: Bench, groups: Sequence[Sequence[Loadable]]) -> None:
    """Score the first of each group; the others are the same."""
    for first, *others in groups:
        try:
            scores, perplexity = bench.score(first)
        except CapabilityError:
            raise
        except CkptdiffError as error:
            for each in (first, *others):
                channel.send("failed", scheme=each.id, reason=error.message)
            continue
        channel.send("scores", scheme=first.id, perplexity=perplexity, scores=asdict(scores))
        for each in others:
            channel.send("same", scheme=each.id, as_=first.id)


def _groups(
    channel: Channel,
    filling: Filling,
    request: Request,
    config: PretrainedConfig,
    digests: Mapping[str, Any],
    static: bool,
) -> list[list[Loadable]]:
    """Loadable schemes in groups of equal content, least quantized first."""
    groups: dict[Hashable, list[Loadable]] = {}
    for other in request["others"]:
        try:
            path = Path(other["path"])
            # Weights are put into the model of the reference: it has to be theirs.
            if how := difference(read_config(path, request["trust_remote_code"]), config):
                raise UsageError(
                    f"its config.json describes another model than the reference's: {how}"
                )
            scheme = read_scheme(path)
            scheme = scheme_evidence(scheme.checkpoint, _digests(scheme, digests))
            loadable = _loadable(filling, other["id"], scheme, request["raw"], static)
        except CkptdiffError as error:
            channel.send("failed", scheme=other["id"], reason=error.message)
            continue
        groups.setdefault(_content(loadable, static), []).append(loadable)
    return sorted(groups.values(), key=lambda group: len(group[0].scheme.coverage.quantized))


def _content(loadable: Loadable, static: bool) -> Hashable:
    """Equal for schemes that make the same model."""
    keys = frozenset((place, value.key) for place, value in loadable.arrangement.items())
    if any(key is None for _, key in keys):
        return loadable.id  # something was not hashed: it is like nothing else
    if not static:
        return keys
    scheme = loadable.scheme
    names = [s["input_scale"].name for s in scheme.scales.values() if "input_scale" in s]
    return keys, frozenset((name, scheme.digests.get(name)) for name in names)


def _loadable(
    filling: Filling, id: str, scheme: SchemeEvidence, raw: bool, static: bool
) -> Loadable:
    values = contents(scheme, raw=raw, smooth=not static)
    return Loadable(id, scheme, arrange(filling.places, values, scheme.checkpoint.path))


def _digests(scheme: SchemeEvidence, digests: Mapping[str, Any]) -> dict[str, ShardDigests]:
    """The parent's digests of this checkpoint's shards, where they are of the same files."""
    found = {}
    for shard in scheme.checkpoint.shards:
        known = digests.get(shard.path)
        if known and FileIdentity(*known["identity"]) == shard.identity:
            by_name = {name: bytes.fromhex(digest) for name, digest in known["digests"].items()}
            found[shard.path] = ShardDigests(by_name)
    return found


def _devices(wanted: str) -> list[torch.device]:
    """The devices that a request names; "cuda" is every GPU."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and torch.cuda.device_count() > 1:
        return [torch.device("cuda", n) for n in range(torch.cuda.device_count())]
    return [find_device(name) for name in wanted.split(",")]


def _device_name(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _prompt(fields: Mapping[str, Any]) -> Prompt:
    return Prompt(fields["text"], tuple(fields["messages"]), tuple(fields["images"]))
