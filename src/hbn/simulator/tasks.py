"""What people do in the ten tasks: event tables in HBN's form, and the meaning of events in real tables.

The statistics of symbolSearch, of seqLearning and of events in files of other tasks come from the event
tables of R1, R4 and R6 to R11 (2,491 participants; 1,177 recordings of symbolSearch with 20,229 responses,
477 of seqLearning6target, 819 of seqLearning8target). Those of contrast change detection come from R1 to
R3 and R5 (800 participants, 1,727 blocks).
"""

from dataclasses import dataclass

import numpy as np

from hbn import params
from hbn.data import event_kinds
from hbn.data.bids import Recording
from hbn.data.events import CONTRAST_CHANGE, FAST, FOREPERIODS_S, RESPONSE_WINDOW_S
from hbn.simulator.people import MOVIES_S, Person, learning_task, rng_of

FAST_BLOCKS = 92 / 1727  # share of blocks that run FAST times quicker
VIDEO_CODES = {
    **{"DespicableMe": (83, 103), "ThePresent": (84, 104)},
    **{"DiaryOfAWimpyKid": (81, 101), "FunwithFractals": (82, 102)},
}
EVENT_COLUMNS = ["onset", "duration", "sample", "value", "event_code"]
OWN_COLUMNS = {
    CONTRAST_CHANGE: ["feedback"],
    "surroundSupp": ["background", "foreground_contrast", "stimulus_cond"],
    "symbolSearch": ["user_answer", "correct_answer"],
    "seqLearning6target": ["user_answer", "correct_answer", "target_count"],
    "seqLearning8target": ["user_answer", "correct_answer", "target_count"],
}
# Share of the files that end with a row 'boundary', half a sample before the end.
BOUNDARY = {
    **{"RestingState": 0.90, "DespicableMe": 0.79, "FunwithFractals": 0.77, "DiaryOfAWimpyKid": 0.73},
    **{"ThePresent": 0.0, "surroundSupp": 0.44, CONTRAST_CHANGE: 0.02, "symbolSearch": 0.91},
    **{"seqLearning6target": 0.98, "seqLearning8target": 0.99},
}
# Share of the files that go on with the beginning of another task, which was broken off. (The simulation leaves out
# movies after contrast change detection and surround suppression, which are in 11 and 3.5 % of the real files.)
RUNS_ON = {
    **{"RestingState": (0.027, "seqLearning"), "symbolSearch": (0.014, "DespicableMe")},
    **{"DespicableMe": (0.006, CONTRAST_CHANGE), "FunwithFractals": (0.034, CONTRAST_CHANGE)},
    **{"DiaryOfAWimpyKid": (0.072, CONTRAST_CHANGE)},
}
# Names that events of contrast change detection get in the file of a film (see event_kinds).
IN_FILMS = {"left_target": "stim_ON", "left_buttonPress": "dot_no2_ON", "right_buttonPress": "dot_no3_ON"}

# Right answers of symbolSearch, the same for everybody. No real recording goes beyond these 57 rows.
SEARCH_ANSWERS = "010001010001011110101011010110011010101001010101001101101"
ROWS_PER_PAGE = 15
# The dots of seqLearning by number of targets, the same for everybody and in all five blocks.
SEQUENCES = {6: (1, 6, 4, 2, 3, 5, 2), 8: (1, 6, 4, 2, 7, 3, 8, 5, 2, 7)}
# Median over recordings of the time for the answer in each block, by number of targets.
ANSWER_S = {6: (45.8, 33.2, 28.1, 27.9, 22.9), 8: (40.8, 30.1, 27.9, 26.6, 22.5)}


@dataclass(frozen=True)
class Block:
    """A stretch of one task in a file. The last of its rows, 'end', says where it ends and is not written."""

    recording: Recording
    rows: list[dict]


