"""`ckptdiff diff`: which rows are asked for, how they are written, and the way they come about."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from build import write_shard
from command import run

import ckptdiff
from ckptdiff.errors import Cancelled, RootError, UsageError
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Started
from ckptdiff.report.json import json_schema, to_json
from tests.cli.diffing import plain, write

# Options


def test_rows_are_chosen_and_totals_stay(base: Path, scheme: Path) -> None:
    whole = ckptdiff.diff(base, scheme)
    part = ckptdiff.diff(base, scheme, only=["dtype"], limit=3, sort="max")
    assert len(part.tensors) == 3
    assert part.left_out == whole.total.dtype - 3
    assert part.total == whole.total
    largest = sorted((float(r.max_abs or 0) for r in whole.tensors), reverse=True)[:3]
    assert [r.max_abs for r in part.tensors] == largest
    names = [r.name for r in ckptdiff.diff(base, scheme, sort="name").tensors]
    assert names.index("model.layers.2.input_layernorm.weight") < names.index(
        "model.layers.3.input_layernorm.weight"
    )


def test_tensors_by_name(base: Path, scheme: Path) -> None:
    report = ckptdiff.diff(base, scheme, tensors="*.o_proj.weight")
    assert report.total.tensors == 4
    assert ckptdiff.diff(base, scheme, tensors="layers.0.*").total.tensors > 1
    done = run("diff", base, scheme, "--tensors", "nothing*")
    assert done.code == 2 and "no tensor is called" in done.err
    assert "case-sensitive" in done.err
    done = run("diff", base, scheme, "--tensors", "*weight_scale*")
    assert done.code == 2 and "Scales are a part of the weights" in done.err
    one = ckptdiff.diff(base, base, tensors="model.norm.weight")
    assert one.sentence == "the one tensor that was asked for of B is that of A, byte for byte"
    same = ckptdiff.diff(base, base, tensors="layers.0.*.weight")
    assert same.sentence.startswith(f"all {same.total.tensors} tensors that were asked for ")


def test_what_was_asked_for_is_not_all_that_there_is(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"x.weight": plain(np.ones(4))})
    b = write(tmp_path / "b", {"y.weight": plain(np.ones(4)), "x.weight": plain(np.ones(4))})
    report = ckptdiff.diff(a, b, tensors="y*")
    assert report.verdict == "not comparable"
    assert report.sentence == "none of the tensors that were asked for is in both A and B"


def test_groups_add_up(base: Path, scheme: Path) -> None:
    report = ckptdiff.diff(base, scheme)
    assert sum(group.tensors for group in report.kinds) == report.total.tensors
    assert sum(group.changed for group in report.layers) == report.total.dtype
    assert max(float(group.max_abs or 0) for group in report.kinds) == report.total.max_abs
    assert sum(count for _, count in report.histogram) > 0


def test_values_that_are_not_finite_hide_nowhere(tmp_path: Path) -> None:
    """No error says how far off they are: they are counted apart, and come first."""
    rng = np.random.default_rng(0)
    names = [f"model.layers.{n}.mlp.up_proj.weight" for n in range(30)]
    mine = {name: rng.normal(size=(4, 8)) for name in names}
    theirs = {name: values * (1 + 0.01 * (n + 1)) for n, (name, values) in enumerate(mine.items())}
    theirs[names[17]] = mine[names[17]].copy()
    theirs[names[17]][1, 2] = np.inf
    a = write(tmp_path / "a", {name: plain(values, "F32") for name, values in mine.items()})
    b = write(tmp_path / "b", {name: plain(values, "F32") for name, values in theirs.items()})
    report = ckptdiff.diff(a, b)
    assert report.total.nonfinite == sum(layer.nonfinite for layer in report.layers) == 1
    assert report.layers[17].nonfinite == report.kinds[0].nonfinite == 1
    for order in ("error", "max", "cosine"):
        assert ckptdiff.diff(a, b, sort=order, limit=1).tensors[0].name == names[17]  # type: ignore[arg-type]
    lines = run("diff", a, b).text.splitlines()
    assert any("1 value not finite, left out of these" in line for line in lines)
    table = next(n for n, line in enumerate(lines) if line.startswith("layer "))
    assert lines[table + 1].startswith("layers.17 ") and lines[table + 2] == "  1 not finite"


def test_wrong_requests(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sort is"):
        ckptdiff.diff(base, base, sort="size")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="only is a string"):
        ckptdiff.diff(base, base, only="changed")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="only has"):
        ckptdiff.diff(base, base, only=["new"])  # type: ignore[list-item]
    with pytest.raises(RootError):
        ckptdiff.diff(base, tmp_path / "nothing")
    assert run("diff", base, tmp_path / "nothing").code == 2


def test_the_json_follows_its_schema(base: Path, scheme: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "c", {"x.weight": plain(np.ones(4))})
    for pair in ((base, scheme), (base, base), (base, other), (other, other)):
        document = json.loads(to_json(ckptdiff.diff(*pair, raw=True)))
        jsonschema.validate(document, json_schema("ckptdiff.diff/1"))
    assert list(document["total"])[:7] == [
        "tensors", "same", "changed", "dtype", "shape", "only_a", "only_b"
    ]  # fmt: skip


def test_hostile_names_do_nothing(tmp_path: Path) -> None:
    name = "x\x1b[2J\u202e\nFAIL: y.weight"
    a = write(tmp_path / "a", {name: plain(np.ones(4))})
    b = write(tmp_path / "b", {name: plain(np.zeros(4))})
    done = run("diff", a, b)  # `run` looks for raw control characters
    assert done.code == 1
    assert not any(line.startswith("FAIL") for line in done.text.splitlines())


def test_text_fits_a_terminal(base: Path, scheme: Path) -> None:
    done = run("diff", base, scheme, "--raw")
    body = done.text.partition("\n\n")[2]
    assert all(len(line) <= 80 for line in body.splitlines())


def test_progress_counts_every_byte(base: Path, scheme: Path) -> None:
    events: list[Event] = []
    ckptdiff.diff(base, scheme, sink=events.append, cache=False)
    assert any(e.stage == "hash" for e in events)
    (started,) = (e for e in events if isinstance(e, Started) and e.stage == "compare")
    read = sum(e.amount for e in events if isinstance(e, Advanced) and e.stage == "compare")
    assert started.total == read > 0
    assert events[-1] == Finished("compare")


def test_cancel_while_comparing(base: Path, scheme: Path) -> None:
    cancel = CancelToken()

    def sink(event: Event) -> None:
        if isinstance(event, Started) and event.stage == "compare":
            cancel.cancel()

    with pytest.raises(Cancelled):
        ckptdiff.diff(base, scheme, sink=sink, cancel=cancel)


@pytest.mark.parametrize("worth_compiling", [0, 1 << 40])
def test_numbers_do_not_depend_on_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth_compiling: int
) -> None:
    monkeypatch.setattr("ckptdiff.jobs.differing._WORTH_COMPILING", worth_compiling)
    monkeypatch.setattr("ckptdiff.jobs.differing._COMPILED_CHUNK", 100)
    monkeypatch.setattr("ckptdiff.jobs.differing._COMPILED_THREADS", 5)
    monkeypatch.setattr("ckptdiff.jobs.differing._SPAN", 500)
    monkeypatch.setattr("ckptdiff.analysis.differing.operands.CHUNK", 100)
    rng = np.random.default_rng(0)
    values = rng.standard_normal((60, 70))
    a = write(tmp_path / "a", {"x.weight": plain(values)})
    b = write(tmp_path / "b", {"x.weight": plain(values * (1 + 0.01 * rng.standard_normal()))})
    reports = [to_json(ckptdiff.diff(a, b, jobs=jobs)) for jobs in (1, 1, 2, 5)]
    assert len(set(reports)) == 1
    (found,) = ckptdiff.diff(a, b).tensors
    x, y = (values, np.frombuffer((b / "model.safetensors").read_bytes()[-8400:], "<u2"))
    assert found.first_difference is not None and x.size == y.size


def test_a_second_run_hashes_nothing(base: Path, scheme: Path, tmp_path: Path) -> None:
    import os

    for path in (*base.iterdir(), *scheme.glob("*.safetensors")):
        os.utime(path, ns=(1, 1))
    ckptdiff.diff(base, scheme)

    def hashed(**options: bool) -> int:
        events: list[Event] = []
        ckptdiff.diff(base, scheme, sink=events.append, **options)  # type: ignore[arg-type]
        return sum(e.amount for e in events if isinstance(e, Advanced) and e.stage == "hash")

    assert hashed() in (0, hashed(rehash=True))
    assert hashed(rehash=True) == hashed(cache=False) > 0


def test_one_file_under_two_names(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    write_shard(path / "model.safetensors", {"x.weight": plain(np.ones(4))})
    link = tmp_path / "b"
    link.mkdir()
    (link / "model.safetensors").symlink_to(path / "model.safetensors")
    assert ckptdiff.diff(path, link).verdict == "same"


def test_rows_that_were_not_asked_for_are_not_silence(tmp_path: Path) -> None:
    a = write(tmp_path / "a", {"x.weight": plain(np.ones(4))})
    b = write(tmp_path / "b", {"y.weight": plain(np.ones(4)), "x.weight": plain(np.ones(4))})
    done = run("diff", a, b, "--only", "changed")
    assert done.code == 1
    assert "no tensor has a status that --only asks for; there are 1 same, 1 only_b" in done.text
    done = run("diff", a, b, "--only", "only_b")
    assert "--only" not in done.text
