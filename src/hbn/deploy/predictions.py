"""Predictions for whole recordings: a row for each trial, or for each window where there is no trial."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hbn.data import bids, cleaning, events, signals
from hbn.data.bids import FACTORS
from hbn.data.windows import samples, straddles
from hbn.deploy.runtime import Predictor
from hbn.files import HbnError

BATCH = 64  # windows at once
SUFFIXES = tuple(f"_eeg{suffix}" for suffix in bids.EEG_SUFFIXES)  # of recordings in a folder
OUTPUTS = ("rt_s", "rt_low_s", "rt_high_s", "p_miss", "p_correct")  # of a window, as in Prediction
COLUMNS = [
    *("participant_id", "recording", "target_s", "window_s", "side", "true_rt_s"),
    *OUTPUTS,
    *(f"window_{factor}" for factor in FACTORS),
    "not_used",
]


@dataclass(frozen=True)
class RecordingPredictions:
    """What the networks say about one recording."""

    path: Path
    duration_s: float
    bad_channels: list[str]
    mapped_channels: dict[str, str]  # labels in the file that are not the net's own
    rows: list[dict]  # COLUMNS; None where there is nothing to say
    has_trials: bool
    factors: dict[str, float] | None  # mean over the windows that hold a signal
    n_windows: int


def find_recordings(paths: list[str]) -> list[Path]:
    """The recordings that these files and BIDS folders name, in order, each once.

    Raises HbnError for a path that does not exist, for another kind of file and for a folder without recordings.
    """
    found: dict[Path, None] = {}
    for name in paths:
        path = Path(name).expanduser()
        if path.is_dir():
            inner = [file for file in sorted(path.rglob("*")) if file.name.endswith(SUFFIXES)]
            if not inner:
                raise HbnError(f"{path} holds no recording (files that end with _eeg.set or _eeg.bdf)")
            found |= dict.fromkeys(inner)
        elif path.suffix not in bids.EEG_SUFFIXES:
            raise HbnError(f"{path} is no recording: give .set or .bdf files, or a folder with recordings")
        elif not (path.exists() or path.is_symlink()):
            raise HbnError(f"{path} does not exist")
        else:
            found[path] = None
    return list(found)


def predict_recording(path: Path, predictor: Predictor, p) -> RecordingPredictions:
    """Clean a recording as `p` (section preprocess) says and predict its trials, or else all its windows.

    Raises UnusableRecording as read_signal and clean do, and HbnError for one shorter than a window.
    """
    recorded = signals.read_signal(path)
    data_uv, bads, dead = cleaning.clean(recorded.data_uv, recorded.sfreq_hz, predictor.sfreq_hz, p, recorded.gaps)
    length, n = predictor.window_samples, data_uv.shape[1]
    starts = np.arange(0, n - length + 1, length)
    if not len(starts):
        raise HbnError(f"{path} is shorter than one window of {predictor.window_s:g} s")
    live = starts[~straddles(starts, length, dead)]
    of_windows = predict_windows(predictor, data_uv, live)
    trials = contrast_trials(path, n / predictor.sfreq_hz)
    if trials:
        facts = [{"target_s": trial.onset_s, "side": trial.side, "true_rt_s": trial.rt_s} for trial in trials]
        onsets_s = [trial.onset_s + predictor.trial_offset_s for trial in trials]
        begins = np.array([samples(onset_s, predictor.sfreq_hz) for onset_s in onsets_s])
    else:
        facts, begins = [{"window_s": start / predictor.sfreq_hz} for start in starts], starts
    after_end, is_dead = begins + length > n, straddles(begins, length, dead)
    usable = begins[~(after_end | is_dead)]
    outputs = iter(zip(*(predict_windows(predictor, data_uv, usable) if trials else of_windows), strict=True))
    who = {"participant_id": _participant(path), "recording": path.name.removesuffix(path.suffix).removesuffix("_eeg")}
    rows = []
    for fact, late, empty in zip(facts, after_end, is_dead, strict=True):
        reason = "after the end" if late else "no signal" if empty else None
        rows.append({**who, **fact, "not_used": reason, **({} if reason else _outputs(*next(outputs)))})
    means = dict(zip(FACTORS, map(float, of_windows[1].mean(0)), strict=True)) if len(live) else None
    return RecordingPredictions(
        path, n / predictor.sfreq_hz, list(bads), recorded.mapped, rows, bool(trials), means, len(live)
    )


def contrast_trials(path: Path, duration_s: float) -> list[events.Trial]:
    """Trials in the events table beside a recording, if it is one of contrast change detection."""
    table = path.with_name(path.name.replace(f"_eeg{path.suffix}", "_events.tsv"))
    if events.CONTRAST_CHANGE not in path.name or not table.exists() or table == path:
        return []
    run = re.search(r"_run-(\d+)_", table.name)  # of any name, not of BIDS alone
    return events.contrast_trials(events.read_events(table, duration_s), int(run[1]) if run else None)[0]


def predict_windows(predictor: Predictor, data_uv: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N, 5) and (N, 4) for the windows of (C, T) that begin at `starts` (N,)."""
    trials, factors = [np.zeros((0, len(OUTPUTS)))], [np.zeros((0, len(FACTORS)))]
    for i in range(0, len(starts), BATCH):
        windows = [data_uv[:, start : start + predictor.window_samples] for start in starts[i : i + BATCH]]
        trial, factor = predictor.batch(np.stack(windows))
        trials.append(trial)
        factors.append(factor)
    return np.concatenate(trials), np.concatenate(factors)


def _outputs(trial: np.ndarray, factors: np.ndarray) -> dict[str, float]:
    values = dict(zip(OUTPUTS, map(float, trial), strict=True))
    return values | {f"window_{name}": float(value) for name, value in zip(FACTORS, factors, strict=True)}


def _participant(path: Path) -> str | None:
    name = path.name.partition("_")[0]
    return name if name.startswith("sub-") else None
