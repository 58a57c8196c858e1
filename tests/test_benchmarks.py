"""The benchmarks compare like with like; what they measure is no test's business."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import fake_experiments
import numpy as np
import pytest
import torch
from conftest import MakeFolder
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import benchmarks.contest.__main__ as contest
import benchmarks.table.__main__ as table
from benchmarks.contest import kept, policies, promising
from benchmarks.contest import surrogate as surrogates
from benchmarks.contest.replay import Lead, Rules, replay
from benchmarks.contest.surrogate import Surrogate
from benchmarks.shared import machine, program
from benchmarks.shared.contenders import Contender, Work
from benchmarks.shared.tutorial import Pictures, Tutorial
from benchmarks.studies import accuracy, curves, full, ingredients, longer, published, stopping, tuners
from benchmarks.table import rows as table_rows
from benchmarks.table.plan import PLANS, step_per_image, trainings
from benchmarks.table.plan import configurations as configurations_of
from benchmarks.yardsticks import (
    airbench94,
    denormals,
    faults,
    gpu,
    growth,
    memory,
    peers,
    searches,
    speed,
    startup,
    validation,
)
from cifar.analysis import configurations
from cifar.data import datasets, test_log
from cifar.data.datasets import Dataset
from cifar.errors import RequestError
from cifar.search.search_space import fits, place
from cifar.training import evaluation
from cifar.training.evaluation import Evaluation
from cifar.training.hparams import RECIPES, Hparams
from cifar.training.models import Network, build_model
from cifar.training.train import new_model
from cifar.trials import layout, store


def test_the_tutorials_network_begins_as_ours(tiny: Dataset) -> None:
    hparams = Hparams(width=7, seed=3)
    ours = new_model(hparams, tiny)
    trial = Tutorial(hparams, tiny, torch.arange(8), torch.device("cpu"))
    for name, weights in ours.state_dict().items():
        assert torch.equal(trial.net.state_dict()[name], weights)
    images = torch.rand(3, 3, 32, 32)
    assert torch.allclose(trial.net(images), ours(images), atol=1e-6)


def test_the_tutorials_pictures_are_ours(tiny: Dataset) -> None:
    index = torch.arange(5, 20)
    pictures = Pictures(tiny, index)
    ours, labels = next(datasets.batches(tiny, index, len(index)))
    assert len(pictures) == len(index)
    for number in range(len(index)):
        image, label = pictures[number]
        assert torch.allclose(image, ours[number], atol=1e-6)
        assert label == labels[number]


def test_the_tutorials_loop_learns(tiny: Dataset) -> None:
    splits = datasets.split(tiny)
    trial = Tutorial(Hparams(lr=0.01), tiny, splits.train, torch.device("cpu"))
    losses = [trial.train_epoch() for _ in range(4)]
    assert losses[-1] < losses[0] / 2
    assert trial.accuracy(tiny, splits.val) > 0.9


@pytest.mark.parametrize("width", [6, 16])
def test_operations_are_counted_as_pytorch_counts_them(width: int) -> None:
    model = build_model(Hparams(width=width), classes=10)
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(1, 3, 32, 32)).sum().backward()
    assert growth.flops(width) == counter.get_total_flops()


@pytest.mark.parametrize("way", ["tutorial", "cifar"])
def test_a_contender_trains_when_told(way: str) -> None:
    with Contender(way, Work("digits", Hparams(batch_size=16), steps=5)) as trial:
        trial.start()
        assert trial.images_per_second() > 0


@pytest.mark.parametrize("trainer", peers.TRAINERS.values(), ids=peers.TRAINERS)
def test_each_trainer_reports_each_epoch(trainer: peers.Trainer) -> None:
    accuracies = list[float]()
    trainer(Hparams(batch_size=32, lr=0.01, epochs=2), "digits", lambda accuracy, state: accuracies.append(accuracy))
    assert len(accuracies) == 2 and all(0 <= accuracy <= 1 for accuracy in accuracies)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "search"), [("ray", peers.search_with_ray), ("optuna", peers.search_with_optuna)], ids=["ray", "optuna"]
)
def test_a_peer_trains_each_configuration_once(tool: str, search: peers.Search, tmp_path: Path) -> None:
    pytest.importorskip(tool, reason="make bench-searches installs it")
    configurations = [{"lr": lr, "epochs": 1, "batch_size": 64} for lr in (0.0003, 0.03, 0.001)]
    accuracies = search("cifar", "digits", configurations, tmp_path)
    expected = list[float]()
    for configuration in configurations:
        peers.train_as_cifar(
            Hparams.from_params(configuration), "digits", lambda accuracy, _: expected.append(accuracy)
        )
    assert accuracies == pytest.approx(expected, abs=0.02)


def test_a_busy_machine_is_measured_twice_and_waited_for_no_longer_than_patience_lasts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def measure() -> int:
        measured.append(len(measured))
        return measured[-1]

    measured = list[int]()
    monkeypatch.setattr(machine, "patience_left", 600.0)
    monkeypatch.setattr(machine, "is_quiet", lambda: True)
    assert machine.when_quiet(measure) == (0, True)
    answers = iter([True, False, False, True, True])  # quiet, others come meanwhile, still there, gone, and stay away
    monkeypatch.setattr(machine, "is_quiet", lambda: next(answers))
    assert machine.when_quiet(measure) == (2, True)
    monkeypatch.setattr(machine, "patience_left", 0.01)
    monkeypatch.setattr(machine, "is_quiet", lambda: False)
    assert machine.when_quiet(measure) == (3, False)
    assert machine.patience_left <= 0


def test_a_table_has_a_cell_for_each_heading() -> None:
    measured = speed.Measured("work", tutorial=[100.0, 120.0, 90.0], ours=[400.0, 480.0, 450.0], quiet=True)
    assert measured.cells() == ["work", "100", "450", "4.0", "4.0 to 5.0", "yes"]
    compared = accuracy.Compared("work", tutorial=[0.519, 0.52, 0.521], ours=[0.519, 0.52, 0.522])
    assert compared.cells()[-1] == "shown"
    assert replace(compared, ours=[0.51, 0.52, 0.54]).cells()[-1].startswith("not shown")
    point = growth.Point("width", 6, 64, 45_000, 20_000.0, 1e11, quiet=True)
    assert math.isclose(point.seconds, 2.25)
    lines: list[tuple[list[str], Any]] = [
        (speed.HEADER, measured),
        (accuracy.HEADER, compared),
        (growth.HEADER, point),
        (searches.HEADER, searches.Search("work", 90.0, [0.5, 0.6], True, 45.0)),
        (startup.HEADER, startup.Started("process", [2.0], [1.0], quiet=True)),
        (memory.HEADER, memory.Memory(2, 500.0, 70.0, 600.0)),
    ]
    for header, line in lines:
        assert len(line.cells()) == len(header)


def test_a_result_names_its_machine_and_commit(make_folder: MakeFolder) -> None:
    folder = make_folder({"train/cat": 3, "train/dog": 3}, name="somebody")
    facts = machine.describe("make bench", str(folder))
    assert "cores of" in facts["machine"]
    assert "commit" in facts  # empty where git refuses to speak
    assert facts["data"] == "a folder of pictures: 4 to train and validate on, 2 classes"
    assert not any("somebody" in fact for fact in facts.values())


def test_every_ingredient_of_the_recipe_is_switched_off_once() -> None:
    knobs = {"width", "lr", "momentum", "batch_size", "epochs"}
    switched_off = [name for without in ingredients.WITHOUT.values() for name in without]
    assert sorted(switched_off) == sorted({*RECIPES["fast"]} - knobs)


def test_an_ingredients_worth_is_told_with_the_margin_of_all() -> None:
    recipe, accuracies = [0.80, 0.84, 0.82], [0.79, 0.83, 0.81]
    margin = ingredients.common_margin([recipe, accuracies])
    assert margin == pytest.approx(2.776 * 0.02 * (2 / 3) ** 0.5, rel=0.001)  # Student's t: one comparison
    compared = ingredients.Compared("flips", {"flip": False}, recipe, accuracies, margin)
    assert compared.cells() == ["flips", "`--no-flip`", "81.0%", "+1.0 ± 4.5 points", "may be chance"]


def test_a_replayed_assessor_stops_what_lies_below_the_median() -> None:
    good, bad, late = [0.5, 0.6, 0.7, 0.8], [0.2, 0.3, 0.4, 0.5], [0.3, 0.4, 0.8, 0.9]
    early = stopping.replay("some", [good, good, bad, late], start_step=1)
    assert (early.stopped, early.epochs_run, early.epochs_planned) == (2, 4 + 4 + 1 + 1, 16)
    assert (early.best, early.best_kept) == (0.9, 0.8)
    patient = stopping.replay("some", [good, good, bad, late], start_step=3)
    assert (patient.stopped, patient.epochs_run) == (1, 4 + 4 + 3 + 4)
    assert patient.best == patient.best_kept == 0.9
    assert patient.cells()[-1] == "the same"


def test_curves_of_an_experiment_are_those_of_trials_that_ran_to_their_end(tmp_path: Path) -> None:
    trials: list[dict[str, Any]] = [
        {"accuracy": 0.5},
        {"accuracy": 0.7},
        {"accuracy": 0.3, "status": "stopped_early", "epochs": 1},
    ]
    experiment = fake_experiments.make(tmp_path / "made", trials)
    assert [curve[-1] for curve in stopping.curves_of(experiment)] == [0.5, 0.7]


def test_an_accuracy_curve_has_a_point_per_epoch(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(curves, "_CASES", {"net": Hparams(lr=0.01, epochs=3), "again": Hparams(lr=0.01, epochs=1)})
    monkeypatch.setattr(machine, "is_quiet", lambda: False)
    curve, other = curves.measure(tiny)
    assert len(curve.seconds) == len(curve.accuracies) == curve.disturbed == 3
    assert curve.seconds == sorted(curve.seconds)
    assert len(curve.cells()) == len(curves.HEADER)
    curves.plot([curve, other], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_longer_trainings_are_named_by_what_they_change(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Hparams(model="fast", width=4, batch_size=10, epochs=3)
    monkeypatch.setattr(longer, "_RECIPES", [recipe, replace(recipe, translate=4)])
    near, far = longer.compare(tiny)
    assert far.changes == near.changes + ", translate 4" == "width 4, batch size 10, epochs 3, translate 4"
    assert near.train_loss != far.train_loss
    assert 0 <= near.accuracy <= 1
    assert len(near.cells()) == len(longer.HEADER)


def test_a_full_run_that_is_cut_off_before_its_test_is_tested_once(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(full, "_HPARAMS", Hparams(width=4, translate=1, lr=0.01, epochs=2))
    monkeypatch.setattr(full, "_CHECKPOINT", tmp_path / "checkpoint.pt")
    monkeypatch.setattr(full, "RESULTS", tmp_path)
    monkeypatch.setattr(datasets, "load_test", lambda name: tiny)
    with monkeypatch.context() as cut_off, pytest.raises(KeyboardInterrupt):
        cut_off.setattr(full, "read_test_images", _interrupted)
        full.train(tiny, "tiny")
    run = full.train(tiny, "tiny")
    assert (run.width, run.translate) == (4, 1)
    assert len(run.seconds) == len(run.losses) == 2
    assert run.losses[1] < run.losses[0]
    (reading,) = test_log.read(layout.test_log(tmp_path))
    assert reading["accuracies"] == [run.test_accuracy]
    assert len(run.cells()) == len(full.HEADER)


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_tuners_are_compared_by_what_their_experiments_left(tmp_path: Path) -> None:
    trials: list[dict[str, Any]] = [{"accuracy": value} for value in (0.5, 0.7, 0.6, 0.4, 0.8, 0.3)]
    experiment = fake_experiments.make(tmp_path / "made", [*trials, {"accuracy": 0.9, "status": "running"}])
    search = tuners.read(experiment)
    assert search.best_so_far == [0.5, 0.7, 0.7, 0.7, 0.8, 0.8]
    cells = search.cells()
    assert cells[:5] == ["TPE", "made", "6", "1", "80.0% ± 2.6%"]
    assert cells[6:] == ["55.0%", "70.0%, 70.0%, 80.0%"]
    tuners.plot([search, search], tmp_path / "tuners.png")
    assert (tmp_path / "tuners.png").stat().st_size > 10_000


def test_an_experiment_that_is_gone_keeps_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, best in (("first", 0.5), ("second", 0.7)):
        fake_experiments.make(tmp_path / name, [{"accuracy": best}, {"accuracy": 0.2}])
    monkeypatch.setenv("CIFAR_IMAGES", "digits")
    monkeypatch.setattr(sys, "argv", ["tuners", *(str(tmp_path / name) for name in ("out", "first", "second"))])
    tuners.main()
    before = tuners.read_kept(tmp_path / "out.json")
    shutil.rmtree(tmp_path / "first")
    tuners.main()
    assert list(before) == ["first", "second"]
    assert tuners.read_kept(tmp_path / "out.json") == before


@pytest.mark.parametrize("benchmark", [tuners, stopping])
def test_an_experiment_that_never_was_is_refused(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [str(tmp_path / "out")] if benchmark is tuners else []
    monkeypatch.setattr(sys, "argv", ["benchmark", *out, str(tmp_path / "gone")])
    with pytest.raises(SystemExit) as left:
        benchmark.main()
    assert left.value.code == 2
    assert "gone is no experiment's directory" in capsys.readouterr().err


def test_faults_of_one_test_are_counted_together(tmp_path: Path) -> None:
    noted = [("kills", "a", 2, ""), ("kills", "b", 1, "3 s"), ("disk", "b", 1, ""), ("disk", "b", 4, "5 s")]
    path = tmp_path / "faults.jsonl"
    names = ("group", "outcome", "times", "figures")
    path.write_text("".join(json.dumps(dict(zip(names, line, strict=True))) + "\n" for line in noted))
    assert [tuple(asdict(fault).values()) for fault in faults.read(path)] == [*noted[:2], ("disk", "b", 5, "5 s")]


def test_the_yardstick_trains_as_a_trial_does(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever airbench94 set, cuDNN is in use, and chooses no algorithms by their time."""
    seen = []

    def look(*_: object) -> list[object]:
        seen.append((torch.backends.cudnn.enabled, torch.backends.cudnn.benchmark))
        return []

    monkeypatch.setattr(airbench94, "train", look)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        airbench94._train_ours(Hparams(model="fast", width=4), airbench94.Images.validation(tiny))
    assert seen == [(True, False)]


