"""BIDS names and tables of HBN-EEG: recordings, montage, factors."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from hbn.files import HbnError

FACTORS = ("p_factor", "attention", "internalizing", "externalizing")
CHANNELS = (*(f"E{i}" for i in range(1, 129)), "Cz")
EEG_SUFFIXES = (".set", ".bdf")
MONTAGE = "GSN-HydroCel-129"

_NAME = re.compile(
    r"(?P<participant>sub-[A-Za-z0-9]+)_task-(?P<task>[A-Za-z0-9]+)(_run-(?P<run>[0-9]+))?_[a-z]+\.[a-z]+"
)


@dataclass(frozen=True, order=True)
class Recording:
    """One task run of one participant."""

    participant_id: str  # including 'sub-'
    task: str
    run: int | None
    # File name up to the suffix, such as sub-X_task-T_run-1. BIDS allows run-01, which is the same recording.
    stem: str = field(compare=False, default="")

    def __post_init__(self):
        if not self.stem:
            run = "" if self.run is None else f"_run-{self.run}"
            object.__setattr__(self, "stem", f"{self.participant_id}_task-{self.task}{run}")

    @property
    def folder(self) -> str:
        """Folder within the release."""
        return f"{self.participant_id}/eeg"

    @property
    def column(self) -> str:
        """Column of participants.tsv, such as contrastChangeDetection_1."""
        return self.task if self.run is None else f"{self.task}_{self.run}"

    @classmethod
    def of(cls, path: str) -> "Recording":
        """The recording of a path such as sub-X/eeg/sub-X_task-T_run-1_events.tsv; HbnError for another path."""
        folder, _, name = path.rpartition("/")
        match = _NAME.fullmatch(name)
        if not match or folder not in ("", f"{match['participant']}/eeg"):
            raise HbnError(f"{path!r} is not the path of an HBN recording (sub-ID/eeg/sub-ID_task-TASK[_run-N]_...)")
        run = int(match["run"]) if match["run"] else None
        return cls(match["participant"], match["task"], run, name.rpartition("_")[0])

    def is_selected(self, tasks: list[str]) -> bool:
        """Whether `tasks` names this recording's task, or its task and run as in task_run."""
        return self.task in tasks or self.column in tasks


def factor_values(participants: list[dict[str, str]]) -> np.ndarray:
    """The factors (P, 4) of participants, all of whom have them."""
    return np.array([[float(row[factor]) for factor in FACTORS] for row in participants])


class UnusableRecording(HbnError):
    """A recording that cannot be used; `reason` is one word for the tables of rejected recordings."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self):  # so that a worker process can send it back by pickle
        return type(self), (self.reason, self.detail)


def recordings(root: Path | str) -> list[tuple[Recording, Path]]:
    """All .set and .bdf recordings below a release's folder with their paths, sorted."""
    paths = [path for path in Path(root).glob("sub-*/eeg/*_eeg.*") if path.suffix in EEG_SUFFIXES]
    return sorted((Recording.of(path.relative_to(root).as_posix()), path) for path in paths)


@lru_cache
def electrode_positions_m() -> np.ndarray:
    """Positions (129, 3) in metres of CHANNELS on MNE's standard GSN-HydroCel-129 head."""
    import mne

    positions = mne.channels.make_standard_montage(MONTAGE).get_positions()["ch_pos"]
    return np.array([positions[name] for name in CHANNELS])
