"""What to fetch of a release: its recordings, the participants who are chosen, and why the rest is not used."""

import logging
import re
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath

from hbn.data.bids import EEG_SUFFIXES, Recording
from hbn.data.manifest import OWN_FILES
from hbn.data.participants import Participant, parse_participants, participant_ids
from hbn.files import HbnError, existing

log = logging.getLogger(__name__)
AGE_GROUPS_FROM_YEARS = (0, 8, 10, 13)  # about the quartiles of HBN-EEG
SPARE_BYTES = 1e9  # left free on the disk
COMMON = re.compile(r"(?!sub-)[A-Za-z0-9][A-Za-z0-9_-]*(\.(tsv|json))?")  # files of the whole release
OTHER_SIGNALS = (".edf", ".vhdr", ".cnt", ".fif", ".mff", ".raw")  # that readers of BIDS know
NO_SIGNAL, OTHER_TASK = "no signal (.set or .bdf) of this recording", "another task than data.tasks"
NOT_CHOSEN = "participant not chosen, selection.tsv says why"
NOT_IN_TABLE, HIDDEN = "not in participants.tsv", "hidden"


@dataclass(frozen=True)
class Listing:
    """The files of a release, sorted."""

    common: list[str]  # of the whole release
    recordings: dict[Recording, list[str]]  # those with a signal, and their files
    unused: dict[str, str]  # the reason by path

    @property
    def columns(self) -> list[str]:
        """What data.tasks may name."""
        return sorted({name for recording in self.recordings for name in (recording.task, recording.column)})


@dataclass(frozen=True)
class Plan:
    """What to fetch of a release."""

    participants: list[Participant]  # the chosen ones
    recordings: dict[Recording, list[str]]  # of them and of data.tasks
    selection: list[dict]  # of everyone: chosen or not, and why
    paths: list[str]
    unused: dict[str, str]  # the reason by path
    called_available: list[str]  # recordings that participants.tsv calls available and that are not there
    remarks: list[str]  # on what was not understood in participants.tsv


def sort_paths(paths: list[str]) -> Listing:
    """Files of the whole release, those of each recording that has a signal, and why others are not used.

    Names come from outside: whatever does not fit HBN's layout is not used.
    """
    common, by_recording, unused = [], defaultdict(list), {}
    for path in paths:
        if path in OWN_FILES:  # of a tree that an earlier fetch made
            continue
        if COMMON.fullmatch(path):
            common.append(path)
            continue
        try:
            by_recording[Recording.of(path)].append(path)
        except HbnError:
            unused[path] = _why_odd(path)
    recordings = {}
    for files in by_recording.values():
        signals = [Recording.of(path) for path in signals_of(files)]
        if signals:
            own = [path for path in files if Recording.of(path).stem in {signal.stem for signal in signals}]
            recordings[signals[0]] = own
            unused |= dict.fromkeys(set(files) - set(own), "another spelling of the run than the signal's")
        else:
            other = {PurePosixPath(path).suffix for path in files} & set(OTHER_SIGNALS)
            reason = f"a signal in {' and '.join(sorted(other))}, only .set and .bdf are read" if other else NO_SIGNAL
            unused |= dict.fromkeys(files, reason)
    return Listing(common, recordings, unused)


def _why_odd(path: str) -> str:
    first, *rest = path.split("/")
    if any(part.startswith(".") for part in (first, *rest)):
        return HIDDEN
    if "ses-" in path:
        return "of a session (ses-), sessions are not read: move the files of one session to sub-ID/eeg without ses-"
    if not rest and first.startswith("sub-"):
        return "no folder but a file, or a broken link: `datalad get` or `git annex get` may bring it"
    if not rest:
        return "a file beside the participants' folders that is not read"
    if not re.fullmatch(r"sub-[A-Za-z0-9]+", first):
        return f"in {_printable(first)}/, which is no participant's folder (sub-ID)"
    if rest[0] != "eeg" or len(rest) > 2:
        return f"in {_printable('/'.join(['sub-ID', *rest[:-1]]))}, only sub-ID/eeg is read"
    return "not named sub-ID_task-TASK[_run-N]_... with its folder's ID"


