"""The trial table of contrast change detection, on hand-made tables and on real ones."""

import re
from collections import Counter
from math import nan

import numpy as np
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
            (12.4, "contrastTrial_start"),
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
        (22.4, "contrastTrial_start"),
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


# Tables that other programs wrote


BLOCK = [(0.5, "contrastChangeB1_start", "n/a")]
for _k in range(6):
    _start_s = 3.25 + 5.375 * _k
    BLOCK += [
        (_start_s, "contrastTrial_start", "n/a"),
        (_start_s + 2.8, ("left_target", "right_target")[_k % 2], "n/a"),
    ]
    BLOCK += [(_start_s + 4.4, "left_buttonPress", ("smiley_face", "sad_face")[_k % 2])]
DURATION_S = 40.0


def rendered(onset=lambda s: f"{s:.4f}", sample=lambda s: f"{500 * s:.0f}", header=HEADER, cell=str, code="1") -> str:
    """A table of BLOCK as text."""
    lines = [f"{onset(s)}\tn/a\t{sample(s)}\t{cell(value)}\t{code}\t{cell(feedback)}\n" for s, value, feedback in BLOCK]
    return header + "".join(lines)


def trials_of(content: bytes):
    table = events.parse_events(content, "x_events.tsv", DURATION_S)
    trials, dropped = events.contrast_trials(table, 1)
    targets = sum(event.value in events.TARGETS for event in table)
    assert targets == len(trials) + sum(n for why, n in dropped.items() if why not in events.FILE_REASONS)
    return trials, dropped


HEALTHY = rendered()
NO_SAMPLE = "onset\tduration\tunused\tvalue\tevent_code\tfeedback\n"


@pytest.mark.parametrize(
    "content",
    [
        HEALTHY.encode("utf-8-sig"),
        HEALTHY.encode("utf-16"),
        b"\xfe\xff" + HEALTHY.encode("utf-16-be"),
        HEALTHY.replace("\n", "\r\n").encode(),
        HEALTHY.replace("\n", "\r").encode(),
        HEALTHY[:-1].encode(),
        (HEALTHY + "\n \n").encode(),
        HEALTHY.replace("\n", "\t\n").encode(),
        rendered(code="d\u00e9but").encode("latin-1"),
        rendered(code='"break').encode(),
        rendered(code='24" screen').encode(),
        rendered(code='"left\thand ""b"""').encode(),
        rendered(code='"a"b"').encode(),
        rendered(cell=lambda text: f'"{text}"').encode(),
        rendered(cell=lambda text: f" {text}  ").encode(),
        rendered(onset=lambda s: f"{s:.4f}".replace(".", ",")).encode(),
        rendered(
            onset=lambda s: f"{s:g}".replace(".", ","), sample=lambda s: f"{500 * s:.1f}".replace(".", ",")
        ).encode(),
        rendered(header=HEADER.title().replace("Value", "VALUE ")).encode(),
        rendered(header=NO_SAMPLE).encode(),
    ],
    ids=[
        *("bom", "utf16", "utf16_be", "crlf", "cr", "no_end", "blank_lines", "trailing_tab", "latin1", "open_quote"),
        *("inches", "quoted_tab", "quotes_within", "all_quoted", "blanks", "comma", "comma_short", "case", "no_sample"),
    ],
)
def test_what_another_program_saved_gives_the_same_trials(content):
    trials, dropped = trials_of(content)
    healthy, _ = trials_of(HEALTHY.encode())
    assert [trial.outcome for trial in healthy] == ["correct", "wrong"] * 3
    assert [(t.side, t.outcome, t.trial) for t in trials] == [(t.side, t.outcome, t.trial) for t in healthy]
    assert [t.onset_s for t in trials] == pytest.approx([t.onset_s for t in healthy], abs=1e-3)
    assert [t.rt_s for t in trials] == pytest.approx([t.rt_s for t in healthy], abs=1e-3)
    assert dropped == {}


