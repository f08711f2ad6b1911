"""How fast a GPU trains every size of the network, and whether it calculates as the CPU does: six minutes at most.

    python benchmarks/gpu.py [--sizes tiny small base large] [--seconds 300] [--csv FILE]

Needs torch, numpy and src/hbn alone: copy both to any machine. The windows are random, 129 channels at 500 Hz. A step
is that of the pretraining: forward, backward, gradient clipping, AdamW; on a GPU with compiled encoders in bfloat16, as
training has it. Per size:

windows_per_s       median over the steps of a turn
share_of_peak       floating point operations per second over those of a bfloat16 product of 8192 x 8192 on this card
memory_mb           the largest memory of the GPU
compile_s           first step
difference          largest difference of losses between CPU (float32) and GPU on the same batch, relative
two_processes       windows per second of two processes on one device, and the relative difference of their loss

Without a GPU the CPU takes its place, in float32 and not compiled, and there is nothing to compare with.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from hbn.files import write_csv
from hbn.networks import architecture
from hbn.networks.architecture import KINDS, Encoder
from hbn.networks.pretraining import EventPretraining, event_loss
from hbn.reporting.tables import markdown
from hbn.training import device

SFREQ_HZ, WINDOW_S, N_CHANNELS, N_FILTERS, DROPOUT = 500, 2.0, 129, 48, 0.0
BATCHES = {"cuda": 1024, "cpu": 8}
FEW = 4  # windows of a comparison
COMPARED_STEPS = 3
PEAK_SIZE = {"cuda": 8192, "cpu": 1024}
COLUMNS = ("size", "parameters", "windows_per_s", "share_of_peak", "memory_mb", "compile_s", "difference")
COLUMNS += ("two_processes_windows_per_s", "two_processes_difference")


def main(arguments: argparse.Namespace) -> None:
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if place.type == "cuda" else "CPU, no GPU is there"
    torch.set_float32_matmul_precision("high")
    end = time.perf_counter() + arguments.seconds
    peak = peak_flops(place)
    print(f"{name}: {peak / 1e12:.3g} TFLOP/s in a product of {PEAK_SIZE[place.type]} x {PEAK_SIZE[place.type]}")
    rows = []
    for i, size in enumerate(arguments.sizes):
        left_s = max(1.0, (end - time.perf_counter()) / (len(arguments.sizes) - i))
        rows.append(measure(size, place, peak, left_s))
        print(json.dumps(rows[-1]), flush=True)
    print(markdown(COLUMNS, [[row[key] for key in COLUMNS] for row in rows]))
    if arguments.csv:
        write_csv(arguments.csv, rows, list(COLUMNS))
    print(json.dumps({"device": name, "peak_tflop_per_s": peak / 1e12, "sizes": {row["size"]: row for row in rows}}))


def measure(size: str, place: torch.device, peak: float, seconds: float) -> dict:
    """All figures of one size, in about `seconds`."""
    end = time.perf_counter() + 0.6 * seconds
    few = training_step(network(size), *batch(FEW))
    with FlopCounterMode(display=False) as counter:
        few()
    flop = counter.get_total_flops() / FEW
    torch.compiler.reset()
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    n = BATCHES[place.type]
    step = training_step(network(size).to(place), *(tensor.to(place) for tensor in batch(n)))
    compile_s = timed(step, place)
    times_s = [timed(step, place)]
    while time.perf_counter() < end and len(times_s) < 50:
        times_s.append(timed(step, place))
    rate = n / float(np.median(times_s))
    losses = [few_losses(size, one) for one in ([torch.device("cpu"), place] if place.type == "cuda" else [place])]
    together = two_processes(size, place)
    return {
        "size": size,
        "parameters": sum(parameter.numel() for parameter in network(size).parameters()),
        "windows_per_s": rate,
        "share_of_peak": rate * flop / peak,
        "memory_mb": torch.cuda.max_memory_allocated() / 1e6 if place.type == "cuda" else None,
        "compile_s": compile_s,
        "difference": largest(*losses) if place.type == "cuda" else None,
        "two_processes_windows_per_s": together["windows_per_s"],
        "two_processes_difference": largest(losses[-1], together["losses"]),
    }


def network(size: str) -> EventPretraining:
    """Random weights, the same in every process."""
    torch.manual_seed(0)
    directions = torch.randn(N_CHANNELS, 3)
    positions_m = 0.09 * directions / directions.norm(dim=1, keepdim=True)
    encoder = Encoder(positions_m, SFREQ_HZ, WINDOW_S, size, N_FILTERS, DROPOUT)
    return EventPretraining(encoder).train()


def batch(n: int) -> tuple[Tensor, Tensor]:
    """Windows (n, C, T) in microvolts, time-major as Dataset.batch_uv gives them, and target distributions."""
    generator = torch.Generator().manual_seed(1)
    n_samples = round(WINDOW_S * SFREQ_HZ)
    x_uv = 20 * torch.randn(n, n_samples, N_CHANNELS, generator=generator)
    target = torch.randn(n, round(WINDOW_S * architecture.SFREQ_HZ) + 1, len(KINDS), generator=generator).softmax(1)
    return x_uv.transpose(1, 2), target


def training_step(model: EventPretraining, x_uv: Tensor, target: Tensor) -> Callable[[], float]:
    """One step of training as the loop has it; returns the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    weights = torch.ones(len(KINDS), device=x_uv.device)

    loss = device.training_loss(model, lambda model, step: event_loss(model(x_uv), target, weights))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss(0)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return value.item()

    return step


