"""All rules, in the order of their codes. A code never changes its meaning."""

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
from ckptdiff.rules.ck109_tensor_in_two_shards import TensorInTwoShards
from ckptdiff.rules.ck110_tensor_not_indexed import TensorNotIndexed
from ckptdiff.rules.ck111_total_size import TotalSize
from ckptdiff.rules.ck112_stray_shard import StrayShard
from ckptdiff.rules.ck113_mixed_prefixes import MixedPrefixes
from ckptdiff.rules.ck114_two_readings import TwoReadings
from ckptdiff.rules.ck201_missing_scale import MissingScale
from ckptdiff.rules.ck202_orphan_scale import OrphanScale
from ckptdiff.rules.ck203_bad_scale import BadScale
from ckptdiff.rules.ck204_scale_layout import ScaleLayout
from ckptdiff.rules.ck205_non_finite_weight import NonFiniteWeight
from ckptdiff.rules.ck206_partial_group import PartialGroup
from ckptdiff.rules.ck207_stale_weight import StaleWeight
from ckptdiff.rules.ck208_stale_scale import StaleScale
from ckptdiff.rules.ck209_low_sqnr import LowSqnr
from ckptdiff.rules.ck210_zero_tensor import ZeroTensor
from ckptdiff.rules.ck211_saturation import Saturation
from ckptdiff.rules.ck212_gain_error import GainError
from ckptdiff.rules.ck301_selected_not_quantized import SelectedNotQuantized
from ckptdiff.rules.ck302_quantized_not_selected import QuantizedNotSelected
from ckptdiff.rules.ck303_broken_partition import BrokenPartition
from ckptdiff.rules.ck304_share_disagrees import ShareDisagrees
from ckptdiff.rules.ck305_not_nested import NotNested
from ckptdiff.rules.ck306_unknown_layer import UnknownLayer
from ckptdiff.rules.ck307_no_manifest import NoManifest
from ckptdiff.rules.ck308_baselines_differ import BaselinesDiffer
from ckptdiff.rules.ck309_two_manifests import TwoManifests
from ckptdiff.rules.ck401_quant_config import QuantConfigDisagrees
from ckptdiff.rules.ck402_config_differs import ConfigDiffers
from ckptdiff.rules.ck403_ambiguous_exclude import AmbiguousExclude
from ckptdiff.rules.ck404_tied_lm_head import TiedLmHead
from ckptdiff.rules.ck405_split_exclude import SplitExclude
from ckptdiff.rules.ck406_scales_dropped import ScalesDropped
from ckptdiff.rules.ck407_tokenizer import Tokenizer
from ckptdiff.rules.ck501_identical_weights import IdenticalWeights
from ckptdiff.rules.ck502_alias import Alias
from ckptdiff.rules.ck503_mislabelled import Mislabelled
from ckptdiff.rules.ck601_differs_from_base import DiffersFromBase
from ckptdiff.rules.ck602_missing_against_base import MissingAgainstBase
from ckptdiff.rules.ck603_extra_against_base import ExtraAgainstBase
from ckptdiff.rules.ck604_shape_against_base import ShapeAgainstBase
from ckptdiff.rules.ck605_other_dtype import OtherDtype
from ckptdiff.rules.ck606_base_only import BaseOnly
from ckptdiff.rules.ck607_model_differs_from_base import ModelDiffersFromBase

RULES: tuple[type[Rule], ...] = (
    MalformedFile,
    TruncatedShard,
    MissingShard,
    AbsentTensor,
    EscapingPath,
    NoWeights,
    Overlap,
    Gap,
    TensorInTwoShards,
    TensorNotIndexed,
    TotalSize,
    StrayShard,
    MixedPrefixes,
    TwoReadings,
    MissingScale,
    OrphanScale,
    BadScale,
    ScaleLayout,
    NonFiniteWeight,
    PartialGroup,
    StaleWeight,
    StaleScale,
    LowSqnr,
    ZeroTensor,
    Saturation,
    GainError,
    SelectedNotQuantized,
    QuantizedNotSelected,
    BrokenPartition,
    ShareDisagrees,
    NotNested,
    UnknownLayer,
    NoManifest,
    BaselinesDiffer,
    TwoManifests,
    QuantConfigDisagrees,
    ConfigDiffers,
    AmbiguousExclude,
    TiedLmHead,
    SplitExclude,
    ScalesDropped,
    Tokenizer,
    IdenticalWeights,
    Alias,
    Mislabelled,
    DiffersFromBase,
    MissingAgainstBase,
    ExtraAgainstBase,
    ShapeAgainstBase,
    OtherDtype,
    BaseOnly,
    ModelDiffersFromBase,
)


def table() -> tuple[RuleInfo, ...]:
    """Every rule, sorted by code."""
    return tuple(sorted((rule.info() for rule in RULES), key=lambda info: info.code))


def matching(codes: tuple[str, ...]) -> tuple[type[Rule], ...]:
    """The rules whose code or name starts with one of `codes`; all of them for ().

    Raises `UsageError` for a code that no rule has.
    """
    for code in codes:
        if not any(matches(rule, code) for rule in RULES):
            raise UsageError(f'"{code}" is no rule', "`ckptdiff rule` lists them all.")
    return tuple(rule for rule in RULES if not codes or any(matches(rule, c) for c in codes))


def matches(rule: type[Rule] | RuleInfo, code: str) -> bool:
    """Whether `code` is the rule's name, its code, or the start of its code."""
    return rule.name == code.lower() or rule.code.startswith(code.upper())
