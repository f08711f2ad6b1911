"""Objects of an S3 bucket on disk: listed once, resumed after a break, verified, never half-written."""

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
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, unquote_plus, urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass
from xml.etree import ElementTree

from hbn.bids import Recording
from hbn.files import HbnError, digest, read_json, write_json

log = logging.getLogger(__name__)
# What one transfer holds in memory, which should still be in the cache of the processor when it is written. Of whole
# pages, a write of a power of two would make the kernel look for adjoining ones, which takes longer than all the rest.
CHUNK_BYTES = 150_000
AT_ONCE_BYTES = 14_000  # ten packets, which a server sends without waiting for an answer (RFC 6928)
SAMPLE_BYTES = 1 << 19  # of each recording by which the rate is measured
REASON_BYTES = 1 << 16  # of the answer that says why there is none
TRIES = 8  # in a row, without a byte gained
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

    def __init__(self, url: str, endpoint_url: str, anonymous: bool, scratch: Path, timeout_s: float, limit_h: float):
        self.url, self.endpoint_url, self.anonymous, self.timeout_s = (
            url.rstrip("/"),
            endpoint_url,
            anonymous,
            timeout_s,
        )
        self.bucket, _, self.prefix = self.url.removeprefix("s3://").partition("/")
        if not self.bucket:
            raise HbnError(f"data.url: {url!r} names no bucket; it should look like s3://bucket/prefix_{{release}}")
        self.limit_h, self.deadline_s = limit_h, time.monotonic() + limit_h * 3600
        self.partial = scratch / "partial"
        self.saved = scratch / "listings" / f"{digest([self.url, endpoint_url])}.json"
        self.is_saved = self.saved.exists()  # whether the listing is an old one
        self.progress: Callable[[int], None] = lambda n_bytes: None
        self.own = threading.local()  # connection and buffer of each thread
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
        return digest([self.bucket, self.prefix, path, *self.files[path]])

    def checksum(self, path: str) -> str | None:
        """From the ETag, which of an object of several parts tells nothing of its content.

        Nor does that of an object that AWS KMS encrypts, but this only the answer to its request tells:
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html.
        """
        etag = self.files[path][1]
        return f"md5:{etag}" if len(etag) == 32 else None

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
                return self._fill(path, Arrived(file, self._algorithm(path), self._buffer))
        part = self.partial / self.fingerprint(path)
        part.parent.mkdir(parents=True, exist_ok=True)
        file = open(part, "a+b", buffering=0)  # noqa: SIM115
        if not _is_ours(file, part):  # another process is fetching the same object
            file.close()
            file = open(destination, "w+b", buffering=0)  # noqa: SIM115
        with file:
            checksum = self._fill(path, Arrived(file, self._algorithm(path), self._buffer))
            shutil.move(file.name, destination)
        return checksum

    def sample(self, path: str) -> int:
        """Receive the first SAMPLE_BYTES of a file, without keeping them; how many there were."""
        headers = {"Range": f"bytes=0-{SAMPLE_BYTES - 1}"}

        def receive() -> int:
            with self.turn(path), self._answer(path, headers) as response:
                return len(response.read(SAMPLE_BYTES))

        return self._persist(path, receive)

    def _fill(self, path: str, arrived: "Arrived") -> str:
        """Download what is lacking, however often the connection breaks, until the content is right; its checksum."""
        failures = mismatches = 0
        self.progress(arrived.n_bytes)
        while True:
            start = arrived.n_bytes
            try:
                self._receive(path, arrived)
                self._check(path, arrived)
                return f"{arrived.digest.name}:{arrived.digest.hexdigest()}"
            except Mismatch as error:
                problem, mismatches = error, mismatches + 1
                self.progress(-arrived.n_bytes)
                arrived.clear()
                if mismatches == MISMATCHES:
                    raise HbnError(f"{error}, {MISMATCHES} times; the object or the way to it is damaged") from None
            except HbnError:
                raise
            except Exception as error:  # each library and the operating system have their own
                problem = _passing(error, f"{self.url}/{path}")
            failures = 1 if arrived.n_bytes > start else failures + 1
            with self._waiting(path):
                self._pause(failures, problem, path)

    def _receive(self, path: str, arrived: "Arrived") -> None:
        """Append the bytes that are lacking."""
        n_bytes, etag = self.files[path]
        start = arrived.n_bytes
        if start == n_bytes:
            return
        headers = {"Range": f"bytes={start}-"} if start else {}
        with self._answer(path, headers) as response:
            if response.headers.get("ETag", "").strip('"') != etag:
                raise HbnError(f"{self.url}/{path} has changed since it was listed; run fetch.py with --refresh")
            arrived.encryption = response.headers.get("x-amz-server-side-encryption", "")
            if start and response.status != 206:  # the server sends all of it
                self.progress(-start)
                arrived.clear()
            buffer = self._buffer
            while n := response.readinto(buffer):
                arrived.append(buffer[:n])
                self.progress(n)
                if arrived.n_bytes > n_bytes:
                    raise Mismatch(f"{self.url}/{path}: more than the {n_bytes} bytes listed arrived")
                self._within_limit()
        if arrived.n_bytes < n_bytes:
            raise ConnectionError(f"the connection ended after {arrived.n_bytes} of {n_bytes} bytes")

    def _check(self, path: str, arrived: "Arrived") -> None:
        """Raise Mismatch unless size and, where the ETag is an MD5, content are as listed."""
        n_bytes, etag = self.files[path]
        if arrived.n_bytes != n_bytes:
            raise Mismatch(f"{self.url}/{path}: {arrived.n_bytes} bytes arrived, the bucket lists {n_bytes}")
        # Nothing is asked for an empty object, so whether KMS encrypts it, nobody has said.
        is_md5 = n_bytes and arrived.digest.name == "md5" and not arrived.encryption.startswith("aws:kms")
        if is_md5 and (md5 := arrived.digest.hexdigest()) != etag:
            raise Mismatch(f"{self.url}/{path}: the MD5 of what arrived is {md5}, the bucket lists {etag}")

    def _algorithm(self, path: str) -> str:
        return "md5" if self.checksum(path) else "sha256"

    def _address(self, path: str) -> str:
        """The URL of a file: signed by s3fs, unless anonymous."""
        key = f"{self._folder}{path}"
        if self.anonymous:
            return f"{self._public_bucket}/{quote(key)}"
        return self.fs.url(f"{self.bucket}/{key}", expires=3600)

    @property
    def _folder(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    @property
    def _public_bucket(self) -> str:
        """Its URL: https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html."""
        if self.endpoint_url:
            return f"{self.endpoint_url.rstrip('/')}/{self.bucket}"
        if "." in self.bucket:  # which the certificate of the other form does not cover
            return f"https://s3.amazonaws.com/{self.bucket}"
        return f"https://{self.bucket}.s3.amazonaws.com"

    def _list(self) -> dict[str, tuple[int, str]]:
        """Ask the bucket, and keep its answer."""
        found = self._persist("the listing", self._listed)
        # Some programs make an object for each folder.
        files = {key[len(self._folder) :]: facts for key, facts in found.items() if not key.endswith("/")}
        if "participants.tsv" not in files:
            raise HbnError(f"{self.url} is no BIDS release ({len(files)} files listed, no participants.tsv)")
        write_json(self.saved, files)
        return files

    def _listed(self) -> dict[str, tuple[int, str]]:
        """Size in bytes and ETag of the objects of the release, by key."""
        listed, token = {}, ""
        while token is not None:
            self._within_limit()  # a server may send pages without end
            objects, token = (self._public_page if self.anonymous else self._page)(token)
            listed |= {one["Key"]: (int(one["Size"]), one["ETag"].strip('"')) for one in objects}
        return listed

    def _page(self, token: str) -> tuple[list[dict], str | None]:
        """Objects of a page of the listing, and the token of the next one.

        The `find` of s3fs takes twice the time, for the folders that it makes up.
        """
        more = {"ContinuationToken": token} if token else {}
        page = self.fs.call_s3("list_objects_v2", Bucket=self.bucket, Prefix=self._folder, **more)
        return page.get("Contents", []), page["NextContinuationToken"] if page["IsTruncated"] else None

    def _public_page(self, token: str) -> tuple[list[dict], str | None]:
        """As `_page`, in one request: making the client of s3fs takes longer than the listing."""
        with self._response(self._page_address(token), {}, nullcontext()) as response:
            page = ElementTree.fromstring(response.read())
        fields = ("Key", "Size", "ETag")
        objects = [{name: one.findtext(f"{{*}}{name}") for name in fields} for one in page.iterfind("{*}Contents")]
        for one in objects:
            one["Key"] = unquote_plus(one["Key"])
        truncated = page.findtext("{*}IsTruncated") == "true"
        return objects, page.findtext("{*}NextContinuationToken") if truncated else None

    def _page_address(self, token: str) -> str:
        query = {"list-type": "2", "encoding-type": "url", "prefix": self._folder}
        query |= {"continuation-token": token} if token else {}
        return f"{self._public_bucket}/?{urlencode(query)}"

    def _persist(self, what: str, attempt: Callable[[], Any]) -> Any:
        """What `attempt` returns, once it does."""
        failures = 0
        while True:
            try:
                return attempt()
            except Exception as error:  # as in `_fill`
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

    def _answer(self, path: str, headers: dict[str, str]) -> AbstractContextManager[HTTPResponse]:
        """The response to the request of a file."""
        return self._response(self._address(path), headers, self._waiting(path))

    @contextmanager
    def _response(
        self, address: str, headers: dict[str, str], waiting: AbstractContextManager
    ) -> Iterator[HTTPResponse]:
        """The response to a request, on the connection that this thread keeps; `waiting` is held until it begins."""
        scheme, host, *target = urlsplit(address)
        connection, target = self._connection(scheme, host), urlunsplit(["", "", *target])
        try:
            with waiting:
                response = _ask(connection, target, headers)
            _raise_for(response)
            yield response
            if not response.isclosed():
                connection.close()
        except BaseException:
            connection.close()  # with what is left on the way
            raise

    def _connection(self, scheme: str, host: str) -> HTTPConnection:
        """Of this thread."""
        if not hasattr(self.own, "connection"):
            proxy = "" if proxy_bypass(host) else getproxies().get("https", "")
            if scheme == "http":
                self.own.connection = HTTPConnection(host, timeout=self.timeout_s)
            elif proxy:
                self.own.connection = self._tunnel(host, urlsplit(proxy if "://" in proxy else f"http://{proxy}"))
            else:
                self.own.connection = HTTPSConnection(host, timeout=self.timeout_s, context=self.tls)
        return self.own.connection

    def _tunnel(self, host: str, proxy: SplitResult) -> HTTPSConnection:
        """A connection through the proxy of `https_proxy`, without which the nodes of many clusters reach nothing."""
        connection = HTTPSConnection(proxy.hostname, proxy.port or 80, timeout=self.timeout_s, context=self.tls)
        user = unquote(proxy.netloc.rpartition("@")[0])
        basic = {"Proxy-Authorization": f"Basic {b64encode(user.encode()).decode()}"}
        connection.set_tunnel(host, headers=basic if user else {})
        return connection

    @property
    def _buffer(self) -> memoryview:
        """Of this thread."""
        if not hasattr(self.own, "buffer"):
            self.own.buffer = memoryview(bytearray(CHUNK_BYTES))
        return self.own.buffer

    @cached_property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))

    @cached_property
    def fs(self):
        """For a bucket that is not public: s3fs knows all of Amazon's ways to give credentials."""
        import s3fs

        return s3fs.S3FileSystem(
            endpoint_url=self.endpoint_url or None,
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={
                "connect_timeout": self.timeout_s,
                "read_timeout": self.timeout_s,
                "retries": {"total_max_attempts": 1},  # `_list` tries again
                "signature_version": "s3v4",  # of URLs, too: buckets made since 2020, and other servers, take no older
            },
        )


