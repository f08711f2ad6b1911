"""Every irregularity known from real files of HBN-EEG, one test each; on the real files where R1 has it.

Tested elsewhere: tied onsets, fast blocks, odd foreperiods, a block twice, boundaries in a trial, file order
(test_events); exact copies counted once (test_leakage, and below on the real ones); availability that is not
true, placeholders (test_fetch); recordings that are too short, unreadable or of another rate (test_preprocess).
"""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

import cache_windows
from hbn import params
from hbn.data import bids, cleaning, events
from hbn.data.manifest import write_label
from hbn.data.participants import read_participants
from hbn.files import read_json, read_tsv, write_json, write_text, write_tsv
from hbn.simulator import people
from hbn.sources.simulated import SimulatedSource
from hbn.stage import view

P = params.load()
COLUMNS = ["onset", "duration", "sample", "value", "event_code", "feedback"]
OWN_TASK = "contrastChangeDetection"


def tables(hbn_metadata, task=""):
    """All real event tables of a task: (recording, path)."""
    paths = sorted((hbn_metadata / "R1").glob(f"sub-*/eeg/*_task-{task}*_events.tsv"))
    assert paths
    return [(bids.Recording.of(path.name), path) for path in paths]


def row(onset, value, feedback="n/a", **more):
    return {
        "onset": onset,
        "duration": "n/a",
        "sample": "0",
        "value": value,
        "event_code": 1,
        "feedback": feedback,
    } | more


def block(run=1, n_trials=24, press=lambda k, side: (f"{side}_buttonPress", "smiley_face"), begin_s=10.0):
    """Rows of a block: targets 2.8 s after the trial start, presses (value, feedback) 1.5 s after the target."""
    rows = [row(begin_s - 2, f"contrastChangeB{run}_start")]
    for k in range(n_trials + 1):
        start_s, side = begin_s + 5.2 * k, ("left", "right")[k % 2]
        rows.append(row(start_s, "contrastTrial_start"))
        if k < n_trials:
            rows.append(row(start_s + 2.8, f"{side}_target"))
            rows += [row(start_s + 4.3, *pressed) for pressed in [press(k, side)] if pressed]
    return rows


@pytest.fixture
def parse(tmp_path):
    """Trials of a table of rows and what was dropped."""

    def parse(rows, run=1):
        write_tsv(tmp_path / "events.tsv", rows, COLUMNS)
        return events.contrast_trials(events.read_events(tmp_path / "events.tsv"), run)

    return parse


# contrastChangeDetection


def test_copies_of_the_next_runs_block_in_real_files_are_that_runs_trials_and_count_once(hbn_metadata):
    found = {}
    for recording, path in tables(hbn_metadata, OWN_TASK):
        table = events.read_events(path)
        found[recording] = {run: events.contrast_trials(table, run)[0] for run in (1, 2, 3)}
    copies = [(one, run) for one, blocks in found.items() for run in (1, 2, 3) if run != one.run and blocks[run]]
    assert len(copies) == 7
    for one, run in copies:
        assert run == one.run + 1
        original = found[bids.Recording(one.participant_id, one.task, run)][run]
        copy = found[one][run]
        assert [(t.trial, t.side, t.outcome) for t in copy] == [(t.trial, t.side, t.outcome) for t in original]
        response_s = [[t.rt_s or 0 for t in trials] for trials in (copy, original)]
        assert response_s[0] == pytest.approx(response_s[1], abs=0.003)


def test_an_aborted_foreign_block_is_counted_and_left_out(parse):
    rows = [*block(run=2, n_trials=5, begin_s=10)[:-3], *block(run=1, begin_s=100)]  # it ends within a trial
    trials, dropped = parse(rows, run=1)
    assert len(trials) == 24
    assert trials[0].onset_s == pytest.approx(102.8)
    assert dropped == {"foreign_block": 4}


def test_the_25th_trial_start_has_no_target_and_is_no_trial(parse):
    assert [t.trial for t in parse(block())[0]] == list(range(24))


