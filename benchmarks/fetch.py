"""Throughput of fetching from S3: this repository, `rclone copy` and the bare Python clients, in turns.

`python benchmarks/fetch.py [client ...]` needs requirements-bench.txt; the last line on standard output is one JSON
object. All clients have one server (SeaweedFS on loopback), as many transfers at once, whole GETs and the same
verification: size, and MD5 against the ETag.

Measured on two cores that others used as well, medians of five to seven rounds, times as fast as rclone:

| client | 40 x 60 MB | 2,000 x 4 kB |
|---|---|---|
| obstore | 1.13 to 1.35 | 2.8 to 3.8 |
| botocore | 0.83 | 1.12 |
| boto3 (transfer manager) | 0.83 | 0.52 |
| s3fs | 0.53 | 0.96 |
| requests of our own, until obstore | 1.05 | 2.27 |
| ours, on obstore | 0.98 to 1.04 | 1.9 |

"Ours" does more than the others: listing, plan, resumable partial files, the scratch store and the manifest.
"""

import hashlib
import logging
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from common import ROOT, print_result, print_table

sys.path.insert(0, str(ROOT / "tests"))

import s3_server

import fetch
from hbn import params, stage

TRANSFERS = 16
RUNS = 7
CASES = {"large": (40, 60_000_000), "small": (2_000, 4_000)}  # files, bytes each
CHUNK_BYTES = 1 << 18


def main(*names: str) -> None:
    logging.disable(logging.INFO)
    clients = {name: CLIENTS[name] for name in ("ours", "rclone", *(names or CLIENTS))}
    with tempfile.TemporaryDirectory() as folder, s3_server.Server(Path(folder) / "server") as server:
        os.chdir(tempfile.mkdtemp(dir=folder))
        figures = {name: compare(server, name, *case, clients) for name, case in CASES.items()}
    print_table([{"client": name} | {c: figures[c]["ratios"][name] for c in CASES} for name in clients])
    worst = min(case["ratios"]["ours"] for case in figures.values())
    print_result({"ratio": worst, "peer": "rclone copy", "transfers": TRANSFERS, "runs": RUNS, **figures})


def compare(server: s3_server.Server, name: str, n_files: int, n_bytes: int, clients: dict) -> dict:
    """Median seconds of each client over the same release, and the median ratio to rclone's turn of the same round.

    A machine that others use has slow spells of several seconds, which a round shares in part.
    """
    prefix = f"bench_{name}"
    upload(server, f"fcp-indi/{prefix}", n_files, n_bytes)
    seconds = {client: [] for client in clients}
    for number in range(RUNS + 1):  # the first round only warms up
        order = list(clients) if number % 2 else list(reversed(clients))
        for client in order:
            start_s = time.perf_counter()
            clients[client](server, prefix)
            seconds[client].append(time.perf_counter() - start_s)
            check(Path.cwd(), n_files, n_bytes)
            step_aside()
    ratios = {
        client: statistics.median(peer / own for own, peer in zip(own_s[1:], seconds["rclone"][1:], strict=True))
        for client, own_s in seconds.items()
    }
    medians_s = {client: statistics.median(own_s[1:]) for client, own_s in seconds.items()}
    return {"files": n_files, "bytes_each": n_bytes, "seconds": medians_s, "ratios": ratios}


def upload(server: s3_server.Server, prefix: str, n_files: int, n_bytes: int) -> None:
    """A release of `n_files` recordings of random bytes, one per participant."""
    people = [f"sub-A{number:05d}" for number in range(n_files)]
    lines = ["participant_id\tsex\tage\tp_factor\tattention\tinternalizing\texternalizing"]
    lines += [f"{name}\tF\t9\tn/a\tn/a\tn/a\tn/a" for name in people]
    tree = Path("upload")
    for number, name in enumerate(people):
        path = tree / name / "eeg" / f"{name}_task-RestingState_eeg.set"
        path.parent.mkdir(parents=True)
        path.write_bytes(random.Random(number).randbytes(n_bytes))
    (tree / "participants.tsv").write_text("\n".join(lines) + "\n")
    (tree / "dataset_description.json").write_text('{"Name": "Benchmark"}\n')
    server.upload(tree, prefix)
    step_aside()


def ours(server: s3_server.Server, prefix: str) -> None:
    """The listing and the transfer, as fetch.py does them: verified, kept in the scratch store, with a manifest."""
    everything = params.load(ROOT / "params.yaml")
    data = {"preset": "hbn", "endpoint_url": server.url, "tasks": ["RestingState"], "n_participants": 0}
    params.PRESETS["hbn"] = f"s3://fcp-indi/{prefix}"
    changed = everything.model_copy(
        update={
            "data": everything.data.model_copy(update=data),
            "exec": everything.exec.model_copy(update={"transfers": TRANSFERS}),
        }
    )
    fetch.main(stage.view(changed, ("data", "simulator", "exec")), "R1")


def rclone(server: s3_server.Server, prefix: str) -> None:
    where = f":s3,provider=SeaweedFS,endpoint='{server.url}':fcp-indi/{prefix}"
    limits = ["--transfers", str(TRANSFERS), "--checkers", str(TRANSFERS), "--multi-thread-streams", "0"]
    subprocess.run(
        [program("rclone"), "copy", where, "peer", *limits], check=True, env=os.environ | {"RCLONE_CONFIG": ""}
    )


