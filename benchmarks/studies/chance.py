"""`python -m benchmarks.studies.chance`: whether what is said of ties, winners and intervals holds, on made data.

Networks are made whose true accuracy is known: some images are hard for all of them, and each seed shifts all images of
its network. Then the project's own functions say what they say of real ones.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.shared import machine
from benchmarks.shared.report import RESULTS, Report
from cifar.analysis.configurations import DEFAULTS, Configuration
from cifar.analysis.confirm import Candidate, decide
from cifar.analysis.findings import range_warnings
from cifar.analysis.statistics import Mean, expected_best, mean, pooled_spread, pooled_with, pooled_with_recipes
from cifar.analysis.study import importances, rebuild
from cifar.training.hparams import Hparams
from cifar.trials import layout
from cifar.trials.predictions import Predictions, save_predictions
from cifar.trials.store import Trial
from cifar.trials.ties import ties

_HARDNESS = 0.2  # standard deviation of an image's ease
_IMAGES = 5_000
_SEED_SDS = (0.0, 0.003, 0.01, 0.02)
_CONFIRMED, _SEEDS = 5, 3  # what `cifar best` trains
_CONSTANT, _ANNEALED = Hparams(), Hparams(schedule="triangular")
_MARGINS_HEADER = ["case", "tries", "share", "promised", "half the width: median, narrowest and widest twentieth"]
_BIAS_HEADER = ["case", "searches", "mean gain ± standard error"]
_SPACE: dict[str, dict[str, Any]] = {f"p{number}": {"_type": "uniform", "_value": [0.0, 1.0]} for number in range(6)}


@dataclass(frozen=True)
class Share:
    """How often something happened, and what was promised of it."""

    case: str
    tries: int
    share: float
    promised: str

    def cells(self) -> list[str]:
        return [self.case, f"{self.tries:,}", f"{self.share:.1%}", self.promised]


@dataclass(frozen=True)
class Margins(Share):
    """How wide the intervals were beside that: half the width, the 5th, 50th and 95th of a hundred."""

    margins: tuple[float, float, float]

    def cells(self) -> list[str]:
        narrow, middle, wide = (f"{100 * margin:.1f}" for margin in self.margins)
        return [*super().cells(), f"{middle} points, {narrow} and {wide}"]


@dataclass(frozen=True)
class Regret:
    """Points that the chosen configuration is truly behind the best of the search, on average."""

    case: str
    searches: int
    leader: float
    confirmed: float

    def cells(self) -> list[str]:
        return [self.case, str(self.searches), f"{100 * self.leader:.2f}", f"{100 * self.confirmed:.2f}"]


@dataclass(frozen=True)
class Bias:
    """The mean gain of searches without one, and its standard error."""

    case: str
    searches: int
    gain: float
    error: float

    def cells(self) -> list[str]:
        return [self.case, f"{self.searches:,}", f"{100 * self.gain:+.2f} ± {100 * self.error:.2f} points"]


def main() -> int:
    facts = machine.describe("python -m benchmarks.studies.chance", "digits")
    facts["data"] = "made, of known truth"
    report = Report(RESULTS / "chance", "Whether what is said holds", facts)
    head = ["case", "tries", "share", "promised"]
    report.table("The 95 % interval of a mean over seeds and images holds the truth", "coverage", head, coverage())
    title = "The 95 % interval of the final networks on test images holds the truth"
    report.table(title, "final_coverage", head, final_coverage())
    title = "The same of two networks of fast, where nothing was confirmed"
    report.table(title, "unconfirmed_coverage", _MARGINS_HEADER, unconfirmed_coverage())
    title = "The 95 % interval of the gain of cifar fit holds the truth: two configurations, two seeds each"
    report.table(title, "gain_coverage", _MARGINS_HEADER, gain_coverage())
    report.table("cifar best: equal configurations that are not called a tie", "told_apart", head, told_apart())
    report.table("cifar trials: equal configurations that are not called a tie", "trials", head, trials_told_apart())
    header = ["search", "searches", "behind: the search's leader", "behind: the confirmed winner"]
    report.table("Points behind the best of 60 trials (net) or 30 (fast)", "regret", header, regrets())
    report.table("The report warns of a range although nothing matters", "warnings", head, false_warnings())
    report.table("The report's gain over random trials where there is none", "gain", _BIAS_HEADER, gain_bias())
    title = "The gain over the defaults of cifar best, where five others are as good as they"
    report.table(title, "gain_over_defaults", _BIAS_HEADER, defaults_bias())
    title = "The report ranks a parameter above a random number although nothing matters"
    report.table(title, "importance", head, false_importances())
    return 0


def networks(
    generator: np.random.Generator, accuracies: NDArray[np.float64], sd: float, images: int
) -> NDArray[np.bool_]:
    """Networks x images, true where right. Each network has a seed of its own."""
    ease = accuracies[:, None] + generator.normal(0, _HARDNESS, images) + generator.normal(0, sd, (len(accuracies), 1))
    return generator.random(ease.shape) < ease


def truth(accuracy: float, sd: float = 0.0) -> float:
    """What networks are right on in the long run: an ease above 1 or below 0 is no more than that."""
    spread = float(np.hypot(_HARDNESS, sd))
    return float(np.random.default_rng(0).normal(accuracy, spread, 1_000_000).clip(0, 1).mean())


def coverage() -> Iterator[Share]:
    generator, true, tries = np.random.default_rng(0), truth(0.6), 400
    for seeds in (2, 3, 5):
        for images in (100, 1_000, 10_000):
            covered = 0
            for _ in tqdm(range(tries), f"{seeds} seeds, {images} images", leave=False):
                found = [networks(generator, np.full(seeds, 0.6), 0.01, images).astype(float) for _ in range(4)]
                interval = mean(found[0], pooled_spread(found))
                covered += abs(interval.value - true) <= interval.margin
            yield Share(f"{seeds} seeds, {images:,} images, seed sd 1 point", tries, covered / tries, "93 to 97 %")


def final_coverage() -> Iterator[Share]:
    """As `cifar best` says of its final networks: how much seeds do is known from validation images."""
    generator, tries, val_images, test_images = np.random.default_rng(6), 300, 1_000, 2_000
    for accuracy in (0.6, 0.9):
        for seeds in (2, 3):
            for sd in (0.0, 0.004, 0.02):
                true, covered = truth(accuracy, sd), 0
                for _ in tqdm(range(tries), f"{seeds} seeds, sd {sd}", leave=False):
                    validated = networks(generator, np.full(5 * seeds, accuracy), sd, val_images).astype(float)
                    known = pooled_spread(np.split(validated, 5))
                    tested = networks(generator, np.full(seeds, accuracy), sd, test_images).astype(float)
                    interval = mean(tested, pooled_with([tested], known))
                    covered += abs(interval.value - true) <= interval.margin
                case = f"accuracy {accuracy:.0%}, {seeds} seeds, seed sd {100 * sd:g} points"
                yield Share(case, tries, covered / tries, "93 to 97 %")


def unconfirmed_coverage() -> Iterator[Margins]:
    """As `cifar fit` says of the defaults of `fast`, where it confirmed nothing; 0.3 points are known."""
    generator, tries, accuracy = np.random.default_rng(10), 4_000, 0.9
    for sd in (0.0, 0.0015, 0.003, 0.006):
        true, found = truth(accuracy, sd), []
        for _ in tqdm(range(tries), f"seed sd {sd}", leave=False):
            tested = networks(generator, np.full(2, accuracy), sd, 10_000).astype(float)
            found.append(mean(tested, pooled_with_recipes([tested], Hparams(model="fast"))))
        yield _margins(sd, found, true, "at least 93 %" if sd <= 0.003 else "at least 85 %")


def gain_coverage() -> Iterator[Margins]:
    """Recipes like theirs are known for seeds of 1 point; these may do more, and less."""
    generator, tries = np.random.default_rng(9), 4_000
    for sd in (0.0, 0.005, 0.01, 0.015, 0.02):
        found = []
        for _ in tqdm(range(tries), f"seed sd {sd}", leave=False):
            gain = decide(_candidates(generator, {"0": 0.6, DEFAULTS: 0.6}, sd, 2, _ANNEALED)).gain
            assert gain is not None
            found.append(gain)
        yield _margins(sd, found, 0.0, "at least 93 %" if sd < 0.02 else "at least 90 %")


def _margins(sd: float, found: list[Mean], true: float, promised: str) -> Margins:
    share = float(np.mean([abs(interval.value - true) <= interval.margin for interval in found]))
    narrow, middle, wide = np.quantile([interval.margin for interval in found], [0.05, 0.5, 0.95]).tolist()
    return Margins(f"seed sd {100 * sd:g} points", len(found), share, promised, (narrow, middle, wide))


def told_apart() -> Iterator[Share]:
    generator, searches = np.random.default_rng(1), 400
    for sd in _SEED_SDS:
        apart = 0
        for _ in tqdm(range(searches), f"seed sd {sd}", leave=False):
            confirmed = decide(_candidates(generator, {str(number): 0.6 for number in range(_CONFIRMED)}, sd))
            apart += _CONFIRMED - len(confirmed.tied)
        tries = searches * (_CONFIRMED - 1)  # the best one is none that could be told apart
        yield Share(f"{_CONFIRMED} candidates, seed sd {100 * sd:g} points", tries, apart / tries, "at most 7 %")


def _candidates(
    generator: np.random.Generator,
    true: dict[str, float],
    sd: float,
    seeds: int = _SEEDS,
    hparams: Hparams = _CONSTANT,
) -> list[Candidate]:
    """Configurations by their true accuracy, each with some seeds, judged by the same images."""
    right = networks(generator, np.repeat([*true.values()], seeds), sd, _IMAGES)
    predictions = [Predictions(~one * 1, np.zeros(_IMAGES, dtype=np.int64)) for one in right]
    return [
        Candidate(Configuration(name, name, hparams, {}), predictions[seeds * number : seeds * (number + 1)], 1.0)
        for number, name in enumerate(true)
    ]


def trials_told_apart() -> Iterator[Share]:
    """With and without repeated trials, from which the experiment learns what its seeds do."""
    generator, searches = np.random.default_rng(2), 25
    for repeats in (0, 8):
        for sd in _SEED_SDS:
            for count in (20, 60):
                apart = sum(_apart(generator, count, repeats, sd) for _ in tqdm(range(searches), leave=False))
                case = f"{count} trials, {repeats} repeats, seed sd {100 * sd:g} points"
                tries = searches * (count - 1)
                yield Share(case, tries, apart / tries, "at most 7 %")


def _apart(generator: np.random.Generator, count: int, repeats: int, sd: float) -> int:
    """How many of so many equal configurations are no tie; the first of them is trained some times more."""
    right = networks(generator, np.full(count + repeats, 0.6), sd, _IMAGES)
    with tempfile.TemporaryDirectory() as directory:
        experiment = Path(directory)
        trials = [
            _trial(experiment, number, one, lr=1.0 + (number if number < count else 0), seed=number)
            for number, one in enumerate(right)
        ]
        tied = ties(trials, experiment)
        return count - max(1, len({f"trial{number}" for number in range(count)} & tied))


def _trial(experiment: Path, number: int, right: NDArray[np.bool_], **hparams: object) -> Trial:
    directory = layout.trial_directory(experiment, f"trial{number}")
    directory.mkdir(parents=True)
    save_predictions(directory, ~right * 1, np.zeros(len(right), dtype=np.int64))
    result = {
        "status": "ok",
        "reason": "",
        "metrics": {"default": float(right.mean())},
        "data": {"val_images": len(right)},
        "hparams": asdict(Hparams.from_params(hparams)),
    }
    return Trial(f"trial{number}", number, "SUCCEEDED", {}, result)


def regrets() -> Iterator[Regret]:
    """The true accuracies are those that a published search's trials had; `cifar best` takes five of its leaders."""
    generator, searches = np.random.default_rng(3), 60
    for name, sd in (("net", 0.02), ("fast", 0.004)):
        true = _published(name)
        behind = np.zeros(2)
        for _ in tqdm(range(searches), name, leave=False):
            found = networks(generator, true, sd, _IMAGES).mean(1)
            leaders = np.argsort(-found)[:_CONFIRMED]
            confirmed = decide(_candidates(generator, {str(one): true[one] for one in leaders}, sd))
            behind += true.max() - true[[leaders[0], int(confirmed.winner.id)]]
        yield Regret(f"{name}, seed sd {100 * sd:g} points", searches, *(behind / searches).tolist())


