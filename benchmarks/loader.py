"""Shuffled training windows from the window cache against braindecode's lazy windows with a torch DataLoader.

    python benchmarks/loader.py [--recordings 12] [--seconds 120] [--repeats 3]

Both read the same recordings (129 channels, 500 Hz, windows of params.yaml) and give every window once, in
random order, as float32 batches. Every measurement is a fresh process: the clock runs from opening the
dataset to the last batch, imports excluded. braindecode gets its windows cut and saved beforehand
(create_fixed_length_windows and save, untimed), is loaded with preload=False, and the faster of no and
exec.workers worker processes counts. Files are in the operating system's page cache for both.

Also measured for the window cache: the share of the speed of a plain copy of as many float32 bytes (taking
turns; several threads fill a batch, one copies), peak memory of a whole epoch over the cohort and over four
times the cohort, and opening 300 and 3,000 recordings. Without braindecode (requirements-bench.txt) `ratio`
is null.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import common
import numpy as np
import torch

from hbn import params
from hbn.data import bids
from hbn.data.dataset import Dataset
from hbn.data.windows import RECORDING_COLUMNS, samples, window_starts
from hbn.files import link, write_csv, write_json

SFREQ_HZ = 500
BATCH_SIZE = 64
SCALE_UV = 1 / 64
TARGETS = {"ratio": 20.0, "copy_share": 0.5, "memory_growth": 1.05, "open_s": 1.0}
OPENED = (300, 3000)  # recordings
GROWN = 4  # times the cohort


def main(n_recordings: int, duration_s: float, repeats: int, peer: bool) -> None:
    everything = params.load(common.ROOT / "params.yaml")
    n_samples, workers = round(duration_s * SFREQ_HZ), everything.exec.workers
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sources = write_sources(root / "source", n_recordings, n_samples)
        for name, n in {"cohort": n_recordings, "grown": GROWN * n_recordings}.items():
            write_cohort(root / name, sources, n, n_samples, everything.windows)
        for n in OPENED:
            write_cohort(root / str(n), sources, n, n_samples, everything.windows)
        kinds = {"ours": ("ours", 0)}
        if peer:
            write_braindecode(root / "braindecode", sources, everything.windows)
            kinds |= {f"braindecode, {n} workers": ("braindecode", n) for n in (0, workers)}
        measured = {kind: [] for kind in kinds}
        for _ in range(repeats):
            for kind, (function, n_workers) in kinds.items():  # by turns
                measured[kind].append(fresh(function, root, "cohort", n_workers))
        grown = [fresh("ours", root, "grown", 0) for _ in range(repeats)]
        opened = [fresh("opening", root, "", 0) for _ in range(repeats)]

    rate = {kind: median(values, "windows_per_s") for kind, values in measured.items()}
    per_core_s = {kind: median(values, "windows_per_core_s") for kind, values in measured.items()}
    first_s = {kind: median(values, "first_batch_s") for kind, values in measured.items()}
    peers = [kind for kind in kinds if kind != "ours"]
    best, first = max(peers, key=rate.__getitem__, default=None), min(peers, key=first_s.__getitem__, default=None)
    peak_mb = {"cohort": median(measured["ours"], "peak_mb"), "grown": median(grown, "peak_mb")}
    result = {
        "ratio": rate["ours"] / rate[best] if best else None,
        "ratio_first_batch": first_s[first] / first_s["ours"] if first else None,
        "ratio_of_processor_time": per_core_s["ours"] / per_core_s[best] if best else None,
        "windows_per_s": rate["ours"],
        "braindecode_windows_per_s": rate.get(best),
        "open_s": median(measured["ours"], "open_s"),
        "braindecode_open_s": median(measured[best], "open_s") if best else None,
        "warm_windows_per_s": median(measured["ours"], "warm_windows_per_s"),
        "copy_share_cold": median(measured["ours"], "copy_share_cold"),
        "copy_share": median(measured["ours"], "copy_share"),
        "peak_mb_cohort": peak_mb["cohort"],
        f"peak_mb_{GROWN}_cohorts": peak_mb["grown"],
        "memory_growth": peak_mb["grown"] / peak_mb["cohort"],
        **{key: median(opened, key) for key in opened[0]},
        "n_windows": measured["ours"][0]["n_windows"],
    }
    print(
        f"{n_recordings} recordings of {duration_s:g} s, {result['n_windows']} windows, medians of {repeats} processes"
    )
    common.print_table(
        [
            {
                **{"cold loader": kind, "windows/s": rate[kind], "ours over it": rate["ours"] / rate[kind]},
                **{"windows per core s": per_core_s[kind], "s to first batch": first_s[kind]},
            }
            for kind in kinds
        ]
    )
    print()
    rows = [
        ("times braindecode's windows/s, cold", result["ratio"], f">= {TARGETS['ratio']:g}"),
        ("times as fast to the first batch", result["ratio_first_batch"], ""),
        ("share of copy speed, warm", result["copy_share"], f">= {TARGETS['copy_share']:g}"),
        ("share of copy speed, cold", result["copy_share_cold"], ""),
        (f"peak memory of an epoch, {GROWN} x over 1 x", result["memory_growth"], f"<= {TARGETS['memory_growth']:g}"),
        (f"s to open {OPENED[-1]} recordings", result[f"open_s_{OPENED[-1]}_recordings"], f"< {TARGETS['open_s']:g}"),
        *((f"MB more after opening {n} recordings", result[f"open_mb_{n}_recordings"], "") for n in OPENED),
    ]
    common.print_table([{"window cache": what, "measured": value, "target": target} for what, value, target in rows])
    common.print_result(result)


def write_sources(folder: Path, n: int, n_samples: int) -> list[Path]:
    """Float16 (T, C) recordings as the stage preprocess writes them, in units of SCALE_UV."""
    folder.mkdir()
    data_uv = common.noise_uv(np.random.default_rng(0), len(bids.CHANNELS), n_samples, 1.3)
    paths = [folder / f"{i}.npy" for i in range(n)]
    for i, path in enumerate(paths):
        np.save(path, (np.roll(data_uv.T, 97 * i, axis=0) / SCALE_UV).astype(np.float16, order="C"))
    return paths


def write_cohort(root: Path, sources: list[Path], n: int, n_samples: int, p: params.Windows) -> None:
    """A dataset as the stage assemble writes it, of n recordings: links to the sources, in turn."""
    starts = window_starts(n_samples, samples(p.window_s, SFREQ_HZ), samples(p.stride_s, SFREQ_HZ), [])
    rows, participants = [], []
    for i in range(n):
        name = f"sub-{i:05d}"
        link(sources[i % len(sources)], root / f"recordings/R1/{name}/{name}_task-RestingState.npy")
        facts: dict[str, str | float] = {
            "recording": f"{name}_task-RestingState",
            "release": "R1",
            "participant_id": name,
            "run": "",
        }
        facts |= {"task": "RestingState", "samples": n_samples, "sfreq_hz": SFREQ_HZ, "scale_uv": SCALE_UV}
        rows.append(facts | {"sha256": ""})
        participants.append({"participant_id": name, "release": "R1", "split": "train"})
    write_csv(root / "recordings.csv", rows, RECORDING_COLUMNS)
    write_csv(root / "trials.csv", [], ["participant_id"])
    write_csv(root / "participants.csv", participants, list(participants[0]))
    np.save(root / "windows.npy", np.stack([np.repeat(np.arange(n), len(starts)), np.tile(starts, n)], axis=1))
    channels = [{"channel": name, "x_m": 0, "y_m": 0, "z_m": 0} for name in bids.CHANNELS]
    write_csv(root / "channels.csv", channels, list(channels[0]))
    np.save(root / "events.npy", np.empty((0, 4), dtype=np.int32))
    np.save(root / "breaks.npy", np.empty((0, 3), dtype=np.int32))
    write_json(root / "about.json", {"source": "simulated", "event_kinds": [], "event_tasks": []})


def write_braindecode(folder: Path, sources: list[Path], p: params.Windows) -> None:
    """The same recordings and windows as braindecode saves them."""
    import mne
    from braindecode.datasets import BaseConcatDataset, RawDataset
    from braindecode.preprocessing import create_fixed_length_windows

    raws = []
    for path in sources:
        data_v = np.load(path, allow_pickle=False).T.astype(float) * (SCALE_UV * 1e-6)
        info = mne.create_info(list(bids.CHANNELS), SFREQ_HZ, "eeg")
        raws.append(RawDataset(mne.io.RawArray(data_v, info, verbose="ERROR"), {"recording": path.stem}))
    windows = create_fixed_length_windows(
        BaseConcatDataset(raws),
        window_size_samples=samples(p.window_s, SFREQ_HZ),
        window_stride_samples=samples(p.stride_s, SFREQ_HZ),
        drop_last_window=True,
    )
    folder.mkdir()
    windows.save(str(folder))


def fresh(function: str, root: Path, cohort: str, n_workers: int) -> dict[str, float]:
    """What one of the measurements below returns in a new process."""
    command = [sys.executable, __file__, "--measure", function, str(root), cohort, str(n_workers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def ours(root: Path, cohort: str, n_workers: int) -> dict[str, float]:
    """An epoch over the cohort from cold, then batches and plain copies by turns."""
    p = params.load(common.ROOT / "params.yaml").windows
    begin, begin_core_s = time.perf_counter(), core_s()
    dataset = Dataset.open(root / cohort, p.window_s)
    open_s = time.perf_counter() - begin
    order = np.random.default_rng(1).permutation(len(dataset.windows))
    for i in range(0, len(order), BATCH_SIZE):
        batch = dataset.batch_uv(dataset.windows[order[i : i + BATCH_SIZE]])
        if i == 0:
            first_batch_s = time.perf_counter() - begin
    cold_s, cold_core_s = time.perf_counter() - begin, core_s() - begin_core_s
    peak_mb = common.peak_mb()  # before the copies

    plain, batch_s, copy_s = np.ones((BATCH_SIZE, *batch.shape[1:]), dtype=np.float32), [], []
    for i in range(20):
        chosen = dataset.windows[np.random.default_rng(i).permutation(len(order))[:BATCH_SIZE]]
        batch_s.append(seconds(lambda chosen=chosen: dataset.batch_uv(chosen)) / len(chosen))
        copy_s.append(seconds(plain.copy) / len(plain))
    return {
        "n_windows": len(order),
        "windows_per_s": len(order) / cold_s,
        "windows_per_core_s": len(order) / cold_core_s,
        "open_s": open_s,
        "first_batch_s": first_batch_s,
        "warm_windows_per_s": 1 / statistics.median(batch_s),
        "copy_share": statistics.median(copy_s) / statistics.median(batch_s),
        "copy_share_cold": len(order) / cold_s * statistics.median(copy_s),
        "peak_mb": peak_mb,
    }


def braindecode(root: Path, cohort: str, n_workers: int) -> dict[str, float]:
    """The same epoch through braindecode and a DataLoader."""
    from braindecode.datautil import load_concat_dataset
    from torch.utils.data import DataLoader

    begin, begin_core_s = time.perf_counter(), core_s()
    windows = load_concat_dataset(root / "braindecode", preload=False)
    open_s = time.perf_counter() - begin
    n = 0
    for x, _, _ in DataLoader(windows, batch_size=BATCH_SIZE, shuffle=True, num_workers=n_workers):
        n += len(x)
        if n == len(x):
            first_batch_s = time.perf_counter() - begin
    cold_s, cold_core_s = time.perf_counter() - begin, core_s() - begin_core_s

    dataset = Dataset.open(root / cohort, params.load(common.ROOT / "params.yaml").windows.window_s)
    mine_uv, theirs_uv = dataset.batch_uv(dataset.windows[:1])[0].numpy(), windows[0][0] * 1e6
    assert x.dtype == torch.float32
    assert n == len(dataset.windows)
    assert np.sqrt(np.mean((mine_uv - theirs_uv) ** 2)) < 1e-3 * theirs_uv.std(), "the same recordings"
    rates = {"windows_per_s": n / cold_s, "windows_per_core_s": n / cold_core_s}
    return rates | {"open_s": open_s, "first_batch_s": first_batch_s}


def opening(root: Path, cohort: str, n_workers: int) -> dict[str, float]:
    """Opening alone, of a small and then of a large cohort."""
    window_s, result = params.load(common.ROOT / "params.yaml").windows.window_s, {}
    for n in OPENED:
        before_mb, begin = common.peak_mb(), time.perf_counter()
        Dataset.open(root / str(n), window_s)
        result |= {f"open_s_{n}_recordings": time.perf_counter() - begin}
        result |= {f"open_mb_{n}_recordings": common.peak_mb() - before_mb}
    return result


def seconds(function: Callable[[], object]) -> float:
    """Time of one call."""
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def core_s() -> float:
    """Processor time of this process and its finished children: what other work on the machine hardly changes."""
    return time.process_time() + sum(os.times()[2:4])


def median(measured: list[dict[str, float]], key: str) -> float:
    return statistics.median(one[key] for one in measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=12, help="recordings of the cohort")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of each recording")
    parser.add_argument("--repeats", type=int, default=3, help="processes per measurement")
    parser.add_argument("--without-peer", action="store_true", help="leave braindecode out")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        torch.set_num_threads(1)
        function, root, cohort, n_workers = arguments.measure
        measure = {"ours": ours, "braindecode": braindecode, "opening": opening}[function]
        common.print_result(measure(Path(root), cohort, int(n_workers)))
    else:
        peer = not arguments.without_peer and importlib.util.find_spec("braindecode") is not None
        main(arguments.recordings, arguments.seconds, arguments.repeats, peer)
