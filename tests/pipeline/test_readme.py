"""Every command in the code blocks of README.md is run, in a miniature clone."""

import re
import shlex
import sys
import time

import pytest
from clone import REPOSITORY, Clone

# Words that a reader replaces, and what makes a command quick here. Options
# put behind a command are targets: a stage stands for all that follow.
ADAPTED = {
    "make repro": "make repro",
    "make test": "env PYTEST_ADDOPTS=tests/test_files.py make test",  # all of them would include this one
    "python src/check.py FOLDER": "python src/check.py data/raw/R1",
    "python src/fetch.py R1 --estimate": "python src/fetch.py R1 --estimate",
    "make s3": "make --dry-run s3",  # it serves until it is stopped; test_s3.py runs the same server
    ". .venv/bin/activate": "true",  # the clone's environment has nothing to activate
    "source completion.bash": "bash -c 'source completion.bash && complete -p dvc'",
    "dvc repro": "dvc repro",
    "dvc exp run -S pretrain.learning_rate=3e-4": "dvc exp run -S pretrain.learning_rate=3e-4 pretrain",
    "dvc exp run --queue -S 'model.size=tiny,small'": "dvc exp run --queue -S 'model.size=tiny,small' challenge1",
    "sweeps/pretraining.sh": "sweeps/pretraining.sh",
    "dvc queue start -j 2": "dvc queue start -j 2",
    "make table": "make table",
    "make plots": "make plots",
    "dvc exp apply <name>": "dvc exp apply {name}",
    "git reset --hard && dvc checkout": "sh -c 'git reset --hard && dvc checkout'",
    "python src/predict.py RECORDING.set": "python src/predict.py {recording}",
    "dvc metrics diff main --md": "dvc metrics diff main --md",
    "dvc plots diff main": "dvc plots diff main",
    "make report BASE=main": "make report BASE=main",
    "python src/report.py --check": "python src/report.py --check",
    "python src/describe.py models/challenge1.pt": "python src/describe.py models/challenge1.pt",
}
# What must be in the output, where success alone says little.
SHOWS = {
    "make test": "passed",
    "source completion.bash": "-F _hbn_dvc dvc",
    "make table": "challenge1.nrmse",
    "python src/check.py FOLDER": "3 participants",
    "python src/predict.py RECORDING.set": "not a medical device",
    "python src/describe.py models/challenge1.pt": "# challenge1",
}


def commands() -> list[str]:
    """The commands of all ```bash blocks, without their comments."""
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    lines = [re.sub(r"\s+# .*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def clone(built, tmp_path_factory) -> Clone:
    """A finished build with an environment that `make` takes for installed: installing needs the network."""
    clone = built.copy(tmp_path_factory.mktemp("readme") / "clone")
    environment = clone.root / ".venv/bin"
    environment.mkdir(parents=True)
    for name in ("python", "../installed", "../installed-dev"):
        (environment / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        (environment / name).chmod(0o755)
    return clone


def test_the_table_knows_the_commands_of_the_readme():
    assert set(commands()) == set(ADAPTED), "the table ADAPTED must hold just the commands of README.md"


@pytest.mark.campaign  # two minutes
def test_every_command_of_the_readme_runs(clone):
    """In the order of the README, for later commands show what earlier ones made."""
    found = commands()
    recording = next((clone.root / "data/raw").rglob("*_eeg.bdf"))
    words = {"{recording}": str(recording)}
    for command in found:
        if command in BEFORE:
            BEFORE[command](clone)
        if command == "dvc exp apply <name>":
            words["{name}"] = clone("dvc", "exp", "list", "--name-only").split()[0]
        line = ADAPTED[command]
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
    clone.restore()
    clone("git", "checkout", "-q", "-b", "change")
    clone.change({"exec.workers": 2})
    clone("dvc", "repro")
    clone.commit("two workers")


BEFORE = {
    "dvc repro": Clone.restore,  # the experiment before it left the workspace changed
    "dvc exp run --queue -S 'model.size=tiny,small'": Clone.restore,
    "dvc queue start -j 2": leave_two,
    "dvc metrics diff main --md": change_on_a_branch,
}
