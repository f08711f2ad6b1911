"""BIDS names and tables of HBN-EEG: recordings, participants, sidecars, signals."""

import re
import stat
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from unittest import mock

import numpy as np

from hbn.files import HbnError

FACTORS = ("p_factor", "attention", "internalizing", "externalizing")
CHANNELS = (*(f"E{i}" for i in range(1, 129)), "Cz")
EEG_SUFFIXES = (".set", ".bdf")
PLACEHOLDER_BYTES = 1024  # a placeholder is one path
MONTAGE = "GSN-HydroCel-129"

_NAME = re.compile(
    r"(?P<participant>sub-[A-Za-z0-9]+)_task-(?P<task>[A-Za-z0-9]+)(_run-(?P<run>[0-9]+))?_[a-z]+\.[a-z]+"
)


@dataclass(frozen=True, order=True)
class Recording:
    """One task run of one participant."""

    participant_id: str  # with its 'sub-'
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
        """Parse a path such as sub-X/eeg/sub-X_task-T_run-1_events.tsv (HbnError if it is none)."""
        folder, _, name = path.rpartition("/")
        match = _NAME.fullmatch(name)
        if not match or folder not in ("", f"{match['participant']}/eeg"):
            raise HbnError(f"{path!r} is not the path of an HBN recording (sub-ID/eeg/sub-ID_task-TASK[_run-N]_...)")
        run = int(match["run"]) if match["run"] else None
        return cls(match["participant"], match["task"], run, name.rpartition("_")[0])

    def is_selected(self, tasks: list[str]) -> bool:
        """Whether `tasks` names this recording's task, or this very run as task_run."""
        return self.task in tasks or self.column in tasks


def factor_values(participants: list[dict[str, str]]) -> np.ndarray:
    """The factors (P, 4) of participants who have them."""
    return np.array([[float(one[factor]) for factor in FACTORS] for one in participants])


class UnusableRecording(HbnError):
    """A recording that cannot be used; `reason` is one word for the tables of rejected recordings."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def __reduce__(self):  # so that it survives the way back from a worker process
        return type(self), (self.reason, self.detail)


@dataclass(frozen=True)
class Signal:
    """A recording in memory."""

    data_uv: np.ndarray  # float32 (C, T), channels in the order of CHANNELS
    sfreq_hz: float


def recordings(root: Path | str) -> list[tuple[Recording, Path]]:
    """All .set and .bdf recordings below a release's folder, in order."""
    paths = [path for path in Path(root).glob("sub-*/eeg/*_eeg.*") if path.suffix in EEG_SUFFIXES]
    return sorted((Recording.of(path.relative_to(root).as_posix()), path) for path in paths)


def read_signal(path: Path | str) -> Signal:
    """Read a .set or .bdf recording with MNE.

    Events in the file are not read (the events table counts), nor are channels that are no EEG,
    such as the Status of a BDF. Raises UnusableRecording: 'pointer' (a git-annex placeholder),
    'unreadable' (damaged or truncated), 'channels' (not the 129 of the net) or 'not_finite'.
    """
    import mne

    path = Path(path)
    if is_placeholder(path):
        raise UnusableRecording(
            "pointer", f"{path.name} is a git-annex placeholder; run `git annex get` or `datalad get`"
        )
    reader = mne.io.read_raw_eeglab if path.suffix == ".set" else mne.io.read_raw_bdf
    try:
        with mne.utils.use_log_level("WARNING"), warnings.catch_warnings(action="ignore"), _without_set_events():
            # MNE reads what there is of a BDF that is shorter than its header says, and only warns.
            warnings.filterwarnings("error", "Number of records from the header does not match")
            raw = reader(path, preload=True)
    except Exception as error:  # MNE raises many kinds for a damaged file
        raise UnusableRecording("unreadable", f"{path.name}: {type(error).__name__}: {error}") from error
    kinds = dict(zip(raw.ch_names, raw.get_channel_types(), strict=True))
    absent = [name for name in CHANNELS if name not in kinds]
    unknown = [name for name, kind in kinds.items() if kind == "eeg" and name not in CHANNELS]
    if absent or unknown:
        lists = f"without [{', '.join(absent[:5])}], with unknown [{', '.join(unknown[:5])}]"
        raise UnusableRecording("channels", f"{path.name} has {len(kinds)} channels, {lists} (at most 5 shown)")
    data_uv = np.empty((len(CHANNELS), raw.n_times), dtype=np.float32)
    for row, name in zip(data_uv, CHANNELS, strict=True):  # one by one: no second copy in float64
        np.multiply(raw.get_data(picks=[name])[0], 1e6, out=row, casting="same_kind")
    if not np.isfinite(data_uv).all():
        raise UnusableRecording("not_finite", f"{path.name} holds NaN or infinite samples")
    return Signal(data_uv, float(raw.info["sfreq"]))


def is_placeholder(path: Path) -> bool:
    """Whether a file is what git-annex leaves where content was not fetched, or a recording of one byte.

    A recording under its final name or a temporary one, `.<name>.<anything>`.
    """
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode) and not path.exists():
        return b"annex/objects" in bytes(path.readlink())
    if facts.st_size > PLACEHOLDER_BYTES:
        return False
    with open(path, "rb") as file:
        head = file.read(200)
    return b"annex/objects" in head or (len(head) == 1 and not set(EEG_SUFFIXES).isdisjoint(path.suffixes))


@lru_cache
def electrode_positions_m() -> np.ndarray:
    """Positions (129, 3) in metres of CHANNELS on MNE's standard GSN-HydroCel-129 head."""
    import mne

    positions = mne.channels.make_standard_montage(MONTAGE).get_positions()["ch_pos"]
    return np.array([positions[name] for name in CHANNELS])


def _without_set_events():
    """Keep MNE from parsing the event structure of a .set, an oddity in which would cost the recording."""
    import mne

    return mock.patch("mne.io.eeglab.eeglab._read_annotations_eeglab", return_value=mne.Annotations([], [], []))
