"""The export corpus made on a GPU: real ModelOpt with its real kernels, proven by `check --deep`.

    python -m tests.exports_cuda OUT [--only GLOB]

A CPU cannot write the CUDA dialects (a multiplication where a CPU divides), so this runs where a
GPU is. One line a sweep: what was proven, in which dialects, and what `check` says of it.
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

import ckptdiff
from tests import exports_modelopt
from tests.exports import base_of, cells


def on_gpu() -> None:
    """Make the builders of the corpus load their models, and draw their batches, on the GPU."""
    load, draw = exports_modelopt._load, exports_modelopt.batch

    def load_on_gpu(base: Path) -> Any:
        return load(base).cuda()

    def draw_on_gpu(*arguments: Any) -> dict[str, torch.Tensor]:
        return {name: value.cuda() for name, value in draw(*arguments).items()}

    exports_modelopt._load = load_on_gpu
    exports_modelopt.batch = draw_on_gpu


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", default="*", metavar="GLOB")
    parser.add_argument("--keep", action="store_true", help="do not delete what was checked")
    options = parser.parse_args()
    on_gpu()
    real_kernels = exports_modelopt._install_cpu_stand_ins
    exports_modelopt._install_cpu_stand_ins = lambda: None
    verdicts: collections.Counter[str] = collections.Counter()
    for cell in cells():
        if not fnmatch.fnmatch(cell.name, options.only):
            continue
        base, root = base_of(options.out, cell), options.out / cell.name
        if not base.exists():
            exports_modelopt.save_base(cell.arch, cell.tied, cell.dtype, base)
        started = time.perf_counter()
        kernels = "real kernels"
        try:
            try:
                exports_modelopt.save_sweep(cell.arch, cell.dtype, cell.fmt, base, root)
            except Exception as error:  # a kernel that this machine cannot build
                kernels = f"stand-ins for calibration ({type(error).__name__}: {error})"[:90]
                shutil.rmtree(root, ignore_errors=True)
                real_kernels()
                exports_modelopt.save_sweep(cell.arch, cell.dtype, cell.fmt, base, root)
                exports_modelopt._install_cpu_stand_ins = lambda: None
        except Exception:
            traceback.print_exc()
            verdicts["no export"] += 1
            print(f"{cell.name:40} NO EXPORT", flush=True)
            continue
        seconds = time.perf_counter() - started
        report = ckptdiff.check(root, base=base, deep=True, cache=False)
        codes = sorted({(f.code, f.severity) for f in report.findings if f.code != "CK406"})
        verdict = "clean" if all(severity == "info" for _, severity in codes) else "FINDINGS"
        verdicts[verdict] += 1
        proofs = [row.proof for row in report.schemes]
        print(f"{cell.name:40} {verdict} {codes} {seconds:.1f} s, {kernels}", flush=True)
        for proof in proofs:
            print(f"    {proof}", flush=True)
        if not options.keep:
            shutil.rmtree(root)
    print(dict(verdicts), torch.cuda.get_device_name(0), torch.__version__)
    return 0 if set(verdicts) == {"clean"} else 1


if __name__ == "__main__":
    sys.exit(main())
