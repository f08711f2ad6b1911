"""A release in an S3 bucket brought to disk: listed once, resumed after a break, verified, never half-written."""

import errno
import fcntl
import hashlib
import io
import logging
import os
import re
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from typing import Any

from hbn.data.bids import Recording
from hbn.files import HbnError, digest, read_json, write_json
from hbn.sources.s3 import Bucket

log = logging.getLogger(__name__)
# What ETags are: of the content, or of the MD5s of its parts; some servers have others.
MD5, MD5_OF_PARTS = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{32}-([0-9]{1,5})")
# What one transfer holds in memory, which should still be in the cache of the processor when it is written. Of whole
# pages, a write of a power of two would make the kernel look for adjoining ones, which takes longer than all the rest.
CHUNK_BYTES = 150_000
AT_ONCE_BYTES = 14_000  # ten packets, which a server sends without waiting for an answer (RFC 6928)
SAMPLE_BYTES = 1 << 19  # of each recording by which the rate is measured
PART_MIB = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 256, 512, 1024)  # of usual programs; the AWS tools' is 8
TRIES = 12  # in a row, without a byte gained
MISMATCHES = 3
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 20.0


class Mismatch(HbnError):
    """What arrived is not what the bucket listed."""


class S3Source:
    """A BIDS release below a prefix of a bucket (a `Source`, see sources).

    The listing is kept in `scratch`, so that no request is made while all that is wanted is there;
    `refresh` asks the bucket again. Partial files stay in `scratch` and are continued.
    """

    in_threads = True

    def __init__(self, url: str, endpoint_url: str, public: bool, scratch: Path, timeout_s: float, limit_h: float):
        self.url = url.rstrip("/")
        self.bucket = Bucket(self.url, endpoint_url, public, timeout_s)
        self.limit_h, self.deadline_s = limit_h, time.monotonic() + limit_h * 3600
        self.partial = scratch / "partial"
        self.saved = scratch / "listings" / f"{digest([self.url, endpoint_url])}.json"
        self.is_saved = self.saved.exists()  # whether the listing is an old one
        self.progress: Callable[[int], None] = lambda n_bytes: None
        self.own = threading.local()  # the buffer of each thread
        self.one_at_a_time = threading.Lock()

    @cached_property
    def files(self) -> dict[str, tuple[int, str]]:
        """Size in bytes and ETag of every file of the release, by path."""
        if self.is_saved:
            return {path: (size, etag) for path, (size, etag) in read_json(self.saved).items()}
        return self._list()

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
        """From the ETag, if that is the MD5 of the content, and not of its parts.

        Of an object that AWS KMS encrypts it is neither, but this only the answer to its request tells:
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html.
        """
        etag = self.files[path][1]
        return f"md5:{etag}" if MD5.fullmatch(etag) else None

    def facts(self, chosen: list[Recording]) -> dict:
        return {}

    def turn(self, path: str) -> AbstractContextManager:
        """Threads with small files take turns at all but waiting for the answer.

        Each call of the system gives Python's interpreter to another thread: among many of them, that takes more
        time than the work.
        """
        return self.one_at_a_time if self.size(path) <= AT_ONCE_BYTES else nullcontext()

    @contextmanager
    def _waiting(self, path: str) -> Iterator[None]:
        """Leave the turn to others for now."""
        if self.turn(path) is not self.one_at_a_time:
            yield
            return
        self.one_at_a_time.release()
        try:
            yield
        finally:
            self.one_at_a_time.acquire()

    def write(self, path: str, destination: Path) -> str:
        """Download to `destination`, going on with what an earlier run has left; its checksum (as files.checksum)."""
        if self.size(path) <= CHUNK_BYTES:  # not worth continuing
            with open(destination, "w+b", buffering=0) as file:
                return self._fill(path, Arrived(file, *self.files[path], self._buffer))
        part = self.partial / self.fingerprint(path)
        part.parent.mkdir(parents=True, exist_ok=True)
        file = open(part, "a+b", buffering=0)  # noqa: SIM115
        if not _is_ours(file, part):  # another process is fetching the same object
            file.close()
            file = open(destination, "w+b", buffering=0)  # noqa: SIM115
        with file:
            checksum = self._fill(path, Arrived(file, *self.files[path], self._buffer))
            shutil.move(file.name, destination)
        return checksum

    def sample(self, path: str) -> int:
        """Receive the first SAMPLE_BYTES of a file, without keeping them; how many there were."""
        headers = {"Range": f"bytes=0-{SAMPLE_BYTES - 1}"}

        def receive() -> int:
            with self.bucket.open(path, headers) as response:
                return len(response.read(SAMPLE_BYTES))

        return self._persist(path, receive)

    def _fill(self, path: str, arrived: "Arrived") -> str:
        """Download what is lacking, however often the connection breaks, until the content is right; its checksum."""
        failures = mismatches = 0
        seen = ""  # the checksum of what did not match
        self.progress(arrived.n_bytes)
        while True:
            start = arrived.n_bytes
            try:
                with self._waiting(path):
                    self._receive(path, arrived)
                self._check(path, arrived, seen)
                return arrived.checksum
            except Mismatch as error:
                problem, mismatches, seen = error, mismatches + 1, arrived.checksum
                self.progress(-arrived.n_bytes)
                arrived.clear()
                if mismatches == MISMATCHES:
                    raise HbnError(f"{error}, {MISMATCHES} times; the object or the way to it is damaged") from None
            except (OSError, HTTPException) as error:
                problem = _passing(error, f"{self.url}/{path}")
            failures = 1 if arrived.n_bytes > start else failures + 1
            with self._waiting(path):
                self._pause(failures, problem, path)

    def _receive(self, path: str, arrived: "Arrived") -> None:
        """Append the bytes that are lacking."""
        n_bytes, etag = self.files[path]
        start = arrived.n_bytes
        if start >= n_bytes:
            return
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self.bucket.open(path, headers) as response:
            if response.headers.get("ETag", "").strip('"') != etag:
                raise HbnError(f"{self.url}/{path} has changed since it was listed; run fetch.py with --refresh")
            arrived.encryption = response.headers.get("x-amz-server-side-encryption", "")
            if start and response.status != 206:  # the server sends all of it
                self.progress(-start)
                arrived.clear()
            buffer = self._buffer
            while arrived.n_bytes <= n_bytes and (n := response.readinto(buffer)):
                arrived.append(buffer[:n])
                self.progress(n)
                self._within_limit()
        if arrived.n_bytes < n_bytes:
            raise ConnectionError(f"the connection ended after {arrived.n_bytes} of {n_bytes} bytes")

    def _check(self, path: str, arrived: "Arrived", seen: str) -> None:
        """Raise Mismatch unless size and content are as listed.

        An upload in parts of an unusual size can only be compared with what arrived before (its checksum is `seen`).
        """
        n_bytes, etag = self.files[path]
        if arrived.n_bytes != n_bytes:
            raise Mismatch(f"{self.url}/{path}: {arrived.n_bytes} bytes arrived, the bucket lists {n_bytes}")
        # Nothing is asked for an empty object, so whether KMS encrypts it, nobody has said.
        if not n_bytes or arrived.encryption.startswith("aws:kms"):
            return
        in_parts = MD5_OF_PARTS.fullmatch(etag)
        if not (in_parts or MD5.fullmatch(etag)) or etag in (tags := arrived.etags()):
            return
        if in_parts and arrived.checksum == seen:
            log.warning("%s: the same content twice is taken for right", path)
            return
        found = " or ".join(tags) or "unknown, for parts of this size are unusual"
        raise Mismatch(f"{self.url}/{path}: the MD5 of what arrived is {found}, the bucket lists {etag}")

    def _list(self) -> dict[str, tuple[int, str]]:
        """Ask the bucket, and keep its answer."""
        found = self._persist("the listing", self._listed)
        files = {path: facts for path, facts in found.items() if path and not path.endswith("/")}  # no made-up folders
        if "participants.tsv" not in files:
            raise HbnError(f"{self.url} is no BIDS release ({len(files)} files listed, no participants.tsv)")
        write_json(self.saved, files)
        return files

    def _listed(self) -> dict[str, tuple[int, str]]:
        found = {}
        for page in self.bucket.pages():
            found |= page
            self._within_limit()  # a server may send pages without end
        return found

    def _persist(self, what: str, attempt: Callable[[], Any]) -> Any:
        """What `attempt` returns, once it does."""
        failures = 0
        while True:
            try:
                return attempt()
            except (OSError, HTTPException) as error:
                problem = _passing(error, self.url)
            failures += 1
            self._pause(failures, problem, what)

    def _pause(self, failures: int, problem: Exception, what: str) -> None:
        """Wait longer after each failure; HbnError after the last or past the time limit."""
        if failures >= TRIES:
            raise HbnError(
                f"{self.url}: {what}: {problem!r}, {TRIES} times in a row; run again later, it goes on where it was"
            )
        pause_s = min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S)
        log.warning("%s: %s; again in %.1f s", what, str(problem) or repr(problem), pause_s)
        self._within_limit(pause_s)
        time.sleep(pause_s)

    def _within_limit(self, more_s: float = 0.0) -> None:
        if time.monotonic() + more_s > self.deadline_s:
            raise HbnError(
                f"{self.url}: not done within exec.transfer_limit_h = {self.limit_h:g}; run again to go on from there"
            )

    @property
    def _buffer(self) -> memoryview:
        """Of this thread."""
        if not hasattr(self.own, "buffer"):
            self.own.buffer = memoryview(bytearray(CHUNK_BYTES))
        return self.own.buffer


