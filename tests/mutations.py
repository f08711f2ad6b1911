"""Mutated releases through the code of check, fetch, preprocess, cache_windows and predict.

    python tests/mutations.py FOLDER FIRST LAST

works in FOLDER, which holds models/deploy and metrics/benchmark.json, on the seeds FIRST to LAST - 1, and prints a line
of JSON for each: what was mutated, what became of it ('same', 'samples', 'dropped', 'refused'), what is wrong with that
(empty if nothing is), seconds and peak memory. A seed decides the format of one recording, the file of it or of the
release that is mutated, and how.
"""

import contextlib
import io
import json
import logging
import os
import re
import shutil
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from clone import REPOSITORY
from small_recordings import recording_uv, write_bdf_of, write_paused_bdf, write_set_7_3, write_set_of

import cache_windows
import check
import fetch
import predict
import preprocess
from hbn import params
from hbn.data.bids import FACTORS
from hbn.files import HbnError, read_csv, read_json, read_tsv, write_json, write_text, write_tsv
from hbn.stage import view

SFREQ_HZ, DURATION_S = 200, 14
CONTRAST, REST = "contrastChangeDetection_run-1", "RestingState"
ODD = f"sub-A/eeg/sub-A_task-{CONTRAST}"
FORMATS = (".set", ".fdt", ".bdf", "paused .bdf", ".set 7.3")
PAUSED_S = (*range(6), *range(9, DURATION_S + 3))  # begins of records
TOLERANCE_S = 0.06  # to which the time of an event is checked, and a little
BLOCK = [
    *((0, "break cnt"), (0.5, "contrastChangeB1_start"), (1, "contrastTrial_start"), (2.9, "left_target")),
    *((4.1, "left_buttonPress", "smiley_face"), (5.3, "contrastTrial_start"), (8.1, "right_target")),
    *((10.5, "contrastTrial_start"), (10.6, "left_target"), (11.5, "right_buttonPress", "sad_face")),
    *((13.2, "contrastTrial_start"), (13.5, "n/a")),
]


@dataclass
class Outcome:
    """What the stages made of a release."""

    refusals: dict[str, str] = field(default_factory=dict)  # by stage
    broken: list[str] = field(default_factory=list)  # tracebacks
    arrays: dict[str, bytes] = field(default_factory=dict)  # preprocessed, by stem
    signals_uv: dict[str, np.ndarray] = field(default_factory=dict)  # (T, C), the same as numbers
    rejected: set[str] = field(default_factory=set)
    trials: dict[str, list[dict]] = field(default_factory=dict)  # by stem
    windows: dict = field(default_factory=dict)  # metrics
    predicted: list[dict] = field(default_factory=list)


# The release and its mutations.


def write_release(root: Path, kind: str) -> None:
    """Three recordings, of which sub-A's of contrast change detection has this format."""
    for i, stem in enumerate((ODD, f"sub-A/eeg/sub-A_task-{REST}", f"sub-B/eeg/sub-B_task-{CONTRAST}")):
        data_uv = recording_uv(i, DURATION_S, SFREQ_HZ)
        data_uv -= data_uv.mean(axis=1, keepdims=True)
        at = root / stem
        at.parent.mkdir(parents=True, exist_ok=True)
        write_signal(at, data_uv, kind if i == 0 else ".set")
        rows = BLOCK if CONTRAST in stem else [(0, "9999"), (0.5, "resting_start"), (3, "instructed_toOpenEyes")]
        columns = ["onset", "duration", "sample", "value", "event_code", "feedback"]
        table = [
            dict(zip(columns, (f"{s:.3f}", "n/a", round(s * SFREQ_HZ), value, value, *feedback), strict=False))
            for s, value, *feedback in rows
        ]
        write_tsv(f"{at}_events.tsv", table, columns)
        write_json(f"{at}_eeg.json", {"TaskName": "x", "SamplingFrequency": SFREQ_HZ, "EEGReference": "Cz"})
        write_text(f"{at}_channels.tsv", "name\ttype\tunits\nE1\tEEG\tuV\n")
    people = [
        {"participant_id": f"sub-{x}", "sex": "F", "age": "9.51", **dict.fromkeys(FACTORS, "0.25")} for x in "ABC"
    ]
    write_tsv(root / "participants.tsv", people, list(people[0]))
    write_json(root / "dataset_description.json", {"Name": "Mutations", "BIDSVersion": "1.9.0"})


