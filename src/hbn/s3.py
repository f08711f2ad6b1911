"""Objects of an S3 bucket: listed and opened, one request at a time."""

import os
import re
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, quote, unquote, unquote_plus, urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass
from xml.etree import ElementTree

from hbn.files import HbnError

REASON_BYTES = 1 << 16  # of the answer that says why there is none


class Bucket:
    """The objects below a prefix, by the rest of their key; many threads may ask, each on a connection that it keeps.

    Nothing is asked again: raises FileNotFoundError, PermissionError, or another OSError or HTTPException, which may
    pass; HbnError for credentials that cannot be used.
    Where the standard chain of AWS finds credentials, requests are signed, by s3fs; `public` does not look for any.
    (s3fs itself takes several times longer for small files, and its client longer to make than a listing.)
    """

    def __init__(self, url: str, endpoint_url: str, public: bool, timeout_s: float):
        self.name, _, prefix = url.removeprefix("s3://").partition("/")
        if not self.name:
            raise HbnError(f"data.url: {url!r} names no bucket; it should look like s3://bucket/prefix_{{release}}")
        self.folder = f"{prefix}/" if prefix else ""
        self.endpoint_url, self.public, self.timeout_s = endpoint_url.rstrip("/"), public, timeout_s
        self.own = threading.local()  # the connection of each thread

    @cached_property
    def anonymous(self) -> bool:
        """Whether requests are not signed."""
        if self.public:
            return True
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        try:
            return Session().get_credentials() is None
        except BotoCoreError as error:  # half of them, or a profile that is not there
            raise HbnError(f"data.url: {error}; check your AWS credentials") from None

    def pages(self) -> Iterator[dict[str, tuple[int, str]]]:
        """Size in bytes and ETag of the objects by path, a page of the listing at a time."""
        token: str | None = ""
        while token is not None:
            objects, token = (self._public_page if self.anonymous else self._signed_page)(token)
            yield {one["Key"][len(self.folder) :]: (one["Size"], one["ETag"].strip('"')) for one in objects}

    def open(
        self, path: str, headers: dict[str, str], waiting: AbstractContextManager
    ) -> AbstractContextManager[HTTPResponse]:
        """An object on its way; `waiting` is held until it comes."""
        return self._response(self.address(path), headers, waiting)

    def address(self, path: str) -> str:
        """The URL of an object, signed if need be."""
        key = f"{self.folder}{path}"
        if self.anonymous:
            return f"{self._host}/{quote(key)}"
        with _botocore_errors():
            return self.fs.url(f"{self.name}/{key}", expires=3600)

    @property
    def _host(self) -> str:
        """The bucket's URL: https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html."""
        if self.endpoint_url:
            return f"{self.endpoint_url}/{self.name}"
        if "." in self.name:  # which the certificate of the other form does not cover
            return f"https://s3.amazonaws.com/{self.name}"
        return f"https://{self.name}.s3.amazonaws.com"

    def _signed_page(self, token: str) -> tuple[list[dict], str | None]:
        """Objects of a page of the listing, and the token of the next one.

        The `find` of s3fs takes twice the time, for the folders that it makes up.
        """
        more = {"ContinuationToken": token} if token else {}
        with _botocore_errors():
            page = self.fs.call_s3("list_objects_v2", Bucket=self.name, Prefix=self.folder, **more)
        return page.get("Contents", []), page["NextContinuationToken"] if page["IsTruncated"] else None

    def _public_page(self, token: str) -> tuple[list[dict], str | None]:
        """As `_signed_page`."""
        with self._response(self.page_address(token), {}, nullcontext()) as response:
            content = response.read()
        try:
            page = ElementTree.fromstring(content)
            objects = [
                {
                    "Key": unquote_plus(one.findtext("{*}Key", "")),
                    "Size": int(one.findtext("{*}Size", "")),
                    "ETag": one.findtext("{*}ETag", ""),
                }
                for one in page.iterfind("{*}Contents")
            ]
        except (ElementTree.ParseError, ValueError) as error:
            raise ConnectionError(f"a damaged page of the listing arrived ({error})") from None
        truncated = page.findtext("{*}IsTruncated") == "true"
        return objects, page.findtext("{*}NextContinuationToken") if truncated else None

    def page_address(self, token: str) -> str:
        """The URL of a page of a public listing; the first one's token is empty."""
        query = {"list-type": "2", "encoding-type": "url", "prefix": self.folder}
        query |= {"continuation-token": token} if token else {}
        return f"{self._host}/?{urlencode(query)}"

    @contextmanager
    def _response(
        self, address: str, headers: dict[str, str], waiting: AbstractContextManager
    ) -> Iterator[HTTPResponse]:
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

    @cached_property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))

    @cached_property
    def fs(self):
        """s3fs, which knows all of Amazon's ways to give credentials."""
        import s3fs

        return s3fs.S3FileSystem(
            endpoint_url=self.endpoint_url or None,
            use_listings_cache=False,
            skip_instance_cache=True,
            config_kwargs={
                "connect_timeout": self.timeout_s,
                "read_timeout": self.timeout_s,
                "retries": {"total_max_attempts": 1},
                "signature_version": "s3v4",  # of URLs, too: buckets made since 2020, and other servers, take no older
            },
        )


@contextmanager
def _botocore_errors() -> Iterator[None]:
    """What s3fs passes on as it is, told as what it is here: a failure to connect."""
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except BotoCoreError as error:
        raise ConnectionError(str(error)) from error


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
    """Raise what the server says, unless the object is on its way."""
    if response.status in (200, 206):
        return
    said = re.findall(rb"<(?:Code|Message)>([ -;=-~]{1,300})<", response.read(REASON_BYTES))  # of S3's XML
    what = f"HTTP status {response.status}" + "".join(f", {words.decode()}" for words in said)
    raise {404: FileNotFoundError, 401: PermissionError, 403: PermissionError}.get(response.status, ConnectionError)(
        what
    )
