"""The window cache: continuous float16 recordings on disk, windows as (recording, start) pairs.

A recording is one .npy file, time-major (T, C), so that every window is one contiguous read and
overlapping windows cost no space. A file is opened for each window. Permanent memory maps would need a file
handle for every recording (1,024 is a usual limit), and every page ever read would count as used memory.
"""

from pathlib import Path

import numpy as np

from hbn.files import HbnError, atomic, existing, read_csv

RECORDING_COLUMNS = [
    *("recording", "release", "participant_id", "task", "run", "samples", "sfreq_hz", "scale_uv", "sha256")
]


def samples(duration_s: float, sfreq_hz: float) -> int:
    """The one rule from seconds to samples: the nearest whole sample."""
    return round(duration_s * sfreq_hz)


def straddles(starts: np.ndarray, window_samples: int, breaks: list[tuple[int, int]]) -> np.ndarray:
    """Mask (N,) of the windows, beginning at `starts`, that hold a discontinuity or part of an unusable stretch.

    Each break is its first unusable sample and the first usable sample after it. At a discontinuity both are the
    first sample after it.
    """
    within = np.zeros(len(starts), dtype=bool)
    for begin, end in breaks:
        within |= (starts < end) & (starts + window_samples > begin)
    return within


def window_starts(
    n_samples: int, window_samples: int, stride_samples: int, breaks: list[tuple[int, int]]
) -> np.ndarray:
    """Starts (N,) of all complete windows that touch none of the `breaks` (see straddles)."""
    starts = np.arange(0, n_samples - window_samples + 1, stride_samples, dtype=np.int64)
    return starts[~straddles(starts, window_samples, breaks)]


def save_array(path: Path | str, array: np.ndarray) -> None:
    """Write an array as .npy, atomically."""
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, array)


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
        self._layouts: dict[int, tuple[Path, int]] = {}

    def path(self, recording: int) -> Path:
        row = self.recordings[recording]
        return self.root / "recordings" / row["release"] / row["participant_id"] / f"{row['recording']}.npy"

    def read(self, recording: int, start: int, window: np.ndarray) -> None:
        """Fill `window`, float16 (T, C), in units of scale_uv[recording]."""
        path, offset = self._layout(recording, window.shape[1])
        with open(path, "rb", buffering=0) as file:
            file.seek(offset + start * window.strides[0])
            if file.readinto(window.data) != window.nbytes:
                raise HbnError(f"{path} ends before sample {start + len(window)}; run `dvc repro assemble`")

    def _layout(self, recording: int, n_channels: int) -> tuple[Path, int]:
        """The file of a recording and the offset of its first sample in bytes."""
        if recording not in self._layouts:
            path = existing(self.path(recording), made_by="assemble")
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.dtype != np.float16 or array.shape[1:] != (n_channels,) or not array.flags.c_contiguous:
                raise HbnError(f"{path} should hold float16 (T, {n_channels}), row by row; run `dvc repro assemble`")
            self._layouts[recording] = path, array.offset
        return self._layouts[recording]
