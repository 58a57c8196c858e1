"""Which pictures of a folder belong to which class and part, however their owner has laid them out."""

from __future__ import annotations

import csv
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cifar.data.folder_tree import Node, scan
from cifar.errors import RequestError

Share = Literal["train", "val", "test"]

TABLE = "labels.csv"
NO_PICTURES, IN_NO_CLASS = "a folder without pictures", "in no class folder"
_SHARES: dict[str, Share] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "tests", "testing"), "test"),
}  # fmt: skip
_BESIDE_SHARES = {"set", "images", "imgs", "data", "split", "seg"}  # as in training_set
_CONTAINERS = {"data", "dataset", "datasets", "images", "imgs", "img", "pictures", "photos"}
_FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "id", "name")
_LABEL_COLUMNS = ("label", "class", "category", "target")
_NAMED = 5  # classes in a sentence
_MOST_BEGINNINGS = 50  # of names, that are likely to be classes


@dataclass(frozen=True)
class Picture:
    path: Path
    label: int
    share: Share


@dataclass(frozen=True)
class LeftOut:
    """Files that are not used: the place of them all, or of the only one, and why."""

    path: Path
    files: int
    reason: str


@dataclass(frozen=True)
class Layout:
    """Pictures sorted by class, part and path; `understood` says how the folder was read."""

    classes: tuple[str, ...]
    pictures: list[Picture]
    left_out: list[LeftOut]
    understood: str

    def of(self, *shares: Share) -> list[Picture]:
        return [picture for picture in self.pictures if picture.share in shares]

    @property
    def shares(self) -> set[Share]:
        return {picture.share for picture in self.pictures}


def read(directory: Path) -> Layout:
    """RequestError where the pictures of a folder have no classes, or fewer than two."""
    root = scan(directory)
    if not root.every():
        raise RequestError(f"{directory} holds no pictures")
    while not (root.path / TABLE).is_file() and (inner := _only_folder(root)):
        root = inner
    if (root.path / TABLE).is_file():
        return _by_table(root)
    return _by_folders(directory, root)


def _only_folder(node: Node) -> Node | None:
    """The folder in which all pictures lie, where there are folders in it: archives often hold one."""
    filled = node.filled
    return filled[0] if len(filled) == 1 and not node.pictures and filled[0].filled else None


def _share_of(name: str) -> Share | None:
    """Which part a folder of this name holds: train, Training_Set, val2017, seg_test."""
    words = {word for word in re.split(r"[^a-z]+", name.casefold()) if word} - _BESIDE_SHARES
    return _SHARES.get(words.pop()) if len(words) == 1 else None


def _by_folders(directory: Path, root: Node) -> Layout:
    roots, left_out = _roots(root)
    train = roots["train"]
    if train is root and len(roots) == 1:
        _refuse_containers(root)
    classes = _classes(train)
    pictures = list[Picture]()
    for share, node in roots.items():
        left_out += [*_in_no_class(node, roots)]
        for folder, label in _labelled(node, classes, roots):
            pictures += [Picture(path, label, share) for path in folder.every()]
            left_out += [LeftOut(path, 1, _why_strange(path)) for some in folder.walk() for path in some.strangers]
    pictures.sort(key=lambda picture: (picture.label, picture.share != "train", picture.path))
    return Layout(classes, pictures, left_out, _understood(directory, roots, classes))


def _roots(root: Node) -> tuple[dict[Share, Node], list[LeftOut]]:
    """The folders whose folders are classes, by part, and what lies beside them."""
    named = [(share, folder) for folder in root.folders if folder.filled and (share := _share_of(folder.path.name))]
    _refuse_doubles(root, named)
    shares = dict(named)
    others = [folder for folder in root.folders if folder not in shares.values()]
    if not shares:
        return _without_parts(root)
    inner = {share: _innermost(shares[share]) for share in ("train", "val", "test") if share in shares}
    if "train" in shares:
        return inner, _beside_parts(root, others)
    _refuse_parts_alone(root, shares, others)
    return {"train": Node(root.path, root.pictures, root.strangers, others), **inner}, []


def _refuse_doubles(root: Node, named: Sequence[tuple[Share, Node]]) -> None:
    for share, number in Counter(share for share, _ in named).items():
        if number > 1:
            names = " and ".join(folder.path.name for some, folder in named if some == share)
            raise RequestError(f"{root.path} has {number} folders of {share} images, {names}: keep one")


