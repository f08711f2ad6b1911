"""What TensorBoard's own reader finds in the event files of src/board.py."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from clone import REPOSITORY
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

import board
from hbn.files import write_csv, write_json

STEPS = [(25, 4.5, 4.1), (50, 4.0, 3.9), (75, 3.5, 3.8)]


@pytest.fixture
def repository(workspace) -> Path:
    """A git repository with parameters, and nothing trained yet."""
    shutil.copy(REPOSITORY / "params.yaml", workspace)
    git("init", "-q")
    git("add", ".")
    git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qm", "start")
    return workspace


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, capture_output=True, text=True).stdout.strip()


def write_run(root: Path, steps: list, nrmse: float | None = None) -> None:
    """A run's training curve and, when it is finished, its score."""
    rows = [dict(zip(("step", "train", "validation"), step, strict=True)) for step in steps]
    write_csv(root / "plots/challenge1/curve_pretrained.csv", rows, list(rows[0]))
    if nrmse:
        write_json(root / "metrics/challenge1.json", {"test": {"pretrained": {"nrmse": {"value": nrmse}}}})


def curve(folder: Path, column: str = "validation") -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder)).Reload().Scalars(f"challenge1/curve_pretrained/{column}")
    return [(event.step, pytest.approx(event.value)) for event in events]


def test_curves_grow_with_the_run_and_start_anew_with_it(repository):
    runs, finished, out = {}, set(), repository / "board"
    for n in (1, 3):
        write_run(repository, STEPS[:n])
        board.mirror(runs, finished, out)
        assert curve(out / "workspace") == [(step, validation) for step, _, validation in STEPS[:n]]
    files = sorted(out.rglob("*"))
    board.mirror(runs, finished, out)
    assert sorted(out.rglob("*")) == files
    assert curve(out / "workspace", "train") == [(step, train) for step, train, _ in STEPS]
    write_run(repository, [(25, 9.0, 8.0)])  # a stage that runs again
    board.mirror(runs, finished, out)
    assert curve(out / "workspace") == [(25, 8.0)]


def test_scores_stand_beside_the_parameters(repository):
    write_run(repository, STEPS, nrmse=0.66)
    board.mirror({}, set(), repository / "board")
    events = EventAccumulator(str(repository / "board/workspace")).Reload()
    assert events.Scalars("score/challenge1.nrmse")[0].value == pytest.approx(0.66)
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = HParamsPluginData.FromString(content).session_start_info
    assert start.hparams["challenge1.batch_size"].number_value == 64
    assert start.hparams["model.size"].string_value == "tiny"


def test_experiments_are_runs_while_they_run_and_when_they_are_finished(repository):
    running = repository / "elsewhere"
    shutil.copytree(repository, running, ignore=shutil.ignore_patterns(".git"))
    write_run(running, STEPS[:2])
    about = {"root_dir": str(running), "name": "bold-newt"}
    (repository / ".dvc/tmp/exps/run/abc").mkdir(parents=True)
    (repository / ".dvc/tmp/exps/run/abc/abc.run").write_text(json.dumps(about))
    runs, finished, out = {}, set(), repository / "board"
    board.mirror(runs, finished, out)
    assert curve(out / "bold-newt") == [(step, validation) for step, _, validation in STEPS[:2]]

    write_run(repository, STEPS, nrmse=0.5)
    git("add", "-A", "plots", "metrics")
    tree = git("write-tree")
    commit = git("-c", "user.name=a", "-c", "user.email=a@example.org", "commit-tree", tree, "-p", "HEAD", "-m", "x")
    start = git("rev-parse", "HEAD")
    git("update-ref", f"refs/exps/{start[:2]}/{start[2:]}/bold-newt", commit)
    git("update-ref", "refs/exps/exec/EXEC_HEAD", commit)
    shutil.rmtree(running)
    board.mirror(runs, finished, out)
    assert curve(out / "bold-newt") == [(step, validation) for step, _, validation in STEPS]
    assert {path.name for path in out.iterdir()} == {"workspace", "bold-newt"}