def _published(name: str) -> NDArray[np.float64]:
    with (RESULTS / name / "tpe.csv").open() as file:
        return np.array([float(row["accuracy"]) for row in csv.DictReader(file) if row["accuracy"]])


def false_warnings() -> Iterator[Share]:
    generator, searches = np.random.default_rng(4), 400
    for trials, parameters in ((20, 4), (30, 6), (60, 4)):
        space = dict(list(_SPACE.items())[:parameters])
        warned = sum(bool(range_warnings(_noise(generator, trials, space), space)) for _ in range(searches))
        case = f"{trials} trials, {parameters} parameters"
        yield Share(case, searches, warned / searches, "at most 5 % of searches")


def _noise(generator: np.random.Generator, count: int, space: dict[str, dict[str, Any]]) -> list[Trial]:
    found = []
    for number, accuracy in enumerate(generator.random(count)):
        result = {"status": "ok", "reason": "", "metrics": {"default": accuracy}, "data": {"val_images": 100}}
        params = {name: float(generator.random()) for name in space}
        found.append(Trial(str(number), number, "SUCCEEDED", params, result))
    return found


def gain_bias() -> Iterator[Bias]:
    generator, searches = np.random.default_rng(5), 20_000
    for drawn, proposed in ((10, 10), (10, 50), (20, 40)):
        accuracies = generator.normal(0.6, 0.05, (searches, drawn + proposed))
        best = [expected_best(some, min(drawn, proposed)) for some in np.split(accuracies, [drawn], axis=1)]
        found = best[1] - best[0]
        error = float(found.std() / np.sqrt(searches))
        yield Bias(f"{drawn} random and {proposed} proposed trials", searches, float(found.mean()), error)


def defaults_bias() -> Iterator[Bias]:
    generator, searches = np.random.default_rng(7), 400
    names = [*map(str, range(_CONFIRMED)), DEFAULTS]
    for sd in _SEED_SDS:
        found = []
        for _ in tqdm(range(searches), f"seed sd {sd}", leave=False):
            gain = decide(_candidates(generator, dict.fromkeys(names, 0.6), sd)).gain
            assert gain is not None
            found.append(gain.value)
        error = float(np.std(found) / np.sqrt(searches))
        yield Bias(f"seed sd {100 * sd:g} points", searches, float(np.mean(found)), error)


def false_importances() -> Iterator[Share]:
    generator, searches = np.random.default_rng(8), 40
    for trials, parameters in ((20, 4), (30, 6)):
        space, above = dict(list(_SPACE.items())[:parameters]), 0
        for _ in tqdm(range(searches), f"{trials} trials", leave=False):
            found = importances(rebuild(_noise(generator, trials, space), space))
            above += any(share.value > found.of_chance for share in found.shares.values())
        yield Share(f"{trials} trials, {parameters} parameters", searches, above / searches, "at most 10 % of searches")


if __name__ == "__main__":
    sys.exit(main())
