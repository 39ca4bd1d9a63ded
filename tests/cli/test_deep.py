"""`ckptdiff check --deep` as users run it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command import check, run

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
SWEEP, COPIED, BASE = SAMPLES / "sweep", SAMPLES / "copied", SAMPLES / "base"
DEEP_CODES = {"CK207", "CK208", "CK209", "CK210", "CK211", "CK212"}
ROW = {"searched": 0, "wrong": 0, "unknown": 0, "dialects": ["BF16 cpu"]}


@pytest.mark.parametrize("options", [(), ("--no-hash",), ("--no-cache",), ("--jobs", "1")])
def test_a_healthy_sweep_is_proven(options: tuple[str, ...]) -> None:
    result = check(SWEEP, "--base", BASE, "--deep", *options)
    assert (result.code, result.codes) == (0, set())
    proofs = {row["id"]: row["proof"] for row in result.report["schemes"]}
    proven = {row["id"]: row["actual"]["quantized"] for row in result.report["schemes"]}
    assert proofs == {id: {"proven": count, **ROW} for id, count in proven.items()}
    # Without hashes nothing is relied on, recomputed or not.
    assert len(result.report["verdict"]["safe"]) == (0 if "--no-hash" in options else 5)


def test_the_founding_bug_is_no_fault_of_weights() -> None:
    """They are base's, every one; only not in the schemes that they should be in."""
    result = check(COPIED, "--base", BASE, "--deep")
    assert (result.code, result.codes) == (1, {"CK301", "CK302", "CK501"})
    assert [row["proof"] for row in result.report["schemes"]] == [{"proven": 33, **ROW}] * 4


def test_without_deep_nothing_is_said_of_it() -> None:
    result = check(SWEEP, "--base", BASE)
    assert result.code == 0 and len(result.report["verdict"]["safe"]) == 5
    assert [row["proof"] for row in result.report["schemes"]] == [None] * 5
    assert not DEEP_CODES & {skip["code"] for skip in result.report["skipped"]}
    assert "recomputed" not in run("check", SWEEP, "--base", BASE).text


def test_a_missing_base_is_unread(tmp_path: Path) -> None:
    """It was asked for, so that a quiet skip would be a gate that always passes."""
    root = tmp_path / "quantized"
    shutil.copytree(SWEEP, root)
    assert check(root).code == 0
    result = check(root, "--deep")
    assert result.code == 2
    assert "weights are recomputed from a base" in result.unread["."]
    assert [row["proof"] for row in result.report["schemes"]] == [None] * 5
    reasons = {s["reason"] for s in result.report["skipped"] if s["code"] in DEEP_CODES}
    assert reasons == {"no base was found"}


def test_its_rules_cannot_be_selected_without_it() -> None:
    result = run("check", SWEEP, "--base", BASE, "--select", "CK207,CK208")
    assert result.code == 2 and "--deep" in result.err
    assert run("check", SWEEP, "--base", BASE, "--select", "CK2").code == 0
    result = check(SWEEP, "--base", BASE, "--select", "CK207,CK208", "--deep")
    assert result.code == 0 and result.report["schemes"][0]["proof"]["proven"] == 33


def test_the_text_says_who_wrote_what() -> None:
    text = run("check", SWEEP, "--base", BASE, "--deep").text
    start = text.index("recomputed from base\n")
    assert text[start:].splitlines()[1:3] == [
        "  fp8_autoquant_all_layers_fp8_captions: 33 proven (BF16 cpu)",
        "  fp8_autoquant_all_layers_top10_captions: 7 proven (BF16 cpu)",
    ]


def test_a_wrong_code_in_text_and_json(tmp_path: Path) -> None:
    """How many of how many, where, and what should be there."""
    shutil.copytree(SWEEP, tmp_path / "sweep")
    scheme = next((tmp_path / "sweep").glob("*top10_*"))
    path = scheme / "model.safetensors"
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    name = next(n for n, e in header.items() if e.get("dtype") == "F8_E4M3")
    place = start + header[name]["data_offsets"][0] + 100
    right = raw[place]
    raw[place] ^= 2
    path.write_bytes(raw)
    columns = header[name]["shape"][1]
    where = f"[{100 // columns}, {100 % columns}]"
    result = check(tmp_path / "sweep", "--base", BASE, "--deep")
    assert (result.code, result.codes) == (1, {"CK207"})
    (finding,) = (f for f in result.report["findings"] if f["code"] == "CK207")
    (location,) = finding["locations"]
    assert location["tensor"] == name and location["offset"] == place
    assert location["expected"] == f"0x{right:02x} at {where}"
    assert location["actual"].startswith(f"0x{right ^ 2:02x}, one of 1 wrong codes of ")
    assert result.scheme(scheme.name)["proof"]["wrong"] == 1
    text = run("check", tmp_path / "sweep", "--base", BASE, "--deep").text
    assert text.startswith("FAIL: 1 of 5 schemes cannot be relied on")
    assert "error CK207 stale-weight" in text and where in text
