"""One fault in a copy of a real export, and what ckptdiff may then say: its code, no other.

Files are read and written here by means of our own, so that nothing under test vouches for
itself. Edits are context managers: what is changed inside the block is on disk after it.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from build import BITS, Spec, write_json, write_shard, write_weights

import ckptdiff
from ckptdiff import api
from ckptdiff.records.finding import Finding, Location
from ckptdiff.records.report import CheckReport

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CONFIGS = ("hf_quant_config.json", "config.json")


def read_tensors(path: Path) -> dict[str, Spec]:
    """Every tensor of a safetensors file, in the order of its header."""
    raw = path.read_bytes()
    start = 8 + struct.unpack_from("<Q", raw)[0]
    found = {}
    for name, entry in json.loads(raw[8:start]).items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            data = raw[start + begin : start + end]
            found[name] = Spec(entry["dtype"], tuple(entry["shape"]), name, data)
    return found


@contextmanager
def tensors(path: Path) -> Iterator[dict[str, Spec]]:
    """The tensors of a file, or of a checkpoint's single one."""
    path = path / SINGLE if path.is_dir() else path
    found = read_tensors(path)
    yield found
    write_shard(path, found)


@contextmanager
def header(path: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The header of a safetensors file; its data stay as they are."""
    raw = path.read_bytes()
    start = 8 + struct.unpack_from("<Q", raw)[0]
    found = json.loads(raw[8:start])
    yield found
    text = json.dumps(found).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[start:])


@contextmanager
def document(path: Path) -> Iterator[dict[str, Any]]:
    """A JSON object."""
    found = json.loads(path.read_text(encoding="utf-8"))
    yield found
    write_json(path, found)


@contextmanager
def quantization(scheme: Path, files: Sequence[str] = CONFIGS) -> Iterator[list[dict[str, Any]]]:
    """What each of `files` says of the quantization."""
    with ExitStack() as stack:
        documents = [stack.enter_context(document(scheme / name)) for name in files]
        yield [d.get("quantization") or d["quantization_config"] for d in documents]


@contextmanager
def excluded(scheme: Path, files: Sequence[str] = CONFIGS) -> Iterator[list[str]]:
    """`exclude_modules` and `ignore`, which a healthy export has the same of."""
    with quantization(scheme, files) as parts:
        lists = [part["exclude_modules" if "exclude_modules" in part else "ignore"]
                 for part in parts]  # fmt: skip
        edited = list(lists[0])
        yield edited
        for each in lists:
            each[:] = sorted(edited)


def coverage_path(scheme: Path) -> Path:
    (path,) = scheme.glob("layer-sensitivity/*_coverage_from_baseline.json")
    return path


def baseline_path(scheme: Path) -> Path:
    (path,) = scheme.glob("layer-sensitivity/*_quant_manifest.json")
    return path


@contextmanager
def coverage(scheme: Path) -> Iterator[dict[str, Any]]:
    """The coverage manifest, its counts made to fit its lists."""
    with document(coverage_path(scheme)) as manifest:
        yield manifest
        selected, dropped = len(manifest["selected_layers"]), len(manifest["dropped_layers"])
        manifest["num_layers_selected"], manifest["num_layers_dropped"] = selected, dropped
        manifest["num_layers_total"] = selected + dropped


def split(scheme: Path, shards: int = 2) -> list[str]:
    """Spread a checkpoint over shards with an index; their names."""
    found = read_tensors(scheme / SINGLE)
    (scheme / SINGLE).unlink()
    write_weights(scheme, found, shards)
    return sorted(path.name for path in scheme.glob("*.safetensors"))


def shard_of(scheme: Path, tensor: str) -> str:
    index: dict[str, dict[str, str]] = json.loads((scheme / INDEX).read_text())
    return index["weight_map"][tensor]


def flip(spec: Spec, bit: int = 0, element: int = 0) -> Spec:
    """The tensor with one bit of one element flipped."""
    data = bytearray(spec.data())
    data[element * BITS[spec.dtype] // 8 + bit // 8] ^= 1 << bit % 8
    return replace(spec, raw=bytes(data))


def reshape(spec: Spec, *shape: int) -> Spec:
    """The tensor in another shape: its data cut off or repeated to fit."""
    size = math.prod(shape) * BITS[spec.dtype] // 8
    data = spec.data()
    return Spec(spec.dtype, shape, spec.seed, (data * (size // max(len(data), 1) + 1))[:size])


def as_float32(spec: Spec) -> Spec:
    """The same values: a BF16 is the upper half of a float32."""
    data = spec.data()
    wide = b"".join(b"\0\0" + data[at : at + 2] for at in range(0, len(data), 2))
    return Spec("F32", spec.shape, spec.seed, wide)


def of_module(found: Mapping[str, Spec], module: str) -> dict[str, Spec]:
    """The weight of a module and its scales, without its bias and those of a KV cache."""
    return {
        name: spec
        for name, spec in found.items()
        if name.rpartition(".")[0] == module
        and not name.endswith((".bias", ".k_scale", ".v_scale"))
    }


def graft(scheme: Path, module: str, donor: Path) -> None:
    """Give a module the weight and the scales, or none, that it has in `donor`."""
    taken = of_module(read_tensors(donor / SINGLE), module)
    with tensors(scheme) as found:
        for name in of_module(found, module).keys() - taken.keys():
            del found[name]
        found.update(taken)


# (with base, deep): the ways in which a sweep is judged.
Way = tuple[bool, bool]
WAYS: tuple[Way, ...] = ((False, False), (True, False), (True, True))


@dataclass
class Mutant:
    """A copy of a sweep and its base in which one fault is planted.

    The base lies where no search finds it, so every fault is judged with and without it, and
    with weights recomputed from it.
    """

    folder: Path
    healthy: dict[Way, tuple[Finding, ...]] = field(default_factory=dict)
    ways: tuple[Way, ...] = WAYS

    @classmethod
    def of(cls, sweep: Path, base: Path, folder: Path, ways: tuple[Way, ...] = WAYS) -> Mutant:
        """A copy of `sweep` and `base` below `folder`, which has to be healthy in all `ways`."""
        mutant = cls(folder, ways=ways)
        shutil.copytree(sweep, mutant.root)
        shutil.copytree(base, mutant.base)
        mutant.settle()
        return mutant

    def copy(self, folder: Path) -> Mutant:
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Mutant(folder, dict(self.healthy), self.ways)

    @property
    def root(self) -> Path:
        return self.folder / "sweep" / "quantized"

    @property
    def base(self) -> Path:
        return self.folder / "base"

    def __getitem__(self, percent: int) -> Path:
        (scheme,) = self.root.glob(f"*_top{percent}_*")
        return scheme

    def check(self, with_base: bool = True, deep: bool = False) -> CheckReport:
        return ckptdiff.check(self.root, base=self.base if with_base else None, deep=deep)

    def settle(self) -> None:
        """Call what is there now healthy: nothing above info may be reported."""
        for way in self.ways:
            report = self.check(*way)
            assert [f for f in report.findings if f.severity != "info"] == []
            assert (report.base is not None) == way[0]
            self.healthy[way] = report.findings

    def new(self, with_base: bool = True, deep: bool = False) -> list[Finding]:
        """The findings that the fault brought. All others are still there, except that an
        info about a scheme at fault may be gone."""
        return self._new(self.check(with_base, deep), (with_base, deep))

    def expect(
        self, code: str, schemes: Path | Sequence[Path], places: Iterable[Location] = ()
    ) -> Finding:
        """The fault has this code, in each of the schemes at these places, and no other.

        Where the rule lacks what it needs, nothing else is reported either. Returns the first
        finding.
        """
        ids = [path.name for path in ([schemes] if isinstance(schemes, Path) else schemes)]
        (rule,) = api.rule_table(code)
        places = list(places)
        for way in self.ways:
            with_base, deep = way
            report = self.check(with_base, deep)
            found = self._new(report, way)
            able = (with_base or "base" not in rule.needs) and (deep or "proof" not in rule.needs)
            wanted = ids if able else []
            assert [(f.code, f.schemes) for f in found] == [(code, (id,)) for id in wanted]
            error = rule.severity == "error" and wanted
            assert ckptdiff.exit_code(report) == (1 if error else 0)
            safe = [row.id for row in report.schemes if not (error and row.id in ids)]
            assert list(report.verdict.safe) == safe
            for finding in found:
                assert _places(finding.locations) == _places(places)
        return found[0]

    def _new(self, report: CheckReport, way: Way) -> list[Finding]:
        healthy = self.healthy[way]
        new = [finding for finding in report.findings if finding not in healthy]
        faulty = {id for finding in new for id in finding.schemes}
        for lost in (finding for finding in healthy if finding not in report.findings):
            assert lost.severity == "info" and faulty & set(lost.schemes)
        return new


def _places(locations: Iterable[Location]) -> list[tuple[str, str, str]]:
    return sorted((p.module or "", p.tensor or "", p.shard or "") for p in locations)


def weights_of(*modules: str, shard: str = SINGLE) -> list[Location]:
    """The places of the weights of modules."""
    return [Location(module=m, tensor=f"{m}.weight", shard=shard) for m in modules]
