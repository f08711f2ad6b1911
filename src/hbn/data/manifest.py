"""The tables that fetch writes beside a release: its files, its chosen participants and the label of the data.

The label ('simulated', or the name of the data set) depends on the files alone, not on their address. The same bytes
from another address change only metrics/fetch/<release>.json, which names the address.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from hbn.files import HbnError, existing, read_json, read_tsv, write_json, write_text, write_tsv

log = logging.getLogger(__name__)
MANIFEST, SELECTION, SOURCE = "manifest.tsv", "selection.tsv", "source.json"
OWN_FILES = (MANIFEST, SELECTION, SOURCE, ".bidsignore")
SIMULATOR = "hbn simulator"  # the name in GeneratedBy of a simulated dataset_description.json
UNNAMED = "unnamed data set"


def write_manifest(root: Path, files: list[dict], selection: list[dict]) -> None:
    """Write manifest.tsv (path, bytes, md5), selection.tsv (participant_id, chosen, reason) and the label."""
    write_tsv(root / MANIFEST, sorted(files, key=lambda row: row["path"]), ["path", "bytes", "md5"])
    write_tsv(root / SELECTION, selection, ["participant_id", "chosen", "reason"])
    write_label(root, label_of(root / "dataset_description.json"))
    write_text(root / ".bidsignore", "".join(f"{name}\n" for name in OWN_FILES[:-1]))


def read_manifest(root: Path, made_by: str) -> dict[str, str]:
    """The MD5 of every file of a release, by path."""
    return {str(row["path"]): str(row["md5"]) for row in read_tsv(existing(root / MANIFEST, made_by))}


def label_of(description: Path) -> str:
    """The label of a data set, from its dataset_description.json."""
    try:
        about = read_json(description)
    except HbnError as error:
        log.warning("metrics will name the data %r: %s", UNNAMED, error)
        return UNNAMED
    makers = about.get("GeneratedBy")
    if isinstance(makers, list) and any(isinstance(maker, dict) and maker.get("Name") == SIMULATOR for maker in makers):
        return "simulated"
    return " ".join(str(about.get("Name") or "").split()) or UNNAMED


def write_label(folder: Path, label: str) -> None:
    """Write the label into a folder; each stage copies it from its input to its output."""
    write_json(folder / SOURCE, {"source": label})


def read_label(folder: Path, made_by: str) -> str:
    """The label of a release or of its windows."""
    return read_json(existing(folder / SOURCE, made_by))["source"]


def join_labels(labels: Iterable[str]) -> str:
    """One label for data of several releases: the distinct labels, in order."""
    return "; ".join(dict.fromkeys(labels))


def signal_md5s(manifest: dict[str, str]) -> dict[str, dict[str, str]]:
    """The MD5 by path of the files that may decide a recording's signal, by its path without suffix.

    These are all files of the recording except its events: an .fdt may hold the samples of a .set, and a channels.tsv
    may hold the units. A recording is preprocessed again when one of them changes.
    """
    by_recording = defaultdict(dict)
    for path, md5 in manifest.items():
        recording, _, kind = path.rpartition("_")
        if not kind.startswith("events."):
            by_recording[recording][path] = md5
    return by_recording
