"""Files without their content: broken links, and placeholders of git-annex (DataLad) and Git LFS."""

import re
import stat
from pathlib import Path

PLACEHOLDER_BYTES = 1024  # a larger file is no placeholder, which holds a path or a few lines
GIT_ANNEX = re.compile(rb"[\w./\\-]*annex[/\\]objects[/\\]\S+\s*")
GIT_LFS = b"version https://git-lfs.github.com/spec/"
SIGNALS = (".set", ".fdt", ".bdf")


def kind_of_absence(path: Path) -> str:
    """What stands in place of a file's content, such as 'a broken link'; empty if the content exists.

    The file may have its final name or a temporary one, `.<name>.<anything>`.
    """
    facts = path.lstat()
    if stat.S_ISLNK(facts.st_mode):
        if not path.exists():
            annex = "annex/objects" in str(path.readlink())
            return "a placeholder of git-annex (a broken link)" if annex else f"a broken link to {path.readlink()}"
        facts = path.stat()
    if not stat.S_ISREG(facts.st_mode) or facts.st_size > PLACEHOLDER_BYTES:
        return ""
    content = path.read_bytes()
    if GIT_ANNEX.fullmatch(content):
        return "a placeholder of git-annex"
    if content.startswith(GIT_LFS):
        return "a placeholder of Git LFS"
    if len(content) < 2 and not set(SIGNALS).isdisjoint(path.suffixes):
        return f"a placeholder of {len(content)} bytes"
    return ""


def why_absent(path: Path, root: Path) -> str:
    """Which file below `root` lacks its content and what to do, in one line; empty if the content exists."""
    kind = kind_of_absence(path)
    if not kind:
        return ""
    inner = path.relative_to(root)
    get = f"`git lfs pull -I {inner}`" if "LFS" in kind else f"`datalad get {inner}` or `git annex get {inner}`"
    return f"{path} is {kind}, not the file itself: run {get} in {root}, or put the file there"