def file_blocks(p: params.Simulator, person: Person, recording: Recording) -> list[Block]:
    """The blocks in the file of a recording: its own, and what else was recorded into the file.

    Files of contrast change detection may hold an exact copy of the next run's block. Other files may hold
    the beginning of another task (RUNS_ON). The last row before the end may be a 'boundary' (BOUNDARY).
    """
    blocks = [Block(recording, event_table(p, person, recording))]
    if has_copy_of_next(p.seed, recording):
        after = Recording(recording.participant_id, recording.task, (recording.run or 1) + 1)
        blocks.append(Block(after, event_table(p, person, after)))
    rng = rng_of(p.seed, recording.participant_id, recording.column, "file")
    share, task = RUNS_ON.get(recording.task, (0.0, ""))
    if rng.random() < share:
        task = learning_task(person) if task == "seqLearning" else task
        run = int(rng.integers(1, 4)) if task == CONTRAST_CHANGE else None
        begun = Recording(recording.participant_id, task, run)
        blocks.append(Block(begun, broken_off(event_table(p, person, begun), rng)))
    if rng.random() < BOUNDARY[recording.task]:
        rows = blocks[-1].rows
        rows.insert(-1, {"onset_s": rows[-1]["onset_s"], "value": "boundary"})
    return blocks


def broken_off(rows: list[dict], rng: np.random.Generator) -> list[dict]:
    """The beginning of a table; in two of three files its first trial or block only, as in real files."""
    first = 4 if any(row["value"] == "contrastTrial_start" for row in rows) else 23
    kept = min(first if rng.random() < 0.65 else int(rng.integers(first, 60)), len(rows) - 1)
    return [*rows[:kept], {"onset_s": rows[kept - 1]["onset_s"] + float(rng.uniform(1, 10)), "value": "end"}]


def event_table(p: params.Simulator, person: Person, recording: Recording) -> list[dict]:
    """Events of a recording's own block in file order: dicts of onset_s, value and the task's own columns.

    The last event, 'end', says where the block ends and is not written.
    """
    rng = rng_of(p.seed, person.participant_id, recording.column, "events")
    rows = [{"onset_s": 0.0, "value": "9999" if recording.task in MOVIES_S else "break cnt"}]
    if recording.task == CONTRAST_CHANGE:
        rows += contrast_block(p.seed, person, recording.run or 1, p.lead_in_s, rng)
    elif recording.task == "RestingState":
        rows += resting(p.lead_in_s, p.resting_cycles)
    elif recording.task == "surroundSupp":
        rows += surround_suppression(recording.run or 1, p.lead_in_s, rng)
    elif recording.task == "symbolSearch":
        rows[0]["value"] = before_search(person, rng)
        rows += symbol_search(p.seed, person, p.lead_in_s, p.search_s, rng)
    elif recording.task in MOVIES_S:
        start, stop = VIDEO_CODES[recording.task]
        rows.append({"onset_s": 1.04, "value": "video_start", "event_code": start})
        rows.append({"onset_s": 1.04 + MOVIES_S[recording.task], "value": "video_stop", "event_code": stop})
        rows.append({"onset_s": 2.0 + MOVIES_S[recording.task], "value": "end"})
    else:
        n_targets = int(recording.task.removeprefix("seqLearning").removesuffix("target"))
        rows += sequence_learning(p.seed, person, n_targets, p.lead_in_s, rng)
        rows = [{**row, "target_count": n_targets} for row in rows]
    return rows


def resting(lead_in_s: float, cycles: int) -> list[dict]:
    """Eyes open for 20 s and closed for 40 s, in turn."""
    rows = [{"onset_s": 1.3, "value": "resting_start"}]
    onset_s = lead_in_s
    for _ in range(cycles):
        rows.append({"onset_s": onset_s, "value": "instructed_toOpenEyes"})
        rows.append({"onset_s": onset_s + 20, "value": "instructed_toCloseEyes"})
        onset_s += 60
    rows.append({"onset_s": onset_s, "value": "instructed_toOpenEyes"})
    rows.append({"onset_s": onset_s + 4.5, "value": "end"})
    return rows


