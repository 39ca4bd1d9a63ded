"""Proving a scheme: what is read, remembered, reported and given up."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from build import Spec, config, write_json, write_scheme, write_weights
from mutate import flip, shard_of, tensors

import ckptdiff
from ckptdiff.analysis import tensors as reading
from ckptdiff.errors import Cancelled
from ckptdiff.events import Advanced, CancelToken, Event, Finished, Started, silent
from ckptdiff.jobs import caching, proving
from ckptdiff.jobs.hashing import Hashing
from ckptdiff.jobs.looking import look
from ckptdiff.jobs.proving import STAGE, prove
from ckptdiff.jobs.reading import read_sweep
from ckptdiff.quant.arrays import CHUNK_ELEMENTS, Array, rows_of
from ckptdiff.quant.dialects import Dialect
from ckptdiff.quant.registry import ClosedForm, closed_form, requantised
from ckptdiff.records.evidence import Evidence
from ckptdiff.records.proof import Proof
from ckptdiff.records.report import CheckReport

LAYERS, HIDDEN, WIDE = 3, 64, 128
LEAVES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def names() -> list[str]:
    parents = {"gate_proj": "mlp", "up_proj": "mlp", "down_proj": "mlp"}
    return [
        f"model.layers.{n}.{parents.get(leaf, 'self_attn')}.{leaf}"
        for n in range(LAYERS)
        for leaf in LEAVES
    ]


def originals() -> dict[str, np.ndarray]:
    """BF16 weights of a small model, each of another size of values, v_proj the largest."""
    rng = np.random.default_rng(7)
    shapes = {"gate_proj": (WIDE, HIDDEN), "up_proj": (WIDE, HIDDEN), "down_proj": (HIDDEN, WIDE)}
    found = {}
    for name in names():
        leaf = name.rpartition(".")[2]
        size = 0.2 if leaf == "v_proj" else rng.uniform(0.01, 0.1)
        values = rng.normal(0, size, shapes.get(leaf, (HIDDEN, HIDDEN)))
        found[name] = values.astype(ml_dtypes.bfloat16)
    return found


def base_tensors() -> dict[str, Spec]:
    found = {
        f"{name}.weight": Spec("BF16", weight.shape, "", weight.tobytes())
        for name, weight in originals().items()
    }
    return found | {
        "model.embed_tokens.weight": Spec("BF16", (32, HIDDEN), "embed"),
        "model.norm.weight": Spec("BF16", (HIDDEN,), "norm"),
    }


def packed(layout: str, quantized: list[str]) -> dict[str, Spec]:
    """The base with some modules quantized on a CPU; of NVFP4 q, k, v and gate, up share."""
    found, weights = base_tensors(), originals()
    form = closed_form(layout)  # type: ignore[arg-type]
    assert isinstance(form, ClosedForm)
    dialect = Dialect("BF16", "cpu")
    groups = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "gate_proj": 1, "up_proj": 1}
    for name in quantized:
        parent, _, leaf = name.rpartition(".")
        members = [
            other
            for other in quantized
            if other.rpartition(".")[0] == parent
            and groups.get(other.rpartition(".")[2], other) == groups.get(leaf, name)
        ]
        shared = members if layout == "nvfp4" else [name]
        rows = rows_of(weights[name])
        amax = np.maximum.reduce([form.amax(rows_of(weights[m]), dialect) for m in shared])
        scales = form.scales(np.asarray(amax), rows, dialect)
        codes = np.concatenate([part for _, part in requantised(form, rows, scales, dialect)])
        small = "F8_E4M3" if layout == "nvfp4" else "F32"
        kind = {"fp8": "F8_E4M3", "int8": "I8", "nvfp4": "U8"}[layout]
        found[f"{name}.weight"] = Spec(kind, codes.shape, "", codes.tobytes())
        for suffix, dtype in (("weight_scale", small), ("weight_scale_2", "F32")):
            scale = getattr(scales, suffix)
            if scale is not None:
                found[f"{name}.{suffix}"] = Spec(dtype, scale.shape, "", scale.tobytes())
        if layout != "int8":
            found[f"{name}.input_scale"] = Spec("F32", (), "input")
    return found


ALGORITHMS = {"fp8": "FP8", "int8": "W8A16", "nvfp4": "NVFP4"}


def write(folder: Path, layout: str = "fp8", *, shards: int = 1, most: int = 21) -> Path:
    """`folder/base` and two schemes below `folder/quantized`, the ROOT."""
    base = folder / "base"
    base.mkdir(parents=True)
    write_weights(base, base_tensors(), shards)
    write_json(base / "config.json", config(LAYERS))
    for number in (most // 2, most):
        scheme = folder / "quantized" / f"{layout}_{number}"
        write_scheme(
            scheme, packed(layout, names()[:number]),
            algorithm=ALGORITHMS[layout], layers=LAYERS, shards=shards,
        )  # fmt: skip
    for path in folder.rglob("*.safetensors"):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    return folder / "quantized"


def evidence_of(root: Path, how: Hashing | None = None) -> Evidence:
    token = CancelToken()
    sweep = read_sweep(root, base=root.parent / "base", sink=silent, cancel=token)
    return look(sweep, how, compare=True, sink=silent, cancel=token)[0]


def proofs(
    root: Path, sink: Callable[[Event], None] = silent, **options: object
) -> dict[str, Proof]:
    """The proofs of the larger scheme of a ROOT."""
    evidence = evidence_of(root)
    scheme = max(evidence.schemes, key=lambda s: len(s.coverage.quantized))
    assert evidence.base is not None
    options.setdefault("cancel", CancelToken())
    return dict(prove(scheme, evidence.base, sink=sink, **options))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def only_mtime_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can set a file's ctime back, and no test should wait for two seconds."""
    monkeypatch.setattr(
        caching, "is_settled", lambda shard, now: now - shard.identity.mtime_ns > 2 * 10**9
    )


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("layout", ["fp8", "int8", "nvfp4"])
def test_every_module_is_proven(tmp_path: Path, layout: str, shards: int) -> None:
    found = proofs(write(tmp_path, layout, shards=shards))
    assert sorted(found) == sorted(name.removeprefix("model.") for name in names())
    for key, proof in found.items():
        assert (proof.status, proof.layout, proof.key) == ("proven", layout, key)
        assert proof.module == f"model.{key}" and proof.weight == f"model.{key}.weight"
        assert "BF16 cpu" in proof.scale_dialects and "BF16 cpu" in proof.code_dialects


