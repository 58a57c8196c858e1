"""One trial: ask NNI for parameters, train, report.

Alone, with no experiment running, it trains PyTorch's CIFAR-10 tutorial recipe and ends with the test accuracy.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

import torch

from cifar import console
from cifar.data import datasets
from cifar.data.datasets import Dataset, Splits
from cifar.errors import RequestError
from cifar.training import device, distributed
from cifar.training.hparams import Hparams, add_arguments, given_arguments
from cifar.training.train import EpochMetrics, class_accuracies, evaluate
from cifar.trials import nni_trial
from cifar.trials.result import Result
from cifar.trials.run import epoch_metrics, out_of_memory, restored, run_trial


def main() -> int:
    logging.basicConfig(format="%(message)s")
    try:
        with distributed.joined(), nni_trial.recording_errors():
            options = parse_arguments()
            params = distributed.shared(nni_trial.next_params)
            hparams = Hparams.from_params({**given_arguments(options), **params})
            result = run(hparams, options.data, distributed.shared(nni_trial.finished_before))
    except RequestError as error:
        say(f"error: {error}")
        return 2
    except (nni_trial.ManagerGone, nni_trial.KilledTooOften, distributed.PeerLost) as error:
        say(f"error: {error}")
        return 1 if distributed.leads() else 0  # the leading process says how the trial ended
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    if result.status == "interrupted":
        return 130
    return 0 if result.status == "ok" or nni_trial.experiment_id() else 1  # NNI has been told, and goes on


def say(line: str) -> None:
    if distributed.leads():
        print(line, file=sys.stderr)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train and evaluate one network; under NNI, with the tuner's parameters over those given here.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data",
        default=os.environ.get("CIFAR_DATA") or "cifar10",
        help="cifar10, digits or a folder of pictures (default: $CIFAR_DATA, else cifar10)",
    )
    add_arguments(parser)
    return parser.parse_args()


def run(hparams: Hparams, data_name: str, earlier: Result | None) -> Result:
    """The trial's result. `earlier` is that of a start that was cut off after its report."""
    checkpoint = distributed.shared(nni_trial.checkpoint_path)
    if earlier and not (checkpoint and checkpoint.exists()):
        return earlier
    dataset = datasets.load(data_name)
    splits = datasets.split(dataset)
    claim = device.claim(nni_trial.concurrency(), nni_trial.experiment_id())
    torch.set_num_threads(claim.threads(hparams))
    if earlier:
        keep_again(earlier, hparams, dataset, splits, claim.device, checkpoint)
        return earlier
    history: list[EpochMetrics] = []

    def on_epoch(so_far: list[EpochMetrics]) -> None:
        history[:] = so_far
        if distributed.leads():
            print(epoch_line(history[-1], hparams.epochs), flush=True)
        nni_trial.report_epoch(len(history), epoch_metrics(history), last=len(history) == hparams.epochs)

    def on_out_of_memory(reason: str) -> None:
        nni_trial.finish(out_of_memory(reason, history, hparams, dataset, splits, claim.device))

    with distributed.bounded(on_out_of_memory):
        result, trained = run_trial(hparams, dataset, splits, claim.device, on_epoch, checkpoint)
    if not distributed.leads():
        return result
    result = nni_trial.settle(result)
    nni_trial.finish(result)
    if trained is not None:
        nni_trial.keep(trained, hparams, dataset, splits, result)
    nni_trial.clear(result)
    print(f"{result.status}: {result.reason}")
    if trained is not None and result.status == "ok" and not nni_trial.running():
        print_test_accuracy(trained.model, data_name, claim.device)
    return result


def keep_again(
    result: Result, hparams: Hparams, dataset: Dataset, splits: Splits, on: torch.device, checkpoint: Path | None
) -> None:
    """Leave what a start that was cut off after its report did not come to leave."""
    trained = restored(hparams, dataset, splits, on, checkpoint) if checkpoint else None
    if trained is not None and len(trained.history) == result.epochs:
        nni_trial.keep(trained, hparams, dataset, splits, result)
    nni_trial.clear(result)


def epoch_line(metrics: EpochMetrics, epochs: int) -> str:
    return (
        f"epoch {metrics.epoch}/{epochs}  train loss {metrics.train_loss:.3f}  loss {metrics.loss:.3f}  "
        f"accuracy {metrics.accuracy:.1%}  {metrics.images_per_second:,.0f} images/s"
    )


def print_test_accuracy(model: torch.nn.Module, data_name: str, on: torch.device) -> None:
    """The only place where a trial reads test images: alone, after training has ended."""
    test = datasets.load_test(data_name).to(on)
    everything = torch.arange(len(test.labels), device=on)
    evaluation = evaluate(model, test, everything)
    standard_error = (evaluation.accuracy * (1 - evaluation.accuracy) / len(everything)) ** 0.5
    print(f"test accuracy {evaluation.accuracy:.1%} ± {standard_error:.1%} of {len(everything):,} images; per class:")
    for name, accuracy in class_accuracies(evaluation, test, everything).items():
        print(f"  {name:<12} {accuracy:6.1%}")


if __name__ == "__main__":
    distributed.end(console.run(main))
