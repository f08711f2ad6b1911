"""Where recordings come from: one interface, chosen by data.preset or data.url."""

import math
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from hbn import params
from hbn.data.bids import CHANNELS, EEG_SUFFIXES, Recording, UnusableRecording, is_placeholder
from hbn.data.events import CONTRAST_CHANGE, read_events
from hbn.files import HbnError, code_digest, digest, read_json, read_tsv, write_json, write_text, write_tsv
from hbn.simulator import ceiling, eeg, people
from hbn.sources.transfer import S3Source
from hbn.stage import checkout

# Where OpenNeuro keeps each release.
ACCESSIONS = {
    **{"R1": "ds005505", "R2": "ds005506", "R3": "ds005507", "R4": "ds005508", "R5": "ds005509", "R6": "ds005510"},
    **{"R7": "ds005511", "R8": "ds005512", "R9": "ds005514", "R10": "ds005515", "R11": "ds005516"},
}
EVENT_COLUMNS = ["onset", "duration", "sample", "value", "event_code"]
OWN_COLUMNS = {
    CONTRAST_CHANGE: ["feedback"],
    "surroundSupp": ["background", "foreground_contrast", "stimulus_cond"],
}
HBN_SFREQ_HZ = 500.0
AFTER_END_S = 2.0  # recorded after the last event of a real event table without a duration


class Source(Protocol):
    """A BIDS release somewhere else. Paths are relative to its root, with forward slashes."""

    in_threads: bool  # whether `write` waits (for threads) rather than computes (for processes)
    is_saved: bool  # whether the listing is an old one that `refresh` may change

    def refresh(self) -> None:
        """Look again what there is."""

    def paths(self) -> list[str]:
        """All files of the release."""

    def fingerprint(self, path: str) -> str:
        """What identifies the content of a file without reading it."""

    def size(self, path: str) -> int | None:
        """Bytes of a file; None where that is known only once it is made."""

    def checksum(self, path: str) -> str | None:
        """The checksum of a file (as files.checksum) if that is known without reading it."""

    def turn(self, path: str) -> AbstractContextManager:
        """To be held while a file is written and put in its place."""

    def write(self, path: str, destination: Path) -> str | None:
        """Write one file and verify it; its checksum (as files.checksum) if that took no other reading."""

    def facts(self, chosen: list[Recording]) -> dict:
        """What the source can tell about itself, for the metrics file."""


def open_source(data, release: str, simulated: params.Simulator, execution: params.Exec, scratch: Path) -> Source:
    """The source of one release that data.url, or else data.preset, names."""
    url = data.url or params.PRESETS[data.preset]
    if "{accession}" in url and release not in ACCESSIONS:
        raise HbnError(f"data.releases: {release!r} is not on OpenNeuro, which has {', '.join(ACCESSIONS)}")
    place = url.replace("{release}", release).replace("{accession}", ACCESSIONS.get(release, ""))
    if place.startswith("simulated://"):
        return SimulatedSource(place.removeprefix("simulated://"), simulated)
    if place.startswith("s3://"):
        limits = (execution.transfer_timeout_s, execution.transfer_limit_h)
        return S3Source(place, data.endpoint_url, not data.url, scratch, *limits)
    if "://" in place:
        raise HbnError(f"data.url: {place!r} cannot be read; use s3://bucket/prefix_{{release}} or a local folder")
    return FolderSource(Path(place))


class FolderSource:
    """A BIDS release in a local folder, which may be named as seen from the checkout."""

    in_threads, is_saved = True, False

    def __init__(self, root: Path):
        self.progress: Callable[[int], None] = lambda n_bytes: None
        self.root = checkout() / root
        if not (self.root / "participants.tsv").exists():
            raise HbnError(f"data.url: {self.root} is no BIDS release (it has no participants.tsv)")

    def paths(self) -> list[str]:
        found = [*self.root.glob("*"), *self.root.glob("sub-*/eeg/*")]
        return sorted(path.relative_to(self.root).as_posix() for path in found if path.is_file() or not path.exists())

    def refresh(self) -> None:
        """Nothing is remembered."""

    def size(self, path: str) -> int:
        return os.stat(self.root / path, follow_symlinks=(self.root / path).exists()).st_size

    def fingerprint(self, path: str) -> str:
        facts = os.stat(self.root / path, follow_symlinks=(self.root / path).exists())
        return digest([str(self.root.resolve()), path, facts.st_size, facts.st_mtime_ns])

    def checksum(self, path: str) -> None:
        return None

    def turn(self, path: str) -> AbstractContextManager:
        return nullcontext()

    def write(self, path: str, destination: Path) -> None:
        if is_placeholder(self.root / path):
            raise HbnError(
                f"{self.root / path} is a placeholder of git-annex, not the file itself: "
                f"run `datalad get {path}` in {self.root}, or use data.preset: hbn"
            )
        shutil.copyfile(self.root / path, destination)
        if (found := destination.stat().st_size) != self.size(path):
            raise HbnError(f"{destination} has {found} bytes, {self.root / path} has {self.size(path)}")
        self.progress(found)

    def facts(self, chosen: list[Recording]) -> dict:
        return {}