def surround_suppression(run: int, lead_in_s: float, rng: np.random.Generator) -> list[dict]:
    """64 stimuli, in one of two setups."""
    rows = [{"onset_s": lead_in_s - 2, "value": f"surroundSuppB{run}_start"}]
    stimuli = [(b, f, c) for b in (1, 1, 1, 0) for f in ("0", "0.3", "0.6", "1") for c in (1, 2, 3, 1)]
    order = rng_of("surroundSupp", run).permutation(len(stimuli))  # the same for everybody
    onset_s, gap_s = lead_in_s, float(rng.choice([2.91, 5.31]))  # two setups
    for background, foreground, condition in (stimuli[i] for i in order):
        rows.append({"onset_s": onset_s - 0.51, "value": "fixpoint_ON"})
        shown = {"background": background, "foreground_contrast": foreground, "stimulus_cond": condition}
        rows.append({"onset_s": onset_s, "duration": 2.4, "value": "stim_ON", **shown})
        onset_s += gap_s + 0.51
    rows.append({"onset_s": onset_s + 1, "value": "end"})
    return rows


def before_search(person: Person, rng: np.random.Generator) -> str:
    """The value of row 0 of symbolSearch; in 1 of 21 files it is the last event of the previous task."""
    last_dot = SEQUENCES[6 if learning_task(person) == "seqLearning6target" else 8][-1]
    last = f"dot_no{last_dot}_OFF" if rng.random() < 0.8 else "seqLearning_stop"
    return last if rng.random() < 54 / 1177 else "break cnt"


def symbol_search(seed: int, person: Person, lead_in_s: float, limit_s: float, rng: np.random.Generator) -> list[dict]:
    """Pages of 15 rows, a click on yes or no for each; the first click after `limit_s` ends the task.

    A last 'newPage' comes 12 ms after the last click. The quantiles (5, 50, 95 %) in real files are: time
    between clicks 2.2, 5.6, 16.5 s; first click after the first page 4.6, 8.7, 26.6 s; clicks per recording 6,
    16, 32. The logarithms of the times have an sd of .43 within a recording. Their means have an sd of .50 between
    recordings and r -.68 with age. 89 % of the answers are right (r .29 with age). Misses are 2.6 times as frequent
    as false alarms. The page turns 0.6, 1.2, 3.6 s after its 15th click.
    """
    own = rng_of(seed, person.participant_id, "searching")
    pace = 1.96 - 0.37 * min(person.age_z, 1.4) + own.normal(0, 0.27)  # adults are no quicker than at 14
    wrong_rate = _sigmoid(-2.6 - 0.55 * person.age_z + own.normal(0, 1.0))
    onset_s = lead_in_s - 2
    rows = [{"onset_s": onset_s, "value": "symbolSearch_start"}]
    onset_s += 2.91 if rng.random() < 0.76 else 5.92
    until_s = onset_s + limit_s
    rows.append({"onset_s": onset_s, "value": "newPage"})
    n_clicks, hesitation = 0, 0.22  # added to the log time of the first click
    while onset_s <= until_s:
        onset_s += max(0.6, float(np.exp(pace + hesitation + rng.normal(0, 0.43))))
        hesitation = 0.0
        right = SEARCH_ANSWERS[n_clicks % len(SEARCH_ANSWERS)]
        is_wrong = rng.random() < min(0.9, wrong_rate * {"1": 1.6, "0": 0.6}[right])
        answer = {"0": "1", "1": "0"}[right] if is_wrong else right
        answer = "n/a" if rng.random() < 93 / 20229 else answer
        rows.append({"onset_s": onset_s, "value": "trialResponse", "user_answer": answer, "correct_answer": right})
        n_clicks += 1
        if onset_s <= until_s and n_clicks % ROWS_PER_PAGE == 0:
            onset_s += float(np.exp(rng.normal(0.17, 0.5)))
            rows.append({"onset_s": onset_s, "value": "newPage"})
    rows.append({"onset_s": onset_s + 0.012, "value": "newPage"})
    rows.append({"onset_s": onset_s + float(rng.uniform(2.6, 7.5)), "value": "end"})
    return rows


