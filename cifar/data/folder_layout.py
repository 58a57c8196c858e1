"""Which pictures of a folder belong to which class and part, however their owner has laid them out."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from cifar.data.folder_advice import ARCHIVES, without_classes, without_pictures
from cifar.data.folder_parts import Share, share_of
from cifar.data.folder_table import TABLE, Names, Row, read_table, table_in
from cifar.data.folder_tree import Node, scan
from cifar.errors import RequestError

NO_PICTURES, IN_NO_CLASS = "a folder without pictures", "in no class folder"
IN_NO_PART = "not in the folders train, val or test"
_NOT_THERE = f"in {TABLE}, but not there"
_CONTAINERS = {"data", "dataset", "datasets", "images", "imgs", "img", "pictures", "photos"}
_NO_CLASSES = {"data", "dataset", "images", "imgs", "img"}
_DESCRIBING = {"", ".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".pdf", ".py"}
_NAMED = 5  # classes in a sentence


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


def read(directory: Path, to_test: bool = False) -> Layout:
    """RequestError where the pictures of a folder have no classes, or fewer than two.

    `to_test`: a folder to test on alone need not have pictures to train on.
    """
    top = scan(directory)
    if not top.every():
        raise RequestError(without_pictures(top))
    root, beside = _entered(top, "train", to_test)
    table = table_in(root)
    layout = _by_table(root, table) if table else _by_folders(directory, root)
    return replace(layout, left_out=[*beside, *layout.left_out, *_strangers(root)])


def _beside(node: Node) -> list[LeftOut]:
    """A folder's own pictures, beside the folders that are read."""
    return [LeftOut(node.path, len(node.pictures), IN_NO_CLASS)] if node.pictures else []


def _strangers(node: Node) -> list[LeftOut]:
    """Files at the top that may be meant as pictures: not those that describe them."""
    strange = [path for path in node.strangers if path.suffix.lower() not in _DESCRIBING]
    return [LeftOut(path, 1, _why_strange(path)) for path in strange]


def _entered(node: Node, part: Share, to_test: bool = False) -> tuple[Node, list[LeftOut]]:
    """The folder in which all class folders lie, for archives often hold one in another; and what lies beside it."""
    left_out = list[LeftOut]()
    while not table_in(node) and (inner := _only_folder(node, part, to_test)):
        left_out += [
            *_beside_parts(node, [folder for folder in node.folders if folder is not inner]),
            *_strangers(node),
        ]
        node = inner
    return node, left_out


def _only_folder(node: Node, part: Share, to_test: bool) -> Node | None:
    """The one folder that a folder of this part holds. Pictures to train on may be missing in it to test on alone."""
    filled = node.filled
    if len(filled) != 1 or not filled[0].filled:
        return None
    share = share_of(filled[0].path.name)
    is_alone = not any(share_of(folder.path.name) for folder in node.folders if folder is not filled[0])
    return filled[0] if share is None or (is_alone and (share == part or to_test)) else None


def _by_folders(directory: Path, root: Node) -> Layout:
    roots, left_out = _roots(root)
    train = roots["train"]
    if train is root and len(roots) == 1:
        _refuse_containers(root)
    classes = _classes(train)
    pictures = list[Picture]()
    for share, node in roots.items():
        left_out += [*_in_no_class(node, roots), *(_strangers(node) if node.path != root.path else ())]
        for folder, label in _labelled(node, classes, roots):
            parts = _parts_within(folder) if len(roots) == 1 else {}
            for part, inner in (parts or {share: folder}).items():
                pictures += [Picture(path, label, part) for path in inner.every()]
            left_out += _beside_parts_within(folder, parts) if parts else []
            left_out += [LeftOut(path, 1, _why_strange(path)) for some in folder.walk() for path in some.strangers]
    pictures.sort(key=_order)
    understood = _understood(directory, roots, classes)
    understood += ", which is divided into parts" if len(roots) < len({picture.share for picture in pictures}) else ""
    return Layout(classes, pictures, left_out, understood)


def _parts_within(folder: Node) -> dict[Share, Node]:
    """Of a class folder that holds parts: cat/train, cat/test."""
    named = [(share, inner) for inner in folder.filled if (share := share_of(inner.path.name))]
    if len({share for share, _ in named}) < 2:
        return {}
    _refuse_doubles(folder, named)
    return dict(named)


def _beside_parts_within(folder: Node, parts: Mapping[Share, Node]) -> list[LeftOut]:
    others = [inner for inner in folder.filled if inner not in parts.values()]
    own = [LeftOut(folder.path, len(folder.pictures), IN_NO_PART)] if folder.pictures else []
    return [*own, *(LeftOut(inner.path, len(inner.every()), IN_NO_PART) for inner in others)]


