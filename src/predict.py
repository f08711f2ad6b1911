"""Predictions for one recording (.set or .bdf), printed as a table: python src/predict.py RECORDING

Reads  models/deploy, metrics/benchmark.json (which variant is fastest), the events beside the recording

For research only: not a medical device, not for any decision about a person.
"""

import signal as system_signal
from pathlib import Path

import numpy as np

from hbn.data import bids, cleaning, events
from hbn.data.windows import samples, window_starts
from hbn.deploy.runtime import Predictor
from hbn.files import HbnError, existing
from hbn.stage import run

BATCH = 64
NOTICE = "For research only: not a medical device, not for any decision about a person."


def main(p, *arguments: str) -> None:
    if len(arguments) != 1 or Path(arguments[0]).suffix not in bids.EEG_SUFFIXES:
        raise HbnError("give one recording, a .set or .bdf file: python src/predict.py RECORDING")
    path, predictor = existing(arguments[0]), Predictor(threads=p.exec.threads)
    recorded = signals.read_signal(path)
    data_uv, bads = cleaning.clean(recorded.data_uv, recorded.sfreq_hz, predictor.sfreq_hz, p.preprocess)
    trials = contrast_trials(path)

    length = predictor.window_samples
    starts = window_starts(data_uv.shape[1], length, length, [])
    if not len(starts):
        raise HbnError(f"{path} is shorter than one window of {predictor.window_s:g} s")
    of_windows, factors = predict(predictor, data_uv, starts)

    print(f"{path.name}: {data_uv.shape[1] / predictor.sfreq_hz:.1f} s, bad channels: {', '.join(bads) or 'none'}")
    if trials:
        offsets = [samples(trial.onset_s + predictor.trial_offset_s, predictor.sfreq_hz) for trial in trials]
        whole = [i for i, start in enumerate(offsets) if start + length <= data_uv.shape[1]]
        rows = predict(predictor, data_uv, np.array(offsets)[whole])[0]
        print(f"\n{'target at':>10} {'side':>6} {'true RT':>8} {'RT':>6} {'P(no response)':>15} {'P(correct)':>11}")
        for trial, (rt_s, p_miss, p_correct) in zip((trials[i] for i in whole), rows, strict=True):
            true = "none" if trial.rt_s is None else f"{trial.rt_s:.2f} s"
            print(f"{trial.onset_s:>8.1f} s {trial.side:>6} {true:>8} {values(rt_s, p_miss, p_correct)}")
    else:
        print("\nNo trial of contrast change detection beside the recording: each window is taken as if a target")
        print(f"had come {predictor.trial_offset_s:g} s before it, which says little if none had.")
        print(f"\n{'window at':>10} {'RT':>6} {'P(no response)':>15} {'P(correct)':>11}")
        for start, (rt_s, p_miss, p_correct) in zip(starts, of_windows, strict=True):
            print(f"{start / predictor.sfreq_hz:>8.1f} s {values(rt_s, p_miss, p_correct)}")
    print(f"\nFactors, mean over {len(starts)} windows:")
    for name, value in zip(bids.FACTORS, factors.mean(0), strict=True):
        print(f"  {name:<14} {value:+.2f}")
    print(f"\n{NOTICE}")


def values(rt_s: float, p_miss: float, p_correct: float) -> str:
    return f"{rt_s:>4.2f} s {p_miss:>15.2f} {p_correct:>11.2f}"


def contrast_trials(path: Path) -> list[events.Trial]:
    """Trials in the events table beside a recording, if it is one of contrast change detection."""
    table = path.with_name(path.name.replace(f"_eeg{path.suffix}", "_events.tsv"))
    if events.CONTRAST_CHANGE not in path.name or not table.exists() or table == path:
        return []
    return events.contrast_trials(events.read_events(table), bids.Recording.of(table.name).run)[0]


def predict(predictor: Predictor, data_uv: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N, 3) and (N, 4) for the windows of (C, T) that begin at `starts` (N,)."""
    parts = []
    for i in range(0, len(starts), BATCH):
        windows = [data_uv[:, start : start + predictor.window_samples] for start in starts[i : i + BATCH]]
        parts.append(predictor.batch(np.stack(windows)))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


if __name__ == "__main__":
    system_signal.signal(system_signal.SIGPIPE, system_signal.SIG_DFL)  # `... | head` ends it without a word
    run(main, reads=("preprocess",))
