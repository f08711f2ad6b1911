"""From one recording to its two preprocessed files, and statistics of all such files of a release.

<stem>_eeg.npy holds float16 (T, C), row by row. <stem>_eeg.json holds sfreq_hz, scale_uv (microvolts of the number 1),
samples, bad_channels (reason by name), dead_samples ([first sample, first sample after it] of each stretch that no
window and no trial may touch), gaps_s ([begin, end] of each pause of the recording), mapped_channels (label in the
file -> channel, or why it is not used), and the spectra.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from hbn.data.bids import Recording, UnusableRecording
from hbn.data.cleaning import clean, kernels, power_db
from hbn.data.signals import Signal, read_signal
from hbn.data.windows import save_array
from hbn.files import Store, read_json, write_json

log = logging.getLogger(__name__)
SPECTRUM_HZ = range(1, 71)
SMALLEST_DB = -60.0  # in a plot; outside the filters' band, lower power is only rounding error
# The code that decides a recording's files. If it changes, files in the scratch store are not used again.
MODULES = ("data.absent", "data.bids", "data.cleaning", "data.headers", "data.preprocessing", "data.signals")


def process(
    recording: Recording, path: Path, source_md5: str, target: Path, p, scratch: Store, key: str
) -> UnusableRecording | None:
    """Make one recording's two files, or link them from the scratch store; the error if it cannot be used."""
    out = target / recording.participant_id / f"{recording.stem}_eeg.npy"
    side = out.with_suffix(".json")
    if scratch.fetch(f"{key}.npy", out) and scratch.fetch(f"{key}.json", side):
        return None
    try:
        with threadpool_limits(1):  # the last bits of a matrix product depend on the number of threads
            array, facts = prepare(read_signal(path), p)
    except UnusableRecording as error:
        log.warning("%s rejected, %s", recording.stem, error)
        return error
    if dead := facts["dead_samples"]:
        dead_s = sum(end - begin for begin, end in dead) / facts["sfreq_hz"]
        log.warning("%s: %.1f s in %d stretches hold no signal and are not used", recording.stem, dead_s, len(dead))
    save_array(out, array)
    write_json(side, facts | {"source_md5": source_md5})
    scratch.put(f"{key}.npy", out)
    scratch.put(f"{key}.json", side)
    return None


def prepare(recorded: Signal, p) -> tuple[np.ndarray, dict]:
    """A cleaned recording as float16 (T, C) in units of scale_uv, and the facts about it.

    float16 keeps 11 bits: the rounding error is at most 0.05 % of each sample, far below the noise of
    EEG. scale_uv is a power of two, so that scaling is exact: 1/64 uV, or more if the recording's range needs
    it. Raises UnusableRecording as clean does.
    """
    data_uv, bads, dead = clean(recorded.data_uv, recorded.sfreq_hz, p.sfreq_hz, p, recorded.gaps)
    before_hz, before_db = power_db(recorded.data_uv, recorded.sfreq_hz)
    after_hz, after_db = power_db(data_uv, p.sfreq_hz)
    scale_uv = 2.0 ** max(-6, np.ceil(np.log2(np.abs(data_uv).max() / 32768 + 1e-30)))
    facts = {
        "sfreq_hz": p.sfreq_hz,
        "recorded_sfreq_hz": recorded.sfreq_hz,
        "scale_uv": float(scale_uv),
        "samples": data_uv.shape[1],
        "bad_channels": bads,
        "dead_samples": dead,  # stretches without a signal: first sample of each, first one after it
        "gaps_s": recorded.gaps_s,
        "mapped_channels": recorded.mapped,
        "notched": len(kernels(recorded.sfreq_hz, p.highpass_hz, p.lowpass_hz, p.notch_hz)) == 2,
        "spectrum_before_db": dict(zip(before_hz.astype(int).tolist(), before_db.tolist(), strict=True)),
        "spectrum_after_db": dict(zip(after_hz.astype(int).tolist(), after_db.tolist(), strict=True)),
    }
    return (data_uv.T / np.float32(scale_uv)).astype(np.float16, order="C"), facts


def read_facts(target: Path) -> list[dict]:
    """The _eeg.json of each preprocessed recording of a release, sorted by path."""
    return [read_json(path) for path in sorted(target.glob("sub-*/*_eeg.json"))]


def counts(tasks: Sequence[str], rejected: list[dict], facts: list[dict]) -> dict:
    """Counts for the metrics, from the task of each recording, rejected rows (task, reason) and facts of the rest."""
    by_task = Counter(tasks)
    dead_s = [sum(b - a for a, b in recording["dead_samples"]) / recording["sfreq_hz"] for recording in facts]
    return {
        "recordings": dict(by_task),
        "rejected": {task: dict(Counter(row["reason"] for row in rejected if row["task"] == task)) for task in by_task},
        "hours": sum(recording["samples"] / recording["sfreq_hz"] for recording in facts) / 3600,
        "bad_channels_per_recording": float(np.mean([len(recording["bad_channels"]) for recording in facts])),
        "dead_s": sum(dead_s),
        "recordings_with_dead_stretches": sum(seconds > 0 for seconds in dead_s),
        "recordings_with_mapped_channels": sum(bool(recording["mapped_channels"]) for recording in facts),
        "bad_channels": dict(Counter(kind for recording in facts for kind in recording["bad_channels"].values())),
    }


def median_spectrum(facts: list[dict]) -> list[dict]:
    """Rows with the median power over recordings before and after the signal path."""
    rows = []
    for hz in SPECTRUM_HZ:
        row = {"frequency_hz": hz}
        for stage in ("before", "after"):
            levels = [
                level for recording in facts if (level := recording[f"spectrum_{stage}_db"].get(str(hz))) is not None
            ]
            row[f"{stage}_db"] = max(float(np.median(levels)), SMALLEST_DB) if levels else None
        rows.append(row)
    return rows
