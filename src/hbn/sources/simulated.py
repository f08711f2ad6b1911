"""A BIDS release of the simulated cohort, or of simulated signals for real event tables; writers of .set and .bdf."""

import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from hbn import params
from hbn.data import event_kinds
from hbn.data.bids import CHANNELS, EEG_SUFFIXES, FACTORS, Recording, UnusableRecording
from hbn.data.events import CONTRAST_CHANGE, read_events
from hbn.data.manifest import SIMULATOR
from hbn.data.participants import Participant, parse_participants
from hbn.files import code_digest, digest, read_json, read_tsv, write_json, write_text, write_tsv
from hbn.simulator import ceiling, eeg, people, tasks
from hbn.sources.folder import FolderSource

GENERATED_BY = {"Name": SIMULATOR, "Description": "Signals are simulated. No person was measured."}
HBN_SFREQ_HZ = 500.0
AFTER_END_S = 2.0  # recorded after the last event where no sidecar states a duration


class SimulatedSource:
    """The simulated cohort, or simulated signals for a real metadata tree that has no signals (a `Source`)."""

    computes, is_saved = True, False

    def __init__(self, release: str, p: params.Simulator):
        self.release, self.p = release, p
        self.metadata = FolderSource(Path(p.metadata_dir) / release) if p.metadata_dir else None
        modules = [f"simulator.{name}" for name in ("people", "tasks", "evoked", "eeg")] + ["sources.simulated"]
        modules += [f"data.{name}" for name in ("bids", "events", "event_kinds", "participants")]
        self.key = digest([p.model_dump(), release, code_digest(*modules)])

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """Participants by id."""
        if self.metadata:
            where, table = "participants.tsv", read_tsv(self.metadata.root / "participants.tsv")
            present = {path.split("/")[0] for path in self.metadata.paths()}
            table = map(_row, parse_participants(table, where, self.release, present)[0])
        else:
            table = people.participants_table(self.p.seed, self.release)
        return {row["participant_id"]: row for row in table}

    def paths(self) -> list[str]:
        if self.metadata:
            listed = [path for path in self.metadata.paths() if not path.endswith(("annex_sizes.tsv", *EEG_SUFFIXES))]
            events = [path for path in listed if path.startswith("sub-") and path.endswith("_events.tsv")]
            signals = [path.replace("_events.tsv", f"_eeg.{self.p.file_format}") for path in events]
            return sorted({*listed, *signals, "dataset_description.json"})
        names = ["participants.tsv", "dataset_description.json", "README"]
        names += [f"task-{task}_eeg.json" for task in people.TASKS]
        for row in self.rows.values():
            for recording in people.recordings_of(row):
                suffixes = (f"eeg.{self.p.file_format}", "eeg.json", "channels.tsv", "events.tsv")
                names += [f"{recording.folder}/{recording.stem}_{suffix}" for suffix in suffixes]
        return sorted(names)

    def refresh(self) -> None:
        """Do nothing: no listing is saved."""

    def size(self, path: str) -> None:
        return None

    def fingerprint(self, path: str) -> str:
        return digest([self.key, path, self.metadata and self.metadata.fingerprint(_origin(self.metadata, path))])

    def checksum(self, path: str) -> None:
        return None

    def check(self, path: str) -> None:
        if self.metadata:
            self.metadata.check(_origin(self.metadata, path))

    def rate(self, paths: list[str], n_threads: int) -> None:
        return None

    def write(self, path: str, destination: Path, progress: Callable[[int], None] = lambda n: None) -> None:
        kind = path.rpartition("_")[2]
        if path.startswith("sub-") and kind in ("eeg.set", "eeg.bdf"):
            data_uv = self.signal_uv(Recording.of(path))
            write = write_set if kind == "eeg.set" else write_bdf
            write(destination, data_uv, self.p.sfreq_hz)
        elif path.startswith("sub-") and kind == "events.tsv":
            self._write_events(path, destination, progress)
        elif path == "dataset_description.json":
            write_json(destination, self._description())
        elif self.metadata and path.endswith("_eeg.json") and _rate_of(self.metadata, path) != self.p.sfreq_hz:
            write_json(destination, read_json(self.metadata.root / path) | {"SamplingFrequency": self.p.sfreq_hz})
        elif self.metadata:
            self.metadata.write(path, destination, progress)
        elif path == "participants.tsv":
            write_tsv(destination, self.rows.values(), list(next(iter(self.rows.values()))))
        elif kind == "channels.tsv":
            rows = [{"name": name, "type": "EEG", "units": "uV"} for name in CHANNELS]
            write_tsv(destination, rows, ["name", "type", "units"])
        elif path == "README":
            write_text(destination, "Simulated recordings in the form of HBN-EEG. No person was measured.\n")
        else:
            write_json(destination, self._sidecar(path))

    def facts(self, chosen: list[Recording]) -> dict:
        """The ceiling: the scores of the best possible predictors on these recordings."""
        trials = []
        for recording in chosen:
            if recording.task == CONTRAST_CHANGE:
                trials += [(t["rt_s"], t.get("hand", "left")) for t in tasks.trials_of(self.events(recording))]
        names = sorted({recording.participant_id for recording in chosen})
        result: dict[str, float | None] = {}
        result |= people.factor_ceiling([people.person(self.rows[name]) for name in names], self.p)
        if any(rt_s is not None for rt_s, _ in trials):
            with threadpool_limits(1):
                result |= ceiling.ceiling(trials, self.p)
        return {"ceiling": result}

    def events(self, recording: Recording) -> list[dict]:
        """Events of a recording's own block in the simulator's form; the last event ends the block."""
        return self.blocks(recording)[0].rows

    def signal_uv(self, recording: Recording) -> np.ndarray:
        """The EEG (C, T) in a recording's file: its own block, then other blocks in the same file."""
        person = people.person(self.rows[recording.participant_id])
        with threadpool_limits(1):  # the last bits of a matrix product depend on the number of threads
            blocks = [eeg.recording_uv(person, block.recording, block.rows, self.p) for block in self.blocks(recording)]
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1)

    def blocks(self, recording: Recording) -> list[tasks.Block]:
        """The blocks in the file of a recording, its own block first."""
        if self.metadata:
            return [tasks.Block(recording, _real_events(self.metadata, recording))]
        return tasks.file_blocks(self.p, people.person(self.rows[recording.participant_id]), recording)

    def _description(self) -> dict:
        about: dict[str, Any] = {
            "Name": f"Simulated HBN-EEG - {self.release}",
            "BIDSVersion": "1.9.0",
            "DatasetType": "raw",
        }
        about |= {"License": "CC0", "Authors": ["The simulator of this repository"]}
        if self.metadata and (place := self.metadata.root / "dataset_description.json").exists():
            about = read_json(place)
            about["Name"] = f"Simulated signals for {about.get('Name')}"
        return about | {"GeneratedBy": [GENERATED_BY]}

    def _write_events(self, path: str, destination: Path, progress: Callable[[int], None]) -> None:
        if self.metadata:
            return _write_real_events(self.metadata, path, destination, self.p.sfreq_hz, progress)
        recording = Recording.of(path)
        lines, n_before = [], 0
        for block in self.blocks(recording):
            for row in block.rows[:-1]:
                sample = n_before + round(row["onset_s"] * self.p.sfreq_hz) - 0.5 * (row["value"] == "boundary")
                code = event_kinds.NUMBER.get(row["value"], row["value"])
                lines.append({"onset": _number(sample / self.p.sfreq_hz), "sample": _number(sample)})
                lines[-1] |= {"event_code": code, **row, "value": tasks.in_file_of(recording.task, row["value"])}
            n_before += round(block.rows[-1]["onset_s"] * self.p.sfreq_hz)
        write_tsv(destination, lines, [*tasks.EVENT_COLUMNS, *tasks.OWN_COLUMNS.get(recording.task, [])])
        return None

    def _sidecar(self, path: str) -> dict:
        facts = {"PowerLineFrequency": 60, "EEGReference": "Cz", "RecordingType": "continuous"}
        facts |= {"SamplingFrequency": self.p.sfreq_hz, "SoftwareFilters": "n/a"}
        if not path.startswith("sub-"):
            return facts | {"TaskName": path.removeprefix("task-").removesuffix("_eeg.json")}
        recording = Recording.of(path)
        duration_s = sum(block.rows[-1]["onset_s"] for block in self.blocks(recording))
        return facts | {"TaskName": recording.task, "EEGChannelCount": len(CHANNELS), "RecordingDuration": duration_s}


