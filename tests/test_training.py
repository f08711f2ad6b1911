"""The training loop: resuming is exact, divergence stops, the best weights are kept."""

import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hbn import params, training
from hbn.files import HbnError, read_csv

SETTINGS = {
    **{"seed": 3, "steps": 60, "batch_size": 8, "learning_rate": 0.01, "weight_decay": 0.01, "warmup_steps": 5},
    **{"gradient_clip": 1.0, "ema_decay": 0.9, "validate_every": 10, "patience": 10},
}


def train(folder: Path, pause_s: float = 0.0, **changes) -> nn.Module:
    """A small regression with dropout, so that any lost random state would show in the weights."""
    p = params.Training(**{**SETTINGS, **changes})
    torch.manual_seed(p.seed)
    network = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 1))
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(100, 6))).float()
    y = x.square().sum(1, keepdim=True)
    sampler = training.Sampler(80, p.batch_size, p.seed)

    def loss(network, step):
        time.sleep(pause_s)
        rows = sampler(step)
        return (network(x[rows]) - y[rows]).square().mean()

    def validate(network):
        return (network(x[80:]) - y[80:]).square().mean().item()

    training.fit(network, loss, validate, p, folder / "checkpoint.pt", folder / "curve.csv", sampler)
    return network


def test_killed_and_resumed_equals_undisturbed(tmp_path):
    (tmp_path / "whole").mkdir()
    expected = train(tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = ['src', 'tests']\n"
        f"from test_training import train; train(Path({str(tmp_path / 'killed')!r}), pause_s=0.02)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[1])
    while not (tmp_path / "killed/checkpoint.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.07)  # somewhere between two checkpoints
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = torch.load(tmp_path / "killed/checkpoint.pt", weights_only=True)["step"]
    assert 0 < saved < SETTINGS["steps"]
    resumed = train(tmp_path / "killed")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert (tmp_path / "whole/curve.csv").read_text() == (tmp_path / "killed/curve.csv").read_text()


def test_the_best_average_is_kept_and_training_stops_when_it_no_longer_improves(tmp_path):
    network = train(tmp_path, steps=4000, patience=3, learning_rate=0.05)
    curve = [float(row["validation"]) for row in read_csv(tmp_path / "curve.csv")]
    assert len(curve) < 400
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(100, 6))).float()[80:]
    reached = (network(x) - x.square().sum(1, keepdim=True)).square().mean().item()
    assert reached == pytest.approx(min(curve), rel=1e-4)


def test_a_loss_that_is_not_finite_stops_with_the_step(tmp_path):
    with pytest.raises(HbnError, match=r"loss (nan|inf) at step \d+"):
        train(tmp_path, learning_rate=1e30, gradient_clip=1e30, warmup_steps=0)


def test_an_epoch_takes_every_item_once_and_depends_on_seed_and_step_alone():
    sampler = training.Sampler(20, 5, seed=1)
    epoch = np.concatenate([sampler(step) for step in range(4, 8)])
    assert sorted(epoch) == list(range(20))
    assert (training.Sampler(20, 5, seed=1)(6) == sampler(6)).all()
    assert not (training.Sampler(20, 5, seed=2)(6) == sampler(6)).all()


def test_schedule_warms_up_and_ends_at_zero():
    assert [training.schedule(step, 4, 8) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert training.schedule(4, 4, 8) == 1.0
    assert training.schedule(6, 4, 8) == pytest.approx(0.5)
    assert math.isclose(training.schedule(8, 4, 8), 0.0, abs_tol=1e-12)
