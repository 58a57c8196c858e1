"""`cifar data`: what a data set holds, what is wrong with it, and a look at it."""

from __future__ import annotations

import math
import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from prettytable import PrettyTable
from tqdm import tqdm

from cifar.console import plain_table, say_next
from cifar.data import datasets, near_duplicates, sources
from cifar.data.balance import is_uneven
from cifar.data.datasets import Dataset
from cifar.data.decoded import Part
from cifar.data.folder import Folder
from cifar.data.folder_parts import Share, share_of
from cifar.data.holdout import TEST_SHARE
from cifar.data.images import DecodedFile, decode_files
from cifar.data.leaks import crowd, leaks
from cifar.data.preview import grid, refuse_unfit, save
from cifar.data.sizes import LARGE_SIZE, SIZE

_NAMED = 3  # images per finding
_DETAILED = 4  # times as many pixels a side as networks see
_NINETY_FIVE, _TYPICAL = 1.96, 0.7  # normal quantile, accuracy


@dataclass(frozen=True)
class DataImage:
    """An image of a data set: its part and class, its name for a user, and a digest of its pixels."""

    part: Share
    label: int
    name: str
    pixels: bytes


def describe(data_name: str, preview: Path | None, force: bool) -> int:
    """Print counts and findings, and write the grid; returns 1 where something should be looked at, else 0."""
    if preview:
        refuse_unfit(preview, "--preview", force)
    train, test = datasets.load(data_name), datasets.load_test(data_name)
    folder = sources.folder_of(data_name)
    files = _examined(folder) if folder else []
    if folder:
        print(understood(folder))
        print(_sizes(files))
    print(_counts(train, test))
    print(_guessing(train))
    print(telling_apart(train))
    for hint in filter(None, (kept_together(train), mirrored(train))):
        print(hint)
    findings = [*(_of_folder(folder, files) if folder else ()), *find(data_name, train, test)]
    print("\n".join(findings) or "nothing is wrong with the pictures")
    if preview:
        sheet, explained = grid(train)
        save(sheet, preview)
        print("\n".join([f"pictures of each class: {preview}", *explained]))
    _say_next(data_name)
    return int(bool(findings))


def _say_next(data_name: str) -> None:
    data = f"--data {shlex.quote(data_name)}"
    say_next(
        [
            (f"python trial.py {data}", "one network by the defaults: a minute"),
            (f"cifar fit {data} --time-limit 30m", "the best network that 30 minutes give, and how good it is"),
            (f"cifar search {data}", "a search with NNI's web page; it says how long it takes"),
        ]
    )


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
    groups = "1 group" if np.sum(sizes > 1) == 1 else f"{np.sum(sizes > 1)} groups"
    number = f"{sizes[sizes > 1].sum()} training pictures nearly equal others, in {groups}"
    if train.validation is not None:
        return number  # the split is their owner's
    return f"{number}: the split into pictures to train and to validate on keeps each group together"


def _guessing(train: Dataset) -> str:
    """What all accuracies are to be measured by."""
    validated = np.bincount(train.labels[datasets.split(train).val].numpy(), minlength=len(train.classes))
    largest = train.classes[int(validated.argmax())]
    share = validated.max() / validated.sum()
    # Few images to validate on are uneven by chance.
    of_all = float(np.bincount(train.labels.numpy()).max()) / len(train.labels)
    text = f"guessing the largest class, {largest}, would get {share:.1%} of the images to validate on"
    if not is_uneven(of_all, len(train.classes)):
        return text
    return f"{text}: --metric balanced_accuracy makes a search count each class alike"


def telling_apart(train: Dataset) -> str:
    """How many points apart two trials must be, at least: few pictures cannot rank them."""
    val = datasets.split(train).val
    different = len(np.unique(train.groups[val])) if train.groups is not None else len(val)
    points = 100 * _NINETY_FIVE * math.sqrt(2 * _TYPICAL * (1 - _TYPICAL) / different)
    known = f", {different:,} of them different" if different < len(val) else ""
    return f"with {len(val):,} images to validate on{known}, a difference below {points:.1f} points may be luck"


