"""The figures of a search, each with a sentence that says what it shows: Plotly's, for the report and for notebooks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.colors import sample_colorscale

from cifar.analysis import study
from cifar.analysis.findings import Curves
from cifar.search import search_space
from cifar.trials.leaderboard import accuracy_text, param_text, params_text
from cifar.trials.store import Trial, best_first

_CLEAR = "rgba(0,0,0,0)"
# Seen on light and on dark:
_GREY, _FAINT, _LINE, _BLUE, _RED = "#888888", "rgba(128,128,128,0.45)", "rgba(128,128,128,0.3)", "#5b8def", "#e4572e"
_TOP = (_RED, "#e0a100", _BLUE)  # of the best three
_MOST_LINES = 200  # trials in a figure that has a line for each
_PERCENT = ".0%"


@dataclass(frozen=True)
class Figure:
    """Plots under one title; `text` says the same to those who do not see them."""

    title: str
    text: str
    plots: tuple[go.Figure, ...]
    narrowest: int = 0  # pixels below which it is scrolled sideways and not made smaller


def of_search(trials: Sequence[Trial], space: Mapping[str, Any], curves: Curves) -> Iterator[Figure]:
    """The figures of the trials that have an accuracy; none where fewer than two have. All fit the search space."""
    ranked = best_first(list(trials))
    if len(ranked) < 2:
        return
    yield learning_curves(ranked, curves)
    yield parallel_coordinates(ranked, space)
    yield slices(ranked, space)
    yield importance(study.importances(study.rebuild(trials, space)))
    yield best_so_far(ranked)
    yield accuracy_against_seconds(ranked)


def best_so_far(ranked: Sequence[Trial]) -> Figure:
    """Each trial's accuracy in the order in which NNI started them, and the highest up to each."""
    in_order = sorted(ranked, key=lambda trial: trial.number)
    numbers, accuracies = [trial.number for trial in in_order], [trial.accuracy or 0.0 for trial in in_order]
    highest = np.maximum.accumulate(accuracies)
    plot = go.Figure([_points(in_order, numbers, accuracies, _GREY)])
    steps = {"color": _RED, "shape": "hv"}
    plot.add_scatter(x=numbers, y=highest, mode="lines", line=steps, hoverinfo="skip", showlegend=False)
    text = f"Validation accuracy of each trial, and in red the best so far: {_rises(in_order, accuracies)}."
    return Figure("Best so far", text, (_styled(plot, "number of the trial", "validation accuracy"),))


def _rises(in_order: Sequence[Trial], accuracies: Sequence[float]) -> str:
    highest = np.maximum.accumulate(accuracies)
    rises = [number for number in range(1, len(highest)) if highest[number] > highest[number - 1]]
    if not rises:
        return f"trial {in_order[0].number}, the first, was never beaten"
    times = "once" if len(rises) == 1 else f"{len(rises)} times"
    return f"the first was beaten {times}, last by trial {in_order[rises[-1]].number}, at {highest[-1]:.1%}"


