"""Train the tiny Qwen2.5-VL under samples/base from this Python's own standard library.

About ten minutes on two cores. Another Python version has another library and gives another base,
so the base is committed; `build.py` needs only that.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from captions import captioned_picture, captioned_pictures
from command import make_readable, report
from corpus import documents
from tiny_vl import (
    MROPE_SECTION,
    ROPE_THETA,
    TOKEN_IDS,
    caption_batch,
    load_model,
    load_processors,
    new_image_processor,
    new_model,
    new_tokenizer,
)
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

WINDOW, TEXTS, PICTURES = 256, 8, 8
FLOOR, WARM_UP = 0.02, 100
TOKENIZER_CHARACTERS = 4_000_000
HELD_OUT_WINDOWS = 400


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine that falls to 2 % of the peak."""
    if step < WARM_UP:
        return peak * (step + 1) / WARM_UP
    progress = (step - WARM_UP) / max(1, steps - WARM_UP)
    return peak * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * progress)) / 2)


def new_optimizer(model: PreTrainedModel) -> torch.optim.AdamW:
    """AdamW that decays matrices, and leaves norms and biases alone."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95))


def fresh_tokenizer(texts: list[str], seed: int) -> PreTrainedTokenizerBase:
    """A tokenizer trained on a sample of the texts and on captions."""
    sample = "\n".join(random.Random(seed).sample(texts, len(texts)))
    captions = "\n".join(caption for _, caption in captioned_pictures(2000, seed))
    return new_tokenizer([sample[:TOKENIZER_CHARACTERS], captions])


def encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> torch.Tensor:
    """All texts as one stream of ids, each ended by <|endoftext|>."""
    end = [TOKEN_IDS["<|endoftext|>"]]
    stream: list[int] = []
    for ids in tokenizer(texts, verbose=False)["input_ids"]:
        stream += ids + end
    return torch.tensor(stream, dtype=torch.int16)


def random_windows(stream: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """A batch of windows cut anywhere from the stream."""
    starts = [rng.randrange(len(stream) - WINDOW) for _ in range(TEXTS)]
    return torch.stack([stream[s : s + WINDOW] for s in starts]).long()


@torch.no_grad()
def perplexity(model: PreTrainedModel, stream: torch.Tensor) -> float:
    """Perplexity a token over evenly spaced windows of a stream."""
    step = max(WINDOW, (len(stream) - WINDOW) // HELD_OUT_WINDOWS)
    windows = stream.unfold(0, WINDOW, step)[:HELD_OUT_WINDOWS].long()
    losses = [model(input_ids=part, labels=part).loss * len(part) for part in windows.split(TEXTS)]
    return math.exp(sum(losses).item() / len(windows))


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stream: torch.Tensor,
    args: argparse.Namespace,
) -> None:
    """Minimise the text loss plus a weighted caption loss, in float32."""
    rng, steps = random.Random(args.seed), args.steps
    image_processor = new_image_processor()
    optimizer = new_optimizer(model)
    start = time.monotonic()
    model.train()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, args.peak)
        text = random_windows(stream, rng)
        pictures = [captioned_picture(rng) for _ in range(PICTURES)]
        text_loss = model(input_ids=text, labels=text).loss
        caption_loss = model(**caption_batch(tokenizer, image_processor, pictures)).loss
        (text_loss + args.caption_weight * caption_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 100 == 99:
            report(f"step {step + 1}/{steps}: text {text_loss:.3f}, captions {caption_loss:.3f}, "
                   f"{time.monotonic() - start:.0f} s")  # fmt: skip
    model.eval()


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write the checkpoint in BF16 with everything that loaders look for beside the weights."""
    end, stop = TOKEN_IDS["<|endoftext|>"], TOKEN_IDS["<|im_end|>"]
    model.generation_config = GenerationConfig(
        bos_token_id=end, pad_token_id=end, eos_token_id=[stop, end]
    )
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    new_image_processor().save_pretrained(out)
    _add_older_rope_form(out / "config.json")
    make_readable(out)


def _add_older_rope_form(path: Path) -> None:
    """Describe the rotary embedding once more as transformers 4 reads it."""
    config = json.loads(path.read_text())
    config["text_config"] |= {
        "rope_theta": ROPE_THETA,
        "rope_scaling": {
            "type": "mrope",
            "rope_type": "default",
            "mrope_section": MROPE_SECTION,
        },
    }
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def main() -> None:
    """Command line: `train.py [OUT] [--resume DIR]`."""
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=here / "base", metavar="OUT")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peak", type=float, default=4e-3, help="highest learning rate")
    parser.add_argument("--caption-weight", type=float, default=0.3)
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on from a saved base")
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    training, held_out = documents()
    if args.resume:
        tokenizer, _ = load_processors(args.resume)
        model = load_model(args.resume).float()
    else:
        tokenizer, model = fresh_tokenizer(training, args.seed), new_model()
    stream, unseen = encode(tokenizer, training), encode(tokenizer, held_out)
    report(f"{model.num_parameters():,} parameters, {len(stream):,} tokens")
    train(model, tokenizer, stream, args)
    report(f"held-out perplexity {perplexity(model, unseen):.2f}")
    save(model, tokenizer, args.out)


if __name__ == "__main__":
    main()
