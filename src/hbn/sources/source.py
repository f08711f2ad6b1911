"""The interface of all sources of recordings, and the source that data.preset or data.url names."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from hbn import params
from hbn.data.bids import Recording
from hbn.files import HbnError
from hbn.sources.folder import FolderSource
from hbn.sources.s3 import S3Source
from hbn.sources.simulated import SimulatedSource

# The accession number of each release on OpenNeuro.
ACCESSIONS = {
    **{"R1": "ds005505", "R2": "ds005506", "R3": "ds005507", "R4": "ds005508", "R5": "ds005509", "R6": "ds005510"},
    **{"R7": "ds005511", "R8": "ds005512", "R9": "ds005514", "R10": "ds005515", "R11": "ds005516"},
}


class Source(Protocol):
    """A BIDS release to fetch from. Paths are relative to its root, with forward slashes."""

    computes: bool  # whether `write` computes (run it in processes) or waits (run it in threads)
    is_saved: bool  # whether the listing was saved by an earlier run, so that `refresh` may change it

    def refresh(self) -> None:
        """List the release anew."""

    def paths(self) -> list[str]:
        """All files of the release."""

    def fingerprint(self, path: str) -> str:
        """A digest that identifies the content of a file without reading it."""

    def size(self, path: str) -> int | None:
        """Bytes of a file; None where they are known only after it is made."""

    def checksum(self, path: str) -> str | None:
        """The MD5 of a file in hexadecimal; None where it is not known without reading the file."""

    def check(self, path: str) -> None:
        """Raise HbnError for a file whose absence shows without reading it."""

    def rate(self, paths: list[str], n_threads: int) -> tuple[float, int] | None:
        """Measured bytes per second of a transfer, and the bytes measured; None where nothing is transferred."""

    def write(self, path: str, destination: Path, progress: Callable[[int], None] = lambda n: None) -> str | None:
        """Write one file and verify it; call `progress` with new bytes. Returns its MD5 if the transfer computed it."""

    def facts(self, chosen: list[Recording]) -> dict:
        """Facts about the source, for the metrics file."""


def address(data) -> str:
    """The address of all releases, for metrics/fetch. It names the endpoint, as bucket names are not unique."""
    url = data.url or params.PRESETS[data.preset]
    if url.startswith("simulated://"):
        return "simulated"
    return f"{url} at {data.endpoint_url}" if data.endpoint_url and url.startswith("s3://") else url


def open_source(data, release: str, simulated: params.Simulator, execution: params.Exec, scratch: Path) -> Source:
    """The source of one release that data.url, or else data.preset, names."""
    url = data.url or params.PRESETS[data.preset]
    if "{accession}" in url and release not in ACCESSIONS:
        raise HbnError(f"data.releases: {release!r} is not on OpenNeuro, which has {', '.join(ACCESSIONS)}")
    place = url.replace("{release}", release).replace("{accession}", ACCESSIONS.get(release, ""))
    if place.startswith("simulated://"):
        return SimulatedSource(place.removeprefix("simulated://"), simulated)
    if place.startswith("s3://"):
        limits = (execution.transfer_timeout_s, execution.transfer_limit_h)
        return S3Source(place, data.endpoint_url, not data.url, scratch, *limits)
    if "://" in place:
        raise HbnError(f"data.url: {place!r} cannot be read; use s3://bucket/prefix_{{release}} or a local folder")
    return FolderSource(place)