def test_the_yardstick_trains_on_training_images_and_is_judged_by_validation_images(
    tiny: Dataset,
) -> None:
    pytest.importorskip("airbench", reason="needs make bench-searches' packages")
    small = Hparams(model="fast", width=4, batch_size=10, lr=1.5 * 10 / 1024, epochs=6)
    right = airbench94.compare(airbench94.Images.validation(tiny), small, seeds=2)
    val = datasets.split(tiny).val
    misleading = tiny.labels.clone()
    misleading[val] = (tiny.labels[val] + 1) % 3  # whoever trained on these would be right
    wrong = airbench94.Images.validation(replace(tiny, labels=misleading))
    for runs, misjudged in zip(right, airbench94.compare(wrong, small, seeds=2), strict=True):
        assert len(runs.seconds) == len(misjudged.accuracies) == 2
        assert min(runs.accuracies) > 0.6
        assert max(misjudged.accuracies) < 0.4


def test_without_a_gpu_its_benchmark_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 2
    assert capsys.readouterr().err == "error: this machine shows no GPU, which make bench-gpu measures\n"


def test_the_first_seconds_and_the_rates_of_a_device_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    first = gpu.first_seconds_alone("digits")
    assert all(seconds > 0 for seconds in vars(first).values())
    monkeypatch.setitem(gpu._SPACE, "width", {"_type": "choice", "_value": [1]})
    [alone] = gpu.rates("digits", [1])
    assert alone.without.trials_per_hour > 0
    assert alone.with_mps is None
    assert alone.cells()[-2:] == ["no MPS", ""]
    assert len(gpu.Rates(alone.without, alone.without).cells()) == len(gpu.RATES)


