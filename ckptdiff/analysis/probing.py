"""What the numbers of a probe say: rows, the curve over coverage, and the verdict.

A result is only as good as what it can be told from: schemes that are the same are named, and so
is what lies below the noise of the arithmetic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import dropwhile, pairwise

from ckptdiff.analysis.bootstrap import interval, rising
from ckptdiff.analysis.ordering import natural
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.probe import (
    Cause,
    CurveRow,
    Interval,
    NoiseRow,
    ProbeCoverage,
    ProbeResult,
    Prompt,
    Scores,
    WorstPrompt,
)

_WORST = 5


def results(
    schemes: Sequence[SchemeEvidence],
    scores: Mapping[str, Scores],
    perplexities: Mapping[str, float | None],
    same: Mapping[str, str],
    *,
    raw: bool,
    noise: float | None,
    perplexity: float | None,
) -> tuple[ProbeResult, ...]:
    """One row a scheme that has numbers, in natural order of their ids."""
    ordered = sorted(schemes, key=lambda s: natural(s.id))
    known = {scheme.id: scheme for scheme in ordered}
    found = []
    # Of schemes that are the same the first by name is the one that others are identical to.
    first: dict[str, str] = {}
    for scheme in ordered:
        source = same.get(scheme.id, scheme.id)
        if source not in scores:
            continue
        twin = first.setdefault(source, scheme.id)
        own = scores[source]
        kl = Interval(*interval(own.kl))
        ppl = perplexities.get(source)
        found.append(
            ProbeResult(
                scheme=scheme.id,
                family=scheme.family,
                coverage=_coverage(scheme),
                kl=kl,
                mse=Interval(*interval(own.mse)),
                top1=_mean(own.top1),
                top5=_mean(own.top5),
                reverse_kl=Interval(*interval(own.reverse_kl)),
                js=Interval(*interval(own.js)),
                perplexity=ppl,
                perplexity_ratio=None if ppl is None or not perplexity else ppl / perplexity,
                identical_to=None if twin == scheme.id else twin,
                cause=None if twin == scheme.id else _cause(scheme, known[twin], raw),
                indistinguishable=noise is not None and kl.mean <= noise,
                per_prompt=own,
            )
        )
    return tuple(found)


def noise_row(batching: Sequence[float], precision: Sequence[float] | None) -> NoiseRow:
    """The noise floor, from the KL of the reference against itself prompt by prompt."""
    by_batching = interval(batching)[2] if batching else None
    by_precision = interval(precision)[2] if precision else None
    measured = [by_batching] if by_batching is not None else []
    measured += [2 * by_precision] if by_precision is not None else []
    return NoiseRow(max(measured, default=None), by_batching, by_precision)


def curves(results: Sequence[ProbeResult]) -> tuple[CurveRow, ...]:
    """For each family, whether KL rises with coverage."""
    return tuple(_curve(family, points) for family, points in curve_points(results).items())


def _curve(family: str, points: Sequence[ProbeResult]) -> CurveRow:
    names = tuple(result.scheme for result in points)
    # What cannot be told from the reference can neither make KL rise nor keep it from rising.
    points = list(dropwhile(lambda result: result.indistinguishable or not result.mse.hi, points))
    if len(points) < 2:
        return CurveRow(family, names, None, None)
    rises = all(a.kl.mean < b.kl.mean for a, b in pairwise(points))
    return CurveRow(family, names, rises, rising([result.per_prompt.kl for result in points]))


def curve_points(results: Sequence[ProbeResult]) -> dict[str, list[ProbeResult]]:
    """family -> its results in order of the modules that are quantized, one for each number of
    them, copies left out."""
    families: dict[str, dict[int, ProbeResult]] = defaultdict(dict)
    for result in results:
        if result.coverage is not None and result.identical_to is None:
            families[result.family].setdefault(result.coverage.quantized, result)
    return {
        family: [points[quantized] for quantized in sorted(points)]
        for family, points in sorted(families.items())
    }


def worst(results: Sequence[ProbeResult], prompts: Sequence[Prompt]) -> tuple[WorstPrompt, ...]:
    """The prompts on which the scheme that is furthest from the reference is furthest."""
    if not results:
        return ()
    furthest = max(results, key=lambda r: r.kl.mean)
    kl = furthest.per_prompt.kl
    order = sorted(range(len(kl)), key=lambda n: (-kl[n], n))[:_WORST]
    return tuple(WorstPrompt(n + 1, prompts[n].shown, furthest.scheme, kl[n]) for n in order)


def verdict(
    results: Sequence[ProbeResult],
    curves: Sequence[CurveRow],
    *,
    raw: bool,
    codes: int,
    noise: float | None,
    lost: Sequence[str] = (),
) -> str:
    """One sentence. `codes` counts the modules whose codes were loaded without their scales,
    `lost` are the schemes that have no numbers."""
    if not results:
        return "nothing could be compared"
    parts = []
    if raw and codes:
        parts.append(
            f"these numbers are garbage: the codes of {codes:,} modules were loaded without their "
            "scales, as plain from_pretrained does, which is far from the reference whatever a "
            "scheme quantizes"
        )
    groups: dict[str, list[ProbeResult]] = defaultdict(list)
    for result in results:
        if result.identical_to is not None:
            groups[result.identical_to].append(result)
    for original, copies in groups.items():
        causes = sorted({copy.cause or "" for copy in copies})
        why = {
            "identical weights": "their weights are identical",
            "scales ignored": "they differ in scales alone, which were ignored",
            "unused tensors": "they differ only in tensors that this model does not use",
        }
        names = _spell([original, *(copy.scheme for copy in copies)])
        reasons = " or ".join(why[cause] for cause in causes if cause in why)
        parts.append(f"{names} are indistinguishable: {reasons}")
    models = [r for r in results if r.identical_to is None]
    same = [r for r in models if not r.mse.hi]
    if idle := [r.scheme for r in same if _is_quantized(r)]:
        parts.append(
            f"logits of {_spell(idle)} are the reference's to the bit: nothing that they quantize "
            "runs on these prompts (a vision tower runs on images only)"
        )
    if plain := [r.scheme for r in same if not _is_quantized(r)]:
        parts.append(
            f"logits of {_spell(plain)} are the reference's to the bit, and nothing is quantized "
            "there"
        )
    below = [r.scheme for r in models if r.indistinguishable and r.mse.hi]
    if below:
        verb = "is" if len(below) == 1 else "are"
        parts.append(
            f"{_spell(below)} {verb} not told from the reference: KL is below the noise floor of "
            f"{noise:.1e}"
        )
    if not raw:
        parts += [_curve_sentence(results, c) for c in curves if c.rises is not None]
    if not parts:
        parts += [f"KL of {r.scheme} is {r.kl.mean:.2e} ({r.kl.lo:.2e} to {r.kl.hi:.2e})"
                  for r in results[:2]]  # fmt: skip
    if lost:
        parts.append(f"{_spell(lost)} could not be computed")
    return "; ".join(parts)


def _curve_sentence(results: Sequence[ProbeResult], curve: CurveRow) -> str:
    kl = {result.scheme: result.kl.mean for result in results}
    first, last = curve.schemes[0], curve.schemes[-1]
    ends = f"from {kl[first]:.2e} ({first}) to {kl[last]:.2e} ({last})"
    if len(results[0].per_prompt.kl) == 1:  # nothing to draw from
        return (
            f"KL {'rises' if curve.rises else 'does not rise'} with coverage on one prompt, {ends}"
        )
    share = f"in {curve.confidence or 0:.0%} of bootstrap draws over prompts"
    if curve.rises:
        return f"KL rises with coverage, {ends}, {share}"
    return f"KL does not rise with coverage throughout, {ends}; it does {share}"


def _cause(scheme: SchemeEvidence, twin: SchemeEvidence, raw: bool) -> Cause:
    """Why two schemes make the same model, by the digests that `check` goes by."""
    if scheme.fingerprint is not None and scheme.fingerprint == twin.fingerprint:
        return "identical weights"
    scales = {scale.name for s in (scheme, twin) for m in s.scales.values() for scale in m.values()}
    names = scheme.digests.keys() | twin.digests.keys()
    differing = {n for n in names if scheme.digests.get(n) != twin.digests.get(n)}
    ignored = {n for n in differing if n in scales and not n.endswith(".input_scale")}
    return "scales ignored" if raw and ignored else "unused tensors"


def _coverage(scheme: SchemeEvidence) -> ProbeCoverage:
    coverage = scheme.coverage
    declared = coverage.declared.percent if coverage.declared else None
    return ProbeCoverage(declared, len(coverage.quantized), len(coverage.scope))


def _is_quantized(result: ProbeResult) -> bool:
    return result.coverage is None or result.coverage.quantized > 0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spell(names: Sequence[str]) -> str:
    """Names in a row, the middle of a long one left out."""
    if len(names) > 4:
        return f"{names[0]} … {names[-1]} ({len(names)} schemes)"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
