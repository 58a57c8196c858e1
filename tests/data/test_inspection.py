from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeFolder
from PIL import Image

from cifar.data import datasets, preview
from cifar.data.datasets import Dataset
from cifar.data.inspection import describe, mirrored
from cifar.errors import RequestError


@pytest.fixture
def folder(make_folder: MakeFolder) -> Path:
    """10 cats and 12 dogs to train and validate on, 3 and 3 to test on, all of noise."""
    return make_folder({"train/cat": 10, "train/dog": 12, "test/cat": 3, "test/dog": 3})


def test_counts_are_told_per_class(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert describe(str(folder), None, force=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[3:6]] == [
        ["cat", "9", "1", "3"],
        ["dog", "11", "1", "3"],
        ["all", "20", "2", "6"],
    ]
    assert lines[0].startswith("2 classes, each a folder in train (to train on), test (to test on); held out: 10% of")
    assert lines[1] == "pictures of 50 x 40 pixels"
    assert lines[7] == "with 2 images to validate on, a difference below 89.8 points may be luck"
    assert lines[-1] == "nothing is wrong with the pictures"


def test_what_is_wrong_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "train/cat/broken.png").write_bytes(b"no picture")
    Image.new("RGB", (9, 40)).save(folder / "train/cat/tiny.png")
    shutil.copy(folder / "train/cat/000.png", folder / "train/cat/copy.png")
    shutil.copy(folder / "train/cat/001.png", folder / "test/cat/leak.png")
    shutil.copy(folder / "train/cat/002.png", folder / "train/dog/wrong.png")
    assert describe(str(folder), None, force=False) == 1
    out = capsys.readouterr().out
    assert "): train/cat/broken.png\n" in out and "left out, no readable picture (" in out
    assert "smaller than 32 x 32: train/cat/tiny.png\n" in out
    assert "exact copies of others in the same part: train/" in out
    assert "1 of the 7 test pictures are among the training pictures too" in out
    assert "in more than one class: train/cat/002.png = train/dog/wrong.png\n" in out


def test_of_many_the_first_are_named_with_their_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        Image.new("RGB", (9, 40 + number)).save(folder / f"train/cat/tiny{number}.png")
    describe(str(folder), None, force=False)
    named = ", ".join(f"train/cat/tiny{number}.png" for number in range(3))
    assert f"smaller than 32 x 32: {named} ... (4 in all)\n" in capsys.readouterr().out


def test_the_grid_shows_every_class(folder: Path, tmp_path: Path) -> None:
    grid = tmp_path / "grid.png"
    describe(str(folder), grid, force=False)
    with Image.open(grid) as picture:
        width, height = picture.size
    assert height == 2 * 64
    assert width > 10 * 64
    with pytest.raises(RequestError, match="exists; --force replaces it"):
        describe(str(folder), grid, force=False)
    describe(str(folder), grid, force=True)
    with pytest.raises(RequestError, match="must end like a picture"):
        describe(str(folder), tmp_path / "grid.psd", force=False)  # which Pillow reads and cannot write
    with pytest.raises(RequestError, match="is no folder"):
        describe(str(folder), tmp_path / "nowhere" / "grid.png", force=False)


@pytest.mark.parametrize("has_fonts", [True, False])
def test_the_grid_names_classes_in_any_script(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch, has_fonts: bool
) -> None:
    if has_fonts and not (shutil.which("fc-match") and shutil.which("fc-list")):
        pytest.skip("the system has no fontconfig")
    if not has_fonts:
        monkeypatch.setattr("cifar.data.preview.shutil.which", lambda _: None)
    sheet, explained = preview.grid(datasets.load(str(make_folder({"cat": 9, "Größe": 9, "кошка\n": 9}))))
    assert sheet.height == 3 * 64
    assert explained == ([] if has_fonts else ["class 0: Größe", "class 2: кошка"])
    rows = [np.asarray(sheet)[row * 64 : row * 64 + 64, : sheet.width - 640] for row in range(3)]
    assert all((row < 128).any() for row in rows)


def test_letters_that_no_font_has_become_a_number(make_folder: MakeFolder) -> None:
    assert preview.font_with("\U0010fffe") is None


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("0", "1", "10"), True),
        (("a", "b", "ß"), True),
        (("a", "b", "del"), True),
        (("cat", "dog"), False),
        (("a", "big"), False),
        (("letter_A", "letter-b", "sign c"), True),
        (("猫", "狗", "鸟"), False),
        (("ا", "ب", "ت"), True),
        (("hand left", "hand right", "none"), True),
    ],
)
def test_letters_and_numbers_are_not_to_be_mirrored(tiny: Dataset, classes: tuple[str, ...], expected: bool) -> None:
    hint = mirrored(replace(tiny, classes=classes))
    assert (hint is not None) == expected
    assert hint is None or "--no-flip" in hint


def test_the_hint_is_told(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    describe(str(make_folder({"0": 9, "1": 9})), None, force=False)
    assert "--no-flip" in capsys.readouterr().out


def test_the_sizes_of_pictures_are_told(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder({"cat": 9, "dog": 9})
    Image.new("RGB", (20, 10)).save(root / "cat" / "small.png")
    describe(str(root), None, force=False)
    assert "pictures of 20 x 10 to 50 x 40 pixels, half of them 50 x 40 or more\n" in capsys.readouterr().out
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            image.resize((200, 300)).save(path)
    describe(str(root), None, force=False)
    out = capsys.readouterr().out
    assert "pictures of 200 x 300 pixels: networks see 32 x 32 of them, with --size 64 more\n" in out


def test_own_pictures_to_validate_on_that_are_trained_on_are_told(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder({"train/cat": 9, "train/dog": 9, "val/cat": 3, "val/dog": 3})
    shutil.copy(root / "train/cat/000.png", root / "val/cat/same.png")
    assert describe(str(root), None, force=False) == 1
    out = capsys.readouterr().out
    assert "1 of the 7 pictures to validate on nearly equal pictures to train on" in out
    assert "exact copies" not in out and "keeps each group together" not in out


def test_copies_are_told_by_the_part_in_which_they_lie(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_folder({f"{part}/{name}": 9 for part in ("train", "val", "test") for name in ("cat", "dog")})
    shutil.copy(root / "val/cat/000.png", root / "val/cat/again.png")
    shutil.copy(root / "val/cat/001.png", root / "test/cat/001.png")
    assert describe(str(root), None, force=False) == 1
    out = capsys.readouterr().out
    assert "exact copies of others in the same part: val/cat/again.png\n" in out
    told = "1 of the 18 test pictures are among the pictures to train and validate on too, so"
    assert f"{told} the test accuracy flatters: test/cat/001.png = val/cat/001.png" in out


def test_a_class_without_test_pictures_is_told(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder({"train/cat": 9, "train/dog": 9, "test/cat": 3})
    assert describe(str(root), None, force=False) == 1
    assert "no picture to test on is of the classes dog\n" in capsys.readouterr().out
