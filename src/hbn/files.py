"""Files: the one error family, atomic writes, small tables, checksums and the scratch store."""

import csv
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
# A cell of a row: quoted, if the closing quotation mark stands before a tab or the end of the row; else literal.
CELL = re.compile(r'"((?:[^"]|"")*)"(?=\t|$)|([^\t]*)')
FULL_BYTES = 1 << 16  # a disk with less free space counts as full: the rest is too small for another block


class HbnError(Exception):
    """Something the user can act on: the message says what is wrong, where, and what to do."""


@contextmanager
def atomic(path: Path | str, durable: bool = True) -> Generator[Path]:
    """Yield a temporary name beside `path`; the file written there is renamed to `path` if the block succeeds.

    An output of another stage may be a read-only hardlink into the DVC cache, so files are
    always replaced and never written in place. `durable` writes the content to the disk before the renaming; a file
    that is verified before each use does not need it.
    """
    path = Path(path)
    _make_folder_of(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        yield temporary
        if durable:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # otherwise a power failure may leave the name without the content
        os.replace(temporary, path)
    except BaseException as error:
        # Each library reports a full disk in its own way, so measure it, before the half-written file is deleted.
        full = not isinstance(error, HbnError) and shutil.disk_usage(path.parent).free < FULL_BYTES
        temporary.unlink(missing_ok=True)
        if full:
            raise HbnError(
                f"{path} cannot be written, the disk is full ({error}): make room (`dvc gc --workspace` deletes "
                "results of other commits, and .scratch can be deleted), then run the same command again"
            ) from error
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path | str, content: object) -> None:
    """Write reviewable JSON: sorted keys, six significant digits, never NaN (ValueError)."""
    text = json.dumps(_rounded(content), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def read_json(path: Path | str) -> dict:
    """Read a JSON object; HbnError names the file when it is absent or malformed."""
    try:
        content = json.loads(existing(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HbnError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise HbnError(f"{path} should hold a JSON object, it holds a {type(content).__name__}")
    return content


def read_tsv(path: Path | str) -> list[dict[str, str | None]]:
    """Read a tab-separated table with a header (BIDS) as rows of text (see parse_tsv)."""
    return parse_tsv(existing(path).read_bytes(), path)


def parse_tsv(content: bytes, path: Path | str) -> list[dict[str, str | None]]:
    """Rows of text of a tab-separated table with a header (BIDS), without blanks around cells and names.

    The encoding may be UTF-8, UTF-16 with a byte order mark or, with a warning, Latin-1. BIDS quotes a cell that holds
    a tab: quotation marks that enclose a whole cell on one line are removed. All other quotation marks are text. Empty
    lines are skipped. The missing cells of a short row are None. Raises HbnError, with the number of the line, for a
    NUL character, for a name that stands twice in the header and for a row with more cells than the header.
    """
    lines = re.split("\r\n|\r|\n", _decoded(content, path))
    names = _cells(lines[0])
    while names and not names[-1]:
        names.pop()
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise HbnError(f"{path}, line 1: the column {twice[0]!r} stands twice; delete the one that is wrong")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = _cells(line)
        if any(cells[len(names) :]):
            raise HbnError(
                f"{path}, line {number} has {len(cells)} cells, the header has {len(names)}; correct the line"
            )
        rows.append({name: cells[i] if i < len(cells) else None for i, name in enumerate(names)})
    return rows


def write_tsv(path: Path | str, rows: Iterable[dict], columns: list[str]) -> None:
    """Write these columns of the rows as a tab-separated table, atomically; None becomes 'n/a' (BIDS).

    A line break within a cell becomes a blank, because BIDS has one row per line.
    """
    rows = ({k: re.sub(r"[\r\n]+", " ", v) if isinstance(v, str) else v for k, v in row.items()} for row in rows)
    _write_table(path, rows, columns, "\t", "n/a")


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """Read a comma-separated table with a header, in UTF-8, as rows of text."""
    with open(existing(path), encoding="utf-8-sig", newline="") as file:
        try:
            return list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise HbnError(f"{path} is no table in UTF-8: {error}") from None


def write_csv(path: Path | str, rows: Iterable[dict], columns: list[str]) -> None:
    """Write these columns of the rows as a comma-separated table, atomically.

    Six significant digits; None is empty.
    """
    _write_table(path, (_rounded(row) for row in rows), columns, ",", "")


def existing(path: Path | str, made_by: str = "") -> Path:
    """Return `path` if it exists, else raise HbnError naming it and the stage that makes it."""
    path = Path(path)
    if not path.exists():
        advice = f"; run `dvc repro {made_by}` to make it" if made_by else ""
        raise HbnError(f"{path} does not exist{advice}")
    return path


def sha256(path: Path | str) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5(path: Path | str) -> str:
    """MD5 of a file's content, in hexadecimal; S3 and DVC identify files by it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digest(content: object) -> str:
    """SHA-256 of a JSON-able value (dict order does not matter), in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def code_digest(*modules: str) -> str:
    """SHA-256 over the source of the named library modules, such as 'data.cleaning', or of all if none is named."""
    library = Path(__file__).parent
    paths = [library / f"{name.replace('.', '/')}.py" for name in modules] or sorted(library.rglob("*.py"))
    return digest({path.relative_to(library).as_posix(): sha256(path) for path in paths})


def link(source: Path | str, destination: Path | str) -> None:
    """Hardlink `source` to `destination` atomically, or copy where links are not possible."""
    _make_folder_of(destination)
    try:
        os.link(source, destination)
    except FileNotFoundError:
        raise
    except OSError:  # the destination exists, or hardlinks are not possible here
        with atomic(destination) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
        temporary.unlink(missing_ok=True)  # POSIX: renaming does nothing if both names are of the same file


def _make_folder_of(path: Path | str) -> None:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):  # faster than makedirs on a folder that exists
        os.makedirs(folder, exist_ok=True)


class Store:
    """Content-addressed files kept outside stage outputs, so that work survives DVC's clean-up.

    DVC deletes a stage's outputs before running it. A stage stores its files of one recording here,
    under the digest of everything that decided them (input, parameters, code), and links them back
    on the next run. Deleting this folder is safe at any time: it costs only recomputation.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def path(self, key: str) -> str:
        """The path of the file of a key, whether the file exists or not."""
        return f"{self.root}/{key[:2]}/{key}"

    def fetch(self, key: str, destination: Path | str) -> bool:
        """Link the stored file to `destination`; False when it is not stored."""
        if not self.has(key):
            return False
        try:
            link(self.path(key), destination)
        except FileNotFoundError:  # another process has trimmed the store
            return False
        return True

    def has(self, key: str) -> bool:
        """Whether a file is stored under `key`."""
        return os.path.exists(self.path(key))

    def put(self, key: str, source: Path | str) -> None:
        """Store a finished file under `key`."""
        link(source, self.path(key))

    def trim(self, max_gb: float) -> None:
        """Delete the least recently linked files until at most `max_gb` (10^9 bytes) are left.

        Only files without another hardlink count: deleting one that a workspace or the DVC cache also holds frees no
        space. Linking a file updates its ctime, which gives the order. The mtime must not change, because DVC
        recognises its own hardlinks by it. Parallel experiments share the folder, so files may vanish at any time.
        Hidden files are skipped: they are being written.
        """
        entries = []
        for path in self.root.glob("*/[!.]*"):
            with suppress(FileNotFoundError):
                facts = path.stat()
                if facts.st_nlink == 1:
                    entries.append((facts.st_ctime, facts.st_size, path))
        entries.sort()
        excess = sum(size for _, size, _ in entries) - max_gb * 1e9
        for _, size, path in entries:
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size


def _decoded(content: bytes, path: Path | str) -> str:
    """The text of a table that other programs may have written."""
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise HbnError(f"{path} begins as UTF-16 but cannot be decoded ({error}); save it as UTF-8") from None
        log.warning("%s is not UTF-8 (%s) and is read as Latin-1; save it as UTF-8", path, error)
        text = content.decode("latin-1")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise HbnError(f"{path}, line {line} holds a NUL character: the file is damaged, or UTF-16 without its mark")
    return text


def _cells(line: str) -> list[str]:
    """The cells of one row of a tab-separated table."""
    if '"' not in line:
        return [cell.strip() for cell in line.split("\t")]
    cells, end = [], -1
    while end < len(line) and (match := CELL.match(line, end + 1)):
        quoted, literal = match.groups()
        cells.append((literal if quoted is None else quoted.replace('""', '"')).strip())
        end = match.end()
    return cells


def _write_table(path: Path | str, rows: Iterable[dict], columns: list[str], delimiter: str, missing: str) -> None:
    with atomic(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, columns, delimiter=delimiter, lineterminator="\n", restval=missing, extrasaction="ignore"
        )
        writer.writeheader()
        writer.writerows({k: missing if v is None else v for k, v in row.items()} for row in rows)


def _rounded(content: Any) -> Any:
    """Round every float to six significant digits, so that a review shows only changes that matter."""
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    if hasattr(content, "item"):  # a numpy scalar
        content = content.item()
    if isinstance(content, float):
        if not math.isfinite(content):
            raise ValueError("a number in the content is not finite")
        return float(f"{content:.6g}")
    return content
