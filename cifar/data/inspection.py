"""`cifar data`: what a data set holds, what is wrong with it, and a look at it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from prettytable import PrettyTable
from tqdm import tqdm

from cifar.console import plain_table
from cifar.data import datasets, near_duplicates, sources
from cifar.data.balance import is_uneven
from cifar.data.datasets import Dataset
from cifar.data.images import SIZE, decode_files
from cifar.data.leaks import leaks
from cifar.errors import RequestError
from cifar.system import places
from cifar.system.files import new_file, refuse_to_replace

_SHOWN = 10  # images per class in the grid
_NAMED = 3  # images per finding
_ZOOM = 2


@dataclass(frozen=True)
class File:
    """A file that should be an image; its width and height are None where it is none."""

    name: str
    size: tuple[int, int] | None


@dataclass(frozen=True)
class DataImage:
    """An image of a data set: its part and class, its name for a user, and a digest of its pixels."""

    part: sources.Part
    label: int
    name: str
    pixels: bytes


def describe(data_name: str, preview: Path | None, force: bool) -> int:
    """Print counts and findings, and write the grid; returns 1 where something should be looked at, else 0."""
    if preview:
        refuse_to_replace(preview, force)
    if preview and Image.registered_extensions().get(preview.suffix.lower()) not in Image.SAVE:
        raise RequestError(f"--preview must end like a picture, as in grid.png, got {str(preview)!r}")
    train, test = datasets.load(data_name), datasets.load_test(data_name)
    print(_counts(train, test))
    print(_guessing(train))
    if together := kept_together(train):
        print(together)
    findings = list(find(data_name, train, test))
    print("\n".join(findings) or "nothing is wrong with the pictures")
    if preview:
        with new_file(preview) as temporary:
            grid(train).save(temporary, format=Image.registered_extensions()[preview.suffix.lower()])
        print(f"pictures of each class: {preview}")
    return int(bool(findings))


def _counts(train: Dataset, test: Dataset) -> PrettyTable:
    validated = np.bincount(train.labels[datasets.split(train).val].numpy(), minlength=len(train.classes))
    table = plain_table(["class", "to train on", "to validate on", "to test on"])
    in_train = np.bincount(train.labels.numpy(), minlength=len(train.classes))
    in_test = np.bincount(test.labels.numpy(), minlength=len(train.classes))
    for name, everything, held_out, tested in zip(train.classes, in_train, validated, in_test, strict=True):
        table.add_row([name, everything - held_out, held_out, tested])
    table.add_row(["all", len(train.labels) - validated.sum(), validated.sum(), len(test.labels)])
    return table


def kept_together(train: Dataset) -> str | None:
    """How many near-duplicates the split keeps on one side; None where there are none."""
    sizes = np.bincount(train.groups) if train.groups is not None else np.ones(1)
    if not np.any(sizes > 1):
        return None
    number = f"{sizes[sizes > 1].sum()} training pictures nearly equal others, in {np.sum(sizes > 1)} groups"
    return f"{number}: the split into pictures to train and to validate on keeps each group together"


def _guessing(train: Dataset) -> str:
    """What all accuracies are to be measured by."""
    validated = np.bincount(train.labels[datasets.split(train).val].numpy(), minlength=len(train.classes))
    largest = train.classes[int(validated.argmax())]
    share = validated.max() / validated.sum()
    text = f"guessing the largest class, {largest}, would get {share:.1%} of the images to validate on"
    if not is_uneven(share, len(train.classes)):
        return text
    return f"{text}: --metric balanced_accuracy makes a search count each class alike"


def find(data_name: str, train: Dataset, test: Dataset) -> Iterator[str]:
    """A line for each thing that makes results worse, or look better than they are."""
    files = _examine(data_name)
    broken = [file.name for file in files if file.size is None]
    small = [file.name for file in files if file.size and min(file.size) < SIZE]
    if broken:
        yield f"{len(broken)} files are no readable pictures and are left out: {_some(broken)}"
    if small:
        yield f"{len(small)} pictures are smaller than {SIZE} x {SIZE}: {_some(small)}"
    yield from _duplicates(_same_pixels([*_data_images("train", train), *_data_images("test", test)]))
    yield from leaks(train, test)
    if data_name == "cifar10":
        yield from _unsplit(train)


def _unsplit(train: Dataset) -> Iterator[str]:
    """Of data whose split is known to all, and keeps no groups together."""
    splits = datasets.split(train)
    found = near_duplicates.across(train.images[splits.val], train.images[splits.train])
    if len(found):
        number = len(np.unique(found[:, 0]))
        yield f"{number} of the {len(splits.val)} pictures to validate on nearly equal pictures to train on"


def _duplicates(groups: Sequence[Sequence[DataImage]]) -> Iterator[str]:
    parts = [[image for image in group if image.part == part] for group in groups for part in ("train", "test")]
    copies = [images[1:] for images in parts if len(images) > 1]
    if copies:
        yield (
            f"{sum(map(len, copies))} pictures are exact copies of others in the same part: "
            f"{_some([copy.name for some in copies for copy in some])}"
        )
    contradictions = [some for some in groups if len({image.label for image in some}) > 1]
    if contradictions:
        names = [" = ".join(image.name for image in some) for some in contradictions]
        yield f"{len(contradictions)} pictures stand in more than one class: {_some(names)}"


def _same_pixels(images: Iterable[DataImage]) -> list[list[DataImage]]:
    """Groups of images whose pixels are equal as the network sees them."""
    seen: dict[bytes, list[DataImage]] = defaultdict(list)
    for image in images:
        seen[image.pixels].append(image)
    return [group for group in seen.values() if len(group) > 1]


def _data_images(part: sources.Part, dataset: Dataset) -> Iterator[DataImage]:
    for name, label, pixels in zip(_names(part, dataset), dataset.labels.tolist(), dataset.digests(), strict=True):
        yield DataImage(part, label, name, pixels)


def _names(part: sources.Part, dataset: Dataset) -> Sequence[str]:
    return dataset.names or [f"{part} picture {number}" for number in range(len(dataset.labels))]


def _examine(data_name: str) -> list[File]:
    """All files of a folder; of data that are no folder, none."""
    source = sources.parse(data_name, places.cache() / "download")
    if not isinstance(source, sources.Folder):
        return []
    paths = source.files()
    decoded = tqdm(decode_files(paths), "examining", len(paths), disable=None, unit=" images")
    return [File(str(file.path.relative_to(source.directory)), file.size) for file in decoded]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")


def grid(dataset: Dataset) -> Image.Image:
    """The first images of each class, a row per class with its name."""
    font = ImageFont.load_default(size=14)
    margin = 10 + max(int(font.getlength(name)) for name in dataset.classes)
    side = SIZE * _ZOOM
    sheet = Image.new("RGB", (margin + _SHOWN * side, len(dataset.classes) * side), "white")
    draw = ImageDraw.Draw(sheet)
    for row, name in enumerate(dataset.classes):
        draw.text((5, row * side + side // 2 - 8), name, fill="black", font=font)
        for column, number in enumerate((dataset.labels == row).nonzero().flatten()[:_SHOWN].tolist()):
            image = Image.fromarray(dataset.images[number].permute(1, 2, 0).numpy())
            sheet.paste(image.resize((side, side), Image.Resampling.NEAREST), (margin + column * side, row * side))
    return sheet
