"""Windows as the challenge's organisers have them: from 100 Hz recordings, including bad channels."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hbn.data import bids
from hbn.data.cleaning import REFERENCE, filter_and_resample
from hbn.data.dataset import Dataset
from hbn.data.signals import read_signal
from hbn.deploy import challenge_zip
from hbn.files import HbnError
from hbn.networks.architecture import SFREQ_HZ
from hbn.stage import progress

BAND_HZ = 0.5, 50.0  # of the organisers' FIR filter, before they resample
NO_NOTCH_HZ = math.inf

RAW = Path("data/raw")


def contrast_windows(dataset: Dataset, windows: np.ndarray) -> np.ndarray:
    """Indices of the windows (N, 2) of contrast change detection, which the challenge uses, sorted by recording."""
    tasks = np.array([row["task"] for row in dataset.cache.recordings])
    rows = np.flatnonzero(tasks[windows[:, 0]] == "contrastChangeDetection")
    return rows[np.argsort(windows[rows, 0], kind="stable")]


def batches(dataset: Dataset, windows: np.ndarray, raw: Path = RAW) -> Iterator[np.ndarray]:
    """The windows (N, 2), sorted by recording, as float32 (B, C, 200) in microvolts at 100 Hz against Cz.

    Each recording below `raw` is read as a whole. A recording at 100 Hz is taken as it is, because the challenge's
    copies have this rate. Any other recording is filtered and resampled as the organisers do for their copies.
    """
    numbers, first = np.unique(windows[:, 0], return_index=True)
    parts = np.split(windows[:, 1], first[1:])
    for number, starts in progress(list(zip(numbers, parts, strict=True)), unit="recording"):
        data_uv = recorded(path_of(dataset.cache.recordings[number], raw))
        begins = np.round(starts / dataset.cache.sfreq_hz * SFREQ_HZ).astype(int)
        length = challenge_zip.SHAPE[1]
        begins = np.minimum(begins, data_uv.shape[1] - length)
        yield np.stack([data_uv[:, begin : begin + length] for begin in begins])


def recorded(path: Path) -> np.ndarray:
    """A whole recording (C, T) as float32 in microvolts at 100 Hz against Cz, filtered as the organisers do."""
    signal = read_signal(path)
    data_uv = signal.data_uv
    if signal.sfreq_hz != SFREQ_HZ:
        data_uv = filter_and_resample(data_uv, signal.sfreq_hz, SFREQ_HZ, *BAND_HZ, NO_NOTCH_HZ)
    return data_uv - data_uv[REFERENCE]


def path_of(row: dict[str, str], raw: Path) -> Path:
    """The file of a recording of the dataset; HbnError where there is none."""
    recording = row["recording"]
    for suffix in bids.EEG_SUFFIXES:
        path = raw / row["release"] / row["participant_id"] / "eeg" / f"{recording}_eeg{suffix}"
        if path.exists():
            return path
    raise HbnError(f"{recording} is in the dataset but not below {raw}: run `dvc repro fetch` or `dvc checkout`")
