"""One dataset out of the releases in data.releases, complete in itself for the training stages.

Reads  data/windows/<release> of each listed release
Writes data/dataset/   recordings (linked, not copied), recordings.csv, windows.npy, trials.csv,
                       participants.csv, channels.csv (electrode positions), about.json
       metrics/dataset.json, plots/dataset/

Everything of releases that are no longer listed is removed, so that what this stage depends on, and what
stands in metrics/, is the same with and without a history (DVC keeps the outputs of a matrix stage that is
gone). The scratch store and the DVC cache still have it.
"""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np

from hbn.data import bids
from hbn.data.manifest import join_labels, read_label
from hbn.data.splits import SPLITS
from hbn.data.windows import RECORDING_COLUMNS
from hbn.files import HbnError, atomic, existing, link, read_csv, write_csv, write_json
from hbn.stage import run

# What the stages before keep per release.
OF_RELEASES = [
    *(Path("data") / name for name in ("raw", "preprocessed", "windows")),
    *(Path("metrics") / name for name in ("fetch", "preprocess", "windows")),
    Path("plots/preprocess"),
]
# Cumulative shares of the response times (s) of contrast change detection in real HBN-EEG: event tables of
# 1,723 blocks of 800 participants in four releases.
HBN_RT_S = {0.0: 0, 0.24: 0.01, 0.93: 0.05, 1.36: 0.25, 1.60: 0.5, 1.85: 0.75, 2.21: 0.95, 2.35: 0.99, 2.4: 1}


def main(p) -> None:
    source, target = Path("data/windows"), Path("data/dataset")
    for stale in (path for folder in OF_RELEASES if folder.exists() for path in folder.iterdir()):
        if stale.stem.removesuffix("_spectrum") not in p.data.releases:
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()

    recordings, trials, participants, windows, labels = [], [], [], [], []
    for release in p.data.releases:
        folder = existing(source / release, made_by=f"cache_windows@{release}")
        offset = len(recordings)
        labels.append(read_label(folder, made_by=f"cache_windows@{release}"))
        recordings += read_csv(folder / "recordings.csv")
        trials += read_csv(folder / "trials.csv")
        participants += read_csv(folder / "participants.csv")
        windows.append(np.load(folder / "windows.npy", allow_pickle=False) + np.array([offset, 0]))
        for path in sorted((folder / "recordings").rglob("*.npy")):
            link(path, target / "recordings" / release / path.relative_to(folder / "recordings"))

    twice = [name for name, n in Counter(one["participant_id"] for one in participants).items() if n > 1]
    if twice:
        raise HbnError(f"participants in two releases: {', '.join(twice)}; drop one of the releases in data.releases")
    counts = {
        split: {
            "participants": len(ids := {one["participant_id"] for one in participants if one["split"] == split}),
            "trials": sum(trial["participant_id"] in ids for trial in trials),
            "answered_trials": sum(trial["participant_id"] in ids and trial["rt_s"] != "" for trial in trials),
        }
        for split in SPLITS
    }
    if empty := [split for split in SPLITS if not counts[split]["participants"]]:
        raise HbnError(
            f"no participant in the {' and '.join(empty)} split; raise data.n_participants or change the section splits"
        )

    write_csv(target / "recordings.csv", recordings, RECORDING_COLUMNS)
    write_csv(target / "trials.csv", trials, list(trials[0]) if trials else ["participant_id"])
    write_csv(target / "participants.csv", participants, list(participants[0]))
    with atomic(target / "windows.npy") as temporary, open(temporary, "wb") as file:
        np.save(file, np.concatenate(windows))  # (N, 2): row of recordings.csv, start sample
    positions = bids.electrode_positions_m()  # (C, 3)
    rows = [
        {"channel": name, "x_m": x, "y_m": y, "z_m": z}
        for name, (x, y, z) in zip(bids.CHANNELS, positions, strict=True)
    ]
    write_csv(target / "channels.csv", rows, ["channel", "x_m", "y_m", "z_m"])
    source = join_labels(labels)
    write_json(target / "about.json", {"source": source})
    write_json("metrics/dataset.json", {"source": source, "splits": counts, "windows": sum(map(len, windows))})
    write_plots(participants, trials, Counter(recordings[i]["participant_id"] for i in np.concatenate(windows)[:, 0]))


def write_plots(participants: list[dict], trials: list[dict], windows: Counter) -> None:
    """Windows of each participant, and the distribution of response times in each split beside the real one."""
    rows = [{**one, "windows": windows[one["participant_id"]]} for one in participants]
    write_csv("plots/dataset/windows.csv", rows, ["participant_id", "release", "split", "windows"])
    split = {one["participant_id"]: one["split"] for one in participants}
    edges_s = np.linspace(0.0, 2.4, 25)
    shares = {"rt_s": (edges_s[1:] + edges_s[:-1]) / 2}
    for name in SPLITS:
        rt_s = [float(t["rt_s"]) for t in trials if t["rt_s"] and split[t["participant_id"]] == name]
        shares[name] = np.histogram(rt_s, bins=edges_s)[0] / max(1, len(rt_s))
    shares["hbn"] = np.diff(np.interp(edges_s, list(HBN_RT_S), list(HBN_RT_S.values())))
    rows = [dict(zip(shares, map(float, row), strict=True)) for row in zip(*shares.values(), strict=True)]
    write_csv("plots/dataset/response_times.csv", rows, list(shares))


if __name__ == "__main__":
    run(main, reads=("data.releases",))
