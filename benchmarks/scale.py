"""What a cohort of HBN's size costs: time, disk and memory of fetch, preprocess and cache_windows.

    python benchmarks/scale.py [--recordings 6] [--resting-cycles 5]

Runs the stage scripts themselves, with one worker in a temporary workspace, on simulated recordings of
RestingState as long as HBN's; these lie in a local folder beforehand (simulating them is not counted). Every
stage runs on a third and on all of the recordings: the difference is what a recording costs. Time is that of
the processor, which other work on the machine does not change; all files are in the page cache.

There is no peer here: `ratio` is how many times faster than recording it one core processes a recording.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
from ruamel.yaml import YAML

from hbn.files import read_json

STAGES = ("fetch", "preprocess", "cache_windows")
RECORDINGS_EACH, MEAN_S = 10, 305.0  # HBN: of a participant; the mean .set has 79 MB
COHORTS, CORES = (50, 3300), (2, 16, 160)
LEAD_IN_S = 78.0  # before the first block of RestingState in HBN

ASSUMPTIONS = """
Assumed: {each} recordings of {mean_s:g} s on average per participant (a mean .set of 79 MB); time and disk in
proportion to recorded seconds; one worker per core (exec.workers), each as fast and as large as one alone;
storage that moves {moved_mb_per_s:.0f} MB/s for each worker. Not included: the download, DVC's checksums (one read
of all outputs), and DVC's cache where the file system has no links (the same disk once more)."""


def main(n_recordings: int, resting_cycles: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        workspace(root / "source", "simulated://{release}", n_recordings, resting_cycles, workers=2)
        stage(root / "source", "fetch")
        url = str(root / "source/data/raw/{release}")
        runs: list[dict[str, Any]] = []
        for n in (max(1, n_recordings // 3), n_recordings):
            workspace(root / str(n), url, n, resting_cycles, workers=1)
            runs.append({name: stage(root / str(n), name) for name in STAGES})
            runs[-1]["recorded_s"] = read_json(root / f"{n}/metrics/preprocess/R1.json")["hours"] * 3600
        few, all_ = runs
        data = root / str(n_recordings) / "data"
        raw_bytes = used_bytes(data / "raw")
        cache_bytes = used_bytes(data / "preprocessed", data / "windows")  # links to the same files count once

    recording_s = all_["recorded_s"] / n_recordings
    core_s = {}  # for each second of recording
    for name in STAGES:
        more = all_[name]["core_s"] - few[name]["core_s"]
        core_s[name] = max(0.0, more) / (all_["recorded_s"] - few["recorded_s"])
    start_s = {name: max(0.0, all_[name]["core_s"] - core_s[name] * all_["recorded_s"]) for name in STAGES}
    core_s["all"] = sum(core_s.values())
    peak_mb = {name: all_[name]["peak_mb"] for name in STAGES}
    gb_per_s = {"raw": raw_bytes / all_["recorded_s"] / 1e9, "cache": cache_bytes / all_["recorded_s"] / 1e9}

    print(f"{n_recordings} recordings of {recording_s:.0f} s, 129 channels, 500 Hz\n")
    common.print_table(
        [
            {
                "stage": name,
                "core s per recording": core_s[name] * recording_s,
                "core s to start": start_s[name],
                "peak MB": peak_mb[name],
                "peak MB, a third": few[name]["peak_mb"],
            }
            for name in STAGES
        ]
    )
    rows, totals = [], {}
    for people in COHORTS:
        recorded_s = people * RECORDINGS_EACH * MEAN_S
        gb = {name: recorded_s * value for name, value in gb_per_s.items()}
        hours = {n: (recorded_s * core_s["all"] / n + sum(start_s.values())) / 3600 for n in CORES}
        rows.append(
            {
                "participants": f"{people:,}",
                "recordings": f"{people * RECORDINGS_EACH:,}",
                "raw": _size(gb["raw"]),
                "cache": _size(gb["cache"]),
                **{f"{cores} cores": _time(hours[cores]) for cores in CORES},
                "memory": " / ".join(_size(cores * max(peak_mb.values()) / 1000) for cores in CORES),
            }
        )
        totals |= {f"{name}_gb_{people}_participants": value for name, value in gb.items()}
        totals |= {f"hours_{people}_participants_{cores}_cores": hours[cores] for cores in CORES}
    print()
    common.print_table(rows)
    moved_mb_per_s = 1000 * (3 * gb_per_s["raw"] + gb_per_s["cache"]) / core_s["all"]  # raw: read, written, read
    print(ASSUMPTIONS.format(each=RECORDINGS_EACH, mean_s=MEAN_S, moved_mb_per_s=moved_mb_per_s))
    common.print_result(
        {
            "ratio": 1 / core_s["all"],
            "recording_s": recording_s,
            **{f"{name}_core_s_per_recording": core_s[name] * recording_s for name in STAGES},
            **{f"{name}_peak_mb": value for name, value in peak_mb.items()},
            **{f"{name}_peak_mb_third": few[name]["peak_mb"] for name in STAGES},
            **{f"{name}_mb_per_recording": value * recording_s * 1000 for name, value in gb_per_s.items()},
            **totals,
        }
    )


def workspace(folder: Path, url: str, n_participants: int, resting_cycles: int, workers: int) -> None:
    """A folder with the repository's params.yaml, changed to RestingState of n participants."""
    yaml = YAML()
    values = yaml.load(common.ROOT / "params.yaml")
    values["data"] |= {"url": url, "releases": ["R1"], "tasks": ["RestingState"], "n_participants": n_participants}
    values["simulator"] |= {"metadata_dir": "", "sfreq_hz": 500, "file_format": "set"}
    values["simulator"] |= {"resting_cycles": resting_cycles, "lead_in_s": LEAD_IN_S}
    values["splits"]["test_releases"] = []
    values["exec"]["workers"] = workers
    folder.mkdir()
    yaml.dump(values, folder / "params.yaml")


def stage(folder: Path, name: str) -> dict[str, float]:
    """Run a stage of release R1 in `folder`: processor time and largest resident memory of one process of it."""
    command = [sys.executable, common.ROOT / f"src/{name}.py", "R1"]
    with open(folder / f"{name}.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{name} failed:\n{(folder / f'{name}.log').read_text()}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"core_s": usage.ru_utime + usage.ru_stime, "peak_mb": usage.ru_maxrss * unit / 1e6}


def used_bytes(*folders: Path) -> int:
    """Size of all files below the folders, those with several names counted once."""
    files = [path.stat() for folder in folders for path in folder.rglob("*") if path.is_file()]
    return sum({file.st_ino: file.st_size for file in files}.values())


def _size(gb: float) -> str:
    return f"{gb / 1000:.2g} TB" if gb >= 1000 else f"{gb:.0f} GB" if gb >= 10 else f"{gb:.1f} GB"


def _time(hours: float) -> str:
    return f"{hours / 24:.1f} d" if hours >= 48 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=6, help="how many are measured, at least 2")
    parser.add_argument("--resting-cycles", type=int, default=5, help="rounds of a minute in each recording")
    arguments = parser.parse_args()
    main(arguments.recordings, arguments.resting_cycles)
