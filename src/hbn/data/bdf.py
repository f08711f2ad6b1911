"""BDF and BDF+ files: 24-bit samples in records, https://www.biosemi.com/faq/file_format.htm, www.edfplus.info/specs.

MNE is not used because it takes an unknown unit for volts, reads a file that is shorter than its header says, joins the
parts of a discontinuous file, and needs the annotations, which nobody uses here, to be without fault.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hbn.data.bids import UnusableRecording
from hbn.data.raw_file import RawFile, unreadable
from hbn.files import HbnError, read_tsv

FILE_BYTES = SIGNAL_BYTES = 256  # of the header: of the file, and of each signal
WIDTHS = {  # of the fields of a signal
    **{"label": 16, "transducer": 80, "unit": 8, "physical_min": 8, "physical_max": 8},
    **{"digital_min": 8, "digital_max": 8, "filter": 80, "n_samples": 8, "reserved": 32},
}
SAMPLE_BYTES = 3
ANNOTATIONS = "BDF Annotations"
VOLT = r"v(?:ol(?:ts?)?)?"  # a field of 8 characters cuts 'microvolts'
SPELLINGS = (  # of a unit without blanks, after 'µ' (U+00B5) has become 'μ' (U+03BC); 'MV' could be megavolts
    (re.compile(rf"(?i:{VOLT})"), 1e6),
    (re.compile(rf"m(?i:{VOLT})|(?i:milli{VOLT})"), 1e3),
    (re.compile(rf"[uU\u03bc](?i:{VOLT})|(?i:micro{VOLT})"), 1.0),
    (re.compile(rf"[nN](?i:{VOLT})|(?i:nano{VOLT})"), 1e-3),
)


@dataclass(frozen=True)
class _Header:
    header_bytes: int
    kind: str  # 24BIT, BDF+C or BDF+D
    n_records: int
    record_s: float
    labels: list[str]
    units: list[str]
    physical: np.ndarray  # (C, 2) smallest and largest, in the unit
    digital: np.ndarray  # (C, 2)
    n_samples: np.ndarray  # (C,) in a record

    @property
    def record_bytes(self) -> int:
        return SAMPLE_BYTES * int(self.n_samples.sum())


def open_bdf(path: Path) -> RawFile:
    """Check a BDF file; the rate is that of most channels.

    Raises UnusableRecording: 'unreadable', 'units' or 'gap' (a discontinuous file).
    """
    header = _read_header(path)
    starts = header.header_bytes + SAMPLE_BYTES * np.concatenate([[0], np.cumsum(header.n_samples)[:-1]])

    def block(channel: int, bytes_before: int, itemsize: int, kind: str) -> np.ndarray:
        """A channel's samples, record by record, where they lie in the file."""
        step, n = (SAMPLE_BYTES, int(header.n_samples[channel])) if itemsize > 1 else (1, 3 * header.n_samples[channel])
        offset = int(starts[channel]) - bytes_before
        return np.ndarray((header.n_records, n), kind, memory, offset, (header.record_bytes, step))

    memory = np.memmap(path, dtype=np.uint8, mode="r")
    if header.kind.startswith("BDF+D"):
        marks = [i for i, label in enumerate(header.labels) if label == ANNOTATIONS]
        if not marks:
            raise unreadable(path, "discontinuous (BDF+D), but without annotations that tell the time of each record")
        _refuse_gaps(path, header, block(marks[0], 0, 1, "u1"))
    signals = [int(n) for label, n in zip(header.labels, header.n_samples, strict=True) if label != ANNOTATIONS]
    if not signals:
        raise unreadable(path, "no signal but annotations")
    n_samples = Counter(signals).most_common(1)[0][0]

    def read_uv(rows: Sequence[int]) -> np.ndarray:
        scales = [_scale_uv(path, header, row) for row in rows]
        data_uv = np.empty((len(rows), header.n_records * n_samples), dtype=np.float32)
        for out, row, (gain, offset) in zip(data_uv, rows, scales, strict=True):
            if header.n_samples[row] != n_samples:
                detail = f"{header.labels[row]} has {header.n_samples[row]} samples in a record, others {n_samples}"
                raise unreadable(path, detail)
            # Four bytes from one before each sample on, of which the shift drops the first and keeps the sign.
            counts = block(row, 1, 4, "<i4") >> 8
            np.add(counts * gain, offset, out=out.reshape(header.n_records, n_samples), casting="same_kind")
        return data_uv

    return RawFile(header.labels, n_samples / header.record_s, read_uv)


def uv_per_unit(unit: str) -> float | None:
    """Microvolts in a physical dimension; None for one that is no spelling of V, mV, uV or nV, or could be several."""
    plain = re.sub(r"[\s()\[\]_-]", "", unicodedata.normalize("NFKC", unit))
    return next((factor for spelling, factor in SPELLINGS if spelling.fullmatch(plain)), None)


