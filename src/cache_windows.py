"""Windows, trial table and participants of one release.

Reads  data/preprocessed/<release>, data/raw/<release> (events, participants)
Writes data/windows/<release>/   recordings (linked, not copied), recordings.csv, windows.npy, trials.csv,
                                 participants.csv, source.json
       metrics/windows/<release>.json
"""

import logging
import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from hbn.data import bids, events, splits
from hbn.data.manifest import read_label, write_label
from hbn.data.participants import Participant, read_participants
from hbn.data.windows import RECORDING_COLUMNS, samples, window_starts
from hbn.files import HbnError, atomic, digest, existing, link, read_json, sha256, write_csv, write_json
from hbn.stage import run

log = logging.getLogger(__name__)

PARTICIPANT_COLUMNS = ["participant_id", "release", "split", "sex", "age_years", *bids.FACTORS]
TRIAL_COLUMNS = [
    *("recording", "release", "participant_id", "run", "trial", "onset_s", "start_sample", "side", "foreperiod_s"),
    *("fast_block", "early_press", "outcome", "rt_s", "previous_outcome", "previous_rt_s"),
]


def main(p, release: str) -> None:
    source = existing(Path("data/preprocessed") / release, made_by=f"preprocess@{release}")
    raw = existing(Path("data/raw") / release, made_by=f"fetch@{release}")
    target = Path("data/windows") / release
    rows, windows, trials, dropped, unusable = [], [], [], Counter(), defaultdict(Counter)

    for sidecar in sorted(source.glob("sub-*/*_eeg.json")):
        recording = bids.Recording.of(sidecar.name)
        info = read_json(sidecar)
        array = np.load(sidecar.with_suffix(".npy"), mmap_mode="r", allow_pickle=False)
        row = {
            "recording": recording.stem,
            "release": release,
            "participant_id": recording.participant_id,
            "task": recording.task,
            "run": recording.run,
            "samples": len(array),
            "sfreq_hz": info["sfreq_hz"],
            "scale_uv": info["scale_uv"],
            "sha256": sha256(sidecar.with_suffix(".npy")),
        }
        try:
            table = events.read_events(raw / recording.folder / f"{recording.stem}_events.tsv")
        except bids.UnusableRecording as error:
            log.warning("%s is left out, %s", recording.stem, error)
            unusable[recording.task][error.reason] += 1
            continue
        link(sidecar.with_suffix(".npy"), target / "recordings" / recording.participant_id / f"{recording.stem}.npy")
        window_samples = samples(p.windows.window_s, info["sfreq_hz"])
        breaks_s = [event.onset_s for event in table if event.value == "boundary" and not math.isnan(event.onset_s)]
        boundaries = [samples(break_s, info["sfreq_hz"]) for break_s in breaks_s]
        starts = window_starts(len(array), window_samples, samples(p.windows.stride_s, info["sfreq_hz"]), boundaries)
        windows += [(len(rows), start) for start in starts]
        rows.append(row)
        if recording.task == events.CONTRAST_CHANGE:
            found, reasons = events.contrast_trials(table, recording.run)
            dropped += reasons
            for trial in _with_previous(found):
                start = samples(trial["onset_s"] + p.windows.trial_offset_s, info["sfreq_hz"])
                if start + window_samples > len(array):
                    dropped["window_after_end"] += 1
                    continue
                trials.append({**trial, **row, "start_sample": start})

    present = {row["participant_id"] for row in rows}
    participants = [_participant(one, p.splits) for one in read_participants(raw, release, present)]
    if missing := present - {one["participant_id"] for one in participants}:
        raise HbnError(f"{raw}/participants.tsv has no row for {', '.join(sorted(missing))}")

    write_csv(target / "recordings.csv", rows, RECORDING_COLUMNS)
    write_csv(target / "trials.csv", trials, TRIAL_COLUMNS)
    write_csv(target / "participants.csv", participants, PARTICIPANT_COLUMNS)
    with atomic(target / "windows.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, np.array(windows, dtype=np.int64).reshape(-1, 2))  # (N, 2): row of recordings.csv, start sample
    label = read_label(raw, made_by=f"fetch@{release}")
    write_label(target, label)
    write_json(
        Path("metrics/windows") / f"{release}.json",
        {
            "source": label,
            "participants": len(participants),
            "recordings": dict(Counter(row["task"] for row in rows)),
            "windows": dict(Counter(rows[recording]["task"] for recording, _ in windows)),
            "trials": dict(Counter(trial["outcome"] for trial in trials)),
            "fast_block_trials": sum(trial["fast_block"] for trial in trials),
            "dropped_trials": dict(dropped),
            "unusable_events": {task: dict(reasons) for task, reasons in unusable.items()},
            "sha256": digest({path.name: sha256(path) for path in sorted(target.glob("*.*"))}),
        },
    )


def _with_previous(trials: list[events.Trial]) -> list[dict]:
    """Trials as rows, each with the outcome and response time of the one before it in its block."""
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


def _participant(one: Participant, p) -> dict:
    return {
        "participant_id": one.participant_id,
        "release": one.release,
        "split": splits.split_of(
            one.participant_id, one.release, p.test_releases, p.test_fraction, p.validation_fraction
        ),
        "sex": one.sex,
        "age_years": one.age_years,
        **dict.fromkeys(bids.FACTORS, None),
        **(one.factors or {}),
    }


if __name__ == "__main__":
    run(main, reads=("windows", "splits"))
