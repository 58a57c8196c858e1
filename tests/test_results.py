"""What the README claims stands in results/, and what tables there say was measured."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pytest

import benchmarks.contest.__main__ as contest
from benchmarks.contest import live
from benchmarks.shared.report import standard_error
from benchmarks.studies import (
    accuracy,
    chance,
    colours,
    curves,
    discard,
    folders,
    full,
    ingredients,
    last_batch,
    leader,
    longer,
    near_duplicates,
    stopping,
    tpe,
    tuners,
    width,
)
from benchmarks.table import summary
from benchmarks.yardsticks import (
    airbench94,
    denormals,
    growth,
    memory,
    processes,
    scale,
    searches,
    speed,
    startup,
    validation,
    warm,
)
from cifar.analysis.growth import GROWTHS, Growth
from cifar.training.hparams import Hparams
from cifar.training.intervals import wilson

ROOT = Path(__file__).parents[1]
# What the project claims: all pages, as one.
README = "\n".join(path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])


def figures(name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((ROOT / "results" / f"{name}.json").read_text())
    return read


def rows(text: str) -> dict[str, list[str]]:
    """The lines of all tables by their first cell; names are compared without the signs of code."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {re.sub("`|--", "", first): rest for first, *rest in cells}


def test_what_the_published_searches_found() -> None:
    claimed = rows(README)
    for column, name in enumerate(("net", "fast")):
        search, best = figures(f"{name}/tuners")["searches"][0], figures(f"{name}/best")
        winner = next(
            line for line in (ROOT / f"results/{name}/best.txt").read_text().splitlines() if line.startswith("winner: ")
        )
        validation, test = best["candidates"][best["winner"]], best["tests"][0]
        assert claimed["searched"][column] == f"{len(search['accuracies'])} trials, {search['minutes']:.0f} minutes"
        assert f"({claimed['best configuration'][column]})" in winner
        said = [claimed[row][column] for row in claimed if row.startswith(("validation accuracy, new", "**test"))]
        assert [text.strip("*") for text in said] == [interval(validation), interval(test)]
        (reading,) = (ROOT / f"results/{name}/test-readings.jsonl").read_text().splitlines()
        assert fmean(json.loads(reading)["accuracies"]) == pytest.approx(test["mean"])
        assert f"after {best['final_epochs']} epochs of all images" in README
        assert best["seeds"] == 3
        assert "95 % over three seeds" in README


def test_the_gain_of_the_published_search_of_net() -> None:
    anew = json.loads((ROOT / "results/net/anew.json").read_text())
    gain = f"+{100 * anew['gain']['mean']:.1f} points ± {100 * anew['gain']['margin_95']:.1f}"
    assert gain in " ".join(README.split())
    text = " ".join((ROOT / "results/net/README.md").read_text().split())
    assert gain in text
    for candidate in anew["candidates"].values():
        assert candidate["mean"] == pytest.approx(fmean(candidate["seeds"]))
        assert interval(candidate) in text


def test_what_fit_gave() -> None:
    answer, page = figures("fit/net/best"), (ROOT / "results/fit/README.md").read_text()
    gain = f"+{100 * answer['gain']['mean']:.1f} points ± {100 * answer['gain']['margin_95']:.1f}"
    told = " ".join(page.replace("*", "").split())
    assert interval(answer["tests"][0]) in told
    assert f"Gain over the defaults, for equally many images: {gain}" in told
    (reading,) = (ROOT / "results/fit/net/test-readings.jsonl").read_text().splitlines()
    assert fmean(json.loads(reading)["accuracies"]) == pytest.approx(answer["tests"][0]["mean"])
    for run in live.read():
        if (run.match, run.contender, run.seed) == ("net", "cifar fit", 0):
            assert run.outcome.test_accuracy == pytest.approx(answer["tests"][0]["mean"])


@pytest.mark.parametrize(("run", "page"), [("fast", "README.md"), ("pictures", "docs/pictures.md")])
def test_what_fit_gave_with_fast(run: str, page: str) -> None:
    answer = figures(f"fit/{run}/best")
    (test,) = answer["tests"]
    assert answer["gain"] is None
    for told in (page, "results/fit/README.md"):
        assert interval(test) in " ".join((ROOT / told).read_text().split()).replace("*", "")
    (reading,) = (ROOT / f"results/fit/{run}/test-readings.jsonl").read_text().splitlines()
    assert fmean(json.loads(reading)["accuracies"]) == pytest.approx(test["mean"])


def test_what_the_live_contest_on_all_pictures_gave() -> None:
    page = " ".join((ROOT / "results" / "README.md").read_text().split())
    for contender, told in (("cifar fit", "`cifar fit` has"), ("the defaults", "the defaults")):
        found = [run.outcome for run in live.read() if (run.match, run.contender) == ("fast", contender)]
        accuracies = " and ".join(f"{100 * each.test_accuracy:.1f}" for each in found)
        assert f"{told} {accuracies} % after {' and '.join(f'{each.seconds:,.0f}' for each in found)}" in page


def test_how_soon_searches_come_close() -> None:
    columns = [
        {line["contender"]: line["needed"][0] for line in figures(f"contest/{table}")["played"]}
        for table in ("net", "fast-2000")
    ]
    claimed = rows(README)
    for name in ("this project", "Optuna: TPE and a pruner", "NNI: TPE and Medianstop"):
        mark = "**" if name == "this project" else ""
        assert claimed[f"{mark}{name}{mark}"] == [f"{mark}{needed[name]:,.0f}{mark}" for needed in columns]
    net, few = (figures(f"contest/{table}")["surrogates"][0] for table in ("net", "fast-2000"))
    assert claimed["random search"] == [f"more than {net['seconds']:,.0f}", f"{columns[1]['random search']:,.0f}"]
    assert columns[0]["random search"] is None
    trainings = f"[{net['trainings']} trainings of `config.yml`'s and {few['trainings']} of `fast` on 2,000 pictures]"
    assert trainings in " ".join(README.split())


def test_the_rule_of_growth_is_the_one_that_was_fitted() -> None:
    assert {rule["network"]: Growth(**rule["growth"]) for rule in figures("growth")["rules"]} == GROWTHS


def test_what_strangers_folders_gave() -> None:
    claimed = rows(README)
    for line in figures("folders")["folders"]:
        guessing, found = f"{100 * line['guessing']:.1f} %", [line[name] for name in ("tutorial", "fast", "fit")]
        images, *told = claimed[line["folder"]]
        assert images == f"{line['images'][0]:,}"
        assert told == [guessing, *(some.replace("%", " %") for some in found)]
        assert line["gain"] == "none"


def live_accuracies(match: str) -> dict[str, str]:
    """In per cent, by contender."""
    lines = [line for line in figures("contest-live")["live"] if line["match"] == match]
    return {line["contender"]: f"{100 * fmean(line['accuracies']):.1f}" for line in lines}


def test_what_live_contests_gave() -> None:
    net, few, whole = (live_accuracies(match) for match in ("net", "2000", "fast"))
    readme, page = ((ROOT / name).read_text() for name in ("README.md", "results/README.md"))
    first_screen = readme.replace("**", "").split("## Install")[0]
    claimed = rows(first_screen)
    tpe, gp = (f"Optuna: {name} and a pruner" for name in ("TPE", "GPSampler"))
    said = {tpe: "Optuna's TPE, with a pruner", gp: "Optuna's GPSampler, with a pruner"}
    for contender, reached in net.items():
        last = f"{whole[contender]} %" if contender in whole else "not played"
        assert claimed[said.get(contender, contender)] == [f"{reached} %", f"{few[contender]} %", last]
    told, page = " ".join(readme.split()), " ".join(page.split())
    ours = [run.outcome.test_accuracy for run in live.read() if (run.match, run.contender) == ("net", "cifar fit")]
    assert f"or to **{net['cifar fit']} %** with a network of its own kind" in told
    digits = live_accuracies("digits")
    assert (
        f"`cifar fit` has {min(digits.values())} %, the least, Optuna's TPE {max(digits.values())} %, the most" in told
    )
    assert (min(digits, key=digits.__getitem__), max(digits, key=digits.__getitem__)) == ("cifar fit", tpe)
    assert f"from {100 * min(ours):.1f} to {100 * max(ours):.1f} %" in told
    theirs, wide = net["the defaults"], net["the defaults, twice as wide"]
    assert f"`cifar fit` has {net['cifar fit']} % of the 10,000 test images, the defaults {theirs} %" in page
    assert f"twice the width {wide} %, Optuna's TPE {net[tpe]} % and its GPSampler {net[gp]} %" in page
    assert f"have {few['the defaults']} % of the 10,000 test images, `cifar fit` {few['cifar fit']} %" in page
    assert f"Optuna's samplers have {few[gp]} and {few[tpe]} %" in page
    assert f"no time for enough epochs: {few['the defaults, twice as wide']} %" in page


def test_what_the_live_runs_on_the_tutorials_network_show() -> None:
    """Welch's interval, of the runs alone."""
    from scipy.stats import ttest_ind

    found = {
        line["contender"]: line["accuracies"] for line in figures("contest-live")["live"] if line["match"] == "net"
    }
    apart = []
    for other in ("the defaults", "the defaults, twice as wide", "Optuna: TPE and a pruner"):
        interval = ttest_ind(found["cifar fit"], found[other], equal_var=False).confidence_interval()
        apart.append(f"{50 * (interval.low + interval.high):.1f} ± {50 * (interval.high - interval.low):.1f}")
    page = " ".join((ROOT / "results/README.md").read_text().split()).replace("8.1 points ±", "8.1 ±")
    assert (
        f"it is {apart[0]} above the defaults, {apart[1]} above those of twice the width, and {apart[2]} above" in page
    )


def test_what_each_live_run_on_the_tutorials_network_gave() -> None:
    told = rows((ROOT / "results/README.md").read_text())
    for run in live.read():
        if run.match == "net":
            found = run.outcome
            width = found.hparams["width"]
            said = f"{100 * found.test_accuracy:.1f} %, {found.seconds:,.0f} s, width {width}"
            assert told[run.contender][run.seed] == said


@pytest.mark.parametrize("name", ["net", "fast"])
def test_what_the_tuner_found_beside_random_search(name: str) -> None:
    told = rows((ROOT / "results" / name / "README.md").read_text())
    for record in figures(f"{name}/tuners")["searches"]:
        search = tuners.Search(**record)
        line = told[search.name.replace("Random", "random")]
        best, error = max(search.accuracies), search.margin
        assert line[:2] == [f"{search.minutes:.0f}", f"{100 * best:.1f} % ± {100 * error:.1f} %"]
        assert f"{100 * fmean(search.accuracies):.1f} %" in line


def test_what_the_defaults_reach_beside_the_searches() -> None:
    reached = {curve["name"]: f"{100 * curve['accuracies'][-1]:.1f} %" for curve in figures("curves")["curves"]}
    assert f"reach {reached['fast, width 32']} of the validation images" in " ".join(README.split())
    for name, network in (("fast", "fast, width 32"), ("net", "net")):
        assert f"{reached[network]} of the validation images" in " ".join(
            (ROOT / f"results/{name}/README.md").read_text().split()
        )


def interval(mean: dict[str, float]) -> str:
    return f"{100 * mean['mean']:.1f} % ± {100 * mean['margin_95']:.1f} %"


def test_what_numbers_below_1e_38_cost() -> None:
    told = " ".join(README.split())
    found = [denormals.Measured(**record) for record in figures("denormals")["trainings"]]
    images, digits = (f"{median(some.ratios):.2f}" for some in found[1:3])
    assert f"on the digits is {digits} times as quick without them, one of 8 short epochs {images} times" in told
    assert all(kept == flushed for kept, flushed in (some.accuracies for some in found))


def test_what_validation_in_bfloat16_saves_and_costs() -> None:
    told = " ".join((ROOT / "docs" / "speed.md").read_text().split())
    found = [validation.Measured(**record) for record in figures("validation")["networks"]]
    quick = [f"{median(some.ratios):.2f} times" for some in found]
    most = max(abs(difference) for some in found for difference in some.differences)
    assert f"that is {quick[0]} as quick at width 24, and {quick[1]} at width 64, as in float32" in told
    assert f"the accuracies differ by {100 * most:.2f} points at most" in told


def test_speed_beside_the_tutorials_loop() -> None:
    claimed, measured = rows(README), rows((ROOT / "results" / "benchmarks.md").read_text())
    for row in figures("benchmarks")["speed"]:
        assert claimed[row["name"]] == measured[row["name"]][:3]


def test_speed_over_width() -> None:
    points = [point for point in figures("benchmarks")["growth"] if point["varied"] == "width"]
    claimed = rows(README)
    assert claimed["width"] == [str(point["width"]) for point in points]
    assert claimed["images/s, two cores"] == [f"{point['images_per_second']:,.0f}" for point in points]
    assert claimed["of the rate at which the cores multiply large matrices"] == [
        f"{growth.Point(**point).share_of_peak:.0%}" for point in points
    ]


def test_start_of_a_trial() -> None:
    (trial,) = (startup.Started(**row) for row in figures("benchmarks")["startup"] if "with nni" in row["name"])
    assert f"first step in {trial.cells()[3]} times" in " ".join(README.split())


def test_seconds_of_whole_searches() -> None:
    nni, *peers, nni_again = (f"{search['seconds']:.0f}" for search in figures("searches")["searches"])
    claimed = rows(README)
    assert claimed["cifar search, twice"] == [f"{nni} and {nni_again}"]
    # there the peers stand sorted by trainer, in the file by tool
    after = README.split("cifar search`, twice")[1].split("\n\n")[0]
    assert sorted(re.findall(r"\| (\d+) \|", after)) == sorted(peers)


