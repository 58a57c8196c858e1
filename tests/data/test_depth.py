from __future__ import annotations

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cifar.data.images import decode_files, to_pixels

_SIDE = 32
_RAMP = np.linspace(100, 4095, _SIDE).round()  # 12 of 16 bits
_EXPECTED = 255 * (_RAMP - 100) / 3995


def _ramp(channels: int, kind: str) -> NDArray[np.uint16]:
    return np.broadcast_to(_RAMP[:, None, None], (_SIDE, _SIDE, channels)).astype(kind)


def _png(values: NDArray[np.uint16]) -> bytes:
    """With 16 bits for each channel, which Pillow cannot write."""
    color = {2: 4, 3: 2, 4: 6}[values.shape[2]]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 16, color, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def _tiff(values: NDArray[np.generic], order: Literal["<", ">"], planes: int = 1, zero_is_white: bool = False) -> bytes:
    """Not compressed, of unsigned numbers; `order` is < or >; `planes` 2 says that each colour has its own."""
    channels, bits = values.shape[2], 8 * values.dtype.itemsize
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits_at = 8 + len(pixels)
    tags = [
        (256, 3, 1, _SIDE), (257, 3, 1, _SIDE), (258, 3, channels, bits_at if channels > 1 else bits), (259, 3, 1, 1),
        (262, 3, 1, 2 if channels > 1 else int(not zero_is_white)), (273, 4, 1, 8), (277, 3, 1, channels),
        (278, 3, 1, _SIDE), (279, 4, 1, len(pixels)), (284, 3, 1, planes),
    ]  # fmt: skip
    listed = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (struct.pack(f"{order}HH", value, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", value))
        for tag, kind, count, value in tags
    )
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, bits_at + 2 * channels)
    depths = struct.pack(f"{order}{channels}H", *[bits] * channels)
    return start + pixels + depths + struct.pack(f"{order}H", len(tags)) + listed + bytes(4)


def _pixels(content: bytes) -> NDArray[np.uint8]:
    return to_pixels(Image.open(BytesIO(content)))


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_go_from_the_darkest_to_the_brightest(channels: int) -> None:
    values = _ramp(channels, "u2")
    if channels == 4:
        values[..., 3] = 65535
    assert np.abs(_pixels(_png(values))[:, 0] - _EXPECTED[:, None]).max() <= 0.5


@pytest.mark.parametrize("order", ["<", ">"])
def test_colours_of_16_bits_in_either_order_of_bytes(order: Literal["<", ">"]) -> None:
    assert np.abs(_pixels(_tiff(_ramp(3, "u2"), order))[:, 0] - _EXPECTED[:, None]).max() <= 0.5


def test_colours_keep_their_proportions() -> None:
    values = _ramp(3, "u2")
    values[..., 1] //= 2
    reddish = _pixels(_png(values))
    assert reddish[-1, 0].tolist() == [255, round(255 * (2047 - 50) / (4095 - 50)), 255]


def test_what_is_transparent_of_16_bits_becomes_white() -> None:
    values = _ramp(4, "u2")
    values[..., 3] = 0
    assert _pixels(_png(values)).min() == 255


def test_unsigned_numbers_of_32_bits_do_not_turn_negative() -> None:
    steps = np.linspace(0, 2**32 - 1, _SIDE).round().astype("u4")
    content = _tiff(np.broadcast_to(steps[:, None, None], (_SIDE, _SIDE, 1)), "<")
    assert np.abs(_pixels(content)[:, 0, 0] - np.linspace(0, 255, _SIDE)).max() <= 1


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_grey_whose_zero_is_white_is_not_inverted(kind: str) -> None:
    """X-rays often have it; Pillow heeds it in 8 bits alone."""
    values = (_ramp(1, "u2") // (1 if kind == "u2" else 256)).astype(kind)
    usual, inverted = (_pixels(_tiff(values, "<", zero_is_white=is_so)).astype(int) for is_so in (False, True))
    assert np.abs(255 - usual - inverted).max() <= 1


def test_a_deep_photo_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    buffer = BytesIO()
    Image.fromarray(_ramp(1, "u2")[..., 0]).save(buffer, "png", exif=exif)
    assert _pixels(buffer.getvalue())[:, 0, 0].tolist() == [*reversed(_EXPECTED.round())]


def test_files_tell_their_depth(tmp_path: Path) -> None:
    contents = {"rgb.png": _png(_ramp(3, "u2")), "grey.tif": _tiff(_ramp(1, "u2"), "<")}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (9, 9)).save(tmp_path / "plain.png")
    five_six_five = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 66 + 8, 0, 0, 66, 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0)
    (tmp_path / "small.bmp").write_bytes(five_six_five + struct.pack("<III", 0xF800, 0x7E0, 0x1F) + bytes(8))
    found = {file.path.name: (file.error, file.is_deep) for file in decode_files(sorted(tmp_path.iterdir()))}
    assert found == {
        "grey.tif": (None, True), "plain.png": (None, False), "rgb.png": (None, True), "small.bmp": (None, False),
    }  # fmt: skip


def test_deep_colours_in_planes_are_refused_and_not_read_as_noise() -> None:
    with pytest.raises(ValueError, match="each in a plane of its own, are not read"):
        _pixels(_tiff(_ramp(3, "u2"), "<", planes=2))
    assert _pixels(_tiff(_ramp(1, "u1"), "<", planes=2)).any()


def test_deep_grey_with_transparency_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="grey of 16 bits with transparency is not read"):
        _pixels(_png(_ramp(2, "u2")))
