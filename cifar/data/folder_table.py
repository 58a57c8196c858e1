"""The table that says which picture of a folder shows what."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cifar.data.folder_parts import Share, share_of
from cifar.data.folder_tree import Node
from cifar.errors import RequestError

TABLE = "labels.csv"
_FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "id", "name")
_LABEL_COLUMNS = ("label", "class", "category", "target")
_PART_COLUMNS = ("split", "subset", "set", "part", "partition")


@dataclass(frozen=True)
class Row:
    """`share` is the part that the table names, None where it has no column for that."""

    file: str
    label: str
    share: Share | None = None


def table_in(node: Node) -> Path | None:
    """The table of a folder, its name in any case."""
    return next((path for path in node.strangers if path.name.casefold() == TABLE and path.is_file()), None)


def read_table(path: Path) -> list[Row]:
    """RequestError where it is none."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not in UTF-8: save it as a CSV file in UTF-8") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    delimiter = next((some for some in ",;\t" if some in text.partition("\n")[0]), ",")
    try:
        header, *rows = [row for row in csv.reader(text.splitlines(), delimiter=delimiter) if row] or [[]]
    except csv.Error as error:
        raise RequestError(f"{path} is no table: {error}") from None
    file, label, part = (_column(header, names) for names in (_FILE_COLUMNS, _LABEL_COLUMNS, _PART_COLUMNS))
    if file is None or label is None:
        raise RequestError(
            f"{path} must begin with a line that names its columns, file and label; it begins {header}; where folders "
            "are the classes give the table another name"
        )
    return [_row(path, number, row, file, label, part) for number, row in enumerate(rows, 2)]


def _column(header: list[str], names: Iterable[str]) -> int | None:
    columns = [name.strip().casefold() for name in header]
    return next((columns.index(name) for name in names if name in columns), None)


def _row(path: Path, number: int, row: list[str], file: int, label: int, part: int | None) -> Row:
    if len(row) <= max(file, label, part or 0) or not row[label].strip():
        raise RequestError(f"{path}, line {number}, has no file and label: {row}")
    share = share_of(row[part]) if part is not None else None
    if part is not None and share is None:
        raise RequestError(f"{path}, line {number}, must name a part, train, val or test: {row}")
    return Row(row[file].strip(), row[label].strip(), share)


class Names:
    """Finds a folder's pictures by what tables call them: with or without folder and ending, as long as it is clear."""

    def __init__(self, paths: Iterable[Path], root: Path) -> None:
        self._known = dict[str, Path]()
        paths = list(paths)
        for name_of in (_stem, _name, lambda path: str(path.relative_to(root))):
            names = [name_of(path) for path in paths]
            for change in (str.casefold, str):
                changed = [change(name) for name in names]
                often = Counter(changed)
                self._known |= {name: path for name, path in zip(changed, paths, strict=True) if often[name] == 1}

    def find(self, name: str) -> Path | None:
        plain = name.replace("\\", "/").removeprefix("./")
        return next((self._known[some] for some in (name, plain, plain.casefold()) if some in self._known), None)


def _stem(path: Path) -> str:
    return path.stem


def _name(path: Path) -> str:
    return path.name