def few_losses(size: str, place: torch.device) -> list[float]:
    """Losses of a few steps on few windows; in several processes each takes its shard of them."""
    x_uv, target = (device.shard(tensor).to(place) for tensor in batch(FEW))
    step = training_step(copy.deepcopy(network(size)).to(place), x_uv, target)
    return [device.mean_of_all(step()) for _ in range(COMPARED_STEPS)]


def two_processes(size: str, place: torch.device) -> dict:
    """The same by two processes that share the device: how fast, and with which losses."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", __file__]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options: dict[str, Any] = {"env": environment, "stdout": subprocess.PIPE, "text": True, "check": True}
    done = subprocess.run([*command, "--shard", size, place.type], **options)
    return json.loads(done.stdout.splitlines()[-1])


def shard(size: str, place: torch.device) -> None:
    """What each of the two processes runs; the first prints."""
    device.join()
    losses = few_losses(size, place)
    n = BATCHES[place.type] // 2
    step = training_step(network(size).to(place), *(tensor.to(place) for tensor in batch(n)))
    timed(step, place)
    seconds = float(np.median([timed(step, place) for _ in range(3)]))
    if device.first():
        print(json.dumps({"windows_per_s": 2 * n / seconds, "losses": losses}), flush=True)
    distributed.barrier()


def timed(step: Callable[[], object], place: torch.device) -> float:
    """Seconds of a call until the device has finished it."""
    begin = time.perf_counter()
    step()
    if place.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def peak_flops(place: torch.device) -> float:
    """Floating point operations per second of a large product: bfloat16 on a GPU, float32 on a CPU; the best of ten."""
    n, dtype = PEAK_SIZE[place.type], torch.bfloat16 if place.type == "cuda" else torch.float32
    a, b = (torch.randn(n, n, device=place).to(dtype) for _ in range(2))
    return 2 * n**3 / min(timed(lambda: a @ b, place) for _ in range(10))


def largest(expected: list[float], found: list[float]) -> float:
    """The largest relative difference."""
    return max(abs(a - b) / abs(a) for a, b in zip(expected, found, strict=True))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(architecture.SIZES), default=list(architecture.SIZES))
    parser.add_argument("--seconds", type=float, default=300.0, help="for all sizes together")
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--shard", nargs=2, metavar=("SIZE", "DEVICE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.shard:
        shard(arguments.shard[0], torch.device(arguments.shard[1]))
    else:
        main(arguments)