def test_only_what_was_asked_for(tmp_path: Path) -> None:
    root = write(tmp_path)
    keys = ["layers.1.mlp.up_proj", "layers.0.self_attn.k_proj", "norm", "nowhere"]
    found = proofs(root, keys=keys)
    assert list(found) == sorted(keys)
    status = {key: (proof.status, proof.reason) for key, proof in found.items()}
    assert status["norm"] == status["nowhere"] == ("unknown", "it is not quantized")
    assert status["layers.1.mlp.up_proj"] == ("proven", None)


@pytest.mark.parametrize("jobs", [1, 4])
def test_threads_change_nothing(tmp_path: Path, jobs: int) -> None:
    root = write(tmp_path, "nvfp4")
    assert proofs(root, jobs=jobs) == proofs(root)


@pytest.mark.parametrize("fault", ["none", "codes", "gone"])
def test_processes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Nor does where a weight is wrong, or cannot be read, get lost on the way."""
    root = write(tmp_path, shards=3)
    scheme = root / "fp8_21"
    weight = f"{names()[0]}.weight"
    path = scheme / shard_of(scheme, weight)
    if fault == "codes":
        with tensors(path) as found:
            found[weight] = flip(found[weight])
    evidence, events = evidence_of(root), list[Event]()
    if fault == "gone":
        path.unlink()

    def proved(sink: Callable[[Event], None] = silent) -> Mapping[str, Proof]:
        larger = max(evidence.schemes, key=lambda s: len(s.coverage.quantized))
        assert evidence.base is not None
        return prove(larger, evidence.base, jobs=2, sink=sink, cancel=CancelToken())

    by_threads = proved()
    monkeypatch.setattr(proving, "_FOR_PROCESSES", 0)
    monkeypatch.setattr(proving, "MOST_THREADS", 1)
    monkeypatch.setattr(proving, "TensorReader", None)  # not here
    assert proved(events.append) == by_threads
    statuses = {proof.status for proof in by_threads.values()}
    expected = {"none": {"proven"}, "codes": {"proven", "codes"}, "gone": {"unknown"}}
    assert statuses == expected[fault]
    total = events[0]
    assert isinstance(total, Started)
    assert sum(e.amount for e in events if isinstance(e, Advanced)) == total.total


@pytest.mark.parametrize("count", [1, 2])
def test_of_a_partial_group_the_quantized_members_share(tmp_path: Path, count: int) -> None:
    """And so does a whole group of which a part was taken."""
    root = write(tmp_path, "nvfp4", most=count)
    assert {p.status for p in proofs(root).values()} == {"proven"}
    whole = packed("nvfp4", names())
    part = packed("nvfp4", names()[:count])
    part |= {name: whole[name] for name in part if "q_proj" in name}
    write_weights(root / f"nvfp4_{count}", part)
    found = proofs(root)
    assert found["layers.0.self_attn.q_proj"].status == "proven"
    changed = whole["model.layers.0.self_attn.q_proj.weight_scale_2"]
    own = packed("nvfp4", names()[:count])["model.layers.0.self_attn.q_proj.weight_scale_2"]
    assert changed.data() != own.data()


# Progress, and an end


def test_progress_adds_up(tmp_path: Path) -> None:
    events: list[Event] = []
    threads: set[int] = set()

    def sink(event: Event) -> None:
        events.append(event)
        threads.add(threading.get_ident())

    proofs(write(tmp_path), sink=sink)
    start, *steps, end = events
    assert isinstance(start, Started) and (start.stage, start.unit) == (STAGE, "bytes")
    weights = sum(weight.size for weight in originals().values())
    assert start.total == weights + 2 * 2 * weights  # codes once, the base twice
    assert sum(e.amount for e in steps if isinstance(e, Advanced)) == start.total
    assert isinstance(end, Finished)
    assert threads == {threading.get_ident()}


def test_cancelled_before_anything_is_read(tmp_path: Path) -> None:
    root, token = write(tmp_path), CancelToken()
    token.cancel()
    with pytest.raises(Cancelled):
        proofs(root, cancel=token)


def test_cancelled_within_a_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next chunk is not read any more, however many are left."""
    root, token, count = write(tmp_path), CancelToken(), 0
    read_into = reading.read_into

    def reads(fd: int, offset: int, array: Array) -> None:
        nonlocal count
        count += 1
        token.cancel()
        read_into(fd, offset, array)

    monkeypatch.setattr(reading, "read_into", reads)
    with pytest.raises(Cancelled):
        proofs(root, cancel=token, jobs=2)
    assert 1 <= count <= 2  # one a thread
    assert not [t for t in threading.enumerate() if t.name.startswith("ckptdiff")]


