from __future__ import annotations

import contextlib
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cifar import __version__
from cifar.data import datasets
from cifar.data.datasets import Dataset
from cifar.training.distributed import Processes
from cifar.training.evaluation import class_accuracies, evaluate
from cifar.training.hparams import Hparams
from cifar.training.models import build_model
from cifar.training.steps import Step, new_step
from cifar.training.train import (
    Diverged,
    EpochMetrics,
    _shuffled,
    new_model,
    new_optimizer,
    runs_of_batches,
    train,
    train_batches,
)
from cifar.trials import run
from cifar.trials.result import Result

FAST = Hparams(lr=0.01, batch_size=8, epochs=3)


def run_training(dataset: Dataset, hparams: Hparams) -> tuple[list[EpochMetrics], nn.Module]:
    model = new_model(hparams, dataset)
    epochs = train(model, new_optimizer(model, hparams), hparams, dataset, datasets.split(dataset))
    return [epoch.metrics for epoch in epochs], model


def losses(metrics: list[EpochMetrics]) -> list[float]:
    return [value for epoch in metrics for value in (epoch.train_loss, epoch.loss, epoch.accuracy)]


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_equals_a_plain_loop(tiny: Dataset, optimizer: str) -> None:
    """The loop as the tutorial writes it, over the same images in the same order."""
    hparams = replace(FAST, optimizer=optimizer, lr=0.003, weight_decay=0.01)
    splits = datasets.split(tiny)
    torch.manual_seed(hparams.seed)
    model = build_model(hparams, 3)
    if optimizer == "sgd":
        plain: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=0.003, momentum=0.9, weight_decay=0.01)
    else:
        plain = torch.optim.Adam(model.parameters(), lr=0.003, weight_decay=0.01)
    expected = []
    for epoch in range(1, hparams.epochs + 1):
        generator = torch.Generator().manual_seed(1_000_003 * hparams.seed + epoch)
        order = splits.train[torch.randperm(len(splits.train), generator=generator)]
        running_loss = 0.0
        for index in order.split(hparams.batch_size):
            plain.zero_grad()
            images = (tiny.images[index].float() / 255 - 0.5) / 0.5
            loss = nn.functional.cross_entropy(model(images), tiny.labels[index])
            loss.backward()
            plain.step()
            running_loss += loss.item() * len(index)
        expected.append(running_loss / len(order))
    metrics, _ = run_training(tiny, hparams)
    assert [epoch.train_loss for epoch in metrics] == pytest.approx(expected, rel=1e-4)


