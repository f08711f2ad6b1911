"""What the first bytes of a recording show of it, without reading its samples."""

from pathlib import Path

SMALL_BYTES = 1 << 20  # a .set that is smaller may hold only the header, beside an .fdt
BDF_FIELDS_BYTES = 256  # of the file, and of each signal


def problem_of(path: Path) -> str:
    """Why a recording (.set or .bdf) cannot be what its name says; empty where nothing is seen."""
    with open(path, "rb") as file:
        head = file.read(BDF_FIELDS_BYTES)
    return _problem_of_bdf(path, head) if path.suffix == ".bdf" else _problem_of_set(path, head)


def _problem_of_set(path: Path, head: bytes) -> str:
    if head.startswith(b"MATLAB 5.0 MAT-file"):
        return _problem_of_fdt(path) if path.stat().st_size < SMALL_BYTES else ""
    if b"MATLAB 7.3 MAT-file" in head or head.startswith(b"\x89HDF"):
        return ""
    return "not the beginning of a MATLAB file"


def _problem_of_fdt(path: Path) -> str:
    """Whether the .fdt that a .set names is beside it, and as long as the header says."""
    from scipy.io import loadmat

    try:
        content = loadmat(path, simplify_cells=True)
    except Exception as error:  # of many kinds, for a damaged file
        return f"a damaged MATLAB file ({type(error).__name__})"
    header = content.get("EEG", content)
    name = header.get("data")
    if not isinstance(name, str):
        return ""
    own = path.with_suffix(".fdt")  # whose name a renamed .set does not know
    place = next((one for one in (path.with_name(Path(name).name), own) if one.exists()), None)
    if not place:
        return f"its samples are to be in {name} or {own.name}, and neither is beside it"
    expected, actual = int(4 * header["nbchan"] * header["pnts"] * header["trials"]), place.stat().st_size
    return f"{place.name} has {actual} bytes, the header says {expected}" if actual != expected else ""


def _problem_of_bdf(path: Path, head: bytes) -> str:
    """The fields of https://www.biosemi.com/faq/file_format.htm."""
    if not head.startswith(b"\xffBIOSEMI"):
        return "not the beginning of a BDF file"
    try:
        header_bytes, n_records, n_signals = int(head[184:192]), int(head[236:244]), int(head[252:256])
        with open(path, "rb") as file:
            file.seek(BDF_FIELDS_BYTES + 216 * n_signals)
            n_samples = [int(file.read(8)) for _ in range(n_signals)]  # of each signal in a record
    except ValueError:
        return "a damaged header of BDF"
    n_bytes, record_bytes = path.stat().st_size - header_bytes, 3 * sum(n_samples)
    n_whole = n_bytes / record_bytes if record_bytes else 0
    if n_whole != (n_whole // 1 if n_records == -1 else n_records):
        return f"{n_whole:.6g} records of samples, the header says {n_records}"
    return ""