def sequence_learning(
    seed: int, person: Person, n_targets: int, lead_in_s: float, rng: np.random.Generator
) -> list[dict]:
    """Five blocks in which the same sequence of dots is shown, then repeated by clicks that have no rows.

    Each dot is shown for 0.58 s, with 1.32 s between dots. In real files, the medians of the time for an answer are
    ANSWER_S, with an sd of the logarithm of .45. The mean share of right positions rises from .40 to .53 over the
    blocks; in single recordings it lies between 0 and 1.
    """
    own = rng_of(seed, person.participant_id, "learning")
    pace, skill = own.normal(0, 0.35), own.normal(0, 1.2)
    dots = SEQUENCES[n_targets]
    onset_s = lead_in_s - 2
    rows = [{"onset_s": onset_s, "value": "seqLearning_start"}]
    onset_s += 6.28 if rng.random() < 0.75 else 9.33
    for block, answer_s in enumerate(ANSWER_S[n_targets]):
        rows.append({"onset_s": onset_s, "value": f"learningBlock_{block + 1}"})
        onset_s += 0.008 if block else 0.026
        for dot in dots:
            rows.append({"onset_s": onset_s, "value": f"dot_no{dot}_ON"})
            rows.append({"onset_s": onset_s + 0.58, "value": f"dot_no{dot}_OFF"})
            onset_s += 1.9
        right = rng.random(len(dots)) < _sigmoid(-1.05 + 0.2 * block + skill)
        others = rng.integers(1, n_targets + 1, size=len(dots))
        rows[-1]["user_answer"] = "-".join(str(d if ok else o) for d, ok, o in zip(dots, right, others, strict=True))
        rows[-1]["correct_answer"] = "-".join(map(str, dots))
        onset_s += -1.32 + max(11.0, answer_s * float(np.exp(pace + rng.normal(0, 0.28))))
    rows.append({"onset_s": onset_s, "value": "seqLearning_stop"})
    rows.append({"onset_s": onset_s + float(rng.uniform(0.6, 5.0)), "value": "end"})
    return rows


def contrast_block(seed: int, person: Person, run: int, lead_in_s: float, rng: np.random.Generator) -> list[dict]:
    """One block of contrast change detection: 25 trial starts, 24 targets, presses, feedback."""
    own = rng_of(seed, person.participant_id, "behaviour")  # the same in every run of a participant
    own_rt_s = -0.06 * person.age_z + own.normal(0, 0.19)
    miss_rate = _sigmoid(-2.55 - 0.72 * person.age_z + own.normal(0, 0.85))
    wrong_rate = _sigmoid(-2.13 - 0.1 * person.age_z + own.normal(0, 0.7))
    speed = FAST if rng.random() < FAST_BLOCKS else 1.0
    window_s = RESPONSE_WINDOW_S / speed
    # The order of sides and foreperiods repeats across participants: 36 distinct sequences.
    sequence = rng_of("sequence", int(rng.integers(36)))
    foreperiods = sequence.permutation(np.repeat([0, 1, 2], 8))
    sides = np.where(sequence.permutation(np.repeat([0, 1], 12)) == 1, "right", "left")

    rows = [{"onset_s": lead_in_s - 2, "value": f"contrastChangeB{run}_start"}]
    start_s, residual_s = lead_in_s, 0.0
    for number, (foreperiod, side) in enumerate(zip(foreperiods, sides, strict=True)):
        target_s = start_s + float(FOREPERIODS_S[foreperiod]) / speed
        next_s = target_s + window_s
        rows.append({"onset_s": start_s, "value": "contrastTrial_start"})
        if rng.random() < 0.13:
            press_s = rng.uniform(start_s + 0.2, target_s - 0.1)
            rows.append({"onset_s": press_s, "value": f"{_either(rng)}_buttonPress", "feedback": "non_target"})
        rows.append({"onset_s": target_s, "value": f"{side}_target"})
        noise_s = rng.normal(0, 0.31)
        # Quicker after a long wait, slower towards the end, and much like the time before.
        expected_s = 1.675 - 0.09 * (foreperiod - 1) + 0.2 * (number / 23 - 0.5) + 0.22 * residual_s
        rt_s = max(expected_s + own_rt_s + noise_s, 0.5)
        rt_s /= 1.0 if speed == 1.0 else 1.25  # in fast blocks people are faster, but less than the blocks are
        if rng.random() < 0.022:  # before anything could be seen
            rt_s = rng.uniform(0.05, 0.48)
        else:
            residual_s = noise_s
        if rng.random() > miss_rate and rt_s < window_s - 0.02:  # a response that is too slow is a miss, too
            wrong = rng.random() < wrong_rate
            hand = contralateral(str(side)) if wrong else side
            feedback = "sad_face" if wrong else "smiley_face"
            rows.append({"onset_s": target_s + rt_s, "value": f"{hand}_buttonPress", "feedback": feedback})
            second_s = target_s + rt_s + 0.25
            if rng.random() < 0.08 and second_s < next_s - 0.05:
                rows.append({"onset_s": second_s, "value": f"{_either(rng)}_buttonPress", "feedback": "non_target"})
        start_s = next_s
    rows.append({"onset_s": start_s, "value": "contrastTrial_start"})
    rows.append({"onset_s": start_s + 1.6, "value": "end"})
    return rows


