"""`probe` as Markdown: the rows that people put into their reports, a column a scheme."""

from __future__ import annotations

from collections.abc import Iterator

from ckptdiff.records.probe import Interval, ProbeReport, ProbeResult
from ckptdiff.report.markdown import text


def probe_markdown(report: ProbeReport) -> str:
    """A `ProbeReport` as GitHub-flavoured Markdown, the verdict first."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: ProbeReport) -> Iterator[str]:
    yield "## ckptdiff probe"
    yield ""
    yield f"{text(report.verdict)}."
    yield ""
    rows = report.results
    yield f"| metric | {' | '.join(text(row.scheme) for row in rows)} |"
    yield f"| --- |{' ---: |' * len(rows)}"
    prompts = report.prompts
    yield _row("Num samples (loaded)", [f"{prompts.loaded:,}"] * len(rows))
    yield _row("Num samples (used)", [f"{prompts.count:,}"] * len(rows))
    yield _row("Num batches (used)", [f"{prompts.batches:,}"] * len(rows))
    yield _row("Quantized modules", [_coverage(row) for row in rows])
    yield _row("logit MSE (last token)", [_interval(row.mse) for row in rows])
    yield _row("logit KL (last token, KL(fp16 || quant))", [_interval(row.kl) for row in rows])
    yield _row(
        "logit KL (last token, KL(quant || fp16))", [_interval(row.reverse_kl) for row in rows]
    )
    yield _row("Jensen-Shannon divergence (last token)", [_interval(row.js) for row in rows])
    yield _row("top-1 agreement", [f"{row.top1:.1%}" for row in rows])
    yield _row("top-5 agreement", [f"{row.top5:.1%}" for row in rows])
    if report.perplexity is not None:
        yield _row(
            f"perplexity (reference: {report.perplexity:.6g})",
            [f"{row.perplexity:.6g} (x {row.perplexity_ratio:.4f})" for row in rows],
        )
    yield _row("Identical to", [_twin(row) for row in rows])
    yield ""
    inputs = "inputs rounded by their scales" if report.activations == "static" else "weights only"
    yield (
        f"fp16 stands for the reference, {text(report.reference)}. Computed in {report.dtype} on "
        f"{text(report.device)}, {'scales ignored' if report.raw else inputs}. Brackets hold 95 % "
        "bootstrap intervals over the prompts."
    )
    if report.noise.kl is not None:
        yield ""
        yield f"Noise floor of KL: {report.noise.kl:.1e}. What is below it is rounding."
    for note in report.notes:
        yield ""
        yield f"Note: {text(note)}."
    for item in report.unread:
        yield ""
        yield f"Not computed: {text(item.path)}: {text(item.reason)}"


def _row(name: str, cells: list[str]) -> str:
    return f"| {text(name)} | {' | '.join(cells)} |"


def _interval(value: Interval) -> str:
    return f"{value.mean:.3e} ({value.lo:.2e} to {value.hi:.2e})"


def _coverage(row: ProbeResult) -> str:
    return "" if row.coverage is None else f"{row.coverage.quantized}/{row.coverage.total}"


def _twin(row: ProbeResult) -> str:
    return "" if row.identical_to is None else f"{text(row.identical_to)} ({row.cause})"
