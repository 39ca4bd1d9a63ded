"""A search that told no layer from another is no ranking."""

from __future__ import annotations

from typing import Any

import pytest
from modelopt.torch.quantization.algorithms import QuantRecipe

from ckptdiff.errors import CkptdiffError
from ckptdiff.runtime.export.autoquant import _require_ranked


def found_out(*scores: float) -> dict[str, Any]:
    """The state of a search over layers, each with one format beside none."""
    formats = [QuantRecipe("FP8_DEFAULT_CFG"), QuantRecipe(None)]
    return {
        "candidate_stats": {
            f"layers.{n}.quant_recipe": {"formats": formats, "scores": [score, 0.0]}
            for n, score in enumerate(scores)
        }
    }


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ((0.0, 0.0, 0.0), "every layer has the score 0"),
        ((1.0, float("nan"), 2.0), "1 of 3 scores are no numbers"),
        ((float("inf"), float("inf")), "2 of 2 scores are no numbers"),
    ],
)
def test_a_search_that_measured_nothing_ranks_nothing(scores: tuple[float, ...], said: str) -> None:
    with pytest.raises(CkptdiffError, match=said) as caught:
        _require_ranked(found_out(*scores))
    assert "two tokens" in caught.value.next_step


def test_a_search_that_measured_something_ranks() -> None:
    _require_ranked(found_out(0.0, 1e-9))
    _require_ranked(found_out(0.0))
