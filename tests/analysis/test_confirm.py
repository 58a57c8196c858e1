from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cifar.analysis import answer
from cifar.analysis.answer import gain_text
from cifar.analysis.configurations import DEFAULTS, Configuration, new_seeds
from cifar.analysis.confirm import Candidate, Confirmed, Prefer, Rule, decide, finalists
from cifar.analysis.final_test import FinalTest
from cifar.analysis.statistics import Mean, mean, pooled_spread, pooled_with
from cifar.errors import RequestError
from cifar.training.hparams import Hparams
from cifar.trials.predictions import Predictions
from cifar.trials.store import Trial

LABELS = np.zeros(2000, dtype=np.int64)


def candidate(number: int, accuracies: list[float], seconds: float) -> Candidate:
    """Right on images of its own, so that candidates differ on more than chance would let them."""
    predictions = []
    for seed, accuracy in enumerate(accuracies):
        right = np.random.RandomState(100 * number + seed).permutation(len(LABELS)) < accuracy * len(LABELS)
        predictions.append(Predictions((~right).astype(np.int64), LABELS))
    return Candidate(configuration(f"trial{number}"), predictions, seconds)


def configuration(name: str) -> Configuration:
    return Configuration(name, name, Hparams(), {})


def test_a_clear_best_wins_however_slow() -> None:
    best, worse = candidate(0, [0.80, 0.81, 0.80], 100.0), candidate(1, [0.60, 0.61, 0.60], 1.0)
    for prefer in get_args(Prefer):
        confirmed = decide([worse, best], Rule(prefer))
        assert confirmed.winner is best
        assert confirmed.tied == [best]


def test_among_ties_the_highest_mean_wins_however_slow() -> None:
    slow, quick = candidate(0, [0.80, 0.81, 0.81], 100.0), candidate(1, [0.80, 0.80, 0.81], 1.0)
    confirmed = decide([quick, slow])
    assert confirmed.winner is slow
    assert confirmed.tied == [slow, quick]


@pytest.mark.parametrize(("margin", "wins"), [(0.02, "a little worse"), (0.001, "the best")])
def test_for_speed_the_quickest_wins_that_is_shown_not_to_be_worse_by_the_margin(margin: float, wins: str) -> None:
    """All are right on the same images but few, so that small differences show."""
    named = {"the best": (16_000, 100.0), "a little worse": (15_960, 5.0), "much worse": (15_000, 1.0)}
    labels = np.zeros(20_000, dtype=np.int64)
    candidates = dict[str, Candidate]()
    for name, (right, seconds) in named.items():
        predictions = [Predictions((np.arange(20_000) >= right + seed).astype(np.int64), labels) for seed in range(3)]
        candidates[name] = Candidate(configuration(name), predictions, seconds)
    assert decide([*candidates.values()], Rule("speed", margin)).winner is candidates[wins]


def test_a_tie_for_want_of_seeds_is_no_proof_of_equality() -> None:
    """Its seeds differ by ten points: it ties with the best, and may be far worse."""
    best, unsure = candidate(0, [0.75, 0.80, 0.85], 100.0), candidate(1, [0.70, 0.75, 0.82], 1.0)
    confirmed = decide([best, unsure], Rule("speed"))
    assert confirmed.tied == [best, unsure]
    assert confirmed.winner is best


def test_what_seeds_do_is_learnt_from_all_candidates() -> None:
    steady, unsteady = candidate(0, [0.7] * 3, 1.0), candidate(1, [0.6, 0.7, 0.8], 1.0)
    alone = mean(steady.scores), mean(unsteady.scores)
    together = decide([steady, unsteady]).accuracies
    assert alone[0].margin < together[0].margin < alone[1].margin
    assert together[0].margin == pytest.approx(together[1].margin, rel=0.1)


def test_seeds_that_agree_leave_the_chance_of_the_images() -> None:
    found = mean(np.repeat([[1.0] * 700 + [0.0] * 300], 5, axis=0))
    assert found.margin == pytest.approx(1.96 * (0.7 * 0.3 / 1000) ** 0.5, rel=0.04)


@given(st.integers(1, 6), st.integers(2, 50), st.integers(0, 2**31))
def test_an_interval_is_finite_whatever_the_answers(seeds: int, images: int, seed: int) -> None:
    found = mean(np.random.RandomState(seed).randint(0, 2, (seeds, images)).astype(np.float64))
    assert 0 <= found.value <= 1
    assert 0 <= found.margin < np.inf


def answers(generator: np.random.Generator, seeds: int, images: int, seed_sd: float) -> NDArray[np.float64]:
    """Of networks that are right with probability 0.7 more or less, on images of which some are hard."""
    ease = generator.normal(0, 0.15, (1, images)) + generator.normal(0, seed_sd, (seeds, 1))
    return (generator.random((seeds, images)) < 0.7 + ease).astype(np.float64)


