"""Windows, trials, events and participants of one release.

Reads  data/preprocessed/<release>, data/raw/<release> (event tables, participants, label of the data)
Writes data/windows/<release>/   recordings (linked, not copied), recordings.csv, trials.csv, participants.csv,
                                 windows.npy, events.npy, breaks.npy, source.json
       metrics/windows/<release>.json
"""

import logging
from pathlib import Path

import numpy as np

from hbn.data import bids, events, splits
from hbn.data.manifest import read_label, write_label
from hbn.data.participants import Participant, read_participants
from hbn.data.release_tables import ReleaseTables
from hbn.files import HbnError, digest, existing, link, read_json, sha256, write_csv, write_json
from hbn.stage import run

log = logging.getLogger(__name__)

PARTICIPANT_COLUMNS = ["participant_id", "release", "split", "sex", "age_years", *bids.FACTORS]


def main(p, release: str) -> None:
    source = existing(Path("data/preprocessed") / release, made_by=f"preprocess@{release}")
    raw = existing(Path("data/raw") / release, made_by=f"fetch@{release}")
    target, tables = Path("data/windows") / release, ReleaseTables()
    for sidecar in sorted(source.glob("sub-*/*_eeg.json")):
        recording, array, facts = bids.Recording.of(sidecar.name), sidecar.with_suffix(".npy"), read_json(sidecar)
        row = recording_row(recording, release, array, facts)
        path = raw / recording.folder / f"{recording.stem}_events.tsv"
        try:
            table = events.read_events(path, row["samples"] / row["sfreq_hz"], facts["gaps_s"])
        except bids.UnusableRecording as error:
            log.warning("%s is left out, %s", recording.stem, error)
            tables.unusable[recording.task][error.reason] += 1
            continue
        link(array, target / "recordings" / recording.participant_id / array.name.replace("_eeg.npy", ".npy"))
        tables.add(recording, row, table, facts["dead_samples"], p.windows)

    used = {row["participant_id"] for row in tables.recordings}
    participants = [participant_row(person, p.splits) for person in read_participants(raw, release, used)]
    if missing := used - {row["participant_id"] for row in participants}:
        raise HbnError(f"{raw}/participants.tsv has no row for {', '.join(sorted(missing))}")
    tables.write(target)
    write_csv(target / "participants.csv", participants, PARTICIPANT_COLUMNS)
    write_label(target, label := read_label(raw, made_by=f"fetch@{release}"))
    checksum = digest({path.name: sha256(path) for path in sorted(target.glob("*.*"))})
    counts = {"source": label, "participants": len(participants), **tables.counts(), "sha256": checksum}
    write_json(Path("metrics/windows") / f"{release}.json", counts)


def recording_row(recording: bids.Recording, release: str, array: Path, facts: dict) -> dict:
    """The row of recordings.csv of a preprocessed recording, from its array and the facts in its sidecar."""
    return {
        "recording": recording.stem,
        "release": release,
        "participant_id": recording.participant_id,
        "task": recording.task,
        "run": recording.run,
        "samples": len(np.load(array, mmap_mode="r", allow_pickle=False)),
        "sfreq_hz": facts["sfreq_hz"],
        "scale_uv": facts["scale_uv"],
        "sha256": sha256(array),
    }


def participant_row(person: Participant, p) -> dict:
    """A row of participants.csv."""
    split = splits.split_of(
        person.participant_id, person.release, p.test_releases, p.test_fraction, p.validation_fraction
    )
    factors = person.factors or dict.fromkeys(bids.FACTORS)
    who = {"participant_id": person.participant_id, "release": person.release, "split": split}
    return who | {"sex": person.sex, "age_years": person.age_years, **factors}


if __name__ == "__main__":
    run(main, reads=("windows", "splits"))
