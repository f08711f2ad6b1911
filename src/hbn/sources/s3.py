"""A release in an S3 bucket: one saved listing; downloads that resume after a break and are verified."""

import errno
import fcntl
import hashlib
import io
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from hbn.data.bids import Recording
from hbn.files import HbnError, digest, read_json, write_json
from hbn.parallel import in_threads
from hbn.sources.bucket import CHUNK_BYTES, Bucket, Passing, WholeOnly

log = logging.getLogger(__name__)
# The two known forms of ETags: MD5 of the content, MD5 of the MD5s of its parts. Some servers use other forms.
MD5, MD5_OF_PARTS = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{32}-([0-9]{1,5})")
# Part sizes of usual upload programs. The AWS tools use 8.
PART_MIB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1024)
SAMPLE_BYTES = 1 << 19  # read of each file to measure the rate
TRIES = 12  # in a row without a new byte
MISMATCHES = 3  # of the content with the listing
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 20.0


class Mismatch(HbnError):
    """The content that arrived is not the listed content."""

    def __init__(self, message: str, md5: str = ""):
        super().__init__(message)
        self.md5 = md5


class S3Source:
    """A BIDS release below a prefix of a bucket (a `Source`).

    The listing is saved in `scratch`, so that no request is made if all wanted files are in the scratch store;
    `refresh` lists the bucket again. Partial files stay in `scratch`, and the next download continues them.
    """

    computes = False

    def __init__(self, url: str, endpoint_url: str, public: bool, scratch: Path, timeout_s: float, limit_h: float):
        self.url = url.rstrip("/")
        self.bucket = Bucket(self.url, endpoint_url, public, timeout_s, limit_h)
        self.limit_h, self.deadline_s = limit_h, time.monotonic() + limit_h * 3600
        self.partial = scratch / "partial"
        self.saved = scratch / "listings" / f"{digest([self.url, endpoint_url])}.json"
        self.is_saved = self.saved.exists()

    @cached_property
    def files(self) -> dict[str, tuple[int, str]]:
        """Size in bytes and ETag of every file of the release, by path."""
        if self.is_saved:
            return {path: (size, etag) for path, (size, etag) in read_json(self.saved).items()}
        files = self._persist("the listing", self._list)
        if "participants.tsv" not in files:
            what = f"{len(files)} files are listed there, no participants.tsv" if files else "nothing is listed there"
            raise HbnError(
                f"{self.url}/ is no BIDS release: {what}; check data.releases, or name the place of the release in "
                "data.url, such as s3://bucket/prefix_{release} or a local folder"
            )
        write_json(self.saved, files)
        return files

    def refresh(self) -> None:
        """Forget the saved listing."""
        self.is_saved = False
        self.__dict__.pop("files", None)

    def paths(self) -> list[str]:
        return sorted(self.files)

    def size(self, path: str) -> int:
        return self.files[path][0]

    def fingerprint(self, path: str) -> str:
        return digest([self.url, path, *self.files[path]])

    def checksum(self, path: str) -> str | None:
        """The ETag, if it has the form of an MD5 of the content.

        It is no MD5 if AWS KMS encrypts the object, but only the answer to a request for the object tells so:
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html.
        """
        etag = self.files[path][1]
        return etag if MD5.fullmatch(etag) else None

    def check(self, path: str) -> None:
        """Do nothing: a listing does not show the content."""

    def facts(self, chosen: list[Recording]) -> dict:
        return {}

    def rate(self, paths: list[str], n_threads: int) -> tuple[float, int]:
        """Measure the rate on the beginnings of the longest files, `n_threads` at once, which are not kept."""
        longest = sorted(paths, key=self.size)[-n_threads:]
        started_s = time.monotonic()
        n_bytes = sum(in_threads(self._sample, longest, n_threads))
        return n_bytes / (time.monotonic() - started_s), n_bytes

    def write(self, path: str, destination: Path, progress: Callable[[int], None] = lambda n: None) -> str:
        """Download to `destination`, continuing the partial file of an earlier run; its MD5."""
        if self.size(path) <= CHUNK_BYTES:  # too small to continue a partial file
            with open(destination, "w+b", buffering=0) as file:
                return self._complete(path, file, progress)
        part = self.partial / self.fingerprint(path)
        part.parent.mkdir(parents=True, exist_ok=True)
        file = open(part, "a+b", buffering=0)  # noqa: SIM115
        if not _is_ours(file, part):  # another process is fetching the same object
            file.close()
            file = open(destination, "w+b", buffering=0)  # noqa: SIM115
        with file:
            md5 = self._complete(path, file, progress)
            shutil.move(file.name, destination)
        return md5

    def _complete(self, path: str, file: io.FileIO, progress: Callable[[int], None]) -> str:
        """Download the missing bytes, through breaks of the connection, until the content is right; its MD5."""
        failures = mismatches = 0
        seen = ""  # the MD5 of the content that did not match
        progress(file.seek(0, os.SEEK_END))
        while True:
            start = file.tell()
            try:
                self._receive(path, file, progress)
                return self._verified(path, file, seen)
            except Mismatch as error:
                problem, mismatches, seen = error, mismatches + 1, error.md5
                _empty(file, progress)
                if mismatches == MISMATCHES:
                    raise HbnError(f"{error}, {MISMATCHES} times; the object or the connection is damaged") from None
            except Passing as error:
                problem = error
                if isinstance(error, WholeOnly):
                    _empty(file, progress)
            failures = 1 if file.tell() > start else failures + 1
            self._pause(failures, problem, path)

    def _receive(self, path: str, file: io.FileIO, progress: Callable[[int], None]) -> None:
        """Append the missing bytes to the file."""
        n_bytes, etag = self.files[path]
        if file.tell() < n_bytes:
            for chunk in self.bucket.read(path, file.tell(), etag):
                self._append(file, chunk)
                progress(len(chunk))
                self._within_limit()
                if file.tell() > n_bytes:
                    break
        if file.tell() < n_bytes:
            raise Passing(f"the connection ended after {file.tell()} of {n_bytes} bytes")

    def _append(self, file: io.FileIO, chunk: bytes) -> None:
        try:
            n_bytes = file.write(chunk)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            n_bytes = 0
        if n_bytes != len(chunk):
            raise HbnError(f"{self.url}: the disk is full; make room and run again, it goes on where it was")

    def _verified(self, path: str, file: io.FileIO, seen: str) -> str:
        """The MD5 of a file whose size and content are as listed; Mismatch for another file.

        If an object was uploaded in parts of an unusual size, its ETag cannot be computed. It counts as right if it
        has arrived with the same MD5 before (`seen`).
        """
        n_bytes, etag = self.files[path]
        if file.tell() != n_bytes:
            raise Mismatch(f"{self.url}/{path}: {file.tell()} bytes arrived, the bucket lists {n_bytes}")
        md5, etags = digests(file, n_bytes, etag)
        if not etags or etag in etags:  # an ETag of unknown form cannot be checked
            return md5
        if md5 == seen and not MD5.fullmatch(etag):
            log.warning("%s: the same content twice is taken for right", path)
            return md5
        if self._persist(path, lambda: self.bucket.is_encrypted_by_kms(path)):
            return md5
        arrived = " or ".join(etags)
        raise Mismatch(f"{self.url}/{path}: the MD5 of what arrived is {arrived}, the bucket lists {etag}", md5)

    def _sample(self, path: str) -> int:
        def receive() -> int:
            n_bytes = 0
            for chunk in self.bucket.read(path, 0, self.files[path][1], SAMPLE_BYTES):
                n_bytes += len(chunk)
            return n_bytes

        return self._persist(path, receive)

    def _list(self) -> dict[str, tuple[int, str]]:
        files = {}
        for page in self.bucket.pages():
            files |= page
            self._within_limit()  # a server may send pages without end
        return files

    def _persist(self, what: str, attempt: Callable[[], Any]) -> Any:
        """The result of `attempt`, tried again after each Passing error."""
        failures = 0
        while True:
            try:
                return attempt()
            except Passing as error:
                failures += 1
                self._pause(failures, error, what)

    def _pause(self, failures: int, problem: Exception, what: str) -> None:
        """Wait, longer after each failure; HbnError after the last try and past the time limit."""
        if failures >= TRIES:
            raise HbnError(
                f"{self.url}: {what}: {problem}, {TRIES} times in a row; run again later, it goes on where it was"
            )
        pause_s = min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S)
        log.warning("%s: %s; again in %.1f s", what, problem, pause_s)
        self._within_limit(pause_s)
        time.sleep(pause_s)

    def _within_limit(self, more_s: float = 0.0) -> None:
        if time.monotonic() + more_s > self.deadline_s:
            raise HbnError(
                f"{self.url}: not done within exec.transfer_limit_h = {self.limit_h:g}; run again to go on from there"
            )


