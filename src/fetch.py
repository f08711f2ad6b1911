"""One release, from wherever data.preset or data.url points, as a BIDS tree on disk.

Reads  data.preset or data.url: simulated, an S3 bucket or a local folder
Writes data/raw/<release>/ with manifest.tsv (path, bytes, md5 or sha256) and
                           selection.tsv (each participant: chosen or not, and why)
       metrics/fetch/<release>.json

Files come through the scratch store: what was fetched before is not fetched again, and a killed
fetch goes on where it was. `python src/fetch.py R1 --estimate` only tells how much there is to
fetch (and how long it takes from a bucket); `--refresh` looks again what the source has, which
otherwise happens when something that is asked for is absent.
"""

import logging
import re
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from multiprocessing.pool import ThreadPool
from pathlib import Path

from joblib import delayed

from hbn.data.bids import EEG_SUFFIXES, Recording, is_placeholder
from hbn.files import HbnError, Store, atomic, checksum, existing, read_tsv, write_json, write_text, write_tsv
from hbn.params import NAME
from hbn.sources.source import Source, open_source
from hbn.sources.transfer import S3Source
from hbn.stage import data_source, in_parallel, progress, run, scratch, store

log = logging.getLogger(__name__)
MANIFEST, SELECTION = "manifest.tsv", "selection.tsv"
CHECKSUMS = "checksums.tsv"  # in the scratch folder
OWN_FILES = (MANIFEST, SELECTION, ".bidsignore")
AGE_GROUPS_FROM_YEARS = (0, 8, 10, 13)  # about the quartiles of HBN-EEG
SPARE_BYTES = 1e9  # left free on the disk


def main(p, release: str, *options: str) -> None:
    if unknown := set(options) - {"--estimate", "--refresh"}:
        raise HbnError(f"fetch.py does not know {' '.join(sorted(unknown))}; it knows --estimate and --refresh")
    if not re.fullmatch(NAME, release):
        raise HbnError(f"{release!r} is no release; the first argument is one, such as R1")
    source = open_source(p.data, release, p.simulator, p.exec, scratch())
    target, stored = Path("data/raw") / release, store("raw")
    if "--refresh" in options:
        source.refresh()
    plan = make_plan(p.data, release, source, stored)
    plan.estimate(release, source)
    if "--estimate" in options:
        return tell_time(release, source, plan, p.exec.transfers)
    shutil.rmtree(target, ignore_errors=True)
    manifest = transfer(source, plan, target, stored, p.exec)
    stored.trim(p.exec.scratch_gb)

    manifest.sort(key=lambda row: row["path"])
    write_tsv(target / MANIFEST, manifest, ["path", "bytes", "md5", "sha256"])
    write_tsv(target / SELECTION, plan.selection, ["participant_id", "chosen", "reason"])
    write_text(target / ".bidsignore", f"{MANIFEST}\n{SELECTION}\n")
    report(release, p, plan, manifest, source)


def make_plan(data, release: str, source: Source, stored: Store) -> "Plan":
    """What to fetch: of the saved listing, as long as that has some of what is asked for and all of it is here."""
    try:
        plan = Plan.make(data, release, source, stored)
        if not (source.is_saved and plan.absent):
            return plan
    except HbnError:
        if not source.is_saved:
            raise
    source.refresh()
    return Plan.make(data, release, source, stored)


