"""The plan of what to fetch of a release: chosen participants, their recordings, and why other files are not used."""

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
COMMON = re.compile(r"(?!sub-)[A-Za-z0-9][A-Za-z0-9_-]*(\.(tsv|json))?")  # names of files of the whole release
OTHER_SIGNALS = (".edf", ".vhdr", ".cnt", ".fif", ".mff", ".raw")  # signals of BIDS that this pipeline does not read
NO_SIGNAL, OTHER_TASK = "no signal (.set or .bdf) of this recording", "another task than data.tasks"
NOT_CHOSEN = "participant not chosen, selection.tsv says why"
NOT_IN_TABLE, HIDDEN = "not in participants.tsv", "hidden"


@dataclass(frozen=True)
class Listing:
    """The files of a release, sorted."""

    common: list[str]  # of the whole release
    recordings: dict[Recording, list[str]]  # the files of each recording that has a signal
    unused: dict[str, str]  # path -> reason

    @property
    def columns(self) -> list[str]:
        """The names that data.tasks may hold: tasks and columns of participants.tsv."""
        return sorted({name for recording in self.recordings for name in (recording.task, recording.column)})


@dataclass(frozen=True)
class Plan:
    """What to fetch of a release."""

    participants: list[Participant]  # the chosen ones
    recordings: dict[Recording, list[str]]  # those of the chosen participants and of data.tasks, with their files
    selection: list[dict]  # a row for each participant: chosen or not, and why
    paths: list[str]
    unused: dict[str, str]  # path -> reason
    called_available: list[str]  # absent recordings that participants.tsv calls available
    remarks: list[str]  # on cells of participants.tsv that were not understood


def sort_paths(paths: list[str]) -> Listing:
    """Sort files into those of the release, those of each recording with a signal, and unused ones with the reason.

    The names are not trusted: a file that does not fit HBN's layout is not used.
    """
    common, by_recording, unused = [], defaultdict(list), {}
    for path in paths:
        if path in OWN_FILES:  # written by an earlier fetch, if the source is one of its trees
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

    `table` is participants.tsv; it decides who belongs to the release. The listing decides which files exist.
    Raises HbnError if there is nothing to choose from, and if the id of a chosen participant stands twice.
    """
    if unknown := sorted(set(data.tasks) - set(listing.columns)):
        has = ", ".join(listing.columns) or "none that can be read"
        raise HbnError(f"{release}: no recording of data.tasks {unknown}; the source has {has}{_hint(listing.unused)}")
    wanted = {recording: files for recording, files in listing.recordings.items() if recording.is_selected(data.tasks)}
    where = f"participants.tsv of {release}"
    ids = participant_ids(table, where)
    able = {recording.participant_id for recording in wanted} & set(ids)
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
    recordings = {recording: wanted[recording] for recording in sorted(wanted) if recording.participant_id in chosen}
    tasks = {recording.task for recording in recordings}
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
    """HbnError for a recording that has several signal files."""
    doubles = [names for files in plan.recordings.values() if len(names := signals_of(files)) > 1]
    if doubles:
        more = f" (and {len(doubles) - 1} more such recordings)" if len(doubles) > 1 else ""
        raise HbnError(
            f"{release}: one recording in {len(doubles[0])} files: {' and '.join(doubles[0])}{more}; keep one "
            "of them in the source, and move the others out of it"
        )


def signals_of(paths: list[str]) -> list[str]:
    """The signal files among the files of a recording, sorted."""
    return sorted(path for path in paths if path.endswith(tuple(f"_eeg{suffix}" for suffix in EEG_SUFFIXES)))


def select(order: list[str], in_table: set[str], listing: Listing, data) -> list[dict]:
    """A row for each participant, sorted by id: chosen or not, and why.

    `order` holds the ids with recordings of data.tasks, in the order of choice; `in_table` those of participants.tsv.
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

    everyone = sorted(in_table | {recording.participant_id for recording in listing.recordings})
    if missing := sorted(set(data.participants) - able):
        advice = "if they came since the bucket was listed, --refresh finds them"
        log.warning("%d of data.participants have nothing to fetch, such as %s; %s", len(missing), missing[0], advice)
    return [
        {"participant_id": name, "chosen": "yes" if name in chosen else "no", "reason": reason(name)}
        for name in everyone
    ]