def write_signal(at: Path, data_uv: np.ndarray, kind: str) -> None:
    path = at.with_name(f"{at.name}_eeg{'.bdf' if 'bdf' in kind else '.set'}")
    if kind == ".set":
        write_set_of(path, data_uv, sfreq_hz=SFREQ_HZ)
    elif kind == ".fdt":
        write_set_of(path, path.with_suffix(".fdt").name, sfreq_hz=SFREQ_HZ, shape=data_uv.shape)
        path.with_suffix(".fdt").write_bytes(data_uv.T.astype("<f4").tobytes())
    elif kind == ".set 7.3":
        write_set_7_3(path, data_uv, sfreq_hz=SFREQ_HZ)
    elif kind == ".bdf":
        write_bdf_of(path, data_uv, sfreq_hz=SFREQ_HZ)
    else:
        write_paused_bdf(path, data_uv, PAUSED_S, sfreq_hz=SFREQ_HZ)


def flip(rng, content: bytes, n: int = 1) -> bytes:
    """Other bytes; half of the time within the first 40 kB, where headers are."""
    changed = bytearray(content)
    for _ in range(n):
        end = len(changed) if rng.random() < 0.5 else min(len(changed), 40_000)
        changed[rng.integers(end)] ^= int(rng.integers(1, 256))
    return bytes(changed)


def ends(rng, content: bytes) -> bytes:
    """Cut, longer, or with a hole or a piece in it."""
    a, b = sorted(rng.integers(0, len(content), size=2).tolist())
    b = min(b, a + int(rng.integers(1, 5000)))
    piece = rng.bytes(int(rng.integers(1, 50)))
    return [
        *(content[:a], content[:a], content[: min(a, 300)], b"", content + piece, content[:a] + content[b:]),
        *(content[:a] + bytes(b - a) + content[b:], content[:a] + piece + content[a:], content[a:] + content[:a]),
    ][rng.integers(9)]


def other_encoding(rng, content: bytes) -> bytes:
    text = content.decode()
    codecs = ("utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32", "utf-7", "cp500")
    choice = int(rng.integers(len(codecs) + 3))
    if choice < len(codecs):
        return text.encode(codecs[choice])
    at = int(rng.integers(len(text)))
    accent = [b"\xe9", b"\xff", b"\xc3", b"\0", "µ".encode(), "\u2028".encode(), "\x85".encode(), b"\x1c"]
    piece = accent[rng.integers(len(accent))]
    return text[:at].encode() + piece + text[at:].encode()


def table_change(rng, content: bytes) -> bytes:
    """Columns swapped or left out, blanks, quotation marks, separators, commas, empty cells and lines."""
    rows = [line.split("\t") for line in content.decode().splitlines()]
    a, b = rng.choice(len(rows[0]), 2, replace=False).tolist()
    r = int(rng.integers(1, len(rows)))
    kind = int(rng.integers(17))
    separator = "\t"
    if kind == 0:
        rows[0][a], rows[0][b] = rows[0][b], rows[0][a]
    elif kind == 1:
        for row in rows:
            row[a], row[b] = row[b], row[a]
    elif kind == 2:
        for row in rows[1:]:
            row[a], row[b] = row[b], row[a]
    elif kind == 3:
        for row in rows:
            del row[a]
    elif kind == 4:
        rows = [[f" {cell} " for cell in row] for row in rows]
    elif kind == 5:
        blank = ["\u00a0", "\u2003", "\ufeff", "  ", "\x0b"][rng.integers(5)]
        rows[r][a] = blank + rows[r][a] + blank
    elif kind == 6:
        rows = [[f'"{cell}"' for cell in row] for row in rows]
    elif kind == 7:
        rows[r][a] = '"' + rows[r][a]
    elif kind == 8:
        rows[r][a] += '"'
    elif kind == 9:
        separator = [",", ";", " ", "\t\t", "|"][rng.integers(5)]
    elif kind == 10:
        rows = [[re.sub(r"^(-?\d+)\.(\d+)$", r"\1,\2", cell) for cell in row] for row in rows]
    elif kind == 11:
        rows[0] = [name.upper() for name in rows[0]]
    elif kind == 12:
        rows[r] = rows[r][: int(rng.integers(len(rows[r])))]
    elif kind == 13:
        rows[r].insert(a, "more")
    elif kind == 14:
        rows[r][a] = ["", "n/a", "NaN", "inf", "-1", "1e400", "1_000", "9" * 400, "x" * 100_000][rng.integers(9)]
    elif kind == 15:
        rows.insert(r, rows[int(rng.integers(len(rows)))])
    else:
        s = int(rng.integers(1, len(rows)))
        rows[r], rows[s] = rows[s], rows[r]
    end = ["\n", "\r\n", "\r", "\n\n"][rng.integers(4)]
    return end.join(separator.join(row) for row in rows).encode()


