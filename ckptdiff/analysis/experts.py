"""Experts that one checkpoint holds in one tensor and another one by one.

Told by names and shapes. A tensor of all experts is cut into the matrices of each, as parts of
it: nothing is read, and no part is a copy.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ckptdiff.analysis.against_base import FLOATS, shapes_of
from ckptdiff.formats.names import keys_of
from ckptdiff.records.checkpoint import Checkpoint, Part, Shard, Tensor, TensorPart
from ckptdiff.records.evidence import SchemeEvidence

Shape = tuple[int, ...]
Stacked = tuple[str, Tensor]  # a tensor of all experts and its name on disk

_FUSED = re.compile(r"^(.*\bexperts)\.(gate_up_proj|down_proj)$")
_STACKS = ("gate_up_proj", "down_proj")
_SINGLE = re.compile(r"^(.*\bexperts)\.\d+\.(\w+)\.weight$")
# What lies side by side in `gate_up_proj`, and what `down_proj` is, by the names of one expert's
# projections: packed as a piece, Qwen's and most others', Mixtral's.
_FAMILIES = (
    (("gate_up_proj",), ("down_proj",)),
    (("gate_proj", "up_proj"), ("down_proj",)),
    (("w1", "w3"), ("w2",)),
)


def split(
    fused: Mapping[str, Stacked],
    single: Iterable[tuple[str, Sequence[Shape]]],
    *,
    guess: bool = False,
) -> dict[str, Stacked]:
    """The experts that `fused` has in one tensor where another checkpoint has them one by one.

    `fused` has the tensors of one checkpoint by their keys, `single` the keys of the other with
    the shapes that each can have, unpacked. Gives a part and the name of what it is a part of, by
    the key of the expert's weight. A square matrix fits both ways and lies as its neighbour does;
    where that does not tell either, it is taken to lie as transformers 5 writes it, or, without
    `guess`, left whole. So is what has some experts one by one as well, or more than twice as
    many of them as the other: a header of few bytes can claim any number.
    """
    shapes: dict[str, dict[str, Counter[Shape]]] = defaultdict(lambda: defaultdict(Counter))
    stacks: dict[str, dict[str, Stacked]] = defaultdict(dict)
    for key, found in fused.items():
        if match := _FUSED.match(key):
            stacks[match[1]][match[2]] = found
    for key, possible in single if stacks else ():
        if match := _SINGLE.match(key):
            shapes[match[1]][match[2]].update(possible)
    twice = {match[1] for key in (fused if stacks else ()) if (match := _SINGLE.match(key))}
    parts: dict[str, Stacked] = {}
    for owner in sorted((stacks.keys() & shapes.keys()) - twice):
        parts.update(_split_owner(owner, stacks[owner], shapes[owner], guess))
    return parts


def _split_owner(
    owner: str, stacks: Mapping[str, Stacked], shapes: Mapping[str, Counter[Shape]], guess: bool
) -> Iterator[tuple[str, Stacked]]:
    """The experts of one layer."""
    gates, downs = next((f for f in _FAMILIES if not shapes.keys().isdisjoint(f[0])), _FAMILIES[1])
    wanted = [
        (stacks[name], leaves, _orientations(stacks[name][1], len(leaves), _shapes(shapes, leaves)))
        for name, leaves in (("gate_up_proj", gates), ("down_proj", downs))
        if name in stacks
    ]
    decided = {ways[0] for _, _, ways in wanted if len(ways) == 1}
    most = 2 * max(counter.total() for counter in shapes.values())
    for stack, leaves, ways in wanted:
        if ways and stack[1].shape[0] > most:
            continue
        way = next((w for w in ways if w in decided), ways[0] if guess and ways else None)
        if way is not None:
            yield from _experts(owner, stack, leaves, transposed=way == "transposed")


def _shapes(shapes: Mapping[str, Counter[Shape]], leaves: Sequence[str]) -> list[Shape]:
    """The shapes that projections of one size have, that of most first: one may be damaged."""
    found = sum((shapes[leaf] for leaf in leaves if leaf in shapes), Counter[Shape]())
    return [shape for shape, _ in found.most_common()]


def _orientations(stack: Tensor, count: int, shapes: Sequence[Shape]) -> tuple[str, ...]:
    """How a tensor [E, …] can hold `count` matrices of one of these shapes, side by side."""
    for shape in shapes if len(stack.shape) == 3 and 0 not in stack.shape else ():
        if len(shape) == 2:
            outputs, inputs = count * shape[0], shape[1]
            ways = {"straight": (outputs, inputs), "transposed": (inputs, outputs)}
            if fits := tuple(way for way, matrix in ways.items() if stack.shape[1:] == matrix):
                return fits
    return ()


def _experts(
    owner: str, stack: Stacked, leaves: Sequence[str], *, transposed: bool
) -> Iterator[tuple[str, Stacked]]:
    name, tensor = stack
    count, *matrix = tensor.shape
    outputs, inputs = reversed(matrix) if transposed else matrix
    rows, size = outputs // len(leaves), outputs * inputs
    begin, width = tensor.data_offsets[0], tensor.nbytes // (count * size)
    for number, leaf in enumerate(leaves):
        first = number * rows
        for expert in range(count):
            start = expert * size + (first if transposed else first * inputs)
            stop = start + ((inputs - 1) * outputs + rows if transposed else rows * inputs)
            yield (
                f"{owner}.{expert}.{leaf}.weight",
                (
                    name,
                    TensorPart(
                        tensor.dtype,
                        (rows, inputs),
                        (begin + start * width, begin + stop * width),
                        Part(name, expert, first, outputs if transposed else 0),
                    ),
                ),
            )


# A checkpoint as it would be, had it been written one expert at a time


def stacked(base: Checkpoint) -> bool:
    """Whether it has tensors of all experts of a layer."""
    return any(name.endswith(_STACKS) for name, _, _ in base.items())


def viewed(base: Checkpoint, schemes: Iterable[SchemeEvidence]) -> Checkpoint:
    """`base` with the experts one by one that any of `schemes` has so, and base in one tensor
    that is not quantized; `base` itself where there are none."""
    if not stacked(base):
        return base
    keys = keys_of(name for name, _, _ in base.items())
    known = set(keys.values())
    fused = {keys[n]: (n, tensor) for n, tensor, _ in base.items() if tensor.dtype in FLOATS}
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for scheme in schemes:
        for key, (name, part) in split(fused, _single(scheme)).items():
            if key not in known:
                parts[name][_spelled(key, name)] = part
    if not parts:
        return base
    return replace(base, shards=tuple(_viewed(shard, parts) for shard in base.shards))


def _viewed(shard: Shard, parts: Mapping[str, Mapping[str, Tensor]]) -> Shard:
    if parts.keys().isdisjoint(shard.stored):
        return shard
    view: dict[str, Tensor] = {}
    for name, tensor in shard.stored.items():
        view.update(parts.get(name, {name: tensor}))
    return replace(shard, view=view)


def _spelled(key: str, fused: str) -> str:
    """The name that the weight of an expert would have where its fused tensor has `fused`."""
    return f"{fused.rpartition('.')[0]}.{'.'.join(key.rsplit('.', 3)[1:])}"


def _single(scheme: SchemeEvidence) -> Iterator[tuple[str, Sequence[Shape]]]:
    for key, (_, tensor, _) in scheme.tensors.items():
        module = scheme.coverage.modules.get(key.removesuffix(".weight"))
        packed = module is not None and module.quantized
        yield key, shapes_of(scheme, module, tensor) if module and packed else (tensor.shape,)
