"""The device, the arithmetic and the processes of training.

One process on a CPU is the plain case, which nothing in this module slows or changes. A GPU is used only after a
separate program (hbn.training.probe) has trained on it. A driver that crashes, hangs or calculates wrongly then spoils
that program, not the run. `torchrun --nproc-per-node=2 src/pretrain.py` starts processes that train on the same global
batches, each on its shard of them. Only the first process writes files.
"""

import atexit
import functools
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from hbn.files import HbnError
from hbn.networks.architecture import Encoder
from hbn.networks.arithmetic import use_cpu

log = logging.getLogger(__name__)

LIMIT_S = 300.0  # of the whole probe; compiling takes most of it
MARK = "probe step: "  # begins the lines by which the probe reports its steps
END = "end"
CAPABLE = (8, 0)  # compute capability from which bfloat16 is in the hardware
DETERMINISTIC_CUBLAS = ":4096:8"  # what PyTorch asks for before it calls a product on a GPU deterministic

Loss = Callable[..., Tensor]  # of a network and a step
Shard = TypeVar("Shard", np.ndarray, Tensor)
Value = TypeVar("Value")


def choose_device(wanted: str, threads: int) -> torch.device:
    """Set up deterministic arithmetic, join the processes of torchrun, return the device for `exec.device`."""
    use_cpu(threads)
    join()
    return choose(wanted)


def choose(wanted: str) -> torch.device:
    """The device for `exec.device`. A GPU must pass the probe in every process of torchrun.

    If it does not, 'auto' takes the CPU and logs why, and 'cuda' raises HbnError.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    gpu = torch.device("cuda", int(os.environ["LOCAL_RANK"]) if distributed.is_initialized() else 0)
    # device_count asks the driver's management library, so that CUDA stays uninitialised in this process.
    has_gpu = torch.cuda.device_count() > 0
    if has_gpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", DETERMINISTIC_CUBLAS)  # read when CUDA is initialised
    failures = from_all(first_failure(gpu) if has_gpu else "PyTorch sees no CUDA device")
    failure = next(filter(None, failures), None)
    if failure is None:
        torch.cuda.set_device(gpu)
        log.info("training on %s (%s)", gpu, torch.cuda.get_device_name(gpu))
        return gpu
    if wanted == "cuda":
        raise HbnError(f"exec.device is cuda, but {failure}; set it to cpu or auto")
    if has_gpu:
        log.warning("going on with the CPU: %s", failure)
    return torch.device("cpu")


def first_failure(
    device: torch.device, program: tuple[str, ...] = ("-m", "hbn.training.probe"), limit_s: float = LIMIT_S
) -> str | None:
    """Run the probe of a device in a process of its own; returns where and why it failed, or None."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile("w+", errors="replace") as output:  # a pipe would wait for an unkillable process
        process = subprocess.Popen(
            [sys.executable, *program, str(device)],
            **{"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True},
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        status = None
        try:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(limit_s)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and the compilers that it started
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)  # a driver may hold even a killed process
        output.seek(0)
        lines = output.read().split("\n")
    step = next((line.removeprefix(MARK) for line in reversed(lines) if line.startswith(MARK)), "start")
    if status == 0 and step == END:
        return None
    if status is None:
        reason = f"not done after {limit_s:g} s"
    elif status < 0:
        reason = f"crashed with {signal.Signals(-status).name}"
    else:
        said = (line for line in reversed(lines) if line.strip() and not line.startswith(MARK))
        reason = next(said, f"ended with status {status}")
    return f"the probe of {device} failed in its step '{step}': {reason}"


def join() -> None:
    """Join the other processes that torchrun started, if it did."""
    if not distributed.is_torchelastic_launched() or distributed.is_initialized():
        return
    distributed.init_process_group("gloo")  # for values on CPUs; gradients on GPUs get their own group
    atexit.register(distributed.destroy_process_group)
    if not first():
        logging.getLogger().setLevel(logging.WARNING)


def n_processes() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def first() -> bool:
    """Whether this process is the one that writes files."""
    return rank() == 0


def shard(batch: Shard) -> Shard:
    """This process's part of an array with one entry per item of the global batch; the parts are disjoint.

    All random numbers are drawn for the global batch and then sharded, so that they do not depend on the number of
    processes.
    """
    return batch[rank() :: n_processes()]


def refuse_uneven(batch_size: int) -> None:
    """HbnError for a global batch that the processes cannot share evenly."""
    if batch_size % n_processes():
        raise HbnError(
            f"a batch of {batch_size} cannot be shared evenly by {n_processes()} processes; "
            "change batch_size or --nproc-per-node"
        )


def share(counted: Shard) -> float:
    """Weight that makes a mean over this process's part of `counted` (ones or trues) a term of the global mean.

    The mean over processes of (mean x share) is the mean over the global batch, for any distribution of the counted
    items over processes.
    """
    return n_processes() * float(shard(counted).sum()) / max(1.0, float(counted.sum()))


def mean_of_all(value: float) -> float:
    """The mean of all processes' values, in each process."""
    if n_processes() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    distributed.all_reduce(total)
    return total.item() / n_processes()


def from_all(value: Value) -> list[Value]:
    """The values of all processes, in each process."""
    values = [value] * n_processes()
    if n_processes() > 1:
        distributed.all_gather_object(values, value)
    return values


def from_first(value: Value) -> Value:
    """The first process's value, in all processes."""
    values = [value]
    if n_processes() > 1:
        distributed.broadcast_object_list(values)
    return values[0]


def training_loss(network: nn.Module, loss: Loss) -> Callable[[int], Tensor]:
    """`loss` of a step in the arithmetic of the network's device; its gradients are averaged over the processes."""
    device = next(network.parameters()).device
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABLE:
        loss = fast(loss, network)
    if n_processes() == 1:
        return lambda step: loss(network, step)
    group = _group_of_gpus() if device.type == "cuda" else None
    # A batch without any answered trial in one process leaves its auxiliary head without a gradient there.
    options: dict[str, Any] = {"forward_sync_buffers": False, "find_unused_parameters": True}
    return nn.parallel.DistributedDataParallel(_Loss(network, loss), process_group=group, **options)


def fast(loss: Loss, network: nn.Module, **options: Any) -> Loss:
    """`loss` with autocast to bfloat16 and compiled encoders (`options` of torch.compile).

    Outside of the loss, as in validation and prediction, the network is unchanged.
    """
    device_type = next(network.parameters()).device.type
    encoders = [part for part in network.modules() if isinstance(part, Encoder)]
    compiled = {encoder: torch.compile(encoder.features, **options) for encoder in encoders}

    def quick(network: nn.Module, step: int) -> Tensor:
        for encoder, features in compiled.items():
            encoder.features = features  # hides the method of the class
        try:
            with torch.autocast(device_type, torch.bfloat16):
                return loss(network, step)
        finally:
            for encoder in compiled:
                del encoder.features

    return quick


class _Loss(nn.Module):
    """A loss as a module, because DistributedDataParallel runs modules only."""

    def __init__(self, network: nn.Module, loss: Loss):
        super().__init__()
        self.network, self.loss = network, loss

    def forward(self, step: int) -> Tensor:
        return self.loss(self.network, step)


@functools.cache
def _group_of_gpus() -> distributed.ProcessGroup | None:
    if torch.cuda.device_count() < int(os.environ["LOCAL_WORLD_SIZE"]):
        return None  # NCCL refuses processes that share a GPU; they exchange gradients through the CPUs
    return distributed.new_group(backend="nccl")