def obstore(server: s3_server.Server, prefix: str) -> None:
    from obstore.store import S3Store

    options = {"allow_http": True, "timeout": timedelta(hours=1), "pool_max_idle_per_host": str(TRANSFERS)}
    store = S3Store("fcp-indi", endpoint=server.url, skip_signature=True, client_options=options)

    def get(path: str, size: int, etag: str) -> None:
        arrive(path, store.get(path).stream(CHUNK_BYTES), size, etag)

    in_threads(get, [(o["path"], o["size"], o["e_tag"]) for page in store.list(prefix) for o in page])


def boto3(server: s3_server.Server, prefix: str) -> None:
    """The transfer manager of boto3: one call a file, in our threads; whole GETs."""
    import boto3 as library
    from boto3.s3.transfer import TransferConfig
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(signature_version=UNSIGNED, max_pool_connections=TRANSFERS)
    client = library.client("s3", "us-east-1", endpoint_url=server.url, config=config)
    whole = TransferConfig(multipart_threshold=1 << 40, use_threads=False, io_chunksize=CHUNK_BYTES)

    def get(path: str, size: int, etag: str) -> None:
        with Verified(path, size, etag) as file:
            client.download_fileobj("fcp-indi", path, file, Config=whole)

    in_threads(get, listing(client, prefix))


def botocore(server: s3_server.Server, prefix: str) -> None:
    """What boto3 stands on, which dvc-s3 brings."""
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.session import Session

    config = Config(signature_version=UNSIGNED, max_pool_connections=TRANSFERS)
    client = Session().create_client("s3", "us-east-1", endpoint_url=server.url, config=config)

    def get(path: str, size: int, etag: str) -> None:
        body = client.get_object(Bucket="fcp-indi", Key=path)["Body"]
        arrive(path, body.iter_chunks(CHUNK_BYTES), size, etag)

    in_threads(get, listing(client, prefix))


def s3fs(server: s3_server.Server, prefix: str) -> None:
    """As many coroutines as transfers; what arrived is read again for its MD5, since `get_file` shows it to nobody."""
    import s3fs as library

    files = library.S3FileSystem(anon=True, endpoint_url=server.url, skip_instance_cache=True)
    listed = files.find(f"fcp-indi/{prefix}", detail=True)
    places = [name.removeprefix("fcp-indi/") for name in listed]
    for folder in {Path(place).parent for place in places}:
        folder.mkdir(parents=True, exist_ok=True)
    files.get(list(listed), places, batch_size=TRANSFERS)

    def verify(path: str, size: int, etag: str) -> None:
        with open(path, "rb") as file:
            if (os.stat(path).st_size, hashlib.file_digest(file, "md5").hexdigest()) != (size, etag.strip('"')):
                raise RuntimeError(f"{path} is damaged")

    facts = listed.values()
    in_threads(verify, [(place, o["size"], o["ETag"]) for place, o in zip(places, facts, strict=True)])


CLIENTS = {
    **{"ours": ours, "rclone": rclone, "obstore": obstore, "boto3": boto3, "botocore": botocore, "s3fs": s3fs},
}


class Verified:
    """A file to write to, whose size and MD5 are compared with the listing at the end."""

    def __init__(self, path: str, size: int, etag: str):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.path, self.expected = path, (size, etag.strip('"'))
        self.size, self.digest = 0, hashlib.md5(usedforsecurity=False)

    def __enter__(self):
        self.file = open(self.path, "wb", buffering=0)
        return self

    def write(self, chunk: bytes) -> int:
        self.digest.update(chunk)
        self.size += len(chunk)
        return self.file.write(chunk)

    def __exit__(self, *_) -> None:
        self.file.close()
        if (self.size, self.digest.hexdigest()) != self.expected:
            raise RuntimeError(f"{self.path} is damaged")


def arrive(path: str, chunks, size: int, etag: str) -> None:
    with Verified(path, size, etag) as file:
        for chunk in chunks:
            file.write(chunk)


def listing(client, prefix: str) -> list[tuple[str, int, str]]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="fcp-indi", Prefix=f"{prefix}/")
    return [(o["Key"], o["Size"], o["ETag"]) for page in pages for o in page["Contents"]]


def in_threads(work, arguments: list[tuple]) -> None:
    with ThreadPoolExecutor(TRANSFERS) as pool:
        list(pool.map(lambda one: work(*one), arguments))


def program(name: str) -> str:
    """A program of the environment that runs this script."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])) or name


def check(folder: Path, n_files: int, n_bytes: int) -> None:
    """Whoever fetched, the files are there."""
    whole = [path for path in folder.rglob("sub-*_eeg.set") if path.stat().st_size == n_bytes]
    if len(whole) != n_files:
        raise RuntimeError(f"{folder} holds {len(whole)} recordings, not {n_files}")


def step_aside() -> None:
    """Go to a new folder and empty all files of the one before, without deleting them.

    For minutes, ext4 does not use the inode of a deleted file again, but looks at each of these whenever a file is
    made: after a turn of 2,000 files, that takes more time than the transfer.
    """
    for path in Path.cwd().rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    os.chdir(tempfile.mkdtemp(dir=Path.cwd().parent))
    os.sync()


if __name__ == "__main__":
    main(*sys.argv[1:])
