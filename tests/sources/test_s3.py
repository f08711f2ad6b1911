"""Fetching from a real S3 server (SeaweedFS): presets, resuming, faults on the way, the DVC remote."""

import errno
import http.client
import io
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import s3_server
import s3fs
import trustme
from clone import REPOSITORY
from ruamel.yaml import YAML

import fetch
from hbn import params, stage
from hbn.data.manifest import OWN_FILES
from hbn.files import HbnError, md5, read_json, read_tsv, sha256, write_text
from hbn.sources import bucket, s3
from hbn.sources.transfer import CHECKSUMS

KINDS = ("503", "drop", "truncate", "corrupt", "delay")
HBN = "fcp-indi/data/Projects/HBN/BIDS_EEG/cmi_bids_R1"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server with one small release at the places of all presets; `server.tree` is its folder."""
    folder = tmp_path_factory.mktemp("s3")
    with s3_server.Server(folder) as one:
        one.tree = s3_server.simulate(folder / "R1", "R1", 3, sfreq_hz=100, lead_in_s=4.0)
        bdf = s3_server.simulate(folder / "R1_bdf", "R1", 1, sfreq_hz=100, lead_in_s=4.0, file_format="bdf")
        one.upload(one.tree, HBN)
        one.upload(one.tree, "openneuro.org/ds005505")
        one.upload(bdf, "nmdatasets/NeurIPS25/R1_mini_L100_bdf")
        one.upload(bdf, "nmdatasets/NeurIPS25/R1_L100_bdf")
        yield one


@pytest.fixture
def settings(monkeypatch, tmp_path, threads_end):
    """Parameters of the stage; the current folder is empty."""
    everything = params.load()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setattr(s3, "FIRST_PAUSE_S", 0.01)

    def make(endpoint_url, limit_h=1.0, **data):
        data = {"preset": "hbn", "endpoint_url": endpoint_url, "tasks": ["RestingState"], "n_participants": 0} | data
        execution = {"transfers": 4, "transfer_timeout_s": 1.0, "transfer_limit_h": limit_h}
        execution["scratch_gb"] = 1e-9  # what is in the tree takes no room, and nothing else is kept
        changed = everything.model_copy(
            update={
                "data": everything.data.model_copy(update=data),
                "exec": everything.exec.model_copy(update=execution),
            }
        )
        return stage.view(changed, ("data", "simulator", "exec"))

    return make


class Proxy(ThreadingHTTPServer):
    """Passes GET requests on to the server, but for what `fault(path, n)` says of the n-th request for a path."""

    daemon_threads = True

    def __init__(self, server, fault=lambda path, n: "", pause_s=0.0):
        super().__init__(("127.0.0.1", 0), Passing)
        self.upstream, self.fault, self.pause_s = server.ports[3], fault, pause_s
        self.requests, self.ranges, self.n_bytes = [], [], 0
        self.half = lambda path: None  # called when half of a body has been sent
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        """A client that was killed is no news."""


class Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        kms = self.server.fault(self.path, 0) == "kms"
        self.send_response(200)
        if kms:
            self.send_header("x-amz-server-side-encryption", "aws:kms")
        self.end_headers()

    def do_GET(self):
        self.server.requests.append(self.path)
        self.server.ranges += [self.headers["Range"]] if self.headers["Range"] else []
        fault = self.server.fault(self.path, self.server.requests.count(self.path))
        if fault.isdigit() or fault == "expired":
            said = b"<Error><Code>ExpiredToken</Code><Message>It has expired.</Message></Error>" * (fault == "expired")
            self.send_response(400 if said else int(fault))
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            return self.wfile.write(said)
        if fault == "delay":
            time.sleep(1.5)
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream)
        some = {"Range": self.headers["Range"]} if self.headers["Range"] and fault != "whole" else {}
        upstream.request("GET", self.path, headers=some)
        answer = upstream.getresponse()
        body = bytearray(answer.read())
        upstream.close()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        if fault == "kms":  # as Amazon, other than SeaweedFS: the ETag of what it encrypts by KMS is no MD5
            body = re.sub(rb"[0-9a-f]{32}(?=[^<]*</ETag>)", lambda md5: md5[0][::-1], body)
            headers |= {"etag": headers.get("etag", "")[::-1], "x-amz-server-side-encryption": "aws:kms"}
        if fault == "odd":  # as servers that have an ETag of their own
            body = re.sub(rb"[0-9a-f]{32}(?=[^<]*</ETag>)", lambda md5: b"+%20" + md5[0], body)
            headers["etag"] = headers.get("etag", "").replace('"', '"+%20', 1)
        if fault == "endless":
            body = body.replace(
                b"<IsTruncated>false", b"<NextContinuationToken>more</NextContinuationToken><IsTruncated>true"
            )
        if fault == "pages1":  # as a server that knows only the first version of the listing
            body = body.replace(b"<IsTruncated>false", b"<NextMarker>more</NextMarker><IsTruncated>true")
        if fault == "truncate":
            del body[len(body) // 2 :]
        if fault == "corrupt" and body:
            body[len(body) // 2] ^= 1
        self.send_response(answer.status)
        for name in headers.keys() - {"content-length", "connection", "transfer-encoding", "date", "server"}:
            self.send_header(name, headers[name])
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        end = len(body) // 2 if fault == "drop" else len(body)
        for part in (body[: end // 2], body[end // 2 : end]):
            for start in range(0, len(part), 1 << 16):
                chunk = part[start : start + (1 << 16)]
                self.wfile.write(chunk)
                self.server.n_bytes += len(chunk)
                time.sleep(self.server.pause_s)
            if part:
                self.server.half(self.path)
        self.close_connection = fault in ("drop", "close")

    def log_message(self, *args):
        pass


class Tunnel(BaseHTTPRequestHandler):
    """A proxy as clusters have it, for those who say the password."""

    def do_CONNECT(self):
        self.server.asked.append((self.path, self.headers["Proxy-Authorization"]))
        self.send_response(200)
        self.end_headers()
        host, port = self.path.split(":")
        with socket.create_connection((host, int(port))) as far:
            back = threading.Thread(target=pass_on, args=(far, self.connection))
            back.start()
            pass_on(self.connection, far)
            back.join()
        self.close_connection = True

    def log_message(self, *args):
        pass


def pass_on(here: socket.socket, there: socket.socket) -> None:
    with suppress(OSError):
        while data := here.recv(1 << 16):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)


@contextmanager
def proxy(*args, **keywords):
    with Proxy(*args, **keywords) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield one
        one.shutdown()


def tree(root: Path) -> dict[str, str]:
    """SHA-256 of every file, but for what fetch adds; temporary files have a leading dot."""
    files = [path for path in Path(root).rglob("*") if path.is_file() and path.name not in OWN_FILES]
    return {path.relative_to(root).as_posix(): sha256(path) for path in files}


def resting(server, n_participants=3) -> dict[str, str]:
    """What a fetch of RestingState of the first participants should give."""
    everything = tree(server.tree)
    people = sorted({path.split("/")[0] for path in everything if path.startswith("sub-")})[:n_participants]
    return {
        path: sha
        for path, sha in everything.items()
        if (path.split("/")[0] in people or not path.startswith("sub-"))
        and ("RestingState" in path or not path.startswith(("sub-", "task-")))
    }


@pytest.mark.parametrize("preset", ["hbn", "openneuro", "challenge", "challenge-mini"])
def test_every_preset_by_its_public_prefix(server, settings, tmp_path, preset):
    fetch.main(settings(server.url, preset=preset), "R1")
    found = tree(tmp_path / "data/raw/R1")
    manifest = read_tsv(tmp_path / "data/raw/R1/manifest.tsv")
    assert {row["path"] for row in manifest} == set(found)
    for row in manifest:  # what the server lists is the MD5
        assert row["md5"] == md5(tmp_path / "data/raw/R1" / row["path"])
    if preset in ("hbn", "openneuro"):
        assert found == resting(server)
    assert any(path.endswith(".bdf" if "challenge" in preset else ".set") for path in found)
    assert read_json(tmp_path / "metrics/fetch/R1.json")["source"] == f"{params.PRESETS[preset]} at {server.url}"


def test_only_what_is_new_is_transferred_and_nothing_is_asked_when_all_is_there(server, settings, tmp_path):
    with proxy(server) as way:
        fetch.main(settings(way.url, n_participants=2), "R1")
        assert tree(tmp_path / "data/raw/R1") == resting(server, 2)
        way.requests.clear()
        fetch.main(settings(way.url, n_participants=2), "R1")
        assert way.requests == []
        fetch.main(settings(way.url, n_participants=3), "R1")
        got = [path for path in way.requests if "list-type" not in path]
        assert len({path.split("/")[-3] for path in got}) == 1  # the new participant
        assert len(got) == len(resting(server, 3)) - len(resting(server, 2))
        way.requests.clear()
        fetch.main(settings(way.url, n_participants=1), "R1")
        assert way.requests == []
        assert tree(tmp_path / "data/raw/R1") == resting(server, 1)
        (first,) = (tmp_path / "data/raw/R1").glob("sub-*")
        without = "sub-NDARBO810ESG"  # in participants.tsv, but not in the bucket
        assert without in (tmp_path / "data/raw/R1/participants.tsv").read_text()
        fetch.main(settings(way.url, participants=[first.name, "sub-NDAROTHER001", without]), "R1")
        assert way.requests == []
        assert tree(tmp_path / "data/raw/R1") == resting(server, 1)
        fetch.main(settings(way.url, n_participants=1), "R1", "--refresh")
        assert way.requests
        assert all("list-type" in path for path in way.requests)


def test_what_came_to_the_bucket_since_it_was_listed_is_found(server, settings, tmp_path, caplog):
    place, everything = HBN.replace("R1", "R3"), tree(server.tree)
    *first, last = sorted({path.split("/")[0] for path in everything if path.startswith("sub-")})

    def upload(wanted) -> None:
        for path in filter(wanted, everything):
            server.admin.pipe_file(f"{place}/{path}", (server.tree / path).read_bytes())

    def fetched(*options, **data) -> set[str]:
        fetch.main(settings(server.url, **data), "R3", *options)
        return {"/".join(path.parts[-3:]) for path in (tmp_path / "data/raw/R3").rglob("*_eeg.set")}

    upload(lambda path: last not in path and "_task-contrast" not in path)
    assert len(fetched()) == len(first)
    upload(lambda path: last not in path)
    contrast = fetched(tasks=["contrastChangeDetection_1"])
    assert contrast == {path for path in everything if path.endswith("contrastChangeDetection_run-1_eeg.set")} - {
        f"{last}/eeg/{last}_task-contrastChangeDetection_run-1_eeg.set"
    }
    fetched()
    upload(lambda path: True)
    assert {path.split("/")[0] for path in fetched(participants=[first[0], last])} == {first[0]}
    assert f"1 of data.participants have nothing to fetch, such as {last}" in caplog.text
    assert {path.split("/")[0] for path in fetched("--refresh", participants=[first[0], last])} == {first[0], last}
    server.admin.pipe_file(f"{place}/participants.tsv", (server.tree / "participants.tsv").read_bytes() + b"\n")
    shutil.rmtree(tmp_path / ".scratch/raw")  # as exec.scratch_gb may do
    fetched()
    assert (tmp_path / "data/raw/R3/participants.tsv").read_bytes().endswith(b"\n\n")


def test_a_recording_of_one_byte_is_no_recording(server, settings, tmp_path):
    place = HBN.replace("R1", "R4")
    recording = next(path for path in sorted(resting(server, 1)) if path.endswith("_eeg.set"))
    for path in resting(server, 1):
        content = b"x" if path == recording else (server.tree / path).read_bytes()
        server.admin.pipe_file(f"{place}/{path}", content)
    with pytest.raises(HbnError, match=f"{recording} is a placeholder of 1 bytes at the source"):
        fetch.main(settings(server.url), "R4")
    assert not (tmp_path / "data/raw/R4" / recording).exists()


def test_a_public_bucket_is_asked_as_s3fs_would_ask_it(server, tmp_path, monkeypatch):
    for name, value in s3_server.ADMIN.items():
        monkeypatch.setenv(name, value)
    folder = "fcp-indi/many pages"
    names = ["participants.tsv", "sub-1/a b+c%20&d.tsv", "sub-1/ü.tsv", *(f"sub-{i}/x.tsv" for i in range(1100))]
    server.admin.pipe({f"{folder}/{name}": name.encode() for name in names})
    one, signed = (
        s3.S3Source(f"s3://{folder}", server.url, anonymous, tmp_path / str(anonymous), 5, 1)
        for anonymous in (True, False)
    )
    assert one.paths() == sorted(names)
    assert one.files == signed.files
    for number, name in enumerate(names[:4]):
        one.write(name, tmp_path / str(number))
        assert (tmp_path / str(number)).read_text() == name

    amazon = s3fs.S3FileSystem(anon=True)
    for preset in ("hbn", "openneuro", "challenge"):
        asked = bucket.Bucket(params.PRESETS[preset], "", True, 5, 1)
        server, in_its_name = asked.endpoint
        place = server if in_its_name else f"{server}/{asked.name}"
        assert amazon.url(f"{asked.name}/x.tsv").partition("?")[0] == f"{place}/x.tsv"


def test_a_private_bucket_by_the_standard_chain_of_credentials(server, settings, tmp_path, monkeypatch):
    server.upload(server.tree, "dvc-remote/lab/R1")
    lab = settings(server.url, url="s3://dvc-remote/lab/{release}")
    for name in s3_server.ADMIN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(HbnError, match=r"access denied \(HTTP status 403, AccessDenied, .*without credentials"):
        fetch.main(lab, "R1")
    fetch.main(settings(server.url, url=f"s3://{HBN.replace('R1', '{release}')}"), "R1")  # of its own, but public
    assert tree(tmp_path / "data/raw/R1") == resting(server)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(HbnError, match=r"nobody.*check your AWS credentials"):
        fetch.main(lab, "R1")
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # metrics would not name it
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    keys = [f"{name.lower()} = {value}\n" for name, value in s3_server.ADMIN.items() if "KEY" in name]
    (tmp_path / "credentials").write_text("[default]\n" + "".join(keys))
    fetch.main(lab, "R1")
    assert tree(tmp_path / "data/raw/R1") == resting(server)
    saved = lambda: s3.S3Source("s3://dvc-remote/lab/R1", server.url, False, tmp_path, 5, 1)  # noqa: E731
    assert "README" in saved().paths()
    (tmp_path / "credentials").write_text("[default]\n" + "".join(keys).replace(" = ", " = other"))
    with pytest.raises(HbnError, match=r"access denied \(HTTP status 403, InvalidAccessKeyId, .*; check your AWS"):
        saved().rate(["README"], 1)
    with proxy(server, lambda path, n: "expired") as way:
        ended = s3.S3Source("s3://dvc-remote/lab/R1", way.url, False, tmp_path, 5, 1)
        with pytest.raises(HbnError, match=r"access denied \(HTTP status 400, ExpiredToken, .*; check your AWS"):
            ended.paths()
        ended.files = saved().files
        with pytest.raises(HbnError, match=r"access denied \(HTTP status 400, ExpiredToken, .*; check your AWS"):
            ended.rate(["README"], 1)


def test_what_kms_encrypts_has_no_md5_and_is_verified_by_its_record(server, settings, tmp_path, caplog):
    with proxy(server, lambda path, n: "kms") as way:
        fetch.main(settings(way.url), "R1")
        assert tree(tmp_path / "data/raw/R1") == resting(server)
        way.requests.clear()
        victim = max((tmp_path / ".scratch/raw").glob("*/*"), key=lambda path: path.stat().st_size)
        victim.write_bytes(b"other" * 1000)
        fetch.main(settings(way.url), "R1")
        assert len(way.requests) == 1
        assert caplog.text.count("the scratch store is damaged") == 1
        server.admin.pipe_file("nmdatasets/empty/participants.tsv", b"")
        source = s3.S3Source("s3://nmdatasets/empty", way.url, True, tmp_path, timeout_s=2.0, limit_h=1.0)
        assert source.write("participants.tsv", tmp_path / "empty") == md5(tmp_path / "empty")
        assert "again in" not in caplog.text
    assert tree(tmp_path / "data/raw/R1") == resting(server)


def test_an_etag_that_is_no_md5_is_taken_as_it_is_and_verified_by_its_record(server, settings, tmp_path):
    with proxy(server, lambda path, n: "odd") as way:
        fetch.main(settings(way.url), "R1")
        assert tree(tmp_path / "data/raw/R1") == resting(server)
        manifest = read_tsv(tmp_path / "data/raw/R1/manifest.tsv")
        assert {row["path"]: row["md5"] for row in manifest} == {p: md5(server.tree / p) for p in resting(server)}
        way.requests.clear()
        fetch.main(settings(way.url), "R1")
        assert way.requests == []


def test_encrypted_and_through_the_proxy_of_a_cluster(server, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    with proxy(server) as way, ThreadingHTTPServer(("127.0.0.1", 0), Tunnel) as tunnel:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        way.socket = context.wrap_socket(way.socket, server_side=True)
        address = f"localhost:{way.server_port}"
        with pytest.raises(HbnError, match=r"CERTIFICATE_VERIFY_FAILED.*AWS_CA_BUNDLE"):
            fetch.main(settings(f"https://{address}"), "R1")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
        with pytest.raises(HbnError, match=r"AWS_CA_BUNDLE: .*nowhere\.pem cannot be used"):
            fetch.main(settings(f"https://{address}"), "R1")
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "authority.pem"))
        fetch.main(settings(f"https://{address}", n_participants=1), "R1")
        assert tree(tmp_path / "data/raw/R1") == resting(server, 1)

        tunnel.asked = []
        threading.Thread(target=tunnel.serve_forever, daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://me:a%40b@127.0.0.1:{tunnel.server_port}")
        fetch.main(settings(f"https://{address}", n_participants=2), "R1")
        assert tree(tmp_path / "data/raw/R1") == resting(server, 2)
        assert set(tunnel.asked) == {(address, f"Basic {b64encode(b'me:a@b').decode()}")}
        tunnel.shutdown()


def test_the_estimate_tells_the_time_at_the_measured_rate(server, settings, tmp_path, caplog):
    caplog.set_level("INFO")
    with proxy(server, lambda path, n: "503" if n == 1 else "", pause_s=0.02) as way:
        fetch.main(settings(way.url), "R1", "--estimate")
        pattern = r"about (\d+):(\d\d):(\d\d) at (\S+) MB/s, as measured on (\S+) MB of 4 files"
        said = re.search(pattern, caplog.text)
        hours, minutes, seconds, rate, measured = map(float, said.groups())
        assert set(way.ranges) == {f"bytes=0-{s3.SAMPLE_BYTES - 1}"}
        wanted = sum((server.tree / path).stat().st_size for path in resting(server)) / 1e6
        assert measured < wanted / 2
        assert hours * 3600 + minutes * 60 + seconds == pytest.approx(wanted / rate, abs=1)
        assert not (tmp_path / "data").exists()
        fetch.main(settings(way.url), "R1")
        caplog.clear()
        fetch.main(settings(way.url), "R1", "--estimate")
        assert "about" not in caplog.text  # all is there
    assert tree(tmp_path / "data/raw/R1") == resting(server)


def test_a_damaged_scratch_file_is_fetched_again(server, settings, tmp_path):
    fetch.main(settings(server.url, n_participants=1), "R1")
    victim = next(path for path in (tmp_path / ".scratch/raw").rglob("*") if path.stat().st_size > 1e6)
    content = bytearray(victim.read_bytes())
    content[1000] ^= 1
    victim.write_bytes(content)
    fetch.main(settings(server.url, n_participants=1), "R1")
    assert tree(tmp_path / "data/raw/R1") == resting(server, 1)


def test_whatever_happens_on_the_way_every_file_is_right(server, settings, tmp_path, caplog):
    def fault(path, n):  # each path meets its own order of faults, then gets through
        order = random.Random(path.rpartition("/")[2]).sample([*KINDS, "429", "500"], 2)
        if "list-type" in path:
            order = ["503", "truncate"]
        return order[n - 1] if n <= len(order) else ""

    with proxy(server, fault) as way:
        fetch.main(settings(way.url), "R1")
        assert way.ranges  # what had arrived before the connection broke was not asked for again
    assert tree(tmp_path / "data/raw/R1") == resting(server)
    assert not list((tmp_path / ".scratch/partial").iterdir())
    for said in (
        *("HTTP status 503", "HTTP status 429", "HTTP status 500", "timed out"),
        *("the connection broke", "the connection ended after", "the MD5 of what arrived is"),
    ):
        assert said in caplog.text


def test_a_server_that_sends_whole_objects_only_is_asked_for_them(server, tmp_path, caplog):
    content = random.Random(3).randbytes(2_000_000)
    server.admin.pipe_file("nmdatasets/whole/participants.tsv", content)
    faults = ("", "drop", "whole", "whole")  # the first is the listing
    with proxy(server, lambda path, n: faults[len(way.requests) - 1]) as way:
        source = s3.S3Source("s3://nmdatasets/whole", way.url, True, tmp_path, timeout_s=2.0, limit_h=1.0)
        assert source.write("participants.tsv", tmp_path / "it") == md5(tmp_path / "it")
    assert len(way.ranges) == 1
    assert (tmp_path / "it").read_bytes() == content


@pytest.mark.parametrize("when", ["before", "within"])
def test_small_files_are_waited_for_at_once(server, settings, tmp_path, when):
    together = threading.Barrier(3, timeout=20)  # broken unless three of them are on their way before one has arrived
    waited = lambda path: path.endswith("_events.tsv")  # noqa: E731

    def fault(path, n):
        if waited(path) and when == "before":
            together.wait()
        return ""

    with proxy(server, fault) as way:
        if when == "within":
            way.half = lambda path: together.wait() if waited(path) else None
        fetch.main(settings(way.url), "R1")
    assert not together.broken
    assert tree(tmp_path / "data/raw/R1") == resting(server)


def test_a_connection_that_was_closed_after_its_last_use_is_no_failure(server, tmp_path, caplog):
    with proxy(server, lambda path, n: "close") as way:
        source = s3.S3Source(f"s3://{HBN}", way.url, True, tmp_path, timeout_s=2.0, limit_h=1.0)
        for name in ("README", "participants.tsv"):
            source.write(name, tmp_path / name)
            assert (tmp_path / name).read_bytes() == (server.tree / name).read_bytes()
            time.sleep(0.2)  # the end of the connection arrives: a request that crosses it must be tried again
    assert "again in" not in caplog.text


def test_what_the_bucket_tells_the_checksum_of_needs_no_record(server, settings, tmp_path):
    with proxy(server) as way:
        fetch.main(settings(way.url, n_participants=1), "R1")
        assert not (tmp_path / ".scratch" / CHECKSUMS).exists()
        way.requests.clear()
        fetch.main(settings(way.url, n_participants=1), "R1")
        assert way.requests == []
    assert tree(tmp_path / "data/raw/R1") == resting(server, 1)


def test_an_object_of_several_parts_is_verified_part_by_part(server, tmp_path, caplog):
    content = random.Random(1).randbytes(12_000_000)
    server.admin.pipe_file("nmdatasets/parts/participants.tsv", content, chunksize=5 << 20)
    faults = ("drop", "truncate", "", "corrupt", "")
    with proxy(server, lambda path, n: "" if "list-type" in path else faults[n - 1]) as way:
        source = s3.S3Source("s3://nmdatasets/parts", way.url, True, tmp_path, timeout_s=2.0, limit_h=1.0)
        assert re.fullmatch("[0-9a-f]{32}-3", source.files["participants.tsv"][1])
        partial = source.partial / source.fingerprint("participants.tsv")
        write_text(partial, "\0" * 1000)  # as the loss of power may leave it
        found = source.write("participants.tsv", tmp_path / "it")
    assert found == md5(tmp_path / "it")
    assert (tmp_path / "it").read_bytes() == content
    assert caplog.text.count("the MD5 of what arrived is") == 2


@pytest.mark.parametrize(("fault", "right"), [("", True), ("corrupt", False)])
def test_parts_of_an_unusual_size_are_right_when_they_arrive_twice(server, tmp_path, caplog, fault, right):
    content = random.Random(2).randbytes(16_000_000)
    server.admin.pipe_file("nmdatasets/unusual/participants.tsv", content, chunksize=7_000_000)
    with proxy(server, lambda path, n: fault if n == 1 and "list-type" not in path else "") as way:
        source = s3.S3Source("s3://nmdatasets/unusual", way.url, True, tmp_path, timeout_s=2.0, limit_h=1.0)
        source.write("participants.tsv", tmp_path / "it")
        assert len(way.requests) == 1 + (2 if right else 3)
    assert (tmp_path / "it").read_bytes() == content
    assert "the same content twice is taken for right" in caplog.text


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said(server, tmp_path, monkeypatch, number):
    source = s3.S3Source(f"s3://{HBN}", server.url, True, tmp_path, timeout_s=2.0, limit_h=1.0)

    class Full(io.FileIO):
        def write(self, chunk):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr("builtins.open", lambda path, mode, **_: Full(path, mode.replace("b", "")))
    with pytest.raises(HbnError, match="the disk is full; make room and run again"):
        source.write("README", tmp_path / "README")


def test_lasting_faults_are_reported(server, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(s3, "TRIES", 3)
    recording = lambda path: path.endswith("_eeg.set")  # noqa: E731
    with (
        proxy(server, lambda path, n: "corrupt" if recording(path) else "") as way,
        pytest.raises(HbnError, match=r"MD5 of what arrived is [0-9a-f]{32}, the bucket lists [0-9a-f]{32}"),
    ):
        fetch.main(settings(way.url), "R1")
    with proxy(server, lambda path, n: "503" if recording(path) else "") as way:
        with pytest.raises(HbnError, match="3 times in a row; run again later"):
            fetch.main(settings(way.url), "R1")
        with pytest.raises(HbnError, match=r"not done within exec\.transfer_limit_h"):
            fetch.main(settings(way.url, limit_h=1e-9), "R1")
    with (
        proxy(server, lambda path, n: "endless") as way,
        pytest.raises(HbnError, match=r"not done within exec\.transfer_limit_h"),
    ):
        fetch.main(settings(way.url, limit_h=1 / 3600), "R1")
    with proxy(server, lambda path, n: "pages1") as way, pytest.raises(HbnError, match="how its listing goes on"):
        fetch.main(settings(way.url, preset="challenge"), "R1")
    with proxy(server, lambda path, n: "301") as way:
        with pytest.raises(HbnError, match=r"HTTP status 301, Moved Permanently; check .*AWS_DEFAULT_REGION"):
            fetch.main(settings(way.url, preset="challenge"), "R1")
        assert len(way.requests) == 1
    assert not list((tmp_path / "data/raw").rglob("*_eeg.[sb]*"))
    with pytest.raises(HbnError, match=r"cmi_bids_R2/ is no BIDS release: nothing is listed there; .* data\.url, such"):
        fetch.main(settings(server.url), "R2")
    server.admin.pipe_file(f"{HBN.replace('R1', 'R6')}/README", b"No table.")
    with pytest.raises(HbnError, match=r"cmi_bids_R6/ is no BIDS release: 1 files are listed there, no participants"):
        fetch.main(settings(server.url), "R6")
    with pytest.raises(HbnError, match="is not on OpenNeuro"):
        fetch.main(settings(server.url, preset="openneuro"), "R99")


def test_killed_at_ten_moments_on_a_faulty_way_every_file_is_right_in_the_end(server, tmp_path):
    content = YAML(typ="safe").load(REPOSITORY / "params.yaml")
    wanted = resting(server)
    sizes = sum((server.tree / path).stat().st_size for path in wanted if path.endswith("_eeg.set"))
    rng = random.Random(1)
    moments = sorted(rng.uniform(0, 0.95) * sizes for _ in range(10))  # bytes on disk; small files come last
    assert moments[-1] > 2 / 3 * sizes  # then one of three recordings is complete

    def arrived():
        files = [file for root, _, names in os.walk(tmp_path / ".scratch") for file in (Path(root) / n for n in names)]
        with suppress(FileNotFoundError):  # moved meanwhile
            return sum(file.stat().st_size for file in files)
        return 0

    def fault(path, n):  # every third request for a path, each time another fault
        order = random.Random(path.rpartition("/")[2]).sample(KINDS, len(KINDS))
        return order[n // 3 % len(order)] if n % 3 == 1 and "list-type" not in path else ""

    with proxy(server, fault, pause_s=0.005) as way:
        content["data"] |= {"preset": "hbn", "endpoint_url": way.url, "tasks": ["RestingState"], "n_participants": 0}
        content["exec"] |= {"transfers": 2, "transfer_timeout_s": 1.0}
        YAML().dump(content, tmp_path / "params.yaml")
        command = [sys.executable, REPOSITORY / "src/fetch.py", "R1"]
        for moment in moments:
            with open(tmp_path / "log", "ab") as log:
                process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, env=os.environ)
            while process.poll() is None and arrived() < moment:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            there = {path: sha for path, sha in tree(tmp_path / "data/raw/R1").items() if "/." not in f"/{path}"}
            assert there.items() <= wanted.items()
        with open(tmp_path / "log", "ab") as log:
            subprocess.run(command, cwd=tmp_path, check=True, stdout=log, stderr=log)
        assert tree(tmp_path / "data/raw/R1") == wanted
        assert not list((tmp_path / ".scratch/partial").iterdir())
        assert way.ranges  # partial files were continued
    log = (tmp_path / "log").read_text()
    for said in ("HTTP status 503", "the connection ended after", "the MD5 of what arrived is", "timed out"):
        assert said in log
    to_fetch = [int(n) for n in re.findall(r"to fetch: (\d+) files", log)]
    assert to_fetch == sorted(to_fetch, reverse=True)
    assert to_fetch[-1] < to_fetch[0]  # what was complete is not asked for again
