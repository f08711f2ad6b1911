"""Requests to an S3 bucket, each made once: an error is either temporary (Passing) or permanent (HbnError).

obstore reads the objects; it is the fastest client in benchmarks/fetch.py. botocore lists the bucket, finds
credentials by the standard chain of AWS, and requests the facts that obstore does not return.
"""

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from hbn.files import HbnError

CHUNK_BYTES = 1 << 18
MAY_PASS = (408, 429)  # the HTTP statuses below 500 that are temporary
ENDED = ("ExpiredToken", "InvalidToken", "TokenRefreshRequired")  # error codes of expired credentials
CREDENTIALS_FOR = timedelta(minutes=10)  # after this, ask botocore again, which renews them in time
REGION = "us-east-1"  # default; public buckets answer in this region, wherever they are


class Passing(Exception):
    """An error that may not occur at the next try."""


class WholeOnly(Passing):
    """The server sends whole objects only, no ranges."""


class Bucket:
    """The objects below a prefix, each named by the rest of its key. It may be used by many threads at once.

    Requests are signed where the standard chain of AWS finds credentials. If `public`, it is not searched.
    """

    def __init__(self, url: str, endpoint_url: str, public: bool, timeout_s: float, limit_h: float):
        self.name, _, prefix = url.removeprefix("s3://").partition("/")
        if not self.name:
            raise HbnError(f"data.url: {url!r} names no bucket; it should look like s3://bucket/prefix_{{release}}")
        self.folder = f"{prefix}/" if prefix else ""
        self.endpoint_url, self.public = endpoint_url.rstrip("/"), public
        self.timeout_s, self.limit_h = timeout_s, limit_h

    def pages(self) -> Iterator[dict[str, tuple[int, str]]]:
        """Size in bytes and ETag of the objects by path, one dict for each page of the listing."""
        more = {}
        while more is not None:
            with self._refusals(self.folder):
                page = self._client.list_objects_v2(Bucket=self.name, Prefix=self.folder, **more)
            entries = {entry["Key"][len(self.folder) :]: entry for entry in page.get("Contents", ())}
            # Paths that end with a slash are left out: some programs make empty objects for folders.
            yield {
                path: (entry["Size"], entry.get("ETag", "").strip('"'))
                for path, entry in entries.items()
                if path and not path.endswith("/")
            }
            token = page.get("NextContinuationToken")
            more = {"ContinuationToken": token} if token else None
            if not token and page.get("IsTruncated"):
                raise HbnError(
                    f"s3://{self.name}: the server does not say how its listing goes on (ListObjectsV2); "
                    "copy the release to a folder with the server's own program, and name that folder in data.url"
                )

    def read(self, path: str, start: int, etag: str, n_bytes: int = 0) -> Iterator[bytes]:
        """The content of an object from byte `start` on, or `n_bytes` of it; HbnError if its ETag has changed."""
        options = {"range": (start, start + n_bytes)} if n_bytes else {"range": {"offset": start}} if start else {}
        with self._refusals(f"{self.folder}{path}"):
            answer = self._store.get(f"{self.folder}{path}", options=options)
            if (answer.meta["e_tag"] or "").strip('"') != etag:
                raise HbnError(
                    f"s3://{self.name}/{self.folder}{path} has changed since it was listed; run fetch.py with --refresh"
                )
            yield from answer.stream(CHUNK_BYTES)

    def is_encrypted_by_kms(self, path: str) -> bool:
        """Whether AWS KMS encrypts an object, so that its ETag is no MD5."""
        with self._refusals(f"{self.folder}{path}"):
            facts = self._client.head_object(Bucket=self.name, Key=f"{self.folder}{path}")
        return facts.get("ServerSideEncryption", "").startswith("aws:kms")

    @cached_property
    def _session(self):
        from botocore.session import Session

        return Session()

    @cached_property
    def _credentials(self):
        """The credentials of the standard chain; None if it has none."""
        return None if self.public else self._session.get_credentials()

    @cached_property
    def _region(self) -> str:
        return (not self.public and self._session.get_config_variable("region")) or REGION

    @cached_property
    def _client(self):
        from botocore import UNSIGNED
        from botocore.config import Config

        # Buckets made since 2020 and other servers accept no signature older than s3v4. The only endpoint is
        # data.endpoint_url, because the metrics name it.
        config = Config(
            signature_version="s3v4" if self._credentials else UNSIGNED,
            s3={"addressing_style": "path" if self.endpoint_url else "auto"},
            retries={"total_max_attempts": 1},
            connect_timeout=self.timeout_s,
            read_timeout=self.timeout_s,
            ignore_configured_endpoint_urls=True,
        )
        return self._session.create_client("s3", self._region, endpoint_url=self.endpoint_url or None, config=config)

    @cached_property
    def _store(self):
        from obstore.store import S3Store

        endpoint, virtual = self.endpoint
        # Set both keys, because obstore prefers the environment's value of the second.
        config = {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint, "virtual_hosted_style_request": virtual}
        config |= {"skip_signature": self._credentials is None, "region": self._region}
        seconds = timedelta(seconds=self.timeout_s)
        options: dict[str, Any] = {"allow_http": True, "connect_timeout": seconds, "read_timeout": seconds}
        options["timeout"] = timedelta(hours=self.limit_h)
        if bundle := _authorities():
            options["root_certificate"] = bundle
        provider = self._signer if self._credentials else None
        return S3Store(
            self.name,
            config=config,
            client_options=options,
            retry_config={"max_retries": 0},
            credential_provider=provider,
        )

    @property
    def endpoint(self) -> tuple[str, bool]:
        """The address of the server, and whether its host name begins with the name of the bucket.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
        """
        if self.endpoint_url:
            return self.endpoint_url, False
        host = "s3.amazonaws.com" if self._credentials is None else f"s3.{self._region}.amazonaws.com"
        if "." in self.name:  # the server's certificate does not cover a host name with a dot in the bucket
            return f"https://{host}", False
        return f"https://{self.name}.{host}", True

    def _signer(self) -> dict:
        """The present credentials in the form that obstore takes."""
        now = self._credentials.get_frozen_credentials()
        keys = {"access_key_id": now.access_key, "secret_access_key": now.secret_key, "token": now.token}
        return keys | {"expires_at": datetime.now(UTC) + CREDENTIALS_FOR}

    @contextmanager
    def _refusals(self, key: str) -> Generator[None]:
        """Turn what the clients raise into Passing or HbnError."""
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError
        from botocore.parsers import ResponseParserError
        from obstore.exceptions import BaseError

        where = f"s3://{self.name}/{key}"
        try:
            _authorities()
            yield
        except ClientError as error:
            status, said = error.response["ResponseMetadata"].get("HTTPStatusCode", 0), error.response["Error"]
            raise self._refusal(status, [said.get("Code", ""), said.get("Message", "")], where) from None
        except ResponseParserError as error:
            raise Passing(f"a damaged answer arrived ({_short(error)})") from None
        except (ConnectionError, HTTPClientError) as error:
            raise _unreachable(str(error), where) from None
        except BotoCoreError as error:  # half of the credentials, a profile that is not there, a session that has ended
            raise HbnError(f"data.url: {_short(error)}; check your AWS credentials") from None
        except (BaseError, FileNotFoundError) as error:
            text = str(error)
            if status := re.search(r"status code: (\d{3})", text):
                said = re.findall(r"<(?:Code|Message)>([^<]{1,300})<", text.partition("Debug source")[0])
                raise self._refusal(int(status[1]), said, where) from None
            if "non-partial response" in text:
                raise WholeOnly("the server sends whole objects only") from None
            raise _unreachable(text, where) from None

    def _refusal(self, status: int, said: list[str], where: str) -> Exception:
        words = ", ".join([f"HTTP status {status}", *(text for text in said if text and text != str(status))])
        if status >= 500 or status in MAY_PASS:
            return Passing(words)
        if status == 404:
            return HbnError(
                f"{where} does not exist; check data.preset, data.url and data.releases "
                "(if it was deleted since, fetch.py with --refresh lists anew)"
            )
        if status in (401, 403) and self._credentials is None:
            return HbnError(
                f"{where}: access denied ({words}) to a request without credentials: a preset needs none; "
                "for data.url, the AWS chain has none (environment, ~/.aws, role of the machine)"
            )
        if status in (401, 403) or not set(ENDED).isdisjoint(said):
            return HbnError(
                f"{where}: access denied ({words}); check your AWS credentials, their region and data.url "
                "(a public bucket of a server that does not know them needs none: unset them)"
            )
        return HbnError(f"{where}: {words}; check data.url, data.endpoint_url and AWS_DEFAULT_REGION")


def _authorities() -> bytes | None:
    """The user's own certificates (AWS_CA_BUNDLE), which are trusted beside the usual ones."""
    bundle = os.environ.get("AWS_CA_BUNDLE")
    try:
        return Path(bundle).read_bytes() if bundle else None
    except OSError as error:
        raise HbnError(f"AWS_CA_BUNDLE: {bundle} cannot be used ({error.strerror})") from None


def _unreachable(text: str, where: str) -> Exception:
    """The error for an answer that did not come completely: HbnError for a wrong certificate, else Passing."""
    if re.search(r"CERTIFICATE_VERIFY_FAILED|invalid peer certificate", text):
        return HbnError(f"{where}: {_short(text)}; your institution's own certificates go into AWS_CA_BUNDLE")
    if re.search(r"timed ?out|TimedOut", text):
        return Passing("timed out")
    return Passing(f"the connection broke: {_short(text)}")


def _short(error: object) -> str:
    """A message in one line, without the debugging details of obstore."""
    text = str(error)
    inner = re.search(r'message: "([^"]+)"', text)
    return " ".join(text.partition("Debug source")[0].split())[:300] + (f" ({inner[1]})" if inner else "")
