"""The report on a branch, and the check of dvc.lock, with the real git and dvc in temporary clones."""

import json
import shutil
import subprocess
import sys

import pytest
from clone import REPOSITORY, Clone

from hbn.reporting import changes, lock

SCRIPT = str(REPOSITORY / "src/report.py")
RESULTS = {
    **{"source": "simulated", "n": {"trials": 336}},
    "test": {
        "pretrained": {
            "nrmse": {"value": 0.7, "low": 0.6, "high": 0.8},
            "pearson_r": {"value": 0.7, "low": 0.65, "high": 0.75},
            "auroc_miss": {"value": 0.9, "low": 0.8, "high": 0.95},
        },
        "from_scratch": {"nrmse": {"value": 0.8}},
        "mean": {"nrmse": {"value": 1.02, "low": 1.0, "high": 1.1}},
    },
}
ROC = "false_positive_rate,true_positive_rate\n0.0,0.0\n{x},0.8\n1.0,1.0\n"


def write(clone: Clone, name: str, text: str) -> None:
    (clone.root / name).parent.mkdir(parents=True, exist_ok=True)
    (clone.root / name).write_text(text)


@pytest.fixture(scope="module")
def branch(tmp_path_factory):
    """A clone on a branch with a changed parameter and changed results."""
    clone = Clone(tmp_path_factory.mktemp("report") / "clone", {})
    write(clone, "metrics/challenge1.json", json.dumps(RESULTS))
    write(clone, "plots/challenge1/roc.csv", ROC.format(x=0.4))
    clone.commit("results")
    clone("git", "checkout", "-q", "-b", "faster")
    clone.change({"challenge1.learning_rate": 0.002})
    changed = json.loads(json.dumps(RESULTS))
    scores = changed["test"]["pretrained"]
    scores["nrmse"] |= {"value": 0.55, "low": 0.5}
    scores["pearson_r"]["value"], scores["auroc_miss"]["value"] = 0.6, 0.91
    changed["test"]["from_scratch"]["nrmse"]["value"] = 0.75
    changed["test"]["mean"]["nrmse"]["value"], changed["n"]["trials"] = 1.03, 300
    write(clone, "metrics/challenge1.json", json.dumps(changed))
    write(clone, "plots/challenge1/roc.csv", ROC.format(x=0.2))
    clone.commit("faster")
    clone(sys.executable, "src/report.py", "--base", "main")
    return clone


def test_the_report_says_what_changed(branch):
    text = (branch.root / "report.md").read_text()
    assert "Main scores: 2 better, 1 worse, 2 of them beyond the 95 % interval" in text
    assert "Other scores: 1 better, 0 worse." in text
    assert "| `challenge1.learning_rate` | 0.001 | 0.002 |" in text
    score = "| challenge1.json | `test.pretrained.{}` | {} | {} | {} |"
    assert score.format("nrmse", "0.7 (0.6 to 0.8) | 0.55 | -0.15", "better", "**yes**") in text
    assert score.format("pearson_r", "0.7 (0.65 to 0.75) | 0.6 | -0.1", "worse", "**yes**") in text
    assert score.format("auroc_miss", "0.9 (0.8 to 0.95) | 0.91 | +0.01", "better", "no") in text
    other, folded = text.split("<details>")[1:]
    assert "`test.from_scratch.nrmse` | 0.8 | 0.75 | -0.05 | better |" in other
    assert "`n.trials` | 336 | 300 | -36 |" in folded
    assert "`test.mean.nrmse`" in folded  # a baseline is neither better nor worse
    assert "`dvc repro` would run:" in text


def test_the_images_are_of_the_plots_that_changed(branch):
    text = (branch.root / "report.md").read_text()
    assert "(report/roc.png)" in text
    images = list((branch.root / "report").iterdir())
    assert [image.name for image in images] == ["roc.png"]
    assert images[0].read_bytes().startswith(b"\x89PNG")
    assert branch("git", "status", "--porcelain") == ""


def test_an_unknown_base_is_an_error_without_traceback(branch):
    output = branch(sys.executable, "src/report.py", "--base", "nowhere", status=1)
    assert "`git merge-base nowhere HEAD` failed" in output
    assert "Traceback" not in output


