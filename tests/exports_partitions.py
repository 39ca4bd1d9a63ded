"""The child side of the tests of composed partitions: exports of random subsets by ModelOpt."""

from __future__ import annotations

import json
import random
from pathlib import Path

from modelopt.torch.export import export_hf_checkpoint

from tests.exports_modelopt import DTYPES, Baseline, _install_cpu_stand_ins, _load, _quantize


def save_partitions(arch: str, fmt: str, base: Path, out: Path, seeds: range) -> None:
    """Write `out/<seed>`: an export whose recipes are drawn, with its coverage manifest."""
    _install_cpu_stand_ins()
    baseline = Baseline.of(arch, fmt, _load(base))
    for seed in seeds:
        draw = random.Random(f"{arch} {fmt} {seed}")
        ranking = draw.sample(baseline.ranking, len(baseline.ranking))
        count = draw.randint(1, len(ranking))
        scheme = out / str(seed)
        model = _quantize(_load(base), baseline, ranking[:count])
        export_hf_checkpoint(model, dtype=DTYPES["bf16"], export_dir=scheme)
        names = [recipe.name for recipe in ranking]
        manifest = {
            "scheme_name": scheme.name,
            "coverage_fraction": count / len(names),
            "num_layers_total": len(names),
            "num_layers_selected": count,
            "num_layers_dropped": len(names) - count,
            "selected_layers": names[:count],
            "dropped_layers": names[count:],
        }
        folder = scheme / "layer-sensitivity"
        folder.mkdir()
        path = folder / f"{scheme.name}_coverage_from_baseline.json"
        path.write_text(json.dumps(manifest, indent=2))