def _refuse_parts_alone(root: Node, shares: Mapping[Share, Node], others: Sequence[Node]) -> None:
    """Without a folder to train on, the classes may lie beside the folder of test images."""
    known = {folder.path.name.casefold() for folder in others}
    if not all(inner.path.name.casefold() in known for folder in shares.values() for inner in folder.filled):
        names = " and ".join(folder.path.name for folder in shares.values())
        raise RequestError(f"{root.path} has the folders {names}, and none to train on: name it train")


def _beside_parts(root: Node, others: Sequence[Node]) -> list[LeftOut]:
    left_out = [
        LeftOut(folder.path, len(folder.every()), _why_beside(folder))
        for folder in others
        if folder.every() or _share_of(folder.path.name)
    ]
    return left_out + ([LeftOut(root.path, len(root.pictures), IN_NO_CLASS)] if root.pictures else [])


def _without_parts(root: Node) -> tuple[dict[Share, Node], list[LeftOut]]:
    """Folders named like parts may hold pictures alone: of no class, unless `train` is one, beside buses and cars."""
    loose = [folder for folder in root.filled if _share_of(folder.path.name)]
    others = [folder for folder in root.folders if folder not in loose]
    filled = [folder for folder in others if folder.filled or folder.pictures]
    if not loose or (filled and [folder.path.name.casefold() for folder in loose] == ["train"]):
        return {"train": root}, []
    _refuse_containers(root)
    if len(filled) < 2:
        raise RequestError(_what_is_missing(root))
    left_out = [LeftOut(folder.path, len(folder.every()), IN_NO_CLASS) for folder in loose]
    return {"train": Node(root.path, root.pictures, root.strangers, others)}, left_out


def _innermost(node: Node) -> Node:
    while inner := _only_folder(node):
        node = inner
    return node


def _why_beside(folder: Node) -> str:
    if not folder.every():
        return NO_PICTURES
    if _share_of(folder.path.name):
        return IN_NO_CLASS
    return "not in the folders train, val or test"


def _why_strange(path: Path) -> str:
    return "no picture by its name" if path.is_file() else "not a file"


def _in_no_class(node: Node, roots: dict[Share, Node]) -> Iterator[LeftOut]:
    """Of the folder of a part: its own pictures, and folders without any."""
    if node.pictures:
        yield LeftOut(node.path, len(node.pictures), IN_NO_CLASS)
    for folder in node.folders:
        if folder not in node.filled and folder not in roots.values():
            files = sum(len(some.strangers) for some in folder.walk())
            yield LeftOut(folder.path, files, NO_PICTURES)


def _classes(train: Node) -> tuple[str, ...]:
    classes = tuple(sorted(folder.path.name for folder in train.filled))
    if len(classes) < 2:
        raise RequestError(_what_is_missing(train))
    return classes


