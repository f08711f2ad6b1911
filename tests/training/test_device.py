"""A run survives whatever a device does to its probe, and several processes train as one does.

There is no GPU here: the probe runs in its own process for real, with the CPU as the device and with steps that
misbehave.
"""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import planted
import psutil  # which DVC needs itself
import pytest
import torch
from clone import REPOSITORY
from ruamel.yaml import YAML

import challenge1
import pretrain
from hbn import params
from hbn.data import bids
from hbn.data.dataset import DATASET, Dataset
from hbn.files import HbnError, read_csv
from hbn.networks import architecture, pretraining
from hbn.training import device, probe
from hbn.training.event_windows import EventWindows
from hbn.training.response_time import trial_loss

CPU = torch.device("cpu")
# A program that walks the probe's steps, the second of which is replaced.
WALK = """
import os, signal, sys
import torch
from hbn.training import probe
probe.STEPS["tensors"] = lambda device: {harm}
probe.walk(torch.device(sys.argv[1]))
"""
# The same as seen from outside, without the seconds that PyTorch takes to start.
SEEN = """
import os, sys
for step in ("detect", "tensors"):
    print("probe step: " + step, flush=True)
{harm}
"""
HARMS = [
    (WALK, "os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
    (WALK, "probe.compare('a sum', torch.ones(2), torch.tensor([1, 1.1]), 1e-3)", "a sum is off by 0.1 of"),
    (SEEN, "os._exit(0)", "ended with status 0"),
    (SEEN, "sys.exit('out of memory')", "out of memory"),
]


@pytest.mark.parametrize(("program", "harm", "said"), HARMS)
def test_a_step_that_misbehaves_is_named(tmp_path, program, harm, said):
    (tmp_path / "walk.py").write_text(program.format(harm=harm))
    failure = device.first_failure(CPU, (str(tmp_path / "walk.py"),))
    assert failure.startswith("the probe of cpu failed in its step 'tensors': ")
    assert said in failure


def runs(pid: int) -> bool:
    """Whether there is such a process, other than one that nobody has asked about its end."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_step_that_hangs_is_named_and_ended_with_all_it_started(tmp_path):
    harm = "os.system(f'echo $$ > {sys.path[0]}/pid; exec sleep 1000')"
    (tmp_path / "walk.py").write_text(SEEN.format(harm=harm))
    failure = device.first_failure(CPU, (str(tmp_path / "walk.py"),), limit_s=6)
    assert failure == "the probe of cpu failed in its step 'tensors': not done after 6 s"
    started, end = int((tmp_path / "pid").read_text()), time.monotonic() + 10
    while runs(started) and time.monotonic() < end:
        time.sleep(0.05)
    assert not runs(started)


def test_a_gpu_that_fails_its_probe_is_left_alone(monkeypatch, caplog):
    """As if the driver listed a GPU that CUDA then cannot use."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = "the probe of cuda:0 failed in its step 'detect': "
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that what is set is put back
    with pytest.raises(HbnError, match=said) as failed:
        device.choose("cuda")
    monkeypatch.setattr(device, "first_failure", lambda gpu: str(failed.value))
    with caplog.at_level(logging.WARNING):
        assert device.choose("auto") == CPU
    assert "going on with the CPU" in caplog.text
    assert said in caplog.text


def test_a_machine_without_a_gpu_starts_no_probe(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert device.choose("auto") == device.choose("cpu") == CPU
    with pytest.raises(HbnError, match=r"exec\.device is cuda, but PyTorch sees no CUDA device"):
        device.choose("cuda")


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> None:
    """A folder with a small dataset and parameters for a few steps, as the current one.

    Without dropout, whose draws differ between devices and processes.
    """
    planted.write(tmp_path, n_participants=12, n_trials=6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    yaml = YAML()
    content = yaml.load(REPOSITORY / "params.yaml")
    content["model"]["dropout"] = 0.0
    content["pretrain"]["excluded_tasks"] = []  # there is no other task
    for name in ("pretrain", "challenge1"):
        content[name].update(steps=6, validate_every=3, warmup_steps=2, batch_size=6)
    content["scores"]["n_bootstrap"] = 100
    yaml.dump(content, tmp_path / "params.yaml")


def test_a_device_that_works_passes_all_steps(workspace, capsys):
    probe.walk(CPU)
    assert capsys.readouterr().out.split("probe step: ")[1:] == [
        "detect\n",
        "tensors\n",
        "training\n",
        "loader\n",
        "end\n",
    ]


def test_a_training_that_goes_another_way_is_noticed(workspace, monkeypatch):
    losses = probe.training_losses
    draws = iter((1.0, 1.05))
    monkeypatch.setattr(probe, "training_losses", lambda *given: next(draws) * losses(*given))
    with pytest.raises(HbnError, match=r"the loss of training is off by 0\.05 "):
        probe.loader(CPU)


def test_the_arithmetic_of_a_gpu_changes_a_loss_by_rounding_and_the_network_not_at_all():
    """bfloat16 and compilation, by the tracer that needs no compiler, on the CPU."""
    torch.manual_seed(0)
    positions_m = torch.from_numpy(bids.electrode_positions_m()).float()
    encoder = architecture.Encoder(positions_m, 100, 2.0, "tiny", 48, 0.0)
    n_kinds = len(architecture.KINDS)
    x_uv, target = 10 * torch.randn(4, 129, 200), torch.randn(4, 201, n_kinds).softmax(1)
    networks = [pretraining.EventPretraining(encoder), architecture.ResponseTime(encoder, 2.0, 0.5)]
    labels = torch.tensor([0.8, 1.2, 2.0, torch.nan]), torch.ones(4, 2), params.load().challenge1
    losses = [
        lambda network, step: pretraining.event_loss(network(x_uv), target, torch.ones(n_kinds)),
        lambda network, step: trial_loss(network, x_uv, *labels),
    ]
    for network, loss in zip(networks, losses, strict=True):
        plain, quick = loss(network, 0), device.fast(loss, network, backend="aot_eager", fullgraph=True)(network, 0)
        assert quick.dtype == torch.float32
        assert plain.item() != quick.item() == pytest.approx(plain.item(), rel=0.01)
        of_plain, of_quick = (torch.autograd.grad(value, encoder.stem.weight)[0] for value in (plain, quick))
        assert torch.nn.functional.cosine_similarity(of_plain.flatten(), of_quick.flatten(), dim=0) > 0.99
        assert torch.equal(loss(network, 0), plain)


# What each process of torchrun runs: both stages as scripts, then an epoch of everyone's windows.
TOGETHER = """
import runpy, sys
from pathlib import Path
import numpy as np
from hbn.training import device
from hbn.data.dataset import DATASET, Dataset
from hbn.training.loop import Sampler
for stage in ("pretrain", "challenge1"):
    sys.argv = [sys.argv[0]]
    runpy.run_path(f"{src}/{{stage}}.py", run_name="__main__")
dataset = Dataset.open(DATASET, 2.0)
windows = dataset.split_windows("train")
sampler = Sampler(len(windows), 6, seed=1)
mine = [device.shard(sampler(step)) for step in range(sampler.batches_per_epoch)]
sums = [dataset.batch_uv(windows[rows]).double().sum((1, 2)).numpy() for rows in mine]
np.savez(f"seen{{device.rank()}}.npz", rows=np.concatenate(mine), sums=np.concatenate(sums))
"""
CURVES = "plots/pretrain.csv", "plots/challenge1/curve_pretrained.csv", "plots/challenge1/curve_from_scratch.csv"


def interrupted(windows: EventWindows, step: int, draw=EventWindows.__call__) -> np.ndarray:
    """The windows of a step, but for a step after the first checkpoint of training."""
    if windows.split == "train" and step == 4:
        raise KeyboardInterrupt
    return draw(windows, step)


def test_two_processes_train_as_one_does(workspace, monkeypatch):
    """From nothing, or from where one process was killed; files are written by the first of them."""
    p = params.load()
    pretrain.main(p)
    challenge1.main(p)
    alone = {name: read_csv(name) for name in CURVES}
    written = sorted(str(path) for folder in ("models", "metrics", "plots") for path in Path(folder).rglob("*.*"))
    encoder = torch.load("models/encoder.pt", weights_only=True)["state"]
    assert written
    for path in written:
        Path(path).unlink()
    shutil.rmtree(".scratch")
    with monkeypatch.context() as during:
        during.setattr(EventWindows, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pretrain.main(p)

    Path("together.py").write_text(TOGETHER.format(src=REPOSITORY / "src"))
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "together.py"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src"), "DVC_STAGE": "together"},
        **{"check": True, "timeout": 300, "stderr": subprocess.PIPE, "text": True},
    )
    assert run.stderr.count("resuming at step 3 of 6") == 1
    for name in CURVES:
        found = [[float(value) for value in row.values()] for row in read_csv(name)]
        expected = [[float(value) for value in row.values()] for row in alone[name]]
        np.testing.assert_allclose(found, expected, rtol=2e-5, err_msg=name)
    for name, tensor in torch.load("models/encoder.pt", weights_only=True)["state"].items():
        torch.testing.assert_close(tensor, encoder[name], rtol=1e-3, atol=1e-4)
    assert written == sorted(
        str(path) for folder in ("models", "metrics", "plots") for path in Path(folder).rglob("*.*")
    )

    seen = [np.load(f"seen{rank}.npz", allow_pickle=False) for rank in range(2)]
    rows = np.concatenate([one["rows"] for one in seen])
    assert len(seen[0]["rows"]) == len(seen[1]["rows"])
    assert len(set(rows.tolist())) == len(rows)
    dataset = Dataset.open(DATASET, 2.0)
    windows = dataset.split_windows("train")
    assert len(rows) > len(windows) - 6
    sums = dataset.batch_uv(windows[rows]).double().sum((1, 2)).numpy()
    np.testing.assert_allclose(np.concatenate([one["sums"] for one in seen]), sums)
