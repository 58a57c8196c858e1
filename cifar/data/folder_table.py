"""The table that says which picture of a folder shows what."""

from __future__ import annotations

import csv
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cifar.data.folder_parts import Share, share_of
from cifar.data.folder_tree import Node
from cifar.errors import RequestError

TABLE = "labels.csv"
_FILE_COLUMNS = (
    "file", "filename", "file_name", "filepath", "filepaths", "file_path", "image", "image_name", "image_path",
    "image_id", "path", "id", "name",
)  # fmt: skip
_LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target")
_PART_COLUMNS = ("split", "subset", "set", "data_set", "dataset", "part", "partition")


@dataclass(frozen=True)
class Row:
    """`share` is the part that the table names, None where it has no column for that; `label` may be empty."""

    file: str
    label: str
    share: Share | None = None


def table_in(node: Node) -> Path | None:
    """The table of a folder, its name in any case."""
    return next((path for path in node.strangers if path.name.casefold() == TABLE and path.is_file()), None)


def read_table(path: Path) -> list[Row]:
    """RequestError where it is none."""
    header, *rows = _lines(path) or [(1, [])]
    file, label, part = (_column(header[1], names) for names in (_FILE_COLUMNS, _LABEL_COLUMNS, _PART_COLUMNS))
    if file is None or label is None:
        raise RequestError(
            f"{path} must begin with a line that names its columns, file and label; it begins {header[1]}; where "
            "folders are the classes give the table another name"
        )
    return [_row(path, number, row, file, label, part) for number, row in rows]


def has_labels(path: Path) -> bool:
    """Whether its first line names a column for files and one for labels."""
    try:
        lines = _lines(path)
    except RequestError:
        return False
    return bool(lines) and all(_column(lines[0][1], names) is not None for names in (_FILE_COLUMNS, _LABEL_COLUMNS))


def _lines(path: Path) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with its line's number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise RequestError(f"{path} is not in UTF-8: save it as a CSV file in UTF-8") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error}") from None
    delimiter = next((some for some in ",;\t" if some in text.partition("\n")[0]), ",")
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise RequestError(f"{path} is no table: {error}") from None


def _column(header: list[str], names: Iterable[str]) -> int | None:
    columns = [name.strip().casefold().replace(" ", "_") for name in header]
    return next((columns.index(name) for name in names if name in columns), None)


def _row(path: Path, number: int, row: list[str], file: int, label: int, part: int | None) -> Row:
    if len(row) <= max(file, label, part or 0):
        raise RequestError(f"{path}, line {number}, has fewer columns than the first line: {row}")
    share = share_of(row[part]) if part is not None else None
    if part is not None and share is None:
        raise RequestError(f"{path}, line {number}, must name a part, train, val or test: {row}")
    return Row(row[file].strip(), row[label].strip(), share)


class Names:
    """Finds a folder's pictures by what tables call them, as long as it is clear: with or without folders and ending.

    A name that is not found so may begin with folders that are not there, those of another machine for instance, if all
    names of the table do.
    """

    def __init__(self, paths: Iterable[Path], root: Path, rows: Iterable[Row]) -> None:
        self._root = root
        paths = list(paths)
        relative = {path: path.relative_to(root).parts for path in paths}
        kinds: tuple[Callable[[Path], Iterable[str]], ...] = (
            lambda path: ["/".join(relative[path])],
            lambda path: ("/".join(relative[path][start:]) for start in range(len(relative[path]))),
            lambda path: [path.stem],
        )
        self._known = [_by_name(paths, names_of, change) for names_of in kinds for change in (str, str.casefold)]
        folders = (_plain(row.file).split("/")[:-1] for row in rows)
        common = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*folders, strict=False))
        self._elsewhere = "".join(f"{names[0]}/" for names in common)

    def find(self, name: str, share: Share | None = None) -> Path | None:
        """Of pictures of the same name the one in the folder of this part."""
        found = self._called(name)
        if len(found) > 1:
            found = [
                path for path in found if share and share in map(share_of, path.relative_to(self._root).parts[:-1])
            ]
        return found[0] if len(found) == 1 else None

    def is_ambiguous(self, name: str) -> bool:
        return len(self._called(name)) > 1

    def _called(self, name: str) -> list[Path]:
        plain = _plain(name)
        here = plain.removeprefix(self._elsewhere)
        tried = (name, plain, plain.casefold(), here, here.casefold())
        return next((known[some] for some in tried for known in self._known if some in known), [])


def _by_name(
    paths: Iterable[Path], names_of: Callable[[Path], Iterable[str]], change: Callable[[str], str]
) -> dict[str, list[Path]]:
    known = defaultdict[str, list[Path]](list)
    for path in paths:
        for name in names_of(path):
            known[change(name)].append(path)
    return known


def _plain(name: str) -> str:
    return name.replace("\\", "/").removeprefix("./")