def learning_curves(ranked: Sequence[Trial], curves: Curves) -> Figure:
    """A line for each configuration's first training, the best three in colour and on top."""
    plot, most = go.Figure(), 1
    for place, trial in reversed([*enumerate(ranked[:_MOST_LINES])]):
        accuracies = [epoch["default"] for epoch in curves.get(trial.id, []) if "default" in epoch]
        line = {"color": _TOP[place] if place < len(_TOP) else _FAINT, "width": 3 if place < len(_TOP) else 1}
        plot.add_scatter(
            x=[*range(1, len(accuracies) + 1)],
            y=accuracies,
            mode="lines+markers" if place < len(_TOP) or len(accuracies) == 1 else "lines",
            line=line,
            name=f"trial {trial.number}",
            showlegend=place < len(_TOP),
            legendrank=place,
            hovertemplate=f"trial {trial.number}, epoch %{{x}}: %{{y:.1%}}<br>{params_text(trial)}<extra></extra>",
        )
        most = max(most, len(accuracies))
    stopped = sum(trial.status == "stopped_early" for trial in ranked)
    text = (
        f"Validation accuracy after each epoch, a line for each configuration, the best three in colour; {stopped} of "
        f"the {len(ranked)} were stopped early. The best, trial {ranked[0].number}, ends at {accuracy_text(ranked[0])}."
    )
    plot = _styled(plot, "epoch", "validation accuracy")
    return Figure("Learning curves", text, (plot.update_xaxes(dtick=max(1, most // 10)),))  # whole epochs


def parallel_coordinates(ranked: Sequence[Trial], space: Mapping[str, Any]) -> Figure:
    """A line for each trial, from its accuracy through its place in the range of each hyperparameter."""
    accuracies = [trial.accuracy or 0.0 for trial in ranked[:_MOST_LINES]]
    low, high = min(accuracies), max(accuracies)
    plot = go.Figure()
    for trial, accuracy in reversed([*zip(ranked, accuracies, strict=False)]):
        share = (accuracy - low) / max(high - low, 1e-9)
        (colour,) = sample_colorscale([_GREY, _RED], [share])
        places = [share, *(_place(trial.params[name], sampler) for name, sampler in space.items())]
        said = f"trial {trial.number}: {accuracy:.1%}<br>{params_text(trial)}<extra></extra>"
        line = {"color": colour, "width": 1 + 2 * share}
        plot.add_scatter(y=places, mode="lines", line=line, opacity=0.7, showlegend=False, hovertemplate=said)
    for number, (lowest, highest) in enumerate([(f"{low:.0%}", f"{high:.0%}"), *map(_range, space.values())]):
        plot.add_vline(x=number, line_color=_GREY, line_width=1)
        for y, label in ((-0.07, lowest), (1.07, highest)):
            plot.add_annotation(x=number, y=y, text=label, showarrow=False)
    names = ["accuracy", *(name.replace("_", "<br>") for name in space)]
    plot = _styled(plot, "", "")
    plot.update_xaxes(tickvals=[*range(len(names))], ticktext=names, side="top", showgrid=False, zeroline=False)
    plot.update_yaxes(visible=False, range=[-0.12, 1.12])
    plot.update_layout(margin={"l": 28, "r": 28, "t": 50}, font={"size": 11})
    text = (
        f"Each line is a trial, from its accuracy on the left through its {', '.join(space)}; the redder, the more "
        f"accurate. The best has {params_text(ranked[0])}."
    )
    return Figure("Parallel coordinates", text, (plot,), narrowest=50 * len(names))


def _place(value: Any, sampler: Mapping[str, Any]) -> float:
    """From 0 to 1; choices lie evenly, in their order."""
    place = search_space.place(value, sampler)
    if place is not None:
        return place
    values = sampler["_value"] if sampler["_type"] == "choice" else search_space.sampled_values(sampler)
    if sampler["_type"] != "choice":
        return float((value - values[0]) / max(1e-9, values[-1] - values[0]))
    return values.index(value) / max(1, len(values) - 1)


def _range(sampler: Mapping[str, Any]) -> tuple[str, str]:
    values = sampler["_value"] if sampler["_type"] == "choice" else search_space.sampled_values(sampler)
    return param_text(values[0]), param_text(values[-1])


def slices(ranked: Sequence[Trial], space: Mapping[str, Any]) -> Figure:
    """A plot for each hyperparameter: the trials' accuracies against its values, on its own scale."""
    plots = []
    for name, sampler in space.items():
        values = [trial.params[name] for trial in ranked]
        plot = go.Figure([_points(ranked, values, [trial.accuracy or 0.0 for trial in ranked], _BLUE)])
        plot = _styled(plot, name.replace("_", " "), "validation accuracy", height=260)
        if search_space.is_logarithmic(sampler):
            ticks = _round_values(min(values), max(values))
            plot.update_xaxes(type="log", tickvals=ticks, ticktext=[param_text(tick) for tick in ticks])
        elif sampler["_type"] == "choice":
            plot.update_xaxes(type="category", categoryorder="array", categoryarray=[str(v) for v in sampler["_value"]])
        plots.append(plot)
    tenth = ranked[: max(3, len(ranked) // 10)]
    spans = ", ".join(f"{name} {_span([trial.params[name] for trial in tenth])}" for name in space)
    text = f"Validation accuracy against each hyperparameter. The best {len(tenth)} trials have {spans}."
    return Figure("Each hyperparameter by itself", text, tuple(plots))


def _round_values(low: float, high: float) -> list[float]:
    """Some round numbers between two above 0, as ticks of a logarithmic axis."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
        inside = [step * 10.0**decade for decade in decades for step in steps]
        inside = [value for value in inside if low <= value <= high]
        if len(inside) <= 5:
            break
    return inside or [low, high]


def _span(values: Sequence[Any]) -> str:
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return " or ".join(sorted({str(value) for value in values}))
    low, high = param_text(min(values)), param_text(max(values))
    return low if low == high else f"from {low} to {high}"


def importance(found: study.Importances) -> Figure:
    """How much each hyperparameter explains of the accuracies, beside what a random number would."""
    shares, chance = found.shares, found.of_chance
    parts = [f"{name} {share.value:.0%} ({share.low:.0%} to {share.high:.0%})" for name, share in shares.items()]
    idle = [name for name, share in shares.items() if share.value <= chance]
    beside = f", no less than {', '.join(idle)}" if idle else ""
    text = (
        f"The share of the differences in accuracy that each explains: "
        f"{', '.join(parts) or 'nothing, as all accuracies are equal'}; in brackets 95 % of the values over resampled "
        f"trials. A random number in its place would have up to {chance:.0%}{beside}. "
        f"{_how_far(found.explained)}"
    )
    values = list(shares.values())
    bars = go.Bar(
        x=[share.value for share in values],
        y=[name.replace("_", " ") for name in shares],
        orientation="h",
        marker={"color": _BLUE},
        hovertemplate="%{y}: %{x:.0%}<extra></extra>",
        error_x={
            "type": "data",
            "color": _GREY,
            "array": [share.high - share.value for share in values],
            "arrayminus": [share.value - share.low for share in values],
        },
    )
    plot = _styled(go.Figure(bars), "dashed: a random number", "", height=120 + 45 * len(values))
    plot.update_xaxes(tickformat=_PERCENT, dtick=None)
    plot.update_yaxes(autorange="reversed", tickformat=None)
    plot.add_vline(x=chance, line_dash="dash", line_color=_GREY)
    return Figure("Importance of each hyperparameter", text, (plot,))


def _how_far(explained: float) -> str:
    if explained <= 0:
        return "These trials are too few, or too much alike, to say which hyperparameter matters."
    return f"Together they explain {explained:.0%} of the accuracy of a trial that was left out."


def accuracy_against_seconds(ranked: Sequence[Trial]) -> Figure:
    """The trials that ran to their end, in red those that beat all quicker ones."""
    finished = [trial for trial in ranked if trial.status == "ok"] or [*ranked]
    quickest_first = sorted(finished, key=lambda trial: (_seconds(trial), -(trial.accuracy or 0.0)))
    front, best = list[Trial](), -1.0
    for trial in quickest_first:
        if (trial.accuracy or 0.0) > best:
            front, best = [*front, trial], trial.accuracy or 0.0
    plot = go.Figure()
    for some, colour in ((finished, _BLUE), (front, _RED)):
        plot.add_trace(_points(some, [*map(_seconds, some)], [trial.accuracy or 0.0 for trial in some], colour))
    steps = "; ".join(f"{accuracy_text(trial)} in {_seconds(trial):.3g} s (trial {trial.number})" for trial in front)
    text = (
        f"Validation accuracy against the seconds of training, of trials that ran to their end. Red trials beat all "
        f"quicker ones: {steps}."
    )
    return Figure("Accuracy against seconds", text, (_styled(plot, "seconds of training", "validation accuracy"),))


def _seconds(trial: Trial) -> float:
    return float((trial.result or {}).get("seconds", 0.0))


def of_confusion(confusion: NDArray[np.int64], classes: Sequence[str], images: str, by: str) -> Figure:
    """True classes down, predicted ones across, of these images as these networks take them."""
    rows = confusion.sum(1)
    right = {name: confusion[label, label] / rows[label] for label, name in enumerate(classes) if rows[label]}
    worst, best = min(right, key=lambda name: right[name]), max(right, key=lambda name: right[name])
    mistaken = confusion - np.diag(np.diag(confusion))
    true, predicted = divmod(int(mistaken.argmax()), len(classes))
    mistake = (
        f"Most frequent mistake: {classes[true]} taken for {classes[predicted]}, {mistaken[true, predicted]} of "
        f"{rows[true]}."
        if mistaken.any()
        else "No mistake."
    )
    text = (
        f"True class down, predicted class across, of {images}, {by}. Best recognised: {best}, {right[best]:.0%}; "
        f"worst: {worst}, {right[worst]:.0%}. {mistake}"
    )
    names, said = list(classes), "%{y}, taken for %{x}: %{z} images<extra></extra>"
    heat = go.Heatmap(
        z=confusion, x=names, y=names, texttemplate="%{z}", colorscale="Blues", showscale=False, hovertemplate=said
    )
    heat.textfont = {"size": 10}
    plot = _styled(go.Figure(heat), "predicted", "true", height=140 + 36 * len(names))
    plot.update_xaxes(type="category", dtick=None)
    plot.update_yaxes(type="category", autorange="reversed", tickformat=None)
    return Figure(f"Confusion matrix of {images}", text, (plot,), narrowest=26 * len(names) + 90)


def _points(trials: Sequence[Trial], x: Sequence[Any], y: Sequence[float], colour: str) -> go.Scatter:
    said = [f"trial {trial.number}: {accuracy_text(trial)}<br>{params_text(trial)}" for trial in trials]
    marker = {"color": colour, "size": 8, "opacity": 0.8}
    how = {"mode": "markers", "marker": marker, "showlegend": False, "hovertemplate": "%{text}<extra></extra>"}
    return go.Scatter(x=[*x], y=[*y], text=said, **how)


def _styled(plot: go.Figure, x: str, y: str, height: int = 380) -> go.Figure:
    """Without a title, which the page has, on the page's own background, light or dark; accuracies in percent."""
    plot.update_layout(
        template="none",
        height=height,
        margin={"l": 10, "r": 10, "t": 30, "b": 10},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},  # above, where it takes no width
        hoverlabel={"align": "left"},
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
    )
    plot.update_xaxes(title=x, gridcolor=_LINE, zeroline=False, automargin=True)
    plot.update_yaxes(title=y, gridcolor=_LINE, zeroline=False, automargin=True, tickformat=_PERCENT)
    return plot
