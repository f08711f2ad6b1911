"""Event tables as they really are, and the trials of contrast change detection."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hbn.files import HbnError, read_tsv

CONTRAST_CHANGE = "contrastChangeDetection"
# Trial start to target is at least 2.8 s in a block at normal speed and at most 4.1 s in one that
# runs 1.463 times fast (foreperiods 1.9/3.0/4.1 s), so the shortest one tells them apart.
FAST_FOREPERIOD_S = 2.35


@dataclass(frozen=True)
class Event:
    """One row of an events table."""

    onset_s: float
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


def read_events(path: Path | str) -> list[Event]:
    """Rows in file order, which decides where onsets are tied.

    Rows without a finite onset are skipped; HbnError if the columns onset and value are absent.
    """
    rows = read_tsv(path)
    if rows and not {"onset", "value"} <= rows[0].keys():
        raise HbnError(f"{path} lacks the columns onset and value; it has {', '.join(map(str, rows[0]))}")
    events = []
    for row in rows:
        try:
            onset_s = float(row["onset"])
        except (TypeError, ValueError):
            continue
        if math.isfinite(onset_s) and onset_s >= 0:
            events.append(Event(onset_s, row["value"] or "n/a", row.get("feedback") or "n/a"))
    return events


def contrast_trials(events: list[Event], run: int | None) -> tuple[list[Trial], Counter]:
    """Trials of the run's own block, and why others were dropped.

    Files of runs 1 and 2 often hold an exact copy of the next run's block: only the block whose
    label equals the run is kept, so that no trial is counted twice. A response is the first press
    after the target and before the next trial start, in file order; its feedback tells the side.
    """
    dropped = Counter()
    blocks: list[tuple[str, list[Event]]] = []
    for event in events:
        if event.value.startswith("contrastChangeB") and event.value.endswith("_start"):
            blocks.append((event.value.removeprefix("contrastChangeB").removesuffix("_start"), []))
        elif blocks:
            blocks[-1][1].append(event)
        elif event.value in ("left_target", "right_target"):
            dropped["before_first_block"] += 1
    own = [rows for label, rows in blocks if label == str(run)]
    for label, rows in blocks:
        if label != str(run):
            dropped["foreign_block"] += _targets(rows)
    if not own:
        return [], dropped
    own.sort(key=_targets, reverse=True)  # stable: of equally long ones the first
    for rows in own[1:]:
        dropped["repeated_block"] += _targets(rows)
    trials = _block_trials(own[0], dropped)
    return trials, Counter({reason: n for reason, n in dropped.items() if n})


def _targets(rows: list[Event]) -> int:
    return sum(event.value.endswith("_target") for event in rows)


def _block_trials(rows: list[Event], dropped: Counter) -> list[Trial]:
    starts = [i for i, event in enumerate(rows) if event.value == "contrastTrial_start"]
    found = []
    dropped["no_trial_start"] += _targets(rows[: starts[0] if starts else len(rows)])
    for begin, end in zip(starts, [*starts[1:], len(rows)], strict=True):
        targets = [i for i in range(begin, end) if rows[i].value in ("left_target", "right_target")]
        if len(targets) > 1:
            dropped["several_targets"] += len(targets)
        elif targets:
            found.append((begin, targets[0], end))
    foreperiods_s = [rows[target].onset_s - rows[begin].onset_s for begin, target, _ in found]
    fast = bool(foreperiods_s) and min(foreperiods_s) < FAST_FOREPERIOD_S
    trials = []
    for number, ((begin, target, end), foreperiod_s) in enumerate(zip(found, foreperiods_s, strict=True)):
        press = next((row for row in rows[target + 1 : end] if row.value.endswith("_buttonPress")), None)
        outcome = "miss"
        if press is not None:
            outcome = {"smiley_face": "correct", "sad_face": "wrong"}.get(press.feedback, "")
            if not outcome:
                dropped["press_without_feedback"] += 1
                continue
        trials.append(
            Trial(
                trial=number,
                onset_s=rows[target].onset_s,
                side=rows[target].value.removesuffix("_target"),
                foreperiod_s=foreperiod_s,
                fast_block=fast,
                early_press=any(row.value.endswith("_buttonPress") for row in rows[begin + 1 : target]),
                outcome=outcome,
                rt_s=None if press is None else press.onset_s - rows[target].onset_s,
            )
        )
    return trials
