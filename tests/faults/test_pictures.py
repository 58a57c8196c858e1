"""Folders of pictures as people have them, and what may happen to them: no file breaks a search or changes its data."""

from __future__ import annotations

import os
import re
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeFolder, Record
from experiments import Search, Start, change_config, nothing_is_left
from PIL import Image

from cifar.data import datasets

NAMES = ["naïve", "写真", "صورة", "🐈", "a\nb", "tab\t", "-rf *", "$(touch owned)", "'"]
STRANGE_BYTES = b"\xff\xfe.png"  # no UTF-8


def bomb(path: Path, side: int = 40_000) -> None:
    """A PNG of a few hundred kilobytes that unpacks to gigabytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compressobj(9)
    pixels = b"".join(rows.compress(bytes(1 + 3 * side)) for _ in range(1000)) + rows.flush()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


def spoil(folder: Path) -> None:
    """Put into a class folder what goes wrong in class folders."""
    bomb(folder / "bomb.png")
    (folder / "empty.png").touch()
    (folder / "half.png").write_bytes((folder / "000.png").read_bytes()[:500])
    (folder / "notes.txt").write_text("no picture")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "around").symlink_to(folder.parent)
    (folder / "nowhere.png").symlink_to("/nonexistent/picture.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "nested").mkdir()


@pytest.fixture
def messy(make_folder: MakeFolder) -> Path:
    """Three classes of 60 pictures, one with a strange name, all with strange files in them."""
    folder = make_folder({"cat": 60, "dog": 60, "poule à l'eau\n🐔": 60}, name="my pictures")
    for class_folder in folder.iterdir():
        pixels = (class_folder / "000.png").read_bytes()
        for name in NAMES:
            (class_folder / f"{name}.png").write_bytes(pixels)
        Path(os.fsdecode(os.fsencode(class_folder) + b"/" + STRANGE_BYTES)).write_bytes(pixels)
    spoil(folder / "cat")
    return folder


@pytest.fixture
def folder_search(search: Start, config_path: Path) -> Callable[[Path], Search]:
    change_config(config_path, trialCommand="python trial.py --epochs 2")
    return lambda folder: search("--data", str(folder), "--max-trials", "4")


@pytest.mark.slow
def test_a_search_goes_on_whatever_becomes_of_its_folder(
    folder_search: Callable[[Path], Search], search: Start, messy: Path, tmp_path: Path, record: Record
) -> None:
    one = folder_search(messy)
    one.wait_until_started(1)
    shutil.rmtree(messy / "dog")  # a whole class
    (messy / "cat" / "000.png").unlink()
    assert one.wait(180) == 0, one.err
    assert "4 trials: 4 ok" in one.out
    trials = one.trials()
    assert len({trial.data["fingerprint"] for trial in trials}) == 1
    assert {trial.data["classes"] for trial in trials} == {3}
    assert "left out, not a file: 4 files in cat\n" in one.err
    assert "left out, no picture by its name: cat/notes.txt\n" in one.err
    broken = ("bomb.png", "empty.png", "half.png")
    named = [name for name in broken if re.search(f"no readable images: .*{messy}/cat/{name}", one.err)]
    assert len(named) >= 2  # the others are among the test images, which nobody has read
    refused = search("--resume", one.id, "--max-trials", "6")
    assert refused.wait() == 2
    assert "the data have changed since trial 0: results on them would not compare" in refused.err
    assert not list(tmp_path.rglob("owned"))
    assert nothing_is_left(tmp_path)
    record(1)


@pytest.mark.slow
def test_two_searches_that_start_at_once_decode_a_folder_once(
    folder_search: Callable[[Path], Search],
    make_folder: MakeFolder,
    tmp_path: Path,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CIFAR_CACHE", str(tmp_path / "cache"))
    folder = make_folder({"cat": 300, "dog": 300})
    (folder / "cat" / "broken.png").touch()
    searches = [folder_search(folder) for _ in range(2)]
    assert [one.wait(180) for one in searches] == [0, 0], [one.err for one in searches]
    decoded = [one for one in searches if ", no readable images: " in one.err]
    assert len(decoded) == 1  # the other has found the decoded images
    fingerprints = {trial.data["fingerprint"] for one in searches for trial in one.trials()}
    assert len(fingerprints) == 1
    record(1)


@pytest.mark.slow
def test_a_hundred_thousand_pictures_are_decoded_once_and_then_mapped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: Record
) -> None:
    monkeypatch.setenv("CIFAR_CACHE", str(tmp_path / "cache"))
    random, folder = np.random.RandomState(0), tmp_path / "many"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(100):
            pixels = random.randint(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:05}.png")
        for number in range(100, 50_000):
            os.link(folder / name / f"{number % 100:05}.png", folder / name / f"{number:05}.png")
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        dataset = datasets.load(str(folder))
        seconds.append(time.perf_counter() - began)
    assert len(dataset.labels) == 80_000
    record(1, f"decoded in {seconds[0]:.0f} s, found again in {seconds[1]:.1f} s")
