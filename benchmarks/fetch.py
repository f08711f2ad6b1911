"""Throughput of fetching from S3 beside `rclone copy`, from the same server with as many transfers at once.

`python benchmarks/fetch.py` needs requirements-bench.txt; the last line on standard output is one JSON object.
"""

import json
import logging
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
sys.path[:0] = [str(REPOSITORY / "src"), str(REPOSITORY / "tests")]

import s3_server  # noqa: E402

import fetch  # noqa: E402
from hbn import params, stage  # noqa: E402

TRANSFERS, RUNS = 16, 9
CASES = {"large": (40, 60_000_000), "small": (2_000, 4_000)}  # files, bytes each


def main() -> None:
    logging.disable(logging.INFO)
    everything = params.load(REPOSITORY / "params.yaml")
    with tempfile.TemporaryDirectory() as folder, s3_server.Server(Path(folder) / "server") as server:
        os.chdir(tempfile.mkdtemp(dir=folder))
        figures = {name: compare(server, name, *case, everything) for name, case in CASES.items()}
    worst = min(one["ratio"] for one in figures.values())
    print(json.dumps({"ratio": worst, "peer": "rclone copy", "transfers": TRANSFERS, "runs": RUNS, **figures}))


def compare(server: s3_server.Server, name: str, n_files: int, n_bytes: int, everything: params.Params) -> dict:
    """Median seconds of both over the same release, and the median ratio of turns next to each other.

    A machine that others use has slow spells of several seconds, which a pair shares.
    """
    prefix = f"fcp-indi/bench_{name}"
    upload(server, prefix, n_files, n_bytes)
    ours_s, peer_s = [], []
    for _ in range(RUNS + 1):  # the first of each only warms up
        ours_s.append(timed(lambda: ours(server, name, everything)))
        check(Path("data/raw/R1"), n_files)
        step_aside()
        peer_s.append(timed(lambda: rclone(server, prefix)))
        check(Path("peer"), n_files)
        step_aside()
    ours_median_s, peer_median_s = statistics.median(ours_s[1:]), statistics.median(peer_s[1:])
    return {
        "files": n_files,
        "bytes_each": n_bytes,
        "ours_s": ours_median_s,
        "rclone_s": peer_median_s,
        "ours_mb_per_s": n_files * n_bytes / ours_median_s / 1e6,
        "rclone_mb_per_s": n_files * n_bytes / peer_median_s / 1e6,
        "ratio": statistics.median(peer / own for own, peer in zip(ours_s[1:], peer_s[1:], strict=True)),
    }


def upload(server: s3_server.Server, prefix: str, n_files: int, n_bytes: int) -> None:
    """A release of `n_files` recordings of random bytes, one per participant."""
    people = [f"sub-A{number:05d}" for number in range(n_files)]
    lines = ["participant_id\tsex\tage", *(f"{name}\tF\t9" for name in people)]
    tree = Path("upload")
    for number, name in enumerate(people):
        path = tree / name / "eeg" / f"{name}_task-RestingState_eeg.set"
        path.parent.mkdir(parents=True)
        path.write_bytes(random.Random(number).randbytes(n_bytes))
    (tree / "participants.tsv").write_text("\n".join(lines) + "\n")
    server.upload(tree, prefix)
    step_aside()


def ours(server: s3_server.Server, name: str, everything: params.Params) -> None:
    """The listing and the transfer, as fetch.py does them: verified, kept in the scratch store, with a manifest."""
    data = {"preset": "hbn", "endpoint_url": server.url, "tasks": ["RestingState"], "n_participants": 0}
    params.PRESETS["hbn"] = f"s3://fcp-indi/bench_{name}"
    changed = everything.model_copy(
        update={
            "data": everything.data.model_copy(update=data),
            "exec": everything.exec.model_copy(update={"transfers": TRANSFERS}),
        }
    )
    fetch.main(stage.view(changed, ("data", "simulator", "exec")), "R1")


def rclone(server: s3_server.Server, prefix: str) -> None:
    where = f":s3,provider=SeaweedFS,endpoint='{server.url}':{prefix}"
    limits = ["--transfers", str(TRANSFERS), "--checkers", str(TRANSFERS), "--multi-thread-streams", "0"]
    subprocess.run(
        [program("rclone"), "copy", where, "peer", *limits], check=True, env=os.environ | {"RCLONE_CONFIG": ""}
    )


def program(name: str) -> str:
    """A program of the environment that runs this script."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])) or name


def check(folder: Path, n_files: int) -> None:
    found = len(list(folder.glob("sub-*/eeg/*.set")))
    if found != n_files:
        raise RuntimeError(f"{folder} holds {found} recordings, not {n_files}")


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


def timed(work) -> float:
    start_s = time.perf_counter()
    work()
    return time.perf_counter() - start_s


if __name__ == "__main__":
    main()
