"""What is compared with what: a tensor, or a part of one, of each of two checkpoints.

Records only. How they are found is `alignment`'s, how their values are read `operands`'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ckptdiff.analysis.packings import Packing
from ckptdiff.records.checkpoint import Part, Tensor
from ckptdiff.records.layout import LayoutName


@dataclass(frozen=True, slots=True)
class Operand:
    """What one checkpoint has for a pair. `shape` is that of its values, unpacked.

    `tensor` as the header has it, under the name `name` in `shard`, or a part of that. `layout`
    and `module` (its name on disk) are those of a quantized weight. `obstacle` is why its
    values cannot be had, "" when they can, `smoothed` whether a pre_quant_scale lies beside it.
    A weight that another exporter than ModelOpt packed has a `packing` in the place of a layout.
    """

    name: str
    tensor: Tensor
    shard: str
    shape: tuple[int, ...]
    layout: LayoutName | None = None
    module: str = ""
    obstacle: str = ""
    smoothed: bool = False
    packing: Packing | None = None

    @property
    def part(self) -> Part | None:
        return self.tensor.part

    @property
    def coding(self) -> object:
        """Equal where equal bytes, with equal scales, are equal values; None for a plain one."""
        return self.packing.kind if self.packing else self.layout

    @property
    def format(self) -> str | None:
        """How its codes are packed, in a word; None for a plain tensor."""
        return self.packing.format if self.packing else self.layout

    @property
    def is_piece(self) -> bool:
        """Whether the tensor holds more than this."""
        expert = None if self.packing is None else self.packing.expert
        return self.part is not None or expert is not None

    @property
    def spelled(self) -> str:
        """Its name, and which part of the tensor of that name is meant."""
        if self.packing is not None and self.packing.expert is not None:
            return f"{self.name}[{self.packing.expert}]"
        if self.part is None:
            return self.name
        rows = f"{self.part.first}:{self.part.first + self.shape[0]}"
        return f"{self.name}[{self.part.expert}, {':, ' * self.part.transposed}{rows}]"


@dataclass(frozen=True, slots=True)
class Fold:
    """The norm whose ratio of B over A makes B's weight act as A's: its key, its operands."""

    key: str
    a: Operand
    b: Operand


@dataclass(frozen=True, slots=True)
class Gain:
    """The linear whose rows AWQ multiplied by what it divides the columns of the next one by.

    Nothing on disk says by how much, so it is worked out from both sides of that linear, whose
    own norm may be folded as well. `along` tells which of the two the pair is.
    """

    a: Operand
    b: Operand
    fold: Fold | None
    along: Literal["rows", "columns"]


@dataclass(frozen=True, slots=True)
class Pair:
    """The same tensor in both checkpoints, or in one; `key` is independent of spelling.

    `fold` and `gain` are what makes B's weight act as A's.
    """

    key: str
    a: Operand | None
    b: Operand | None
    fold: Fold | None = None
    gain: Gain | None = None
    is_scale: bool = False

    @property
    def folded(self) -> tuple[str, ...]:
        """The tensors of B that its weight is compared together with."""
        return tuple(each.b.name for each in (self.fold, self.gain) if each is not None)

    @property
    def name(self) -> str:
        sides = [side for side in (self.a, self.b) if side is not None]
        return next((side.name for side in sides if not side.is_piece), self.key)
