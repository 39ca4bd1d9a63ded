"""`scan` and `layers`: what there is, from headers alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

from ckptdiff.analysis import summary
from ckptdiff.analysis.evidence import gather
from ckptdiff.analysis.layers import layer_rows
from ckptdiff.api.common import StrPath, base_row, read, tool
from ckptdiff.events import CancelToken, Sink, silent
from ckptdiff.records.layers import LAYERS_SCHEMA, LayersReport
from ckptdiff.records.report import SCAN_SCHEMA, ScanReport


def scan(
    root: StrPath = ".",
    *,
    base: StrPath | None = None,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> ScanReport:
    """The inventory of `root` from headers alone: sizes, dtypes, algorithm, coverage.

    Raises as `check` does.
    """
    sweep = read(root, base, sink, cancel)
    evidence = gather(sweep, None, cancel)
    hidden = summary.all_hidden(evidence)
    return ScanReport(
        schema=SCAN_SCHEMA,
        tool=tool(),
        root=str(root),
        base=base_row(sweep),
        schemes=tuple(
            replace(row, status="unread") if row.id in hidden else row
            for row in summary.scheme_rows(evidence, ())
        ),
        unread=summary.all_unread(evidence, (*sweep.unread, *chain(*hidden.values()))),
        passed_over=sweep.passed_over,
    )


def layers(
    root: StrPath = ".",
    *,
    base: StrPath | None = None,
    pattern: str | None = None,
    mismatches: bool = False,
    sink: Sink = silent,
    cancel: CancelToken | None = None,
) -> LayersReport:
    """Modules x schemes: the dtype of each module in each scheme, against its manifest.

    `pattern` (shell style) picks modules, `mismatches` those with a cell that its manifest
    contradicts. Raises as `check` does.
    """
    sweep = read(root, base, sink, cancel)
    evidence = gather(sweep, None, cancel)
    hidden = summary.all_hidden(evidence)
    rows = layer_rows(evidence.schemes, pattern=pattern, mismatches=mismatches)
    return LayersReport(
        schema=LAYERS_SCHEMA,
        tool=tool(),
        root=str(root),
        schemes=tuple(scheme.id for scheme in evidence.schemes),
        modules=rows,
        mismatches=sum(cell.agrees is False for row in rows for cell in row.cells),
        unread=summary.all_unread(evidence, (*sweep.unread, *chain(*hidden.values()))),
    )