class Arrived:
    """An open, unbuffered file, and the digests of what it holds: the one that is recorded, and those of its parts.

    An object that was uploaded in N parts has the ETag "<MD5 of the MD5s of the parts>-N", which does not tell the
    size of the parts: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html.
    """

    def __init__(self, file: io.FileIO, n_bytes: int, etag: str, buffer: memoryview):
        self.file, self.encryption = file, ""  # at its origin, as the server calls it
        self.algorithm = "md5" if MD5.fullmatch(etag) else "sha256"
        n_parts = int(in_parts[1]) if (in_parts := MD5_OF_PARTS.fullmatch(etag)) else 0
        self.part_sizes = [one << 20 for one in PART_MIB if n_parts == -(-n_bytes // (one << 20))]
        self._forget()
        file.seek(0)
        while n := file.readinto(buffer):
            self._count(buffer[:n])

    def append(self, chunk: memoryview) -> None:
        if self.file.write(chunk) != len(chunk):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._count(chunk)

    def clear(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self._forget()

    @property
    def checksum(self) -> str:
        """As files.checksum."""
        return f"{self.algorithm}:{self.digest.hexdigest()}"

    def etags(self) -> list[str]:
        """What the bucket may list for this content."""
        if self.algorithm == "md5":
            return [self.digest.hexdigest()]
        return [f"{_md5(b''.join(one.digest() for one in parts)).hexdigest()}-{len(parts)}" for parts in self.parts]

    def _forget(self) -> None:
        self.n_bytes, self.digest = 0, hashlib.new(self.algorithm, usedforsecurity=False)
        self.parts = [[] for _ in self.part_sizes]  # for each size, the digest of each part

    def _count(self, chunk: memoryview) -> None:
        self.digest.update(chunk)
        for parts, size in zip(self.parts, self.part_sizes, strict=True):
            rest, offset = chunk, self.n_bytes
            while rest:
                if offset % size == 0:
                    parts.append(_md5())
                piece = rest[: size - offset % size]
                parts[-1].update(piece)
                rest, offset = rest[len(piece) :], offset + len(piece)
        self.n_bytes += len(chunk)


def _md5(content: bytes = b""):
    return hashlib.md5(content, usedforsecurity=False)


def _is_ours(file: io.FileIO, path: Path) -> bool:
    """Lock an open partial file; False when another process has it, or has just finished with it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _passing(error: Exception, where: str) -> Exception:
    """Return an error that may pass; raise HbnError for one that will not."""
    match error:
        case ssl.SSLCertVerificationError():
            raise HbnError(f"{where}: {error}; your institution's own certificates go into AWS_CA_BUNDLE") from error
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            raise HbnError(f"{where}: the disk is full") from error
    return error