def test_the_tutorials_recipe() -> None:
    results = (ROOT / "results" / "README.md").read_text()
    accuracy, seconds = re.findall(r"What the tutorial's recipe gives here: ([\d.]+ %).*? in (\d+ seconds)", README)[0]
    assert f"Test accuracy {accuracy} " in results
    assert f"{seconds} from start to end" in results
    assert f"| {seconds} after the download |" in README


def test_what_tpe_gains_over_random_search() -> None:
    gains = {"four parameters, 60 trials": [0.0, 0.0], "six parameters, 30 trials": [0.0, 0.0]}
    found = {(row["landscape"], row["at_once"], row["tuner"]): fmean(row["best"]) for row in figures("tpe")["tpe"]}
    for landscape in gains:
        random = found[landscape, 2, "random"]
        nnis, ours = (found[landscape, 2, f"TPE, {settings}"] for settings in ("best, gamma 0.25", "mean, gamma 0.5"))
        gains[landscape] = [100 * (nnis - random), 100 * (ours - random)]
    (net_nni, net_ours), (fast_nni, fast_ours) = gains.values()
    claim = (
        f"{net_nni:.1f} points in 60 trials and {fast_nni:.1f} in 30, where {net_ours:.1f} and {fast_ours:.1f} are to"
    )
    assert claim in " ".join(README.split())


