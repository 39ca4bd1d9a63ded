"""Files of prompts, and what is wrong with a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptdiff.errors import UsageError
from ckptdiff.formats.prompts import default_prompts, read_prompts
from ckptdiff.records.probe import Prompt


def write(tmp_path: Path, text: str, name: str = "p.jsonl") -> Path:
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


def test_text_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = write(tmp_path, '\ufeffOne\n\n  zwei \r\n{"text": 3}\n', "p.txt")
    assert read_prompts(path) == (Prompt("One"), Prompt("zwei"), Prompt('{"text": 3}'))


def test_json_lines_have_text_messages_and_images(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '{"text": "a\\nb"}\n"plain"\n{"prompt": "c", "image": "x.png"}\n'
        '{"messages": [{"role": "user", "content": "d"}]}\n'
        '{"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "image"}, '
        '{"type": "text", "text": "e"}]}], "images": ["sub/y.png", "/z.png"]}\n',
    )
    found = read_prompts(path)
    assert [prompt.text for prompt in found] == ["a\nb", "plain", "c", "", ""]
    assert [prompt.shown for prompt in found] == ["a\nb", "plain", "c", "d", "e"]
    assert found[2].images == (str(tmp_path / "x.png"),)
    assert found[4].images == (str(tmp_path / "sub/y.png"), "/z.png")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 1 of .* is not JSON"),
        ("[1]", "is no JSON object"),
        ('{"txt": "a"}', 'has "txt"'),
        ('{"text": 1}', "a value of another type"),
        ('{"text": "a", "messages": "b"}', "a value of another type"),
        ('{"text": " "}', "neither text nor messages"),
        ('{"messages": [{"role": "user"}]}', "a message without role or content"),
        ('{"messages": [{"role": 3, "content": "b"}]}', "a message without role or content"),
        ('{"messages": [{"role": "user", "content": 7}]}', "a message without role or content"),
        ('{"text": "a", "messages": [{"role": "user", "content": "b"}]}', "or both"),
        (
            '{"messages": [{"role": "user", "content": "b"}], "image": "x.png"}',
            r"has 1 images, and its messages name 0 by \{",
        ),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}]}',
            "has 0 images, and its messages name 1",
        ),
        (
            '{"messages": [{"role": "user", "content": [{"type": "video"}]}]}',
            "a part that is neither text nor image",
        ),
        (
            '{"messages": [{"role": "user", "content": ["hello"]}]}',
            "a part that is neither text nor image",
        ),
        ('{"text": "a", "prompt": "b"}', 'has both "text" and "prompt"'),
        ('{"text": "a", "image": "x.png", "images": []}', 'has both "image" and "images"'),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_prompts(write(tmp_path, line))


def test_files_that_hold_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_prompts(tmp_path / "absent.txt")
    with pytest.raises(UsageError, match="holds no prompt"):
        read_prompts(write(tmp_path, " \n\n"))
    path = tmp_path / "latin.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(UsageError, match="not UTF-8"):
        read_prompts(path)


def test_our_own_prompts_are_many_and_different() -> None:
    found = default_prompts()
    assert len(found) == 64 == len({prompt.text for prompt in found})
    assert all(prompt.text and not prompt.images for prompt in found)
