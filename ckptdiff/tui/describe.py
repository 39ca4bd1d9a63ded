"""Records -> the lines of a detail pane. Every text from a checkpoint is wrapped and escaped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING

from rich.cells import cell_len

from ckptdiff.records.wording import plural
from ckptdiff.report.style import human_bytes
from ckptdiff.tui.chrome import MARKS, TONES
from ckptdiff.tui.text import Line, Piece, fields, fit, shown, texts
from ckptdiff.tui.widgets.curve import bars
from ckptdiff.tui.widgets.dtypebar import dtype_bar, dtype_legend, short_dtype

if TYPE_CHECKING:
    from ckptdiff.records.delta import DiffReport, Number, Side, TensorDelta
    from ckptdiff.records.detail import (
        DifferenceDetail,
        ModuleDetail,
        Overlap,
        SchemeDetail,
        ValueDetail,
    )
    from ckptdiff.records.finding import Finding, RuleInfo
    from ckptdiff.records.layers import Cell
    from ckptdiff.records.report import ProofRow, SchemeRow

# Columns in which a longer text is read with ease.
_COLUMN = 90
_SEVERITY = {"error": "✗", "warning": "!", "info": "i"}


def scheme_lines(
    row: SchemeRow, findings: Sequence[Finding], detail: SchemeDetail | None, width: int
) -> list[Line]:
    """A scheme: findings with their next steps first, then what its files say."""
    tone = TONES[row.status]
    head = f"{MARKS[row.status]} {row.status} "
    lines: list[Line] = [[(head, tone), (fit(row.id, max(12, width - len(head))), "bold")]]
    for finding in sorted(findings, key=lambda finding: finding.severity == "info"):
        lines += _finding(finding, width)
    lines.append([("on disk", "title")])
    bar = max(8, min(24, width // 3))
    lines.append([*dtype_bar(row.dtypes, bar), ("  ", ""), *dtype_legend(row.dtypes)])
    lines += fields(_on_disk(row), width)
    if detail is not None:
        for source, facts in groupby(detail.facts, key=lambda fact: fact.source):
            lines += texts(source, width, "title")
            lines += fields([(fact.label, fact.value) for fact in facts], width)
    return lines


def _on_disk(row: SchemeRow) -> Iterator[tuple[str, str]]:
    yield "holds", f"{plural(row.tensors, 'tensor')}, {human_bytes(row.bytes)}"
    if row.actual is not None:
        bits = row.actual.effective_bits
        yield "quantized", f"{row.actual.quantized} of {plural(row.actual.total, 'module')}"
        if bits is not None:
            yield "bits", f"{bits:.2f} a weight"
    if row.declared is not None and row.declared.selected is not None:
        yield "declared", f"{row.declared.selected} of {plural(row.declared.total or 0, 'module')}"
    yield "algorithm", row.algo or "not said"
    if row.proof is not None:
        yield "recomputed", _proof(row.proof)
    yield "family", row.family
    yield "fingerprint", row.fingerprint or "not hashed"


def _proof(proof: ProofRow) -> str:
    """What recomputing quantized weights from base came to."""
    said = f"{proof.proven:,} proven"
    for count, what in (
        (proof.searched, "without a closed form"),
        (proof.wrong, "wrong"),
        (proof.unknown, "not known"),
    ):
        said += f", {count:,} {what}" if count else ""
    return f"{said} ({', '.join(proof.dialects)})" if proof.dialects else said


def _finding(finding: Finding, width: int) -> Iterator[Line]:
    # Imported late, with the records that they are about.
    from ckptdiff.report.findings import place_of
    from ckptdiff.report.lines import SHOWN

    mark = _SEVERITY[finding.severity]
    yield [(f"{mark} {finding.code} {finding.name}", finding.severity)]
    yield from texts(finding.message, width, indent="  ")
    if finding.expected or finding.actual:
        expected = f"expected {finding.expected}, " if finding.expected else ""
        yield from texts(f"{expected}found {finding.actual or 'nothing'}", width, indent="  ")
    if finding.severity != "info":
        for location in finding.locations[:SHOWN]:
            yield from texts(f"- {place_of(location)}", width, "dim", "    ")
        if len(finding.locations) > SHOWN:
            yield [(f"    … {len(finding.locations) - SHOWN:,} more places", "dim")]
    # The next step stands last, where the eye ends.
    yield from texts(f"next: {finding.next_step}", width, "accent", "  ")


def cell_lines(module: str, scheme: str, cell: Cell, width: int) -> list[Line]:
    """What Layers knows of one module in one scheme."""
    lines = texts(module, width, "bold")
    if cell.dtype is None:
        state, tone = "this scheme has no such module", "warning"
    else:
        what = "quantized" if cell.quantized else "not quantized"
        state, tone = f"{short_dtype(cell.dtype)} ({shown(cell.dtype)}), {what}", ""
    if cell.selected is None:
        says = "no manifest says what it should be"
    else:
        says = "selects it" if cell.selected else "leaves it out"
    lines += fields([("scheme", scheme), ("on disk", state), ("manifest", says)], width, tone)
    if cell.agrees is False:
        rule = "CK302 quantized-not-selected" if cell.quantized else "CK301 selected-not-quantized"
        lines.append([(f"✗ {rule}", "error"), ("  enter: tensors, recipe, rank", "dim")])
    elif cell.agrees:
        lines.append([("✓ as declared", "ok"), ("  enter: tensors, recipe, rank", "dim")])
    return lines


def pair_lines(overlap: Overlap, row: int, column: int, width: int) -> list[Line]:
    """What Identity knows of two schemes."""
    one, other = overlap.schemes[row], overlap.schemes[column]
    if row == column:
        return [*texts(one, width, "bold"), [("the same scheme", "dim")]]
    lines = [*texts(one, width, "bold"), *texts(f"against {other}", width)]
    shared, tensors = overlap.shared[row][column], overlap.tensors[row][column]
    if shared is None or tensors is None:
        return [*lines, [("? not known: one of them could not be read whole", "warning")]]
    whole = overlap.nbytes[row]
    share = shared / whole if whole else 1.0
    what = f"{human_bytes(shared)} of {human_bytes(whole)}, {tensors:,} of "
    what += f"{plural(overlap.counts[row], 'tensor')} are the same, byte for byte"
    same = shared == whole == overlap.nbytes[column]
    lines += texts(("= identical: " if same else f"{share:.1%}: ") + what, width,
                    "error" if same else "")  # fmt: skip
    return [*lines, [("enter", "key"), (" compares them tensor by tensor", "dim")]]


def module_lines(detail: ModuleDetail, width: int) -> list[Line]:
    """A module: what it is, what is claimed of it, and its recipe."""
    selected = {None: "no manifest says", True: "selected", False: "left out"}[detail.selected]
    fits = ", ".join(detail.layouts) or ("unquantized" if not detail.quantized else "no format")
    lines = fields(
        [
            ("module", detail.name),
            ("on disk", f"{short_dtype(detail.dtype)} ({detail.dtype}), {fits}"),
            ("manifest", selected),
            ("config", detail.algorithm or "unquantized"),
        ],
        width,
    )
    wrong = detail.selected is not None and detail.selected != detail.quantized
    if wrong:
        lines.append([("✗ the manifest and the tensors contradict each other", "error")])
    recipe = detail.recipe
    if recipe is None:
        return [*lines, [("in no recipe of a manifest", "dim")]]
    rank = "not ranked" if recipe.rank is None else f"{recipe.rank} of {recipe.total}"
    lines.append([("recipe", "title")])
    return lines + fields(
        [
            ("name", recipe.name),
            ("stands for", ", ".join(recipe.members)),
            ("rank", f"{rank} (1 is the least sensitive)"),
            ("sensitivity", _number(recipe.importance)),
        ],
        width,
    )


def values_lines(detail: ValueDetail, width: int, height: int) -> list[Line]:
    """A tensor's statistics over its histogram."""
    what = "dequantised values" if detail.dequantised else "stored values"
    elements = plural(detail.elements, "element")
    lines = fields(
        [
            ("tensor", detail.name),
            ("stored as", f"{detail.dtype} {list(detail.shape)}, {elements}"),
            ("shown", what),
            ("range", f"{_number(detail.least)} … {_number(detail.greatest)}"),
            ("mean", f"{_number(detail.mean)}, deviation {_number(detail.deviation)}"),
            ("zeros", f"{detail.zeros:,}"),
        ],
        width,
    )
    if detail.nonfinite:
        lines.append([(f"! {detail.nonfinite:,} NaN or infinite", "error")])
    rows = max(4, min(12, height - len(lines) - 3))
    return [*lines, *_histogram("histogram", detail, width, rows)]


