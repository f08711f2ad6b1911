"""Fetch one release from data.preset or data.url, as a BIDS tree on disk.

Reads  data.preset or data.url: simulated, an S3 bucket or a local folder
Writes data/raw/<release>/ with manifest.tsv (path, bytes, md5), selection.tsv (each participant: chosen or
                           not, and why) and source.json (label of the data, for all later metrics)
       metrics/fetch/<release>.json, the only file that names the address

Files go through the scratch store, so no file is fetched twice, and a killed fetch goes on where it
was. `python src/fetch.py R1 --estimate` only logs how much there is to fetch, and how long it takes
from a bucket. `--refresh` lists the source anew. Without it, the source is listed anew only if a
requested file is absent here.
"""

import logging
import re
import shutil
from collections import Counter
from datetime import timedelta
from pathlib import Path

from hbn.data.manifest import read_label, write_manifest
from hbn.files import HbnError, write_json
from hbn.params import NAME
from hbn.sources.plan import Plan, by_reason, estimate, make_plan, refuse_doubles, sort_paths, tell
from hbn.sources.source import Source, address, open_source
from hbn.sources.transfer import Transfer
from hbn.stage import run, scratch

log = logging.getLogger(__name__)
OPTIONS = {"--estimate", "--refresh"}


def main(p, release: str, *options: str) -> None:
    if unknown := set(options) - OPTIONS:
        raise HbnError(f"fetch.py does not know {' '.join(sorted(unknown))}; it knows {' and '.join(sorted(OPTIONS))}")
    if not re.fullmatch(NAME, release):
        raise HbnError(f"{release!r} is no release; the first argument is a release, such as R1")
    source = open_source(p.data, release, p.simulator, p.exec, scratch())
    transfer, target = Transfer(source, p.exec), Path("data/raw") / release
    if "--refresh" in options:
        source.refresh()
    plan = plan_of(source, transfer, release, p.data)
    refuse_doubles(release, plan)
    for path in plan.paths:
        source.check(path)
    absent = transfer.absent(plan.paths)
    estimate(plan, release, {path: source.size(path) for path in plan.paths}, absent)
    tell(plan)
    if "--estimate" in options:
        return tell_time(release, source, absent, p.exec.transfers)
    shutil.rmtree(target, ignore_errors=True)
    manifest = transfer.bring_all(plan.paths, target)
    write_manifest(target, manifest, plan.selection)
    report(release, address(p.data), plan, manifest, source)


def plan_of(source: Source, transfer: Transfer, release: str, data) -> Plan:
    """The plan of a fetch: from the saved listing if it gives a plan whose files are all here, else from a new one."""

    def plan() -> Plan:
        listing = sort_paths(source.paths())
        if "participants.tsv" not in listing.common:
            raise HbnError(f"{release}: the source lists no participants.tsv")
        return make_plan(release, data, listing, transfer.participants())

    try:
        made = plan()
        if not (source.is_saved and transfer.absent(made.paths)):
            return made
    except HbnError:
        if not source.is_saved:
            raise
    source.refresh()
    return plan()


def tell_time(release: str, source: Source, absent: list[str], transfers: int) -> None:
    """Log how long the transfer from a bucket will take, measured on the beginnings of a few files."""
    sizes = {path: n_bytes for path in absent if (n_bytes := source.size(path))}
    if not sizes or not (measured := source.rate(list(sizes), transfers)):
        return
    bytes_per_s, n_bytes = measured
    log.info(
        "%s: about %s at %.3g MB/s, as measured on %.1f MB of %d files (not kept)",
        *(release, timedelta(seconds=round(sum(sizes.values()) / bytes_per_s)), bytes_per_s / 1e6),
        *(n_bytes / 1e6, min(len(sizes), transfers)),
    )


def report(release: str, where: str, plan: Plan, manifest: list[dict], source: Source) -> None:
    """Write the metrics: counts, unused files with reasons, and the source's own facts."""
    facts = source.facts(list(plan.recordings))
    for name, value in facts.get("ceiling", {}).items():
        log.info("score of an ideal observer, %s: %s", name, "undefined" if value is None else f"{value:.3f}")
    write_json(
        f"metrics/fetch/{release}.json",
        {
            "source": where,
            "dataset": read_label(Path("data/raw") / release, made_by=f"fetch@{release}"),
            "participants": len(plan.participants),
            "recordings": dict(Counter(recording.column for recording in plan.recordings)),
            "bytes": sum(row["bytes"] for row in manifest),
            "called_available_but_absent": plan.called_available,
            "unused": by_reason(plan.unused),
            "not_understood": plan.remarks,
            **facts,
        },
    )


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
