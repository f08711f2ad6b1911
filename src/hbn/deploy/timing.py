"""Latency, throughput, memory and operators of networks on this machine.

Wall-clock times differ from run to run, so the measurements of this module never go into an output of a stage.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from hbn.deploy import runtime

ROUNDS = 10
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

Call = Callable[[np.ndarray], object]
Key = tuple[str, str]  # network, variant


def onnx_call(session: ort.InferenceSession) -> Call:
    """An ONNX session as a function of windows (B, C, T)."""
    name = session.get_inputs()[0].name
    return lambda x_uv: session.run(None, {name: x_uv})


def torch_call(network: nn.Module, threads: int) -> Call:
    """A PyTorch network on `threads` threads as a function of windows (B, C, T)."""

    def call(x_uv: np.ndarray) -> Tensor:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return network(torch.from_numpy(x_uv))

    return call


def latencies_ms(
    one_thread: dict[Key, Call],
    all_threads: dict[Key, Call],
    shapes: dict[str, tuple[int, int]],
    n_runs: int,
    warmup_runs: int,
) -> dict[Key, np.ndarray]:
    """Times (<= n_runs,) in ms of single windows. The networks take turns of at most 0.5 s each.

    `shapes` holds the window (C, T) of each network. Taking turns spreads a busy moment of the machine over all
    networks.
    """
    times, n_rounds = {key: [] for key in (*one_thread, *all_threads)}, max(1, min(ROUNDS, n_runs // 5))

    def turn(key: Key, call: Call, n_warmup: int) -> None:
        x_uv = noise_uv(1, shapes[key[0]])
        end = time.perf_counter() + 0.5
        for run_number in range(n_warmup + -(-n_runs // n_rounds)):
            begin = time.perf_counter()
            call(x_uv)
            now = time.perf_counter()
            if run_number >= n_warmup:
                times[key].append(1e3 * (now - begin))
                if now > end:
                    break

    for number in range(n_rounds):
        n_warmup = warmup_runs if number == 0 else 3  # caches are cold after the turns of other networks
        for key, call in all_threads.items():
            turn(key, call, n_warmup)
        with one_cpu():
            for key, call in one_thread.items():
                turn(key, call, n_warmup)
    return {key: np.array(values) for key, values in times.items()}


@contextmanager
def one_cpu() -> Generator[None]:
    """Pin this thread to one CPU, if the system allows it (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def windows_per_s(call: Call, shape: tuple[int, int], batch_size: int, duration_s: float = 0.5) -> float:
    """Throughput on batches of windows (C, T), measured over at least two batches and at least `duration_s`."""
    x_uv = noise_uv(batch_size, shape)
    call(x_uv)
    n, begin = 0, time.perf_counter()
    while n < 2 or time.perf_counter() - begin < duration_s:
        call(x_uv)
        n += 1
    return n * batch_size / (time.perf_counter() - begin)


def memory_mb(path: Path) -> float | None:
    """Growth of a new process's peak memory when it loads a file and runs one window (on Linux, else None)."""
    if not Path("/proc/self/status").exists():
        return None
    code = (
        "import sys, numpy as np; from hbn.deploy import runtime\n"
        "peak = lambda: next(int(x.split()[1]) for x in open('/proc/self/status') if x.startswith('VmHWM'))\n"
        "before = peak(); session = runtime.session(sys.argv[1], 1); entry = session.get_inputs()[0]\n"
        "session.run(None, {entry.name: np.zeros((1, *entry.shape[1:]), np.float32)}); print(peak() - before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", code, str(path)]
    return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout) / 1024


def operators_us(path: Path, n_runs: int) -> list[tuple[str, float]]:
    """The ten ONNX operators that take the most time, with microseconds per window."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"enable_profiling": True, "profile_file_prefix": f"{folder}/profile"}
        session = runtime.session(path, threads=1, **options)
        call, x_uv = onnx_call(session), noise_uv(1, session.get_inputs()[0].shape[1:])
        for _ in range(n_runs):
            call(x_uv)
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: defaultdict[str, float] = defaultdict(float)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] / n_runs
    return sorted(spent.items(), key=lambda item: item[1], reverse=True)[:10]


def noise_uv(batch_size: int, shape: tuple[int, int]) -> np.ndarray:
    """Windows (B, C, T) of white noise."""
    return 20 * np.random.default_rng(0).standard_normal((batch_size, *shape), dtype=np.float32)


def cpu_name() -> str:
    """The model of this machine's CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
