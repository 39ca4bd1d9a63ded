"""How far one set of next-token distributions is from another, prompt by prompt.

Pure arithmetic on logits, in float64: a KL of 1e-12 is a difference of rounding errors, and has
to come out as one. Means and intervals are made elsewhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

TOP = 5


@dataclass(frozen=True, slots=True)
class Agreement:
    """One number a prompt: mean squared difference of logits; KL(ref || other), KL(other ||
    ref) and Jensen-Shannon divergence in nats; whether the likeliest token is the same; the
    share of the reference's five likeliest tokens that are among the other's."""

    mse: list[float]
    kl: list[float]
    reverse_kl: list[float]
    js: list[float]
    top1: list[float]
    top5: list[float]


def compare(reference: torch.Tensor, other: torch.Tensor) -> Agreement:
    """Logits [N, V] of the reference and of another model for the same N prompts."""
    a, b = reference.to(torch.float64), other.to(torch.float64)
    log_p, log_q = torch.log_softmax(a, -1), torch.log_softmax(b, -1)
    middle = torch.logaddexp(log_p, log_q) - math.log(2)
    count = min(TOP, a.shape[-1])
    top_a, top_b = a.topk(count).indices, b.topk(count).indices
    shared = (top_a[:, :, None] == top_b[:, None, :]).any(-1).to(torch.float64).mean(-1)
    return Agreement(
        mse=(a - b).square().mean(-1).tolist(),
        kl=divergence(log_p, log_q).tolist(),
        reverse_kl=divergence(log_q, log_p).tolist(),
        js=((divergence(log_p, middle) + divergence(log_q, middle)) / 2).tolist(),
        top1=(a.argmax(-1) == b.argmax(-1)).to(torch.float64).tolist(),
        top5=shared.tolist(),
    )


def divergence(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) over the last dimension; log-probabilities of -inf are impossible tokens."""
    p = log_p.exp()
    terms = torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p))
    # Rounding may leave a sum of -1e-17.
    return terms.sum(-1).clamp(min=0)


def token_losses(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """-log p of tokens 1… of `ids` [L] under the logits [L, V] before them, float64 [L - 1]."""
    losses = [
        torch.nn.functional.cross_entropy(part.to(torch.float64), wanted, reduction="none")
        for part, wanted in zip(
            torch.split(logits[:-1], 256), torch.split(ids[1:], 256), strict=True
        )
    ]
    return torch.cat(losses) if losses else torch.zeros(0, dtype=torch.float64)