def test_fast_beside_airbench94() -> None:
    for case, claim in (
        ("small", "{} ± {} of the validation images against {} ± {}, in {} seconds against {} ("),
        ("own", "one run each: {} against {}, in {} seconds against {}. On"),
    ):
        said = list[str]()
        for runs in figures("yardstick")[case]:
            values = runs["accuracies"]
            said += [f"{fmean(values):.1%}", *([f"{standard_error(values):.1%}"] if len(values) > 1 else [])]
        said += [f"{fmean(runs['seconds']):.0f}" for runs in figures("yardstick")[case]]
        assert claim.format(*said) in " ".join(README.split())


def test_fast_searched_on_a_gpu() -> None:
    with (ROOT / "results/fast-gpu/tpe.csv").open() as file:
        trials = list(csv.DictReader(file))
    ended = [trial for trial in trials if trial["ended"] in ("ok", "stopped_early")]
    early = [trial for trial in ended if trial["ended"] == "stopped_early"]
    best = max(ended, key=lambda trial: float(trial["accuracy"]))
    told = " ".join((ROOT / "results/fast-gpu/README.md").read_text().split())
    (seconds,) = re.findall(rf"{len(ended)} trials ended within (\d+) seconds", told)
    claim = f"On an H100 {len(ended)} trials ended in {seconds} seconds, {len(early)} of them stopped early"
    reached = f"{wilson(float(best['accuracy']), 5_000)} of the validation images"
    assert claim in " ".join(README.split())
    assert f"the best, of width {best['width']}, has {reached}" in " ".join(README.split())


