"""`ckptdiff.layers/1`: the report of layers, as it is written to JSON."""

from __future__ import annotations

from dataclasses import dataclass

from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.report import Tool

LAYERS_SCHEMA = "ckptdiff.layers/1"


@dataclass(frozen=True, slots=True)
class Cell:
    """One module in one scheme. `dtype` is None where the scheme has no such module;
    `selected` and `agrees` are None where no manifest says what it should be."""

    dtype: str | None
    quantized: bool
    selected: bool | None
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One module through all schemes, in their order."""

    module: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class LayersReport:
    """`ckptdiff.layers/1`: modules x schemes, dtypes and agreement with the manifests."""

    schema: str
    tool: Tool
    root: str
    schemes: tuple[str, ...]
    modules: tuple[LayerRow, ...]
    mismatches: int
    unread: tuple[Unread, ...]
