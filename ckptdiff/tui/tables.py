"""Reports -> column stores: which columns a mode has, what they say and in which tone.

Plain functions, called in threads where a report is large.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from ckptdiff.analysis.ordering import natural
from ckptdiff.report.style import human_bytes
from ckptdiff.tui.chrome import MARKS, TONES
from ckptdiff.tui.store import Column, Computed, Store, Value
from ckptdiff.tui.text import Align, Line, fit, fit_end, labels, short_names, told_apart
from ckptdiff.tui.widgets.dtypebar import dtype_bar, dtype_tone, short_dtype

if TYPE_CHECKING:
    from ckptdiff.records.delta import DiffReport, Number, TensorDelta
    from ckptdiff.records.detail import ModuleDetail, Overlap
    from ckptdiff.records.layers import Cell, LayersReport
    from ckptdiff.records.report import (
        ActualRow,
        CheckReport,
        DeclaredRow,
        IdentityRow,
        SchemeRow,
    )

# Columns of a scheme in Layers, Identity.
CELL = 7


def sweep_store(
    report: CheckReport, hashing: bool, identity: Sequence[IdentityRow] | None = None
) -> Store:
    """A row for each scheme. `identity` are the groups that are known by now, None: those of
    the report."""
    rows = report.schemes
    by_scheme = _rules(report)
    rules = [by_scheme.get(row.id, []) for row in rows]
    groups = {
        id: group
        for group in (report.identity if identity is None else identity)
        for id in group.schemes
    }
    clashing = {id for f in report.findings if f.code == "CK501" for id in f.schemes}

    def letter(row: int, width: int) -> Line:
        scheme = rows[row]
        group = groups.get(scheme.id)
        if group is None:
            return [(fit("…" if hashing else "-", width), "dim")]
        count = len(group.schemes)
        text = f"{group.letter} ×{count}" if count > 1 else group.letter
        return [(fit(text, width), "conflict" if scheme.id in clashing else "")]

    short = labels([row.id for row in rows], None)

    def name(row: int, width: int) -> Line:
        id = rows[row].id
        return [(told_apart(id, short[id], width), "")]

    def state(row: int) -> str:
        return TONES[rows[row].status]

    columns = (
        Column("scheme", "scheme", [row.id for row in rows], as_given=True, most=70, paint=name,
               faults=_where(row.status in ("error", "unread") for row in rows)),
        Column("id", "id", [g.letter if (g := groups.get(row.id)) else None for row in rows], 5,
               paint=letter),
        Column("status", "status", [f"{MARKS[row.status]} {row.status}" for row in rows], 9,
               tone=state),
        Column("declared", "declared", [_declared_share(row.declared) for row in rows], 10,
               "right", paint=_text_of([_declared(row.declared) for row in rows], align="right")),
        Column("actual", "on disk", [_actual_share(row.actual) for row in rows], 10,
               "right", paint=_text_of([_actual(row.actual) for row in rows], state, "right")),
        Column("dtypes", "dtypes", [_largest_share(row) for row in rows], 9,
               paint=lambda row, width: dtype_bar(rows[row].dtypes, width)),
        Column("size", "size", [row.bytes for row in rows], 7, "right", text=_bytes),
        Column("bits", "bits", [row.actual.effective_bits if row.actual else None for row in rows],
               6, "right", text=partial(_number, digits=2), wide_only=True),
        Column("tensors", "tensors", [row.tensors for row in rows], 8, "right",
               text=partial(_number, digits=0), wide_only=True),
        Column("algo", "algorithm", [row.algo for row in rows], 14, wide_only=True),
        Column("rules", "rules", [len(codes) for codes in rules], 18,
               paint=_text_of([" ".join(codes) for codes in rules]), wide_only=True),
    )  # fmt: skip
    facets: dict[str, Sequence[str]] = {
        "status": [row.status for row in rows],
        "rule": [" ".join(codes) for codes in rules],
        "dtype": [_words(row.dtypes) for row in rows],
    }
    return Store(columns, [row.id for row in rows], facets)


def layers_store(report: LayersReport) -> Store:
    """A row for each module, a column for each scheme."""
    names = [row.module for row in report.modules]
    titles = short_names(report.schemes)
    columns = [
        Column("module", "module", names, as_given=True, most=64, least=36, paint=_ends_of(names)),
        *(
            _layer_column(id, title, [row.cells[n] for row in report.modules])
            for n, (id, title) in enumerate(zip(report.schemes, titles, strict=True))
        ),
    ]
    facets: dict[str, Sequence[str]] = {
        "status": [
            "mismatch" if any(cell.agrees is False for cell in row.cells) else "ok"
            for row in report.modules
        ],
        "dtype": [_words({c.dtype: 1 for c in row.cells if c.dtype}) for row in report.modules],
        "rule": [" ".join(sorted(set(map(_rule, row.cells)))) for row in report.modules],
    }
    return Store(tuple(columns), names, facets)


def _layer_column(id: str, title: str, cells: Sequence[Cell]) -> Column:
    return Column(
        id,
        title,
        [cell_text(cell) for cell in cells],
        max(CELL, min(12, len(title) + 1)),
        "right",
        tone=lambda row: cell_tone(cells[row]),
        faults=_where(cell.agrees is False for cell in cells),
    )


def cell_text(cell: Cell) -> str:
    """A cell in a word; `!` in front says that its manifest contradicts it."""
    if cell.dtype is None:
        return "-"
    return f"!{short_dtype(cell.dtype)}" if cell.agrees is False else short_dtype(cell.dtype)


def cell_tone(cell: Cell) -> str:
    if cell.agrees is False:
        return "conflict"
    return "dim" if cell.dtype is None else dtype_tone(cell.dtype)


def _rule(cell: Cell) -> str:
    """The rule that a cell offends against."""
    if cell.agrees is not False:
        return ""
    return "CK302" if cell.quantized else "CK301"


def overlap_store(
    overlap: Overlap, letters: Mapping[str, str | None], clashing: Collection[str], base: str | None
) -> Store:
    """Scheme x scheme: the share of the row's bytes that the column has as well."""
    ids = overlap.schemes
    short = labels(ids, base)

    def share(row: int, column: int) -> float | None:
        shared = overlap.shared[row][column]
        if shared is None:
            return None
        return shared / overlap.nbytes[row] if overlap.nbytes[row] else 1.0

    wanted = frozenset(clashing)
    apart = {row for row, id in enumerate(ids) if id in wanted}

    def painter(column: int) -> Column:
        values = Computed(len(ids), lambda row: share(row, column))
        copies = frozenset(
            row
            for row in (apart if column in apart else ())
            if row != column and values[row] == 1.0
        )

        def paint(row: int, width: int) -> Line:
            text, tone = heat(values[row], row == column)
            return [(fit(text, width - 1, "right") + " ", "conflict" if row in copies else tone)]

        title = short[ids[column]]
        width = max(CELL, min(12, len(title) + 1))
        return Column(ids[column], title, values, width, "right", faults=copies, paint=paint)

    def name(row: int, width: int) -> Line:
        letter = fit(letters.get(ids[row]) or "-", 3)
        return [(letter, "bold"), (told_apart(ids[row], short[ids[row]], width - 3), "")]

    columns = (Column("scheme", "id scheme", ids, as_given=True, most=60, paint=name),
               *map(painter, range(len(ids))))  # fmt: skip
    groups = ["identical" if has_copy(overlap, row) else "distinct" for row in range(len(ids))]
    return Store(columns, ids, {"status": groups})


