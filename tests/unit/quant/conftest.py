"""Real exports for the arithmetic: every layout, with every host's dtype for one architecture.

They are part of the corpus of tests/runtime.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exports import Cell, ensure

_LAYOUTS = ("fp8", "fp8_pcpt", "fp8_pb_wo", "int8", "nvfp4", "w4a8_nvfp4_fp8", "mxfp8", "mxfp4")
_SEARCHED = ("int8_sq", "int4_awq", "w4a8_awq", "nvfp4_awq")

CELLS = (
    *(
        Cell("llama", False, dtype, fmt)
        for dtype in ("bf16", "f16", "f32")
        for fmt in (*_LAYOUTS, *_SEARCHED)
    ),
    *(Cell("qwen2_5_vl", False, "bf16", fmt) for fmt in (*_LAYOUTS, "int4_awq")),
    *(Cell("qwen3_moe", False, "bf16", fmt) for fmt in (*_LAYOUTS, "mixed", "int8_sq")),
)


@pytest.fixture(scope="session")
def built(corpus: Path) -> Path:
    """The folder with the exports and bases of `CELLS`."""
    ensure(corpus, CELLS)
    return corpus