def test_fast_beside_airbench94_on_a_gpu_and_each_reading_of_test_images() -> None:
    ours, other = figures("yardstick-gpu")["tested"]
    said = [f"{fmean(runs['accuracies']):.2%} ± {standard_error(runs['accuracies']):.2%}" for runs in (ours, other)]
    seconds = [f"{fmean(runs['seconds']):.1f}" for runs in (ours, other)]
    assert f"{' against '.join(said)}, in {seconds[0]} seconds against {seconds[1]}" in " ".join(README.split())
    readings = [json.loads(line) for line in (ROOT / "results/test-readings.jsonl").read_text().splitlines()]
    logged = [reading["accuracies"] for reading in readings if "yardstick" in reading["trial"]]
    assert logged == [list(three) for three in zip(ours["accuracies"], other["accuracies"], other["own"], strict=True)]


def test_near_duplicates_of_cifar10() -> None:
    found = figures("near_duplicates")["found"][0]
    assert f"{found['found']} of the {found['number']:,} test images nearly equal" in " ".join(README.split())


def test_warm_trials() -> None:
    cold, forked = (warm.Searches(**record) for record in figures("warm")["searches"])
    memory_of = [warm.Memory(**record) for record in figures("warm")["memory"]]
    megabytes = [one.together for one in memory_of if one.at_once == 4]
    said = (
        f"{forked.beside_training:.1f} s so, where it takes {cold.beside_training:.1f} s if",
        f"take {megabytes[1] / 1000:.1f} GB of memory instead of {megabytes[0] / 1000:.1f}",
    )
    assert all(claim in " ".join(README.split()) for claim in said)


