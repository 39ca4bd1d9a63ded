"""What counts as finished by an earlier run, and what does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mutate import flip, tensors

from ckptdiff.errors import Cancelled, CkptdiffError
from ckptdiff.events import CancelToken, silent
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.placing import How
from ckptdiff.jobs.planning import PROVENANCE
from ckptdiff.jobs.resuming import NOTE, finished, inputs_of
from ckptdiff.jobs.staging import Place
from ckptdiff.records.export import Calibration, ExportOrder, Preset
from ckptdiff.records.probe import Prompt
from ckptdiff.records.report import Tool
from tests.build import write_base

FINGERPRINT = "ckptdiff1:abc"


def order(base: Path, image: Path) -> ExportOrder:
    rows = (Prompt("a row"), Prompt("What is this?", images=(str(image),)))
    return ExportOrder(
        work="search",
        scheme="fp8",
        base=str(base),
        target="",
        presets=(Preset("FP8_DEFAULT_CFG", None),),
        dtype="BF16",
        calibration=Calibration(rows, "rows", 512, 0),
        bits=11.0,
    )


def inputs(wanted: ExportOrder) -> str | None:
    return inputs_of(wanted, Hashing(), silent, CancelToken())[1]


def test_the_inputs_of_an_export(tmp_path: Path) -> None:
    """Equal wherever things lie, and another digest for each thing that is another."""
    found: list[str | None] = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        base, image = write_base(folder / "base"), folder / "a.png"
        (base / "tokenizer.json").write_text("{}")
        image.write_bytes(b"pixels")
        found.append(inputs(order(base, image)))
    assert found[0] == found[1] is not None
    first = order(base, image)
    assert inputs(replace(first, target="/elsewhere")) == found[0]
    calibration = first.calibration
    for other in (
        replace(first, bits=9.0),
        replace(first, score="kl_div"),
        replace(first, presets=(Preset("INT8_DEFAULT_CFG", None),)),
        replace(first, calibration=replace(calibration, seed=1)),
        replace(first, calibration=replace(calibration, length=8)),
        replace(first, calibration=replace(calibration, rows=calibration.rows[::-1])),
    ):
        found.append(inputs(other))
    image.write_bytes(b"other pixels")
    found.append(inputs(first))
    (base / "tokenizer.json").write_text('{"a": 1}')
    found.append(inputs(first))
    (base / "config.json").write_text((base / "config.json").read_text() + " ")
    found.append(inputs(first))
    with tensors(base) as stored:
        name = next(iter(stored))
        stored[name] = flip(stored[name])
    found.append(inputs(first))
    assert None not in found and len(set(found)) == len(found) - 1
    image.unlink()
    assert inputs(first) is None


def how(verify: Any) -> How:
    return How(Tool("ckptdiff", "0"), verify, Hashing(), None, silent, CancelToken())


def made(tmp_path: Path, **provenance: object) -> Path:
    folder = tmp_path / "scheme"
    (folder / PROVENANCE).parent.mkdir(parents=True)
    (folder / PROVENANCE).write_text(json.dumps({"fingerprint": FINGERPRINT, **provenance}))
    return folder


def same(provenance: Any) -> bool:
    return bool(provenance.get("inputs") == "same")


def test_what_passes_again_is_used(tmp_path: Path) -> None:
    folder = made(tmp_path, inputs="same")
    found = finished(folder, how(lambda path: FINGERPRINT), same)
    assert found is not None and found.status == "written" and found.notes == (NOTE,)
    assert found.bytes == (folder / PROVENANCE).stat().st_size


def test_what_is_of_other_inputs_is_not_even_looked_at(tmp_path: Path) -> None:
    def never(path: Path) -> str:
        raise AssertionError(path)

    folder = made(tmp_path, inputs="other")
    assert finished(folder, how(never), same) is None
    (folder / PROVENANCE).write_text("{")
    assert finished(folder, how(never), same) is None
    assert finished(tmp_path / "absent", how(never), same) is None


def test_what_does_not_pass_is_not_used(tmp_path: Path) -> None:
    def broken(path: Path) -> str:
        raise CkptdiffError("it does not pass")

    def stopped(path: Path) -> str:
        raise Cancelled()

    folder = made(tmp_path, inputs="same")
    assert finished(folder, how(broken), same) is None
    assert finished(folder, how(lambda path: "ckptdiff1:other"), same) is None
    assert finished(folder, how(lambda path: None), same) is None
    with pytest.raises(Cancelled):
        finished(folder, how(stopped), same)


def test_a_removal_that_is_killed_leaves_nothing_under_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ckptdiff.jobs.staging.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            Place(folder).remove()
    assert not folder.exists() and len(list(tmp_path.iterdir())) == 1
    assert len(Place(folder).recover()) == 1
    assert not list(tmp_path.iterdir())
