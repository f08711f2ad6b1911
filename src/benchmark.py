"""Speed, memory and size of every variant, beside the reference transformer in the same run.

Reads  models/deploy, models/challenge1.pt, models/challenge2.pt, metrics/quantize.json
Writes models/reference.onnx
       metrics/benchmark.json, plots/benchmark_latency.csv, plots/benchmark_accuracy.csv,
       plots/benchmark_profile.csv: these differ between machines and runs, so they are no outputs of the stage

The chosen variant of each network is the fastest accepted variant at batch 1. Variants run single windows
on one thread that is pinned to one CPU. PyTorch networks run on one thread and on one thread per CPU, and
the faster run counts. All networks take turns, so that a busy moment of the machine affects all of them.
"""

from pathlib import Path

import torch
from torch import nn

from hbn.deploy import export, runtime, speed, timing
from hbn.files import read_json, write_csv, write_json
from hbn.networks import inference
from hbn.networks.arithmetic import use_cpu
from hbn.networks.reference import SHAPE, Reference
from hbn.stage import run

NETWORKS = ("challenge1", "challenge2")
REFERENCE = Path("models/reference.onnx")


def main(p) -> None:
    use_cpu(timing.CPUS)
    verdicts = read_json("metrics/quantize.json")
    torch.manual_seed(p.benchmark.seed)
    reference = Reference().eval()
    export.write(export.export(reference, SHAPE), REFERENCE)

    paths = {("reference", "onnx"): REFERENCE}
    modules: dict[timing.Key, nn.Module] = {("reference", "pytorch"): reference}
    for name in NETWORKS:
        paths |= {(name, v): runtime.FOLDER / name / f"{v}.onnx" for v in verdicts[name] if v != "pytorch"}
        modules[name, "pytorch"], _ = inference.load_network(f"models/{name}.pt", made_by=name)
    rows, operators, percentiles_ms = speed.measure(paths, modules, p.benchmark)

    chosen = {name: speed.choose(rows[name], verdicts[name]) for name in NETWORKS}
    write_json(
        runtime.BENCHMARK,
        {
            "source": verdicts["source"],
            "machine": {"cpu": timing.cpu_name(), "cpus": timing.CPUS},
            "threads": {"latency": 1, "throughput": timing.CPUS},
            "chosen": chosen,
            "targets": {name: speed.targets(rows, name, chosen[name], p.benchmark) for name in NETWORKS},
            "variants": rows,
        },
    )
    write_plots(rows, operators, percentiles_ms, verdicts)


def write_plots(rows: speed.Rows, operators: dict, percentiles_ms: dict, verdicts: dict) -> None:
    """Write the tables of latency percentiles, of accuracy against latency and of time by operator."""
    latency = [
        {"network": network, "variant": variant, "percentile": percentile, "latency_ms": ms}
        for (network, variant), values in percentiles_ms.items()
        for percentile, ms in zip(speed.PERCENTILES, values, strict=True)
    ]
    accuracy = [
        {"network": name, "variant": variant, "score": score, "value": value, "latency_ms": row["p50_ms"]}
        for name in NETWORKS
        for variant, row in rows[name].items()
        for score, value in verdicts[name].get(variant, {}).get("scores", {}).items()
    ]
    by_operator = [
        {"network": network, "variant": variant, "operator": operator, "us": us}
        for (network, variant), times_us in operators.items()
        for operator, us in times_us
    ]
    write_csv("plots/benchmark_latency.csv", latency, ["network", "variant", "percentile", "latency_ms"])
    write_csv("plots/benchmark_accuracy.csv", accuracy, ["network", "variant", "score", "latency_ms", "value"])
    write_csv("plots/benchmark_profile.csv", by_operator, ["network", "variant", "operator", "us"])


if __name__ == "__main__":
    run(main, reads=("benchmark",))
