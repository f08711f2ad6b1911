"""Predictions for whole recordings: a row for each trial, or for each window where there is no trial."""

import os
import re
from collections import Counter
from collections.abc import Collection
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
    """The predictions for one recording."""

    path: Path
    problem: str | None  # why nothing is predicted, or why the event table is not used
    duration_s: float | None
    bad_channels: list[str]
    mapped_channels: dict[str, str]  # labels in the file that are not the net's own
    rows: list[dict]  # by COLUMNS; a missing key has no value
    has_trials: bool
    dropped_trials: dict[str, int]  # targets in the event table that are no trials, by reason
    factors: dict[str, float] | None  # mean over the windows that hold a signal
    n_windows: int


def find_recordings(paths: list[str]) -> list[Path]:
    """The recordings that these files and BIDS folders name, in order, each once.

    Raises HbnError for a path that does not exist, for another kind of file and for a folder without recordings.
    """
    found: dict[Path, None] = {}
    for name in paths:
        path = Path(name).expanduser()
        if not os.path.lexists(path):
            raise HbnError(f"{path} does not exist")
        if path.is_dir():
            inner = [file for file in sorted(path.rglob("*")) if file.name.endswith(SUFFIXES)]
            if not inner:
                raise HbnError(f"{path} holds no recording (files that end with _eeg.set or _eeg.bdf)")
            found |= dict.fromkeys(inner)
        elif path.suffix not in bids.EEG_SUFFIXES:
            raise HbnError(f"{path} is no recording: give .set or .bdf files, or a folder with recordings")
        else:
            found[path] = None
    return list(found)


def predict_recording(path: Path, predictor: Predictor, p) -> RecordingPredictions:
    """Clean a recording as `p` (section preprocess) says and predict its trials, or else all its windows.

    Without a usable event table all windows are predicted. Raises UnusableRecording as read_signal and clean do, and
    'too_short' for a recording shorter than a window.
    """
    recorded = signals.read_signal(path)
    data_uv, bads, dead = cleaning.clean(recorded.data_uv, recorded.sfreq_hz, predictor.sfreq_hz, p, recorded.gaps)
    length, n = predictor.window_samples, data_uv.shape[1]
    starts = np.arange(0, n - length + 1, length)
    if not len(starts):
        detail = f"{n / predictor.sfreq_hz:.1f} s, a window has {predictor.window_s:g} s"
        raise bids.UnusableRecording("too_short", detail)
    live = starts[~straddles(starts, length, dead)]
    of_windows = predict_windows(predictor, data_uv, live)
    problem, trials, dropped = None, [], Counter()
    try:
        trials, dropped = contrast_trials(path, n / predictor.sfreq_hz, recorded.gaps_s)
    except bids.UnusableRecording as error:
        problem = str(error)
    if trials:
        facts = [{"target_s": trial.onset_s, "side": trial.side, "true_rt_s": trial.rt_s} for trial in trials]
        targets, begins = (
            np.array([samples(trial.onset_s + later_s, predictor.sfreq_hz) for trial in trials])
            for later_s in (0.0, predictor.trial_offset_s)
        )
    else:
        facts, targets, begins = [{"window_s": start / predictor.sfreq_hz} for start in starts], starts, starts
    after_end, is_dead = begins + length > n, straddles(targets, 1, dead) | straddles(begins, length, dead)
    usable = begins[~(after_end | is_dead)]
    outputs = iter(zip(*(predict_windows(predictor, data_uv, usable) if trials else of_windows), strict=True))
    rows = []
    for fact, late, empty in zip(facts, after_end, is_dead, strict=True):
        reason = "after the end" if late else "no signal" if empty else None
        rows.append({**_who(path), **fact, "not_used": reason, **({} if reason else _outputs(*next(outputs)))})
    means = dict(zip(FACTORS, map(float, of_windows[1].mean(0)), strict=True)) if len(live) else None
    return RecordingPredictions(
        path=path,
        problem=problem,
        duration_s=n / predictor.sfreq_hz,
        bad_channels=list(bads),
        mapped_channels=recorded.mapped,
        rows=rows,
        has_trials=bool(trials),
        dropped_trials={why: n for why, n in dropped.items() if why not in events.FILE_REASONS},
        factors=means,
        n_windows=len(live),
    )


def doubles_of(path: Path, paths: Collection[Path]) -> str:
    """The problem of a recording that has several files in `paths`; else empty."""
    same = [path.with_suffix(suffix).name for suffix in bids.EEG_SUFFIXES if path.with_suffix(suffix) in paths]
    return f"one recording in {len(same)} files, {' and '.join(same)}; give one of them" if len(same) > 1 else ""


def no_prediction(path: Path, problem: str) -> RecordingPredictions:
    """The result for a recording that cannot be used: one row with the reason."""
    rows = [{**_who(path), "not_used": problem}]
    return RecordingPredictions(path, problem, None, [], {}, rows, False, {}, None, 0)


def contrast_trials(path: Path, duration_s: float, gaps_s: events.Gaps) -> tuple[list[events.Trial], Counter]:
    """Trials in the event table beside a recording, if it is one of contrast change detection, and those dropped."""
    table = events_table(path)
    if events.CONTRAST_CHANGE not in path.name or not os.path.lexists(table):
        return [], Counter()
    run = re.search(r"_run-(\d+)_", table.name)  # of any name, not of BIDS alone
    table_events = events.read_events(table, duration_s, gaps_s)
    return events.contrast_trials(table_events, int(run[1]) if run else None)


def events_table(path: Path) -> Path:
    """Where the event table of a recording lies, if it has one."""
    return path.with_name(f"{_stem(path)}_events.tsv")


def why_no_trial(path: Path) -> str:
    """Why no trial of a recording is known, without a problem of its event table."""
    table = events_table(path)
    if events.CONTRAST_CHANGE not in path.name:
        return f"the recording's name does not say task-{events.CONTRAST_CHANGE}_run-N"
    if not table.exists():
        return f"{table.name} is not beside the recording"
    return f"{table.name} holds none of the run that the recording's name says"


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


def _who(path: Path) -> dict[str, str | None]:
    name = path.name.partition("_")[0]
    return {"participant_id": name if name.startswith("sub-") else None, "recording": _stem(path)}


def _stem(path: Path) -> str:
    return path.name.removesuffix(path.suffix).removesuffix("_eeg")
