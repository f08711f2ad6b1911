"""Deployment: every variant stands beside FP32, the gate holds, files repeat byte for byte."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from clone import REPOSITORY
from conftest import write_tiny_dataset

import benchmark
import predict
import quantize
from hbn import params, stage
from hbn.data import bids, signals
from hbn.data.dataset import DATASET, Dataset
from hbn.deploy import evaluation, export, predictions, runtime, timing, variants
from hbn.files import HbnError, read_csv, read_json, sha256, write_json, write_tsv
from hbn.networks import architecture, inference
from hbn.networks.reference import SHAPE, Reference

P = stage.view(params.load(REPOSITORY / "params.yaml"), ("quantize", "benchmark", "scores", "exec"))
P.scores = P.scores.model_copy(update={"n_bootstrap": 100})
SIZE = {"size": "tiny", "n_spatial_filters": 8, "dropout": 0.1}


@pytest.fixture(scope="module")
def quantized(tmp_path_factory) -> Path:
    """A repository with a dataset and two networks of random weights, after the stage quantize."""
    root = tmp_path_factory.mktemp("repository")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        dataset = Dataset.open(write_tiny_dataset(root), window_s=2.0)
        torch.manual_seed(0)
        encoder = architecture.Encoder(dataset.positions_m, 500, 2.0, *SIZE.values())
        about = {"model": SIZE, "window_s": 2.0, "sfreq_hz": 500.0, "source": "simulated"}
        inference.save(
            "models/challenge1.pt", architecture.ResponseTime(encoder, 2.0, 0.5), **about, trial_offset_s=0.5
        )
        inference.save("models/challenge2.pt", architecture.Factors(encoder, 4, 4), **about, n_regions=4)
        quantize.main(P)
    return root


@pytest.fixture
def workspace(quantized, tmp_path, monkeypatch) -> Path:
    """A copy of it to work in."""
    shutil.copytree(quantized, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def choose(variant: str) -> None:
    write_json("metrics/benchmark.json", {"chosen": {"challenge1": variant, "challenge2": variant}})


def files() -> dict[str, str]:
    return {path.as_posix(): sha256(path) for path in runtime.FOLDER.glob("*/*")}


def only(*variants: str) -> SimpleNamespace:
    """Parameters with these variants alone."""
    return SimpleNamespace(**vars(P) | {"quantize": P.quantize.model_copy(update={"variants": variants})})


def test_every_variant_is_scored_and_files_repeat(workspace):
    first = files()
    report = read_json("metrics/quantize.json")
    assert report["source"] == "simulated"
    for name in ("challenge1", "challenge2"):
        table = report[name]
        assert table["fp32"]["accepted"]
        assert all(abs(drop["value"]) < 1e-3 for drop in table["fp32"]["drop"].values())
        assert not table["bf16"]["accepted"]
        assert "bfloat16" in table["bf16"]["reason"] or "NOT_IMPLEMENTED" in table["bf16"]["reason"]
        for row in table.values():
            assert "reason" in row if not row.get("accepted", True) else row["scores"]
        for variant in ("int8_dynamic", "int8_static"):
            assert table[variant]["size_kb"] < table["fused"]["size_kb"] / 2  # the tiny test network has few weights
    assert {row["variant"] for row in read_csv("plots/quantize.csv")} >= {"pytorch", "fp32", "int8_static"}
    for path in workspace.glob("models/deploy/*/*.onnx"):
        assert str(workspace).encode() not in path.read_bytes()
        assert b"model.py" not in path.read_bytes()
    quantize.main(only("fp32", "int8_static"))
    assert files().items() <= first.items()
    again = read_json("metrics/quantize.json")
    for name in ("challenge1", "challenge2"):
        assert again[name].items() <= report[name].items()


@pytest.mark.parametrize("name", ["challenge1", "challenge2"])
def test_only_layers_of_the_encoder_are_int8(workspace, name):
    """Spectrum, repair of bad channels and read-outs are floating point: their values differ by orders of magnitude."""
    nodes = onnx.load(f"models/deploy/{name}/int8_dynamic.onnx").graph.node
    integer = {n.input[1].removesuffix("_quantized") for n in nodes if n.op_type == "MatMulInteger"}
    floating = {n.input[1] for n in nodes if n.op_type == "MatMul"}
    assert len(integer) >= 6
    assert not {constant for constant in integer if constant.startswith(("fourier", "bands", "regions", "readout"))}
    assert not {constant for constant in integer if "events" in constant}
    assert len(floating) >= (5 if name == "challenge2" else 1)  # of which one repairs


def test_onnx_equals_pytorch_at_any_batch_size(workspace):
    network, _ = inference.load_network("models/challenge1.pt", "challenge1")
    x_uv = 10 * np.random.default_rng(0).normal(size=(5, 129, 1000)).astype(np.float32)
    session = runtime.session("models/deploy/challenge1/fused.onnx", threads=1)
    expected = network(torch.from_numpy(x_uv)).detach().numpy()
    for batch_uv in (x_uv[:1], x_uv):
        output = session.run(None, {runtime.INPUT: batch_uv})[0]
        np.testing.assert_allclose(output, expected[: len(batch_uv)], atol=1e-5)


@pytest.fixture
def judged(workspace):
    """The verdict on outputs that differ from FP32's by `change`."""
    test = evaluation.trial_test(Dataset.open(DATASET, window_s=2.0))
    rng = np.random.default_rng(0)
    good = np.stack([np.nan_to_num(test.y) + rng.normal(size=len(test.y)), np.isnan(test.y) * 1.0], axis=1)
    return lambda change: evaluation.judge(test, good, change(good.copy()), 0.01, P.scores)


