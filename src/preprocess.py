"""Filtered, repaired, average-referenced recordings of one release.

Reads  data/raw/<release>
Writes data/preprocessed/<release>/  per recording <participant>/<stem>_eeg.npy (float16, time-major (T, C))
                                     and _eeg.json, and rejected.tsv
       metrics/preprocess/<release>.json, plots/preprocess/<release>_spectrum.csv
"""

import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from hbn.data import bids, cleaning, signals
from hbn.data.manifest import read_label, read_manifest, signal_md5s
from hbn.files import (
    HbnError,
    Store,
    atomic,
    code_digest,
    digest,
    existing,
    read_json,
    sha256,
    write_csv,
    write_json,
    write_tsv,
)
from hbn.parallel import in_order
from hbn.stage import progress, run, store

log = logging.getLogger(__name__)


def main(p, release: str) -> None:
    raw = existing(Path("data/raw") / release, made_by=f"fetch@{release}")
    target = Path("data/preprocessed") / release
    manifest = read_manifest(raw, made_by=f"fetch@{release}")
    md5s = signal_md5s(manifest)
    shutil.rmtree(target, ignore_errors=True)
    code = [code_digest("data.cleaning", "data.signals", "data.bids"), sha256(__file__)]
    found = bids.recordings(raw)
    if not found:
        raise HbnError(f"{raw} holds no recording; check data.tasks and data.n_participants, then `dvc repro fetch`")
    decisive, scratch = p.preprocess.model_dump(exclude={"max_rejected_fraction"}), store("preprocessed")

    def job(recording: bids.Recording, path: Path) -> tuple:
        name = path.relative_to(raw).as_posix()
        if name not in manifest:
            raise HbnError(f"{path} is not listed in {raw}/manifest.tsv; run `dvc repro -f fetch@{release}`")
        source_md5, key = manifest[name], digest([md5s[name.rpartition("_")[0]], decisive, code])
        return process, recording, path, source_md5, target, p.preprocess, scratch, key

    work = in_order((job(recording, path) for recording, path in found), p.exec)
    reasons = list(progress(work, total=len(found), unit="recording"))
    for left in target.glob("*/.*"):  # half-written by a worker of a cluster that was lost
        left.unlink()
    scratch.trim(p.exec.scratch_gb)

    rejected = [
        {"recording": recording.stem, "task": recording.task, "reason": error.reason, "detail": error.detail}
        for (recording, _), error in zip(found, reasons, strict=True)
        if error
    ]
    write_tsv(target / "rejected.tsv", rejected, ["recording", "reason", "detail"])
    counts = dict(Counter(row["reason"] for row in rejected))
    if len(rejected) > p.preprocess.max_rejected_fraction * len(found) or len(rejected) == len(found):
        raise HbnError(
            f"{len(rejected)} of {len(found)} recordings of {release} were rejected ({counts}), "
            f"preprocess.max_rejected_fraction is {p.preprocess.max_rejected_fraction:g}; see {target}/rejected.tsv"
        )
    summarise(release, target, found, rejected, read_label(raw, made_by=f"fetch@{release}"))


def process(
    recording: bids.Recording, path: Path, source_md5: str, target: Path, p, scratch: Store, key: str
) -> bids.UnusableRecording | None:
    """Make one recording's two files, from the scratch store if it was made before; or say why not."""
    out = target / recording.participant_id / f"{recording.stem}_eeg.npy"
    side = out.with_suffix(".json")
    if scratch.fetch(f"{key}.npy", out) and scratch.fetch(f"{key}.json", side):
        return None
    try:
        with threadpool_limits(1):  # the last bits of a matrix product depend on the number of threads
            array, facts = prepare(signals.read_signal(path), p)
    except bids.UnusableRecording as error:
        log.warning("%s rejected, %s", recording.stem, error)
        return error
    with atomic(out) as temporary, open(temporary, "wb") as file:
        np.save(file, array)
    write_json(side, facts | {"source_md5": source_md5})
    scratch.put(f"{key}.npy", out)
    scratch.put(f"{key}.json", side)
    return None


def prepare(recorded: signals.Signal, p) -> tuple[np.ndarray, dict]:
    """A cleaned recording as float16 (T, C) in units of scale_uv, and the facts about it.

    float16 keeps 11 bits: a rounding error of at most 0.05 % of each sample, far below the noise of
    EEG. The unit is a power of two, 1/64 uV unless the recording's range needs a larger one, so
    that scaling is exact. Raises UnusableRecording as signal.clean does.
    """
    data_uv, bads, dead = cleaning.clean(recorded.data_uv, recorded.sfreq_hz, p.sfreq_hz, p, recorded.gaps)
    before_hz, before_db = cleaning.power_db(recorded.data_uv, recorded.sfreq_hz)
    after_hz, after_db = cleaning.power_db(data_uv, p.sfreq_hz)
    scale_uv = 2.0 ** max(-6, np.ceil(np.log2(np.abs(data_uv).max() / 32768 + 1e-30)))
    facts = {
        "sfreq_hz": p.sfreq_hz,
        "recorded_sfreq_hz": recorded.sfreq_hz,
        "scale_uv": float(scale_uv),
        "samples": data_uv.shape[1],
        "bad_channels": bads,
        "dead_samples": dead,  # stretches without a signal: first sample of each, first one after it
        "mapped_channels": recorded.mapped,
        "notched": len(cleaning.kernels(recorded.sfreq_hz, p.highpass_hz, p.lowpass_hz, p.notch_hz)) == 2,
        "spectrum_before_db": dict(zip(before_hz.astype(int).tolist(), before_db.tolist(), strict=True)),
        "spectrum_after_db": dict(zip(after_hz.astype(int).tolist(), after_db.tolist(), strict=True)),
    }
    return (data_uv.T / np.float32(scale_uv)).astype(np.float16, order="C"), facts


def summarise(release: str, target: Path, found: list, rejected: list[dict], source: str) -> None:
    """Counts of what was kept and dropped, and the power spectrum before and after."""
    facts = [read_json(path) for path in sorted(target.glob("sub-*/*_eeg.json"))]
    by_task = Counter(recording.task for recording, _ in found)
    write_json(
        f"metrics/preprocess/{release}.json",
        {
            "source": source,
            "recordings": dict(by_task),
            "rejected": {
                task: dict(Counter(row["reason"] for row in rejected if row["task"] == task)) for task in by_task
            },
            "hours": sum(one["samples"] / one["sfreq_hz"] for one in facts) / 3600,
            "bad_channels_per_recording": float(np.mean([len(one["bad_channels"]) for one in facts])),
            "dead_s": sum(end - begin for one in facts for begin, end in one["dead_samples"]) / facts[0]["sfreq_hz"],
            "bad_channels": dict(Counter(kind for one in facts for kind in one["bad_channels"].values())),
        },
    )
    rows = []
    for hz in range(1, 71):
        row = {"frequency_hz": hz}
        for stage in ("before", "after"):
            levels = [level for one in facts if (level := one[f"spectrum_{stage}_db"].get(str(hz))) is not None]
            row[f"{stage}_db"] = max(float(np.median(levels)), -60.0) if levels else None
        rows.append(row)
    write_csv(f"plots/preprocess/{release}_spectrum.csv", rows, ["frequency_hz", "before_db", "after_db"])


if __name__ == "__main__":
    run(main, reads=("preprocess",))