@pytest.mark.parametrize(
    ("seeds", "images", "seed_sd"), [(3, 400, 0.0), (3, 400, 0.02), (5, 2000, 0.01), (2, 100, 0.02)]
)
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds: int, images: int, seed_sd: float) -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(600):
        groups = [answers(generator, seeds, images, seed_sd) for _ in range(4)]
        found = mean(groups[0], pooled_spread(groups))
        covered += abs(found.value - 0.7) <= found.margin
    assert 0.93 <= covered / 600 <= 0.985


@pytest.mark.parametrize("seed_sd", [0.0, 0.01, 0.015])
def test_a_gain_over_two_seeds_is_neither_too_sure_nor_without_use(seed_sd: float) -> None:
    """As `cifar fit` says it: two configurations, two seeds each; seeds of such recipes are known for 1 point."""
    generator, gains, annealed = np.random.default_rng(4), list[Mean](), Hparams(schedule="triangular")
    labels = np.zeros(5000, dtype=np.int64)
    for _ in range(300):
        candidates = [
            Candidate(
                Configuration(name, name, annealed, {}),
                [Predictions(1 - right.astype(np.int64), labels) for right in answers(generator, 2, 5000, seed_sd)],
                1.0,
            )
            for name in ("found", DEFAULTS)
        ]
        gain = decide(candidates).gain
        assert gain is not None
        gains.append(gain)
    narrow, wide = np.quantile([gain.margin for gain in gains], [0.05, 0.95])
    assert np.mean([abs(gain.value) <= gain.margin for gain in gains]) >= 0.92
    assert narrow > 0.015
    assert wide < 2.6 * narrow


@pytest.mark.parametrize("seed_sd", [0.0, 0.02])
def test_equal_configurations_are_seldom_told_apart(seed_sd: float) -> None:
    generator, apart = np.random.default_rng(1), 0
    for _ in range(300):
        predictions = [
            [Predictions(1 - right.astype(np.int64), LABELS) for right in answers(generator, 3, len(LABELS), seed_sd)]
            for _ in range(4)
        ]
        candidates = [Candidate(configuration(str(i)), some, 1.0) for i, some in enumerate(predictions)]
        apart += 4 - len(decide(candidates).tied)
    assert apart / (300 * 4) <= 0.07


def with_defaults(generator: np.random.Generator, gains: list[float], seed_sd: float) -> Confirmed:
    """The defaults are right on 0.7 of the images; the others on more by their gains."""
    named = dict(zip([DEFAULTS, "a", "b", "c"], [0.0, *gains], strict=False))
    hard = generator.normal(0, 0.15, (1, 1000))
    candidates = []
    for name, gain in named.items():
        ease = 0.7 + gain + hard + generator.normal(0, seed_sd, (3, 1))
        right = generator.random((3, 1000)) < ease
        predictions = [Predictions(1 - one.astype(np.int64), LABELS[:1000]) for one in right]
        candidates.append(Candidate(configuration(name), predictions, 1.0))
    return decide(candidates)


@pytest.mark.parametrize("seed_sd", [0.0, 0.02])
@pytest.mark.parametrize("gains", [[0.0, 0.0, 0.0], [0.03, 0.0, -0.05]])
def test_the_gain_of_the_chosen_one_is_covered_although_it_was_chosen(gains: list[float], seed_sd: float) -> None:
    generator, covered = np.random.default_rng(2), 0
    for _ in range(400):
        confirmed = with_defaults(generator, gains, seed_sd)
        searched = next(some for some in confirmed.ranked if some.id != DEFAULTS)
        assert confirmed.gain is not None
        covered += abs(confirmed.gain.value - gains["abc".index(searched.id)]) <= confirmed.gain.margin
    assert covered / 400 >= 0.93


def test_the_gain_is_negative_where_the_defaults_win_and_none_without_them() -> None:
    defaults, other = candidate(0, [0.80, 0.81, 0.80], 1.0), candidate(1, [0.60, 0.61, 0.60], 1.0)
    defaults = Candidate(configuration(DEFAULTS), defaults.predictions, 1.0)
    confirmed = decide([other, defaults])
    assert confirmed.winner is defaults
    assert confirmed.gain is not None
    assert confirmed.gain.value == pytest.approx(-0.2, abs=0.001)
    assert decide([other]).gain is None
    assert decide([defaults]).gain is None


def test_the_finalists_are_the_best_and_the_defaults_however_these_did() -> None:
    three = [candidate(number, [0.8 - number / 10] * 2, 1.0) for number in range(3)]
    defaults = Candidate(configuration(DEFAULTS), candidate(3, [0.2, 0.2], 1.0).predictions, 1.0)
    assert [some.id for some in finalists(decide([three[2], defaults, three[0], three[1]]), 2)] == [
        "trial0",
        "trial1",
        DEFAULTS,
    ]


