"""`cifar search` with NNI's own manager and tuner: to the end, and through all that can come between."""

from __future__ import annotations

import json
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest
import requests
import yaml
from experiments import (
    ROOT,
    Search,
    Start,
    change_config,
    free_port,
    nothing_is_left,
)

from cifar.system import processes

WRONG_VALUES = "--data nowhere --port 99999 --max-trials 0 --epochs 0 --duration 5x --tuner GP"


def test_a_search_ends_by_itself_with_a_table_and_leaves_nothing(
    search: Start, config_path: Path, tmp_path: Path
) -> None:
    space = json.loads((ROOT / "search_space.json").read_text())
    space["lr"]["_value"] = [0.001, 0.01]  # at the upper end of the shipped range a trial may diverge
    (tmp_path / "space.json").write_text(json.dumps(space))
    change_config(config_path, searchSpaceFile=str(tmp_path / "space.json"))
    port = free_port()
    one = search("--data", "digits", "--max-trials", "3", "--port", str(port), "--seed", "7", "--name", "Mine")
    one.wait_for("web page http://127.0.0.1:")
    profile = requests.get(f"http://127.0.0.1:{port}/api/v1/nni/experiment", timeout=10).json()["params"]
    listening: set[str] = set()
    while one.process.poll() is None:
        ours = {process.pid for process in processes.find(one.directory)}
        sockets = [c for c in psutil.net_connections() if c.pid in ours and c.status == "LISTEN"]
        listening |= {c.laddr.ip for c in sockets if c.laddr}
        time.sleep(0.5)
    assert one.wait() == 0, one.err
    assert listening == {"127.0.0.1"}
    assert "3 trials: 3 ok" in one.out
    assert f"saved in {one.directory}" in one.out
    assert "3 trials, 2 at once, " in one.err  # the forecast
    assert "; 3 of 3, about 0 s left; best " in one.err
    assert profile["experimentName"] == "Mine"
    assert profile["trialCommand"] == "python trial.py --epochs 2 --seed 7"
    assert profile["tuner"]["classArgs"]["seed"] == 7
    assert {trial.result["hparams"]["seed"] for trial in one.trials() if trial.result} == {7}
    assert nothing_is_left(tmp_path)


@pytest.mark.slow
def test_an_experiment_goes_on_with_the_data_it_is_about(search: Start, quick_config_path: Path) -> None:
    first = search("--data", "digits", "--max-trials", "4", "--tuner", "GridSearch")
    first.wait_until_ended(1)
    first.process.send_signal(signal.SIGINT)
    assert first.wait(30) == 130
    assert first.err.splitlines()[-1].startswith("a grid search cannot be resumed")
    refused = search("--resume", first.id, "--data", "cifar10", "--epochs", "3")
    assert refused.wait() == 2
    assert refused.err.splitlines() == [
        "error: --epochs cannot change in a resumed experiment: its trials would not compare",
        f"error: experiment {first.id} is about --data digits: trials on cifar10 would not compare",
    ]
    refused = search("--resume", first.id)
    assert refused.wait() == 2
    assert "error: a grid search cannot be resumed" in refused.err


@pytest.mark.slow
def test_trials_that_all_fail_end_the_search(search: Start, quick_config_path: Path, tmp_path: Path) -> None:
    one = search("--data", "digits", "--max-trials", "12", CIFAR_TEST_FAIL="1")
    assert one.wait() == 1
    assert "the last 3 trials all failed: OSError: no trial may write '" in one.err
    assert nothing_is_left(tmp_path)


