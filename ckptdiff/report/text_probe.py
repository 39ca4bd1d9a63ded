"""`ckptdiff probe` as text: the verdict, a table, the curve, and the worst prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ckptdiff.analysis.probing import curve_points
from ckptdiff.records.probe import ProbeReport, ProbeResult
from ckptdiff.records.wording import plural
from ckptdiff.report.escape import fit, printable, width
from ckptdiff.report.lines import COLUMNS, unread_lines, wrap
from ckptdiff.report.style import paint

_ROWS = 9
_LEFT = 10
# KL of copies of one model is zero, which no logarithm shows.
_LEAST = 1e-15


def probe_text(report: ProbeReport, *, color: bool = False) -> str:
    """A `ProbeReport` as text, one verdict sentence first."""
    return "\n".join(_lines(report, color)) + "\n"


def _lines(report: ProbeReport, color: bool) -> Iterator[str]:
    sentence = wrap(report.verdict, "", "    ")
    yield paint(sentence[0], "bold", color)
    yield from sentence[1:]
    yield ""
    yield from _table(report, color)
    yield ""
    yield from _about(report)
    for family, points in curve_points(report.results).items():
        if len(points) > 1:
            yield ""
            yield from _curve(family, points)
    if report.worst:
        yield ""
        yield f"prompts with the largest KL in {printable(report.worst[0].scheme)}"
        for prompt in report.worst:
            shown = " ".join(prompt.text.split())
            shown = shown if len(shown) <= 200 else f"{shown[:200]}…"
            yield from wrap(f"{prompt.number:>3}  {prompt.kl:.2e}  {shown}", "  ", " " * 17)
    for note in report.notes:
        yield ""
        yield from wrap(f"note: {note}", "", "  ")
    yield from unread_lines(report.unread, color)


def _table(report: ProbeReport, color: bool) -> Iterator[str]:
    if not report.results:
        return
    perplexity = report.perplexity is not None
    head = f"{'modules':>9}  {'KL':>8} {'95 % interval':>19}  {'MSE':>8} {'top1':>5} {'top5':>5}"
    head += f" {'ppl':>7}" if perplexity else ""
    widest = max(width(printable(result.scheme)) for result in report.results)
    room = COLUMNS - 2 - len(head)
    # Names that begin and end alike would all look the same when cut: they get their own line.
    beside = widest <= room
    room = max(widest, len("scheme")) if beside else 2
    yield paint(f"{fit('scheme' if beside else '', room)}  {head}", "dim", color)
    for result in report.results:
        if not beside:
            yield from wrap(result.scheme, "", "  ")
        yield f"{fit(result.scheme if beside else '', room)}  {_numbers(result)}"
        if result.identical_to is not None:
            yield from wrap(f"= {result.identical_to}: {result.cause}", " " * 4, " " * 6)


def _numbers(result: ProbeResult) -> str:
    coverage, kl = result.coverage, result.kl
    held = "-" if coverage is None else f"{coverage.quantized}/{coverage.total}"
    line = f"{held:>9}  {kl.mean:8.2e} {kl.lo:9.2e}-{kl.hi:.2e}"
    line += f"  {result.mse.mean:8.2e} {result.top1:5.0%} {result.top5:5.0%}"
    return line + (f" {result.perplexity:7.4g}" if result.perplexity is not None else "")


def _about(report: ProbeReport) -> Iterator[str]:
    prompts, noise = report.prompts, report.noise
    yield from wrap(
        f"reference: {report.reference}; {plural(prompts.count, 'prompt')} "
        f"({prompts.source}), {plural(prompts.tokens, 'token')}, "
        f"{plural(prompts.batches, 'batch', 'batches')}",
        "",
        "  ",
    )
    inputs = "inputs rounded by their scales" if report.activations == "static" else "weights only"
    how = "scales ignored" if report.raw else inputs
    yield from wrap(f"computed in {report.dtype} on {report.device}: {how}", "", "  ")
    if noise.kl is None:
        yield "noise floor: not measured"
        return
    measured = {"another batching": noise.batching, "a wider dtype": noise.precision}
    parts = [f"{name} {value:.1e}" for name, value in measured.items() if value is not None]
    parts += [f"{name} not measured" for name, value in measured.items() if value is None]
    yield from wrap(f"noise floor of KL: {noise.kl:.1e} ({', '.join(parts)})", "", "  ")
    if report.perplexity is not None:
        yield f"perplexity of the reference: {report.perplexity:.6g}"


def _curve(family: str, points: list[ProbeResult]) -> Iterator[str]:
    """KL over the share of quantized modules, on a logarithmic axis."""
    logs = [math.log10(max(point.kl.mean, _LEAST)) for point in points]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    high = max(high, low + 1)
    columns = COLUMNS - _LEFT - 2
    grid = [[" "] * (columns + 1) for _ in range(_ROWS)]
    for point, log in zip(points, logs, strict=True):
        row = round((high - log) / (high - low) * (_ROWS - 1))
        grid[row][round(share_of(point) * columns)] = "●"
    ticks = {
        round((high - power) / (high - low) * (_ROWS - 1)): f"1e{power:+03d}"
        for power in range(low, high + 1)
    }
    yield fit(f"{'KL':>{_LEFT - 3}}   {printable(family)}", COLUMNS).rstrip()
    for number, cells in enumerate(grid):
        yield f"{ticks.get(number, ''):>{_LEFT - 2}} ┤{''.join(cells)}".rstrip()
    yield f"{'':>{_LEFT - 1}}└{'─' * (columns + 1)}"
    labels = "quantized modules"
    yield f"{'':>{_LEFT}}0 %{labels:^{columns - 6}}100 %"


def share_of(point: ProbeResult) -> float:
    """The share of modules that are quantized, 0 to 1."""
    coverage = point.coverage
    return coverage.quantized / coverage.total if coverage and coverage.total else 0.0
