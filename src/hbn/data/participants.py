"""Reading participants.tsv as people write it: the participants, and remarks on cells that were not understood."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hbn.data.bids import FACTORS
from hbn.files import HbnError, read_tsv

# How HBN writes sexes and numbers. Other spellings get a remark.
PLAIN = re.compile(r"[FM]|[+-]?[0-9.]+([eE][+-]?[0-9]+)?")
SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}
OLDEST_YEARS = 120
AT_MOST_NAMED = 3  # participants named in one remark
Value = TypeVar("Value", str, float)


@dataclass(frozen=True)
class Participant:
    """One row of participants.tsv."""

    participant_id: str
    release: str
    sex: str | None  # 'F' or 'M'
    age_years: float | None
    factors: dict[str, float] | None  # all four, or None (participants aged 18 and over have none)


def read_participants(root: Path | str, release: str, used: Iterable[str] | None = None) -> list[Participant]:
    """The participants of <root>/participants.tsv in file order, only those in `used` if given."""
    path = Path(root) / "participants.tsv"
    table = read_tsv(path)
    used = set(participant_ids(table, str(path))) - {""} if used is None else used
    return parse_participants(table, str(path), release, used)[0]


def parse_participants(
    table: Sequence[Mapping[str, str | None]], where: str, release: str, used: Iterable[str]
) -> tuple[list[Participant], list[str]]:
    """The participants of a table that are in `used`, in its order, and remarks on cells of theirs that are unusual.

    A cell that is not understood counts as unknown. A participant who lacks a factor has no factors. Raises HbnError
    for a table without a column participant_id and for an id that stands twice.
    """
    used, rows, remarks = set(used), {}, defaultdict(list)
    for name, row in zip(participant_ids(table, where), map(_tidy, table), strict=True):
        if name in rows:
            raise HbnError(f"{where}: {name} stands twice in the column participant_id; keep the row that is right")
        if name in used:
            rows[name] = row
    columns = set().union(*rows.values())
    absent = [column for column in ("sex", "age", *FACTORS) if column not in columns] if rows else []

    def understood(row: dict[str, str], column: str, meaning: Callable[[str], Value | None]) -> Value | None:
        text = row.get(column, "n/a")
        value = meaning(text)
        if text != "n/a" and (value is None or not PLAIN.fullmatch(text)):
            remarks[column, text, value].append(row["participant_id"])
        return value

    participants = []
    for name, row in rows.items():
        factors = {factor: understood(row, factor, _number) for factor in FACTORS}
        known = {factor: value for factor, value in factors.items() if value is not None}
        participants.append(
            Participant(
                participant_id=name,
                release=release,
                sex=understood(row, "sex", lambda text: SEXES.get(text.lower())),
                age_years=understood(row, "age", _age_years),
                factors=known if len(known) == len(factors) else None,
            )
        )
    remark_lines = [f"{where} has no column {column}: it counts as unknown for everyone" for column in absent]
    for (column, text, value), names in remarks.items():
        more = f" and {len(names) - AT_MOST_NAMED} more" if len(names) > AT_MOST_NAMED else ""
        people = f"{', '.join(names[:AT_MOST_NAMED])}{more}"
        taken = "not understood and counts as unknown" if value is None else f"taken for {value}"
        remark_lines.append(f"{where}, column {column}: {text!r} of {people} is {taken}")
    return participants, remark_lines


def participant_ids(table: Sequence[Mapping[str, str | None]], where: str) -> list[str]:
    """The id of each row, which may be empty; HbnError for a table without a column participant_id."""
    rows = list(map(_tidy, table))
    if rows and "participant_id" not in rows[0]:
        raise HbnError(f"{where} has no column participant_id; it has {', '.join(rows[0])}")
    return [row["participant_id"] for row in rows]


def _tidy(row: Mapping[str, str | None]) -> dict[str, str]:
    """Cells without surrounding blanks, by column name in lower case; missing cells of a short row are empty."""
    return {name.strip().lower(): (cell or "").strip() for name, cell in row.items() if name is not None}


def _age_years(text: str) -> float | None:
    age_years = _number(text)
    return age_years if age_years is not None and 0 <= age_years <= OLDEST_YEARS else None


def _number(text: str) -> float | None:
    """The number in a cell, with a decimal point or comma; None for any other text."""
    if not re.fullmatch(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?", text):
        return None
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else None
