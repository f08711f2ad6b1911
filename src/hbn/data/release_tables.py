"""The tables of one release (recordings, windows, events, breaks, trials), and counts of what was left out."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hbn.data import event_kinds
from hbn.data.bids import Recording
from hbn.data.events import CONTRAST_CHANGE, FILE_REASONS, Event, Trial, contrast_trials
from hbn.data.windows import RECORDING_COLUMNS, samples, save_array, straddles, window_starts
from hbn.files import write_csv

TRIAL_COLUMNS = [
    *("recording", "release", "participant_id", "run", "trial", "onset_s", "start_sample", "side", "foreperiod_s"),
    *("fast_block", "early_press", "outcome", "rt_s", "previous_outcome", "previous_rt_s"),
]


@dataclass
class ReleaseTables:
    """The tables of a release, and counts of what was left out of them."""

    recordings: list[dict] = field(default_factory=list)
    trials: list[dict] = field(default_factory=list)
    windows: list[tuple] = field(default_factory=list)  # recording, start sample
    events: list[tuple] = field(default_factory=list)  # recording, sample, kind, task
    breaks: list[tuple] = field(default_factory=list)  # recording, first unusable sample, first usable sample after it
    dropped_windows: Counter = field(default_factory=Counter)
    dropped_trials: Counter = field(default_factory=Counter)
    events_left_out: Counter = field(default_factory=Counter)
    unknown_events: Counter = field(default_factory=Counter)
    unusable: defaultdict = field(default_factory=lambda: defaultdict(Counter))  # task -> reason -> recordings

    def add(self, recording: Recording, row: dict, table: list[Event], dead: list, p) -> None:
        """Add a recording, described by its `row` of recordings.csv, with its event table and dead stretches."""
        number, sfreq_hz, n_samples = len(self.recordings), row["sfreq_hz"], row["samples"]
        window_samples, stride_samples = samples(p.window_s, sfreq_hz), samples(p.stride_s, sfreq_hz)
        self.recordings.append(row)
        at = [None if np.isnan(event.onset_s) else samples(event.onset_s, sfreq_hz) for event in table]
        marks = [sample for sample, event in zip(at, table, strict=True) if event.value == "boundary"]
        boundaries = [(mark, mark) for mark in marks if mark is not None and mark < n_samples]
        dead = [(begin, end) for begin, end in dead]
        breaks = sorted([*boundaries, *dead])
        self.breaks += [(number, *stretch) for stretch in breaks]
        starts = window_starts(n_samples, window_samples, stride_samples, [])
        for why, stretches in (("no_signal", dead), ("boundary", boundaries)):
            lost = straddles(starts, window_samples, stretches)
            self.dropped_windows[why] += int(lost.sum())
            starts = starts[~lost]
        self.windows += [(number, start) for start in starts]

        kept, left_out, unknown = event_kinds.classify([event.value for event in table])
        for i, kind, task in kept:
            if at[i] is None or at[i] >= n_samples:
                left_out["no_onset" if at[i] is None else "after_end"] += 1
            elif any(begin <= at[i] < end for begin, end in dead):
                left_out["no_signal"] += 1
            else:
                self.events.append((number, at[i], kind, task))
        self.events_left_out += left_out
        self.unknown_events += unknown
        if recording.task == CONTRAST_CHANGE:
            self._add_trials(table, recording, row, {"no_signal": dead, "boundary": boundaries}, p)

    def _add_trials(self, table: list[Event], recording: Recording, row: dict, breaks: dict, p) -> None:
        trials, dropped = contrast_trials(table, recording.run)
        self.dropped_trials += dropped
        window_samples = samples(p.window_s, row["sfreq_hz"])
        for trial in with_previous(trials):
            target = samples(trial["onset_s"], row["sfreq_hz"])
            start = samples(trial["onset_s"] + p.trial_offset_s, row["sfreq_hz"])
            end = start + window_samples
            if end > row["samples"]:
                self.dropped_trials["window_after_end"] += 1
            elif why := next((k for k, v in breaks.items() if straddles(np.array([target]), end - target, v)[0]), None):
                self.dropped_trials[why] += 1
            else:
                self.trials.append({**trial, **row, "start_sample": start})

    def write(self, target: Path) -> None:
        """Write all tables except that of the participants."""
        write_csv(target / "recordings.csv", self.recordings, RECORDING_COLUMNS)
        write_csv(target / "trials.csv", self.trials, TRIAL_COLUMNS)
        save_array(target / "windows.npy", np.array(self.windows, dtype=np.int64).reshape(-1, 2))
        save_array(target / "events.npy", np.array(self.events, dtype=np.int32).reshape(-1, 4))
        save_array(target / "breaks.npy", np.array(self.breaks, dtype=np.int32).reshape(-1, 3))

    def counts(self) -> dict:
        """Counts of what the tables hold, and of what was left out by reason."""
        dropped = self.dropped_trials
        return {
            "recordings": Counter(row["task"] for row in self.recordings),
            "windows": Counter(self.recordings[recording]["task"] for recording, _ in self.windows),
            "dropped_windows": dict(self.dropped_windows),
            "trials": Counter(trial["outcome"] for trial in self.trials),
            "fast_block_trials": sum(trial["fast_block"] for trial in self.trials),
            "dropped_trials": {why: n for why, n in dropped.items() if why not in FILE_REASONS},
            "recordings_without_trials": {why: dropped[why] for why in FILE_REASONS if dropped[why]},
            "unusable_events": self.unusable,
            "events": event_kinds.count_kinds(self.events),
            "events_left_out": self.events_left_out,
            "unknown_events": dict(self.unknown_events.most_common(20)),
            "breaks": len(self.breaks),
        }


def with_previous(trials: list[Trial]) -> list[dict]:
    """Trials as rows, each with the outcome and response time of the trial before it in its block."""
    rows = []
    for i, trial in enumerate(trials):
        before = trials[i - 1] if i and trials[i - 1].trial == trial.trial - 1 else None
        rows.append(
            {
                **vars(trial),
                "fast_block": int(trial.fast_block),
                "early_press": int(trial.early_press),
                "previous_outcome": before.outcome if before else None,
                "previous_rt_s": before.rt_s if before else None,
            }
        )
    return rows
