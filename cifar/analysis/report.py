"""`cifar report`: an experiment in one HTML file that opens without network, by a double click.

Needs the packages of the extra `report`.
"""

from __future__ import annotations

import base64
import gzip
import logging
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from cifar.analysis import answer as answers
from cifar.analysis import examples, figures, findings
from cifar.analysis.configurations import DEFAULTS
from cifar.analysis.examples import Example
from cifar.analysis.figures import Figure
from cifar.data import datasets, test_log
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.inference.model_file import SavedModel
from cifar.search.algorithms import is_guided
from cifar.search.search_space import fits
from cifar.system.files import new_file
from cifar.training.intervals import Interval
from cifar.trials import layout, store, top_models
from cifar.trials.leaderboard import param_text, params_text, records
from cifar.trials.predictions import confusion_matrix, load_predictions
from cifar.trials.seed_noise import metric_of, seed_noise
from cifar.trials.store import Trial, best_first
from cifar.trials.ties import interval, ties

logger = logging.getLogger(__name__)

_EXAMPLES = 20
# What makes the search again. The rest of NNI's configuration is its defaults, and folders that are nobody's business.
_REPRODUCING = [
    "experimentName",
    "searchSpace",
    "trialCommand",
    "trialConcurrency",
    "maxTrialNumber",
    "maxExperimentDuration",
    "tuner",
    "assessor",
]


def report(experiment: Path, out: Path, data_name: str, running: bool) -> None:
    """Write the report of an experiment to `out`; RequestError where no trial has finished."""
    trials = store.read_trials(experiment)
    if not best_first(trials):
        raise RequestError(f"no trial of experiment {experiment.name} has finished: there is nothing to report")
    page = _template().render(
        _about_search(experiment, trials)
        | _about_model(experiment, trials, data_name)
        | {"id": experiment.name, "running": running, "when": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")}
    )
    with new_file(out) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.globals |= {
        "plotly": base64.b64encode(gzip.compress(get_plotlyjs().encode())).decode(),  # a third of its size
        "as_json": _as_json,
        "points": _points,
        "short": param_text,
        "interval": lambda record: Interval(record["configuration"], record["low_95"], record["high_95"]),
    }
    return environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))


def _as_json(figure: Figure) -> Markup:
    return Markup(figure.plot.to_json().replace("<", "\\u003c"))  # nothing in it may end the script that holds it


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def _about_search(experiment: Path, trials: list[Trial]) -> dict[str, Any]:
    config, curves = store.read_config(experiment), store.read_curves(experiment)
    space, tuner = config.get("searchSpace") or {}, config.get("tuner") or {}
    ranked = best_first(trials)
    fitting = [trial for trial in trials if fits(trial.params, space)]
    return {
        "title": config.get("experimentName") or experiment.name,
        "warnings": [*_left_out(len(trials) - len(fitting)), *findings.range_warnings(fitting, space)],
        "searched": [*figures.of_search(fitting, space, curves)],
        "begins_at_random": not is_guided(tuner),
        "learned": findings.tuner_gain(trials, store.read_result_times(experiment), tuner),
        "stopping": findings.stopping(trials, curves),
        "endings": findings.endings(trials),
        "trials": len(trials),
        "records": _configurations(records(trials, experiment)),
        "noise": seed_noise(trials, experiment),
        "metric": metric_of(ranked[0]).replace("_", " "),
        "param_names": list(space),
        "versions": _versions(ranked[0]),
        "config": yaml.safe_dump(_reproducing(config), sort_keys=False),
    }