@dataclass(frozen=True)
class Plan:
    """What to fetch, and which of the files are in the scratch store."""

    table: list[dict]  # participants.tsv
    recordings: dict[Recording, list[str]]  # all that the source lists
    chosen: list[Recording]
    selection: list[dict]
    wanted: dict[str, str]  # checksum by path, as far as it is known
    present: list[str]  # in the scratch store, with a checksum
    absent: list[str]

    @classmethod
    def make(cls, data, release: str, source: Source, stored: Store) -> "Plan":
        common, recordings = sort_paths(source.paths())
        if "participants.tsv" not in common:
            raise HbnError(f"{release}: the source lists no participants.tsv")
        place = scratch() / "participants" / f"{source.fingerprint('participants.tsv')}.tsv"
        bring(source, "participants.tsv", place, stored, known_of(source, "participants.tsv", recorded()))
        table = read_tsv(place)  # stays there, a small hardlink: experiments side by side have the same one
        if not all(row.get("participant_id") for row in table):
            raise HbnError(f"{release}: participants.tsv of the source has a row without participant_id ({place})")
        there = sorted({name for one in recordings for name in (one.task, one.column)})
        if unknown := sorted(set(data.tasks) - set(there)):
            raise HbnError(f"{release}: no recording of data.tasks {unknown}; the source has {', '.join(there)}")
        selection = select(table, recordings, data)
        people = {row["participant_id"] for row in selection if row["chosen"] == "yes"}
        if not people:
            raise HbnError(
                f"{release}: participants.tsv and data.participants name none of those who have {data.tasks}"
            )
        chosen = sorted(one for one in recordings if one.participant_id in people and one.is_selected(data.tasks))
        tasks = {one.task for one in chosen}
        paths = [path for path in common if not (of := re.match("task-([^_]+)_", path)) or of[1] in tasks]
        paths += [path for one in chosen for path in recordings[one]]
        record = recorded()
        wanted = {path: known_of(source, path, record) for path in paths}
        present = [path for path, known in wanted.items() if known and stored.has(source.fingerprint(path))]
        return cls(table, recordings, chosen, selection, wanted, present, sorted(set(wanted) - set(present)))

    def estimate(self, release: str, source: Source) -> None:
        """Log how much there is to do; HbnError if the disk cannot hold it."""
        sizes = [source.size(path) for path in self.wanted]
        total = "size known once made" if None in sizes else f"{sum(sizes) / 1e9:.3f} GB"
        n_bytes = sum(source.size(path) or 0 for path in self.absent)
        free = shutil.disk_usage(existing(".")).free
        log.info(
            "%s: %d participants, %d recordings, %d files, %s; to fetch: %d files, %.3f GB; free disk: %.1f GB",
            *(release, len({one.participant_id for one in self.chosen}), len(self.chosen), len(self.wanted), total),
            *(len(self.absent), n_bytes / 1e9, free / 1e9),
        )
        if n_bytes and n_bytes + SPARE_BYTES > free:
            raise HbnError(
                f"{release}: {n_bytes / 1e9:.1f} GB to fetch, but the disk has {free / 1e9:.1f} GB free (1 GB of it "
                "spare); choose fewer with data.n_participants, data.tasks or data.releases"
            )


def tell_time(release: str, source: Source, plan: Plan, transfers: int) -> None:
    """Log how long the transfer from a bucket will take, by the beginnings of a few files fetched at once."""
    sizes = {path: source.size(path) for path in plan.absent if source.size(path)}
    if not (isinstance(source, S3Source) and sizes):
        return
    longest = sorted(sizes, key=sizes.get)[-transfers:]
    started_s = time.monotonic()
    with ThreadPool(transfers) as pool:
        n_bytes = sum(pool.imap_unordered(source.sample, longest))
    bytes_per_s = n_bytes / (time.monotonic() - started_s)
    log.info(
        "%s: about %s at %.3g MB/s, as measured on %.1f MB of %d files (not kept)",
        *(release, timedelta(seconds=round(sum(sizes.values()) / bytes_per_s)), bytes_per_s / 1e6),
        *(n_bytes / 1e6, len(longest)),
    )


