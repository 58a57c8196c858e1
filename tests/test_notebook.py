"""What a notebook does, as a notebook does it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fake_experiments as fake
import nbclient
import nbformat
import numpy as np
import plotly.graph_objects as go
import pytest
from experiments import ROOT
from PIL import Image

import cifar
from cifar import load_data, load_experiment, load_model, train
from cifar.errors import RequestError
from cifar.notebook import Training


@pytest.fixture(scope="module")
def training() -> Training:
    return train(load_data("digits"), progress=False, epochs=2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own making
def test_the_notebook_of_the_documentation_runs_from_its_first_cell_to_its_last(tmp_path: Path) -> None:
    for name in ("config.yml", "search_space.json", "trial.py"):
        shutil.copy(ROOT / name, tmp_path)
    notebook = nbformat.reads((ROOT / "docs" / "notebook.ipynb").read_text(), as_version=4)  # type: ignore[no-untyped-call]
    assert not [cell for cell in notebook.cells if cell.get("outputs")]  # none are kept
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = {kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})}
    assert {"text/html", "image/png", "application/vnd.plotly.v1+json"} <= shown
    assert (tmp_path / "digits.safetensors").exists()
    searched = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "6 trials: " in searched


def test_a_training_has_its_curve_its_accuracy_and_a_model_that_can_be_kept(training: Training, tmp_path: Path) -> None:
    assert training.history.index.to_list() == [1, 2]
    assert training.accuracy == training.history["accuracy"].iloc[-1] > 0.7
    training.save(tmp_path / "model.safetensors")
    kept, image = load_model(tmp_path / "model.safetensors"), training.data.images[5].permute(1, 2, 0).numpy()
    assert kept.accuracy == {"validation_accuracy": training.accuracy}
    assert kept.hparams["epochs"] == 2
    Image.fromarray(image).save(tmp_path / "five.png")
    tensor = training.data.images[5]
    assert kept.predict(tensor).equals(kept.predict([tensor])) and kept.predict(tensor).equals(kept.predict(image))
    found = kept.predict([image, tmp_path / "five.png", Image.fromarray(image)], top=2)
    assert found["picture"].to_list() == ["array", str(tmp_path / "five.png"), "array"]
    assert found.columns.to_list() == ["picture", "class 1", "probability 1", "class 2", "probability 2"]
    assert found["class 1"].nunique() == found["probability 1"].nunique() == 1
    assert found.equals(kept.predict([image, str(tmp_path / "five.png"), Image.fromarray(image)], top=2))


def test_what_a_cell_shows_of_them_is_one_line(training: Training, config_path: Path, tmp_path: Path) -> None:
    fake.make(tmp_path / "experiments" / "abc1", [{"accuracy": 0.6}])
    accuracy = f"{training.accuracy:.1%}"
    assert repr(training) == f"Training(2 epochs: {accuracy} of the validation images)"
    assert repr(training.model) == f"Model(net, 10 classes: validation_accuracy {accuracy})"
    assert repr(training.data) == "Data('digits': 1,295 images to train on, 143 to validate on, 10 classes)"
    assert repr(load_experiment("abc", config_path)) == "Experiment('abc1': 1 trials)"


def test_data_are_counted_and_shown() -> None:
    data = load_data("digits")
    assert data.counts().sum().to_dict() == {"train": len(data.train), "validation": len(data.validation)}
    assert data.images.dtype == data.dataset.images.dtype and len(data.images) == len(data.labels)
    assert data.preview().size[1] == 64 * len(data.classes)


def test_an_experiment_has_tables_and_figures(config_path: Path, tmp_path: Path) -> None:
    trials: list[dict[str, Any]] = [{"accuracy": 0.6}, {"accuracy": 0.8}, {"accuracy": 0.1, "status": "diverged"}]
    fake.make(tmp_path / "experiments" / "abc1", trials)
    experiment = load_experiment("ab", config_path)
    assert experiment.trials["number"].to_list() == [1, 0, 2]
    assert experiment.trials["configuration"].to_list()[:2] == [0.8, 0.6]
    assert experiment.curves.groupby("trial").size().to_dict() == {0: 2, 1: 2, 2: 2}
    figures = experiment.figures()
    assert all(isinstance(figure, go.Figure) for figure in figures.values())
    assert {"Learning curves", "Each hyperparameter by itself: width", "Each hyperparameter by itself: lr"} <= {
        *figures
    }
    assert experiment.answer is None
    with pytest.raises(RequestError, match="experiment abc1 has kept no model"):
        experiment.model()


def test_mistakes_are_sentences(training: Training, config_path: Path, tmp_path: Path) -> None:
    fake.make(tmp_path / "experiments" / "new1", [{"accuracy": 0.0, "status": "running"}])
    with pytest.raises(RequestError, match="no trial of experiment new1 has finished"):
        load_experiment(config=config_path)
    with pytest.raises(RequestError, match="unknown hyperparameter 'epoch'"):
        train(training.data, epoch=2)
    with pytest.raises(RequestError, match="diverged: "):
        train(training.data, progress=False, lr=1e6)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="no pictures in"):
        training.model.predict(tmp_path / "empty")
    with pytest.raises(RequestError, match=r"an array of shape \(4, 4, 5\) is no picture"):
        training.model.predict(np.zeros((4, 4, 5), np.uint8))
    with pytest.raises(RequestError, match="data must be cifar10, digits or a folder of pictures"):
        train("nowhere")
    with pytest.raises(RequestError, match="is no readable picture"):
        training.model.predict(tmp_path / "missing.png")
    with pytest.raises(AttributeError, match="module 'cifar' has no attribute 'fit'"):
        _ = cifar.fit
    assert np.isfinite(training.history.to_numpy()).all()
