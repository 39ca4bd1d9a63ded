"""CK607 model-differs-from-base."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.checkpoint import ModelConfig
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class ModelDiffersFromBase(Rule):
    """The scheme's config.json describes another model than the base's.

    Its weights would be computed with otherwise, however right they are. Compared are settings
    that logits depend on and shapes do not show, such as rms_norm_eps, rope_theta and the number
    of heads, where both files have them. What only one of them has is taken for a default:
    versions of transformers differ in what they write.

    What to do: take config.json from an export of this base, or re-export the scheme. If the
    change was meant, ignore the rule with that reason.
    """

    code = "CK607"
    name = "model-differs-from-base"
    severity = "error"
    since = "0.1"
    needs = ("base",)
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            base = evidence.base_of(scheme)
            mine, theirs = scheme.checkpoint.config, base and base.checkpoint.config
            places = list(_differences(mine, theirs)) if mine and theirs else []
            if places:
                yield self.finding_at(
                    scheme,
                    f"config.json has {plural(len(places), 'setting')} of another model than base",
                    places,
                )


def _differences(mine: ModelConfig, theirs: ModelConfig) -> Iterator[Location]:
    for name in sorted(mine.settings.keys() & theirs.settings.keys()):
        expected, actual = theirs.settings[name], mine.settings[name]
        if expected.isdisjoint(actual):
            yield Location(
                shard="config.json", expected=_spell(name, expected), actual=_spell(name, actual)
            )


def _spell(name: str, values: frozenset[float | str]) -> str:
    """A file may hold a million values, or a long one: enough of them to know it by."""
    return f"{name} {', '.join(sorted(str(value)[:40] for value in values)[:3])}"
