"""Assemble one dataset from the releases in data.releases; the training stages need nothing else.

Reads  data/windows/<release> of each listed release
Writes data/dataset/   recordings (linked, not copied), recordings.csv, trials.csv, participants.csv,
                       channels.csv (electrode positions), windows.npy, events.npy, breaks.npy,
                       about.json (label of the data, names of the kinds and tasks of events)
       metrics/dataset.json, plots/dataset/

Outputs of releases that are no longer listed are removed, because DVC keeps the outputs of a matrix stage that
is gone. The inputs of this stage and the files in metrics/ therefore do not depend on earlier runs. The scratch
store and the DVC cache still hold the removed files.
"""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

from hbn.data import bids
from hbn.data.event_kinds import KINDS, TASKS, count_kinds
from hbn.data.manifest import join_labels, read_label
from hbn.data.pruning import prune
from hbn.data.release_tables import TRIAL_COLUMNS
from hbn.data.splits import SPLITS
from hbn.data.windows import RECORDING_COLUMNS, save_array
from hbn.files import HbnError, existing, link, read_csv, write_csv, write_json
from hbn.stage import run

# Response time (s) -> cumulative share, of contrast change detection in real HBN-EEG: event tables of 1,723 blocks of
# 800 participants in four releases.
HBN_RT_S = {0.0: 0, 0.24: 0.01, 0.93: 0.05, 1.36: 0.25, 1.60: 0.5, 1.85: 0.75, 2.21: 0.95, 2.35: 0.99, 2.4: 1}


def main(p) -> None:
    prune(p.data.releases)
    target, tables, arrays, labels = Path("data/dataset"), defaultdict(list), defaultdict(list), []
    for release in p.data.releases:
        folder = existing(Path("data/windows") / release, made_by=f"cache_windows@{release}")
        labels.append(read_label(folder, made_by=f"cache_windows@{release}"))
        offset = len(tables["recordings"])
        for name in ("recordings", "trials", "participants"):
            tables[name] += read_csv(folder / f"{name}.csv")
        for name in ("windows", "events", "breaks"):
            array = np.load(folder / f"{name}.npy", allow_pickle=False)
            array[:, 0] += offset  # the index of the recording in recordings.csv
            arrays[name].append(array)
        for path in sorted((folder / "recordings").rglob("*.npy")):
            link(path, target / "recordings" / release / path.relative_to(folder / "recordings"))
    splits = count_splits(tables["participants"], tables["trials"])

    for name, columns in (("recordings", RECORDING_COLUMNS), ("trials", TRIAL_COLUMNS)):
        write_csv(target / f"{name}.csv", tables[name], columns)
    write_csv(target / "participants.csv", tables["participants"], list(tables["participants"][0]))
    arrays = {name: np.concatenate(parts) for name, parts in arrays.items()}
    for name, array in arrays.items():
        save_array(target / f"{name}.npy", array)
    write_channels(target)
    source = join_labels(labels)
    write_json(target / "about.json", {"source": source, "event_kinds": KINDS, "event_tasks": TASKS})
    counts = {"windows": len(arrays["windows"]), "events": count_kinds(arrays["events"].tolist())}
    write_json("metrics/dataset.json", {"source": source, "splits": splits, **counts})
    owners = Counter(tables["recordings"][i]["participant_id"] for i in arrays["windows"][:, 0])
    write_plots(tables["participants"], tables["trials"], owners)


def count_splits(participants: list[dict], trials: list[dict]) -> dict[str, dict]:
    """Participants and trials of each split; HbnError for an empty split and for a participant in two releases."""
    twice = [name for name, n in Counter(person["participant_id"] for person in participants).items() if n > 1]
    if twice:
        raise HbnError(f"participants in two releases: {', '.join(twice)}; drop one of the releases in data.releases")
    counts = {}
    for split in SPLITS:
        ids = {person["participant_id"] for person in participants if person["split"] == split}
        rows = [trial for trial in trials if trial["participant_id"] in ids]
        answered = sum(trial["rt_s"] != "" for trial in rows)
        counts[split] = {"participants": len(ids), "trials": len(rows), "answered_trials": answered}
    if empty := [split for split in SPLITS if not counts[split]["participants"]]:
        raise HbnError(
            f"no participant in the {' and '.join(empty)} split; raise data.n_participants or change the section splits"
        )
    return counts


def write_channels(target: Path) -> None:
    """Write the table of electrode positions."""
    rows = [
        {"channel": name, "x_m": x, "y_m": y, "z_m": z}
        for name, (x, y, z) in zip(bids.CHANNELS, bids.electrode_positions_m(), strict=True)
    ]
    write_csv(target / "channels.csv", rows, ["channel", "x_m", "y_m", "z_m"])


def write_plots(participants: list[dict], trials: list[dict], windows: Counter) -> None:
    """Write the windows of each participant, and the response times' distribution in each split and in real HBN-EEG."""
    rows = [{**row, "windows": windows[row["participant_id"]]} for row in participants]
    write_csv("plots/dataset/windows.csv", rows, ["participant_id", "release", "split", "windows"])
    split = {row["participant_id"]: row["split"] for row in participants}
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