class Arrived:
    """An open, unbuffered file, and the digest of what it holds."""

    def __init__(self, file: io.FileIO, algorithm: str, buffer: memoryview):
        self.file, self.algorithm = file, algorithm
        self.encryption = ""  # at its origin, as the server calls it
        self._forget()
        file.seek(0)
        while n := file.readinto(buffer):
            self._count(buffer[:n])

    def append(self, chunk: bytes | memoryview) -> None:
        if self.file.write(chunk) != len(chunk):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._count(chunk)

    def clear(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self._forget()

    def _forget(self) -> None:
        self.n_bytes, self.digest = 0, hashlib.new(self.algorithm, usedforsecurity=False)

    def _count(self, chunk: bytes | memoryview) -> None:
        self.n_bytes += len(chunk)
        self.digest.update(chunk)


def _is_ours(file: io.FileIO, path: Path) -> bool:
    """Lock an open partial file; False when another process has it, or has just finished with it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(file.fileno()).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _ask(connection: HTTPConnection, target: str, headers: dict[str, str]) -> HTTPResponse:
    kept = connection.sock is not None
    try:
        connection.request("GET", target, headers=headers)
        return connection.getresponse()
    except ConnectionError:
        if not kept:
            raise
        connection.close()  # the server has done so in the meantime
        return _ask(connection, target, headers)


def _raise_for(response: HTTPResponse) -> None:
    """Raise what `_passing` tells apart, unless the object is on its way."""
    if response.status in (200, 206):
        return
    said = re.findall(rb"<(?:Code|Message)>([ -;=-~]{1,300})<", response.read(REASON_BYTES))  # of S3's XML
    what = f"HTTP status {response.status}" + "".join(f", {words.decode()}" for words in said)
    raise {404: FileNotFoundError, 401: PermissionError, 403: PermissionError}.get(response.status, ConnectionError)(
        what
    )


def _passing(error: Exception, where: str) -> Exception:
    """Return an error that may pass; raise HbnError for one that will not."""
    from botocore.exceptions import NoCredentialsError, PartialCredentialsError

    match error:
        case HbnError():
            raise error
        case FileNotFoundError():
            raise HbnError(f"{where} does not exist; check data.preset, data.url and data.releases") from error
        case PermissionError():
            raise HbnError(
                f"{where}: access denied ({error}); check your AWS credentials, their region and data.url"
            ) from error
        case NoCredentialsError() | PartialCredentialsError():
            raise HbnError(f"{where}: {error}; a data.url needs AWS credentials, a data.preset none") from error
        case ssl.SSLCertVerificationError():
            raise HbnError(f"{where}: {error}; your institution's own certificates go into AWS_CA_BUNDLE") from error
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            raise HbnError(f"{where}: the disk is full") from error
    return error
