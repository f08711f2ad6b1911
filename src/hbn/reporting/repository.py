"""What git and DVC say about this repository, by their own commands (in the current directory)."""

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


def git(*arguments: str) -> str:
    """Standard output of a git command."""
    return _run("git", *arguments).decode().strip()


def dvc(*arguments: str) -> str:
    """Standard output of a DVC command, of the DVC beside this Python."""
    return _run(sys.executable, "-m", "dvc", *arguments).decode()


def dvc_json(*arguments: str) -> Any:
    """What a DVC command with `--json` answers; nothing to say is {}."""
    return json.loads(dvc(*arguments, "--json") or "{}")


def extract(revision: str, folder: Path, *paths: str) -> None:
    """Put those of `paths` that git has at `revision` below `folder`."""
    known = [path for path in paths if git("ls-tree", revision, path)]
    if known:
        with tarfile.open(fileobj=io.BytesIO(_run("git", "archive", revision, *known))) as archive:
            archive.extraction_filter = getattr(tarfile, "data_filter", None)  # which Python 3.11.2 has not
            archive.extractall(folder)


def ignored(paths: list[str]) -> set[str]:
    """Those of `paths` that git ignores: the products that a fresh clone does not have."""
    done = subprocess.run(["git", "check-ignore", *paths], capture_output=True, text=True) if paths else None
    return set(done.stdout.splitlines()) if done else set()


def md5(path: Path | str) -> str:
    """The checksum of a file by which dvc.lock knows it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def stage_graph() -> dict[str, set[str]]:
    """Every stage and the stages that read its outputs."""
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
