"""Removal of releases that data.releases no longer lists: DVC keeps the outputs of a matrix stage that is gone."""

import logging
import shutil
from pathlib import Path

from hbn.data.manifest import MANIFEST

log = logging.getLogger(__name__)
# The products of earlier stages for a release: parent folder, ending of the name after the release, and the sign of a
# product of this pipeline (a file inside a folder, a word inside a file).
PRODUCTS = [
    ("data/raw", "", MANIFEST),
    ("data/preprocessed", "", "rejected.tsv"),
    ("data/windows", "", "recordings.csv"),
    *((f"metrics/{stage}", ".json", '"source"') for stage in ("fetch", "preprocess", "windows")),
    ("plots/preprocess", "_spectrum.csv", "frequency_hz"),
]


def prune(releases: list[str]) -> None:
    """Remove the products of releases that are not listed; keep everything that this pipeline did not make."""
    for folder, ending, content in PRODUCTS:
        for path in sorted(Path(folder).glob(f"[!.]*{ending}")):
            if path.name.removesuffix(ending) in releases:
                continue
            if ending:
                is_product = path.is_file() and content in path.read_text(encoding="utf-8", errors="replace")
            else:
                is_product = not path.is_symlink() and (path / content).is_file()
            if not is_product:
                log.warning("%s is no product of this pipeline and stays; keep it elsewhere", path)
                continue
            log.info("%s is removed: data.releases does not list %s", path, path.name.removesuffix(ending))
            path.unlink() if ending else shutil.rmtree(path)