def test_fast_on_its_full_budget() -> None:
    (run,) = (full.FullRun(**record) for record in figures("full")["runs"])
    width, _, _, epochs, minutes, _, accuracy = run.cells()
    claim = (
        f"width {width} and {epochs} epochs of all 50,000 images, it has {accuracy} of the test "
        f"images, after {minutes} minutes on"
    )
    assert claim in " ".join(README.split())
    readings = [json.loads(line) for line in (ROOT / "results/test-readings.jsonl").read_text().splitlines()]
    own = [reading for reading in readings if reading["trial"] in ("benchmarks.curves", "benchmarks.full")]
    accuracies = [accuracy for reading in own for accuracy in reading["accuracies"]]
    assert accuracies[-1] == run.test_accuracy
    attempts = re.findall(
        r"^\| \d+ epochs of .* \| (\d+\.\d) % ± ", (ROOT / "results/README.md").read_text(), re.MULTILINE
    )
    assert attempts == [f"{accuracy:.1%}".removesuffix("%") for accuracy in accuracies]


def test_the_faults_that_were_injected() -> None:
    claimed, measured = (
        [line for line in (ROOT / path).read_text().splitlines() if line.startswith("|")]
        for path in ("docs/reliability.md", "results/faults.md")
    )
    assert claimed == measured


def test_how_many_workers_one_manager_feeds() -> None:
    claimed = rows((ROOT / "docs" / "scale.md").read_text())
    for reach in figures("scale")["reach"]:
        assert claimed[reach["length"]] == [scale.rounded(reach["workers"])]


