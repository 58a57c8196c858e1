from __future__ import annotations

import base64
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import fake_experiments as fake
import pytest
import yaml
from experiments import ROOT
from playwright.sync_api import sync_playwright

from cifar.analysis.best import Budget, best
from cifar.analysis.report import _model_to_show, report
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.search import config
from cifar.training.hparams import Hparams
from cifar.training.train import new_model
from cifar.trials import store, top_models

CHROMIUM = shutil.which("chromium")
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
    assert len(page.alternatives) == 7 + 40  # figures and pictures
    assert all(page.alternatives)
    titles = re.findall("<h[23][^>]*>(.*?)</h[23]>", page.text)
    assert titles == [
        "Use this",
        "How good",
        "How sure",
        "Next",
        "Pictures",
        "What is taken for what",
        "Confusion matrix of validation images",
        "The search",
        "Learning curves",
        "Parallel coordinates",
        "Each hyperparameter by itself",
        "Importance of each hyperparameter",
        "Best so far",
        "Accuracy against seconds",
        "All trials",
        "How it was made",
        "Was the search worth it?",
        "How the trials ended",
        "To make it again",
    ]
    places = set(re.findall('href="#(.*?)"', page.text))
    assert places == {"answer", "pictures", "confusions", "search", "trials", "how"}
    assert all(f'id="{place}"' in page.text for place in places)


def test_the_figures_say_what_the_trials_did(experiment: Path, tmp_path: Path) -> None:
    keep_model(experiment, "trial7", 0.54)
    report(experiment, tmp_path / "report.html", "digits", running=True)
    text = Page(tmp_path / "report.html").text
    for sentence in (
        "still running: this is what there is so",
        "the first was beaten 7 times, last by trial 7, at 54.0%",
        "1 of the 9 were stopped early",
        "trial 7, the leader of the search, <strong>not confirmed</strong>",
        "cifar best made",
        "python trial.py --data digits --width 18 --lr 0.008 --momentum 0.9 --batch-size 4 --epochs 2",
        "Early stopping ended 1 trial, after 1 of the",
        "the 5 trials that TPE proposed, beside the 5 that",
        "of validation images, by the network of trial 7.",
    ):
        assert sentence in text, sentence


def test_after_cifar_best_the_page_has_the_test_images_verdict(tmp_path: Path) -> None:
    digits = {"fingerprint": datasets.load("digits").fingerprint}
    trial = {"accuracy": 0.8, "params": {"width": 4.0, "lr": 0.01}, "epochs": 1, "fingerprints": digits}
    defaults = {"trialCommand": "python3 trial.py --batch-size 64 --epochs 1"}
    experiment = fake.make(tmp_path / "made", [trial, {"accuracy": 0.5, "fingerprints": digits}], defaults)
    keep_model(experiment, "trial0", 0.8)
    best(experiment, "digits", Budget(2), None, force=False)
    report(experiment, tmp_path / "report.html", "digits", running=False)
    text = Page(tmp_path / "report.html").text
    said = "as the network of trial 0 answers (the answer's own has been trained on them):"
    assert said in " ".join(text.split())
    assert re.search(r"gain over the defaults: \+\d+\.\d points ± \d+\.\d \(95 % interval, 2 new seeds, valid", text)
    assert "<p>trial 0, confirmed</p>" in text
    assert re.search(r"(No other ties with it|One of 2 that tie for first), by 2 new seeds; \d", text)
    assert re.search(r"\d+\.\d% ± \d+\.\d%</p><p>of 359 test images \(digits\)", text)
    assert "Test images read in this experiment: digits once." in text
    assert "Confusion matrix of 359 test images (digits)" in text
    assert "cifar predict made/best.safetensors PICTURE" not in text
    assert f"cifar predict {tmp_path.name}/made/best.safetensors PICTURE" in text


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


def test_where_the_first_trial_was_never_beaten_the_page_says_that(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.6}, {"accuracy": 0.5}])
    report(experiment, tmp_path / "report.html", "digits", running=False)
    assert "trial 0, the first, was never beaten" in Page(tmp_path / "report.html").text


