"""The samples of a recording (.set with or without .fdt, .bdf), in microvolts and in the order of the net."""

import re
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hbn.data.bids import CHANNELS, UnusableRecording
from hbn.data.headers import (
    SMALL_BYTES,
    BdfHeader,
    count,
    find_fdt,
    is_hdf5,
    load_set,
    number,
    read_bdf_header,
    refuse_absent,
    unreadable,
)
from hbn.files import HbnError, read_tsv

RATE_TOLERANCE_HZ = 1e-3  # tolerance within which a rate that was computed from a sampling interval is rounded
CHECKED_SAMPLES = 2000  # read of a recording without Cz, to detect an average reference
LARGEST_UV = 1e12  # a larger sample is no voltage, and sums of its square may be infinite
MAX_GAPS_S = 1200.0  # of missing time in a recording, which takes memory as samples do
REFERENCE_NAMES = {"CZ", "E129", "VREF", "VERTEXREFERENCE"}  # of the electrode at the vertex, in capitals
SCALP = re.compile(r"E\d+|EEG\d+|[A-H]\d+|(FP|AF|F|FC|FT|C|CP|T|TP|P|PO|O|I)(\d+|Z)")  # labels of electrodes
VOLT = "v(?:ol(?:ts?)?)?"  # a field of eight characters cuts 'microvolts'
SPELLINGS = {  # without blanks and brackets, the sign of micro as u; 'MV' may be millivolts or megavolts
    rf"(?i:{VOLT})": 1e6,
    rf"m(?i:{VOLT})|(?i:milli{VOLT})": 1e3,
    rf"(?i:(?:u|micro|mc){VOLT})": 1.0,
    rf"(?i:(?:n|nano){VOLT})": 1e-3,
}


@dataclass(frozen=True)
class Signal:
    """A recording in memory."""

    data_uv: np.ndarray  # float32 (C, T), channels in the order of CHANNELS
    sfreq_hz: float
    gaps: tuple[tuple[int, int], ...] = ()  # first missing sample and first one after it; the last value is held
    mapped: dict[str, str] = field(default_factory=dict)  # label in the file -> channel, or why it is not used

    @property
    def gaps_s(self) -> list[tuple[float, float]]:
        """The gaps as times since the first sample."""
        return [(begin / self.sfreq_hz, end / self.sfreq_hz) for begin, end in self.gaps]


