"""Event tables as they really are, and the trials of contrast change detection."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hbn.data.bids import UnusableRecording
from hbn.files import read_tsv

CONTRAST_CHANGE = "contrastChangeDetection"
TARGETS = ("left_target", "right_target")
FOREPERIODS_S = np.array([2.8, 4.4, 6.0])  # from trial start to target; a third of trials each
RESPONSE_WINDOW_S = 2.4
FAST = 1.463  # times quicker are all intervals of about one block in twenty


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


def read_events(path: Path | str) -> list[Event]:
    """Rows in file order, which decides where onsets are tied; only onset, value and feedback are read.

    Raises UnusableRecording: 'events_missing' (no such file) or 'events_columns' (no onset or value).
    """
    if not Path(path).exists():
        raise UnusableRecording("events_missing", f"{path} does not exist")
    rows = read_tsv(path)
    if rows and not {"onset", "value"} <= rows[0].keys():
        has = ", ".join(map(str, rows[0]))
        raise UnusableRecording("events_columns", f"{path} lacks the columns onset and value; it has {has}")
    events = []
    for row in rows:
        try:
            onset_s = float(row["onset"])
        except (TypeError, ValueError):
            onset_s = math.nan
        known = 0 <= onset_s < math.inf
        events.append(Event(onset_s if known else math.nan, row["value"] or "n/a", row.get("feedback") or "n/a"))
    return events


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
    'press_without_feedback'.
    'file_without_own_block' counts 1 for the file.
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
        trials = _block_trials(own[0], dropped)
    else:
        dropped["file_without_own_block"] = 1
    return trials, +dropped  # without zeros


def _targets(rows: list[Event]) -> int:
    return sum(event.value in TARGETS for event in rows)


def _block_trials(rows: list[Event], dropped: Counter) -> list[Trial]:
    starts = [i for i, event in enumerate(rows) if event.value == "contrastTrial_start"]
    dropped["no_trial_start"] += _targets(rows[: starts[0] if starts else len(rows)])
    found = []
    for number, (begin, end) in enumerate(zip(starts, [*starts[1:], len(rows)], strict=True)):
        targets = [i for i in range(begin, end) if rows[i].value in TARGETS]
        if len(targets) > 1:
            dropped["several_targets"] += len(targets)
        elif any(math.isnan(row.onset_s) for row in rows[begin:end]):
            dropped["no_onset"] += len(targets)
        elif targets:
            found.append((number, begin, targets[0], end))
    fast = _is_fast([rows[target].onset_s - rows[begin].onset_s for _, begin, target, _ in found])
    trials = []
    for number, begin, target, end in found:
        presses = [row for row in rows[target + 1 : end] if row.value.endswith("_buttonPress")]
        outcome = {"smiley_face": "correct", "sad_face": "wrong"}.get(presses[0].feedback) if presses else "miss"
        until_s = rows[target].onset_s + RESPONSE_WINDOW_S
        if any(row.value == "boundary" and row.onset_s <= until_s for row in rows[begin:end]):
            dropped["boundary"] += 1
        elif outcome is None:
            dropped["press_without_feedback"] += 1
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
    """Whether the foreperiods are nearer to those of a fast block, most of them (some are odd in real files)."""
    if not foreperiods_s:
        return False
    at_speed_s = [np.abs(np.array(foreperiods_s)[:, None] - FOREPERIODS_S / speed).min(axis=1) for speed in (1, FAST)]
    return bool(np.median(at_speed_s[1]) < np.median(at_speed_s[0]))
