"""What the tests of engines share: schemes to repair, and their repairs by any engine."""

from __future__ import annotations

from pathlib import Path

from ckptdiff import api
from ckptdiff.jobs.export_planning import ExportJob
from ckptdiff.records.export import ExportOptions, ExportOrder
from ckptdiff.records.plan import Engine, Outcome
from tests.engines import write_base, write_rows, write_stub

SINGLE = "model.safetensors"
FORMATS = ("fp8", "int8", "int4_awq")


class Bench:
    """A base, stubs of every format and what was exported from them, made when asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = write_base(folder / "base")
        self.options = ExportOptions(calib=str(write_rows(folder / "rows.jsonl")))
        self._made: dict[tuple[str, int, Engine], Path] = {}

    def stub(self, fmt: str, percent: int) -> Path:
        found = self.folder / "stubs" / f"{fmt}_autoquant_all_layers_top{percent}"
        return found if found.exists() else write_stub(self.base, found.parent, fmt, percent)

    def export(self, fmt: str, percent: int, engine: Engine = "modelopt") -> Path:
        """The directory of a repaired scheme."""
        key = fmt, percent, engine
        if key not in self._made:
            out = self.folder / f"by-{engine}"
            self._made[key] = Path(run(self, self.stub(fmt, percent), engine, out).target)
        return self._made[key]


def plan(bench: Bench, scheme: Path, engine: Engine, out: Path, **keywords: object) -> api.Planned:
    options = keywords.pop("options", None if engine == "compose" else bench.options)
    return api.plan_reexport(
        [scheme],
        engine=engine,
        base=bench.base,
        out=out,
        options=options,
        **keywords,  # type: ignore[arg-type]
    )


def run(bench: Bench, scheme: Path, engine: Engine, out: Path, **keywords: object) -> Outcome:
    """Repair `scheme` into `out`; the outcome, which says that it is written."""
    (outcome,) = api.execute(plan(bench, scheme, engine, out, **keywords), cache=False).outcomes
    assert outcome.status == "written", outcome
    return outcome


def order_of(planned: api.Planned) -> ExportOrder:
    (job,) = planned.jobs
    assert isinstance(job, ExportJob) and job.order is not None, planned.report
    return job.order


def files(folder: Path) -> dict[str, bytes]:
    """Every file but those that say who made it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "provenance" not in path.name and "ensitivity." not in path.name
    }


def different(one: Path, other: Path, *, manifests: bool = True) -> list[str]:
    """Names of files that are not the same, byte for byte."""
    mine, theirs = files(one), files(other)
    names = sorted(mine.keys() | theirs.keys())
    kept = [name for name in names if manifests or "layer-sensitivity" not in name]
    return [name for name in kept if mine.get(name) != theirs.get(name)]