def test_the_gate_rejects_a_loss_above_the_limit_and_outputs_that_are_not_finite(judged):
    assert judged(lambda output: output)["accepted"]
    assert judged(lambda output: 2 * output + 1)["accepted"]  # neither r nor AUROC changes
    worse = judged(lambda output: output[::-1])
    assert not worse["accepted"]
    assert "the limit is 0.01" in worse["reason"]
    output_lost = judged(lambda output: np.where(np.arange(len(output))[:, None] == 2, np.nan, output))
    assert output_lost == {"accepted": False, "reason": f"2 of {2 * 24} outputs are not finite"}


def test_one_variant_that_cannot_be_made_does_not_stop_the_others(quantized, workspace, monkeypatch):
    def broken():
        raise RuntimeError("no such operator\nand a long trace")

    def exported(network, shape, dtype=torch.float32):
        name = {architecture.ResponseTime: "challenge1", architecture.Factors: "challenge2"}[type(network)]
        return onnx.load(f"{quantized}/models/deploy/{name}/fp32.onnx")

    makers = variants.makers
    monkeypatch.setattr(export, "export", exported)  # again would take long and give the same
    monkeypatch.setattr(variants, "makers", lambda *a: makers(*a) | {"fused": broken})
    monkeypatch.setattr(Dataset, "split_windows", lambda self, split: self.windows[:0])
    quantize.main(only("fp32", "fused", "int8_static"))
    table = read_json("metrics/quantize.json")["challenge1"]
    assert table["fused"] == {"accepted": False, "reason": "cannot run here: no such operator"}
    assert table["int8_static"]["reason"] == "cannot run here: no window of a training participant for calibration"
    assert table["fp32"]["accepted"]


def test_predictor_at_any_rate(workspace):
    choose("fp32")
    predictor = runtime.Predictor()
    assert (predictor.window_s, predictor.sfreq_hz, predictor.trial_offset_s) == (2.0, 500.0, 0.5)
    # Sines of whole periods below 20 Hz: the same signal at every rate.
    phase = np.random.default_rng(0).uniform(0, 6, size=(129, 20))

    def window_uv(sfreq_hz):
        t = np.arange(round(2 * sfreq_hz)) / sfreq_hz
        return np.sin(2 * np.pi * t * np.arange(1, 21)[:, None] + phase[:, :, None]).sum(1) * 5

    expected = predictor(window_uv(500), 500)
    assert set(expected.factors) == {"p_factor", "attention", "internalizing", "externalizing"}
    assert 0 < expected.p_miss < 1
    for sfreq_hz in (250, 256, 1000, 1024):
        other = predictor(window_uv(sfreq_hz), sfreq_hz)
        assert other.rt_s == pytest.approx(expected.rt_s, abs=0.02)
        assert other.p_miss == pytest.approx(expected.p_miss, abs=0.02)
    for wrong, sfreq_hz in ((window_uv(500)[:100], 500), (window_uv(500), 250), (window_uv(500)[None], 500)):
        with pytest.raises(HbnError, match=r"a window is \(129 channels"):
            predictor(wrong, sfreq_hz)
    with pytest.raises(HbnError, match="NaN"):
        predictor(window_uv(500) * np.nan, 500)


