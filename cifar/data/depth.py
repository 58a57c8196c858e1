"""Pictures of more than 8 bits for each channel, made into 8: of 16 bits X-rays and microscopes use 12, or others."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOURS = re.compile(r"(RGBA?|LA);16[BLN]")  # Pillow's names for 16 bits of each
_BITS, _PLANES, _EACH_COLOUR = 258, 284, 2  # tags of TIFF files, and a value
_ZERO_IS, _WHITE = 262, 0  # the same
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B"}  # Pillow's names for the order of two bytes


def is_deep(image: Image.Image) -> bool:
    """Whether a picture has channels of more than 8 bits; of colours Pillow knows it until the picture is loaded."""
    return image.mode.startswith("I") or image.mode == "F" or bool(_COLOURS.fullmatch(_raw_mode(image)))


def to_eight_bits(image: Image.Image) -> Image.Image:
    """From its darkest to its brightest value, over all colours; as it is where it has 8 bits. ValueError."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == _EACH_COLOUR and max(tags.get(_BITS, (8,))) > 8:  # which Pillow takes for 8 bits
        raise ValueError("colours of 16 bits, each in a plane of its own, are not read: save them pixel by pixel")
    if not is_deep(image):
        return image
    raw_mode = _raw_mode(image)
    if raw_mode.startswith("LA"):
        raise ValueError("grey of 16 bits with transparency is not read: save it without transparency")
    if _COLOURS.fullmatch(raw_mode):
        found = _with_lower_bytes(image)
        pixels = scaled(found[..., :3])
        if image.mode == "RGBA":
            pixels = np.dstack([pixels, (found[..., 3] >> 8).astype(np.uint8)])
    elif raw_mode == "I;32N":  # which Pillow reads as signed
        pixels = scaled(np.asarray(image).view(np.uint32))
    else:
        pixels = scaled(np.asarray(image))
    if tags.get(_ZERO_IS) == _WHITE:  # which Pillow heeds in 8 bits alone
        pixels = 255 - pixels
    exif, image = image.getexif(), Image.fromarray(pixels)
    image.getexif().update(exif)  # which way it is upright
    return image


def _raw_mode(image: Image.Image) -> str:
    """How the file has its pixels, as long as they are not loaded."""
    tiles: list[Any] = getattr(image, "tile", [])
    return _named(tiles[0].args) if tiles else ""


def _named(args: Any) -> str:
    first = args[0] if isinstance(args, tuple) else args
    return first if isinstance(first, str) else ""


def _with_lower_bytes(image: Any) -> NDArray[np.uint16]:
    """All 16 bits: Pillow gives the upper bytes alone, and the lower ones if it takes the order to be the other one."""
    image.fp.seek(0)
    content = image.fp.read()
    upper, lower = (_opened(content, swaps) for swaps in (False, True))
    return upper.astype(np.uint16) * np.uint16(256) + lower


def _opened(content: bytes, swaps: bool) -> NDArray[np.uint8]:
    with Image.open(BytesIO(content)) as image:
        if swaps:
            image.tile = [tile._replace(args=_swapped(tile.args)) for tile in image.tile]
        return np.asarray(image)


def _swapped(args: Any) -> Any:
    raw_mode = _named(args)
    raw_mode = raw_mode[:-1] + _OTHER_BYTE[raw_mode[-1]]
    return (raw_mode, *args[1:]) if isinstance(args, tuple) else raw_mode


def scaled(values: NDArray[Any]) -> NDArray[np.uint8]:
    """From the darkest to the brightest value. ValueError where one is no number."""
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has pixels that are no numbers")
    low, high = float(values.min()), float(values.max())
    return ((values - low) * (255 / (high - low or 1))).round().astype(np.uint8)