def test_weights_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read_into = reading.read_into

    def reads(fd: int, offset: int, array: Array) -> None:
        sizes.append(array.nbytes)
        read_into(fd, offset, array)

    monkeypatch.setattr(reading, "read_into", reads)
    rows = 5 * CHUNK_ELEMENTS // 1024
    weight = np.random.default_rng(1).normal(0, 0.02, (rows, 1024)).astype(ml_dtypes.bfloat16)
    scale = np.abs(weight.astype(np.float32)).max() / np.float32(448)
    codes = (weight.astype(np.float32) / scale).astype(ml_dtypes.bfloat16)
    name = "model.layers.0.mlp.down_proj"
    base = {f"{name}.weight": Spec("BF16", weight.shape, "", weight.tobytes())}
    scheme = {
        f"{name}.weight": Spec(
            "F8_E4M3", weight.shape, "", codes.astype(ml_dtypes.float8_e4m3fn).tobytes()
        ),
        f"{name}.weight_scale": Spec("F32", (), "", scale.tobytes()),
        f"{name}.input_scale": Spec("F32", (), "input"),
    }
    (tmp_path / "base").mkdir()
    write_weights(tmp_path / "base", base)
    write_json(tmp_path / "base" / "config.json", config(1))
    write_scheme(tmp_path / "quantized" / "one", scheme, layers=1)
    (proof,) = proofs(tmp_path / "quantized").values()
    assert proof.status == "proven" and proof.codes == weight.size
    assert max(sizes) <= 2 * CHUNK_ELEMENTS and len(sizes) >= 15


