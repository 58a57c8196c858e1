"""NNI's web page in a real browser, over a real search: it shows what ran, compares it, and opens TensorBoard."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from urllib.parse import urlsplit

import psutil
import pytest
from experiments import Search, Start, free_port
from playwright.sync_api import Page, sync_playwright

from cifar.trials import store

CHROMIUM = shutil.which("chromium")
NAMES = ("width", "lr", "momentum", "batch_size")


@pytest.fixture
def shown(search: Start) -> Iterator[Search]:
    """A search of four trials that has ended and still shows its page."""
    arguments = ("--data", "digits", "--max-trials", "4", "--tuner", "Random", "--port", str(free_port()))
    one = search(*arguments, "--keep-open")
    one.wait_for("the web page stays open until you press Ctrl-C")
    yield one
    one.process.send_signal(signal.SIGINT)
    assert one.wait(30) == 0


@pytest.fixture
def page(shown: Search) -> Iterator[Page]:
    """The page of all trials, with nothing but this machine in reach: its icons alone lie elsewhere."""
    url = next(word for word in shown.err.split() if word.startswith("http://127.0.0.1:"))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        page.route(lambda address: urlsplit(address).hostname != "127.0.0.1", lambda route: route.abort())
        page.goto(f"{url}/detail")
        page.wait_for_selector(".ms-DetailsRow")
        yield page
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_the_page_shows_compares_and_plots_what_ran(shown: Search, page: Page) -> None:
    trials = sorted(shown.trials(), key=lambda trial: trial.number)
    assert table(page) == [row(trial) for trial in trials]
    assert parallel_axes(page)[: len(NAMES)] == list(NAMES)
    compared = compare(page, 0, 1)
    assert compared["Trial No."] == ["0", "1"]
    for name in NAMES:
        assert [float(value) for value in compared[name]] == [trial.params[name] for trial in trials[:2]]
    for name in ("default", "loss", "images_per_second", "parameters"):
        metrics = [(trial.result or {})["metrics"][name] for trial in trials[:2]]
        assert [float(value) for value in compared[f"Metric: {name}"]] == metrics
    page.reload()  # which closes the dialog, and ticks no trial
    port = tensorboard_port(page, 0, 1)
    listening = {c.laddr.ip for c in psutil.net_connections() if c.laddr and c.laddr.port == port and not c.raddr}
    assert listening == {"127.0.0.1"}


def table(page: Page) -> list[list[str]]:
    """The rows with columns for the parameters, as a user adds them."""
    page.click("text=Add/Remove columns")
    for name in NAMES:
        page.click(f"label:has-text('{name} (space)')")
    page.click("button:has-text('Save')")
    page.wait_for_selector("[data-automation-key='space/lr']")
    keys = ["sequenceId", "id", "latestAccuracy", *(f"space/{name}" for name in NAMES)]
    rows = page.locator(".ms-DetailsRow").all()
    return [[row.locator(f"[data-automation-key='{key}']").inner_text().split()[0] for key in keys] for row in rows]


def row(trial: store.Trial) -> list[str]:
    accuracy = f"{trial.accuracy or 0.0:.6f}".rstrip("0")
    return [str(trial.number), trial.id, accuracy, *(f"{trial.params[name]!r}".removesuffix(".0") for name in NAMES)]


def parallel_axes(page: Page) -> list[str]:
    page.click("text=Hyper-parameter")
    page.wait_for_selector("svg >> text=momentum")
    return [text for text in page.locator("svg text").all_text_contents() if text and not text[0].isdigit()]


def compare(page: Page, *numbers: int) -> dict[str, list[str]]:
    """The table under the overlaid curves: name -> a value per trial."""
    tick(page, *numbers)
    page.click("button:has-text('Compare')")
    dialog = page.locator(".ms-Modal", has_text="Compare trials")
    dialog.locator("canvas").wait_for()  # the curves
    lines = [line.split("\t") for line in dialog.locator("table").inner_text().split("\n")]
    return {name.strip(): [value.strip() for value in values] for name, *values in lines if values}


def tick(page: Page, *numbers: int) -> None:
    for number in numbers:
        page.locator(".ms-DetailsRow").nth(number).locator(".ms-Checkbox label").click()


def tensorboard_port(page: Page, *numbers: int) -> int:
    """Start TensorBoard for these trials, and see their curves in it."""
    tick(page, *numbers)
    page.click("button:has-text('TensorBoard')")
    with page.expect_popup() as opened:
        page.click("button:has-text('Ok')")
    board = opened.value
    board.wait_for_selector("text=images_per_second", timeout=60_000)
    return urlsplit(board.url).port or 0
