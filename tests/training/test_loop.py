"""The training loop: resuming is exact, divergence stops, the best weights are kept."""

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from clone import REPOSITORY
from torch import Tensor, nn

from hbn import params
from hbn.data.dataset import Dataset
from hbn.files import HbnError, read_csv
from hbn.training import device, loop

SETTINGS = {
    **{"seed": 3, "steps": 60, "batch_size": 8, "learning_rate": 0.01, "weight_decay": 0.01, "warmup_steps": 5},
    **{"gradient_clip": 1.0, "ema_decay": 0.9, "validate_every": 10, "patience": 10},
}
SPOILT = 7  # an item


def train(folder: Path, pause_s: float = 0.0, spoil: Callable[[Tensor], Tensor] | None = None, **changes) -> nn.Module:
    """A small regression with dropout, so that any lost random state would show in the weights.

    `spoil` may replace the loss of the batches that hold SPOILT.
    """
    p = params.Training(**{**SETTINGS, **changes})
    torch.manual_seed(p.seed)
    network = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.3), nn.Linear(16, 1))
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=(100, 6))).float()
    y = x.square().sum(1, keepdim=True)
    sampler = loop.Sampler(80, p.batch_size, p.seed)

    def loss(network, step):
        time.sleep(pause_s)
        rows = sampler(step)
        value = (network(x[rows]) - y[rows]).square().mean()
        return spoil(value) if spoil and SPOILT in rows else value

    def validate(network):
        return (network(x[80:]) - y[80:]).square().mean().item()

    loop.fit(network, loss, validate, p, folder / "checkpoint.pt", folder / "curve.csv", sampler)
    return network


def test_killed_and_resumed_equals_undisturbed(tmp_path):
    (tmp_path / "whole").mkdir()
    expected = train(tmp_path / "whole")
    (tmp_path / "killed").mkdir()
    code = (
        "import sys; from pathlib import Path; sys.path[:0] = ['src', 'tests', 'tests/training']\n"
        f"from test_loop import train; train(Path({str(tmp_path / 'killed')!r}), pause_s=0.02)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY)
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


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda value: value / 0, "loss inf, gradient_norm nan at step"),
        (lambda value: value + (value - value).sqrt(), "gradient_norm nan at step"),
    ],
)
def test_what_is_not_finite_stops_with_step_items_and_the_last_good_checkpoint(tmp_path, spoil, said):
    sampler = loop.Sampler(80, 4, SETTINGS["seed"])
    step = next(step for step in range(20) if SPOILT in sampler(step))
    assert step > 10  # where the first checkpoint is
    with pytest.raises(HbnError) as stopped:
        train(tmp_path, spoil=spoil, batch_size=4)
    assert f"{said} {step}: " in str(stopped.value)
    assert f"items {sampler(step).tolist()}; " in str(stopped.value)
    assert f"last good checkpoint: step 10 in {tmp_path / 'checkpoint.pt'}" in str(stopped.value)
    saved = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert saved["step"] == 10
    assert all(tensor.isfinite().all() for tensor in saved["network"].values())


def test_divergence_before_the_first_checkpoint_stops_too(tmp_path):
    with pytest.raises(HbnError, match=r"norm (nan|inf) at step \d:.*checkpoint: none yet"):
        train(tmp_path, learning_rate=1e30, gradient_clip=1e30, warmup_steps=0)
    assert not (tmp_path / "checkpoint.pt").exists()


def test_an_epoch_takes_every_item_once_and_depends_on_seed_and_step_alone():
    sampler = loop.Sampler(20, 5, seed=1)
    epoch = np.concatenate([sampler(step) for step in range(4, 8)])
    assert sorted(epoch) == list(range(20))
    assert (loop.Sampler(20, 5, seed=1)(6) == sampler(6)).all()
    assert not (loop.Sampler(20, 5, seed=2)(6) == sampler(6)).all()


def test_schedule_warms_up_and_ends_at_zero():
    assert [loop.schedule(step, 4, 8) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert loop.schedule(4, 4, 8) == 1.0
    assert loop.schedule(6, 4, 8) == pytest.approx(0.5)
    assert math.isclose(loop.schedule(8, 4, 8), 0.0, abs_tol=1e-12)


def test_a_batch_that_processes_cannot_share_evenly_is_refused(monkeypatch):
    monkeypatch.setattr(device, "n_processes", lambda: 4)
    assert loop.Sampler(80, 8, seed=1).batch_size == 8
    with pytest.raises(HbnError, match="a batch of 6 cannot be shared evenly by 4 processes"):
        loop.Sampler(80, 6, seed=1)


def test_the_memory_of_a_batch_is_used_again_only_when_nothing_of_it_is_left(tiny_dataset):
    dataset = Dataset.open(tiny_dataset, 2.0)
    first, other = dataset.windows[:4], dataset.windows[4:8]
    row = dataset.batch_uv(first)[1]
    expected, place = row.clone(), row.data_ptr()
    used = set()
    for _ in range(4):
        batch = dataset.batch_uv(other)
        assert not torch.equal(batch[1], expected)
        used.add(batch.data_ptr())
        del batch
    assert torch.equal(row, expected)
    assert len(used) == 1
    assert place - 4 * row.numel() not in used  # where the first batch begins
    del row
    assert torch.equal(dataset.batch_uv(first)[1], expected)


def test_a_recording_that_is_gone_is_named_by_whatever_thread_reads_it(tiny_dataset, monkeypatch):
    dataset = Dataset.open(tiny_dataset, 2.0)
    monkeypatch.setattr(dataset.cache, "root", tiny_dataset / "gone")
    with pytest.raises(HbnError, match="does not exist"):
        dataset.batch_uv(dataset.windows[:4])