def _roots(root: Node) -> tuple[dict[Share, Node], list[LeftOut]]:
    """The folders whose folders are classes, by part, and what lies beside them."""
    named = [(share, folder) for folder in root.folders if folder.filled and (share := share_of(folder.path.name))]
    _refuse_doubles(root, named)
    shares = dict(named)
    others = [folder for folder in root.folders if folder not in shares.values()]
    if not shares:
        return _without_parts(root)
    ordered: tuple[Share, ...] = ("train", "val", "test")
    entered = {share: _entered(shares[share], share) for share in ordered if share in shares}
    inner = {share: node for share, (node, _) in entered.items()}
    beside = [some for _, left_out in entered.values() for some in left_out]
    if "train" in shares:
        return inner, [*beside, *_beside_parts(root, others)]
    _refuse_parts_alone(root, shares, others)
    return {"train": Node(root.path, root.pictures, root.strangers, others), **inner}, beside


def _refuse_doubles(root: Node, named: Sequence[tuple[Share, Node]]) -> None:
    for share, number in Counter(share for share, _ in named).items():
        if number > 1:
            names = " and ".join(folder.path.name for some, folder in named if some == share)
            raise RequestError(f"{root.path} has {number} folders of {share} images, {names}: keep one")


def _refuse_parts_alone(root: Node, shares: Mapping[Share, Node], others: Sequence[Node]) -> None:
    """Without a folder to train on, the classes may lie beside the folder of test images."""
    for folder in others:
        if share_of(folder.path.name) == "train":
            raise RequestError(without_pictures(folder))
    known = {_folded(folder) for folder in others if folder.filled or folder.pictures}
    for folder in shares.values():
        unknown = [inner.path.name for inner in folder.filled if _folded(inner) not in known]
        if unknown and len(unknown) < len(folder.filled):
            raise RequestError(f"{folder.path} has classes that {root.path} lacks: {unknown}")
    if not all(_folded(inner) in known for folder in shares.values() for inner in folder.filled):
        names = " and ".join(folder.path.name for folder in shares.values())
        packed = [path.name for path in root.strangers if path.suffix.lower() in ARCHIVES]
        hint = f"unpack {', '.join(packed)}" if packed else "name it train"
        raise RequestError(f"{root.path} has pictures in {names}, and none to train on: {hint}")


def _beside_parts(root: Node, others: Sequence[Node]) -> list[LeftOut]:
    files = {folder.path: len(folder.every()) or odd_files(folder) for folder in others}
    left_out = [
        LeftOut(folder.path, files[folder.path], _why_beside(folder))
        for folder in others
        if files[folder.path] or share_of(folder.path.name)
    ]
    return left_out + _beside(root)


def odd_files(folder: Node) -> int:
    """How many files in a folder, however deep, may be meant as pictures, and are none by their names."""
    return sum(len(_strangers(some)) for some in folder.walk())


def _without_parts(root: Node) -> tuple[dict[Share, Node], list[LeftOut]]:
    """Folders named like parts may hold pictures alone: of no class, unless `train` is one, beside buses and cars."""
    loose = [folder for folder in root.filled if share_of(folder.path.name)]
    others = [folder for folder in root.folders if folder not in loose]
    filled = [folder for folder in others if folder.filled or folder.pictures]
    if not loose or (filled and [folder.path.name.casefold() for folder in loose] == ["train"]):
        return {"train": root}, []
    _refuse_containers(root)
    if len(filled) < 2:
        names = " and ".join(folder.path.name for folder in loose)
        raise RequestError(without_classes(root, f"{names} is taken for a part" if filled else ""))
    left_out = [LeftOut(folder.path, len(folder.every()), IN_NO_CLASS) for folder in loose]
    return {"train": Node(root.path, root.pictures, root.strangers, others)}, left_out


def _why_beside(folder: Node) -> str:
    if not folder.every():
        return NO_PICTURES
    if share_of(folder.path.name):
        return IN_NO_CLASS
    return IN_NO_PART


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
        raise RequestError(without_classes(train))
    return classes


def _refuse_containers(root: Node) -> None:
    """A folder of class folders beside others is no class of its own, nor is one that is called images."""
    filled = root.filled
    for folder in filled:
        has_others = any(some is not folder and not share_of(some.path.name) for some in filled)
        if has_others and folder.path.name.casefold() in _NO_CLASSES and not folder.filled:
            raise RequestError(without_classes(folder, f"{folder.path.name} is taken for a folder of classes"))
        is_container = folder.path.name.casefold() in _CONTAINERS or share_of(folder.path.name)
        if len(filled) > 1 and is_container and len(folder.filled) > 1 and not folder.pictures:
            inner = ", ".join(some.path.name for some in folder.filled[:_NAMED])
            beside = ", ".join(some.path.name for some in filled if some is not folder)
            raise RequestError(
                f"{root.path} holds {folder.path.name} with folders of pictures ({inner}), and beside it {beside}: "
                f"did you mean {folder.path}?"
            )


