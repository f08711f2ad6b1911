"""Every command in the code blocks of README.md, CONTRIBUTING.md and docs/ is run, in a miniature clone."""

import re
import shlex
import sys
import time
from pathlib import Path

import pytest
from clone import REPOSITORY, Clone

PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md")))]
# A block of commands; the line before it may say why they cannot run here.
BLOCK = re.compile(r"(<!-- not run: .+? -->\n)?```bash\n(.*?)```", re.DOTALL)
# What stands for a command whose words a reader replaces, that would take long (a stage behind a command is a target
# that stands for all that follow), or that needs a person or the network.
ADAPTED = {
    "make test": "env PYTEST_ADDOPTS=tests/test_files.py make test",  # all of them would include this one
    "make campaign": "make --dry-run campaign",
    "make lock": "make --dry-run lock",
    "make lock UPGRADE='--upgrade-package mne'": "make --dry-run lock UPGRADE='--upgrade-package mne'",
    "make lock UPGRADE=--upgrade": "make --dry-run lock UPGRADE=--upgrade",
    "make s3": "make --dry-run s3",  # it serves until it is stopped; test_s3.py runs the same server
    ". .venv/bin/activate": "true",  # the clone's environment has nothing to activate
    "source completion.bash": "bash -c 'source completion.bash && complete -p dvc'",
    "python src/check.py FOLDER": "python src/check.py data/raw/R1",
    "python src/predict.py RECORDING.set": "python src/predict.py {recording}",
    "pip install -r requirements-board.txt": "python -c 'import tensorboard'",
    "python src/board.py": "python src/board.py --once",
    "dvc exp run -S pretrain.learning_rate=3e-4": "dvc exp run -S pretrain.learning_rate=3e-4 pretrain",
    "dvc exp run --queue -S 'model.size=tiny,small'": "dvc exp run --queue -S 'model.size=tiny,small' challenge1",
    "dvc exp run -S model.size=nano": "dvc exp run -S model.size=nano challenge1",
    "dvc exp apply NAME": "dvc exp apply {name}",
    "git reset --hard && dvc checkout": "sh -c 'git reset --hard && dvc checkout'",
    "git add -A && git commit": "sh -c 'git add -A && git commit --allow-empty -m results'",
    'git commit -m "Results of the mini copy"': "git commit --allow-empty -m results",
    'git commit -m "Results after the merge"': "git commit --allow-empty -m results",
}
# What must be in the output, where success alone says little.
SHOWS = {
    "make test": "passed",
    "source completion.bash": "-F _hbn_dvc dvc",
    "make table": "challenge1.nrmse",
    "python src/check.py FOLDER": "3 participants",
    "python src/fetch.py R1 --estimate": "3 participants",
    "python src/predict.py RECORDING.set": "not a medical device",
    "python src/predict.py data/example": "not a medical device",
    "python src/describe.py models/challenge1.pt": "# challenge1",
    "python src/board.py": "is written",
}


def commands(page: str) -> list[str]:
    """The commands of the blocks of a page that can run here, without their comments."""
    blocks = BLOCK.findall((REPOSITORY / page).read_text())
    lines = [re.sub(r"\s+# .*", "", line).strip() for why, block in blocks if not why for line in block.splitlines()]
    return [line for line in lines if line]


def test_commands_are_adapted_that_stand_somewhere():
    everywhere = {command for page in PAGES for command in commands(page)}
    assert set(ADAPTED) | set(SHOWS) | set(BEFORE) <= everywhere


@pytest.fixture
def clone(built, tmp_path) -> Clone:
    """A finished build with an environment that `make` takes for installed: installing needs the network."""
    clone = built.copy(tmp_path / "clone")
    environment = clone.root / ".venv/bin"
    environment.mkdir(parents=True)
    for name in ("python", "../installed", "../installed-dev"):
        (environment / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (environment / name).chmod(0o755)
    (clone.root / ".venv/lib").symlink_to(Path(sys.prefix) / "lib")  # the type checker looks there
    return clone


@pytest.mark.campaign  # minutes
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_runs(page, clone):
    """In the order of the page, for later commands show what earlier ones made."""
    words = {"{recording}": str(next((clone.root / "data/raw").rglob("*_eeg.bdf")))}
    for command in commands(page):
        if command in BEFORE:
            BEFORE[command](clone)
        if command == "dvc exp apply NAME":
            words["{name}"] = clone("dvc", "exp", "list", "--name-only").split()[0]
        line = ADAPTED.get(command, command)
        for word, value in words.items():
            line = line.replace(word, value)
        output = clone(*shlex.split(line))
        assert SHOWS.get(command, "") in output, output
        if command == "dvc queue start -j 2":
            while "Running" in (shown := clone("dvc", "queue", "status")) or "Queued" in shown:
                time.sleep(1)
            assert "Failed" not in shown


def leave_two(clone: Clone) -> None:
    """Of the grid and the sweep of 18 runs, keep the first two in the queue."""
    lines = [line.split() for line in clone("dvc", "queue", "status").splitlines()]
    queued = [words[0] for words in lines if "Queued" in words]
    assert len(queued) == 2 + 18
    clone("dvc", "queue", "remove", *queued[2:])


def change_on_a_branch(clone: Clone) -> None:
    """A change for the review: of a setting that only the quickest stage reads."""
    clone("git", "checkout", "-q", "-b", "change")
    clone.change({"exec.workers": 2})
    clone("dvc", "repro")
    clone.commit("two workers")


def add_the_size_nano(clone: Clone) -> None:
    """What docs/extending.md says before it."""
    page = (REPOSITORY / "docs/extending.md").read_text()
    line = re.search(r'^    "nano": .*\n', page, re.MULTILINE)[0]
    network, params = (clone.root / f"src/hbn/{name}.py" for name in ("networks/architecture", "params"))
    network.write_text(re.sub(r"(SIZES = \{.*?\n)", lambda match: match[1] + line, network.read_text(), count=1))
    params.write_text(params.read_text().replace('size: Literal["tiny",', 'size: Literal["nano", "tiny",'))


BEFORE = {
    "dvc repro": Clone.restore,  # an experiment before it may have left the workspace changed
    "dvc exp run --queue -S 'model.size=tiny,small'": Clone.restore,
    "dvc queue start -j 2": leave_two,
    "dvc params diff main": change_on_a_branch,
    "make schema": add_the_size_nano,
}
