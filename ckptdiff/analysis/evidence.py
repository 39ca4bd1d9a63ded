"""Puts together what is known about a sweep, so that rules only have to judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ckptdiff.analysis import against_base
from ckptdiff.analysis.coverage import baseline_of, coverage_of
from ckptdiff.analysis.hashing.fingerprint import fingerprint
from ckptdiff.analysis.identity import identity_groups, mislabelled
from ckptdiff.events import CancelToken
from ckptdiff.formats.layouts import layout_of, scale_suffix
from ckptdiff.formats.manifests import BASELINE_SUFFIX
from ckptdiff.formats.names import keys_of
from ckptdiff.records.checkpoint import BaselineManifest, Checkpoint, QuantConfig, Unread
from ckptdiff.records.coverage import Coverage
from ckptdiff.records.digests import Flaws, ShardDigests
from ckptdiff.records.evidence import Evidence, SchemeEvidence
from ckptdiff.records.layout import Layout, Scale, Suffix
from ckptdiff.records.proof import Proof
from ckptdiff.records.sweep import Sweep


def gather(
    sweep: Sweep,
    digests: Mapping[str, ShardDigests] | None,
    cancel: CancelToken | None = None,
    *,
    known: Mapping[str, SchemeEvidence] = MappingProxyType({}),
) -> Evidence:
    """The evidence for `sweep`. `digests` by shard path, or None when nothing was hashed.
    `known` is what was made of schemes already, by their ids.

    Raises `Cancelled` between two schemes, each of which may have 100,000 tensors.
    """

    def seen(checkpoint: Checkpoint) -> SchemeEvidence:
        if cancel is not None:
            cancel.raise_if_cancelled()
        return scheme_evidence(checkpoint, digests)

    schemes = tuple(known.get(scheme.id) or seen(scheme) for scheme in sweep.schemes)
    groups = identity_groups(schemes)
    return Evidence(
        root=sweep.root,
        schemes=schemes,
        base=seen(sweep.base.checkpoint) if sweep.base else None,
        hashed=digests is not None,
        identity=groups,
        mislabelled=mislabelled(schemes, groups) if digests is not None else {},
    )


def casts_wanted(evidence: Evidence, base: SchemeEvidence) -> set[tuple[str, str]]:
    """(name of a base tensor, dtype) of the casts that comparing with `base` needs, one of the
    evidence's."""
    if not evidence.hashed:
        return set()
    held = (scheme for scheme in evidence.schemes if evidence.base_of(scheme) is base)
    return {wanted for scheme in held for wanted in against_base.casts_wanted(scheme, base)}


def with_base(evidence: Evidence, casts: against_base.Casts, cancel: CancelToken) -> Evidence:
    """The evidence with every scheme compared with the base, if there is one. Raises
    `Cancelled`."""
    compared = {}
    for scheme in evidence.schemes:
        cancel.raise_if_cancelled()
        if base := evidence.base_of(scheme):
            compared[scheme.id] = against_base.compare(scheme, base, casts)
    return replace(evidence, against_base=compared)


def with_proofs(evidence: Evidence, proofs: Mapping[str, Mapping[str, Proof]]) -> Evidence:
    """The evidence with what recomputing each scheme showed; what could not be read for that
    was not read of the scheme."""

    def marked(scheme: SchemeEvidence) -> SchemeEvidence:
        found = (proof.unread for proof in proofs.get(scheme.id, {}).values())
        return replace(scheme, unread=tuple(_distinct([*scheme.unread, *found])))

    return replace(evidence, schemes=tuple(map(marked, evidence.schemes)), proofs=proofs)


def quantization_of(checkpoint: Checkpoint) -> QuantConfig | None:
    """The quantization config, from whichever of the two files has it."""
    from_model = checkpoint.config.quantization if checkpoint.config else None
    return checkpoint.quant_config or from_model


def scheme_evidence(
    checkpoint: Checkpoint, digests: Mapping[str, ShardDigests] | None
) -> SchemeEvidence:
    """What is known of one checkpoint; `digests` as for `gather`."""
    quantization = quantization_of(checkpoint)
    baseline = baseline_of(checkpoint)
    coverage, scales = coverage_of(checkpoint), _scales(checkpoint)
    keys = keys_of(name for name, _, _ in checkpoint.items())
    algorithm = quantization.algorithm if quantization else None
    read = {} if digests is None else digests
    unread = [shard.unread for shard in checkpoint.shards]
    unread += [read[s.path].unread for s in checkpoint.shards if s.path in read]
    of_tensors: dict[str, bytes] = {}
    flaws: dict[str, Flaws] = {}
    for shard in checkpoint.shards:
        # Where two tensors claim the same bytes, nobody knows whose digest it is.
        overlap = any(defect.kind == "overlap" for defect in shard.defects)
        if shard.path in read and not overlap:
            of_tensors.update(read[shard.path].digests)
            flaws.update(read[shard.path].flaws)
    return SchemeEvidence(
        checkpoint=checkpoint,
        coverage=coverage,
        quantization=quantization,
        baseline=baseline,
        family=f"{_baseline_name(checkpoint, baseline) or '-'}:{algorithm or '-'}",
        scales=scales,
        tensors={keys[n]: (n, tensor, shard.name) for n, tensor, shard in checkpoint.items()},
        layouts=_layouts(checkpoint, coverage, scales),
        digests=of_tensors,
        flaws=flaws,
        fingerprint=_fingerprint(checkpoint, keys, of_tensors),
        unread=checkpoint.unread + tuple(_distinct(unread)),
    )


def _scales(checkpoint: Checkpoint) -> dict[str, dict[Suffix, Scale]]:
    """Every scale tensor, by the name of its module and its suffix."""
    found: dict[str, dict[Suffix, Scale]] = {}
    for name, tensor, shard in checkpoint.items():
        if name.endswith(("scale", "scale_2")) and (split := scale_suffix(name)):
            module, suffix = split
            found.setdefault(module, {})[suffix] = Scale(name, module, suffix, tensor, shard.name)
    return found


def _layouts(
    checkpoint: Checkpoint, coverage: Coverage, scales: Mapping[str, Mapping[Suffix, Scale]]
) -> dict[str, Layout]:
    """module key -> layout, for every module that is quantized on disk as ModelOpt does it."""
    tensors = {name: tensor for name, tensor, _ in checkpoint.items()}
    return {
        key: layout_of(tensors[module.weight], scales.get(module.name, {}))
        for key, module in coverage.modules.items()
        if module.quantized and module.weight.endswith(".weight")
    }


def _baseline_name(checkpoint: Checkpoint, baseline: BaselineManifest | None) -> str | None:
    if baseline is not None and baseline.scheme_name:
        return baseline.scheme_name
    named = baseline.name if baseline else None
    if checkpoint.coverage:
        named = checkpoint.coverage[0].baseline_manifest or named
    return named.rpartition("/")[2].removesuffix(BASELINE_SUFFIX) if named else None


def _fingerprint(
    checkpoint: Checkpoint, keys: Mapping[str, str], digests: Mapping[str, bytes]
) -> str | None:
    """The sharding-independent fingerprint; None unless every tensor has a digest."""
    if not digests or not checkpoint.readable:
        return None
    leaves = []
    for name, tensor, _ in checkpoint.items():
        if name not in digests:
            return None
        leaves.append((keys[name], tensor.dtype, tensor.shape, digests[name]))
    return fingerprint(leaves)


def _distinct(items: list[Unread | None]) -> list[Unread]:
    return list(dict.fromkeys(item for item in items if item is not None))
