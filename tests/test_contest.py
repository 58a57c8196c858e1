"""The contest's live side; the replayed one is in test_benchmarks.py."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.contest import live, live_runs, policies
from benchmarks.contest.live import MATCHES, Run
from benchmarks.contest.live_runs import Outcome, Room
from benchmarks.table import summary
from benchmarks.table.plan import PLANS


def outcome(accuracy: float) -> Outcome:
    return Outcome(120.0, accuracy, 20, {"width": 6})


def test_runs_are_kept_and_the_best_contender_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RESULTS", tmp_path)
    assert live.read() == []
    runs = [
        Run("digits", who, seed, outcome(best + 0.01 * seed))
        for who, best in (("a", 0.5), ("b", 0.6))
        for seed in (0, 1)
    ]
    live.keep(runs)
    assert live.read() == runs
    first, second = live.lines(runs)
    assert (first.contender, second.contender) == ("b", "a")
    assert first.cells() == ["digits", "b", "2", "60.5%", "60.0%", "61.0%", "120"]


def test_every_contender_can_be_played() -> None:
    for match in MATCHES.values():
        for contender in match.contenders:
            assert contender in policies.CONTENDERS or contender.startswith(("cifar fit", "the defaults"))


def test_the_small_folder_has_as_many_pictures_of_each_class(tmp_path: Path) -> None:
    for part, name, number in itertools.product(("train", "test"), ("cat", "dog"), range(3)):
        path = tmp_path / "images" / part / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(path)
    folder = live._few(tmp_path / "images", tmp_path / "few")
    assert sorted(path.name for path in (folder / "train" / "cat").iterdir()) == ["0.png", "1.png", "2.png"]
    assert (folder / "test" / "dog" / "2.png").exists()


@pytest.mark.slow
@pytest.mark.parametrize("contender", ["random search", "the defaults"])
def test_a_contender_ends_in_its_time_with_networks(tmp_path: Path, contender: str) -> None:
    plan, seconds = PLANS["net"], 60.0
    # Not the whole space: what learns in a short trial there may stop learning in a long training, at a high rate.
    plan = replace(plan, space={**plan.space, "lr": {"_type": "loguniform", "_value": [0.002, 0.01]}})
    room = Room(plan.base, plan.space, "digits", seconds, tmp_path)
    if contender == "the defaults":
        found = room.of_defaults(wider=1)
        assert found.hparams["width"] == 6
    else:
        found = room.of_policy(policies.CONTENDERS[contender](plan, 0))
        assert found.trials > 3
    assert found.test_accuracy > 0.8
    assert found.seconds > 0.5 * seconds or found.hparams["epochs"] == live_runs.MOST_EPOCHS  # more would teach nothing
    assert found.seconds < 1.2 * seconds


def test_a_summary_says_what_seeds_and_epochs_do() -> None:
    known = [
        {"number": str(number), "seed": str(seed), "epoch": str(epoch), "seconds": "9", "val_accuracy": f"{value}"}
        for number in range(10)
        for seed in range(2)
        for epoch, value in ((1, 0.1 * (number % 5)), (2, 0.05 * number + 0.02 * seed))
    ]
    found = summary.summary(PLANS["net"], known)
    assert (found.configurations, found.trainings, found.hours) == (10, 20, 0.1)
    assert found.best == pytest.approx(0.47)
    assert found.seed_deviation == pytest.approx(0.02 / 2**0.5)
    assert len(found.ranks) == 1


def test_two_budgets_are_compared_by_what_both_have() -> None:
    def table(accuracies: dict[int, float]) -> list[dict[str, str]]:
        return [
            {
                "number": f"{n}",
                "seed": "0",
                "epoch": f"{epoch}",
                "val_accuracy": f"{value * epoch / 2}",
                "width": "8",
            }
            for n, value in accuracies.items()
            for epoch in (2, 1)
        ]

    before, after = table({0: 0.1, 1: 0.2, 2: 0.3, 3: 0.48, 4: 0.5}), table({1: 0.5, 2: 0.6, 3: 0.9, 4: 0.8})
    plans = PLANS["net"], PLANS["net-full"]
    ranks = ["0.80", "-1.00", "0.80", "-1.00"]  # of one width the rule leaves all in their order
    assert summary.budgets(*plans, before, after).cells() == ["net", "net-full", "4", *ranks, "90.0%", "2", "80.0%"]
    wider = [{**row, "width": "32"} if row["number"] == "3" else row for row in after]
    assert summary.budgets(*plans, before, wider).rank_foreseen_of_better == pytest.approx(1.0)