def _labelled(node: Node, classes: tuple[str, ...], roots: dict[Share, Node]) -> list[tuple[Node, int]]:
    """The class folders of a part with their labels; a class may be spelled in another case than in train/."""
    found = list[tuple[Node, int]]()
    unknown = list[str]()
    for folder in node.filled:
        name = class_named(folder.path.name, classes)
        if name is None:
            unknown.append(folder.path.name)
        else:
            found.append((folder, classes.index(name)))
    if unknown:
        raise RequestError(f"{node.path} has classes that {roots['train'].path} lacks: {sorted(unknown)}")
    return found


@cache
def class_named(name: str, classes: tuple[str, ...]) -> str | None:
    """The class that a folder of this name holds, spelled in whatever way as long as it is clear which."""
    if name in classes:
        return name
    alike = [one for one in classes if _spelled(one) == _spelled(name)]
    return alike[0] if len(alike) == 1 else None


def _folded(folder: Node) -> str:
    return _spelled(folder.path.name)


def _spelled(name: str) -> str:
    """Without case, and with each accent and its letter in one, which macOS takes apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _understood(directory: Path, roots: dict[Share, Node], classes: tuple[str, ...]) -> str:
    places = {share: str(node.path.relative_to(directory)) for share, node in roots.items()}
    if len(roots) == 1:
        place = "it" if places["train"] == "." else places["train"]
        return f"{len(classes)} classes, each a folder in {place}"
    uses = {"train": "to train on", "val": "to validate on", "test": "to test on"}
    return f"{len(classes)} classes, each a folder in " + ", ".join(
        f"{'the top folder' if place == '.' else place} ({uses[share]})" for share, place in places.items()
    )


def _by_table(root: Node, table: Path) -> Layout:
    """Pictures as the table labels them; where it names no parts, the folders in which they lie do.

    RequestError where it labels no picture to train on, or all as one class.
    """
    paths = root.every()
    rows = read_table(table)
    named, missing = _rows_of(rows, Names(paths, root.path, rows), root)
    known = {path: some for path, some in named.items() if len(some) == 1 and all(label for label, _ in some)}
    classes = tuple(sorted({label for some in known.values() for label, _ in some}))
    pictures = [Picture(path, classes.index(label), share) for path, some in known.items() for label, share in some]
    pictures.sort(key=_order)
    left_out = [LeftOut(path, 1, f"not in {TABLE}") for path in paths if path not in named]
    left_out += [LeftOut(path, 1, _why_unclear(some)) for path, some in named.items() if path not in known]
    left_out += [_not_found(root, reason, some, classes) for reason, some in missing.items()]
    if len(classes) < 2:
        raise RequestError(_useless(table, f"pictures of at least 2 classes, has {list(classes)}", left_out))
    if not any(picture.share == "train" for picture in pictures):
        raise RequestError(_useless(table, "pictures to train on, has none", left_out))
    return Layout(classes, pictures, left_out, f"{len(classes)} classes, as {table.name} says")


def _useless(table: Path, needed: str, left_out: Sequence[LeftOut]) -> str:
    reasons = Counter[str]()
    for some in left_out:
        reasons[some.reason] += some.files
    why = ", ".join(f"{number} {reason}" for reason, number in reasons.items())
    return (
        f"{table} must label {needed}{f' ({why})' if why else ''}; where folders are the classes give it another name"
    )


def _rows_of(
    rows: Sequence[Row], names: Names, root: Node
) -> tuple[dict[Path, set[tuple[str, Share]]], dict[str, list[Row]]]:
    """The labels and parts of each picture that is named, and by reason the rows whose files are not found."""
    named, missing = defaultdict[Path, set[tuple[str, Share]]](set), defaultdict[str, list[Row]](list)
    for row in rows:
        path = names.find(row.file, row.share)
        if path is None:
            why = f"several pictures have the name in {TABLE}" if names.is_ambiguous(row.file) else _NOT_THERE
            missing[why].append(row)
        else:
            named[path].add((row.label, row.share or _share_within(path, root)))
    return named, missing


def _not_found(root: Node, reason: str, rows: Sequence[Row], classes: Collection[str]) -> LeftOut:
    """Of rows whose files are not found, with the classes of which no other picture is there."""
    lost = ", ".join(sorted({row.label for row in rows} - {*classes, ""}))
    reason += f", nor any other of the class {lost}" if lost else ""
    return LeftOut(_place(root, rows[0].file), len(rows), reason)


def _place(root: Node, name: str) -> Path:
    """Of a file that is not there, in the folder: its name may begin with another computer's."""
    place = root.path / name
    return place if place.is_relative_to(root.path) else root.path / place.name


def _why_unclear(named: Collection[tuple[str, Share]]) -> str:
    if not all(label for label, _ in named):
        return f"without a label in {TABLE}"
    return f"with several labels or parts in {TABLE}"


def _share_within(path: Path, root: Node) -> Share:
    """By the outermost folder that is called like a part."""
    folders = path.relative_to(root.path).parts[:-1]
    return next((share for name in folders if (share := share_of(name))), "train")


def _order(picture: Picture) -> tuple[int, bool, Path]:
    return picture.label, picture.share != "train", picture.path
