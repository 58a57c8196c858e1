"""`python -m benchmarks.screens`: the pictures in docs/images, of a terminal, a report and NNI's page, made anew.

Runs `cifar fit` for that long. Needs tmux and Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, sync_playwright

from cifar.system import durations
from cifar.trials import store

ROOT = Path(__file__).parents[1]
_IMAGES = ROOT / "docs" / "images"
_COLUMNS, _LINES = 80, 28
_SESSION = "cifar-screens"
_TERMINAL = """<body style="margin:0;background:#fff"><pre style="display:inline-block;margin:0;padding:14px 18px;
border-radius:8px;background:#1b1e24;color:#dfe3ea;font:13px/1.4 'DejaVu Sans Mono',monospace">{text}</pre></body>"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screens", description=__doc__)
    parser.add_argument("--data", default="cifar10", help="cifar10, digits or a folder of pictures (default: cifar10)")
    parser.add_argument("--time-limit", default="10m", metavar="TIME", help="of the search (default: 10m)")
    parser.add_argument("--model", default="fast", help="the network that it searches (default: fast)")
    options = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None or shutil.which("tmux") is None:
        sys.exit("the screens need chromium and tmux")
    seconds = durations.seconds(options.time_limit) or 600.0
    _IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with terminal("cifar") as show:
            time.sleep(2)
            shoot_terminal(browser, show(), "commands")
        fit = f"cifar fit --data {options.data} --time-limit {options.time_limit} --model {options.model}"
        with terminal(fit) as show:
            time.sleep(0.3 * seconds)
            shoot_terminal(browser, show(), "search")
            while "cifar export" not in show():
                time.sleep(2)
            shoot_terminal(browser, show(), "answer")
            found = re.findall(r"nni-experiments/(\w+)/best\.safetensors", show())
        experiment = store.find(found[-1], ROOT / "nni-experiments")
        shoot_report(browser, experiment / "report.html")
        shoot_nni(browser, experiment.name)
        browser.close()
    return 0


@contextlib.contextmanager
def terminal(command: str) -> Iterator[Show]:
    """A terminal of 80 columns that runs a command of this environment; what it shows can be asked for."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    size = ["-x", str(_COLUMNS), "-y", str(_LINES)]
    shell = f"cd {ROOT}; export PATH={path}; clear; echo '$ {command}'; {command}; sleep 100000"
    subprocess.run(["tmux", "new-session", "-d", "-s", _SESSION, *size, shell], check=True)
    try:
        yield Show()
    finally:
        subprocess.run(["tmux", "kill-session", "-t", _SESSION], check=True)


class Show:
    """What the terminal shows now, as text."""

    def __call__(self) -> str:
        shown = subprocess.run(["tmux", "capture-pane", "-p", "-t", _SESSION], check=True, capture_output=True)
        return shown.stdout.decode().rstrip()


def shoot_terminal(browser: Browser, text: str, name: str) -> None:
    page = browser.new_page(viewport={"width": 900, "height": 700}, device_scale_factor=1.5)
    page.set_content(_TERMINAL.format(text=html.escape(text)))
    page.locator("pre").screenshot(path=_IMAGES / f"{name}.png")
    page.close()


def shoot_report(browser: Browser, path: Path) -> None:
    """Its first screen, wide and narrow, light and dark."""
    themes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for width, height in ((1280, 800), (400, 800)):
        for theme in themes:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)
            page.goto(path.as_uri())
            page.wait_for_selector(".plot .main-svg")
            page.screenshot(path=_IMAGES / f"report-{width}-{theme}.png")
            page.close()


def shoot_nni(browser: Browser, experiment: str) -> None:
    with terminal(f"cifar search --ui-only {experiment}") as show:
        while not (address := re.search(r"http://127\.0\.0\.1:\d+", show())):
            time.sleep(1)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(f"{address[0]}/detail")
        page.wait_for_selector(".ms-DetailsRow")
        page.get_by_text("Hyper-parameter", exact=True).click()
        time.sleep(2)
        page.screenshot(path=_IMAGES / "nni.png")
        page.close()
        subprocess.run(["tmux", "send-keys", "-t", _SESSION, "C-c"], check=True)
        time.sleep(10)  # until NNI's manager has ended


if __name__ == "__main__":
    sys.exit(main())
