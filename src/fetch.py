"""One release, from wherever data.url points, as a BIDS tree on disk.

Reads  data.url: simulated://{release} or a local folder
Writes data/raw/<release>/ with manifest.tsv (path, bytes, sha256)
       metrics/fetch/<release>.json

Files come through the scratch store: what was fetched before is not fetched again, and a killed
fetch goes on where it was.
"""

import logging
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path

from joblib import delayed
from tqdm import tqdm

from hbn import params
from hbn.bids import EEG_SUFFIXES, Recording
from hbn.files import HbnError, Store, atomic, read_tsv, sha256, write_json, write_text, write_tsv
from hbn.sources import Source, open_source
from hbn.stage import data_source, in_parallel, run, store

log = logging.getLogger(__name__)
MANIFEST = "manifest.tsv"


def main(p, release: str) -> None:
    source = open_source(p.data.url, release, p.simulator)
    target, scratch = Path("data/raw") / release, store("raw")
    shutil.rmtree(target, ignore_errors=True)
    common, recordings = sort_paths(source.paths())
    if "participants.tsv" not in common:
        raise HbnError(f"{release}: the source lists no participants.tsv")
    manifest = [bring(source, "participants.tsv", target, scratch)]
    table = read_tsv(target / "participants.tsv")
    there = sorted({name for one in recordings for name in (one.task, one.column)})
    unknown = sorted(set(p.data.tasks) - set(there))
    if unknown:
        raise HbnError(f"{release}: no recording of data.tasks {unknown}; the source has {', '.join(there)}")
    chosen = choose([row["participant_id"] for row in table], recordings, p.data.tasks, p.data.n_participants)
    if not chosen:
        raise HbnError(f"{release}: participants.tsv names none of those who have recordings of {p.data.tasks}")
    wanted = [path for path in common if path != "participants.tsv"] + [
        path for one in chosen for path in recordings[one]
    ]
    parallel = in_parallel(p.exec.workers, return_as="generator_unordered")
    work = parallel(delayed(bring)(source, path, target, scratch) for path in wanted)
    manifest += tqdm(work, total=len(wanted), unit="file", disable=None)
    scratch.trim(p.exec.scratch_gb)

    manifest.sort(key=lambda row: row["path"])
    write_tsv(target / MANIFEST, manifest, ["path", "bytes", "sha256"])
    write_text(target / ".bidsignore", f"{MANIFEST}\n")
    report(release, p, table, recordings, chosen, manifest, source)


def sort_paths(paths: list[str]) -> tuple[list[str], dict[Recording, list[str]]]:
    """Files of the whole release, and those of each recording that has a signal.

    Names come from outside: whatever does not fit HBN's layout is left out and logged.
    """
    common, by_recording, refused = [], defaultdict(list), []
    for path in paths:
        if path in (MANIFEST, ".bidsignore"):  # of a tree that an earlier fetch made
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


def choose(
    ids: list[str], recordings: dict[Recording, list[str]], tasks: list[str], n_participants: int
) -> list[Recording]:
    """Recordings of the selected tasks of the first n participants (by id) who have any.

    participants.tsv only says who belongs to the release; which files exist, the listing says.
    """
    selected = sorted(one for one in recordings if one.is_selected(tasks))
    people = sorted({one.participant_id for one in selected} & set(ids))
    people = set(people[:n_participants] if n_participants else people)
    return [one for one in selected if one.participant_id in people]


def bring(source: Source, path: str, target: Path, scratch: Store) -> dict:
    """One file to its final name, from the scratch store if it was fetched before; its row of the manifest."""
    key = source.fingerprint(path)
    if not scratch.fetch(key, target / path):
        with atomic(target / path) as temporary:
            source.write(path, temporary)
        scratch.put(key, target / path)
    return {"path": path, "bytes": (target / path).stat().st_size, "sha256": sha256(target / path)}


def report(
    release: str,
    p: params.Params,
    table: list[dict],
    recordings: dict,
    chosen: list[Recording],
    manifest: list,
    source: Source,
) -> None:
    """Counts, what participants.tsv calls available but is not there, and the source's own facts."""
    people = {one.participant_id for one in chosen}
    listed = {one.participant_id for one in recordings}
    there = {(one.participant_id, one.column) for one in recordings}
    absent = [
        f"{row['participant_id']} {column}"
        for row in table
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
            "source": data_source(p.data.url),
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
    run(main, reads=("data.n_participants", "data.tasks", "data.url", "simulator"))
