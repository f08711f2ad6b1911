"""What fetch writes beside the files of a release: which they are, who was chosen, what the data is.

The label ('simulated', or the data set's own name) follows from the files alone, not from where they were: so the same
bytes from another address change nothing but metrics/fetch/<release>.json, which names the address.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from hbn.data.bids import Recording
from hbn.files import HbnError, existing, read_json, read_tsv, write_json, write_text, write_tsv

log = logging.getLogger(__name__)
MANIFEST, SELECTION, SOURCE = "manifest.tsv", "selection.tsv", "source.json"
OWN_FILES = (MANIFEST, SELECTION, SOURCE, ".bidsignore")
SIMULATOR = "hbn simulator"  # as dataset_description.json names what generated the data
UNNAMED = "unnamed data set"


def write_manifest(root: Path, files: list[dict], selection: list[dict]) -> None:
    """Write the tables (rows with path, bytes and md5; rows with participant_id, chosen and reason) and the label."""
    write_tsv(root / MANIFEST, sorted(files, key=lambda row: row["path"]), ["path", "bytes", "md5"])
    write_tsv(root / SELECTION, selection, ["participant_id", "chosen", "reason"])
    write_label(root, label_of(root / "dataset_description.json"))
    write_text(root / ".bidsignore", "".join(f"{name}\n" for name in OWN_FILES[:-1]))


def read_manifest(root: Path, made_by: str) -> dict[str, str]:
    """MD5 of every file of a release by path."""
    return {row["path"]: row["md5"] for row in read_tsv(existing(root / MANIFEST, made_by))}


def label_of(description: Path) -> str:
    """What a data set is called, by its dataset_description.json."""
    try:
        about = read_json(description)
    except HbnError as error:
        log.warning("metrics will name the data %r: %s", UNNAMED, error)
        return UNNAMED
    makers = about.get("GeneratedBy")
    if isinstance(makers, list) and any(isinstance(one, dict) and one.get("Name") == SIMULATOR for one in makers):
        return "simulated"
    return " ".join(str(about.get("Name") or "").split()) or UNNAMED


def write_label(folder: Path, label: str) -> None:
    """Write the label; it is carried from release to windows to data set."""
    write_json(folder / SOURCE, {"source": label})


def read_label(folder: Path, made_by: str) -> str:
    """The label of a release or of its windows."""
    return read_json(existing(folder / SOURCE, made_by))["source"]


def join_labels(labels: Iterable[str]) -> str:
    """One label for data of several releases: each that differs, in order."""
    return "; ".join(dict.fromkeys(labels))


def signal_md5s(manifest: dict[str, str], recording: Recording) -> dict[str, str]:
    """MD5 by path of all files that may decide a recording's signal: every file of it but its events.

    A .set may hold its samples in an .fdt, a channels.tsv the units. HbnError where none is listed.
    """
    start, events = f"{recording.folder}/{recording.stem}_", f"{recording.folder}/{recording.stem}_events."
    files = {path: md5 for path, md5 in manifest.items() if path.startswith(start) and not path.startswith(events)}
    if not files:
        raise HbnError(f"{MANIFEST} lists no file {start}...; run `dvc repro -f fetch`")
    return files
