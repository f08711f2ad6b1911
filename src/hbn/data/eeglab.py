"""EEGLAB's .set files (MATLAB 5 to 7.3), with their samples inside or in an .fdt beside them.

SciPy and pymatreader read the MATLAB files, as for MNE. MNE itself is not used because it parses the events inside
the file, which nobody needs here and an oddity in which would cost the recording, trusts a header that does not fit the
samples, and makes two copies in float64. The format: https://eeglab.org/tutorials/ConceptsGuide/Data_Structures.html.
"""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hbn.data.absent import why_absent
from hbn.data.bids import UnusableRecording
from hbn.data.raw_file import RawFile, in_short, unreadable

BLOCK_SAMPLES = 4096  # copied at once: MATLAB's arrays hold one moment after the other
NOT_READ = ("event", "urevent", "epoch", "reject", "stats", "history")  # of a MATLAB 7.3 file, where fields are apart
HDF5 = b"\x89HDF\r\n\x1a\n"  # stands at byte 0 or, in MATLAB's files, 512


def open_set(path: Path) -> RawFile:
    """Check a .set and its header against its samples.

    Raises UnusableRecording: 'epochs', 'pointer' (an .fdt that is only a placeholder) or 'unreadable'.
    """
    header = _load(path)
    n_channels, n_samples = _whole_number(path, header, "nbchan"), _whole_number(path, header, "pnts")
    n_trials = _whole_number(path, header, "trials") if np.size(header.get("trials", ())) else 1
    data = header["data"]
    if n_trials > 1 or np.ndim(data) == 3:
        n_epochs = max(n_trials, np.shape(data)[-1] if np.ndim(data) == 3 else 0)
        detail = f"{path.name} holds {n_epochs} epochs; the continuous recording from before the epoching is wanted"
        raise UnusableRecording("epochs", detail)
    if isinstance(data, str):
        data = _read_fdt(path, data, n_channels, n_samples)
    data = _checked(path, np.asarray(data), n_channels, n_samples)
    names = _names(header.get("chanlocs"))
    if len(names) != n_channels:
        raise unreadable(path, f"EEG.chanlocs names {len(names)} channels, EEG.data has {n_channels} rows")

    def read_uv(rows: Sequence[int]) -> np.ndarray:
        data_uv = np.empty((len(rows), n_samples), dtype=np.float32)
        for begin in range(0, n_samples, BLOCK_SAMPLES):
            data_uv[:, begin : begin + BLOCK_SAMPLES] = data[:, begin : begin + BLOCK_SAMPLES][rows]
        return data_uv

    return RawFile(names, _rate(path, header, n_samples), read_uv)


def _load(path: Path) -> dict:
    """The fields of the structure EEG, which newer versions of EEGLAB write as the file's own variables."""
    with open(path, "rb") as file:
        head = file.read(520)
    try:
        with warnings.catch_warnings(action="ignore"):
            if HDF5 in (head[:8], head[512:520]):
                from pymatreader import read_mat

                content = read_mat(path, ignore_fields=NOT_READ)
            else:
                from scipy.io import loadmat

                content = loadmat(path, simplify_cells=True)
    except Exception as error:  # of many kinds, for a damaged file
        raise unreadable(path, f"damaged, or no MATLAB file ({in_short(error)})") from error
    header = content.get("EEG", content)
    if not isinstance(header, dict) or "data" not in header:
        names = ", ".join(name for name in content if not name.startswith("__"))
        raise unreadable(
            path, f"no data set of EEGLAB, there is no EEG.data (the file holds {names[:80] or 'nothing'})"
        )
    return header


def _whole_number(path: Path, header: dict, field: str) -> int:
    value = _number(header.get(field))
    if value is None or value < 1 or value % 1:
        raise unreadable(path, f"EEG.{field} should be a positive whole number, it is {_shown(header.get(field))}")
    return int(value)