def test_seeds_that_the_search_has_used_are_not_new() -> None:
    def with_seed(seed: int) -> Trial:
        return Trial("a", 0, "SUCCEEDED", {}, {"hparams": {"seed": seed}})

    assert new_seeds([with_seed(0), Trial("b", 1, "FAILED", {}, None)], 3) == [1000, 1001, 1002]
    assert new_seeds([with_seed(1000), with_seed(1002)], 3) == [1001, 1003, 1004]


@pytest.mark.parametrize("margin", [-0.01, 1.5, float("nan")])
def test_a_margin_that_no_accuracy_can_have_is_refused(margin: float) -> None:
    with pytest.raises(RequestError, match="--margin must be from 0 to 100 points"):
        Rule("speed", margin)


def equal(generator: np.random.Generator, count: int, seed_sd: float) -> list[Candidate]:
    """Configurations as good as the defaults, which are the last of them."""
    names = [*(f"trial{number}" for number in range(count - 1)), DEFAULTS]
    made = [answers(generator, 3, 1000, seed_sd) for _ in names]
    labels = np.zeros(1000, dtype=np.int64)
    return [
        Candidate(configuration(name), [Predictions((one == 0).astype(np.int64), labels) for one in some], 1.0)
        for name, some in zip(names, made, strict=True)
    ]


@pytest.mark.parametrize("seed_sd", [0.0, 0.02])
def test_the_gain_has_no_luck_in_it(seed_sd: float) -> None:
    """Where none is better the best of five seems so; what is said of it is nothing on average."""
    generator, gains, raw = np.random.default_rng(0), list[float](), list[float]()
    for _ in range(150):
        candidates = equal(generator, 6, seed_sd)
        confirmed = decide(candidates)
        assert confirmed.gain is not None
        gains.append(confirmed.gain.value)
        assert (confirmed.winner.id == DEFAULTS) == (confirmed.gain.value <= 0)
        means = [float(some.scores.mean()) for some in candidates]
        raw.append(max(means[:-1]) - means[-1])
    error = np.std(gains) / len(gains) ** 0.5
    assert abs(np.mean(gains)) < 3 * error
    assert np.mean(raw) > 4 * error


def test_all_right_is_no_certainty() -> None:
    """Of 36 images Wilson's lower end is 90.4 %."""
    assert 0.096 <= mean(np.ones((3, 36))).margin <= 0.13
    assert mean(np.ones((3, 36)), pooled_spread([np.ones((3, 36))] * 5)).margin >= 0.096


@pytest.mark.parametrize("seeds", [2, 3])
def test_what_is_known_of_seeds_makes_the_final_networks_interval_hold(seeds: int) -> None:
    """Two networks alone seldom show how much seeds do; those of five confirmed configurations show it."""
    generator, alone, pooled = np.random.default_rng(1), 0, 0
    true = float(np.random.default_rng(2).normal(0.7, np.hypot(0.15, 0.02), 10**6).clip(0, 1).mean())
    for _ in range(300):
        known = pooled_spread([answers(generator, seeds, 500, 0.02) for _ in range(5)])
        tested = answers(generator, seeds, 2000, 0.02)
        alone += abs(tested.mean() - true) <= mean(tested).margin
        pooled += abs(tested.mean() - true) <= mean(tested, pooled_with([tested], known)).margin
    assert 0.93 <= pooled / 300 <= 0.99
    assert alone < pooled


def test_the_final_networks_learn_from_the_confirmed_ones_what_seeds_do() -> None:
    """Two that happen to agree are no sign of steady seeds."""
    labels = np.zeros(2000, dtype=np.int64)
    steady = [Predictions((np.arange(2000) >= 1600 + seed).astype(np.int64), labels) for seed in range(2)]
    unsteady = [candidate(number, [0.7, 0.8], 1.0).predictions for number in range(5)]
    calm = [candidate(number, [0.8, 0.8], 1.0).predictions for number in range(5)]
    of_calm, of_unsteady = (FinalTest("test", ("a",), Hparams(), steady, known) for known in (calm, unsteady))
    assert of_unsteady.accuracy.value == of_calm.accuracy.value
    assert of_unsteady.accuracy.margin > 2 * of_calm.accuracy.margin


