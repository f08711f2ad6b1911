"""What the benchmark scripts share: the library on the path, noise, timing, memory and the report."""

import json
import resource
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))  # the library and the stage scripts, wherever the benchmark is started

from hbn.reporting import tables  # noqa: E402 (found by the line above)


def noise_uv(rng: np.random.Generator, n_channels: int, n_samples: int, exponent: float) -> np.ndarray:
    """Noise (C, T) float32 of sd 10 uV whose power falls with f^-exponent: 0 is white, about 1.3 is EEG's."""
    amplitude = np.maximum(np.arange(n_samples // 2 + 1), 1) ** (-exponent / 2)
    data_uv = np.empty((n_channels, n_samples), dtype=np.float32)
    for row in data_uv:
        spectrum = amplitude * (rng.normal(size=len(amplitude)) + 1j * rng.normal(size=len(amplitude)))
        wave = np.fft.irfft(spectrum, n_samples)
        row[:] = 10 * wave / wave.std()
    return data_uv


def peak_mb() -> float:
    """Largest resident memory of this process so far, in 10^6 bytes (pages of mapped files included)."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss of a Linux process starts at that of the process it was started from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024 / 1e6  # in kB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def print_table(rows: list[dict]) -> None:
    """Rows as a Markdown table; numbers to three significant digits, thousands in full."""
    print(tables.markdown(list(rows[0]), [[_short(value) for value in row.values()] for row in rows], aligned=True))


def print_result(result: dict) -> None:
    """The last line of a benchmark: one JSON object, floats to four significant digits."""
    print(json.dumps({k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in result.items()}), flush=True)


def _short(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
