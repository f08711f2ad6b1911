"""The model card of a file, and the models as DVC artifacts, with the real dvc in a temporary repository."""

import json
import shutil
import sys

import pytest
import torch
from clone import REPOSITORY, Clone
from ruamel.yaml import YAML

from hbn.networks import inference

SCRIPT = str(REPOSITORY / "src/describe.py")
SCORE = {"value": 0.741, "low": 0.63, "high": 0.82}
FEW = {"n": {"participants": 2}, "reason": "few"}
METRICS = {
    **{"source": "simulated", "n": {"participants": 14}},
    "comparisons": {"eeg_over_age_sex.pearson_r": SCORE | {"p": 0.002, "p_holm": 0.004, "verdict": "better"}},
    "groups": {"sex": {"pearson_r": {"F": {"n": {"participants": 9}, **SCORE}, "M": FEW}}},
    "test": {"mean": {"pearson_r": SCORE | {"value": 0.0}}, "pretrained": {"pearson_r": SCORE}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A repository whose stages 'make' the three models by copying them, with the real artifacts."""
    clone = Clone(tmp_path_factory.mktemp("describe") / "made", {})
    artifacts = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["artifacts"]
    stages = {}
    for name, artifact in artifacts.items():
        stem = artifact["path"].split("/")[1]
        about = {"model": {"size": "tiny"}, "window_s": 2.0, "source": "https://example.org/R1"}
        inference.save(clone.root / "made" / stem, torch.nn.Linear(3, 2), **about)
        (clone.root / f"made/{name}.json").write_text(json.dumps(METRICS))
        stages["pretrain" if name == "encoder" else name] = {
            "cmd": f"cp made/{stem} {artifact['path']}; cp made/{name}.json metrics/{name}.json",
            **{"deps": [f"made/{stem}"], "params": ["model", "windows.window_s"], "outs": [artifact["path"]]},
            "metrics": [{f"metrics/{name}.json": {"cache": False}}],
        }
    YAML().dump({"stages": stages, "artifacts": artifacts}, clone.root / "dvc.yaml")
    clone("mkdir", "models", "metrics")
    clone("dvc", "repro", "-q")
    clone.commit("made")
    for name in artifacts:
        clone("gto", "register", name, "--version", "v0.1.0")
    return clone


@pytest.mark.parametrize("name", ["encoder", "challenge1", "challenge2"])
def test_artifacts_can_be_fetched_and_described(made, name, tmp_path):
    elsewhere = str(tmp_path / f"{name}.pt")
    made("dvc", "artifacts", "get", str(made.root), name, "-o", elsewhere)
    text = made(sys.executable, SCRIPT, elsewhere)
    assert text.startswith(f"# {name}\n")
    assert f"Git commit: {made('git', 'rev-parse', 'HEAD').strip()}\n" in text
    assert "Data source: https://example.org/R1\n" in text
    assert "CC BY-SA 4.0" in text
    assert f"MD5 of `made/{name}.pt`" in text
    assert "- windows.window_s: 2.0" in text
    assert "| pearson_r | 0.74 (0.63 to 0.82) | 0.00 (0.63 to 0.82) |" in text
    assert "| eeg_over_age_sex.pearson_r | 0.74 (0.63 to 0.82) | better |" in text
    assert "| sex | F | 9 | pearson_r | 0.74 (0.63 to 0.82) |" in text
    assert "| sex | M | 2 | pearson_r | few |" in text
    assert "Not a medical device" in text
    assert "minors" in text


def test_the_commit_is_one_whose_lock_names_the_file(made, tmp_path_factory):
    """Later commits without a new lock do not count, nor do results that are not committed."""
    clone = made.copy(tmp_path_factory.mktemp("commit") / "clone")
    locked = clone("git", "rev-parse", "HEAD").strip()
    (clone.root / "notes.txt").write_text("no results")
    clone.commit("notes")
    describe = sys.executable, SCRIPT, "models/challenge1.pt"
    assert f"- Git commit: {locked}\n" in clone(*describe)

    inference.save(clone.root / "made/challenge2.pt", torch.nn.Linear(4, 2), source="simulated")
    clone("dvc", "exp", "run", "-q", "-n", "other")
    clone("git", "reset", "-q", "--hard")
    clone("dvc", "exp", "apply", "other")
    assert f"- Git commit: {locked}\n" in clone(*describe)  # the lock has changed, but not about this file
    assert "- Git commit: none, " in clone(*describe[:2], "models/challenge2.pt")
    clone.commit("another challenge 2")
    head = clone("git", "rev-parse", "HEAD").strip()
    assert f"- Git commit: {head}\n" in clone(*describe[:2], "models/challenge2.pt")


def test_a_file_of_another_run_gets_no_scores(made):
    path = made.root / "models/other.pt"
    inference.save(path, torch.nn.Linear(2, 2), source="simulated")
    output = made(sys.executable, SCRIPT, str(path), status=1)
    assert "is not what dvc.lock records" in output
    assert "Traceback" not in output
    path.unlink()
    assert "run `dvc repro pretrain`" in made(sys.executable, SCRIPT, "nowhere/encoder.pt", status=1)


def test_metrics_without_participants_are_listed(made, tmp_path):
    metrics, kept = made.root / "metrics/encoder.json", tmp_path / "kept.json"
    shutil.copy(metrics, kept)
    metrics.write_text(json.dumps({"validation_loss": 0.25, "windows": {"train": 10}}))
    text = made(sys.executable, SCRIPT, "models/encoder.pt")
    assert "- validation_loss: 0.25\n- windows.train: 10" in text
    shutil.copy(kept, metrics)


def test_artifacts_are_outputs_of_the_pipeline():
    content = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")
    outs = {out for stage in content["stages"].values() for out in stage["outs"] if isinstance(out, str)}
    assert {artifact["path"] for artifact in content["artifacts"].values()} <= outs
    assert {artifact["type"] for artifact in content["artifacts"].values()} == {"model"}
