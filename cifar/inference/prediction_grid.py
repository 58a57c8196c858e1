"""Pictures with what a model takes them for, as one picture to look at."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from cifar.data.preview import font_with
from cifar.inference.predict import Prediction

_MOST, _COLUMNS = 60, 10  # pictures
_SIDE, _LINE = 96, 18  # pixels, of a picture and of a line of text
_RIGHT, _WRONG, _UNKNOWN = "#1a7f37", "#c62828", "#333333"


def prediction_grid(predictions: Sequence[Prediction]) -> Image.Image:
    """The first pictures that could be read, mistakes before all others, each over its class and the true one."""
    readable = [some for some in predictions if some.pixels is not None]
    shown = sorted(readable, key=lambda some: not some.is_wrong)[:_MOST]  # which keeps their order
    columns = max(1, min(_COLUMNS, len(shown)))
    cell = _SIDE + 8, _SIDE + 2 * _LINE + 8
    sheet = Image.new("RGB", (columns * cell[0] + 8, max(1, -(-len(shown) // columns)) * cell[1] + 8), "white")
    for number, some in enumerate(shown):
        _draw(sheet, some, 8 + number % columns * cell[0], 8 + number // columns * cell[1])
    return sheet


def _draw(sheet: Image.Image, some: Prediction, left: int, top: int) -> None:
    assert some.pixels is not None
    sheet.paste(Image.fromarray(some.pixels).resize((_SIDE, _SIDE), Image.Resampling.NEAREST), (left, top))
    ((name, share), *_) = some.classes
    lines = [f"{share:.0%} {name}", *([f"is {some.truth}"] if some.is_wrong else [])]
    colour = _WRONG if some.is_wrong else _RIGHT if some.is_right else _UNKNOWN
    for number, line in enumerate(lines):
        font = font_with(line)
        text = line if font else line.encode("ascii", "replace").decode()  # where no font has its letters
        _write(sheet, text, (left, top + _SIDE + 1 + number * _LINE), colour)


def _write(sheet: Image.Image, text: str, place: tuple[int, int], colour: str) -> None:
    """As much of it as fits below a picture."""
    font = font_with(text) or font_with("")
    assert font is not None
    while len(text) > 1 and font.getlength(text) > _SIDE + 6:
        text = text[:-1]
    ImageDraw.Draw(sheet).text(place, text, fill=colour, font=font)
