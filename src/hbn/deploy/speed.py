"""The measurements of the stage benchmark (every variant and the reference network), and their targets."""

import logging
from pathlib import Path
from typing import cast

import numpy as np
from torch import nn

from hbn.deploy import runtime, timing
from hbn.deploy.timing import CPUS, Key
from hbn.networks.architecture import Encoder
from hbn.networks.reference import SHAPE

log = logging.getLogger(__name__)

LARGEST_REFERENCE_BATCH = 16  # attention over 1000 samples takes 16 MB per window
PROFILED_RUNS = 100
PERCENTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99)

Rows = dict[str, dict[str, dict]]  # measurements by network and variant


def measure(paths: dict[Key, Path], modules: dict[Key, nn.Module], p) -> tuple[Rows, dict, dict]:
    """Measure ONNX files and PyTorch networks: rows, microseconds by operator, latency percentiles in ms.

    `p` is the section benchmark. A file that this CPU cannot run is left out; metrics/quantize.json has the reason.
    """
    single, many, rows, operators = {}, {}, {}, {}
    shapes = {
        network: SHAPE if network == "reference" else window_shape(cast(Encoder, module.encoder))
        for (network, _), module in modules.items()
    }
    for key, path in paths.items():
        try:
            single[key] = timing.onnx_call(runtime.session(path, threads=1))
        except Exception:  # ONNX Runtime's errors have no common class
            log.info("%s %s cannot run here, see metrics/quantize.json", *key)
            continue
        many[key] = timing.onnx_call(runtime.session(path, CPUS))
        rows[key] = {"size_kb": path.stat().st_size / 1e3, "memory_mb": timing.memory_mb(path)}
        operators[key] = timing.operators_us(path, min(p.n_runs, PROFILED_RUNS))
    for (network, variant), module in modules.items():
        single[network, f"{variant}_1_thread"] = timing.torch_call(module, 1)
        many[network, variant] = timing.torch_call(module, CPUS)
        rows[network, variant] = {"size_kb": sum(x.numel() for x in module.parameters()) * 4 / 1e3}
        rows[network, f"{variant}_1_thread"] = {}

    in_pytorch = {key: many[key] for key in modules}
    times_ms = timing.latencies_ms(single, in_pytorch, shapes, p.n_runs, p.warmup_runs)
    for key, row in rows.items():
        row |= {f"p{q}_ms": float(np.percentile(times_ms[key], q)) for q in (50, 90, 99)}
        if key in many:
            sizes = [size for size in p.batch_sizes if key[0] != "reference" or size <= LARGEST_REFERENCE_BATCH]
            row["windows_per_s"] = {str(n): timing.windows_per_s(many[key], shapes[key[0]], n) for n in sizes}
        log.info("%s %s: p50 %.3f ms, p99 %.3f ms", *key, row["p50_ms"], row["p99_ms"])
    nested = {network: {v: row for (n, v), row in rows.items() if n == network} for network, _ in rows}
    return nested, operators, {key: np.percentile(times, PERCENTILES).tolist() for key, times in times_ms.items()}


def choose(rows: dict[str, dict], verdicts: dict[str, dict]) -> str | None:
    """The accepted variant with the smallest median latency; None if none was accepted."""
    accepted = [variant for variant in rows if verdicts.get(variant, {}).get("accepted")]
    return min(accepted, key=lambda variant: rows[variant]["p50_ms"], default=None)


def targets(rows: Rows, network: str, chosen: str | None, p) -> dict:
    """How the chosen variant compares with the targets in the section benchmark `p`."""
    if chosen is None:
        return {}
    own, ms = rows[network], rows[network][chosen]["p50_ms"]
    speedup = {
        "speedup_over_reference_pytorch": fastest_in_pytorch_ms(rows["reference"]) / ms,
        "speedup_over_reference_onnx": rows["reference"]["onnx"]["p50_ms"] / ms,
        "speedup_over_pytorch": fastest_in_pytorch_ms(own) / ms,
    }
    sizes_kb = [own[variant]["size_kb"] for variant in ("int8_dynamic", "int8_static") if variant in own]
    share = max(sizes_kb) / own["fused"]["size_kb"] if sizes_kb and "fused" in own else None
    return {
        **speedup,
        "fast_enough": speedup["speedup_over_reference_pytorch"] >= p.min_speedup,
        "within_budget": own[chosen]["p99_ms"] <= p.budget_ms,
        "int8_size": share,
        "int8_small_enough": share is not None and share <= p.max_int8_size,
    }


def fastest_in_pytorch_ms(rows: dict[str, dict]) -> float:
    """The median latency of a PyTorch network, on one thread or on all, whichever is smaller."""
    return min(rows["pytorch"]["p50_ms"], rows["pytorch_1_thread"]["p50_ms"])


def window_shape(encoder: Encoder) -> tuple[int, int]:
    """Channels and samples of an encoder's input."""
    return encoder.n_channels, encoder.n_samples * encoder.step
