from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import MakeFolder
from hypothesis import given
from hypothesis import strategies as st

from cifar.data import datasets
from cifar.data.folder import Folder
from cifar.data.folder_layout import Layout, read
from cifar.data.folder_table import read_table
from cifar.data.inspection import describe
from cifar.errors import RequestError


def counts(layout: Layout) -> dict[str, int]:
    """How many pictures there are of each part and class: "train/cat"."""
    names = [f"{picture.share}/{layout.classes[picture.label]}" for picture in layout.pictures]
    return {name: names.count(name) for name in names}


def left_out(layout: Layout, root: Path) -> list[tuple[str, int, str]]:
    return [(str(some.path.relative_to(root)), some.files, some.reason) for some in layout.left_out]


PLAIN = {"train/cat": 4, "train/dog": 3}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"cat": 4, "dog": 3}, PLAIN),
        ({"train/cat": 4, "train/dog": 3}, PLAIN),
        ({"dataset/cat": 4, "dataset/dog": 3}, PLAIN),
        ({"a/b/cat": 4, "a/b/dog": 3}, PLAIN),
        ({"cat/Imgs": 4, "dog": 3}, PLAIN),
        ({"cat": 1, "cat/more": 3, "dog/a/b": 3}, PLAIN),
        ({"animals/cat": 4, "animals/dog": 3, "things/car": 5}, {"train/animals": 7, "train/things": 5}),
        ({"bus": 4, "train": 3}, {"train/bus": 4, "train/train": 3}),  # vehicles
        ({"photos": 4, "drawings": 3}, {"train/photos": 4, "train/drawings": 3}),
        ({"seg_train/a/cat": 4, "seg_train/a/dog": 3, "seg_test/a/dog": 2}, {**PLAIN, "test/dog": 2}),
        ({"Training_Set/cat": 4, "Training_Set/dog": 3, "Test_Set/cat": 2}, {**PLAIN, "test/cat": 2}),
        ({"train/Cat": 4, "train/dog": 3, "test/cat": 2}, {"train/Cat": 4, "train/dog": 3, "test/Cat": 2}),
        ({"cat": 4, "dog": 3, "test/cat": 2, "test/dog": 1}, {**PLAIN, "test/cat": 2, "test/dog": 1}),
        ({"cat/train": 4, "dog/Train": 3, "cat/test": 2, "dog/val": 1}, {**PLAIN, "test/cat": 2, "val/dog": 1}),
    ],
)  # fmt: skip
def test_a_folder_is_read_as_it_lies(make_folder: MakeFolder, made: dict[str, int], expected: dict[str, int]) -> None:
    layout = read(make_folder(made))
    assert counts(layout) == expected
    assert layout.left_out == []


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", "eval", "Val", "VALIDATION", "val2017"])
def test_a_folders_own_validation_images_are_validated_on(make_folder: MakeFolder, name: str) -> None:
    root = make_folder({"train/cat": 4, "train/dog": 3, f"{name}/cat": 2, f"{name}/dog": 1, "test/cat": 1})
    dataset = datasets.load(str(root))
    splits = datasets.split(dataset)
    assert {dataset.names[number].split("/")[0] for number in splits.val.tolist()} == {name}
    assert {dataset.names[number].split("/")[0] for number in splits.train.tolist()} == {"train"}
    assert (len(splits.val), len(splits.train)) == (3, 7)
    assert len(datasets.load_test(str(root)).labels) == 1


def test_without_test_images_none_to_validate_on_are_held_out(make_folder: MakeFolder) -> None:
    folder = Folder(make_folder({"train/cat": 10, "train/dog": 20, "val/cat": 5, "val/dog": 5}))
    train, test = folder.decode("train"), folder.decode("test")
    assert train.validation is not None
    assert np.bincount(train.labels[train.validation]).tolist() == [5, 5]
    assert np.bincount(train.labels[~train.validation]).tolist() == [8, 16]
    assert all(name.startswith("train/") for name in test.names)
    assert len(test.labels) == 6


@pytest.mark.parametrize("name", ["test", "tests", "testing", "Test", "TESTING", "test_images"])
def test_test_images_are_found_by_any_usual_name(make_folder: MakeFolder, name: str) -> None:
    layout = read(make_folder({"train/cat": 4, "train/dog": 3, f"{name}/cat": 2}))
    assert counts(layout) == {**PLAIN, "test/cat": 2}


