PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Named after the Python, so that another PYTHON installs anew.
INSTALLED := $(VENV)/.installed-$(shell $(PYTHON) -c 'import platform; print(platform.python_version())')

.PHONY: help install demo test test-slow test-faults test-remote audit bench bench-quick bench-searches bench-gpu check format lock clean

help:           ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*## */\t/' | expand -t 12

install: $(INSTALLED)  ## a virtual environment with the tested versions of everything (about 2 minutes, 6 GB)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 10) <= sys.version_info[:2] <= (3, 13) else "Python 3.10 to 3.13 is needed, this is " + sys.version)'
	test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[report,export,tensorboard,bench,dev]'
	touch $@

demo: install   ## from pictures to an answer on the embedded digits: search, confirm, report (under a minute)
	$(BIN)/cifar search --data digits --epochs 1 --max-trials 30
	$(BIN)/cifar best --seeds 10
	$(BIN)/cifar report

test: install   ## the tests (about 11 minutes)
	$(BIN)/python -m pytest -m "not slow"

test-slow: install  ## more real experiments: moved and edited ones, the web page, several processes, a wheel (about 25 minutes)
	$(BIN)/python -m pytest -m slow --ignore tests/faults --ignore tests/remote

test-faults: install  ## faults injected on purpose: kills, disks, folders, numbers, load, attacks, a soak (about an hour)
	rm -f results/faults.jsonl
	CIFAR_FAULTS=results/faults.jsonl $(BIN)/python -m pytest tests/faults
	$(BIN)/python -m benchmarks.yardsticks.faults results/faults.jsonl

test-remote: install  ## searches on two machines, each a network namespace with an sshd, as root (about 15 minutes)
	$(BIN)/python -m pytest tests/remote

audit: install  ## known weaknesses of the tested versions, asked of PyPI
	$(BIN)/uv tool run pip-audit --requirement constraints.txt --no-deps --disable-pip --strict

bench: install  ## speed, start-up, memory, growth and accuracy beside the tutorial's loop (about an hour)
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.studies.accuracy

bench-quick: install  ## less of it (about 5 minutes)
	$(BIN)/python -m benchmarks --quick

bench-searches: install  ## whole searches beside Ray Tune and Optuna, which it installs (about 40 minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[peers]'
	$(BIN)/python -m benchmarks.yardsticks.searches

bench-gpu: install  ## what a GPU does for trials: speed, first seconds, trials per hour, searches (about 10 minutes)
	$(BIN)/python -m benchmarks.yardsticks.gpu

check: install  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install ## let ruff put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: install   ## renew constraints.txt, for Python 3.10 to 3.13 at once
	$(BIN)/uv pip compile pyproject.toml --extra report --extra export --extra heic --extra tensorboard --extra bench --extra dev --extra peers --universal --python-version 3.10 --upgrade \
		--no-emit-index-url --quiet --custom-compile-command 'make lock' --output-file constraints.txt

clean:          ## remove the environment and the tools' caches; experiments stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
