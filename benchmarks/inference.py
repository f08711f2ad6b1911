"""Latency of one window with the deployed networks against braindecode's networks and the reference transformer.

    python benchmarks/inference.py [--runs 200] [--csv benchmarks/results/inference.csv]

One process, batch 1, all take turns, medians. The deployed files (ONNX Runtime, one thread on one CPU) are those
of models/deploy; where there are none, networks of the same shape with random weights are exported for the
occasion, in fp32 and dynamic INT8, which run as fast as trained ones. What counts is the fastest accepted variant of
the slower of the two networks. The others have windows of 129 x 1000 and run in PyTorch, on one thread and on one
per CPU, of which the faster counts; their exported files are measured too, which tells the network's share of the
ratio from the runtime's. Without braindecode (requirements-bench.txt) `ratio` is null and the rest is measured.
"""

import argparse
import importlib.util
import tempfile
import warnings
from pathlib import Path

import common
import numpy as np
import torch
from torch import nn

from hbn import params
from hbn.data import bids
from hbn.deploy import export, runtime, timing
from hbn.files import read_json, write_csv
from hbn.networks import architecture
from hbn.networks.arithmetic import use_cpu
from hbn.networks.reference import SHAPE, Reference

TARGETS = {"EEGNeX": 100.0, "reference": 25.0}  # times faster
SFREQ_HZ = 500
COLUMNS = ["network", "runtime", "variant", "p50_ms", "p99_ms"]


def main(n_runs: int, peer: bool, csv: Path | None) -> None:
    use_cpu(timing.CPUS)
    torch.manual_seed(0)
    others = {"reference": Reference()} | (braindecode() if peer else {})
    with tempfile.TemporaryDirectory() as folder:
        trained = deployed()
        ours = trained or exported(Path(folder))
        paths = {(name, variant): path for name, variants in ours.items() for variant, path in variants.items()}
        for name, network in others.items():
            paths[name, "onnx"] = Path(folder) / f"{name}.onnx"
            export.write(export.export(network.eval(), SHAPE), paths[name, "onnx"])
        sessions = {key: runtime.session(path, threads=1) for key, path in paths.items()}
    single = {key: timing.onnx_call(session) for key, session in sessions.items()}
    single |= {(name, "pytorch, 1 thread"): timing.torch_call(network, 1) for name, network in others.items()}
    many = {
        (name, f"pytorch, {timing.CPUS} threads"): timing.torch_call(network, timing.CPUS)
        for name, network in others.items()
    }
    shapes = {name: sessions[name, variant].get_inputs()[0].shape[1:] for name, variant in sessions}
    times_ms = timing.latencies_ms(single, many, shapes, n_runs, warmup_runs=min(10, n_runs))
    p50_ms = {key: float(np.median(times)) for key, times in times_ms.items()}

    chosen = {name: min(variants, key=lambda v, name=name: p50_ms[name, v]) for name, variants in ours.items()}
    slower = max(chosen, key=lambda name: p50_ms[name, chosen[name]])
    own_ms = p50_ms[slower, chosen[slower]]
    eager_ms = {name: min(ms for (n, v), ms in p50_ms.items() if n == name and v != "onnx") for name in others}
    # On a busy machine long calls are interrupted and short ones are not: the fastest runs are free of that.
    p10_ms = {key: float(np.percentile(times, 10)) for key, times in times_ms.items()}
    quiet_ms = {name: min(ms for (n, v), ms in p10_ms.items() if n == name and v != "onnx") for name in others}
    result: dict[str, float | str | None] = {"ratio": eager_ms["EEGNeX"] / own_ms if peer else None}
    result |= {f"ratio_p10_{name}": ms / p10_ms[slower, chosen[slower]] for name, ms in quiet_ms.items()}
    result |= {f"ratio_{name}": ms / own_ms for name, ms in eager_ms.items()}
    result |= {f"ratio_{name}_onnx": p50_ms[name, "onnx"] / own_ms for name in others}
    result |= {f"p50_ms_{name}": ms for name, ms in eager_ms.items()}
    result |= {f"p50_ms_{name}": p50_ms[name, variant] for name, variant in chosen.items()}
    result |= {"chosen": f"{slower} {chosen[slower]}", "weights": "trained" if trained else "random"}
    rows = [
        {
            "network": name,
            "run as": variant,
            "p10 ms": p10_ms[name, variant],
            "p50 ms": ms,
            "p99 ms": float(np.percentile(times_ms[name, variant], 99)),
            f"times {result['chosen']}": ms / own_ms,
        }
        for (name, variant), ms in sorted(p50_ms.items(), key=lambda item: item[1])
    ]
    common.print_table(rows)
    print()
    reached = [
        {"times faster than": name, "measured": eager_ms[name] / own_ms, "target": f">= {target:g}"}
        for name, target in TARGETS.items()
        if name in eager_ms
    ]
    common.print_table(reached)
    if csv:
        write_csv(csv, fastest(times_ms), COLUMNS)
    common.print_result(result)


