"""`load_model` against models whose weights ModelOpt itself dequantised, for every format."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedModel

from ckptdiff.analysis.tensors import TensorReader
from ckptdiff.errors import CapabilityError, RootError, UsageError
from ckptdiff.runtime import load_model
from ckptdiff.runtime.filling import Filling
from ckptdiff.runtime.places import Place
from ckptdiff.runtime.values import Value
from tests.exports import Cell, base_of, cells
from tests.runtime.references import dequantised, reference_model, tensors, written_model

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
TOP100 = SAMPLES / "sweep" / "fp8_autoquant_all_layers_top100_captions"
# Every format on every architecture; of tied hosts and of those in other dtypes, the formats in
# which that could matter.
OTHERS = ("fp8", "int4_awq", "nvfp4")
CELLS = [c for c in cells("ci") if not c.tied and c.dtype == "bf16"] + [
    c for c in cells("ci") if (c.tied or c.dtype != "bf16") and c.fmt in OTHERS
]

pytestmark = pytest.mark.timeout(1800)


def scheme(root: Path, percent: int) -> Path:
    (found,) = (path for path in root.iterdir() if f"top{percent}_" in path.name)
    return found


def forward(model: PreTrainedModel) -> torch.Tensor:
    ids = torch.randint(8, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def assert_same_model(ours: PreTrainedModel, wanted: PreTrainedModel) -> None:
    """Weights, buffers and logits, to the last bit."""
    mine, theirs = ours.state_dict(), wanted.state_dict()
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert {name: b.dtype for name, b in mine.items()} == {n: b.dtype for n, b in theirs.items()}
    buffers = dict(wanted.named_buffers())
    for name, buffer in ours.named_buffers():
        assert torch.equal(buffer, buffers.pop(name)), name
    assert not buffers
    assert torch.equal(forward(ours), forward(wanted))


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_every_format_is_what_modelopt_makes_of_it(
    cell: Cell, exports: dict[Cell, Path], tmp_path: Path
) -> None:
    path = scheme(exports[cell], 50 if cell.tied else 100)
    ours = load_model(path, dtype="float32", device="cpu")
    wanted = reference_model(path, cell.fmt, tmp_path)
    assert_same_model(ours, wanted)
    embeddings, head = ours.get_input_embeddings(), ours.get_output_embeddings()
    assert (embeddings.weight is head.weight) == cell.tied


def test_a_base_is_loaded_as_transformers_loads_it(tmp_path: Path) -> None:
    wanted = written_model(
        {name: t.float() for name, t in tensors(SAMPLES / "base").items()},
        SAMPLES / "base",
        tmp_path,
    )
    assert_same_model(load_model(SAMPLES / "base", dtype="float32", device="cpu"), wanted)


def test_the_dtype_is_that_of_the_config_unless_it_is_given() -> None:
    assert load_model(TOP100, device="cpu").dtype == torch.bfloat16
    model = load_model(TOP100, device="cpu", dtype=torch.float16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}
    wanted = dequantised(TOP100, "fp8")["model.layers.0.mlp.up_proj.weight"]
    got = model.get_submodule("model.language_model.layers.0.mlp.up_proj").weight
    assert torch.equal(got, wanted.to(torch.float16))


def test_raw_loads_codes_as_if_they_were_values(tmp_path: Path) -> None:
    stored = tensors(TOP100)
    state = {
        name: tensor.float()
        for name, tensor in stored.items()
        if not name.endswith(("weight_scale", "input_scale"))
    }
    ours = load_model(TOP100, dtype="float32", device="cpu", raw=True)
    assert_same_model(ours, written_model(state, TOP100, tmp_path))


@pytest.mark.parametrize("fmt", ["nvfp4", "int4_awq"])
def test_raw_cannot_load_packed_weights(fmt: str, exports: dict[Cell, Path]) -> None:
    path = scheme(exports[Cell("llama", False, "bf16", fmt)], 100)
    with pytest.raises(UsageError, match=r"holds \[\d+, \d+\], and the model has"):
        load_model(path, device="cpu", raw=True)


# One export under any manifest


@pytest.mark.parametrize("arch", ["llama", "qwen2_5_vl", "qwen3_moe"])
@pytest.mark.parametrize("fmt", ["fp8", "int8_sq", "nvfp4", "mixed", "int4_awq", "w4a8_awq"])
def test_an_export_under_the_manifest_of_a_subset_is_the_export_of_the_subset(
    arch: str, fmt: str, exports: dict[Cell, Path]
) -> None:
    cell = Cell(arch, False, "bf16", fmt)
    if cell not in exports:
        return  # AWQ does not export experts
    whole, subset = scheme(exports[cell], 100), scheme(exports[cell], 50)
    (manifest,) = (subset / "layer-sensitivity").glob("*_coverage_from_baseline.json")
    base = base_of(exports[cell].parents[1], cell)
    options = {"dtype": "float32", "device": "cpu"}
    ours = load_model(whole, base=base, manifest=manifest, **options)
    wanted = load_model(subset, **options)
    assert_same_model(ours, wanted)
    assert not torch.equal(forward(ours), forward(load_model(whole, **options)))


def test_nvfp4_awq_is_refused_under_a_manifest(exports: dict[Cell, Path]) -> None:
    cell = Cell("llama", False, "bf16", "nvfp4_awq")
    whole, subset = scheme(exports[cell], 100), scheme(exports[cell], 50)
    (manifest,) = (subset / "layer-sensitivity").glob("*_coverage_from_baseline.json")
    with pytest.raises(UsageError, match="folds scales"):
        load_model(whole, base=base_of(exports[cell].parents[1], cell), manifest=manifest)


def test_a_manifest_that_splits_an_awq_group_is_refused(
    exports: dict[Cell, Path], tmp_path: Path
) -> None:
    cell = Cell("llama", False, "bf16", "int4_awq")
    manifest = tmp_path / "x_coverage_from_baseline.json"
    leaves = ("q_proj", "k_proj", "v_proj")
    names = [f"model.layers.0.self_attn.{leaf}.quant_recipe" for leaf in leaves]
    manifest.write_text(json.dumps({"selected_layers": names[:1], "dropped_layers": names[1:]}))
    with pytest.raises(UsageError, match="which the manifest splits"):
        load_model(
            scheme(exports[cell], 100),
            base=base_of(exports[cell].parents[1], cell),
            manifest=manifest,
        )


def test_a_baseline_cannot_give_layers_that_it_left_alone() -> None:
    """The founding bug: a search under a budget leaves layers unquantized."""
    baseline = SAMPLES / "sweep" / "fp8_autoquant_all_layers_fp8_captions"
    (manifest,) = (TOP100 / "layer-sensitivity").glob("*_coverage_from_baseline.json")
    with pytest.raises(UsageError, match=r"does not quantize layers\.0.+ and 13 more"):
        load_model(baseline, base=SAMPLES / "base", manifest=manifest)


# Strictness


def altered(tmp_path: Path, change: dict[str, torch.Tensor | None], source: Path = TOP100) -> Path:
    """A copy of a checkpoint with tensors replaced, added or (None) left out."""
    path = tmp_path / "altered"
    shutil.copytree(source, path)
    state = {k: v for k, v in {**tensors(source), **change}.items() if v is not None}
    save_file(state, path / "model.safetensors", metadata={"format": "pt"})
    return path


UP = "model.layers.0.mlp.up_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model.layers.9.mlp.up_proj.weight": torch.zeros(2, 2)},
            "no parameter for model.layers.9",
        ),
        ({"model.norm.weight": None}, r"nothing, or only a part, for model\.language_model\.norm"),
        ({f"{UP}.weight_scale": None}, rf"{UP}\.weight is quantized and comes without"),
        ({f"{UP}.weight_scale": torch.ones(3)}, rf"{UP}\.weight is quantized and comes without"),
        ({"model.norm.weight_scale": torch.ones(())}, "norm.weight_scale is a scale of no"),
        ({"model.norm.weight": torch.ones(95)}, r"norm\.weight holds \[95\]"),
        (
            {"model.embed_tokens.weight": torch.zeros(500, 96, dtype=torch.bfloat16)},
            r"embed_tokens\.weight holds \[500, 96\], .*: the vocabularies differ",
        ),
        (
            {"model.embed_tokens.weight": torch.zeros(512, 90, dtype=torch.bfloat16)},
            r"holds \[512, 90\], and the model has \[512, 96\] there\n",
        ),
        ({f"{UP}.weight": None, f"{UP}.weight_scale": None}, "scale of no quantized weight"),
    ],
)
def test_what_does_not_fit_is_named(
    change: dict[str, torch.Tensor | None], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        load_model(altered(tmp_path, change), device="cpu")


def test_files_that_change_while_they_are_loaded_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = altered(tmp_path, {})
    write = Filling._write

    def meddling(self: Filling, place: Place, value: Value, reader: TensorReader) -> None:
        (path / "model.safetensors").touch()
        write(self, place, value, reader)

    monkeypatch.setattr(Filling, "_write", meddling)
    with pytest.raises(UsageError, match="changed while it was read"):
        load_model(path, device="cpu")


def test_an_expert_that_is_missing_is_named(exports: dict[Cell, Path], tmp_path: Path) -> None:
    source = scheme(exports[Cell("qwen3_moe", False, "bf16", "int8_wo")], 100)
    expert = "model.layers.1.mlp.experts.2.gate_proj"
    gone = {f"{expert}.weight": None, f"{expert}.weight_scale": None}
    with pytest.raises(UsageError, match=r"only a part, for .*layers\.1\.mlp\.experts\.gate_up"):
        load_model(altered(tmp_path, gone, source), device="cpu")


@pytest.mark.parametrize("fmt", ["int4_awq", "w4a8_awq", "nvfp4_awq"])
def test_a_smoothing_scale_that_is_missing_is_named(
    fmt: str, exports: dict[Cell, Path], tmp_path: Path
) -> None:
    source = scheme(exports[Cell("llama", False, "bf16", fmt)], 50)
    lost = next(name for name in tensors(source) if name.endswith("o_proj.pre_quant_scale"))
    with pytest.raises(UsageError, match=r"o_proj\.weight .* without pre_quant_scale"):
        load_model(altered(tmp_path, {lost: None}, source), device="cpu")


def test_requests_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(RootError, match="holds no safetensors"):
        load_model(tmp_path)
    with pytest.raises(UsageError, match="base and manifest"):
        load_model(TOP100, base=SAMPLES / "base")
    with pytest.raises(UsageError, match="dtype is 'int8'"):
        load_model(TOP100, dtype="int8")
    with pytest.raises(UsageError, match="no device"):
        load_model(TOP100, device="toaster")
    with pytest.raises(CapabilityError, match=r"cuda:99 is not there"):
        load_model(TOP100, device="cuda:99")
    with pytest.raises(CapabilityError, match=r"nothing that runs on hpu"):
        load_model(TOP100, device="hpu")
    with pytest.raises(UsageError, match=r"there is no device 3\.5"):
        load_model(TOP100, device=3.5)  # type: ignore[arg-type]
    manifest = next(TOP100.glob("layer-sensitivity/*_coverage_from_baseline.json"))
    with pytest.raises(UsageError, match="is quantized itself"):
        load_model(TOP100, base=TOP100, manifest=manifest)
    with pytest.raises(UsageError, match="is no coverage manifest"):
        load_model(TOP100, base=SAMPLES / "base", manifest=TOP100 / "config.json")


def test_a_model_of_its_own_code_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(SAMPLES / "base", path)
    config = json.loads((path / "config.json").read_text())
    config |= {
        "model_type": "own",
        "architectures": ["Own"],
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"},
    }
    (path / "config.json").write_text(json.dumps(config))
    (path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UsageError, match="code of its own, which is not run"):
        load_model(path, device="cpu")
    assert not (tmp_path / "ran").exists()
