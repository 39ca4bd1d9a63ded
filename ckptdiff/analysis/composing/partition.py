"""Which modules a scheme is to quantize: recipes of its manifest against the modules of base.

Coverage of what is on disk is another question; `coverage` answers it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from ckptdiff.formats.names import RecipeGroups, module_key
from ckptdiff.records.checkpoint import BaselineManifest, CoverageManifest
from ckptdiff.records.coverage import Module


@dataclass(frozen=True, slots=True)
class Partition:
    """Module keys of base. `unpackable` are selected ones that no export packs (convolutions):
    configs list them as quantized. `unknown` are recipes that name no module of base."""

    selected: frozenset[str]
    unpackable: frozenset[str]
    unknown: tuple[str, ...]


def partition_of(
    manifest: CoverageManifest, baseline: BaselineManifest | None, modules: Mapping[str, Module]
) -> Partition:
    """What `manifest` selects of `modules`, recipes that were never eligible left out."""
    never = (
        {module_key(r.name) for r in baseline.recipes.values() if not r.eligible}
        if baseline
        else set()
    )
    names = manifest.selected + manifest.dropped
    groups = RecipeGroups.of(modules, map(module_key, names))
    wanted = [n for n in manifest.selected if module_key(n) not in never]
    members = {name: groups.expand(module_key(name)) for name in wanted}
    selected = {key for group in members.values() for key in group}
    return Partition(
        selected=frozenset(key for key in selected if modules[key].packable),
        unpackable=frozenset(key for key in selected if not modules[key].packable),
        unknown=tuple(n for n in wanted if not members[n] and module_key(n) != "lm_head"),
    )


def eligible_ranking(baseline: BaselineManifest) -> tuple[str, ...]:
    """The ranking, least sensitive first, without recipes that could only stay as they are."""
    recipes = baseline.recipes
    return tuple(name for name in baseline.ranking if name not in recipes or recipes[name].eligible)


def share_of(ranking: Collection[str], percent: Decimal) -> int:
    """How many recipes topNN selects: at least one, and rounded up."""
    exact = percent * len(ranking) / 100
    return max(1, int(exact.to_integral_value(ROUND_CEILING)))
