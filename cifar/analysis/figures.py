"""The report's figures: Optuna's and Plotly's, each with a sentence that says what it shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna.visualization as plots
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import sample_colorscale

from cifar.analysis import study
from cifar.analysis.findings import Curves
from cifar.trials.leaderboard import params_text
from cifar.trials.store import Trial, best_first

_CLEAR = "rgba(0,0,0,0)"
# Seen on light and on dark:
_GREY, _LINE, _BLUE, _RED = "#888888", "rgba(128,128,128,0.35)", "#5b8def", "#e4572e"


@dataclass(frozen=True)
class Figure:
    """A plot under its title; `text` says the same to those who do not see it."""

    title: str
    text: str
    plot: go.Figure
    narrowest: int = 0  # pixels below which it is scrolled sideways and not made smaller


def of_search(trials: Sequence[Trial], space: Mapping[str, Any], curves: Curves) -> Iterator[Figure]:
    """The figures of the trials that have an accuracy; none where fewer than two have. All fit the search space."""
    ranked = best_first(list(trials))
    if len(ranked) < 2:
        return
    single = study.rebuild(trials, space, curves)
    yield _best_so_far(ranked, single)
    yield _learning_curves(ranked, single)
    yield _parallel(ranked, single, space)
    yield _importance(single)
    yield _slices(ranked, single, space)
    yield _pareto(ranked, study.rebuild(trials, space, curves, with_cost=True))


def _best_so_far(ranked: Sequence[Trial], single: Any) -> Figure:
    best, best_at = -1.0, list[int]()
    for trial in sorted(ranked, key=lambda trial: trial.number):
        if (trial.accuracy or 0.0) > best:
            best, best_at = trial.accuracy or 0.0, [*best_at, trial.number]
    text = (
        f"Validation accuracy of each trial, and the best so far: it rose {len(best_at)} times, last at trial "
        f"{best_at[-1]}, to {best:.1%}."
    )
    plot = plots.plot_optimization_history(single, target_name="validation accuracy")
    plot.update_layout(xaxis_title="Trial No.")
    return Figure("Best so far", text, _styled(plot))


def _learning_curves(ranked: Sequence[Trial], single: Any) -> Figure:
    stopped = sum(trial.status == "stopped_early" for trial in ranked)
    text = (
        f"Validation accuracy after each epoch, a line per configuration; {stopped} of the {len(ranked)} were stopped "
        f"early. The best, trial {ranked[0].number}, ends at {ranked[0].accuracy:.1%}."
    )
    plot = plots.plot_intermediate_values(single)
    plot.update_layout(showlegend=False, xaxis_title="epoch", yaxis_title="validation accuracy")
    return Figure("Learning curves", text, _styled(plot))


def _parallel(ranked: Sequence[Trial], single: Any, space: Mapping[str, Any]) -> Figure:
    text = (
        f"Each line is a trial, from its accuracy on the left through its {', '.join(space)}; the redder, the more "
        f"accurate. The best has {params_text(ranked[0])}."
    )
    plot = plots.plot_parallel_coordinate(single, target_name="accuracy")
    *lines, scale = plot.data
    lowest, highest = scale.marker.cmin, scale.marker.cmax
    for line in lines:
        share = (float(line.customdata[0][1]) - lowest) / max(highest - lowest, 1e-9)
        (colour,) = sample_colorscale([_GREY, _RED], [min(max(share, 0.0), 1.0)])
        line.update(line={"color": colour}, opacity=0.8)
    scale.marker.colorscale = [_GREY, _RED]
    plot.update_annotations(font={"color": _GREY})
    return Figure("Parallel coordinates", text, _styled(plot), narrowest=140 * (len(space) + 1))


def _importance(single: Any) -> Figure:
    found = study.importances(single)
    shares, chance = found.shares, found.of_chance
    parts = [f"{name} {share.value:.0%} ({share.low:.0%} to {share.high:.0%})" for name, share in shares.items()]
    listed = ", ".join(parts) or "nothing, as all accuracies are equal"
    below = ", less than their mean would" if found.explained < 0 else ""
    idle = [name for name, share in shares.items() if share.value <= chance]
    text = (
        "How much each contributes to what the hyperparameters explain of the accuracies (fANOVA; in brackets 95 % of "
        f"the values over resampled trials): {listed}. A random number in their place would have up to {chance:.0%}"
        f"{', no less than ' + ' and '.join(idle) if idle else ''}. Of trials that it does not know, a forest explains "
        f"{found.explained:.0%} of the variance (out-of-bag R²){below}."
    )
    values = list(shares.values())
    bars = go.Bar(
        x=[share.value for share in values],
        y=list(shares),
        orientation="h",
        marker={"color": _BLUE},
        error_x={
            "type": "data",
            "color": _GREY,
            "array": [share.high - share.value for share in values],
            "arrayminus": [share.value - share.low for share in values],
        },
    )
    plot = go.Figure(bars, {"xaxis": {"title": "importance; dashed: of a random number", "tickformat": ".0%"}})
    plot.add_vline(x=chance, line_dash="dash", line_color=_GREY)
    plot.update_yaxes(autorange="reversed")
    return Figure("Importance of each hyperparameter", text, _styled(plot))


def _slices(ranked: Sequence[Trial], single: Any, space: Mapping[str, Any]) -> Figure:
    tenth = ranked[: max(3, len(ranked) // 10)]
    ranges = [f"{name} {_span([trial.params[name] for trial in tenth])}" for name in space]
    text = f"Accuracy against each hyperparameter. The best {len(tenth)} trials have {', '.join(ranges)}."
    plot = plots.plot_slice(single, target_name="validation accuracy")
    plot.update_layout(width=None)
    plot.update_traces(marker={"color": _BLUE, "showscale": False})
    return Figure("Slices", text, _styled(plot), narrowest=220 * len(space))


def _span(values: Sequence[Any]) -> str:
    if not all(isinstance(value, (int, float)) for value in values):
        return " or ".join(sorted({str(value) for value in values}))
    return f"{min(values):.3g} to {max(values):.3g}"


def _pareto(ranked: Sequence[Trial], double: Any) -> Figure:
    front = sorted(double.best_trials, key=lambda trial: trial.values[1])
    steps = [f"{some.values[0]:.1%} in {some.values[1]:.0f} s (trial {some.number})" for some in front]
    text = (
        f"Accuracy against the seconds of training. Red: nothing else is both better and quicker: {'; '.join(steps)}."
    )
    plot = plots.plot_pareto_front(double, target_names=["validation accuracy", "seconds of training"])
    plot.update_traces(marker={"color": _BLUE, "showscale": False})
    plot.data[1].marker.color = _RED
    return Figure("Accuracy against cost", text, _styled(plot))


def of_confusion(confusion: NDArray[np.int64], classes: Sequence[str], of_what: str) -> Figure:
    """True classes down, predicted ones across."""
    rows = confusion.sum(1)
    right = {name: confusion[label, label] / rows[label] for label, name in enumerate(classes) if rows[label]}
    worst, best = min(right, key=lambda name: right[name]), max(right, key=lambda name: right[name])
    mistaken = confusion - np.diag(np.diag(confusion))
    true, predicted = divmod(int(mistaken.argmax()), len(classes))
    text = (
        f"True class down, predicted class across, {of_what}. Best recognised: {best}, {right[best]:.0%}; "
        f"worst: {worst}, {right[worst]:.0%}. "
    )
    if mistaken.any():
        text += (
            f"Most frequent mistake: {classes[true]} taken for {classes[predicted]}, "
            f"{mistaken[true, predicted]} of {rows[true]}."
        )
    else:
        text += "No mistake."
    names = list(classes)
    heat = go.Heatmap(z=confusion, x=names, y=names, texttemplate="%{z}", colorscale="Blues", showscale=False)
    plot = go.Figure(heat, {"xaxis": {"title": "predicted"}, "yaxis": {"title": "true", "autorange": "reversed"}})
    return Figure("Confusion matrix", text, _styled(plot, height=520), narrowest=48 * len(names) + 100)


def _styled(plot: go.Figure, height: int = 400) -> go.Figure:
    """Without a title, which the page has, and on the page's own background, light or dark."""
    plot.update_layout(
        title=None,
        height=height,
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        legend={"orientation": "h", "y": 1.1},  # above, where it takes no width
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
    )
    plot.update_xaxes(gridcolor=_LINE, zerolinecolor=_LINE, automargin=True)
    plot.update_yaxes(gridcolor=_LINE, zerolinecolor=_LINE, automargin=True)
    return plot