@pytest.mark.slow
def test_a_search_is_timed_from_command_to_end() -> None:
    config = gpu._net_config() | {"trialCommand": "python trial.py --epochs 1"}
    timed = gpu.search("digits", "digits", config, trials=2, at_once=2)
    assert timed.seconds > 0
    assert timed.cells()[:3] == ["digits", "2", "2"]


def test_a_published_search_becomes_an_experiment_again(tmp_path: Path) -> None:
    """As `cifar trials` printed it, whatever the program called its bounds then."""
    root = Path(published.__file__).parents[2]
    table, config = root / "results/net/tpe.csv", root / "searches/net/config.yml"
    rows = published.read_rows(table)
    published.make(tmp_path / "net", published.read_config(config, epochs=6), 1260.0, rows)
    trials = store.read_trials(tmp_path / "net")
    assert [trial.id for trial in trials] == [row["trial"] for row in rows]
    assert store.read_seconds(tmp_path / "net") == 1260.0
    (best, *_) = store.best_first(trials)
    assert (best.id, best.accuracy, best.params["width"]) == ("Ep7Mq", 0.6206, 28.0)
    assert configurations.of_trial(best).hparams.epochs == 6
    assert configurations.of_defaults(tmp_path / "net", "cifar10", 45_000).hparams.width == 6


