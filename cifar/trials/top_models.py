"""The best models of an experiment, kept while its trials come and go; the rest is deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from cifar.trials import layout

KEPT = 5


def save_top_k(experiment: Path, trial_id: str, accuracy: float, save: Callable[[Path], None]) -> None:
    """Keep this trial's model, which `save` writes, if it is among the best so far; the model behind them is deleted.

    Trials that end at once take turns. A file's name starts with the accuracy, so that names say the order.
    """
    models = layout.models(experiment)
    models.mkdir(exist_ok=True)
    with FileLock(models / ".lock"):
        offered = models / f"{accuracy:.6f}-{trial_id}.safetensors"
        if known := find(experiment, trial_id):  # of an earlier start
            known.unlink()
        if offered in sorted([*best(experiment), offered], reverse=True)[:KEPT]:
            save(offered)
        _drop_others(experiment)


def drop_others(experiment: Path) -> None:
    """Keep the best of the models that several machines have kept."""
    if layout.models(experiment).exists():
        with FileLock(layout.models(experiment) / ".lock"):
            _drop_others(experiment)


def _drop_others(experiment: Path) -> None:
    for model in best(experiment)[KEPT:]:
        model.unlink()


def best(experiment: Path) -> list[Path]:
    """The kept model files, the best first; version 0.1 called them *.pt."""
    return sorted(layout.models(experiment).glob("[01].*-*.*"), reverse=True)


def find(experiment: Path, trial_id: str) -> Path | None:
    """The kept model of a trial."""
    return next(iter(layout.models(experiment).glob(f"[01].*-{trial_id}.*")), None)
