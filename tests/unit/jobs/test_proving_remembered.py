"""Proving a scheme: what is remembered of it between runs, and never wrongly."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest
from build import Spec, write_scheme, write_weights

import ckptdiff
from ckptdiff.events import Event, Started
from ckptdiff.jobs.proving import STAGE
from ckptdiff.records.report import CheckReport
from tests.unit.jobs.provable import (
    ALGORITHMS,
    LAYERS,
    base_tensors,
    names,
    originals,
    packed,
    write,
)

pytestmark = pytest.mark.usefixtures("only_mtime_settles")

# Another one each time, so that no whole report is remembered.
_EXPECTED = itertools.cycle((0, 1))


def run(root: Path, **options: object) -> tuple[CheckReport, int]:
    """The report, and the bytes of weights that were recomputed for it."""
    nbytes = 0

    def sink(event: Event) -> None:
        nonlocal nbytes
        if isinstance(event, Started) and event.stage == STAGE:
            nbytes += event.total or 0

    options.setdefault("expect", next(_EXPECTED))
    report = ckptdiff.check(root, base=root.parent / "base", deep=True, sink=sink, **options)  # type: ignore[arg-type]
    return report, nbytes


def test_a_second_run_reads_no_weights(tmp_path: Path) -> None:
    """And of schemes that share weights, the second one none that the first one has."""
    root = write(tmp_path)
    report, first = run(root)
    weights = sum(weight.size for weight in originals().values())
    assert first == 5 * weights  # codes once, the base twice
    again, second = run(root)
    assert second == 0 and again.schemes == report.schemes and again.findings == report.findings


O_PROJ, DOWN_PROJ = names()[3], names()[6]


@pytest.mark.parametrize("layout", ["fp8", "nvfp4"])
def test_other_neighbours_are_no_reason_to_prove_again(tmp_path: Path, layout: str) -> None:
    """Whether they are quantized could change which maxima are tried, but not the first ones."""
    root = write(tmp_path, layout)
    assert run(root)[1] > 0
    add(root, layout, packed(layout, [O_PROJ]))
    report, nbytes = run(root)
    assert nbytes == 0 and report.verdict.status == "pass"


def test_neighbours_that_share_a_scale_are_a_reason(tmp_path: Path) -> None:
    """Where their maximum proved a weight, it proves none that is quantized alone."""
    root = write(tmp_path, "nvfp4")
    shared = packed("nvfp4", names())
    # Its values with the second scale of all four, as an architecture with one input would.
    largest = packed("nvfp4", [O_PROJ], shared_by=names()[:4])
    mine = {name: spec for name, spec in largest.items() if name.startswith(O_PROJ)}
    write_weights(root / "nvfp4_21", shared | mine)
    settle(root / "nvfp4_21")
    report, _ = run(root)
    assert report.verdict.status == "pass"
    add(root, "nvfp4", packed("nvfp4", [O_PROJ, DOWN_PROJ]) | mine)
    report, nbytes = run(root)
    assert nbytes > 0
    (finding,) = (f for f in report.findings if f.code == "CK208")
    assert finding.schemes == ("nvfp4_less",)


def add(root: Path, layout: str, tensors: dict[str, Spec]) -> None:
    """Another scheme, which quantizes less."""
    scheme = root / f"{layout}_less"
    write_scheme(scheme, tensors, algorithm=ALGORITHMS[layout], layers=LAYERS)
    settle(scheme)


def settle(scheme: Path) -> None:
    os.utime(scheme / "model.safetensors", (1_600_000_001, 1_600_000_001))


def test_without_a_cache_all_are_read_again(tmp_path: Path) -> None:
    root = write(tmp_path)
    assert run(root, cache=False)[1] == run(root, cache=False)[1] > 0
    assert run(root, hashes=False)[1] == run(root, hashes=False)[1] > 0


def test_what_is_remembered_is_not_believed_under_rehash(tmp_path: Path) -> None:
    root = write(tmp_path)
    _, first = run(root)
    assert run(root, rehash=True)[1] == first


@pytest.mark.parametrize("layout", ["fp8", "nvfp4"])
@pytest.mark.parametrize("suffix", ["weight", "weight_scale", "base", "partner"])
def test_no_wrong_outcome_is_remembered(tmp_path: Path, layout: str, suffix: str) -> None:
    """Whatever of it changes, an outcome is worked out anew."""
    root = write(tmp_path, layout)
    before, _ = run(root)
    q, k = (f"model.layers.0.self_attn.{leaf}" for leaf in ("q_proj", "k_proj"))
    scheme = root / f"{layout}_21"
    if suffix in ("weight", "weight_scale"):
        found = packed(layout, names())
        spec = found[f"{q}.{suffix}"]
        raw = bytes([spec.data()[0] ^ 1, *spec.data()[1:]])
        found[f"{q}.{suffix}"] = replace(spec, raw=raw)
        write_weights(scheme, found)
        changed = scheme
    else:
        base = base_tensors()
        name = f"{q if suffix == 'base' else k}.weight"
        large = originals()[name.removesuffix(".weight")].copy()
        large[0, 0] = 8
        base[name] = replace(base[name], raw=large.tobytes())
        write_weights(tmp_path / "base", base)
        changed = tmp_path / "base"
    os.utime(changed / "model.safetensors", (1_600_000_001, 1_600_000_001))
    report, nbytes = run(root)
    assert nbytes > 0
    wrong = {
        place.module
        for finding in report.findings
        if finding.code in ("CK207", "CK208") and finding.schemes == (scheme.name,)
        for place in finding.locations
    }
    assert (q in wrong) == (suffix != "partner" or layout == "nvfp4")
    assert run(root)[0].findings == report.findings != before.findings


def test_what_has_not_settled_is_not_remembered(tmp_path: Path) -> None:
    root = write(tmp_path)
    os.utime(tmp_path / "base" / "model.safetensors")
    _, first = run(root)
    assert run(root)[1] == first > 0
