from __future__ import annotations

import json
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.inference.model_file import SavedModel
from cifar.inference.predict import (
    Prediction,
    _class_in,
    find_images,
    how_many_right,
    predict,
    predict_arrays,
    print_predictions,
)
from cifar.inference.prediction_grid import prediction_grid
from cifar.training.hparams import Hparams
from cifar.training.train import new_model, new_optimizer, train


@pytest.fixture
def model(tiny: Dataset, tmp_path: Path) -> SavedModel:
    """Tells dark, grey and light pictures apart."""
    hparams = Hparams(lr=0.01, batch_size=8, epochs=8)
    network = new_model(hparams, tiny)
    *_, last = train(network, new_optimizer(network, hparams), hparams, tiny, datasets.split(tiny))
    assert last.metrics.accuracy == 1.0
    model_file.save(tmp_path / "model.safetensors", network, hparams, tiny, {"validation": last.metrics.accuracy})
    return model_file.load(tmp_path / "model.safetensors")


def picture(path: Path, brightness: int, mode: str = "RGB", size: tuple[int, int] = (50, 20)) -> Path:
    noise = np.random.RandomState(0).randint(0, 60, (size[1], size[0], 3)) + brightness
    Image.fromarray(noise.astype(np.uint8)).convert(mode).save(path)
    return path


@pytest.mark.parametrize(
    ("name", "mode"),
    [("a.png", "RGB"), ("b.png", "L"), ("c.png", "P"), ("d.jpg", "CMYK"), ("e.gif", "P"), ("f.webp", "RGBA")],
)
@pytest.mark.parametrize(("brightness", "expected"), [(0, "dark"), (80, "grey"), (160, "light")])
def test_any_format_mode_and_size_is_labelled(
    model: SavedModel, tmp_path: Path, name: str, mode: str, brightness: int, expected: str
) -> None:
    path = picture(tmp_path / name, brightness, mode, size=(90, 130))
    (prediction,) = predict(model, [path], top=3)
    assert prediction.classes[0][0] == expected
    assert sum(share for _, share in prediction.classes) == pytest.approx(1)
    shares = [share for _, share in prediction.classes]
    assert shares == sorted(shares, reverse=True)


def test_a_network_whose_answers_are_no_numbers_is_refused(model: SavedModel, tmp_path: Path) -> None:
    with torch.no_grad():
        model.network.get_parameter("fc3.weight").mul_(1e38)  # finite weights, sums that are not
        model.network.get_parameter("fc2.weight").mul_(1e30)
    with pytest.raises(RequestError, match="the model file is damaged"):
        list(predict(model, [picture(tmp_path / "a.png", 80)], top=1))


def test_what_a_network_predicts_of_a_pixel_array_is_what_it_predicts_of_the_file(
    model: SavedModel, tiny: Dataset, tmp_path: Path
) -> None:
    pixels = tiny.images[7].permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(tmp_path / "seven.png")
    (prediction,) = predict(model, [tmp_path / "seven.png"], top=1)
    ((name, share),) = prediction.classes
    logits = model.network(datasets.normalise(tiny.images[7:8]))
    assert name == tiny.classes[tiny.labels[7]]
    assert share == pytest.approx(logits.softmax(1).max().item())


