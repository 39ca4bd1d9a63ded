"""A base that holds the experts of a layer in one tensor, as transformers 5 writes it, against
exports that hold them one by one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from build import Spec
from mutate import SINGLE, flip, reshape, tensors

import ckptdiff
from ckptdiff.errors import UsageError
from ckptdiff.formats.manifests import MANIFEST_DIR
from tests.exports import Cell, base_of, cells, ensure

MOE = [cell for cell in cells("ci") if cell.arch == "qwen3_moe"]
WAYS = ("straight", "transposed")
FP8 = Cell("qwen3_moe", False, "bf16", "fp8")
EXPERTS = "model.layers.1.mlp.experts"
FUSED = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
_EXPERT = re.compile(r"^(.*\.experts)\.(\d+)\.(\w+)\.weight$")

pytestmark = pytest.mark.timeout(1500)


def fuse(found: dict[str, Spec], way: str) -> None:
    """All experts of each layer in two tensors, made by numpy alone."""
    matrices = {}
    for name in list(found):
        if match := _EXPERT.match(name):
            spec = found.pop(name)
            width = len(spec.data()) // (spec.shape[0] * spec.shape[1])
            values = np.frombuffer(spec.data(), f"u{width}").reshape(spec.shape)
            matrices[match[1], int(match[2]), match[3]] = spec.dtype, values
    count = 1 + max(expert for _, expert, _ in matrices)
    for owner in {owner for owner, _, _ in matrices}:
        for name, leaves in FUSED.items():
            experts = ([matrices[owner, n, leaf][1] for leaf in leaves] for n in range(count))
            stack = np.stack([np.concatenate(expert) for expert in experts])
            if way == "transposed":
                stack = np.ascontiguousarray(stack.transpose(0, 2, 1))
            dtype = matrices[owner, 0, leaves[0]][0]
            found[f"{owner}.{name}"] = Spec(dtype, stack.shape, name, stack.tobytes())


def fuse_in(base: Path, way: str) -> None:
    with tensors(base) as found:
        fuse(found, way)


def strange(base: Path, *shape: int) -> None:
    """A base whose second layer has its experts in an arrangement that nobody knows."""
    with tensors(base) as found:
        fuse(found, "straight")
        name = f"{EXPERTS}.gate_up_proj"
        found[name] = reshape(found[name], *(shape or (4, 2, 256, 256)))
        del found[f"{EXPERTS}.down_proj"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Where every base lies, so that reports name the same one."""
    return tmp_path / "base"


@pytest.fixture
def root(exports: dict[Cell, Path], tmp_path: Path) -> Path:
    """A copy of an FP8 sweep; its top50 quantizes the experts of all layers but the second."""
    return Path(shutil.copytree(exports[FP8], tmp_path / "sweep" / "quantized"))


@pytest.mark.parametrize("cell", MOE, ids=lambda cell: cell.name)
def test_the_report_is_that_of_the_base_with_single_experts(
    exports: dict[Cell, Path], cell: Cell, way: str, base: Path
) -> None:
    """Findings, proofs, verdict and what was skipped, to the last letter."""
    shutil.copytree(base_of(exports[cell].parents[1], cell), base)
    wanted = ckptdiff.check(exports[cell], base=base, deep=True)
    fuse_in(base, way)
    report = ckptdiff.check(exports[cell], base=base, deep=True, cache=False)
    assert [f for f in report.findings if f.severity != "info"] == []
    assert report == wanted
    for row in report.schemes:
        assert row.proof is not None and row.actual is not None
        assert row.proof.proven + row.proof.searched == row.actual.quantized > 0
    for options in ({"hashes": False, "deep": True}, {"hashes": False}, {}):
        shallow = ckptdiff.check(exports[cell], base=base, **options)  # type: ignore[arg-type]
        assert [f for f in shallow.findings if f.severity != "info"] == []
        assert shallow.verdict.complete


# Faults. What a base with single experts has found is what has to be found, and where.


def flip_code(scheme: dict[str, Spec], base: dict[str, Spec]) -> None:
    name = f"{EXPERTS}.2.up_proj.weight"
    scheme[name] = flip(scheme[name], bit=0, element=777)


def swap_experts(scheme: dict[str, Spec], base: dict[str, Spec]) -> None:
    for name in [name for name in scheme if name.startswith(f"{EXPERTS}.0.")]:
        other = name.replace(".experts.0.", ".experts.3.")
        scheme[name], scheme[other] = scheme[other], scheme[name]


def drop_expert(scheme: dict[str, Spec], base: dict[str, Spec]) -> None:
    for name in [name for name in scheme if name.startswith(f"{EXPERTS}.0.")]:
        del scheme[name]


