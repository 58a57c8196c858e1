"""Pictures to look at: some images of each class of a data set, beside the class's name."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.system.files import new_file, refuse_to_replace

_SHOWN = 10  # images per class
_SIDE = 64  # pixels
_LETTERS = 14  # pixels
_NO_LETTER = "\U0010ffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def refuse_unfit(path: Path, option: str, force: bool) -> None:
    """RequestError where a picture cannot be written there, or would replace one unasked."""
    if Image.registered_extensions().get(path.suffix.lower()) not in Image.SAVE:
        raise RequestError(f"{option} must end like a picture, as in grid.png, got {str(path)!r}")
    refuse_to_replace(path, force)


def save(picture: Image.Image, path: Path) -> None:
    with new_file(path) as temporary:
        picture.save(temporary, format=Image.registered_extensions()[path.suffix.lower()])


def grid(dataset: Dataset) -> tuple[Image.Image, list[str]]:
    """A row per class with its name; where no font has its letters, with its number, which the lines beside explain."""
    labels, explained = list[tuple[str, Font]](), list[str]()
    for number, name in enumerate(dataset.classes):
        text = " ".join(name.split())
        font = font_with(text)
        if font is None:
            explained.append(f"class {number}: {text}")
            text, font = f"class {number}", _default()
        labels.append((text, font))
    margin = 10 + max(int(font.getlength(text)) for text, font in labels)
    sheet = Image.new("RGB", (margin + _SHOWN * _SIDE, len(labels) * _SIDE), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (text, font) in enumerate(labels):
        draw.text((5, row * _SIDE + _SIDE // 2 - 8), text, fill="black", font=font)
        for column, number in enumerate((dataset.labels == row).nonzero().flatten()[:_SHOWN].tolist()):
            image = Image.fromarray(dataset.images[number].permute(1, 2, 0).numpy())
            sheet.paste(image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (margin + column * _SIDE, row * _SIDE))
    return sheet, explained


@cache
def _default() -> Font:
    return ImageFont.load_default(size=_LETTERS)


def font_with(text: str) -> Font | None:
    """Pillow's own font, which has the letters of English, or one of the system's; None where none has them all."""
    if text.isascii():
        return _default()
    if shutil.which("fc-match") is None:
        return None
    letters = " ".join(f"{ord(letter):x}" for letter in dict.fromkeys(text) if not letter.isspace())
    found = subprocess.run(["fc-match", "-f", "%{file}", f":charset={letters}"], capture_output=True, text=True)
    try:
        font = ImageFont.truetype(found.stdout, size=_LETTERS)
    except OSError:
        return None
    missing = bytes(font.getmask(_NO_LETTER))
    return font if all(letter.isspace() or bytes(font.getmask(letter)) != missing for letter in text) else None
