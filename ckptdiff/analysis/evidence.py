"""Puts together what is known about a sweep, so that rules only have to judge."""

from __future__ import annotations

from collections.abc import Mapping

from ckptdiff.analysis.coverage import baseline_of, coverage_of
from ckptdiff.analysis.identity import identity_groups, mislabelled
from ckptdiff.formats.manifests import BASELINE_SUFFIX
from ckptdiff.formats.names import keys_of
from ckptdiff.records.checkpoint import BaselineManifest, Checkpoint, QuantConfig, Unread
from ckptdiff.records.digests import ShardDigests
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.sweep import Sweep


def gather(sweep: Sweep, digests: Mapping[str, ShardDigests] | None) -> Evidence:
    """The evidence for `sweep`. `digests` by shard path, or None when nothing was hashed."""
    schemes = tuple(_scheme(checkpoint, digests) for checkpoint in sweep.schemes)
    groups = identity_groups(schemes)
    return Evidence(
        root=sweep.root,
        schemes=schemes,
        base=sweep.base,
        hashed=digests is not None,
        identity=groups,
        mislabelled=mislabelled(schemes, groups) if digests is not None else {},
    )


def quantization_of(checkpoint: Checkpoint) -> QuantConfig | None:
    """The quantization config, from whichever of the two files has it."""
    from_model = checkpoint.config.quantization if checkpoint.config else None
    return checkpoint.quant_config or from_model


def _scheme(checkpoint: Checkpoint, digests: Mapping[str, ShardDigests] | None) -> SchemeEvidence:
    quantization = quantization_of(checkpoint)
    baseline = baseline_of(checkpoint)
    algorithm = quantization.algorithm if quantization else None
    read = {} if digests is None else digests
    unread = [shard.unread for shard in checkpoint.shards]
    unread += [read[s.path].unread for s in checkpoint.shards if s.path in read]
    return SchemeEvidence(
        checkpoint=checkpoint,
        coverage=coverage_of(checkpoint),
        algorithm=algorithm,
        producer=quantization.producer if quantization else "",
        baseline=baseline,
        family=f"{_baseline_name(checkpoint, baseline) or '-'}:{algorithm or '-'}",
        fingerprint=_fingerprint(checkpoint, read),
        unread=checkpoint.unread + tuple(_distinct(unread)),
    )


def _baseline_name(checkpoint: Checkpoint, baseline: BaselineManifest | None) -> str | None:
    if baseline is not None and baseline.scheme_name:
        return baseline.scheme_name
    named = baseline.name if baseline else None
    if checkpoint.coverage:
        named = checkpoint.coverage[0].baseline_manifest or named
    return named.rpartition("/")[2].removesuffix(BASELINE_SUFFIX) if named else None


def _fingerprint(checkpoint: Checkpoint, digests: Mapping[str, ShardDigests]) -> str | None:
    """The sharding-independent fingerprint; None unless every tensor has a digest."""
    from ckptdiff.analysis.hashing import fingerprint

    if not checkpoint.readable:
        return None
    keys = keys_of(name for name, _, _ in checkpoint.items())
    leaves = []
    for name, tensor, shard in checkpoint.items():
        found = digests.get(shard.path)
        digest = found.digests.get(name) if found else None
        if digest is None:
            return None
        leaves.append((keys[name], tensor.dtype, tensor.shape, digest))
    return fingerprint(leaves)


def _distinct(items: list[Unread | None]) -> list[Unread]:
    return list(dict.fromkeys(item for item in items if item is not None))