def json_change(rng, content: bytes) -> bytes:
    deep = b"[" * 200_000
    return [deep, b'{"Name": ' + deep, b"[]", b"null", b"1e999", b'{"Name": NaN}', b'{"Name": 1, "Name": ["x"]}'][
        rng.integers(7)
    ]


def mutate(rng, path: Path) -> tuple[str, int]:
    """Change a file in some way; how, and how many bytes are others in a file that is as long as before."""
    content = path.read_bytes()
    ways = {"flip": flip, "flips": lambda rng, old: flip(rng, old, int(rng.integers(2, 40))), "ends": ends}
    if path.suffix == ".tsv":
        ways |= {"encoding": other_encoding, "table": table_change, "table again": table_change}
    elif path.suffix == ".json":
        ways |= {"encoding": other_encoding, "json": json_change}
    name = list(ways)[rng.integers(len(ways))]
    changed = ways[name](rng, content)
    same_length = len(changed) == len(content)
    path.unlink()  # another file, whose time is new
    path.write_bytes(changed)
    n_changed = int((np.frombuffer(content, np.uint8) != np.frombuffer(changed, np.uint8)).sum()) if same_length else 0
    return name, n_changed if "flip" in name else 0


# What the stages make of it.


def settings(root: Path) -> params.Params:
    whole = params.load(REPOSITORY / "params.yaml")
    changes = {
        "data": {"url": str(root), "n_participants": 0, "tasks": [REST, "contrastChangeDetection_1"]},
        "preprocess": {"sfreq_hz": 100, "max_rejected_fraction": 0.5},
        "splits": {"test_releases": []},
        "exec": {"workers": 1, "transfers": 1},
    }
    parts = {name: getattr(whole, name).model_copy(update=keys) for name, keys in changes.items()}
    return whole.model_copy(update=parts)


def run(root: Path, p: params.Params) -> Outcome:
    """All stages on the release in `root`, each as far as the one before it got."""
    outcome = Outcome()
    for folder in ("data", "metrics/windows"):
        shutil.rmtree(folder, ignore_errors=True)
    calls = [
        ("fetch", lambda: fetch.main(view(p, ("data", "simulator", "exec")), "R1")),
        ("preprocess", lambda: preprocess.main(view(p, ("preprocess", "exec")), "R1")),
        ("cache_windows", lambda: cache_windows.main(view(p, ("windows", "splits")), "R1")),
    ]
    for stage, call in calls:
        if not attempt(outcome, stage, call):
            break
    attempt(outcome, "check", lambda: check.main(view(p, ("data",)), str(root)))
    eeg = [str(path) for path in sorted(root.rglob("*_eeg.*")) if path.suffix in (".set", ".bdf")]
    printed = attempt(outcome, "predict", lambda: predict.main(view(p, ("preprocess", "exec")), *eeg, "--json"))
    text = printed or outcome.refusals.get("predict text", "")
    outcome.refusals.pop("predict text", None)
    outcome.predicted = [row for item in json.loads(text or "[]") for row in item["rows"]]
    for path in sorted(Path("data/preprocessed/R1").glob("*/*.npy")):
        stem = path.name.removesuffix("_eeg.npy")
        outcome.arrays[stem] = path.read_bytes()
        outcome.signals_uv[stem] = np.load(path) * np.float32(read_json(path.with_suffix(".json"))["scale_uv"])
    if Path("data/preprocessed/R1/rejected.tsv").exists():
        outcome.rejected = {row["recording"] for row in read_tsv("data/preprocessed/R1/rejected.tsv")}
    if Path("metrics/windows/R1.json").exists():
        outcome.windows = read_json("metrics/windows/R1.json")
        for row in read_csv("data/windows/R1/trials.csv"):
            outcome.trials.setdefault(row["recording"], []).append(row)
    return outcome


