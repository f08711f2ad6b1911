"""Objects of an S3 bucket: listed and opened, one request at a time."""

import os
import re
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, quote, unquote, unquote_plus, urlencode, urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass
from xml.etree import ElementTree

from hbn.files import HbnError

REASON_BYTES = 1 << 16  # of the answer that says why there is none
SIGNED_FOR_S = 3600
MAY_PASS = (408, 429)  # among the HTTP statuses below 500


class Bucket:
    """The objects below a prefix, by the rest of their key; many threads may ask, each on a connection that it keeps.

    Nothing is asked again. Raises OSError or HTTPException for what may pass, HbnError for what will not.
    Requests are signed where the standard chain of AWS finds credentials; `public` does not look for any.
    (Asked through s3fs, large files would take twice the time, and small ones half as much again.)
    """

    def __init__(self, url: str, endpoint_url: str, public: bool, timeout_s: float):
        self.name, _, prefix = url.removeprefix("s3://").partition("/")
        if not self.name:
            raise HbnError(f"data.url: {url!r} names no bucket; it should look like s3://bucket/prefix_{{release}}")
        self.folder = f"{prefix}/" if prefix else ""
        self.endpoint_url, self.public, self.timeout_s = endpoint_url.rstrip("/"), public, timeout_s
        self.own = threading.local()  # the connection of each thread

    def pages(self) -> Iterator[dict[str, tuple[int, str]]]:
        """Size in bytes and ETag of the objects by path, a page of the listing at a time."""
        token: str | None = ""
        while token is not None:
            with self._response(self.page_address(token), {}, self.folder) as response:
                content = response.read()
            try:
                page = ElementTree.fromstring(content)
                objects = [
                    [one.findtext(f"{{*}}{name}", "") for name in ("Key", "Size", "ETag")]
                    for one in page.iterfind("{*}Contents")
                ]
                found = {
                    unquote_plus(key)[len(self.folder) :]: (int(size), etag.strip('"')) for key, size, etag in objects
                }
            except (ElementTree.ParseError, ValueError) as error:
                raise ConnectionError(f"a damaged page of the listing arrived ({error})") from None
            yield found
            token = page.findtext("{*}NextContinuationToken")
            if token is None and page.findtext("{*}IsTruncated") == "true":
                raise HbnError(
                    f"s3://{self.name}: the server does not say how its listing goes on (ListObjectsV2); "
                    "copy the release to a folder with its own program, and name that in data.url"
                )

    def open(self, path: str, headers: dict[str, str]) -> AbstractContextManager[HTTPResponse]:
        """An object on its way."""
        return self._response(self.address(path), headers, f"{self.folder}{path}")

    def address(self, path: str) -> str:
        """The URL of an object, signed if need be."""
        key = f"{self.folder}{path}"
        return self._signed("get_object", Key=key) if self.signer else f"{self._host}/{quote(key)}"

    def page_address(self, token: str) -> str:
        """The URL of a page of the listing, signed if need be; the first one's token is empty."""
        if self.signer:
            more = {"ContinuationToken": token} if token else {}
            return self._signed("list_objects_v2", Prefix=self.folder, EncodingType="url", **more)
        query = {"list-type": "2", "encoding-type": "url", "prefix": self.folder}
        query |= {"continuation-token": token} if token else {}
        return f"{self._host}/?{urlencode(query)}"

    @property
    def _host(self) -> str:
        """The bucket's URL: https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html."""
        if self.endpoint_url:
            return f"{self.endpoint_url}/{self.name}"
        if "." in self.name:  # which the certificate of the other form does not cover
            return f"https://s3.amazonaws.com/{self.name}"
        return f"https://{self.name}.s3.amazonaws.com"

    @cached_property
    def signer(self):
        """The client of botocore, which knows all of Amazon's ways to give credentials; None without any."""
        if self.public:
            return None
        from botocore.config import Config
        from botocore.session import Session

        with _unusable_credentials():
            session = Session()
            if session.get_credentials() is None:
                return None
            # Buckets made since 2020, and other servers, take no older version. No endpoint but data.endpoint_url,
            # which the metrics name.
            config = Config(signature_version="s3v4", ignore_configured_endpoint_urls=True)
            return session.create_client("s3", endpoint_url=self.endpoint_url or None, config=config)

    def _signed(self, operation: str, **parameters: str) -> str:
        with _unusable_credentials():
            return self.signer.generate_presigned_url(operation, {"Bucket": self.name, **parameters}, SIGNED_FOR_S)

    @contextmanager
    def _response(self, address: str, headers: dict[str, str], key: str) -> Iterator[HTTPResponse]:
        scheme, host, *target = urlsplit(address)
        connection, target = self._connection(scheme, host), urlunsplit(["", "", *target])
        try:
            response = _ask(connection, target, headers)
            if response.status not in (200, 206):
                self._refuse(response, f"s3://{self.name}/{key}")
            yield response
            if not response.isclosed():
                connection.close()
        except BaseException:
            connection.close()  # with what is left on the way
            raise

    def _refuse(self, response: HTTPResponse, what: str) -> None:
        """Raise what the server says."""
        status = response.status
        said = re.findall(rb"<(?:Code|Message)>([ -;=-~]{1,300})<", response.read(REASON_BYTES))  # of S3's XML
        words = f"HTTP status {status}" + "".join(f", {one.decode()}" for one in said)
        if status == 404:
            raise HbnError(
                f"{what} does not exist; check data.preset, data.url and data.releases "
                "(if it was deleted since, fetch.py with --refresh lists anew)"
            )
        if status in (401, 403) and not self.signer:
            raise HbnError(
                f"{what}: access denied ({words}) to a request without credentials: a preset needs none; "
                "for data.url, the AWS chain has none (environment, ~/.aws, role of the machine)"
            )
        if status in (401, 403):
            raise HbnError(
                f"{what}: access denied ({words}); check your AWS credentials, their region and data.url "
                "(a public bucket of a server that does not know them needs none: unset them)"
            )
        if status < 500 and status not in MAY_PASS:
            raise HbnError(f"{what}: {words}; check data.url, data.endpoint_url and AWS_DEFAULT_REGION")
        raise ConnectionError(words)

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
        bundle = os.environ.get("AWS_CA_BUNDLE")
        try:
            return ssl.create_default_context(cafile=bundle)
        except OSError as error:
            raise HbnError(f"AWS_CA_BUNDLE: {bundle} cannot be used ({error})") from None


@contextmanager
def _unusable_credentials() -> Iterator[None]:
    """Half of them, a profile that is not there, a session that has ended."""
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except BotoCoreError as error:
        raise HbnError(f"data.url: {error}; check your AWS credentials") from error


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
