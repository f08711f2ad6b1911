"""The main scores of the last run as lines of text, from metrics/."""

import json
from pathlib import Path

from hbn.reporting.experiments import SCORES

BASELINES = ("mean", "age_sex", "stimulus_history")  # rows of `test` that see no EEG


def summary(root: Path | str = ".") -> list[str]:
    """One line for each of the SCORES that metrics/ has, and one for each deployed network's latency."""
    root = Path(root)
    lines, sources = [], set()
    for name, (file, key, lower_is_better) in SCORES.items():
        metrics = _read(root / file)
        if not key.startswith("test."):
            continue
        table, row, score, _ = key.split(".")
        rows = metrics.get(table, {})
        cell = rows.get(row, {}).get(score)
        if cell is None:
            continue
        sources.add(str(metrics.get("source")))
        line = f"{name:<18} {cell['value']:6.3f}  ({cell['low']:.2f} to {cell['high']:.2f})"
        values = {other: rows[other][score]["value"] for other in BASELINES if score in rows.get(other, {})}
        if values:
            best = (min if lower_is_better else max)(values, key=lambda other: values[other])
            line += f"  best without EEG: {values[best]:.3f} ({best})"
        lines.append(line)
    lines += _latencies(_read(root / "metrics/benchmark.json"))
    if sources:
        lines.insert(0, f"Scores of the test participants (95 % interval); data: {', '.join(sorted(sources))}")
    return lines


def _latencies(benchmark: dict) -> list[str]:
    lines = []
    for task, variant in benchmark.get("chosen", {}).items():
        timing = benchmark.get("variants", {}).get(task, {}).get(variant, {})
        if {"p50_ms", "p99_ms"} <= timing.keys():
            name = f"{task}.latency"
            lines.append(f"{name:<18} {timing['p50_ms']:6.3f} ms  (99 %: {timing['p99_ms']:.2f} ms) as {variant}")
    return lines


def _read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}