def attempt(outcome: Outcome, stage: str, call) -> str | None:
    """What a stage prints; None where it refuses or breaks, which is noted."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            call()
    except HbnError as error:
        outcome.refusals[stage] = str(error)
        outcome.refusals[f"{stage} text"] = printed.getvalue()
    except Exception:
        outcome.broken.append(f"{stage}: {traceback.format_exc()}")
    else:
        return printed.getvalue() or " "
    return None


# What is right.


def faults(healthy: Outcome, got: Outcome, name: str, n_flipped: int) -> tuple[str, list[str]]:
    """What became of a release whose file `name` was mutated, in `n_flipped` bytes, and what is wrong with that."""
    wrong = [*got.broken]
    stem = ODD.rpartition("/")[2]
    refused = {stage: text for stage, text in got.refusals.items() if not stage.endswith(" text")}
    for stage, text in refused.items():
        if "\n" in text or not text or "MemoryError" in text or "Traceback" in text:
            wrong.append(f"{stage} refuses in other words than one line: {text[:300]!r}")
    data_stages = refused.keys() & {"fetch", "preprocess", "cache_windows"}
    is_absent = "is a placeholder of" in refused.get("fetch", "")  # which stops fetch: it is to be brought first
    if name.startswith("sub-") and data_stages and not is_absent:
        wrong.append(f"one file of a recording stops {refused}")
    if data_stages or got.broken:
        return "refused", wrong
    for other in healthy.arrays.keys() - {stem}:
        if not name.startswith("sub-"):
            break
        if got.arrays.get(other) != healthy.arrays[other]:
            wrong.append(f"{other} is another signal than before")
        if [row["onset_s"] for row in got.trials.get(other, [])] != [
            row["onset_s"] for row in healthy.trials.get(other, [])
        ]:
            wrong.append(f"{other} has other trials than before")
    wrong += wrong_trials(healthy, got, stem, name)
    wrong += wrong_predictions(healthy, got, stem)
    n_unusable = sum(sum(reasons.values()) for reasons in got.windows["unusable_events"].values())
    n_left_out = len(healthy.arrays) - sum(got.windows["recordings"].values())
    if not name.startswith("sub-"):
        return "same" if got.arrays == healthy.arrays else "dropped", wrong
    if n_left_out != len(got.rejected) + n_unusable:
        wrong.append(f"{n_left_out} recordings are left out, {got.rejected} and {n_unusable} are counted")
    if n_left_out or len(got.trials.get(stem, [])) < len(healthy.trials[stem]):
        return "dropped", wrong
    if got.arrays[stem] == healthy.arrays[stem]:
        return "same", wrong
    if not name.endswith((".set", ".fdt", ".bdf", "_channels.tsv")):
        wrong.append(f"{name} is no signal, and the signal is another one")
    # A digit of a channel's scale is stated once in a BDF: it cannot be known to be wrong.
    if (n_changed := changed_channels(healthy.signals_uv[stem], got.signals_uv[stem])) > n_flipped:
        wrong.append(f"{n_changed} channels are other signals than before")
    return "samples", wrong


def changed_channels(before_uv: np.ndarray, after_uv: np.ndarray) -> int:
    """How many channels of (T, C) differ by more than a tenth.

    Only seconds without a signal may have been added or taken away.
    """
    if before_uv.shape != after_uv.shape:
        return before_uv.shape[1]
    alive = before_uv.any(axis=1) & after_uv.any(axis=1)
    difference_uv = np.median(np.abs(after_uv - before_uv)[alive], axis=0)
    return int((difference_uv > 0.1 * np.median(np.abs(before_uv[alive]), axis=0)).sum())


def wrong_trials(healthy: Outcome, got: Outcome, stem: str, name: str) -> list[str]:
    """Trials that the healthy release does not have, and targets that are neither trials nor dropped."""
    wrong = []
    right = healthy.trials[stem]
    for trial in got.trials.get(stem, []):
        same = [
            other
            for other in right
            if abs(float(other["onset_s"]) - float(trial["onset_s"])) < TOLERANCE_S
            and (other["side"], other["outcome"]) == (trial["side"], trial["outcome"])
            and abs(float(other["rt_s"] or 0) - float(trial["rt_s"] or 0)) < TOLERANCE_S
        ]
        if not same:
            wrong.append(f"no such trial: {trial['onset_s']} s, {trial['side']}, {trial['outcome']}, {trial['rt_s']}")
    if not name.endswith("_events.tsv") and name.startswith("sub-") and stem in got.arrays:
        n = sum(got.windows["trials"].values()) + sum(got.windows["dropped_trials"].values())
        if n != 6:
            wrong.append(f"{n} of 6 targets are trials or counted as dropped")
    return wrong


def wrong_predictions(healthy: Outcome, got: Outcome, stem: str) -> list[str]:
    """Recordings without a row, and numbers for trials that the healthy release does not have."""
    rows = [row for row in got.predicted if row["recording"] == stem]
    if not rows:
        return ["no row of the prediction names the recording"]
    right = [row for row in healthy.predicted if row["recording"] == stem]
    wrong = []
    for row in rows:
        if row.get("target_s") is not None and not any(
            abs(row["target_s"] - other["target_s"]) < TOLERANCE_S and row["side"] == other["side"] for other in right
        ):
            wrong.append(f"a prediction for no trial: {row}")
        if not row["not_used"] and not np.isfinite([row["rt_s"], row["p_miss"]]).all():
            wrong.append(f"a prediction that is no number: {row}")
    return wrong


# One seed after the other.


class Peak:
    """The peak of this process's memory since it was asked last."""

    def __init__(self) -> None:
        self.status, self.clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def mb(self) -> float:
        peak_kb = int(re.search(r"VmHWM:\s+(\d+)", self.status.read_text())[1])
        self.clear.write_text("5")
        return peak_kb / 1e3