def drop_projection(scheme: dict[str, Spec], base: dict[str, Spec]) -> None:
    """The same one of every expert."""
    for name in [name for name in scheme if ".experts." in name and ".up_proj." in name]:
        del scheme[name]


def add_expert(scheme: dict[str, Spec], base: dict[str, Spec]) -> None:
    for name in [name for name in scheme if name.startswith(f"{EXPERTS}.0.")]:
        scheme[name.replace(".experts.0.", ".experts.4.")] = scheme[name]


def change_base(scheme: dict[str, Spec], base: dict[str, Spec]) -> None:
    """An element of every projection of one expert, in each layer."""
    for name in [name for name in base if ".experts.1." in name]:
        base[name] = flip(base[name], bit=13, element=12_345)


def swap_in_base(scheme: dict[str, Spec], base: dict[str, Spec]) -> None:
    for name in [name for name in base if ".experts.0.gate_proj" in name]:
        other = name.replace(".experts.0.", ".experts.3.")
        base[name], base[other] = base[other], base[name]


Plant = Callable[[dict[str, Spec], dict[str, Spec]], None]
# Fault, whether it is in the scheme that quantizes all, codes, what the locations have in common.
FAULTS: tuple[tuple[Plant, bool, set[str], str], ...] = (
    (flip_code, True, {"CK207"}, r"^model\.layers\.1\.mlp\.experts\.2\.up_proj\."),
    (swap_experts, True, {"CK207"}, r"^model\.layers\.1\.mlp\.experts\.[03]\."),
    (drop_expert, True, {"CK602"}, r"\.experts\.0\."),
    (drop_projection, False, {"CK602"}, r"\.experts\.\d\.up_proj\."),
    (add_expert, True, {"CK603"}, r"\.experts\.4\."),
    (change_base, True, {"CK207", "CK601"}, r"\.experts\.1\."),
    (swap_in_base, True, {"CK207", "CK208", "CK601"}, r"\.experts\.[03]\.(gate|up)_proj\."),
    (swap_experts, False, {"CK601"}, r"^model\.layers\.1\.mlp\.experts\.[03]\."),
)


@pytest.mark.parametrize(
    ("plant", "whole", "codes", "where"), FAULTS, ids=lambda value: getattr(value, "__name__", None)
)
def test_a_fault_is_found_where_it_is(
    exports: dict[Cell, Path],
    plant: Plant,
    whole: bool,
    codes: set[str],
    where: str,
    way: str,
    base: Path,
    root: Path,
) -> None:
    shutil.copytree(base_of(exports[FP8].parents[1], FP8), base)
    (scheme,) = root.glob("*top100*" if whole else "*top50*")
    with tensors(scheme) as stored, tensors(base) as original:
        plant(stored, original)
    wanted = ckptdiff.check(root, base=base, deep=True)
    fuse_in(base, way)
    report = ckptdiff.check(root, base=base, deep=True)
    assert report == wanted
    found = [finding for finding in report.findings if finding.severity != "info"]
    assert {finding.code for finding in found} == codes
    places = [place.tensor or place.module or "" for f in found for place in f.locations]
    assert places and all(re.search(where, place) for place in places)


# What does not show how it goes together


@pytest.mark.parametrize("shape", [(4, 384, 256), (4, 2, 256, 256), (8, 256, 256)])
def test_experts_in_an_unknown_arrangement_are_not_judged(
    exports: dict[Cell, Path], root: Path, base: Path, shape: tuple[int, ...]
) -> None:
    """Neither an error nor silence; everything else is judged as before."""
    shutil.copytree(base_of(exports[FP8].parents[1], FP8), base)
    strange(base, *shape)
    report = ckptdiff.check(root, base=base, deep=True)
    assert [f for f in report.findings if f.severity != "info"] == []
    apart = {s.scheme: s.reason for s in report.skipped if s.code == "CK6"}
    assert len(apart) == 2 and all("one by one" in reason for reason in apart.values())
    unproven = [skip.reason for skip in report.skipped if skip.code == "CK207"]
    assert unproven == [
        "12 quantized weights were not recomputed: the base has its experts in one tensor, and "
        "not in a way that is known"
    ]
    assert [unread.path for unread in report.unread] == list(apart)
    assert not report.verdict.complete


