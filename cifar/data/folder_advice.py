"""What a folder lacks whose pictures have no classes, and what would give them some, in a sentence."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from cifar.data.folder_parts import share_of
from cifar.data.folder_table import TABLE, has_labels
from cifar.data.folder_tree import Node

ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
_NAMED = 5  # names in a sentence
_MOST_BEGINNINGS = 50  # of names, that are likely to be classes


def without_pictures(node: Node) -> str:
    """That a folder holds none, and what may be meant as some."""
    files = [path for some in node.walk() for path in some.strangers]
    packed = [path.name for path in files if path.suffix.lower() in ARCHIVES]
    said = f"{node.path} holds no pictures"
    said += (
        f", but {len(files)} files that are none by their names ({_some([path.name for path in files])})"
        if files
        else ""
    )
    return said + (f": unpack {', '.join(packed[:_NAMED])}" if packed else "")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" ..." if len(names) > _NAMED else "")


def without_classes(root: Node, taken: str = "") -> str:
    """What a folder holds that has fewer than two classes, and how its pictures would get some."""
    folders, pictures = [folder.path.name for folder in root.filled], root.every()
    beginnings = _beginnings(pictures)
    tables = _likely_tables(root, likely=not beginnings)
    if not root.pictures and len(folders) == 1 and not (beginnings or tables):
        return f"{root.path} must hold at least 2 class folders, has 1: {folders}"
    said = f"{root.path} holds {len(pictures)} pictures without classes"
    said += f" (in {', '.join(folders[:_NAMED])})" if folders else ""
    said += f"; {taken}: if it is a class, give it another name" if taken else ""
    said += f"; put those of each class into a folder of its own, or write {root.path / TABLE}: file,label"
    if tables:
        said += (
            f". If {tables[0].relative_to(root.path)} has both, name its columns file and label, and save it as that"
        )
    if beginnings:
        said += f". Where the names begin with the classes ({_some(beginnings)}), this writes it: "
        said += _writes_table(root.path, pictures)
    return said


def _likely_tables(root: Node, likely: bool) -> list[Path]:
    """Tables that name files and labels, or all that are `likely` to, but for those of a part to test on."""
    tables = [path for node in root.walk() for path in node.strangers if path.suffix.lower() in (".csv", ".tsv")]
    parts = {path: {share_of(Path(name).stem) for name in path.relative_to(root.path).parts} for path in tables}
    tables = [path for path in tables if "test" not in parts[path]]
    return [*filter(has_labels, tables)] or (tables if likely else [])


def _beginnings(pictures: Sequence[Path]) -> list[str]:
    """What the names begin with before a number, where that is likely to be classes: cat.0.jpg, boxer_dog_12.jpg."""
    found = {match[0] for path in pictures if (match := re.match(r"\D*[^\W\d_](?=[\W_]*\d)", path.stem))}
    return sorted(found) if 2 <= len(found) <= min(_MOST_BEGINNINGS, len(pictures) // 2) else []


def _writes_table(folder: Path, pictures: Sequence[Path]) -> str:
    """A command for a shell that finds the same beginnings."""
    endings = sorted({path.suffix.lower() for path in pictures if path.suffix})
    chosen = " -o ".join(f"-iname '*{ending}'" for ending in endings)
    name = r"([^0-9/]*[[:alpha:]])[^[:alpha:]0-9/]*[0-9][^/]*\.[^./]*"
    rows = f'find . -type f \\( {chosen} \\) | sed -nE \'s#^\\./((.*/)?{name})$#"\\1","\\3"#p\''
    return f"cd {shlex.quote(str(folder))}; (echo file,label; {rows}) > {TABLE}.new; mv {TABLE}.new {TABLE}"
