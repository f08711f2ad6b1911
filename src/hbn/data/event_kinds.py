"""The events of all HBN tasks: task, number, name and kind of each.

The EEG amplifier recorded a number for each event. The makers of HBN-EEG translated the numbers of a file by the names
of the file's own task, then by a common list. Tasks share numbers: 12 is a press of the left button in
contrastChangeDetection and the onset of dot 2 in seqLearning. Where the file of one task holds a block of another
task, the events of that block have wrong names: in the files of films, presses of contrastChangeDetection are named
'dot_no2_ON'. This module therefore translates each name back to its number. The number belongs to the task whose start
is the last one before the event in the file.

Source of names, numbers and meanings: the task-*_events.json of HBN-EEG, and all 20,129 event tables of eight releases
(R1, R4, R6 to R11).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable

from hbn.params import EVENT_TASKS

TASKS = EVENT_TASKS
KINDS = (
    "press_left",
    "press_right",
    "press",  # by an unknown hand
    "stimulus_onset",
    "feedback",
    "eyes_opened",
    "eyes_closed",
    "start",  # of a film or a block
    "stop",
)

# task -> number -> (value, kind); the kind is None for events that are not used.
EVENTS: dict[str, dict[int, tuple[str, str | None]]] = {
    "RestingState": {
        90: ("resting_start", "start"),
        20: ("instructed_toOpenEyes", "eyes_opened"),  # the spoken instruction; the eyes follow within a second
        30: ("instructed_toCloseEyes", "eyes_closed"),
    },
    "surroundSupp": {
        93: ("surroundSuppB1_start", "start"),
        97: ("surroundSuppB2_start", "start"),
        4: ("fixpoint_ON", None),  # a small dot; in some set-ups it appears while the gratings disappear
        8: ("stim_ON", "stimulus_onset"),  # flickering gratings
    },
    "contrastChangeDetection": {
        94: ("contrastChangeB1_start", "start"),
        95: ("contrastChangeB2_start", "start"),
        96: ("contrastChangeB3_start", "start"),
        5: ("contrastTrial_start", "feedback"),  # feedback on the trial before; the first of a block gives none
        8: ("left_target", "stimulus_onset"),  # the contrast begins to ramp, over 1.6 s
        9: ("right_target", "stimulus_onset"),
        12: ("left_buttonPress", "press_left"),
        13: ("right_buttonPress", "press_right"),
    },
    "symbolSearch": {
        92: ("symbolSearch_start", "start"),
        20: ("newPage", "stimulus_onset"),  # a page of 15 rows of symbols
        14: ("trialResponse", "press"),  # a click of the mouse
    },
    "seqLearning": {  # with 6 or with 8 targets
        91: ("seqLearning_start", "start"),
        50: ("seqLearning_stop", "stop"),
        **{30 + k: (f"learningBlock_{k}", "start") for k in range(1, 6)},
        **{10 + k: (f"dot_no{k}_ON", "stimulus_onset") for k in range(1, 9)},  # the dot turns black
        **{20 + k: (f"dot_no{k}_OFF", None) for k in range(1, 9)},  # 0.5 s later it turns white again
    },
    "movies": {
        **{80 + k: ("video_start", "start") for k in range(1, 5)},  # DiaryOfAWimpyKid, FunwithFractals,
        **{100 + k: ("video_stop", "stop") for k in range(1, 5)},  # DespicableMe, ThePresent
    },
}
# Numbers that start a task; no other task uses them.
STARTS = {90: "RestingState", 91: "seqLearning", 92: "symbolSearch", 93: "surroundSupp", 97: "surroundSupp"}
STARTS |= dict.fromkeys((94, 95, 96), "contrastChangeDetection") | dict.fromkeys((81, 82, 83, 84), "movies")
NUMBER = {value: number for events in EVENTS.values() for number, (value, _) in events.items()}
NO_EVENTS = (
    *("n/a", ""),
    "9999",  # the presentation computer's greeting
    "break cnt",  # a message of the amplifier, mostly between tasks
    "boundary",  # EEGLAB's mark of a discontinuity; kept among the breaks
    *("IBEG", "IEND"),  # begin and end of the amplifier's impedance measurement
    *("net", "SPIK"),  # messages of the amplifier
)


def classify(values: list[str]) -> tuple[list[tuple[int, int, int]], Counter, Counter]:
    """The events among the values of one table, in file order.

    Returns (row, kind, task) of each event, with the indices of its kind in KINDS and of its task in TASKS; counts of
    the values that are left out, by reason; and counts of the values that no task has. The reasons are
    'before_any_task' (no task has started in the file, or none since the last stop), 'of_another_task' (the number
    has no meaning in the task that started last) and 'of_no_kind' (the kind is None).
    """
    events, left_out, unknown = [], Counter(), Counter()
    task, after_target = None, False
    for row, value in enumerate(values):
        number = int(value) if value.isascii() and value.isdigit() else NUMBER.get(value)
        if value in NO_EVENTS:
            left_out["of_no_kind"] += 1
            continue
        if number not in _NUMBERS:
            unknown[value] += 1
            continue
        task = STARTS.get(number, task)
        if task is None:
            left_out["before_any_task"] += 1
            continue
        name, kind = EVENTS[task].get(number, (None, None))
        if name is None:
            left_out["of_another_task"] += 1
        elif kind is None or (kind == "feedback" and not after_target):
            left_out["of_no_kind"] += 1
        else:
            events.append((row, KINDS.index(kind), TASKS.index(task)))
        if kind == "feedback" or number in STARTS:
            after_target = False
        elif task == "contrastChangeDetection" and kind == "stimulus_onset":
            after_target = True
        if kind == "stop":
            task = None
    return events, left_out, unknown


def count_kinds(events: Iterable[tuple]) -> dict[str, Counter]:
    """Number of events of each kind in each task; the last two items of an event are its kind and task."""
    counts = defaultdict(Counter)
    for *_, kind, task in events:
        counts[TASKS[task]][KINDS[kind]] += 1
    return counts


_NUMBERS = {number for events in EVENTS.values() for number in events}