def mirrored(train: Dataset) -> str | None:
    """A hint where mirror images are likely to be of no class; None where they are not."""
    last_words = [re.split(r"[\W_]+", name.strip())[-1].casefold() for name in train.classes]
    alike = sum((word.isalpha() and len(word) == 1 and not _is_a_word(word)) or word.isdecimal() for word in last_words)
    if train.name != "digits" and alike >= max(2, len(train.classes) / 2):
        return "most classes look like letters or numbers, which mirror images are not: train with --no-flip"
    if {"left", "right"} <= set(last_words):
        return "left becomes right in a mirror image: train with --no-flip"
    return None


def _is_a_word(letter: str) -> bool:
    """In Chinese."""
    return unicodedata.name(letter, "").startswith("CJK")


def understood(folder: Folder) -> str:
    """How a folder was read, and what its pictures are for."""
    layout, held_out = folder.layout, []
    if "val" not in layout.shares:
        held_out.append(f"{datasets.VAL_SHARE:.0%} of each class to validate on")
    if "test" not in layout.shares:
        held_out.append(f"{TEST_SHARE:.0%} of each class to test on")
    return layout.understood + (f"; held out: {' and '.join(held_out)}" if held_out else "")


def find(data_name: str, train: Dataset, test: Dataset) -> Iterator[str]:
    """A line for each thing that makes results worse, or look better than they are."""
    yield from _of_classes(train, test)
    yield from _duplicates(_same_pixels([*_data_images("train", train), *_data_images("test", test)]))
    yield from leaks(train, test)
    if data_name == "cifar10" or train.validation is not None:
        yield from _unsplit(train)
    yield from _copies(train)


def _examined(folder: Folder) -> list[DecodedFile]:
    paths = [picture.path for picture in folder.layout.pictures]
    return list(tqdm(decode_files(paths), "examining", len(paths), disable=None, unit=" images"))