def _configurations(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One record for each, with the numbers of all its trials."""
    repeats = defaultdict[int, list[int]](list)
    for record in found:
        repeats[record["number"] if record["repeats"] is None else record["repeats"]].append(record["number"])
    firsts = [record for record in found if record["repeats"] is None]
    return [record | {"number": ", ".join(map(str, repeats[record["number"]]))} for record in firsts]


def _left_out(number: int) -> list[str]:
    if not number:
        return []
    some = "1 trial has" if number == 1 else f"{number} trials have"
    return [
        f"{some} parameters that the search space does not give, added in NNI's page or from before the space was "
        "changed there: the figures of the search leave them out"
    ]


def _reproducing(config: dict[str, Any]) -> dict[str, Any]:
    kept = {name: config[name] for name in _REPRODUCING if name in config} | {"trainingService": {"platform": "local"}}
    for name in ("tuner", "assessor"):
        if "codeDirectory" in (kept.get(name) or {}):
            kept[name] = kept[name] | {"codeDirectory": "."}
    return kept


def _versions(trial: Trial) -> str:
    versions = (trial.result or {}).get("versions", {})
    return ", ".join(f"{name} {number}" for name, number in versions.items()) or "versions that it has not noted"


def _about_model(experiment: Path, trials: list[Trial], data_name: str) -> dict[str, Any]:
    confirmed, model = answers.read(experiment), _best_kept(experiment)
    return {
        "facts": [
            *_confirmed(trials, confirmed),
            *_found(experiment, trials),
            f"{test_log.summary(layout.test_log(experiment)).capitalize()}.",
        ],
        "seeds": confirmed and confirmed["seeds"],
        "confusions": _of_tests(confirmed) if confirmed else _of_validation(experiment, trials, model),
        "examples": _examples(model, data_name),
        "data_name": Path(data_name).name,
    }


def _best_kept(experiment: Path) -> SavedModel | None:
    """The best of the search's kept models that can be read."""
    for path in top_models.best(experiment):
        try:
            return model_file.load(path)
        except RequestError as error:
            logger.warning("%s", error)
    return None


def _found(experiment: Path, trials: list[Trial]) -> list[str]:
    best, noise = best_first(trials)[0], seed_noise(trials, experiment)
    tied, metric = ties(trials, experiment, noise), metric_of(best).replace("_", " ")
    accuracy = f"validation {metric} {interval(best, noise)}"
    facts = [
        f"Best in the search: trial {best.number} ({params_text(best)}), {accuracy}.",
        f"{len(tied)} configurations, this one among them, are not shown to be worse than the best.",
    ]
    return facts[: 1 + bool(tied)]


def _confirmed(trials: list[Trial], confirmed: Any) -> list[str]:
    if confirmed is None:
        return ["Not confirmed yet, and a search's best is partly luck: cifar best trains the leaders again."]
    numbers, winner = {trial.id: trial.number for trial in trials}, confirmed["winner"]
    name = "the recipe's defaults" if winner == DEFAULTS else f"trial {numbers.get(winner, winner)}"
    tied = len(confirmed["tied"])
    how = "better than the others" if tied == 1 else f"one of {tied} that tie for first"
    gain = answers.gain_text(confirmed)
    epochs = f", after {confirmed['final_epochs']} epochs" if "final_epochs" in confirmed else ""
    if epochs and confirmed.get("trained_on_validation", True):  # all were, before cifar fit
        epochs += " on the validation images too"
    return [
        f"{gain[0].upper()}{gain[1:]}.",
        f"Confirmed with {confirmed['seeds']} new seeds: {name}, {how}; validation accuracy "
        f"{_percent(confirmed['candidates'][winner])} (95 % interval).",
        *(
            f"Test accuracy {_percent(test)} (95 % interval) of {test['images']:,} images of {test['data']}{epochs}."
            for test in confirmed["tests"]
        ),
    ]


def _percent(mean: dict[str, float]) -> str:
    return f"{mean['mean']:.1%} ± {mean['margin_95']:.1%}"


def _of_tests(confirmed: Any) -> list[Figure]:
    by = f"by {confirmed['seeds']} networks"
    return [
        figures.of_confusion(
            np.asarray(test["confusion"]),
            confirmed["classes"],
            f"{test['images']:,} test images of {test['data']} {by}",
        )
        for test in confirmed["tests"]
    ]


def _of_validation(experiment: Path, trials: list[Trial], model: SavedModel | None) -> list[Figure]:
    best = best_first(trials)[0]
    predictions = load_predictions(layout.trial_directory(experiment, best.id))
    if predictions is None or model is None:
        return []
    confusion = confusion_matrix([predictions], len(model.classes))
    return [figures.of_confusion(confusion, model.classes, f"validation images, by trial {best.number}")]


def _examples(model: SavedModel | None, data_name: str) -> dict[str, Sequence[Example]] | None:
    """Of the validation images, which no kept model was trained on; None where the data or the models are gone."""
    if model is None:
        return None
    try:
        dataset = datasets.load(data_name, model.hparams.size)
    except RequestError as error:
        logger.warning("no pictures in the report: %s", error)
        return None
    if dataset.fingerprint != model.facts["data"]["fingerprint"]:
        logger.warning("no pictures in the report: %s has changed since the search", data_name)
        return None
    drawn, worst = examples.of_model(model, dataset, datasets.split(dataset).val, _EXAMPLES)
    return {"drawn": drawn, "worst": worst}
