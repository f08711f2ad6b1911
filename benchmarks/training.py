"""Training windows per second at 129 x 1000 against the reference transformer and braindecode's EEGNeX.

    python benchmarks/training.py [--rounds 5]

A step is forward, backward, gradient clipping and the optimiser's step, on windows in memory. Ours is the
network of challenge 1 in batches as params.yaml has them, with the stage's own loss; the others predict a number
and a probability in batches of --peer-batch, since their activations are large. All take turns in one process, on
one and on all cores; medians, of which the better one counts for each network. The share of the peak is floating
point operations per second, as PyTorch counts them, over those of a float32 matrix product on as many cores. A GPU
is measured by benchmarks/gpu.py. Without braindecode (requirements-bench.txt) `ratio` is null and the rest is
measured.
"""

import argparse
import importlib.util
import statistics
import time
import warnings
from collections.abc import Callable

import common
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from hbn import params
from hbn.data import bids
from hbn.deploy import timing
from hbn.networks import architecture
from hbn.networks.reference import SHAPE, Reference
from hbn.training.device import choose_device, training_loss
from hbn.training.response_time import trial_loss

TARGET = 100.0  # times faster than each other network
SFREQ_HZ = 500
TURN_S = 0.5


def main(n_rounds: int, peer_batch: int, peer: bool) -> None:
    choose_device("cpu", 1)
    p = params.load(common.ROOT / "params.yaml")
    batch_size = {"ours": p.challenge1.batch_size, "reference": peer_batch}
    torch.manual_seed(0)
    steps = {
        "ours": own_step(p, p.model.size, batch_size["ours"]),
        "reference": peer_step(Reference(), p.challenge1, peer_batch),
    }
    if peer:
        steps["EEGNeX"], batch_size["EEGNeX"] = peer_step(eegnex(), p.challenge1, peer_batch), peer_batch
    gflop = {name: gflop_of(step) / batch_size[name] for name, step in steps.items()}  # warms up as well

    threads = sorted({1, timing.CPUS})
    times_s = {(name, n): [] for n in threads for name in steps}
    peaks = {n: [] for n in threads}
    for _ in range(n_rounds):
        for n in threads:
            torch.set_num_threads(n)
            peaks[n].append(matmul_gflop_per_s(1024))
            for name, step in steps.items():
                times_s[name, n] += turn(step)
    rate = {(name, n): batch_size[name] / statistics.median(values) for (name, n), values in times_s.items()}
    peak = {n: statistics.median(values) for n, values in peaks.items()}
    best = {name: max(threads, key=lambda n, name=name: rate[name, n]) for name in steps}
    fastest = {name: rate[name, n] for name, n in best.items()}

    common.print_table(
        [
            {
                **{"network": name, "batch": batch_size[name], "cores": n, "windows/s": value},
                **{"MFLOP/window": 1e3 * gflop[name], "share of peak": value * gflop[name] / peak[n]},
                "ours over it": fastest["ours"] / value,
            }
            for (name, n), value in rate.items()
        ]
    )
    print()
    ratios = {name: fastest["ours"] / value for name, value in fastest.items() if name != "ours"}
    reached = [(f"times faster than {name}", ratio, f">= {TARGET:g}") for name, ratio in ratios.items()]
    common.print_table([{"training": what, "measured": value, "target": target} for what, value, target in reached])
    common.print_result(
        {
            "ratio": min(ratios.values()) if peer else None,
            **{f"ratio_{name}": ratio for name, ratio in ratios.items()},
            **{f"windows_per_s_{name}": value for name, value in fastest.items()},
            **{f"windows_per_s_{name}_{n}_cores": value for (name, n), value in rate.items()},
            **{f"matmul_gflop_per_s_{n}_cores": value for n, value in peak.items()},
            "share_of_peak": fastest["ours"] * gflop["ours"] / peak[best["ours"]],
            "cores": timing.CPUS,
        }
    )


def own_step(p: params.Params, size: str, batch_size: int) -> Callable[[], None]:
    """One training step of challenge 1's network with the loss of its stage."""
    positions_m = torch.from_numpy(bids.electrode_positions_m()).float()
    settings = size, p.model.n_spatial_filters, p.model.dropout
    encoder = architecture.Encoder(positions_m, SFREQ_HZ, SHAPE[1] / SFREQ_HZ, *settings)
    network = architecture.ResponseTime(encoder, SHAPE[1] / SFREQ_HZ, p.windows.trial_offset_s).train()
    x_uv = windows_uv(batch_size)
    rt_s = 0.5 + 2 * torch.rand(batch_size)
    rt_s[::7] = torch.nan  # no response
    sides = (torch.rand(batch_size, 2) < 0.5).float()
    loss = training_loss(network, lambda network, step: trial_loss(network, x_uv, rt_s, sides, p.challenge1))
    return training_step(network, lambda: loss(0), p.challenge1)


def peer_step(network: nn.Module, p: params.Training, batch_size: int) -> Callable[[], None]:
    """One training step of a network with two outputs: a response time and whether there was none."""
    x_uv, y = windows_uv(batch_size).contiguous(), torch.rand(batch_size, 2).round()

    def loss() -> torch.Tensor:
        output = network(x_uv)
        return F.mse_loss(output[:, 0], y[:, 0]) + F.binary_cross_entropy_with_logits(output[:, 1], y[:, 1])

    return training_step(network.train(), loss, p)


def training_step(network: nn.Module, loss: Callable[[], torch.Tensor], p: params.Training) -> Callable[[], None]:
    """What training.fit does in a step, without its bookkeeping."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=p.learning_rate, weight_decay=p.weight_decay)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        nn.utils.clip_grad_norm_(network.parameters(), p.gradient_clip)
        optimizer.step()

    return step


def windows_uv(n: int) -> torch.Tensor:
    """Windows (B, C, T) of noise, a transposed view of time-major memory as Dataset.batch_uv gives them."""
    time_major = timing.noise_uv(n, SHAPE[::-1])
    return torch.from_numpy(time_major).transpose(1, 2)


def eegnex() -> nn.Module:
    warnings.simplefilter("ignore")  # about torchaudio in pure Python, see requirements-bench.txt
    from braindecode.models import EEGNeX

    return EEGNeX(n_chans=SHAPE[0], n_times=SHAPE[1], sfreq=SFREQ_HZ, n_outputs=2)


def gflop_of(step: Callable[[], None]) -> float:
    """Floating point operations of a step, in 10^9; a multiplication and an addition count two."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops() / 1e9


def turn(step: Callable[[], None]) -> list[float]:
    """Seconds of each step of one turn, after one that warms the caches."""
    end, times_s = time.perf_counter() + TURN_S, []
    step()
    while not times_s or time.perf_counter() < end:
        begin = time.perf_counter()
        step()
        times_s.append(time.perf_counter() - begin)
    return times_s


def matmul_gflop_per_s(n: int) -> float:
    """Speed of the product of two n x n matrices, the best of ten."""
    a, b = (torch.randn(n, n) for _ in range(2))
    return 2e-9 * n**3 / min(wall_s(lambda: a @ b) for _ in range(10))


def wall_s(function: Callable[[], object]) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each network")
    parser.add_argument("--peer-batch", type=int, default=16, help="batch of the other networks")
    parser.add_argument("--without-peer", action="store_true", help="leave braindecode out")
    arguments = parser.parse_args()
    main(
        arguments.rounds,
        arguments.peer_batch,
        not arguments.without_peer and importlib.util.find_spec("braindecode") is not None,
    )
