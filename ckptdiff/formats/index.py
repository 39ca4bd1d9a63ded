"""`model.safetensors.index.json`: what it says, and where it may point."""

from __future__ import annotations

from pathlib import PurePosixPath

from ckptdiff.formats.documents import JsonObject, Misfit, int_of, json_type, object_of
from ckptdiff.records.checkpoint import Index

INDEX_NAME = "model.safetensors.index.json"


def parse_index(document: JsonObject, name: str = INDEX_NAME) -> Index:
    """The index in `document`. Raises `Misfit` when it maps anything but names to names."""
    if document.get("weight_map") is None:
        raise Misfit('has no "weight_map"')
    weight_map = object_of(document, "weight_map")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str):
            raise Misfit(f'maps "{tensor}" to {json_type(shard)}, expected a file name')
    metadata = object_of(document, "metadata")
    return Index(name=name, weight_map=dict(weight_map), total_size=int_of(metadata, "total_size"))


def escapes(shard: str) -> bool:
    """Whether a shard path leaves the checkpoint, judged lexically.

    The file system is not asked: a hub cache links its shards from elsewhere, which is
    fine, while a path with `..` is not, whatever it happens to lead to.
    """
    path = PurePosixPath(shard)
    odd = not shard or "\0" in shard or "\\" in shard
    return odd or path.is_absolute() or ".." in path.parts
