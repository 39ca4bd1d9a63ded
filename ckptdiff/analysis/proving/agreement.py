"""What weights of an AWQ export say of each other's second scales.

How far the codes of a weight tell its own is judged elsewhere. Here are scales that must be equal,
or follow from others, of weights that are sound by themselves:

- Linears that have one input get one scale, of the largest value of any of them. Linears of a
  fused group have one input when they were smoothed alike: by a norm in front, which then has
  the factors, or by equal factors beside them.
- In W4A8 that scale is made of the block scales: 7 of the largest, over 448. It is no part of
  the weight, so that codes say nothing of it.
- NVFP4_AWQ may move factors from the columns of a linear to the rows of the one before. Their
  products are 1, and so is the geometric mean of them: a scale that is off shifts it.

Not seen is what agrees with all that: in NVFP4, a factor of less than `LEAN` on a scale that is
alone, or on all of a group at once. In W4A8 nothing but the scale of another set of the same
layer. Nor is anything concluded from a weight that is not sound.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ckptdiff.analysis.proving.leeway import LEAN
from ckptdiff.records.proof import Proof, Whole

# A device that multiplies by a reciprocal is off by an ulp or two.
_EXACT = 2.0**-20


@dataclass(frozen=True, slots=True)
class Bonds:
    """The modules, by key and with itself, that one is bound to by its second scale.

    `equal` have the same. `spans` are sets over which it may have been taken. `mover` is the
    one whose rows may have got the factors of its columns.
    """

    equal: tuple[str, ...]
    spans: tuple[tuple[str, ...], ...]
    mover: str | None = None


def agreed(proofs: Mapping[str, Proof], bonds: Mapping[str, Bonds]) -> Mapping[str, Proof]:
    """The proofs, of which those become "scale" whose second scale is at odds with that of
    others. What had been found wrong before stays as it is, and speaks for or against nobody."""
    wholes = {key: proofs[key].whole for key in bonds if key in proofs}
    known = {key: whole for key, whole in wholes.items() if whole is not None}
    accused = {key: top for key in known if (top := _not_spanned(known[key], bonds[key], wholes))}
    sound = {key: whole for key, whole in known.items() if key not in accused}
    accused |= {key: value for key in sound if (value := _unequal(key, bonds[key].equal, sound))}
    for key in sorted(known.keys() - accused.keys()):
        mover = bonds[key].mover
        if mover is not None and not {key, *_group(mover, bonds)} & accused.keys():
            accused |= _moved(key, mover, bonds, wholes)
    return {
        key: _at_odds(proof, known[key], accused[key]) if key in accused else proof
        for key, proof in proofs.items()
    }


def _group(key: str, bonds: Mapping[str, Bonds]) -> tuple[str, ...]:
    return bonds[key].equal if key in bonds else (key,)


def _unequal(key: str, group: Sequence[str], known: Mapping[str, Whole]) -> str | None:
    """What the scale of `key` should be by others of its group. Right is what most have; where
    there is no most, what the codes of all go with; where that is not one, none is beyond
    doubt."""
    values = {member: known[member].value for member in group if member in known}
    count = Counter(values.values())
    if len(count) < 2:
        return None
    most = max(count.values())
    right = [value for value in count if count[value] == most]
    if len(right) > 1:
        fitting = [v for v in right if all(known[m].low <= v <= known[m].high for m in values)]
        right = fitting if len(fitting) == 1 else right
    if right == [values[key]]:
        return None
    other = next(m for m, v in values.items() if v in right and v != values[key])
    return f"{values[other]:.9g}, as {other.rpartition('.')[2]} has"


def _not_spanned(whole: Whole, bonds: Bonds, wholes: Mapping[str, Whole | None]) -> str | None:
    """What a scale that follows from those of blocks should be, if it does not."""
    if whole.largest is None:
        return None
    tops = []
    for span in bonds.spans:
        found = [wholes.get(member) for member in span]
        if any(one is None or one.largest is None for one in found):
            return None  # one of them may be the reason
        tops.append(max(one.largest for one in found if one is not None and one.largest))
    if any(math.isclose(whole.value, top, rel_tol=_EXACT) for top in tops):
        return None
    return f"{tops[0]:.9g}" if tops else None


def _moved(
    key: str, mover: str, bonds: Mapping[str, Bonds], wholes: Mapping[str, Whole | None]
) -> dict[str, str]:
    """Whose scale is wrong of two between which factors were moved. The scale of the one that
    got them is beyond doubt where others have it too."""
    mine, theirs = wholes.get(key), wholes.get(mover)
    if mine is None or theirs is None or mine.along is None or theirs.along is None:
        return {}
    product = mine.along * theirs.along
    if 1 / (1 + LEAN) <= product <= 1 + LEAN:
        return {}
    group = [member for member in _group(mover, bonds) if member in wholes]
    if any(wholes[member] is None for member in group):
        return {}
    doubted = {key: mine} if len(group) > 1 else {key: mine, mover: theirs}
    return {name: f"about {whole.value * product:.4g}" for name, whole in doubted.items()}


def _at_odds(proof: Proof, whole: Whole, expected: str) -> Proof:
    return replace(
        proof,
        status="scale",
        scale="weight_scale_2",
        wrong=1,
        codes=1,
        first=(),
        expected=expected,
        actual=f"{whole.value:.9g}",
        whole=None,
    )