class SimulatedSource:
    """The simulated cohort, or simulated signals for a real metadata tree without any."""

    in_threads, is_saved = False, False

    def __init__(self, release: str, p: params.Simulator):
        self.release, self.p = release, p
        self.metadata = FolderSource(Path(p.metadata_dir) / release) if p.metadata_dir else None
        modules = ("simulator.people", "simulator.eeg", "data.bids", "data.events", "sources.source")
        self.key = digest([p.model_dump(), release, code_digest(*modules)])

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """Participants by id."""
        if self.metadata:
            table = read_tsv(self.metadata.root / "participants.tsv")
        else:
            table = people.participants_table(self.p.seed, self.release)
        return {row["participant_id"]: row for row in table}

    def paths(self) -> list[str]:
        if self.metadata:
            listed = [path for path in self.metadata.paths() if not path.endswith(("annex_sizes.tsv", *EEG_SUFFIXES))]
            events = [path for path in listed if path.startswith("sub-") and path.endswith("_events.tsv")]
            return sorted([*listed, *(path.replace("_events.tsv", f"_eeg.{self.p.file_format}") for path in events)])
        names = ["participants.tsv", "dataset_description.json", "README"]
        names += [f"task-{task}_eeg.json" for task in people.TASKS]
        for row in self.rows.values():
            for one in people.recordings_of(row):
                suffixes = (f"eeg.{self.p.file_format}", "eeg.json", "channels.tsv", "events.tsv")
                names += [f"{one.folder}/{one.stem}_{suffix}" for suffix in suffixes]
        return sorted(names)

    def refresh(self) -> None:
        """Nothing is remembered."""

    def size(self, path: str) -> None:
        return None

    def fingerprint(self, path: str) -> str:
        return digest([self.key, path, self.metadata.fingerprint(self._origin(path)) if self.metadata else None])

    def checksum(self, path: str) -> None:
        return None

    def turn(self, path: str) -> AbstractContextManager:
        return nullcontext()

    def write(self, path: str, destination: Path) -> None:
        kind = path.rpartition("_")[2]
        if path.startswith("sub-") and kind in ("eeg.set", "eeg.bdf"):
            data_uv = self.signal_uv(Recording.of(path))
            write = write_set if kind == "eeg.set" else write_bdf
            write(destination, data_uv, self.p.sfreq_hz)
        elif path.startswith("sub-") and kind == "events.tsv":
            self._write_events(path, destination)
        elif self.metadata and path.endswith("_eeg.json") and self._rate_of(path) != self.p.sfreq_hz:
            write_json(destination, read_json(self.metadata.root / path) | {"SamplingFrequency": self.p.sfreq_hz})
        elif self.metadata:
            self.metadata.write(path, destination)
        elif path == "participants.tsv":
            write_tsv(destination, self.rows.values(), list(next(iter(self.rows.values()))))
        elif kind == "channels.tsv":
            rows = [{"name": name, "type": "EEG", "units": "uV"} for name in CHANNELS]
            write_tsv(destination, rows, ["name", "type", "units"])
        elif path == "README":
            write_text(destination, "Simulated recordings in the form of HBN-EEG. No person was measured.\n")
        elif path == "dataset_description.json":
            description = {"Name": f"Simulated HBN-EEG - {self.release}", "BIDSVersion": "1.9.0", "DatasetType": "raw"}
            write_json(destination, {**description, "License": "CC0", "Authors": ["The simulator of this repository"]})
        else:
            write_json(destination, self._sidecar(path))

    def facts(self, chosen: list[Recording]) -> dict:
        """The ceiling: what the best possible predictors reach on these recordings."""
        trials = []
        for one in chosen:
            if one.task == CONTRAST_CHANGE:
                trials += [(t["rt_s"], t.get("hand", "left")) for t in people.trials_of(self.events(one))]
        names = sorted({one.participant_id for one in chosen})
        result = people.factor_ceiling([people.person(self.rows[name]) for name in names], self.p)
        if any(rt_s is not None for rt_s, _ in trials):
            with threadpool_limits(1):
                result |= ceiling.ceiling(trials, self.p)
        return {"ceiling": result}

    def events(self, recording: Recording) -> list[dict]:
        """Events of a recording as the simulator takes them; the last one ends it."""
        if self.metadata:
            return self._real_events(recording)
        one = people.person(self.rows[recording.participant_id])
        return people.event_table(self.p.seed, one, recording, self.p.lead_in_s, self.p.resting_cycles)

    def signal_uv(self, recording: Recording) -> np.ndarray:
        """The EEG (C, T) of a recording, with the copy of the next run's block where there is one."""
        blocks = [recording, next_run(recording)] if self._holds_copy(recording) else [recording]
        one = people.person(self.rows[recording.participant_id])
        with threadpool_limits(1):  # the last bits of a matrix product depend on the number of threads
            return np.concatenate(
                [eeg.recording_uv(one, block, self.events(block), self.p) for block in blocks], axis=1
            )

    def _holds_copy(self, recording: Recording) -> bool:
        return not self.metadata and people.has_copy_of_next(self.p.seed, recording)

    def _write_events(self, path: str, destination: Path) -> None:
        if self.metadata:
            return self._write_real_events(path, destination)
        recording = Recording.of(path)
        rows = self.events(recording)
        end_s, table = rows[-1]["onset_s"], rows[:-1]
        if self._holds_copy(recording):
            offset_s = round(end_s * self.p.sfreq_hz) / self.p.sfreq_hz
            copied = self.events(next_run(recording))[:-1]
            table = table + [{**row, "onset_s": row["onset_s"] + offset_s} for row in copied]
        lines = []
        for row in table:
            sample = round(row["onset_s"] * self.p.sfreq_hz)
            code = people.CODES.get(row["value"], row["value"])
            lines.append({"onset": _number(sample / self.p.sfreq_hz), "sample": sample, "event_code": code, **row})
        write_tsv(destination, lines, [*EVENT_COLUMNS, *OWN_COLUMNS.get(recording.task, [])])
        return None

    def _write_real_events(self, path: str, destination: Path) -> None:
        """As the real file is, but for the sample numbers where the simulated rate is another one."""
        factor = self.p.sfreq_hz / self._rate_of(path.replace("_events.tsv", "_eeg.json"))
        rows = read_tsv(self.metadata.root / path)
        if factor == 1 or not rows or "sample" not in rows[0]:
            return self.metadata.write(path, destination)
        for row in rows:
            row["sample"] = _number(float(row["sample"]) * factor) if row["sample"] != "n/a" else "n/a"
        return write_tsv(destination, rows, list(rows[0]))

    def _rate_of(self, path: str) -> float:
        """Sampling rate that a real sidecar states."""
        return float(read_json(self.metadata.root / path).get("SamplingFrequency", HBN_SFREQ_HZ))

    def _real_events(self, recording: Recording) -> list[dict]:
        stem = self.metadata.root / recording.folder / recording.stem
        try:
            events = read_events(f"{stem}_events.tsv")
        except UnusableRecording:  # a signal there is all the same, and the next stages meet the table as it is
            events = []
        known = [event for event in events if not math.isnan(event.onset_s)]
        rows = [{"onset_s": event.onset_s, "value": event.value, "feedback": event.feedback} for event in known]
        duration_s = read_json(f"{stem}_eeg.json").get("RecordingDuration")
        if not duration_s:
            duration_s = max((row["onset_s"] for row in rows), default=0.0) + AFTER_END_S
        return [*rows, {"onset_s": float(duration_s), "value": "end"}]

    def _sidecar(self, path: str) -> dict:
        facts = {"PowerLineFrequency": 60, "EEGReference": "Cz", "RecordingType": "continuous"}
        facts |= {"SamplingFrequency": self.p.sfreq_hz, "SoftwareFilters": "n/a"}
        if not path.startswith("sub-"):
            return facts | {"TaskName": path.removeprefix("task-").removesuffix("_eeg.json")}
        recording = Recording.of(path)
        duration_s = self.events(recording)[-1]["onset_s"]
        if self._holds_copy(recording):
            duration_s += self.events(next_run(recording))[-1]["onset_s"]
        return facts | {"TaskName": recording.task, "EEGChannelCount": len(CHANNELS), "RecordingDuration": duration_s}

    def _origin(self, path: str) -> str:
        """The metadata file that decides a recording: its event table."""
        stem, _, kind = path.rpartition("_eeg")
        return f"{stem}_events.tsv" if path.startswith("sub-") and kind in EEG_SUFFIXES else path


def _number(value: float) -> str:
    """A time or sample as HBN writes it: no more digits than it takes."""
    return f"{round(value, 4):.10g}"


def next_run(recording: Recording) -> Recording:
    return Recording(recording.participant_id, recording.task, recording.run + 1)


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
        file.write(b"MATLAB 5.0 MAT-file".ljust(116))  # savemat puts the date there


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
