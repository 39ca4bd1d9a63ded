"""Files of prompts: one a line, as plain text or as JSON objects.

What a prompt becomes depends on a model's tokenizer, which is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckptdiff.errors import UsageError
from ckptdiff.records.probe import Prompt
from ckptdiff.sources.local import Unreadable, read_document

DEFAULT_SOURCE = "built in"
_DEFAULT = Path(__file__).with_suffix(".jsonl")
_JSON_LINES = (".jsonl", ".ndjson")
_KNOWN = {"text", "prompt", "messages", "image", "images"}


def default_prompts() -> tuple[Prompt, ...]:
    """64 short prompts of many kinds, for models of language and vision alike."""
    return read_prompts(_DEFAULT)


def read_prompts(path: Path) -> tuple[Prompt, ...]:
    """The prompts of a file: `.jsonl` has an object a line, anything else a text a line.

    Raises `UsageError` for a file that cannot be read or holds no prompt, and for a line that
    is none, by its number.
    """
    try:
        text = read_document(path).decode("utf-8-sig")
    except Unreadable as error:
        raise UsageError(f"{path} cannot be read: {error.reason}", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", "Save it as UTF-8.") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise UsageError(f"{path} holds no prompt", "Write one a line.")
    if path.suffix.lower() not in _JSON_LINES:
        return tuple(Prompt(text=line) for _, line in lines)
    return tuple(_prompt(path, number, line) for number, line in lines)


def _prompt(path: Path, number: int, line: str) -> Prompt:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _odd(path, number, "is not JSON") from error
    if isinstance(found, str):
        return Prompt(text=found)
    if not isinstance(found, dict):
        raise _odd(path, number, "is no JSON object")
    if unknown := sorted(found.keys() - _KNOWN):
        raise _odd(path, number, f'has "{unknown[0]}"')
    for one, other in (("text", "prompt"), ("image", "images")):
        if one in found and other in found:
            raise _odd(path, number, f'has both "{one}" and "{other}"')
    text = found.get("text", found.get("prompt", ""))
    messages = found.get("messages", [])
    images = found.get("images", [found["image"]] if "image" in found else [])
    if not isinstance(text, str) or not _are(messages, dict) or not _are(images, str):
        raise _odd(path, number, "has a value of another type")
    if bool(text.strip()) == bool(messages):
        raise _odd(path, number, "has neither text nor messages, or both")
    if not all(map(_is_said, messages)):
        raise _odd(path, number, "has a message without role or content")
    parts = [part for message in messages for part in _parts(message)]
    if any(part not in ("text", "image") for part in parts):
        raise _odd(path, number, "has a message with a part that is neither text nor image")
    places = parts.count("image")
    if messages and places != len(images):
        what = f"has {len(images)} images, and its messages name {places}"
        raise _odd(path, number, f'{what} by {{"type": "image"}}')
    return Prompt(text, tuple(messages), tuple(str(path.parent / image) for image in images))


def _is_said(message: Mapping[str, Any]) -> bool:
    """Whether there is something for a chat template, which makes nothing of what is missing."""
    said = isinstance(message.get("content"), str | list) or "tool_calls" in message
    return said and isinstance(message.get("role"), str)


def _parts(message: Mapping[str, Any]) -> list[object]:
    """The types of a message's parts, None for what is no part; of plain text there are none."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    return [part.get("type") if isinstance(part, dict) else None for part in parts]


def _are(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _odd(path: Path, number: int, what: str) -> UsageError:
    return UsageError(
        f"line {number} of {path} {what}",
        'A line is {"text": …} or {"messages": [{"role": …, "content": …}]}, with "image" or '
        '"images" where it has some.',
    )