def _write_real_events(
    metadata: FolderSource, path: str, destination: Path, sfreq_hz: float, progress: Callable[[int], None]
) -> None:
    """Copy a real event table; adapt the column `sample` if the simulated sampling rate differs."""
    factor = sfreq_hz / _rate_of(metadata, path.replace("_events.tsv", "_eeg.json"))
    rows = read_tsv(metadata.root / path)
    if factor == 1 or not rows or "sample" not in rows[0]:
        return metadata.write(path, destination, progress)
    for row in rows:
        if (sample := row["sample"]) and sample != "n/a":
            row["sample"] = _number(float(sample) * factor)
    return write_tsv(destination, rows, list(rows[0]))


def _rate_of(metadata: FolderSource, path: str) -> float:
    """Sampling rate that a real sidecar states."""
    return float(read_json(metadata.root / path).get("SamplingFrequency", HBN_SFREQ_HZ))


def _real_events(metadata: FolderSource, recording: Recording) -> list[dict]:
    stem = metadata.root / recording.folder / recording.stem
    try:
        events = read_events(f"{stem}_events.tsv")
    except UnusableRecording:  # simulate a signal without events; the later stages handle the table as it is
        return [{"onset_s": _duration_s(stem, []), "value": "end"}]
    codes = [row.get("event_code") for row in read_tsv(f"{stem}_events.tsv")]
    rows = [
        {"onset_s": event.onset_s, "value": event.value, "feedback": event.feedback, "event_code": code}
        for event, code in zip(events, codes, strict=True)
        if not math.isnan(event.onset_s)
    ]
    return [*tasks.as_meant(rows), {"onset_s": _duration_s(stem, rows), "value": "end"}]