@pytest.mark.parametrize(
    "sampler",
    [
        {"_type": "choice", "_value": [True, False]},
        {"_type": "choice", "_value": ["sgd", "adam"]},
        {"_type": "choice", "_value": [0.1]},
        {"_type": "randint", "_value": [0, 4]},
        {"_type": "quniform", "_value": [1, 7, 2]},
        {"_type": "loguniform", "_value": [1e-5, 0.9]},
        {"_type": "normal", "_value": [0, 1]},
    ],
)
def test_any_sampler_can_be_drawn(tmp_path: Path, sampler: dict[str, Any]) -> None:
    kind, values = sampler["_type"], sampler["_value"]
    given = [values[0], values[-1]] if kind == "choice" else [values[0], 3] if kind == "randint" else [1, 3]
    given = [1e-5, 0.3] if kind == "loguniform" else given
    space = {"lr": fake.SPACE["lr"], "width": fake.SPACE["width"], "other": sampler}
    trials = [
        {"accuracy": 0.5 + 0.1 * n, "params": {"width": 8.0, "lr": 0.01, "other": given[n % 2]}} for n in range(4)
    ]
    experiment = fake.make(tmp_path / "made", trials, {"searchSpace": space})
    report(experiment, tmp_path / "report.html", "digits", running=False)
    assert "Parallel coordinates" in Page(tmp_path / "report.html").text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
def test_in_a_browser_nothing_is_cut_and_the_table_can_be_sorted_and_searched(
    experiment: Path, tmp_path: Path, width: int, theme: Literal["light", "dark"]
) -> None:
    keep_model(experiment, "trial7", 0.54)
    report(experiment, tmp_path / "report.html", "digits", running=False)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
        errors = list[str]()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((tmp_path / "report.html").as_uri())
        page.wait_for_function("document.querySelectorAll('.plot .main-svg').length >= 8")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        wide = "[...document.querySelectorAll('.wide')].filter((some) => some.scrollWidth > some.clientWidth).length"
        assert page.evaluate(wide) == (0 if width == 1280 else 1)  # the table of all trials alone is scrolled
        colours = page.evaluate(
            "[getComputedStyle(document.body).color, document.querySelector('.xtick text').style.fill]"
        )
        assert colours[0] == colours[1]
        cells = "[...document.querySelectorAll('#records tbody tr:not([hidden]) td:nth-child(3)')]"
        accuracies = f"{cells}.map((cell) => parseFloat(cell.textContent))"
        page.click("#records th:nth-child(3)")
        rising = [value for value in page.evaluate(accuracies) if value == value]
        assert rising == sorted(rising) and len(rising) == 10
        page.click("#records th:nth-child(3)")
        assert [value for value in page.evaluate(accuracies) if value == value] == rising[::-1]
        page.fill("#filter", "stopped early")
        assert page.evaluate(accuracies) == [30.0]
        page.click(".command button")
        page.wait_for_function("document.querySelector('.command button').textContent === 'copied'")
        browser.close()
    assert errors == []


def test_a_network_that_is_no_better_than_guessing_is_no_answer(tmp_path: Path) -> None:
    trials = [{"accuracy": 0.1, "params": {"width": 4.0, "lr": 0.01}}]
    experiment = fake.make(tmp_path / "made", trials)
    mean = {"mean": 0.1, "margin_95": 0.02}
    answer = {
        "winner": "trial0",
        "params": {"width": 4.0},
        "useless": "every image it is judged by gets the same class; guessing the largest class gets 10.0%",
        "gain": None,
        "candidates": {"trial0": mean},
        "tied": ["trial0"],
        "seeds": 2,
        "classes": ["a", "b"],
        "tests": [{"data": "digits", "images": 10, "confusion": [[5, 0], [5, 0]], **mean}],
    }
    (experiment / "best.json").write_text(json.dumps(answer))
    first = report(experiment, tmp_path / "report.html", "digits", running=False)
    text = " ".join(Page(tmp_path / "report.html").text.split())
    assert "<p>nothing: no network was found that beats guessing;" in text
    assert "trial 0, confirmed" not in text
    assert "The only one that trains" in text
    assert first.text.startswith("use nothing: no network was found that beats guessing")
    assert "cifar predict" not in text and "width 4" not in first.text


def test_the_pictures_are_by_the_winner_where_its_network_was_kept(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.5}, {"accuracy": 0.6}])
    for trial, accuracy in (("trial0", 0.5), ("trial1", 0.6)):
        keep_model(experiment, trial, accuracy)
    trials = store.read_trials(experiment)
    assert _model_to_show(experiment, trials, None)[1] == "the network of trial 1"
    assert _model_to_show(experiment, trials, {"winner": "trial0"})[1] == "the network of trial 0"
    assert _model_to_show(experiment, trials, {"winner": "defaults"})[1] == "the network of trial 1"
