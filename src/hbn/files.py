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
CELL = re.compile(
    r'"((?:[^"]|"")*)"(?=\t|$)|([^\t]*)'
)  # of a row: in quotation marks that end before a tab, or as it is
FULL_BYTES = 1 << 16  # a disk with less is full: what remains is too small for a last block


class HbnError(Exception):
    """Something the user can act on: the message says what is wrong, where, and what to do."""


@contextmanager
def atomic(path: Path | str, durable: bool = True) -> Generator[Path]:
    """Yield a temporary name beside `path`; what the block writes there becomes `path` only if it succeeds.

    An output of another stage may be a read-only hardlink into the DVC cache, so files are
    always replaced and never written in place. What is verified before each use need not be `durable`,
    that is on the disk before it has its name.
    """
    path = Path(path)
    _make_folder_of(path)
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        yield temporary
        if durable:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # else a machine that loses power may keep the name without the content
        os.replace(temporary, path)
    except BaseException as error:
        # Each library reports a full disk in its own way; without its half file, it would not be full any more.
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

    Read are UTF-8, UTF-16 with a byte order mark and, with a warning, Latin-1. Quotation marks around a cell that end
    on its line are BIDS's, for a cell with a tab; other quotation marks are text. Empty lines are skipped. A cell that
    a short row lacks is None. Raises HbnError for a NUL character, for a name that stands twice in the header, and for
    a row with more cells than the header; it names the line.
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

    A line break within a cell becomes a blank: BIDS has a row on each line.
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
    """MD5 of a file's content, in hexadecimal, by which S3 and DVC know it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digest(content: object) -> str:
    """SHA-256 of a JSON-able value (dict order does not matter), in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def code_digest(*modules: str) -> str:
    """SHA-256 over the source of library modules, named as in `code_digest('data.cleaning', 'params')`, else of all."""
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
    except OSError:  # something is there, or links are not possible
        with atomic(destination) as temporary:
            try:
                os.link(source, temporary)
            except OSError:
                shutil.copyfile(source, temporary)
        temporary.unlink(missing_ok=True)  # renaming a file to another name of itself does nothing (POSIX)


def _make_folder_of(path: Path | str) -> None:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):  # asking is cheaper than trying
        os.makedirs(folder, exist_ok=True)


class Store:
    """Content-addressed files kept outside stage outputs, so that work survives DVC's clean-up.

    DVC deletes a stage's outputs before running it. What a stage made for one recording is put
    here under the digest of everything that decided it (input, parameters, code) and linked back
    on the next run. Deleting the folder at any time costs only recomputation.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)

    def path(self, key: str) -> str:
        """Where the file of a key is, if it is."""
        return f"{self.root}/{key[:2]}/{key}"

    def fetch(self, key: str, destination: Path | str) -> bool:
        """Link the stored file to `destination`; False when it is not stored."""
        if not self.has(key):
            return False
        try:
            link(self.path(key), destination)
        except FileNotFoundError:  # trimmed in the meantime
            return False
        return True

    def has(self, key: str) -> bool:
        """Whether there is a file under `key`."""
        return os.path.exists(self.path(key))

    def put(self, key: str, source: Path | str) -> None:
        """Store a finished file under `key`."""
        link(source, self.path(key))

    def trim(self, max_gb: float) -> None:
        """Delete the least recently linked files until at most `max_gb` (10^9 bytes) are here alone.

        What a workspace or the DVC cache holds as well takes no room here, and deleting it would free none.
        Linking a file updates its ctime; its mtime must stay, for DVC knows its own hardlinks by it.
        Experiments side by side share the folder: files may vanish at any time, hidden ones are being written.
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
            raise HbnError(f"{path} begins as UTF-16 and is none ({error}); save it as UTF-8") from None
        log.warning("%s is not UTF-8 (%s) and is read as Latin-1; save it as UTF-8", path, error)
        text = content.decode("latin-1")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise HbnError(f"{path}, line {line} holds a NUL character: it is damaged, or is UTF-16 without its mark")
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
    """Round every float to six significant digits, so that reviews show changes that matter."""
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_rounded(value) for value in content]
    if hasattr(content, "item"):  # a numpy scalar
        content = content.item()
    if isinstance(content, float):
        if not math.isfinite(content):
            raise ValueError("a number to be written is not finite")
        return float(f"{content:.6g}")
    return content
