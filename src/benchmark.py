"""Speed, memory and size of every variant, beside the reference transformer in the same run.

Reads  models/deploy, models/challenge1.pt, models/challenge2.pt, metrics/quantize.json
Writes models/reference.onnx
       metrics/benchmark.json, plots/benchmark_latency.csv, plots/benchmark_accuracy.csv,
       plots/benchmark_profile.csv: measured on this machine at this moment, so no outputs of the stage

The chosen variant of each network is the fastest accepted one at batch 1. Variants run single windows
on one thread kept on one CPU; networks in PyTorch run on one thread and on one per CPU, and the faster
counts. All take turns, so that a busy moment of the machine meets all of them.
"""

import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hbn.deploy import export, runtime
from hbn.files import read_json, write_csv, write_json
from hbn.networks import inference
from hbn.networks.architecture import Encoder
from hbn.networks.reference import SHAPE, Reference
from hbn.stage import run
from hbn.training.loop import choose_device

log = logging.getLogger(__name__)

NETWORKS = ("challenge1", "challenge2")
REFERENCE = Path("models/reference.onnx")
ROUNDS = 10
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
LARGEST_REFERENCE_BATCH = 16  # attention over 1000 samples takes 16 MB per window
QUANTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)

Call = Callable[[np.ndarray], object]


def main(p) -> None:
    choose_device("cpu", CPUS)
    verdicts = read_json("metrics/quantize.json")
    torch.manual_seed(p.benchmark.seed)
    reference = Reference().eval()
    export.write(export.export(reference, SHAPE), REFERENCE)

    paths = {("reference", "onnx"): REFERENCE}
    modules = {("reference", "pytorch"): reference}
    for name in NETWORKS:
        paths |= {(name, v): runtime.FOLDER / name / f"{v}.onnx" for v in verdicts[name] if v != "pytorch"}
        modules[name, "pytorch"], _ = inference.load_network(f"models/{name}.pt", made_by=name)
    rows, operators, quantiles_ms = measure(paths, modules, p)

    chosen = {name: choose(rows[name], verdicts[name]) for name in NETWORKS}
    write_json(
        runtime.BENCHMARK,
        {
            "source": verdicts["source"],
            "machine": {"cpu": cpu_name(), "cpus": CPUS},
            "threads": {"latency": 1, "throughput": CPUS},
            "chosen": chosen,
            "targets": {name: targets(rows, name, chosen[name], p.benchmark) for name in NETWORKS},
            "variants": rows,
        },
    )
    write_plots(rows, operators, quantiles_ms, verdicts)


def measure(paths: dict, modules: dict, p) -> tuple[dict, dict, dict]:
    """Measurements [network][variant], time by operator and latency quantiles by (network, variant).

    A file that this CPU cannot run is left out; metrics/quantize.json has the reason.
    """
    single, many, rows, operators = {}, {}, {}, {}
    shapes = {"reference": SHAPE} | {name: window_shape(modules[name, "pytorch"].encoder) for name in NETWORKS}
    for key, path in paths.items():
        try:
            single[key] = onnx_call(runtime.session(path, threads=1))
        except Exception as error:  # as in quantize: ONNX Runtime has no common kind
            log.info("%s %s cannot run here: %s", *key, str(error).splitlines()[0])
            continue
        many[key] = onnx_call(runtime.session(path, CPUS))
        rows[key] = {"size_kb": path.stat().st_size / 1e3, "memory_mb": memory_mb(path)}
        operators[key] = profile(path)
    for (network, variant), module in modules.items():
        single[network, f"{variant}_1_thread"] = torch_call(module, 1)
        many[network, variant] = torch_call(module, CPUS)
        rows[network, variant] = {"size_kb": sum(x.numel() for x in module.parameters()) * 4 / 1e3}
        rows[network, f"{variant}_1_thread"] = {}

    in_pytorch = {(network, variant): many[network, variant] for network, variant in modules}
    times_ms = latencies_ms(single, in_pytorch, shapes, p.benchmark)
    for key, row in rows.items():
        row |= {f"p{q}_ms": float(np.percentile(times_ms[key], q)) for q in (50, 90, 99)}
        if key in many:
            sizes = [b for b in p.benchmark.batch_sizes if key[0] != "reference" or b <= LARGEST_REFERENCE_BATCH]
            row["windows_per_s"] = {str(size): throughput(many[key], shapes[key[0]], size) for size in sizes}
        log.info("%s %s: p50 %.3f ms, p99 %.3f ms", *key, row["p50_ms"], row["p99_ms"])
    nested = {network: {v: row for (n, v), row in rows.items() if n == network} for network, _ in rows}
    return nested, operators, {key: np.percentile(times, QUANTILES).tolist() for key, times in times_ms.items()}


def onnx_call(session) -> Call:
    name = session.get_inputs()[0].name
    return lambda x_uv: session.run(None, {name: x_uv})


def torch_call(network: nn.Module, threads: int) -> Call:
    def call(x_uv: np.ndarray) -> Tensor:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return network(torch.from_numpy(x_uv))

    return call