# What cannot be looked at


def unreadable(root: Path, spoil: Callable[[], None]) -> CheckReport:
    """The report when something happens just before weights are recomputed."""

    def sink(event: Event) -> None:
        if isinstance(event, Started) and event.stage == STAGE:
            spoil()

    return ckptdiff.check(root, base=root.parent / "base", deep=True, sink=sink, jobs=1)


@pytest.mark.parametrize("side", ["scheme", "base"])
@pytest.mark.parametrize("what", ["written", "gone", "cut"])
def test_what_changes_meanwhile_is_unread(tmp_path: Path, side: str, what: str) -> None:
    root = write(tmp_path)
    path = (root / "fp8_21" if side == "scheme" else tmp_path / "base") / "model.safetensors"

    def spoil() -> None:
        if what == "gone":
            path.unlink(missing_ok=True)
        elif what == "cut":
            os.truncate(path, path.stat().st_size // 2)
        else:
            os.utime(path)

    report = unreadable(root, spoil)
    assert ckptdiff.exit_code(report) == 2 and not report.verdict.complete
    assert {f.code for f in report.findings} <= {"CK307", "CK406"}
    found = {item.path: item.reason for item in report.unread}
    assert "fp8_21/model.safetensors" in found
    reason = found["fp8_21/model.safetensors"]
    assert ("the base's model.safetensors" in reason) == (side == "base")
    assert "fp8_21" not in report.verdict.safe
    (row,) = (row for row in report.schemes if row.id == "fp8_21")
    assert row.status == "unread" and row.proof is not None
    # What the smaller scheme has too is known by its digests.
    assert row.proof.unknown >= 11 and row.proof.unknown + row.proof.proven == 21


def test_another_exporter_s_weights_are_passed_over(tmp_path: Path) -> None:
    root = write(tmp_path)
    for path in root.iterdir():
        (path / "hf_quant_config.json").unlink()
        quantization = {"quant_method": "compressed-tensors", "format": "float-quantized"}
        write_json(path / "config.json", config(LAYERS, quantization))
    found = proofs(root)
    assert {(p.status, p.reason) for p in found.values()} == {
        ("unknown", "it was quantized by compressed-tensors")
    }
    report = ckptdiff.check(root, base=tmp_path / "base", deep=True)
    assert ckptdiff.exit_code(report) == 0
    skipped = {(s.code, s.scheme) for s in report.skipped if "compressed-tensors" in s.reason}
    assert {("CK207", path.name) for path in root.iterdir()} <= skipped


def edited(root: Path, change: Callable[[dict[str, Spec]], None]) -> dict[str, Proof]:
    tensors = packed("fp8", names())
    change(tensors)
    write_weights(root / "fp8_21", tensors)
    return proofs(root)


def test_obstacles_have_reasons(tmp_path: Path) -> None:
    root = write(tmp_path)
    q, o = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj"

    def change(found: dict[str, Spec]) -> None:
        del found[f"{q}.weight_scale"]
        found[f"{o}.weight"] = Spec("F8_E4M3", (HIDDEN // 2, HIDDEN), "o")
        nan = np.float32(np.nan).tobytes()
        found[f"{names()[4]}.weight_scale"] = Spec("F32", (), "", nan)
        found["lm_head.weight"] = Spec("F8_E4M3", (32, HIDDEN), "head")
        found["lm_head.weight_scale"] = found["lm_head.input_scale"] = Spec("F32", (), "scale")

    found = edited(root, change)
    reasons = {key: proof.reason for key, proof in found.items() if proof.status == "unknown"}
    assert reasons == {
        "layers.0.self_attn.q_proj": "its scales are missing or do not go with it",
        "layers.0.self_attn.o_proj": "its shape is not that of the base's weight",
        "layers.0.mlp.gate_proj": "its weight_scale has values that no scale can have",
        "lm_head": "the base has no such weight",
    }
    report = ckptdiff.check(root, base=tmp_path / "base", deep=True)
    skipped = [s for s in report.skipped if s.code == "CK207" and s.scheme == "fp8_21"]
    assert len(skipped) == 4 and all(s.reason.startswith("1 quantized") for s in skipped)
    assert {f.code for f in report.findings} & {"CK207", "CK208", "CK209", "CK210"} == set()


def test_an_all_zero_weight_is_told_once(tmp_path: Path) -> None:
    """ModelOpt gives a base weight of zeros a scale of 0 and NaN for codes."""
    root = write(tmp_path)
    name = "model.layers.1.mlp.up_proj"
    base = base_tensors()
    base[f"{name}.weight"] = replace(base[f"{name}.weight"], raw=bytes(2 * WIDE * HIDDEN))
    write_weights(tmp_path / "base", base)
    for path in root.iterdir():
        found = packed("fp8", names()[: int(path.name.partition("_")[2])])
        if f"{name}.weight_scale" in found:
            found[f"{name}.weight"] = replace(found[f"{name}.weight"], raw=b"\x7f" * WIDE * HIDDEN)
            found[f"{name}.weight_scale"] = Spec("F32", (), "", bytes(4))
        else:
            found[f"{name}.weight"] = base[f"{name}.weight"]
        write_weights(path, found)
    report = ckptdiff.check(root, base=tmp_path / "base", deep=True)
    assert {f.code for f in report.findings if f.severity == "error"} == {"CK203", "CK205"}
    report = ckptdiff.check(root, base=tmp_path / "base", deep=True, hashes=False)
    assert {f.code for f in report.findings if f.severity == "error"} == set()
    assert [s.reason for s in report.skipped if s.code == "CK207"] == [
        "1 quantized weights were not recomputed: "
        "its weight_scale has values that no scale can have"
    ]


# Memory


def run(root: Path, **options: object) -> tuple[CheckReport, int]:
    """The report, and the bytes of weights that were recomputed for it."""
    nbytes = 0

    def sink(event: Event) -> None:
        nonlocal nbytes
        if isinstance(event, Started) and event.stage == STAGE:
            nbytes += event.total or 0

    # Another select each time, so that no whole report is remembered.
    options.setdefault("expect", run.count)
    run.count = (run.count + 1) % 2
    report = ckptdiff.check(root, base=root.parent / "base", deep=True, sink=sink, **options)  # type: ignore[arg-type]
    return report, nbytes


run.count = 0  # type: ignore[attr-defined]


def test_a_second_run_reads_no_weights(tmp_path: Path) -> None:
    """And of schemes that share weights, the second one none that the first one has."""
    root = write(tmp_path)
    report, first = run(root)
    weights = sum(weight.size for weight in originals().values())
    assert first == 5 * weights  # codes once, the base twice
    again, second = run(root)
    assert second == 0 and again.schemes == report.schemes and again.findings == report.findings


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
