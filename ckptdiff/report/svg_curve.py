"""The curve of KL over coverage as SVG, written by hand: no script, no font, no library.

Colours and shapes are the only styling; every point says its scheme in a title.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from ckptdiff.analysis.probing import curve_points
from ckptdiff.records.probe import ProbeReport, ProbeResult
from ckptdiff.report.escape import printable
from ckptdiff.report.text_probe import share_of

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 44, 56
_INK, _PALE = "#1f2933", "#d5dbe1"
# Told apart without colour by their dashes, and named where there are several.
_LINES = (("#2563eb", ""), ("#b45309", "6 3"), ("#047857", "2 3"), ("#9d174d", "8 3 2 3"))
_LEAST = 1e-15


def probe_svg(report: ProbeReport) -> str:
    """KL against the share of quantized modules, on a logarithmic axis, with 95 % intervals
    and the noise floor where it is in sight."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: ProbeReport) -> Iterator[str]:
    families = curve_points(report.results)
    low, high = _decades([point for points in families.values() for point in points])
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="13" fill="{_INK}">'
    )
    yield f"<title>{_text(report.verdict)}</title>"
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>'
    yield f'<text x="{_LEFT}" y="26" font-size="15">KL(reference || scheme) over coverage</text>'
    for power in range(low, high + 1):
        y = _y(10.0**power, low, high)
        yield f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="{_PALE}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:g}" text-anchor="end">1e{power}</text>'
    for percent in range(0, 101, 20):
        x = _x(percent / 100)
        yield f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{percent} %</text>'
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    yield f'<text x="{middle:g}" y="{_HEIGHT - 14}" text-anchor="middle">quantized modules</text>'
    noise = report.noise.kl
    if noise and 10.0**low <= noise <= 10.0**high:
        y = _y(noise, low, high)
        yield (
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}" stroke="{_INK}" '
            'stroke-dasharray="4 4"><title>noise floor</title></line>'
        )
    for number, (family, points) in enumerate(families.items()):
        color, dashes = _LINES[number % len(_LINES)]
        yield from _family(report, points, color, dashes, low, high)
        if len(families) > 1:
            y = _TOP + 16 * (number + 1)
            yield f'<text x="{_LEFT + 12}" y="{y}" fill="{color}">{_text(family)}</text>'
    yield "</svg>"


def _family(
    report: ProbeReport, points: list[ProbeResult], color: str, dashes: str, low: int, high: int
) -> Iterator[str]:
    """The line of one family, its points and their intervals."""
    path = " ".join(f"{_x(share_of(p))},{_y(p.kl.mean, low, high)}" for p in points)
    dash = f' stroke-dasharray="{dashes}"' if dashes else ""
    yield f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"{dash}/>'
    for point in points:
        x = _x(share_of(point))
        top, bottom = _y(point.kl.hi, low, high), _y(point.kl.lo, low, high)
        yield f'<line x1="{x}" x2="{x}" y1="{top}" y2="{bottom}" stroke="{color}"/>'
        copies = [r.scheme for r in report.results if r.identical_to == point.scheme]
        same = f" = {', '.join(copies)}" if copies else ""
        label = f"{point.scheme}{same}: {point.kl.mean:.2e}"
        yield (
            f'<circle cx="{x}" cy="{_y(point.kl.mean, low, high)}" r="5" fill="{color}">'
            f"<title>{_text(label)}</title></circle>"
        )


def _decades(points: list[ProbeResult]) -> tuple[int, int]:
    """The powers of ten that hold all points and their intervals."""
    values = [max(v, _LEAST) for p in points for v in (p.kl.lo, p.kl.mean, p.kl.hi)] or [1e-3]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _x(share: float) -> float:
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(kl: float, low: int, high: int) -> float:
    height = _HEIGHT - _TOP - _BOTTOM
    share = (math.log10(max(kl, _LEAST)) - low) / (high - low)
    return round(_HEIGHT - _BOTTOM - min(1.0, max(0.0, share)) * height, 1)


def _text(value: str) -> str:
    return escape(printable(value))
