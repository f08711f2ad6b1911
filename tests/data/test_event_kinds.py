"""Which kind of event each value of each task is, on hand-made tables and in eight whole releases."""

import tarfile
from collections import Counter

import pytest

from hbn.data import events
from hbn.data.bids import Recording
from hbn.data.event_kinds import EVENTS, KINDS, NO_EVENTS, NUMBER, STARTS, TASKS, classify, count_kinds

# Counted with cut, sort and uniq in the event tables of R1, R4 and R6 to R11: every value that there is.
REAL_VALUES = {
    *("resting_start", "instructed_toOpenEyes", "instructed_toCloseEyes", "surroundSuppB1_start"),
    *("surroundSuppB2_start", "fixpoint_ON", "stim_ON", "contrastChangeB1_start", "contrastChangeB2_start"),
    *("contrastChangeB3_start", "contrastTrial_start", "left_target", "right_target", "left_buttonPress"),
    *("right_buttonPress", "symbolSearch_start", "newPage", "trialResponse", "seqLearning_start", "seqLearning_stop"),
    *("video_start", "video_stop", *(f"learningBlock_{k}" for k in range(1, 6))),
    *(f"dot_no{k}_{state}" for k in range(1, 9) for state in ("ON", "OFF")),
    *("break cnt", "9999", "boundary", "n/a", "IBEG", "IEND", "net", "SPIK"),
}
# Of each release: recordings, targets in files of contrastChangeDetection, trials, answered, reasons.
RELEASES = {
    "R1": (1342, 8474, 7032, 6097, {"foreign_block": 1440, "before_first_block": 2}),
    "R4": (3342, 19616, 18143, 15301, {"foreign_block": 1468, "before_first_block": 5}),
    "R6": (1227, 5582, 5568, 4676, {"before_first_block": 14}),
    "R7": (3100, 12721, 12673, 10901, {"foreign_block": 24, "before_first_block": 23, "table_ends": 1}),
    "R8": (2320, 12311, 12274, 10253, {"foreign_block": 24, "before_first_block": 13}),
    "R9": (2885, 15724, 15702, 13656, {"before_first_block": 22}),
    "R10": (2516, 5089, 5087, 4224, {"before_first_block": 1, "press_without_feedback": 1}),
    "R11": (
        *(3397, 18464, 18370, 16085),
        {"foreign_block": 72, "before_first_block": 20, "press_without_feedback": 1, "table_ends": 1},
    ),
}


def kinds(*values: str) -> list[tuple[str, str, str]]:
    """The events among values: value, kind, task."""
    return [(values[row], KINDS[kind], TASKS[task]) for row, kind, task in classify(list(values))[0]]


def test_every_value_of_the_real_tables_is_known_and_starts_belong_to_one_task():
    assert set(NUMBER) | set(NO_EVENTS) == REAL_VALUES | {""}
    assert tuple(EVENTS) == TASKS
    for number, task in STARTS.items():
        assert [name for name, table in EVENTS.items() if number in table] == [task]
        assert EVENTS[task][number][1] == "start"


def test_events_of_each_task():
    assert kinds("9999", "symbolSearch_start", "newPage", "trialResponse", "boundary") == [
        ("symbolSearch_start", "start", "symbolSearch"),
        ("newPage", "stimulus_onset", "symbolSearch"),
        ("trialResponse", "press", "symbolSearch"),
    ]
    assert kinds("surroundSuppB1_start", "fixpoint_ON", "stim_ON")[1:] == [
        ("stim_ON", "stimulus_onset", "surroundSupp")
    ]
    assert kinds("seqLearning_start", "learningBlock_1", "dot_no3_ON", "dot_no3_OFF", "seqLearning_stop")[1:] == [
        ("learningBlock_1", "start", "seqLearning"),
        ("dot_no3_ON", "stimulus_onset", "seqLearning"),
        ("seqLearning_stop", "stop", "seqLearning"),
    ]


def test_only_a_trial_start_that_follows_a_target_shows_feedback():
    block = ["contrastChangeB1_start", "contrastTrial_start", "left_target", "left_buttonPress", "contrastTrial_start"]
    assert [kind for _, kind, _ in kinds(*block)] == ["start", "stimulus_onset", "press_left", "feedback"]


def test_a_name_in_a_file_of_another_task_stands_for_its_number():
    """As in a real file of DiaryOfAWimpyKid: presses of contrastChangeDetection are called dots there."""
    film = ["video_start", "video_stop", "break cnt", "contrastChangeB2_start", "contrastTrial_start", "stim_ON"]
    assert kinds(*film, "dot_no2_ON", "dot_no3_ON")[3:] == [
        ("stim_ON", "stimulus_onset", "contrastChangeDetection"),
        ("dot_no2_ON", "press_left", "contrastChangeDetection"),
        ("dot_no3_ON", "press_right", "contrastChangeDetection"),
    ]
    assert kinds("seqLearning_start", "seqLearning_stop", "symbolSearch_start", "instructed_toOpenEyes", "dot_no4_ON")[
        3:
    ] == [("instructed_toOpenEyes", "stimulus_onset", "symbolSearch"), ("dot_no4_ON", "press", "symbolSearch")]
    assert kinds("94", "5", "8", "12") == [
        ("94", "start", "contrastChangeDetection"),
        ("8", "stimulus_onset", "contrastChangeDetection"),
        ("12", "press_left", "contrastChangeDetection"),
    ]


def test_what_is_left_out_is_counted_by_reason():
    before = ["dot_no2_OFF", "resting_start", "instructed_toOpenEyes", "trialResponse", "D:\\film.avi", "77", "9999"]
    after = ["video_start", "video_stop", "stim_ON"]
    found, left_out, unknown = classify(before + after)
    assert [row for row, _, _ in found] == [1, 2, 7, 8]
    assert left_out == {"before_any_task": 2, "of_another_task": 1, "of_no_kind": 1}
    assert unknown == {"D:\\film.avi": 1, "77": 1}


@pytest.mark.parametrize("release", RELEASES)
def test_no_trial_and_no_event_of_a_real_release_is_lost(hbn_metadata, release):
    path = hbn_metadata / f"full/{release}.tar.xz"
    if not path.exists():
        pytest.skip(f"no {path}")
    recordings, targets, trials, dropped, values, rows = 0, 0, [], Counter(), Counter(), []
    with tarfile.open(path) as archive:
        for member in archive:
            if not member.name.endswith("_events.tsv"):
                continue
            content = archive.extractfile(member).read()
            table = events.parse_events(content, member.name)
            assert len(table) == content.count(b"\n") - 1
            assert not any(event.onset_s != event.onset_s for event in table)
            recordings += 1
            found, left_out, unknown = classify([event.value for event in table])
            rows += found
            values.update(in_table=len(table), events=len(found), left_out=left_out.total(), unknown=unknown.total())
            recording = Recording.of(member.name.rpartition("/")[2])
            if recording.task == events.CONTRAST_CHANGE:
                kept, reasons = events.contrast_trials(table, recording.run)
                trials, dropped = trials + kept, dropped + reasons
                targets += content.count(b"_target\t")
    answered = sum(trial.rt_s is not None for trial in trials)
    assert (recordings, targets, len(trials), answered, dropped) == RELEASES[release]
    assert targets == len(trials) + dropped.total()
    assert values["unknown"] == 0
    assert values["in_table"] == values["events"] + values["left_out"]
    assert max(trial.rt_s or 0 for trial in trials) < 2.5
    assert set(count_kinds(rows)) == set(TASKS)