def test_tied_onsets_in_a_real_file_are_taken_in_file_order(hbn_metadata):
    stem = "sub-NDARBK082PDD/eeg/sub-NDARBK082PDD_task-contrastChangeDetection_run-1_events.tsv"
    table = events.read_events(hbn_metadata / "R1" / stem)
    [tied] = [i for i, (a, b) in enumerate(pairwise(table)) if a.onset_s == b.onset_s]
    assert [event.value for event in table[tied : tied + 2]] == ["left_buttonPress", "contrastTrial_start"]
    trial = next(t for t in events.contrast_trials(table, 1)[0] if t.onset_s > table[tied].onset_s - 2.5)
    assert trial.outcome == "correct"  # its feedback is a smiley face
    assert trial.onset_s + trial.rt_s == pytest.approx(table[tied].onset_s)


@pytest.mark.parametrize("answered", [0, 1, 5])
def test_runs_with_few_or_no_responses_are_misses(parse, answered):
    trials, dropped = parse(
        block(press=lambda k, side: (f"{side}_buttonPress", "smiley_face") if k < answered else None)
    )
    assert Counter(t.outcome for t in trials) == Counter({"correct": answered, "miss": 24 - answered})
    assert [t.rt_s is None for t in trials] == [k >= answered for k in range(24)]
    assert not dropped


def test_runs_with_one_button_only_have_the_outcome_of_the_feedback(parse):
    trials, _ = parse(
        block(press=lambda k, side: ("left_buttonPress", "smiley_face" if side == "left" else "sad_face"))
    )
    assert Counter((t.side, t.outcome) for t in trials) == {("left", "correct"): 12, ("right", "wrong"): 12}


def test_swapped_buttons_do_not_matter_the_feedback_decides(parse):
    other = {"left": "right", "right": "left"}
    trials, _ = parse(block(press=lambda k, side: (f"{other[side]}_buttonPress", "smiley_face")))
    assert {t.outcome for t in trials} == {"correct"}


def test_presses_long_after_an_aborted_block_are_no_responses(parse):
    """The block breaks off after a target; the buttons pressed then are of another task."""
    rows = block(n_trials=2, press=lambda k, side: None)[:-1]
    rows += [row(100, "seqLearning_start"), row(130, "left_buttonPress")]
    trials, dropped = parse(rows)
    assert [t.outcome for t in trials] == ["miss"]
    assert dropped == {"press_without_feedback": 1}


def test_events_of_other_tasks_around_a_block_change_no_trial(parse):
    own = block()
    before = [row(0, "video_stop"), row(1, "stim_ON"), row(2, "left_buttonPress")]
    after = [row(200, "surroundSuppB1_start"), row(201, "right_buttonPress"), row(202, "dot_no3_ON")]
    assert parse([*before, *own, *after]) == parse(own)


def test_events_of_other_tasks_in_real_files_change_no_trial(hbn_metadata):
    n_others = 0
    for recording, path in tables(hbn_metadata, OWN_TASK):
        table = events.read_events(path)
        own = [e for e in table if e.value.startswith("contrast") or e.value.endswith(("_target", "_buttonPress"))]
        n_others += sum(e.value in ("video_start", "video_stop") for e in table)
        assert events.contrast_trials(table, recording.run) == events.contrast_trials(own, recording.run)
    assert n_others == 27


