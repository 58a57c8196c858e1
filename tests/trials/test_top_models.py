from __future__ import annotations

import multiprocessing
import random
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cifar.trials import layout, top_models


def write(path: Path) -> None:
    path.write_text("weights")


def accuracies(experiment: Path) -> list[float]:
    return [float(path.name.split("-", 1)[0]) for path in top_models.best(experiment)]


@given(st.lists(st.integers(0, 1000), max_size=20))
def test_the_best_stay_whatever_the_order(thousandths: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        experiment = Path(name)
        for number, accuracy in enumerate(thousandths):
            top_models.save_top_k(experiment, f"trial{number}", accuracy / 1000, write)
        best = sorted((accuracy / 1000 for accuracy in thousandths), reverse=True)[: top_models.KEPT]
        assert accuracies(experiment) == best


def test_a_trial_that_starts_again_replaces_its_model(tmp_path: Path) -> None:
    top_models.save_top_k(tmp_path, "one", 0.5, write)
    top_models.save_top_k(tmp_path, "one", 0.6, write)
    assert accuracies(tmp_path) == [0.6]
    assert top_models.find(tmp_path, "one") == top_models.best(tmp_path)[0]
    assert top_models.find(tmp_path, "two") is None


def test_of_what_several_machines_kept_the_best_stay(tmp_path: Path) -> None:
    top_models.drop_others(tmp_path)  # a search may end before a trial has
    models = layout.models(tmp_path)
    models.mkdir()
    for number in range(8):
        write(models / f"0.{number}00000-trial{number}.safetensors")
    top_models.drop_others(tmp_path)
    assert accuracies(tmp_path) == [0.7, 0.6, 0.5, 0.4, 0.3]


def _offer_some(experiment: Path, worker: int) -> None:
    for number in range(20):
        accuracy = random.Random(100 * worker + number).random()
        top_models.save_top_k(experiment, f"trial{worker}x{number}", accuracy, write)


def test_trials_that_end_at_once_take_turns(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_offer_some, args=(tmp_path, worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    everything = [random.Random(100 * worker + number).random() for worker in range(4) for number in range(20)]
    assert accuracies(tmp_path) == [round(value, 6) for value in sorted(everything, reverse=True)[: top_models.KEPT]]
    leftovers = [path.name for path in layout.models(tmp_path).iterdir() if path.suffix != ".safetensors"]
    assert leftovers == [".lock"]
