"""The trial table of contrast change detection, on hand-made tables and on real ones."""

from collections import Counter
from math import nan

import pytest

from hbn.data import bids, events
from hbn.files import HbnError

HEADER = "onset\tduration\tsample\tvalue\tevent_code\tfeedback\n"


@pytest.fixture
def table(tmp_path):
    """Write rows of (onset, value[, feedback]) as an events file and read it."""

    def write(*rows, header=HEADER):
        lines = [f"{r[0]}\tn/a\t0\t{r[1]}\t1\t{r[2] if len(r) > 2 else 'n/a'}" for r in rows]
        (tmp_path / "events.tsv").write_text(header + "\n".join(lines) + "\n")
        return events.read_events(tmp_path / "events.tsv")

    return write


def test_hits_errors_misses_and_early_presses(table):
    trials, dropped = events.contrast_trials(
        table(
            (0, "break cnt"),
            (1, "contrastChangeB1_start"),
            (2, "contrastTrial_start"),
            (4.8, "left_target"),
            (6.3, "left_buttonPress", "smiley_face"),
            (6.5, "right_buttonPress", "non_target"),
            (7.2, "contrastTrial_start"),
            (8, "right_buttonPress", "non_target"),
            (11.6, "right_target"),
            (14, "contrastTrial_start"),
            (20, "right_target"),
            (21.25, "left_buttonPress", "sad_face"),
            (22.4, "contrastTrial_start"),
        ),
        run=1,
    )
    assert not dropped
    assert [(t.trial, t.side, t.outcome, t.early_press) for t in trials] == [
        (0, "left", "correct", False),
        (1, "right", "miss", True),
        (2, "right", "wrong", False),
    ]
    assert [t.rt_s for t in trials] == [pytest.approx(1.5), None, pytest.approx(1.25)]
    assert [t.foreperiod_s for t in trials] == pytest.approx([2.8, 4.4, 6.0])
    assert [t.n_presses_after for t in trials] == [2, 0, 1]
    assert not any(t.fast_block for t in trials)


@pytest.mark.parametrize("onset", ["n/a", "-1", "inf", ""])
def test_a_trial_with_a_row_without_time_is_dropped_and_counted_not_taken_for_a_miss(table, onset):
    trials, dropped = events.contrast_trials(
        table(
            (1, "contrastChangeB1_start"),
            (2, "contrastTrial_start"),
            (4.8, "left_target"),
            (onset, "left_buttonPress", "smiley_face"),
            (7.2, "contrastTrial_start"),
            (10, "right_target"),
        ),
        run=1,
    )
    assert [(t.trial, t.outcome) for t in trials] == [(1, "miss")]
    assert dropped == {"no_onset": 1}


def test_only_the_runs_own_block_counts(table):
    rows = table(
        (0, "right_target"),
        (1, "contrastChangeB1_start"),
        (2, "contrastTrial_start"),
        (4.8, "left_target"),
        (10, "contrastChangeB2_start"),
        (11, "contrastTrial_start"),
        (13.8, "right_target"),
        (15, "right_buttonPress", "smiley_face"),
    )
    first, dropped = events.contrast_trials(rows, run=1)
    assert [t.outcome for t in first] == ["miss"]  # the press belongs to the other block
    assert dropped == {"foreign_block": 1, "before_first_block": 1}
    second, dropped = events.contrast_trials(rows, run=2)
    assert [t.outcome for t in second] == ["correct"]
    trials, dropped = events.contrast_trials(rows, run=3)
    assert trials == []
    assert dropped == {"foreign_block": 2, "before_first_block": 1, "file_without_own_block": 1}
    assert events.contrast_trials([], run=1) == ([], {"file_without_own_block": 1})


def test_a_block_started_twice_keeps_the_longer_one(table):
    rows = table(
        (1, "contrastChangeB1_start"),
        (2, "contrastTrial_start"),
        (4.8, "left_target"),
        (10, "contrastChangeB1_start"),
        (12, "contrastTrial_start"),
        (14.8, "left_target"),
        (17.2, "contrastTrial_start"),
        (20, "right_target"),
    )
    trials, dropped = events.contrast_trials(rows, run=1)
    assert [t.onset_s for t in trials] == [14.8, 20]
    assert dropped == {"repeated_block": 1}


def test_file_order_decides_where_onsets_are_tied(table):
    start = [(1, "contrastChangeB1_start"), (2, "contrastTrial_start"), (4.8, "left_target")]
    press, following = (7.2, "left_buttonPress", "smiley_face"), (7.2, "contrastTrial_start")
    assert events.contrast_trials(table(*start, press, following), 1)[0][0].outcome == "correct"
    assert events.contrast_trials(table(*start, following, press), 1)[0][0].outcome == "miss"


