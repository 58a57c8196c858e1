from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_experiments as fake
import pytest
from conftest import MakeFolder

from cifar.errors import RequestError
from cifar.search.prepare import _fit_space, _refuse_other_defaults, _tell_of_data
from cifar.training.defaults import for_budget
from cifar.trials import layout, store

FACTS: dict[str, Any] = {"train_images": 2_000}


def refuse(tmp_path: Path, command: str, images: int | None) -> None:
    """As for an experiment of one trial, of two epochs and batches of 4, with this command and so many images."""
    facts: dict[str, Any] = {} if images is None else {"train_images": images}
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.5, "fingerprints": facts}])
    planned: Any = SimpleNamespace(config=SimpleNamespace(trial_command=command), data="cifar10")
    _refuse_other_defaults(store.read_trials(experiment), planned)


@pytest.mark.parametrize(
    ("command", "images"),
    [
        ("python trial.py", 45_000),
        ("python trial.py --epochs 2", 2_000),
        ("python trial.py --batch-size 32", None),
    ],
)
def test_trials_that_would_be_trained_the_same_way_go_on(tmp_path: Path, command: str, images: int | None) -> None:
    refuse(tmp_path, command, images)


@pytest.mark.parametrize(
    ("command", "images", "message"),
    [
        ("python trial.py", 2_000, "trial 0 was trained with epochs 2, this version would train it with 9"),
        ("python trial.py --batch-size 32", 45_000, "trial 0 was trained with batch_size 4, .* with 32: further"),
    ],
)
def test_trials_that_would_not_compare_end_the_experiment(
    tmp_path: Path, command: str, images: int, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        refuse(tmp_path, command, images)


def test_a_trial_of_a_version_that_did_not_change_colours_is_not_continued_by_one_that_does(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.5, "fingerprints": FACTS}])
    path = layout.trial_directory(experiment, "trial0") / layout.RESULT
    result = json.loads(path.read_text())
    result["hparams"] = vars(
        for_budget({"model": "fast", "epochs": 20} | {name: result["hparams"][name] for name in ("width", "lr")}, 2_000)
    )
    del result["hparams"]["color_jitter"]
    path.write_text(json.dumps(result))
    planned: Any = SimpleNamespace(
        config=SimpleNamespace(trial_command="python trial.py --model fast --epochs 20"), data="photos"
    )
    with pytest.raises(RequestError, match=r"trained with color_jitter 0.0, this version would train it with 0.5"):
        _refuse_other_defaults(store.read_trials(experiment), planned)


def test_a_search_says_how_it_reads_a_folder(make_folder: MakeFolder, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(make_folder({"train/0": 20, "train/1": 20, "extra/0": 3}))
    planned: Any = SimpleNamespace(
        data=data, size=32, config=SimpleNamespace(trial_command="python trial.py --flip --no-flip")
    )
    _tell_of_data(planned)
    assert "--no-flip" not in capsys.readouterr().err
    planned.config.trial_command = "python trial.py --flip"
    _tell_of_data(planned)
    err = capsys.readouterr().err
    assert "2 classes, each a folder in train; held out: 10% of each class to validate on and 20%" in err
    assert "left out, not in the folders train, val or test: 3 files in extra\n" in err
    assert "images to validate on, a difference below" in err
    assert "--no-flip" in err


def test_a_space_that_moved_with_the_folder_is_no_longer_that_of_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Or each resume would say that the file differs from what is searched."""
    sampler = {"_type": "qloguniform", "_value": [64, 1024, 64]}
    ready = SimpleNamespace(search_space={"batch_size": sampler}, trial_command="python trial.py --model fast")
    assert _fit_space(ready, Path("space.json"), 45_000) == Path("space.json")
    assert capsys.readouterr().err == ""
    assert _fit_space(ready, Path("space.json"), 500) is None
    assert ready.search_space["batch_size"]["_value"][1] < 1024
    assert "batch_size 32 to " in capsys.readouterr().err
