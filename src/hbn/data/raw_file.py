"""What every reader of a recording gives: names, rate and samples on demand, as the file has them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hbn.data.bids import UnusableRecording

MESSAGE_CHARACTERS = 200  # of a library's error, which may quote half a file


@dataclass(frozen=True)
class RawFile:
    """An open recording: all headers are checked, no sample is read."""

    names: list[str]  # of all channels
    sfreq_hz: float  # of the EEG
    read_uv: Callable[[Sequence[int]], np.ndarray]  # numbers of channels -> float32 (C, T) in microvolts


def unreadable(path: Path, what: str) -> UnusableRecording:
    """The error for a file whose content cannot be right."""
    return UnusableRecording("unreadable", f"{path.name}: {what}")


def in_short(error: Exception) -> str:
    """A library's error as one short line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= MESSAGE_CHARACTERS else f"{text[:MESSAGE_CHARACTERS]} ..."