@pytest.mark.parametrize(
    ("name", "table", "line"),
    [
        ("accuracy", "accuracy", accuracy.Compared),
        ("benchmarks", "speed", speed.Measured),
        ("benchmarks", "startup", startup.Started),
        ("benchmarks", "memory", memory.Memory),
        ("benchmarks", "growth", growth.Point),
        *(
            ("chance", name, chance.Share)
            for name in ("coverage", "final_coverage", "told_apart", "trials", "warnings", "importance")
        ),
        *(("chance", name, chance.Margins) for name in ("unconfirmed_coverage", "gain_coverage")),
        ("chance", "regret", chance.Regret),
        ("chance", "gain", chance.Bias),
        ("chance", "gain_over_defaults", chance.Bias),
        ("contest", "surrogates", contest.Fitted),
        ("contest", "played", contest.Played),
        ("contest-live", "live", live.Line),
        ("curves", "curves", curves.Curve),
        ("denormals", "trainings", denormals.Measured),
        ("validation", "networks", validation.Measured),
        ("discard", "discarded", discard.Discarded),
        ("folders", "folders", folders.Line),
        ("fast/tuners", "searches", tuners.Search),
        ("full", "runs", full.FullRun),
        ("ingredients", "ingredients", ingredients.Compared),
        ("leader", "leaders", leader.Line),
        ("longer", "longer", longer.Trained),
        ("longer-gpu", "longer", longer.Trained),
        ("net/tuners", "searches", tuners.Search),
        ("near_duplicates", "found", near_duplicates.Found),
        ("processes", "processes", processes.Losses),
        ("scale", "loads", scale.Load),
        ("searches", "searches", searches.Search),
        ("stopping", "stopping", stopping.Replay),
        ("table", "tables", summary.Summary),
        ("table", "budgets", summary.Budgets),
        ("tpe", "tpe", tpe.Found),
        ("warm", "searches", warm.Searches),
        ("warm", "phases", warm.Phases),
        ("warm", "memory", warm.Memory),
        ("width", "widths", width.Line),
        ("yardstick-gpu", "tested", airbench94.Runs),
        ("yardstick", "own", airbench94.Runs),
        ("yardstick", "small", airbench94.Runs),
    ],
)
def test_a_table_says_what_was_measured(name: str, table: str, line: type[Any]) -> None:
    text = (ROOT / "results" / f"{name}.md").read_text()
    records = figures(name)[table]
    assert records
    for record in records:
        assert f"| {' | '.join(line(**record).cells())} |" in text


@pytest.mark.parametrize("images", [200, 2_000, 20_000])
def test_what_changing_colours_are_worth(images: int) -> None:
    text, pictures = ((ROOT / page).read_text() for page in (f"results/colours/{images}.md", "docs/pictures.md"))
    known = {}
    for record in figures(f"colours/{images}")["colours"]:
        line = colours.Line(**{**record, "hparams": Hparams.from_params(record["hparams"])})
        assert f"| {' | '.join(line.cells())} |" in text
        some = line.hparams
        known[some.model, some.width, some.epochs, some.color_jitter] = f"{100 * fmean(line.accuracies):.1f} %"
    for channels, epochs in {200: [(32, 39)], 2_000: [(32, 47), (64, 47)], 20_000: []}[images]:
        claim = f"{known['fast', channels, epochs, 0.5]} in place of {known['fast', channels, epochs, 0.0]}"
        assert claim in " ".join(pictures.split())


@pytest.mark.parametrize(("images", "networks"), [(200, ["fast"]), (2_000, ["fast", "net"]), (20_000, ["fast"])])
def test_what_fewer_images_have_by_the_recipe_that_fits_them(images: int, networks: list[str]) -> None:
    """By the rule in defaults.py, but for colours."""
    text = (ROOT / f"results/recipes/{images}.md").read_text()
    found = re.findall(r"^\| (\w+) \| [\d,]+ \| ([^|]+) \| [^|]+ \| [^|]+ \| [^|]+ \| ([\d.]+)% ", text, re.MULTILINE)
    known = {(network, name): f"{accuracy} %" for network, name, accuracy in found}
    page = " ".join((ROOT / "docs/pictures.md").read_text().split())
    for network in networks:
        ours, whole = (known[network, name] for name in ("power 0.5, at least 400 steps", "as for CIFAR-10"))
        assert re.search(rf"{ours}( of [^,;]+, where the recipe for 45,000 has|[^,;]* in place of) {whole}", page)


def test_what_a_last_batch_of_few_images_costs() -> None:
    text, page = ((ROOT / name).read_text() for name in ("results/last-batch.md", "docs/pictures.md"))
    known = {}
    for record in figures("last-batch")["last batch"]:
        line = last_batch.Line(**{**record, "hparams": Hparams.from_params(record["hparams"])})
        assert f"| {' | '.join(line.cells())} |" in text
        known[line.images, line.cut] = 100 * fmean(line.accuracies)
    cost = [known[images, "the last two batches alike"] - known[images, "as it comes"] for images in (200, 970)]
    assert f"[{cost[0]:.1f} and {cost[1]:.1f} points](../results/last-batch.md)" in page


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_section_that_a_page_names_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, section = link.partition("#")
        if link.startswith("https://"):
            continue
        named = page.parent / path if path else page
        assert named.exists(), link
        assert not section or section in sections(named), link


def sections(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
