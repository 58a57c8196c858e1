"""What an experiment is about, beyond what NNI keeps of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from cifar.data.datasets import default_data
from cifar.data.sources import absolute
from cifar.errors import RequestError
from cifar.search.config import moved
from cifar.system.files import read_json, write_json
from cifar.trials import layout, store


@dataclass(frozen=True)
class SearchFacts:
    """The data that a search is about, and the file of its search space, as seen from the directory of experiments."""

    data: str
    space_file: str | None = None


def write_facts(experiment: Path, facts: SearchFacts) -> None:
    """Keep them for when the experiment is resumed."""
    experiment.mkdir(parents=True, exist_ok=True)
    write_json(layout.search_facts(experiment), asdict(facts))


def read_facts(experiment: Path) -> SearchFacts | None:
    """None where NNI's own command started the experiment."""
    content = read_json(layout.search_facts(experiment))
    return SearchFacts(str(content["data"]), content.get("space_file")) if content else None


def same_data(experiment: Path, asked: str | None) -> str:
    """The data that the experiment is about from its start. RequestError where others are asked for: its trials would
    not compare."""
    used = [trial.data["name"] for trial in store.read_trials(experiment) if "name" in trial.data]
    facts = read_facts(experiment)
    known = facts.data if facts else next(iter(used), None)
    if known and Path(known).is_absolute() and (beside := moved(experiment, known)).is_dir():
        known = str(beside)  # also of a folder that was moved or copied together with the experiment
    if known is not None and asked is not None and absolute(asked) != absolute(known):
        raise RequestError(f"experiment {experiment.name} is about --data {known}: trials on {asked} would not compare")
    return absolute(known or default_data(asked))