def test_no_picture_is_left_out_without_a_reason(make_folder: MakeFolder) -> None:
    root = make_folder(
        {"train": 2, "train/cat": 4, "train/dog": 3, "train/empty": 0, "extra/cat": 5, "test": 6, "val/cat": 0}
        | {"train/cat/.hidden": 3, "__MACOSX/train/cat": 3}
    )
    (root / "loose.png").write_bytes((root / "train/000.png").read_bytes())
    (root / "train/cat/._001.png").touch()
    (root / "train/dog/Thumbs.db").touch()
    (root / "train/dog/notes.txt").touch()
    layout = read(root)
    assert counts(layout) == PLAIN
    assert sorted(left_out(layout, root)) == [
        (".", 1, "in no class folder"),
        ("extra", 5, "not in the folders train, val or test"),
        ("test", 6, "in no class folder"),
        ("train", 2, "in no class folder"),
        ("train/dog/notes.txt", 1, "no picture by its name"),
        ("train/empty", 0, "a folder without pictures"),
        ("val", 0, "a folder without pictures"),
    ]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({"cat": 0}, "pictures holds no pictures"),
        ({"cat": 3}, r"must hold at least 2 class folders, has 1: \['cat'\]"),
        ({"Dataset/cat": 3, "Dataset/dog": 3, "Examples": 2}, "cat, dog.*beside it Examples: did you mean .*/Dataset"),
        ({"data/train/cat": 3, "data/train/dog": 3, "more/x": 2, "demo": 2}, None),
        ({"dataset/cat": 4, "dataset/dog": 3, "train": 2, "val": 3}, "did you mean .*/dataset"),
        ({"test/cat": 3, "test/dog": 3}, "has pictures in test, and none to train on: name it train"),
        ({"train": 0, "val/cat": 3, "val/dog": 3}, "train holds no pictures$"),
        ({"images": 4, "annotations/trimaps": 4}, "images holds 4 pictures without classes; .* name; put those"),
        ({"train": 4, "test": 3}, r"holds 7 pictures without classes \(in test, train\); put those of each class into"),
        ({"images": 4, "test": 3}, r"holds 7 pictures without classes \(in images, test\); test is taken"),
        ({"val/cat": 3, "test/cat": 3}, "has pictures in test and val, and none to train on: name it train"),
        ({"train/cat": 3, "train/dog": 3, "Test/cat": 1, "test/cat": 1}, "2 folders of test images, Test and test"),
        ({"train/cat": 3, "train/dog": 3, "val/cow": 1, "val/ox": 1}, r"val has classes that .*: \['cow', 'ox'\]"),
    ],
)
def test_what_fits_nothing_is_said(make_folder: MakeFolder, made: dict[str, int], message: str | None) -> None:
    root = make_folder(made)
    if message is None:
        assert set(read(root).classes) == {"data", "demo", "more"}
        return
    with pytest.raises(RequestError, match=message):
        read(root)


def test_parts_that_hold_no_pictures_are_said(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 0, "train/dog": 0, "val/cat": 3, "val/dog": 3})
    for number in range(9):
        (root / f"train/cat/{number}.npy").touch()
    with pytest.raises(RequestError, match=r"train holds no pictures, but 9 files .* \(0.npy, 1.npy, .* \.\.\.\)$"):
        read(root)
    packed = make_folder({"packed/test/cat": 3, "packed/test/dog": 3}) / "packed"
    (packed / "train.zip").touch()
    with pytest.raises(RequestError, match=r"pictures in test, and none to train on: unpack train.zip"):
        read(packed)
    assert counts(read(packed, to_test=True)) == {"train/cat": 3, "train/dog": 3}
    alone = make_folder({"alone": 0}) / "alone"
    (alone / "photos.tar").touch()
    with pytest.raises(RequestError, match=r"holds no pictures, but 1 files .*: unpack photos.tar"):
        read(alone)


def test_pictures_beside_the_only_folder_are_named(make_folder: MakeFolder) -> None:
    root = make_folder({".": 2, "dataset/cat": 4, "dataset/dog": 3})
    for name in ("README.md", "photo.dng"):
        (root / name).touch()
    (root / "dataset/clip.mp4").touch()
    layout = read(root)
    assert counts(layout) == PLAIN
    assert left_out(layout, root) == [
        (".", 2, "in no class folder"),
        ("photo.dng", 1, "no picture by its name"),
        ("dataset/clip.mp4", 1, "no picture by its name"),
    ]


