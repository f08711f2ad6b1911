"""cache_windows and assemble: every trial and event is in the tables or counted."""

import numpy as np
import pytest

import assemble
import cache_windows
from hbn import params
from hbn.data.bids import FACTORS, Recording
from hbn.data.dataset import TABLES, Dataset
from hbn.data.event_kinds import KINDS, TASKS
from hbn.data.events import Event
from hbn.data.release_tables import ReleaseTables
from hbn.files import HbnError, read_csv, read_json, write_json, write_tsv
from hbn.stage import view

P = params.load()
SFREQ_HZ = 100
ROW = {"recording": "x", "task": "contrastChangeDetection", "samples": 2000, "sfreq_hz": SFREQ_HZ}
CONTRAST, REST = "contrastChangeDetection_run-1", "RestingState"
BLOCK = [
    *[(0, "9999"), (1, "contrastChangeB1_start"), (2, "contrastTrial_start"), (4.8, "left_target")],
    *[(6, "left_buttonPress", "smiley_face"), (7.2, "contrastTrial_start"), (10, "right_target")],
    *[(12.41, "boundary"), (12.5, "contrastTrial_start"), (17.6, "right_target"), (19, "contrastTrial_start")],
    *[(25, "left_target")],
]


@pytest.fixture
def release(workspace):
    """Write a release of recordings of 20 s ((participant, task) -> rows of onset, value[, feedback]) and cache it."""

    def write(name, tables):
        raw, preprocessed = workspace / "data/raw" / name, workspace / "data/preprocessed" / name
        for (participant, task), rows in tables.items():
            stem = f"{participant}_task-{task}"
            columns = ("onset", "value", "feedback")
            rows = [dict(zip(columns, (*row, "n/a"), strict=False)) for row in rows]
            write_tsv(raw / participant / f"eeg/{stem}_events.tsv", rows, list(columns))
            write_json(
                preprocessed / participant / f"{stem}_eeg.json",
                {"sfreq_hz": SFREQ_HZ, "scale_uv": 1.0, "dead_samples": [], "gaps_s": []},
            )
            np.save(preprocessed / participant / f"{stem}_eeg.npy", np.zeros((2000, 129), np.float16))
        people = [{"participant_id": p, "sex": "F", "age": 9, **dict.fromkeys(FACTORS, 0.1)} for p, _ in tables]
        people = list({person["participant_id"]: person for person in people}.values())
        write_tsv(raw / "participants.tsv", people, list(people[0]))
        write_json(raw / "source.json", {"source": "a test"})
        cache_windows.main(view(P, ("splits", "windows")), name)
        return read_json(workspace / f"metrics/windows/{name}.json")

    return write


def named(events):
    """Rows of events.npy with the names of kinds and tasks."""
    return [(recording, sample, KINDS[kind], TASKS[task]) for recording, sample, kind, task in events.tolist()]


def test_every_trial_and_event_is_in_the_tables_or_counted(release, workspace):
    counts = release("R1", {("sub-A", CONTRAST): BLOCK})
    assert counts["trials"] == {"correct": 1}
    assert counts["dropped_trials"] == {"boundary": 1, "window_after_end": 1, "table_ends": 1}
    [trial] = read_csv(workspace / "data/windows/R1/trials.csv")
    assert int(trial["start_sample"]) == 530
    events = named(np.load(workspace / "data/windows/R1/events.npy"))
    assert {task for *_, task in events} == {"contrastChangeDetection"}
    assert [(sample, kind) for _, sample, kind, _ in events] == [
        *[(100, "start"), (480, "stimulus_onset"), (600, "press_left"), (720, "feedback")],
        *[(1000, "stimulus_onset"), (1250, "feedback"), (1760, "stimulus_onset"), (1900, "feedback")],
    ]
    assert counts["events"]["contrastChangeDetection"]["feedback"] == 3
    assert counts["events_left_out"] == {"of_no_kind": 3, "after_end": 1}  # 9999, boundary, the first trial start
    assert counts["events_left_out"]["of_no_kind"] + 1 + len(events) == len(BLOCK)
    assert np.load(workspace / "data/windows/R1/breaks.npy").tolist() == [[0, 1241, 1241]]
    starts = np.load(workspace / "data/windows/R1/windows.npy")[:, 1]
    assert 1100 not in starts
    assert {1000, 1200, 1300} - set(starts.tolist()) == {1200}


def test_no_trial_window_reaches_over_a_boundary_after_the_response_window(release):
    """The window ends 2.5 s after the target, and the response window 2.4 s after it."""
    block = [(1, "contrastChangeB1_start"), (2, "contrastTrial_start"), (4.8, "left_target"), (7.25, "boundary")]
    assert release("R1", {("sub-A", CONTRAST): block})["dropped_trials"] == {"boundary": 1}