def has_copy_of_next(seed: int, recording: Recording) -> bool:
    """Whether the file of a run also holds the next run's block (11 % of the trials on file do)."""
    if recording.task != CONTRAST_CHANGE or recording.run == 3:
        return False
    return rng_of(seed, recording.participant_id, recording.column, "copy").random() < 0.15


def contralateral(side: str) -> str:
    return {"left": "right", "right": "left"}[side]


def trials_of(rows: list[dict]) -> list[dict]:
    """Trials of contrast change detection: target_s, side, rt_s (None for no response), hand, feedback, feedback_s."""
    trials, current = [], None
    for row in rows:
        value = row["value"]
        if value.endswith("_target"):
            current = {"target_s": row["onset_s"], "side": value.split("_")[0], "rt_s": None, "feedback_s": 1e9}
            trials.append(current)
        elif value == "contrastTrial_start" and current is not None:
            current["feedback_s"], current = row["onset_s"], None
        elif value.endswith("_buttonPress") and current is not None and current["rt_s"] is None:
            current["rt_s"] = row["onset_s"] - current["target_s"]
            current["hand"], current["feedback"] = value.split("_")[0], row.get("feedback")
    return trials


def spans(rows: list[dict], begin: str, end: str, time_s: np.ndarray) -> np.ndarray:
    """1 between an event `begin` and the next `end` (or the last row), else 0; float32 (T,)."""
    inside = np.zeros(len(time_s), dtype=np.float32)
    for i, row in enumerate(rows):
        if row["value"] == begin:
            until_s = next((later["onset_s"] for later in rows[i + 1 :] if later["value"] == end), rows[-1]["onset_s"])
            inside[(time_s >= row["onset_s"]) & (time_s < until_s)] = 1
    return inside


def as_meant(rows: list[dict]) -> list[dict]:
    """Rows of a real table, renamed by the task that was running instead of the file's task.

    In the file of a film, a press of contrast change detection is named 'dot_no2_ON' (see event_kinds).
    """
    meant, running = [], None
    for row in rows:
        number = event_kinds.NUMBER.get(row["value"])
        running = event_kinds.STARTS.get(number, running)
        name, _ = event_kinds.EVENTS.get(running, {}).get(number, (row["value"], None))
        meant.append({**row, "value": name})
    return meant


def in_file_of(task: str, value: str) -> str:
    """The name of an event in the file of `task`."""
    return IN_FILMS.get(value, value) if task in MOVIES_S else value


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def _either(rng: np.random.Generator) -> str:
    return "left" if rng.random() < 0.5 else "right"
