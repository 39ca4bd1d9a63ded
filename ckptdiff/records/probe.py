"""`ckptdiff.probe/1`: how far schemes are from a reference, as it is written to JSON.

Divergences are in nats. Numbers are float64, or null where they do not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ckptdiff.records.checkpoint import Unread
from ckptdiff.records.report import Tool

PROBE_SCHEMA = "ckptdiff.probe/1"

Activations = Literal["off", "static"]
Cause = Literal["identical weights", "scales ignored", "unused tensors"]
ComputeDtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: plain text, or chat messages; `images` are paths."""

    text: str = ""
    messages: tuple[Mapping[str, Any], ...] = ()
    images: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The words of the prompt, for people."""
        said = self.text
        for message in self.messages:
            content = message.get("content", "")
            if isinstance(content, list):
                parts = (part.get("text", "") for part in content if isinstance(part, dict))
                content = " ".join(part for part in parts if isinstance(part, str))
            said = f"{said} {content}".strip()
        return said


@dataclass(frozen=True, slots=True)
class Scores:
    """One scheme's numbers, one a prompt, in the order of the prompts."""

    mse: tuple[float, ...]
    kl: tuple[float, ...]
    reverse_kl: tuple[float, ...]
    js: tuple[float, ...]
    top1: tuple[float, ...]
    top5: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PromptsRow:
    """`count` prompts of `loaded` that `source` has were used, `images` of them with images,
    in `batches` batches; `tokens` counts all their tokens."""

    count: int
    source: str
    loaded: int
    images: int
    batches: int
    tokens: int


@dataclass(frozen=True, slots=True)
class NoiseRow:
    """KL of the reference against itself, the upper end of the mean over some prompts:
    computed in other batches, and in a wider dtype. `kl` is the greater of the first and twice
    the second, since a scheme is rounded as well: a mean KL below it cannot be told from
    rounding. Null where nothing could be measured."""

    kl: float | None
    batching: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over prompts with its 95 % bootstrap interval."""

    mean: float
    lo: float
    hi: float


@dataclass(frozen=True, slots=True)
class ProbeCoverage:
    """The share that a scheme declares, in percent, and the modules quantized on disk."""

    declared: float | None
    quantized: int
    total: int


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """One scheme against the reference.

    `identical_to` is the first scheme whose model is the same, and `cause` why: "identical
    weights" (the digests of all tensors agree), "scales ignored" (they differ in scales alone,
    which `raw` leaves out) or "unused tensors" (in tensors that this model does not use).
    `indistinguishable`: the mean KL is not above the noise floor.
    """

    scheme: str
    family: str
    coverage: ProbeCoverage | None
    kl: Interval
    mse: Interval
    top1: float
    top5: float
    reverse_kl: Interval
    js: Interval
    perplexity: float | None
    perplexity_ratio: float | None
    identical_to: str | None
    cause: Cause | None
    indistinguishable: bool
    per_prompt: Scores


@dataclass(frozen=True, slots=True)
class WorstPrompt:
    """A prompt on which the schemes are far from the reference; `kl` is that of `scheme`."""

    number: int
    text: str
    scheme: str
    kl: float


@dataclass(frozen=True, slots=True)
class CurveRow:
    """Whether KL rises with coverage over the schemes of one family that differ, and in which
    share of bootstrap draws. Those with the least coverage do not count as long as they cannot be
    told from the reference; null when fewer than two are left."""

    family: str
    schemes: tuple[str, ...]
    rises: bool | None
    confidence: float | None


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Schemes against a reference, in natural order of their ids. `verdict` is a sentence."""

    schema: str
    tool: Tool
    reference: str
    prompts: PromptsRow
    device: str
    dtype: ComputeDtype
    activations: Activations
    raw: bool
    noise: NoiseRow
    perplexity: float | None
    results: tuple[ProbeResult, ...]
    curves: tuple[CurveRow, ...]
    worst: tuple[WorstPrompt, ...]
    verdict: str
    notes: tuple[str, ...]
    unread: tuple[Unread, ...]
