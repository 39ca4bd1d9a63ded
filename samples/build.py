"""Build samples/sweep and samples/copied from samples/base with ModelOpt, on a CPU.

With --ranking only the topNN schemes are built, from the ranking of an existing baseline manifest
instead of a new AutoQuant run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from command import require_modelopt

HERE = Path(__file__).resolve().parent
PICTURES, BATCH, SEED = 128, 8, 1


def parse_arguments() -> argparse.Namespace:
    """Command line: `build.py [OUT] [--base DIR] [--ranking MANIFEST]`."""
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument(
        "out",
        nargs="?",
        type=Path,
        default=HERE,
        metavar="OUT",
        help="write OUT/sweep and OUT/copied (default: %(default)s)",
    )
    parser.add_argument("--base", type=Path, default=HERE / "base", metavar="DIR")
    parser.add_argument(
        "--ranking", type=Path, metavar="MANIFEST", help="build topNN alone, from this ranking"
    )
    return parser.parse_args()


def build(base: Path, out: Path, ranking: Path | None) -> None:
    """Calibrate on drawn pictures and build. The heavy imports wait until arguments are read."""
    import manifests
    import torch
    from captions import captioned_pictures
    from modelopt_sweep import Job, build_all, build_subsets
    from tiny_vl import caption_batch, load_model, load_processors

    # One thread adds in one order: scores then don't depend on how many cores a machine has.
    torch.set_num_threads(1)
    tokenizer, image_processor = load_processors(base)
    # Pictures only. With text among the scores every vision layer ranks before every text layer,
    # and the small schemes would leave text untouched.
    pairs = captioned_pictures(PICTURES, SEED)
    batches = [
        caption_batch(tokenizer, image_processor, pairs[start : start + BATCH])
        for start in range(0, PICTURES, BATCH)
    ]
    job = Job(base=base, out=out, data="captions", load=load_model, batches=batches)
    if ranking:
        build_subsets(job, manifests.read(ranking))
    else:
        build_all(job)


if __name__ == "__main__":
    arguments = parse_arguments()
    require_modelopt()
    build(arguments.base, arguments.out, arguments.ranking)