def has_copy(overlap: Overlap, row: int) -> bool:
    """Whether another scheme has every byte of this one."""
    whole = overlap.nbytes[row]
    return any(n != row and s == whole for n, s in enumerate(overlap.shared[row]))


def heat(share: Value, own: bool) -> tuple[str, str]:
    """The text and tone of a share. 100 is said of nothing less than everything."""
    if not isinstance(share, float):
        return "?", "warning"
    if own:
        return "·", "dim"
    percent = 100 * share
    text = (
        "=100" if share == 1 else f"{min(percent, 99.9):.1f}" if percent >= 99 else f"{percent:.0f}"
    )
    return text, f"heat{min(4, max(1, 1 + int(share * 4)))}" if share >= 0.01 else "dim"


def diff_store(report: DiffReport) -> Store:
    """A row for each tensor that either side has, the largest error first."""
    rows = report.tensors
    names = [row.name for row in rows]
    by_name = sorted(range(len(rows)), key=lambda row: natural(names[row]))
    places = {row: place for place, row in enumerate(by_name)}
    columns = (
        Column("tensor", "tensor", [places[row] for row in range(len(rows))], most=70, least=36,
               paint=_ends_of(names),
               faults=_where(row.status != "same" for row in rows)),
        Column("status", "status", [row.status for row in rows], 8,
               paint=_text_of([f"{_DELTA_MARKS[row.status]} {row.status}" for row in rows],
                              lambda row: _DELTA_TONES[rows[row].status])),
        Column("dtypes", "A → B", [_dtypes(row) for row in rows], 11),
        Column("rel_error", "error", [_finite(row.rel_error) for row in rows], 9, "right",
               text=_small),
        Column("sqnr_db", "SQNR", [_finite(row.sqnr_db) for row in rows], 6, "right",
               text=partial(_number, digits=1)),
        Column("max_abs", "max abs", [_finite(row.max_abs) for row in rows], 9, "right",
               text=_small, wide_only=True),
        Column("changed", "changed", [_finite(row.changed_share) for row in rows], 8, "right",
               text=_percent, wide_only=True),
        Column("saturated", "saturated", [_finite(row.saturated_share) for row in rows], 9,
               "right", text=_percent, wide_only=True),
        Column("shape", "shape", [_shape(row) for row in rows], 16, wide_only=True),
    )  # fmt: skip
    facets: dict[str, Sequence[str]] = {
        "status": [row.status for row in rows],
        "dtype": [_words({side.dtype: 1 for side in (row.a, row.b) if side}) for row in rows],
    }
    store = Store(columns, [row.name for row in rows], facets)
    store.sort("rel_error", descending=True)
    return store