def test_a_layer_that_is_fused_in_an_export_too(
    exports: dict[Cell, Path], root: Path, base: Path, way: str
) -> None:
    """An export may keep what it does not quantize as its base has it."""
    shutil.copytree(base_of(exports[FP8].parents[1], FP8), base)
    fuse_in(base, way)
    (half,) = root.glob("*top50*")
    shutil.rmtree(half / MANIFEST_DIR)  # it names experts one by one
    with tensors(half) as stored:
        single = {name: stored.pop(name) for name in list(stored) if name.startswith(EXPERTS)}
        assert {spec.dtype for spec in single.values()} == {"BF16"}
        fuse(single, way)
        stored |= single
    report = ckptdiff.check(root, base=base, deep=True)
    assert [f.code for f in report.findings if f.severity != "info"] == []
    assert not [skip for skip in report.skipped if skip.code in ("CK6", "CK207")]
    with tensors(half) as stored:
        name = f"{EXPERTS}.down_proj"
        stored[name] = flip(stored[name], bit=3, element=4_321)
    report = ckptdiff.check(root, base=base, deep=True)
    (finding,) = (f for f in report.findings if f.severity != "info")
    assert (finding.code, finding.schemes) == ("CK601", (half.name,))
    assert [place.tensor for place in finding.locations] == [name]


# Composing


@pytest.mark.parametrize(
    "cell",
    [
        FP8,
        Cell("qwen3_moe", True, "bf16", "nvfp4"),
        Cell("qwen3_moe", False, "bf16", "mixed"),
        Cell("qwen3_moe", False, "f32", "fp8"),
    ],
    ids=lambda cell: cell.name,
)
def test_a_composed_scheme_is_what_modelopt_exports(
    corpus: Path, cell: Cell, way: str, base: Path, tmp_path: Path
) -> None:
    """Experts that are not selected come out of the fused tensors, cast where that is needed."""
    root = ensure(corpus, [cell])[cell]
    half, whole = sorted(root.iterdir(), key=lambda path: "top100" in path.name)
    shutil.copytree(base_of(corpus, cell), base)
    fuse_in(base, way)
    planned = ckptdiff.plan_reexport(
        [half], engine="compose", base=base, donors=[whole], out=tmp_path / "out"
    )
    (outcome,) = ckptdiff.execute(planned).outcomes
    assert outcome.status == "written", outcome
    for name in ("model.safetensors", "config.json", "hf_quant_config.json"):
        assert (tmp_path / "out" / half.name / name).read_bytes() == (half / name).read_bytes()


@pytest.mark.parametrize("fmt", ["fp8_pb_wo", "mxfp4"])
def test_what_no_donor_has_is_made_from_the_fused_tensors(
    exports: dict[Cell, Path], fmt: str, way: str, base: Path, tmp_path: Path
) -> None:
    cell = Cell("qwen3_moe", False, "bf16", fmt)
    (half,) = exports[cell].glob("*top50*")
    shutil.copytree(base_of(exports[cell].parents[1], cell), base)
    alone = tmp_path / "quantized" / half.name
    shutil.copytree(half, alone)
    shutil.copy(base / SINGLE, alone)  # it holds no quantized module any more
    fuse_in(base, way)
    planned = ckptdiff.plan_reexport([alone], engine="compose", base=base)
    (plan,) = planned.report.plans
    assert plan.donors == () and all(module.source is None for module in plan.selected)
    (outcome,) = ckptdiff.execute(planned).outcomes
    assert outcome.status == "written", outcome
    assert (Path(outcome.target) / SINGLE).read_bytes() == (half / SINGLE).read_bytes()


def test_a_donor_that_is_not_from_the_fused_base_is_refused(
    exports: dict[Cell, Path], root: Path, base: Path, way: str, tmp_path: Path
) -> None:
    half, whole = sorted(root.iterdir(), key=lambda path: "top100" in path.name)
    shutil.copytree(base_of(exports[FP8].parents[1], FP8), base)
    fuse_in(base, way)
    with tensors(whole) as stored:
        name = "model.layers.0.mlp.experts.2.up_proj.weight"
        stored[name] = flip(stored[name], bit=0, element=777)
    planned = ckptdiff.plan_reexport(
        [half], engine="compose", base=base, donors=[whole], out=tmp_path / "out"
    )
    with pytest.raises(UsageError, match=r"experts\.2\.up_proj is not what base gives"):
        ckptdiff.execute(planned)
    assert not (tmp_path / "out").exists()


def test_an_unknown_arrangement_is_not_composed(
    exports: dict[Cell, Path], root: Path, base: Path, tmp_path: Path
) -> None:
    half, whole = sorted(root.iterdir(), key=lambda path: "top100" in path.name)
    shutil.copytree(base_of(exports[FP8].parents[1], FP8), base)
    strange(base)
    (plan,) = ckptdiff.plan_reexport(
        [half], engine="compose", base=base, donors=[whole], out=tmp_path / "out"
    ).report.plans
    assert not plan.possible
    assert "hold layers.1.mlp.experts otherwise" in plan.refused[0]
    assert "--engine modelopt" in plan.refused[0]