def _sizes(files: Sequence[DecodedFile]) -> str:
    """How large the pictures are, and whether networks would see more of them."""
    sizes = sorted((file.size for file in files if file.size), key=lambda size: size[0] * size[1])
    if not sizes:
        return "no picture can be read"
    smallest, middle, largest = ("{} x {}".format(*sizes[place]) for place in (0, len(sizes) // 2, -1))
    text = f"pictures of {smallest} pixels" if smallest == largest else f"pictures of {smallest} to {largest} pixels"
    text += f", half of them {middle} or more" if len({smallest, middle, largest}) > 1 else ""
    if min(sizes[len(sizes) // 2]) < _DETAILED * SIZE:
        return text
    return f"{text}: networks see {SIZE} x {SIZE} of them, with --size {LARGE_SIZE} more"


def _of_folder(folder: Folder, files: Sequence[DecodedFile]) -> Iterator[str]:
    yield from folder.why_left_out()
    yield from _classes_within(folder)
    names = {file.path: str(file.path.relative_to(folder.directory)) for file in files}
    broken = defaultdict[str, list[str]](list)
    for file in files:
        if file.error:
            broken[str(file.error)].append(names[file.path])
    small = [names[file.path] for file in files if file.size and min(file.size) < SIZE]
    deep = [names[file.path] for file in files if file.is_deep]
    for why, some in broken.items():
        yield f"left out, no readable picture ({why}): {_some(some)}"
    if small:
        yield f"smaller than {SIZE} x {SIZE}: {_some(small)}"
    if deep:
        yield f"more than 8 bits, each scaled from its darkest to its brightest pixel: {_some(deep)}"


def _classes_within(folder: Folder) -> Iterator[str]:
    """Where folders in the class folders may be the classes: fold1/cat, fold2/cat, or Flowers/rose beside Examples."""
    inner = defaultdict[str, set[str]](set)
    for picture in folder.layout.of("train"):
        name, parents = folder.layout.classes[picture.label], [parent.name for parent in picture.path.parents]
        if name in parents:
            inner[name].add(parents[parents.index(name) - 1] if parents[0] != name else "")
    common = set.intersection(*inner.values()) - {""} if len(inner) > 1 else set()
    if len(common) > 1:
        yield (
            f"each class, {_some(sorted(inner))}, holds folders {_some(sorted(common))}: if these are the classes, put "
            "the pictures of each together; if they are parts, call them train, val and test"
        )
        return
    divided = [name for name, folders in inner.items() if len(folders) > 1 and "" not in folders]
    if divided and any(folders == {""} for folders in inner.values()):
        yield (
            f"the class {divided[0]} holds folders, {_some(sorted(inner[divided[0]]))}, and others hold pictures: if "
            "these are the classes, name the folder in which they lie"
        )


def _of_classes(train: Dataset, test: Dataset) -> Iterator[str]:
    spellings = defaultdict[str, list[str]](list)
    for name in train.classes:
        spellings[name.casefold()].append(name)
    for names in spellings.values():
        if len(names) > 1:
            yield f"the classes {' and '.join(names)} differ in case alone"
    parts = [share_of(re.split(r"[\W_]+", name)[0]) for name in train.classes]
    if all(parts) and len(set(parts)) > 1:
        yield (
            f"the classes, {_some(train.classes)}, begin with parts: make folders train/cat and test/cat of train_cat "
            "and test_cat"
        )
    for use, labels in (("validate", train.labels[datasets.split(train).val]), ("test", test.labels)):
        counts = np.bincount(labels.numpy(), minlength=len(train.classes))
        if missing := [name for name, count in zip(train.classes, counts, strict=True) if not count]:
            yield f"no picture to {use} on is of the classes {', '.join(missing)}"


def _copies(train: Dataset) -> Iterator[str]:
    """Where most pictures are others once more, recoloured or compressed: they teach as little as they tell."""
    different = len(np.unique(train.groups)) if train.groups is not None else len(train.labels)
    if different < len(train.labels) / 2:
        yield f"of {len(train.labels)} pictures {different} are different, the others nearly equal one of them"


def _unsplit(train: Dataset) -> Iterator[str]:
    """Of data whose split is their owner's, and keeps no groups together."""
    splits = datasets.split(train)
    found = near_duplicates.across(train.images[splits.val], train.images[splits.train])
    if len(found.pairs):
        number, crowded = len(np.unique(found.pairs[:, 0])), crowd(found.crowded)
        yield f"{number} of the {len(splits.val)} pictures to validate on nearly equal pictures to train on{crowded}"


def _duplicates(groups: Sequence[Sequence[DataImage]]) -> Iterator[str]:
    parts = [[image for image in group if image.part == part] for group in groups for part in ("train", "val", "test")]
    copies = [images[1:] for images in parts if len(images) > 1]
    if copies:
        names = [copy.name for some in copies for copy in some]
        yield f"exact copies of others in the same part: {_some(names)}"
    contradictions = [some for some in groups if len({image.label for image in some}) > 1]
    if contradictions:
        names = [" = ".join(_one_of_each_class(some)) for some in contradictions]
        yield f"in more than one class: {_some(names)}"


def _one_of_each_class(images: Sequence[DataImage]) -> list[str]:
    return [*{image.label: image.name for image in images}.values()]


def _same_pixels(images: Iterable[DataImage]) -> list[list[DataImage]]:
    """Groups of images whose pixels are equal as the network sees them."""
    seen: dict[bytes, list[DataImage]] = defaultdict(list)
    for image in images:
        seen[image.pixels].append(image)
    return [group for group in seen.values() if len(group) > 1]


def _data_images(part: Part, dataset: Dataset) -> Iterator[DataImage]:
    own = dataset.validation.tolist() if dataset.validation is not None else [False] * len(dataset.labels)
    known = zip(_names(part, dataset), dataset.labels.tolist(), dataset.digests(), own, strict=True)
    for name, label, pixels, is_validation in known:
        yield DataImage("val" if is_validation else part, label, name, pixels)


def _names(part: Part, dataset: Dataset) -> Sequence[str]:
    return dataset.names or [f"{part} picture {number}" for number in range(len(dataset.labels))]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" ... ({len(names):,} in all)" if len(names) > _NAMED else "")
