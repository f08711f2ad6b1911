"""The challenge's zip: runs by itself, predicts what the pipeline does, same bytes each time."""

import ast
import importlib.util
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from clone import REPOSITORY
from ruamel.yaml import YAML

import submission
from hbn import params, stage
from hbn.data.dataset import Dataset
from hbn.deploy import as_distributed, challenge_zip, zip_run
from hbn.files import HbnError, read_json, sha256
from hbn.networks import architecture, inference
from hbn.sources.simulated import write_set

P = stage.view(params.load(REPOSITORY / "params.yaml"), ("challenge2.ridge_alphas", "scores", "exec"))
P.scores = P.scores.model_copy(update={"n_bootstrap": 20})
SIZE = {"size": "tiny", "n_spatial_filters": 8, "dropout": 0.1}


@pytest.fixture
def repository(tiny_dataset, tmp_path, monkeypatch) -> Path:
    """A repository with an average-referenced dataset at 500 Hz, its recordings, and two networks of random weights."""
    monkeypatch.chdir(tmp_path)
    for path in tiny_dataset.rglob("sub-*.npy"):
        signal = np.load(path).astype(np.float32)  # (T, C)
        np.save(path, (signal - signal.mean(1, keepdims=True)).astype(np.float16))
        folder = Path("data/raw/R1") / path.parent.name / "eeg"
        folder.mkdir(parents=True)
        write_set(folder / f"{path.stem}_eeg.set", ((signal - signal[:, [128]]) / 64).T, sfreq_hz=500)
    save_networks(window_s=2.0)
    return tmp_path


