"""Declared against actual, counted from headers and manifests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from build import (
    Spec,
    SweepSpec,
    coverage_manifest,
    fp8_tensors,
    members,
    recipes,
    write_scheme,
)

from ckptdiff.analysis.coverage import coverage_of, is_full_precision, modules_of
from ckptdiff.formats.checkpoint import read_checkpoint
from ckptdiff.records.coverage import Coverage

SPEC = SweepSpec()


def coverage(path: Path, tensors: dict[str, Spec], percent: int | None = 30) -> Coverage:
    manifest = None if percent is None else coverage_manifest("s", percent, recipes())
    write_scheme(path, tensors, manifest=manifest)
    return coverage_of(read_checkpoint(path, path.name))


def test_a_scheme_that_follows_its_manifest(tmp_path: Path) -> None:
    found = coverage(tmp_path / "top30", fp8_tensors(SPEC.selected(30)))
    assert found.agrees
    assert len(found.scope) == 28
    assert found.quantized == {
        module.removeprefix("model.") for recipe in recipes()[:5] for module in members(recipe)
    }
    assert found.not_quantized == found.not_selected == frozenset()


def test_effective_bits_are_weighted_by_elements(tmp_path: Path) -> None:
    """8 bits for what is FP8, 16 for the rest of the ranking, embeddings left out."""
    found = coverage(tmp_path / "top30", fp8_tensors(SPEC.selected(30)))
    sizes = {key: module.elements for key, module in found.modules.items() if key in found.scope}
    bits = sum(size * (8 if key in found.quantized else 16) for key, size in sizes.items())
    assert found.effective_bits == pytest.approx(bits / sum(sizes.values()))


@pytest.mark.parametrize(
    ("weight", "scale", "bits", "elements"),
    [
        (Spec("F8_E4M3", (8, 32), "w"), Spec("F32", (), "s"), 8.0, 256),
        (Spec("I8", (8, 32), "w"), Spec("F32", (8,), "s"), 8.0, 256),
        (Spec("U8", (8, 16), "w"), Spec("F8_E4M3", (8, 2), "s"), 4.5, 256),  # NVFP4, blocks of 16
        (Spec("U8", (8, 16), "w"), Spec("F8_E4M3", (8, 1), "s"), 4.0, 256),  # blocks of 32
        (Spec("U8", (4, 32), "w"), Spec("F32", (8, 1), "s"), 4.0, 256),  # INT4 AWQ
        (Spec("U8", (8, 16), "w"), Spec("U8", (8, 1), "s"), 4.0, 256),  # MXFP4
        (Spec("BF16", (8, 32), "w"), None, 16.0, 256),
        (Spec("F32", (8, 32), "w"), None, 16.0, 256),
    ],
)
def test_bits_and_elements_of_a_module(
    tmp_path: Path, weight: Spec, scale: Spec | None, bits: float, elements: int
) -> None:
    tensors = {"model.layers.0.mlp.down_proj.weight": weight}
    if scale is not None:
        tensors["model.layers.0.mlp.down_proj.weight_scale"] = scale
    found = coverage(tmp_path / "x", tensors, None)
    (module,) = found.modules.values()
    assert (module.bits, module.elements) == (bits, elements)
    assert found.effective_bits == bits


def test_without_a_manifest_only_a_share_is_declared(tmp_path: Path) -> None:
    found = coverage(tmp_path / "top30", fp8_tensors([]), None)
    assert found.declared is not None and found.declared.percent == 30
    assert found.selected is None
    assert not found.agrees
    assert len(found.scope) == 28  # linear weights: no embedding, no norm


def test_nothing_declares_anything(tmp_path: Path) -> None:
    assert coverage(tmp_path / "x", fp8_tensors([]), None).declared is None


def test_full_names_when_prefixes_collide(tmp_path: Path) -> None:
    tensors = {
        "model.layers.0.mlp.down_proj.weight": Spec("BF16", (4, 4), "a"),
        "layers.0.mlp.down_proj.weight": Spec("F8_E4M3", (4, 4), "b"),
    }
    write_scheme(tmp_path / "x", tensors)
    assert set(modules_of(read_checkpoint(tmp_path / "x", "x"))) == {
        "model.layers.0.mlp.down_proj",
        "layers.0.mlp.down_proj",
    }


def test_what_is_full_precision(sweep: Path) -> None:
    assert is_full_precision(read_checkpoint(sweep.parent / "base", "base"))
    assert not is_full_precision(read_checkpoint(sweep / SPEC.scheme(10), "x"))


def test_quantized_without_a_config_is_not_full_precision(tmp_path: Path) -> None:
    write_scheme(tmp_path / "x", fp8_tensors(SPEC.selected(10)))
    (tmp_path / "x" / "hf_quant_config.json").unlink()
    (tmp_path / "x" / "config.json").unlink()
    assert not is_full_precision(read_checkpoint(tmp_path / "x", "x"))


def test_a_convolution_is_outside_the_scope(tmp_path: Path) -> None:
    conv = "visual.patch_embed.proj"
    ranking = [*recipes(), f"{conv}.quant_recipe"]
    tensors = fp8_tensors(SPEC.selected(100)) | {f"{conv}.weight": Spec("BF16", (4, 3, 2, 2), "c")}
    write_scheme(tmp_path / "top100", tensors, manifest=coverage_manifest("top100", 100, ranking))
    found = coverage_of(read_checkpoint(tmp_path / "top100", "top100"))
    assert found.agrees
    assert conv not in found.scope
    assert found.declared is not None and found.declared.unknown == ()
    # It counts with its 16 bits all the same, as it does for AutoQuant.
    assert found.effective_bits is not None and 8 < found.effective_bits < 9


def test_a_packed_convolution_counts_as_it_is(tmp_path: Path) -> None:
    """No export packs one. If a file holds one all the same, that is what it holds."""
    conv = "visual.patch_embed.proj"
    tensors = fp8_tensors(SPEC.selected(100)) | {
        f"{conv}.weight": replace(Spec("BF16", (4, 3, 2, 2), "c"), dtype="F8_E4M3")
    }
    write_scheme(tmp_path / "x", tensors, manifest=coverage_manifest("top100", 100, recipes()))
    assert conv in coverage_of(read_checkpoint(tmp_path / "x", "x")).not_selected