def test_benchmark_chooses_the_fastest_accepted_variant_and_measures_the_reference(workspace, monkeypatch):
    verdicts = read_json("metrics/quantize.json")
    for name in ("challenge1", "challenge2"):
        verdicts[name] = {v: verdicts[name][v] for v in ("pytorch", "fp32", "int8_dynamic", "bf16")}
        verdicts[name]["int8_dynamic"]["accepted"] = name == "challenge1"
    write_json("metrics/quantize.json", verdicts)
    quick = P.benchmark.model_copy(update={"n_runs": 10, "warmup_runs": 1, "batch_sizes": [1, 2]})
    monkeypatch.setattr(timing, "ROUNDS", 2)
    monkeypatch.setattr(timing, "windows_per_s", lambda call, shape, size: len(call(timing.noise_uv(size, shape))))
    benchmark.main(SimpleNamespace(benchmark=quick, exec=P.exec))
    report = read_json("metrics/benchmark.json")
    assert report["source"] == "simulated"
    for name in ("challenge1", "challenge2"):
        rows = report["variants"][name]
        accepted = {v: rows[v]["p50_ms"] for v in ("fp32", "int8_dynamic") if verdicts[name][v]["accepted"]}
        assert report["chosen"][name] == min(accepted, key=accepted.get)
        assert "bf16" not in rows
        assert rows["fp32"]["memory_mb"] > 0
        assert report["targets"][name]["within_budget"]
        assert report["targets"][name]["speedup_over_reference_pytorch"] > 5
    assert report["variants"]["reference"]["pytorch"]["size_kb"] == pytest.approx(541_442 * 4 / 1e3)
    assert {row["operator"] for row in read_csv("plots/benchmark_profile.csv")} >= {"MatMul", "LayerNormalization"}
    reference = sha256("models/reference.onnx")
    torch.manual_seed(quick.seed)
    export.write(export.export(Reference().eval(), SHAPE), "again.onnx")
    assert sha256("again.onnx") == reference


def test_predictor_says_what_to_run_first(workspace):
    with pytest.raises(HbnError, match="dvc repro benchmark"):
        runtime.Predictor()
    choose("int8_dynamic")
    Path("models/deploy/challenge2/int8_dynamic.onnx").unlink()
    with pytest.raises(HbnError, match="dvc repro quantize"):
        runtime.Predictor()


def test_predict_prints_trials_or_windows(workspace, monkeypatch, capsys):
    choose("int8_static")
    rng = np.random.default_rng(0)
    smooth = architecture.smooth_components(torch.from_numpy(bids.electrode_positions_m()).float(), 20).numpy()
    data_uv = (smooth @ rng.normal(size=(20, 6000)) + 0.05 * rng.normal(size=(129, 6000))).astype(np.float32)
    data_uv *= 30  # 30 s at 200 Hz
    monkeypatch.setattr(predictions.signals, "read_signal", lambda path: signals.Signal(data_uv, 200.0))
    p = stage.view(params.load(REPOSITORY / "params.yaml"), ("preprocess", "exec"))
    stem = "sub-A_task-contrastChangeDetection_run-1"
    Path(f"{stem}_eeg.set").touch()

    predict.main(p, f"{stem}_eeg.set")
    printed = capsys.readouterr().out
    assert "not a medical device" in printed
    assert "30.0 s" in printed
    assert printed.count(" s ") >= 14  # a row per window
    events = [(1, "contrastChangeB1_start"), (2, "contrastTrial_start"), (5, "left_target"), (6.5, "left_buttonPress")]
    events += [(8, "contrastTrial_start"), (11, "right_target"), (14, "contrastTrial_start"), (28.9, "left_target")]
    events += [(29.9, "contrastTrial_start")]  # or the table would be cut within a trial
    rows = [
        {"onset": s, "value": value, "feedback": "smiley_face" if "Press" in value else None} for s, value in events
    ]
    write_tsv(f"{stem}_events.tsv", rows, ["onset", "value", "feedback"])
    predict.main(p, f"{stem}_eeg.set")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if " left " in line or " right " in line]
    expected = [["5.0", "s", "left", "1.50"], ["11.0", "s", "right", "none"], ["28.9", "s", "left", "none"]]
    assert [line[:4] for line in lines] == expected
    assert lines[2][4:] == ["no", "prediction:", "after", "the", "end"]
    predict.main(p, ".", "--csv", "rows.csv")
    assert [row["side"] for row in read_csv("rows.csv")] == ["left", "right", "left"]
    assert float(read_csv("rows.csv")[0]["rt_s"]) > 0
    assert read_csv("rows.csv")[2]["not_used"] == "after the end"
    capsys.readouterr()
    predict.main(p, f"{stem}_eeg.set", "--json")
    assert json.loads(capsys.readouterr().out)[0]["rows"][0]["true_rt_s"] == pytest.approx(1.5)
    (workspace / "x.txt").touch()
    for wrong, message in (("absent", "does not exist"), ("x.txt", "is no recording"), ("models", "no recording")):
        with pytest.raises(HbnError, match=message):
            predict.main(p, wrong)
