"""What a probe's numbers are said to mean, on checkpoints whose identity is known."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import build
import jsonschema
import numpy as np
import pytest

import ckptdiff
from ckptdiff.analysis import probing
from ckptdiff.analysis.evidence import gather
from ckptdiff.events import CancelToken, silent
from ckptdiff.jobs.hashing import Hashing, digest_shards
from ckptdiff.jobs.reading import read_sweep
from ckptdiff.records.evidence import SchemeEvidence
from ckptdiff.records.probe import (
    PROBE_SCHEMA,
    NoiseRow,
    ProbeReport,
    ProbeResult,
    Prompt,
    PromptsRow,
    Scores,
)
from ckptdiff.records.report import Tool
from ckptdiff.report.json import json_schema

PROMPTS = tuple(Prompt(f"prompt {n}\nof | them") for n in range(20))


def schemes(root: Path) -> Sequence[SchemeEvidence]:
    sweep = read_sweep(root, sink=silent, cancel=CancelToken())
    shards = [shard for scheme in sweep.schemes for shard in scheme.shards]
    digests = digest_shards(shards, Hashing(), sink=silent, cancel=CancelToken())
    return gather(sweep, digests).schemes


def scores(level: float, seed: int = 0) -> Scores:
    draws = np.random.default_rng(seed).uniform(0.5, 1.5, len(PROMPTS))
    kl = tuple((level * draws).tolist())
    ones = (1.0,) * len(PROMPTS)
    return Scores(mse=kl, kl=kl, reverse_kl=kl, js=kl, top1=ones, top5=ones)


def rows(
    found: Sequence[SchemeEvidence],
    levels: Mapping[int, float],
    same: Mapping[int, int] | None = None,
    raw: bool = False,
    noise: float | None = 1e-9,
) -> tuple[ProbeResult, ...]:
    def name(percent: int) -> str:
        return build.SweepSpec().scheme(percent)

    return probing.results(
        found,
        {name(percent): scores(level) for percent, level in levels.items()},
        {name(percent): 10 + level for percent, level in levels.items()},
        {name(a): name(b) for a, b in (same or {}).items()},
        raw=raw,
        noise=noise,
        perplexity=10.0,
    )


RISING = {10: 1e-4, 30: 2e-4, 50: 4e-4, 100: 1e-3}


def report(results: tuple[ProbeResult, ...], raw: bool = False) -> ProbeReport:
    curves = probing.curves(results)
    return ProbeReport(
        schema=PROBE_SCHEMA,
        tool=Tool("ckptdiff", "0"),
        reference="../base",
        prompts=PromptsRow(20, "a.jsonl", 30, 0, 2, 100),
        device="cpu",
        dtype="float32",
        activations="off",
        raw=raw,
        noise=NoiseRow(1e-9, 1e-10, 5e-10),
        perplexity=10.0,
        results=results,
        curves=curves,
        worst=probing.worst(results, PROMPTS),
        verdict=probing.verdict(results, curves, raw=raw, codes=28, noise=1e-9),
        notes=("the tokenizer is that of x",),
        unread=(),
    )


def test_a_healthy_sweep_rises(sweep: Path) -> None:
    results = rows(schemes(sweep), RISING)
    assert [r.coverage.quantized for r in results if r.coverage] == [2, 5, 8, 28]
    (curve,) = probing.curves(results)
    assert curve.rises and curve.confidence == 1.0
    verdict = probing.verdict(results, [curve], raw=False, codes=28, noise=1e-9)
    assert verdict.startswith("KL rises with coverage, from 1.01e-04 (")
    assert verdict.endswith("in 100% of bootstrap draws over prompts")
    assert results[0].perplexity_ratio == pytest.approx(1.00001)


def test_one_prompt_has_no_draws(sweep: Path) -> None:
    results = tuple(
        replace(row, per_prompt=replace(row.per_prompt, kl=row.per_prompt.kl[:1]))
        for row in rows(schemes(sweep), RISING)
    )
    verdict = probing.verdict(results, probing.curves(results), raw=False, codes=28, noise=1e-9)
    assert verdict.startswith("KL rises with coverage on one prompt, from ")
    assert "bootstrap" not in verdict


def test_a_curve_that_falls_somewhere_is_said_to(sweep: Path) -> None:
    results = rows(schemes(sweep), {**RISING, 50: 1e-5})
    (curve,) = probing.curves(results)
    assert curve.rises is False and curve.confidence == 0.0
    verdict = probing.verdict(results, [curve], raw=False, codes=28, noise=1e-9)
    assert verdict.startswith("KL does not rise with coverage throughout")


def test_copies_are_named_with_their_cause(bug: Path) -> None:
    results = rows(schemes(bug), {10: 1e-3}, same={30: 10, 50: 10, 100: 10})
    first = build.SweepSpec().scheme(10)
    assert [r.identical_to for r in results] == [None, first, first, first]
    assert {r.cause for r in results} == {None, "identical weights"}
    assert len({r.kl for r in results}) == 1
    verdict = probing.verdict(results, probing.curves(results), raw=False, codes=28, noise=1e-9)
    assert verdict.endswith("are indistinguishable: their weights are identical")


def test_the_cause_is_not_weights_when_they_differ(sweep: Path) -> None:
    """Two schemes that make one model although their digests differ."""
    found = schemes(sweep)
    one, other = found[1], found[3]
    scale = next(iter(one.scales.values()))["weight_scale"].name
    alike = replace(
        other, fingerprint="ckptdiff1:other", digests={**one.digests, scale: b"another digest.."}
    )
    alike = replace(alike, scales=one.scales)
    pair = [one, alike]
    percents = {scheme.id: p for p in RISING if (scheme := found[list(RISING).index(p)])}
    a, b = percents[one.id], percents[alike.id]
    raw = rows(pair, {a: 1.0}, same={b: a}, raw=True)
    assert raw[1].cause == "scales ignored"
    verdict = probing.verdict(raw, probing.curves(raw), raw=True, codes=28, noise=1e-9)
    assert verdict.startswith("these numbers are garbage: the codes of 28 modules")
    assert "they differ in scales alone, which were ignored" in verdict
    assert rows(pair, {a: 1.0}, same={b: a})[1].cause == "unused tensors"


def test_what_is_below_the_noise_is_said_to_be(sweep: Path) -> None:
    results = rows(schemes(sweep), RISING, noise=1.5e-4)
    assert [r.indistinguishable for r in results] == [True, False, False, False]
    verdict = probing.verdict(results, probing.curves(results), raw=False, codes=28, noise=1.5e-4)
    assert f"{build.SweepSpec().scheme(10)} is not told from the reference" in verdict
    assert "noise floor of 1.5e-04" in verdict
    assert not any(r.indistinguishable for r in rows(schemes(sweep), RISING, noise=None))


def test_what_no_prompt_runs_is_not_called_noise(sweep: Path) -> None:
    results = rows(schemes(sweep), {**RISING, 10: 0.0})
    verdict = probing.verdict(results, probing.curves(results), raw=False, codes=28, noise=1e-9)
    first = build.SweepSpec().scheme(10)
    assert f"logits of {first} are the reference's to the bit: nothing that they" in verdict
    assert "noise floor" not in verdict


@pytest.mark.parametrize("level", [0.0, 1e-12])
@pytest.mark.parametrize(("first", "rises"), [(1, True), (2, True), (3, None), (4, None)])
def test_what_cannot_be_told_from_the_reference_says_nothing_of_a_rise(
    sweep: Path, level: float, first: int, rises: bool | None
) -> None:
    """Layers of a vision tower before those of the language model, on prompts of text; and KL
    below the noise floor, which falls from the first scheme to the second."""
    lowest = {percent: level / n for n, percent in enumerate(list(RISING)[:first], 1)}
    results = rows(schemes(sweep), {**RISING, **lowest})
    (curve,) = probing.curves(results)
    assert curve.rises is rises and curve.confidence == (1.0 if rises else None)
    assert len(curve.schemes) == 4
    verdict = probing.verdict(results, [curve], raw=False, codes=28, noise=1e-9)
    assert ("KL rises with coverage, from " in verdict) == (rises is True)
    assert "does not rise" not in verdict


def test_a_fall_to_the_reference_is_a_fall(sweep: Path) -> None:
    for level in (0.0, 1e-12):
        (curve,) = probing.curves(rows(schemes(sweep), {**RISING, 50: level}))
        assert curve.rises is False


def test_what_has_no_numbers_is_in_the_verdict(sweep: Path) -> None:
    results = rows(schemes(sweep), RISING)
    curves = probing.curves(results)
    verdict = probing.verdict(
        results, curves, raw=False, codes=28, noise=1e-9, lost=["top70", "top90"]
    )
    assert verdict.startswith("KL rises") and verdict.endswith(
        "; top70 and top90 could not be computed"
    )


def test_an_unquantized_copy_of_the_reference_is_no_matter_of_prompts(sweep: Path) -> None:
    (first, *_) = rows(schemes(sweep), {10: 0.0})
    assert first.coverage is not None
    copy = replace(first, coverage=replace(first.coverage, quantized=0))
    verdict = probing.verdict([copy], (), raw=False, codes=0, noise=1e-9)
    assert verdict.endswith("are the reference's to the bit, and nothing is quantized there")


def test_noise_counts_the_scheme_as_well_as_the_reference() -> None:
    row = probing.noise_row([1e-9, 3e-9], [1e-8] * 4)
    assert row == NoiseRow(pytest.approx(2e-8), pytest.approx(3e-9), pytest.approx(1e-8))
    assert probing.noise_row([1e-7], [1e-8]).kl == 1e-7
    assert probing.noise_row([1e-9], None) == NoiseRow(1e-9, 1e-9, None)


def test_families_have_curves_of_their_own(sweep: Path) -> None:
    found = [replace(s, family="int8") if n == 2 else s for n, s in enumerate(schemes(sweep))]
    results = rows(found, {**RISING, 50: 1e-6})
    curves = {curve.family: curve for curve in probing.curves(results)}
    assert curves["int8"].rises is None and len(curves["int8"].schemes) == 1
    (other,) = (curve for family, curve in curves.items() if family != "int8")
    assert other.rises and len(other.schemes) == 3


def test_a_scheme_without_numbers_has_no_row(sweep: Path) -> None:
    results = rows(schemes(sweep), {10: 1e-4, 100: 1e-3})
    assert len(results) == 2
    assert probing.worst((), PROMPTS) == ()
    assert probing.verdict((), (), raw=False, codes=0, noise=None) == "nothing could be compared"


def test_reports_in_every_format(sweep: Path) -> None:
    results = rows(schemes(sweep), RISING)
    whole = report(results)
    document = ckptdiff.render(whole, "json")
    jsonschema.validate(json.loads(document), json_schema(PROBE_SCHEMA))
    text = ckptdiff.render(whole).decode()
    assert text.startswith("KL rises with coverage")
    assert all(len(line) <= 80 for line in text.splitlines())
    assert text.count("●") == 4 and "prompt 12 of | them" in text
    markdown = ckptdiff.render(whole, "markdown").decode()
    for name in ("Num samples", "Num batches", "logit MSE", "logit KL", "perplexity"):
        assert f"| {name}" in markdown
    assert r"KL\(fp16 \|\| quant\)" in markdown
    assert "\nNote: the tokenizer is that of x.\n" in markdown
    svg = ckptdiff.render(whole, "svg").decode()
    root = ElementTree.fromstring(svg)
    assert len(root.findall(".//{*}circle")) == 4
    heights = [float(c.get("cy", "0")) for c in root.findall(".//{*}circle")]
    assert heights == sorted(heights, reverse=True)  # more KL is further up


def test_names_cannot_be_markup(sweep: Path) -> None:
    (first, *_) = rows(schemes(sweep), RISING)
    evil = replace(first, scheme="</svg><script>alert(1)</script>\x1b[2J|`")
    whole = report((evil,))
    svg = ckptdiff.render(whole, "svg").decode()
    assert "<script" not in svg and "\x1b" not in svg
    ElementTree.fromstring(svg)
    assert "\x1b" not in ckptdiff.render(whole).decode()
    assert not re.search(r"(?<!\\)<", ckptdiff.render(whole, "markdown").decode())