def test_a_tables_beginning_fills_the_space_evenly_and_stays_the_same() -> None:
    for plan in PLANS.values():
        some = list(itertools.islice(configurations_of(plan), 64))
        assert some[:16] == list(itertools.islice(configurations_of(plan), 16))
        assert all(fits(params, plan.space) for params in some)
        widths = [place(params["width"], plan.space["width"]) or 0.0 for params in some]
        assert 0.4 < fmean(widths) < 0.6
    planned = list(trainings(PLANS["net"], []))
    assert len(planned) == 360
    assert len({training.hparams.seed for training in planned}) == 360
    chosen = list(trainings(PLANS["net-full"], list(range(299, -1, -1))))
    assert [training.number for training in chosen] == [*range(299, 279, -1), *range(20)]


def test_a_table_goes_on_where_it_stopped(tmp_path: Path, tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rows, "RESULTS", tmp_path)
    names, row = ["lr"], {"lr": "0.1", "epoch": "1", "seconds": "1", "train_loss": "2", "val_loss": "2"}
    made = [{**row, "number": str(number), "seed": "0", "val_accuracy": f"0.{number + 1}"} for number in (2, 0, 1)]
    table_rows.write("net", names, made)
    first = table_rows.path("net").read_bytes()
    table_rows.write("net", names, reversed(table_rows.read("net")))
    assert table_rows.path("net").read_bytes() == first
    assert table_rows.ranking(table_rows.read("net")) == [2, 1, 0]


