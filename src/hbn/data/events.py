"""Reading event tables of any quality, and the trials of contrast change detection."""

import logging
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from hbn.data import event_kinds
from hbn.data.absent import why_absent
from hbn.data.bids import UnusableRecording
from hbn.files import HbnError, parse_tsv

log = logging.getLogger(__name__)
Gaps = Sequence[tuple[float, float]]  # begin and end of each pause of a recording, in s from its beginning
CONTRAST_CHANGE = "contrastChangeDetection"
FILE_REASONS = ("file_without_own_block", "block_without_targets")
TARGETS = ("left_target", "right_target")
FOREPERIODS_S = np.array([2.8, 4.4, 6.0])  # from trial start to target; a third of trials each
RESPONSE_WINDOW_S = 2.4
KNOWN = {*event_kinds.NUMBER, *event_kinds.NO_EVENTS}
MISSING = ("n/a", "", "nan", "na")
LOWEST_HZ, HIGHEST_HZ = 50, 20_000  # sampling rates of EEG; onsets in samples or milliseconds make others
TOLERANCE_S = 0.05  # between onset and sample, which agree exactly in HBN-EEG
FAST = 1.463  # factor by which all intervals are shorter in about one block of twenty


@dataclass(frozen=True)
class Event:
    """One row of an events table."""

    onset_s: float  # NaN where the table has no time
    value: str
    feedback: str


@dataclass(frozen=True)
class Trial:
    """One target of a block and what followed it."""

    trial: int  # 0 to 23 within the block
    onset_s: float  # of the target
    side: str  # 'left' or 'right'
    foreperiod_s: float
    fast_block: bool
    early_press: bool  # a press between trial start and target
    outcome: str  # 'correct', 'wrong' or 'miss'
    rt_s: float | None
    n_presses_after: int  # from the target to the next trial start, the response included


