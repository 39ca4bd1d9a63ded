"""How long reading headers takes against `orjson.loads` of the same bytes.

    python tests/bench/headers.py [TENSORS] [FILES]

Prints CPU seconds, best of several interleaved rounds, and the ratio. Ours reads the files
from the page cache, parses and validates all of it; orjson gets the bytes in memory and
makes plain dicts of them. Both run with the garbage collector off.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson

from ckptdiff.formats.safetensors import read_shard

ROUNDS = 5


def header(tensors: int) -> tuple[bytes, int]:
    """A header as an FP8 export of a mixture of experts has it, and its bytes of data."""
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for number in range(tensors):
        module, part = divmod(number, 3)
        layer, expert = divmod(module // 3, 128)
        projection = ("gate_proj", "up_proj", "down_proj")[module % 3]
        kind = ("weight", "weight_scale", "input_scale")[part]
        name = f"model.language_model.layers.{layer}.mlp.experts.{expert}.{projection}.{kind}"
        dtype, shape, size = ("F32", [], 4) if part else ("F8_E4M3", [768, 2048], 768 * 2048)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    return json.dumps(entries, separators=(",", ":")).encode(), offset


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds that `work` takes, without those for freeing what it returns."""
    start = time.process_time()
    result = work()
    seconds = time.process_time() - start
    del result
    return seconds


def main(tensors: int, files: int) -> None:
    """Write the files (sparse: only the headers take space), measure, print."""
    raw, data_bytes = header(tensors)
    with tempfile.TemporaryDirectory() as folder:
        names = [f"model-{number:05}.safetensors" for number in range(files)]
        for name in names:
            with open(Path(folder) / name, "wb") as file:
                file.write(len(raw).to_bytes(8, "little") + raw)
                os.truncate(file.fileno(), 8 + len(raw) + data_bytes)
        shards = [read_shard(Path(folder), name) for name in names]
        assert not any(shard.defects or shard.unread for shard in shards)
        assert all(len(shard.tensors) == tensors for shard in shards)
        del shards
        gc.disable()
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(cpu_seconds(lambda: [read_shard(Path(folder), name) for name in names]))
            theirs.append(cpu_seconds(lambda: [orjson.loads(raw) for _ in names]))
    print(f"{files} headers of {tensors:,} tensors, {len(raw) / 1e6:.1f} MB each")
    print(f"ours   {min(ours):.3f} s CPU")
    print(f"orjson {min(theirs):.3f} s CPU")
    print(f"ratio  {min(ours) / min(theirs):.2f}")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    main(*(given + [90_000, 10][len(given) :]))
