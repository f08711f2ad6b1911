"""The sweep file, the queue, the table and applying the best run, with the real dvc and quick stages."""

import json
import sys
import time

import pytest
from clone import REPOSITORY, Clone
from ruamel.yaml import YAML

from hbn.reporting.experiments import SCORES, by_score

# Stands for the training: the best learning rate is 0.002, and a large one fails.
TRAIN = """
import json, pathlib, sys
from ruamel.yaml import YAML
p = YAML(typ="safe").load(pathlib.Path("params.yaml"))
rate = p["pretrain"]["learning_rate"]
if rate > 0.5:
    sys.exit("the loss is not finite")
path = pathlib.Path(f"metrics/{sys.argv[1]}.json")
path.parent.mkdir(exist_ok=True)
score = {"nrmse": {"value": 0.5 + abs(rate - 0.002)}, "mean_nrmse": {"value": 0.9}}
path.write_text(json.dumps({"test": {"pretrained": score, "eeg": score}}))
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(
        tmp_path_factory.mktemp("experiments") / "clone", {"exec.workers": 1, "pretrain.learning_rate": 0.001}
    )
    clone.environment["COLUMNS"] = "100"
    (clone.root / "train.py").write_text(TRAIN)
    stages = {
        name: {
            **{"cmd": f"python train.py {name}", "deps": ["train.py"], "params": ["pretrain", "model"]},
            "metrics": [{f"metrics/{name}.json": {"cache": False}}],
        }
        for name in ("challenge1", "challenge2")
    }
    YAML().dump({"stages": stages}, clone.root / "dvc.yaml")
    clone("dvc", "repro", "-q")
    clone.commit("made")
    return clone


def table(clone: Clone, *arguments: str) -> list[list[str]]:
    lines = clone(sys.executable, str(REPOSITORY / "src/table.py"), *arguments).splitlines()
    return [line.split() for line in lines]


def test_the_sweep_queues_every_combination(clone):
    clone("sweeps/pretraining.sh", "-S", "pretrain.steps=500")
    shown = json.loads(clone("dvc", "exp", "show", "--json"))
    runs = [e for one in shown for e in one["experiments"] or []]
    params = [e["revs"][0]["data"]["params"]["params.yaml"]["data"] for e in runs]
    tried = {(p["pretrain"]["learning_rate"], p["pretrain"]["event_sd_s"], p["model"]["size"]) for p in params}
    assert len(runs) == len(tried) == 18
    assert {p["pretrain"]["steps"] for p in params} == {500}
    clone("dvc", "queue", "remove", "--queued")


def test_a_sweep_from_the_queue_to_the_best_run(clone):
    for rate in ("0.003", "0.0019", "0.9"):
        clone("dvc", "exp", "run", "--queue", "-S", f"pretrain.learning_rate={rate}", "challenge1", "challenge2")
    clone("dvc", "queue", "start", "-j", "2")
    while "Running" in (shown := clone("dvc", "queue", "status")) or "Queued" in shown:
        time.sleep(1)
    lines = table(clone)
    assert lines[0] == ["challenge1.", "challenge2."]
    assert lines[1] == ["experiment", "commit", "state", "nrmse", "nrmse", "changed", "parameters"]
    assert lines[2][2:] == ["0.500", "0.900", "pretrain.learning_rate=0.0019"]
    (failed,) = [line for line in lines if "failed" in line]
    assert failed[2:] == ["failed", "pretrain.learning_rate=0.9"]  # no score, least of all its commit's
    clone("dvc", "exp", "apply", lines[2][0])
    assert YAML(typ="safe").load(clone.root / "params.yaml")["pretrain"]["learning_rate"] == 0.0019
    assert clone.metrics("challenge1")["test"]["pretrained"]["nrmse"]["value"] == pytest.approx(0.5001)


def test_a_run_that_scores_nothing_is_told_from_one_with_a_score_of_its_own(clone):
    clone("git", "reset", "-q", "--hard")
    clone("dvc", "exp", "run", "-q", "--name", "idle", "-S", "exec.workers=2")
    clone("git", "reset", "-q", "--hard")
    clone("git", "commit", "-q", "--allow-empty", "-m", "no change")
    lines = {line[0]: line for line in table(clone)}
    commit = clone("git", "rev-parse", "--short=7", "HEAD~1").strip()
    assert lines["idle"][1:5] == [commit, "same", "scores", "0.501"]
    assert lines["workspace"][:3] == ["workspace", "workspace", "0.501"]
    assert lines[commit][1] == commit  # the name of a commit without a branch
    assert lines["main"][2] == "0.501"


def test_a_wrong_score_is_named_with_those_there_are(clone):
    output = clone(sys.executable, str(REPOSITORY / "src/table.py"), "nrmse", status=1)
    assert "nrmse is no score; choose one of challenge1.nrmse" in output


def test_the_scores_of_the_table_are_those_of_the_pipeline():
    for file, key in SCORES.values():
        content = json.loads((REPOSITORY / file).read_text())
        for part in key.split("."):
            content = content[part]
        assert isinstance(content, float)


def test_best_is_low_or_high_as_the_score_has_it():
    rows = [{"challenge1.nrmse": x, "challenge1.r": x} for x in (0.5, None, 0.7, 0.3)]
    assert [row["challenge1.nrmse"] for row in by_score(rows, "challenge1.nrmse")] == [0.3, 0.5, 0.7, None]
    assert [row["challenge1.r"] for row in by_score(rows, "challenge1.r")] == [0.7, 0.5, 0.3, None]