def test_fast_block_is_seen_in_the_foreperiods(table):
    rows = [(1, "contrastChangeB1_start")]
    for onset, foreperiod in ((2, 4.1), (10, 1.91), (20, 3.0)):
        rows += [(onset, "contrastTrial_start"), (onset + foreperiod, "left_target")]
    trials, _ = events.contrast_trials(table(*rows), run=1)
    assert all(t.fast_block for t in trials)


def test_a_block_cut_short_or_with_odd_foreperiods_has_the_speed_of_most(table):
    def speed(*foreperiods_s):
        rows = [(1, "contrastChangeB1_start")]
        for i, foreperiod_s in enumerate(foreperiods_s):
            rows += [(20 * i + 2, "contrastTrial_start"), (20 * i + 2 + foreperiod_s, "left_target")]
        return {t.fast_block for t in events.contrast_trials(table(*rows), run=1)[0]}

    assert speed(3.0, 4.1) == {True}
    assert speed(2.798, 7.67, 4.4, 7.67, 6.01) == {False}  # as in a real file
    assert speed(2.8, 4.4, 6.0, 0.5) == {False}


def test_a_trial_with_an_interruption_is_dropped_and_the_next_keeps_its_number(table):
    trials, dropped = events.contrast_trials(
        table(
            (1, "contrastChangeB1_start"),
            (2, "contrastTrial_start"),
            (4.8, "left_target"),
            (5.5, "boundary"),
            (7.2, "contrastTrial_start"),
            (10, "left_target"),
            (12.4, "contrastTrial_start"),
            (30.001, "boundary"),
        ),
        run=1,
    )
    assert [t.trial for t in trials] == [1]
    assert dropped == {"boundary": 1}


def test_presses_without_usable_feedback_and_double_targets_are_counted_not_guessed(table):
    trials, dropped = events.contrast_trials(
        table(
            (1, "contrastChangeB1_start"),
            (2, "contrastTrial_start"),
            (4.8, "left_target"),
            (6, "left_buttonPress", "non_target"),
            (7.2, "contrastTrial_start"),
            (10, "left_target"),
            (10.1, "right_target"),
        ),
        run=1,
    )
    assert trials == []
    assert dropped == {"press_without_feedback": 1, "several_targets": 2}


def test_irregular_rows_are_survived(table, tmp_path):
    found = table(
        (0, "9999"), ("n/a", "left_target"), (1.5, "boundary"), (2, "/data/some/file.mff"), (-1, "x"), ("nan", "x")
    )
    assert [e.value for e in found] == ["9999", "left_target", "boundary", "/data/some/file.mff", "x", "x"]
    assert [e.onset_s for e in found] == pytest.approx([0, nan, 1.5, 2, nan, nan], nan_ok=True)
    (tmp_path / "bad.tsv").write_text("time\tname\n1\tx\n")
    with pytest.raises(HbnError, match="one column onset and one column value"):
        events.read_events(tmp_path / "bad.tsv")
    (tmp_path / "no_feedback.tsv").write_text("onset\tvalue\n1\tx\n")
    assert events.read_events(tmp_path / "no_feedback.tsv") == [events.Event(1.0, "x", "n/a")]


def test_counts_of_the_real_tables(hbn_metadata):
    """Expected numbers were counted with awk in the files, not with this parser."""
    outcomes, dropped, files, presses = Counter(), Counter(), 0, Counter()
    for path in sorted((hbn_metadata / "R1").glob("sub-*/eeg/*contrastChangeDetection*_events.tsv")):
        trials, reasons = events.contrast_trials(events.read_events(path), bids.Recording.of(path.name).run)
        outcomes.update(t.outcome for t in trials)
        dropped, files = dropped + reasons, files + 1
        assert [t.trial for t in trials] == list(range(24))
        presses.update(early=sum(t.early_press for t in trials), two=sum(t.n_presses_after >= 2 for t in trials))
        assert not any(t.fast_block for t in trials)
    assert files == 33
    assert outcomes == {"correct": 612, "wrong": 59, "miss": 121}
    assert dropped == {"foreign_block": 168}
    assert presses == {"early": 141, "two": 37}


def test_every_real_events_table_is_read_completely(hbn_metadata):
    paths = sorted((hbn_metadata / "R1").glob("sub-*/eeg/*_events.tsv"))
    assert len(paths) == 136
    for path in paths:
        assert len(events.read_events(path)) == len(path.read_text().splitlines()) - 1
