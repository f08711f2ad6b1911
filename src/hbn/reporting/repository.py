"""Facts about the repository in the current directory, from the commands of git and DVC."""

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from hbn.files import HbnError

TIMES = ("metrics/benchmark.json", "plots/benchmark_")  # results that differ in every run
OTHER_TIMES, OTHER_FILES = "other times of the benchmark", "uncommitted changes"


def git(*arguments: str) -> str:
    """Standard output of a git command."""
    return _run("git", *arguments).decode().strip()


def uncommitted() -> str:
    """What differs from the last commit: OTHER_TIMES alone, OTHER_FILES, or empty for nothing."""
    changed = [line.split(maxsplit=1)[1] for line in git("status", "--porcelain").splitlines()]
    if not changed:
        return ""
    return OTHER_TIMES if all(path.startswith(TIMES) for path in changed) else OTHER_FILES


def dvc(*arguments: str) -> str:
    """Standard output of a DVC command, run by this Python."""
    return _run(sys.executable, "-m", "dvc", *arguments).decode()


def dvc_json(*arguments: str) -> Any:
    """The parsed output of a DVC command with `--json`; {} for empty output."""
    return json.loads(dvc(*arguments, "--json") or "{}")


def extract(revision: str, folder: Path, *paths: str) -> None:
    """Write those of `paths` that exist in git at `revision` below `folder`."""
    known = [path for path in paths if git("ls-tree", revision, path)]
    if known:
        with tarfile.open(fileobj=io.BytesIO(_run("git", "archive", revision, *known))) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 does not have it
            archive.extractall(folder)


def ignored(paths: list[str]) -> set[str]:
    """Those of `paths` that git ignores, which a fresh clone does not have."""
    done = subprocess.run(["git", "check-ignore", *paths], capture_output=True, text=True) if paths else None
    return set(done.stdout.splitlines()) if done else set()


def md5(path: Path | str) -> str:
    """The MD5 of a file, as in dvc.lock."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def stage_graph() -> dict[str, set[str]]:
    """For every stage, the stages that read its outputs."""
    dot = dvc("dag", "--dot")
    followers = {name: set() for name in re.findall(r'^"([^"]+)";', dot, re.MULTILINE)}
    for before, after in re.findall(r'^"([^"]+)" -> "([^"]+)";', dot, re.MULTILINE):
        followers.setdefault(before, set()).add(after)
        followers.setdefault(after, set())
    return followers


def _run(*command: str) -> bytes:
    done = subprocess.run(command, capture_output=True)
    if done.returncode:
        name = " ".join(command).removeprefix(f"{sys.executable} -m ")
        raise HbnError(f"`{name}` failed:\n{done.stderr.decode().strip()}")
    return done.stdout
