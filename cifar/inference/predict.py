"""Labels for pictures, from a model file."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from cifar.console import show
from cifar.data import datasets, folder_tree
from cifar.data.balance import why_useless
from cifar.data.depth import scaled
from cifar.data.folder_layout import class_named, odd_files
from cifar.data.images import decode_files, to_pixels
from cifar.errors import RequestError
from cifar.inference.model_file import SavedModel
from cifar.training.intervals import wilson

_BATCH = 256


@dataclass(frozen=True)
class Prediction:
    """Classes with their probabilities, the most probable first; or why the picture could not be read."""

    path: Path
    classes: list[tuple[str, float]]
    error: str = ""
    truth: str | None = None  # the class that the picture's folder is named after
    pixels: NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)  # as the network sees it

    @property
    def is_right(self) -> bool:
        return bool(self.classes) and self.classes[0][0] == self.truth

    @property
    def is_wrong(self) -> bool:
        return bool(self.classes) and self.truth is not None and not self.is_right

    def line(self, width: int) -> str:
        text = f"{self.path!s:<{width}}  " + "  ".join(f"{name} {share:.1%}" for name, share in self.classes)
        return f"{text}  (is {self.truth})" if self.is_wrong else text

    def record(self) -> dict[str, object]:
        if self.error:
            return {"image": str(self.path), "error": self.error}
        classes = [{"class": name, "probability": round(share, 6)} for name, share in self.classes]
        truth = {} if self.truth is None else {"class": self.truth}
        return {"image": str(self.path), "predictions": classes, **truth}


def print_predictions(model: SavedModel, names: list[Path], top: int, as_json: bool) -> list[Prediction]:
    """Print what is in each picture, and what could not be read."""
    if top < 1:
        raise RequestError(f"--top must be at least 1, got {top}")
    paths = list(find_images(names))
    if not paths:
        raise RequestError(f"no pictures in {', '.join(map(str, names))}")
    for folder in filter(Path.is_dir, names):
        if odd := odd_files(folder_tree.scan(folder)):
            print(f"{folder}: {odd} files are passed over, no pictures by their names", file=sys.stderr)
    width, predictions = max(len(str(path)) for path in paths), []
    for prediction in tqdm(predict(model, paths, top), total=len(paths), unit=" pictures", leave=False, disable=None):
        predictions.append(prediction)
        if prediction.error:
            tqdm.write(f"error: {prediction.path} is no readable picture: {prediction.error}", file=sys.stderr)
        elif not as_json:
            tqdm.write(prediction.line(width), file=sys.stdout)
    if as_json:
        print(json.dumps([prediction.record() for prediction in predictions], indent=2))
    elif summary := how_many_right(predictions):
        show(summary)
    return predictions


def how_many_right(predictions: Sequence[Prediction]) -> str:
    """Of the pictures whose folder says what they are; "" where none does."""
    known = [some for some in predictions if some.truth is not None and some.classes]
    if not known:
        return ""
    right = sum(some.is_right for some in known)
    share = wilson(right / len(known), len(known))
    said = f"{right} of {len(known)} are what their folder says: {share}, if the model was trained on none of them"
    truths, answers = Counter(some.truth for some in known), {some.classes[0][0] for some in known}
    largest = max(truths.values()) / len(known)
    why = why_useless(len(answers), right / len(known), "accuracy", largest, len(truths)) if len(truths) > 1 else ""
    return f"{said}; {why}" if why else said


def _class_in(path: Path, classes: tuple[str, ...]) -> str | None:
    """The class that a picture's folder is named after, as folders to train on are; of several the innermost."""
    return next((found for folder in path.parents if (found := class_named(folder.name, classes))), None)


def find_images(names: list[Path]) -> Iterator[Path]:
    """The files named, and the pictures in the folders named, however deep, as those to train on are found."""
    for name in names:
        if not name.is_dir():
            _refuse_what_the_shell_left(name)
            yield name
            continue
        yield from folder_tree.scan(name).every()


def _refuse_what_the_shell_left(name: Path) -> None:
    if str(name).startswith("file:/"):
        raise RequestError(f"name the file itself, {str(name).removeprefix('file:')}, without file://")
    if re.match(r"\w+:/", str(name)):
        address = str(name).replace(":/", "://", 1)  # a path has one slash less
        raise RequestError(f"{address} is an address: download the picture first, and name the file")
    if re.search(r"[*?\[]", str(name)) and not name.exists():
        raise RequestError(f"no file is called {name}: without quotation marks the shell puts names in its place")


def predict_arrays(
    model: SavedModel, pictures: Sequence[NDArray[Any] | Image.Image], top: int = 3
) -> list[list[tuple[str, float]]]:
    """Classes with their probabilities, the most probable first, for each picture.

    A picture is an opened image or an array: height x width x 3 (RGB) or 4 (with transparency) uint8, x 3 of longer
    integers, or height x width of any number. ValueError and TypeError for other arrays.
    """
    pixels = [to_pixels(_image(picture), model.hparams.size) for picture in pictures]
    chunks = (np.stack(pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH))
    return [labels for chunk in chunks for labels in _label(model, chunk, top)]


def _image(picture: NDArray[Any] | Image.Image) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    if not picture.size:
        raise ValueError("it has no pixels")
    if picture.ndim == 3 and picture.shape[2] == 1:
        picture = picture[:, :, 0]
    if picture.dtype.kind not in "iuf" or picture.dtype.itemsize == 1:
        return Image.fromarray(picture)
    if picture.ndim == 2:
        return Image.fromarray(picture.astype(np.float64))
    if picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype.kind in "iu":
        return Image.fromarray(scaled(picture))
    raise ValueError(f"colours of {picture.dtype} can mean anything: make them 8 bits, from 0 to 255")


def predict(model: SavedModel, paths: list[Path], top: int) -> Iterator[Prediction]:
    """One prediction per path, in their order."""
    decoded = decode_files(paths, model.hparams.size)
    while files := list(islice(decoded, _BATCH)):
        readable = [file.pixels for file in files if file.pixels is not None]
        labelled = iter(_label(model, np.stack(readable), top) if readable else [])
        for file in files:
            if file.error:
                yield Prediction(file.path, [], _reason(file.error))
            else:
                truth = _class_in(file.path, model.classes)
                yield Prediction(file.path, next(labelled), truth=truth, pixels=file.pixels)


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


@torch.inference_mode()
def _label(model: SavedModel, pixels: NDArray[np.uint8], top: int) -> list[list[tuple[str, float]]]:
    images = datasets.normalise(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    probabilities = model.network(images).softmax(1)
    if not probabilities.isfinite().all():
        raise RequestError("the model file is damaged: what its network answers are no numbers")
    shares, labels = probabilities.topk(min(top, len(model.classes)))
    return [
        [(model.classes[label], share) for label, share in zip(some_labels, some_shares, strict=True)]
        for some_labels, some_shares in zip(labels.tolist(), shares.tolist(), strict=True)
    ]
