"""Which channels of a file are those of the net: EGI's HydroCel with 128 electrodes and the reference Cz.

The same net stands in files under other names (E129, VREF or nothing for Cz, lower case, blanks, 'EEG E001'), and
beside channels that are no EEG. Nets with other numbers of electrodes have the same names at other places.
"""

import re
from dataclasses import dataclass

import numpy as np

from hbn.data.bids import CHANNELS, UnusableRecording

N_ELECTRODES = 128
LABEL = re.compile(r"(?:EEG)?E0*(\d{1,3})(?:-?(?:REF|CZ|VREF|E129))?")
VERTEX = re.compile(r"(?:EEG)?-?(?:CZ|E0*129|VREF|VERTEXREFERENCE|REFCZ|CZREF|E129/CZ|CZ/E129)(?:-?REF)?")
AVERAGED = 1e-3  # of the channels' amplitude: a smaller mean of the channels shows an average reference
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Montage:
    """Where a file has the channels of the net."""

    rows: list[int]  # of CHANNELS, in that order, without Cz where the file has none
    facts: dict[str, object]  # what had another name, what was not used, whether Cz was absent


def recognise(names: list[str], file_name: str) -> Montage:
    """Find the net among the channels; UnusableRecording 'channels' if it is another one or ambiguous."""
    rows: dict[str, int] = {}
    unused, beyond = [], []
    for row, name in enumerate(names):
        channel = _channel_of(name)
        if channel is None:
            unused.append(name)
        elif channel not in CHANNELS:
            beyond.append(name)
        elif channel in rows:
            both = f"{names[rows[channel]]!r} and {name!r}"
            raise UnusableRecording("channels", f"{file_name}: {both} are both {channel}; keep the right one")
        else:
            rows[channel] = row
    absent = [channel for channel in CHANNELS[:N_ELECTRODES] if channel not in rows]
    if absent or beyond:
        parts = [f"without {_some(absent)}"] if absent else []
        parts += [f"with {_some(beyond)}, which it does not have"] if beyond else []
        parts += [f"and with {_some(unused)}"] if absent and unused else []
        detail = f"{file_name} has {len(names)} channels, {' '.join(parts)}: another net than EGI HydroCel 128"
        raise UnusableRecording("channels", f"{detail} (E1 to E128 and Cz, which alone is read)")
    facts = {
        "renamed": {names[row]: channel for channel, row in rows.items() if names[row] != channel},
        "unused": unused,
        "reference_added": "Cz" not in rows,
    }
    return Montage([rows[channel] for channel in CHANNELS if channel in rows], facts)


def with_reference(data_uv: np.ndarray, file_name: str) -> np.ndarray:
    """All channels (129, T) from those without the reference (128, T), which is zero against itself.

    Raises UnusableRecording 'channels' where another reference was put in its place: what Cz is then, is lost.
    """
    step = max(1, data_uv.shape[1] // 10_000)
    few = data_uv[:, ::step].astype(np.float64)
    if few.std() > 0 and few.mean(axis=0).std() < AVERAGED * few.std():
        detail = f"{file_name} has no Cz, and its channels are average-referenced: what Cz was cannot be restored"
        raise UnusableRecording("channels", f"{detail}; export it with Cz, or against the recording reference")
    return np.concatenate([data_uv, np.zeros((1, data_uv.shape[1]), dtype=np.float32)])


def _channel_of(name: str) -> str | None:
    """The electrode that a name stands for, such as E7 or E250, or None."""
    plain = re.sub(r"[\s\0_]", "", name).upper()
    if VERTEX.fullmatch(plain):
        return "Cz"
    match = LABEL.fullmatch(plain)
    return f"E{int(match[1])}" if match and int(match[1]) else None


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
