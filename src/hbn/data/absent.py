"""Files whose content is not there: broken links, placeholders of git-annex (DataLad) and of Git LFS."""

import re
import stat
from pathlib import Path

PLACEHOLDER_BYTES = 1024  # a placeholder is a path, or a few lines
GIT_ANNEX = re.compile(rb"[\w./\\-]*annex[/\\]objects[/\\]\S+\s*")
GIT_LFS = b"version https://git-lfs.github.com/spec/"
SIGNALS = (".set", ".fdt", ".bdf")


def kind_of_absence(path: Path) -> str:
    """What a file is instead of its content, such as 'a broken link'; empty if the content is there.

    The name is the final one or a temporary one, `.<name>.<anything>`.
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
    """One line that names a file below `root` and says what to do; empty if its content is there."""
    kind = kind_of_absence(path)
    if not kind:
        return ""
    inner = path.relative_to(root)
    get = f"`git lfs pull -I {inner}`" if "LFS" in kind else f"`datalad get {inner}` or `git annex get {inner}`"
    return f"{path} is {kind}, not the file itself: run {get} in {root}, or put the file there"