def test_an_unreadable_file_is_named_and_the_rest_predicted(
    model: SavedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    picture(folder / "deep" / "one.png", 0)
    (folder / "broken.jpg").write_bytes(b"no picture")
    picture(folder / ".hidden.png", 0)
    predictions = print_predictions(model, [folder, tmp_path / "missing.png"], top=2, as_json=True)
    assert any(some.error for some in predictions)
    out, err = capsys.readouterr()
    records = json.loads(out)
    assert [Path(record["image"]).name for record in records] == ["broken.jpg", "one.png", "missing.png"]
    assert "of no format that Pillow reads" in records[0]["error"]
    assert [entry["class"] for entry in records[1]["predictions"]] == ["dark", "grey"]
    assert records[2]["error"] == "No such file or directory"
    assert "broken.jpg is no readable picture" in err and "missing.png is no readable picture" in err


def test_many_pictures_go_through_in_batches_and_in_order(model: SavedModel, tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{number:03}.png", 80 * (number % 3), size=(8, 8)) for number in range(300)]
    paths.insert(100, tmp_path / "missing.png")
    predictions = list(predict(model, paths, top=1))
    assert [prediction.path for prediction in predictions] == paths
    del predictions[100]
    assert [prediction.classes[0][0] for prediction in predictions] == [
        ("dark", "grey", "light")[n % 3] for n in range(300)
    ]


def test_requests_that_make_no_sense_are_refused(model: SavedModel, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match=r"no pictures in .*empty"):
        print_predictions(model, [tmp_path / "empty"], top=3, as_json=False)
    with pytest.raises(RequestError, match="--top must be at least 1, got 0"):
        print_predictions(model, [tmp_path], top=0, as_json=False)
    assert list(find_images([tmp_path / "nowhere.png"])) == [tmp_path / "nowhere.png"]


def test_more_classes_than_there_are_means_all(model: SavedModel, tmp_path: Path) -> None:
    (prediction,) = predict(model, [picture(tmp_path / "one.png", 0)], top=99)
    assert len(prediction.classes) == 3
    assert torch.isfinite(torch.tensor([share for _, share in prediction.classes])).all()


def test_a_picture_comes_through_stdin(
    model: SavedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(picture(tmp_path / "a.png", 160).read_bytes())))
    assert not print_predictions(model, [Path("-")], top=1, as_json=False)[0].error
    assert capsys.readouterr().out.startswith("-  light ")


def test_arrays_are_labelled_as_their_files_are(model: SavedModel, tmp_path: Path) -> None:
    paths = [picture(tmp_path / f"{brightness}.png", brightness) for brightness in (0, 80, 160)]
    found = predict_arrays(model, [np.asarray(Image.open(path)) for path in paths], top=2)
    for labels, prediction in zip(found, predict(model, paths, top=2), strict=True):
        assert_alike(labels, prediction.classes)
    deep = np.linspace(0, 4095, 1000).reshape(20, 50).astype(np.uint16)
    as_integers, as_floats = predict_arrays(model, [deep, deep.astype(np.float32)])
    assert as_integers == as_floats
    assert_alike(predict_arrays(model, [(deep * 7).astype(np.int64)])[0], as_integers)
    assert predict_arrays(model, []) == []
    colours = np.stack([deep, deep[::-1], deep], axis=2)
    light = np.asarray(Image.fromarray((deep >> 4).astype(np.uint8)))
    assert predict_arrays(model, [light[..., None]]) == predict_arrays(model, [light])
    (labels,) = predict_arrays(model, [colours])
    eight = (colours * (255 / 4095)).round().astype(np.uint8)
    assert_alike(labels, predict_arrays(model, [eight])[0])
    with pytest.raises(ValueError, match="colours of float32 can mean anything"):
        predict_arrays(model, [colours.astype(np.float32)])


def assert_alike(labels: list[tuple[str, float]], others: list[tuple[str, float]]) -> None:
    """Processors sum up a batch of one and one of three in another order."""
    assert [name for name, _ in labels] == [name for name, _ in others]
    assert [share for _, share in labels] == pytest.approx([share for _, share in others], rel=1e-4)


def test_an_opened_image_is_labelled_as_its_file_is(model: SavedModel, tmp_path: Path) -> None:
    """Its palette, colours and orientation count."""
    exif = Image.Exif()
    exif[0x0112] = 3  # taken upside down
    light = Image.new("RGB", (40, 40), "white")
    light.paste("black", (0, 0, 40, 13))
    light.convert("P").save(tmp_path / "palette.png")
    light.convert("CMYK").save(tmp_path / "cmyk.jpg")
    light.save(tmp_path / "turned.png", exif=exif)
    paths = sorted(tmp_path.glob("*.*g"))
    opened = predict_arrays(model, [Image.open(path) for path in paths])
    assert opened == [prediction.classes for prediction in predict(model, paths, top=3)]
    with pytest.raises(ValueError, match="it has no pixels"):
        predict_arrays(model, [np.zeros((0, 40, 3), np.uint8)])


def test_a_folder_to_predict_is_read_as_one_to_train_on(model: SavedModel, tmp_path: Path) -> None:
    picture(tmp_path / "one.png", 0)
    for name in ("Thumbs.db", "readme.txt", "clip.mp4", ".hidden.png"):
        (tmp_path / name).touch()
    assert [*find_images([tmp_path])] == [tmp_path / "one.png"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("https://example.org/cat.png", "https://example.org/cat.png is an address: download the picture first"),
        ("*.png", r"no file is called .*\*\.png: without quotation marks the shell puts names in its place"),
        ("cat[0-9].png", "no file is called"),
    ],
)
def test_what_is_no_files_name_is_refused(model: SavedModel, name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        print_predictions(model, [Path(name)], top=1, as_json=False)


def test_pictures_in_folders_named_after_classes_are_checked(
    model: SavedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, brightness in (("dark", 0), ("light", 160), ("grey", 160)):
        (tmp_path / "test" / name / "Imgs").mkdir(parents=True)
        picture(tmp_path / "test" / name / "Imgs" / "one.png", brightness)
    picture(tmp_path / "test" / "unknown.png", 80)
    predictions = print_predictions(model, [tmp_path / "test"], top=1, as_json=False)
    *lines, summary = capsys.readouterr().out.splitlines()
    assert summary.startswith("2 of 3 are what their folder says: 66.7% ± ")
    assert [line.endswith("(is grey)") for line in lines] == [False, True, False, False]
    assert [(some.truth, some.is_right, some.is_wrong) for some in predictions] == [
        ("dark", True, False),
        ("grey", False, True),
        ("light", True, False),
        (None, False, False),
    ]
    assert predictions[1].record()["class"] == "grey"
    assert "class" not in predictions[3].record()
    assert how_many_right(predictions[3:]) == ""


def test_the_grid_begins_with_mistakes_and_survives_any_name(model: SavedModel, tmp_path: Path) -> None:
    (tmp_path / "light").mkdir()
    paths = [picture(tmp_path / f"{number}.png", 0) for number in range(11)]
    paths.append(picture(tmp_path / "light" / "one.png", 0))
    predictions = [*predict(model, [*paths, tmp_path / "missing.png"], top=1)]
    sheet = np.asarray(prediction_grid(predictions))
    assert sheet.shape[:2] == (8 + 2 * 140, 8 + 10 * 104)  # two rows of ten
    assert (sheet[105:140, 8:104] == (198, 40, 40)).all(-1).any()  # the mistake is first, and its text is red
    assert not (sheet[105:140, 112:208] == (198, 40, 40)).all(-1).any()
    strange = Prediction(Path("x"), [("\U0010fffd猫" * 40, 1.0)], pixels=np.zeros((32, 32, 3), np.uint8))
    assert prediction_grid([strange, *predictions[-1:]]).size == (8 + 104, 8 + 140)


def test_where_every_picture_gets_one_class_that_is_said() -> None:
    def of(truth: str, answer: str = "cat") -> Prediction:
        return Prediction(Path("a.png"), [(answer, 0.9)], truth=truth)

    said = "every image it is judged by gets the same class; guessing the largest class gets 75.0%"
    assert how_many_right([*[of("cat")] * 3, of("dog")]).endswith(f"; {said}")
    assert "guessing" not in how_many_right([of("cat")] * 4)  # there is one class to find
    assert "guessing" not in how_many_right([*[of("cat")] * 3, of("dog", "dog")])


def test_a_class_folder_may_be_spelled_in_another_case() -> None:
    assert _class_in(Path("Testing/CAT/a.png"), ("cat", "dog")) == "cat"
    assert _class_in(Path("cat/Dog/a.png"), ("cat", "Dog")) == "Dog"
    assert _class_in(Path("CAT/a.png"), ("cat", "Cat")) is None  # which of the two is not clear
    assert _class_in(Path("Cat/a.png"), ("cat", "Cat")) == "Cat"
