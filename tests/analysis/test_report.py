from __future__ import annotations

import base64
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import fake_experiments as fake
import pytest
import yaml
from experiments import ROOT

from cifar.analysis.best import Budget, best
from cifar.analysis.report import report
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.search import config
from cifar.training.hparams import Hparams
from cifar.training.train import new_model
from cifar.trials import top_models

TRIALS: list[dict[str, Any]] = [
    *({"accuracy": 0.4 + 0.02 * number} for number in range(8)),
    {"accuracy": 0.1, "status": "diverged"},
    {"accuracy": 0.3, "status": "stopped_early", "epochs": 1},
    {"accuracy": 0.0, "status": "running"},
]


class Page(HTMLParser):
    """What a browser would fetch, and what stands in place of each figure."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text()
        self.fetched: list[str] = []
        self.alternatives: list[str] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.fetched += [named[name] or "" for name in ("src", "href") if name in named and tag != "a"]
        if named.get("role") == "img" or tag == "img":
            self.alternatives.append(named.get("aria-label") or named.get("alt") or "")


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    return fake.make(tmp_path / "made", TRIALS)


def keep_model(experiment: Path, trial: str, accuracy: float) -> Dataset:
    digits, hparams = datasets.load("digits"), Hparams(width=4)
    network = new_model(hparams, digits)
    top_models.save_top_k(experiment, trial, accuracy, lambda path: model_file.save(path, network, hparams, digits, {}))
    return digits


def test_the_page_fetches_nothing_and_says_each_figure_in_words(experiment: Path, tmp_path: Path) -> None:
    keep_model(experiment, "trial7", 0.54)
    report(experiment, tmp_path / "report.html", "digits", running=False)
    page = Page(tmp_path / "report.html")
    assert all(link.startswith("data:image/png;base64,") for link in page.fetched)
    pictures = [base64.b64decode(link.split(",")[1]) for link in page.fetched]
    assert len(pictures) == 40
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert len(page.alternatives) == 7 + 40
    assert all(page.alternatives)
    titles = re.findall("<h2>(.*?)</h2>", page.text)
    assert titles == [
        "The answer",
        "Was the search worth it?",
        "Best so far",
        "Learning curves",
        "Parallel coordinates",
        "Importance of each hyperparameter",
        "Slices",
        "Accuracy against cost",
        "How the trials ended",
        "All trials",
        "Confusion matrix",
        "What the best kept model says",
        "To make it again",
    ]


def test_the_figures_say_what_the_trials_did(experiment: Path, tmp_path: Path) -> None:
    keep_model(experiment, "trial7", 0.54)
    report(experiment, tmp_path / "report.html", "digits", running=True)
    text = Page(tmp_path / "report.html").text
    for sentence in (
        "still running: this is what there is so",
        "it rose 8 times, last at trial 7, to 54.0%",
        "1 of the 9 were stopped early",
        "Not confirmed yet",
        "Early stopping ended 1 trials, after 1 of the",
        "the 5 trials that TPE proposed, beside the 5 that",
        "validation images, by trial 7",
    ):
        assert sentence in text, sentence


def test_after_cifar_best_the_page_has_the_test_images_verdict(tmp_path: Path) -> None:
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    trial = {"accuracy": 0.8, "params": {"width": 4.0, "lr": 0.01}, "epochs": 1, "fingerprints": digits}
    defaults = {"trialCommand": "python3 trial.py --batch-size 64 --epochs 1"}
    experiment = fake.make(tmp_path / "made", [trial, {"accuracy": 0.5, "fingerprints": digits}], defaults)
    best(experiment, "digits", Budget(2), None, force=False)
    report(experiment, tmp_path / "report.html", "digits", running=False)
    text = Page(tmp_path / "report.html").text
    assert re.search(r"Gain over the defaults: \+\d+\.\d points ± \d+\.\d \(95 % interval, 2 new seeds, valid", text)
    assert re.search(r"Confirmed with 2 new seeds: trial 0, (better than the others|one of 2 that tie)", text)
    assert re.search(r"Test accuracy \d+\.\d% ± \d+\.\d% \(95 % interval\) of 359 images of digits", text)
    assert "Test images read in this experiment: of digits once." in text
    assert "359 test images of digits by 2 networks" in text


def test_names_cannot_become_part_of_the_page(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    experiment = fake.make(tmp_path / "made", TRIALS[:3], {"experimentName": name})
    report(experiment, tmp_path / "report.html", "digits", running=False)
    text = Page(tmp_path / "report.html").text
    assert name not in text
    assert "&lt;script&gt;alert(1)" in text


def test_folders_of_this_machine_are_nobody_elses_business(tmp_path: Path) -> None:
    folder = {"trialCodeDirectory": "/home/somebody/secret", "experimentWorkingDirectory": "/home/somebody/secret"}
    experiment = fake.make(tmp_path / "made", TRIALS[:3], folder)
    report(experiment, tmp_path / "report.html", "/home/somebody/secret/pictures", running=False)
    assert "somebody" not in Page(tmp_path / "report.html").text


@pytest.mark.parametrize("trials", [[], [{"accuracy": 0.1, "status": "diverged"}]])
def test_without_a_finished_trial_there_is_no_report(tmp_path: Path, trials: list[dict[str, Any]]) -> None:
    experiment = fake.make(tmp_path / "made", trials)
    with pytest.raises(RequestError, match="has finished: there is nothing to report"):
        report(experiment, tmp_path / "report.html", "digits", running=False)
    assert not (tmp_path / "report.html").exists()


def test_one_trial_is_enough(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", TRIALS[:1])
    report(experiment, tmp_path / "report.html", "digits", running=False)
    assert "Best so far" not in Page(tmp_path / "report.html").text


def test_accuracies_of_nothing_make_a_report_too(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.0}] * 3)
    report(experiment, tmp_path / "report.html", "digits", running=False)


def test_the_configuration_in_the_report_makes_the_search_again(tmp_path: Path) -> None:
    stored = yaml.safe_load((ROOT / "config.yml").read_text()) | {"searchSpaceFile": "/gone/search_space.json"}
    stored["searchSpace"] = json.loads((ROOT / "search_space.json").read_text())
    experiment = fake.make(tmp_path / "made", TRIALS[:3], stored)
    report(experiment, tmp_path / "report.html", "digits", running=False)
    shown = html.unescape(Page(tmp_path / "report.html").text.rsplit("<pre>", 1)[1].split("</pre>")[0])
    again = ROOT / f"again-{tmp_path.name}.yml"
    again.write_text(shown)
    try:
        loaded = config.load(again, config.Overrides())
    finally:
        again.unlink()
    assert loaded.search_space == stored["searchSpace"]
    assert loaded.trial_command == stored["trialCommand"]
    assert loaded.tuner.class_args == stored["tuner"]["classArgs"]


@pytest.mark.parametrize("content", ["{", "{}", '{"candidates": {}, "winner": "x", "tests": []}', "[]"])
def test_a_damaged_answer_is_named(experiment: Path, tmp_path: Path, content: str) -> None:
    (experiment / "best.json").write_text(content)
    with pytest.raises(RequestError, match=r"best\.json is (damaged|of another version)"):
        report(experiment, tmp_path / "report.html", "digits", running=False)