def _histogram(title: str, detail: ValueDetail, width: int, rows: int) -> list[Line]:
    """Bars of `rows` rows under a title, over the ends of their axis."""
    counts = [count for _, _, count in detail.histogram]
    if not counts:
        return [[(title, "title")], [("no finite value", "warning")]]
    chart = bars(counts, width, rows)
    across = sum(len(text) for text, _ in chart[0]) if chart else 0
    low, high = _number(detail.least), _number(detail.greatest)
    axis = f"{low}{high:>{max(len(high) + 1, across - len(low))}}"
    return [[(title, "title"), (f"  highest bin {max(counts):,}", "dim")], *chart, [(axis, "dim")]]


def difference_lines(detail: DifferenceDetail, width: int, height: int) -> list[Line]:
    """The histograms of both sides and of their difference, side by side."""
    dequantised = detail.a.dequantised or detail.b.dequantised
    what = "stored numbers" if detail.raw else "values, dequantised" if dequantised else "values"
    sides = [("A", detail.a), ("B", detail.b), ("B - A", detail.difference)]
    column = max(20, (width - 4) // 3)
    columns: list[list[Line]] = []
    for title, side in sides:
        if side is None:
            text = "no difference: the numbers of A and B mean different things"
            columns.append([[(title, "title")], *texts(text, column, "dim")])
            continue
        lines = _histogram(title, side, column, max(4, min(10, height - 7)))
        lines += texts(f"mean {_number(side.mean)}", column)
        lines += texts(f"deviation {_number(side.deviation)}", column)
        if side.nonfinite:
            lines += texts(f"! {side.nonfinite:,} not finite", column, "error")
        columns.append(lines)
    found: list[Line] = [[(f"histograms of {what}", "title")]]
    for parts in zip_longest(*columns, fillvalue=()):
        line: list[Piece] = []
        for part in parts:
            used = sum(cell_len(text) for text, _ in part)
            line += [*part, (" " * max(1, column + 2 - used), "")]
        found.append(line)
    return found


def delta_lines(delta: TensorDelta, width: int) -> list[Line]:
    """One tensor of a diff: what either side stores, and how far apart they are."""
    lines = texts(delta.name, width, "bold")
    lines += fields([("A", _side(delta.a)), ("B", _side(delta.b))], width)
    if delta.status in ("same", "only_a", "only_b", "shape", "unread"):
        said = {"same": "the same, byte for byte", "only_a": "only A has it",
                 "only_b": "only B has it", "shape": "of different shapes: not comparable",
                 "unread": "? a side could not be read"}  # fmt: skip
        tone = "ok" if delta.status == "same" else "warning"
        return [*lines, *texts(said[delta.status], width, tone)]
    first = delta.first_difference
    return lines + fields(
        [
            ("error", f"relative {_number(delta.rel_error)}, SQNR {_number(delta.sqnr_db)} dB, "
                      f"cosine distance {_number(delta.cosine_distance)}"),
            ("absolute", f"greatest {_number(delta.max_abs)}, mean {_number(delta.mean_abs)}, "
                         f"rms {_number(delta.rms)}"),
            ("changed", f"{_percent(delta.changed_share)} of the elements"
                        + (f", the first at {list(first)}" if first else "")),
            ("saturated", f"{_percent(delta.saturated_share)} of B's codes; "
                          f"{delta.nonfinite or 0:,} not finite"),
        ],
        width,
    )  # fmt: skip


def histogram_lines(report: DiffReport, width: int, height: int) -> list[Line]:
    """The absolute errors of a diff by decade."""
    if not report.histogram:
        return [[("no difference to draw", "dim")]]
    edges = [edge for edge, _ in report.histogram]
    counted = dict(report.histogram)
    decades = range(min(edges), max(edges) + 1)
    chart = bars([counted.get(edge, 0) for edge in decades], width, max(2, height - 2))
    across = max(12, sum(len(text) for text, _ in chart[0]) if chart else 0)
    low, high = f"1e{min(edges)}", f"1e{max(edges) + 1}"
    return [[("absolute error by decade", "title")], *chart,
            [(f"{low}{high:>{across - len(low)}}", "dim")]]  # fmt: skip


def rule_lines(rule: RuleInfo, width: int) -> list[Line]:
    """The manual of a rule."""
    lines: list[Line] = [
        [(f"{rule.code} {rule.name}", "title"), (f"  {rule.severity}", rule.severity)],
        [],
    ]
    column = min(width, _COLUMN)
    for paragraph in (rule.manual or rule.summary).split("\n\n"):
        lines += [*texts(paragraph.replace("\n", " "), column), []]
    needs = ", ".join(rule.needs) or "nothing but the directory"
    return [
        *lines,
        *texts(f"Needs {needs}. Since {rule.since}. Fix: {rule.fix}.", column, "dim"),
    ]


def _side(side: Side | None) -> str:
    if side is None:
        return "not there"
    return f"{side.dtype} {list(side.shape)}" + (f", {side.layout}" if side.layout else "")


def _number(value: Number) -> str:
    return value if isinstance(value, str) else "-" if value is None else f"{value:.4g}"


def _percent(value: Number) -> str:
    return f"{100 * value:.2f} %" if isinstance(value, float | int) else "-"
