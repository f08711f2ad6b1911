"""What fetch writes beside the files of a release: which they are, who was chosen, what the data is.

The label ('simulated', or the data set's own name) follows from the files alone, not from where they were: so the same
bytes from another address change nothing but metrics/fetch/<release>.json, which names the address.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

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
    return {str(row["path"]): str(row["md5"]) for row in read_tsv(existing(root / MANIFEST, made_by))}


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


def signal_md5s(manifest: dict[str, str]) -> dict[str, dict[str, str]]:
    """For each recording, by its path up to the last underscore, the MD5 by path of what may decide its signal.

    These are all files of the recording but its events: a .set may hold its samples in an .fdt, a channels.tsv may
    hold the units. What was made of a recording is made again when one of them changes.
    """
    found = defaultdict(dict)
    for path, md5 in manifest.items():
        recording, _, kind = path.rpartition("_")
        if not kind.startswith("events."):
            found[recording][path] = md5
    return found
