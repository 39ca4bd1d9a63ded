"""Writes a quantized model as a checkpoint, and the manifests of a search beside it.

Nothing is pickled. Tokenizer and processor files are the parent's to bring.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import modelopt.torch.export.unified_export_hf as unified  # type: ignore[import-untyped]
from modelopt.torch.export import export_hf_checkpoint
from transformers import PreTrainedModel

from ckptdiff.formats.manifests import MANIFEST_DIR
from ckptdiff.runtime.export.progress import Progress, hearing
from ckptdiff.runtime.values import TORCH

# What packs a weight in ModelOpt.
_PACK = "_export_quantized_weight"


def export(
    model: PreTrainedModel, folder: Path, dtype: str, modules: int, progress: Progress
) -> None:
    """The weights, both configs and generation_config.json, into `folder`. Uses the model up.

    `modules` is about how many linears will be packed.
    """
    save = model.save_pretrained
    with ExitStack() as packing, hearing(unified, _PACK, lambda _: progress.advance()):
        packing.enter_context(progress.during("pack", modules, "modules"))

        def saved(*arguments: Any, **keywords: Any) -> None:
            packing.close()
            with progress.during("write", None, "bytes"):
                save(*arguments, **keywords)
                progress.advance(sum(p.stat().st_size for p in folder.glob("*.safetensors")))

        model.save_pretrained = saved  # type: ignore[method-assign]
        export_hf_checkpoint(model, dtype=TORCH[dtype], export_dir=folder)


def write_manifest(folder: Path, name: str, content: str) -> None:
    """A text file among the manifests of a checkpoint."""
    path = folder / MANIFEST_DIR / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content, encoding="utf-8")


def as_json(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"
