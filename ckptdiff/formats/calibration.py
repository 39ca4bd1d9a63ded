"""Calibration data: files of prompts, captions of images as COCO has them, and a choice of rows.

Everything about a file is checked here, before a model is loaded for it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ckptdiff.errors import UsageError
from ckptdiff.formats.prompts import default_prompts, read_prompts
from ckptdiff.records.export import Calibration
from ckptdiff.records.probe import Prompt
from ckptdiff.sources.local import Unreadable, read_document

DEFAULT_SOURCE = "the built-in prompts"
_QUESTION = "Describe this image."
# The captions of a split lie in annotations/captions_<split>.json, its images in <split>/.
_PREFIX = "captions_"


def read_calibration(path: Path | None, *, samples: int, length: int, seed: int) -> Calibration:
    """`samples` rows of a file, or all where it has fewer; the built-in ones without a file.

    Which rows, and in which order, follows from the file and `seed` alone. Raises `UsageError`
    naming the line or row that cannot be used.
    """
    rows = default_prompts() if path is None else _rows(path)
    order = list(range(1, len(rows) + 1))
    random.Random(seed).shuffle(order)
    numbers = tuple(order[:samples])
    chosen = tuple(_absolute(rows[number - 1]) for number in numbers)
    for number, row in zip(numbers, chosen, strict=True):
        for image in row.images:
            if not Path(image).is_file():
                raise UsageError(
                    f"row {number} of {path} names the image {image}, which is not there",
                    f"Paths of images are relative to {path}.",
                )
    source = DEFAULT_SOURCE if path is None else path.name
    return Calibration(chosen, source, length, seed, numbers)


def _absolute(row: Prompt) -> Prompt:
    return replace(row, images=tuple(str(Path(image).absolute()) for image in row.images))


def _rows(path: Path) -> tuple[Prompt, ...]:
    if path.suffix.lower() == ".json":
        return tuple(_captions(path))
    return read_prompts(path)


def _captions(path: Path) -> Iterator[Prompt]:
    """A conversation about each captioned image."""
    document = _document(path)
    images, annotations = document.get("images"), document.get("annotations")
    if not isinstance(images, list) or not isinstance(annotations, list) or not annotations:
        raise _odd(path, "has no images with annotations")
    places = _places(path)
    files: dict[object, str] = {}
    for number, image in enumerate(images, 1):
        if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
            raise _odd(path, f"has no file_name in image {number}")
        files[image.get("id")] = image["file_name"]
    for number, annotation in enumerate(annotations, 1):
        caption = annotation.get("caption") if isinstance(annotation, dict) else None
        if not isinstance(caption, str) or not caption.strip():
            raise _odd(path, f"has no caption in annotation {number}")
        name = files.get(annotation.get("image_id"))
        if name is None:
            raise _odd(path, f"has no image for annotation {number}")
        found = next((place / name for place in places if (place / name).is_file()), None)
        yield Prompt(messages=_conversation(caption), images=(str(found or places[0] / name),))


def _conversation(caption: str) -> tuple[dict[str, Any], ...]:
    question = [{"type": "image"}, {"type": "text", "text": _QUESTION}]
    answer = [{"type": "text", "text": caption.strip()}]
    return (
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    )


def _places(path: Path) -> Sequence[Path]:
    """Where the images may lie."""
    folder = path.parent
    split = path.stem.removeprefix(_PREFIX)
    return [folder, folder / "images", folder / split, folder.parent / split]


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_document(path))
    except Unreadable as error:
        raise UsageError(f"{path} cannot be read: {error.reason}", "Check the path.") from error
    except (ValueError, RecursionError) as error:
        raise _odd(path, f"is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _odd(path, "is no JSON object")
    return found


def _odd(path: Path, what: str) -> UsageError:
    return UsageError(
        f"{path} {what}",
        'A .json is {"images": [{"id": …, "file_name": …}], "annotations": [{"image_id": …, '
        '"caption": …}]}; rows of text go into a .txt or .jsonl.',
    )