def make_plan(release: str, data, listing: Listing, table: list[dict[str, str | None]]) -> Plan:
    """Choose participants and recordings by the section `data` of the parameters.

    `table` is participants.tsv, which only says who belongs to the release; which files exist, the listing says.
    Raises HbnError where there is nothing to choose from, and for an id of a chosen participant that stands twice.
    """
    if unknown := sorted(set(data.tasks) - set(listing.columns)):
        has = ", ".join(listing.columns) or "none that can be read"
        raise HbnError(f"{release}: no recording of data.tasks {unknown}; the source has {has}{_hint(listing.unused)}")
    wanted = {one: files for one, files in listing.recordings.items() if one.is_selected(data.tasks)}
    where = f"participants.tsv of {release}"
    ids = participant_ids(table, where)
    able = {one.participant_id for one in wanted} & set(ids)
    order = sorted(able)
    if data.select == "balanced":
        first = {name: row for name, row in zip(reversed(ids), reversed(table), strict=True) if name in able}
        order = balanced(parse_participants(list(first.values()), where, release, able)[0])
    in_table = set(ids) - {""}
    selection = select(order, in_table, listing, data)
    chosen = {row["participant_id"] for row in selection if row["chosen"] == "yes"}
    if not chosen:
        raise HbnError(
            f"{release}: participants.tsv ({min(in_table, default='empty')} ...) and data.participants name none of "
            f"those who have {data.tasks} ({min(wanted).participant_id} ...){_hint(listing.unused)}"
        )
    recordings = {one: wanted[one] for one in sorted(wanted) if one.participant_id in chosen}
    tasks = {one.task for one in recordings}
    common = [path for path in listing.common if not (task := re.match("task-([^_]+)_", path)) or task[1] in tasks]
    paths = common + [path for files in recordings.values() for path in files]
    unused = dict.fromkeys(sorted(set(listing.common) - set(common)), OTHER_TASK) | listing.unused
    for recording, files in listing.recordings.items():
        if recording.participant_id not in in_table:
            unused |= dict.fromkeys(files, NOT_IN_TABLE)
        elif recording not in recordings:
            unused |= dict.fromkeys(files, NOT_CHOSEN if recording in wanted else OTHER_TASK)
    called_available = _called_available(ids, table, listing, data.tasks)
    people, remarks = parse_participants(table, where, release, chosen)
    return Plan(people, recordings, selection, paths, unused, called_available, remarks)


def refuse_doubles(release: str, plan: Plan) -> None:
    """HbnError for a recording that is there in several files."""
    doubles = [names for files in plan.recordings.values() if len(names := signals_of(files)) > 1]
    if doubles:
        more = f" (and {len(doubles) - 1} more such recordings)" if len(doubles) > 1 else ""
        raise HbnError(
            f"{release}: one recording in {len(doubles[0])} files: {' and '.join(doubles[0])}{more}; keep one "
            "of them in the source, and move the others out of it"
        )


def signals_of(paths: list[str]) -> list[str]:
    """The signals among the files of a recording."""
    return sorted(path for path in paths if path.endswith(tuple(f"_eeg{suffix}" for suffix in EEG_SUFFIXES)))


def select(order: list[str], in_table: set[str], listing: Listing, data) -> list[dict]:
    """For everyone, by id: chosen or not, and why.

    `order` holds the ids of those who have recordings of data.tasks, `in_table` those of participants.tsv.
    """
    able = set(order)
    if data.participants:
        chosen = able & set(data.participants)
    else:
        chosen = set(order[: data.n_participants] if data.n_participants else order)
    number = {name: i for i, name in enumerate(order, start=1)}

    def reason(name: str) -> str:
        if name not in in_table:
            return NOT_IN_TABLE
        if name not in able:
            return "no recording of data.tasks"
        if data.participants:
            return "named in data.participants" if name in chosen else "not named in data.participants"
        place = f"number {number[name]} of {len(order)}, {data.select}"
        return place if name in chosen else f"{place}, beyond data.n_participants"

    everyone = sorted(in_table | {one.participant_id for one in listing.recordings})
    if missing := sorted(set(data.participants) - able):
        advice = "if they came since the bucket was listed, --refresh finds them"
        log.warning("%d of data.participants have nothing to fetch, such as %s; %s", len(missing), missing[0], advice)
    return [
        {"participant_id": name, "chosen": "yes" if name in chosen else "no", "reason": reason(name)}
        for name in everyone
    ]