class Landscape:
    """What replay needs of a surrogate: wider is better, and takes longer."""

    def training(self, params: Any, chance: Any, val_images: Any) -> list[float]:
        return [params["width"] / 100 * epoch for epoch in (0.5, 0.8, 1.0)]

    def epoch_seconds(self, params: Any) -> float:
        return float(params["width"]) / 10

    def curves(self, some: Any) -> Any:
        return np.array([self.training(params, None, None) for params in some])


def test_a_replayed_search_takes_the_time_of_its_trials_and_names_its_leaders() -> None:
    space = {"width": {"_type": "quniform", "_value": [10, 40, 10]}}
    leads = replay(policies.Random(space, 0), Landscape(), 60.0, 0, Rules(at_once=1, beside=1.0))  # type: ignore[arg-type]
    first = policies.Random(space, 0).propose(0)["width"]
    assert leads[0] == Lead(1 + 3 * first / 10, first / 100)
    assert [lead.accuracy for lead in leads] == sorted({lead.accuracy for lead in leads})
    assert leads[-1].accuracy == 0.4
    assert leads[-1].seconds < 60


@pytest.mark.parametrize("name", policies.CONTENDERS)
def test_each_contender_plays(name: str) -> None:
    if name.startswith("Optuna"):
        pytest.importorskip("optuna", minversion="5")
    if name.startswith("Ray"):
        pytest.importorskip("ray")
    if name.startswith("Syne Tune"):
        pytest.importorskip("syne_tune")
    space = {name: PLANS["net"].space[name] for name in ("width", "lr")}
    plan = replace(PLANS["net"], space=space)
    leads = replay(policies.CONTENDERS[name](plan, 0), Landscape(), 60.0, 0)  # type: ignore[arg-type]
    assert leads[-1].accuracy > 0.15


