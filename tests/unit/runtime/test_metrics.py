"""Metrics against the formulas in float64 numpy, term by term."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ckptdiff.runtime.metrics import compare, token_losses

RNG = np.random.default_rng(5)


def logits(rows: int = 6, vocabulary: int = 300, spread: float = 4.0) -> torch.Tensor:
    return torch.from_numpy((RNG.standard_normal((rows, vocabulary)) * spread).astype("f4"))


def probabilities(row: np.ndarray) -> np.ndarray:
    shifted = np.exp(row.astype("f8") - row.max())
    return shifted / shifted.sum()


@pytest.mark.parametrize("step", [1.0, 1e-3, 1e-6])
def test_every_metric_is_its_formula(step: float) -> None:
    one = logits()
    other = one + logits(spread=step)
    found = compare(one, other)
    for n, (a, b) in enumerate(zip(one.numpy(), other.numpy(), strict=True)):
        p, q = probabilities(a), probabilities(b)
        m = (p + q) / 2
        assert found.mse[n] == pytest.approx(((a.astype("f8") - b) ** 2).mean(), rel=1e-12)
        # 300 terms of alternating sign, each a rounding error of 1e-16 at most.
        assert found.kl[n] == pytest.approx((p * np.log(p / q)).sum(), rel=1e-6, abs=1e-15)
        assert found.reverse_kl[n] == pytest.approx((q * np.log(q / p)).sum(), rel=1e-6, abs=1e-15)
        js = ((p * np.log(p / m)).sum() + (q * np.log(q / m)).sum()) / 2
        assert found.js[n] == pytest.approx(js, rel=1e-6, abs=1e-15)
        assert found.top1[n] == (a.argmax() == b.argmax())
        shared = set(np.argsort(-a)[:5]) & set(np.argsort(-b)[:5])
        assert found.top5[n] == len(shared) / 5


def test_equal_logits_are_exactly_equal() -> None:
    one = logits()
    found = compare(one, one.clone())
    for values in (found.mse, found.kl, found.reverse_kl):
        assert values == [0.0] * 6
    assert max(found.js) < 1e-15  # the mean of two distributions is rounded
    assert found.top1 == found.top5 == [1.0] * 6


def test_kl_is_not_symmetric_and_known_by_hand() -> None:
    p, q = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.9, 0.1]])
    found = compare(p.log(), q.log())
    assert found.kl[0] == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))
    assert found.reverse_kl[0] == pytest.approx(0.9 * math.log(1.8) + 0.1 * math.log(0.2))


def test_impossible_tokens_count_as_nothing_or_as_infinitely_far() -> None:
    masked = torch.tensor([[0.0, 1.0, -math.inf]])
    assert compare(masked, masked.clone()).kl == [0.0]
    free = torch.tensor([[0.0, 1.0, 0.0]])
    assert math.isfinite(compare(masked, free).kl[0])
    assert compare(free, masked).kl == [math.inf]


def test_token_losses_are_those_of_the_next_token() -> None:
    found, ids = logits(rows=700, vocabulary=50), torch.from_numpy(RNG.integers(0, 50, 700))
    wanted = [-math.log(probabilities(found[n].numpy())[ids[n + 1]]) for n in range(699)]
    np.testing.assert_allclose(token_losses(found, ids).numpy(), wanted, rtol=1e-12)
    assert len(token_losses(found[:1], ids[:1])) == 0