def read_signal(path: Path | str) -> Signal:
    """Read a .set or .bdf recording.

    Events in the file are not read, because the events table counts. Missing time of a discontinuous BDF+ holds the
    last value. Raises UnusableRecording: 'pointer' (the content is not there), 'epochs', 'unreadable' (damaged, or a
    header that does not fit the samples), 'units', 'channels' (not those of the net) or 'not_finite'.
    """
    path = Path(path)
    with _refusing(path):
        labels, rows, sfreq_hz, gaps = _read_set(path) if path.suffix == ".set" else _read_bdf(path)
    sources, mapped = match_channels(labels, path.name)
    n_samples = rows.n_samples + sum(end - begin for begin, end in gaps)
    data_uv = np.zeros((len(CHANNELS), n_samples), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large for float32 is not finite
        for row, source in zip(data_uv, sources, strict=True):
            if source is not None:
                spread(rows.row_uv(source), gaps, row)
    lowest_uv, highest_uv = float(data_uv.min()), float(data_uv.max())
    if not np.isfinite([lowest_uv, highest_uv]).all():
        raise UnusableRecording("not_finite", f"{path.name} holds NaN or infinite samples")
    if (largest_uv := max(highest_uv, -lowest_uv)) > LARGEST_UV:
        raise unreadable(path, f"a sample has {largest_uv:.3g} uV: the file is damaged")
    if sources[-1] is None:
        _refuse_average(path.name, data_uv[:-1])
    return Signal(data_uv, whole_rate(sfreq_hz), gaps, mapped)


def problem_of(path: Path) -> str:
    """Why read_signal would refuse a file, as far as its header shows it; empty if the header shows no reason.

    Of a large .set only the beginning of each variable is read.
    """
    try:
        with _refusing(path):
            if path.suffix == ".bdf":
                match_channels(_bdf_layout(path)[1], path.name)
            elif path.stat().st_size < SMALL_BYTES:
                match_channels(_set_layout(path)[0], path.name)
            else:
                is_hdf5(path)
    except UnusableRecording as error:
        return error.detail.removeprefix(f"{path.name}: ")
    return ""


@contextmanager
def _refusing(path: Path) -> Generator[None]:
    """Raise UnusableRecording for an absent file, and for any error of its reader."""
    refuse_absent(path)
    try:
        yield
    except UnusableRecording:
        raise
    except Exception as error:  # the readers of damaged files raise many kinds
        said = " ".join(str(error).split())[:200] or "no reason is given"
        raise unreadable(path, f"{type(error).__name__}, {said}") from error


def spread(samples: np.ndarray, gaps: tuple[tuple[int, int], ...], row: np.ndarray) -> None:
    """Put the samples of a file into the `row` of a recording, and hold the last value in the gaps between them."""
    at = begin = 0  # in the recording, in the file
    for start, stop in (*gaps, (len(row), len(row))):
        row[at:start] = samples[begin : begin + start - at]
        begin, at = begin + start - at, stop
        row[start:stop] = samples[begin - 1]


def match_channels(labels: list[str], name: str) -> tuple[list[int | None], dict[str, str]]:
    """For every channel of the net, which label is its (None for an absent Cz, which is zero), and what was mapped.

    E129 and VREF are Cz; case, blanks and leading zeros do not matter. Channels that are no electrode of a cap (ECG,
    Status, ...) are not used. UnusableRecording 'channels' for another net.
    """
    index: dict[str, int] = {}
    mapped, unknown, doubles = {}, [], []
    for i, label in enumerate(labels):
        short = _short(label)
        channel = "Cz" if short in REFERENCE_NAMES else short
        if channel in CHANNELS:
            if channel in index:
                doubles.append((channel, labels[index[channel]], label))
            index[channel] = i
            if channel != label:
                mapped[label] = channel
        elif SCALP.fullmatch(short):
            unknown.append(label)
        else:
            mapped[label] = "not used, no electrode of the net"
    if doubles and not unknown:
        channel, first, second = doubles[0]
        raise UnusableRecording("channels", f"{name} has channel {channel} twice, as {first!r} and as {second!r}")
    absent = [channel for channel in CHANNELS if channel not in index and channel != "Cz"]
    if absent or unknown:
        lists = f"without [{', '.join(absent[:5])}], with unknown [{', '.join(unknown[:5])}]"
        raise UnusableRecording("channels", f"{name} has {len(labels)} channels, {lists} (at most 5 shown)")
    if "Cz" not in index:
        mapped["(absent)"] = "Cz, the reference, taken as zero"
    return [index.get(channel) for channel in CHANNELS], mapped


def microvolts(unit: bytes | str) -> float | None:
    """Microvolts per unit of voltage; None for a unit that is unknown or ambiguous.

    The sign of micro may be U+00B5 or U+03BC, in Latin-1 or UTF-8. 'MV' may be millivolts or megavolts.
    """
    if isinstance(unit, bytes):
        try:
            unit = unit.decode("utf-8")
        except UnicodeDecodeError:
            unit = unit.decode("latin-1")
    text = re.sub(r"[\s\0.()\[\]_-]+", "", unicodedata.normalize("NFKC", unit)).replace("μ", "u").replace("Μ", "u")
    return next((factor for spelling, factor in SPELLINGS.items() if re.fullmatch(spelling, text)), None)


def whole_rate(sfreq_hz: float) -> float:
    """The whole number of Hz that a rate stands for, if it is one."""
    return float(round(sfreq_hz)) if abs(sfreq_hz - round(sfreq_hz)) <= RATE_TOLERANCE_HZ else float(sfreq_hz)


def _refuse_average(name: str, data_uv: np.ndarray) -> None:
    """Refuse average-referenced channels (128, T) without Cz, whose signal cannot be recovered."""
    few_uv = data_uv[:, :: max(1, data_uv.shape[1] // CHECKED_SAMPLES)].astype(float)
    few_uv -= few_uv.mean(axis=1, keepdims=True)
    if few_uv.any() and few_uv.mean(axis=0).std() < 1e-3 * few_uv.std():
        detail = f"{name} has no Cz, and its channels are average-referenced: Cz is lost; export it with Cz"
        raise UnusableRecording("channels", detail)


class _Rows:
    """Rows of samples, converted one at a time."""

    def __init__(self, samples: np.ndarray, gain_uv: np.ndarray, offset_uv: np.ndarray):
        self.samples, self.gain_uv, self.offset_uv = samples, gain_uv, offset_uv
        self.n_samples = samples.shape[1]

    def row_uv(self, i: int) -> np.ndarray:
        return self.samples[i] * self.gain_uv[i] + self.offset_uv[i]


def _read_set(path: Path) -> tuple[list[str], _Rows, float, tuple]:
    labels, sfreq_hz, data = _set_layout(path)
    if isinstance(data, Path):
        data = np.fromfile(data, dtype="<f4").reshape(-1, len(labels)).T
    data = np.ascontiguousarray(data)  # MATLAB's order is by columns: rows would be read from all over the memory
    return labels, _Rows(data, np.ones(len(data)), np.zeros(len(data))), sfreq_hz, ()


def _set_layout(path: Path) -> tuple[list[str], float, np.ndarray | Path]:
    """Labels, rate and samples (C, T) of a .set, or the .fdt that holds them, whose header fits them."""
    header = load_set(path)
    labels = _labels(header.get("chanlocs"))
    n_channels, n_samples, n_trials = (count(path, header, key) for key in ("nbchan", "pnts", "trials"))
    sfreq_hz = number(path, header, "srate")
    if not (np.isfinite(sfreq_hz) and sfreq_hz > 0):
        raise unreadable(path, f"its header says a rate of {sfreq_hz} Hz")
    data = header["data"]
    if isinstance(data, str):
        data, shape = find_fdt(path, header), (n_channels, n_samples)
    else:
        data = np.asarray(data)
        if data.dtype.kind not in "fiu":
            raise unreadable(path, f"its samples are no real numbers ({data.dtype})")
        data = data.reshape(1, -1) if data.ndim == 1 and n_channels == 1 else data
        shape = data.shape
    if n_trials > 1 or len(shape) == 3:
        detail = f"{path.name} holds {max(n_trials, 1)} epochs; the continuous recording is wanted"
        raise UnusableRecording("epochs", detail)
    if len(shape) != 2 or not np.prod(shape):
        raise unreadable(path, f"its samples have the shape {shape}, not (channels, samples)")
    for what, expected, actual in (
        ("channels", n_channels, shape[0]),
        ("samples", n_samples, shape[1]),
        ("names of channels", shape[0], len(labels)),
    ):
        if expected != actual:
            raise unreadable(path, f"its header says {expected} {what}, there are {actual}")
    _check_span(path, header, n_samples, sfreq_hz)
    return labels, sfreq_hz, data


def _check_span(path: Path, header: dict[str, Any], n_samples: int, sfreq_hz: float) -> None:
    """Compare the span in s that the header states with samples and rate, which reveals a wrong rate."""
    span: list[Any] = [header.get(key) for key in ("xmin", "xmax")]
    if not all(isinstance(value, int | float) and np.isfinite(value) for value in span):
        return
    stated_s, actual_s = span[1] - span[0], (n_samples - 1) / sfreq_hz
    if stated_s > 0 and not 0.98 < actual_s / stated_s < 1.02 and abs(actual_s - stated_s) > 0.1:
        raise unreadable(
            path, f"its header says {stated_s:g} s, {n_samples} samples at {sfreq_hz:g} Hz are {actual_s:g} s"
        )


def _labels(chanlocs: Any) -> list[str]:
    """Names of channels of EEG.chanlocs: a list of structures, or (as HDF5 is read) a structure of lists."""
    if isinstance(chanlocs, dict):
        labels = chanlocs.get("labels", [])
        return [labels] if isinstance(labels, str) else [str(label) for label in labels]
    rows = [] if chanlocs is None else np.atleast_1d(np.asarray(chanlocs, dtype=object)).ravel().tolist()
    return [str(row["labels"]) for row in rows if isinstance(row, dict) and "labels" in row]


def _read_bdf(path: Path) -> tuple[list[str], _Rows, float, tuple]:
    """24-bit records, and gaps as in https://www.edfplus.info/specs/edfplus.html."""
    header, labels, wanted, gains, n = _bdf_layout(path)
    records = np.fromfile(path, dtype=np.uint8, offset=header.n_bytes).reshape(header.n_records, -1)
    starts = np.concatenate([[0], 3 * np.cumsum(header.per_record)])
    samples = np.empty((len(wanted), len(records) * n), dtype=np.int32)
    for row, i in zip(samples, wanted, strict=True):
        parts = np.ascontiguousarray(records[:, starts[i] : starts[i + 1]]).reshape(-1, 3)
        row[:] = parts[:, 0] | parts[:, 1].astype(np.int32) << 8 | parts[:, 2].astype(np.int8).astype(np.int32) << 16
    gaps: tuple = ()
    if header.is_discontinuous:
        if "BDF Annotations" not in labels:
            raise unreadable(path, "it is discontinuous and does not say when its records begin")
        i = labels.index("BDF Annotations")
        begins = [_record_begin_s(path, record.tobytes()) for record in records[:, starts[i] : starts[i + 1]]]
        gaps = find_gaps(path, begins, n, header.record_s)
    return labels, _Rows(samples, *gains), n / header.record_s, gaps


def _bdf_layout(path: Path) -> tuple[BdfHeader, list[str], list[int], np.ndarray, int]:
    """Header, labels (those of electrodes first), which signals are electrodes', (2, C) scale and offset in microvolts,
    and samples of a record."""
    header = read_bdf_header(path)
    labels = [label.decode("latin-1") for label in header.fields[0]]
    wanted = [i for i, label in enumerate(labels) if _is_electrode(label)]
    if not wanted:
        raise UnusableRecording("channels", f"{path.name} has no channel of the net")
    lengths = sorted({int(header.per_record[i]) for i in wanted})
    if len(lengths) > 1:
        raise unreadable(path, f"its channels have different rates ({lengths} samples a record)")
    if lengths[0] < 1:
        raise unreadable(path, "its channels have no samples")
    gains = np.array([_bdf_scale(path, i, labels[i], header.fields) for i in wanted]).T
    extra = [label for i, label in enumerate(labels) if i not in wanted]
    return header, [labels[i] for i in wanted] + extra, wanted, gains, lengths[0]


def _is_electrode(label: str) -> bool:
    short = _short(label)
    return short in REFERENCE_NAMES or bool(SCALP.fullmatch(short))


def _short(label: str) -> str:
    """A label in capitals without blanks, leading zeros and the kind of signal that EDF+ puts first ('EEG E1')."""
    short = re.sub(r"^EEG(?=E\d|CZ$)", "", re.sub(r"[\s\0]+", "", label).upper())
    return re.sub(r"^E0+(?=\d)", "E", short)


def _bdf_scale(path: Path, i: int, label: str, fields: list[list[bytes]]) -> tuple[float, float]:
    """Microvolts of one step of the converter, and of its value 0."""
    low, high, digital_low, digital_high = (float(fields[k][i]) for k in (3, 4, 5, 6))
    is_scale = np.isfinite([low, high]).all() and high != low
    if not (is_scale and -(2**23) <= digital_low < digital_high <= 2**23):
        raise unreadable(
            path, f"channel {label} has the limits {low:g} to {high:g} for {digital_low:g} to {digital_high:g}"
        )
    unit = fields[2][i]
    factor = microvolts(unit) if unit else microvolts(_unit_in_table(path, label))
    if factor is None:
        said = unit.decode("latin-1") or "no unit"
        why = "may be millivolts or megavolts" if said.upper() == "MV" else "is no known unit of voltage"
        raise UnusableRecording("units", f"channel {label} of {path.name} has {said!r}, which {why}")
    gain = (high - low) / (digital_high - digital_low)
    return factor * gain, factor * (low - gain * digital_low)


def _unit_in_table(path: Path, label: str) -> str:
    """The unit that channels.tsv beside a recording states."""
    table = path.with_name(re.sub(r"_eeg\.bdf$", "_channels.tsv", path.name))
    try:
        rows = read_tsv(table) if table != path and table.exists() else []
    except HbnError:
        return ""
    return next((row.get("units") or "" for row in rows if row.get("name") == label), "")


def _record_begin_s(path: Path, annotations: bytes) -> float:
    """When a record begins, from the first annotation of the first annotation channel."""
    text = annotations.split(b"\x14", 1)[0]
    try:
        begin_s = float(text)
    except ValueError:
        begin_s = np.nan
    if not np.isfinite(begin_s):
        raise unreadable(path, f"a record begins at {text[:20]!r}, which is no time")
    return begin_s


def find_gaps(path: Path, begins_s: list[float], n: int, record_s: float) -> tuple[tuple[int, int], ...]:
    """Where time is missing between records of `n` samples that begin at `begins_s`.

    Each gap is its first sample and the first one after it, in samples since the first record's begin.
    """
    sfreq_hz, gaps, length, missing_s = n / record_s, [], 0, 0.0
    for k, begin_s in enumerate(begins_s):
        missing = round((begin_s - begins_s[0]) * sfreq_hz) - length
        if missing < 0:
            raise unreadable(path, f"record {k} begins at {begin_s:g} s, before the end of the one before it")
        if missing:
            gaps.append((length, length + missing))
            missing_s += missing / sfreq_hz
        length += missing + n
    if missing_s > MAX_GAPS_S:
        raise unreadable(
            path, f"{missing_s:.0f} s are missing in it, at most {MAX_GAPS_S:g} s may: split it into files"
        )
    return tuple(gaps)