def read_events(path: Path | str, duration_s: float = math.inf, gaps_s: Gaps = ()) -> list[Event]:
    """Events of a table (see parse_events).

    UnusableRecording 'events_missing' if the table does not exist, 'pointer' if it is only a placeholder.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise UnusableRecording("events_missing", f"{path} does not exist")
    if reason := why_absent(path, path.parent):
        raise UnusableRecording("pointer", reason)
    return parse_events(path.read_bytes(), path, duration_s, gaps_s)


def parse_events(content: bytes, path: Path | str, duration_s: float = math.inf, gaps_s: Gaps = ()) -> list[Event]:
    """Rows in file order, which decides where onsets are tied; only onset, sample, value and feedback are read.

    A row has no time (NaN) where the table has none, where it lies before the recording, where it is earlier than the
    row before or later than the row after, and where `sample` contradicts it.

    An onset is the time since the recording's first sample (BIDS): it counts the pauses `gaps_s` of a discontinuous
    recording. `sample` may count them or not. A warning says where the table may leave the pauses out of its onsets.

    Raises UnusableRecording: 'events_unreadable' (no table, or a row lacks cells), 'events_columns' (no onset or value)
    or 'events_onsets' (the onsets are not in seconds, or most of them are later than the `duration_s` of the
    recording).
    """
    try:
        rows = parse_tsv(content, path)
    except HbnError as error:
        raise UnusableRecording("events_unreadable", str(error)) from error
    names = [name.lower() for name in rows[0]] if rows else ["onset", "value"]
    if len(names) > len(set(names)) or not {"onset", "value"} <= set(names):
        raise UnusableRecording(
            "events_columns", f"{path} should have one column onset and one column value; it has {', '.join(names)}"
        )
    rows = [dict(zip(names, row.values(), strict=True)) for row in rows]
    if short := [number for number, row in enumerate(rows, start=1) if None in row.values()]:
        raise UnusableRecording("events_unreadable", f"{path}: row {short[0]} has fewer cells than the header")
    onsets_s = _onsets_s(
        [row["onset"] or "n/a" for row in rows],
        [row.get("sample") or "n/a" for row in rows],
        path,
        duration_s,
        gaps_s,
    ).tolist()
    return [
        Event(onset_s, row["value"] or "n/a", row.get("feedback") or "n/a")
        for onset_s, row in zip(onsets_s, rows, strict=True)
    ]


def _onsets_s(onsets: list[str], samples: list[str], path: Path | str, duration_s: float, gaps_s: Gaps) -> np.ndarray:
    """The times (N,) of the rows of a table, NaN where there is none (see parse_events)."""
    if commas := [text for text in onsets if "," in text]:
        decimal = all(re.fullmatch(r"-?\d+,\d+", text) for text in commas) and "." not in "".join(onsets)
        if not decimal or all(re.fullmatch(r"-?[1-9]\d*,\d{3}", text) for text in commas):
            raise UnusableRecording("events_onsets", f"{path}: onset {commas[0]!r} may have decimals or thousands")
        onsets = [text.replace(",", ".") for text in onsets]
    onset_s, sample = np.array(list(map(_number, onsets))), np.array(list(map(_number, samples)))  # (N,)
    pairs = zip(onsets, np.isnan(onset_s), strict=True)
    wrong = [text for text, is_none in pairs if is_none and text.lower() not in MISSING]
    if 2 * len(wrong) > len(onsets):
        raise UnusableRecording("events_onsets", f"{path}: most onsets are no numbers, such as {wrong[0]!r}")
    onset_s[onset_s < 0] = np.nan
    both = (onset_s > 0) & (sample > 0)
    counts_pauses = not gaps_s
    if both.any():
        sampled_s, rate_hz = _sampled_s(onset_s, sample, both, gaps_s)
        counts_pauses = counts_pauses or sampled_s is not onset_s
        if not LOWEST_HZ <= rate_hz <= HIGHEST_HZ:
            raise UnusableRecording(
                "events_onsets", f"{path}: onsets are not in seconds, {rate_hz:.6g} samples fall on one unit of onset"
            )
        onset_s[both & (np.abs(sample / rate_hz - sampled_s) > TOLERANCE_S)] = np.nan
    elif np.nanmedian([0, *onset_s]) > duration_s:
        raise UnusableRecording(
            "events_onsets", f"{path}: most onsets are later than the end of the recording after {duration_s:g} s"
        )
    timed = np.flatnonzero(~np.isnan(onset_s))
    earlier = np.diff(onset_s[timed]) < 0
    onset_s[timed[:-1][earlier]] = onset_s[timed[1:][earlier]] = np.nan
    if not counts_pauses:
        _warn_of_pauses(onset_s, path, duration_s, gaps_s)
    return onset_s


def _sampled_s(onset_s: np.ndarray, sample: np.ndarray, both: np.ndarray, gaps_s: Gaps) -> tuple[np.ndarray, float]:
    """The times (N,) that `sample` counts, and its rate: `onset_s`, or that without the pauses if it fits more rows."""
    best = None
    for times_s in (onset_s, onset_s - sum(np.clip(onset_s - a, 0, b - a) for a, b in gaps_s)):
        rates_hz = sample[both] / np.maximum(times_s[both], 1e-9)
        rate_hz = float(np.median(rates_hz))
        n_fit = int((np.abs(sample[both] / rate_hz - times_s[both]) <= TOLERANCE_S).sum())
        if best is None or n_fit > best[0]:
            best = n_fit, times_s, rate_hz
    return best[1:]


def _warn_of_pauses(onset_s: np.ndarray, path: Path | str, duration_s: float, gaps_s: Gaps) -> None:
    """Warn if the onsets (N,) would also fit the recording without its pauses."""
    recorded_s = duration_s - sum(end - begin for begin, end in gaps_s)
    is_later = (onset_s > recorded_s + TOLERANCE_S) & (onset_s <= duration_s)
    if is_later.any() or not (onset_s > gaps_s[0][0]).any():
        return
    n_within = sum(int(((onset_s > begin) & (onset_s < end)).sum()) for begin, end in gaps_s)
    within = f", and {n_within} rows lie in a pause" if n_within else ""
    log.warning(
        "%s: nothing shows whether its onsets count the %.1f s of pauses of the recording%s; they are read as if "
        "they did, as BIDS says",
        *(path, duration_s - recorded_s, within),
    )


def _number(text: str) -> float:
    """The number in a cell; NaN for anything but a finite number."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) and "_" not in text else math.nan  # Python reads 1_000, tables have none


