"""CK403 ambiguous-exclude."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from ckptdiff.records.evidence import Evidence
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.wording import plural
from ckptdiff.rules.base import Rule


class AmbiguousExclude(Rule):
    """An excluded name without a wildcard begins the name of a quantized module.

    vLLM takes such an entry for a part of a name, so `model.layers.1` leaves out the layers
    10 to 19 as well and loads their codes as plain weights. ModelOpt 0.40 wrote such
    entries, 0.47 does not. A quantized module below the named one is CK401's, an entry that
    only one of the two configs has CK402's.

    What to do: re-export with a current ModelOpt, or write the entry as `model.layers.1.*`.
    """

    code = "CK403"
    name = "ambiguous-exclude"
    severity = "error"
    since = "0.1"
    needs = ("headers", "modelopt")

    def check(self, evidence: Evidence) -> Iterator[Finding]:
        for scheme in evidence.schemes:
            config = scheme.quantization
            if config is None:
                continue
            model = scheme.checkpoint.config
            other = model.quantization if model and model.quantization else config
            modules = scheme.coverage.modules
            quantized = sorted(modules[key].name for key in scheme.coverage.quantized)
            places = []
            for entry in config.exclude:
                begun = list(_beginning_with(entry, quantized))
                hit = [name for name in begun if not f"{name}.".startswith(f"{entry}.")]
                if hit and not set("*?[") & set(entry) and entry in other.exclude:
                    places.append(
                        Location(
                            module=entry,
                            shard=config.source,
                            expected="a pattern that matches no quantized module",
                            actual=f"begins {hit[0]} and {len(hit) - 1} more",
                        )
                    )
            if places:
                yield self.finding_at(
                    scheme,
                    f"{plural(len(places), 'excluded name')} with which quantized modules begin",
                    places,
                )


def _beginning_with(start: str, names: list[str]) -> Iterator[str]:
    """Those of the sorted `names` that begin with `start`."""
    for at in range(bisect_left(names, start), len(names)):
        if not names[at].startswith(start):
            return
        yield names[at]