def made_table(chance: np.random.Generator, trainings: int) -> list[dict[str, str]]:
    """Of net's space: wide networks are best, with steps of 0.01 per image; each fifth configuration has two seeds."""
    found = list[dict[str, str]]()
    for number, params in enumerate(itertools.islice(configurations_of(PLANS["net"]), trainings)):
        mean = 0.3 + params["width"] / 100 - 0.03 * math.log(step_per_image(params) / 0.01) ** 2
        for seed in range(2 if number % 5 == 0 else 1):
            last = min(max(mean + 0.01 * chance.standard_normal(), 0.1), 0.9)
            for epoch, share in enumerate((0.6, 0.8, 0.9, 1.0), 1):
                figures = {"number": number, "seed": seed, "epoch": epoch, **params}
                figures |= {"seconds": params["width"] / 2, "val_accuracy": share * last}
                found.append({name: str(value) for name, value in figures.items()})
    return found


def test_a_surrogate_knows_what_its_table_shows() -> None:
    chance = np.random.default_rng(0)
    surrogate = Surrogate(PLANS["net"], made_table(chance, 80))
    error = surrogate.error()
    assert error.rank_correlation > 0.9
    assert error.better_half < 0.03
    good = {"width": 32.0, "lr": 0.01 * 0.1 * 16, "momentum": 0.9, "batch_size": 16.0}
    assert surrogate.curves([good])[0][-1] == pytest.approx(0.62, abs=0.04)
    assert surrogate.epoch_seconds(good) == pytest.approx(16, rel=0.2)
    assert surrogate.best == pytest.approx(0.62, abs=0.04)
    trained = np.array([surrogate.training(good, chance)[-1] for _ in range(200)])
    assert 0.004 < trained.std() < 0.02
    judged_by_few = np.array([surrogate.training(good, chance, val_images=100)[-1] for _ in range(200)])
    assert judged_by_few.std() > 2 * trained.std()


def test_what_is_promising_is_near_the_best_and_apart() -> None:
    surrogate = Surrogate(PLANS["net"], made_table(np.random.default_rng(0), 80))
    some = promising.promising(surrogate, 3, seed=1)
    assert surrogate.curves(some)[:, -1].min() > surrogate.best - 0.05
    assert len({tuple(params.values()) for params in some}) == 3
    assert some == promising.promising(surrogate, 3, seed=1)


