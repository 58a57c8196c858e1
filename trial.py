"""One trial: ask NNI for parameters, train, report.

Alone, with no experiment running, it trains PyTorch's CIFAR-10 tutorial recipe and ends with the test accuracy.
"""

from __future__ import annotations

from cifar.trials import warm_start

warm_start.hand_over(__name__)  # under NNI, to a process that has imported what follows

import argparse
import shlex
from pathlib import Path

import torch

from cifar.console import Parser, say_next
from cifar.data import datasets, test_log
from cifar.inference import model_file
from cifar.system.files import refuse_to_replace
from cifar.training import augmentation, defaults, device
from cifar.training.evaluation import class_accuracies, evaluate
from cifar.training.hparams import Hparams, add_arguments, given_arguments
from cifar.training.intervals import wilson
from cifar.training.train import EpochMetrics
from cifar.trials.launch import launch
from cifar.trials.nni_trial import NniTrial
from cifar.trials.result import Result
from cifar.trials.run import epoch_metrics, run_trial
from cifar.trials.trial_line import trial_line


def main(nni: NniTrial) -> Result:
    options = parse_arguments()
    if options.save:
        refuse_to_replace(options.save, options.force)
    params = {**given_arguments(options), **nni.next_params()}
    dataset = datasets.load(options.data, Hparams.from_params(params).size)
    splits = datasets.split(dataset)
    hparams = augmentation.fitting(defaults.for_data(params, len(splits.train)), options.data)
    if earlier := nni.finished_before():  # this trial was killed after its report
        nni.save_again(earlier, hparams, dataset, splits)
        return earlier
    if not nni.is_absent:
        nni.say(f"alone: {trial_line(hparams, options.data)}")
    claim = device.claim(nni.concurrency(), nni.experiment_id, nni.processes)
    torch.set_num_threads(claim.threads(hparams))

    def on_epoch(history: list[EpochMetrics]) -> None:
        nni.say(epoch_line(history[-1], hparams))
        nni.report_epoch(len(history), epoch_metrics(history, hparams.metric), last=len(history) == hparams.epochs)

    result, trained = run_trial(
        hparams, dataset, splits, claim.device, on_epoch, nni.checkpoint_path(), nni.processes, nni.report_final
    )
    result = nni.final_status(result)
    nni.report_final(result)
    nni.save_artifacts(result, trained, hparams, dataset, splits)
    nni.say(ended_line(result))
    if nni.is_absent and nni.processes.is_main and trained:
        if options.save:
            model_file.save(options.save, trained.model, hparams, dataset, {"validation": trained.history[-1].accuracy})
            nni.say(f"model of epoch {len(trained.history)}: {options.save}")
        if result.status == "ok" and options.test:
            nni.say(test_accuracy(trained.model, hparams, options.data, claim.device))
        say_next(next_steps(options.save, options.data))
    return result


def ended_line(result: Result) -> str:
    if result.status == "interrupted":
        return result.reason  # which says that
    return f"{'done' if result.status == 'ok' else result.status}: {result.reason}"


def next_steps(saved: Path | None, data_name: str) -> list[tuple[str, str]]:
    """What one may do after a training outside of a search."""
    data, model = shlex.quote(data_name), shlex.quote(str(saved))
    return [
        (f"cifar predict {model} PICTURE", "what is in a picture")
        if saved
        else (f"python trial.py --data {data} --save my.safetensors", "keep the network, for cifar predict"),
        (f"cifar fit --data {data} --time-limit 30m", "a better network, and how sure that is"),
    ]


def parse_arguments() -> argparse.Namespace:
    parser = Parser(
        usage="python trial.py [OPTIONS]",
        description="Train and evaluate one network; under NNI, with the tuner's parameters over those given here.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        default=datasets.default_data(),
        help="cifar10, digits or a folder of pictures (default: $CIFAR_DATA, else cifar10)",
    )
    parser.add_argument("--no-test", dest="test", action="store_false", help="alone: leave the test images unread")
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="alone: keep the network, for cifar predict and export"
    )
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there")
    about = "defaults for CIFAR-10's 45,000 training images; on fewer, epochs, batch size and learning rate fit them"
    add_arguments(parser, about)
    return parser.parse()


def epoch_line(metrics: EpochMetrics, hparams: Hparams) -> str:
    tuned = f"{hparams.metric.replace('_', ' ')} {metrics.of(hparams.metric):.1%}"
    return (
        f"epoch {metrics.epoch}/{hparams.epochs}  train loss {metrics.train_loss:.3f}  loss {metrics.loss:.3f}  "
        f"{tuned}  {metrics.images_per_second:,.0f} images/s"
    )


def test_accuracy(model: torch.nn.Module, hparams: Hparams, data_name: str, on: torch.device) -> str:
    """The only place where a trial reads test images: without NNI, after training has ended. It is written down."""
    test = datasets.load_test(data_name, hparams.size).to(on)
    index = torch.arange(len(test.labels), device=on)
    evaluation = evaluate(model, test, index)
    interval = wilson(evaluation.accuracy, len(index))
    lines = [f"test accuracy {interval} (95 % interval of this network) of {len(index):,} images; per class:"]
    lines += [f"  {name:<12} {share:6.1%}" for name, share in class_accuracies(evaluation, test, index).items()]
    test_log.append(test, "python trial.py", [hparams.seed], [evaluation.accuracy])
    return "\n".join([*lines, test_log.count(test)])


if __name__ == "__main__":
    launch(main)
