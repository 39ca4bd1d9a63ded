"""All rules: those that run, in the order of their codes, and those that are planned.

A code never changes its meaning. Planned rules are listed so that the table of codes is
whole from the first release; they are not run and cannot be selected.
"""

from __future__ import annotations

from ckptdiff.errors import UsageError
from ckptdiff.records.finding import RuleInfo
from ckptdiff.rules.base import Rule
from ckptdiff.rules.ck101_malformed_file import MalformedFile
from ckptdiff.rules.ck102_truncated_shard import TruncatedShard
from ckptdiff.rules.ck103_missing_shard import MissingShard
from ckptdiff.rules.ck104_absent_tensor import AbsentTensor
from ckptdiff.rules.ck105_escaping_path import EscapingPath
from ckptdiff.rules.ck106_no_weights import NoWeights
from ckptdiff.rules.ck107_overlap import Overlap
from ckptdiff.rules.ck108_gap import Gap
from ckptdiff.rules.ck301_selected_not_quantized import SelectedNotQuantized
from ckptdiff.rules.ck302_quantized_not_selected import QuantizedNotSelected
from ckptdiff.rules.ck303_broken_partition import BrokenPartition
from ckptdiff.rules.ck304_share_disagrees import ShareDisagrees
from ckptdiff.rules.ck305_not_nested import NotNested
from ckptdiff.rules.ck306_unknown_layer import UnknownLayer
from ckptdiff.rules.ck307_no_manifest import NoManifest
from ckptdiff.rules.ck501_identical_weights import IdenticalWeights
from ckptdiff.rules.ck502_alias import Alias
from ckptdiff.rules.ck503_mislabelled import Mislabelled
from ckptdiff.rules.planned import PLANNED

RULES: tuple[type[Rule], ...] = (
    MalformedFile,
    TruncatedShard,
    MissingShard,
    AbsentTensor,
    EscapingPath,
    NoWeights,
    Overlap,
    Gap,
    SelectedNotQuantized,
    QuantizedNotSelected,
    BrokenPartition,
    ShareDisagrees,
    NotNested,
    UnknownLayer,
    NoManifest,
    IdenticalWeights,
    Alias,
    Mislabelled,
)


def table() -> tuple[RuleInfo, ...]:
    """Every rule, running or planned, sorted by code."""
    return tuple(sorted([*(rule.info() for rule in RULES), *PLANNED], key=lambda info: info.code))


def matching(codes: tuple[str, ...]) -> tuple[type[Rule], ...]:
    """The rules whose code or name starts with one of `codes`; all of them for ().

    Raises `UsageError` for a code that no running rule has.
    """
    for code in codes:
        if not any(matches(rule, code) for rule in RULES):
            raise UsageError(
                f'no rule of this version has the code "{code}"', "`ckptdiff rule` lists them all."
            )
    return tuple(rule for rule in RULES if not codes or any(matches(rule, c) for c in codes))


def matches(rule: type[Rule] | RuleInfo, code: str) -> bool:
    """Whether `code` is the rule's name, its code, or the start of its code."""
    return rule.name == code.lower() or rule.code.startswith(code.upper())
