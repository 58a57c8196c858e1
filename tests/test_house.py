"""The order of the rooms: each uses only those below it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from experiments import ROOT

# From the top down. A room may use itself and those after it.
ROOMS = ["", "analysis", "search", "trials", "inference", "training", "data", "system", "errors and console"]
_COMMANDS = {"__main__", "notebook", "options", "worker"}
_GROUND = {"__init__", "errors", "console"}


def room_of(module: str) -> str:
    """Of `cifar.trials.store`, trials; the commands have none, and all stand on errors and console."""
    parts = module.split(".")[1:]
    if not parts or parts[0] in _GROUND:
        return "errors and console"
    return "" if parts[0] in _COMMANDS else parts[0]


def modules() -> Iterator[tuple[str, Path]]:
    """All but the front door, cifar/__init__.py, which imports the notebook's names when they are asked for."""
    for path in sorted((ROOT / "cifar").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if name != "cifar.__init__":
            yield name.removesuffix(".__init__"), path


def imports(path: Path) -> Iterator[str]:
    """The modules of cifar that a file imports, inside functions too."""
    known = {name for name, _ in modules()}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "cifar":
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "cifar")


def test_the_package_uses_nothing_around_it() -> None:
    for name, path in modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{name} imports by a relative name, which this test does not follow"
            for used in [node.module] if isinstance(node, ast.ImportFrom) else []:
                assert str(used).split(".")[0] not in ("tests", "benchmarks", "trial"), name


def test_a_room_uses_only_rooms_below_it() -> None:
    wrong = [
        f"{name} imports {imported}"
        for name, path in modules()
        for imported in imports(path)
        if ROOMS.index(room_of(imported)) < ROOMS.index(room_of(name))
    ]
    assert wrong == []


def test_the_drawing_counts_right() -> None:
    drawing = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [room_of(name) for name, path in modules() if path.stem != "__init__"]
    for room in ROOMS[1:-1]:
        (drawn,) = re.findall(rf"\b{room}/ +(\d+) files", drawing)
        assert int(drawn) == rooms.count(room), room
    used = {(room_of(name), room_of(imported)) for name, path in modules() for imported in imports(path)}
    (drawn,) = re.findall(r"Of the 36 arrows\D+(\d+)\s+are used", drawing)
    assert int(drawn) == sum(above != below for above, below in used)


def test_there_are_no_other_rooms_and_none_is_empty() -> None:
    assert {room_of(name) for name, _ in modules()} == set(ROOMS)
    loose = {path.stem for path in (ROOT / "cifar").glob("*.py")}
    assert loose == _COMMANDS | _GROUND


def test_no_module_uses_itself_by_way_of_others() -> None:
    uses = {name: set(imports(path)) for name, path in modules()}
    while leaves := {name for name, used in uses.items() if not used & uses.keys()}:
        uses = {name: used for name, used in uses.items() if name not in leaves}
    assert not uses, f"a circle among {sorted(uses)}"


def test_nothing_uses_the_entry_point_of_other_machines() -> None:
    assert not [name for name, path in modules() if "cifar.worker" in set(imports(path))]


@pytest.mark.parametrize("name", ["trial", "cifar.trials.run", "cifar.training.train"])
def test_a_trial_uses_nothing_of_searches_and_answers(name: str) -> None:
    paths = dict(modules()) | {"trial": ROOT / "trial.py"}
    seen, left = set[str](), [name]
    while left:
        module = left.pop()
        if module in paths and module not in seen:
            seen.add(module)
            left += imports(paths[module])
    assert not [module for module in seen if room_of(module) in ("search", "analysis")]
