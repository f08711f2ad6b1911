"""`make repro`: one line per stage on a terminal, the exit status of DVC, the scores at the end."""

import json
import os
import pty
import subprocess
import sys

import pytest
from clone import REPOSITORY

# What `dvc repro` writes: a stage that has not changed, a stage with a bar and a warning, a stage of its own.
DVC = r"""#!/usr/bin/env python
import sys, time
if sys.argv[1] == "stage":
    print("check_params\nfetch@R1\nassemble")
    sys.exit()
assert sys.argv[1:] == ["repro", "--force"]
print("Stage 'check_params' didn't change, skipping")
print("Running stage 'fetch@R1':\n> python src/fetch.py R1")
for n in (1, 2):
    print(f"\r\x1b[32mrecordings {n}/2\x1b[0m", end="", file=sys.stderr)
print("\n12:00:00 fetch WARNING 1 recording is missing", file=sys.stderr)
print("Updating lock file 'dvc.lock'\n\nRunning stage 'assemble':\n> python src/assemble.py")
print("12:00:01 assemble INFO detail")
if STATUS:
    print("ERROR: failed to reproduce 'assemble'", file=sys.stderr)
else:
    print("Updating lock file 'dvc.lock'")
print("Use `dvc push` to send your updates to remote storage.")
sys.exit(STATUS)
"""


@pytest.fixture
def repro(tmp_path):
    """Runs src/repro.py beside metrics of one score, with a DVC of a given exit status; returns its output lines."""
    cell = {"value": 0.764, "low": 0.635, "high": 0.865}
    rows = {"pretrained": cell, "mean": {**cell, "value": 0.0}, "age_sex": {**cell, "value": -0.077}}
    metrics = {"source": "simulated", "test": {row: {"pearson_r": value} for row, value in rows.items()}}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/challenge1.json").write_text(json.dumps(metrics))
    timings = {"int8": {"p50_ms": 0.211, "p99_ms": 0.284}}
    benchmark = {"chosen": {"challenge1": "int8"}, "variants": {"challenge1": timings}}
    (tmp_path / "metrics/benchmark.json").write_text(json.dumps(benchmark))
    (tmp_path / ".gitignore").write_text("dvc\n.scratch\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "results"]):
        subprocess.run(["git", "-c", "user.name=A", "-c", "user.email=a@b", *command], cwd=tmp_path, check=True)

    def run(status: int, terminal: bool) -> list[str]:
        (tmp_path / "dvc").write_text(DVC.replace("STATUS", str(status)).replace("/usr/bin/env python", sys.executable))
        (tmp_path / "dvc").chmod(0o755)
        environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100"}
        command = [sys.executable, str(REPOSITORY / "src/repro.py"), "--force"]
        if not terminal:
            done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == status
            return done.stdout.splitlines()
        ours, theirs = pty.openpty()
        with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            output = b""
            while True:
                try:
                    output += os.read(ours, 65536)
                except OSError:
                    break
        os.close(ours)
        assert process.returncode == status
        lines = output.decode().replace("\r\n", "\n").strip().split("\n")
        return [line.rsplit("\x1b[K", 1)[-1] for line in lines]

    return run


def test_a_terminal_gets_one_line_per_stage_and_the_scores(repro, tmp_path):
    lines = repro(status=0, terminal=True)
    assert [line.split()[:-2] for line in lines[1:3]] == [["[", "2/3]", "fetch@R1"], ["[", "3/3]", "assemble"]]
    assert lines[0] == "12:00:00 fetch WARNING 1 recording is missing"
    assert lines[3] == "2 stages ran, 1 up to date; complete output: .scratch/repro.log"
    assert lines[4:7] == [
        "Scores of the test participants (95 % intervals), data: simulated",
        "challenge1.r        0.764 (0.64 to 0.86)  without EEG: age_sex -0.077, mean 0.000",
        "challenge1.latency  0.211 ms (99 %: 0.28 ms)  as int8, batch 1",
    ]
    assert lines[7] == "The results of the last commit"
    assert lines[8].startswith("Next: ")
    assert lines[9] == "Done after 0 s"
    assert "12:00:01 assemble INFO detail" in (tmp_path / ".scratch/repro.log").read_text()


def test_a_stage_that_fails_shows_what_it_wrote(repro):
    lines = repro(status=255, terminal=True)
    assert "ERROR: failed to reproduce 'assemble'" in lines
    assert lines[lines.index("All that assemble wrote:") + 2] == "  12:00:01 assemble INFO detail"
    assert lines[-1] == "Failed after 0 s"
    assert not any("Scores" in line for line in lines)


def test_it_says_when_only_times_differ_from_the_last_commit(repro, tmp_path):
    with open(tmp_path / "metrics/benchmark.json", "a") as file:
        file.write("\n")
    assert "The results of the last commit, with other times of the benchmark" in repro(status=0, terminal=False)
    with open(tmp_path / "metrics/challenge1.json", "a") as file:
        file.write("\n")
    assert not any("last commit" in line for line in repro(status=0, terminal=False))


def test_elsewhere_the_output_of_dvc_is_passed_on(repro):
    lines = repro(status=0, terminal=False)
    assert lines[:2] == ["Stage 'check_params' didn't change, skipping", "Running stage 'fetch@R1':"]
    assert lines[-1] == "Done after 0 s"
    assert repro(status=1, terminal=False)[-1] == "Failed after 0 s"
