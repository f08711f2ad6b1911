"""A BIDS release in a local folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from hbn.data.absent import why_absent
from hbn.data.bids import Recording
from hbn.files import HbnError, digest
from hbn.stage import checkout


class FolderSource:
    """A BIDS release in a local folder (a `Source`); `root` may be relative to the checkout or begin with ~."""

    computes, is_saved = False, False

    def __init__(self, root: Path | str):
        self.root = checkout() / os.path.expanduser(root)
        if not os.path.lexists(self.root / "participants.tsv"):
            raise HbnError(f"data.url: {self.root} is no BIDS release (it has no participants.tsv)")

    def paths(self) -> list[str]:
        """All files, including broken links, except those in hidden folders, where git and DataLad keep theirs."""
        paths = []
        for folder, folders, names in os.walk(self.root, onerror=_cannot_list, followlinks=True):
            folders[:] = sorted(name for name in folders if not (name.startswith(".") or _leads_back(folder, name)))
            inner = Path(folder).relative_to(self.root)
            paths += [(inner / name).as_posix() for name in names]
        return sorted(paths)

    def refresh(self) -> None:
        """Do nothing: no listing is saved."""

    def size(self, path: str) -> int:
        return self._stat(path).st_size

    def fingerprint(self, path: str) -> str:
        facts = self._stat(path)
        return digest([str(self.root.resolve()), path, facts.st_size, facts.st_mtime_ns])

    def checksum(self, path: str) -> None:
        return None

    def check(self, path: str) -> None:
        try:
            reason = why_absent(self.root / path, self.root)
        except OSError as error:
            reason = f"{self.root / path} cannot be read: {error.strerror}"
        if reason:
            raise HbnError(reason)

    def write(self, path: str, destination: Path, progress: Callable[[int], None] = lambda n: None) -> None:
        self.check(path)
        try:
            shutil.copyfile(self.root / path, destination)
        except (PermissionError, shutil.SpecialFileError) as error:
            raise HbnError(f"{self.root / path} cannot be read: {error}") from None
        if (n_bytes := destination.stat().st_size) != self.size(path):
            raise HbnError(f"{destination} has {n_bytes} bytes, {self.root / path} has {self.size(path)}")
        progress(n_bytes)

    def rate(self, paths: list[str], n_threads: int) -> None:
        return None

    def facts(self, chosen: list[Recording]) -> dict:
        return {}

    def _stat(self, path: str) -> os.stat_result:
        place = self.root / path
        return os.stat(place, follow_symlinks=place.exists())


def _leads_back(folder: str, name: str) -> bool:
    """Whether a folder is a link to one of its own parent folders."""
    place = os.path.join(folder, name)
    return os.path.islink(place) and Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(place))


def _cannot_list(error: OSError) -> None:
    raise HbnError(f"{error.filename} cannot be listed: {error.strerror}")