def test_a_contest_goes_on_where_it_was_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = list[tuple[str, int, int]]()

    def play(surrogate: Surrogate, who: str, begun: int, seeds: int) -> Iterator[list[Lead]]:
        played.append((who, begun, seeds))
        yield from ([Lead(1.0, 0.5), Lead(2.5, 0.6 + seed / 100)] for seed in range(begun, seeds))

    for module in (contest, kept, table_rows):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr(contest, "CONTENDERS", dict.fromkeys(["ours", "theirs"]))
    monkeypatch.setattr(contest, "play", play)
    (tmp_path / "contest").mkdir()
    rows = made_table(np.random.default_rng(0), 40)
    table_rows.write("net", [*PLANS["net"].space], rows)
    surrogate, slow = Surrogate(PLANS["net"], rows), {policies.SLOW[0]: 2}
    for theirs, commit in ((2, "first"), (4, "second")):
        contest.play_table(surrogate, {"ours": 3, "theirs": theirs, **slow}, {"command": "", "commit": commit})
    assert played == [("ours", 0, 3), ("theirs", 0, 2), ("theirs", 2, 4)]
    contest.sum_up_tables()
    ours, other = json.loads((tmp_path / "contest.json").read_text())["played"]
    assert [some["searches"] for some in (ours, other)] == [3, 4]
    assert [some["commit"] for some in (ours, other)] == ["first", "first, second"]
    again = kept.read("net")["theirs"].searches
    assert [search[-1].accuracy for search in again] == pytest.approx([0.60, 0.61, 0.62, 0.63])
    assert (tmp_path / "contest" / "net.png").exists()
    table_rows.write("net", [*PLANS["net"].space], rows[4:])
    assert not kept.read("net")


def test_a_contest_that_goes_on_plays_the_seeds_that_it_would_have_played() -> None:
    surrogate = Surrogate(PLANS["net"], made_table(np.random.default_rng(0), 40))
    whole, rest = (list(contest.play(surrogate, "random search", begun, 3)) for begun in (0, 1))
    assert rest == whole[1:]


def test_a_minutes_searches_are_kept_before_all_have_played(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_MINUTE", 0.0)
    one, other = [Lead(1.0, 0.5)], [Lead(1.0, 0.6)]
    states = [[*some.searches] for some in kept.by_the_minute(kept.Kept("", []), iter([one, other]), "commit")]
    assert states == [[one], [one, other], [one, other]]


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        (contest, ["net", "--seeds", "1"], "an interval needs at least 2 searches, got 1"),
        (table, ["net", "--at-once", "0"], "--at-once must be at least 1, got 0"),
    ],
)
def test_the_referee_refuses_too_few(
    tool: Any, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["program", *arguments])
    with pytest.raises(SystemExit, match="2"):
        tool.main()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("images", ["digits", ""])
def test_a_table_of_cifar10_has_no_digits(
    images: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(name: str) -> None:
        raise RequestError(f"{name} cannot be downloaded")

    monkeypatch.setenv("CIFAR_IMAGES", images)
    monkeypatch.setattr(datasets, "load", absent)
    monkeypatch.setattr(table, "fill", lambda *_: pytest.fail("trains"))
    monkeypatch.setattr("sys.argv", ["program", "net"])
    assert program.run(table.main) == 2
    said = "error: this table is of CIFAR-10: set CIFAR_IMAGES to its folder of pictures"
    assert capsys.readouterr().err.strip() == said


def test_a_contest_says_at_once_what_it_cannot_play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contest, "_PEERS", ("json", "no_such_peer"))
    monkeypatch.setattr("sys.argv", ["program", "net"])
    assert program.run(contest.main) == 2
    assert "no package no_such_peer to play against: pip install -e '.[peers]'" in capsys.readouterr().err
    monkeypatch.setattr(table_rows, "RESULTS", tmp_path)

    def load() -> int:
        surrogates.load(PLANS["net-full"])
        return 0

    assert program.run(load) == 2
    assert "the table net-full is empty: first python -m benchmarks.table net-full" in capsys.readouterr().err


