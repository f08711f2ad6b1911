"""Mutated inputs end in a right result, a counted loss or a refusal in one line (see tests/mutations.py)."""

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from clone import REPOSITORY

LONGEST_S = 120  # of one mutation, which takes a second on an idle machine
MAX_MB = 2000


def results(folder: Path, first: int, last: int) -> list[dict]:
    """What became of the seeds, each in LONGEST_S; a seed that hangs or kills its process is 'wrong'."""
    found = []
    while first < last:
        command = [sys.executable, "tests/mutations.py", str(folder), str(first), str(last)]
        environment = os.environ | {"PYTHONPATH": f"src{os.pathsep}tests"}
        child = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True)
        ended = True
        for line in lines_in_time(child):
            row = json.loads(line)
            ended = "begins" not in row
            first = row["seed"] + ended
            if ended:
                found.append(row)
        status = child.wait()
        if not ended:
            found.append({"seed": first, "outcome": "none", "wrong": [f"it hangs, or the process ends with {status}"]})
            first += 1
        assert ended or found, "the unmutated release is not healthy"
    return found


def lines_in_time(child: subprocess.Popen):
    """The lines of a process, which is killed where one takes too long."""
    last_s = time.monotonic()
    while True:
        ready, _, _ = select.select([child.stdout], [], [], LONGEST_S + last_s - time.monotonic())
        line = child.stdout.readline() if ready else ""
        if not line:
            child.kill()
            return
        yield line
        last_s = time.monotonic()


def workspace_in(folder: Path, deployed: Path) -> Path:
    return Path(shutil.copytree(deployed, folder / "workspace"))


def check(rows: list[dict]) -> None:
    wrong = [row for row in rows if row["wrong"]]
    assert not wrong, json.dumps(wrong, indent=1)
    assert max(row["peak_mb"] for row in rows) < MAX_MB


def test_a_few_mutations(deployed, tmp_path):
    rows = results(workspace_in(tmp_path, deployed), 1000, 1015)
    check(rows)
    assert len(rows) == 15


@pytest.mark.campaign
def test_300_mutations(deployed, tmp_path):
    rows = results(workspace_in(tmp_path, deployed), 0, 300)
    check(rows)
    outcomes = Counter(row["outcome"] for row in rows)
    assert len(rows) == 300
    assert min(outcomes[name] for name in ("same", "samples", "dropped", "refused")) > 5
    assert {row["format"] for row in rows if row["outcome"] == "dropped"} == {row["format"] for row in rows}