@pytest.mark.parametrize(
    ("content", "reason", "says"),
    [
        (rendered(onset=lambda s: f"{500 * s:.0f}"), "events_onsets", "1 samples fall on one unit of onset"),
        (rendered(onset=lambda s: f"{1000 * s:.0f}"), "events_onsets", "0.5 samples fall"),
        (rendered(onset=lambda s: f"{s / 60:.6f}"), "events_onsets", "30000 samples fall"),
        (
            rendered(onset=lambda s: f"{100 * s:.0f}", header=NO_SAMPLE),
            "events_onsets",
            "the end of the recording",
        ),
        (rendered(onset=lambda s: f"{1000 * s:,.0f}"), "events_onsets", "decimals or thousands"),
        (rendered(onset=lambda s: f"1.234,{s:.0f}"), "events_onsets", "decimals or thousands"),
        (rendered(onset=lambda s: f"{s:.1f} s"), "events_onsets", "most onsets are no numbers, such as '0.5 s'"),
        (rendered(onset=lambda s: f"0:{s:.0f}"), "events_onsets", "most onsets are no numbers"),
        (HEALTHY + "41\tn/a\n", "events_unreadable", "row 20 has fewer cells"),
        (HEALTHY.replace("n/a\t", "n/a\t\t", 1), "events_unreadable", "line 2 has 7 cells, the header has 6"),
        (HEALTHY.replace("duration", "Onset"), "events_columns", "it has onset, onset, sample"),
        (HEALTHY.replace("duration", "value"), "events_unreadable", "the column 'value' stands twice"),
        (HEALTHY.replace("value", "trial_type"), "events_columns", "it has onset, duration, sample, trial_type"),
        (HEALTHY.encode("utf-16-le"), "events_unreadable", "line 1 holds a NUL character"),
        (HEALTHY.encode("utf-16")[:-1], "events_unreadable", "begins as UTF-16"),
        (HEALTHY.replace("\t", ","), "events_columns", "it has onset,duration"),
    ],
)
def test_what_is_ambiguous_costs_the_recording_and_says_why(content, reason, says):
    with pytest.raises(bids.UnusableRecording, match=re.escape(says)) as caught:
        trials_of(content if isinstance(content, bytes) else content.encode())
    assert caught.value.reason == reason
    assert "x_events.tsv" in str(caught.value)


def test_a_time_that_contradicts_its_neighbours_or_its_sample_costs_its_trial_alone():
    healthy, _ = trials_of(HEALTHY.encode())
    for header in (HEADER, NO_SAMPLE):
        content = rendered(header=header).replace("16.8000", "61.8000")  # the third target
        assert content != rendered(header=header)
        trials, dropped = trials_of(content.encode())
        assert [trial.trial for trial in trials] == [0, 1, 3, 4, 5]
        assert dropped == {"no_onset": 1}
        assert trials == healthy[:2] + healthy[3:]


def test_a_block_begun_and_aborted_has_no_trials_and_is_counted():
    for n_rows in (1, 2):
        content = "".join(HEALTHY.splitlines(keepends=True)[: 1 + n_rows]).encode()
        assert trials_of(content) == ([], {"block_without_targets": 1})
    lines = HEALTHY.splitlines(keepends=True)
    assert trials_of("".join([*lines[:2], *lines[3:4]]).encode()) == ([], {"no_trial_start": 1})
    again = [line.replace("0.5000", "0.1000").replace("250", "50") for line in lines[1:2]]
    assert trials_of("".join([lines[0], *again, *lines[1:]]).encode())[1] == {}  # started twice