def _rate(path: Path, header: dict, n_samples: int) -> float:
    """EEG.srate, which must fit the times of the first and the last sample."""
    rate_hz = _number(header.get("srate"))
    if rate_hz is None or rate_hz <= 0:
        raise unreadable(path, f"EEG.srate should be a positive number, it is {_shown(header.get('srate'))}")
    first_s, last_s = _number(header.get("xmin")), _number(header.get("xmax"))
    if first_s is not None and last_s is not None and last_s > first_s:
        implied = (last_s - first_s) * rate_hz + 1
        if abs(implied - n_samples) > 2 + 0.01 * n_samples:
            detail = f"EEG.srate {rate_hz:g} Hz and the times {first_s:g} to {last_s:g} s make {implied:.0f} samples"
            raise unreadable(path, f"{detail}, EEG.data has {n_samples}")
    return rate_hz


def _number(value: object) -> float | None:
    """A finite real number, or None."""
    if isinstance(value, str) or np.size(value) != 1 or np.iscomplexobj(value):
        return None
    try:
        number = float(np.asarray(value).reshape(()))
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return "absent" if value is None else text if len(text) < 40 else f"{text[:40]} ..."


def _checked(path: Path, data: np.ndarray, n_channels: int, n_samples: int) -> np.ndarray:
    """Samples (C, T), of real numbers and as many as the header says."""
    if data.dtype.kind not in "fiu":
        kind = "complex" if data.dtype.kind == "c" else str(data.dtype)
        raise unreadable(path, f"EEG.data holds {kind} values, real numbers are needed")
    if data.ndim == 1:  # one channel or one sample
        data = data[None] if n_channels == 1 else data[:, None]
    if data.ndim != 2:
        raise unreadable(path, f"EEG.data has {data.ndim} dimensions, channels and samples are needed")
    if data.shape[0] != n_channels:
        raise unreadable(path, f"EEG.data has {data.shape[0]} rows, EEG.nbchan says {n_channels}")
    if data.shape[1] != n_samples:
        raise unreadable(path, f"EEG.data has {data.shape[1]} samples, EEG.pnts says {n_samples}")
    return data


def _names(chanlocs: object) -> list[str]:
    """The channels' names: structures one by one from SciPy, one of lists from pymatreader."""
    if isinstance(chanlocs, dict):
        labels = chanlocs.get("labels", [])
        return [_text(label) for label in (labels if isinstance(labels, list | np.ndarray) else [labels])]
    if not isinstance(chanlocs, list | np.ndarray):
        return []
    return [_text(channel.get("labels", "")) if isinstance(channel, dict) else "" for channel in chanlocs]


def _text(label: object) -> str:
    return label if isinstance(label, str) else " ".join(str(part) for part in np.ravel(label))


def _read_fdt(path: Path, name: str, n_channels: int, n_samples: int) -> np.ndarray:
    """Samples (C, T) of the .fdt beside a .set: float32, little-endian, one moment after the other."""
    own = path.with_suffix(".fdt")  # whose name a renamed .set does not know
    name = re.split(r"[\\/]", name.strip("\0 "))[-1]
    if not name.lower().endswith((".fdt", ".set")):
        raise unreadable(path, f"its samples are in {name[:80]!r}, only .fdt is read; save it again with EEGLAB")
    place = next((one for one in (path.with_name(name), own) if one.suffix != ".set" and os.path.lexists(one)), None)
    if not place:
        raise unreadable(path, f"its samples are to be in {name} or {own.name}, and neither is beside it")
    if reason := why_absent(place, place.parent):
        raise UnusableRecording("pointer", reason)
    expected, n_bytes = 4 * n_channels * n_samples, place.stat().st_size
    if n_bytes != expected:
        detail = f"{place.name} has {n_bytes} bytes, EEG.nbchan {n_channels} and EEG.pnts {n_samples} make {expected}"
        raise unreadable(path, detail)
    return np.fromfile(place, dtype="<f4").reshape(n_samples, n_channels).T