@pytest.mark.slow
def test_a_space_that_runs_out_ends_the_search(search: Start, quick_config_path: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(quick_config_path.read_text())
    config["searchSpace"] = {"lr": {"_type": "choice", "_value": [0.2, 0.3, 0.4, 0.5]}}
    quick_config_path.write_text(yaml.safe_dump(config))
    port = free_port()
    one = search("--data", "digits", "--max-trials", "4", "--port", str(port), CIFAR_TEST_SECONDS="1")
    one.wait_for("web page http")
    url = f"http://127.0.0.1:{port}/api/v1/nni/experiment"
    wanted = requests.get(url, timeout=10).json()
    wanted["params"]["maxTrialNumber"] = 6  # as a user may ask for in the web page
    assert requests.put(f"{url}?update_type=MAX_TRIAL_NUM", json=wanted, timeout=10).ok
    assert one.wait() == 1, one.err
    assert "the search space ran out after 4 of 6 trials" in one.err
    assert "4 trials: 4 ok" in one.out
    assert nothing_is_left(tmp_path)


@pytest.mark.slow
def test_the_web_page_stays_open_on_request_and_shows_a_stopped_experiment(
    search: Start, quick_config_path: Path, tmp_path: Path
) -> None:
    port = free_port()
    one = search("--data", "digits", "--max-trials", "3", "--port", str(port), "--keep-open", "--concurrency", "auto")
    one.wait_for("the web page stays open until you press Ctrl-C")
    assert "3 trials: 3 ok" in one.out
    url = f"http://127.0.0.1:{port}/api/v1/nni"
    assert requests.get(f"{url}/check-status", timeout=10).json()["status"] == "DONE"
    refused = search("--resume", one.id)
    assert refused.wait() == 2
    assert f"error: experiment {one.id} is still running in another cifar search" in refused.err
    one.process.send_signal(signal.SIGINT)
    assert one.wait(30) == 0
    assert nothing_is_left(tmp_path)
    refused = search("--resume", one.id)
    assert refused.wait() == 2
    assert f"error: experiment {one.id} has finished its 3 trials; --max-trials 6 would add as many" in refused.err

    shown = search("--ui-only", one.id, "--port", str(port), "--host", "0.0.0.0")
    shown.wait_for("the web page stays open until you press Ctrl-C")
    assert "warning: the web page is open to every machine" in shown.err
    assert len(requests.get(f"{url}/trial-jobs", timeout=10).json()) == 3
    foreign = requests.get(f"{url}/trial-jobs", headers={"Host": f"evil.example:{port}"}, timeout=10)
    assert foreign.status_code == 403  # a name that its owner may let lead here
    assert {c.laddr.ip for c in psutil.net_connections() if c.laddr and c.laddr.port == port and not c.raddr} == {
        "0.0.0.0"
    }
    shown.process.send_signal(signal.SIGTERM)
    assert shown.wait(30) == 0
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["--resume", "nowhere"], ["error: no experiment 'nowhere' in "]),
        (["--data", "digits", "--config", "nowhere.yml"], ["nowhere.yml is no NNI experiment: No such file"]),
        (
            ["--data", "digits", "--concurrency", "many"],
            ["--concurrency: must be a number or auto, got 'many'"],
        ),
        (
            [
                "--data",
                "nowhere",
                "--port",
                "99999",
                "--max-trials",
                "0",
                "--epochs",
                "0",
                "--duration",
                "5x",
                "--tuner",
                "GP",
            ],
            [
                "error: data must be cifar10, digits or a folder of pictures, got 'nowhere': no such folder",
                "error: --port must be from 1 to 65535, got 99999",
                "error: --max-trials must be at least 1, got 0",
                "error: --epochs must be an integer from 1 to 100000, got 0",
                "error: --duration must be a number above 0 with a unit, as 90s, 30m, 2h or 1d, got '5x'",
                "error: tuner 'GP' does not work here: it fails with today's scipy",
            ],
        ),
    ],
)
def test_a_wrong_search_hears_of_every_mistake_and_starts_nothing(
    search: Start, tmp_path: Path, arguments: list[str], messages: list[str]
) -> None:
    one = search(*arguments)
    assert one.wait() == 2
    assert one.out == ""
    for message in messages:
        assert message in one.err
    assert "Traceback" not in one.err
    assert not (tmp_path / "experiments").exists()


@pytest.mark.slow
def test_of_two_searches_that_want_one_port_at_once_one_is_refused(search: Start, quick_config_path: Path) -> None:
    arguments = ["--data", "digits", "--max-trials", "3", "--port", str(free_port())]
    both = [search(*arguments), search(*arguments)]
    assert sorted(one.wait() for one in both) == [0, 2]
    for one in both:
        refused = one.process.returncode == 2
        assert "is in use; choose another with --port" in one.err if refused else "3 trials: 3 ok" in one.out


def test_a_busy_port_is_named(search: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one = search("--data", "digits", "--port", str(port))
        assert one.wait() == 2
    assert f"error: port {port} is in use; choose another with --port" in one.err


def test_the_doctor_measures_and_starts_nothing(config_path: Path, tmp_path: Path) -> None:
    one = Search(tmp_path, ("doctor", "--config", str(config_path), "--data", "digits", "--max-trials", "5"), {})
    assert one.wait() == 0, one.err
    assert "data      digits: 1,295 images to train on, 143 to validate on" in one.out
    assert "chance    with 143 images to validate on, a difference below 10.6 points may be luck" in one.out
    # What a search of so few images would have, and not the 128 of the file.
    assert "largest   model net, width 32, batch_size 100" in one.out
    assert "--concurrency auto would choose " in one.out
    assert not (tmp_path / "experiments").exists()
    assert nothing_is_left(tmp_path)