def test_the_final_networks_seeds_are_those_of_the_recipe_where_nothing_was_confirmed() -> None:
    """Those of a falling rate are known for 1 point; two networks alone would now say less, now four times as much."""
    generator, annealed, found = np.random.default_rng(3), Hparams(schedule="triangular"), list[Mean]()
    labels = np.zeros(10_000, dtype=np.int64)
    for _ in range(200):
        right = answers(generator, 2, len(labels), 0.01)
        predictions = [Predictions(1 - some.astype(np.int64), labels) for some in right]
        found.append(FinalTest("test", ("a",), annealed, predictions).accuracy)
    narrow, wide = np.quantile([some.margin for some in found], [0.05, 0.95])
    assert np.mean([abs(some.value - 0.7) <= some.margin for some in found]) >= 0.93
    assert wide < 2.5 * narrow


@pytest.mark.parametrize(("quickest", "ending"), [("other", ""), (DEFAULTS, ": use the defaults, which are quicker")])
def test_for_speed_the_gain_is_that_of_the_quick_one(quickest: str, ending: str) -> None:
    """All are right on the same images but few; what was chosen for its speed has no luck in its accuracy."""
    labels, right = np.zeros(20_000, dtype=np.int64), {"leader": 16_000, "other": 15_990, DEFAULTS: 15_960}
    candidates = [
        Candidate(
            configuration(name),
            [Predictions((np.arange(20_000) >= number + seed).astype(np.int64), labels) for seed in range(3)],
            1.0 if name == quickest else 100.0,
        )
        for name, number in right.items()
    ]
    confirmed = decide(candidates, Rule("speed", 0.02))
    assert confirmed.winner.id == quickest
    assert confirmed.gain is not None
    better = right["leader" if quickest == DEFAULTS else quickest] - right[DEFAULTS]
    assert confirmed.gain.value == pytest.approx(better / 20_000, abs=1e-4)
    gain = {"mean": confirmed.gain.value, "margin_95": 0.0}
    record = {"winner": quickest, "gain": gain, "seeds": 3, "seconds_of_search": 60.0, "seconds_of_best": 60.0}
    assert gain_text(record).endswith(ending or "of confirming and training")


def test_a_gain_names_trainings_of_several_lengths_and_what_could_not_be_trained() -> None:
    record = {"winner": "abc", "seeds": 2, "seconds_of_search": 60.0, "seconds_of_best": 60.0}
    gain = {"mean": 0.02, "margin_95": 0.01}
    budgets = "trial 3 with 4 epochs of 500 images, the defaults with 4 epochs of 131 images"
    assert f"validation images, {budgets}), for 60 s" in gain_text({**record, "gain": gain, "budgets": budgets})
    assert "validation images), for 60 s" in gain_text({**record, "gain": gain, "budgets": ""})
    alone = {**record, "winner": DEFAULTS, "gain": None, "candidates": {DEFAULTS: {}}}
    assert gain_text({**alone, "out": []}).endswith("none, as no other configuration leads: use the defaults")
    uncompared = gain_text({**alone, "out": [], "candidates": {}})
    assert uncompared.endswith("none, as no other configuration is likely to be better: use the defaults")
    assert gain_text({**alone, "out": ["trial 3"]}).endswith("not known, as trial 3 could not be trained")


def test_a_table_of_trainings_of_several_lengths_says_them_and_becomes_narrower() -> None:
    first, second = candidate(0, [0.9, 0.8], 100.0), candidate(1, [0.5, 0.6], 2.0)
    longer = replace(second.configuration, hparams=Hparams(epochs=24, images_per_epoch=1_991))
    confirmed = decide([first, replace(second, configuration=longer)])
    tables = [*answer._candidates_tables(confirmed)]
    assert [table.field_names for table in tables] == [
        ["configuration", "trained", "trial", "in the search", "accuracy ± 95%", "tie", "seconds"],
        ["configuration", "trained", "trial", "accuracy ± 95%", "tie", "seconds"],
        ["configuration", "trained", "accuracy ± 95%", "tie", "seconds"],
        ["configuration", "trained", "accuracy ± 95%", "tie"],
    ]
    assert [row[1] for row in tables[0].rows] == ["2 x all", "24 x 1,991"]
    assert "trained" not in next(answer._candidates_tables(decide([first, second]))).field_names


@pytest.mark.parametrize(("epochs", "why"), [(2, "every image it is judged by gets the same class"), (20, "")])
def test_what_a_short_training_could_not_learn_makes_a_longer_one_no_useless_answer(epochs: int, why: str) -> None:
    labels = np.arange(100, dtype=np.int64) % 2
    one_class, right = ([Predictions(some, labels)] * 2 for some in (np.zeros(100, dtype=np.int64), labels))
    confirmed = decide([Candidate(configuration(DEFAULTS), one_class, 1.0)])
    winner = replace(configuration(DEFAULTS), hparams=Hparams(epochs=epochs))
    tested = FinalTest("test", ("a", "b"), Hparams(), right)
    found = answer.why_no_answer(answer.Answer(winner, [], [tested], answer.Cost(1.0, 1.0), [confirmed]))
    assert found.startswith(why) and bool(found) == bool(why)