def main(folder: str, first: str, last: str) -> None:
    os.chdir(folder)
    logging.disable(logging.CRITICAL)
    healthy: dict[str, Outcome] = {}
    root, peak = Path(folder) / "release", Peak()
    p = settings(root)
    for seed in range(int(first), int(last)):
        rng = np.random.default_rng(seed)
        kind = FORMATS[seed % len(FORMATS)]
        print(json.dumps({"seed": seed, "begins": True}), flush=True)
        template = Path(folder) / "templates" / kind
        if kind not in healthy:
            write_release(template, kind)
            copy(template, root)
            healthy[kind] = run(root, p)
            if healthy[kind].broken or healthy[kind].refusals:
                raise AssertionError(f"{kind} is not healthy: {healthy[kind].broken} {healthy[kind].refusals}")
        copy(template, root)
        names = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*")) if path.is_file()]
        of_odd = [name for name in names if name.startswith(f"{ODD}_")]
        signals = [name for name in of_odd if name.endswith((".set", ".fdt", ".bdf"))]
        common = ["participants.tsv", "dataset_description.json"]
        among = [signals, [f"{ODD}_events.tsv"], signals, [f"{ODD}_events.tsv"], common, of_odd][rng.integers(6)]
        name = among[rng.integers(len(among))]
        peak.mb()
        begin_s = time.monotonic()
        how, n_flipped = mutate(rng, root / name)
        got = run(root, p)
        outcome, wrong = faults(healthy[kind], got, name, n_flipped)
        line = {"seed": seed, "format": kind, "file": name.rpartition("_")[2], "how": how, "outcome": outcome}
        reasons = Counter(text.partition(":")[0] for text in got.refusals if not text.endswith(" text"))
        line |= {"refused_by": sorted(reasons), "wrong": wrong}
        print(json.dumps(line | {"s": round(time.monotonic() - begin_s, 2), "peak_mb": round(peak.mb())}), flush=True)


def copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=shutil.copyfile)  # with new times


if __name__ == "__main__":
    main(*sys.argv[1:])
