"""A folder with all that is in it: which of its files are pictures, however deep they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from PIL import Image

_SYSTEMS = {"__macosx", "thumbs.db", "desktop.ini"}  # what systems leave in folders; hidden files are passed over too


@dataclass(eq=False)
class Node:
    """A folder; `strangers` are files that are not named like pictures, and what is no file."""

    path: Path
    pictures: list[Path] = field(default_factory=list)
    strangers: list[Path] = field(default_factory=list)
    folders: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def every(self) -> list[Path]:
        """Its pictures and those in its folders, however deep, as torchvision's ImageFolder takes them."""
        return sorted(path for node in self.walk() for path in node.pictures)

    @cached_property
    def filled(self) -> list[Node]:
        """The folders in it that hold pictures."""
        return [folder for folder in self.folders if any(node.pictures for node in folder.walk())]


def scan(directory: Path, above: frozenset[Path] = frozenset()) -> Node:
    """All of a folder; a link that leads back to a folder above is no file."""
    node, above = Node(directory), above | {directory.resolve()}
    for entry in sorted(os.scandir(directory), key=lambda entry: entry.name):
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name.casefold() in _SYSTEMS:
            continue
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link that leads to itself
            is_folder = is_file = False
        if is_folder and path.resolve() not in above:
            node.folders.append(scan(path, above))
        else:
            (node.pictures if is_file and _is_like_a_picture(path) else node.strangers).append(path)
    return node


def _is_like_a_picture(path: Path) -> bool:
    """By its ending; where it has none, by its beginning."""
    if path.suffix:
        return path.suffix.lower() in _endings()
    try:
        with Image.open(path):
            return True
    except Exception:  # Pillow's readers raise nearly anything
        return False


@cache
def _endings() -> frozenset[str]:
    known = Image.registered_extensions()
    return frozenset(ending for ending, form in known.items() if form in Image.OPEN) | {".heic", ".heif"}
