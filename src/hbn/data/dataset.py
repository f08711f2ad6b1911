"""The assembled dataset as training reads it: windows, trials and participants."""

import os
import weakref
from collections import deque
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hbn.data.windows import WindowCache, samples
from hbn.files import HbnError, digest, existing, read_csv, read_json, sha256

DATASET = Path("data/dataset")
TABLES = ("recordings.csv", "participants.csv", "trials.csv", "windows.npy", "events.npy", "breaks.npy")
N_THREADS = min(4, os.cpu_count() or 1)  # threads that fill a batch
N_KEPT = 2  # number of freed batches whose memory is kept for the next ones


@dataclass(frozen=True)
class Events:
    """The events of all recordings and tasks."""

    recording: np.ndarray  # (N,) index of the row in recordings.csv
    sample: np.ndarray  # (N,)
    kind: np.ndarray  # (N,) index of kinds
    task: np.ndarray  # (N,) index of tasks: the running task, which may not be that of the file
    kinds: tuple[str, ...]
    tasks: tuple[str, ...]

    @classmethod
    def open(cls, root: Path) -> "Events":
        about = read_json(root / "about.json")
        columns = np.load(root / "events.npy", allow_pickle=False).T  # (4, N)
        return cls(*columns, kinds=tuple(about["event_kinds"]), tasks=tuple(about["event_tasks"]))

    def of(self, kinds: Collection[str], tasks: Collection[str]) -> np.ndarray:
        """Mask (N,) of the events of these kinds in these tasks; HbnError for an unknown name."""
        if unknown := {*kinds, *tasks} - {*self.kinds, *self.tasks}:
            names = ", ".join((*self.kinds, *self.tasks))
            raise HbnError(f"{', '.join(sorted(unknown))}: no kind or task of events; there are {names}")
        is_kind = np.isin(self.kind, [i for i, name in enumerate(self.kinds) if name in kinds])
        return is_kind & np.isin(self.task, [i for i, name in enumerate(self.tasks) if name in tasks])


@dataclass(frozen=True)
class Dataset:
    """The assembled dataset: window cache, participants, trials, electrode positions."""

    cache: WindowCache
    reader: "BatchReader"
    windows: np.ndarray  # (N, 2): recording, start sample
    events: Events
    breaks: np.ndarray  # (K, 3): recording, first sample of a stretch that no window may touch, first sample after it
    trials: list[dict[str, str]]
    participants: dict[str, dict[str, str]]
    positions_m: Tensor  # (C, 3)
    window_samples: int
    source: str  # 'simulated' or where the data came from
    sha256: str  # of the tables, which hold the checksum of every recording

    @classmethod
    def open(cls, root: Path | str, window_s: float) -> "Dataset":
        root = existing(root, made_by="assemble")
        cache = WindowCache(root)
        channels = read_csv(root / "channels.csv")
        return cls(
            cache=cache,
            reader=BatchReader(cache, len(channels)),
            windows=np.load(root / "windows.npy", mmap_mode="r", allow_pickle=False),
            events=Events.open(root),
            breaks=np.load(root / "breaks.npy", allow_pickle=False),
            trials=read_csv(root / "trials.csv"),
            participants={row["participant_id"]: row for row in read_csv(root / "participants.csv")},
            positions_m=torch.tensor([[float(row[axis]) for axis in ("x_m", "y_m", "z_m")] for row in channels]),
            window_samples=samples(window_s, cache.sfreq_hz),
            source=read_json(root / "about.json")["source"],
            sha256=digest([sha256(root / name) for name in TABLES]),
        )

    @property
    def facts(self) -> dict[str, object]:
        """Facts about the data, which every model file made from it holds."""
        return {"source": self.source, "data_sha256": self.sha256, "sfreq_hz": self.cache.sfreq_hz}

    def split_windows(self, split: str) -> np.ndarray:
        """Windows (N, 2) of the participants of one split."""
        rows = [row for row in self.participants.values() if row["split"] == split]
        return self.participant_windows(rows)[0]

    def participant_windows(self, participants: list[dict[str, str]]) -> tuple[np.ndarray, np.ndarray]:
        """All windows (N, 2) of these participants, and for each window the index (N,) of its participant."""
        index = {row["participant_id"]: i for i, row in enumerate(participants)}
        recording_owner = np.array([index.get(row["participant_id"], -1) for row in self.cache.recordings])
        owner = recording_owner[self.windows[:, 0]]
        return self.windows[owner >= 0], owner[owner >= 0]

    def split_trials(self, split: str) -> list[dict[str, str]]:
        """Trials of the participants of one split."""
        return [t for t in self.trials if self.participants[t["participant_id"]]["split"] == split]

    def split_participants(self, split: str, known: str) -> list[dict[str, str]]:
        """Participants of one split with a value in the column `known` (adults have no factors)."""
        return [row for row in self.participants.values() if row["split"] == split and row[known]]

    def trial_windows(self, trials: list[dict[str, str]]) -> np.ndarray:
        """Windows (N, 2) of trials."""
        rows = [(self.cache.row[t["recording"]], int(t["start_sample"])) for t in trials]
        return np.array(rows, dtype=np.int64).reshape(-1, 2)

    def batch_uv(self, windows: np.ndarray) -> Tensor:
        """Windows (B, 2) as float32 microvolts (B, C, T); a transposed view of time-major memory."""
        return self.reader.read_uv(windows, self.window_samples)