def test_classes_that_may_be_repetitions_are_said(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder({f"fold{fold}/{name}": 9 for fold in (1, 2) for name in ("cat", "dog")})
    assert describe(str(root), None, force=False) == 1
    said = (
        "each class, fold1, fold2, holds folders cat, dog: if these are the classes, put the pictures of each together"
    )
    assert said in capsys.readouterr().out
    more = make_folder({"more/fold2/frog": 9, "more/fold1/dog": 9, "more/fold1/cat": 9, "more/fold2/cat": 9}) / "more"
    assert describe(str(more), None, force=False) == 0
    shutil.copytree(more / "fold1/dog", more / "fold2/dog")
    assert describe(str(more), None, force=False) == 1
    assert "holds folders cat, dog: if these" in capsys.readouterr().out
    deeper = make_folder({f"c/{name}/{inner}": 9 for name in ("cat", "dog") for inner in ("imgs",)}) / "c"
    assert describe(str(deeper), None, force=False) == 0


def test_classes_that_begin_with_parts_are_said(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder({f"{part}_{name}": 9 for part in ("train", "test") for name in ("cat", "dog")})
    assert describe(str(root), None, force=False) == 1
    assert "the classes, test_cat, test_dog, train_cat ... (4 in all), begin with parts" in capsys.readouterr().out


def test_a_folder_of_folders_beside_pictures_is_asked_about(
    make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Flowers/rose, Flowers/tulip, Examples: or two classes, tomatoes and potatoes."""
    root = make_folder({"Flowers/rose": 9, "Flowers/tulip": 9, "Examples": 9})
    assert describe(str(root), None, force=False) == 1
    said = "the class Flowers holds folders, rose, tulip, and others hold pictures: if these are the classes, name the"
    assert said in capsys.readouterr().out


def test_unlabelled_test_pictures_beside_classes_are_left_out(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 4, "dog": 3, "test": 6})
    layout = read(root)
    assert counts(layout) == PLAIN
    assert left_out(layout, root) == [("test", 6, "in no class folder")]


def test_a_file_without_an_ending_is_looked_into(make_folder: MakeFolder) -> None:
    root = make_folder({"cat": 2, "dog": 2})
    (root / "cat/000.png").rename(root / "cat/picture")
    (root / "cat/README").write_text("about cats")
    layout = read(root)
    assert counts(layout) == {"train/cat": 2, "train/dog": 2}
    assert left_out(layout, root) == [("cat/README", 1, "no picture by its name")]


def loose(make_folder: MakeFolder, *names: str) -> Path:
    """Pictures of these names in one folder."""
    root = make_folder({".": len(names)})
    for path, name in zip(sorted(root.iterdir()), names, strict=True):
        path.rename(root / name)
    return root


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["file,label", "Id,Class", "label,x,image"])
def test_a_table_says_which_picture_shows_what(make_folder: MakeFolder, delimiter: str, header: str) -> None:
    root = loose(make_folder, "a.png", "b.png", "c.png", "d.png", "e.png")
    labels = {"a.png": "cat", "b": "dog", "c.png": "cat", "gone.png": "dog", "e.png": "dog"}
    columns = header.split(",")
    rows = [
        [{"label": label, "class": label, "x": "1"}.get(column.lower(), file) for column in columns]
        for file, label in labels.items()
    ]
    text = "\n".join(delimiter.join(row) for row in [columns, *rows])
    (root / "labels.csv").write_text(text, encoding="utf-8-sig")
    layout = read(root)
    assert {picture.path.name: layout.classes[picture.label] for picture in layout.pictures} == {
        "a.png": "cat", "b.png": "dog", "c.png": "cat", "e.png": "dog",
    }  # fmt: skip
    assert left_out(layout, root) == [
        ("d.png", 1, "not in labels.csv"),
        ("gone.png", 1, "in labels.csv, but not there"),
    ]


def test_a_picture_with_several_labels_is_left_out(make_folder: MakeFolder) -> None:
    root = loose(make_folder, "a.png", "b.png", "c.png")
    (root / "labels.csv").write_text("file,label\na.png,cat\nb.png,dog\nc,cat\na.png,dog\nb,dog\n")
    layout = read(root)
    assert [picture.path.name for picture in layout.pictures] == ["c.png", "b.png"]
    assert left_out(layout, root) == [("a.png", 1, "with several labels or parts in labels.csv")]


def test_a_table_names_pictures_of_parts(make_folder: MakeFolder) -> None:
    root = make_folder({"train": 4, "test": 2, "images": 1})
    rows = [f"train/00{number}.png,{'ab'[number % 2]}" for number in range(4)] + ["test/000.png,a", "images/000.png,b"]
    (root / "labels.csv").write_text("\n".join(["file,label", *rows]))
    assert counts(read(root)) == {"train/a": 2, "train/b": 3, "test/a": 1}


def test_a_table_may_name_the_parts_itself(make_folder: MakeFolder) -> None:
    root = loose(make_folder, *(f"{number}.PNG" for number in range(5)))
    rows = ["./0.PNG,a,train", "1.png,b,Training", r".\2.png,a,valid", "3,b,test", "4.PNG,a,test"]
    (root / "Labels.CSV").write_text("\n".join(["image,class,split", *rows]))
    layout = read(root)
    assert counts(layout) == {"train/a": 1, "train/b": 1, "val/a": 1, "test/a": 1, "test/b": 1}
    assert (layout.left_out, layout.understood) == ([], "2 classes, as Labels.CSV says")


def test_another_table_is_named(make_folder: MakeFolder) -> None:
    root = loose(make_folder, *(f"{number}.png" for number in range(5)))
    (root / "train.csv").touch()
    with pytest.raises(RequestError, match=r"If train.csv has both, name its columns file and label,"):
        read(root)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_table_in_another_encoding_is_said(make_folder: MakeFolder, encoding: str) -> None:
    root = loose(make_folder, "a.png", "b.png")
    (root / "labels.csv").write_text("file,label\na.png,Bär\nb.png,dog", encoding=encoding)
    with pytest.raises(RequestError, match=r"labels.csv is not in UTF-8: save it as a CSV file in UTF-8"):
        read(root)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,label,split\na.png,cat,train\nb.png,dog,rest", "line 3, must name a part, train, val or test"),
        ("", "must begin with a line that names its columns, file and label; it begins"),
        ("a.png,cat\nb.png,dog", r"must begin with a line that names its columns, .*'a.png', 'cat'"),
        ("file,label\n\na.png,cat\n\nb.png", r"line 5, has fewer columns than the first line: \['b.png'\]"),
        ("file,label\na.png,cat", r"at least 2 classes, has \['cat'\] \(1 not in labels.csv\); where folders"),
        (
            "file,label\nx.png,cat\ny.png,dog",
            r"has \[\] \(2 not in labels.csv, 2 in labels.csv, but not there, nor any",
        ),
        ("file,label,set\na.png,cat,val\nb.png,dog,test", "must label pictures to train on, has none; where"),
        ("file,label,set\na.png,cat,val\na.png,cat,train\nb.png,dog,val", r"1 with several labels or parts in"),
    ],
)
def test_an_unfit_table_is_refused(make_folder: MakeFolder, table: str, message: str) -> None:
    root = loose(make_folder, "a.png", "b.png")
    (root / "labels.csv").write_text(table)
    with pytest.raises(RequestError, match=message):
        read(root)


@given(st.one_of(st.binary(max_size=80), st.text(max_size=80).map(lambda text: f"file,label\n{text}".encode())))
def test_no_bytes_break_the_reader_of_tables(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("table") / "labels.csv"
    path.write_bytes(content)
    try:
        rows = read_table(path)
    except RequestError:
        return
    assert all(row.share is None for row in rows)


def test_classes_at_the_beginning_of_names_need_one_command(make_folder: MakeFolder) -> None:
    root = loose(make_folder, "cat.0.png", "cat,1.png", "cat_2.png", "dog-0.png", "dog 1.png", "dog2.png")
    with pytest.raises(RequestError, match=r"labels.csv.*the names begin with the classes \(cat, dog\)") as refused:
        read(root)
    command = str(refused.value).split("this writes it: ")[1]
    subprocess.run(["bash", "-c", command], check=True)
    assert counts(read(root)) == {"train/cat": 3, "train/dog": 3}


def test_so_they_do_in_parts(make_folder: MakeFolder) -> None:
    root = make_folder({"train": 4, "test": 4})
    for number, path in enumerate(sorted(root.glob("*/*"))):
        path.rename(path.with_name(f"{('cat', 'dog')[number % 2]}{path.name}"))
    (root / "test/17.png").write_bytes(next(root.glob("train/*")).read_bytes())
    with pytest.raises(RequestError, match="holds 9 pictures without classes") as refused:
        read(root)
    subprocess.run(["bash", "-c", str(refused.value).split("this writes it: ")[1]], check=True)
    layout = read(root)
    assert counts(layout) == {"train/cat": 2, "train/dog": 2, "test/cat": 2, "test/dog": 2}
    assert left_out(layout, root) == [("test/17.png", 1, "not in labels.csv")]


def test_beginnings_may_have_several_words_and_other_files_lie_beside(make_folder: MakeFolder) -> None:
    root = make_folder({"images": 12, "test1": 2})
    for number, path in enumerate(sorted((root / "images").iterdir())):
        path.rename(path.with_name(f"{('golden_retriever', 'golden_eagle')[number % 2]}_{number}.PNG"))
    for name in ("README.txt", "Thumbs.db", "images/sample_1.csv", "test1/a2.txt"):
        (root / name).write_text("x")
    with pytest.raises(RequestError, match=r"the classes \(golden_eagle, golden_retriever\)") as refused:
        read(root)
    subprocess.run(["bash", "-c", str(refused.value).split("this writes it: ")[1]], check=True)
    layout = read(root)
    assert layout.classes == ("golden_eagle", "golden_retriever")
    assert counts(layout) == {"train/golden_eagle": 6, "train/golden_retriever": 6}


def test_one_folder_of_pictures_is_helped_as_the_top_is(make_folder: MakeFolder) -> None:
    root = make_folder({"images": 6})
    (root / "sample_submission.csv").write_text("id,score\n")
    (root / "train.csv").write_text("image,class\n")
    with pytest.raises(RequestError, match=r"holds 6 pictures without classes \(in images\).* If train.csv has both"):
        read(root)
    for number, path in enumerate(sorted((root / "images").iterdir())):
        path.rename(path.with_name(f"{('cat', 'dog')[number % 2]}{number}.png"))
    (root / "train.csv").unlink()
    (root / "test.csv").write_text("file,label\n")
    with pytest.raises(RequestError, match="Where the names begin with") as refused:
        read(root)
    assert "has both" not in str(refused.value)  # what may be meant is the one to test on, or to submit


def test_rows_without_label_or_picture_leave_the_others(make_folder: MakeFolder) -> None:
    root = loose(make_folder, "a.png", "b.png", "c.png")
    (root / "labels.csv").write_text(
        "filepaths,labels,data set\na.png,cat,TRAIN\nb.png,dog,VALID\nc.png,,test\nd,cow,test"
    )
    layout = read(root)
    assert counts(layout) == {"train/cat": 1, "val/dog": 1}
    assert left_out(layout, root) == [
        ("c.png", 1, "without a label in labels.csv"),
        ("d", 1, "in labels.csv, but not there, nor any other of the class cow"),
    ]


@pytest.mark.parametrize("name", ["/elsewhere/x.png", "", "../x.png", "C:\\x.png", "x" * 300, "a\0b"])
def test_a_file_of_any_name_may_be_missing(make_folder: MakeFolder, name: str) -> None:
    root = loose(make_folder, "a.png", "b.png")
    (root / "labels.csv").write_text(f"file,label\na.png,cat\nb.png,dog\n{name},cat\n")
    (sentence,) = Folder(root).why_left_out()
    assert sentence.startswith("left out, in labels.csv, but not there: ")


def test_parts_of_a_table_may_lie_deeper(make_folder: MakeFolder) -> None:
    root = make_folder({"images/train": 4, "images/test": 2})
    rows = [
        f"{part}/00{number}.png,{'ab'[number % 2]}"
        for part, some in (("train", 4), ("test", 2))
        for number in range(some)
    ]
    for above in ("images/", "/home/somebody/data/images/", "C:\\pictures\\images\\"):
        (root / "labels.csv").write_text("\n".join(["file,label", *(above + row for row in rows)]))
        assert counts(read(root)) == {"train/a": 2, "train/b": 2, "test/a": 1, "test/b": 1}


def test_a_name_in_several_parts_is_found_by_its_part(make_folder: MakeFolder) -> None:
    root = make_folder({"train": 2, "test": 2})
    rows = ["000.png,a,train", "001.png,b,train", "000.png,a,test", "001.png,b,test"]
    (root / "labels.csv").write_text("\n".join(["file,label,split", *rows]))
    assert counts(read(root)) == {"train/a": 1, "train/b": 1, "test/a": 1, "test/b": 1}
    (root / "labels.csv").write_text("file,label\n000.png,a\ntrain/001.png,b\ntrain/000.png,a")
    layout = read(root)
    assert counts(layout) == {"train/a": 1, "train/b": 1}
    assert ("000.png", 1, "several pictures have the name in labels.csv") in left_out(layout, root)


def test_what_lies_beside_an_inner_folder_of_a_part_is_named(make_folder: MakeFolder) -> None:
    classes = [f"{part}/images/{name}" for part in ("train", "val") for name in ("cat", "dog")]
    root = make_folder({"val": 5} | dict.fromkeys(classes, 4))
    for name in ("train/x.dcm", "val/scans/y.nef", "raw/z.nef", "train/readme.txt", "docs/a.md"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    assert sorted(left_out(read(root), root)) == [
        ("raw", 1, "a folder without pictures"),
        ("train/x.dcm", 1, "no picture by its name"),
        ("val", 5, "in no class folder"),
        ("val/scans", 1, "a folder without pictures"),
    ]


@pytest.mark.parametrize(("first", "second"), [("seg_train", "seg_test"), ("train", "test"), ("train", "val")])
def test_a_part_in_a_folder_of_its_own_name_is_entered(make_folder: MakeFolder, first: str, second: str) -> None:
    root = make_folder({f"{part}/{part}/{name}": 4 for part in (first, second) for name in ("cat", "dog")})
    share = "val" if second == "val" else "test"
    assert counts(read(root)) == {"train/cat": 4, "train/dog": 4, f"{share}/cat": 4, f"{share}/dog": 4}


def test_what_lies_beside_parts_within_classes_is_left_out(make_folder: MakeFolder) -> None:
    parts = [f"{name}/{part}" for name in ("cat", "dog") for part in ("train", "test")]
    root = make_folder({"cat": 1} | dict.fromkeys(parts, 4) | {"dog/extra": 2})
    layout = read(root)
    assert counts(layout) == {"train/cat": 4, "train/dog": 4, "test/cat": 4, "test/dog": 4}
    assert left_out(layout, root) == [
        ("cat", 1, "not in the folders train, val or test"),
        ("dog/extra", 2, "not in the folders train, val or test"),
    ]
    make_folder({"two/cat/Test": 1, "two/cat/test": 1, "two/cat/train": 4, "two/dog": 4})
    with pytest.raises(RequestError, match="cat has 2 folders of test images, Test and test: keep one"):
        read(root / "two")


def test_a_class_spelled_with_accents_apart_is_the_same(make_folder: MakeFolder) -> None:
    """As macOS writes names."""
    root = make_folder({"train/caf\u00e9": 3, "train/dog": 3, "test/cafe\u0301": 2})
    assert counts(read(root)) == {"train/caf\u00e9": 3, "train/dog": 3, "test/caf\u00e9": 2}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"cat": 3, "dog": 3, "test/cat": 1, "test/bird": 1}, r"test has classes that .* lacks: \['bird'\]"),
        ({"valid": 3, "invalid": 3}, "valid is taken for a part: if it is a class, give it another name"),
        ({"data": 3, "noise": 3}, "data is taken for a folder of classes: if it is a class, give it another name"),
    ],
)
def test_what_was_taken_for_something_else_is_said(make_folder: MakeFolder, made: dict[str, int], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        read(make_folder(made))


def test_a_folder_without_readable_pictures_to_validate_on_is_refused(make_folder: MakeFolder) -> None:
    root = make_folder({"train/cat": 9, "train/dog": 9, "val/cat": 1})
    (root / "val/cat/000.png").write_bytes(b"x")
    with pytest.raises(RequestError, match="no readable val images: of no format that Pillow reads"):
        datasets.load(str(root))


def test_what_is_left_out_is_counted_anew(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"cat": 9, "dog": 9})
    assert datasets.load(str(root)).skipped == 0
    (root / "loose.png").write_bytes((root / "cat/000.png").read_bytes())
    assert datasets.load(str(root)).skipped == 1
    assert datasets.load_test(str(root)).skipped == 0
    key = Folder(root).key("train")
    monkeypatch.setattr("cifar.data.folder.reads_heic", lambda: "otherwise")
    assert Folder(root).key("train") != key  # what could not be read may now be


def test_all_that_was_read_is_told(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    root = make_folder({"top/train/cat": 9, "top/train/Cat": 9, "top/train/dog": 9, "top/val/cat": 4, "top/extra": 2})
    assert describe(str(root), None, force=False) == 1
    out = capsys.readouterr().out
    assert out.startswith(
        "3 classes, each a folder in top/train (to train on), top/val (to validate on); "
        "held out: 20% of each class to test on\n"
    )
    assert "left out, not in the folders train, val or test: 2 files in top/extra\n" in out
    assert "the classes Cat and cat differ in case alone\n" in out
    assert "no picture to validate on is of the classes Cat, dog\n" in out
