"""Files that are either whole or absent: written to a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar.errors import RequestError

if TYPE_CHECKING:
    import torch

_CHECKSUM = b',\n  "checksum": "'  # of all that stands before it


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A temporary file to write, which takes the place of `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")  # unlike tempfile's, readable as any new file
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Replace `path` in one step; NaN and infinity are a ValueError, since strict JSON has none.

    A checksum goes with the content: a disk's wrong bit makes another number of one, and still good JSON.
    """
    text = json.dumps(content, indent=2, allow_nan=False).removesuffix("\n}").encode()
    with new_file(path) as temporary:
        temporary.write_bytes(text + _CHECKSUM + _checksum(text).encode() + b'"\n}\n')


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds, None where there is no such file; RequestError where it is damaged or cannot be read."""
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{path} is damaged: it holds no object")
    if content.pop("checksum", None) not in (None, _checksum(text.rpartition(_CHECKSUM)[0])):  # others write none
        raise RequestError(f"{path} is damaged: its content does not match its checksum")
    return content


def _checksum(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:16]


def read_tensors(path: Path, device: torch.device | str = "cpu") -> Any:
    """What torch.save wrote, no code in it executed; a damaged or foreign file raises nearly anything."""
    import torch  # takes seconds, and tables are read without it

    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():  # torch.load itself checks no checksum
            raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
    return torch.load(path, map_location=device, weights_only=True)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """A temporary directory to fill, which takes the place of `path` when the block ends without an error."""
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_directory(path: str | Path) -> bool:
    """Of any name: one that is too long or odd for the system is none."""
    with contextlib.suppress(OSError, ValueError):
        return Path(path).is_dir()
    return False


def is_file(path: str | Path) -> bool:
    """Of any name, as is_directory."""
    with contextlib.suppress(OSError, ValueError):
        return Path(path).is_file()
    return False


def existing(path: Path) -> Path:
    """The path, or the nearest of its parents that exists."""
    return next(place for place in (path, *path.parents) if is_directory(place) or is_file(place))


def refuse_to_replace(path: Path, force: bool) -> None:
    """RequestError where the user's file cannot be written, or would be replaced unasked."""
    if not path.parent.is_dir():
        raise RequestError(f"{path} cannot be written: {path.parent} is no folder")
    if path.is_dir():
        raise RequestError(f"{path} is a folder; a file's name is needed")
    if path.exists() and not force:
        raise RequestError(f"{path} exists; --force replaces it")


def short(path: Path) -> str:
    """A path as seen from here where it lies below, else whole."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
