"""Names and strings of strangers, which must do nothing to a terminal."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import build
from command import check, harmless, run
from forging import INDEX, SECOND, SINGLE, baseline_of, coverage_of, edit, framed, write_one

EVIL = (
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x9b2J",
    "line\nfeed\rreturn\ttab\x08\x7f",
    "\u202eright to left\u2066",
    "\u2028line\u2029paragraph",
    "zero\u200bwidth\ufeff",
    "\U000e0041tag",
)


def evil_result(root: Path, tmp_path: Path) -> Any:
    """The run over `root`; text, scan and progress must be as harmless as JSON."""
    text = tmp_path / "report.txt"
    result = check(root, "-o", text, "--progress", "json")
    assert result.out.isascii()
    harmless(text.read_text("utf-8"))
    for line in result.err.splitlines():
        json.loads(line)
    assert run("scan", root).code in (0, 2)
    assert run("scan", root, "--json").out.isascii()
    return result


def test_names_of_tensors_and_shards(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number, evil in enumerate((*EVIL, "nul\0")):
        tensors = {
            f"{evil}.weight": build.Spec("F8_E4M3", (4, 4), evil),
            f"{evil}.weight_scale": build.Spec("F32", (), evil),
        }
        scheme = build.write_scheme(root / f"s{number}", tensors, shards=2)
        edit(
            scheme / INDEX,
            lambda d, e=evil: d["weight_map"].update(
                {f"ghost {e}": SECOND, f"moved {e}": f"{e}.safetensors", f"out {e}": f"../{e}"}
            ),
        )
        file = scheme / SECOND
        file.write_bytes(file.read_bytes()[:-1])
    result = evil_result(root, tmp_path)
    assert result.code == 1
    assert result.codes >= {"CK102", "CK103", "CK104", "CK105"}


def test_lone_surrogates_in_headers(tmp_path: Path) -> None:
    root = tmp_path / "root"
    one, two = root / "one", root / "two"
    one.mkdir(parents=True)
    two.mkdir()
    entry = b'":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}'
    (one / SINGLE).write_bytes(framed(b'{"\\ud800\\u001b[2J' + entry, b"xx"))
    (two / SINGLE).write_bytes(framed(b'{"__metadata__":{"a":"\\udfff"},"b' + entry, b"xx"))
    assert evil_result(root, tmp_path).code in (0, 1)


def test_names_of_directories(tmp_path: Path) -> None:
    root = tmp_path / "root"
    names = [os.fsencode(evil) for evil in EVIL] + [b"\xff\xfebytes", b"\xed\xa0\x80"]
    for number, name in enumerate(names):
        one = write_one(root / f"s{number}", salt=str(number % 2))
        one.rename(root / os.fsdecode(name))
        (root / f".{os.fsdecode(name)}").mkdir()
    result = evil_result(root, tmp_path)
    assert len(result.report["schemes"]) == len(names)
    assert "CK502" in result.infos


def test_root_with_a_terrible_name(tmp_path: Path) -> None:
    root = tmp_path / os.fsdecode(b"\xff\x1b[2J\nroot")
    write_one(root / "one")
    assert evil_result(root, tmp_path).code == 0
    for wrong in (root / "nothing", root / f"one/{SINGLE}"):
        assert run("check", wrong).code == 2
        assert run("check", root, "--base", wrong).code == 2
        assert run("check", root, "--config", wrong).code == 2
        assert run("check", root, "-o", wrong).code == 2


def test_strings_of_documents(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for number, evil in enumerate((*EVIL, "nul\0", "\ud800")):
        one = write_one(root / f"s{number}", salt=str(number))
        edit(coverage_of(one), lambda d, e=evil: d.update(
            scheme_name=e, baseline_dir=e, baseline_manifest=f"{e}_quant_manifest.json",
            selected_layers=[*d["selected_layers"], e], dropped_layers=[f"{e}.quant_recipe", e],
        ))  # fmt: skip
        edit(baseline_of(one), lambda d, e=evil: d["scheme"].update(name=e))
        edit(one / "config.json", lambda d, e=evil: d.update(
            architectures=[e], quantization_config={
                "quant_method": e, "quant_algo": e, "producer": {"name": e, "version": e}
            },
        ))  # fmt: skip
        edit(one / "hf_quant_config.json", lambda d, e=evil: d.update(
            producer={"name": e}, quantization={"quant_algo": e, "exclude_modules": [e]}
        ))  # fmt: skip
        bad = write_one(root / f"bad{number}", salt=f"bad{number}")
        edit(baseline_of(bad), lambda d, e=evil: d["layer_sensitivity"].update({e: 1}))
    result = evil_result(root, tmp_path)
    assert result.code == 1
    assert result.codes >= {"CK101", "CK303"}


def test_names_that_look_like_options() -> None:
    # What a shell makes of * in a directory with such a name.
    evil = "".join(EVIL)
    for word in (f"--{evil}", f"-{evil}", f"--format={evil}", f"--jobs={evil}"):
        assert run("check", word).code == 2
    assert run(f"x{evil}").code == 2
    assert run("rule", evil).code == 2
    assert run("check", ".", "--select", evil).code == 2


def test_reports_where_stdout_and_stderr_know_only_ascii(root: Path) -> None:
    wide = root / "größe 大小"
    (root / "one").rename(wide)
    (wide / SINGLE).write_bytes(b"")
    env = {"PYTHONIOENCODING": "ascii"}
    result = run("check", root, env=env)
    assert result.code == 1
    assert "größe 大小" in result.text
    assert run("check", root / "größe", env=env).code == 2