def test_every_epoch_and_every_seed_has_an_order_of_its_own() -> None:
    orders = [_shuffled(torch.arange(50), seed, epoch).tolist() for seed in (0, 1, 2**32 - 1) for epoch in (1, 2, 3)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 9


def test_the_same_seed_gives_the_same_metrics_and_another_seed_others(tiny: Dataset) -> None:
    first, again, other = (losses(run_training(tiny, replace(FAST, seed=seed))[0]) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("steps", [2, 3, 8])
def test_micro_batches_change_nothing(tiny: Dataset, steps: int) -> None:
    whole, _ = run_training(tiny, FAST)
    parts, _ = run_training(tiny, replace(FAST, gradient_accumulation_steps=steps))
    assert losses(parts) == pytest.approx(losses(whole), rel=1e-4)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_arithmetic_of_training_is_that_of_validation(tiny: Dataset, precision: str) -> None:
    hparams, splits = replace(FAST, model="fast", width=4, precision=precision), datasets.split(tiny)
    model, seen = new_model(hparams, tiny), list[tuple[bool, torch.dtype]]()
    head = next(module for module in model.modules() if isinstance(module, nn.Linear))
    head.register_forward_hook(lambda _, __, logits: seen.append((head.training, logits.dtype)))
    list(train(model, new_optimizer(model, hparams), hparams, tiny, splits))
    assert set(seen) == {(is_training, getattr(torch, precision)) for is_training in (True, False)}
    tested, validated = evaluate(model, tiny, splits.val), evaluate(model, tiny, splits.val, precision=precision)
    assert seen[-2:] == [(False, torch.float32), (False, getattr(torch, precision))]
    assert validated.loss == pytest.approx(tested.loss, rel=0.02)


RECIPE = Hparams(model="fast", width=4, batch_size=20, lr=0.5, epochs=4, precision="float32")


@pytest.mark.parametrize("before", [False, True])
def test_a_cpu_takes_the_smallest_numbers_as_zero_in_training_alone(
    tiny: Dataset, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    def smallest() -> float:
        return sys.float_info.min / 2

    seen = list[float]()

    def learning_rate(*_: object) -> float:
        seen.append(smallest())
        return 0.01

    monkeypatch.setattr("cifar.training.train.learning_rate", learning_rate)
    torch.set_flush_denormal(before)
    try:
        run_training(tiny, FAST)
        assert set(seen) == {0.0}
        assert (smallest() == 0) == before
    finally:
        torch.set_flush_denormal(False)


def test_an_epoch_may_draw_fewer_images_other_ones_each_time(tiny: Dataset) -> None:
    hparams = replace(FAST, images_per_epoch=20)
    splits = datasets.split(tiny)
    drawn = [torch.cat([labels for _, labels in train_batches(hparams, tiny, splits.train, epoch)]) for epoch in (1, 2)]
    assert [len(labels) for labels in drawn] == [20, 20]
    assert not torch.equal(*drawn)
    metrics, _ = run_training(tiny, hparams)
    assert len(metrics) == 3
    more = replace(FAST, images_per_epoch=10_000)
    assert losses(run_training(tiny, more)[0]) == losses(run_training(tiny, FAST)[0])


def test_fast_learns_with_its_recipe(tiny: Dataset) -> None:
    metrics, _ = run_training(tiny, RECIPE)
    assert metrics[-1].accuracy == 1.0


def test_a_recipe_interrupted_between_epochs_goes_on_as_if_nothing_had_happened(tiny: Dataset) -> None:
    """Order, views, learning rate, momentum and average continue where they were."""
    whole, expected = run_training(tiny, RECIPE)
    splits = datasets.split(tiny)
    model = new_model(RECIPE, tiny)
    optimizer = new_optimizer(model, RECIPE)
    epochs = train(model, optimizer, RECIPE, tiny, splits)
    first = [next(epochs).metrics for _ in range(2)]
    again = new_model(RECIPE, tiny)
    again.load_state_dict(model.state_dict())
    fresh = new_optimizer(again, RECIPE)
    fresh.load_state_dict(optimizer.state_dict())
    rest = [epoch.metrics for epoch in train(again, fresh, RECIPE, tiny, splits, first_epoch=3)]
    assert losses(first + rest) == losses(whole)
    assert all(
        torch.equal(a, b) for a, b in zip(expected.state_dict().values(), again.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    "without",
    [
        {},
        {"schedule": "constant"},
        {"momentum": 0.0, "nesterov": False},
        {"weight_decay": 0.0},
        {"nesterov": False},
        {"label_smoothing": 0.0},
        {"flip": False},
        {"translate": 0},
        {"lookahead_decay": 0.0},
        {"tta_flip": False},
        {"precision": "bfloat16"},
    ],
)
def test_the_recipe_is_a_loop_of_plain_pytorch(tiny: Dataset, without: dict[str, Any]) -> None:
    """With each ingredient left out, too: what a loop by hand learns then, training learns."""
    hparams = replace(RECIPE, epochs=2, lr=0.1, **without)
    (*_, learnt), _ = run_training(tiny, hparams)
    assert (learnt.train_loss, learnt.loss) == pytest.approx(by_hand(tiny, hparams), rel=1e-5)


def by_hand(dataset: Dataset, hparams: Hparams) -> tuple[float, float]:
    """The last epoch's mean training loss, and the validation loss after it."""
    splits = datasets.split(dataset)
    model = new_model(hparams, dataset)
    model.init_whitening(datasets.normalise(dataset.images[splits.train]))
    chosen = {name: getattr(hparams, name) for name in ("lr", "momentum", "weight_decay", "nesterov")}
    optimizer = torch.optim.SGD(model.parameters(), **chosen)
    average = [value.clone() for value in model.state_dict().values()]
    steps = math.ceil(len(splits.train) / hparams.batch_size)
    for epoch in range(1, hparams.epochs + 1):
        total = 0.0
        for number, (images, labels) in enumerate(train_batches(hparams, dataset, splits.train, epoch), start=1):
            done = ((epoch - 1) * steps + number) / (hparams.epochs * steps)
            rising, falling = 0.2 + 0.8 * done / 0.25, 1 - 0.95 * (done - 0.25) / 0.75
            factor = 1.0 if hparams.schedule == "constant" else rising if done < 0.25 else falling
            optimizer.param_groups[0]["lr"] = hparams.lr * factor
            with torch.autocast("cpu", torch.bfloat16, enabled=hparams.precision == "bfloat16"):
                logits = model.train()(images)
            smoothing = hparams.label_smoothing
            loss = nn.functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            if hparams.lookahead_decay and (number % 5 == 0 or number == steps):
                for slow, value in zip(average, model.state_dict().values(), strict=True):
                    slow += (1 - hparams.lookahead_decay**5 * done**3) * (value - slow)
                    value.copy_(slow)
    images, labels = datasets.normalise(dataset.images[splits.val]), dataset.labels[splits.val]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=hparams.precision == "bfloat16"):
        logits, mirrored = model.eval().logits(images), model.logits(images.flip(3))
    logits = (logits + mirrored) / 2 if hparams.tta_flip else logits
    return total / len(splits.train), nn.functional.cross_entropy(logits.float(), labels).item()


@pytest.mark.parametrize("model", ["net", "fast"])
def test_label_smoothing_is_pytorchs(tiny: Dataset, model: str) -> None:
    hparams = replace(FAST, model=model, width=4, label_smoothing=0.3, epochs=1, batch_size=1000)
    splits = datasets.split(tiny)
    network = new_model(hparams, tiny)
    network.init_whitening(datasets.normalise(tiny.images[splits.train]))
    logits = network.train()(datasets.normalise(tiny.images[splits.train]))
    expected = nn.functional.cross_entropy(logits, tiny.labels[splits.train], label_smoothing=0.3)
    (metrics,), _ = run_training(tiny, hparams)
    assert metrics.train_loss == pytest.approx(expected.item(), rel=1e-4)


def test_whitening_sees_the_training_images_alone(tiny: Dataset) -> None:
    splits = datasets.split(tiny)
    other = replace(tiny, images=tiny.images.clone())
    other.images[splits.val] = 0
    weights = [
        run_training(dataset, replace(RECIPE, epochs=1))[1].state_dict()["whiten.weight"] for dataset in (tiny, other)
    ]
    assert torch.equal(*weights)


def test_training_learns(tiny: Dataset) -> None:
    metrics, _ = run_training(tiny, replace(FAST, epochs=8))
    assert metrics[-1].accuracy == 1.0


def test_a_batch_larger_than_the_data_set_is_one_step(tiny: Dataset) -> None:
    hparams, splits = replace(FAST, batch_size=1000, epochs=1), datasets.split(tiny)
    (metrics,), trained = run_training(tiny, hparams)
    model = new_model(hparams, tiny)
    optimizer = torch.optim.SGD(model.parameters(), hparams.lr, hparams.momentum)
    logits = model(datasets.normalise(tiny.images[splits.train]))
    loss = nn.functional.cross_entropy(logits, tiny.labels[splits.train])
    loss.backward()
    optimizer.step()
    assert metrics.train_loss == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(trained.state_dict(), model.state_dict())


def test_evaluation_leaves_the_weights_alone_and_counts_right(tiny: Dataset) -> None:
    model = new_model(FAST, tiny)
    before = [parameter.clone() for parameter in model.parameters()]
    everything = torch.arange(120)
    evaluation = evaluate(model, tiny, everything)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    correct = int((evaluation.predictions == tiny.labels).sum())
    assert evaluation.accuracy == correct / 120
    assert sum(class_accuracies(evaluation, tiny, everything).values()) == pytest.approx(3 * correct / 120)


def test_divergence_stops_training_at_once(tiny: Dataset) -> None:
    with pytest.raises(Diverged, match=r"training loss is (nan|inf)"):
        run_training(tiny, replace(FAST, lr=1e30))


def result_of(dataset: Dataset, hparams: Hparams) -> Result:
    return run.run_trial(hparams, dataset, datasets.split(dataset), torch.device("cpu"), lambda metrics: None)[0]


def test_a_finished_trial_reports_its_last_epoch_and_names_its_best(tiny: Dataset) -> None:
    calls: list[list[EpochMetrics]] = []
    splits = datasets.split(tiny)
    result, trained = run.run_trial(FAST, tiny, splits, torch.device("cpu"), lambda history: calls.append([*history]))
    assert [len(history) for history in calls] == [1, 2, 3]
    seen = calls[-1]
    assert (result.status, result.epochs) == ("ok", 3)
    assert result.seconds == sum(metrics.seconds for metrics in seen)
    assert result.metrics is not None
    assert trained is not None
    assert torch.equal(trained.predictions, evaluate(trained.model, tiny, splits.val).predictions)
    assert result.metrics["default"] == seen[-1].accuracy
    assert result.metrics["best_accuracy"] == max(metrics.accuracy for metrics in seen)
    assert result.details["hparams"] == {**FAST.__dict__}


def test_a_network_that_gives_every_image_the_same_class_is_called_that(tiny: Dataset) -> None:
    uneven = replace(tiny, labels=torch.cat([torch.zeros(90, dtype=torch.int64), torch.arange(30) % 3]))
    constant = result_of(uneven, replace(FAST, lr=1e-6, epochs=1))
    assert constant.metrics is not None
    assert constant.metrics["predicted_classes"] == 1
    said = r"trained 1 epoch; every image it is judged by gets the same class; guessing the largest class gets 8\d\.\d%"
    assert re.fullmatch(said, constant.reason)
    data = constant.details["data"]
    assert isinstance(data, dict)
    assert data["largest_class_share"] == pytest.approx(100 / 120, abs=0.05)
    assert result_of(tiny, FAST).reason == "trained 3 epochs"


def test_a_trial_is_judged_by_the_metric_that_it_is_given(tiny: Dataset) -> None:
    """It gives every image the same class: a third of the classes, and another share of the images."""
    uneven = replace(tiny, labels=torch.cat([torch.zeros(90, dtype=torch.int64), torch.arange(30) % 3]))
    plain = result_of(uneven, replace(FAST, lr=1e-6, epochs=1)).metrics
    balanced = result_of(uneven, replace(FAST, lr=1e-6, epochs=1, metric="balanced_accuracy")).metrics
    assert plain is not None
    assert balanced is not None
    assert plain["default"] == plain["accuracy"] == balanced["accuracy"] != balanced["default"]
    assert balanced["default"] == balanced["balanced_accuracy"] == plain["balanced_accuracy"] == pytest.approx(1 / 3)
    assert balanced["best_accuracy"] == balanced["default"]


def test_a_balanced_accuracy_is_judged_by_few_images_where_a_class_has_few(tiny: Dataset) -> None:
    uneven = replace(tiny, labels=torch.cat([torch.zeros(90, dtype=torch.int64), torch.arange(30) % 3]))
    splits, data = datasets.split(uneven), result_of(uneven, replace(FAST, epochs=1)).details["data"]
    images = uneven.labels[splits.val].bincount().double()
    assert isinstance(data, dict)
    assert data["balanced_images"] == pytest.approx(9 / (1 / images).sum().item())
    assert data["balanced_images"] < data["val_images"] / 2
    even = result_of(tiny, replace(FAST, epochs=1)).details["data"]
    assert isinstance(even, dict)
    assert even["balanced_images"] == pytest.approx(even["val_images"])


def test_a_diverged_trial_reports_chance(tiny: Dataset) -> None:
    result = result_of(tiny, replace(FAST, lr=1e30))
    assert result.status == "diverged"
    assert "training loss is" in result.reason
    assert result.metrics is not None
    assert result.metrics["default"] == pytest.approx(1 / 3)
    assert all(math.isfinite(value) for value in result.metrics.values())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_a_trial_out_of_memory_reports_chance(
    error: RuntimeError, tiny: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*_: object) -> None:
        raise error

    monkeypatch.setattr(run, "new_model", exhaust)
    result = result_of(tiny, FAST)
    assert (result.status, result.reason) == ("out_of_memory", str(error).splitlines()[0])
    assert result.metrics is not None
    assert result.metrics["default"] == pytest.approx(1 / 3)


def test_a_network_too_large_for_this_machine_is_out_of_memory(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "new_model", lambda *_: torch.empty(2**60))
    assert result_of(tiny, FAST).status == "out_of_memory"


def test_any_other_error_is_raised(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "new_model", lambda *_: torch.empty(2) @ torch.empty(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        result_of(tiny, FAST)


def test_an_interrupted_trial_keeps_its_last_epoch(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its figures, its network and its predictions, also where it is interrupted in the middle of the next."""
    steps = 0

    def interrupted_step(*arguments: Any) -> Step:
        step = new_step(*arguments)

        def counted(images: Tensor, labels: Tensor) -> Tensor:
            nonlocal steps
            steps += 1
            if steps == 2 * steps_per_epoch + 3:
                raise KeyboardInterrupt
            return step(images, labels)

        return counted

    splits = datasets.split(tiny)
    steps_per_epoch = math.ceil(len(splits.train) / FAST.batch_size)
    monkeypatch.setattr("cifar.training.train.new_step", interrupted_step)
    result, trained = run.run_trial(FAST, tiny, splits, torch.device("cpu"), lambda history: None)
    assert (result.status, result.epochs) == ("interrupted", 2)
    assert result.metrics is not None
    assert trained is not None
    evaluation = evaluate(trained.model, tiny, splits.val)
    assert evaluation.accuracy == result.metrics["default"]
    assert torch.equal(evaluation.predictions, trained.predictions)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_a_trial_on_a_gpu_answers_can_be_written_down(tiny: Dataset) -> None:
    _, trained = run.run_trial(FAST, tiny, datasets.split(tiny), torch.device("cuda"), lambda history: None)
    assert trained is not None
    assert trained.predictions.device.type == "cpu"


def test_a_trial_runs_from_a_clone_that_nothing_has_installed(tiny: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def version_of(package: str) -> str:
        if package == "cifar-nni":
            raise PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(run, "version", version_of)
    result, _ = run.run_trial(FAST, tiny, datasets.split(tiny), torch.device("cpu"), lambda history: None)
    assert result.status == "ok"
    versions = result.details["versions"]
    assert isinstance(versions, dict)
    assert versions["cifar-nni"] == __version__


def test_an_interrupt_between_any_two_lines_finds_a_network_and_its_own_figures(tiny: Dataset) -> None:
    splits = datasets.split(tiny)
    lines = interrupted_at(tiny, splits, None)
    assert lines > 20
    seen = set[int]()
    for line in range(1, lines):
        result, trained = interrupted_at(tiny, splits, line)
        if result is None:  # before it began, or after it ended
            continue
        seen.add(result.epochs)
        if trained is None:
            assert (result.metrics, result.epochs) == (None, 0)
            continue
        assert result.metrics is not None
        assert len(trained.history) == result.epochs
        evaluation = evaluate(trained.model, tiny, splits.val)
        assert evaluation.accuracy == result.metrics["default"] == trained.history[-1].accuracy
        assert evaluation.loss == pytest.approx(trained.history[-1].loss)
        assert torch.equal(evaluation.predictions, trained.predictions)
    assert seen == {0, 1, 2, 3}


def interrupted_at(dataset: Dataset, splits: datasets.Splits, line: int | None) -> Any:
    """What run_trial returns when an interrupt strikes before the so many-th line that it comes to; how many there
    are where none does."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code not in (run.run_trial.__code__, run._Training.run.__code__):
            return None
        if event == "line":
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        returned = run.run_trial(FAST, dataset, splits, torch.device("cpu"), lambda history: None)
    except KeyboardInterrupt:
        return None, None
    finally:
        sys.settrace(before)
    return count if line is None else returned


def test_a_trial_that_another_process_lets_run_out_of_memory_has_a_whole_result(tiny: Dataset) -> None:
    told: list[Result] = []

    class Others(Processes):
        @contextlib.contextmanager
        def bounding_waits(self, on_out_of_memory: Callable[[str], None]) -> Iterator[None]:
            on_out_of_memory("2 GB")
            yield

    splits, cpu = datasets.split(tiny), torch.device("cpu")
    run.run_trial(FAST, tiny, splits, cpu, lambda _: None, processes=Others(), report=told.append)
    (result,) = told
    assert (result.status, result.reason, result.metrics and result.metrics["default"]) == (
        "out_of_memory",
        "2 GB",
        1 / 3,
    )
    assert result.details.keys() == result_of(tiny, FAST).details.keys()


@pytest.mark.parametrize(
    ("images", "batch_size", "sizes"),
    [
        (200, 64, [64, 64, 36, 36]),
        (80, 64, [40, 40]),
        (67, 64, [34, 33]),
        (9, 4, [4, 3, 2]),
        (96, 64, [64, 32]),
        (128, 64, [64, 64]),
        (40, 64, [40]),
        (10, 64, [10]),
        (64, 64, [64]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_no_last_batch_of_few_images(images: int, batch_size: int, sizes: list[int]) -> None:
    runs = runs_of_batches(torch.arange(images), batch_size)
    batches = [some for run, size in runs for some in run.split(size)]
    assert [len(some) for some in batches] == sizes
    assert torch.equal(torch.cat(batches), torch.arange(images))
    assert len(batches) == math.ceil(images / batch_size)


def test_a_training_takes_the_last_two_batches_alike(tiny: Dataset) -> None:
    index = torch.randperm(120)[:101]
    shown = [*train_batches(Hparams(batch_size=8), tiny, index, epoch=1)]
    assert [len(labels) for _, labels in shown] == [8] * 12 + [5]
    shown = [*train_batches(Hparams(batch_size=30), tiny, index, epoch=1)]
    assert [len(labels) for _, labels in shown] == [30, 30, 21, 20]
    order = _shuffled(index, 0, 1)
    assert torch.equal(torch.cat([labels for _, labels in shown]), tiny.labels[order])
    assert torch.equal(torch.cat([images for images, _ in shown]), datasets.normalise(tiny.images[order]))


def test_uneven_classes_are_shown_evenly(tiny: Dataset) -> None:
    uneven = replace(tiny, labels=torch.cat([torch.zeros(90, dtype=torch.int64), torch.arange(30) % 3]))
    hparams = Hparams(balanced=True, batch_size=12)
    shown = [*train_batches(hparams, uneven, torch.arange(120), epoch=1)]
    labels = torch.cat([some for _, some in shown])
    assert labels.bincount().tolist() == [40, 40, 40]
    assert all(some.bincount(minlength=3).tolist() == [4, 4, 4] for _, some in shown)
    images = torch.cat([some for some, _ in shown])
    assert len({image.numpy().tobytes() for image in images[labels == 0]}) == 40  # each once before one comes again
    assert len({image.numpy().tobytes() for image in images[labels == 1]}) == 10
    again = torch.cat([some for _, some in train_batches(hparams, uneven, torch.arange(120), epoch=1)])
    assert torch.equal(labels, again)
    few = replace(hparams, images_per_epoch=30)
    assert sum(len(some) for _, some in train_batches(few, uneven, torch.arange(120), epoch=1)) == 30