# Other tasks


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Run cache_windows on one recording of 20 s with this event table; its trials and metrics."""

    def run(task, rows, columns=COLUMNS):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("DVC_ROOT", raising=False)
        stem = f"sub-A_task-{task}"
        write_tsv(tmp_path / f"data/raw/R1/sub-A/eeg/{stem}_events.tsv", rows, columns)
        person = {"participant_id": "sub-A", "sex": "F", "age": 9.5, **dict.fromkeys(bids.FACTORS, 0.1)}
        write_tsv(tmp_path / "data/raw/R1/participants.tsv", [person], list(person))
        write_json(
            tmp_path / f"data/preprocessed/R1/sub-A/{stem}_eeg.json",
            {"sfreq_hz": 100, "scale_uv": 1.0, "dead_samples": [], "gaps_s": []},
        )
        np.save(tmp_path / f"data/preprocessed/R1/sub-A/{stem}_eeg.npy", np.zeros((2000, 129), np.float16))
        write_label(tmp_path / "data/raw/R1", "simulated")
        cache_windows.main(view(P, ("splits", "windows")), "R1")
        return read_json(tmp_path / "metrics/windows/R1.json")

    return run


NEXT_TASK = block(n_trials=2, begin_s=8)


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("RestingState", [row(0, "break cnt"), row(1.3, "resting_start")]),  # without prompts
        ("RestingState", [row(0, "break cnt"), row(1.3, "resting_start"), *NEXT_TASK]),
        ("ThePresent", [row(0, "9999"), row(1, "video_start")]),  # without stop
        ("ThePresent", [row(0, "9999"), row(1, "video_start"), row(6, "video_stop"), *NEXT_TASK]),
        ("surroundSupp", [row(2, "surroundSuppB1_start"), row(3, "stim_ON"), row(5.9, "fixpoint_ON"), *NEXT_TASK]),
        ("surroundSupp", [row(2, "surroundSuppB1_start"), row(3, "stim_ON"), row(8.3, "fixpoint_ON")]),
        ("symbolSearch", []),
    ],
    ids=["no_prompts", "rest_next_task", "no_stop", "movie_next_task", "setup_1_next_task", "setup_2", "empty"],
)
def test_recordings_of_other_tasks_keep_all_windows_and_give_no_trials(cached, task, rows):
    metrics = cached(task, rows)
    assert metrics["recordings"] == {task: 1}
    assert metrics["windows"] == {task: 19}  # of 2 s every second, in 20 s
    assert metrics["trials"] == metrics["dropped_trials"] == {}


def test_other_tasks_in_real_files_are_read_with_their_next_tasks_events(hbn_metadata):
    resting = [events.read_events(path) for _, path in tables(hbn_metadata, "RestingState")]
    assert sum(any(e.value == "seqLearning_start" for e in table) for table in resting) == 1
    assert {sum(e.value == "instructed_toCloseEyes" for e in table) for table in resting} == {5}
    movies = [events.read_events(p) for one, p in tables(hbn_metadata) if one.task in people.MOVIES_S]
    assert sum(any(e.value == "contrastTrial_start" for e in table) for table in movies) == 1
    suppression = [events.read_events(p) for _, p in tables(hbn_metadata, "surroundSupp")]
    assert {sum(e.value == "stim_ON" for e in table) for table in suppression} == {64}


# Irregular rows, sidecars and participants


@pytest.mark.parametrize("value", ["break cnt", "9999", "n/a", "dot_no7_OFF"])
def test_whatever_stands_in_the_first_row_is_no_trial(parse, value):
    assert parse([row(0, value), *block()]) == parse(block())


def test_a_target_at_onset_0_is_counted_and_left_out(parse):
    trials, dropped = parse([row(0, "left_target"), *block()])
    assert len(trials) == 24
    assert dropped == {"before_first_block": 1}


def test_first_rows_of_the_real_tables(hbn_metadata):
    first = Counter(events.read_events(path)[0].value for _, path in tables(hbn_metadata))
    assert first == {"break cnt": 86, "9999": 48, "dot_no7_OFF": 1, "n/a": 1}  # counted with cut and uniq


def test_half_integer_samples_and_codes_of_any_kind_are_read(parse):
    odd = [row(0, "break cnt", event_code="break cnt"), row(5, "boundary", sample="2500.5", event_code="boundary")]
    odd += [row(5.5, "9999", event_code=9999), row(6, "n/a", event_code="n/a", sample="n/a")]
    assert parse([*odd, *block()]) == parse(block())


def test_half_integer_samples_of_the_real_boundaries(hbn_metadata):
    n = 0
    for _, path in tables(hbn_metadata):
        samples = [float(one["sample"]) for one in read_tsv(path) if one["value"] == "boundary"]
        read = [500 * event.onset_s for event in events.read_events(path) if event.value == "boundary"]
        assert all(sample % 1 == 0.5 for sample in samples)
        assert read == pytest.approx(samples, abs=0.5)  # onsets are in milliseconds
        n += len(samples)
    assert n == 82  # counted with awk


def test_a_value_that_is_a_file_path_is_text(parse):
    path, rows = "D:\\stimuli\\movie 1.avi", block()
    assert parse([*rows[:2], row(12, path), *rows[2:]]) == parse(rows)
    trials, dropped = parse([*rows[:3], row(13.5, path), *rows[3:]])  # it may have been a press
    assert trials == parse(rows)[0][1:]
    assert dropped == {"unknown_value": 1}


def test_a_table_without_columns_loses_its_recording_with_a_counted_reason(cached):
    metrics = cached("RestingState", [{"time": 1, "name": "x"}], ["time", "name"])
    assert metrics["unusable_events"] == {"RestingState": {"events_columns": 1}}
    assert metrics["recordings"] == {}


@pytest.mark.parametrize(
    ("sidecar", "duration_s"), [({"RecordingDuration": 12}, 12), ({"RecordingDuration": 12.5}, 12.5), ({}, 7)]
)
def test_sidecars_without_channel_count_with_whole_or_no_duration(tmp_path, sidecar, duration_s):
    stem = tmp_path / "R1/sub-A/eeg/sub-A_task-ThePresent"
    write_tsv(f"{stem}_events.tsv", [row(0, "9999"), row(5, "video_start")], COLUMNS)
    write_json(f"{stem}_eeg.json", sidecar)
    person = {"participant_id": "sub-A", "sex": "F", "age": 9.5, **dict.fromkeys(bids.FACTORS, 0.1)}
    write_tsv(tmp_path / "R1/participants.tsv", [person], list(person))
    settings = P.simulator.model_copy(update={"metadata_dir": str(tmp_path), "sfreq_hz": 100})
    source = SimulatedSource("R1", settings)
    assert source.signal_uv(bids.Recording("sub-A", "ThePresent", None)).shape == (129, 100 * duration_s)


def test_a_recording_of_one_second_is_rejected_and_one_of_an_hour_is_cut_into_windows():
    with pytest.raises(bids.UnusableRecording, match="too_short"):
        cleaning.clean(np.ones((129, 500), np.float32), 500, 500, P.preprocess)
    from hbn.data.windows import window_starts

    assert len(window_starts(3736 * 500, 1000, 500, [])) == 3735


def test_a_recording_made_at_250_hz_and_stored_at_500_has_no_bad_channels_for_that():
    from small_recordings import scalp_uv

    data_uv = scalp_uv()
    spectrum = np.fft.rfft(data_uv)
    spectrum[:, np.fft.rfftfreq(data_uv.shape[1], 1 / 500) > 125] = 0
    upsampled_uv = np.fft.irfft(spectrum, data_uv.shape[1]).astype(np.float32)
    limits = (500, P.preprocess.flat_uv, P.preprocess.noisy_z, P.preprocess.min_neighbour_correlation)
    assert cleaning.bad_channels(upsampled_uv, *limits) == cleaning.bad_channels(data_uv, *limits)


def test_some_factors_only_count_as_none(tmp_path):
    header = "participant_id\tsex\tage\tehq_total\t" + "\t".join(bids.FACTORS)
    write_text(tmp_path / "participants.tsv", f"{header}\nsub-A\tF\t9.5\t-100.05\t0.6779999999999999\tn/a\t0.1\t0.2\n")
    [one] = read_participants(tmp_path, "R1")
    assert one.factors is None


def test_float_noise_and_ehq_of_the_real_participants(hbn_metadata):
    text = (hbn_metadata / "R1/participants.tsv").read_text()
    assert "100.05" in text
    noisy = [line for line in text.splitlines() if "0000000" in line or "9999999" in line]
    assert len(noisy) > 40
    by_id = {one.participant_id: one for one in read_participants(hbn_metadata / "R1", "R1")}
    assert len(by_id) == 136
    for line in noisy:
        values = by_id[line.split("\t")[0]].factors.values()
        assert all(value == pytest.approx(round(value, 4), abs=1e-9) for value in values)