def digests(file: io.FileIO, n_bytes: int, etag: str) -> tuple[str, list[str]]:
    """The MD5 of a file, and its possible ETags in the form of `etag`; no ETag if the form is unknown.

    An object that was uploaded in N parts has the ETag "<MD5 of the MD5s of the parts>-N", which does not state the
    size of the parts: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html.
    """
    in_parts = MD5_OF_PARTS.fullmatch(etag)
    n_parts = int(in_parts[1]) if in_parts else None
    sizes = [mib << 20 for mib in PART_MIB if n_parts == -(-n_bytes // (mib << 20))]
    whole, parts = _md5(), [[] for _ in sizes]
    file.seek(0)
    for offset in range(0, n_bytes, 1 << 20):  # 1 MiB divides every size
        piece = file.read(1 << 20)
        whole.update(piece)
        for size, digests_of_parts in zip(sizes, parts, strict=True):
            if offset % size == 0:
                digests_of_parts.append(_md5())
            digests_of_parts[-1].update(piece)
    if MD5.fullmatch(etag):
        return whole.hexdigest(), [whole.hexdigest()]
    joined = [_md5(b"".join(part.digest() for part in own_parts)) for own_parts in parts]
    unusual = ["unknown, for parts of this size are unusual"] if in_parts and not sizes else []
    return whole.hexdigest(), [f"{md5.hexdigest()}-{n_parts}" for md5 in joined] + unusual


def _empty(file: io.FileIO, progress: Callable[[int], None]) -> None:
    progress(-file.tell())
    file.seek(0)
    file.truncate()


def _md5(content: bytes = b""):
    return hashlib.md5(content, usedforsecurity=False)


def _is_ours(file: io.FileIO, path: Path) -> bool:
    """Lock an open partial file; False if another process holds the lock or has just completed the file."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False
