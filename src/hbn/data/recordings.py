"""Signals of recordings, in microvolts and in the order of the net, whatever the file calls its channels and units."""

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hbn.data.absent import why_absent
from hbn.data.bdf import open_bdf
from hbn.data.bids import CHANNELS, EEG_SUFFIXES, UnusableRecording
from hbn.data.eeglab import open_set
from hbn.data.montage import recognise, with_reference
from hbn.data.raw_file import unreadable
from hbn.files import existing

RATE_TOLERANCE = 1e-5  # of a rate: at most 3 ms off after five minutes


@dataclass(frozen=True)
class Signal:
    """A recording in memory."""

    data_uv: np.ndarray  # float32 (C, T), channels in the order of CHANNELS
    sfreq_hz: float
    montage: dict[str, object] = field(default_factory=dict)  # what was renamed, not used or added


def read_signal(path: Path | str) -> Signal:
    """Read a .set or .bdf recording.

    Events in the file are not read (the events table counts), nor are channels that are no EEG, such as Status.
    Raises HbnError without the file, and UnusableRecording: 'pointer' (a placeholder of git-annex or the like),
    'unreadable' (damaged, truncated, or a header that does not fit), 'epochs', 'gap', 'units', 'channels' (not those
    of the net) or 'not_finite'.
    """
    path = Path(path)
    if not os.path.lexists(path):
        existing(path)
    if reason := why_absent(path, path.parent):
        raise UnusableRecording("pointer", reason)
    if path.suffix not in EEG_SUFFIXES or not path.is_file():
        raise unreadable(path, f"no recording that is read ({' or '.join(EEG_SUFFIXES)})")
    raw = open_set(path) if path.suffix == ".set" else open_bdf(path)
    montage = recognise(raw.names, path.name)
    data_uv = raw.read_uv(montage.rows)
    if not np.isfinite(data_uv).all():
        raise UnusableRecording("not_finite", f"{path.name} holds NaN or infinite samples")
    if len(data_uv) < len(CHANNELS):
        data_uv = with_reference(data_uv, path.name)
    return Signal(data_uv, _rate(raw.sfreq_hz), montage.facts)


def _rate(sfreq_hz: float) -> float:
    """A whole number of hertz where a rate is one but for the rounding of the program that computed it."""
    whole = float(round(sfreq_hz))
    return whole if abs(sfreq_hz - whole) <= RATE_TOLERANCE * whole else sfreq_hz