def _scale_uv(path: Path, header: _Header, row: int) -> tuple[float, float]:
    """Factor and offset from a channel's counts to microvolts."""
    label, unit = header.labels[row], header.units[row]
    factor = uv_per_unit(unit or (unit := _unit_beside(path, label)))
    if factor is None:
        advice = "correct its header, or " + ("give" if not unit else "leave it empty there and give")
        raise UnusableRecording(
            "units",
            f"{path.name}: {unit!r} is no unit of voltage that is known (physical dimension of {label}; V, mV, uV and "
            f"nV are, 'MV' could be megavolts); {advice} units in its channels.tsv",
        )
    (physical_min, physical_max), (digital_min, digital_max) = header.physical[row], header.digital[row]
    if physical_min == physical_max or digital_min >= digital_max:
        detail = f"physical {physical_min:g} to {physical_max:g}, digital {digital_min:g} to {digital_max:g}"
        raise unreadable(path, f"impossible range of {label}: {detail}")
    gain = (physical_max - physical_min) / (digital_max - digital_min)
    return gain * factor, (physical_min - digital_min * gain) * factor


def _unit_beside(path: Path, label: str) -> str:
    """The unit that channels.tsv gives for a channel; empty if there is none."""
    table = path.with_name(path.name.replace("_eeg.bdf", "_channels.tsv"))
    if table == path or not table.exists():
        return ""
    try:
        rows = read_tsv(table)
    except HbnError as error:
        raise UnusableRecording("units", f"{path.name} has no unit of {label} in its header, and {error}") from None
    units = {row.get("name"): row.get("units") for row in rows}
    unit = units.get(label) or ""
    return "" if unit == "n/a" else unit


def _read_header(path: Path) -> _Header:
    n_bytes = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(FILE_BYTES)
        if not head.startswith(b"\xffBIOSEMI") or len(head) < FILE_BYTES:
            what = "an EDF file" if head.startswith(b"0       ") else f"{head[:8]!r}"
            raise unreadable(path, f"no BDF file, it begins as {what}")
        n_signals = _number(path, head[252:256], "number of signals", whole=True, smallest=1)
        fields = file.read(SIGNAL_BYTES * n_signals)
    header_bytes = _number(path, head[184:192], "bytes of the header", whole=True)
    if header_bytes != FILE_BYTES + len(fields) or len(fields) != SIGNAL_BYTES * n_signals:
        expected = FILE_BYTES + SIGNAL_BYTES * n_signals
        raise unreadable(path, f"{n_signals} signals make a header of {expected} bytes, it says {header_bytes}")
    columns, at = {}, 0
    for name, width in WIDTHS.items():
        columns[name] = [fields[at + i * width : at + (i + 1) * width] for i in range(n_signals)]
        at += width * n_signals
    labels = [_text(label) for label in columns["label"]]

    def numbers(name: str, **limits) -> list:
        cells = zip(columns[name], labels, strict=True)
        return [_number(path, cell, f"{name.replace('_', ' ')} of {label}", **limits) for cell, label in cells]

    header = _Header(
        header_bytes=header_bytes,
        kind=_text(head[192:236]),
        n_records=_number(path, head[236:244], "number of records", whole=True, smallest=-1),
        record_s=_number(path, head[244:252], "duration of a record"),
        labels=labels,
        units=[_text(unit) for unit in columns["unit"]],
        physical=np.array([numbers("physical_min"), numbers("physical_max")]).T,
        digital=np.array([numbers("digital_min"), numbers("digital_max")]).T,
        n_samples=np.array(numbers("n_samples", whole=True, smallest=1)),
    )
    if header.record_s <= 0:
        raise unreadable(path, f"the header says that a record lasts {header.record_s:g} s")
    n_records = (n_bytes - header_bytes) / header.record_bytes
    if n_records % 1 or n_records < 1 or header.n_records not in (-1, n_records):
        said = "an unknown number (-1)" if header.n_records == -1 else header.n_records
        raise unreadable(path, f"{n_records:.6g} records of samples, the header says {said}")
    return _Header(**(vars(header) | {"n_records": int(n_records)}))


def _number(path: Path, cell: bytes, what: str, whole: bool = False, smallest: int | None = None) -> float:
    try:
        value = (int if whole else float)(cell.strip(b" \0"))
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or (smallest is not None and value < smallest):
        raise unreadable(path, f"{what} is {_text(cell)!r} in the header")
    return value


def _text(cell: bytes) -> str:
    """A field of the header, which should be ASCII."""
    cell = cell.strip(b" \0")
    try:
        return cell.decode("utf-8")
    except UnicodeDecodeError:
        return cell.decode("latin-1")


def _refuse_gaps(path: Path, header: _Header, annotations: np.ndarray) -> None:
    """UnusableRecording where records (N, bytes) do not follow each other, by the time that begins each of them.

    What an event table counts across a gap, the recorded or the passed time, nobody knows.
    """
    times_s = []
    for i, record in enumerate(annotations):
        match = re.match(rb"([+-]\d+(?:\.\d*)?)(?:\x15[\d.]+)?\x14", record.tobytes())
        if not match:
            raise unreadable(path, f"record {i + 1} of a discontinuous file (BDF+D) does not begin with its time")
        times_s.append(float(match[1]))
    missing_s = np.diff(times_s) - header.record_s
    tolerance_s = header.record_s / max(header.n_samples)
    if (gaps := np.flatnonzero(np.abs(missing_s) > tolerance_s)).size:
        after_s, first_s = (gaps[0] + 1) * header.record_s, missing_s[gaps[0]]
        what = f"{first_s:g} s are missing" if first_s > 0 else f"{-first_s:g} s are there twice"
        raise UnusableRecording(
            "gap",
            f"{path.name}: discontinuous (BDF+D), {what} after {after_s:g} s ({len(gaps)} gaps); export each "
            "continuous part as its own run, with its events",
        )
