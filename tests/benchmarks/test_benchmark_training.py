"""The benchmarks of training and learning run on small inputs; how fast and how well is not asked here."""

import importlib.util
import json

import planted
import pytest
from test_benchmarks import last_line

from hbn import params
from hbn.data.dataset import Dataset
from hbn.networks import inference
from hbn.networks.inference import adapted_encoder


def test_training_measures_our_network_and_the_reference_without_a_peer():
    result = last_line("training.py", "--rounds", "1", "--peer-batch", "2", "--without-peer")
    assert result["ratio"] is None
    assert result["ratio_reference"] > 1
    assert 0 < result["share_of_peak"] < 1
    assert {"gpu_windows_per_s_tiny", "gpu_share_of_peak_large"} <= set(result)  # null without a GPU


@pytest.fixture
def small(tmp_path) -> list[str]:
    """Arguments of a learning run of a few steps on a small dataset."""
    dataset = Dataset.open(planted.write(tmp_path, n_participants=12, n_trials=6), 2.0)
    inference.save(tmp_path / "encoder.pt", adapted_encoder(dataset, params.load().model))
    paths = {"data": "data/dataset", "encoder": "encoder.pt", "results": "results.jsonl", "metrics": "fetch"}
    found = [text for name, path in paths.items() for text in (f"--{name}", str(tmp_path / path))]
    (tmp_path / "fetch").mkdir()
    ceiling = {"challenge1_pearson_r": 0.9, "challenge1_nrmse": 0.4, "challenge1_auroc_miss": 0.95}
    (tmp_path / "fetch/R1.json").write_text(json.dumps({"ceiling": ceiling}))
    return [*found, "--minutes", "0.001", "--bootstrap", "10", "--seeds", "1", "--threads", "1"]


def test_learning_compares_and_goes_on_where_it_stopped(small, tmp_path):
    models = ["--models", "pretrained", "from_scratch", "ridge_band_power", "reference", "--fractions", "0.5", "1"]
    written = ["--csv", str(tmp_path / "scores.csv"), "--plot", str(tmp_path / "labels.svg")]
    first = last_line("learning.py", *small, *models, *written)
    assert {"ratio", "lead_pearson_r_low", "gain_pearson_r_50_percent_low", "pearson_r_ridge_band_power"} <= set(first)
    assert first["best_other"] == "reference"
    assert first["share_of_ceiling_pearson_r"] == pytest.approx(first["pearson_r_pretrained"] / 0.9, rel=1e-3)
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert len(lines) == 5  # two of ours with two shares of the labels, one other
    assert (tmp_path / "scores.csv").exists()
    assert "</svg>" in (tmp_path / "labels.svg").read_text()
    assert last_line("learning.py", *small, *models) == first
    assert (tmp_path / "results.jsonl").read_text().splitlines() == lines


@pytest.mark.skipif(not importlib.util.find_spec("braindecode"), reason="braindecode is not installed")
def test_learning_trains_the_networks_of_braindecode(small):
    result = last_line("learning.py", *small, "--models", "EEGNeX", "ShallowFBCSPNet", "EEGConformer")
    assert {"pearson_r_EEGNeX", "pearson_r_ShallowFBCSPNet", "pearson_r_EEGConformer"} <= set(result)
