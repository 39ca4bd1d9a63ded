"""`ckptdiff diff`: what differs, by how much and where."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from build import Spec, fp8_tensors, write_weights
from command import run
from mutate import flip, tensors

import ckptdiff
from tests.cli.diffing import FP8, SPEC, different, plain, row, write


def test_the_same_tensors_in_other_files(scheme: Path, twin: Path) -> None:
    done = run("diff", scheme, twin)
    assert done.code == 0
    count = len(fp8_tensors(SPEC.selected(50)))
    first = done.text.splitlines()[0]
    assert first == f"SAME: all {count} tensors of B are those of A, byte for byte"
    assert ckptdiff.diff(scheme, scheme).verdict == "same"


def test_base_against_a_scheme(base: Path, scheme: Path) -> None:
    report = ckptdiff.diff(base, scheme)
    names = {f"{module}.weight" for module in SPEC.selected(50)}
    assert {name for name, status in different(report).items() if status == "dtype"} == names
    assert len(different(report)) == len(names)
    assert (report.verdict, report.total.dtype) == ("different", len(names))
    assert ckptdiff.exit_code(report) == 1


def test_every_number_is_that_of_float64(base: Path, scheme: Path) -> None:
    report = ckptdiff.diff(base, scheme)
    name = f"{FP8}.weight"
    with tensors(base) as originals, tensors(scheme) as stored:
        x = np.frombuffer(originals[name].data(), ml_dtypes.bfloat16).astype(np.float64)
        codes = np.frombuffer(stored[name].data(), ml_dtypes.float8_e4m3fn).astype(np.float64)
        y = codes * np.frombuffer(stored[f"{FP8}.weight_scale"].data(), np.float32)[0]
    found, d = row(report, name), y - x
    assert found.a and found.b
    assert (found.a.dtype, found.b.dtype, found.b.layout) == ("BF16", "F8_E4M3", "fp8")
    assert found.max_abs == pytest.approx(np.abs(d).max(), rel=1e-6)
    assert found.mean_abs == pytest.approx(np.abs(d).mean(), rel=1e-6)
    assert found.rms == pytest.approx(np.sqrt((d * d).mean()), rel=1e-6)
    assert found.rel_error == pytest.approx(np.sqrt((d @ d) / (x @ x)), rel=1e-6)
    assert found.sqnr_db == pytest.approx(10 * np.log10((x @ x) / (d @ d)), rel=1e-6)
    cosine = 1 - x @ y / np.sqrt((x @ x) * (y @ y))
    assert found.cosine_distance == pytest.approx(cosine, rel=1e-6)
    assert found.changed_share == (d != 0).mean()
    assert found.saturated_share == (np.abs(codes) == 448).mean()
    assert found.nonfinite == 0
    assert found.first_difference == tuple(np.argwhere(d.reshape(found.a.shape) != 0)[0])


def test_a_flipped_bit_is_found_and_located(scheme: Path, twin: Path) -> None:
    name = f"{FP8}.weight"
    changed = fp8_tensors(SPEC.selected(50))
    changed[name] = flip(changed[name], bit=0, element=37)
    write_weights(twin, changed, shards=3)
    done = run("diff", scheme, twin, "--raw", "--json")
    assert done.code == 1
    (found,) = (r for r in done.report["tensors"] if r["status"] != "same")
    assert (found["name"], found["first_difference"]) == (name, [2, 5])
    assert (found["cause"], found["changed_share"]) == ("codes", 1 / 256)
    assert found["raw"] == {"codes": 256, "changed": 1, "max_steps": 1, "first_difference": 37}
    text = run("diff", scheme, twin).text
    assert "one tensor of" in text and f"{name}, first at [2, 5]" in " ".join(text.split())


def test_a_doubled_scale_is_found_in_the_scale_and_in_what_it_does(
    scheme: Path, twin: Path
) -> None:
    changed = fp8_tensors(SPEC.selected(50))
    spec = changed[f"{FP8}.weight_scale"]
    (value,) = struct.unpack("<f", spec.data())
    changed[f"{FP8}.weight_scale"] = Spec("F32", (), "", struct.pack("<f", 2 * value))
    write_weights(twin, changed, shards=3)
    report = ckptdiff.diff(scheme, twin, raw=True)
    assert different(report) == {f"{FP8}.weight": "changed", f"{FP8}.weight_scale": "changed"}
    weight, scale = row(report, f"{FP8}.weight"), row(report, f"{FP8}.weight_scale")
    assert (weight.cause, weight.rel_error) == ("scales", pytest.approx(1))
    assert weight.cosine_distance == pytest.approx(0, abs=1e-12)
    assert weight.raw is not None and weight.raw.changed == 0
    assert scale.max_abs == pytest.approx(value)
    # Scales have rows; the totals are those of weights.
    assert report.total.rel_error == pytest.approx(1)
    assert "equal codes under other scales" in run("diff", scheme, twin).text


def test_a_scale_of_another_layer(scheme: Path, twin: Path) -> None:
    changed = fp8_tensors(SPEC.selected(50))
    other = FP8.replace("layers.3", "layers.2")
    changed[f"{FP8}.weight_scale"] = changed[f"{other}.weight_scale"]
    write_weights(twin, changed, shards=3)
    assert different(ckptdiff.diff(scheme, twin)) == {
        f"{FP8}.weight": "changed",
        f"{FP8}.weight_scale": "changed",
    }


def test_the_founding_bug(bug: Path) -> None:
    done = run("diff", bug / SPEC.scheme(10), bug / SPEC.scheme(100))
    assert (done.code, done.text.split(":")[0]) == (0, "SAME")


@pytest.mark.parametrize("dtypes", [("BF16", "F32"), ("F16", "BF16"), ("F32", "F64")])
def test_the_same_values_in_another_dtype(tmp_path: Path, dtypes: tuple[str, str]) -> None:
    values = np.arange(64.0).reshape(8, 8) - 31
    sides = [write(tmp_path / d, {"x.weight": plain(values, d)}) for d in dtypes]
    report = ckptdiff.diff(*sides)
    (found,) = report.tensors
    assert (found.status, found.max_abs, found.changed_share) == ("dtype", 0.0, 0.0)
    assert (found.sqnr_db, report.verdict) == ("Infinity", "different")
    assert "equal values" in report.sentence


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F64"])
def test_bits_that_make_no_number_differ_are_a_change(tmp_path: Path, dtype: str) -> None:
    """0 and -0, and two kinds of NaN: the bytes differ, which no digest overlooks."""
    values = np.array([1.0, 0.0, np.nan, np.inf])
    a = plain(values, dtype)
    b = flip(flip(a, bit=8 * len(a.data()) // 4 - 1, element=1), bit=0, element=2)
    report = ckptdiff.diff(
        write(tmp_path / "a", {"x.weight": a}), write(tmp_path / "b", {"x.weight": b})
    )
    (found,) = report.tensors
    assert (found.status, found.changed_share, found.first_difference) == ("changed", 0.5, (1,))
    assert (found.nonfinite, found.max_abs) == (2, 0.0)


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    a = {"s": Spec("F32", (), "", struct.pack("<f", 1)), "e": Spec("F32", (0, 4), "", b"")}
    b = {"s": Spec("F32", (), "", struct.pack("<f", 3)), "e": Spec("BF16", (0, 4), "", b"")}
    report = ckptdiff.diff(write(tmp_path / "a", a), write(tmp_path / "b", b))
    assert different(report) == {"e": "dtype", "s": "changed"}
    assert (row(report, "s").max_abs, row(report, "s").first_difference) == (2.0, ())
    assert row(report, "e").max_abs is None


def test_shapes_and_what_one_side_lacks(tmp_path: Path) -> None:
    values = np.ones((4, 6))
    a = {"x.weight": plain(values), "y.weight": plain(values), "a.weight": plain(values)}
    b = {"x.weight": plain(values.T), "y.weight": plain(values), "b.weight": plain(values)}
    sides = write(tmp_path / "a", a), write(tmp_path / "b", b)
    report = ckptdiff.diff(*sides)
    assert different(report) == {"x.weight": "shape", "a.weight": "only_a", "b.weight": "only_b"}
    text = run("diff", *sides).text
    assert "x.weight: BF16 [4, 6] against BF16 [6, 4]" in text
    assert "only in A\n  a.weight: BF16 [4, 6]" in text


def test_a_tensor_that_alone_differs_is_named(tmp_path: Path) -> None:
    values = np.ones((2, 3))
    rest = {"z.weight": plain(values)}
    a = write(tmp_path / "a", {"x.weight": plain(values), **rest})
    b = write(tmp_path / "b", {"x.weight": plain(values.T), **rest})
    none = write(tmp_path / "none", rest)
    said = "one tensor of 2 differs: x.weight, "
    assert ckptdiff.diff(a, b).sentence == f"{said}of shape [2, 3] in A and [3, 2] in B"
    assert ckptdiff.diff(a, none).sentence == f"{said}only in A"
    assert ckptdiff.diff(none, a).sentence == f"{said}only in B"


def test_integers_that_float64_cannot_tell_apart(tmp_path: Path) -> None:
    values = [2**53, 2**62, -(2**63), 2**63 - 1, 5]
    others = [2**53 + 1, 2**62 - 3, -(2**63), 2**63 - 1, 5]
    one, other = np.array(values), np.array(others)
    a = write(tmp_path / "a", {"x.weight": plain(one, "I64")})
    b = write(tmp_path / "b", {"x.weight": plain(other, "I64")})
    floats = write(tmp_path / "floats", {"x.weight": plain(one, "F64")})
    found = row(ckptdiff.diff(a, b), "x.weight")
    sizes = [abs(y - x) for x, y in zip(values, others, strict=True)]
    assert (found.max_abs, found.mean_abs) == (max(sizes), sum(sizes) / len(sizes))
    assert found.sqnr_db == pytest.approx(
        10 * math.log10(sum(x * x for x in values) / sum(d * d for d in sizes)), rel=1e-12
    )
    # In another dtype as well: 2^63 - 1 has no float64, all other values of A have one.
    found = row(ckptdiff.diff(a, floats), "x.weight")
    assert (found.status, found.max_abs, found.first_difference) == ("dtype", 1, (3,))
    assert "equal values" not in ckptdiff.diff(b, floats).sentence
    detail = ckptdiff.api.differences(a, b, "x.weight")
    assert detail.difference is not None
    assert (detail.difference.least, detail.difference.greatest) == (-3, 1)


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_values_that_are_lost_are_no_equal_values(tmp_path: Path, lost: float) -> None:
    values = np.linspace(1, 2, 64).reshape(8, 8)
    noise = values * 1.5
    a = {"x.weight": plain(values), "y.weight": plain(values), "z.weight": plain(values)}
    broken = values.copy()
    broken[3, 4] = lost
    one = {**a, "x.weight": plain(broken)}
    base = write(tmp_path / "a", a)
    report = ckptdiff.diff(base, write(tmp_path / "one", one))
    assert report.sentence == (
        "one tensor of 3 differs: x.weight, first at [3, 4]; 1 value is NaN or infinite"
    )
    every = {**one, "y.weight": plain(noise), "z.weight": plain(np.full_like(values, lost))}
    report = ckptdiff.diff(base, write(tmp_path / "every", every), limit=1)
    assert report.sentence.endswith(" dB; 65 values are NaN or infinite")
    assert [row.name for row in report.tensors] == ["z.weight", "x.weight"]
    assert {group.name: group.max_abs for group in report.kinds} == {"x": 0, "y": 1, "z": None}
    report = ckptdiff.diff(base, tmp_path / "every", tensors="z*")
    total = report.total
    assert (total.sqnr_db, total.rel_error, total.max_abs) == (None, None, None)
    assert report.sentence.endswith("; 64 values are NaN or infinite")


def test_tensors_without_elements_have_no_error(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"e.weight": Spec("F32", (0, 4), "", b"")})
    b = write(tmp_path / "b", {"e.weight": Spec("BF16", (0, 4), "", b"")})
    report = ckptdiff.diff(a, b)
    assert (report.total.sqnr_db, report.total.max_abs) == (None, None)
    assert report.sentence == "one tensor of 1 differs: e.weight"


def test_nothing_in_common_is_not_comparable(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"x.weight": plain(np.ones(4))})
    b = write(tmp_path / "b", {"y.weight": plain(np.ones(4))})
    done = run("diff", a, b)
    assert (done.code, done.text.split(":")[0]) == (2, "NOT COMPARABLE")


def test_fused_experts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gate, up, down = (rng.standard_normal((2, 3, 4)) for _ in range(3))
    name = "model.layers.0.mlp.experts"
    one = {}
    for number in range(2):
        one[f"{name}.{number}.gate_proj.weight"] = plain(gate[number])
        one[f"{name}.{number}.up_proj.weight"] = plain(up[number])
        one[f"{name}.{number}.down_proj.weight"] = plain(down[number].T)
    single = write(tmp_path / "single", one)
    both = np.concatenate([gate, up], axis=1)
    for number, (fused, last) in enumerate(
        ((both, down.transpose(0, 2, 1)), (both.transpose(0, 2, 1), down))
    ):
        stored = {f"{name}.gate_up_proj": plain(fused), f"{name}.down_proj": plain(last)}
        path = write(tmp_path / f"fused{number}", stored)
        report = ckptdiff.diff(single, path)
        assert (report.verdict, report.total.same) == ("same", 6)
        assert ckptdiff.diff(path, single).verdict == "same"
        changed = stored[f"{name}.gate_up_proj"]
        at = np.zeros(changed.shape, bool)
        at[(1, 4, 2) if number == 0 else (1, 2, 4)] = True  # row 1 of the up_proj of expert 1
        stored[f"{name}.gate_up_proj"] = flip(changed, element=int(np.flatnonzero(at)[0]))
        path = write(tmp_path / f"changed{number}", stored)
        (found,) = (r for r in ckptdiff.diff(single, path).tensors if r.status != "same")
        assert (found.name, found.first_difference) == (f"{name}.1.up_proj.weight", (1, 2))


def test_columns_of_transposed_experts_in_many_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ckptdiff.analysis.differing.operands._TRANSPOSED_CHUNK", 64)
    test_fused_experts(tmp_path)