def test_what_happens_in_a_pause_is_left_out_and_counted():
    """Target 1 comes in the pause from 4 to 6 s, though its window begins later; target 2 has its window in it."""
    block = [(0, "contrastChangeB1_start"), (0.5, "contrastTrial_start"), (2.8, "left_target")]
    block += [(5.8, "contrastTrial_start"), (5.9, "right_target"), (8, "contrastTrial_start"), (9, "left_target")]
    block += [(12, "contrastTrial_start")]
    tables = ReleaseTables()
    table = [Event(onset_s, value, "n/a") for onset_s, value in block]
    tables.add(Recording.of(f"sub-A_task-{CONTRAST}_eeg.set"), ROW, table, [(400, 600)], P.windows)
    counts = tables.counts()
    assert counts["trials"] == {"miss": 1}
    assert counts["dropped_trials"] == {"no_signal": 2}
    assert counts["events_left_out"]["no_signal"] == 2  # a target, and the trial start with the feedback of the first
    assert tables.breaks == [(0, 400, 600)]


def test_unusable_tables_and_aborted_blocks_cost_their_recording_alone(release, caplog):
    samples = [(round(500 * onset_s), *rest) for onset_s, *rest in BLOCK]
    tables = {("sub-A", CONTRAST): samples, ("sub-A", REST): [(1, "resting_start")]}
    tables[("sub-B", CONTRAST)] = [(0, "9999"), (1, "contrastChangeB1_start")]
    tables[("sub-C", CONTRAST)] = [*BLOCK[:4], (5, "what is this"), (6, "boundary")]
    counts = release("R1", tables)
    assert counts["unusable_events"] == {"contrastChangeDetection": {"events_onsets": 1}}
    assert "sub-A_task-contrastChangeDetection_run-1 is left out, events_onsets" in caplog.text
    assert counts["recordings"] == {"contrastChangeDetection": 2, "RestingState": 1}
    assert counts["trials"] == {}
    assert counts["recordings_without_trials"] == {"block_without_targets": 1}
    assert counts["dropped_trials"] == {"boundary": 1}
    assert counts["unknown_events"] == {"what is this": 1}


def test_the_dataset_holds_the_events_of_all_releases_and_leaves_out_a_task_wherever_it_stands(release, workspace):
    film = [(0, "9999"), (1, "video_start"), (5, "video_stop"), (6, "contrastChangeB2_start"), (9, "stim_ON")]
    film += [(10.5, "dot_no3_ON"), (15, "boundary")]
    people = {("sub-C", REST): [(1, "resting_start"), (3, "instructed_toCloseEyes")], ("sub-D", REST): []}
    release("R1", {("sub-A", REST): [(2, "resting_start")], ("sub-B", "ThePresent"): film, **people})
    release("R5", {("sub-E", "symbolSearch"): [(1, "symbolSearch_start"), (2, "newPage"), (4, "trialResponse")]})
    splits = {"test_releases": ["R5"], "validation_fraction": 0.5}
    p = view(P.model_copy(update={"splits": P.splits.model_copy(update=splits)}), ("splits", "windows"))
    cache_windows.main(p, "R1")
    releases = view(
        P.model_copy(update={"data": P.data.model_copy(update={"releases": ["R1", "R5"]})}), ("data.releases",)
    )
    assemble.main(releases)

    dataset = Dataset.open(workspace / "data/dataset", 2.0)
    events = dataset.events
    recording = [dataset.cache.recordings[i]["recording"] for i in events.recording]
    rows = list(zip(recording, events.sample.tolist(), [events.kinds[k] for k in events.kind], strict=True))
    others = [task for task in events.tasks if task != "contrastChangeDetection"]
    used = events.of(events.kinds, others)
    assert [row for row, is_used in zip(rows, used, strict=True) if is_used] == [
        ("sub-A_task-RestingState", 200, "start"),
        ("sub-B_task-ThePresent", 100, "start"),
        ("sub-B_task-ThePresent", 500, "stop"),
        ("sub-C_task-RestingState", 100, "start"),
        ("sub-C_task-RestingState", 300, "eyes_closed"),
        ("sub-E_task-symbolSearch", 100, "start"),
        ("sub-E_task-symbolSearch", 200, "stimulus_onset"),
        ("sub-E_task-symbolSearch", 400, "press"),
    ]
    assert [row[1:] for row, is_used in zip(rows, used, strict=True) if not is_used] == [
        *[(600, "start"), (900, "stimulus_onset"), (1050, "press_right")]
    ]
    assert events.of(("press", "press_right"), events.tasks).sum() == 2
    with pytest.raises(HbnError, match="press_list: no kind or task of events; there are press_left"):
        events.of(("press_list",), events.tasks)
    assert dataset.breaks.tolist() == [[1, 1500, 1500]]
    counts = read_json(workspace / "metrics/dataset.json")
    assert counts["events"]["contrastChangeDetection"] == {"start": 1, "stimulus_onset": 1, "press_right": 1}

    np.save(workspace / "data/dataset/events.npy", np.load(workspace / "data/dataset/events.npy")[1:])
    assert Dataset.open(workspace / "data/dataset", 2.0).sha256 != dataset.sha256
    assert {"events.npy", "breaks.npy"} < set(TABLES)
