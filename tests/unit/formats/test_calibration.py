"""Calibration data: which rows are taken, and what is said of rows that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ckptdiff.errors import UsageError
from ckptdiff.formats.calibration import DEFAULT_SOURCE, read_calibration
from ckptdiff.records.export import Calibration


def read(path: Path | None, samples: int = 128, seed: int = 0) -> Calibration:
    return read_calibration(path, samples=samples, length=64, seed=seed)


def texts(calibration: Calibration) -> list[str]:
    return [row.text for row in calibration.rows]


def write_captions(path: Path, **changes: Any) -> Path:
    """Two images of which one has two captions."""
    document = {
        "images": [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}],
        "annotations": [
            {"image_id": 7, "caption": " A dog. "},
            {"image_id": 9, "caption": "A cat."},
            {"image_id": 7, "caption": "Still a dog."},
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document | changes))
    return path


def test_the_seed_decides_which_rows_and_in_which_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"row {number}\n" for number in range(40)))
    assert texts(read(path)) == texts(read(path))
    assert sorted(texts(read(path))) == sorted(f"row {number}" for number in range(40))
    assert texts(read(path)) != texts(read(path, seed=1))
    assert texts(read(path, samples=5)) == texts(read(path))[:5]
    assert read(path).source == "rows.txt"


def test_without_a_file_the_built_in_rows_are_used_and_named() -> None:
    found = read(None, samples=3)
    assert len(found.rows) == 3 and found.source == DEFAULT_SOURCE


@pytest.mark.parametrize("place", ["a/captions_val.json", "a/annotations/captions_val.json"])
def test_captions_become_conversations_about_images(tmp_path: Path, place: str) -> None:
    """Images lie in a directory of the split's name, beside the captions or above them."""
    path = write_captions(tmp_path / place)
    images = tmp_path / "a/val"
    images.mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        (images / name).write_bytes(b"")
    found = read(path)
    asked = {
        (Path(row.images[0]).name, str(row.messages[1]["content"][0]["text"])) for row in found.rows
    }
    assert asked == {("a.png", "A dog."), ("b.png", "A cat."), ("a.png", "Still a dog.")}
    assert all(Path(row.images[0]).parent == images for row in found.rows)
    assert [part["type"] for part in found.rows[0].messages[0]["content"]] == ["image", "text"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": []}, "has no images with annotations"),
        ({"annotations": [{"image_id": 7}]}, "has no caption in annotation 1"),
        ({"annotations": [{"image_id": 8, "caption": "x"}]}, "has no image for annotation 1"),
        ({"images": [{"id": 7}]}, "has no file_name in image 1"),
        ({"images": 3}, "has no images with annotations"),
    ],
)
def test_captions_that_are_none_are_named(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read(write_captions(tmp_path / "captions.json", **changes))


def test_images_are_found_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_captions(tmp_path / "captions.json")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    rows = read(Path("captions.json")).rows
    assert {Path(row.images[0]).parent for row in rows} == {tmp_path}


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"row [123] of .* names the image .*\.png"):
        read(write_captions(tmp_path / "captions.json"))


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_json_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "captions.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"captions\.json is n"):
        read(path)


def test_a_line_that_is_none_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": ""}\n')
    with pytest.raises(UsageError, match="line 3 of"):
        read(path)


def test_chosen_rows_know_their_numbers_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"row {number}\n" for number in range(1, 41)))
    found = read(path, samples=7)
    assert texts(found) == [f"row {number}" for number in found.numbers]
    assert list(found.numbers) != sorted(found.numbers)
