"""The probe of a device: four steps, from detection to training with the real loader, compared with the CPU.

hbn.training.device runs `python -m hbn.training.probe cuda:0` in the folder of the stage, as a process of its own, so
that a crash or hang does not spoil the run.
"""

import copy
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from hbn import params
from hbn.data import bids
from hbn.data.dataset import DATASET, Dataset
from hbn.files import HbnError, read_csv
from hbn.networks.architecture import KINDS, Encoder
from hbn.networks.inference import adapted_encoder
from hbn.networks.pretraining import EventPretraining, event_loss
from hbn.training.device import END, LIMIT_S, MARK
from hbn.training.loop import Sampler, fit

CPU = torch.device("cpu")
N_WINDOWS, BATCH_SIZE, N_STEPS = 8, 4, 4
EXACT, ROUGH = 1e-3, 5e-3  # relative error of float32, and of losses in bfloat16


def detect(device: torch.device) -> None:
    """Check that the device exists and answers."""
    if device.type == "cuda":
        if device.index >= torch.cuda.device_count():
            raise HbnError(f"there is no {device}: PyTorch sees {torch.cuda.device_count()} CUDA devices")
        torch.cuda.set_device(device)
    compare("a sum of ones", torch.ones(1000).sum(), torch.ones(1000, device=device).sum(), EXACT)


def tensors(device: torch.device) -> None:
    """Check products, normalisation and softmax, forward and backward, in float32."""
    x, y, towards = (torch.randn(256, 256) for _ in range(3))
    for name, function in {
        "a product": lambda z: z,
        "layer norm": lambda z: F.layer_norm(z, z.shape[-1:]),
        "softmax": lambda z: (z / 16).softmax(-1),
    }.items():
        results = []
        for place in (CPU, device):
            inputs = [tensor.to(place, copy=True).requires_grad_() for tensor in (x, y)]
            value = function(inputs[0] @ inputs[1])
            results.append([value, *torch.autograd.grad(value, inputs, towards.to(place))])
        for expected, actual in zip(*results, strict=True):
            compare(f"{name} or its gradient", expected, actual, EXACT)


def training(device: torch.device) -> None:
    """Check a few steps of the real network on noise."""
    p = params.load()
    positions_m = torch.from_numpy(bids.electrode_positions_m()).float()
    settings = p.preprocess.sfreq_hz, p.windows.window_s, p.model.size, p.model.n_spatial_filters
    shape = N_WINDOWS, len(positions_m), round(p.preprocess.sfreq_hz * p.windows.window_s)
    windows_uv = 10 * torch.randn(shape)
    compare_training(p.pretrain, Encoder(positions_m, *settings, 0.0), lambda rows: windows_uv[rows], device)


def loader(device: torch.device) -> None:
    """Check a few steps of the real network on windows of the dataset."""
    p = params.load()
    dataset = Dataset.open(DATASET, p.windows.window_s)
    windows = dataset.split_windows("train")[:N_WINDOWS]
    encoder = adapted_encoder(dataset, p.model.model_copy(update={"dropout": 0.0}))  # devices draw different dropout
    compare_training(p.pretrain, encoder, lambda rows: dataset.batch_uv(windows[rows]), device)


STEPS = {"detect": detect, "tensors": tensors, "training": training, "loader": loader}


def walk(device: torch.device) -> None:
    """Run all steps in order, and print each step's name when it begins."""
    torch.use_deterministic_algorithms(True)
    for name, step in STEPS.items():
        print(f"{MARK}{name}", flush=True)
        step(device)
    print(f"{MARK}{END}", flush=True)


def compare(what: str, expected: Tensor, actual: Tensor, tolerance: float) -> None:
    """HbnError if `actual` differs from `expected` by more than this share of the largest value."""
    error = ((actual.detach().to(CPU) - expected).abs().max() / expected.abs().max()).item()
    if not error <= tolerance:  # NaN is not
        raise HbnError(f"wrong numbers: {what} is off by {error:.2g} of its largest value (allowed {tolerance:g})")


def compare_training(p: params.Training, encoder: Encoder, batch_uv: Callable, device: torch.device) -> None:
    """Check that the same training has the same losses on the CPU and on the device."""
    losses = [training_losses(p, copy.deepcopy(encoder), batch_uv, place) for place in (CPU, device)]
    compare("the loss of training", *losses, ROUGH)


def training_losses(p: params.Training, encoder: Encoder, batch_uv: Callable, device: torch.device) -> Tensor:
    """Training and validation loss (2,) of a short pretraining by the one training loop."""
    torch.manual_seed(0)
    network = EventPretraining(encoder).to(device)
    target = torch.randn(N_WINDOWS, encoder.n_samples + 1, len(KINDS)).softmax(1)
    weights = torch.ones(len(KINDS)).to(device)
    p = p.model_copy(update={"steps": N_STEPS, "validate_every": N_STEPS, "warmup_steps": 1})
    sampler = Sampler(N_WINDOWS, BATCH_SIZE, seed=0)

    def loss(network: EventPretraining, step: int | None) -> Tensor:
        rows = slice(None) if step is None else sampler(step)
        return event_loss(network(batch_uv(rows).to(device)), target[rows].to(device), weights)

    with tempfile.TemporaryDirectory() as folder:
        checkpoint, curve = Path(folder, "checkpoint.pt"), Path(folder, "curve.csv")
        fit(network, loss, lambda network: loss(network, None).item(), p, checkpoint, curve, sampler)
        last = read_csv(curve)[-1]
    return torch.tensor([float(last["train"]), float(last["validation"])])


if __name__ == "__main__":
    signal.alarm(round(1.1 * LIMIT_S))  # ends this program if the run that waits for it was killed
    walk(torch.device(sys.argv[1]))