def test_a_long_report_still_fits_a_comment():
    rows = [
        {"file": "metrics/a.json", "name": f"count.{i}", "old": i, "new": 0, "interval": None, "verdict": ""}
        for i in range(1000)
    ]
    text = changes.score_tables(rows)
    assert len(text) < 20_000
    assert "1000 other numbers" in text
    assert "the first 200" in text


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("test.pretrained.mae_s", 0.2, 0.1, "better"),
        ("validation_loss", 0.2, 0.3, "worse"),
        ("validation_loss_of_zero", 0.2, 0.3, ""),
        ("test.eeg.mean_nrmse", 0.2, 0.1, "better"),
        ("variants.challenge1.fp16.windows_per_s.256", 10, 20, "better"),
        ("variants.challenge1.fp16.p99_ms", 10, 20, "worse"),
        ("challenge1.fp16.size_kb", 10, 20, "worse"),
        ("targets.challenge1.speedup_over_reference_onnx", 10, 20, "better"),
        ("variants.reference.onnx.p99_ms", 10, 20, ""),
        ("challenge1.fp16.accepted", True, False, "worse"),
        ("chosen.challenge1", "fp16", "fp32", ""),
        ("splits.test.trials", 10, 20, ""),
        ("validation_loss", None, 0.3, ""),
    ],
)
def test_directions(name, old, new, expected):
    assert changes.verdict(name, old, new) == expected


PIPELINE = """
stages:
  make:
    cmd: python make.py
    deps: [make.py]
    params: [make.n]
    outs:
      - data/made.txt
      - metrics/made.json: {cache: false}
  use:
    cmd: cp data/made.txt data/used.txt
    deps: [data/made.txt]
    outs: [data/used.txt]
"""
MAKE = """
import json, pathlib
from ruamel.yaml import YAML
n = YAML(typ="safe").load(pathlib.Path("params.yaml"))["make"]["n"]
pathlib.Path("data").mkdir(exist_ok=True)
pathlib.Path("data/made.txt").write_text(str(n))
pathlib.Path("metrics").mkdir(exist_ok=True)
pathlib.Path("metrics/made.json").write_text(json.dumps({"n": n}))
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small pipeline that was run and committed, and then a clone of it without any data."""
    clone = Clone(tmp_path_factory.mktemp("check") / "made", {})
    clone("git", "rm", "-rqf", "src", "params.schema.json")
    for name, text in {"dvc.yaml": PIPELINE, "make.py": MAKE, "params.yaml": "make:\n  n: 1\n"}.items():
        write(clone, name, text)
    clone("dvc", "repro", "-q")
    clone.commit("made")
    bare = Clone.__new__(Clone)
    bare.root, bare.environment = clone.root.parent / "bare", clone.environment
    clone("git", "clone", "-q", str(clone.root), str(bare.root))
    return clone, bare


@pytest.mark.parametrize("which", [0, 1], ids=["with data", "without data"])
def test_the_check_passes_on_what_was_run(small, which):
    assert "dvc.lock matches" in small[which](sys.executable, SCRIPT, "--check")


@pytest.mark.parametrize("which", [0, 1], ids=["with data", "without data"])
@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("make.py", "import json", "import  json", "`make`: make.py modified"),
        ("params.yaml", "n: 1", "n: 2", "`make`: parameter make.n modified"),
        ("dvc.yaml", "cp data", "cp -f data", "`use`: changed command"),
        ("metrics/made.json", "1", "3", "`make`: metrics/made.json modified"),
        ("dvc.lock", "  use:", "  other:", "`use`: "),
    ],
)
def test_the_check_fails_after_an_edit(small, which, name, old, new, message):
    clone = small[which]
    text = (clone.root / name).read_text()
    assert old in text
    write(clone, name, text.replace(old, new, 1))
    assert message in clone(sys.executable, SCRIPT, "--check", status=1)
    clone("git", "checkout", "-q", name)


def test_the_check_fails_when_a_stage_was_not_run_after_the_one_before(small):
    clone = small[1]
    other = clone.root.parent / "other"
    shutil.copytree(small[0].root, other)
    (other / "params.yaml").write_text("make:\n  n: 5\n")
    command = [sys.executable, "-m", "dvc", "repro", "-q", "make"]
    subprocess.run(command, cwd=other, env=clone.environment, check=True)
    for name in ("params.yaml", "dvc.lock", "metrics/made.json"):
        write(clone, name, (other / name).read_text())
    output = clone(sys.executable, SCRIPT, "--check", status=1)
    assert "`use`: data/made.txt is not the one that its stage made" in output
    clone("git", "reset", "-q", "--hard")


def test_the_repository_itself_is_in_order():
    """Nothing but reading: products may be absent."""
    stages = lock.read_lock(REPOSITORY / "dvc.lock")
    assert stages
    assert lock.broken_links(stages) == []