def balanced(people: list[Participant]) -> list[str]:
    """Ids in turns over groups of sex and age, so that the first n are balanced for every n."""
    places = Counter()
    keys = {}
    for one in sorted(people, key=lambda one: one.participant_id):
        known = one.age_years is not None
        group = sum(one.age_years >= years for years in AGE_GROUPS_FROM_YEARS) if known else 99  # without an age: last
        stratum = (group, one.sex or "n/a")
        keys[one.participant_id] = (places[stratum], *stratum)
        places[stratum] += 1
    return sorted(keys, key=keys.__getitem__)


def estimate(plan: Plan, release: str, sizes: dict[str, int | None], absent: list[str]) -> None:
    """Log how much there is to do, by the bytes of every file (None: known once made) and those not here yet.

    HbnError if the disk cannot hold it.
    """
    known = [n for n in sizes.values() if n is not None]
    total = f"{sum(known) / 1e9:.3f} GB" if len(known) == len(sizes) else "size known once made"
    n_bytes = sum(sizes[path] or 0 for path in absent)
    free = shutil.disk_usage(existing(".")).free
    log.info(
        "%s: %d participants, %d recordings, %d files, %s; to fetch: %d files, %.3f GB; free disk: %.1f GB",
        *(release, len(plan.participants), len(plan.recordings), len(plan.paths), total),
        *(len(absent), n_bytes / 1e9, free / 1e9),
    )
    if n_bytes and n_bytes + SPARE_BYTES > free:
        raise HbnError(
            f"{release}: {n_bytes / 1e9:.1f} GB to fetch, but the disk has {free / 1e9:.1f} GB free (1 GB of it "
            "spare); choose fewer with data.n_participants, data.tasks or data.releases"
        )


def by_reason(unused: dict[str, str]) -> dict[str, dict]:
    """How many files are not used for each reason, and the first of them."""
    paths = defaultdict(list)
    for path, reason in unused.items():
        paths[reason].append(path)
    return {reason: {"files": len(names), "such_as": _printable(min(names))} for reason, names in sorted(paths.items())}


def tell(plan: Plan) -> None:
    """Log what is not used and what was not understood; what the parameters leave out is no warning."""
    for reason, facts in by_reason(plan.unused).items():
        level = logging.INFO if reason in (OTHER_TASK, NOT_CHOSEN, HIDDEN) else logging.WARNING
        log.log(level, "not used, %d files: %s (%s)", facts["files"], reason, facts["such_as"])
    for remark in plan.remarks:
        log.warning("%s", remark)
    if absent := plan.called_available:
        log.warning("%d recordings are called available but are not there, such as %s", len(absent), absent[0])


def _printable(path: str) -> str:
    """A name in one line and in UTF-8, whatever is in it."""
    return "".join(character if character.isprintable() else "?" for character in path)


def _hint(unused: dict[str, str]) -> str:
    """The reasons why files are not used, as the end of a sentence."""
    reasons = [
        f"{facts['files']} files are {reason} ({facts['such_as']})" for reason, facts in by_reason(unused).items()
    ]
    return f"; not used: {'; '.join(reasons)}" if reasons else ""


def _called_available(
    ids: list[str], table: list[dict[str, str | None]], listing: Listing, tasks: list[str]
) -> list[str]:
    listed = {one.participant_id for one in listing.recordings}
    present = {(one.participant_id, one.column) for one in listing.recordings}
    return [
        f"{name} {column}"
        for name, row in zip(ids, table, strict=True)
        for column, state in row.items()
        if state == "available" and name in listed
        if Recording("", *split_column(column)).is_selected(tasks) and (name, column) not in present
    ]


def split_column(column: str) -> tuple[str, int | None]:
    """Task and run of a column of participants.tsv."""
    task, _, run_number = column.rpartition("_")
    return (task, int(run_number)) if task and run_number.isdigit() else (column, None)
