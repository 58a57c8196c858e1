from __future__ import annotations

import errno
import importlib.util
import logging
import re
from io import BytesIO
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
from conftest import MakeFolder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cifar.data.folder import Folder, FolderToTest
from cifar.data.images import decode_files, to_pixels
from cifar.data.sources import Digits, absolute, parse
from cifar.errors import RequestError


def test_a_folder_with_train_and_test(make_folder: MakeFolder) -> None:
    folder = Folder(make_folder({"train/cat": 3, "train/dog": 4, "test/cat": 2, "test/dog": 1}))
    train, test = folder.decode("train"), folder.decode("test")
    assert train.classes == test.classes == ("cat", "dog")
    assert train.labels.tolist() == [0] * 3 + [1] * 4
    assert test.labels.tolist() == [0] * 2 + [1]
    assert train.images.shape == (7, 32, 32, 3)


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_without_test_images_a_fixed_stratified_part_is_cut(make_folder: MakeFolder, prefix: str) -> None:
    folder = Folder(make_folder({f"{prefix}cat": 10, f"{prefix}dog": 20}))
    train, test = folder.decode("train"), folder.decode("test")
    assert np.bincount(train.labels).tolist() == [8, 16]
    assert np.bincount(test.labels).tolist() == [2, 4]
    everything = {bytes(image) for image in [*train.images, *test.images]}
    assert len(everything) == 30
    assert np.array_equal(folder.decode("test").images, test.images)


def test_a_broken_file_is_named_skipped_and_counted(make_folder: MakeFolder, caplog: pytest.LogCaptureFixture) -> None:
    root = make_folder({"train/cat": 3, "train/dog": 3, "test/cat": 1, "test/dog": 1})
    whole = (root / "train/cat/001.png").read_bytes()
    (root / "train/cat/001.png").write_bytes(whole[: len(whole) // 2])
    (root / "train/dog/empty.jpg").touch()
    (root / "train/dog/.hidden").touch()
    with caplog.at_level(logging.WARNING):
        decoded = Folder(root).decode("train")
    assert decoded.labels.tolist() == [0, 0, 1, 1, 1]
    for path, reason in (("cat/001.png", "truncated"), ("dog/empty.jpg", "of no format that Pillow reads")):
        assert re.search(
            rf"skipped 1 of 7 files, no readable images: {root}/train/{path} \(.*{reason}.*\)", caplog.text
        )
    assert ".hidden" not in caplog.text


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train/cat": 9}, r"train must hold at least 2 class folders, has 1: \['cat'\]"),
        ({"train/cat": 9, "train/dog": 1, "test/cat": 1}, "too few readable training images: 'dog' has 1; at least 2"),
        (
            {"cat": 9, "dog": 2},
            "'dog' has 2; at least 3 are needed in each, one to train on, one to validate on, one to test on",
        ),
        ({"cat": 1, "cow": 9, "dog": 2}, "'cat' has 1, 'dog' has 2; at least 3"),
        ({"train/cat": 9, "train/dog": 0, "val/cat": 1}, "at least 2 class folders, has 1"),
        ({"train/cat": 9, "train/dog": 9, "test/cow": 1}, r"test has classes that .*/train lacks: \['cow'\]"),
    ],
)
def test_an_unfit_folder_is_refused_by_name(make_folder: MakeFolder, counts: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Folder(make_folder(counts)).decode("train")


def test_a_test_folder_without_readable_images_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 3, "train/dog": 3, "test/cat": 0, "test/dog": 0})
    (root / "test/cat/broken.png").touch()
    with pytest.raises(RequestError, match="pictures has no readable test images"):
        Folder(root).decode("test")


def test_what_is_no_file_is_named_and_counted(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 2, "train/cat/kittens": 3, "train/dog": 3, "test/cat": 1})
    (root / "train/cat/nowhere.png").symlink_to(root / "nowhere")
    (root / "train/cat/itself.png").symlink_to(root / "train/cat/itself.png")
    (root / "train/cat/kittens/around").symlink_to(root / "train")
    (root / "train/dog/notes.txt").touch()
    folder = Folder(root)
    decoded = folder.decode("train")
    assert (decoded.labels.tolist(), decoded.skipped) == ([0] * 5 + [1] * 3, 4)
    assert folder.why_left_out() == [
        "left out, not a file: 2 files in train/cat",
        "left out, not a file: train/cat/kittens/around",
        "left out, no picture by its name: train/dog/notes.txt",
    ]


