"""The JavaScript that corrects NNI's manager, beside what Python says to it."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest
from experiments import ROOT, Start

from cifar.system import environment
from cifar.trials import layout

PATCHES = ROOT / "cifar" / "search" / "nni_patches"


def node() -> str:
    nni_node = Path(str(files("nni_node")))
    return shutil.which("node", path=str(nni_node)) or str(nni_node / "node")


def test_both_languages_have_the_same_words() -> None:
    script = f"console.log(JSON.stringify(require({str(PATCHES / 'words.js')!r})))"
    run = subprocess.run([node(), "-e", script], capture_output=True, text=True, check=True)
    words = json.loads(run.stdout)
    assert words == {name: getattr(environment, name) for name in words}
    assert {"RESTARTS", "GIVE_UP", "UNFIT_TRIALS", "HOST_KEYS", "WORKER_PATCHES", "HOST"} == words.keys()


def test_no_patch_spells_a_word_of_its_own() -> None:
    for path in PATCHES.glob("*.js"):
        code = [line.split("//")[0] for line in path.read_text().splitlines()]
        assert path.name == "words.js" or not [line for line in code if "CIFAR_" in line], path


def test_no_module_spells_a_word_of_its_own() -> None:
    for path in (ROOT / "cifar").rglob("*.py"):
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        words = [text for text in texts if isinstance(text, str) and re.fullmatch(r"CIFAR_[A-Z_]+", text)]
        assert path.name == "environment.py" or not words, path


def test_what_is_fetched_from_hosts_are_the_files_that_trials_leave() -> None:
    fetched = re.search(r"const LEFT_BY_TRIALS = (\[.*\]);", (PATCHES / "fetch.js").read_text())
    assert fetched
    ours = {layout.PARAMS, layout.RESULT, layout.PREDICTIONS}
    assert set(json.loads(fetched[1])) == ours | {"trial.log", "trial.stdout", layout.STDERR}


def test_an_nni_without_a_class_that_is_corrected_does_not_start(search: Start, tmp_path: Path) -> None:
    patch = tmp_path / "patch.js"
    patch.write_text(f"require({str(PATCHES / 'when_loaded.js')!r})('TrialProcessOfAnotherNni', () => {{}});")
    one = search("--data", "digits", NODE_OPTIONS=f"--require {patch}")
    assert one.wait() == 2
    assert "this NNI has no TrialProcessOfAnotherNni, which cifar/search/nni_patches corrects: nni==3.0" in one.err
    assert "Traceback" not in one.err


@pytest.mark.parametrize("name", ["NNIManager", "SqlDB"])
def test_a_patch_corrects_a_class_once_its_module_is_loaded(name: str, tmp_path: Path) -> None:
    (tmp_path / "exporting.js").write_text(f"class {name} {{ answer() {{ return 1; }} }}\nexports.{name} = {name};")
    script = (
        f"const whenLoaded = require({str(PATCHES / 'when_loaded.js')!r});"
        f"whenLoaded({name!r}, (found) => (found.answer = () => 2));"
        f"console.log(new (require({str(tmp_path / 'exporting.js')!r}).{name})().answer());"
    )
    run = subprocess.run([node(), "-e", script], capture_output=True, text=True, check=True)
    assert run.stdout == "2\n"


def test_the_manager_looks_for_ended_trials_twenty_times_a_second(tmp_path: Path) -> None:
    nnis = tmp_path / "nnimanager.js"
    nnis.write_text(
        "exports.NNIManager = class { async initTrainingService() { this.pollInterval = 0.5; return 'service'; } };"
    )
    script = f"require({str(PATCHES / 'poll.js')!r}); const manager = new (require({str(nnis)!r}).NNIManager)();"
    script += "manager.initTrainingService().then((service) => console.log(service, manager.pollInterval));"
    run = subprocess.run([node(), "-e", script], capture_output=True, text=True, check=True)
    assert run.stdout == "service 0.05\n"


@pytest.mark.parametrize(
    ("config", "ends"),
    [
        ("{ tuner: { name: 'TPE' }, assessor: { name: 'Medianstop' } }", True),
        ("{ tuner: { name: 'Random' } }", True),
        ("{ tuner: { name: '_custom', className: 'my.Tuner' } }", False),
        ("{ tuner: { name: 'TPE' }, assessor: { className: 'my.Assessor' } }", False),
        ("{ advisor: { name: 'BOHB' } }", False),
    ],
)
def test_at_the_end_the_tuner_is_not_waited_for_where_it_is_nnis_own(tmp_path: Path, config: str, ends: bool) -> None:
    nnis = tmp_path / "nnimanager.js"
    nnis.write_text(
        "exports.NNIManager = class { async stopExperimentTopHalf() {"
        "  await new Promise((done) => setTimeout(done, 200)); this.dispatcherPid = undefined; return 'stopped'; } };"
    )
    script = (
        f"require({str(PATCHES / 'stop.js')!r}); const {{ NNIManager }} = require({str(nnis)!r});"
        "const tuner = require('child_process').spawn('sleep', ['0.5']);"
        f"const manager = Object.assign(new NNIManager(), {{ config: {config}, dispatcherPid: tuner.pid }});"
        "tuner.on('exit', (code, signal) => console.log(signal));"
        "manager.stopExperimentTopHalf().then((said) => console.log(said));"
    )
    run = subprocess.run([node(), "-e", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == (["SIGTERM", "stopped"] if ends else ["stopped", "null"])


@pytest.mark.parametrize(("platform", "asks"), [("local", False), ("remote", True)])
def test_what_machine_this_is_nobody_is_asked_where_the_manager_runs_the_trials(
    tmp_path: Path, platform: str, asks: bool
) -> None:
    nnis = tmp_path / "keeper.js"
    nnis.write_text(
        "const part = () => ({ start: async () => console.log('part') });"
        "exports.TrialKeeper = class { scheduler = part(); channels = part(); envId = 'here';"
        f" platform = {platform!r}; async start() {{ console.log('asked'); return {{ id: 'here' }}; }} }};"
    )
    script = f"require({str(PATCHES / 'platform.js')!r}); const keeper = new (require({str(nnis)!r}).TrialKeeper)();"
    script += "keeper.start().then((told) => console.log(told.id));"
    run = subprocess.run([node(), "-e", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == (["asked", "here"] if asks else ["part", "part", "here"])


def test_the_tuner_hears_of_a_result_before_it_hears_that_the_trial_has_ended(tmp_path: Path) -> None:
    """It has heard of the result when it answers what was requested after it."""
    nnis = tmp_path / "nnis.js"
    nnis.write_text(
        "const server = new (class { emitter = new (require('events').EventEmitter)(); sent = [];"
        " sendCommand(type, content) { this.sent.push(type === 'EN' ? JSON.parse(content).trial_job_id : type); }"
        " onCommand(listener) { this.emitter.on('command', listener); } })();"
        "exports.getTunerServer = () => server;"
    )
    script = f"""
    require({str(PATCHES / "order.js")!r});
    const server = require({str(nnis)!r}).getTunerServer();
    const heard = [];
    server.onCommand((type) => heard.push(type));
    const final = (trial) => server.sendCommand('ME', JSON.stringify({{ type: 'FINAL', trial_job_id: trial }}));
    const end = (trial) => server.sendCommand('EN', JSON.stringify({{ trial_job_id: trial, event: 'SUCCEEDED' }}));
    const request = (jobs) => server.sendCommand('GE', String(jobs));
    const answer = () => server.emitter.emit('command', 'TR', '');
    request(2); answer(); answer();
    server.sendCommand('ME', JSON.stringify({{ type: 'PERIODICAL', trial_job_id: 'failed' }}));
    end('failed'); request(1);                // it has no result that could come too late
    final('first'); end('first'); request(1);
    answer();                                 // to what was requested before the result
    server.sent.push('|'); answer();
    final('last'); server.sent.push('|'); end('last');
    server.sendCommand('TE');                 // the end of all: nobody waits, the timer keeps nothing alive
    console.log(server.sent.join(' '), heard.length);
    """
    run = subprocess.run([node(), "-e", script], capture_output=True, text=True, check=True, timeout=10)
    assert run.stdout == "GE ME failed GE ME GE | first ME | TE 4\n"