def transfer(source: Source, plan: Plan, target: Path, stored: Store, execution) -> list[dict]:
    """Bring all wanted files to `target`, several at once; the rows of the manifest."""

    def one(path: str) -> dict:
        return bring(source, path, target / path, stored, plan.wanted[path])

    manifest = in_threads(one, plan.present, execution.transfers)
    started_s, n_bytes = time.monotonic(), sum(source.size(path) or 0 for path in plan.absent)
    # Long files first, so that none is left alone at the end.
    order = sorted(plan.absent, key=lambda path: source.size(path) or 0, reverse=True)
    if not source.in_threads:
        jobs = (delayed(bring)(source, path, target / path, stored, plan.wanted[path]) for path in order)
        made = in_parallel(execution.workers, return_as="generator_unordered")(jobs)
        return [*manifest, *progress(made, total=len(order), unit="file")]
    with progress(total=n_bytes, unit="B", unit_scale=True) as bar:
        source.progress = bar.update
        manifest += in_threads(one, order, execution.transfers)
    seconds = time.monotonic() - started_s
    if plan.absent:
        log.info(
            "%d files, %.3f GB in %.1f s, %.1f MB/s", len(plan.absent), n_bytes / 1e9, seconds, n_bytes / seconds / 1e6
        )
    return manifest


def in_threads(work: Callable[[str], dict], paths: list[str], n_threads: int) -> list[dict]:
    """What `work` gives for each path, in any order; after an error, no other path is begun."""
    left = list(paths)
    queue = iter(left)  # of which each thread takes the next

    def several(_number: int) -> list[dict]:
        try:
            return [work(path) for path in queue]
        finally:
            left.clear()  # after an error, the others end with what they have under way

    with ThreadPool(n_threads) as pool:
        return list(chain.from_iterable(pool.imap_unordered(several, range(n_threads))))


def sort_paths(paths: list[str]) -> tuple[list[str], dict[Recording, list[str]]]:
    """Files of the whole release, and those of each recording that has a signal.

    Names come from outside: whatever does not fit HBN's layout is left out and logged.
    """
    common, by_recording, refused = [], defaultdict(list), []
    for path in paths:
        if path in OWN_FILES:  # of a tree that an earlier fetch made
            continue
        if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.(tsv|json))?", path):
            common.append(path)
            continue
        try:
            by_recording[Recording.of(path)].append(path)
        except HbnError:
            refused.append(path)
    if refused:
        log.warning("%d files do not fit HBN's layout and are left out, such as %r", len(refused), refused[0])
    with_signal = {
        one: files
        for one, files in by_recording.items()
        if any(path.endswith(suffix) for path in files for suffix in EEG_SUFFIXES)
    }
    return common, with_signal


def select(table: list[dict], recordings: dict[Recording, list[str]], data) -> list[dict]:
    """For every participant, by id: chosen or not, and why.

    participants.tsv only says who belongs to the release; which files exist, the listing says.
    """
    by_id = {row["participant_id"]: row for row in table}
    able = {one.participant_id for one in recordings if one.is_selected(data.tasks)} & set(by_id)
    order = sorted(able) if data.select == "by_id" else balanced([by_id[name] for name in sorted(able)])
    if data.participants:
        chosen = able & set(data.participants)
    else:
        chosen = set(order[: data.n_participants] if data.n_participants else order)

    number = {name: i for i, name in enumerate(order, start=1)}

    def reason(name: str) -> str:
        if name not in by_id:
            return "not in participants.tsv"
        if name not in able:
            return "no recording of data.tasks"
        if data.participants:
            return "named in data.participants" if name in chosen else "not named in data.participants"
        place = f"number {number[name]} of {len(order)}, {data.select}"
        return place if name in chosen else f"{place}, beyond data.n_participants"

    everyone = sorted(set(by_id) | {one.participant_id for one in recordings})
    if missing := sorted(set(data.participants) - able):
        advice = "if they came since the bucket was listed, --refresh finds them"
        log.warning("%d of data.participants have nothing to fetch, such as %s; %s", len(missing), missing[0], advice)
    return [
        {"participant_id": name, "chosen": "yes" if name in chosen else "no", "reason": reason(name)}
        for name in everyone
    ]


