"""The window cache: continuous float16 recordings on disk, windows as (recording, start) pairs.

A recording is one .npy file, time-major (T, C), so that every window is one contiguous read and
overlapping windows cost no space. Files are memory-mapped when first used.
"""

from pathlib import Path

import numpy as np

from hbn.files import HbnError, existing, read_csv

RECORDING_COLUMNS = [
    *("recording", "release", "participant_id", "task", "run", "samples", "sfreq_hz", "scale_uv", "sha256")
]


def samples(duration_s: float, sfreq_hz: float) -> int:
    """The one rule from seconds to samples: the nearest whole sample."""
    return round(duration_s * sfreq_hz)


def window_starts(n_samples: int, window_samples: int, stride_samples: int, boundaries: list[int]) -> np.ndarray:
    """Starts of all whole windows (N,) that do not straddle a discontinuity at one of `boundaries`."""
    starts = np.arange(0, n_samples - window_samples + 1, stride_samples, dtype=np.int64)
    for boundary in boundaries:
        starts = starts[(starts >= boundary) | (starts + window_samples <= boundary)]
    return starts


class WindowCache:
    """Read access to a folder with recordings.csv and recordings/<release>/<participant>/<stem>.npy."""

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self.recordings = read_csv(existing(self.root / "recordings.csv", made_by="assemble"))
        self.scale_uv = np.array([float(row["scale_uv"]) for row in self.recordings], dtype=np.float32)
        self.row = {row["recording"]: i for i, row in enumerate(self.recordings)}
        rates = {float(row["sfreq_hz"]) for row in self.recordings}
        if len(rates) != 1:
            raise HbnError(f"{root} should hold recordings of one sampling rate, it holds {sorted(rates)} Hz")
        self.sfreq_hz = rates.pop()
        self._mapped: dict[int, np.ndarray] = {}

    def path(self, recording: int) -> Path:
        row = self.recordings[recording]
        return self.root / "recordings" / row["release"] / row["participant_id"] / f"{row['recording']}.npy"

    def gather(self, recordings: np.ndarray, starts: np.ndarray, window_samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a batch: float16 (B, T, C) in units of scale_uv, and scale_uv (B,) float32."""
        batch = [self._map(int(r))[start : start + window_samples] for r, start in zip(recordings, starts, strict=True)]
        return np.stack(batch), self.scale_uv[recordings]

    def _map(self, recording: int) -> np.ndarray:
        if recording not in self._mapped:
            path = self.path(recording)
            self._mapped[recording] = np.load(existing(path, made_by="assemble"), mmap_mode="r", allow_pickle=False)
        return self._mapped[recording]
