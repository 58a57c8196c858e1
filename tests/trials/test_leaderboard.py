from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import fake_experiments as fake
import pytest

from cifar.trials import layout, leaderboard, store
from cifar.trials.ties import ties


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """0.8, a tie with it, clearly worse, diverged, and one that runs."""
    return fake.make(
        tmp_path / "made",
        [
            {"accuracy": 0.8},
            {"accuracy": 0.797},
            {"accuracy": 0.7},
            {"accuracy": 0.1, "status": "diverged"},
            {"accuracy": 0.0, "status": "running"},
        ],
    )


def test_ties_are_those_that_images_and_seeds_do_not_tell_apart(experiment: Path) -> None:
    trials = store.read_trials(experiment)
    assert ties(trials, experiment) == {"trial0", "trial1"}
    lines = leaderboard.leaderboard(trials, experiment).splitlines()
    assert [line.split()[5] == "=" for line in lines[1:4]] == [True, True, False]
    assert lines[4].split()[-5:] == ["diverged:", "diverged", "after", "2", "epochs"]
    assert lines[5].split()[-1] == "running"
    assert "over images and seeds (a standard deviation of 1.6 points, as of recipes like this one)" in lines[6]
    assert lines[7] == "=: 2 configurations are tied for first: not shown to be worse than the best"


def test_without_a_trials_answers_intervals_tell_it_apart(experiment: Path) -> None:
    (layout.trial_directory(experiment, "trial0") / "validation.npz").unlink()
    assert ties(store.read_trials(experiment), experiment) == {"trial0", "trial1"}


def test_csv_and_json_hold_every_trial(experiment: Path) -> None:
    trials = store.read_trials(experiment)
    rows = list(csv.DictReader(io.StringIO(leaderboard.as_csv(trials, experiment))))
    records = json.loads(leaderboard.as_json(trials, experiment))
    assert [row["trial"] for row in rows] == [record["trial"] for record in records]
    assert [record["number"] for record in records] == [0, 1, 2, 3, 4]
    assert [record["ended"] for record in records] == ["ok", "ok", "ok", "diverged", "running"]
    assert records[0]["accuracy"] == 0.8
    assert (records[0]["low_95"], records[0]["high_95"]) == pytest.approx((0.7543, 0.8445), abs=2e-4)
    assert records[0]["width"] == 4.0
    assert records[4]["accuracy"] is None
    assert rows[4]["accuracy"] == ""


def test_no_trial_makes_an_empty_table(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", [])
    assert leaderboard.as_csv([], experiment) == ""
    assert json.loads(leaderboard.as_json([], experiment)) == []


def test_what_guessing_would_get_and_a_constant_answer_stand_in_the_table(tmp_path: Path) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.7}, {"accuracy": 0.6}])
    assert "guessing" not in leaderboard.leaderboard(store.read_trials(experiment), experiment)  # of an earlier version
    path = layout.trial_directory(experiment, "trial1") / layout.RESULT
    result = json.loads(path.read_text())
    result["metrics"]["predicted_classes"] = 1
    result["data"] |= {"largest_class_share": 0.6, "classes": 3}
    path.write_text(json.dumps({name: value for name, value in result.items() if name != "checksum"}))
    lines = leaderboard.leaderboard(store.read_trials(experiment), experiment).splitlines()
    assert lines[1].rstrip().endswith("  ok")
    assert (
        lines[2]
        .rstrip()
        .endswith("ok: every image it is judged by gets the same class; guessing the largest class gets 60.0%")
    )
    assert "guessing the largest class would get 60.0%" in lines


@pytest.mark.parametrize(("metric", "head"), [("accuracy", "balanced accuracy"), ("balanced_accuracy", "accuracy")])
def test_where_classes_are_uneven_both_accuracies_stand_in_the_table(tmp_path: Path, metric: str, head: str) -> None:
    experiment = fake.make(tmp_path / "made", [{"accuracy": 0.7}, {"accuracy": 0.6}])
    for number, (plain, balanced) in enumerate([(0.7, 0.4), (0.6, 0.55)]):
        path = layout.trial_directory(experiment, f"trial{number}") / layout.RESULT
        result = json.loads(path.read_text())
        tuned = balanced if metric == "balanced_accuracy" else plain
        result["metrics"] |= {"default": tuned, "accuracy": plain, "balanced_accuracy": balanced}
        result["data"] |= {"largest_class_share": 0.6, "classes": 3, "balanced_images": 300.0}
        result["hparams"]["metric"] = metric
        path.write_text(json.dumps({name: value for name, value in result.items() if name != "checksum"}))
    trials = store.read_trials(experiment)
    lines = leaderboard.leaderboard(trials, experiment).splitlines()
    assert lines[0].split("tie")[1].split("width")[0].strip() == head
    assert lines[0].split("tie")[0].split("trial")[1].strip() == f"{metric.replace('_', ' ')} ± 95%"
    best = leaderboard.records(trials, experiment)[0]
    assert best["number"] == (1 if metric == "balanced_accuracy" else 0)
    assert (best["accuracy"], best["balanced_accuracy"], best["tuned"]) == (
        *((0.6, 0.55) if metric == "balanced_accuracy" else (0.7, 0.4)),
        metric,
    )


def test_a_repeat_shares_a_row_and_its_record_says_what_it_repeats(tmp_path: Path) -> None:
    params = {"width": 8.0, "lr": 0.01}
    trials: list[dict[str, Any]] = [
        {"accuracy": 0.8, "params": params},
        {"accuracy": 0.75},
        {"accuracy": 0.7, "params": params},
    ]
    experiment = fake.make(tmp_path / "made", trials)
    path = layout.trial_directory(experiment, "trial2") / layout.RESULT
    result = json.loads(path.read_text())
    result["hparams"]["seed"] = 5002
    path.write_text(json.dumps(result))
    found = store.read_trials(experiment)
    lines = leaderboard.leaderboard(found, experiment).splitlines()
    assert [line.split()[:4] for line in lines[1:3]] == [["0,", "2", "trial0", "75.0%"], ["1", "trial1", "75.0%", "±"]]
    assert "several numbers: one configuration with as many seeds, and their mean" in lines
    first, again, other = leaderboard.records(found, experiment)
    assert [some["repeats"] for some in (first, again, other)] == [None, 0, None]
    assert (first["accuracy"], again["accuracy"]) == (0.8, 0.7)
    assert first["configuration"] == again["configuration"] == pytest.approx(0.75)