def test_the_systems_trouble_is_no_broken_file(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that cannot be opened now must not be missing from the cache for ever."""

    def exhausted(path: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    folder = Folder(make_folder({"train/cat": 3, "train/dog": 3, "test/cat": 1}))
    monkeypatch.setattr(Image, "open", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        folder.decode("train")


def test_data_sets_are_found_before_folders_of_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    assert absolute("digits") == "digits"
    assert isinstance(parse("digits", tmp_path), Digits)
    assert absolute("pictures") == str(tmp_path / "pictures")
    with pytest.raises(RequestError, match="got ''"):
        parse("", tmp_path)


def test_the_key_follows_every_change_of_the_files(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 3, "train/dog": 3, "test/cat": 1, "test/dog": 1})
    keys = {Folder(root).key("train")}
    (root / "train/cat/new.png").write_bytes((root / "train/cat/000.png").read_bytes())
    keys.add(Folder(root).key("train"))
    (root / "train/cat/new.png").write_bytes((root / "train/dog/000.png").read_bytes() + b"\0")
    keys.add(Folder(root).key("train"))
    (root / "train/cat/new.png").rename(root / "train/dog/new.png")
    keys.add(Folder(root).key("train"))
    assert len(keys) == 4
    assert Folder(root).key("train") in keys


GREY = 128


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "HSV", "LAB"])
def test_any_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("L", (9, 70), GREY).convert("RGB" if mode in ("LAB", "HSV") else mode)
    pixels = to_pixels(image)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert pixels.mean() == pytest.approx(GREY, abs=2)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white(mode: str) -> None:
    buffer = BytesIO()
    if mode == "P":
        image = Image.new("P", (40, 40), 7)
        image.putpalette([10, 20, 30] * 256)
        image.save(buffer, "png", transparency=7)
    else:
        Image.new("RGBA", (40, 40), (10, 20, 30, 0)).convert(mode).save(buffer, "png")
    assert to_pixels(Image.open(buffer)).min() == 255


@pytest.mark.parametrize(("mode", "kind"), [("I", "<i4"), ("I;16", "<u2"), ("I;16B", ">u2"), ("F", "<f4")])
@pytest.mark.parametrize(("low", "high"), [(0, 4095), (1000, 1400), (0, 65535), (0, 1)])
def test_deep_pixels_go_from_the_darkest_to_the_brightest(mode: str, kind: str, low: int, high: int) -> None:
    """X-rays and microscopes use a part of their bits."""
    steps = np.linspace(low, high, 32).round().astype(kind)
    image = Image.fromarray(np.broadcast_to(steps, (32, 32)).copy())
    assert image.mode == mode
    pixels = to_pixels(image)[0, :, 0]
    expected = 255 * (steps.astype(float) - low) / (high - low)
    assert np.abs(pixels - expected).max() <= 0.5


def test_deep_pixels_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="pixels that are no numbers"):
        to_pixels(Image.new("F", (9, 9), float("nan")))
    assert to_pixels(Image.new("F", (9, 9), 0.5)).max() == 0  # all alike


def test_a_photo_is_turned_upright() -> None:
    image = Image.new("RGB", (64, 64), "black")
    image.paste("white", (0, 0, 64, 32))  # white above
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    buffer = BytesIO()
    image.save(buffer, "png", exif=exif)
    pixels = to_pixels(Image.open(buffer))
    assert (pixels[0].max(), pixels[-1].min()) == (0, 255)


def test_a_small_picture_keeps_its_pixels() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(to_pixels(Image.fromarray(pixels)), pixels)


def test_a_decompression_bomb_is_a_broken_file(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"train/cat": 3, "train/dog": 3})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 50 // 2 - 1)  # each picture now looks like one
    with pytest.raises(RequestError, match=r"has no readable train images: Image size \(2000 pixels\) exceeds limit"):
        Folder(root).decode("train")


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM"]))
def test_no_bytes_break_the_reader(content: bytes, magic: bytes) -> None:
    with NamedTemporaryFile() as file:
        file.write(magic + content)
        file.flush()
        (decoded,) = decode_files([Path(file.name)])
    assert decoded.pixels is None or decoded.pixels.shape == (32, 32, 3)
    assert (decoded.pixels is None) == (decoded.error is not None)


def test_a_folder_to_test_on_holds_nothing_back(make_folder: MakeFolder) -> None:
    flat = FolderToTest(make_folder({"cat": 5, "dog": 5}, name="flat"))
    assert len(flat.decode("test").labels) == 10
    divided = {"train/cat": 5, "train/dog": 5, "test/cat": 2, "test/dog": 3}
    assert len(FolderToTest(make_folder(divided, name="divided")).decode("test").labels) == 5


def test_heic_pictures_need_a_package_and_are_read_with_it(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 1})
    picture = root / "cat" / "000.heic"
    picture.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")  # as such files begin
    (decoded,) = decode_files([picture])
    if importlib.util.find_spec("pillow_heif") is None:
        assert str(decoded.error) == "HEIC pictures need the package pillow-heif: pip install -e '.[heic]'"
        return
    with Image.open(root / "cat" / "000.png") as image:
        image.save(picture, quality=90)
        expected = to_pixels(image).astype(int)
    (decoded,) = decode_files([picture])
    assert decoded.pixels is not None
    assert np.abs(decoded.pixels - expected).mean() < 20
