from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeFolder
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images
from torch import Tensor

from cifar.data import datasets, near_duplicates
from cifar.data.inspection import describe, kept_together
from cifar.data.leaks import leaks
from cifar.system import places

SIDE = 40  # pixels of a scene, of which a picture shows 32


@pytest.fixture(scope="module")
def scenes() -> list[Image.Image]:
    """Sixty parts of two photographs, each another motif, those with most in them first: a blue sky is any sky."""
    found = []
    for photograph in load_sample_images().images:
        image = Image.fromarray(photograph).resize((320, 240))
        for left in range(0, 320, SIDE):
            for top in range(0, 160, SIDE):
                found.append(image.crop((left, top, left + SIDE, top + SIDE)))
    return sorted(found, key=lambda scene: -float(np.asarray(scene.convert("L")).std()))[:60]


def shot(scene: Image.Image, right: int = 4, down: int = 4) -> Image.Image:
    return scene.crop((right, down, right + 32, down + 32))


def compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def pixels(images: list[Image.Image]) -> Tensor:
    arrays: list[NDArray[np.uint8]] = [np.asarray(image) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def reddened(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.asarray(image) * [1.0, 0.7, 0.6]).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "moved": lambda scene: shot(scene, 6, 3),
    "compressed": lambda scene: compressed(shot(scene), 40),
    "brighter": lambda scene: ImageEnhance.Brightness(shot(scene)).enhance(1.3),
    "grey": lambda scene: shot(scene).convert("L").convert("RGB"),
    "red": lambda scene: reddened(shot(scene)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_shot_and_its_changed_copy_are_near_duplicates(scenes: list[Image.Image], change: str) -> None:
    copies = [CHANGES[change](scene) for scene in scenes[:20]]
    found = near_duplicates.across(pixels(copies), pixels([shot(scene) for scene in scenes])).pairs
    right = {(int(a), int(b)) for a, b in found if a == b}
    assert len(right) >= 18
    assert len(found) - len(right) <= 1


def test_different_motifs_are_alone_in_their_groups(scenes: list[Image.Image]) -> None:
    numbers = near_duplicates.groups(pixels([shot(scene) for scene in scenes]))
    assert len(np.unique(numbers)) >= 58


def test_a_group_holds_all_shots_of_a_motif(scenes: list[Image.Image]) -> None:
    shots = [shot(scene, right) for scene in scenes[:10] for right in (2, 4, 6)]
    numbers = near_duplicates.groups(pixels([*shots, *map(shot, scenes[10:])]))
    for motif in range(10):
        assert len(set(numbers[3 * motif : 3 * motif + 3])) == 1


def test_of_drawings_that_all_look_alike_only_exact_copies_count() -> None:
    digits = datasets.load("digits")
    ones = digits.images[digits.labels == 1]
    numbers = near_duplicates.groups(torch.cat([ones, ones[:3]]))
    assert list(numbers[:3]) == list(numbers[-3:])
    assert len(np.unique(numbers)) >= 0.8 * len(ones)


def test_pictures_of_one_colour_do_not_disturb() -> None:
    black, white = torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    assert len(near_duplicates.groups(torch.cat([black, white]))) == 3


def test_a_folders_bursts_stay_on_one_side_of_each_split(
    scenes: list[Image.Image], make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty motifs in bursts of three, in a folder without test pictures of its own."""
    folder = make_folder({"a": 60, "b": 60})
    for number, scene in enumerate(scenes[:40]):
        for burst in range(3):
            shot(scene, 3 + burst).save(folder / "ab"[number % 2] / f"{3 * (number // 2) + burst:03}.png")
    train, test = datasets.load(str(folder)), datasets.load_test(str(folder))
    splits = datasets.split(train)

    def motifs(names: list[str]) -> set[tuple[str, int]]:
        return {(name[0], int(name[2:5]) // 3) for name in names}

    parts = [
        motifs([train.names[number] for number in splits.train]),
        motifs([train.names[number] for number in splits.val]),
        motifs(list(test.names)),
    ]
    assert sum(map(len, parts)) <= 42  # of 40, had all been found
    assert all(parts)
    assert len(test.names) >= 20
    told = kept_together(train)
    assert told is not None
    assert "keeps each group together" in told
    assert describe(str(folder), None, force=False) == 1
    out = capsys.readouterr().out
    assert told in out
    found = re.search(r"of \d+ pictures (\d+) are different, the others nearly equal one of them", out)
    assert found is not None
    assert int(found[1]) < 40
    ranked = re.search(r"with (\d+) images to validate on, (\d+) of them different, a difference below ([\d.]+) ", out)
    assert ranked is not None
    assert 2 * int(ranked[2]) < int(ranked[1])
    assert ranked[3] == f"{196 * (2 * 0.7 * 0.3 / int(ranked[2])) ** 0.5:.1f}"


def test_near_duplicates_on_both_sides_are_told(
    scenes: list[Image.Image], make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_folder({"train/a": 10, "train/b": 10, "test/a": 5, "test/b": 5})
    shot(scenes[0], 4).save(folder / "train" / "a" / "000.png")
    compressed(shot(scenes[0], 5), 60).save(folder / "test" / "a" / "003.png")
    shutil.copy(folder / "train" / "b" / "002.png", folder / "test" / "b" / "copy.png")
    assert describe(str(folder), None, force=False) == 1
    out = capsys.readouterr().out
    exact, near = leaks(datasets.load(str(folder)), datasets.load_test(str(folder)))
    assert exact in out
    assert near in out
    assert exact.startswith("1 of the 11 test pictures are among the training pictures too")
    assert exact.endswith(": test/b/copy.png = train/b/002.png")
    assert near.startswith("1 of the 11 test pictures nearly equal training pictures")


def test_a_comparison_is_kept_and_made_again_where_it_is_damaged(
    scenes: list[Image.Image], make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder({"train/a": 10, "train/b": 10, "test/a": 5, "test/b": 5})
    shot(scenes[0], 4).save(folder / "train" / "a" / "000.png")
    compressed(shot(scenes[0], 5), 60).save(folder / "test" / "a" / "003.png")
    train, test = datasets.load(str(folder)), datasets.load_test(str(folder))
    compared, really = list[int](), near_duplicates.across

    def counted(*images: Tensor) -> near_duplicates.Across:
        compared.append(1)
        return really(*images)

    monkeypatch.setattr(near_duplicates, "across", counted)
    first = [*leaks(train, test)]
    assert [*leaks(train, test)] == first
    assert len(compared) == 1
    for path in (places.cache() / "compared").iterdir():
        path.write_text("{")
    assert [*leaks(train, test)] == first
    assert len(compared) == 2


def test_frames_of_a_film_are_counted_beside_near_duplicates(
    scenes: list[Image.Image], make_folder: MakeFolder
) -> None:
    """More that hang together may be drawings, and are named as that."""
    folder = make_folder({"train/a": 22, "train/b": 10, "test/a": 22, "test/b": 5})
    for number in range(20):
        compressed(scenes[0], 40 + number).save(folder / "train/a" / f"{number:03}.png")
        compressed(scenes[0], 70 + number).save(folder / "test/a" / f"{number:03}.png")
    (alone,) = near_duplicates.across(*two_sides(folder)).pairs.tolist() or [None]
    assert alone is None
    assert near_duplicates.across(*two_sides(folder)).crowded == 20
    shot(scenes[1], 4).save(folder / "train/b/000.png")
    compressed(shot(scenes[1], 5), 60).save(folder / "test/b/003.png")
    told = [*leaks(datasets.load(str(folder)), datasets.load_test(str(folder)))]
    assert "1 of the 27 test pictures nearly equal training pictures (20 more are like more than 30, as" in told[-1]


def two_sides(folder: Path) -> tuple[Tensor, Tensor]:
    return datasets.load_test(str(folder)).images, datasets.load(str(folder)).images