def balanced(table: list[dict]) -> list[str]:
    """Ids in turns over groups of sex and age, so that the first n are balanced for every n."""
    places = Counter()
    keys = {}
    for row in table:
        try:
            group = sum(float(row["age"]) >= years for years in AGE_GROUPS_FROM_YEARS)
        except (KeyError, TypeError, ValueError):
            group = 99  # without an age: last
        stratum = (group, row.get("sex") or "n/a")
        keys[row["participant_id"]] = (places[stratum], *stratum)
        places[stratum] += 1
    return sorted(keys, key=keys.get)


def bring(source: Source, path: str, destination: Path, stored: Store, known: str) -> dict:
    """One file to its final name, from the scratch store if that has it with this checksum; its row of the manifest."""
    key = source.fingerprint(path)
    with source.turn(path):
        if not (known and is_right(stored.path(key), known) and stored.fetch(key, destination)):
            with atomic(destination, durable=False) as temporary:
                known = source.write(path, temporary) or checksum(temporary)
                if path.endswith(EEG_SUFFIXES) and is_placeholder(temporary):
                    raise HbnError(
                        f"{path} is a placeholder at the source, not a recording: get the file there "
                        f"(`datalad get {path}`), or take another data.preset"
                    )
            stored.put(key, destination)
            if known != source.checksum(path):
                with open(scratch() / CHECKSUMS, "a") as record:
                    record.write(f"{key}\t{known}\n")
    algorithm, _, value = known.partition(":")
    return {"path": path, "bytes": source.size(path) or destination.stat().st_size, algorithm: value}


def is_right(file: str, known: str) -> bool:
    """Whether the scratch store has a file, and it is still what was fetched."""
    try:
        found = checksum(file, known.partition(":")[0])
    except FileNotFoundError:
        return False
    if found != known:
        log.warning("the scratch store is damaged, fetching again: %s has %s, not %s", file, found, known)
    return found == known


def recorded() -> dict[str, str]:
    """Checksums of what was ever fetched into the scratch store and has another or none at its source."""
    record = scratch() / CHECKSUMS
    lines = record.read_text(errors="replace").splitlines() if record.exists() else []
    return dict(line.split("\t") for line in lines if line.count("\t") == 1)


def known_of(source: Source, path: str, record: dict[str, str]) -> str:
    """The checksum of a file as it was recorded, else as its source tells, else empty."""
    return record.get(source.fingerprint(path)) or source.checksum(path) or ""


def report(release: str, p, plan: Plan, manifest: list[dict], source: Source) -> None:
    """Counts, what participants.tsv calls available but is not there, and the source's own facts."""
    recordings, chosen = plan.recordings, plan.chosen
    people = {one.participant_id for one in chosen}
    listed = {one.participant_id for one in recordings}
    there = {(one.participant_id, one.column) for one in recordings}
    absent = [
        f"{row['participant_id']} {column}"
        for row in plan.table
        for column, state in row.items()
        if state == "available" and row["participant_id"] in listed
        if Recording("", *split_column(column)).is_selected(p.data.tasks)
        and (row["participant_id"], column) not in there
    ]
    if absent:
        log.warning("%d recordings are called available but are not there, such as %s", len(absent), absent[0])
    facts = source.facts(chosen)
    for name, value in facts.get("ceiling", {}).items():
        log.info("ceiling of %s: %.3f", name, value)
    write_json(
        f"metrics/fetch/{release}.json",
        {
            "source": data_source(p.data),
            "participants": len(people),
            "recordings": dict(Counter(one.column for one in chosen)),
            "bytes": sum(row["bytes"] for row in manifest),
            "called_available_but_absent": absent,
            **facts,
        },
    )


def split_column(column: str) -> tuple[str, int | None]:
    """Task and run of a column of participants.tsv."""
    task, _, run_number = column.rpartition("_")
    return (task, int(run_number)) if task and run_number.isdigit() else (column, None)


if __name__ == "__main__":
    run(
        main,
        reads=(
            "data.endpoint_url",
            "data.n_participants",
            "data.participants",
            "data.preset",
            "data.select",
            "data.tasks",
            "data.url",
            "simulator",
        ),
    )
