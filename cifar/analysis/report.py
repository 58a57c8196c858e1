"""`cifar report`: an experiment in one HTML file that opens without network, by a double click.

Needs the packages of the extra `report`.
"""

from __future__ import annotations

import base64
import gzip
import logging
import shlex
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import plotly.graph_objects as go
import yaml
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from cifar.analysis import answer as answers
from cifar.analysis import examples, figures, findings
from cifar.analysis.examples import Answers
from cifar.analysis.figures import Figure
from cifar.analysis.headline import Headline, headline
from cifar.data import datasets, test_log
from cifar.errors import RequestError
from cifar.inference import model_file
from cifar.inference.model_file import SavedModel
from cifar.search.algorithms import is_guided, name_of
from cifar.search.search_space import fits
from cifar.system.durations import duration_text
from cifar.system.files import new_file, read_json, short
from cifar.training.hparams import command_model
from cifar.training.intervals import Interval
from cifar.trials import layout, store, top_models
from cifar.trials.leaderboard import param_text, records
from cifar.trials.seed_noise import SeedNoise, metric_of, seed_noise
from cifar.trials.store import Trial, best_first
from cifar.trials.trial_line import line_of

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


def report(experiment: Path, out: Path, data_name: str, running: bool) -> Headline:
    """Write the report of an experiment to `out`, and return what it says first.

    RequestError where no trial has finished.
    """
    trials = store.read_trials(experiment)
    if not best_first(trials):
        raise RequestError(f"no trial of experiment {experiment.name} has finished: there is nothing to report")
    answer, noise, place = answers.read(experiment), seed_noise(trials, experiment), _place(data_name)
    first = headline(experiment, trials, answer, noise, place)
    page = _template().render(
        _about_search(experiment, trials, noise)
        | _about_model(experiment, trials, answer, data_name)
        | {
            "first": first,
            "command_of": {trial.id: line_of(trial, place) for trial in trials},
            "again": _again(experiment, place, answer),
            "id": experiment.name,
            "running": running,
            "data_name": Path(data_name).name,
            "tests_read": f"{test_log.summary(layout.test_log(experiment)).capitalize()}.",
            "took": duration_text(store.read_seconds(experiment)),
            "when": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        }
    )
    with new_file(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return first


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


def _as_json(plot: go.Figure) -> Markup:
    return Markup(plot.to_json().replace("<", "\\u003c"))  # nothing in it may end the script that holds it


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.1f} points ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def _place(data_name: str) -> str:
    """The data as commands name them: a folder as seen from here, or the mere name of one that is gone."""
    return short(Path(data_name)) if Path(data_name).is_dir() else Path(data_name).name


def _again(experiment: Path, data_name: str, answer: dict[str, Any] | None) -> list[str]:
    """What makes it again, from the configuration that the report ends with."""
    data, limit = shlex.quote(data_name), read_json(layout.fit(experiment))
    if limit:
        return [f"cifar fit --config again.yml --data {data} --time-limit {limit['limit']:.0f}s"]
    seeds = f" --seeds {answer['seeds']}" if answer else ""
    search = f"cifar search --config again.yml --data {data}"
    return [search, f"cifar best --config again.yml{seeds}", "cifar report --config again.yml"]


def _about_search(experiment: Path, trials: list[Trial], noise: SeedNoise) -> dict[str, Any]:
    config, curves = store.read_config(experiment), store.read_curves(experiment)
    space, tuner = config.get("searchSpace") or {}, config.get("tuner") or {}
    ranked = best_first(trials)
    fitting = [trial for trial in trials if fits(trial.params, space)]
    model = command_model(str(config.get("trialCommand", "")))
    return {
        "title": config.get("experimentName") or f"{model}, {name_of(tuner)}",
        "model": model,
        "warnings": [*_left_out(len(trials) - len(fitting)), *findings.range_warnings(fitting, space)],
        "searched": [*figures.of_search(fitting, space, curves)],
        "begins_at_random": not is_guided(tuner),
        "learned": findings.tuner_gain(trials, store.read_result_times(experiment), tuner),
        "stopping": findings.stopping(trials, curves),
        "endings": findings.endings(trials),
        "trials": len(trials),
        "records": _configurations(records(trials, experiment)),
        "noise": noise,
        "metric": metric_of(ranked[0]).replace("_", " "),
        "param_names": list(space),
        "versions": _versions(ranked[0]),
        "config": yaml.safe_dump(_reproducing(config), sort_keys=False, allow_unicode=True),
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


def _about_model(
    experiment: Path, trials: list[Trial], answer: dict[str, Any] | None, data_name: str
) -> dict[str, Any]:
    """Pictures and the confusion matrix of one network, and what all tested networks confused."""
    shown, of_which = _model_to_show(experiment, trials, answer)
    answered = _answered(shown, data_name)
    confusions = [*_of_validation(answered, shown, of_which), *(_of_tests(answer) if answer else [])]
    return {"examples": answered, "of_which": of_which, "confusions": confusions}


def _model_to_show(
    experiment: Path, trials: list[Trial], answer: dict[str, Any] | None
) -> tuple[SavedModel | None, str]:
    """Of the answer's trial, as the search has kept it: the answer's own has been trained on the validation images.

    If that is gone, the leader's, or the best there is.
    """
    numbers, leader = {trial.id: trial.number for trial in trials}, best_first(trials)[0]
    preferred = [top_models.find(experiment, trial) for trial in ([answer["winner"]] if answer else []) + [leader.id]]
    for path in [*filter(None, preferred), *top_models.best(experiment)]:
        if model := _readable(path):
            known = [number for trial, number in numbers.items() if top_models.find(experiment, trial) == path]
            return model, f"the network of trial {known[0]}" if known else "the best network of the search"
    return None, ""


def _readable(path: Path) -> SavedModel | None:
    try:
        return model_file.load(path)
    except RequestError as error:
        logger.warning("%s", error)
        return None


def _of_tests(answer: dict[str, Any]) -> list[Figure]:
    by = f"by {answer['seeds']} networks"
    return [
        figures.of_confusion(
            np.asarray(test["confusion"]), answer["classes"], f"{test['images']:,} test images ({test['data']})", by
        )
        for test in answer["tests"]
    ]


def _of_validation(answered: Answers | None, model: SavedModel | None, of_which: str) -> list[Figure]:
    if answered is None or model is None:
        return []
    return [figures.of_confusion(answered.confusion, model.classes, "validation images", f"by {of_which}")]


def _answered(model: SavedModel | None, data_name: str) -> Answers | None:
    """To the validation images, which the network was not trained on; None where the data or the model are gone."""
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
    return examples.of_model(model, dataset, datasets.split(dataset).val, _EXAMPLES)
