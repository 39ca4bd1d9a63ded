"""What an export by ModelOpt is asked for, and what it says of itself: both ways as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ckptdiff.records.probe import Prompt

# "quantize" follows a list of layers; "search" decides on layers by their sensitivity.
Work = Literal["quantize", "search"]
# How a search tells how sensitive a layer is.
Score = Literal["gradient", "kl_div"]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Rows that a model is run on, already chosen and in order. `source` names them in
    reports, `length` is the most tokens of a row that are used. `numbers` are those of the
    rows in their source, from 1, for whoever has to name one; further rows count on."""

    rows: tuple[Prompt, ...]
    source: str
    length: int
    seed: int
    numbers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What somebody may choose about an export. `preset` None: as the scheme's config says;
    `calib` is a file of rows (None: the built-in ones), of which at most `calib_samples` are
    used, drawn by `seed`, with at most `calib_length` tokens each."""

    preset: str | None = None
    calib: str | None = None
    calib_samples: int = 128
    calib_length: int = 512
    seed: int = 0
    score: Score = "gradient"
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class Preset:
    """One of ModelOpt's presets by name, and the keys of the modules it is for (None: all that
    it can quantize)."""

    name: str
    modules: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class ExportOrder:
    """One export: `base` is quantized and written into the empty directory `target`.

    `kv_cache` is the preset of the KV cache, `dtype` that of the weights that stay as they are.
    A search spends `bits` a weight (None: as few as it can) and names its manifest after
    `scheme`.
    """

    work: Work
    scheme: str
    base: str
    target: str
    presets: tuple[Preset, ...]
    dtype: str
    calibration: Calibration
    kv_cache: str | None = None
    bits: float | None = None
    score: Score = "gradient"
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export says of itself. `bits` are effective ones, of a search; `seconds` has a
    number for each stage."""

    producer: str
    device: str
    batches: int
    bits: float | None = None
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