def fastest(times_ms: dict[tuple[str, str], np.ndarray]) -> list[dict]:
    """A row for each network in ONNX Runtime and in PyTorch: the variant or number of threads that is fastest."""
    by_runtime: dict[tuple[str, str], list[dict]] = {}
    for (network, variant), times in times_ms.items():
        runtime_name = "PyTorch" if variant.startswith("pytorch") else "ONNX Runtime"
        p50_ms, p99_ms = (float(np.percentile(times, percentile)) for percentile in (50, 99))
        row = {"network": network, "runtime": runtime_name, "variant": variant, "p50_ms": p50_ms, "p99_ms": p99_ms}
        by_runtime.setdefault((network, runtime_name), []).append(row)
    return [min(rows, key=lambda row: row["p50_ms"]) for _, rows in sorted(by_runtime.items())]


def deployed() -> dict[str, dict[str, Path]]:
    """Accepted files of the stage quantize, by network and variant; empty before it has run."""
    if not (common.ROOT / runtime.FOLDER).exists():
        return {}
    verdicts = read_json(common.ROOT / "metrics/quantize.json")
    folders = {name: common.ROOT / runtime.FOLDER / name for name in ("challenge1", "challenge2")}
    return {
        name: {v: folder / f"{v}.onnx" for v, row in verdicts[name].items() if row.get("accepted")}
        for name, folder in folders.items()
    }


def exported(folder: Path) -> dict[str, dict[str, Path]]:
    """Both networks with random weights, as params.yaml describes them, at 500 Hz."""
    p = params.load(common.ROOT / "params.yaml")
    settings = p.model.size, p.model.n_spatial_filters, p.model.dropout
    positions_m = torch.from_numpy(bids.electrode_positions_m()).float()
    encoder = architecture.Encoder(positions_m, SFREQ_HZ, p.windows.window_s, *settings)
    networks = {
        "challenge1": architecture.ResponseTime(encoder, p.windows.window_s, p.windows.trial_offset_s),
        "challenge2": architecture.Factors(encoder, p.challenge2.n_regions, len(bids.FACTORS)),
    }
    paths = {}
    for name, network in networks.items():
        graph = export.export(network.eval(), (len(positions_m), round(p.windows.window_s * SFREQ_HZ)))
        paths[name] = {"fp32": folder / f"{name}_fp32.onnx", "int8_dynamic": folder / f"{name}_int8.onnx"}
        export.write(graph, paths[name]["fp32"])
        export.write(export.int8(graph), paths[name]["int8_dynamic"])
    return paths


def braindecode() -> dict[str, nn.Module]:
    """braindecode's networks with random weights, for windows of the same shape."""
    warnings.simplefilter("ignore")  # about torchaudio in pure Python, see requirements-bench.txt
    from braindecode.models import EEGConformer, EEGNeX

    shape = {"n_chans": SHAPE[0], "n_times": SHAPE[1], "sfreq": SFREQ_HZ, "n_outputs": 1}
    return {"EEGNeX": EEGNeX(**shape), "EEGConformer": EEGConformer(**shape)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=200, help="timed runs of each network at most")
    parser.add_argument("--without-peer", action="store_true", help="leave braindecode out")
    parser.add_argument("--csv", type=Path, help="write the fastest variant of each network to this file")
    arguments = parser.parse_args()
    peer = not arguments.without_peer and importlib.util.find_spec("braindecode") is not None
    main(arguments.runs, peer, arguments.csv)