def tensors_store(detail: ModuleDetail) -> Store:
    """The tensors of one module."""
    rows = detail.tensors
    names = [row.name for row in rows]
    columns = (
        Column("tensor", "tensor", names, as_given=True, most=60, paint=_ends_of(names)),
        Column("dtype", "dtype", [row.dtype for row in rows], 9,
               tone=lambda row: dtype_tone(rows[row].dtype)),
        Column("shape", "shape", [str(list(row.shape)) for row in rows], 14),
        Column("bytes", "bytes", [row.end - row.begin for row in rows], 12, "right",
               text=partial(_number, digits=0)),
        Column("begin", "at byte", [row.begin for row in rows], 15, "right",
               text=partial(_number, digits=0), wide_only=True),
        Column("shard", "shard", [row.shard for row in rows], 36, wide_only=True),
    )  # fmt: skip
    return Store(columns, [row.name for row in rows], {"dtype": [row.dtype for row in rows]})


_DELTA_MARKS = {"same": "=", "changed": "≠", "dtype": "~", "shape": "✗", "only_a": "A",
                "only_b": "B", "unread": "?"}  # fmt: skip
_DELTA_TONES = {"same": "dim", "changed": "warning", "dtype": "info", "shape": "error",
                "only_a": "error", "only_b": "error", "unread": "warning"}  # fmt: skip


def _where(flags: Iterable[bool]) -> frozenset[int]:
    """The rows for which something holds."""
    return frozenset(row for row, holds in enumerate(flags) if holds)


def _ends_of(names: Sequence[str]) -> Callable[[int, int], Line]:
    """A painter for names of modules and tensors."""
    return lambda row, width: [(fit_end(names[row], width), "")]


def _text_of(
    texts: Sequence[str], tone: Callable[[int], str] | None = None, align: Align = "left"
) -> Callable[[int, int], Line]:
    """A painter for cells whose text is not what they are sorted by. Of counts that are too
    long for their cell the last word stands: the share."""

    def paint(row: int, width: int) -> Line:
        text = texts[row]
        if align == "right" and len(text) > width:
            text = text.rpartition(" ")[2]
        return [(fit(text, width, align), tone(row) if tone else "")]

    return paint


def _rules(report: CheckReport) -> Mapping[str, list[str]]:
    """The codes of errors and warnings about each scheme that has any."""
    found: dict[str, dict[str, None]] = {}
    for finding in report.findings:
        if finding.severity != "info":
            for scheme in finding.schemes:
                found.setdefault(scheme, {})[finding.code] = None
    return {scheme: list(codes) for scheme, codes in found.items()}


def _words(dtypes: Mapping[str, int]) -> str:
    """The dtypes of a row as a filter finds them: as they are stored and as people call them."""
    return " ".join(word for dtype in dtypes for word in (dtype, short_dtype(dtype)))


def _declared(row: DeclaredRow | None) -> str:
    if row is None:
        return "-"
    percent = "" if row.percent is None else f"{row.percent:g}%"
    return percent if row.selected is None else f"{row.selected}/{row.total} {percent:>4}"


def _declared_share(row: DeclaredRow | None) -> float | None:
    return None if row is None else row.percent


def _actual(row: ActualRow | None) -> str:
    return "-" if row is None else f"{row.quantized}/{row.total} {_share(row):>3.0f}%"


def _actual_share(row: ActualRow | None) -> float | None:
    return None if row is None else _share(row)


def _share(row: ActualRow) -> float:
    return 100 * row.quantized / row.total if row.total else 0.0


def _largest_share(row: SchemeRow) -> float:
    """The share of bytes in the dtype that has the most."""
    total = sum(row.dtypes.values())
    return max(row.dtypes.values(), default=0) / total if total else 0.0


def _finite(value: Number) -> float | None:
    return value if isinstance(value, float | int) else None


def _dtypes(row: TensorDelta) -> str:
    one, other = (short_dtype(side.dtype) if side else "-" for side in (row.a, row.b))
    return one if one == other else f"{one} → {other}"


def _shape(row: TensorDelta) -> str:
    shapes = dict.fromkeys(str(list(side.shape)) for side in (row.a, row.b) if side)
    return " → ".join(shapes)


def _bytes(value: Value) -> str:
    return human_bytes(value) if isinstance(value, int | float) else "-"


def _number(value: Value, digits: int) -> str:
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else "-"


def _small(value: Value) -> str:
    return f"{value:.2g}" if isinstance(value, int | float) else "-"


def _percent(value: Value) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "-"
