"""Second scales of weights that are sound by themselves, held against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from ckptdiff.analysis.proving.agreement import Bonds, agreed
from ckptdiff.records.proof import Proof, ProofStatus, Whole

Q, K, V = "layers.0.attn.q_proj", "layers.0.attn.k_proj", "layers.0.attn.v_proj"
GATE, UP, DOWN = "layers.0.mlp.gate_proj", "layers.0.mlp.up_proj", "layers.0.mlp.down_proj"
O_PROJ = "layers.0.attn.o_proj"


def proof(key: str, whole: Whole | None, status: ProofStatus = "searched") -> Proof:
    return Proof(key=key, module=key, weight=f"{key}.weight", shard="s", status=status, whole=whole)


def told(value: float, near: float = math.inf, along: float | None = None) -> Whole:
    """By its codes a scale may be `near` times larger or smaller."""
    return Whole(value, value / near, value * near, along)


def bound(*group: str, mover: str | None = None) -> dict[str, Bonds]:
    return {key: Bonds(group, (group,), mover) for key in group}


def accused(wholes: Mapping[str, Whole | None], bonds: Mapping[str, Bonds]) -> dict[str, str]:
    """What is said to be right of the scales that are not."""
    proofs = {key: proof(key, whole) for key, whole in wholes.items()}
    found = agreed(proofs, bonds)
    assert list(found) == list(proofs)
    for key, after in found.items():
        if after.status == "searched":
            assert after == proofs[key]
        else:
            whole = wholes[key]
            assert whole is not None and after.expected is not None
            assert (after.status, after.scale, after.wrong) == ("scale", "weight_scale_2", 1)
            assert after.actual == f"{whole.value:.9g}" and after.whole is None
    return {key: after.expected or "" for key, after in found.items() if after.status == "scale"}


# Linears with one input


def test_equal_scales_agree() -> None:
    assert accused({key: told(0.5) for key in (Q, K, V)}, bound(Q, K, V)) == {}


@pytest.mark.parametrize("key", [Q, K, V])
def test_of_three_the_odd_one_is_wrong(key: str) -> None:
    """However little: they are copies of one number."""
    odd = float(np.nextafter(np.float32(0.5), np.float32(1)))
    found = accused({k: told(odd if k == key else 0.5) for k in (Q, K, V)}, bound(Q, K, V))
    assert list(found) == [key]
    assert found[key].startswith("0.5, as ")


def test_of_two_codes_decide() -> None:
    """Those of gate_proj tell its scale, those of up_proj allow for both."""
    wholes = {GATE: told(0.5, 1.01), UP: told(0.52, 1.1)}
    assert accused(wholes, bound(GATE, UP)) == {UP: "0.5, as gate_proj has"}
    wholes = {GATE: told(0.5, 1.1), UP: told(0.52, 1.01)}
    assert accused(wholes, bound(GATE, UP)) == {GATE: "0.52, as up_proj has"}


def test_where_nothing_decides_both_are_named() -> None:
    found = accused({GATE: told(0.5, 1.01), UP: told(0.501, 1.01)}, bound(GATE, UP))
    assert found == {GATE: "0.501, as up_proj has", UP: "0.5, as gate_proj has"}


def test_what_is_wrong_already_is_no_witness() -> None:
    """Its scale may be what is wrong with it."""
    assert accused({GATE: None, UP: told(0.5)}, bound(GATE, UP)) == {}
    found = agreed({GATE: proof(GATE, None, "codes"), UP: proof(UP, told(0.5))}, bound(GATE, UP))
    assert [p.status for p in found.values()] == ["codes", "searched"]


def test_what_was_not_looked_at_is_no_witness() -> None:
    assert accused({UP: told(0.5)}, bound(GATE, UP)) == {}
    assert accused({GATE: told(0.5), UP: told(0.6)}, {}) == {}


# Scales made of block scales


def made(value: float, largest: float) -> Whole:
    return Whole(value, 0.0, math.inf, largest=largest)


def test_a_scale_follows_from_the_largest_of_its_group() -> None:
    right = {Q: made(3.0, 1.0), K: made(3.0, 3.0), V: made(3.0, 2.0)}
    assert accused(right, bound(Q, K, V)) == {}
    for off in (1 + 1e-5, 0.5, 2):
        one = right | {K: replace(right[K], value=3.0 * off)}
        assert accused(one, bound(Q, K, V)) == {K: "3"}
        every = {key: replace(whole, value=3.0 * off) for key, whole in right.items()}
        assert accused(every, bound(Q, K, V)) == dict.fromkeys((Q, K, V), "3")
        alone = {O_PROJ: made(3.0 * off, 3.0)}
        assert accused(alone, bound(O_PROJ)) == {O_PROJ: "3"}


def test_another_device_s_rounding_is_no_fault() -> None:
    value = float(np.nextafter(np.float32(3), np.float32(4)))
    assert accused({O_PROJ: made(value, 3.0)}, bound(O_PROJ)) == {}


def test_a_whole_layer_may_share() -> None:
    """As where attention and MLP follow one norm; all of a group do, or none."""
    layer = (Q, K, GATE)
    bonds = {key: Bonds((Q, K), ((Q, K), layer)) for key in (Q, K)}
    bonds[GATE] = Bonds((GATE,), ((GATE,), layer))
    tops = {Q: 1.0, K: 2.0, GATE: 3.0}
    for values in ([2.0, 2.0, 3.0], [3.0, 3.0, 3.0]):
        wholes = {k: made(v, tops[k]) for k, v in zip(layer, values, strict=True)}
        assert accused(wholes, bonds) == {}
    wholes = {k: made(v, tops[k]) for k, v in zip(layer, [2.0, 3.0, 3.0], strict=True)}
    assert accused(wholes, bonds).keys() == {Q, K}


def test_block_scales_that_are_wrong_speak_for_nobody() -> None:
    """Of a weight that is not sound the largest is unknown, and so of its group."""
    wholes = {Q: made(3.0, 1.0), K: None, V: made(3.0, 2.0)}
    assert accused(wholes, bound(Q, K, V)) == {}


# Factors that were moved


def moved(down: float, up: float = 1.0, gate: float | None = 1.0) -> dict[str, Whole | None]:
    """Scales that are off by some factors; both along factors around 0.7."""
    found: dict[str, Whole | None] = {
        DOWN: told(0.3 * down, 1.1, 0.7 / down),
        UP: told(0.5 * up, 1.1, 1 / 0.7 / up),
    }
    return found if gate is None else found | {GATE: told(0.5 * gate, 1.01)}


BONDS = bound(GATE, UP) | bound(DOWN, mover=UP)


def test_what_was_moved_cancels_out() -> None:
    assert accused(moved(1), BONDS) == {}
    assert accused(moved(1.005), BONDS) == {}


@pytest.mark.parametrize("off", [1.01, 0.99, 1.05])
def test_a_scale_under_moved_factors(off: float) -> None:
    assert accused(moved(off), BONDS) == {DOWN: "about 0.3"}


def test_without_a_group_either_may_be_wrong() -> None:
    bonds = bound(UP) | bound(DOWN, mover=UP)
    assert accused(moved(1.05, gate=None), bonds).keys() == {DOWN, UP}


def test_the_one_that_got_the_factors_is_not_told_twice() -> None:
    """Nor what it was held against: if it has a fault, its factors are not to be trusted."""
    assert accused(moved(1, up=1.05), BONDS).keys() == {UP}
    assert accused(moved(1, up=1.05, gate=None) | {GATE: None}, BONDS) == {}


def test_factors_that_no_code_tells_are_no_evidence() -> None:
    wholes = moved(1.05)
    assert wholes[UP] is not None
    assert accused(wholes | {UP: replace(wholes[UP], along=None)}, BONDS) == {}