def _duration_s(stem: Path | str, rows: list[dict]) -> float:
    """The duration that a real sidecar states, else AFTER_END_S more than the last event's time."""
    duration_s = read_json(f"{stem}_eeg.json").get("RecordingDuration")
    return float(duration_s or max((row["onset_s"] for row in rows), default=0.0) + AFTER_END_S)


def _origin(metadata: FolderSource, path: str) -> str:
    """The metadata file that decides the content of `path`: for a signal, its event table."""
    if path == "dataset_description.json" and not (metadata.root / path).exists():
        return "participants.tsv"
    stem, _, kind = path.rpartition("_eeg")
    return f"{stem}_events.tsv" if path.startswith("sub-") and kind in EEG_SUFFIXES else path


def _row(participant: Participant) -> dict[str, str]:
    """A participant as a row of participants.tsv, in plain spelling."""
    cells = {"age": participant.age_years} | dict.fromkeys(FACTORS) | (participant.factors or {})
    known = {name: "n/a" if value is None else repr(value) for name, value in cells.items()}
    return {"participant_id": participant.participant_id} | known


def _number(value: float) -> str:
    """A time or sample number in HBN's format, without trailing zeros."""
    return f"{round(value, 4):.10g}"


def write_set(path: Path, data_uv: np.ndarray, sfreq_hz: float) -> None:
    """Write (C, T) float32 as a single-file EEGLAB .set (MATLAB 5), the same bytes every time."""
    from scipy.io import savemat

    labels = np.array([(name,) for name in CHANNELS], dtype=[("labels", object)])
    structure = {
        **{"setname": "HBN", "nbchan": float(len(data_uv)), "trials": 1.0, "srate": float(sfreq_hz)},
        **{"pnts": float(data_uv.shape[1]), "xmin": 0.0, "xmax": (data_uv.shape[1] - 1) / sfreq_hz, "ref": "Cz"},
        **{"data": data_uv, "chanlocs": labels, "event": np.zeros((0, 0)), "epoch": np.zeros((0, 0))},
        **{"icawinv": np.zeros((0, 0)), "icasphere": np.zeros((0, 0)), "icaweights": np.zeros((0, 0))},
    }
    with open(path, "w+b") as file:
        savemat(file, {"EEG": structure})
        file.seek(0)
        file.write(b"MATLAB 5.0 MAT-file".ljust(116))  # in place of the date that savemat writes


def write_bdf(path: Path, data_uv: np.ndarray, sfreq_hz: float) -> None:
    """Write (C, T) as 24-bit BDF (resolution below 0.1 nV per uV of range); padded to whole seconds."""
    from datetime import time

    from edfio import Bdf, BdfSignal

    padding = -data_uv.shape[1] % round(sfreq_hz)
    data_uv = np.pad(data_uv, ((0, 0), (0, padding)), mode="edge")
    limit_uv = float(np.ceil(np.abs(data_uv).max() + 1))
    signals = [
        BdfSignal(
            row.astype(np.float64), sfreq_hz, label=name, physical_dimension="uV", physical_range=(-limit_uv, limit_uv)
        )
        for row, name in zip(data_uv, CHANNELS, strict=True)
    ]
    with open(path, "wb") as file:
        Bdf(signals, starttime=time(0, 0), recording=None).write(file)