def _what_is_missing(root: Node) -> str:
    """What a folder holds that has fewer than two classes, and how its pictures would get some."""
    folders = [folder.path.name for folder in root.filled]
    if not root.pictures and len(folders) == 1:
        return f"{root.path} must hold at least 2 class folders, has 1: {folders}"
    pictures = root.every()
    said = f"{root.path} holds {len(pictures)} pictures without classes"
    said += f" (in {', '.join(folders[:_NAMED])})" if folders else ""
    how = f"put those of each class into a folder of its own, or write {root.path / TABLE}: file,label"
    beginnings = {found[0] for path in pictures if (found := re.match(r"[^\W\d_]+", path.name))}
    if not 2 <= len(beginnings) <= min(_MOST_BEGINNINGS, len(pictures) // 2):
        return f"{said}; {how}"
    some = ", ".join(sorted(beginnings)[:_NAMED]) + (" ..." if len(beginnings) > _NAMED else "")
    rows = f"find . -type f ! -name '{TABLE}*' | sed -nE 's#^\\./((.*/)?([[:alpha:]]+)[^/]*)$#\\1,\\3#p'"
    command = f"(echo file,label; {rows}) > {TABLE}.new; mv {TABLE}.new {TABLE}"
    writes = f"cd {shlex.quote(str(root.path))}; {command}"
    return f"{said}; {how}. Where the names begin with the classes ({some}), this writes it: {writes}"


def _refuse_containers(root: Node) -> None:
    """A folder of class folders beside others is no class of its own."""
    filled = root.filled
    for folder in filled:
        is_container = folder.path.name.casefold() in _CONTAINERS or _share_of(folder.path.name)
        if len(filled) > 1 and is_container and len(folder.filled) > 1 and not folder.pictures:
            inner = ", ".join(some.path.name for some in folder.filled[:_NAMED])
            beside = ", ".join(some.path.name for some in filled if some is not folder)
            raise RequestError(
                f"{root.path} holds {folder.path.name} with folders of pictures ({inner}), and beside it {beside}: "
                f"did you mean {folder.path}?"
            )


def _labelled(node: Node, classes: tuple[str, ...], roots: dict[Share, Node]) -> list[tuple[Node, int]]:
    """The class folders of a part with their labels; a class may be spelled in another case than in train/."""
    exact = {name: label for label, name in enumerate(classes)}
    folded = Counter(name.casefold() for name in classes)
    loose = {name.casefold(): label for name, label in exact.items() if folded[name.casefold()] == 1}
    found = list[tuple[Node, int]]()
    unknown = list[str]()
    for folder in node.filled:
        name = folder.path.name
        label = exact.get(name, loose.get(name.casefold()))
        if label is None:
            unknown.append(name)
        else:
            found.append((folder, label))
    if unknown:
        raise RequestError(f"{node.path} has classes that {roots['train'].path} lacks: {sorted(unknown)}")
    return found


def _understood(directory: Path, roots: dict[Share, Node], classes: tuple[str, ...]) -> str:
    places = {share: str(node.path.relative_to(directory)) for share, node in roots.items()}
    if len(roots) == 1:
        place = "it" if places["train"] == "." else places["train"]
        return f"{len(classes)} classes, each a folder in {place}"
    uses = {"train": "to train on", "val": "to validate on", "test": "to test on"}
    return f"{len(classes)} classes, each a folder in " + ", ".join(
        f"{'the top folder' if place == '.' else place} ({uses[share]})" for share, place in places.items()
    )


def _by_table(root: Node) -> Layout:
    """Pictures as the table labels them; one in a folder named like a part belongs to that."""
    labels = _table(root.path / TABLE)
    paths = {str(path.relative_to(root.path)): path for path in root.every()}
    by_name = Counter(path.name for path in paths.values())
    by_stem = Counter(path.stem for path in paths.values())
    names = {path.name: path for path in paths.values() if by_name[path.name] == 1}
    names = {path.stem: path for path in paths.values() if by_stem[path.stem] == 1} | names | paths
    classes = tuple(sorted({label for _, label in labels}))
    if len(classes) < 2:
        raise RequestError(f"{root.path / TABLE} must name at least 2 classes, names {len(classes)}: {list(classes)}")
    found, missing = defaultdict[Path, set[str]](set), list[str]()
    for name, label in labels:
        if (path := names.get(name)) is None:
            missing.append(name)
        else:
            found[path].add(label)
    pictures = [
        Picture(path, classes.index(label), _share_within(path, root))
        for path, (label, *more) in found.items()
        if not more
    ]
    pictures.sort(key=lambda picture: (picture.label, picture.share != "train", picture.path))
    left_out = [LeftOut(path, 1, f"not in {TABLE}") for path in paths.values() if path not in found]
    left_out += [LeftOut(path, 1, f"with several labels in {TABLE}") for path, some in found.items() if len(some) > 1]
    if missing:
        left_out.append(LeftOut(root.path / missing[0], len(missing), f"in {TABLE}, but not there"))
    if not any(picture.share == "train" for picture in pictures):
        raise RequestError(f"{root.path / TABLE} names no picture to train on that is there: {missing[:_NAMED]}")
    return Layout(classes, pictures, left_out, f"{len(classes)} classes, as {TABLE} says")


def _share_within(path: Path, root: Node) -> Share:
    first, *rest = path.relative_to(root.path).parts
    return (_share_of(first) or "train") if rest else "train"


def _table(path: Path) -> list[tuple[str, str]]:
    """(file, label) of each row."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read as a table: {error}") from None
    delimiter = next((some for some in ",;\t" if some in text.partition("\n")[0]), ",")
    try:
        header, *rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row] or [[]]
    except csv.Error as error:
        raise RequestError(f"{path} is no table: {error}") from None
    columns = [name.strip().casefold() for name in header]
    file = next((columns.index(name) for name in _FILE_COLUMNS if name in columns), None)
    label = next((columns.index(name) for name in _LABEL_COLUMNS if name in columns), None)
    if file is None or label is None:
        raise RequestError(f"{path} must begin with a line that names its columns, file and label; it begins {header}")
    for number, row in enumerate(rows, 2):
        if len(row) <= max(file, label) or not row[label].strip():
            raise RequestError(f"{path}, line {number}, has no file and label: {row}")
    return [(row[file].strip(), row[label].strip()) for row in rows]
