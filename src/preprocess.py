"""Filtered, repaired, average-referenced recordings of one release.

Reads  data/raw/<release>
Writes data/preprocessed/<release>/  per recording <participant>/<stem>_eeg.npy (float16, time-major (T, C))
                                     and _eeg.json (see hbn.data.preprocessing), and rejected.tsv
       metrics/preprocess/<release>.json, plots/preprocess/<release>_spectrum.csv
"""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from hbn.data import preprocessing
from hbn.data.bids import Recording, UnusableRecording, recordings
from hbn.data.manifest import read_label, read_manifest, signal_md5s
from hbn.files import HbnError, Store, code_digest, digest, existing, write_csv, write_json, write_tsv
from hbn.parallel import in_order
from hbn.stage import progress, run, store


def main(p, release: str) -> None:
    raw = existing(Path("data/raw") / release, made_by=f"fetch@{release}")
    target, scratch = Path("data/preprocessed") / release, store("preprocessed")
    listed = recordings(raw)
    work = jobs(release, raw, listed, target, p.preprocess, scratch)
    shutil.rmtree(target, ignore_errors=True)
    if not listed:
        raise HbnError(f"{raw} holds no recording; check data.tasks and data.n_participants, then `dvc repro fetch`")
    errors = list(progress(in_order(work, p.exec), total=len(listed), unit="recording"))
    for partial in target.glob("*/.*"):  # half-written files of lost cluster workers
        partial.unlink()
    scratch.trim(p.exec.scratch_gb)

    rejected = rejections([recording for recording, _ in listed], errors)
    write_tsv(target / "rejected.tsv", rejected, ["recording", "reason", "detail"])
    if len(rejected) > p.preprocess.max_rejected_fraction * len(listed) or len(rejected) == len(listed):
        reasons = dict(Counter(row["reason"] for row in rejected))
        raise HbnError(
            f"{len(rejected)} of {len(listed)} recordings of {release} were rejected ({reasons}), "
            f"preprocess.max_rejected_fraction is {p.preprocess.max_rejected_fraction:g}; see {target}/rejected.tsv"
        )
    facts, tasks = preprocessing.read_facts(target), [recording.task for recording, _ in listed]
    label = {"source": read_label(raw, made_by=f"fetch@{release}")}
    write_json(f"metrics/preprocess/{release}.json", label | preprocessing.counts(tasks, rejected, facts))
    spectrum = preprocessing.median_spectrum(facts)
    write_csv(f"plots/preprocess/{release}_spectrum.csv", spectrum, ["frequency_hz", "before_db", "after_db"])


def jobs(
    release: str, raw: Path, listed: list[tuple[Recording, Path]], target: Path, p, scratch: Store
) -> Iterator[tuple]:
    """The job of each recording; the key of its files in the scratch store depends on everything that decides them."""
    manifest = read_manifest(raw, made_by=f"fetch@{release}")
    md5s, code = signal_md5s(manifest), code_digest(*preprocessing.MODULES)
    decisive = p.model_dump(exclude={"max_rejected_fraction"})
    for recording, path in listed:
        name = path.relative_to(raw).as_posix()
        if name not in manifest:
            raise HbnError(f"{path} is not listed in {raw}/manifest.tsv; run `dvc repro -f fetch@{release}`")
        key = digest([md5s[name.rpartition("_")[0]], decisive, code])
        yield preprocessing.process, recording, path, manifest[name], target, p, scratch, key


def rejections(listed: list[Recording], errors: list[UnusableRecording | None]) -> list[dict]:
    """Rows of rejected.tsv, and the task of each."""
    return [
        {"recording": recording.stem, "task": recording.task, "reason": error.reason, "detail": error.detail}
        for recording, error in zip(listed, errors, strict=True)
        if error
    ]


if __name__ == "__main__":
    run(main, reads=("preprocess",))