class BatchReader:
    """Reads batches of windows with its own threads into recycled memory.

    New memory would cost a page fault and the clearing of every page. NumPy allocates it, because NumPy asks for huge
    pages and PyTorch does not.
    """

    def __init__(self, cache: WindowCache, n_channels: int):
        self.cache, self.n_channels = cache, n_channels
        self._scale_uv = torch.from_numpy(cache.scale_uv)
        self._threads = ThreadPoolExecutor(N_THREADS)
        self._freed: deque[np.ndarray] = deque(maxlen=N_KEPT)  # memory of batches that no longer exist

    def read_uv(self, windows: np.ndarray, window_samples: int) -> Tensor:
        """Windows (B, 2) of recording and start sample as (B, C, T) in microvolts."""
        batch = self._memory((len(windows), window_samples, self.n_channels))  # (B, T, C)
        parts = max(1, min(N_THREADS, len(windows)))
        for _ in self._threads.map(self._fill, np.array_split(windows, parts), np.array_split(batch, parts)):
            pass  # map raises the error of a thread only when its result is taken
        return torch.from_numpy(batch).transpose(1, 2)

    def _fill(self, windows: np.ndarray, batch: np.ndarray) -> None:
        """Read windows (B, 2) into (B, T, C)."""
        window = np.empty(batch.shape[1:], dtype=np.float16)
        for into, (recording, start) in zip(torch.from_numpy(batch), windows.tolist(), strict=True):
            # One window at a time, so that it is converted and scaled while it is in the processor's cache. The scale
            # is a float32 tensor with one element, so the product is float32.
            self.cache.read(recording, start, window)
            torch.mul(torch.from_numpy(window), self._scale_uv[recording : recording + 1], out=into)

    def _memory(self, shape: tuple[int, ...]) -> np.ndarray:
        """Uninitialised float32 array, from the memory of a freed batch if one has this shape."""
        memory = self._freed.pop() if self._freed else None
        if memory is None or memory.shape != shape:
            memory = np.empty(shape, dtype=np.float32)
        lent = memory[:]
        weakref.finalize(lent, self._freed.append, memory).atexit = False
        return lent


def response_times_s(trials: list[dict[str, str]]) -> np.ndarray:
    """Response times (N,) in s, NaN where there was no response."""
    return np.array([float(t["rt_s"]) if t["rt_s"] else np.nan for t in trials])
