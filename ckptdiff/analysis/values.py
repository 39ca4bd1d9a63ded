"""What the values of tensors look like: moments and histograms, in flat memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ckptdiff.events import CancelToken
from ckptdiff.quant.arrays import Array
from ckptdiff.records.detail import ValueDetail

BINS = 32


@dataclass(frozen=True, slots=True)
class Head:
    """What is known of a tensor before any of its values is read."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    dequantised: bool


def describe(
    heads: Sequence[Head],
    chunks: Callable[[], Iterable[Sequence[Array]]],
    cancel: CancelToken,
) -> tuple[ValueDetail, ...]:
    """Two passes over `chunks()`, whose items have a part of each of the tensors of `heads`:
    the extremes and moments, then the bins between them.

    Raises `Cancelled`, and what reading raises.
    """
    moments = [_Moments() for _ in heads]
    for parts in chunks():
        cancel.raise_if_cancelled()
        for moment, part in zip(moments, parts, strict=True):
            moment.add(part)
    bins = [np.zeros(BINS, np.int64) for _ in heads]
    edges = [moment.edges() for moment in moments]
    for parts in chunks():
        cancel.raise_if_cancelled()
        for count, edge, part in zip(bins, edges, parts, strict=True):
            if edge is not None:
                count += np.histogram(_finite(part), edge)[0]
    return tuple(
        moment.detail(head, edge, count)
        for moment, head, edge, count in zip(moments, heads, edges, bins, strict=True)
    )


@dataclass(slots=True)
class _Moments:
    """Sums over the values of one tensor."""

    elements: int = 0
    count: int = 0
    zeros: int = 0
    total: float = 0.0
    squares: float = 0.0
    least: float = math.inf
    greatest: float = -math.inf

    def add(self, chunk: Array) -> None:
        self.elements += chunk.size
        values = _finite(chunk)
        if values.size:
            self.count += values.size
            self.zeros += values.size - int(np.count_nonzero(values))
            self.total += float(values.sum())
            self.squares += float(np.square(values).sum())
            self.least = min(self.least, float(values.min()))
            self.greatest = max(self.greatest, float(values.max()))

    def edges(self) -> NDArray[np.float64] | None:
        """The edges of the bins; None without a finite value."""
        if not self.count:
            return None
        return np.histogram_bin_edges(np.empty(0), BINS, (self.least, self.greatest))

    def detail(
        self, head: Head, edges: NDArray[np.float64] | None, bins: NDArray[np.int64]
    ) -> ValueDetail:
        name, dtype, shape, dequantised = head.name, head.dtype, head.shape, head.dequantised
        elements, count = self.elements, self.count
        if edges is None:
            return ValueDetail(
                name, dtype, shape, dequantised, elements, elements, 0, None, None, None, None, ()
            )
        mean = self.total / count
        return ValueDetail(
            name=name,
            dtype=dtype,
            shape=shape,
            dequantised=dequantised,
            elements=elements,
            nonfinite=elements - count,
            zeros=self.zeros,
            least=self.least,
            greatest=self.greatest,
            mean=mean,
            deviation=math.sqrt(max(0.0, self.squares / count - mean * mean)),
            histogram=tuple(
                (float(low), float(high), int(number))
                for low, high, number in zip(edges[:-1], edges[1:], bins, strict=True)
            ),
        )


def _finite(chunk: Array) -> Array:
    """The finite values of a chunk as float64, flat."""
    values = chunk.reshape(-1).astype(np.float64)
    finite: Array = values[np.isfinite(values)]
    return finite