def latencies_ms(
    one_thread: dict[tuple, Call], all_threads: dict[tuple, Call], shapes: dict, p
) -> dict[tuple, np.ndarray]:
    """Times (<= n_runs,) of single windows; the networks take turns in rounds of at most 0.5 s each."""
    times = {key: [] for key in (*one_thread, *all_threads)}

    def turn(key: tuple, call: Call, warmup_runs: int) -> None:
        x_uv = noise_uv(1, shapes[key[0]])
        end = time.perf_counter() + 0.5
        for run_number in range(warmup_runs + -(-p.n_runs // ROUNDS)):
            begin = time.perf_counter()
            call(x_uv)
            now = time.perf_counter()
            if run_number >= warmup_runs:
                times[key].append(1e3 * (now - begin))
                if now > end:
                    break

    for number in range(ROUNDS):
        warmup_runs = p.warmup_runs if number == 0 else 3  # caches are cold after the others' turns
        for key, call in all_threads.items():
            turn(key, call, warmup_runs)
        with one_cpu():
            for key, call in one_thread.items():
                turn(key, call, warmup_runs)
    return {key: np.array(values) for key, values in times.items()}


@contextmanager
def one_cpu() -> Iterator[None]:
    """Keep this thread on one CPU, where the system allows it (Linux)."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def throughput(call: Call, shape: tuple[int, int], batch_size: int, duration_s: float = 0.5) -> float:
    """Windows per second in batches, over at least two batches and `duration_s`."""
    x_uv = noise_uv(batch_size, shape)
    call(x_uv)
    n, begin = 0, time.perf_counter()
    while n < 2 or time.perf_counter() - begin < duration_s:
        call(x_uv)
        n += 1
    return n * batch_size / (time.perf_counter() - begin)


def memory_mb(path: Path) -> float | None:
    """Growth of a fresh process's peak memory by loading a file and running one window (Linux)."""
    if not Path("/proc/self/status").exists():
        return None
    code = (
        "import sys, numpy as np; from hbn.deploy import runtime\n"
        "peak = lambda: next(int(x.split()[1]) for x in open('/proc/self/status') if x.startswith('VmHWM'))\n"
        "before = peak(); session = runtime.session(sys.argv[1], 1); entry = session.get_inputs()[0]\n"
        "session.run(None, {entry.name: np.zeros((1, *entry.shape[1:]), np.float32)}); print(peak() - before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", code, str(path)]
    return int(subprocess.run(command, env=environment, capture_output=True, check=True).stdout) / 1024


def profile(path: Path, n_runs: int = 100) -> list[tuple[str, float]]:
    """The ten kinds of operator that take most time, with their microseconds per window."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"enable_profiling": True, "profile_file_prefix": f"{folder}/profile"}
        session = runtime.session(path, threads=1, **options)
        call, x_uv = onnx_call(session), noise_uv(1, session.get_inputs()[0].shape[1:])
        for _ in range(n_runs):
            call(x_uv)
        events = json.loads(Path(session.end_profiling()).read_text())
    spent = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] / n_runs
    return spent.most_common(10)


def choose(report: dict[str, dict], verdicts: dict[str, dict]) -> str | None:
    """The accepted variant with the smallest median latency; None if none was accepted."""
    accepted = [variant for variant in report if verdicts.get(variant, {}).get("accepted")]
    return min(accepted, key=lambda variant: report[variant]["p50_ms"], default=None)


def targets(rows: dict, network: str, chosen: str | None, p) -> dict:
    """Where this run stands against the targets."""
    if chosen is None:
        return {}
    own, ms = rows[network], rows[network][chosen]["p50_ms"]
    speedup = {
        "speedup_over_reference_pytorch": fastest_in_pytorch(rows["reference"]) / ms,
        "speedup_over_reference_onnx": rows["reference"]["onnx"]["p50_ms"] / ms,
        "speedup_over_pytorch": fastest_in_pytorch(own) / ms,
    }
    sizes = [own[variant]["size_kb"] for variant in ("int8_dynamic", "int8_static") if variant in own]
    share = max(sizes) / own["fused"]["size_kb"] if sizes and "fused" in own else None
    return {
        **speedup,
        "fast_enough": speedup["speedup_over_reference_pytorch"] >= p.min_speedup,
        "within_budget": own[chosen]["p99_ms"] <= p.budget_ms,
        "int8_size": share,
        "int8_small_enough": share is not None and share <= p.max_int8_size,
    }


def fastest_in_pytorch(rows: dict[str, dict]) -> float:
    """The smaller median latency in ms, of one thread and of all."""
    return min(rows["pytorch"]["p50_ms"], rows["pytorch_1_thread"]["p50_ms"])


def write_plots(rows: dict, operators: dict, quantiles_ms: dict, verdicts: dict) -> None:
    """Latency quantiles, accuracy against latency, and time by operator."""
    latency = [
        {"network": network, "variant": variant, "percentile": percentile, "latency_ms": ms}
        for (network, variant), values in quantiles_ms.items()
        for percentile, ms in zip(QUANTILES, values, strict=True)
    ]
    accuracy = [
        {"network": name, "variant": variant, "score": score, "value": value, "latency_ms": row["p50_ms"]}
        for name in NETWORKS
        for variant, row in rows[name].items()
        for score, value in verdicts[name].get(variant, {}).get("scores", {}).items()
    ]
    kinds = [
        {"network": network, "variant": variant, "operator": operator, "us": us}
        for (network, variant), found in operators.items()
        for operator, us in found
    ]
    write_csv("plots/benchmark_latency.csv", latency, ["network", "variant", "percentile", "latency_ms"])
    write_csv("plots/benchmark_accuracy.csv", accuracy, ["network", "variant", "score", "latency_ms", "value"])
    write_csv("plots/benchmark_profile.csv", kinds, ["network", "variant", "operator", "us"])


def noise_uv(batch_size: int, shape: tuple[int, int]) -> np.ndarray:
    """Windows (B, C, T) of noise."""
    return 20 * np.random.default_rng(0).standard_normal((batch_size, *shape), dtype=np.float32)


def window_shape(encoder: Encoder) -> tuple[int, int]:
    """Channels and samples of an encoder's input; at 500 Hz that of the reference."""
    return encoder.n_channels, encoder.n_samples * encoder.step


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


if __name__ == "__main__":
    run(main, reads=("benchmark",))
