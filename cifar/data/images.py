"""A file as the network sees it: 32 x 32 RGB pixels, the same in training, inspection and prediction."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIZE = 32  # every image ends as SIZE x SIZE pixels
_AT_ONCE = 256  # files: what is decoded ahead lies in memory


@dataclass(frozen=True)
class DecodedFile:
    """A file's pixels and its own width and height; where it is no readable image, the error in their place."""

    path: Path
    pixels: NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None
    error: Exception | None = None


def decode_files(paths: Iterable[Path]) -> Iterator[DecodedFile]:
    """Each file, in order. Raises MemoryError alone."""
    remaining = iter(paths)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        while some := list(islice(remaining, _AT_ONCE)):
            with warnings.catch_warnings():
                # Pillow refuses decompression bombs by itself; of images half that size it only warns.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                files = list(pool.map(_decode_file, some))
            yield from files


def _decode_file(path: Path) -> DecodedFile:
    try:
        with Image.open(path) as image:
            return DecodedFile(path, to_pixels(image), image.size)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on a broken file
        return DecodedFile(path, error=error)


def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """32 x 32 x 3 uint8 RGB of an image of any size and mode, upright, what is transparent in it white."""
    if image.mode.startswith("I"):  # 16 bits of grey, which convert alone would clip to white
        image = Image.fromarray((np.asarray(image).astype(np.int64) // 256).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
