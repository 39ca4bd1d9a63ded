"""Drawn images for models that take some, where nobody gave any: there so that every layer of a
vision tower is reached. They are no substitute for images of the kind that a model will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ckptdiff.records.probe import Prompt

COUNT = 8
_SIDE = 224
_QUESTION = "Describe this image."


def drawn(folder: Path) -> tuple[Prompt, ...]:
    """`COUNT` rows with an image each, which are written to `folder`; always the same ones."""
    from PIL import Image

    rows = []
    for number in range(COUNT):
        path = folder / f"image-{number}.png"
        Image.fromarray(_picture(number)).save(path)
        rows.append(Prompt(text=_QUESTION, images=(str(path),)))
    return tuple(rows)


def _picture(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """RGB [S, S, 3]: coloured waves under a disc and a bar, and grain over all of it."""
    draw = np.random.Generator(np.random.PCG64(number))
    y, x = np.mgrid[0:_SIDE, 0:_SIDE] / _SIDE
    waves = [
        np.sin(2 * np.pi * (float(draw.uniform(0.5, 6)) * x + float(draw.uniform(0.5, 6)) * y))
        for _ in range(3)
    ]
    picture = np.stack(waves, axis=-1) * 60 + draw.uniform(60, 190, 3)
    left, top = draw.uniform(0.2, 0.8, 2)
    picture[(x - left) ** 2 + (y - top) ** 2 < float(draw.uniform(0.01, 0.06))] = _colour(draw)
    picture[np.abs(x - y - float(draw.uniform(-0.5, 0.5))) < 0.03] = _colour(draw)
    picture += draw.normal(0, 8, picture.shape)
    return np.asarray(np.clip(picture, 0, 255), dtype=np.uint8)


def _colour(draw: np.random.Generator) -> Sequence[float]:
    return [float(value) for value in draw.uniform(0, 255, 3)]
