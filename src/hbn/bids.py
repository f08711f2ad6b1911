"""BIDS names and tables of HBN-EEG: recordings, participants, sidecars, signals."""

import re
from dataclasses import dataclass

from hbn.files import HbnError

FACTORS = ("p_factor", "attention", "internalizing", "externalizing")
CHANNELS = (*(f"E{i}" for i in range(1, 129)), "Cz")
EEG_SUFFIXES = (".set", ".bdf")

_NAME = re.compile(
    r"(?P<participant>sub-[A-Za-z0-9]+)_task-(?P<task>[A-Za-z0-9]+)(_run-(?P<run>[0-9]+))?_[a-z]+\.[a-z]+"
)


@dataclass(frozen=True, order=True)
class Recording:
    """One task run of one participant."""

    participant_id: str  # with its 'sub-'
    task: str
    run: int | None

    @property
    def stem(self) -> str:
        """File name up to the suffix, such as sub-X_task-RestingState."""
        run = "" if self.run is None else f"_run-{self.run}"
        return f"{self.participant_id}_task-{self.task}{run}"

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
        """Parse a path such as sub-X/eeg/sub-X_task-T_run-1_events.tsv (HbnError if it is none)."""
        folder, _, name = path.rpartition("/")
        match = _NAME.fullmatch(name)
        if not match or folder not in ("", f"{match['participant']}/eeg"):
            raise HbnError(f"{path!r} is not the path of an HBN recording (sub-ID/eeg/sub-ID_task-TASK[_run-N]_...)")
        return cls(match["participant"], match["task"], int(match["run"]) if match["run"] else None)

    def is_selected(self, tasks: list[str]) -> bool:
        """Whether `tasks` names this recording's task, or this very run as task_run."""
        return self.task in tasks or self.column in tasks