def balanced(people: list[Participant]) -> list[str]:
    """Ids, taken in turn from groups of sex and age, so that the first n are balanced for every n."""
    places = Counter()
    keys = {}
    for person in sorted(people, key=lambda person: person.participant_id):
        known = person.age_years is not None
        group = sum(person.age_years >= years for years in AGE_GROUPS_FROM_YEARS) if known else 99  # unknown: last
        stratum = (group, person.sex or "n/a")
        keys[person.participant_id] = (places[stratum], *stratum)
        places[stratum] += 1
    return sorted(keys, key=keys.__getitem__)


def estimate(plan: Plan, release: str, sizes: dict[str, int | None], absent: list[str]) -> None:
    """Log the size of a plan, from the bytes of each file (None until it is made) and the files that are `absent`.

    HbnError if the disk cannot hold the absent files.
    """
    n_bytes = sum(sizes[path] or 0 for path in absent)
    free = shutil.disk_usage(existing(".")).free
    log.info(
        "%s: %d participants, %d recordings, %d files, %s; to fetch: %d files, %s; free disk: %.1f GB",
        *(release, len(plan.participants), len(plan.recordings), len(plan.paths), in_gb(list(sizes.values()))),
        *(len(absent), in_gb([sizes[path] for path in absent]), free / 1e9),
    )
    if n_bytes and n_bytes + SPARE_BYTES > free:
        raise HbnError(
            f"{release}: {n_bytes / 1e9:.1f} GB to fetch, but the disk has {free / 1e9:.1f} GB free (1 GB of it "
            "spare); choose fewer with data.n_participants, data.tasks or data.releases"
        )


def in_gb(sizes: list[int | None]) -> str:
    """The sum of sizes in bytes as text; None is the size of a file that is yet to be made."""
    known = [n for n in sizes if n is not None]
    return f"{sum(known) / 1e9:.3f} GB" if len(known) == len(sizes) else "size known once made"


def by_reason(unused: dict[str, str]) -> dict[str, dict]:
    """For each reason, the number of unused files and the first of them."""
    paths = defaultdict(list)
    for path, reason in unused.items():
        paths[reason].append(path)
    return {reason: {"files": len(names), "such_as": _printable(min(names))} for reason, names in sorted(paths.items())}


def tell(plan: Plan) -> None:
    """Log which files are not used and what was not understood. Files that the parameters leave out give no warning."""
    for reason, facts in by_reason(plan.unused).items():
        level = logging.INFO if reason in (OTHER_TASK, NOT_CHOSEN, HIDDEN) else logging.WARNING
        log.log(level, "not used, %d files: %s (%s)", facts["files"], reason, facts["such_as"])
    for remark in plan.remarks:
        log.warning("%s", remark)
    if absent := plan.called_available:
        log.warning("%d recordings are called available but are not there, such as %s", len(absent), absent[0])


def _printable(path: str) -> str:
    """A name with '?' for each character that cannot be printed."""
    return "".join(character if character.isprintable() else "?" for character in path)


def _hint(unused: dict[str, str]) -> str:
    """The reasons why files are not used, to append to a message."""
    reasons = [
        f"{facts['files']} files are {reason} ({facts['such_as']})" for reason, facts in by_reason(unused).items()
    ]
    return f"; not used: {'; '.join(reasons)}" if reasons else ""


def _called_available(
    ids: list[str], table: list[dict[str, str | None]], listing: Listing, tasks: list[str]
) -> list[str]:
    listed = {recording.participant_id for recording in listing.recordings}
    present = {(recording.participant_id, recording.column) for recording in listing.recordings}
    return [
        f"{name} {column}"
        for name, row in zip(ids, table, strict=True)
        for column, state in row.items()
        if state == "available" and name in listed
        if Recording("", *split_column(column)).is_selected(tasks) and (name, column) not in present
    ]


def split_column(column: str) -> tuple[str, int | None]:
    """The task and the run of a column of participants.tsv, such as contrastChangeDetection_1."""
    task, _, run_number = column.rpartition("_")
    return (task, int(run_number)) if task and run_number.isdigit() else (column, None)