def test_a_miss_needs_a_table_that_goes_on():
    """A table that ends after a target says nothing of the response."""
    lines = HEALTHY.splitlines(keepends=True)
    last = max(i for i, line in enumerate(lines) if "_target" in line)
    trials, dropped = trials_of("".join(lines[: last + 1]).encode())
    assert [trial.trial for trial in trials] == [0, 1, 2, 3, 4]
    assert dropped == {"table_ends": 1}
    for value in ("contrastTrial_start", "9999"):
        later = f"60.0\tn/a\t30000\t{value}\t1\tn/a\n"
        trials, dropped = trials_of("".join([*lines[: last + 1], later]).encode())
        assert (trials[-1].outcome, dropped) == ("miss", {})


GAPS_S = [(9.0, 14.0), (25.0, 30.0)]


def without_pauses(s: float) -> float:
    return s - sum(min(max(s - a, 0), b - a) for a, b in GAPS_S)


@pytest.mark.parametrize(
    ("sample", "header", "duration_s", "warns"),
    [
        (lambda s: f"{500 * s:.0f}", HEADER, 200, True),
        (lambda s: f"{500 * s:.0f}", HEADER, 42, False),  # onsets that only a recording with its pauses has
        (lambda s: f"{500 * without_pauses(s):.0f}", HEADER, 200, False),  # samples in the file tell
        (lambda s: "n/a", NO_SAMPLE, 200, True),
    ],
)
def test_onsets_count_the_pauses_of_a_recording_and_what_may_not_is_said(caplog, sample, header, duration_s, warns):
    content = rendered(sample=sample, header=header).encode()
    healthy = events.parse_events(HEALTHY.encode(), "x_events.tsv", 200)
    table = events.parse_events(content, "x_events.tsv", duration_s, GAPS_S)
    assert [event.onset_s for event in table] == pytest.approx([event.onset_s for event in healthy])
    assert ("nothing shows whether its onsets count the 10.0 s of pauses" in caplog.text) == warns
    wrong = content.decode().replace("16.8000", "17.8000")
    if header == HEADER:
        assert sum(np.isnan(e.onset_s) for e in events.parse_events(wrong.encode(), "x", duration_s, GAPS_S)) == 1


def test_a_placeholder_of_a_table_is_named(tmp_path):
    path = tmp_path / "x_events.tsv"
    path.symlink_to("../.git/annex/objects/x")
    for _ in range(2):
        with pytest.raises(bids.UnusableRecording, match=r"datalad get x_events\.tsv") as caught:
            events.read_events(path)
        assert caught.value.reason == "pointer"
        path.unlink()
        path.write_text("/annex/objects/MD5E-s1--00.tsv\n")
    path.unlink()
    with pytest.raises(bids.UnusableRecording, match="does not exist"):
        events.read_events(path)


def test_no_damaged_byte_gives_a_wrong_window_or_label(caplog):
    """Any byte replaced by any other: the table is refused, or trials keep their times, or they are counted."""
    rng, healthy = np.random.default_rng(5), {t.trial: t for t in trials_of(HEALTHY.encode())[0]}
    outcomes = Counter()
    caplog.set_level("ERROR")  # not a line for every byte that is no UTF-8
    for _ in range(3000):
        content = bytearray(HEALTHY.encode())
        content[rng.integers(len(HEADER), len(content))] = rng.integers(256)
        try:
            trials, dropped = trials_of(bytes(content))
        except bids.UnusableRecording as error:
            outcomes[error.reason] += 1
            continue
        outcomes["same" if trials == list(healthy.values()) else "fewer" if dropped else "other"] += 1
        for trial in trials:
            right = min(healthy.values(), key=lambda t: abs(trial.onset_s - t.onset_s))
            assert (trial.side, trial.outcome) == (right.side, right.outcome)
            assert trial.onset_s == pytest.approx(right.onset_s, abs=events.TOLERANCE_S)
            assert trial.rt_s == pytest.approx(right.rt_s, abs=events.TOLERANCE_S)
    assert outcomes["same"] > 700
    assert outcomes["fewer"] > 100
    assert outcomes["events_unreadable"] > 100


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