@pytest.fixture
def zipped(monkeypatch):
    """The module submission.py of the zip, which finds the network module beside it there."""
    monkeypatch.setitem(sys.modules, "architecture", architecture)
    spec = importlib.util.spec_from_file_location("zipped", REPOSITORY / "src/hbn/deploy/submission.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def save_networks(window_s: float) -> None:
    dataset = Dataset.open("data/dataset", window_s)
    torch.manual_seed(0)
    encoder = architecture.Encoder(dataset.positions_m, 500, window_s, *SIZE.values())
    about = {"model": SIZE, "window_s": window_s, "sfreq_hz": 500.0, "source": "simulated"}
    inference.save(
        "models/challenge1.pt", architecture.ResponseTime(encoder, window_s, 0.5), **about, trial_offset_s=0.5
    )
    inference.save("models/challenge2.pt", architecture.Factors(encoder, 4, 4), **about, n_regions=4)


def test_the_stage_scores_the_unpacked_zip_and_repeats_its_bytes(repository):
    submission.main(P)
    report, before = read_json("metrics/submission.json"), sha256(submission.ZIP)
    assert report["source"] == "simulated"
    assert report["challenge1"]["n"] == {"participants": 3, "predictions": 18}
    assert report["challenge2"]["n"] == {"participants": 3, "predictions": 3 * 28}
    for name in challenge_zip.NAMES:
        loss = report[name]["nrmse"]["value"] - report[name]["nrmse_of_pipeline"]["value"]
        assert report[name]["loss_as_distributed"]["value"] == pytest.approx(loss, abs=1e-5)
    rows = [report[name]["nrmse"]["value"] for name in challenge_zip.NAMES]
    assert report["overall"]["nrmse"] == pytest.approx(0.3 * rows[0] + 0.7 * rows[1], rel=1e-4)
    with zipfile.ZipFile(submission.ZIP) as archive:
        assert archive.namelist() == ["submission.py", "architecture.py", "challenge1.pt", "challenge2.pt"]
        texts = [archive.read(name).decode() for name in ("submission.py", "architecture.py")]
    imported = set()
    for node in ast.walk(ast.parse("\n".join(texts))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) <= {"torch", "architecture"}
    submission.main(P)
    assert sha256(submission.ZIP) == before
    assert read_json("metrics/submission.json") == report


def test_it_is_the_pipelines_network_at_every_batch_size_reference_and_unit(repository, zipped):
    dataset = Dataset.open("data/dataset", 2.0)
    x_uv = dataset.batch_uv(dataset.windows[:5])
    for name in challenge_zip.NAMES:
        saved = inference.load_file(f"models/{name}.pt", made_by=name)
        column = challenge_zip.OUTPUTS[name]
        with torch.inference_mode():
            expected = architecture.rebuild(saved, 500)(x_uv - x_uv.mean(1, keepdim=True))[:, column : column + 1]
            module = zipped.OneOutput(architecture.rebuild(saved, 100), column)
            recorded = challenge_zip.as_recorded(x_uv, step=5)
            assert recorded.shape == (5, 129, 200)
            assert not recorded[:, 128].any()
            for x in (recorded, 1e-6 * recorded, recorded + 7):
                torch.testing.assert_close(module(x), expected, atol=1e-4, rtol=0)
            torch.testing.assert_close(module(recorded[:1]), expected[:1], atol=1e-4, rtol=0)
            assert module(torch.zeros(1, *challenge_zip.SHAPE)).isfinite().all()


def test_windows_as_distributed_are_those_of_the_recording_at_100_hz(repository):
    """Sines below 45 Hz: at 500 Hz filtered and resampled, at 100 Hz as they are, a dead channel included."""
    rng = np.random.default_rng(3)
    hz, phase = rng.uniform(2, 40, size=(2, 129, 1))
    files = sorted(Path("data/raw").rglob("*.set"))
    for path, sfreq_hz in zip(files, (500, 100, 500, 100, 500, 100), strict=True):
        times_s = np.arange(30 * sfreq_hz) / sfreq_hz
        data_uv = 20 * np.sin(2 * np.pi * hz * times_s + phase)
        data_uv[[7, 128]] = 0
        write_set(path, data_uv.astype(np.float32), sfreq_hz)
    dataset = Dataset.open("data/dataset", 2.0)
    windows = dataset.windows[::5]
    rows = as_distributed.contrast_windows(dataset, windows)
    assert rows.tolist() == list(range(len(windows)))
    found_uv = np.concatenate(list(as_distributed.batches(dataset, windows)))
    times_s = windows[:, 1, None, None] / 500 + np.arange(200) / 100
    expected_uv = 20 * np.sin(2 * np.pi * hz * times_s + phase)
    expected_uv[:, [7, 128]] = 0
    inside = (windows[:, 1] >= 2000) & (windows[:, 1] <= 12_000)  # away from the edges of the filter
    np.testing.assert_allclose(found_uv[inside], expected_uv[inside], atol=0.1)
    files[0].unlink()
    with pytest.raises(HbnError, match="is in the dataset but not below"):
        list(as_distributed.batches(dataset, windows))


def test_nothing_stays_on_the_cpu(repository, zipped):
    for name in challenge_zip.NAMES:
        saved = inference.load_file(f"models/{name}.pt", made_by=name)
        module = zipped.OneOutput(architecture.rebuild(saved, 100), challenge_zip.OUTPUTS[name]).to("meta")
        assert module(torch.zeros(2, *challenge_zip.SHAPE, device="meta")).shape == (2, 1)


def test_every_fifth_sample_of_a_band_limited_upsampling_is_the_sample_itself():
    x = torch.randn(3, 200, dtype=torch.float64)
    spectrum = torch.fft.rfft(x)
    spectrum[:, -1] /= 2  # half the rate stands for both signs
    up = 5 * torch.fft.irfft(spectrum, n=1000)
    torch.testing.assert_close(up[:, ::5], x)


def test_another_rate_is_refused(zipped):
    assert zipped.Submission(100, "cpu")
    with pytest.raises(ValueError, match="100 Hz, SFREQ is 500"):
        zipped.Submission(500, "cpu")


def test_a_submission_that_fails_or_differs_stops_the_stage(repository, monkeypatch):
    code = challenge_zip.code()
    text = code["submission.py"].decode()
    different = text.replace("x_uv - x_uv.mean(dim=1, keepdim=True)", "x_uv.flip(1)")
    assert different != text
    for changed, message in (
        ("import hbn\n" + text, "No module named 'hbn'"),
        (different, "differs from the pipeline"),
    ):
        broken = code | {"submission.py": changed.encode()}
        with monkeypatch.context() as patch:
            patch.setattr(challenge_zip, "code", lambda broken=broken: broken)
            with pytest.raises(HbnError, match=message):
                submission.main(P)
    with pytest.raises(HbnError, match="differs from the pipeline"):
        zip_run.check("challenge1", np.array([np.nan]), np.array([1.0]))


def test_the_zip_names_the_outputs_of_the_pipeline(zipped):
    assert zipped.OUTPUTS == challenge_zip.OUTPUTS


def test_other_windows_make_an_empty_zip_and_a_reason(repository):
    save_networks(window_s=1.0)
    submission.main(P)
    assert "windows.window_s is 1" in read_json("metrics/submission.json")["reason"]
    with zipfile.ZipFile(submission.ZIP) as archive:
        assert archive.namelist() == []


@pytest.mark.parametrize("stage_name", ["submission", "quantize", "benchmark"])
def test_a_changed_training_loop_does_not_rerun_a_stage_that_trains_nothing(stage_name):
    stages = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]
    assert "src/hbn/training/loop.py" in stages["challenge1"]["deps"]
    assert not [dep for dep in stages[stage_name]["deps"] if dep.startswith("src/hbn/training/")]
