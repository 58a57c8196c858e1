"""A file as the network sees it: RGB pixels of one size, the same in training, inspection and prediction."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cifar.data.depth import is_deep, to_eight_bits
from cifar.data.sizes import SIZE

STDIN = Path("-")  # as a file's name
_HEIC = {".heic", ".heif"}
_NO_HEIC = ValueError("HEIC pictures need the package pillow-heif: pip install -e '.[heic]'")
_AT_ONCE = 256  # files: what is decoded ahead lies in memory


@dataclass(frozen=True)
class DecodedFile:
    """A file's pixels, its own width and height, and its depth; where it is no image, the error in their place."""

    path: Path
    pixels: NDArray[np.uint8] | None = None
    size: tuple[int, int] | None = None
    is_deep: bool = False
    error: Exception | None = None


def decode_files(paths: Iterable[Path], size: int = SIZE) -> Iterator[DecodedFile]:
    """Each file, in order, as so many pixels a side. Raises MemoryError alone."""
    remaining = iter(paths)
    reads_heic()
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside Python's lock
        while some := list(islice(remaining, _AT_ONCE)):
            with warnings.catch_warnings():
                # Pillow refuses decompression bombs by itself; of images half that size it only warns.
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                files = list(pool.map(partial(_decode_file, size=size), some))
            yield from files


def _decode_file(path: Path, size: int) -> DecodedFile:
    try:
        with Image.open(BytesIO(sys.stdin.buffer.read()) if path == STDIN else path) as image:
            deep = is_deep(image)
            return DecodedFile(path, to_pixels(image, size), image.size, deep)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on a broken file
        return DecodedFile(path, error=_why(path, error))


def _why(path: Path, error: Exception) -> Exception:
    if path.suffix.lower() in _HEIC and not reads_heic():
        return _NO_HEIC
    if isinstance(error, UnidentifiedImageError):  # whose text has a path, or Python's name for an input
        return ValueError("of no format that Pillow reads")
    return error


@cache
def reads_heic() -> bool:
    """Whether Pillow reads HEIC pictures: from now on, where the package for them is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def to_pixels(image: Image.Image, size: int = SIZE) -> NDArray[np.uint8]:
    """size x size x 3 uint8 RGB of an image of any size and mode, as `how` says."""
    image = ImageOps.exif_transpose(to_eight_bits(image))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def how(size: int) -> str:
    """What to_pixels does, as model files tell it."""
    return (
        "upright as EXIF says; more than 8 bits scaled from each picture's darkest to its brightest pixel; white where "
        f"it is transparent; RGB; resized to {size} x {size}, bilinear with antialiasing, as Pillow does"
    )
