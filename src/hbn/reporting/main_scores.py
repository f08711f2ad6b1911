"""The main scores of the last run as lines of text, from metrics/."""

from pathlib import Path

from hbn.files import read_json
from hbn.reporting.experiments import SCORES
from hbn.scoring.names import BASELINES


def main_scores(root: Path | str = ".") -> list[str]:
    """A line for each test score of SCORES in metrics/, and a line for the latency of each deployed network."""
    root = Path(root)
    lines, sources = [], set()
    for name, (file, key) in SCORES.items():
        metrics, (table, *parts) = _read(root / file), key.split(".")
        if table != "test":
            continue
        rows, (row, score, _) = metrics.get("test", {}), parts
        own = rows.get(row, {}).get(score)
        if own is None:
            continue
        sources.add(metrics["source"])
        others = [
            f"{other} {rows[other][score]['value']:.3f}"
            for other in reversed(BASELINES)
            if score in rows.get(other, {})
        ]
        line = f"{name:<18} {own['value']:6.3f} ({own['low']:.2f} to {own['high']:.2f})"
        lines.append(line + (f"  without EEG: {', '.join(others)}" if others else ""))
    if lines:
        lines.insert(0, f"Scores of the test participants (95 % intervals), data: {', '.join(sorted(sources))}")
    return lines + _latencies(_read(root / "metrics/benchmark.json"))


def _latencies(benchmark: dict) -> list[str]:
    lines = []
    for task, variant in benchmark.get("chosen", {}).items():
        name, timing = f"{task}.latency", benchmark["variants"][task][variant]
        lines.append(f"{name:<18} {timing['p50_ms']:6.3f} ms (99 %: {timing['p99_ms']:.2f} ms)  as {variant}, batch 1")
    return lines


def _read(path: Path) -> dict:
    return read_json(path) if path.exists() else {}
