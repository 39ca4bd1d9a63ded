"""CK402 config-differs."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.checkpoint import QuantConfig
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class ConfigDiffers(Rule):
    """config.json and hf_quant_config.json say different things of the quantization.

    Some loaders read one, some the other, so the same checkpoint would be two models.
    Only what both files can say is compared: config.json has no group size for some
    algorithms.

    What to do: take both files from the same export.
    """

    code = "CK402"
    name = "config-differs"
    severity = "error"
    since = "0.1"
    needs = ("modelopt",)
    fix = "reexport"

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            config = scheme.checkpoint.config
            one = scheme.checkpoint.quant_config
            other = config.quantization if config else None
            places = list(_differences(one, other)) if one and other else []
            if places:
                yield self.finding_at(
                    scheme,
                    "config.json and hf_quant_config.json differ in "
                    f"{plural(len(places), 'place')}",
                    places,
                )


def _differences(one: QuantConfig, other: QuantConfig) -> Iterator[Location]:
    """Locations in config.json; what hf_quant_config.json has is what is expected."""
    pairs: list[tuple[str, object, object]] = [
        ("quant_algo", one.algorithm, other.algorithm),
        ("kv_cache_quant_algo", one.kv_cache_algorithm, other.kv_cache_algorithm),
    ]
    if one.group_size and other.group_size:
        pairs.append(("group_size", one.group_size, other.group_size))
    for field, expected, actual in pairs:
        if expected != actual:
            yield _place(f"{field} {expected}", f"{field} {actual}")
    mine = set(one.exclude)
    for name in sorted(mine ^ set(other.exclude)):
        yield _place(*_only("excluded", name in mine), module=name)
    for name in sorted(one.layers.keys() | other.layers.keys()):
        expected, actual = (_listed(config, name) for config in (one, other))
        if expected != actual:
            yield _place(expected, actual, module=name)


def _listed(config: QuantConfig, name: str) -> str:
    if name not in config.layers:
        return "not listed"
    size = config.group_sizes.get(name)
    return config.layers[name] + (f" in groups of {size}" if size else "")


def _only(what: str, first: bool) -> tuple[str, str]:
    return (what, f"not {what}") if first else (f"not {what}", what)


def _place(expected: str, actual: str, module: str | None = None) -> Location:
    return Location(module=module, shard="config.json", expected=expected, actual=actual)
