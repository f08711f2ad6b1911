"""Reading the headers of recordings (.set, .bdf), and comparing them with the lengths of files, without samples."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbn.data.absent import why_absent
from hbn.data.bids import UnusableRecording

MATLAB_BYTES = 128  # in the header of a MATLAB file
VARIABLES = (14, 15)  # kinds of variables in a MATLAB 5 file: miMATRIX, miCOMPRESSED
SMALL_BYTES = 1 << 20  # a smaller .set may hold only the header of an .fdt
BDF_BYTES = 256  # in the header of a file, and in the header of each signal
BDF_FIELDS = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)  # label, transducer, unit, limits (4), filters, samples, reserved


@dataclass(frozen=True)
class BdfHeader:
    """The header of a BDF file: https://www.biosemi.com/faq/file_format.htm."""

    n_bytes: int  # of the header
    n_records: int  # complete records in the file
    record_s: float
    is_discontinuous: bool
    fields: list[list[bytes]]  # of BDF_FIELDS, for each signal
    per_record: np.ndarray  # (signals,) samples in a record


def is_hdf5(path: Path) -> bool:
    """Whether a .set is a MATLAB 7.3 file; UnusableRecording for a file that is not of MATLAB or was cut."""
    n_bytes, at = path.stat().st_size, MATLAB_BYTES
    with open(path, "rb") as file:
        head = file.read(MATLAB_BYTES)
        if b"MATLAB 7.3" in head or head.startswith(b"\x89HDF"):
            return True
        if not head.startswith(b"MATLAB 5.0 MAT-file"):
            raise unreadable(path, "not the beginning of a MATLAB file")
        order = ">" if head[126:] == b"MI" else "<"
        while at < n_bytes:  # one variable after the other
            file.seek(at)
            kind, length = struct.unpack(f"{order}II", file.read(8).ljust(8, b"\0"))
            at += 8 + length
            if kind not in VARIABLES or at > n_bytes:
                raise unreadable(path, f"cut or damaged, it has {n_bytes} bytes and a variable that ends after {at}")
    return False


def load_set(path: Path) -> dict[str, Any]:
    """EEGLAB's structure EEG: https://eeglab.org/tutorials/ConceptsGuide/Data_Structures.html."""
    if is_hdf5(path):
        from pymatreader import read_mat

        content = read_mat(path)
    else:
        from scipy.io import loadmat

        content = loadmat(path, simplify_cells=True)
    header = content.get("EEG", content)
    if not isinstance(header, dict) or "data" not in header:
        raise unreadable(path, "it holds no structure EEG with samples")
    return header


def number(path: Path, header: dict[str, Any], key: str) -> float:
    """A number in the header of a .set."""
    value = np.asarray(header.get(key))
    if value.size != 1 or value.dtype.kind not in "fiu":
        raise unreadable(path, f"its header has no number {key}")
    return float(value.reshape(-1)[0])


def count(path: Path, header: dict[str, Any], key: str) -> int:
    """A whole number in the header of a .set."""
    value = number(path, header, key)
    if not (np.isfinite(value) and value == round(value) and value >= 0):
        raise unreadable(path, f"its header says {key} is {value:g}")
    return int(value)


def find_fdt(path: Path, header: dict[str, Any]) -> Path:
    """The .fdt that the header of a .set names or that has the name of the .set; its length fits the header."""
    name, own = re.split(r"[/\\]", header["data"])[-1], path.with_suffix(".fdt")
    place = next((place for place in (path.with_name(name), own) if place.exists() or place.is_symlink()), None)
    if place is None:
        raise unreadable(path, f"its samples are to be in {name} or {own.name}, and neither is beside it")
    refuse_absent(place)
    n_channels, n_samples, n_trials = (count(path, header, key) for key in ("nbchan", "pnts", "trials"))
    expected, actual = 4 * n_channels * n_samples * max(n_trials, 1), place.stat().st_size
    if expected != actual:
        raise unreadable(path, f"{place.name} has {actual} bytes, the header says {expected}")
    return place


def read_bdf_header(path: Path) -> BdfHeader:
    """The header of a BDF file. The number of records must fit the header or, where that says -1, be whole."""
    with open(path, "rb") as file:
        head = file.read(BDF_BYTES)
        if not head.startswith(b"\xffBIOSEMI"):
            raise unreadable(path, "not the beginning of a BDF file")
        try:
            n_bytes, n_records, n_signals = int(head[184:192]), int(head[236:244]), int(head[252:256])
            record_s = float(head[244:252])
            fields = []
            for width in BDF_FIELDS:
                block = file.read(width * max(n_signals, 0))
                fields.append([block[i * width : (i + 1) * width].strip(b" \0") for i in range(n_signals)])
            per_record = np.array([int(n) for n in fields[8]])
        except ValueError:
            raise unreadable(path, "a damaged header of BDF") from None
    if n_signals < 1 or n_bytes != BDF_BYTES * (n_signals + 1):
        raise unreadable(path, f"its header says {n_signals} signals and {n_bytes} bytes of header")
    record_bytes = 3 * int(per_record.sum())
    n_whole = (path.stat().st_size - n_bytes) / record_bytes if record_bytes > 0 else 0.0
    if n_whole < 1 or n_whole != (int(n_whole) if n_records == -1 else n_records):
        raise unreadable(path, f"cut or damaged, it has {n_whole:.6g} records of samples, the header says {n_records}")
    if not (np.isfinite(record_s) and record_s > 0):
        raise unreadable(path, f"its header says records of {record_s} s")
    return BdfHeader(n_bytes, int(n_whole), record_s, head[192:197] in (b"BDF+D", b"EDF+D"), fields, per_record)


def refuse_absent(path: Path) -> None:
    """UnusableRecording for a file that does not exist or whose content is absent."""
    if not (path.exists() or path.is_symlink()):
        raise UnusableRecording("unreadable", f"{path} does not exist")
    if reason := why_absent(path, path.parent):
        raise UnusableRecording("pointer", reason)


def unreadable(path: Path, what: str) -> UnusableRecording:
    """The error of a file that cannot be read."""
    return UnusableRecording("unreadable", f"{path.name}: {what}")