def test_an_interrupt_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert program.run(interrupted) == 130
    assert capsys.readouterr().err.strip() == "interrupted; the same command goes on from what is kept"


def test_half_of_the_searches_need_so_long_and_where_most_never_get_there_it_says_so() -> None:
    assert contest.median_with_interval(np.array([1.0, 2.0, 3.0, 4.0] * 50))[0] == 2.0
    assert contest.median_with_interval(np.array([1.0, np.inf, np.inf] * 50)) == [None, None, None]


@pytest.mark.slow
def test_a_table_is_filled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_rows, "RESULTS", tmp_path)
    table_rows.path("net").parent.mkdir(parents=True)
    plan = replace(PLANS["net"], configurations=3, base=Hparams(epochs=2, images_per_epoch=64))
    table.fill(plan, "digits", 2)
    made = table_rows.read("net")
    assert [(row["number"], row["epoch"]) for row in made[:4]] == [("0", "1"), ("0", "2"), ("0", "1"), ("0", "2")]
    assert len(made) == 2 * 4  # three configurations, one of them with a second seed
    written = table_rows.path("net").stat().st_mtime_ns
    table.fill(plan, "digits", 2)
    assert table_rows.path("net").stat().st_mtime_ns == written


@pytest.mark.slow
def test_what_is_promising_is_added_to_a_table_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_rows, "RESULTS", tmp_path)
    monkeypatch.setattr(promising, "_DRAWN", 50)
    plan = replace(PLANS["net"], configurations=80, base=Hparams(epochs=4, images_per_epoch=64))
    rows = [{"train_loss": "1", "val_loss": "1", **row} for row in made_table(np.random.default_rng(0), 80)]
    table_rows.write("net", list(plan.space), rows)
    for more in (2, 3):
        monkeypatch.setattr(promising, "_TRAININGS", more)
        promising.add(plan, "digits", 2)
        added = [row for row in table_rows.read("net") if int(row["number"]) >= 80]
        assert [(row["number"], row["epoch"]) for row in added[::4]] == [(str(80 + n), "1") for n in range(more)]
        assert len(added) == 4 * more


@pytest.mark.parametrize("flush", [False, True])
def test_a_training_keeps_the_smallest_numbers_where_it_is_to(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch, flush: bool
) -> None:
    seen = list[float]()
    monkeypatch.setattr("cifar.training.train.learning_rate", lambda *_: seen.append(sys.float_info.min / 2) or 0.01)  # type: ignore[func-returns-value]
    assert 0 < denormals._train(Hparams(epochs=1), tiny, flush)[1] <= 1
    assert all((smallest == 0) == flush for smallest in seen)
    assert seen


def test_validation_is_timed_in_three_ways(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, precisions = list[int](), list[str]()
    batches, evaluate = datasets.batches, evaluation.evaluate
    monkeypatch.setattr("cifar.training.evaluation.batches", lambda *asked: sizes.append(asked[2]) or batches(*asked))  # type: ignore[func-returns-value]

    def timed(model: Network, dataset: Dataset, index: Tensor, precision: str) -> Evaluation:
        precisions.append(precision)
        return evaluate(model, dataset, index, precision=precision)

    monkeypatch.setattr(validation, "evaluate", timed)
    hparams = Hparams(model="fast", width=4, batch_size=20, epochs=2, precision="bfloat16")
    looks = list(validation._looks(hparams, tiny))
    assert sizes == 2 * [128, 512, 128, 128]
    assert precisions == 2 * ["float32", "float32", "bfloat16"]
    assert all(min(look.training, look.large, look.float32, look.as_it_is) > 0 for look in looks)
    assert all(0 <= look.other_labels <= 1 for look in looks)