def contrast_trials(events: list[Event], run: int | None) -> tuple[list[Trial], Counter]:
    """Trials of the run's own block, and why others were dropped.

    Files of runs 1 and 2 often hold an exact copy of the next run's block: only the block whose
    label equals the run is kept, so that no trial is counted twice. A response is the first press
    after the target and before the next trial start, in file order; its feedback tells the outcome.
    A press without smiley or sad face ('non_target') answers no target: in real files it comes
    before the target or after the response, and a trial whose first press is one is dropped.

    The reasons count trials (targets): 'foreign_block'; 'repeated_block' (of several starts of the
    run's block the longest counts, of equal ones the first); 'before_first_block' and
    'no_trial_start'; 'several_targets' in one trial; 'no_onset' (a row of the trial has no time);
    'boundary' (the recording was interrupted between trial start and the end of the response window);
    'unknown_value' (after the target a value that no task has: it may have been a press);
    'press_without_feedback'; 'table_ends' (no press, but the table ends within the response window).
    The targets of a table are as many as its trials and these reasons together.
    Two more reasons, those of FILE_REASONS, count 1 for the file: 'file_without_own_block' and 'block_without_targets'
    (begun and aborted).
    """
    dropped = Counter()
    blocks: list[tuple[str, list[Event]]] = []
    for event in events:
        if event.value.startswith("contrastChangeB") and event.value.endswith("_start"):
            blocks.append((event.value.removeprefix("contrastChangeB").removesuffix("_start"), []))
        elif blocks:
            blocks[-1][1].append(event)
        elif event.value in TARGETS:
            dropped["before_first_block"] += 1
    own = [rows for label, rows in blocks if label == str(run)]
    for label, rows in blocks:
        if label != str(run):
            dropped["foreign_block"] += _targets(rows)
    trials = []
    if own:
        own.sort(key=_targets, reverse=True)  # stable: of equally long ones the first
        for rows in own[1:]:
            dropped["repeated_block"] += _targets(rows)
        dropped["block_without_targets"] = int(not _targets(own[0]))
        trials = _block_trials(own[0], float(np.nanmax([0.0, *(event.onset_s for event in events)])), dropped)
    else:
        dropped["file_without_own_block"] = 1
    return trials, +dropped  # without zeros


def _targets(rows: list[Event]) -> int:
    return sum(event.value in TARGETS for event in rows)


def _block_trials(rows: list[Event], last_s: float, dropped: Counter) -> list[Trial]:
    starts = [i for i, event in enumerate(rows) if event.value == "contrastTrial_start"]
    dropped["no_trial_start"] += _targets(rows[: starts[0] if starts else len(rows)])
    candidates = []
    for number, (begin, end) in enumerate(pairwise([*starts, len(rows)])):
        targets = [i for i in range(begin, end) if rows[i].value in TARGETS]
        if len(targets) > 1:
            dropped["several_targets"] += len(targets)
        elif any(math.isnan(row.onset_s) for row in rows[begin:end]):
            dropped["no_onset"] += len(targets)
        elif targets:
            candidates.append((number, begin, targets[0], end))
    fast = _is_fast([rows[target].onset_s - rows[begin].onset_s for _, begin, target, _ in candidates])
    trials = []
    for number, begin, target, end in candidates:
        presses = [row for row in rows[target + 1 : end] if row.value.endswith("_buttonPress")]
        outcome = {"smiley_face": "correct", "sad_face": "wrong"}.get(presses[0].feedback) if presses else "miss"
        until_s = rows[target].onset_s + RESPONSE_WINDOW_S
        if any(row.value == "boundary" and row.onset_s <= until_s for row in rows[begin:end]):
            dropped["boundary"] += 1
        elif any(row.value not in KNOWN for row in rows[target:end]):
            dropped["unknown_value"] += 1
        elif outcome is None:
            dropped["press_without_feedback"] += 1
        elif outcome == "miss" and end == len(rows) and until_s > last_s + TOLERANCE_S:
            dropped["table_ends"] += 1
        else:
            trials.append(
                Trial(
                    trial=number,
                    onset_s=rows[target].onset_s,
                    side=rows[target].value.removesuffix("_target"),
                    foreperiod_s=rows[target].onset_s - rows[begin].onset_s,
                    fast_block=fast,
                    early_press=any(row.value.endswith("_buttonPress") for row in rows[begin + 1 : target]),
                    outcome=outcome,
                    rt_s=presses[0].onset_s - rows[target].onset_s if presses else None,
                    n_presses_after=len(presses),
                )
            )
    return trials


def _is_fast(foreperiods_s: list[float]) -> bool:
    """Whether most foreperiods are nearer to those of a fast block. (A few are odd in real files.)"""
    if not foreperiods_s:
        return False
    at_speed_s = [np.abs(np.array(foreperiods_s)[:, None] - FOREPERIODS_S / speed).min(axis=1) for speed in (1, FAST)]
    return bool(np.median(at_speed_s[1]) < np.median(at_speed_s[0]))
