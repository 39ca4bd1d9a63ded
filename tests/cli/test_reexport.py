"""`ckptdiff reexport` as users run it, on the samples."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
from pathlib import Path

import build
import jsonschema
import pytest
from command import COMMAND, environment, run

import ckptdiff
from ckptdiff.errors import UsageError
from ckptdiff.report.json import json_schema
from tests.cli.samples import (
    BASE,
    BASELINE,
    NAME,
    PERCENTS,
    PROVENANCE,
    SWEEP,
    WHOLE,
    files,
    names,
    reexport,
)


def test_the_founding_bug_is_repaired_by_one_command(copied: Path) -> None:
    schemes = [copied / NAME.format(percent) for percent in PERCENTS]
    before = {scheme.name: files(scheme) for scheme in schemes}
    done = reexport(*schemes, "--donor", WHOLE, "--in-place", "--yes")
    assert done.code == 0, done.err
    assert done.text.startswith("DONE: 4 of 4 schemes written\n")
    for scheme in schemes:
        written = files(scheme)
        assert json.loads(written.pop(PROVENANCE))["donors"][0]["name"] == WHOLE.name
        # Byte for byte what ModelOpt exported of this subset.
        assert written == files(SWEEP / scheme.name)
        assert files(scheme.with_name(f"{scheme.name}.broken-1")) == before[scheme.name]
    report = ckptdiff.check(copied, base=BASE, deep=True)
    assert report.verdict.status == "pass" and report.verdict.complete
    assert len({row.fingerprint for row in report.schemes}) == 4
    assert len(report.passed_over) == 4


def test_the_baseline_alone_lacks_what_the_plan_names(copied: Path) -> None:
    done = reexport(
        copied / NAME.format(10), "--donor", BASELINE, "--engine", "compose", "--dry-run", "--json"
    )
    assert done.code == 2
    (plan,) = done.report["plans"]
    assert {item["module"] for item in plan["missing"]} == {
        "model.layers.0.self_attn.o_proj",
        "visual.merger.mlp.2",
    }
    assert len(plan["selected"]) == 5
    assert all("holds it in BF16" in item["reason"] for item in plan["missing"])
    assert all("--engine modelopt" in item["reason"] for item in plan["missing"])
    text = reexport(copied / NAME.format(10), "--donor", BASELINE, "--engine", "compose", "--yes")
    assert text.code == 2 and text.text.startswith("CANNOT: 1 of 1 scheme")
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_a_plan_is_shown_and_nothing_written(copied: Path) -> None:
    scheme = copied / NAME.format(30)
    done = reexport(scheme, "--donor", WHOLE, "--dry-run")
    assert done.code == 0
    assert done.text.startswith("PLAN: 1 scheme, ")
    for part in ("target", "repairs", "base", "engine", "quantize", "takes", "carries", "writes"):
        assert f"\n  {part} " in done.text
    assert all(len(line) <= 80 for line in done.text.splitlines())
    report = reexport(scheme, "--donor", WHOLE, "--dry-run", "--json").report
    jsonschema.validate(report, json_schema("ckptdiff.plan/1"))
    assert report["schema"] == "ckptdiff.plan/1" and report["outcomes"] == []
    (plan,) = report["plans"]
    assert len(plan["selected"]) == 18 and len(plan["dropped"]) == 31
    assert plan["bytes"] > 900_000 and plan["free"] > plan["bytes"]
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_without_a_terminal_nobody_agrees(copied: Path) -> None:
    done = reexport(copied / NAME.format(30), "--donor", WHOLE)
    assert done.code == 2
    assert done.text.startswith("PLAN: 1 scheme, ")
    assert "--yes" in done.err
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_beside_the_original_or_elsewhere(copied: Path, tmp_path: Path) -> None:
    scheme = copied / NAME.format(10)
    before = files(scheme)
    done = reexport(scheme, "--donor", WHOLE, "--yes", "--json")
    assert done.code == 0
    jsonschema.validate(done.report, json_schema("ckptdiff.plan/1"))
    (outcome,) = done.report["outcomes"]
    assert outcome["target"] == f"{scheme}_v2" and outcome["status"] == "written"
    assert outcome["fingerprint"] == ckptdiff.hash(f"{scheme}_v2").fingerprint
    assert any("goes on failing" in note for note in done.report["plans"][0]["notes"])
    assert files(scheme) == before
    again = reexport(scheme, "--donor", WHOLE, "--yes")
    assert again.code == 2 and "is there already" in again.err
    # Elsewhere, in a directory that has to be made, under its own name.
    elsewhere = tmp_path / "new" / "place"
    assert reexport(scheme, "--donor", WHOLE, "--yes", "--out", elsewhere).code == 0
    assert (
        files(elsewhere / scheme.name)["model.safetensors"]
        == files(SWEEP / scheme.name)["model.safetensors"]
    )


def test_the_family_is_the_default_donor(tmp_path: Path) -> None:
    root = Path(shutil.copytree(SWEEP, tmp_path / "quantized"))
    scheme = root / NAME.format(50)
    for path in scheme.glob("*.safetensors"):
        path.unlink()  # a killed export has no weights
    done = reexport(scheme, "--in-place", "--yes", "--json")
    assert done.code == 0, done.err
    assert [donor["id"] for donor in done.report["plans"][0]["donors"]] == [NAME.format(100)]
    assert files(scheme)["model.safetensors"] == files(SWEEP / scheme.name)["model.safetensors"]


def test_a_donor_that_is_not_what_base_gives_is_refused(copied: Path, tmp_path: Path) -> None:
    donor = Path(shutil.copytree(WHOLE, tmp_path / "donor"))
    weights = donor / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0x55  # one code of one module
    weights.write_bytes(data)
    done = reexport(copied / NAME.format(100), "--donor", donor, "--yes")
    assert done.code == 2
    assert "cannot be used" in done.err and "not what base gives" in done.err
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architectures": ["Other"]}, "is another model than the base"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "not by ModelOpt"),
    ],
)
def test_a_donor_of_another_kind_is_refused(
    copied: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    donor = Path(shutil.copytree(WHOLE, tmp_path / "donor"))
    config = json.loads((donor / "config.json").read_text())
    build.write_json(donor / "config.json", config | change)
    if "quantization_config" in change:
        (donor / "hf_quant_config.json").unlink()
    done = reexport(copied / NAME.format(100), "--donor", donor, "--dry-run")
    assert done.code == 2 and says in done.err


def test_what_declares_nothing_is_refused(copied: Path, tmp_path: Path) -> None:
    done = reexport(BASELINE, "--out", tmp_path / "out", "--yes")
    assert done.code == 2 and "declares no subset" in " ".join(done.text.split())
    scheme = copied / NAME.format(10)
    shutil.rmtree(scheme / "layer-sensitivity")
    done = reexport(scheme, "--donor", WHOLE, "--yes")
    assert done.code == 2 and "no coverage manifest" in " ".join(done.text.split())
    lonely = Path(shutil.copytree(copied / NAME.format(30), tmp_path / "lonely" / "top30"))
    done = run("reexport", lonely, "--engine", "compose", "--donor", WHOLE, "--yes")
    assert done.code == 2 and "no base" in " ".join(done.text.split())
    assert run("reexport", tmp_path / "nowhere").code == 2
    assert run("reexport", BASE, "--base", BASE).code == 2


def test_a_scheme_that_another_one_needs_is_not_replaced(tmp_path: Path) -> None:
    root = Path(shutil.copytree(SWEEP, tmp_path / "quantized"))
    both = [root / NAME.format(percent) for percent in (50, 100)]
    done = reexport(*both, "--donor", both[1], "--in-place", "--yes")
    assert done.code == 2 and "is itself replaced" in done.err
    assert names(root) == names(SWEEP)


def test_a_mistaken_call_is_told() -> None:
    with pytest.raises(UsageError, match="engine"):
        ckptdiff.plan_reexport([WHOLE], engine="magic")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no scheme"):
        ckptdiff.plan_reexport([])
    with pytest.raises(UsageError, match="exclude"):
        ckptdiff.plan_reexport([WHOLE], out="x", in_place=True)
    with pytest.raises(UsageError, match="twice"):
        ckptdiff.plan_reexport([WHOLE, WHOLE], base=BASE)


def specs(path: Path) -> dict[str, build.Spec]:
    """The tensors of a checkpoint in one file, as `build` writes them."""
    raw = (path / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    header.pop("__metadata__", None)
    return {
        name: build.Spec(
            entry["dtype"],
            tuple(entry["shape"]),
            "",
            raw[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]],
        )
        for name, entry in header.items()
    }


def rewritten(path: Path, target: Path, tensors: dict[str, build.Spec], shards: int) -> Path:
    """A copy of a checkpoint with other weights."""
    shutil.copytree(path, target, ignore=shutil.ignore_patterns("*.safetensors"))
    build.write_weights(target, tensors, shards)
    return target


def test_a_float32_base_is_cast_and_shards_are_read(copied: Path, tmp_path: Path) -> None:
    wide = {
        name: build.as_float32(spec) if spec.dtype == "BF16" else spec
        for name, spec in specs(BASE).items()
    }
    assert any(spec.dtype == "F32" for spec in wide.values())
    base = rewritten(BASE, tmp_path / "base", wide, shards=3)
    donor = rewritten(WHOLE, tmp_path / "donor", specs(WHOLE), shards=4)
    scheme = copied / NAME.format(30)
    done = run("reexport", scheme, "--engine", "compose", "--base", base, "--donor", donor, "--yes")
    assert done.code == 0, done.text
    ours, export = (ckptdiff.hash(path) for path in (f"{scheme}_v2", SWEEP / scheme.name))
    assert ours.fingerprint == export.fingerprint
    for name in ("config.json", "hf_quant_config.json"):
        assert files(Path(f"{scheme}_v2"))[name] == files(SWEEP / scheme.name)[name]


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"n\n", 2), (b"\n", 2)])
def test_on_a_terminal_somebody_is_asked(copied: Path, answer: bytes, code: int) -> None:
    scheme = copied / NAME.format(10)
    command = [*COMMAND, "reexport", scheme, "--base", BASE, "--donor", WHOLE]
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        command, env=environment(), stdin=theirs, stderr=theirs, stdout=subprocess.PIPE
    )
    os.close(theirs)
    os.write(ours, answer)
    out, _ = child.communicate(timeout=60)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert child.returncode == code, out
    assert "Write this? [y/N]" in shown
    assert out.startswith(b"PLAN: 1 scheme") and (b"DONE: 1 of 1" in out) == (code == 0)
    assert scheme.with_name(f"{scheme.name}_v2").exists() == (code == 0)


def test_a_donor_that_contradicts_itself_is_refused(copied: Path, tmp_path: Path) -> None:
    donor = rewritten(WHOLE, tmp_path / "donor", specs(WHOLE), shards=2)
    shutil.copy(WHOLE / "model.safetensors", donor)  # some loaders take this, others the shards
    done = reexport(copied / NAME.format(10), "--donor", donor, "--dry-run")
    assert done.code == 2 and "contradict" in done.err


def test_files_that_lead_nowhere_are_not_carried(copied: Path) -> None:
    scheme = copied / NAME.format(10)
    (scheme / "vocab.json").symlink_to("nowhere")
    (scheme / "tokenizer.json").unlink()
    (scheme / "modeling_tiny.py").write_text("pass\n")
    (scheme / "results.json").write_text("{}")  # measured on the weights that were wrong
    done = reexport(scheme, "--donor", WHOLE, "--dry-run", "--json")
    assert done.code == 0
    carried = {file["name"]: file["source"] for file in done.report["plans"][0]["carried"]}
    assert carried["tokenizer.json"] == str(WHOLE)
    assert carried["modeling_tiny.py"] == scheme.name
    assert not {"vocab.json", "results.json"} & carried.keys()


@pytest.mark.parametrize(
    "quantization",
    [
        [1],
        {"quant_algo": "MIXED_PRECISION", "quantized_layers": [1]},
        {"quant_algo": "MIXED_PRECISION", "quantized_layers": {"model.layers.1": ["FP8"]}},
        {"quant_algo": "FP8", "kv_cache_quant_algo": {}},
    ],
)
def test_a_donor_whose_config_makes_no_sense_is_told(
    copied: Path, tmp_path: Path, quantization: object
) -> None:
    donor = Path(shutil.copytree(WHOLE, tmp_path / "donor"))
    build.write_json(donor / "hf_quant_config.json", {"quantization": quantization})
    done = reexport(copied / NAME.format(10), "--donor", donor, "--yes")
    assert done.code == 2 and "Traceback" not in done.err
    told = " ".join(done.text.split())
    assert "cannot be used" in told and "hf_quant_config.json" in told and "of type" in told
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_nothing_is_written_into_a_source(copied: Path, tmp_path: Path) -> None:
    scheme, base = copied / NAME.format(10), Path(shutil.copytree(BASE, tmp_path / "base"))
    donor = Path(shutil.copytree(WHOLE, tmp_path / "donor"))
    for source in (scheme, base, donor, donor / "layer-sensitivity", base / "new" / "deeper"):
        done = run("reexport", scheme, "--base", base, "--donor", donor, "--out", source, "--yes")
        assert done.code == 2 and "would be inside" in done.err, source
    for source in (base, donor):
        given = ("--base", base, "--donor", donor, "--out", source, "--top", "10", "--yes")
        done = run("sweep", BASELINE, *given)
        assert done.code == 2 and "would be inside" in done.err, source
    assert files(base) == files(BASE) and files(donor) == files(WHOLE)
    # A base may hold its schemes in its own directory.
    inside = Path(shutil.copytree(scheme, base / NAME.format(10)))
    done = run("reexport", inside, "--base", base, "--donor", donor, "--out", base / "new", "--yes")
    assert done.code == 0, done.err
    (tmp_path / "file").touch()
    done = reexport(scheme, "--donor", donor, "--out", tmp_path / "file", "--yes")
    assert done.code == 2 and "is no directory" in done.err


def test_a_plan_tells_what_is_lost_and_what_is_not_proven(copied: Path) -> None:
    scheme = copied / NAME.format(10)
    (scheme / "README.md").touch()
    (scheme / "modeling_own.py").touch()
    (scheme / "helper.py").touch()
    (scheme / "assets").mkdir()
    (scheme / "layer-sensitivity" / "notes").symlink_to("nowhere")
    other = f"{NAME.format(50)}_coverage_from_baseline.json"
    shutil.copy(copied / NAME.format(50) / "layer-sensitivity" / other, scheme)
    (plan,) = reexport(scheme, "--donor", WHOLE, "--dry-run", "--json").report["plans"]
    notes = "\n".join(plan["notes"])
    assert "not carried: README.md, assets/, helper.py, layer-sensitivity/notes\n" in f"{notes}\n"
    assert "2 coverage manifests" in notes and "is followed" in notes
    assert "input scales" in notes
    assert {"modeling_own.py", other} <= {file["name"] for file in plan["carried"]}


def test_a_file_that_cannot_be_read_is_named(copied: Path) -> None:
    scheme = copied / NAME.format(10)
    (scheme / "tokenizer.json").unlink()
    (scheme / "tokenizer.json").symlink_to("/proc/self/mem")  # opens, and fails to be read
    done = reexport(scheme, "--donor", WHOLE, "--yes")
    assert done.code == 2
    assert "cannot be read: tokenizer.json: input/output error" in " ".join(done.text.split())
    assert names(copied) == {NAME.format(percent) for percent in PERCENTS}


def test_a_base_that_differs_where_nothing_is_quantized_is_told(
    copied: Path, tmp_path: Path
) -> None:
    """All that the donor supplies is proven, and its embeddings are not this base's."""
    base = Path(shutil.copytree(BASE, tmp_path / "base"))
    weights = base / "model.safetensors"
    with weights.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        file.seek(8 + length + header["model.embed_tokens.weight"]["data_offsets"][0])
        file.write(b"\x00\x3f" * 4)
    given = (copied / NAME.format(10), "--donor", WHOLE, "--base", base, "--yes", "--json")
    (outcome,) = run("reexport", *given).report["outcomes"]
    assert outcome["status"] == "written"
    (note,) = outcome["notes"]
    assert "1 unquantized tensors" in note and "model.embed_tokens.weight" in note
    (outcome,) = reexport(copied / NAME.format(30), *given[1:3], "--yes", "--json").report[
        "outcomes"
    ]
    assert outcome["notes"] == []


def test_a_donor_that_cannot_be_read_is_not_called_unquantized(
    copied: Path, tmp_path: Path
) -> None:
    donor = Path(shutil.copytree(WHOLE, tmp_path / "donor"))
    (donor / "model.safetensors").unlink()
    (donor / "model.safetensors").mkdir()
    done = reexport(copied / NAME.format(10), "--donor", donor, "--dry-run")
    assert done.code == 2 and "cannot be read" in done.err
