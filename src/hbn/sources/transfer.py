"""Parallel transfer of a source's files to disk; files in the scratch store are not fetched again."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hbn import params
from hbn.data.absent import kind_of_absence
from hbn.files import HbnError, atomic, md5, read_tsv
from hbn.parallel import in_processes, in_threads
from hbn.sources.source import Source
from hbn.stage import progress, scratch, store

log = logging.getLogger(__name__)
CHECKSUMS = "checksums.tsv"  # in the scratch folder; lines of fingerprint and MD5


@dataclass(frozen=True)
class Transfer:
    """Brings files of one source to disk."""

    source: Source
    execution: params.Exec

    def known_md5s(self, paths: list[str]) -> dict[str, str]:
        """The MD5 of each file: as recorded when it was fetched, else as the source states it, else empty."""
        record = scratch() / CHECKSUMS
        lines = record.read_text(errors="replace").splitlines() if record.exists() else []
        recorded = dict(line.split("\t") for line in lines if line.count("\t") == 1 and ":" not in line)
        return {p: recorded.get(self.source.fingerprint(p)) or self.source.checksum(p) or "" for p in paths}

    def absent(self, paths: list[str]) -> list[str]:
        """Those of `paths` that are not in the scratch store."""
        return self._absent(self.known_md5s(paths))

    def _absent(self, known: dict[str, str]) -> list[str]:
        stored = store("raw")
        return [path for path, md5 in known.items() if not (md5 and stored.has(self.source.fingerprint(path)))]

    def participants(self) -> list[dict[str, str | None]]:
        """Rows of the source's participants.tsv."""
        path = "participants.tsv"
        self.source.check(path)
        # The file stays in the scratch folder, where parallel experiments share it.
        place = scratch() / "participants" / f"{self.source.fingerprint(path)}.tsv"
        bring(self.source, path, place, self.known_md5s([path])[path])
        return read_tsv(place)

    def bring_all(self, paths: list[str], target: Path) -> list[dict]:
        """Bring all `paths` below `target`; returns the rows of the manifest, in any order."""
        known = self.known_md5s(paths)
        absent = set(self._absent(known))

        def bring_here(path: str, told: Callable[[int], None] = lambda n: None) -> dict:
            return bring(self.source, path, target / path, known[path], told)

        rows = in_threads(bring_here, sorted(set(paths) - absent), self.execution.transfers)
        sizes = {path: self.source.size(path) or 0 for path in absent}
        # Start with the longest files, so that the threads end at about the same time.
        order = sorted(sorted(absent), key=sizes.__getitem__, reverse=True)
        started_s, n_bytes = time.monotonic(), sum(sizes.values())
        if self.source.computes:
            jobs = [(bring, self.source, path, target / path, known[path]) for path in order]
            made = in_processes(jobs, self.execution.workers, in_order=False)
            rows += progress(made, total=len(order), unit="file")
        else:
            with progress(total=n_bytes, unit="B", unit_scale=True) as bar:
                rows += in_threads(partial(bring_here, told=bar.update), order, self.execution.transfers)
            seconds = time.monotonic() - started_s
            if absent:
                log.info(
                    "%d files, %.3f GB in %.1f s, %.1f MB/s",
                    *(len(absent), n_bytes / 1e9, seconds, n_bytes / seconds / 1e6),
                )
        store("raw").trim(self.execution.scratch_gb)
        return rows


def bring(
    source: Source, path: str, destination: Path, known: str, told: Callable[[int], None] = lambda n: None
) -> dict[str, str | int]:
    """Bring one file to `destination`, from the scratch store if its MD5 is `known` there; its row of the manifest."""
    key, stored = source.fingerprint(path), store("raw")
    if not (known and _is_right(stored.path(key), known) and stored.fetch(key, destination)):
        with atomic(destination, durable=False) as temporary:
            known = source.write(path, temporary, told) or md5(temporary)
            if kind := kind_of_absence(temporary):
                raise HbnError(
                    f"{path} is {kind} at the source, not the file itself: get it there (`datalad get {path}`), or "
                    "take another data.preset"
                )
        stored.put(key, destination)
        if known != source.checksum(path):
            with open(scratch() / CHECKSUMS, "a") as record:
                record.write(f"{key}\t{known}\n")
    return {"path": path, "bytes": destination.stat().st_size, "md5": known}


def _is_right(file: str, known: str) -> bool:
    """Whether the scratch store has a file whose content is still the one that was fetched."""
    try:
        actual = md5(file)
    except FileNotFoundError:
        return False
    if actual != known:
        log.warning("the scratch store is damaged, fetching again: %s has %s, not %s", file, actual, known)
    return actual == known
